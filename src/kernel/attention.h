/* Arithmetic on rows of the KV cache, one implementation per instruction set. SPDX-License-Identifier: MIT
 *
 * attention_scalar.c is the specification; attention_vector.h makes the others from the compiler's vector extensions,
 * attention_codes.h and attention_nibbles.h multiply coded rows in integers.
 * tests/unit/test_attention.c compares every table with scalar.
 */
#ifndef QINS_KERNEL_ATTENTION_H
#define QINS_KERNEL_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

/* How the values of a row are stored. */
typedef enum qins_kv_type {
    QINS_KV_F32,
    QINS_KV_F16,
    QINS_KV_8, /* codes, to be looked up in a table */
    QINS_KV_6,
    QINS_KV_5,
    QINS_KV_4,
    QINS_KV_3,
    QINS_KV_TYPES
} qins_kv_type;

enum {
    QINS_KV_LANES = 16,   /* rows are padded to a multiple of this */
    QINS_KV_OVERREAD = 32 /* bytes that must be readable behind the last row */
};

/* Rows of `dims` values, a multiple of QINS_KV_LANES. A row of b-bit codes is a string of dims * b bits, first code in
 * the lowest bits of the first byte; value = scale of the row * table[code]. Up to 6 bits, table[code] = unit *
 * levels[code]. The table of 8 bits has equal steps, so that it can be computed: table[code] = (code - 127.5) * unit,
 * unit = 1/127.5. */
typedef struct qins_kv_rows {
    const uint8_t *data; /* row i is at data + i * row_bytes */
    size_t row_bytes;
    const uint16_t *scales; /* F16, one a row; NULL for F32 and F16 rows */
    const float *table;     /* [2^bits], 64-byte aligned */
    const int8_t *levels;   /* [64]: those of the codes, repeated */
    float unit;
    size_t ahead; /* bytes from a row to one that is read soon after, worth fetching meanwhile */
} qins_kv_rows;

/* scores[q*ld + i] = sum over d of queries[q*dims + d] * row i [d]. Where rows are coded, a query may be rounded to
 * multiples of 1/8191 of its largest value. */
typedef void (*qins_kv_score_fn)(const qins_kv_rows *rows, size_t n_rows, size_t dims, const float *queries,
                                 size_t n_queries, float *scores, size_t ld);
/* out[q*dims + d] += sum over i of weights[q*ld + i] * row i [d]; weights are not negative. Where rows are coded, the
 * products of weights and scales of up to 64 rows may be rounded to multiples of 1/16383 of the largest of them. */
typedef void (*qins_kv_accumulate_fn)(const qins_kv_rows *rows, size_t n_rows, size_t dims, const float *weights,
                                      size_t ld, size_t n_queries, float *out);
/* out[i*dims + d] = row i [d] */
typedef void (*qins_kv_decode_fn)(const qins_kv_rows *rows, size_t n_rows, size_t dims, float *out);

/* A table for encoding: code of u is the number of bounds below it. */
typedef struct qins_kv_codebook {
    _Alignas(64) float table[256]; /* ascending */
    _Alignas(64) float bounds[64]; /* up to 6 bits: midpoints of neighbours, the last infinite */
    int8_t levels[64];             /* up to 6 bits: table[i] = unit * levels[i], repeated */
    float unit;
} qins_kv_codebook;

/* codes[d] = nearest entry to x[d] * inverse; *cross = sum of x * entry, *square = sum of entry^2. */
typedef void (*qins_kv_quantize_fn)(const qins_kv_codebook *book, const float *x, size_t dims, float inverse,
                                    uint8_t *codes, float *cross, float *square);

typedef struct qins_attention_kernels {
    qins_kv_score_fn score[QINS_KV_TYPES];
    qins_kv_accumulate_fn accumulate[QINS_KV_TYPES];
    qins_kv_decode_fn decode[QINS_KV_TYPES];
    qins_kv_quantize_fn quantize[QINS_KV_TYPES]; /* coded types only */
    /* c[r*ldc + j] += sum over i < k of a[r*lda + i] * b[i*ldb + j], r < m, j < n; n is a multiple of QINS_KV_LANES */
    void (*multiply_add)(const float *a, size_t lda, const float *b, size_t ldb, size_t m, size_t n, size_t k, float *c,
                         size_t ldc);
    float (*max)(const float *x, size_t n); /* n >= 1 */
    /* x := exp(x - shift), x <= shift; the sum */
    float (*exp_sum)(float *x, size_t n, float shift);
    /* x := factor * x */
    void (*scale)(float *x, size_t n, float factor);
    /* Rounds to nearest even; beyond the range of F16 to its largest value. */
    void (*to_half)(const float *x, size_t n, uint16_t *out);
} qins_attention_kernels;

/* The table that goes with qins_get_kernels(). */
const qins_attention_kernels *qins_get_attention_kernels(void);

extern const qins_attention_kernels qins_attention_scalar;
extern const qins_attention_kernels qins_attention_generic;
#if defined(__x86_64__)
extern const qins_attention_kernels qins_attention_avx2;
extern const qins_attention_kernels qins_attention_avx512;
extern const qins_attention_kernels qins_attention_avx512vbmi;
#endif

/* Bits of a value. */
static inline int qins_kv_bits(qins_kv_type type) {
    static const int bits[QINS_KV_TYPES] = {32, 16, 8, 6, 5, 4, 3};
    return bits[type];
}

/* The code at index i of a row: the specification of the packing. */
static inline unsigned qins_kv_code(const uint8_t *row, int bits, size_t i) {
    size_t first = i * (size_t)bits, byte = first / 8;
    unsigned word = row[byte];
    if (first % 8 + (size_t)bits > 8) word |= (unsigned)row[byte + 1] << 8;
    return word >> first % 8 & ((1u << bits) - 1);
}

#endif
