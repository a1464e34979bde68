/* Fidelity of a model against a reference: both read the same text, window by window, and generate greedily from the
 * same prompts. Uses nothing but the public API. SPDX-License-Identifier: MIT */
#include "base/base.h"
#include "measure/fidelity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Logits held at once, for each of the two models. */
static const size_t LOGITS_BYTES = (size_t)16 << 20;
static const size_t DEFAULT_CTX = 512;

typedef struct verifier {
    const qins_model *reference, *model;
    const qins_verify_options *options;
    qins_session *ref_session, *session;
    size_t vocab_size, chunk; /* chunk: positions whose logits are held at once */
    float *ref_logits, *logits;
    qins_logit_comparison *positions; /* [chunk] */
    double *kl;                       /* [n_tokens] */
    size_t n_done, n_targets, n_top1, top10_shared, top10_of;
    double kl_sum, ref_target_sum, target_sum, max_abs_diff;
    size_t n_generated, n_to_generate; /* tokens of the prompts done, of all: for progress */
} verifier;

static void close_sessions(verifier *v) {
    qins_session_free(v->ref_session);
    qins_session_free(v->session);
    v->ref_session = v->session = NULL;
}

static void verifier_free(verifier *v) {
    close_sessions(v);
    free(v->ref_logits);
    free(v->logits);
    free(v->positions);
    free(v->kl);
}

static qins_status open_sessions(verifier *v, size_t n_ctx, qins_error *err) {
    close_sessions(v);
    qins_status status = qins_session_new(v->reference, n_ctx, &v->ref_session, err);
    return status != QINS_OK ? status : qins_session_new(v->model, n_ctx, &v->session, err);
}

static qins_status restart_sessions(verifier *v, qins_error *err) {
    qins_status status = qins_session_truncate(v->ref_session, 0, err);
    return status != QINS_OK ? status : qins_session_truncate(v->session, 0, err);
}

static qins_status eval_both(verifier *v, const int32_t *ids, size_t n, size_t n_logits, qins_error *err) {
    qins_status status = qins_session_eval(v->ref_session, ids, n, v->ref_logits, n_logits, err);
    if (status != QINS_OK) return qins_prefix(err, status, "reference");
    return qins_session_eval(v->session, ids, n, v->logits, n_logits, err);
}

static qins_status report(const verifier *v, const char *stage, size_t done, size_t total, qins_error *err) {
    if (!qins_report(v->options->progress, v->options->progress_user, stage, done, total)) return QINS_OK;
    return qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
}

/* ---- the text ---- */

/* Adds up the comparisons of n positions; targets[i] is -1 where the window has no next token. */
static void add_positions(verifier *v, const int32_t *targets, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const qins_logit_comparison *c = &v->positions[i];
        v->kl[v->n_done++] = c->kl;
        v->kl_sum += c->kl;
        v->n_top1 += c->same_argmax;
        v->top10_shared += c->top10_shared;
        v->top10_of += c->top10_of;
        v->max_abs_diff = fmax(v->max_abs_diff, c->max_abs_diff);
        if (targets[i] < 0) continue;
        v->n_targets++;
        v->ref_target_sum += c->ref_target_logprob;
        v->target_sum += c->target_logprob;
    }
}

static qins_status score_chunk(verifier *v, const int32_t *ids, size_t n, const int32_t *targets, qins_error *err) {
    qins_status status = eval_both(v, ids, n, n, err);
    if (status != QINS_OK) return status;
    bool finite = true;
#pragma omp parallel for num_threads(qins_get_threads()) reduction(&& : finite)
    for (size_t i = 0; i < n; i++)
        finite = qins_compare_logits(v->ref_logits + i * v->vocab_size, v->logits + i * v->vocab_size, v->vocab_size,
                                     targets[i], &v->positions[i]) &&
                 finite;
    if (!finite) return qins_fail(err, QINS_ERR_FORMAT, "logits are not finite: the weights of one model are damaged");
    add_positions(v, targets, n);
    return QINS_OK;
}

/* One window of n of the text's n_ids tokens, from an empty cache: position i is scored on ids[i + 1], the last one has
 * no target. */
