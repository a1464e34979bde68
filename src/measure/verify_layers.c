/* Which layer costs what. SPDX-License-Identifier: MIT
 *
 * The reference reads a stretch of text once, and its hidden states and logits are kept. Then the model reads it, and
 * then a reference into which one layer of the model is grafted, for each layer: it starts from the reference's hidden
 * state before that layer.
 */
#include "measure/tensor_error.h"
#include "measure/verify.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct layer_job {
    qins_verifier *v;
    const int32_t *ids;
    size_t n_tokens, n_layers, width;
    float *hidden;     /* of the reference: [n_layers + 1][n_tokens][width], before each layer and after the last */
    float *ref_logits; /* [n_tokens][vocab] */
    qins_layer_score *scores;
    /* of the run in progress */
    size_t position;
    double *cosine_sum, *error_sum, *norm_sum; /* [n_layers] */
} layer_job;

static float *hidden_before(const layer_job *j, size_t layer) {
    return j->hidden + layer * j->n_tokens * j->width;
}

static void job_free(layer_job *j) {
    free(j->hidden);
    free(j->ref_logits);
    free(j->cosine_sum);
    free(j->error_sum);
    free(j->norm_sum);
}

static qins_status job_init(layer_job *j, qins_error *err) {
    size_t n_hidden, n_logits;
    if (!qins_mul_size(j->n_layers + 1, j->n_tokens, &n_hidden) || !qins_mul_size(n_hidden, j->width, &n_hidden) ||
        !qins_mul_size(j->n_tokens, j->v->vocab_size, &n_logits))
        return qins_fail(err, QINS_ERR_ARGUMENT, "%zu tokens are too many for the scores of layers", j->n_tokens);
    j->hidden = qins_alloc(n_hidden, sizeof *j->hidden);
    j->ref_logits = qins_alloc(n_logits, sizeof *j->ref_logits);
    j->cosine_sum = qins_alloc(j->n_layers, sizeof *j->cosine_sum);
    j->error_sum = qins_alloc(j->n_layers, sizeof *j->error_sum);
    j->norm_sum = qins_alloc(j->n_layers, sizeof *j->norm_sum);
    if (j->hidden != NULL && j->ref_logits != NULL && j->cosine_sum != NULL && j->error_sum != NULL &&
        j->norm_sum != NULL)
        return QINS_OK;
    return qins_fail_memory(err, (n_hidden + n_logits) * sizeof(float), "hidden states; ask for fewer --layers tokens");
}

/* ---- probes ---- */

static void keep_hidden(void *user, size_t layer, const float *x, size_t n) {
    layer_job *j = user;
    memcpy(hidden_before(j, layer + 1) + j->position * j->width, x, n * j->width * sizeof *x);
    if (layer + 1 == j->n_layers) j->position += n;
}

static void compare_hidden(void *user, size_t layer, const float *x, size_t n) {
    layer_job *j = user;
    const float *ref = hidden_before(j, layer + 1) + j->position * j->width;
    for (size_t t = 0; t < n; t++, x += j->width, ref += j->width) {
        double xx = 0, rr = 0, xr = 0, dd = 0;
        for (size_t i = 0; i < j->width; i++) {
            double a = (double)x[i], b = (double)ref[i];
            xx += a * a;
            rr += b * b;
            xr += a * b;
            dd += (a - b) * (a - b);
        }
        j->cosine_sum[layer] += xx > 0 && rr > 0 ? xr / sqrt(xx * rr) : (double)(xx <= 0 && rr <= 0);
        j->error_sum[layer] += dd;
        j->norm_sum[layer] += rr;
    }
    if (layer + 1 == j->n_layers) j->position += n;
}

/* ---- runs ---- */

/* Logits of all tokens into v->logits, chunk by chunk, compared with the reference's: mean KL. */
static qins_status run(layer_job *j, const qins_model *model, const qins_probe *probe, double *kl, qins_error *err) {
    qins_verifier *v = j->v;
    qins_session *session = NULL;
    double sum = 0;
    qins_status status = qins_session_new(model, j->n_tokens, &session, err);
    if (status == QINS_OK) qins_session_set_probe(session, probe);
    j->position = 0;
    for (size_t l = 0; l < j->n_layers; l++)
        j->cosine_sum[l] = j->error_sum[l] = j->norm_sum[l] = 0;
    for (size_t at = 0; at < j->n_tokens && status == QINS_OK; at += v->chunk) {
        size_t n = qins_min_size(v->chunk, j->n_tokens - at);
        status = qins_session_eval(session, j->ids + at, n, v->logits, n, err);
        if (status != QINS_OK) break;
        memcpy(v->ref_logits, j->ref_logits + at * v->vocab_size, n * v->vocab_size * sizeof *v->logits);
        status = qins_verifier_compare(v, NULL, n, err);
        for (size_t i = 0; i < n && status == QINS_OK; i++)
            sum += v->positions[i].kl;
    }
    qins_session_free(session);
    *kl = sum / (double)j->n_tokens;
    return status;
}

static qins_status run_reference(layer_job *j, qins_error *err) {
    const qins_verifier *v = j->v;
    const qins_probe probe = {.output = keep_hidden, .user = j};
    qins_session *session = NULL;
    qins_status status = qins_session_new(v->reference, j->n_tokens, &session, err);
    if (status == QINS_OK) qins_session_set_probe(session, &probe);
    for (size_t at = 0; at < j->n_tokens && status == QINS_OK; at += v->chunk) {
        size_t n = qins_min_size(v->chunk, j->n_tokens - at);
        status = qins_session_eval(session, j->ids + at, n, j->ref_logits + at * v->vocab_size, n, err);
    }
    qins_session_free(session);
    return status;
}

