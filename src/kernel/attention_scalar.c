/* The specification of arithmetic on cached rows, one value at a time. SPDX-License-Identifier: MIT */
#include "kernel/attention.h"

#include "base/half.h"

#include <math.h>

static inline float value(const qins_kv_rows *rows, qins_kv_type type, size_t i, size_t d) {
    const uint8_t *row = rows->data + i * rows->row_bytes;
    if (type == QINS_KV_F32) {
        float x;
        memcpy(&x, row + d * sizeof x, sizeof x);
        return x;
    }
    if (type == QINS_KV_F16) {
        uint16_t x;
        memcpy(&x, row + d * sizeof x, sizeof x);
        return qins_half_to_float(x);
    }
    return qins_half_to_float(rows->scales[i]) * rows->table[qins_kv_code(row, qins_kv_bits(type), d)];
}

static inline void score(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, const float *queries,
                         size_t n_queries, float *scores, size_t ld) {
    for (size_t q = 0; q < n_queries; q++)
        for (size_t i = 0; i < n_rows; i++) {
            float sum = 0;
            for (size_t d = 0; d < dims; d++)
                sum += queries[q * dims + d] * value(rows, type, i, d);
            scores[q * ld + i] = sum;
        }
}

static inline void accumulate(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims,
                              const float *weights, size_t ld, size_t n_queries, float *out) {
    for (size_t q = 0; q < n_queries; q++)
        for (size_t i = 0; i < n_rows; i++)
            for (size_t d = 0; d < dims; d++)
                out[q * dims + d] += weights[q * ld + i] * value(rows, type, i, d);
}

static inline void decode(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, float *out) {
    for (size_t i = 0; i < n_rows; i++)
        for (size_t d = 0; d < dims; d++)
            out[i * dims + d] = value(rows, type, i, d);
}

static inline unsigned nearest(const qins_kv_codebook *book, int bits, float u) {
    if (bits == 8) return (unsigned)fminf(fmaxf(rintf(u * 127.5f + 127.5f), 0.0f), 255.0f);
    unsigned code = 0;
    for (unsigned step = 1u << (bits - 1); step > 0; step /= 2)
        if (u > book->bounds[code + step - 1]) code += step;
    return code;
}

static inline void quantize(const qins_kv_codebook *book, int bits, const float *x, size_t dims, float inverse,
                            uint8_t *codes, float *cross, float *square) {
    *cross = *square = 0;
    for (size_t d = 0; d < dims; d++) {
        unsigned code = nearest(book, bits, x[d] * inverse);
        codes[d] = (uint8_t)code;
        *cross += x[d] * book->table[code];
        *square += book->table[code] * book->table[code];
    }
}

#define ROWS(name, type)                                                                                               \
    static void score_##name(const qins_kv_rows *rows, size_t n_rows, size_t dims, const float *queries,               \
                             size_t n_queries, float *scores, size_t ld) {                                             \
        score(rows, type, n_rows, dims, queries, n_queries, scores, ld);                                               \
    }                                                                                                                  \
    static void accumulate_##name(const qins_kv_rows *rows, size_t n_rows, size_t dims, const float *weights,          \
                                  size_t ld, size_t n_queries, float *out) {                                           \
        accumulate(rows, type, n_rows, dims, weights, ld, n_queries, out);                                             \
    }                                                                                                                  \
    static void decode_##name(const qins_kv_rows *rows, size_t n_rows, size_t dims, float *out) {                      \
        decode(rows, type, n_rows, dims, out);                                                                         \
    }
#define CODES(bits)                                                                                                    \
    ROWS(bits, QINS_KV_##bits)                                                                                         \
    static void quantize_##bits(const qins_kv_codebook *book, const float *x, size_t dims, float inverse,              \
                                uint8_t *codes, float *cross, float *square) {                                         \
        quantize(book, bits, x, dims, inverse, codes, cross, square);                                                  \
    }
ROWS(f32, QINS_KV_F32)
ROWS(f16, QINS_KV_F16)
CODES(8)
CODES(6)
CODES(5)
CODES(4)
CODES(3)

static void multiply_add(const float *a, size_t lda, const float *b, size_t ldb, size_t m, size_t n, size_t k, float *c,
                         size_t ldc) {
    for (size_t r = 0; r < m; r++)
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < n; j++)
                c[r * ldc + j] += a[r * lda + i] * b[i * ldb + j];
}

static float max(const float *x, size_t n) {
    float largest = x[0];
    for (size_t i = 1; i < n; i++)
        largest = fmaxf(largest, x[i]);
    return largest;
}

static float exp_sum(float *x, size_t n, float shift) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - shift);
        sum += x[i];
    }
    return sum;
}

static void scale(float *x, size_t n, float factor) {
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static void to_half(const float *x, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = qins_float_to_half(x[i] > 65504.0f ? 65504.0f : x[i] < -65504.0f ? -65504.0f : x[i]);
}

#define TYPES(kind)                                                                                                    \
    {                                                                                                                  \
        [QINS_KV_F32] = kind##_f32, [QINS_KV_F16] = kind##_f16, [QINS_KV_8] = kind##_8, [QINS_KV_6] = kind##_6,        \
        [QINS_KV_5] = kind##_5, [QINS_KV_4] = kind##_4, [QINS_KV_3] = kind##_3                                         \
    }

const qins_attention_kernels qins_attention_scalar = {
    .score = TYPES(score),
    .accumulate = TYPES(accumulate),
    .decode = TYPES(decode),
    .quantize = {[QINS_KV_8] = quantize_8,
                 [QINS_KV_6] = quantize_6,
                 [QINS_KV_5] = quantize_5,
                 [QINS_KV_4] = quantize_4,
                 [QINS_KV_3] = quantize_3},
    .multiply_add = multiply_add,
    .max = max,
    .exp_sum = exp_sum,
    .scale = scale,
    .to_half = to_half,
};
