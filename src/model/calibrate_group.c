/* SPDX-License-Identifier: MIT */
#include "model/calibrate_group.h"

#include "base/dense.h"
#include "model/calibrate_round.h"

#include <stdlib.h>
#include <string.h>

/* Share of the mean diagonal that is added to the moments (GPTQ's percdamp). */
static const double DAMPING = 0.01;

bool qins_can_feed_back(const qins_plan_item *item) {
    const qins_encode_options *o = &item->options;
    return item->encode && !item->keep && o->storage == QINS_STORAGE_PACKED && o->scale == QINS_SCALE_ROW &&
           qins_codec_has_fixed_table(o->codec);
}

/* ---- opening ---- */

static qins_status load_matrix(qins_group *g, qins_group_matrix *m, qins_error *err) {
    const qins_matrix *w = &m->affine->weight;
    size_t n;
    m->w = qins_mul_size(w->n_rows, w->n_cols, &n) ? qins_alloc_aligned(n, sizeof *m->w) : NULL;
    if (m->w == NULL) return qins_fail_memory(err, w->n_rows * w->n_cols * sizeof *m->w, "a matrix");
    qins_matrix_decode_rows(w, 0, w->n_rows, m->w);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(m->w[i]))
            return qins_fail(err, QINS_ERR_FORMAT, "tensor %s: weight [%zu][%zu] is NaN or infinite",
                             m->item != NULL ? m->item->parameter->name : "?", i / w->n_cols, i % w->n_cols);
    qins_group_rotate(g, m->w, w->n_rows);
    return QINS_OK;
}

qins_status qins_group_open(qins_group *g, const qins_affine *const *affines, const qins_plan_item *const *items,
                            size_t n, qins_error *err) {
    *g = (qins_group){0};
    const qins_encode_options *options = NULL;
    for (size_t i = 0; i < n; i++) {
        g->matrices[i].affine = affines[i];
        g->matrices[i].item = items[i];
        if (!affines[i]->present) continue;
        g->n_cols = affines[i]->weight.n_cols;
        if (items[i] != NULL) options = &items[i]->options;
    }
    g->n = n;
    if (options != NULL && options->rotate == QINS_ON) {
        g->signs = qins_alloc(g->n_cols, sizeof *g->signs);
        if (g->signs == NULL) return qins_fail_memory(err, g->n_cols * sizeof *g->signs, "a rotation");
        qins_rotation_signs(options->rotation_seed, g->n_cols, g->signs);
    }
    qins_status status = QINS_OK;
    for (size_t i = 0; i < n && status == QINS_OK; i++)
        if (affines[i]->present) status = load_matrix(g, &g->matrices[i], err);
    size_t values;
    if (status == QINS_OK && options != NULL) {
        g->moments =
            qins_mul_size(g->n_cols, g->n_cols, &values) ? qins_alloc_aligned(values, sizeof *g->moments) : NULL;
        if (g->moments == NULL)
            status = qins_fail_memory(err, g->n_cols * g->n_cols * sizeof *g->moments, "second moments of inputs");
    }
    return status;
}

void qins_group_close(qins_group *g) {
    for (size_t i = 0; i < g->n; i++) {
        free(g->matrices[i].w);
        qins_rounding_free(g->matrices[i].coded);
    }
    free(g->inputs);
    free(g->signs);
    free(g->moments);
    free(g->held_moments);
    *g = (qins_group){0};
}

void qins_group_rotate(const qins_group *g, float *x, size_t n) {
    if (g->signs == NULL) return;
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++)
        qins_rotate(x + t * g->n_cols, g->n_cols, g->signs);
}

void qins_group_observe(qins_group *g, const float *x, size_t n) {
    g->n_tokens += n;
    if (g->moments != NULL) qins_dense_gram(n, g->n_cols, x, g->n_cols, g->moments);
}

qins_status qins_group_hold(qins_group *g, qins_error *err) {
    if (g->moments == NULL) return QINS_OK;
    g->held_moments = qins_alloc_aligned(g->n_cols * g->n_cols, sizeof *g->held_moments);
    if (g->held_moments != NULL) return QINS_OK;
    return qins_fail_memory(err, g->n_cols * g->n_cols * sizeof *g->held_moments, "second moments of inputs");
}

void qins_group_observe_held(qins_group *g, const float *x, size_t n) {
    g->n_held_tokens += n;
    if (g->held_moments != NULL) qins_dense_gram(n, g->n_cols, x, g->n_cols, g->held_moments);
}

/* ---- rounding ---- */

/* Rows of w that the item encodes, to (or back from) a matrix of their own. */
static void move_encoded_rows(const qins_plan_item *item, size_t n_cols, float *w, float *encoded, bool back) {
    for (size_t i = 0; i < item->split.n_pieces; i++) {
        const qins_row_piece *piece = &item->split.pieces[i];
        if (!piece->encoded) continue;
        float *rows = w + piece->begin * n_cols, *own = encoded + piece->at * n_cols;
        memcpy(back ? rows : own, back ? own : rows, (piece->end - piece->begin) * n_cols * sizeof *w);
    }
}

