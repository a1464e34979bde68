/* Keys and values of the tokens seen so far, of several sequences. SPDX-License-Identifier: MIT
 *
 * Every sequence has address space for n_ctx positions, and memory for those that were written. For each layer and kv
 * head it holds pages of 64 positions: rows of keys, rows of values and, where they are coded, a scale for each row
 * and the mean that was subtracted from the keys.
 *
 * Coded rows (docs/kv-cache.md) are in a basis of their own: key' = H T^t key, value' = H value, with H the
 * Hadamard matrix of the head and T the key transform of the model, if it has one. Attention brings queries to that
 * basis (query' = H T^-1 query, so that products stay what they were) and its output back.
 */
#ifndef QINS_KV_CACHE_H
#define QINS_KV_CACHE_H

#include "base/base.h"
#include "kernel/attention.h"

enum {
    QINS_KV_PAGE = 64,       /* positions a page */
    QINS_KV_MAX_DIMS = 1024, /* of a head */
    QINS_KV_SINKS = 4        /* first positions of a sequence: attention sinks, kept F16 where later ones are coded */
};

/* ---- rows (kv_codec.c) ---- */

typedef struct qins_kv_format {
    qins_kv_type key_type, value_type;
    size_t head_dim, dims; /* of a row: head_dim, padded with zeros */
    bool coded_keys, coded_values;
    size_t key_row, value_row; /* bytes */
    /* offsets in a page; keys begin it */
    size_t values, key_scales, value_scales, mean, page_bytes;
    /* before the pages of a head: the sinks, F16 */
    size_t sink_values, first_page;
    qins_kv_codebook *key_book, *value_book; /* owned; NULL where rows are not coded */
} qins_kv_format;

/* Bits: 32, 16, 8, 6, 5, 4 or 3. */
qins_status qins_kv_format_init(qins_kv_format *f, size_t head_dim, int key_bits, int value_bits, qins_error *err);
void qins_kv_format_free(qins_kv_format *f);
bool qins_kv_type_of_bits(int bits, qins_kv_type *type);

/* n rows of one page from `slot` on; the sinks are other rows than those behind them. */
typedef struct qins_kv_span {
    qins_kv_rows keys, values;
    qins_kv_type key_type, value_type;
    const uint16_t *mean; /* F16 [dims], to be added to every key; NULL for none */
    size_t slot, n;
} qins_kv_span;

/* Rows of positions [page * 64, page * 64 + n) of a head: one or two spans, in order. Keys and values are cut alike. */
size_t qins_kv_spans(const qins_kv_format *f, const uint8_t *head, size_t page, size_t n, qins_kv_span spans[2]);

/* Scales and mean of a page are read soon: rows are fetched by those who read them. The page need not have been
 * written, but must lie in the address space of the head. */
void qins_kv_fetch_page(const qins_kv_format *f, const uint8_t *head, size_t page);

/* Writes a key or a value of `dims` values, in the basis of the rows, at a position of a head. Keys must be written in
 * order: the mean of a page is that of the rows of the page before. scratch: [64 * dims]. */
void qins_kv_store_key(const qins_kv_format *f, uint8_t *head, size_t position, const float *key, float *scratch);
void qins_kv_store_value(const qins_kv_format *f, uint8_t *head, size_t position, const float *value);
/* Reads them back, still in that basis. */
void qins_kv_read(const qins_kv_format *f, const uint8_t *head, size_t position, float *key, float *value);
/* x := H x for rows of the type, coded ones; its own inverse. */
void qins_kv_rotate(const qins_kv_format *f, qins_kv_type type, float *x);

/* ---- sequences (kv_cache.c) ---- */

/* T of every layer and kv head, [layer][kv_head][head_dim][head_dim]; owned by the model. */
typedef struct qins_kv_transform {
    float *keys;    /* T: key' = T^t key, row by row: key'[j] = sum over i of key[i] T[i][j] */
    float *queries; /* T^-1, transposed: query'[j] = sum over i of query[i] (T^-1)[j][i] */
} qins_kv_transform;

typedef struct qins_kv_sequence {
    uint8_t *data;   /* [layer][kv_head][head_bytes]; mapped when the first token comes */
    int32_t *tokens; /* [length] */
    size_t length, token_capacity;
} qins_kv_sequence;

typedef struct qins_kv_cache {
    qins_kv_format format;
    size_t n_ctx, n_layers, n_heads, n_seqs;
    size_t head_bytes;                  /* a multiple of 64 */
    const qins_kv_transform *transform; /* NULL without one, and where keys are not coded */
    qins_kv_sequence *seqs;             /* [n_seqs] */
} qins_kv_cache;

qins_status qins_kv_cache_init(qins_kv_cache *c, size_t n_layers, size_t n_heads, size_t head_dim, size_t n_ctx,
                               size_t n_seqs, int key_bits, int value_bits, qins_error *err);
void qins_kv_cache_free(qins_kv_cache *c);
/* Bytes of the pages that hold positions, of one sequence. */
size_t qins_kv_sequence_bytes(const qins_kv_cache *c, size_t seq);
/* The same for `positions` of n_heads heads (of all layers). */
size_t qins_kv_bytes(const qins_kv_format *f, size_t n_heads, size_t positions);
/* Room for n more tokens, which the context has. */
qins_status qins_kv_reserve(qins_kv_cache *c, size_t seq, size_t n, qins_error *err);
/* Remembers the ids of tokens that were reserved and moves the length on. Their rows are stored by position. */
void qins_kv_append(qins_kv_cache *c, size_t seq, const int32_t *ids, size_t n);
void qins_kv_truncate(qins_kv_cache *c, size_t seq, size_t length);
/* `to` becomes a copy of `from`. */
qins_status qins_kv_fork(qins_kv_cache *c, size_t from, size_t to, qins_error *err);

/* Turns a key of a layer by the angle of n positions backwards; NULL where keys carry no position. */
typedef void (*qins_kv_turn_fn)(void *user, size_t layer, float *key);
/* Drops positions [keep, keep + drop); those behind move up, their keys turned. */
qins_status qins_kv_shift(qins_kv_cache *c, size_t seq, size_t keep, size_t drop, qins_kv_turn_fn turn, void *user,
                          qins_error *err);

/* Pages of a layer and kv head of a sequence that has tokens. */
static inline uint8_t *qins_kv_head(const qins_kv_cache *c, size_t seq, size_t layer, size_t head) {
    return c->seqs[seq].data + (layer * c->n_heads + head) * c->head_bytes;
}

/* Rows of `head_dim` values to and from the basis of the cache; x has room for `dims`, padding is set to zero. */
void qins_kv_key_to_rows(const qins_kv_cache *c, size_t layer, size_t head, float *x);
void qins_kv_key_from_rows(const qins_kv_cache *c, size_t layer, size_t head, float *x);
void qins_kv_query_to_rows(const qins_kv_cache *c, size_t layer, size_t head, float *x);

/* Calls fn for every stretch of bytes that holds positions of a sequence, in a fixed order. */
typedef void (*qins_kv_bytes_fn)(void *user, uint8_t *data, size_t n);
void qins_kv_each_stretch(const qins_kv_cache *c, size_t seq, qins_kv_bytes_fn fn, void *user);
/* The same for `length` positions of a sequence at `data`, which is not looked at and may be NULL. */
void qins_kv_each_stretch_of(const qins_kv_cache *c, uint8_t *data, size_t length, qins_kv_bytes_fn fn, void *user);

#endif
