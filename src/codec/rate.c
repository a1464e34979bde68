/* Uniform codes made for an entropy coder: the step that gives a wanted rate. SPDX-License-Identifier: MIT
 *
 * At rates above one bit equal steps and an entropy coder stay within 0.25 bit of the Gaussian rate-distortion bound
 * (H. Gish and J. Pierce, 1968), where the best fixed-width table loses 0.57 to 0.72. Rounding may prefer the cheaper
 * code: of a code and its neighbours the one of least error^2 + lambda * bits, lambda = PRICE * 2 ln 2 * step^2 / 12,
 * the slope of the distortion at that step.
 */
#include "codec/codec.h"

enum { PRICE_ROUNDS = 8, BISECTIONS = 40 };
/* A range of levels up to here (standard deviations, either side) clips about one weight in 16,000. */
static const double RANGE_SIGMAS = 4.0;

static double normal_below(double x) {
    return 0.5 * erfc(-x / sqrt(2.0));
}

/* Levels, of which one is zero when something is pruned: all within +-pruned. */
typedef struct grid {
    size_t n_levels;
    double pruned;
} grid;

static grid make_grid(int bits, double sparsity) {
    return (grid){(size_t)1 << bits, sparsity > 0 ? qins_normal_quantile(0.5 * (1 + sparsity)) : 0};
}

/* Where code i ends: halfway to the next level, as the price of bits moves it; around zero not within what is pruned.
 */
static double upper_end(size_t i, const grid *g, double step, double shift) {
    double middle = ((double)i + (g->pruned > 0 ? 0.5 : 1) - 0.5 * (double)g->n_levels) * step, end = middle + shift;
    return middle < 0 ? fmin(end, -g->pruned) : fmax(end, g->pruned);
}

/* Entropy of the codes of N(0,1) at a step, when rounding pays for their lengths; length[i] is -log2 of a code's
 * probability. */
static double rate_of(const grid *g, double step, double price, double *length) {
    size_t n_levels = g->n_levels;
    double lambda = price * 2.0 * log(2.0) * step * step / 12.0, entropy = 0;
    for (size_t i = 0; i < n_levels; i++)
        length[i] = 0;
    for (int round = 0; round < PRICE_ROUNDS; round++) {
        double below = 0, next[QINS_MAX_LEVELS];
        entropy = 0;
        for (size_t i = 0; i < n_levels; i++) {
            double upper = 1;
            if (i + 1 < n_levels)
                upper = normal_below(upper_end(i, g, step, lambda * (length[i + 1] - length[i]) / (2 * step)));
            upper = upper > below ? upper : below;
            double p = fmax(upper - below, 1e-12);
            next[i] = -log2(p);
            entropy += p * next[i];
            below = upper;
        }
        for (size_t i = 0; i < n_levels; i++)
            length[i] = next[i];
        if (price <= 0) break;
    }
    return entropy;
}

static double least_step(int bits) {
    return 2.0 * RANGE_SIGMAS / (double)((size_t)1 << bits);
}

static double rate_at_least_step(int bits, double price, double sparsity, double *length) {
    const grid g = make_grid(bits, sparsity);
    return rate_of(&g, least_step(bits), price, length);
}

int qins_rate_width(double rate, double price, double sparsity) {
    double length[QINS_MAX_LEVELS];
    int bits = QINS_MIN_BITS;
    while (bits < 8 && rate_at_least_step(bits, price, sparsity, length) < rate)
        bits++;
    return bits;
}

double qins_rate_of_least_step(int bits, double sparsity, double *length) {
    return rate_at_least_step(bits, 0, sparsity, length);
}

double qins_rate_step(int bits, double rate, double price, double sparsity, double *length) {
    const grid g = make_grid(bits, sparsity);
    double lo = least_step(bits), hi = 16.0; /* from there on the rate falls with the step */
    if (rate_of(&g, lo, price, length) <= rate) return lo;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = sqrt(lo * hi);
        *(rate_of(&g, middle, price, length) > rate ? &lo : &hi) = middle;
    }
    rate_of(&g, hi, price, length);
    return hi;
}

float qins_rate_scale(const float *x, size_t n, double pruned, double step) {
    double sum = pruned;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return (float)(0.5 * step * sqrt(sum / (double)n)); /* neighbouring levels of the table are two units apart */
}
