/* What verify measured, as JSON. SPDX-License-Identifier: MIT */
#include "verify.h"

#include <math.h>

static json_t *interval_array(qins_interval i) {
    return isfinite(i.low) ? json_pack("[o, o]", json_number(i.low), json_number(i.high)) : json_null();
}

static json_t *greedy_prompt(const qins_greedy_result *g) {
    bool diverged = g->first_divergence < g->of;
    return json_pack("{s:s?, s:I, s:I, s:I, s:o, s:o, s:o, s:s?, s:s?, s:o}", "kind", g->kind, "matched",
                     (json_int_t)g->matched, "of", (json_int_t)g->of, "agreed", (json_int_t)g->agreed,
                     "first_divergence", diverged ? json_integer((json_int_t)g->first_divergence) : json_null(),
                     "ref_token", diverged ? json_integer(g->ref_token) : json_null(), "token",
                     diverged ? json_integer(g->token) : json_null(), "ref_text", diverged ? g->ref_text : NULL, "text",
                     diverged ? g->text : NULL, "ref_margin", diverged ? json_number(g->ref_margin) : json_null());
}

static json_t *greedy_object(const qins_verify_result *r) {
    json_t *prompts = json_array();
    for (size_t i = 0; i < r->n_greedy; i++)
        json_array_append_new(prompts, greedy_prompt(&r->greedy[i]));
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "matched", (json_int_t)r->greedy_matched, "of",
                     (json_int_t)r->greedy_of, "agreed", (json_int_t)r->greedy_agreed, "identical",
                     (json_int_t)r->greedy_identical, "match_rate",
                     json_number(share_of(r->greedy_matched, r->greedy_of)), "teacher_forced",
                     json_number(share_of(r->greedy_agreed, r->greedy_of)), "identical_share",
                     json_number(share_of(r->greedy_identical, r->n_greedy)), "prompts", prompts);
}

static json_t *strategies_array(const qins_verify_result *r) {
    json_t *all = json_array();
    for (size_t i = 0; i < r->n_strategies; i++) {
        const qins_strategy_score *s = &r->strategies[i];
        json_array_append_new(all, json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "name", s->name, "positions",
                                             (json_int_t)s->n, "agreement", json_number(s->agreement), "coupled",
                                             json_number(s->coupled), "overlap", json_number(s->overlap), "kl",
                                             json_number(s->kl), "missed", json_number(s->missed)));
    }
    return all;
}

static json_t *positions_array(const qins_verify_result *r) {
    json_t *all = json_array();
    for (size_t i = 0; i < r->n_positions; i++) {
        const qins_position_score *p = &r->positions[i];
        json_array_append_new(all, json_pack("{s:I, s:I, s:I, s:o, s:o}", "from", (json_int_t)p->from, "to",
                                             (json_int_t)p->to, "tokens", (json_int_t)p->n, "kl_mean",
                                             json_number(p->kl_mean), "top1", json_number(p->top1)));
    }
    return all;
}

static json_t *layers_array(const qins_verify_result *r) {
    json_t *all = json_array();
    for (size_t i = 0; i < r->n_layers; i++) {
        const qins_layer_score *l = &r->layers[i];
        bool ends = i + 1 == r->n_layers;
        json_array_append_new(all,
                              json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "layer",
                                        ends ? json_string("embedding and head") : json_integer((json_int_t)l->layer),
                                        "weight_rel_mse", json_number(l->weight_rel_mse), "output_rel_mse",
                                        json_number(l->output_rel_mse), "cosine", json_number(l->cosine), "own_rel_mse",
                                        json_number(l->own_rel_mse), "own_kl", json_number(l->own_kl)));
    }
    return all;
}

json_t *verification_object(const qins_verify_result *r) {
    json_t *object =
        json_pack("{s:I, s:s, s:s, s:I}", "tokens", (json_int_t)r->n_tokens, "text_xxh3_64", r->text_xxh3_64,
                  "prompts_xxh3_64", r->prompts_xxh3_64, "bootstrap_blocks", (json_int_t)r->n_blocks);
    if (object == NULL) return NULL;
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"kl_mean", r->kl_mean},
                   {"kl_p50", r->kl_p50},
                   {"kl_p90", r->kl_p90},
                   {"kl_p99", r->kl_p99},
                   {"kl_p999", r->kl_p999},
                   {"top1", r->top1},
                   {"top10_overlap", r->top10_overlap},
                   {"ppl_ref", r->ppl_ref},
                   {"ppl", r->ppl},
                   {"ppl_delta_pct", r->ppl_delta_pct},
                   {"max_abs_logit_diff", r->max_abs_logit_diff}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        json_object_set_new(object, numbers[i].key, json_number(numbers[i].value));
    json_object_set_new(object, "kl_interval", interval_array(r->kl_interval));
    json_object_set_new(object, "ppl_delta_interval", interval_array(r->ppl_delta_interval));
    json_object_set_new(object, "greedy", greedy_object(r));
    json_object_set_new(object, "strategies", strategies_array(r));
    json_object_set_new(object, "by_position", positions_array(r));
    json_object_set_new(object, "layers", layers_array(r));
    return object;
}