static qins_status score_window(verifier *v, const int32_t *ids, size_t n, size_t n_ids, int32_t *targets,
                                qins_error *err) {
    qins_status status = restart_sessions(v, err);
    memcpy(targets, ids + 1, (n - 1) * sizeof *targets);
    targets[n - 1] = -1;
    for (size_t done = 0; done < n && status == QINS_OK; done += v->chunk) {
        status = score_chunk(v, ids + done, qins_min_size(v->chunk, n - done), targets + done, err);
        if (status == QINS_OK) status = report(v, "scoring", v->n_done, n_ids, err);
    }
    return status;
}

static qins_status score_ids(verifier *v, const int32_t *ids, size_t n_ids, size_t ctx, qins_error *err) {
    int32_t *targets = qins_alloc(ctx, sizeof *targets);
    v->kl = qins_alloc(n_ids, sizeof *v->kl);
    qins_status status = QINS_OK;
    if (targets == NULL || v->kl == NULL) status = qins_fail_memory(err, n_ids * sizeof *v->kl, "scores");
    if (status == QINS_OK) status = open_sessions(v, qins_min_size(ctx, n_ids), err);
    for (size_t done = 0; done < n_ids && status == QINS_OK; done += ctx) {
        size_t n = qins_min_size(ctx, n_ids - done);
        if (n < 2) break; /* a single token left over predicts nothing that is known */
        status = score_window(v, ids + done, n, n_ids, targets, err);
    }
    free(targets);
    return status;
}

static qins_status score_text(verifier *v, qins_verify_result *r, qins_error *err) {
    const qins_verify_options *o = v->options;
    const char *text = o->text != NULL ? o->text : qins_default_text;
    size_t n_bytes = o->text != NULL ? o->text_bytes : qins_default_text_bytes;
    size_t ctx = o->ctx > 0 ? o->ctx : DEFAULT_CTX;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (ctx < 2) return qins_fail(err, QINS_ERR_ARGUMENT, "a window of %zu tokens predicts nothing: at least 2", ctx);
    qins_status status = qins_tokenize(v->reference, text, n_bytes, false, false, &ids, &n_ids, err);
    if (status != QINS_OK) return status;
    if (o->max_tokens > 0) n_ids = qins_min_size(n_ids, o->max_tokens);
    ctx = qins_min_size(ctx, qins_max_size(n_ids, 2));
    if (n_ids < 2)
        status = qins_fail(err, QINS_ERR_ARGUMENT, "the text has %zu tokens: at least 2 are needed", n_ids);
    else
        status = score_ids(v, ids, n_ids, ctx, err);
    qins_free(ids);
    if (status != QINS_OK) return status;

    double n = (double)v->n_done, n_targets = (double)v->n_targets;
    r->n_tokens = v->n_done;
    r->kl_mean = v->kl_sum / n;
    r->kl_p99 = qins_quantile(v->kl, v->n_done, 0.99);
    r->top1 = (double)v->n_top1 / n;
    r->top10_overlap = (double)v->top10_shared / (double)v->top10_of;
    r->ppl_ref = exp(-v->ref_target_sum / n_targets);
    r->ppl = exp(-v->target_sum / n_targets);
    r->ppl_delta_pct = 100 * (r->ppl / r->ppl_ref - 1);
    r->max_abs_logit_diff = v->max_abs_diff;
    return QINS_OK;
}

/* ---- greedy generation ---- */

/* Generated tokens between two reports. */
enum { REPORT_TOKENS = 16 };

/* Both continue ids[0..n) greedily until they part. Each goes on past an end-of-text token, so that every prompt counts
 * the same number of tokens. */
static qins_status generate_both(verifier *v, const int32_t *ids, size_t n, qins_greedy_result *g, qins_error *err) {
    qins_status status = restart_sessions(v, err);
    if (status == QINS_OK) status = eval_both(v, ids, n, 1, err);
    while (status == QINS_OK) {
        int32_t ref_token = qins_argmax(v->ref_logits, v->vocab_size);
        int32_t token = qins_argmax(v->logits, v->vocab_size);
        if (ref_token != token) {
            g->ref_token = ref_token;
            g->token = token;
            g->ref_margin = (double)v->ref_logits[ref_token] - (double)v->ref_logits[token];
            break;
        }
        if (++g->matched == g->of) break;
        status = eval_both(v, &token, 1, 1, err);
        if (status == QINS_OK && g->matched % REPORT_TOKENS == 0)
            status = report(v, "generating", v->n_generated + g->matched, v->n_to_generate, err);
    }
    g->first_divergence = g->matched;
    return status;
}

