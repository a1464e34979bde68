/* Arithmetic on cached rows in the vector extensions of gcc and clang, compiled once per instruction set.
 * SPDX-License-Identifier: MIT
 *
 * The including file defines
 *   QINS_VECTOR_NAME      name of the table: generic, avx2, avx512
 *   QINS_VECTOR_LANES     floats a register: 4, 8 or 16
 *   QINS_VECTOR_CHUNKS    registers of a row that accumulate keeps for each query
 *   load_half(p)          LANES halves as floats
 *   store_half(p, v)      the other way, v within the range of F16
 *   load_bytes(p)         LANES bytes as floats; compilers make it of single conversions otherwise
 *   store_bytes(p, v)     the lowest byte of each word
 *   load_codes(row, bits, i)        codes i .. i+LANES-1 of a row, i a multiple of LANES; upper bits may be anything
 *   lookup(table, bits, codes)      table entries, by the lowest `bits` bits of each word
 *   sum_lanes(v)          sum of the lanes
 *   max_lanes(v)          the largest of them
 *   sum_fours(v)          lane 4 q + i: the sum of the lanes of v[q][i]; where QINS_VECTOR_FOURS is defined
 * and, where coded rows are multiplied in integers,
 *   QINS_VECTOR_CODES     the header with what attention_codes.h needs
 */
#include "base/half.h"
#include "kernel/attention.h"
#include "kernel/vector_math.h"

enum { CHUNKS = QINS_VECTOR_CHUNKS, QUERIES = 4 };

INLINE vf load_half(const uint16_t *p);
INLINE void store_half(uint16_t *p, vf v);
INLINE vf load_bytes(const uint8_t *p);
INLINE void store_bytes(uint8_t *p, vu v);
INLINE vu load_codes(const uint8_t *row, int bits, size_t i);
INLINE vf lookup(const float *table, int bits, vu codes);
INLINE float sum_lanes(vf v);
INLINE float max_lanes(vf v);

/* Values d .. d+LANES-1 of a row, codes without the row's scale. */
INLINE vf load_values(const qins_kv_rows *rows, qins_kv_type type, const uint8_t *row, size_t d) {
    if (type == QINS_KV_F32) return load_f((const float *)(const void *)row + d);
    if (type == QINS_KV_F16) return load_half((const uint16_t *)(const void *)row + d);
    if (type == QINS_KV_8) return load_bytes(row + d) - 127.5f;
    int bits = qins_kv_bits(type);
    return lookup(rows->table, bits, load_codes(row, bits, d));
}

/* What the values of load_values are to be multiplied with. */
INLINE float row_factor(const qins_kv_rows *rows, qins_kv_type type, size_t i) {
    if (type == QINS_KV_F32 || type == QINS_KV_F16) return 1.0f;
    float scale = qins_half_to_float(rows->scales[i]);
    return type == QINS_KV_8 ? scale * (1.0f / 127.5f) : scale;
}

/* The row that is read soon after this one, plain rows only: coded ones have the same in attention_codes.h. */
INLINE void fetch_plain(const qins_kv_rows *rows, qins_kv_type type, const uint8_t *row) {
    if (type != QINS_KV_F16) return;
    for (size_t i = 0; i < rows->row_bytes; i += 64)
        __builtin_prefetch((const void *)((uintptr_t)row + rows->ahead + i), 0, 2);
}

#if defined(QINS_VECTOR_FOURS)
INLINE vf sum_fours(vf v[4][4]);

/* Plain rows, four at a time: adding up the lanes of single registers would take longer than the products. Returns the
 * number of rows done. */
INLINE size_t score_fours(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, const float *queries,
                          size_t n, float *scores, size_t ld) {
    size_t i = 0;
    for (; i + 4 <= n_rows; i += 4) {
        const uint8_t *row = rows->data + i * rows->row_bytes;
        vf sum[QUERIES][4] = {{{0}}};
        for (size_t r = 0; r < 4; r++)
            fetch_plain(rows, type, row + r * rows->row_bytes);
        for (size_t d = 0; d < dims; d += LANES) {
            vf x[4];
            for (size_t r = 0; r < 4; r++)
                x[r] = load_values(rows, type, row + r * rows->row_bytes, d);
            for (size_t q = 0; q < n; q++) {
                vf query = load_f(queries + q * dims + d);
                for (size_t r = 0; r < 4; r++)
                    sum[q][r] += x[r] * query;
            }
        }
        float each[LANES];
        store_f(each, sum_fours(sum));
        for (size_t q = 0; q < n; q++)
            memcpy(scores + q * ld + i, each + 4 * q, 4 * sizeof *each);
    }
    return i;
}
#endif

