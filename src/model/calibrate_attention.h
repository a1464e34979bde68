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

/* ---- its steps ---- */

/* Rope of a layer, with the angles of the sequence; NULL when it has none. */
const qins_rope *qins_sequence_rope(const qins_sequence_attention *a, const qins_hparams *h, const qins_layer *layer);
/* Queries and keys normalised over all heads of a token, in families that do. */
void qins_sequence_full_norm(const qins_hparams *h, const qins_layer *layer, size_t n, float *qkv);
/* Queries or keys of a head (row of the first token, stride to the next), normalised and rotated where the family does,
 * as out[n][head_dim]. */
void qins_sequence_head(const qins_hparams *h, const qins_norm *norm, const qins_rope *rope, const float *row,
                        size_t stride, size_t n, float *out);
/* scores[n][n] become probabilities over the positions that a token sees, 0 elsewhere. */
void qins_sequence_softmax(const qins_sequence_attention *a, const qins_hparams *h, const qins_layer *layer,
                           float *scores);

#endif
