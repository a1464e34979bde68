/* Greedy generation from the same prompts. SPDX-License-Identifier: MIT */
#include "measure/verify.h"

#include <stdlib.h>
#include <string.h>

/* Generated tokens between two reports. */
enum { REPORT_TOKENS = 16 };

typedef struct generator {
    qins_verifier *v;
    int32_t *tokens;                   /* [gen]: what the reference generates */
    size_t n_generated, n_to_generate; /* tokens of the prompts done, of all: for progress */
} generator;

static qins_status report(const generator *g, size_t n, qins_error *err) {
    if (n % REPORT_TOKENS != 0) return QINS_OK;
    return qins_verifier_report(g->v, "generating", g->n_generated + n, g->n_to_generate, err);
}

/* Both continue ids[0..n) until they part; matched tokens are in g->tokens. Each goes on past an end-of-text token, so
 * that every prompt counts the same number of tokens. */
static qins_status run_free(generator *g, const int32_t *ids, size_t n, qins_greedy_result *r, qins_error *err) {
    qins_verifier *v = g->v;
    qins_status status = qins_verifier_restart(v, err);
    if (status == QINS_OK) status = qins_verifier_eval(v, ids, n, 1, err);
    while (status == QINS_OK) {
        int32_t ref_token = qins_argmax(v->ref_logits, v->vocab_size);
        int32_t token = qins_argmax(v->logits, v->vocab_size);
        g->tokens[r->matched] = ref_token;
        if (ref_token != token) {
            r->ref_token = ref_token;
            r->token = token;
            r->ref_margin = (double)v->ref_logits[ref_token] - (double)v->ref_logits[token];
            break;
        }
        if (++r->matched == r->of) break;
        status = qins_verifier_eval(v, &token, 1, 1, err);
        if (status == QINS_OK) status = report(g, r->matched, err);
    }
    r->first_divergence = r->agreed = r->matched;
    return status;
}

/* The reference goes on alone from its token at the divergence to the end. */
static qins_status finish_reference(generator *g, size_t done, size_t of, qins_error *err) {
    qins_verifier *v = g->v;
    qins_status status = QINS_OK;
    for (; done < of && status == QINS_OK; done++) {
        status = qins_session_eval(v->ref_session, &g->tokens[done - 1], 1, v->ref_logits, 1, err);
        if (status == QINS_OK) g->tokens[done] = qins_argmax(v->ref_logits, v->vocab_size);
        if (status == QINS_OK) status = report(g, done, err);
    }
    return status;
}

/* The model reads the reference's tokens from the divergence on, and says what it would have taken after each. */
static qins_status count_agreements(generator *g, qins_greedy_result *r, qins_error *err) {
    qins_verifier *v = g->v;
    qins_status status = QINS_OK;
    for (size_t at = r->first_divergence; at + 1 < r->of && status == QINS_OK; at += v->chunk) {
        size_t n = qins_min_size(v->chunk, r->of - 1 - at);
        status = qins_session_eval(v->session, g->tokens + at, n, v->logits, n, err);
        for (size_t i = 0; i < n && status == QINS_OK; i++)
            r->agreed += qins_argmax(v->logits + i * v->vocab_size, v->vocab_size) == g->tokens[at + i + 1];
    }
    return status;
}

static qins_status generate_from(generator *g, const char *prompt, qins_greedy_result *r, qins_error *err) {
    int32_t *ids = NULL;
    size_t n_ids = 0, n_ctx = 0;
    qins_status status = qins_tokenize(g->v->reference, prompt, strlen(prompt), true, false, &ids, &n_ids, err);
    if (status == QINS_OK && n_ids == 0) status = qins_fail(err, QINS_ERR_ARGUMENT, "a prompt has no tokens");
    if (status == QINS_OK && !qins_add_size(n_ids, r->of, &n_ctx))
        status = qins_fail(err, QINS_ERR_ARGUMENT, "too many tokens to generate");
    if (status == QINS_OK) status = qins_verifier_open_sessions(g->v, n_ctx, err);
    if (status == QINS_OK) status = run_free(g, ids, n_ids, r, err);
    if (status == QINS_OK && r->first_divergence < r->of) {
        status = finish_reference(g, r->first_divergence + 1, r->of, err);
        if (status == QINS_OK) status = count_agreements(g, r, err);
    }
    qins_free(ids);
    return status;
}

qins_status qins_verify_generation(qins_verifier *v, qins_verify_result *r, qins_error *err) {
    const qins_verify_options *o = v->options;
    bool own = o->prompts != NULL;
    size_t n_prompts = own ? o->n_prompts : qins_n_default_prompts;
    if (o->gen == 0 || n_prompts == 0) return QINS_OK;
    generator g = {.v = v, .tokens = qins_alloc(o->gen, sizeof *g.tokens)};
    r->greedy = qins_alloc(n_prompts, sizeof *r->greedy);
    qins_status status = QINS_OK;
    if (r->greedy == NULL || g.tokens == NULL)
        status = qins_fail_memory(err, o->gen * sizeof *g.tokens, "greedy results");
    if (status == QINS_OK && !qins_mul_size(n_prompts, o->gen, &g.n_to_generate))
        status = qins_fail(err, QINS_ERR_ARGUMENT, "too many tokens to generate");
    for (size_t i = 0; i < n_prompts && status == QINS_OK; i++) {
        qins_greedy_result *result = &r->greedy[i];
        *result = (qins_greedy_result){
            .kind = own ? NULL : qins_default_prompts[i].kind, .of = o->gen, .ref_token = -1, .token = -1};
        g.n_generated = i * o->gen;
        status = report(&g, 0, err);
        if (status == QINS_OK)
            status = generate_from(&g, own ? o->prompts[i] : qins_default_prompts[i].text, result, err);
        if (status != QINS_OK) {
            status = qins_prefix(err, status, "prompt %zu", i + 1);
            break;
        }
        r->n_greedy++;
        r->greedy_matched += result->matched;
        r->greedy_of += result->of;
        r->greedy_agreed += result->agreed;
        r->greedy_identical += result->matched == result->of;
    }
    free(g.tokens);
    return status;
}
