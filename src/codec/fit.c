/* Scales and alpha of least squared error. SPDX-License-Identifier: MIT */
#include "codec/simd.h"

#include <math.h>

double qins_squared_error(const qins_codebook *book, const float *x, size_t n, float scale) {
    double sum = 0;
    if (book->sorted && isnormal(1.0f / scale)) {
        qins_get_codec_simd()->scale_errors(book, x, n, &scale, 1, &sum);
        return sum;
    }
    double inverse = scale != 0.0f ? 1.0 / (double)scale : 0.0;
    for (size_t i = 0; i < n; i++) {
        double t = (double)book->table[qins_codebook_encode(book, (float)((double)x[i] * inverse))];
        double e = (double)x[i] - (double)scale * t;
        sum += e * e;
    }
    return sum;
}

/* The best scale for the codes that `scale` gives, <x,t>/<t,t>. */
static float refine_scale(const qins_codebook *book, const float *x, size_t n, float scale) {
    enum { BLOCK = 256 };
    if (!(scale > 0)) return scale;
    uint16_t codes[BLOCK];
    double cross = 0, square = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t m = qins_min_size(BLOCK, n - i);
        qins_get_codec_simd()->nearest(book, x + i, m, scale, codes);
        for (size_t k = 0; k < m; k++) {
            double t = (double)book->table[codes[k]];
            cross += t * (double)x[i + k];
            square += t * t;
        }
    }
    return square > 0 && cross > 0 ? (float)(cross / square) : scale;
}

/* A scale and its squared error. */
typedef struct candidate {
    float scale;
    double error;
} candidate;

enum { SCALE_STEPS = 16 };

/* Best of SCALE_STEPS scales from lo to hi in equal ratios. */
static void scan_scales(const qins_codebook *book, const float *x, size_t n, double lo, double hi, candidate *best) {
    float scales[SCALE_STEPS];
    double errors[SCALE_STEPS];
    bool normal = true;
    for (int i = 0; i < SCALE_STEPS; i++) {
        scales[i] = (float)(lo * pow(hi / lo, (double)i / (SCALE_STEPS - 1)));
        normal = normal && isnormal(1.0f / scales[i]);
    }
    if (normal) qins_get_codec_simd()->scale_errors(book, x, n, scales, SCALE_STEPS, errors);
    for (int i = 0; i < SCALE_STEPS; i++) {
        double error = normal ? errors[i] : qins_squared_error(book, x, n, scales[i]);
        if (error < best->error) *best = (candidate){scales[i], error};
    }
}

/* The error is jagged in the scale, the more so the fewer values share it: alternating codes and scale (Lloyd) stops at
 * the first dent. Trying 16 scales around the Gaussian one instead takes 3 % off the squared error of rotated rows of
 * 576 weights at 4 bits and 9 % at 5 and 6 (tests/unit/test_encode.c measures it). */
static float search_scale(const qins_codebook *book, const float *x, size_t n, double rms, double largest,
                          bool thorough) {
    double start = rms / book->sigma;
    candidate best = {(float)start, INFINITY};
    if (thorough) {
        /* From half the Gaussian scale to one that clips nothing. */
        double lo = 0.5 * start, hi = fmax(2 * start, largest / (double)book->table[book->n_levels - 1]);
        scan_scales(book, x, n, lo, hi, &best);
        double ratio = pow(hi / lo, 1.0 / (SCALE_STEPS - 1));
        for (int pass = 0; pass < 2; pass++) {
            double center = (double)best.scale;
            scan_scales(book, x, n, center / ratio, center * ratio, &best);
            ratio = pow(ratio, 2.0 / (SCALE_STEPS - 1));
        }
    } else {
        scan_scales(book, x, n, 0.9 * start, 1.15 * start, &best);
    }
    float refined = refine_scale(book, x, n, best.scale);
    return qins_squared_error(book, x, n, refined) <= best.error ? refined : best.scale;
}

float qins_fit_scale(const qins_codebook *book, const float *x, size_t n, bool thorough) {
    double square = 0;
    float peak = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    for (size_t i = 0; i < n; i++)
        peak = fabsf(x[i]) > peak ? fabsf(x[i]) : peak;
    double largest = (double)peak;
    if (largest == 0) return 0.0f;
    double rms = sqrt(square / (double)n);
    if (book->codec == QINS_CODEC_LOG) return (float)largest;
    if (book->codec == QINS_CODEC_RATIONAL) return (float)rms;
    return search_scale(book, x, n, rms, largest, thorough);
}

enum { ALPHA_STEPS = 48 };

/* Best of ALPHA_STEPS alphas from middle/reach to middle*reach in equal ratios. */
static void scan_alphas(const float *x, size_t n, int bits, double middle, double reach, double *best,
                        double *best_error) {
    double alphas[ALPHA_STEPS], errors[ALPHA_STEPS];
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < ALPHA_STEPS; i++) {
        qins_codebook book;
        double alpha = middle * pow(reach, 2.0 * i / (ALPHA_STEPS - 1) - 1.0);
        alphas[i] = fmin(fmax(alpha, QINS_MIN_ALPHA), QINS_MAX_ALPHA);
        qins_rational_codebook(&book, bits, alphas[i]);
        errors[i] = qins_squared_error(&book, x, n, 1.0f);
    }
    for (int i = 0; i < ALPHA_STEPS; i++)
        if (errors[i] < *best_error) {
            *best_error = errors[i];
            *best = alphas[i];
        }
}

/* Around alpha*rms = 1, where the minimum of usual weights lies; the error has dents where the largest weights cross
 * from code to code, so that a search that trusts slopes does not find it. */
double qins_fit_alpha(const float *x, size_t n, int bits) {
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    if (square == 0) return 1.0;
    double best = 1.0 / sqrt(square / (double)n), best_error = INFINITY, reach = 729;
    for (int pass = 0; pass < 3; pass++) {
        scan_alphas(x, n, bits, best, reach, &best, &best_error);
        reach = pow(reach, 4.0 / (ALPHA_STEPS - 1)); /* two steps */
    }
    return best;
}
