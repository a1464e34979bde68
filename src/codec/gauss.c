/* Lloyd-Max quantiser of N(0,1): the table of the rotated Gauss codec. SPDX-License-Identifier: MIT
 *
 * J. Max, "Quantizing for minimum distortion" (1960); S. Lloyd, "Least squares quantization in PCM" (1982): each level
 * is the centroid of its cell and each cell boundary the midpoint of its neighbours. Alternating the two conditions
 * converges linearly and ever slower with more levels (stopping early costs 0.3 bit at 256 levels), so they are solved
 * by Newton's method on the tridiagonal system, from the companding solution t_i = sqrt(3) * Phi^-1((i+1/2)/n) of
 * Panter and Dite.
 */
#include "codec/codec.h"

#include <math.h>

static double density(double x) {
    return isinf(x) ? 0.0 : exp(-0.5 * x * x) * 0.39894228040143267794;
}

/* P(a < X < b), without cancellation in the tails. */
static double probability(double a, double b) {
    double s = 0.70710678118654752440;
    return a > 0 ? 0.5 * (erfc(a * s) - erfc(b * s)) : 0.5 * (erfc(-b * s) - erfc(-a * s));
}

double qins_normal_quantile(double p) {
    double lo = -40, hi = 40;
    for (int i = 0; i < 80; i++) {
        double mid = 0.5 * (lo + hi);
        if (probability(-INFINITY, mid) < p)
            lo = mid;
        else
            hi = mid;
    }
    return 0.5 * (lo + hi);
}

static double boundary(const double *t, size_t n, size_t i) {
    return i == 0 ? -INFINITY : i == n ? INFINITY : 0.5 * (t[i - 1] + t[i]);
}

double qins_lloyd_max_gauss(size_t n, double *t) {
    enum { MAX_ITERATIONS = 100 };
    double upper[QINS_MAX_LEVELS], rhs[QINS_MAX_LEVELS]; /* Thomas algorithm */
    for (size_t i = 0; i < n; i++)
        t[i] = sqrt(3.0) * qins_normal_quantile(((double)i + 0.5) / (double)n);
    for (int iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
        double largest_step = 0;
        for (size_t i = 0; i < n; i++) {
            double a = boundary(t, n, i), b = boundary(t, n, i + 1), p = probability(a, b);
            double centroid = (density(a) - density(b)) / p;
            double by_a = i == 0 ? 0 : density(a) * (centroid - a) / p;
            double by_b = i == n - 1 ? 0 : density(b) * (b - centroid) / p;
            double lower = -0.5 * by_a, diagonal = 1.0 - 0.5 * (by_a + by_b), residual = centroid - t[i];
            if (i > 0) {
                diagonal -= lower * upper[i - 1];
                residual -= lower * rhs[i - 1];
            }
            upper[i] = -0.5 * by_b / diagonal;
            rhs[i] = residual / diagonal;
        }
        for (size_t i = n; i-- > 0;) {
            if (i + 1 < n) rhs[i] -= upper[i] * rhs[i + 1];
            largest_step = fmax(largest_step, fabs(rhs[i]));
        }
        for (size_t i = 0; i < n; i++)
            t[i] += rhs[i];
        if (largest_step < 1e-13) break;
    }
    double kept = 0;
    for (size_t i = 0; i < n; i++)
        kept += probability(boundary(t, n, i), boundary(t, n, i + 1)) * t[i] * t[i];
    return 1.0 - kept;
}

/* Mean squared error of N(0,1) against levels s*t[i] with the best scale s, cells at midpoints. */
static double error_of(const double *t, size_t n) {
    double cross = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        double a = boundary(t, n, i), b = boundary(t, n, i + 1);
        cross += t[i] * (density(a) - density(b));
        square += t[i] * t[i] * probability(a, b);
    }
    return 1.0 - cross * cross / square;
}

/* Segments of the positive half (qins_curve), found by descent on the squared error with integers as they are:
 * tools/make_segments.py. They cost 0.0032 bit at 7 bits and 0.0087 at 8 against the real-valued levels
 * (tests/unit/test_gauss_codec.c). */
enum { SEGMENTS = 8 };
typedef struct segments {
    double sigma;
    int16_t base[SEGMENTS];
    int8_t slope[SEGMENTS], bend[SEGMENTS];
} segments;
static const segments segments_7 = {
    882.459, {15, 255, 503, 760, 1042, 1366, 1766, 2358}, {30, 31, 32, 35, 40, 49, 59, 100}, {0, 0, 0, 0, 0, 0, 1, 7}};
static const segments segments_8 = {
    862.916, {7, 247, 487, 744, 1017, 1339, 1727, 2315}, {15, 15, 16, 17, 20, 24, 29, 49}, {0, 0, 0, 0, 0, 0, 1, 8}};

static void fill_from_segments(qins_codebook *book, const segments *s) {
    size_t n = book->n_levels, length = n / 2 / SEGMENTS;
    for (size_t i = 0; i < n / 2; i++) {
        size_t j = i / length;
        int l = (int)(i % length), entry = s->base[j] + s->slope[j] * l + s->bend[j] * qins_curve(book->bits, l);
        book->table[n / 2 + i] = (float)entry;
        book->table[n / 2 - 1 - i] = (float)-entry;
    }
    book->sigma = s->sigma;
}

static void fill_rounded(qins_codebook *book) {
    enum { MAX_LEVEL = 127, STEPS = 16 };
    size_t n = book->n_levels;
    double levels[QINS_MAX_LEVELS], rounded[QINS_MAX_LEVELS], trial[QINS_MAX_LEVELS];
    qins_lloyd_max_gauss(n, levels);
    double best = INFINITY;
    /* The largest level may lie anywhere from half the range up: the best unit is found by trying sixteenths (with
     * whole numbers 5 bits lose 0.0012 bit, with 64ths no width gains). */
    for (int top = STEPS * (MAX_LEVEL / 2); top <= STEPS * MAX_LEVEL; top++) {
        double unit = top / (STEPS * levels[n - 1]);
        for (size_t i = 0; i < n; i++)
            trial[i] = rint(levels[i] * unit);
        for (size_t i = 0; i < n; i++)
            rounded[i] = trial[i] / unit;
        double error = error_of(rounded, n);
        if (error < best) {
            best = error;
            book->sigma = unit;
            for (size_t i = 0; i < n; i++)
                book->table[i] = (float)trial[i];
        }
    }
}

void qins_gauss_codebook(qins_codebook *book, int bits) {
    *book = (qins_codebook){.codec = QINS_CODEC_GAUSS, .bits = bits, .n_levels = (size_t)1 << bits};
    if (bits <= 6)
        fill_rounded(book);
    else
        fill_from_segments(book, bits == 7 ? &segments_7 : &segments_8);
    qins_codebook_sort(book);
}
