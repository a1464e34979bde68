/* SPDX-License-Identifier: MIT */
#include "model/backward.h"

#include "base/dense.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Gradient of a head that was rotated, to that of the head before. */
static void unrotate_gradient(const qins_rope *rope, size_t t, float *d) {
    const float *c = rope->cosines + t * rope->n_pairs, *s = rope->sines + t * rope->n_pairs;
    for (size_t i = 0; i < rope->n_pairs; i++) {
        float a = d[i], b = d[i + rope->n_pairs];
        d[i] = a * c[i] + b * s[i];
        d[i + rope->n_pairs] = b * c[i] - a * s[i];
    }
}

/* d[n][head_dim], gradients of what qins_sequence_head loaded, into dqkv. */
static void store_head(const qins_hparams *h, const qins_norm *norm, const qins_rope *rope, const float *row,
                       size_t stride, size_t n, float *d, float *drow) {
    bool per_head = h->family->qk_norm == QINS_QK_NORM_HEAD;
    static const qins_norm none = {0};
    for (size_t t = 0; t < n; t++) {
        if (rope != NULL) unrotate_gradient(rope, t, d + t * h->head_dim);
        qins_norm_backward(h, per_head ? norm : &none, h->head_dim, row + t * stride, stride, 1, d + t * h->head_dim,
                           h->head_dim, drow + t * stride, stride);
    }
}

/* dp[n][n], gradients of the probabilities p, becomes that of the scores before the cap. */
static void softmax_backward(const qins_hparams *h, const float *p, const float *scores, size_t n, float *dp) {
    for (size_t t = 0; t < n; t++) {
        const float *row = p + t * n;
        float *d = dp + t * n, dot = 0;
        for (size_t i = 0; i <= t; i++)
            dot += row[i] * d[i];
        for (size_t i = 0; i < n; i++) {
            d[i] = row[i] * (d[i] - dot); /* p is 0 where nothing is seen */
            if (h->attention_cap > 0) {
                float bent = tanhf(scores[t * n + i] / h->attention_cap);
                d[i] *= 1.0f - bent * bent;
            }
        }
    }
}

/* Everything one thread needs for a head. */
typedef struct head_scratch {
    float *p, *scores, *dp;      /* [n][n] */
    float *q, *k, *dq, *dk, *dv; /* [n][head_dim] */
} head_scratch;

static head_scratch cut(float *memory, size_t n, size_t d) {
    head_scratch s = {.p = memory, .scores = memory + n * n, .dp = memory + 2 * n * n};
    float *rest = memory + 3 * n * n;
    s.q = rest;
    s.k = rest + n * d;
    s.dq = rest + 2 * n * d;
    s.dk = rest + 3 * n * d;
    s.dv = rest + 4 * n * d;
    return s;
}

/* All query heads of one head of keys and values. */
static void kv_head_backward(const qins_sequence_attention *a, const qins_hparams *h, const qins_layer *layer,
                             size_t kv_head, const float *qkv, const float *dout, float *dqkv, const head_scratch *s) {
    qins_qkv_view view = qins_qkv_view_of(h);
    size_t n = a->n, d = h->head_dim, heads = h->n_heads * d, share = h->n_heads / h->n_kv_heads;
    const qins_rope *rope = qins_sequence_rope(a, h, layer);
    size_t k_at = view.k_offset + kv_head * view.head_stride, v_at = view.v_offset + kv_head * view.head_stride;
    qins_sequence_head(h, &layer->k_norm, rope, qkv + k_at, view.row, n, s->k);
    for (size_t head = kv_head * share; head < (kv_head + 1) * share; head++) {
        size_t q_at = view.q_offset + head * view.head_stride;
        float first = head == kv_head * share ? 0.0f : 1.0f;
        qins_sequence_head(h, &layer->q_norm, rope, qkv + q_at, view.row, n, s->q);
        qins_dense_nt_serial(n, n, d, h->attention_scale, s->q, d, s->k, d, 0.0f, s->p, n);
        memcpy(s->scores, s->p, n * n * sizeof *s->p);
        qins_sequence_softmax(a, h, layer, s->p);
        const float *dhead = dout + head * d;
        qins_dense_nt_serial(n, n, d, 1.0f, dhead, heads, qkv + v_at, view.row, 0.0f, s->dp, n);
        qins_dense_tn_serial(n, d, n, 1.0f, s->p, n, dhead, heads, first, s->dv, d);
        softmax_backward(h, s->p, s->scores, n, s->dp);
        qins_dense_nn_serial(n, d, n, h->attention_scale, s->dp, n, s->k, d, 0.0f, s->dq, d);
        qins_dense_tn_serial(n, d, n, h->attention_scale, s->dp, n, s->q, d, first, s->dk, d);
        store_head(h, &layer->q_norm, rope, qkv + q_at, view.row, n, s->dq, dqkv + q_at);
    }
    store_head(h, &layer->k_norm, rope, qkv + k_at, view.row, n, s->dk, dqkv + k_at);
    for (size_t t = 0; t < n; t++)
        memcpy(dqkv + t * view.row + v_at, s->dv + t * d, d * sizeof *s->dv);
}

qins_status qins_sequence_attend_backward(const qins_sequence_attention *a, const qins_hparams *h,
                                          const qins_layer *layer, const float *qkv, const float *dout, float *dqkv,
                                          qins_error *err) {
    qins_qkv_view view = qins_qkv_view_of(h);
    size_t n = a->n, d = h->head_dim, values = n * view.row;
    size_t stride = 3 * n * n + 5 * n * d, threads = (size_t)qins_get_threads();
    bool full = h->family->qk_norm == QINS_QK_NORM_FULL;
    float *scratch = qins_alloc_aligned(threads * stride + (full ? values : 0), sizeof *scratch);
    if (scratch == NULL) return qins_fail_memory(err, threads * stride * sizeof *scratch, "attention gradients");
    const float *in = qkv;
    if (full) { /* what attention reads are the normalised projections */
        float *normed = scratch + threads * stride;
        memcpy(normed, qkv, values * sizeof *normed);
        qins_sequence_full_norm(h, layer, n, normed);
        in = normed;
    }
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t kv_head = 0; kv_head < h->n_kv_heads; kv_head++) {
        head_scratch s = cut(scratch + (size_t)qins_thread_index() * stride, n, d);
        kv_head_backward(a, h, layer, kv_head, in, dout, dqkv, &s);
    }
    if (full) {
        const size_t q = view.q_offset, k = view.k_offset;
        qins_norm_backward(h, &layer->q_norm, h->n_heads * d, qkv + q, view.row, n, dqkv + q, view.row, dqkv + q,
                           view.row);
        qins_norm_backward(h, &layer->k_norm, h->n_kv_heads * d, qkv + k, view.row, n, dqkv + k, view.row, dqkv + k,
                           view.row);
    }
    free(scratch);
    return QINS_OK;
}
