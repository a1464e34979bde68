/* Causal attention over the KV cache. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <math.h>
#include <string.h>

qins_qkv_view qins_qkv_view_of(const qins_hparams *h) {
    size_t q = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim;
    if (h->family->qkv == QINS_QKV_BY_HEAD)
        return (qins_qkv_view){
            .row = q + 2 * kv, .k_offset = h->head_dim, .v_offset = 2 * h->head_dim, .head_stride = 3 * h->head_dim};
    return (qins_qkv_view){.row = q + 2 * kv, .k_offset = q, .v_offset = q + kv, .head_stride = h->head_dim};
}

static void softmax(float *x, size_t n) {
    float largest = x[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        largest = fmaxf(largest, x[i]);
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - largest);
        sum += x[i];
    }
    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

/* Rotated keys and plain values go to the cache. */
static void store_kv(const qins_hparams *h, const qins_layer *layer, const qins_kv_cache *cache, size_t layer_index,
                     const qins_rope *rope, const float *qkv, size_t pos, size_t n_tokens) {
    qins_qkv_view view = qins_qkv_view_of(h);
    bool per_head = h->family->qk_norm == QINS_QK_NORM_HEAD;
#pragma omp parallel for collapse(2) schedule(static) if (n_tokens > 1)
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t head = 0; head < h->n_kv_heads; head++) {
            const float *row = qkv + t * view.row + head * view.head_stride;
            float *key = qins_kv_keys(cache, layer_index, head) + (pos + t) * h->head_dim;
            float *value = qins_kv_values(cache, layer_index, head) + (pos + t) * h->head_dim;
            memcpy(key, row + view.k_offset, h->head_dim * sizeof *key);
            if (per_head) qins_apply_norm_row(h, &layer->k_norm, h->head_dim, key, key);
            memcpy(value, row + view.v_offset, h->head_dim * sizeof *value);
            if (rope != NULL) qins_rope_apply(rope, t, key);
        }
}

/* One query over the keys [first, n_keys). */
static void attend(const qins_hparams *h, const float *keys, const float *values, const float *query, size_t first,
                   size_t n_keys, float *scores, float *out) {
    const qins_kernels *kernels = qins_get_kernels();
    size_t d = h->head_dim, n = n_keys - first;
    keys += first * d;
    values += first * d;
    for (size_t i = 0; i < n; i++)
        scores[i] = h->attention_scale * kernels->dot(query, keys + i * d, d);
    if (h->attention_cap > 0) qins_soft_cap(h->attention_cap, scores, n);
    softmax(scores, n);
    memset(out, 0, d * sizeof *out);
    for (size_t i = 0; i < n; i++)
        kernels->add_scaled(scores[i], values + i * d, out, d);
}

void qins_attention(const qins_hparams *h, const qins_layer *layer, const qins_kv_cache *cache, size_t layer_index,
                    const qins_rope *rope, float *qkv, size_t pos, size_t n_tokens, float *scores, size_t score_stride,
                    float *out) {
    qins_qkv_view view = qins_qkv_view_of(h);
    size_t window = (layer->flags & QINS_LAYER_SLIDING) != 0 ? h->sliding_window : SIZE_MAX;
    bool per_head = h->family->qk_norm == QINS_QK_NORM_HEAD;
    if (h->family->qk_norm == QINS_QK_NORM_FULL) {
        float *q = qkv + view.q_offset, *k = qkv + view.k_offset;
        qins_apply_norm(h, &layer->q_norm, h->n_heads * h->head_dim, q, view.row, n_tokens, q, view.row);
        qins_apply_norm(h, &layer->k_norm, h->n_kv_heads * h->head_dim, k, view.row, n_tokens, k, view.row);
    }
    store_kv(h, layer, cache, layer_index, rope, qkv, pos, n_tokens);
#pragma omp parallel for collapse(2) schedule(dynamic, 4)
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t head = 0; head < h->n_heads; head++) {
            float *query = qkv + t * view.row + view.q_offset + head * view.head_stride;
            size_t kv_head = head / (h->n_heads / h->n_kv_heads), n_keys = pos + t + 1;
            if (per_head) qins_apply_norm_row(h, &layer->q_norm, h->head_dim, query, query);
            if (rope != NULL) qins_rope_apply(rope, t, query);
            attend(h, qins_kv_keys(cache, layer_index, kv_head), qins_kv_values(cache, layer_index, kv_head), query,
                   n_keys > window ? n_keys - window : 0, n_keys, scores + score_stride * (size_t)qins_thread_index(),
                   out + (t * h->n_heads + head) * h->head_dim);
        }
}
