/* SPDX-License-Identifier: MIT */
#include "model/allocate.h"

#include <stdlib.h>

enum { TABLE_BYTES = 2560 }; /* of the shared tables of all widths, at most: 4 to 256 levels as FP32 */

double qins_relative_error(qins_codec codec, int bits) {
    enum { SAMPLES = 4096 };
    double levels[QINS_MAX_LEVELS];
    if (bits == QINS_PLAIN_BITS) return ldexp(1, -20); /* BF16 at worst: a cell of up to 2^-8 of the weight */
    if (codec == QINS_CODEC_TRELLIS) return qins_trellis_error(bits);
    if (codec == QINS_CODEC_GAUSS) return qins_lloyd_max_gauss((size_t)1 << bits, levels);
    /* N(0,1) as its quantiles. */
    qins_codebook *book = qins_alloc(1, sizeof *book);
    float *x = qins_alloc(SAMPLES, sizeof *x);
    double error = 1, square = 0;
    if (book != NULL && x != NULL) {
        qins_fixed_codebook(book, codec, bits);
        for (size_t i = 0; i < SAMPLES; i++) {
            x[i] = (float)qins_normal_quantile(((double)i + 0.5) / SAMPLES);
            square += (double)x[i] * (double)x[i];
        }
        error = qins_squared_error(book, x, SAMPLES, qins_fit_scale(book, x, SAMPLES, true)) / square;
    }
    free(book);
    free(x);
    return error;
}

typedef struct errors {
    double of[QINS_CODEC_COUNT][QINS_PLAIN_BITS + 1]; /* by codec and bits; 0 = not computed yet */
} errors;

static double error_of(errors *e, const qins_plan_item *item, int bits) {
    qins_codec codec = qins_plan_codec(item, bits);
    double *value = &e->of[codec][bits];
    if (*value == 0) *value = qins_relative_error(codec, bits);
    return *value;
}

double qins_predict_kl(const qins_plan *plan, const double *kl) {
    errors e = {{{0}}};
    double sum = 0;
    for (size_t i = 0; i < plan->n_items; i++)
        if (kl[i] > 0) sum += kl[i] * error_of(&e, &plan->items[i], plan->items[i].options.bits);
    return sum;
}

/* Embedding and head do unless their width is given. */
static bool takes_part(const qins_compress_options *o, const qins_plan_item *item) {
    return (item->encode || qins_plan_is_wide(item)) && !item->keep &&
           (item->parameter->role == QINS_ROLE_LINEAR || o->embed_bits == QINS_EMBED_AUTO);
}

/* Bytes that an item takes at a width. */
static uint64_t bytes_at(const qins_plan_item *item, int bits) {
    qins_plan_item copy = *item;
    return qins_plan_set_bits(&copy, bits, NULL) == QINS_OK ? qins_plan_encoded_bytes(&copy) : UINT64_MAX / 4;
}

typedef struct goal {
    double bits, values; /* bpw: what may be spent */
    uint64_t max_bytes;
    double max_kl;
} goal;

typedef struct spending {
    uint64_t bytes; /* of items that take part */
    double kl;
} spending;

static bool affordable(const goal *g, uint64_t bytes) {
    return g->max_bytes > 0 ? bytes <= g->max_bytes : 8.0 * (double)bytes <= g->bits;
}

/* The item for which the next width saves most KL a byte and is affordable; n_items when there is none. */
static size_t best_upgrade(const qins_compress_options *o, const qins_plan *plan, const double *kl, const goal *g,
                           const spending *now, errors *e, uint64_t *more_bytes, double *less_kl) {
    size_t best = plan->n_items;
    double best_rate = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        int bits = item->options.bits, wider = qins_plan_wider(item);
        if (!(kl[i] > 0) || wider == 0 || !takes_part(o, item)) continue;
        uint64_t more = bytes_at(item, wider) - bytes_at(item, bits);
        double less = kl[i] * (error_of(e, item, bits) - error_of(e, item, wider)), rate = less / (double)more;
        if (rate <= best_rate || (g->max_kl <= 0 && !affordable(g, now->bytes + more))) continue;
        best = i;
        best_rate = rate;
        *more_bytes = more;
        *less_kl = less;
    }
    return best;
}

