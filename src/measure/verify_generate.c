/* Greedy generation from the same prompts, several at a time: they share each pass over the weights.
 * SPDX-License-Identifier: MIT */
#include "measure/verify.h"

#include <stdlib.h>
#include <string.h>

enum { GROUP = 32 }; /* prompts at a time */

typedef struct sequence {
    qins_greedy_result *result;
    int32_t *ids; /* of the prompt */
    size_t n_ids;
    int32_t *tokens; /* [gen]: what the reference generates */
} sequence;

typedef struct generator {
    qins_verifier *v;
    size_t gen, n_done, n_prompts; /* prompts done, and all: for progress */
    sequence sequences[GROUP];
    size_t n;                 /* of them in this group */
    qins_batch_token *batch;  /* [capacity] */
    size_t n_batch, capacity; /* tokens */
} generator;

static void end_group(generator *g) {
    for (size_t i = 0; i < g->n; i++) {
        qins_free(g->sequences[i].ids);
        free(g->sequences[i].tokens);
        g->sequences[i] = (sequence){0};
    }
    g->n = 0;
}

static const float *row(const generator *g, const float *logits, size_t i) {
    return logits + i * g->v->vocab_size;
}

static void add_token(generator *g, size_t i, int32_t id, bool wants_logits) {
    g->batch[g->n_batch++] = (qins_batch_token){.id = id, .sequence = (uint32_t)i, .wants_logits = wants_logits};
}

/* Evaluates the batch and empties it. */
static qins_status run_batch(generator *g, qins_session *session, float *logits, qins_error *err) {
    size_t n = g->n_batch;
    g->n_batch = 0;
    return n > 0 ? qins_session_eval_batch(session, g->batch, n, logits, err) : QINS_OK;
}

/* ---- a group ---- */

static qins_status open_sessions(generator *g, size_t n_ctx, qins_error *err) {
    qins_verifier *v = g->v;
    qins_verifier_close_sessions(v);
    qins_session_options options = {.n_ctx = n_ctx, .n_sequences = g->n};
    qins_status status = qins_session_new_with(v->reference, &options, &v->ref_session, err);
    options.key_bits = v->options->key_bits;
    options.value_bits = v->options->value_bits;
    return status == QINS_OK ? qins_session_new_with(v->model, &options, &v->session, err) : status;
}

static qins_status begin_group(generator *g, const char *const *prompts, qins_greedy_result *results, qins_error *err) {
    size_t longest = 0, n_tokens = 0, n_ctx = 0;
    qins_status status = QINS_OK;
    for (size_t i = 0; i < g->n && status == QINS_OK; i++) {
        sequence *s = &g->sequences[i];
        s->result = &results[i];
        s->tokens = qins_alloc(g->gen, sizeof *s->tokens);
        if (s->tokens == NULL) return qins_fail_memory(err, g->gen * sizeof *s->tokens, "generated tokens");
        status = qins_tokenize(g->v->reference, prompts[i], strlen(prompts[i]), true, false, &s->ids, &s->n_ids, err);
        if (status == QINS_OK && s->n_ids == 0)
            status = qins_fail(err, QINS_ERR_ARGUMENT, "prompt %zu has no tokens", g->n_done + i + 1);
        longest = qins_max_size(longest, s->n_ids);
        n_tokens += s->n_ids;
    }
    if (status != QINS_OK) return status;
    if (!qins_add_size(longest, g->gen, &n_ctx))
        return qins_fail(err, QINS_ERR_ARGUMENT, "too many tokens to generate");
    g->capacity = qins_max_size(n_tokens, g->v->chunk);
    free(g->batch);
    g->batch = qins_alloc(g->capacity, sizeof *g->batch);
    if (g->batch == NULL) return qins_fail_memory(err, g->capacity * sizeof *g->batch, "a batch");
    return open_sessions(g, n_ctx, err);
}

static qins_status read_prompts(generator *g, qins_session *session, float *logits, qins_error *err) {
    for (size_t i = 0; i < g->n; i++)
        for (size_t t = 0; t < g->sequences[i].n_ids; t++)
            add_token(g, i, g->sequences[i].ids[t], t + 1 == g->sequences[i].n_ids);
    return run_batch(g, session, logits, err);
}