static qins_status generate_from(verifier *v, const char *prompt, qins_greedy_result *g, qins_error *err) {
    int32_t *ids = NULL;
    size_t n_ids = 0, n_ctx = 0;
    *g = (qins_greedy_result){.of = v->options->gen, .ref_token = -1, .token = -1};
    qins_status status = qins_tokenize(v->reference, prompt, strlen(prompt), true, false, &ids, &n_ids, err);
    if (status == QINS_OK && n_ids == 0) status = qins_fail(err, QINS_ERR_ARGUMENT, "a prompt has no tokens");
    if (status == QINS_OK && !qins_add_size(n_ids, g->of, &n_ctx))
        status = qins_fail(err, QINS_ERR_ARGUMENT, "too many tokens to generate");
    if (status == QINS_OK) status = open_sessions(v, n_ctx, err);
    if (status == QINS_OK) status = generate_both(v, ids, n_ids, g, err);
    qins_free(ids);
    return status;
}

static qins_status generate_all(verifier *v, qins_verify_result *r, qins_error *err) {
    const qins_verify_options *o = v->options;
    const char *const *prompts = o->prompts != NULL ? o->prompts : qins_default_prompts;
    size_t n_prompts = o->prompts != NULL ? o->n_prompts : qins_n_default_prompts;
    if (o->gen == 0 || n_prompts == 0) return QINS_OK;
    r->greedy = qins_alloc(n_prompts, sizeof *r->greedy);
    if (r->greedy == NULL) return qins_fail_memory(err, n_prompts * sizeof *r->greedy, "greedy results");
    if (!qins_mul_size(n_prompts, o->gen, &v->n_to_generate))
        return qins_fail(err, QINS_ERR_ARGUMENT, "too many tokens to generate");
    for (size_t i = 0; i < n_prompts; i++) {
        v->n_generated = i * o->gen;
        qins_status status = report(v, "generating", v->n_generated, v->n_to_generate, err);
        if (status == QINS_OK) status = generate_from(v, prompts[i], &r->greedy[i], err);
        if (status != QINS_OK) return qins_prefix(err, status, "prompt %zu", i + 1);
        r->n_greedy++;
        r->greedy_matched += r->greedy[i].matched;
        r->greedy_of += r->greedy[i].of;
    }
    return QINS_OK;
}

/* ---- both ---- */

static qins_status prepare(verifier *v, qins_error *err) {
    qins_model_info ref_info, info;
    qins_model_get_info(v->reference, &ref_info);
    qins_model_get_info(v->model, &info);
    if (ref_info.vocab_size != info.vocab_size)
        return qins_fail(err, QINS_ERR_ARGUMENT,
                         "the reference has a vocabulary of %zu tokens, the model one of %zu: they cannot be compared",
                         ref_info.vocab_size, info.vocab_size);
    v->vocab_size = info.vocab_size;
    v->chunk = qins_max_size(1, LOGITS_BYTES / sizeof(float) / qins_max_size(1, info.vocab_size));
    size_t n = 0;
    if (!qins_mul_size(v->chunk, v->vocab_size, &n)) return qins_fail_memory(err, SIZE_MAX, "logits");
    v->ref_logits = qins_alloc(n, sizeof *v->ref_logits);
    v->logits = qins_alloc(n, sizeof *v->logits);
    v->positions = qins_alloc(v->chunk, sizeof *v->positions);
    if (v->ref_logits == NULL || v->logits == NULL || v->positions == NULL)
        return qins_fail_memory(err, 2 * n * sizeof *v->logits, "logits");
    return QINS_OK;
}

qins_status qins_verify(const qins_model *reference, const qins_model *model, const qins_verify_options *options,
                        qins_verify_result *result, qins_error *err) {
    static const qins_verify_options defaults;
    verifier v = {.reference = reference, .model = model, .options = options != NULL ? options : &defaults};
    memset(result, 0, sizeof *result);
    qins_status status = prepare(&v, err);
    if (status == QINS_OK) status = score_text(&v, result, err);
    if (status == QINS_OK) status = generate_all(&v, result, err);
    verifier_free(&v);
    if (status != QINS_OK) qins_verify_result_free(result);
    return status;
}

void qins_verify_result_free(qins_verify_result *result) {
    if (result == NULL) return;
    free(result->greedy);
    memset(result, 0, sizeof *result);
}
