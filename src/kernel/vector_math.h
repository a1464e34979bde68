/* Registers of floats in the vector extensions of gcc and clang, and functions of them. SPDX-License-Identifier: MIT
 *
 * The including file defines QINS_VECTOR_LANES, floats a register: 4, 8 or 16.
 */
#ifndef QINS_VECTOR_MATH_H
#define QINS_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vf __attribute__((vector_size(4 * QINS_VECTOR_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * QINS_VECTOR_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * QINS_VECTOR_LANES)));

enum { LANES = QINS_VECTOR_LANES };

#define INLINE static inline __attribute__((always_inline))

INLINE vf load_f(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_f(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

/* Subtracting zero changes nothing, as adding it would change -0: no instruction is left. */
INLINE vf splat(float x) {
    return x - (vf){0};
}

INLINE vf select_f(vi mask, vf a, vf b) {
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

/* To the nearest integer, halves to even; |x| below 2^22. */
INLINE vf round_f(vf x) {
    return (x + 12582912.0f) - 12582912.0f;
}

/* exp(x) for x <= 0, relative error below 2e-7: x = n log 2 + r, a polynomial for exp(r) (Cephes' expf), 2^n by the
 * exponent. Below -87 the result is 0: not worth denormal numbers. */
INLINE vf exponential(vf x) {
    const float lowest = -87.0f;
    vi in_range = x > lowest;
    vf y = select_f(in_range, x, splat(lowest));
    vf n = round_f(y * 1.44269504088896341f);
    vf r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vi exponent = __builtin_convertvector(n, vi);
    /* a NaN is passed on: it compares false and so does this */
    vf result = (vf)((vi)p + (exponent << 23));
    return select_f(in_range, result, select_f(x != x, x, (vf){0}));
}

/* 1 / (1 + exp(-x)) */
INLINE vf sigmoid(vf x) {
    vi positive = x > 0.0f;
    vf e = exponential(select_f(positive, -x, x));
    return select_f(positive, splat(1.0f), e) / (e + 1.0f);
}

#endif