/* n queries at once; n is a constant after inlining. */
INLINE void score_queries(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, const float *queries,
                          size_t n, float *scores, size_t ld) {
    size_t i = 0;
#if defined(QINS_VECTOR_FOURS)
    if (type == QINS_KV_F32 || type == QINS_KV_F16) i = score_fours(rows, type, n_rows, dims, queries, n, scores, ld);
#endif
    for (; i < n_rows; i++) {
        const uint8_t *row = rows->data + i * rows->row_bytes;
        vf sum[QUERIES][2] = {{{0}}};
        fetch_plain(rows, type, row);
        for (size_t d = 0; d < dims; d += QINS_KV_LANES)
            for (size_t part = 0; part < QINS_KV_LANES / LANES; part++) {
                size_t at = d + part * LANES;
                vf x = load_values(rows, type, row, at);
                for (size_t q = 0; q < n; q++)
                    sum[q][part % 2] += x * load_f(queries + q * dims + at);
            }
        float factor = row_factor(rows, type, i);
        for (size_t q = 0; q < n; q++)
            scores[q * ld + i] = factor * sum_lanes(sum[q][0] + sum[q][1]);
    }
}

INLINE void score(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, const float *queries,
                  size_t n_queries, float *scores, size_t ld) {
    size_t q = 0;
    for (; q + 4 <= n_queries; q += 4)
        score_queries(rows, type, n_rows, dims, queries + q * dims, 4, scores + q * ld, ld);
    const float *rest = queries + q * dims;
    if (n_queries - q == 3) score_queries(rows, type, n_rows, dims, rest, 3, scores + q * ld, ld);
    if (n_queries - q == 2) score_queries(rows, type, n_rows, dims, rest, 2, scores + q * ld, ld);
    if (n_queries - q == 1) score_queries(rows, type, n_rows, dims, rest, 1, scores + q * ld, ld);
}

/* n queries and `chunks` registers of each row; both are constants after inlining. */
INLINE void accumulate_part(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, size_t d,
                            size_t chunks, const float *weights, size_t ld, size_t n, float *out) {
    vf sum[QUERIES][CHUNKS];
    for (size_t q = 0; q < n; q++)
        for (size_t c = 0; c < chunks; c++)
            sum[q][c] = load_f(out + q * dims + d + c * LANES);
    for (size_t i = 0; i < n_rows; i++) {
        const uint8_t *row = rows->data + i * rows->row_bytes;
        fetch_plain(rows, type, row);
        float factor = row_factor(rows, type, i);
        vf weight[QUERIES];
        for (size_t q = 0; q < n; q++)
            weight[q] = splat(weights[q * ld + i] * factor);
        for (size_t c = 0; c < chunks; c++) {
            vf x = load_values(rows, type, row, d + c * LANES);
            for (size_t q = 0; q < n; q++)
                sum[q][c] += x * weight[q];
        }
    }
    for (size_t q = 0; q < n; q++)
        for (size_t c = 0; c < chunks; c++)
            store_f(out + q * dims + d + c * LANES, sum[q][c]);
}

INLINE void accumulate_queries(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims,
                               const float *weights, size_t ld, size_t n, float *out) {
    size_t d = 0;
    for (; d + CHUNKS * LANES <= dims; d += CHUNKS * LANES)
        accumulate_part(rows, type, n_rows, dims, d, CHUNKS, weights, ld, n, out);
    for (; d < dims; d += LANES)
        accumulate_part(rows, type, n_rows, dims, d, 1, weights, ld, n, out);
}

