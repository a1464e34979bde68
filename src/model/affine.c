/* W x + b for the tokens of a batch. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <string.h>

const float *qins_input_for(qins_input *in, const qins_matrix *m) {
    if (m->rotation == NULL) return in->x;
    if (in->rotation != m->rotation) {
        memcpy(in->rotated, in->x, in->n_tokens * in->n_cols * sizeof *in->x);
#pragma omp parallel for schedule(static) if (in->n_tokens > 1)
        for (size_t t = 0; t < in->n_tokens; t++)
            qins_rotate(in->rotated + t * in->n_cols, in->n_cols, m->rotation);
        in->rotation = m->rotation;
    }
    return in->rotated;
}

void qins_affine_apply(const qins_affine *a, qins_input *in, float *y, size_t ldy) {
    if (!a->present) return;
    qins_matmul(&a->weight, qins_input_for(in, &a->weight), in->n_cols, in->n_tokens, y, ldy);
    if (a->bias == NULL) return;
    for (size_t t = 0; t < in->n_tokens; t++)
        for (size_t i = 0; i < a->weight.n_rows; i++)
            y[t * ldy + i] += a->bias[i];
}
