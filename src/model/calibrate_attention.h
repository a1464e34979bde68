/* Attention of a whole sequence that begins with an empty context. SPDX-License-Identifier: MIT */
#ifndef QINS_CALIBRATE_ATTENTION_H
#define QINS_CALIBRATE_ATTENTION_H

#include "model/model.h"

/* Scratch for sequences of n tokens. */
typedef struct qins_sequence_attention {
    size_t n, stride;
    float *scratch; /* one part a thread */
    qins_rope rope[2];
} qins_sequence_attention;

qins_status qins_sequence_attention_init(qins_sequence_attention *a, const qins_hparams *h, size_t n, qins_error *err);
void qins_sequence_attention_free(qins_sequence_attention *a);
/* out[n][n_heads*head_dim] of qkv, the projections of n tokens, which is overwritten. Needs qins_dense_begin. */
void qins_sequence_attend(const qins_sequence_attention *a, const qins_hparams *h, const qins_layer *layer, float *qkv,
                          float *out);

#endif
