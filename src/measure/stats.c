/* SPDX-License-Identifier: MIT */
#include "measure/stats.h"

#include "base/base.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void qins_sort(double *values, size_t n) {
    qsort(values, n, sizeof *values, compare_doubles);
}

double qins_quantile(const double *values, size_t n, double share) {
    double rank = ceil(share * (double)n);
    return values[rank < 1 ? 0 : rank > (double)n ? n - 1 : (size_t)rank - 1];
}

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

qins_interval qins_bootstrap(const double *sums, const double *counts, size_t n_blocks) {
    enum { RESAMPLES = 2000 };
    double *means = n_blocks > 1 ? qins_alloc(RESAMPLES, sizeof *means) : NULL;
    if (means == NULL) return (qins_interval){NAN, NAN};
    uint64_t state = 1;
    for (size_t r = 0; r < RESAMPLES; r++) {
        double sum = 0, count = 0;
        for (size_t i = 0; i < n_blocks; i++) {
            size_t block = (size_t)(next_random(&state) % n_blocks);
            sum += sums[block];
            count += counts[block];
        }
        means[r] = count > 0 ? sum / count : 0;
    }
    qins_sort(means, RESAMPLES);
    const qins_interval interval = {qins_quantile(means, RESAMPLES, 0.025), qins_quantile(means, RESAMPLES, 0.975)};
    free(means);
    return interval;
}
