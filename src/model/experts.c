/* Mixture of experts: a router chooses the experts of each token, and only those are read. SPDX-License-Identifier: MIT
 */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void qins_choose_experts(const qins_hparams *h, float *logits, size_t *chosen, float *weights) {
    size_t n = h->n_experts, n_used = h->n_experts_used;
    float largest = logits[0], sum = 0, kept = 0;
    for (size_t i = 1; i < n; i++)
        largest = fmaxf(largest, logits[i]);
    for (size_t i = 0; i < n; i++) {
        sum += logits[i] = expf(logits[i] - largest);
        if (isnan(logits[i])) logits[i] = 0.0f; /* weights become NaN by the sum, but no expert is chosen twice */
    }
    for (size_t k = 0; k < n_used; k++) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            if (logits[i] > logits[best]) best = i;
        chosen[k] = best;
        weights[k] = logits[best] / sum;
        kept += weights[k];
        logits[best] = -1.0f; /* below every probability */
    }
    for (size_t k = 0; h->normalize_experts && k < n_used; k++)
        weights[k] /= kept;
}

qins_status qins_expert_scratch_init(qins_expert_scratch *s, const qins_hparams *h, size_t batch, qins_error *err) {
    *s = (qins_expert_scratch){0};
    if (h->n_experts == 0) return QINS_OK;
    size_t inner = qins_max_size(h->expert_size, h->shared_expert_size);
    s->logits = qins_alloc(batch * h->n_experts, sizeof *s->logits);
    s->weights = qins_alloc(batch * h->n_experts_used, sizeof *s->weights);
    s->chosen = qins_alloc(batch * h->n_experts_used, sizeof *s->chosen);
    s->tokens = qins_alloc(batch, sizeof *s->tokens);
    s->token_weights = qins_alloc(batch, sizeof *s->token_weights);
    s->x = qins_alloc_aligned(batch * h->hidden_size, sizeof *s->x);
    s->prepared =
        qins_alloc_aligned(batch * qins_prepared_row(qins_max_size(h->hidden_size, inner)), sizeof *s->prepared);
    s->gate_up = qins_alloc_aligned(batch * 2 * inner, sizeof *s->gate_up);
    s->inner = qins_alloc_aligned(batch * inner, sizeof *s->inner);
    s->out = qins_alloc_aligned(batch * h->hidden_size, sizeof *s->out);
    bool all = s->logits != NULL && s->weights != NULL && s->chosen != NULL && s->tokens != NULL &&
               s->token_weights != NULL && s->x != NULL && s->prepared != NULL && s->gate_up != NULL &&
               s->inner != NULL && s->out != NULL;
    return all ? QINS_OK : qins_fail_memory(err, batch * 3 * inner * sizeof(float), "activations of experts");
}

void qins_expert_scratch_free(qins_expert_scratch *s) {
    float *buffers[] = {s->logits, s->weights, s->token_weights, s->x, s->prepared, s->gate_up, s->inner, s->out};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    free(s->chosen);
    free(s->tokens);
    *s = (qins_expert_scratch){0};
}

/* out[0..n) := expert(x[0..n)) */
static void run_expert(const qins_hparams *h, const qins_expert *expert, size_t inner, const float *x, size_t n,
                       qins_expert_scratch *s) {
    qins_input in = {.x = x, .n_cols = h->hidden_size, .n_tokens = n, .prepared = s->prepared};
    if (!qins_affine_apply_gated(&expert->gate, &expert->up, h->activation, &in, s->inner, inner)) {
        const qins_affine_output gate_up[] = {{&expert->gate, s->gate_up, 2 * inner},
                                              {&expert->up, s->gate_up + inner, 2 * inner}};
        qins_affine_apply(gate_up, sizeof gate_up / sizeof gate_up[0], &in);
        qins_activate_gated(h->activation, s->gate_up, inner, n, s->inner);
    }
    qins_input hidden = {.x = s->inner, .n_cols = inner, .n_tokens = n, .prepared = s->prepared};
    qins_affine_apply_one(&expert->down, &hidden, s->out, h->hidden_size);
}

/* The shared expert sees every token; what it says counts as much as its own one-row router lets it. */
static void add_shared(const qins_hparams *h, const qins_layer *layer, qins_input *in, qins_expert_scratch *s,
                       float *delta) {
    size_t width = h->hidden_size;
    if (!layer->shared.down.present) return;
    qins_affine_apply_one(&layer->shared_router, in, s->token_weights, 1);
    run_expert(h, &layer->shared, h->shared_expert_size, in->x, in->n_tokens, s);
    for (size_t t = 0; t < in->n_tokens; t++) {
        float share = 1.0f / (1.0f + expf(-s->token_weights[t]));
        for (size_t i = 0; i < width; i++)
            delta[t * width + i] += share * s->out[t * width + i];
    }
}

/* Gathers the tokens that chose expert e; the number of them. */
static size_t gather(const qins_hparams *h, size_t e, const float *x, size_t n, qins_expert_scratch *s) {
    size_t found = 0, width = h->hidden_size;
    for (size_t i = 0; i < n * h->n_experts_used; i++) {
        if (s->chosen[i] != e) continue;
        size_t t = i / h->n_experts_used;
        memcpy(s->x + found * width, x + t * width, width * sizeof *x);
        s->token_weights[found] = s->weights[i];
        s->tokens[found++] = t;
    }
    return found;
}

void qins_experts(const qins_hparams *h, const qins_layer *layer, const float *x, size_t n, float *prepared,
                  qins_expert_scratch *s, float *delta) {
    size_t width = h->hidden_size;
    qins_input in = {.x = x, .n_cols = width, .n_tokens = n, .prepared = prepared};
    qins_affine_apply_one(&layer->router, &in, s->logits, h->n_experts);
    for (size_t t = 0; t < n; t++)
        qins_choose_experts(h, s->logits + t * h->n_experts, s->chosen + t * h->n_experts_used,
                            s->weights + t * h->n_experts_used);
    memset(delta, 0, n * width * sizeof *delta);
    for (size_t e = 0; e < h->n_experts; e++) {
        size_t found = gather(h, e, x, n, s);
        if (found == 0) continue;
        run_expert(h, &layer->experts[e], h->expert_size, s->x, found, s);
        for (size_t j = 0; j < found; j++)
            for (size_t i = 0; i < width; i++)
                delta[s->tokens[j] * width + i] += s->token_weights[j] * s->out[j * width + i];
    }
    add_shared(h, layer, &in, s, delta);
}