/* Compares the next token of those sequences whose texts are the same so far; n_running of them, in running[]. Returns
 * how many still are. */
static size_t compare_step(generator *g, size_t step, size_t *running, size_t n_running) {
    const qins_verifier *v = g->v;
    size_t still = 0;
    for (size_t k = 0; k < n_running; k++) {
        size_t i = running[k];
        const float *ref_logits = row(g, v->ref_logits, i);
        qins_greedy_result *r = g->sequences[i].result;
        int32_t ref_token = g->sequences[i].tokens[step], token = qins_argmax(row(g, v->logits, k), v->vocab_size);
        if (token == ref_token) {
            r->matched++;
            running[still++] = i;
            continue;
        }
        r->ref_token = ref_token;
        r->token = token;
        r->ref_margin = (double)ref_logits[ref_token] - (double)ref_logits[token];
    }
    return still;
}

/* The reference generates all its tokens, the model its own as long as they are the same. Both go on past an
 * end-of-text token, so that every prompt counts the same number of tokens. */
static qins_status run_free(generator *g, qins_error *err) {
    qins_verifier *v = g->v;
    size_t running[GROUP], n_running = g->n;
    for (size_t i = 0; i < g->n; i++)
        running[i] = i;
    qins_status status = read_prompts(g, v->ref_session, v->ref_logits, err);
    if (status == QINS_OK) status = read_prompts(g, v->session, v->logits, err);
    for (size_t step = 0; step < g->gen && status == QINS_OK; step++) {
        for (size_t i = 0; i < g->n; i++)
            g->sequences[i].tokens[step] = qins_argmax(row(g, v->ref_logits, i), v->vocab_size);
        n_running = compare_step(g, step, running, n_running);
        if (step + 1 == g->gen) break;
        for (size_t i = 0; i < g->n; i++)
            add_token(g, i, g->sequences[i].tokens[step], true);
        status = run_batch(g, v->ref_session, v->ref_logits, err);
        for (size_t k = 0; k < n_running; k++)
            add_token(g, running[k], g->sequences[running[k]].tokens[step], true);
        if (status == QINS_OK) status = run_batch(g, v->session, v->logits, err);
        if (status == QINS_OK)
            status =
                qins_verifier_report(v, "generating", g->n_done * g->gen + step * g->n, g->n_prompts * g->gen, err);
    }
    return status;
}

/* The model reads the batch; token b of it is what the reference took before expected[b]. */
static qins_status count_agreements(generator *g, const int32_t *expected, qins_error *err) {
    const qins_verifier *v = g->v;
    size_t n = g->n_batch;
    qins_status status = run_batch(g, v->session, v->logits, err);
    for (size_t b = 0; b < n && status == QINS_OK; b++)
        g->sequences[g->batch[b].sequence].result->agreed +=
            qins_argmax(row(g, v->logits, b), v->vocab_size) == expected[b];
    return status;
}

/* The model reads the reference's tokens from the divergence on, and says what it would have taken after each. */
static qins_status run_forced(generator *g, qins_error *err) {
    int32_t *expected = qins_alloc(g->v->chunk, sizeof *expected);
    qins_status status = expected == NULL ? qins_fail_memory(err, g->v->chunk, "a batch") : QINS_OK;
    for (size_t i = 0; i < g->n && status == QINS_OK; i++) {
        const sequence *s = &g->sequences[i];
        s->result->first_divergence = s->result->agreed = s->result->matched;
    }
    for (size_t i = 0; i < g->n; i++)
        for (size_t t = g->sequences[i].result->matched; t + 1 < g->gen && status == QINS_OK; t++) {
            expected[g->n_batch] = g->sequences[i].tokens[t + 1];
            add_token(g, i, g->sequences[i].tokens[t], true);
            if (g->n_batch == g->v->chunk) status = count_agreements(g, expected, err);
        }
    if (status == QINS_OK) status = count_agreements(g, expected, err);
    free(expected);
    return status;
}

