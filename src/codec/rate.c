/* Uniform codes made for an entropy coder: the step that gives a wanted rate. SPDX-License-Identifier: MIT
 *
 * At rates above one bit equal steps and an entropy coder stay within 0.25 bit of the Gaussian rate-distortion bound
 * (H. Gish and J. Pierce, 1968), where the best fixed-width table loses 0.57 to 0.72. Rounding may prefer the cheaper
 * code: of a code and its neighbours the one of least error^2 + lambda * bits, lambda = PRICE * 2 ln 2 * step^2 / 12,
 * the slope of the distortion at that step.
 *
 * Levels of equal steps chosen by the trellis (trellis.c) leave 0.1 bit (entropy-coded trellis quantisation: Fischer
 * and Wang, 1992). There the price of a level q of N(0,1), q^2 / (2 ln 2) bits and a constant, is a pull to zero.
 */
#include "codec/codec.h"

enum { PRICE_ROUNDS = 8, BISECTIONS = 40 };
/* Fraction bits of a scale: a row's step is up to 3 % off, a twentieth of a bit up or down, which costs nothing as
 * rates and errors of rows trade evenly; the zeros behind cost the coder nothing. With all 23 bits scales took 0.04 bit
 * a weight of SmolLM2's file. */
enum { SCALE_BITS = 4 };
/* Squared error of the trellis of equal steps, in squares of the step: measured (tests/unit/test_rate.c). */
static const double TRELLIS_ERROR = 0.275;
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

double qins_rate_pull(double price, double step) {
    return price * TRELLIS_ERROR * step * step;
}

/* The same of a trellis. Which rows came before makes the lowest bit of a code as good as random; the others name two
 * pairs of levels. */
static double trellis_rate(int bits, double step, double price, double *length) {
    size_t n_levels = (size_t)2 << bits, n_codes = n_levels / 2;
    double below = 0, entropy = 0, unit = step * (1 + qins_rate_pull(price, step));
    for (size_t c = 0; c < n_codes; c++)
        length[c] = 0;
    for (size_t i = 0; i < n_levels; i++) {
        double up_to = i + 1 < n_levels ? normal_below(((double)(i + 1) - 0.5 * (double)n_levels) * unit) : 1;
        size_t first = qins_trellis_label((unsigned)i, bits, true) & ~(size_t)1;
        length[first] += 0.5 * (up_to - below);
        below = up_to;
    }
    for (size_t c = 0; c < n_codes; c += 2) {
        double p = fmax(length[c], 1e-12);
        length[c] = length[c + 1] = -log2(p);
        entropy += 2 * p * length[c];
    }
    return entropy;
}

typedef struct source {
    qins_codec codec;
    int bits;
    double price, sparsity;
} source;

static double rate_at(const source *s, double step, double *length) {
    if (s->codec == QINS_CODEC_UNIFORM_TRELLIS) return trellis_rate(s->bits, step, s->price, length);
    const grid g = make_grid(s->bits, s->sparsity);
    return rate_of(&g, step, s->price, length);
}

static double least_step(qins_codec codec, int bits) {
    return 2.0 * RANGE_SIGMAS / (double)((size_t)1 << (bits + (codec == QINS_CODEC_UNIFORM_TRELLIS)));
}

int qins_rate_width(qins_codec codec, double rate, double price, double sparsity) {
    double length[QINS_MAX_LEVELS];
    int bits = QINS_MIN_BITS;
    for (; bits < 8; bits++) {
        const source s = {qins_codec_at_width(codec, bits), bits, price, sparsity};
        if (rate_at(&s, least_step(s.codec, bits), length) >= rate) break;
    }
    return bits;
}

double qins_rate_of_least_step(qins_codec codec, int bits, double sparsity, double *length) {
    const source s = {qins_codec_at_width(codec, bits), bits, 0, sparsity};
    return rate_at(&s, least_step(s.codec, bits), length);
}

double qins_rate_step(qins_codec codec, int bits, double rate, double price, double sparsity, double *length) {
    const source s = {qins_codec_at_width(codec, bits), bits, price, sparsity};
    double lo = least_step(s.codec, bits), hi = 16.0; /* from there on the rate falls with the step */
    if (rate_at(&s, lo, length) <= rate) return lo;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = sqrt(lo * hi);
        *(rate_at(&s, middle, length) > rate ? &lo : &hi) = middle;
    }
    rate_at(&s, hi, length);
    return hi;
}

/* The nearest number with SCALE_BITS bits after the leading one. */
static float short_number(double x) {
    int exponent;
    double fraction = frexp(x, &exponent);
    return (float)ldexp(rint(ldexp(fraction, SCALE_BITS + 1)), exponent - SCALE_BITS - 1);
}

float qins_rate_scale(const qins_codebook *book, const float *x, size_t n, double pruned, double step) {
    double sum = pruned;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return short_number(step * sqrt(sum / (double)n) / (double)book->step);
}
