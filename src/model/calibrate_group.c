/* SPDX-License-Identifier: MIT */
#include "model/calibrate_group.h"

#include "base/dense.h"
#include "codec/entropy.h"

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
    for (size_t i = 0; i < g->n; i++)
        free(g->matrices[i].w);
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

void qins_group_apply(const qins_group *g, size_t i, const float *x, size_t n, float *y, size_t ldy) {
    const qins_group_matrix *m = &g->matrices[i];
    if (m->w == NULL) return;
    size_t n_rows = m->affine->weight.n_rows;
    const float *bias = m->affine->bias;
    qins_dense_nt(n, n_rows, g->n_cols, 1.0f, x, g->n_cols, m->w, g->n_cols, 0.0f, y, ldy);
    for (size_t t = 0; bias != NULL && t < n; t++)
        for (size_t k = 0; k < n_rows; k++)
            y[t * ldy + k] += bias[k];
}

/* ---- rounding ---- */

typedef struct rounding {
    qins_codebook book;
    qins_codebook scalar; /* trellis: the Gauss codebook that scales are fitted with */
    uint16_t *codes;      /* [panels * 16][n_cols] */
    float *scales;        /* [panels * 16] */
    uint8_t *packed;
    qins_encode_stats stats;
} rounding;

static void free_rounding(rounding *r) {
    if (r == NULL) return;
    free(r->codes);
    free(r->scales);
    free(r->packed);
    free(r);
}

static qins_status new_rounding(const qins_plan_item *item, rounding **out, qins_error *err) {
    size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
    rounding *r = *out = qins_alloc(1, sizeof *r);
    if (r == NULL) return qins_fail_memory(err, sizeof *r, "codes");
    r->codes = qins_alloc(qins_n_panels(n_rows) * QINS_PANEL_ROWS * n_cols, sizeof *r->codes);
    r->scales = qins_alloc(qins_n_panels(n_rows) * QINS_PANEL_ROWS, sizeof *r->scales);
    r->packed = qins_alloc_aligned((size_t)item->parts[QINS_PART_CODES].n_bytes, 1);
    if (r->codes == NULL || r->scales == NULL || r->packed == NULL)
        return qins_fail_memory(err, n_rows * n_cols * sizeof *r->codes, "codes");
    qins_fixed_codebook(&r->book, item->options.codec, item->options.bits);
    if (qins_codec_is_trellis(item->options.codec)) qins_trellis_scalar(&r->scalar, item->options.bits);
    return QINS_OK;
}

/* Fits the scales, as if rounding to the nearest. w: pruned. */
static void fit_scales(const qins_plan_item *item, const float *w, size_t n_rows, size_t n_cols, rounding *r) {
    bool thorough = item->options.rotate != QINS_ON || item->options.sparsity > 0;
#pragma omp parallel for schedule(dynamic, 8)
    for (size_t row = 0; row < n_rows; row++) {
        const float *x = w + row * n_cols;
        r->scales[row] = qins_codec_is_trellis(item->options.codec)
                             ? qins_trellis_scale(&r->book, thorough ? &r->scalar : NULL, x, n_cols)
                             : qins_fit_scale(&r->book, x, n_cols, thorough);
    }
}

/* w: pruned. */
static void round_to_nearest(const float *w, size_t n_rows, size_t n_cols, rounding *r) {
    if (qins_codec_is_trellis(r->book.codec)) {
#pragma omp parallel for schedule(static)
        for (size_t row = 0; row < n_rows; row += QINS_PANEL_ROWS)
            qins_trellis_encode_panel(&r->book, w + row * n_cols, qins_min_size(QINS_PANEL_ROWS, n_rows - row), n_cols,
                                      r->scales + row, r->codes + row * n_cols);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < n_rows; row++)
        for (size_t k = 0; k < n_cols; k++) {
            float scale = r->scales[row];
            float u = scale != 0.0f ? w[row * n_cols + k] / scale : 0.0f;
            r->codes[row * n_cols + k] = (uint16_t)qins_codebook_encode(&r->book, u);
        }
}