static qins_status run_model(layer_job *j, qins_error *err) {
    const qins_probe probe = {.output = compare_hidden, .user = j};
    double kl;
    qins_status status = run(j, j->v->model, &probe, &kl, err);
    for (size_t l = 0; l < j->n_layers && status == QINS_OK; l++) {
        j->scores[l].output_rel_mse = j->norm_sum[l] > 0 ? j->error_sum[l] / j->norm_sum[l] : 0;
        j->scores[l].cosine = j->cosine_sum[l] / (double)j->n_tokens;
    }
    return status;
}

/* layer == n_layers: embedding, positions and head. */
static qins_status run_grafted(layer_job *j, size_t layer, qins_error *err) {
    bool ends = layer == j->n_layers;
    qins_probe probe = {.output = compare_hidden, .user = j};
    if (!ends && layer > 0) {
        probe.first_layer = layer;
        probe.input = hidden_before(j, layer);
    }
    qins_layer_score *score = &j->scores[layer];
    qins_model *grafted = NULL;
    qins_status status = qins_model_graft(j->v->reference, j->v->model, layer, &grafted, err);
    if (status == QINS_OK) status = run(j, grafted, &probe, &score->own_kl, err);
    qins_model_ungraft(grafted);
    size_t at = ends ? 0 : layer; /* the embedding shows in the input of the first layer, and so in its output */
    score->own_rel_mse = j->norm_sum[at] > 0 ? j->error_sum[at] / j->norm_sum[at] : 0;
    return status;
}

/* ---- weights ---- */

static qins_status weight_errors(layer_job *j, qins_error *err) {
    const qins_weights *ref = j->v->reference->weights, *w = j->v->model->weights;
    qins_tensor_error *errors = qins_alloc(j->n_layers + 1, sizeof *errors);
    if (errors == NULL) return qins_fail_memory(err, j->n_layers * sizeof *errors, "errors of layers");
    qins_status status = QINS_OK;
    for (size_t i = 0; i < w->n_parameters && status == QINS_OK; i++) {
        const qins_parameter *p = &w->parameters[i];
        bool table = p->role == QINS_ROLE_EMBEDDING || p->role == QINS_ROLE_HEAD, paired;
        if (!table && (p->role != QINS_ROLE_LINEAR || p->layer >= j->n_layers)) continue;
        status = qins_tensor_error_add(ref, w, p, &errors[table ? j->n_layers : p->layer], &paired, err);
    }
    for (size_t l = 0; l <= j->n_layers; l++)
        j->scores[l].weight_rel_mse =
            errors[l].sum_squares > 0 ? errors[l].sum_squared_error / errors[l].sum_squares : (double)NAN;
    free(errors);
    return status;
}

static qins_status check_shapes(const qins_verifier *v, qins_error *err) {
    qins_model_info a, b;
    qins_model_get_info(v->reference, &a);
    qins_model_get_info(v->model, &b);
    if (strcmp(a.model_type, b.model_type) == 0 && a.n_layers == b.n_layers && a.hidden_size == b.hidden_size &&
        a.n_heads == b.n_heads && a.n_kv_heads == b.n_kv_heads && a.head_dim == b.head_dim &&
        a.intermediate_size == b.intermediate_size)
        return QINS_OK;
    return qins_fail(
        err, QINS_ERR_ARGUMENT,
        "scores of layers need two models of the same shape: expected %s with %zu layers of %zu, found %s with "
        "%zu layers of %zu",
        a.model_type, a.n_layers, a.hidden_size, b.model_type, b.n_layers, b.hidden_size);
}

static qins_status score_layers(layer_job *j, qins_error *err) {
    qins_status status = job_init(j, err);
    if (status == QINS_OK) status = weight_errors(j, err);
    if (status == QINS_OK) status = run_reference(j, err);
    if (status == QINS_OK) status = run_model(j, err);
    for (size_t l = 0; l <= j->n_layers && status == QINS_OK; l++) {
        status = qins_verifier_report(j->v, "layers", l, j->n_layers + 1, err);
        if (status == QINS_OK) status = run_grafted(j, l, err);
    }
    return status;
}

qins_status qins_verify_layers(qins_verifier *v, qins_verify_result *r, qins_error *err) {
    if (v->options->layer_tokens == 0) return QINS_OK;
    qins_model_info info;
    qins_model_get_info(v->reference, &info);
    layer_job j = {.v = v, .n_layers = info.n_layers, .width = info.hidden_size};
    int32_t *ids = NULL;
    size_t n_ids = 0, ctx = 0;
    qins_status status = check_shapes(v, err);
    if (status == QINS_OK) status = qins_verify_tokens(v, &ids, &n_ids, &ctx, err);
    if (status == QINS_OK) {
        j.ids = ids;
        j.n_tokens = qins_min_size(v->options->layer_tokens, n_ids);
        r->layers = qins_alloc(j.n_layers + 1, sizeof *r->layers);
        if (r->layers == NULL) status = qins_fail_memory(err, j.n_layers * sizeof *r->layers, "scores of layers");
    }
    if (status == QINS_OK) {
        r->n_layers = j.n_layers + 1;
        j.scores = r->layers;
        for (size_t l = 0; l <= j.n_layers; l++)
            j.scores[l] = (qins_layer_score){.layer = l, .output_rel_mse = NAN, .cosine = NAN};
        status = score_layers(&j, err);
    }
    job_free(&j);
    qins_free(ids);
    return status;
}
