/* Next token from logits. SPDX-License-Identifier: MIT */
#include "model/filter.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

struct qins_sampler {
    qins_sampling params;
    size_t vocab_size;
    uint64_t state[4]; /* xoshiro256++ (Blackman, Vigna) */
    qins_candidate *candidates;
    uint64_t *order, *scratch;
};

static uint64_t rotate_left(uint64_t x, int k) {
    return x << k | x >> (64 - k);
}

static uint64_t next_random(uint64_t s[4]) {
    uint64_t result = rotate_left(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

static void seed_random(uint64_t s[4], uint64_t seed) {
    for (int i = 0; i < 4; i++) { /* splitmix64, as its authors advise */
        seed += 0x9e3779b97f4a7c15u;
        uint64_t x = seed;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        s[i] = x ^ (x >> 31);
    }
}

qins_status qins_sampler_new(const qins_sampling *p, size_t vocab_size, qins_sampler **out, qins_error *err) {
    *out = NULL;
    if (!(p->temperature >= 0) || isinf(p->temperature))
        return qins_fail(err, QINS_ERR_ARGUMENT, "temperature: expected 0 or more, not %g", (double)p->temperature);
    if (p->top_k < 0) return qins_fail(err, QINS_ERR_ARGUMENT, "top-k: expected 0 (off) or more, not %d", p->top_k);
    if (!(p->top_p > 0 && p->top_p <= 1))
        return qins_fail(err, QINS_ERR_ARGUMENT, "top-p: expected more than 0 and at most 1, not %g", (double)p->top_p);
    if (!(p->min_p >= 0 && p->min_p <= 1))
        return qins_fail(err, QINS_ERR_ARGUMENT, "min-p: expected 0 to 1, not %g", (double)p->min_p);
    if (vocab_size == 0) return qins_fail(err, QINS_ERR_ARGUMENT, "an empty vocabulary cannot be sampled");
    qins_sampler *s = qins_alloc(1, sizeof *s);
    if (s != NULL) {
        s->candidates = qins_alloc(vocab_size, sizeof *s->candidates);
        s->order = qins_alloc(vocab_size, sizeof *s->order);
        s->scratch = qins_alloc(vocab_size, sizeof *s->scratch);
    }
    if (s == NULL || s->candidates == NULL || s->order == NULL || s->scratch == NULL) {
        qins_sampler_free(s);
        return qins_fail_memory(err, vocab_size * sizeof *s->candidates, "a sampler");
    }
    s->params = *p;
    s->vocab_size = vocab_size;
    seed_random(s->state, p->seed);
    *out = s;
    return QINS_OK;
}

void qins_sampler_free(qins_sampler *s) {
    if (s == NULL) return;
    free(s->candidates);
    free(s->order);
    free(s->scratch);
    free(s);
}

/* NaN is never the largest. */
static int32_t argmax(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best] || (isnan(logits[best]) && !isnan(logits[i]))) best = i;
    return (int32_t)best;
}

int32_t qins_sample(qins_sampler *s, const float *logits) {
    const qins_sampling *p = &s->params;
    if (p->temperature == 0) return argmax(logits, s->vocab_size);
    size_t n = qins_rank_logits(logits, s->vocab_size, s->order, s->scratch);
    if (n == 0) return 0;
    n = qins_filter(p, logits, s->order, n, s->candidates);
    if (isinf(s->candidates[0].logit)) return s->candidates[0].id; /* without a draw */
    double draw = (double)(next_random(s->state) >> 11) * 0x1p-53;
    return s->candidates[qins_draw(s->candidates, n, draw)].id;
}
