/* The specification of the passes over activations. SPDX-License-Identifier: MIT */
#include "kernel/elementwise.h"

static void add(float *x, const float *delta, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += delta[i];
}

static void norm_rms(const float *x, size_t n, float eps, const float *w, float *out) {
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    float unit = (float)(1.0 / sqrt(square / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * unit * w[i];
}

static void norm_layer(const float *x, size_t n, float eps, const float *w, const float *b, float *out) {
    double sum = 0, square = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        square += ((double)x[i] - mean) * ((double)x[i] - mean);
    double unit = 1.0 / sqrt(square / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(((double)x[i] - mean) * unit) * w[i] + (b != NULL ? b[i] : 0.0f);
}

static float act(qins_activation activation, float x) {
    switch (activation) {
    case QINS_ACT_SILU:
        return x / (1.0f + expf(-x));
    case QINS_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752440f));
    case QINS_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
    case QINS_ACT_RELU:
        return x > 0 ? x : 0.0f;
    }
    return x;
}

static void activate(qins_activation activation, float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = act(activation, x[i]);
}

static void gate(qins_activation activation, const float *gates, const float *up, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = act(activation, gates[i]) * up[i];
}

const qins_elementwise qins_elementwise_scalar = {
    .add = add,
    .norm_rms = norm_rms,
    .norm_layer = norm_layer,
    .activate = activate,
    .gate = gate,
    .quantise = qins_quantise,
};
