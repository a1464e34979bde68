/* cmocka with what it needs, and deterministic random numbers. SPDX-License-Identifier: MIT */
#ifndef QINS_TESTING_H
#define QINS_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fails with both numbers unless |value - expected| <= tolerance. */
#define assert_close(value, expected, tolerance)                                                                       \
    assert_close_at((double)(value), (double)(expected), (double)(tolerance), #value, __FILE__, __LINE__)

static inline void assert_close_at(double value, double expected, double tolerance, const char *what, const char *file,
                                   int line) {
    if (fabs(value - expected) <= tolerance) return;
    print_error("%s = %.17g, expected %.17g within %g\n", what, value, expected, tolerance);
    _fail(file, line);
}

#define assert_contains(text, part) assert_contains_at((text), (part), __FILE__, __LINE__)

static inline void assert_contains_at(const char *text, const char *part, const char *file, int line) {
    if (strstr(text, part) != NULL) return;
    print_error("\"%s\" lacks \"%s\"\n", text, part);
    _fail(file, line);
}

/* ---- random numbers: the same on every machine ---- */

typedef struct rng {
    uint64_t state;
} rng;

static inline uint64_t rng_bits(rng *r) {
    uint64_t x = r->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* In (0, 1). */
static inline double rng_uniform(rng *r) {
    return ((double)(rng_bits(r) >> 11) + 0.5) * 0x1p-53;
}

static inline size_t rng_below(rng *r, size_t n) {
    return (size_t)(rng_bits(r) % n);
}

static inline double rng_normal(rng *r) {
    double radius = sqrt(-2.0 * log(rng_uniform(r)));
    return radius * cos(6.28318530717958647692 * rng_uniform(r));
}

/* Student's t with three degrees of freedom: finite variance, infinite kurtosis. */
static inline double rng_student3(rng *r) {
    double a = rng_normal(r), b = rng_normal(r), c = rng_normal(r), d = rng_normal(r);
    return a / sqrt((b * b + c * c + d * d) / 3.0);
}

/* A Laplace variable times its magnitude. */
static inline double rng_laplace_squared(rng *r) {
    double e = -log(rng_uniform(r));
    return rng_uniform(r) < 0.5 ? -e * e : e * e;
}

#endif
