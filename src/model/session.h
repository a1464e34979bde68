/* A session: sequences in a KV cache, and the scratch memory of the forward pass. SPDX-License-Identifier: MIT */
#ifndef QINS_SESSION_H
#define QINS_SESSION_H

#include "model/model.h"

enum { QINS_BATCH = 128 }; /* tokens that go through the layers together, at most */

/* Tokens that go through the layers together. Each sequence has at most one run. */
typedef struct qins_batch {
    size_t n, n_runs;
    int32_t ids[QINS_BATCH];
    bool wants_logits[QINS_BATCH];
    qins_token_run runs[QINS_BATCH];
} qins_batch;

struct qins_session {
    const qins_model *model;
    qins_kv_cache cache;
    /* scratch for QINS_BATCH tokens */
    float *x;        /* residual stream [QINS_BATCH][hidden] */
    float *normed;   /* [QINS_BATCH][hidden] */
    float *prepared; /* the input of a matrix, rotated and quantised [QINS_BATCH][qins_prepared_row(widest)] */
    float *rows;     /* outputs of one part of a matrix of two [QINS_BATCH][widest]; empty when the model has none */
    float *qkv;      /* [QINS_BATCH][qkv row] */
    float *heads;    /* attention output [QINS_BATCH][n_heads*head_dim] */
    float *inner;    /* [QINS_BATCH][intermediate] */
    float *gate_up;  /* [QINS_BATCH][2 * intermediate]: gate, then up */
    float *delta;    /* what a block adds to x [QINS_BATCH][hidden] */
    qins_attention attention;
    qins_rope rope[2];           /* of full and of sliding layers */
    qins_expert_scratch experts; /* empty in dense models */
    qins_probe probe;
};

/* forward.c: rows of logits for the tokens that want them, in order. The cache has room for all tokens. */
void qins_forward(qins_session *s, const qins_batch *batch, float *logits);

#endif
