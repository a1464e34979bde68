/* Pruning: the smallest weights of a row become 0. SPDX-License-Identifier: MIT */
#include "codec/codec.h"

#include <string.h>

/* Magnitudes of floats are in the order of their bits. */
static uint32_t magnitude(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffffu;
}

static double drop(float *x) {
    double square = (double)*x * (double)*x;
    *x = 0.0f;
    return square;
}

/* By bisection for the largest magnitude among them: no memory is needed. */
double qins_prune_smallest(float *x, size_t n_cols, size_t n) {
    uint32_t low = 0, high = 0x7fffffffu; /* least magnitude that at least n weights do not exceed */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        size_t count = 0;
        for (size_t k = 0; k < n_cols; k++)
            count += magnitude(x[k]) <= middle;
        if (count >= n)
            high = middle;
        else
            low = middle + 1;
    }
    size_t below = 0;
    for (size_t k = 0; k < n_cols; k++)
        below += magnitude(x[k]) < low;
    double dropped = 0;
    size_t ties = n - below; /* of equal ones the first go */
    for (size_t k = 0; k < n_cols; k++) {
        uint32_t m = magnitude(x[k]);
        bool tied = m == low && ties > 0;
        ties -= tied;
        if (m < low || tied) dropped += drop(&x[k]);
    }
    return dropped;
}

double qins_prune_row(float *x, size_t n_cols, double share, size_t group) {
    if (!(share > 0) || n_cols == 0) return 0;
    if (group == 0) {
        size_t n = (size_t)(share * (double)n_cols);
        return n > 0 ? qins_prune_smallest(x, n_cols, n) : 0;
    }
    double dropped = 0;
    size_t n = (size_t)(share * (double)group);
    for (size_t k = 0; k + group <= n_cols && n > 0; k += group)
        dropped += qins_prune_smallest(x + k, group, n);
    return dropped;
}
