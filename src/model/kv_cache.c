/* Sequences of cached positions: append, truncate, fork, shift. SPDX-License-Identifier: MIT */
#include "model/kv_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- memory ---- */

/* Address space of a sequence. Nothing is taken of the machine's memory before a position is written. */
static size_t sequence_bytes(const qins_kv_cache *c) {
    return c->n_layers * c->n_heads * c->head_bytes;
}

static bool map_sequence(const qins_kv_cache *c, qins_kv_sequence *s) {
    if (s->data != NULL) return true;
    void *data =
        mmap(NULL, sequence_bytes(c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) return false;
    s->data = data;
    return true;
}

qins_status qins_kv_cache_init(qins_kv_cache *c, size_t n_layers, size_t n_heads, size_t head_dim, size_t n_ctx,
                               size_t n_seqs, int key_bits, int value_bits, qins_error *err) {
    *c = (qins_kv_cache){.n_ctx = n_ctx, .n_layers = n_layers, .n_heads = n_heads, .n_seqs = n_seqs};
    qins_status status = qins_kv_format_init(&c->format, head_dim, key_bits, value_bits, err);
    if (status != QINS_OK) return status;
    size_t pages = n_ctx / QINS_KV_PAGE + 1, n;
    bool fits = qins_mul_size(pages, c->format.page_bytes, &n) &&
                qins_add_size(n, c->format.first_page, &c->head_bytes) && qins_mul_size(c->head_bytes, n_heads, &n) &&
                qins_mul_size(n, n_layers, &n) && n < SIZE_MAX / 2;
    c->seqs = qins_alloc(n_seqs, sizeof *c->seqs);
    if (fits && c->seqs != NULL && map_sequence(c, &c->seqs[0])) return QINS_OK;
    qins_kv_cache_free(c);
    return qins_fail_memory(err, fits ? n : SIZE_MAX, "the KV cache; ask for a shorter context");
}

void qins_kv_cache_free(qins_kv_cache *c) {
    for (size_t i = 0; c->seqs != NULL && i < c->n_seqs; i++) {
        if (c->seqs[i].data != NULL) munmap(c->seqs[i].data, sequence_bytes(c));
        free(c->seqs[i].tokens);
    }
    free(c->seqs);
    qins_kv_format_free(&c->format);
    *c = (qins_kv_cache){0};
}

size_t qins_kv_bytes(const qins_kv_format *f, size_t n_heads, size_t positions) {
    size_t pages = (positions + QINS_KV_PAGE - 1) / QINS_KV_PAGE;
    return pages == 0 ? 0 : n_heads * (f->first_page + pages * f->page_bytes);
}

size_t qins_kv_sequence_bytes(const qins_kv_cache *c, size_t seq) {
    return qins_kv_bytes(&c->format, c->n_layers * c->n_heads, c->seqs[seq].length);
}

/* ---- bookkeeping ---- */

qins_status qins_kv_reserve(qins_kv_cache *c, size_t seq, size_t n, qins_error *err) {
    qins_kv_sequence *s = &c->seqs[seq];
    size_t needed = s->length + n;
    if (!map_sequence(c, s)) return qins_fail_memory(err, sequence_bytes(c), "the KV cache; ask for a shorter context");
    if (needed <= s->token_capacity) return QINS_OK;
    size_t capacity = qins_min_size(c->n_ctx, qins_max_size(needed, 2 * s->token_capacity));
    int32_t *tokens = realloc(s->tokens, capacity * sizeof *tokens);
    if (tokens == NULL) return qins_fail_memory(err, capacity * sizeof *tokens, "token ids");
    s->tokens = tokens;
    s->token_capacity = capacity;
    return QINS_OK;
}

void qins_kv_append(qins_kv_cache *c, size_t seq, const int32_t *ids, size_t n) {
    qins_kv_sequence *s = &c->seqs[seq];
    if (n > 0) memcpy(s->tokens + s->length, ids, n * sizeof *ids);
    s->length += n;
}

void qins_kv_truncate(qins_kv_cache *c, size_t seq, size_t length) {
    c->seqs[seq].length = qins_min_size(length, c->seqs[seq].length);
}

/* Of one head; rows of the last page only as far as they are written. */
static void each_stretch_of_head(const qins_kv_format *f, uint8_t *head, size_t length, qins_kv_bytes_fn fn,
                                 void *user) {
    if (length > 0 && f->first_page > 0) fn(user, head, f->first_page);
    for (size_t done = 0; done < length; done += QINS_KV_PAGE) {
        size_t n = qins_min_size(QINS_KV_PAGE, length - done);
        uintptr_t page = (uintptr_t)head + f->first_page + done / QINS_KV_PAGE * f->page_bytes;
        fn(user, (uint8_t *)page, n * f->key_row);
        fn(user, (uint8_t *)(page + f->values), n * f->value_row);
        if (f->coded_keys) fn(user, (uint8_t *)(page + f->key_scales), n * sizeof(uint16_t));
        if (f->coded_values) fn(user, (uint8_t *)(page + f->value_scales), n * sizeof(uint16_t));
        if (f->coded_keys) fn(user, (uint8_t *)(page + f->mean), f->dims * sizeof(uint16_t));
    }
}

void qins_kv_each_stretch_of(const qins_kv_cache *c, uint8_t *data, size_t length, qins_kv_bytes_fn fn, void *user) {
    for (size_t i = 0; i < c->n_layers * c->n_heads; i++)
        each_stretch_of_head(&c->format, (uint8_t *)((uintptr_t)data + i * c->head_bytes), length, fn, user);
}

void qins_kv_each_stretch(const qins_kv_cache *c, size_t seq, qins_kv_bytes_fn fn, void *user) {
    qins_kv_each_stretch_of(c, c->seqs[seq].data, c->seqs[seq].length, fn, user);
}

typedef struct copy_target {
    ptrdiff_t distance; /* from the one sequence's memory to the other's */
} copy_target;

static void copy_stretch(void *user, uint8_t *data, size_t n) {
    const copy_target *target = user;
    memcpy((uint8_t *)((uintptr_t)data + (uintptr_t)target->distance), data, n);
}

qins_status qins_kv_fork(qins_kv_cache *c, size_t from, size_t to, qins_error *err) {
    if (from == to) return QINS_OK;
    const qins_kv_sequence *source = &c->seqs[from];
    qins_kv_truncate(c, to, 0);
    qins_status status = qins_kv_reserve(c, to, source->length, err);
    if (status != QINS_OK || source->length == 0) return status;
    qins_kv_append(c, to, source->tokens, source->length);
    copy_target target = {(ptrdiff_t)((uintptr_t)c->seqs[to].data - (uintptr_t)source->data)};
    qins_kv_each_stretch(c, from, copy_stretch, &target);
    return QINS_OK;
}

/* ---- basis ---- */

/* y[j] = sum over i of x[i] m[i][j], in place */
static void multiply_in_place(float *x, const float *m, size_t n) {
    float y[QINS_KV_MAX_DIMS] = {0};
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            y[j] += x[i] * m[i * n + j];
    memcpy(x, y, n * sizeof *x);
}

/* y[j] = sum over i of x[i] m[j][i], in place */
static void multiply_transposed_in_place(float *x, const float *m, size_t n) {
    float y[QINS_KV_MAX_DIMS];
    for (size_t j = 0; j < n; j++) {
        y[j] = 0;
        for (size_t i = 0; i < n; i++)
            y[j] += x[i] * m[j * n + i];
    }
    memcpy(x, y, n * sizeof *x);
}

static const float *matrix_of(const qins_kv_cache *c, const float *all, size_t layer, size_t head) {
    size_t d = c->format.head_dim;
    return all + (layer * c->n_heads + head) * d * d;
}

static void pad(const qins_kv_format *f, float *x) {
    for (size_t d = f->head_dim; d < f->dims; d++)
        x[d] = 0;
}

void qins_kv_key_to_rows(const qins_kv_cache *c, size_t layer, size_t head, float *x) {
    pad(&c->format, x);
    if (!c->format.coded_keys) return;
    if (c->transform != NULL) multiply_in_place(x, matrix_of(c, c->transform->keys, layer, head), c->format.head_dim);
    qins_kv_rotate(&c->format, c->format.key_type, x);
}

void qins_kv_key_from_rows(const qins_kv_cache *c, size_t layer, size_t head, float *x) {
    if (!c->format.coded_keys) return;
    qins_kv_rotate(&c->format, c->format.key_type, x);
    if (c->transform != NULL)
        multiply_transposed_in_place(x, matrix_of(c, c->transform->queries, layer, head), c->format.head_dim);
}

void qins_kv_query_to_rows(const qins_kv_cache *c, size_t layer, size_t head, float *x) {
    pad(&c->format, x);
    if (!c->format.coded_keys) return;
    if (c->transform != NULL)
        multiply_in_place(x, matrix_of(c, c->transform->queries, layer, head), c->format.head_dim);
    qins_kv_rotate(&c->format, c->format.key_type, x);
}

/* ---- shift ---- */

qins_status qins_kv_shift(qins_kv_cache *c, size_t seq, size_t keep, size_t drop, qins_kv_turn_fn turn, void *user,
                          qins_error *err) {
    qins_kv_sequence *s = &c->seqs[seq];
    const qins_kv_format *f = &c->format;
    size_t dims = f->dims, n = s->length - keep - drop;
    if (drop == 0) return QINS_OK;
    /* All rows of a head are read before one is written: a page's mean belongs to all of its rows. */
    float *rows = qins_alloc(2 * n + QINS_KV_PAGE, dims * sizeof *rows);
    if (rows == NULL) return qins_fail_memory(err, 2 * n * dims * sizeof *rows, "positions to shift");
    float *scratch = rows + 2 * n * dims;
    for (size_t l = 0; l < c->n_layers; l++)
        for (size_t h = 0; h < c->n_heads; h++) {
            uint8_t *head = qins_kv_head(c, seq, l, h);
            for (size_t i = 0; i < n; i++) {
                float *key = rows + 2 * i * dims;
                qins_kv_read(f, head, keep + drop + i, key, key + dims);
                qins_kv_key_from_rows(c, l, h, key);
                turn(user, l, key);
                qins_kv_key_to_rows(c, l, h, key);
            }
            for (size_t i = 0; i < n; i++) {
                const float *key = rows + 2 * i * dims;
                qins_kv_store_key(f, head, keep + i, key, scratch);
                qins_kv_store_value(f, head, keep + i, key + dims);
            }
        }
    memmove(s->tokens + keep, s->tokens + keep + drop, n * sizeof *s->tokens);
    s->length = keep + n;
    free(rows);
    return QINS_OK;
}
