/* Distributions over a text, window by window. SPDX-License-Identifier: MIT */
#include "measure/stats.h"
#include "measure/strategies.h"
#include "measure/verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Positions at which the strategies are compared: every position is the first of those that many apart. */
enum { STRATEGY_POSITIONS = 1024 };

typedef struct text_scores {
    qins_verifier *v;
    const int32_t *ids;
    size_t n_ids, ctx;
    int32_t *targets; /* [ctx] */
    double *kl;       /* [n_ids], of the positions scored */
    size_t n_done, n_targets, n_top1, top10_shared, top10_of;
    double kl_sum, ref_target_sum, target_sum, max_abs_diff;
    /* sums of a stretch of ctx tokens of the text: the blocks of the bootstrap */
    size_t n_blocks;
    double *block_kl, *block_n, *block_loss, *block_targets; /* loss: log(ppl / ppl_ref) */
    double position_kl[QINS_MAX_POSITION_SCORES];
    size_t position_n[QINS_MAX_POSITION_SCORES], position_top1[QINS_MAX_POSITION_SCORES];
    /* strategies */
    size_t strategy_step, n_scratch;
    qins_filter_scratch *scratch;                            /* one a thread */
    qins_filtered_comparison (*compared)[QINS_N_STRATEGIES]; /* [chunk] */
} text_scores;

static void scores_free(text_scores *s) {
    free(s->targets);
    free(s->kl);
    free(s->block_kl);
    free(s->block_n);
    free(s->block_loss);
    free(s->block_targets);
    for (size_t i = 0; s->scratch != NULL && i < s->n_scratch; i++)
        qins_filter_scratch_free(&s->scratch[i]);
    free(s->scratch);
    free(s->compared);
}

static bool allocate_strategies(text_scores *s) {
    if (s->v->options->no_strategies) return true;
    s->strategy_step = (s->n_ids + STRATEGY_POSITIONS - 1) / STRATEGY_POSITIONS;
    s->n_scratch = (size_t)qins_get_threads();
    s->scratch = qins_alloc(s->n_scratch, sizeof *s->scratch);
    s->compared = qins_alloc(s->v->chunk, sizeof *s->compared);
    bool ok = s->scratch != NULL && s->compared != NULL;
    for (size_t i = 0; ok && i < s->n_scratch; i++)
        ok = qins_filter_scratch_init(&s->scratch[i], s->v->vocab_size);
    return ok;
}

static qins_status scores_init(text_scores *s, qins_error *err) {
    s->n_blocks = (s->n_ids + s->ctx - 1) / s->ctx;
    s->targets = qins_alloc(s->ctx, sizeof *s->targets);
    s->kl = qins_alloc(s->n_ids, sizeof *s->kl);
    s->block_kl = qins_alloc(s->n_blocks, sizeof(double));
    s->block_n = qins_alloc(s->n_blocks, sizeof(double));
    s->block_loss = qins_alloc(s->n_blocks, sizeof(double));
    s->block_targets = qins_alloc(s->n_blocks, sizeof(double));
    bool ok = s->targets != NULL && s->kl != NULL && s->block_kl != NULL && s->block_n != NULL &&
              s->block_loss != NULL && s->block_targets != NULL;
    return ok && allocate_strategies(s) ? QINS_OK : qins_fail_memory(err, s->n_ids * sizeof *s->kl, "scores");
}

/* ---- adding up ---- */

/* One comparison: of the text's token `at`, with `context` tokens before it and itself included. */
static void add_position(text_scores *s, const qins_logit_comparison *c, size_t at, size_t context, bool has_target) {
    size_t block = at / s->ctx, bucket = 0;
    for (size_t n = context; n > 1; n /= 2)
        bucket++;
    bucket = qins_min_size(bucket, QINS_MAX_POSITION_SCORES - 1);
    s->kl[s->n_done++] = c->kl;
    s->kl_sum += c->kl;
    s->n_top1 += c->same_argmax;
    s->top10_shared += c->top10_shared;
    s->top10_of += c->top10_of;
    s->max_abs_diff = fmax(s->max_abs_diff, c->max_abs_diff);
    s->block_kl[block] += c->kl;
    s->block_n[block] += 1;
    s->position_kl[bucket] += c->kl;
    s->position_n[bucket]++;
    s->position_top1[bucket] += c->same_argmax;
    if (!has_target) return;
    s->n_targets++;
    s->ref_target_sum += c->ref_target_logprob;
    s->target_sum += c->target_logprob;
    s->block_loss[block] += c->ref_target_logprob - c->target_logprob;
    s->block_targets[block] += 1;
}

/* The strategies at those of n positions whose place in the text is a multiple of the step. */
static void add_strategies(text_scores *s, size_t at, size_t n, qins_strategy_score *out) {
    const qins_verifier *v = s->v;
#pragma omp parallel for num_threads((int)s->n_scratch) schedule(dynamic, 1)
    for (size_t i = 0; i < n; i++)
        if ((at + i) % s->strategy_step == 0)
            qins_compare_strategies(v->ref_logits + i * v->vocab_size, v->logits + i * v->vocab_size, v->vocab_size,
                                    at + i, &s->scratch[qins_thread_index()], s->compared[i]);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < QINS_N_STRATEGIES && (at + i) % s->strategy_step == 0; k++) {
            out[k].n++;
            out[k].agreement += s->compared[i][k].same_token;
            out[k].coupled += s->compared[i][k].same_coupled;
            out[k].overlap += s->compared[i][k].overlap;
            out[k].kl += s->compared[i][k].kl;
            out[k].missed += s->compared[i][k].missed;
        }
}

