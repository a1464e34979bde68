/* SPDX-License-Identifier: MIT */
#include "model/backward.h"

#include <math.h>
#include <string.h>

static void rms_backward(const float *x, size_t n, float eps, const float *w, const float *dy, float *dx) {
    double square = 0, dot = 0;
    for (size_t i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
        dot += (double)x[i] * (double)w[i] * (double)dy[i];
    }
    double unit = 1.0 / sqrt(square / (double)n + (double)eps), back = dot * unit * unit * unit / (double)n;
    for (size_t i = 0; i < n; i++)
        dx[i] = (float)(unit * (double)w[i] * (double)dy[i] - back * (double)x[i]);
}

static void layer_backward(const float *x, size_t n, float eps, const float *w, const float *dy, float *dx) {
    double sum = 0, square = 0, mean_d = 0, mean_dx = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        square += ((double)x[i] - mean) * ((double)x[i] - mean);
    double unit = 1.0 / sqrt(square / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++) {
        double d = (double)w[i] * (double)dy[i];
        mean_d += d / (double)n;
        mean_dx += d * ((double)x[i] - mean) * unit / (double)n;
    }
    for (size_t i = 0; i < n; i++)
        dx[i] = (float)(unit * ((double)w[i] * (double)dy[i] - mean_d - ((double)x[i] - mean) * unit * mean_dx));
}

void qins_norm_backward(const qins_hparams *h, const qins_norm *norm, size_t width, const float *x, size_t ldx,
                        size_t n_rows, const float *dy, size_t ldy, float *dx, size_t lddx) {
#pragma omp parallel for schedule(static) if (n_rows > 1)
    for (size_t r = 0; r < n_rows; r++) {
        const float *from = x + r * ldx, *d = dy + r * ldy;
        if (norm->weight == NULL)
            memmove(dx + r * lddx, d, width * sizeof *dx);
        else if (h->family->norm == QINS_NORM_LAYER)
            layer_backward(from, width, h->norm_eps, norm->weight, d, dx + r * lddx);
        else
            rms_backward(from, width, h->norm_eps, norm->weight, d, dx + r * lddx);
    }
}

/* act(x) in *value */
static float derivative(qins_activation activation, float x, float *value) {
    static const float SQRT_HALF = 0.70710678f, ROOT_2_PI = 0.79788456f, CUBIC = 0.044715f, DENSITY = 0.39894228f;
    switch (activation) {
    case QINS_ACT_SILU: {
        float s = 1.0f / (1.0f + expf(-x));
        *value = x * s;
        return s * (1.0f + x * (1.0f - s));
    }
    case QINS_ACT_GELU: {
        float phi = 0.5f * (1.0f + erff(x * SQRT_HALF));
        *value = x * phi;
        return phi + x * DENSITY * expf(-0.5f * x * x);
    }
    case QINS_ACT_GELU_TANH: {
        float t = tanhf(ROOT_2_PI * (x + CUBIC * x * x * x));
        *value = 0.5f * x * (1.0f + t);
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * ROOT_2_PI * (1.0f + 3.0f * CUBIC * x * x);
    }
    case QINS_ACT_RELU:
        *value = x > 0 ? x : 0.0f;
        return x > 0 ? 1.0f : 0.0f;
    }
    *value = x;
    return 1.0f;
}

void qins_activate_backward(qins_activation activation, const float *x, const float *dy, size_t n, float *dx) {
#pragma omp parallel for schedule(static) if (n > 4096)
    for (size_t i = 0; i < n; i++) {
        float value;
        dx[i] = dy[i] * derivative(activation, x[i], &value);
    }
}

void qins_activate_gated_backward(qins_activation activation, const float *gate_up, size_t width, size_t n_tokens,
                                  const float *dy, float *d_gate_up) {
#pragma omp parallel for schedule(static) if (n_tokens * width > 4096)
    for (size_t t = 0; t < n_tokens; t++) {
        const float *gate = gate_up + t * 2 * width, *up = gate + width, *d = dy + t * width;
        float *d_gate = d_gate_up + t * 2 * width, *d_up = d_gate + width;
        for (size_t i = 0; i < width; i++) {
            float value, slope = derivative(activation, gate[i], &value);
            d_gate[i] = d[i] * slope * up[i];
            d_up[i] = d[i] * value;
        }
    }
}
