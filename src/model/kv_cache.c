/* Keys and values of the tokens seen so far. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <stdlib.h>

static size_t head_values(const qins_kv_cache *c) {
    return c->n_ctx * c->head_dim;
}

qins_status qins_kv_cache_init(qins_kv_cache *c, const qins_hparams *h, size_t n_ctx, qins_error *err) {
    *c = (qins_kv_cache){.n_ctx = n_ctx, .n_kv_heads = h->n_kv_heads, .head_dim = h->head_dim, .n_layers = h->n_layers};
    size_t n;
    bool fits = qins_mul_size(n_ctx, h->head_dim, &n) && qins_mul_size(n, h->n_kv_heads, &n) &&
                qins_mul_size(n, h->n_layers, &n) && n <= SIZE_MAX / sizeof(float);
    /* calloc leaves pages untouched until a position is written: a long context costs memory only as it fills. */
    if (fits) {
        c->keys = calloc(n, sizeof *c->keys);
        c->values = calloc(n, sizeof *c->values);
    }
    if (c->keys != NULL && c->values != NULL) return QINS_OK;
    qins_kv_cache_free(c);
    return qins_fail_memory(err, fits ? 2 * n * sizeof(float) : SIZE_MAX, "the KV cache; ask for a shorter context");
}

void qins_kv_cache_free(qins_kv_cache *c) {
    free(c->keys);
    free(c->values);
    *c = (qins_kv_cache){0};
}

size_t qins_kv_cache_bytes(const qins_kv_cache *c) {
    return 2 * sizeof(float) * c->n_layers * c->n_kv_heads * head_values(c);
}

float *qins_kv_keys(const qins_kv_cache *c, size_t layer, size_t head) {
    return c->keys + (layer * c->n_kv_heads + head) * head_values(c);
}

float *qins_kv_values(const qins_kv_cache *c, size_t layer, size_t head) {
    return c->values + (layer * c->n_kv_heads + head) * head_values(c);
}