/* ---- all prompts ---- */

static void copy_text(char *to, size_t size, const char *text, size_t n) {
    if (n >= size)
        for (n = size - 1; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;)
            n--; /* not within a character */
    memcpy(to, text, n);
    to[n] = '\0';
}

static qins_status write_text(const qins_model *m, int32_t id, char *to, size_t size, qins_error *err) {
    qins_detok *detok = NULL;
    const char *text = NULL;
    size_t n = 0;
    qins_status status = qins_detok_new(m, false, &detok, err);
    if (status == QINS_OK) status = qins_detok_push(detok, id, &text, &n, err);
    if (status == QINS_OK && n == 0) status = qins_detok_finish(detok, &text, &n, err);
    if (status == QINS_OK) copy_text(to, size, text, n);
    qins_detok_free(detok);
    return status;
}

static qins_status name_tokens(const qins_model *m, qins_greedy_result *g, qins_error *err) {
    if (g->first_divergence == g->of) return QINS_OK;
    qins_status status = write_text(m, g->ref_token, g->ref_text, sizeof g->ref_text, err);
    return status != QINS_OK ? status : write_text(m, g->token, g->text, sizeof g->text, err);
}

static void add_up(qins_verify_result *r) {
    for (size_t i = 0; i < r->n_greedy; i++) {
        const qins_greedy_result *g = &r->greedy[i];
        r->greedy_matched += g->matched;
        r->greedy_of += g->of;
        r->greedy_agreed += g->agreed;
        r->greedy_identical += g->matched == g->of;
    }
}

static qins_status run_groups(generator *g, const char *const *prompts, qins_greedy_result *results, qins_error *err) {
    size_t group = qins_min_size(GROUP, g->v->chunk);
    qins_status status = QINS_OK;
    for (g->n_done = 0; g->n_done < g->n_prompts && status == QINS_OK; g->n_done += group) {
        g->n = qins_min_size(group, g->n_prompts - g->n_done);
        status = begin_group(g, prompts + g->n_done, results + g->n_done, err);
        if (status == QINS_OK) status = run_free(g, err);
        if (status == QINS_OK) status = run_forced(g, err);
        end_group(g);
    }
    return status;
}

qins_status qins_verify_generation(qins_verifier *v, qins_verify_result *r, qins_error *err) {
    const qins_verify_options *o = v->options;
    bool own = o->prompts != NULL;
    size_t n_prompts = own ? o->n_prompts : qins_n_default_prompts, total;
    if (o->gen == 0 || n_prompts == 0) return QINS_OK;
    if (!qins_mul_size(n_prompts, o->gen, &total))
        return qins_fail(err, QINS_ERR_ARGUMENT, "too many tokens to generate");
    generator g = {.v = v, .gen = o->gen, .n_prompts = n_prompts};
    const char **prompts = qins_alloc(n_prompts, sizeof *prompts);
    r->greedy = qins_alloc(n_prompts, sizeof *r->greedy);
    qins_status status = QINS_OK;
    if (prompts == NULL || r->greedy == NULL)
        status = qins_fail_memory(err, n_prompts * sizeof *r->greedy, "greedy results");
    for (size_t i = 0; i < n_prompts && status == QINS_OK; i++) {
        prompts[i] = own ? o->prompts[i] : qins_default_prompts[i].text;
        r->greedy[i] = (qins_greedy_result){
            .kind = own ? NULL : qins_default_prompts[i].kind, .of = o->gen, .ref_token = -1, .token = -1};
    }
    if (status == QINS_OK) status = qins_verifier_report(v, "generating", 0, total, err);
    if (status == QINS_OK) status = run_groups(&g, prompts, r->greedy, err);
    for (size_t i = 0; i < n_prompts && status == QINS_OK; i++)
        status = name_tokens(v->reference, &r->greedy[i], err);
    if (status == QINS_OK) {
        r->n_greedy = n_prompts;
        add_up(r);
    }
    free(g.batch);
    free(prompts);
    return status;
}
