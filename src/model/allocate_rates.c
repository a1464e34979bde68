/* Rates of rows for a file of a wanted size. SPDX-License-Identifier: MIT */
#include "model/allocate.h"

#include <stdlib.h>

/* Steps are kept on a grid of eight to an octave, which costs 0.001 bit. */
enum { GRID = 8, MOST_RATE = 8 };
/* Share of a bit, on average over the rows of a matrix, that its width may take from rows that want more. */
static const double WIDTH_LOSS = 0.02;

static bool takes_part(const qins_plan_item *item) {
    return item->encode && !item->keep && item->parameter->role == QINS_ROLE_LINEAR && item->options.rate > 0;
}

/* Most bits a code that levels of a width reach four standard deviations at. */
static double rate_at_width(qins_codec codec, int bits, double sparsity) {
    double length[QINS_MAX_LEVELS];
    return qins_rate_of_least_step(codec, bits, sparsity, length);
}

/* What rows cost on average in a matrix counts in full; how a row differs from it in this power: it is measured on few
 * tokens. */
static const double ROW_SHARE = 0.7;
/* Bits below the average that a row may go: with coarser steps errors are no longer small, and cost more than the
 * gradients at the unrounded model say. */
static const double DEEPEST = 1.0;

typedef struct water {
    double level; /* rate of a row whose weights cost 1 */
    double least;
} water;

/* loss: KL that a weight of the row costs at a relative squared error of 1, mean: one of the matrix. Half a bit for
 * twice the loss. */
static double row_rate(double loss, double mean, const water *w) {
    double rate = loss > 0 && mean > 0 ? 0.5 * (log2(mean) + ROW_SHARE * log2(loss / mean)) + w->level : w->least;
    return fmin(fmax(rate, w->least), MOST_RATE);
}

static double mean_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    return sum / (double)n;
}

/* Rates of an item's rows; rates may be NULL. Their average. */
static double item_rates(const qins_plan_item *item, const float *losses, const water *w, float *rates) {
    size_t n_rows = qins_plan_encoded_rows(item);
    double n_cols = (double)item->parameter->shape[1], mean = mean_of(losses, n_rows) / n_cols, sum = 0;
    for (size_t r = 0; r < n_rows; r++) {
        double rate = row_rate((double)losses[r] / n_cols, mean, w);
        if (rates != NULL) rates[r] = (float)(round(GRID * rate) / GRID);
        sum += rate;
    }
    return sum / (double)n_rows;
}

static double mean_rate(const qins_plan *plan, const float *const *losses, const water *w) {
    double bits = 0, values = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        if (!takes_part(item)) continue;
        double n = (double)item->parameter->shape[1] * (double)qins_plan_encoded_rows(item);
        bits += n * item_rates(item, losses[i], w, NULL);
        values += n;
    }
    return values > 0 ? bits / values : 0;
}

/* The narrowest table that takes no more than WIDTH_LOSS from the rows of an item. */
static int width_for(const float *rates, size_t n_rows, const double most[QINS_MAX_BITS + 1]) {
    int bits = QINS_MIN_BITS;
    for (; bits < 8; bits++) {
        double lost = 0;
        for (size_t r = 0; r < n_rows; r++)
            lost += fmax((double)rates[r] - most[bits], 0) / (double)n_rows;
        if (lost <= WIDTH_LOSS) break;
    }
    return bits;
}

qins_status qins_allocate_rates(const float *const *losses, qins_plan *plan, qins_error *err) {
    qins_codec codec = QINS_CODEC_UNIFORM;
    double wanted = 0, sparsity = 0, low = -64, high = 128, most[QINS_MAX_BITS + 1];
    for (size_t i = 0; i < plan->n_items; i++) {
        if (!takes_part(&plan->items[i])) continue;
        wanted = plan->items[i].options.rate; /* the same for all, all three */
        codec = plan->items[i].wanted;
        sparsity = plan->items[i].options.sparsity;
    }
    if (wanted <= 0) return QINS_OK;
    water w = {.least = fmax(wanted - DEEPEST, 1)};
    for (int bits = QINS_MIN_BITS; bits <= 8; bits++)
        most[bits] = rate_at_width(codec, bits, sparsity);
    for (int i = 0; i < 60; i++) {
        w.level = 0.5 * (low + high);
        *(mean_rate(plan, losses, &w) > wanted ? &high : &low) = w.level;
    }
    for (size_t i = 0; i < plan->n_items; i++) {
        qins_plan_item *item = &plan->items[i];
        if (!takes_part(item)) continue;
        size_t n_rows = qins_plan_encoded_rows(item);
        item->row_rates = qins_alloc(n_rows, sizeof *item->row_rates);
        if (item->row_rates == NULL) return qins_fail_memory(err, n_rows * sizeof *item->row_rates, "rates of rows");
        item_rates(item, losses[i], &w, item->row_rates);
        int bits = width_for(item->row_rates, n_rows, most);
        for (size_t r = 0; r < n_rows; r++)
            item->row_rates[r] = fminf(item->row_rates[r], (float)most[bits]);
        item->options.rate = mean_of(item->row_rates, n_rows);
        qins_status status = qins_plan_set_bits(item, bits, err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}