/* Sets scales for the nearest codes; those codes, too, without feedback. w stays. */
static qins_status fit_and_round(const qins_plan_item *item, const float *w, size_t n_rows, bool round, rounding *r,
                                 qins_error *err) {
    const qins_encode_options *o = &item->options;
    size_t n_cols = (size_t)item->parameter->shape[1];
    float *copy = NULL;
    double length[QINS_MAX_LEVELS];
    double step = o->rate > 0 ? qins_rate_step(o->codec, o->bits, o->rate, 0, o->sparsity, length) : 0;
    for (size_t row = 0; row < n_rows && step > 0; row++)
        r->scales[row] = qins_rate_scale(&r->book, w + row * n_cols, n_cols, 0, step);
    if (o->sparsity > 0) {
        copy = qins_alloc_aligned(n_rows * n_cols, sizeof *copy);
        if (copy == NULL) return qins_fail_memory(err, n_rows * n_cols * sizeof *copy, "pruned rows");
        memcpy(copy, w, n_rows * n_cols * sizeof *copy);
#pragma omp parallel for schedule(static)
        for (size_t row = 0; row < n_rows; row++)
            qins_prune_row(copy + row * n_cols, n_cols, o->sparsity, o->sparse_group);
        w = copy;
    }
    if (step <= 0) fit_scales(item, w, n_rows, n_cols, r);
    if (round) round_to_nearest(w, n_rows, n_cols, r);
    free(copy);
    return QINS_OK;
}

/* How an item is rounded at one scale a row. */
static qins_feedback_options feedback_options(const qins_plan_item *item) {
    return (qins_feedback_options){.n_scales = 1,
                                   .scale_lo = 1,
                                   .scale_hi = 1,
                                   .sparsity = item->options.sparsity,
                                   .sparse_group = item->options.sparse_group,
                                   .by_magnitude = item->options.prune_by_magnitude};
}

/* At the best of several scales. */
static qins_status round_with_search(const qins_plan_item *item, const float *w, size_t n_rows, const qins_feedback *f,
                                     rounding *r, qins_error *err) {
    qins_feedback_options o = feedback_options(item);
    /* The 16 rows of a panel of the trellis share one factor, and the error is smooth. */
    bool together = qins_codec_is_trellis(r->book.codec);
    o.n_scales = together ? 4 : 8;
    o.scale_lo = together ? 0.92 : 0.85;
    o.scale_hi = 1.1;
    return qins_feedback_round(f, &r->book, &o, w, n_rows, r->scales, r->codes, NULL, err);
}

enum { RATE_TRIALS = 3, RATE_GRID = 8, RATE_KINDS = 8 * RATE_GRID + 1 }; /* rates up to 8, eighths of a bit apart */

/* Steps of rows that want different rates. */
typedef struct row_steps {
    uint8_t *kind; /* [n_rows] */
    double rate, steps[RATE_KINDS];
    bool used[RATE_KINDS];
    size_t n_codes;
    float *price; /* [RATE_KINDS][n_codes] */
    float *pull;  /* [n_rows] */
    uint32_t *counts;
    uint8_t *row_class;
} row_steps;

static void free_steps(row_steps *s) {
    free(s->kind);
    free(s->price);
    free(s->pull);
    free(s->counts);
    free(s->row_class);
}

static qins_status new_steps(const qins_plan_item *item, size_t n_rows, row_steps *s, qins_error *err) {
    size_t n_codes = (size_t)1 << item->options.bits;
    *s = (row_steps){.kind = qins_alloc(n_rows, 1),
                     .n_codes = n_codes,
                     .price = qins_alloc(RATE_KINDS * n_codes, sizeof *s->price),
                     .pull = qins_alloc(n_rows, sizeof *s->pull),
                     .counts = qins_alloc(n_rows * n_codes, sizeof *s->counts),
                     .row_class = qins_alloc(n_rows, 1)};
    if (s->kind == NULL || s->price == NULL || s->pull == NULL || s->counts == NULL || s->row_class == NULL)
        return qins_fail_memory(err, n_rows * n_codes * sizeof *s->counts, "rates of rows");
    for (size_t row = 0; row < n_rows; row++) {
        double rate = item->row_rates != NULL ? (double)item->row_rates[row] : item->options.rate;
        double kind = item->row_rates != NULL ? round(rate * RATE_GRID) : 0;
        s->kind[row] = (uint8_t)fmin(fmax(kind, 0), RATE_KINDS - 1);
        s->used[s->kind[row]] = true;
        s->rate += rate / (double)n_rows;
    }
    return QINS_OK;
}