INLINE void accumulate(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, const float *weights,
                       size_t ld, size_t n_queries, float *out) {
    size_t q = 0;
    for (; q + 4 <= n_queries; q += 4)
        accumulate_queries(rows, type, n_rows, dims, weights + q * ld, ld, 4, out + q * dims);
    float *rest = out + q * dims;
    if (n_queries - q == 3) accumulate_queries(rows, type, n_rows, dims, weights + q * ld, ld, 3, rest);
    if (n_queries - q == 2) accumulate_queries(rows, type, n_rows, dims, weights + q * ld, ld, 2, rest);
    if (n_queries - q == 1) accumulate_queries(rows, type, n_rows, dims, weights + q * ld, ld, 1, rest);
}

INLINE void decode(const qins_kv_rows *rows, qins_kv_type type, size_t n_rows, size_t dims, float *out) {
    for (size_t i = 0; i < n_rows; i++) {
        const uint8_t *row = rows->data + i * rows->row_bytes;
        float factor = row_factor(rows, type, i);
        for (size_t d = 0; d < dims; d += LANES)
            store_f(out + i * dims + d, load_values(rows, type, row, d) * factor);
    }
}

/* Binary search among the bounds. */
INLINE vu nearest(const qins_kv_codebook *book, int bits, vf u) {
    if (bits == 8) {
        /* adding and subtracting 1.5 * 2^23 rounds to nearest even */
        vf code = (u * 127.5f + 127.5f), low = {0}, high = splat(255.0f);
        code = select_f(code > low, code, low);
        code = select_f(code < high, code, high);
        return (vu)(code + 12582912.0f) & 255u;
    }
    vu code = {0};
    for (unsigned step = 1u << (bits - 1); step > 0; step /= 2) {
        vf bound = lookup(book->bounds, bits, code + (step - 1));
        code += (vu)(u > bound) & step;
    }
    return code;
}

INLINE void quantize(const qins_kv_codebook *book, int bits, const float *x, size_t dims, float inverse, uint8_t *codes,
                     float *cross, float *square) {
    vf cross_sum = {0}, square_sum = {0};
    for (size_t d = 0; d < dims; d += LANES) {
        vf u = load_f(x + d);
        vu code = nearest(book, bits, u * inverse);
        store_bytes(codes + d, code);
        vf entry = bits == 8 ? (__builtin_convertvector((vi)code, vf) - 127.5f) * (1.0f / 127.5f)
                             : lookup(book->table, bits, code);
        cross_sum += u * entry;
        square_sum += entry * entry;
    }
    *cross = sum_lanes(cross_sum);
    *square = sum_lanes(square_sum);
}

#ifdef QINS_VECTOR_CODES
#include QINS_VECTOR_CODES
#define SCORE_CODES(bits, ...)      score_codes(rows, bits, __VA_ARGS__)
#define ACCUMULATE_CODES(bits, ...) accumulate_codes(rows, bits, __VA_ARGS__)
#else
#define SCORE_CODES(bits, ...)      score(rows, QINS_KV_##bits, __VA_ARGS__)
#define ACCUMULATE_CODES(bits, ...) accumulate(rows, QINS_KV_##bits, __VA_ARGS__)
#endif

#define ROWS(name, type, score_call, accumulate_call)                                                                  \
    static void score_##name(const qins_kv_rows *rows, size_t n_rows, size_t dims, const float *queries,               \
                             size_t n_queries, float *scores, size_t ld) {                                             \
        score_call;                                                                                                    \
    }                                                                                                                  \
    static void accumulate_##name(const qins_kv_rows *rows, size_t n_rows, size_t dims, const float *weights,          \
                                  size_t ld, size_t n_queries, float *out) {                                           \
        accumulate_call;                                                                                               \
    }                                                                                                                  \
    static void decode_##name(const qins_kv_rows *rows, size_t n_rows, size_t dims, float *out) {                      \
        decode(rows, type, n_rows, dims, out);                                                                         \
    }
#define FLOATS(name, type)                                                                                             \
    ROWS(name, type, score(rows, type, n_rows, dims, queries, n_queries, scores, ld),                                  \
         accumulate(rows, type, n_rows, dims, weights, ld, n_queries, out))
