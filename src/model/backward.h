/* Derivatives of the steps of a layer. SPDX-License-Identifier: MIT
 *
 * Every function turns the gradient of a step's output into that of its input, given what the step read. Rows are
 * tokens.
 */
#ifndef QINS_BACKWARD_H
#define QINS_BACKWARD_H

#include "model/calibrate_attention.h"

/* Of qins_apply_norm. x: its input; gradients of output and input may be the same array. A norm that is absent copies.
 */
void qins_norm_backward(const qins_hparams *h, const qins_norm *norm, size_t width, const float *x, size_t ldx,
                        size_t n_rows, const float *dy, size_t ldy, float *dx, size_t lddx);

/* Of qins_activate: dx[i] = dy[i] * act'(x[i]). */
void qins_activate_backward(qins_activation activation, const float *x, const float *dy, size_t n, float *dx);
/* Of qins_activate_gated, rows of width gates and width ups. */
void qins_activate_gated_backward(qins_activation activation, const float *gate_up, size_t width, size_t n_tokens,
                                  const float *dy, float *d_gate_up);

/* Of qins_sequence_attend. qkv: as it went in (not as that left it); dout[n][heads*head_dim]; dqkv like qkv. */
qins_status qins_sequence_attend_backward(const qins_sequence_attention *a, const qins_hparams *h,
                                          const qins_layer *layer, const float *qkv, const float *dout, float *dqkv,
                                          qins_error *err);

#endif
