/* Attention of a whole sequence that begins with an empty context: no cache, matrix products. SPDX-License-Identifier:
 * MIT
 */
#include "model/calibrate_attention.h"

#include "base/dense.h"
#include "kernel/kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void qins_sequence_head(const qins_hparams *h, const qins_norm *norm, const qins_rope *rope, const float *row,
                        size_t stride, size_t n, float *out) {
    bool per_head = h->family->qk_norm == QINS_QK_NORM_HEAD;
    for (size_t t = 0; t < n; t++) {
        float *to = out + t * h->head_dim;
        memcpy(to, row + t * stride, h->head_dim * sizeof *to);
        if (per_head) qins_apply_norm_row(h, norm, h->head_dim, to, to);
        if (rope != NULL) qins_rope_apply(rope, t, to);
    }
}

/* Row t of the scores: softmax over the positions that token t sees, 0 elsewhere. */
static void causal_softmax(const qins_hparams *h, const qins_attention_kernels *k, float *scores, size_t n, size_t t,
                           size_t window) {
    size_t first = t + 1 > window ? t + 1 - window : 0, seen = t + 1 - first;
    if (h->attention_cap > 0) qins_soft_cap(h->attention_cap, scores + first, seen);
    float sum = k->exp_sum(scores + first, seen, k->max(scores + first, seen));
    k->scale(scores + first, seen, 1.0f / sum);
    memset(scores, 0, first * sizeof *scores);
    memset(scores + t + 1, 0, (n - t - 1) * sizeof *scores);
}

static size_t scratch_floats(const qins_hparams *h, size_t n) {
    return n * n + 3 * n * h->head_dim;
}

qins_status qins_sequence_attention_init(qins_sequence_attention *a, const qins_hparams *h, size_t n, qins_error *err) {
    *a = (qins_sequence_attention){.n = n, .stride = scratch_floats(h, n)};
    size_t threads = (size_t)qins_get_threads();
    a->scratch = qins_alloc_aligned(threads * a->stride, sizeof *a->scratch);
    if (a->scratch == NULL) return qins_fail_memory(err, threads * a->stride * sizeof *a->scratch, "attention scores");
    qins_status status = QINS_OK;
    for (size_t i = 0; i < 2 && status == QINS_OK; i++) {
        status = qins_rope_init(&a->rope[i], &h->rope[i], n, n, err);
        if (status == QINS_OK) qins_rope_set_positions(&a->rope[i], 0, 0, n);
    }
    return status;
}

void qins_sequence_attention_free(qins_sequence_attention *a) {
    free(a->scratch);
    for (size_t i = 0; i < 2; i++)
        qins_rope_free(&a->rope[i]);
    *a = (qins_sequence_attention){0};
}

static size_t window_of(const qins_hparams *h, const qins_layer *layer) {
    return (layer->flags & QINS_LAYER_SLIDING) != 0 ? h->sliding_window : SIZE_MAX;
}

const qins_rope *qins_sequence_rope(const qins_sequence_attention *a, const qins_hparams *h, const qins_layer *layer) {
    bool rotate = !h->family->no_rope && (layer->flags & QINS_LAYER_NO_ROPE) == 0;
    return rotate ? &a->rope[(layer->flags & QINS_LAYER_SLIDING) != 0] : NULL;
}

void qins_sequence_full_norm(const qins_hparams *h, const qins_layer *layer, size_t n, float *qkv) {
    qins_qkv_view view = qins_qkv_view_of(h);
    float *q = qkv + view.q_offset, *k = qkv + view.k_offset;
    qins_apply_norm(h, &layer->q_norm, h->n_heads * h->head_dim, q, view.row, n, q, view.row);
    qins_apply_norm(h, &layer->k_norm, h->n_kv_heads * h->head_dim, k, view.row, n, k, view.row);
}

void qins_sequence_softmax(const qins_sequence_attention *a, const qins_hparams *h, const qins_layer *layer,
                           float *scores) {
    for (size_t t = 0; t < a->n; t++)
        causal_softmax(h, qins_get_cpu()->attention, scores + t * a->n, a->n, t, window_of(h, layer));
}

void qins_sequence_attend(const qins_sequence_attention *a, const qins_hparams *h, const qins_layer *layer, float *qkv,
                          float *out) {
    qins_qkv_view view = qins_qkv_view_of(h);
    size_t n = a->n, d = h->head_dim, heads = h->n_heads * d;
    const qins_rope *rope = qins_sequence_rope(a, h, layer);
    if (h->family->qk_norm == QINS_QK_NORM_FULL) qins_sequence_full_norm(h, layer, n, qkv);
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t head = 0; head < h->n_heads; head++) {
        float *scores = a->scratch + (size_t)qins_thread_index() * a->stride, *q = scores + n * n, *k = q + n * d;
        size_t kv_head = head / (h->n_heads / h->n_kv_heads);
        qins_sequence_head(h, &layer->q_norm, rope, qkv + view.q_offset + head * view.head_stride, view.row, n, q);
        qins_sequence_head(h, &layer->k_norm, rope, qkv + view.k_offset + kv_head * view.head_stride, view.row, n, k);
        const float *v = qkv + view.v_offset + kv_head * view.head_stride;
        qins_dense_nt_serial(n, n, d, h->attention_scale, q, d, k, d, 0.0f, scores, n);
        qins_sequence_softmax(a, h, layer, scores);
        qins_dense_nn_serial(n, d, n, 1.0f, scores, n, v, view.row, 0.0f, out + head * d, heads);
    }
}
