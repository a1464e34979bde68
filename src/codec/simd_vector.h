/* Inner loops of encoding over registers of floats, compiled once per instruction set. SPDX-License-Identifier: MIT
 *
 * The including file defines
 *   QINS_SIMD_NAME     name of the table
 *   vf, vi             registers of LANES floats and LANES 32-bit integers (GNU vector types)
 *   vd4                four doubles
 *   swap(h, x)         lane i of the result is lane i ^ h of x
 *   nearest(bits, book, u)      codes of the entries of a sorted table nearest to u
 *   lookup(bits, table, code)   table entries
 *   store_codes(codes, code)    LANES codes as 16-bit integers
 *   add_squares(sum, e)         sum + squares of e[0..4), then of e[4..8) ...
 */
#include <string.h>

enum { LANES = sizeof(vf) / sizeof(float) };

static inline vf load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

/* ---- Walsh-Hadamard transform ---- */

/* Within one register: lane i meets lane i ^ h. a - b is written (-b) + a, which rounds the same. */
static inline __attribute__((always_inline)) vf butterfly(int h, vf x) {
    vf sign;
    for (int i = 0; i < LANES; i++)
        sign[i] = (i & h) != 0 ? -1.0f : 1.0f;
    return swap(h, x) + x * sign;
}

static inline __attribute__((always_inline)) void cross(float *a, float *b) {
    vf x = load(a), y = load(b);
    store(a, x + y);
    store(b, x - y);
}

/* Two stages in one pass over the data: strides h and 2h. */
static inline __attribute__((always_inline)) void cross_twice(float *p, size_t h) {
    vf a = load(p), b = load(p + h), c = load(p + 2 * h), d = load(p + 3 * h);
    vf ab = a + b, a_b = a - b, cd = c + d, c_d = c - d;
    store(p, ab + cd);
    store(p + h, a_b + c_d);
    store(p + 2 * h, ab - cd);
    store(p + 3 * h, a_b - c_d);
}

static void hadamard(float *x, size_t n) {
    if (n < LANES) {
        qins_codec_portable.hadamard(x, n);
        return;
    }
    for (size_t i = 0; i < n; i += LANES) {
        vf v = load(x + i);
        v = butterfly(1, v);
        v = butterfly(2, v);
        v = butterfly(4, v);
        if (LANES == 16) v = butterfly(8, v);
        store(x + i, v);
    }
    size_t h = LANES;
    for (; 4 * h <= n; h *= 4)
        for (size_t i = 0; i < n; i += 4 * h)
            for (size_t j = i; j < i + h; j += LANES)
                cross_twice(x + j, h);
    for (; h < n; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j += LANES)
                cross(x + j, x + j + h);
}

/* ---- nearest codes and their errors ---- */

static inline __attribute__((always_inline)) void nearest_of(int bits, const qins_codebook *book, const float *x,
                                                             size_t n, float scale, uint16_t *codes) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store_codes(codes + i, nearest(bits, book, load(x + i) / scale));
    for (; i < n; i++)
        codes[i] = (uint16_t)qins_nearest_code(book, x[i] / scale);
}

enum { MAX_SCALES = 32 };

static inline __attribute__((always_inline)) void errors_of(int bits, const qins_codebook *book, const float *x,
                                                            size_t n, const float *scales, size_t n_scales,
                                                            double *errors) {
    vd4 sums[MAX_SCALES];
    float inverses[MAX_SCALES];
    memset(sums, 0, n_scales * sizeof *sums);
    for (size_t s = 0; s < n_scales; s++)
        inverses[s] = 1.0f / scales[s];
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf v = load(x + i);
        for (size_t s = 0; s < n_scales; s++)
            sums[s] =
                add_squares(sums[s], v - scales[s] * lookup(bits, book->table, nearest(bits, book, v * inverses[s])));
    }
    size_t whole = n / 4 * 4;
    for (size_t s = 0; s < n_scales; s++) {
        double sum[4];
        memcpy(sum, &sums[s], sizeof sum);
        for (size_t k = i; k < n; k++) {
            float e = x[k] - scales[s] * book->table[qins_nearest_code(book, x[k] * inverses[s])];
            sum[k < whole ? k % 4 : 0] += (double)e * (double)e;
        }
        errors[s] = sum[0] + sum[1] + sum[2] + sum[3];
    }
}

/* One function a width, so that what depends on the width is decided once. */
#define WIDTH(bits)                                                                                                    \
    static void nearest_##bits(const qins_codebook *book, const float *x, size_t n, float scale, uint16_t *codes) {    \
        nearest_of(bits, book, x, n, scale, codes);                                                                    \
    }                                                                                                                  \
    static void errors_##bits(const qins_codebook *book, const float *x, size_t n, const float *scales,                \
                              size_t n_scales, double *errors) {                                                       \
        errors_of(bits, book, x, n, scales, n_scales, errors);                                                         \
    }
WIDTH(3)
WIDTH(4)
WIDTH(5)
WIDTH(6)
WIDTH(7)
WIDTH(8)

static void nearest_any(const qins_codebook *book, const float *x, size_t n, float scale, uint16_t *codes) {
    static void (*const by_width[])(const qins_codebook *, const float *, size_t, float,
                                    uint16_t *) = {nearest_3, nearest_4, nearest_5, nearest_6, nearest_7, nearest_8};
    by_width[book->bits - QINS_MIN_BITS](book, x, n, scale, codes);
}

static void errors_any(const qins_codebook *book, const float *x, size_t n, const float *scales, size_t n_scales,
                       double *errors) {
    static void (*const by_width[])(const qins_codebook *, const float *, size_t, const float *, size_t,
                                    double *) = {errors_3, errors_4, errors_5, errors_6, errors_7, errors_8};
    for (size_t s = 0; s < n_scales; s += MAX_SCALES)
        by_width[book->bits - QINS_MIN_BITS](book, x, n, scales + s, qins_min_size(MAX_SCALES, n_scales - s),
                                             errors + s);
}

#define nearest_of nearest_any
#include "codec/trellis_lanes.h"
#undef nearest_of

#define TABLE_NAME_(name) qins_codec_##name
#define TABLE_NAME(name)  TABLE_NAME_(name)
#define TEXT_(name)       #name
#define TEXT(name)        TEXT_(name)

const qins_codec_simd TABLE_NAME(QINS_SIMD_NAME) = {TEXT(QINS_SIMD_NAME), hadamard, nearest_any, errors_any, trellis};