#define CODES(bits)                                                                                                    \
    ROWS(bits, QINS_KV_##bits, SCORE_CODES(bits, n_rows, dims, queries, n_queries, scores, ld),                        \
         ACCUMULATE_CODES(bits, n_rows, dims, weights, ld, n_queries, out))                                            \
    static void quantize_##bits(const qins_kv_codebook *book, const float *x, size_t dims, float inverse,              \
                                uint8_t *codes, float *cross, float *square) {                                         \
        quantize(book, bits, x, dims, inverse, codes, cross, square);                                                  \
    }
FLOATS(f32, QINS_KV_F32)
FLOATS(f16, QINS_KV_F16)
CODES(8)
CODES(6)
CODES(5)
CODES(4)
CODES(3)

/* `rows` rows of c and QINS_KV_LANES columns stay in registers. */
INLINE void multiply_rows(const float *a, size_t lda, const float *b, size_t ldb, size_t rows, size_t k, float *c,
                          size_t ldc) {
    enum { PARTS = QINS_KV_LANES / LANES };
    vf sum[8][PARTS];
    for (size_t r = 0; r < rows; r++)
        for (size_t p = 0; p < PARTS; p++)
            sum[r][p] = load_f(c + r * ldc + p * LANES);
    for (size_t i = 0; i < k; i++)
        for (size_t p = 0; p < PARTS; p++) {
            vf x = load_f(b + i * ldb + p * LANES);
            for (size_t r = 0; r < rows; r++)
                sum[r][p] += x * a[r * lda + i];
        }
    for (size_t r = 0; r < rows; r++)
        for (size_t p = 0; p < PARTS; p++)
            store_f(c + r * ldc + p * LANES, sum[r][p]);
}

static void multiply_add(const float *a, size_t lda, const float *b, size_t ldb, size_t m, size_t n, size_t k, float *c,
                         size_t ldc) {
    enum { ROWS = QINS_VECTOR_LANES == 16 ? 8 : 4 };
    for (size_t j = 0; j < n; j += QINS_KV_LANES) {
        size_t r = 0;
        for (; r + ROWS <= m; r += ROWS)
            multiply_rows(a + r * lda, lda, b + j, ldb, ROWS, k, c + r * ldc + j, ldc);
        for (; r < m; r++)
            multiply_rows(a + r * lda, lda, b + j, ldb, 1, k, c + r * ldc + j, ldc);
    }
}

static float max(const float *x, size_t n) {
    size_t i = 0;
    float largest = x[0];
    if (n >= LANES) {
        vf lanes = load_f(x);
        for (i = LANES; i + LANES <= n; i += LANES) {
            vf v = load_f(x + i);
            lanes = select_f(v > lanes, v, lanes);
        }
        largest = max_lanes(lanes);
    }
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static float exp_sum(float *x, size_t n, float shift) {
    vf sum = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf e = exponential(load_f(x + i) - shift);
        store_f(x + i, e);
        sum += e;
    }
    float total = sum_lanes(sum);
    if (i < n) {
        float rest[LANES];
        for (size_t j = 0; j < LANES; j++)
            rest[j] = i + j < n ? x[i + j] - shift : -INFINITY;
        store_f(rest, exponential(load_f(rest)));
        for (size_t j = 0; i + j < n; j++) {
            x[i + j] = rest[j];
            total += rest[j];
        }
    }
    return total;
}

static void scale(float *x, size_t n, float factor) {
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static void to_half(const float *x, size_t n, uint16_t *out) {
    const float limit = 65504.0f;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf v = load_f(x + i);
        v = select_f(v > limit, splat(limit), v);
        v = select_f(v < -limit, splat(-limit), v);
        store_half(out + i, v);
    }
    for (; i < n; i++)
        out[i] = qins_float_to_half(x[i] > limit ? limit : x[i] < -limit ? -limit : x[i]);
}

#define TYPES(kind)                                                                                                    \
    {                                                                                                                  \
        [QINS_KV_F32] = kind##_f32, [QINS_KV_F16] = kind##_f16, [QINS_KV_8] = kind##_8, [QINS_KV_6] = kind##_6,        \
        [QINS_KV_5] = kind##_5, [QINS_KV_4] = kind##_4, [QINS_KV_3] = kind##_3                                         \
    }
#define TABLE_NAME_(name) qins_attention_##name
#define TABLE_NAME(name)  TABLE_NAME_(name)

const qins_attention_kernels TABLE_NAME(QINS_VECTOR_NAME) = {
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