/* Steps and prices when every rate is `more` than wanted. price_unit: price of a bit in units of the squared scale. */
static void set_steps(row_steps *s, const qins_plan_item *item, double more, double price_unit) {
    const qins_encode_options *o = &item->options;
    double length[QINS_MAX_LEVELS];
    const double least = 0.5;
    for (size_t k = 0; k < RATE_KINDS; k++) {
        if (!s->used[k]) continue;
        double rate = (item->row_rates != NULL ? (double)k / RATE_GRID : s->rate) + more;
        s->steps[k] = qins_rate_step(o->codec, o->bits, fmax(rate, least), QINS_RATE_PRICE, o->sparsity, length);
        for (size_t c = 0; c < s->n_codes; c++)
            s->price[k * s->n_codes + c] = (float)(price_unit * length[c]);
    }
}

/* Bits a code that the coder will need, with tables for classes of rows. */
static double rate_by_classes(row_steps *s, const rounding *r, size_t n_rows, size_t n_cols) {
    double together = 0, apart = 0;
    memset(s->counts, 0, n_rows * s->n_codes * sizeof *s->counts);
    for (size_t row = 0; row < n_rows; row++)
        for (size_t k = 0; k < n_cols; k++)
            s->counts[row * s->n_codes + r->codes[row * n_cols + k]]++;
    if (!qins_row_classes(s->counts, n_rows, s->n_codes, s->row_class, &together, &apart)) return -1;
    return fmin(together, apart) / ((double)n_rows * (double)n_cols);
}

/* Codes of equal steps and a wanted entropy: rounding with feedback that prefers the cheaper code. What the price does
 * to the rate depends on H, so the steps are corrected after each trial. */
static qins_status round_to_rate(const qins_plan_item *item, const float *w, size_t n_rows, const qins_feedback *f,
                                 rounding *r, qins_error *err) {
    double more = 0, mean_d = 0;
    for (size_t j = 0; j < f->n; j++)
        mean_d += (double)f->d[j] / (double)f->n;
    /* lambda of codec/rate.c in units of the squared scale, half a step */
    const double price_unit = QINS_RATE_PRICE * 2.0 * log(2.0) / 3.0 * mean_d;
    row_steps s;
    qins_status status = new_steps(item, n_rows, &s, err);
    for (int trial = 0; trial < RATE_TRIALS && status == QINS_OK; trial++) {
        set_steps(&s, item, more, price_unit);
        for (size_t row = 0; row < n_rows; row++)
            r->scales[row] = qins_rate_scale(&r->book, w + row * f->n, f->n, 0, s.steps[s.kind[row]]);
        for (size_t row = 0; row < n_rows; row++)
            s.pull[row] = (float)qins_rate_pull(QINS_RATE_PRICE, s.steps[s.kind[row]]);
        qins_feedback_options o = feedback_options(item);
        if (qins_codec_is_trellis(r->book.codec)) {
            o.pull = s.pull;
        } else {
            o.price = s.price;
            o.price_of = s.kind;
        }
        status = qins_feedback_round(f, &r->book, &o, w, n_rows, r->scales, r->codes, NULL, err);
        double found = status == QINS_OK ? rate_by_classes(&s, r, n_rows, f->n) : 0;
        if (found < 0) status = qins_fail_memory(err, n_rows * sizeof(size_t), "classes of rows");
        if (fabs(s.rate - found) < 0.005) break;
        more += s.rate - found;
    }
    free_steps(&s);
    return status;
}

/* Table entry of a code. */
static float entry_of(const rounding *r, size_t n_cols, size_t row, size_t k) {
    unsigned code = r->codes[row * n_cols + k];
    if (!qins_codec_is_trellis(r->book.codec)) return r->book.table[code];
    size_t lane = row % QINS_PANEL_ROWS, panel = row - lane;
    return r->book.table[qins_trellis_place(code, r->codes[(panel + qins_ring_before(lane)) * n_cols + k],
                                            r->codes[(panel + qins_ring_before_that(lane)) * n_cols + k])];
}

/* w := what the codes say, and what that cost; errors: NULL, or becomes w minus that. */
static void replace_by_decoded(float *w, size_t n_rows, size_t n_cols, float *errors, rounding *r) {
    for (size_t row = 0; row < n_rows; row++)
        for (size_t k = 0; k < n_cols; k++) {
            size_t i = row * n_cols + k;
            float q = r->scales[row] * entry_of(r, n_cols, row, k);
            double e = (double)w[i] - (double)q;
            r->stats.sum_squares += (double)w[i] * (double)w[i];
            r->stats.sum_squared_error += e * e;
            r->stats.histogram[r->codes[i]]++;
            if (errors != NULL) errors[i] = (float)e;
            w[i] = q;
        }
}

