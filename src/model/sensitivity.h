/* How much the predictions of a model move when a matrix is rounded. SPDX-License-Identifier: MIT
 *
 * To second order the KL divergence (nats a token) that an error dW of one matrix causes is half of E[(g . dW x)^2], g
 * the gradient of the log-likelihood of a token sampled from the model with respect to the matrix's output, x its
 * input: the Fisher information. Taking g and x as independent, and with row errors as feedback rounding leaves them,
 *
 *     KL = 1/2 sum_n E[g_n^2] * mse(bits) * |w_n|^2 / K * sum_j D_j / tokens
 *
 * H = U D U^T being the factored second moments of the inputs and mse the relative squared error of the codec at that
 * width. KL adds up over matrices.
 */
#ifndef QINS_SENSITIVITY_H
#define QINS_SENSITIVITY_H

#include "model/calibrate.h"

/* row_kl (may be NULL): row_kl[i][r], where row_kl[i] is not NULL, becomes the part of row r of linear i.
 * kl[i]: KL of item i of the plan when its relative squared error is 1; 0 for items that are not encoded. One forward
 * and one backward pass over up to max_sequences of the text. Memory: the hidden states before every layer, the
 * matrices of one layer, and the head, as FP32. Refuses mixtures of experts as QINS_ERR_UNSUPPORTED. */
qins_status qins_sensitivities(const qins_model *model, const qins_plan *plan, const qins_calibration_text *text,
                               size_t max_sequences, qins_progress progress, void *progress_user, double *kl,
                               float *const *row_kl, qins_error *err);

#endif