/* ---- windows ---- */

/* Tokens [begin, end) of the text from an empty cache; those from `scored` on count. Position i is scored on ids[i +
 * 1], the window's last one has no target. */
static qins_status score_window(text_scores *s, size_t begin, size_t scored, size_t end, qins_verify_result *r,
                                qins_error *err) {
    qins_verifier *v = s->v;
    size_t n = end - begin;
    memcpy(s->targets, s->ids + begin + 1, (n - 1) * sizeof *s->targets);
    s->targets[n - 1] = -1;
    qins_status status = qins_verifier_restart(v, err);
    if (status == QINS_OK && scored > begin) status = qins_verifier_eval(v, s->ids + begin, scored - begin, 0, err);
    for (size_t at = scored; at < end && status == QINS_OK; at += v->chunk) {
        size_t n_chunk = qins_min_size(v->chunk, end - at);
        const int32_t *targets = s->targets + (at - begin);
        status = qins_verifier_eval(v, s->ids + at, n_chunk, n_chunk, err);
        if (status == QINS_OK) status = qins_verifier_compare(v, targets, n_chunk, err);
        if (status != QINS_OK) break;
        for (size_t i = 0; i < n_chunk; i++)
            add_position(s, &v->positions[i], at + i, at + i - begin + 1, targets[i] >= 0);
        if (s->strategy_step > 0) add_strategies(s, at, n_chunk, r->strategies);
        status = qins_verifier_report(v, "scoring", s->n_done, s->n_ids, err);
    }
    return status;
}

static qins_status score_windows(text_scores *s, qins_verify_result *r, qins_error *err) {
    size_t stride = s->v->options->stride > 0 ? s->v->options->stride : s->ctx, scored = 0;
    qins_status status = qins_verifier_open_sessions(s->v, qins_min_size(s->ctx, s->n_ids), err);
    for (size_t begin = 0; status == QINS_OK && scored < s->n_ids; begin += stride) {
        size_t end = qins_min_size(begin + s->ctx, s->n_ids);
        if (end - begin < 2) break; /* a single token left over predicts nothing that is known */
        status = score_window(s, begin, scored, end, r, err);
        scored = end;
    }
    return status;
}

static void summarize(text_scores *s, qins_verify_result *r) {
    double n = (double)s->n_done, n_targets = (double)s->n_targets;
    r->n_tokens = s->n_done;
    r->kl_mean = s->kl_sum / n;
    qins_sort(s->kl, s->n_done);
    r->kl_p50 = qins_quantile(s->kl, s->n_done, 0.5);
    r->kl_p90 = qins_quantile(s->kl, s->n_done, 0.9);
    r->kl_p99 = qins_quantile(s->kl, s->n_done, 0.99);
    r->kl_p999 = qins_quantile(s->kl, s->n_done, 0.999);
    r->top1 = (double)s->n_top1 / n;
    r->top10_overlap = (double)s->top10_shared / (double)s->top10_of;
    r->ppl_ref = exp(-s->ref_target_sum / n_targets);
    r->ppl = exp(-s->target_sum / n_targets);
    r->ppl_delta_pct = 100 * (r->ppl / r->ppl_ref - 1);
    r->max_abs_logit_diff = s->max_abs_diff;
    while (s->n_blocks > 0 && !(s->block_n[s->n_blocks - 1] > 0))
        s->n_blocks--;
    r->n_blocks = s->n_blocks;
    r->kl_interval = qins_bootstrap(s->block_kl, s->block_n, s->n_blocks);
    qins_interval loss = qins_bootstrap(s->block_loss, s->block_targets, s->n_blocks);
    r->ppl_delta_interval = (qins_interval){100 * expm1(loss.low), 100 * expm1(loss.high)};
    for (size_t b = 0; b < QINS_MAX_POSITION_SCORES; b++)
        if (s->position_n[b] > 0)
            r->positions[r->n_positions++] =
                (qins_position_score){.from = (size_t)1 << b,
                                      .to = qins_min_size(((size_t)2 << b) - 1, s->ctx),
                                      .n = s->position_n[b],
                                      .kl_mean = s->position_kl[b] / (double)s->position_n[b],
                                      .top1 = (double)s->position_top1[b] / (double)s->position_n[b]};
    for (size_t k = 0; k < r->n_strategies; k++) {
        qins_strategy_score *score = &r->strategies[k];
        double of = (double)qins_max_size(1, score->n);
        score->name = qins_strategies[k].name;
        score->sampling = qins_strategies[k].sampling;
        score->agreement /= of;
        score->coupled /= of;
        score->overlap /= of;
        score->kl /= of;
        score->missed /= of;
    }
}

qins_status qins_verify_text(qins_verifier *v, qins_verify_result *r, qins_error *err) {
    int32_t *ids = NULL;
    text_scores s = {.v = v};
    qins_status status = qins_verify_tokens(v, &ids, &s.n_ids, &s.ctx, err);
    s.ids = ids;
    if (status == QINS_OK) status = scores_init(&s, err);
    if (status == QINS_OK && s.strategy_step > 0) {
        r->strategies = qins_alloc(QINS_N_STRATEGIES, sizeof *r->strategies);
        r->n_strategies = QINS_N_STRATEGIES;
        if (r->strategies == NULL) status = qins_fail_memory(err, sizeof *r->strategies, "strategies");
    }
    if (status == QINS_OK) status = score_windows(&s, r, err);
    if (status == QINS_OK) summarize(&s, r);
    scores_free(&s);
    qins_free(ids);
    return status;
}