/* The last upgrade may have been a large matrix's and have left room: the item whose last bit takes most bytes and can
 * go. */
static size_t best_downgrade(const qins_compress_options *o, const qins_plan *plan, const double *kl, const goal *g,
                             const spending *now, errors *e, spending *change) {
    size_t best = plan->n_items;
    *change = (spending){0};
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        int bits = item->options.bits, narrower = qins_plan_narrower(item);
        if (!takes_part(o, item) || narrower == 0) continue;
        uint64_t bytes = bytes_at(item, bits) - bytes_at(item, narrower);
        double more = kl[i] * (error_of(e, item, narrower) - error_of(e, item, bits));
        if (now->kl + more > g->max_kl || bytes <= change->bytes) continue;
        *change = (spending){bytes, more};
        best = i;
    }
    return best;
}

static qins_status fail_goal(const goal *g, const spending *s, const char *what, qins_error *err) {
    if (g->max_kl > 0)
        return qins_fail(err, QINS_ERR_ARGUMENT, "max-kl is less than %s reaches: about %.2g is predicted", what,
                         s->kl);
    if (g->max_bytes > 0)
        return qins_fail(err, QINS_ERR_ARGUMENT, "the size leaves %llu bytes for codes: %s takes %llu",
                         (unsigned long long)g->max_bytes, what, (unsigned long long)s->bytes);
    return qins_fail(err, QINS_ERR_ARGUMENT, "bpw %.3f is less than %s takes (%.3f)", g->bits / g->values, what,
                     8.0 * (double)s->bytes / g->values);
}

qins_status qins_allocate(const qins_compress_options *o, const double *kl, uint64_t fixed_bytes, qins_plan *plan,
                          double *predicted_kl, qins_error *err) {
    errors e = {{{0}}};
    spending now = {0}; /* KL: of everything that is encoded */
    goal g = {.max_kl = o->max_kl};
    double others = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        qins_plan_item *item = &plan->items[i];
        if (!item->encode) continue;
        if (!takes_part(o, item)) {
            others += 8.0 * (double)qins_plan_encoded_bytes(item);
            now.kl += kl[i] > 0 ? kl[i] * error_of(&e, item, item->options.bits) : 0;
            continue;
        }
        qins_status status = qins_plan_set_bits(item, qins_plan_min_bits(item), err);
        if (status != QINS_OK) return status;
        now.bytes += qins_plan_encoded_bytes(item);
        now.kl += kl[i] * error_of(&e, item, qins_plan_min_bits(item));
        g.values += (double)qins_plan_encoded_rows(item) * (double)item->parameter->shape[1];
    }
    g.bits = o->bpw * g.values - 8.0 * TABLE_BYTES;
    if (o->max_bytes > 0) {
        uint64_t fixed = fixed_bytes + (uint64_t)(others / 8);
        g.max_bytes = o->max_bytes > fixed ? o->max_bytes - fixed : 1;
    }
    if (g.max_kl <= 0 && !affordable(&g, now.bytes)) return fail_goal(&g, &now, "the smallest width", err);
    while (g.max_kl <= 0 || now.kl > g.max_kl) {
        uint64_t more = 0;
        double less = 0;
        size_t i = best_upgrade(o, plan, kl, &g, &now, &e, &more, &less);
        if (i == plan->n_items) break;
        qins_status status = qins_plan_set_bits(&plan->items[i], qins_plan_wider(&plan->items[i]), err);
        if (status != QINS_OK) return status;
        now.bytes += more;
        now.kl -= less;
    }
    if (g.max_kl > 0 && now.kl > g.max_kl) return fail_goal(&g, &now, "the largest width", err);
    while (g.max_kl > 0) {
        spending change;
        size_t i = best_downgrade(o, plan, kl, &g, &now, &e, &change);
        if (i == plan->n_items) break;
        qins_status status = qins_plan_set_bits(&plan->items[i], qins_plan_narrower(&plan->items[i]), err);
        if (status != QINS_OK) return status;
        now.bytes -= change.bytes;
        now.kl += change.kl;
    }
    *predicted_kl = qins_predict_kl(plan, kl);
    return QINS_OK;
}
