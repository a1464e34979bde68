/* Normalisation and activation. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <math.h>
#include <string.h>

void qins_apply_norm_row(const qins_hparams *h, const qins_norm *norm, size_t n, const float *x, float *out) {
    if (norm->weight == NULL)
        memmove(out, x, n * sizeof *x);
    else if (h->family->norm == QINS_NORM_LAYER)
        qins_get_elementwise()->norm_layer(x, n, h->norm_eps, norm->weight, norm->bias, out);
    else /* the one of 1 + w was added when the weights were loaded */
        qins_get_elementwise()->norm_rms(x, n, h->norm_eps, norm->weight, out);
}

void qins_apply_norm(const qins_hparams *h, const qins_norm *norm, size_t width, const float *x, size_t ldx,
                     size_t n_rows, float *out, size_t ldo) {
#pragma omp parallel for schedule(static) if (n_rows > 1)
    for (size_t r = 0; r < n_rows; r++)
        qins_apply_norm_row(h, norm, width, x + r * ldx, out + r * ldo);
}

/* Values that a thread takes at once: enough to be worth waking it. */
enum { ACTIVATE_PIECE = 4096 };

void qins_activate(qins_activation activation, float *x, size_t n) {
    const qins_elementwise *e = qins_get_elementwise();
#pragma omp parallel for schedule(static) if (n > 2 * ACTIVATE_PIECE)
    for (size_t i = 0; i < n; i += ACTIVATE_PIECE)
        e->activate(activation, x + i, qins_min_size(ACTIVATE_PIECE, n - i));
}

void qins_activate_gated(qins_activation activation, const float *gate_up, size_t width, size_t n_tokens, float *out) {
    const qins_elementwise *e = qins_get_elementwise();
#pragma omp parallel for schedule(static) if (n_tokens > 1)
    for (size_t t = 0; t < n_tokens; t++) {
        const float *gate = gate_up + t * 2 * width;
        e->gate(activation, gate, gate + width, width, out + t * width);
    }
}

void qins_soft_cap(float cap, float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}
