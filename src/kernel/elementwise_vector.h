/* Passes over activations in the vector extensions of gcc and clang, compiled once per instruction set.
 * SPDX-License-Identifier: MIT
 *
 * The including file defines QINS_VECTOR_NAME (generic, avx2, avx512), QINS_VECTOR_LANES and sum_lanes(v), the sum of
 * the lanes.
 */
#include "kernel/elementwise.h"
#include "kernel/vector_math.h"

INLINE float sum_lanes(vf v);

/* n values, others zero. */
INLINE vf load_some(const float *p, size_t n) {
    if (n >= LANES) return load_f(p);
    float some[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        some[i] = p[i];
    return load_f(some);
}

INLINE void store_some(float *p, vf v, size_t n) {
    if (n >= LANES) {
        store_f(p, v);
        return;
    }
    for (size_t i = 0; i < n; i++)
        p[i] = v[i];
}

static void add(float *x, const float *delta, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        store_some(x + i, load_some(x + i, n - i) + load_some(delta + i, n - i), n - i);
}

/* ---- norms: four partial sums of floats each, added up in double ---- */

enum { SUMS = 4 };

INLINE double add_up(const vf sum[SUMS]) {
    double total = 0;
    for (size_t j = 0; j < SUMS; j++)
        total += (double)sum_lanes(sum[j]);
    return total;
}

/* Sum of (x - mean)^2. */
INLINE double squares(const float *x, size_t n, float mean) {
    vf sum[SUMS] = {{0}};
    size_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (size_t j = 0; j < SUMS; j++) {
            vf v = load_f(x + i + j * LANES) - mean;
            sum[j] += v * v;
        }
    for (; i + LANES <= n; i += LANES) {
        vf v = load_f(x + i) - mean;
        sum[0] += v * v;
    }
    double total = add_up(sum);
    for (; i < n; i++)
        total += (double)(x[i] - mean) * (double)(x[i] - mean);
    return total;
}

static void norm_rms(const float *x, size_t n, float eps, const float *w, float *out) {
    float unit = (float)(1.0 / sqrt(squares(x, n, 0.0f) / (double)n + (double)eps));
    for (size_t i = 0; i < n; i += LANES)
        store_some(out + i, load_some(x + i, n - i) * unit * load_some(w + i, n - i), n - i);
}

static void norm_layer(const float *x, size_t n, float eps, const float *w, const float *b, float *out) {
    vf sum[SUMS] = {{0}};
    for (size_t i = 0, j = 0; i < n; i += LANES, j = (j + 1) % SUMS)
        sum[j] += load_some(x + i, n - i);
    float mean = (float)(add_up(sum) / (double)n);
    float unit = (float)(1.0 / sqrt(squares(x, n, mean) / (double)n + (double)eps));
    for (size_t i = 0; i < n; i += LANES) {
        vf v = (load_some(x + i, n - i) - mean) * unit * load_some(w + i, n - i);
        store_some(out + i, b != NULL ? v + load_some(b + i, n - i) : v, n - i);
    }
}

/* ---- activation functions ---- */

/* Rational approximation of odd degree 13 over even degree 8 on [-4, 4], where |erf| reaches 1 - 2e-8; the one of Eigen
 * (Guennebaud, Jacob et al., version 3). */
INLINE vf error_function(vf x) {
    x = select_f(x > 4.0f, splat(4.0f), select_f(x < -4.0f, splat(-4.0f), x));
    vf s = x * x;
    vf p = splat(-2.72614225801306e-10f);
    p = p * s + 2.77068142495902e-08f;
    p = p * s + -2.10102402082508e-06f;
    p = p * s + -5.69250639462346e-05f;
    p = p * s + -7.34990630326855e-04f;
    p = p * s + -2.95459980854025e-03f;
    p = p * s + -1.60960333262415e-02f;
    vf q = splat(-1.45660718464996e-05f);
    q = q * s + -2.13374055278905e-04f;
    q = q * s + -1.68282697438203e-03f;
    q = q * s + -7.37332916720468e-03f;
    q = q * s + -1.42647390514189e-02f;
    return x * p / q;
}

INLINE vf act(qins_activation activation, vf x) {
    switch (activation) {
    case QINS_ACT_SILU:
        return x * sigmoid(x);
    case QINS_ACT_GELU:
        return x * 0.5f * (error_function(x * 0.70710678118654752440f) + 1.0f);
    case QINS_ACT_GELU_TANH: /* (1 + tanh(u)) / 2 = sigmoid(2u) */
        return x * sigmoid((x + x * x * x * 0.044715f) * 1.59576912160573071176f);
    case QINS_ACT_RELU:
        return select_f(x > 0.0f, x, (vf){0});
    }
    return x;
}

/* The activation is a constant after inlining. */
INLINE void activate_with(qins_activation activation, float *x, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        store_some(x + i, act(activation, load_some(x + i, n - i)), n - i);
}

INLINE void gate_with(qins_activation activation, const float *gates, const float *up, size_t n, float *out) {
    for (size_t i = 0; i < n; i += LANES)
        store_some(out + i, act(activation, load_some(gates + i, n - i)) * load_some(up + i, n - i), n - i);
}

static void activate(qins_activation activation, float *x, size_t n) {
    switch (activation) {
    case QINS_ACT_SILU:
        activate_with(QINS_ACT_SILU, x, n);
        break;
    case QINS_ACT_GELU:
        activate_with(QINS_ACT_GELU, x, n);
        break;
    case QINS_ACT_GELU_TANH:
        activate_with(QINS_ACT_GELU_TANH, x, n);
        break;
    case QINS_ACT_RELU:
        activate_with(QINS_ACT_RELU, x, n);
    }
}

static void gate(qins_activation activation, const float *gates, const float *up, size_t n, float *out) {
    switch (activation) {
    case QINS_ACT_SILU:
        gate_with(QINS_ACT_SILU, gates, up, n, out);
        break;
    case QINS_ACT_GELU:
        gate_with(QINS_ACT_GELU, gates, up, n, out);
        break;
    case QINS_ACT_GELU_TANH:
        gate_with(QINS_ACT_GELU_TANH, gates, up, n, out);
        break;
    case QINS_ACT_RELU:
        gate_with(QINS_ACT_RELU, gates, up, n, out);
    }
}

/* ---- quantisation ---- */

typedef int16_t words_of_lanes __attribute__((vector_size(2 * QINS_VECTOR_LANES)));
typedef int8_t bytes_of_lanes __attribute__((vector_size(QINS_VECTOR_LANES)));

/* n columns, a multiple of 64 and at most a span. */
INLINE void quantise_span(const float *x, size_t n, int16_t *words, int8_t *halves, float *unit, int32_t *offset) {
    const float limit = (float)QINS_INPUT_MAX;
    vf largest_lanes = {0};
    float largest_sum = 0, total = 0, largest = 0;
    for (size_t tile = 0; tile < n; tile += QINS_TILE_COLS) {
        vf lanes = {0};
        for (size_t k = tile; k < tile + QINS_TILE_COLS; k += LANES) {
            vf a = (vf)((vi)load_f(x + k) & 0x7fffffff);
            largest_lanes = select_f(a > largest_lanes, a, largest_lanes);
            lanes += a;
        }
        float sum = sum_lanes(lanes);
        largest_sum = sum > largest_sum ? sum : largest_sum;
        total += sum;
    }
    for (size_t j = 0; j < LANES; j++)
        largest = largest_lanes[j] > largest ? largest_lanes[j] : largest;
    *unit = qins_unit_of_span(largest, largest_sum, total);
    float inverse = qins_inverse_unit(*unit);
    vi sum = {0};
    for (size_t k = 0; k < n; k += LANES, words += LANES) {
        vf v = load_f(x + k) * inverse;
        v = select_f(v > -limit, v, splat(-limit)); /* also of NaN */
        v = select_f(v < limit, v, splat(limit));
        vi integer = __builtin_convertvector(round_f(v), vi);
        vi low = ((integer + 128) & 255) - 128, high = (integer - low) >> 8;
        sum += integer;
        words_of_lanes w = __builtin_convertvector(integer, words_of_lanes);
        bytes_of_lanes h = __builtin_convertvector(high, bytes_of_lanes),
                       l = __builtin_convertvector(low, bytes_of_lanes);
        memcpy(words, &w, sizeof w);
        int8_t *to = halves + k / QINS_TILE_COLS * 2 * QINS_TILE_COLS + k % QINS_TILE_COLS;
        memcpy(to, &h, sizeof h);
        memcpy(to + QINS_TILE_COLS, &l, sizeof l);
    }
    int32_t all = 0;
    for (size_t j = 0; j < LANES; j++)
        all += sum[j];
    *offset = -QINS_ENTRY_BIAS * all;
}

static void quantise(qins_quantised *q, size_t t, const float *x, size_t n) {
    for (size_t span = 0; span < q->n_spans; span++) {
        size_t col = span * QINS_SPAN_COLS, cols = qins_min_size(QINS_SPAN_COLS, q->n_cols - col);
        const float *values = x + col;
        _Alignas(64) float padded[QINS_SPAN_COLS];
        if (col + cols > n) {
            size_t given = n > col ? n - col : 0;
            memset(padded, 0, sizeof padded);
            memcpy(padded, values, given * sizeof *values);
            values = padded;
        }
        quantise_span(values, cols, q->words + t * q->n_cols + col, q->halves + 2 * (t * q->n_cols + col),
                      &q->units[t * q->n_spans + span], &q->offsets[t * q->n_spans + span]);
    }
}

#define TABLE_NAME_(name) qins_elementwise_##name
#define TABLE_NAME(name)  TABLE_NAME_(name)

const qins_elementwise TABLE_NAME(QINS_VECTOR_NAME) = {
    .add = add,
    .norm_rms = norm_rms,
    .norm_layer = norm_layer,
    .activate = activate,
    .gate = gate,
    .quantise = quantise,
};
