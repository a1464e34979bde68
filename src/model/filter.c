/* Temperature, top-k, top-p (Holtzman et al., 2019), min-p (Nguyen et al., 2024). SPDX-License-Identifier: MIT */
#include "model/filter.h"

#include <math.h>
#include <string.h>

/* A number whose ascending order is the descending order of f. */
static uint32_t descending_key(float f) {
    uint32_t bits;
    f += 0.0f; /* -0 and +0 are equals */
    memcpy(&bits, &f, sizeof bits);
    return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7fffffffu;
}

/* Stable radix sort by the keys in the upper halves, 11 bits a pass. */
static void sort_words(uint64_t *words, uint64_t *scratch, size_t n) {
    enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, PASSES = 3, KEY_SHIFT = 32 };
    uint64_t *from = words, *to = scratch;
    for (int pass = 0; pass < PASSES; pass++) {
        const int shift = KEY_SHIFT + pass * DIGIT_BITS;
        size_t start[DIGITS] = {0}, total = 0;
        for (size_t i = 0; i < n; i++)
            start[from[i] >> shift & (DIGITS - 1)]++;
        for (size_t d = 0; d < DIGITS; d++) {
            size_t count = start[d];
            start[d] = total;
            total += count;
        }
        for (size_t i = 0; i < n; i++)
            to[start[from[i] >> shift & (DIGITS - 1)]++] = from[i];
        uint64_t *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != words) memcpy(words, from, n * sizeof *words);
}

size_t qins_rank_logits(const float *logits, size_t n, uint64_t *order, uint64_t *scratch) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(logits[i])) order[used++] = (uint64_t)descending_key(logits[i]) << 32 | (uint64_t)i;
    sort_words(order, scratch, used);
    return used;
}

static void softmax(qins_candidate *c, size_t n, double temperature) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        c[i].probability = exp(((double)c[i].logit - (double)c[0].logit) / temperature);
        sum += c[i].probability;
    }
    for (size_t i = 0; i < n; i++)
        c[i].probability /= sum;
}

size_t qins_filter(const qins_sampling *p, const float *logits, const uint64_t *order, size_t n, qins_candidate *c) {
    int32_t best = qins_ranked_id(order[0]);
    if (isinf(logits[best])) { /* differences to it are not numbers */
        c[0] = (qins_candidate){best, logits[best], 1};
        return 1;
    }
    if (p->top_k > 0) n = qins_min_size(n, (size_t)p->top_k);
    for (size_t i = 0; i < n; i++) {
        int32_t id = qins_ranked_id(order[i]);
        c[i] = (qins_candidate){id, logits[id], 0};
    }
    softmax(c, n, (double)p->temperature);
    if (p->top_p < 1) {
        double sum = 0;
        size_t kept = 0;
        while (kept < n && sum < (double)p->top_p)
            sum += c[kept++].probability;
        n = qins_max_size(1, kept);
        softmax(c, n, (double)p->temperature);
    }
    if (p->min_p > 0) {
        size_t kept = 1;
        while (kept < n && c[kept].probability >= (double)p->min_p * c[0].probability)
            kept++;
        n = kept;
        softmax(c, n, (double)p->temperature);
    }
    return n;
}

size_t qins_draw(const qins_candidate *c, size_t n, double draw) {
    double sum = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        sum += c[i].probability;
        if (draw < sum) return i;
    }
    return n - 1;
}