static void pack(const qins_plan_item *item, size_t n_rows, size_t n_cols, rounding *r) {
    size_t panels = qins_n_panels(n_rows), panel_bytes = (size_t)item->parts[QINS_PART_CODES].n_bytes / panels;
#pragma omp parallel for schedule(static)
    for (size_t p = 0; p < panels; p++) {
        size_t first = p * QINS_PANEL_ROWS;
        size_t rows =
            qins_codec_is_trellis(r->book.codec) ? QINS_PANEL_ROWS : qins_min_size(QINS_PANEL_ROWS, n_rows - first);
        qins_pack_panel(r->codes + first * n_cols, n_cols, rows, n_cols, item->options.bits,
                        r->packed + p * panel_bytes);
    }
}

/* Rows of w that the item encodes, to (or back from) a matrix of their own. */
static void move_encoded_rows(const qins_plan_item *item, size_t n_cols, float *w, float *encoded, bool back) {
    for (size_t i = 0; i < item->split.n_pieces; i++) {
        const qins_row_piece *piece = &item->split.pieces[i];
        if (!piece->encoded) continue;
        float *rows = w + piece->begin * n_cols, *own = encoded + piece->at * n_cols;
        memcpy(back ? rows : own, back ? own : rows, (piece->end - piece->begin) * n_cols * sizeof *w);
    }
}

/* w := what r says; the losses of that, where they are wanted. */
static qins_status take_decoded(const qins_group *g, const qins_plan_item *item, float *w, rounding *r,
                                qins_losses *losses, qins_error *err) {
    size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
    if (losses == NULL || g->held_moments == NULL || g->n_held_tokens == 0) {
        replace_by_decoded(w, n_rows, n_cols, NULL, r);
        return QINS_OK;
    }
    float *errors = qins_alloc_aligned(n_rows * n_cols, sizeof *errors);
    if (errors == NULL) return qins_fail_memory(err, n_rows * n_cols * sizeof *errors, "errors of a matrix");
    replace_by_decoded(w, n_rows, n_cols, errors, r);
    qins_status status = qins_losses_of_errors(losses, item, errors, g->held_moments, g->n_held_tokens,
                                               &losses->found[item - losses->items], err);
    free(errors);
    return status;
}

/* w: the encoded rows, which become what their codes say. feedback NULL: to the nearest. */
static qins_status round_rows(const qins_group *g, const qins_plan_item *item, float *w, const qins_feedback *feedback,
                              qins_losses *losses, qins_rounded *rounded, qins_error *err) {
    size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
    rounding *r = NULL;
    qins_status status = new_rounding(item, &r, err);
    if (status == QINS_OK) status = fit_and_round(item, w, n_rows, feedback == NULL, r, err);
    if (status == QINS_OK && feedback != NULL)
        status = (item->options.rate > 0 ? round_to_rate : round_with_search)(item, w, n_rows, feedback, r, err);
    if (status == QINS_OK) status = take_decoded(g, item, w, r, losses, err);
    if (status == QINS_OK) {
        pack(item, n_rows, n_cols, r);
        const void *data[QINS_PART_COUNT] = {
            [QINS_PART_CODES] = r->packed, [QINS_PART_SCALES] = r->scales, [QINS_PART_TABLE] = r->book.table};
        status = qins_rounded_put(rounded, item->parameter->name, item->parts, data, &r->stats, err);
    }
    free_rounding(r);
    return status;
}

static qins_status round_matrix(const qins_group *g, const qins_group_matrix *m, const qins_feedback *feedback,
                                qins_losses *losses, qins_rounded *rounded, qins_error *err) {
    if (m->item->split.n_pieces == 0) return round_rows(g, m->item, m->w, feedback, losses, rounded, err);
    size_t n_cols = m->affine->weight.n_cols, n = m->item->split.n_encoded * n_cols;
    float *encoded = qins_alloc_aligned(n, sizeof *encoded);
    if (encoded == NULL) return qins_fail_memory(err, n * sizeof *encoded, "rows of a matrix");
    move_encoded_rows(m->item, n_cols, m->w, encoded, false);
    qins_status status = round_rows(g, m->item, encoded, feedback, losses, rounded, err);
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
