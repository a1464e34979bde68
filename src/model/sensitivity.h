/* How much the predictions of a model move when a matrix is rounded. SPDX-License-Identifier: MIT
 *
 * To second order the KL divergence (nats a token) that an error dW of one matrix causes is half of E[(g . dW x)^2], g
 * the gradient of the log-likelihood of a token sampled from the model with respect to the matrix's output, x its
 * input: the Fisher information. With H = U D U^T the factored second moments of the inputs, feedback rounding leaves
 * row errors m U^-1, the m independent with the mean square mse(bits) * |w_n|^2 / K, so that
 *
 *     KL = 1/2 sum_n E[g_n^2 |U^-1 x|^2] * mse(bits) * |w_n|^2 / K
 *
 * mse being the relative squared error of the codec at that width. Tokens with large gradients (the first of a
 * sequence, to which many attend) are often those with unusual inputs: hence the mean of the product. E|U^-1 x|^2 is
 * the sum of D. KL adds up over matrices.
 */
#ifndef QINS_SENSITIVITY_H
#define QINS_SENSITIVITY_H

#include "model/calibrate.h"

/* row_kl (may be NULL): row_kl[i][r], where row_kl[i] is not NULL, becomes the part of row r of linear i.
 * Fills losses->kl, ->squared_gradient and ->hidden (of as many of the last tokens as there is room for) on the last
 * n_sequences of the text, by one forward and one backward pass. Memory: the hidden states before every layer, the
 * matrices of one layer, and the head, as FP32. Refuses mixtures of experts as QINS_ERR_UNSUPPORTED. */
qins_status qins_sensitivities(const qins_model *model, const qins_plan *plan, const qins_calibration_text *text,
                               size_t n_sequences, qins_progress progress, void *progress_user, qins_losses *losses,
                               float *const *row_kl, qins_error *err);

#endif
