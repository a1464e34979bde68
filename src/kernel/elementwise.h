/* Passes over activations between the products: norms, activation functions, quantisation. SPDX-License-Identifier: MIT
 *
 * elementwise_scalar.c is the specification; elementwise_vector.h makes the others from the compiler's vector
 * extensions. tests/unit/test_elementwise.c compares every table with scalar.
 */
#ifndef QINS_KERNEL_ELEMENTWISE_H
#define QINS_KERNEL_ELEMENTWISE_H

#include "kernel/integer.h"

#include <math.h>

typedef enum qins_activation {
    QINS_ACT_SILU,      /* x / (1 + exp(-x)) */
    QINS_ACT_GELU,      /* x/2 * (1 + erf(x/sqrt(2))) */
    QINS_ACT_GELU_TANH, /* tanh approximation */
    QINS_ACT_RELU
} qins_activation;

typedef struct qins_elementwise {
    /* x += delta */
    void (*add)(float *x, const float *delta, size_t n);
    /* out = x / sqrt(mean(x^2) + eps) * w; out may be x */
    void (*norm_rms)(const float *x, size_t n, float eps, const float *w, float *out);
    /* out = (x - mean) / sqrt(var + eps) * w + b; b may be NULL, out may be x */
    void (*norm_layer)(const float *x, size_t n, float eps, const float *w, const float *b, float *out);
    /* x := act(x) */
    void (*activate)(qins_activation activation, float *x, size_t n);
    /* out = act(gate) * up; out may be gate */
    void (*gate)(qins_activation activation, const float *gate, const float *up, size_t n, float *out);
    /* Fills token t of q from n values. Tokens may be filled by different threads. */
    void (*quantise)(qins_quantised *q, size_t t, const float *x, size_t n);
} qins_elementwise;

/* The smallest unit that keeps integers within both limits, from the largest |x| of a span, the largest sum of |x| over
 * a tile and the sum over the span. */
static inline float qins_unit_of_span(float largest, float largest_sum, float total) {
    if (!isfinite(total)) return total;
    /* Rounding to integers may add a half to each of the 64. */
    float by_sum = largest_sum / (float)(QINS_INPUT_TILE_SUM - QINS_TILE_COLS);
    float by_value = largest / (float)QINS_INPUT_MAX;
    return by_value > by_sum ? by_value : by_sum;
}

/* What x is multiplied with. A unit too small to invert is a vector of nearly nothing; one that is not finite spoils
 * the sums, as in FP32. */
static inline float qins_inverse_unit(float unit) {
    float inverse = unit > 0 && isfinite(unit) ? 1.0f / unit : 0.0f;
    return isfinite(inverse) ? inverse : 0.0f;
}

/* The table that goes with qins_get_kernels(). */
const qins_elementwise *qins_get_elementwise(void);

extern const qins_elementwise qins_elementwise_scalar;
extern const qins_elementwise qins_elementwise_generic;
#if defined(__x86_64__)
extern const qins_elementwise qins_elementwise_avx2;
extern const qins_elementwise qins_elementwise_avx512;
#endif

#endif
