/* Normalisation and activation. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <math.h>
#include <string.h>

static void normalize_rms(const float *x, size_t n, float eps, const float *w, float *out) {
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    float unit = (float)(1.0 / sqrt(square / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * unit * w[i];
}

static void normalize_layer(const float *x, size_t n, float eps, const float *w, const float *b, float *out) {
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

void qins_apply_norm_row(const qins_hparams *h, const qins_norm *norm, size_t n, const float *x, float *out) {
    if (norm->weight == NULL)
        memmove(out, x, n * sizeof *x);
    else if (h->family->norm == QINS_NORM_LAYER)
        normalize_layer(x, n, h->norm_eps, norm->weight, norm->bias, out);
    else /* the one of 1 + w was added when the weights were loaded */
        normalize_rms(x, n, h->norm_eps, norm->weight, out);
}

void qins_apply_norm(const qins_hparams *h, const qins_norm *norm, size_t width, const float *x, size_t ldx,
                     size_t n_rows, float *out, size_t ldo) {
#pragma omp parallel for schedule(static) if (n_rows > 1)
    for (size_t r = 0; r < n_rows; r++)
        qins_apply_norm_row(h, norm, width, x + r * ldx, out + r * ldo);
}

static float activate(qins_activation activation, float x) {
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

void qins_activate(qins_activation activation, float *x, size_t n) {
#pragma omp parallel for schedule(static) if (n > 4096)
    for (size_t i = 0; i < n; i++)
        x[i] = activate(activation, x[i]);
}

void qins_activate_gated(qins_activation activation, const float *gate_up, size_t width, size_t n_tokens, float *out) {
#pragma omp parallel for schedule(static) if (n_tokens * width > 4096)
    for (size_t t = 0; t < n_tokens; t++) {
        const float *gate = gate_up + t * 2 * width, *up = gate + width;
        for (size_t i = 0; i < width; i++)
            out[t * width + i] = activate(activation, gate[i]) * up[i];
    }
}

void qins_soft_cap(float cap, float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}
