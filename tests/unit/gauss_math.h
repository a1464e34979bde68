/* Integrals of N(0,1) over quantiser cells, for tests. SPDX-License-Identifier: MIT */
#ifndef QINS_TEST_GAUSS_MATH_H
#define QINS_TEST_GAUSS_MATH_H

#include "testing.h"

static inline double gauss_density(double x) {
    return isinf(x) ? 0.0 : exp(-0.5 * x * x) / sqrt(2.0 * 3.14159265358979323846);
}

/* P(a < X < b). */
static inline double gauss_mass(double a, double b) {
    return a > 0 ? 0.5 * (erfc(a / sqrt(2.0)) - erfc(b / sqrt(2.0)))
                 : 0.5 * (erfc(-b / sqrt(2.0)) - erfc(-a / sqrt(2.0)));
}

/* x * density, 0 at infinity. */
static inline double gauss_moment(double x) {
    return isinf(x) ? 0.0 : x * gauss_density(x);
}

/* E[(X - t)^2; a < X < b]. */
static inline double gauss_cell_error(double a, double b, double t) {
    double mass = gauss_mass(a, b);
    return mass + gauss_moment(a) - gauss_moment(b) - 2 * t * (gauss_density(a) - gauss_density(b)) + t * t * mass;
}

/* Boundary below level i of n ascending levels. */
static inline double gauss_boundary(const double *levels, size_t n, size_t i) {
    return i == 0 ? -INFINITY : i == n ? INFINITY : 0.5 * (levels[i - 1] + levels[i]);
}

/* Mean squared error of N(0,1) rounded to the nearest of n ascending levels. */
static inline double gauss_error(const double *levels, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += gauss_cell_error(gauss_boundary(levels, n, i), gauss_boundary(levels, n, i + 1), levels[i]);
    return sum;
}

typedef struct scaled_minimum {
    double scale, error;
} scaled_minimum;

/* Scale s in [lo, hi] that minimises the error of levels s*table[i], by golden section. */
static inline scaled_minimum gauss_best_scale(const float *table, size_t n, double lo, double hi) {
    const double golden = 0.5 * (sqrt(5.0) - 1);
    double levels[512], x[2] = {hi - golden * (hi - lo), lo + golden * (hi - lo)}, f[2] = {0};
    bool fresh[2] = {true, true};
    for (int iteration = 0; iteration < 60; iteration++) {
        for (int j = 0; j < 2; j++) {
            if (!fresh[j]) continue;
            for (size_t i = 0; i < n; i++)
                levels[i] = x[j] * (double)table[i];
            f[j] = gauss_error(levels, n);
        }
        bool left = f[0] < f[1];
        if (left) {
            hi = x[1], x[1] = x[0], f[1] = f[0], x[0] = hi - golden * (hi - lo);
        } else {
            lo = x[0], x[0] = x[1], f[0] = f[1], x[1] = lo + golden * (hi - lo);
        }
        fresh[0] = left, fresh[1] = !left;
    }
    return (scaled_minimum){0.5 * (lo + hi), fmin(f[0], f[1])};
}

#endif
