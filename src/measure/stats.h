/* Quantiles and bootstrap intervals. SPDX-License-Identifier: MIT */
#ifndef QINS_STATS_H
#define QINS_STATS_H

#include "qins.h"

/* Puts values in ascending order. */
void qins_sort(double *values, size_t n);
/* The smallest of values[0..n), ascending, that at least `share` of them do not exceed (nearest rank). n > 0. */
double qins_quantile(const double *values, size_t n, double share);

/* 95 % percentile bootstrap of sum(sums)/sum(counts) over blocks (Efron 1979; blocks because neighbouring tokens are
 * not independent, Kuensch 1989): n_blocks drawn with replacement, 2,000 times, with a fixed seed. NaN for fewer than
 * two blocks or without memory. */
qins_interval qins_bootstrap(const double *sums, const double *counts, size_t n_blocks);

#endif