enum { TOKENS_AT_ONCE = 512 };

/* From now on the codes are multiplied, if this CPU multiplies such codes in integers. */
static qins_status keep_coded(qins_group *g, qins_group_matrix *m, qins_rounding *r, qins_error *err) {
    const void *parts[QINS_PART_COUNT] = {
        [QINS_PART_CODES] = r->packed, [QINS_PART_SCALES] = r->scales, [QINS_PART_TABLE] = r->book.table};
    qins_matrix_from_parts(&r->matrix, m->affine->weight.n_rows, g->n_cols, &m->item->options, parts, NULL);
    if (!qins_takes_integers(&r->matrix)) {
        qins_rounding_free(r);
        return QINS_OK;
    }
    free(r->codes);
    r->codes = NULL;
    free(m->w);
    m->w = NULL;
    m->coded = r;
    size_t n_bytes = qins_quantised_bytes(TOKENS_AT_ONCE, g->n_cols);
    if (g->inputs == NULL) g->inputs = n_bytes > 0 ? qins_alloc_aligned(n_bytes, 1) : NULL;
    return g->inputs != NULL ? QINS_OK : qins_fail_memory(err, n_bytes, "inputs of a matrix");
}

static qins_status round_matrix(qins_group *g, qins_group_matrix *m, const qins_feedback *feedback, qins_losses *losses,
                                qins_rounded *rounded, qins_error *err) {
    const qins_held_inputs held = {g->held_moments, g->n_held_tokens};
    qins_rounding *r = NULL;
    if (m->item->split.n_pieces == 0) {
        qins_status status = qins_round_rows(m->item, m->w, feedback, &held, losses, rounded, &r, err);
        if (status == QINS_OK) return keep_coded(g, m, r, err);
        qins_rounding_free(r);
        return status;
    }
    size_t n_cols = m->affine->weight.n_cols, n = m->item->split.n_encoded * n_cols;
    float *encoded = qins_alloc_aligned(n, sizeof *encoded);
    if (encoded == NULL) return qins_fail_memory(err, n * sizeof *encoded, "rows of a matrix");
    move_encoded_rows(m->item, n_cols, m->w, encoded, false);
    qins_status status = qins_round_rows(m->item, encoded, feedback, &held, losses, rounded, &r, err);
    qins_rounding_free(r);
    move_encoded_rows(m->item, n_cols, m->w, encoded, true);
    free(encoded);
    return status;
}

qins_status qins_group_round(qins_group *g, size_t min_tokens, qins_losses *losses, qins_rounded *rounded,
                             qins_calibrate_result *result, qins_error *err) {
    if (g->moments == NULL) return QINS_OK;
    qins_feedback feedback = {0};
    bool fed_back = g->n_tokens >= qins_max_size(1, min_tokens);
    if (fed_back) {
        qins_error why = {0};
        qins_status status = qins_feedback_factor(g->moments, g->n_cols, DAMPING, &feedback, NULL, &why);
        fed_back = status == QINS_OK;
        if (status != QINS_OK && status != QINS_ERR_ARGUMENT) {
            if (err != NULL) *err = why;
            return status;
        }
    }
    free(g->moments);
    g->moments = NULL;
    qins_status status = QINS_OK;
    for (size_t i = 0; i < g->n && status == QINS_OK; i++) {
        if (g->matrices[i].w == NULL || g->matrices[i].item == NULL) continue;
        status = round_matrix(g, &g->matrices[i], fed_back ? &feedback : NULL, losses, rounded, err);
        *(fed_back ? &result->n_fed_back : &result->n_fallbacks) += 1;
    }
    qins_feedback_free(&feedback);
    return status;
}

/* ---- multiplying ---- */

static void apply_coded(const qins_group *g, const qins_group_matrix *m, const float *x, size_t n, float *y,
                        size_t ldy) {
    for (size_t t = 0; t < n; t += TOKENS_AT_ONCE) {
        qins_vectors vectors = {.x = x + t * g->n_cols,
                                .ldx = g->n_cols,
                                .n_cols = g->n_cols,
                                .n_tokens = qins_min_size(TOKENS_AT_ONCE, n - t),
                                .memory = g->inputs};
        const qins_product product = {&m->coded->matrix, m->affine->bias, y + t * ldy, ldy};
        qins_multiply(&product, 1, &vectors);
    }
}

void qins_group_apply(const qins_group *g, size_t i, const float *x, size_t n, float *y, size_t ldy) {
    const qins_group_matrix *m = &g->matrices[i];
    if (m->coded != NULL) apply_coded(g, m, x, n, y, ldy);
    if (m->w == NULL) return;
    size_t n_rows = m->affine->weight.n_rows;
    const float *bias = m->affine->bias;
    qins_dense_nt(n, n_rows, g->n_cols, 1.0f, x, g->n_cols, m->w, g->n_cols, 0.0f, y, ldy);
    for (size_t t = 0; bias != NULL && t < n; t++)
        for (size_t k = 0; k < n_rows; k++)
            y[t * ldy + k] += bias[k];
}
