/* Scales and alpha of least squared error. SPDX-License-Identifier: MIT */
#include "codec/codec.h"

#include <math.h>

/* Sorted tables: the inner loop of every scale search. Four sums let the additions overlap. */
static double squared_error_sorted(const qins_codebook *book, const float *x, size_t n, float scale) {
    float inverse = 1.0f / scale;
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++) {
            float e = x[i + j] - scale * book->table[qins_nearest_code(book, x[i + j] * inverse)];
            sum[j] += (double)e * (double)e;
        }
    for (; i < n; i++) {
        float e = x[i] - scale * book->table[qins_nearest_code(book, x[i] * inverse)];
        sum[0] += (double)e * (double)e;
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

double qins_squared_error(const qins_codebook *book, const float *x, size_t n, float scale) {
    if (book->sorted && isnormal(1.0f / scale)) return squared_error_sorted(book, x, n, scale);
    double sum = 0, inverse = scale != 0.0f ? 1.0 / (double)scale : 0.0;
    for (size_t i = 0; i < n; i++) {
        double t = (double)book->table[qins_codebook_encode(book, (float)((double)x[i] * inverse))];
        double e = (double)x[i] - (double)scale * t;
        sum += e * e;
    }
    return sum;
}

/* The best scale for the codes that `scale` gives, <x,t>/<t,t>. */
static float refine_scale(const qins_codebook *book, const float *x, size_t n, float scale) {
    if (!(scale > 0)) return scale;
    double cross = 0, square = 0, inverse = 1.0 / (double)scale;
    for (size_t i = 0; i < n; i++) {
        double t = (double)book->table[qins_codebook_encode(book, (float)(x[i] * inverse))];
        cross += t * (double)x[i];
        square += t * t;
    }
    return square > 0 && cross > 0 ? (float)(cross / square) : scale;
}

/* A scale and its squared error. */
typedef struct candidate {
    float scale;
    double error;
} candidate;

/* Best of n_steps scales from lo to hi in equal ratios. */
static void scan_scales(const qins_codebook *book, const float *x, size_t n, double lo, double hi, int n_steps,
                        candidate *best) {
    for (int i = 0; i < n_steps; i++) {
        float scale = (float)(lo * pow(hi / lo, (double)i / (n_steps - 1)));
        double error = qins_squared_error(book, x, n, scale);
        if (error < best->error) *best = (candidate){scale, error};
    }
}

/* The error is jagged in the scale, the more so the fewer values share it: alternating codes and scale (Lloyd) stops at
 * the first dent. Trying 16 scales around the Gaussian one instead takes 3 % off the squared error of rotated rows of
 * 576 weights at 4 bits and 9 % at 5 and 6 (tests/unit/test_encode.c measures it). */
static float search_scale(const qins_codebook *book, const float *x, size_t n, double rms, double largest,
                          bool thorough) {
    enum { COARSE_STEPS = 16, FINE_STEPS = 16 };
    double start = rms / book->sigma;
    candidate best = {(float)start, INFINITY};
    if (thorough) {
        /* From half the Gaussian scale to one that clips nothing. */
        double lo = 0.5 * start, hi = fmax(2 * start, largest / (double)book->table[book->n_levels - 1]);
        scan_scales(book, x, n, lo, hi, COARSE_STEPS, &best);
        double ratio = pow(hi / lo, 1.0 / (COARSE_STEPS - 1)), center = (double)best.scale;
        scan_scales(book, x, n, center / ratio, center * ratio, FINE_STEPS, &best);
    } else {
        scan_scales(book, x, n, 0.9 * start, 1.15 * start, FINE_STEPS, &best);
    }
    float refined = refine_scale(book, x, n, best.scale);
    return qins_squared_error(book, x, n, refined) <= best.error ? refined : best.scale;
}

float qins_fit_scale(const qins_codebook *book, const float *x, size_t n, bool thorough) {
    double square = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
        largest = fmax(largest, fabs((double)x[i]));
    }
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
