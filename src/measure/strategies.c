/* SPDX-License-Identifier: MIT */
#include "measure/strategies.h"

#include <math.h>
#include <stdlib.h>

const qins_strategy qins_strategies[QINS_N_STRATEGIES] = {
    {"temperature 0.7", {.temperature = 0.7f, .top_p = 1}},         {"temperature 1", {.temperature = 1, .top_p = 1}},
    {"top-k 40", {.temperature = 1, .top_k = 40, .top_p = 1}},      {"top-p 0.9", {.temperature = 1, .top_p = 0.9f}},
    {"min-p 0.05", {.temperature = 1, .top_p = 1, .min_p = 0.05f}},
};

bool qins_filter_scratch_init(qins_filter_scratch *s, size_t n) {
    s->ref_order = qins_alloc(n, sizeof *s->ref_order);
    s->order = qins_alloc(n, sizeof *s->order);
    s->sort = qins_alloc(n, sizeof *s->sort);
    s->ref_kept = qins_alloc(n, sizeof *s->ref_kept);
    s->kept = qins_alloc(n, sizeof *s->kept);
    return s->ref_order != NULL && s->order != NULL && s->sort != NULL && s->ref_kept != NULL && s->kept != NULL;
}

void qins_filter_scratch_free(qins_filter_scratch *s) {
    free(s->ref_order);
    free(s->order);
    free(s->sort);
    free(s->ref_kept);
    free(s->kept);
    *s = (qins_filter_scratch){0};
}

static uint64_t mix(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

double qins_position_draw(uint64_t position, uint64_t stream) {
    return ((double)(mix(mix(position) + stream) >> 11) + 0.5) * 0x1p-53;
}

/* A draw from the kept tokens with noise of their own: argmax of log p + Gumbel noise (Gumbel 1954; Maddison et al.,
 * 2014). The same noise for two near distributions gives the same token nearly as often as that is possible. */
static int32_t draw_coupled(const qins_candidate *kept, size_t n, uint64_t position) {
    double best = -(double)INFINITY;
    int32_t id = kept[0].id;
    for (size_t i = 0; i < n && kept[i].probability > 0; i++) {
        double noise = -log(-log(qins_position_draw(position, 1 + (uint64_t)kept[i].id)));
        double value = log(kept[i].probability) + noise;
        if (value <= best) continue;
        best = value;
        id = kept[i].id;
    }
    return id;
}

/* Both orders are in the scratch. */
static void compare_ranked(const qins_sampling *p, const float *reference, const float *model, size_t n,
                           uint64_t position, qins_filter_scratch *s, qins_filtered_comparison *r) {
    size_t n_ref = qins_filter(p, reference, s->ref_order, n, s->ref_kept);
    size_t n_kept = qins_filter(p, model, s->order, n, s->kept);
    const qins_candidate *best = &s->kept[0], *last = &s->kept[n_kept - 1];
    double temperature = (double)p->temperature, norm = 0;
    for (size_t i = 0; i < n_ref; i++)
        norm += exp(((double)model[s->ref_kept[i].id] - (double)best->logit) / temperature);
    *r = (qins_filtered_comparison){0};
    for (size_t i = 0; i < n_ref; i++) {
        const qins_candidate *c = &s->ref_kept[i];
        double lead = ((double)model[c->id] - (double)best->logit) / temperature;
        if (c->probability > 0) r->kl += c->probability * (log(c->probability) - (lead - log(norm)));
        /* what the model keeps is the beginning of its order */
        bool kept = model[c->id] > last->logit || (model[c->id] >= last->logit && c->id <= last->id);
        if (kept)
            r->overlap += fmin(c->probability, best->probability * exp(lead));
        else
            r->missed += c->probability;
    }
    r->kl = fmax(r->kl, 0); /* never negative but for the rounding of the sum */
    double draw = qins_position_draw(position, 0);
    r->same_token = s->ref_kept[qins_draw(s->ref_kept, n_ref, draw)].id == s->kept[qins_draw(s->kept, n_kept, draw)].id;
    r->same_coupled = draw_coupled(s->ref_kept, n_ref, position) == draw_coupled(s->kept, n_kept, position);
}

void qins_compare_filtered(const qins_sampling *sampling, const float *reference, const float *model, size_t n,
                           uint64_t position, qins_filter_scratch *s, qins_filtered_comparison *result) {
    qins_rank_logits(reference, n, s->ref_order, s->sort);
    qins_rank_logits(model, n, s->order, s->sort);
    compare_ranked(sampling, reference, model, n, position, s, result);
}

void qins_compare_strategies(const float *reference, const float *model, size_t n, uint64_t position,
                             qins_filter_scratch *s, qins_filtered_comparison *result) {
    qins_rank_logits(reference, n, s->ref_order, s->sort);
    qins_rank_logits(model, n, s->order, s->sort);
    for (size_t i = 0; i < QINS_N_STRATEGIES; i++)
        compare_ranked(&qins_strategies[i].sampling, reference, model, n, position, s, &result[i]);
}
