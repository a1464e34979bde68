/* SPDX-License-Identifier: MIT */
#include "model/calibrate_round.h"

#include "codec/entropy.h"

#include <stdlib.h>
#include <string.h>

void qins_rounding_free(qins_rounding *r) {
    if (r == NULL) return;
    free(r->codes);
    free(r->scales);
    free(r->packed);
    free(r);
}

static qins_status new_rounding(const qins_plan_item *item, qins_rounding **out, qins_error *err) {
    size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
    qins_rounding *r = *out = qins_alloc(1, sizeof *r);
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
static void fit_scales(const qins_plan_item *item, const float *w, size_t n_rows, size_t n_cols, qins_rounding *r) {
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
static void round_to_nearest(const float *w, size_t n_rows, size_t n_cols, qins_rounding *r) {
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
static qins_status fit_and_round(const qins_plan_item *item, const float *w, size_t n_rows, bool round,
                                 qins_rounding *r, qins_error *err) {
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
                                     qins_rounding *r, qins_error *err) {
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
    const double least = 0.5, price = qins_codec_is_trellis(o->codec) ? QINS_TRELLIS_PRICE : QINS_RATE_PRICE;
    for (size_t k = 0; k < RATE_KINDS; k++) {
        if (!s->used[k]) continue;
        double rate = (item->row_rates != NULL ? (double)k / RATE_GRID : s->rate) + more;
        s->steps[k] = qins_rate_step(o->codec, o->bits, fmax(rate, least), price, o->sparsity, length);
        for (size_t c = 0; c < s->n_codes; c++)
            s->price[k * s->n_codes + c] = (float)(price_unit * length[c]);
    }
}

/* Bits a code that the coder will need, with tables for classes of rows. */
static double rate_by_classes(row_steps *s, const qins_rounding *r, size_t n_rows, size_t n_cols) {
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
                                 qins_rounding *r, qins_error *err) {
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
            s.pull[row] = (float)qins_rate_pull(QINS_TRELLIS_PRICE, s.steps[s.kind[row]]);
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
static float entry_of(const qins_rounding *r, size_t n_cols, size_t row, size_t k) {
    unsigned code = r->codes[row * n_cols + k];
    if (!qins_codec_is_trellis(r->book.codec)) return r->book.table[code];
    size_t lane = row % QINS_PANEL_ROWS, panel = row - lane;
    return r->book.table[qins_trellis_place(code, r->codes[(panel + qins_ring_before(lane)) * n_cols + k],
                                            r->codes[(panel + qins_ring_before_that(lane)) * n_cols + k])];
}

/* w := what the codes say, and what that cost; errors: NULL, or becomes w minus that. */
static void replace_by_decoded(float *w, size_t n_rows, size_t n_cols, float *errors, qins_rounding *r) {
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

static void pack(const qins_plan_item *item, size_t n_rows, size_t n_cols, qins_rounding *r) {
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

/* w := what r says; the losses of that, where they are wanted. */
static qins_status take_decoded(const qins_plan_item *item, float *w, const qins_held_inputs *held, qins_rounding *r,
                                qins_losses *losses, qins_error *err) {
    size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
    if (losses == NULL || held->moments == NULL || held->n == 0) {
        replace_by_decoded(w, n_rows, n_cols, NULL, r);
        return QINS_OK;
    }
    float *errors = qins_alloc_aligned(n_rows * n_cols, sizeof *errors);
    if (errors == NULL) return qins_fail_memory(err, n_rows * n_cols * sizeof *errors, "errors of a matrix");
    replace_by_decoded(w, n_rows, n_cols, errors, r);
    qins_status status =
        qins_losses_of_errors(losses, item, errors, held->moments, held->n, &losses->found[item - losses->items], err);
    free(errors);
    return status;
}

qins_status qins_round_rows(const qins_plan_item *item, float *w, const qins_feedback *feedback,
                            const qins_held_inputs *held, qins_losses *losses, qins_rounded *rounded,
                            qins_rounding **out, qins_error *err) {
    size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
    qins_status status = new_rounding(item, out, err);
    qins_rounding *r = *out;
    if (status == QINS_OK) status = fit_and_round(item, w, n_rows, feedback == NULL, r, err);
    if (status == QINS_OK && feedback != NULL)
        status = (item->options.rate > 0 ? round_to_rate : round_with_search)(item, w, n_rows, feedback, r, err);
    if (status == QINS_OK) status = take_decoded(item, w, held, r, losses, err);
    if (status == QINS_OK) {
        pack(item, n_rows, n_cols, r);
        const void *data[QINS_PART_COUNT] = {
            [QINS_PART_CODES] = r->packed, [QINS_PART_SCALES] = r->scales, [QINS_PART_TABLE] = r->book.table};
        status = qins_rounded_put(rounded, item->parameter->name, item->parts, data, &r->stats, err);
    }
    return status;
}
