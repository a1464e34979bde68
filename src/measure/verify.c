/* Fidelity of a model against a reference: both read the same text, window by window, and generate greedily from the
 * same prompts. SPDX-License-Identifier: MIT */
#include "measure/verify.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Logits held at once, for each of the two models. */
static const size_t LOGITS_BYTES = (size_t)16 << 20;
static const size_t DEFAULT_CTX = 512;

/* ---- what the parts share ---- */

void qins_verifier_close_sessions(qins_verifier *v) {
    qins_session_free(v->ref_session);
    qins_session_free(v->session);
    v->ref_session = v->session = NULL;
}

qins_status qins_verifier_open_sessions(qins_verifier *v, size_t n_ctx, qins_error *err) {
    qins_verifier_close_sessions(v);
    qins_status status = qins_session_new(v->reference, n_ctx, &v->ref_session, err);
    const qins_session_options options = {
        .n_ctx = n_ctx, .key_bits = v->options->key_bits, .value_bits = v->options->value_bits};
    return status != QINS_OK ? status : qins_session_new_with(v->model, &options, &v->session, err);
}

qins_status qins_verifier_restart(qins_verifier *v, qins_error *err) {
    qins_status status = qins_session_truncate(v->ref_session, 0, err);
    return status != QINS_OK ? status : qins_session_truncate(v->session, 0, err);
}

qins_status qins_verifier_eval(qins_verifier *v, const int32_t *ids, size_t n, size_t n_logits, qins_error *err) {
    qins_status status = qins_session_eval(v->ref_session, ids, n, v->ref_logits, n_logits, err);
    if (status != QINS_OK) return qins_prefix(err, status, "reference");
    return qins_session_eval(v->session, ids, n, v->logits, n_logits, err);
}

qins_status qins_verifier_compare(qins_verifier *v, const int32_t *targets, size_t n, qins_error *err) {
    bool finite = true;
#pragma omp parallel for num_threads(qins_get_threads()) reduction(&& : finite)
    for (size_t i = 0; i < n; i++)
        finite = qins_compare_logits(v->ref_logits + i * v->vocab_size, v->logits + i * v->vocab_size, v->vocab_size,
                                     targets != NULL ? targets[i] : -1, &v->positions[i]) &&
                 finite;
    if (finite) return QINS_OK;
    return qins_fail(err, QINS_ERR_FORMAT, "logits are not finite: the weights of one model are damaged");
}

qins_status qins_verifier_report(const qins_verifier *v, const char *stage, size_t done, size_t total,
                                 qins_error *err) {
    if (!qins_report(v->options->progress, v->options->progress_user, stage, done, total)) return QINS_OK;
    return qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
}

static const char *text_of(const qins_verify_options *o, size_t *n_bytes) {
    *n_bytes = o->text != NULL ? o->text_bytes : qins_default_text_bytes;
    return o->text != NULL ? o->text : qins_default_text;
}

qins_status qins_verify_tokens(const qins_verifier *v, int32_t **ids, size_t *n_ids, size_t *ctx, qins_error *err) {
    const qins_verify_options *o = v->options;
    size_t n_bytes;
    const char *text = text_of(o, &n_bytes);
    *ctx = o->ctx > 0 ? o->ctx : DEFAULT_CTX;
    *ids = NULL;
    if (*ctx < 2) return qins_fail(err, QINS_ERR_ARGUMENT, "a window of %zu tokens predicts nothing: at least 2", *ctx);
    if (o->stride > *ctx)
        return qins_fail(err, QINS_ERR_ARGUMENT, "a stride of %zu leaves tokens between windows of %zu out", o->stride,
                         *ctx);
    qins_status status = qins_tokenize(v->reference, text, n_bytes, false, false, ids, n_ids, err);
    if (status != QINS_OK) return status;
    if (o->max_tokens > 0) *n_ids = qins_min_size(*n_ids, o->max_tokens);
    if (*n_ids >= 2) return QINS_OK;
    qins_free(*ids);
    *ids = NULL;
    return qins_fail(err, QINS_ERR_ARGUMENT, "the text has fewer than 2 tokens");
}

/* ---- the whole ---- */

static void verifier_free(qins_verifier *v) {
    qins_verifier_close_sessions(v);
    free(v->ref_logits);
    free(v->logits);
    free(v->positions);
}

static qins_status prepare(qins_verifier *v, qins_error *err) {
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

/* What the figures were measured on, so that they can be measured again. */
static void hash_material(const qins_verify_options *o, qins_verify_result *r) {
    size_t n_bytes;
    const char *text = text_of(o, &n_bytes);
    snprintf(r->text_xxh3_64, sizeof r->text_xxh3_64, "%016llx", (unsigned long long)XXH3_64bits(text, n_bytes));
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL || XXH3_64bits_reset(state) == XXH_ERROR) return;
    size_t n = o->prompts != NULL ? o->n_prompts : qins_n_default_prompts;
    for (size_t i = 0; i < n; i++) {
        const char *prompt = o->prompts != NULL ? o->prompts[i] : qins_default_prompts[i].text;
        XXH3_64bits_update(state, prompt, strlen(prompt) + 1);
    }
    snprintf(r->prompts_xxh3_64, sizeof r->prompts_xxh3_64, "%016llx", (unsigned long long)XXH3_64bits_digest(state));
    XXH3_freeState(state);
}

qins_status qins_verify(const qins_model *reference, const qins_model *model, const qins_verify_options *options,
                        qins_verify_result *result, qins_error *err) {
    static const qins_verify_options defaults;
    qins_verifier v = {.reference = reference, .model = model, .options = options != NULL ? options : &defaults};
    memset(result, 0, sizeof *result);
    qins_status status = prepare(&v, err);
    if (status == QINS_OK) hash_material(v.options, result);
    if (status == QINS_OK) status = qins_verify_text(&v, result, err);
    if (status == QINS_OK) status = qins_verify_generation(&v, result, err);
    if (status == QINS_OK) status = qins_verify_layers(&v, result, err);
    verifier_free(&v);
    if (status != QINS_OK) qins_verify_result_free(result);
    return status;
}

void qins_verify_result_free(qins_verify_result *result) {
    if (result == NULL) return;
    free(result->strategies);
    free(result->greedy);
    free(result->layers);
    memset(result, 0, sizeof *result);
}
