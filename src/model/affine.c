/* W x + b for the tokens of a batch. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <string.h>

enum { ALIGNED_FLOATS = 16 };

size_t qins_prepared_row(size_t n_cols) {
    size_t rotated = qins_round_up(n_cols, ALIGNED_FLOATS);
    return rotated + qins_round_up(qins_quantised_bytes(1, n_cols) / sizeof(float), ALIGNED_FLOATS);
}

static void prepare(qins_input *in, const float *rotation) {
    const float *x = in->x;
    size_t n_floats = qins_round_up(in->n_tokens * in->n_cols, ALIGNED_FLOATS);
    if (rotation != NULL) {
        memcpy(in->prepared, in->x, in->n_tokens * in->n_cols * sizeof *in->x);
#pragma omp parallel for schedule(static) if (in->n_tokens > 1)
        for (size_t t = 0; t < in->n_tokens; t++)
            qins_rotate(in->prepared + t * in->n_cols, in->n_cols, rotation);
        x = in->prepared;
    }
    in->vectors = (qins_vectors){.x = x, .ldx = in->n_cols, .n_cols = in->n_cols, .n_tokens = in->n_tokens};
    if (!in->floats_only) in->vectors.memory = in->prepared + n_floats;
    in->rotation = rotation;
    in->ready = true;
}

void qins_affine_apply(const qins_affine_output *outputs, size_t n, qins_input *in) {
    bool done[QINS_MAX_AFFINES] = {false};
    for (size_t i = 0; i < n; i++) {
        if (done[i] || !outputs[i].affine->present) continue;
        const float *rotation = outputs[i].affine->weight.rotation;
        qins_product products[QINS_MAX_AFFINES];
        size_t n_products = 0;
        for (size_t j = i; j < n; j++) {
            const qins_affine *a = outputs[j].affine;
            if (!a->present || a->weight.rotation != rotation) continue;
            products[n_products++] = (qins_product){&a->weight, a->bias, outputs[j].y, outputs[j].ldy};
            done[j] = true;
        }
        if (!in->ready || in->rotation != rotation) prepare(in, rotation);
        qins_multiply(products, n_products, &in->vectors);
    }
}
