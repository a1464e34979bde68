/* SPDX-License-Identifier: MIT */
#include "model/compress_plan.h"

#include "model/coded.h"

#include "model/targets.h"

#include <stdlib.h>
#include <string.h>

size_t qins_plan_encoded_rows(const qins_plan_item *item) {
    if (!item->encode) return 0;
    return item->split.n_pieces > 0 ? item->split.n_encoded : (size_t)item->parameter->shape[0];
}

uint64_t qins_plan_plain_bytes(const qins_plan_item *item) {
    const qins_type_info *type = &qins_types[item->type];
    uint64_t n_values = item->parameter->n_values;
    if (item->encode) n_values = item->split.n_plain * item->parameter->shape[1];
    return n_values / type->block_values * type->block_bytes;
}

const char *qins_plan_source_dtype(const qins_parameter *p) {
    return p->plain != NULL ? qins_types[p->plain->type].name : p->encoded->source_dtype;
}

static bool has_shared_table(const qins_encoded_tensor *t) {
    return t->parts[QINS_PART_TABLE] != NULL && qins_codec_has_fixed_table(t->options.codec);
}

uint64_t qins_plan_source_bytes(const qins_parameter *p) {
    if (p->plain != NULL) return p->plain->n_bytes;
    uint64_t n = 0;
    for (int i = 0; i < QINS_PART_COUNT; i++)
        if (p->encoded->parts[i] != NULL && !(i == QINS_PART_TABLE && has_shared_table(p->encoded)))
            n += p->encoded->parts[i]->n_bytes;
    if (p->encoded->rest != NULL) n += p->encoded->rest->n_bytes;
    return n;
}

uint64_t qins_plan_shared_source_bytes(const qins_plan *plan) {
    bool counted[QINS_CODEC_COUNT][QINS_MAX_BITS + 1] = {{false}};
    uint64_t n = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_encoded_tensor *t = plan->items[i].parameter->encoded;
        if (t == NULL || !has_shared_table(t) || counted[t->options.codec][t->options.bits]) continue;
        counted[t->options.codec][t->options.bits] = true;
        n += t->parts[QINS_PART_TABLE]->n_bytes;
    }
    return n;
}

uint64_t qins_plan_encoded_bytes(const qins_plan_item *item) {
    uint64_t n = 0;
    if (qins_plan_is_wide(item)) return qins_plan_plain_bytes(item);
    for (int p = 0; p < QINS_PART_COUNT; p++)
        n += item->parts[p].shared ? 0 : item->parts[p].n_bytes;
    return n;
}

qins_codec qins_plan_codec(const qins_plan_item *item, int bits) {
    return qins_codec_at_width(item->wanted, bits);
}

int qins_plan_min_bits(const qins_plan_item *item) {
    return qins_codec_min_bits(item->wanted);
}

int qins_plan_wider(const qins_plan_item *item) {
    int bits = item->options.bits;
    if (bits < QINS_WIDEST_CODE) return bits + 1;
    bool can_be_plain = item->parameter->role == QINS_ROLE_LINEAR && item->split.n_pieces == 0;
    return bits < QINS_PLAIN_BITS && can_be_plain ? QINS_PLAIN_BITS : 0;
}

int qins_plan_narrower(const qins_plan_item *item) {
    if (item->options.bits == QINS_PLAIN_BITS) return QINS_WIDEST_CODE;
    return item->options.bits > qins_plan_min_bits(item) ? item->options.bits - 1 : 0;
}

static bool is_plain_number(qins_type type) {
    return qins_types[type].block_values == 1;
}

/* What plain values, if any, are written as. */
static void plan_plain(qins_plan_item *item) {
    const qins_parameter *p = item->parameter;
    item->type = p->plain != NULL && is_plain_number(p->plain->type) ? p->plain->type : QINS_TYPE_F32;
    item->convert = p->plain == NULL || p->plain->type != item->type || !qins_tensor_is_verbatim(p->plain) ||
                    p->conv1d != p->transposed;
}

qins_status qins_plan_set_bits(qins_plan_item *item, int bits, qins_error *err) {
    item->encode = bits != QINS_PLAIN_BITS;
    item->options.bits = bits;
    if (!item->encode) {
        plan_plain(item);
        item->convert = item->convert || item->type == QINS_TYPE_F32;
        if (item->type == QINS_TYPE_F32) item->type = QINS_TYPE_BF16;
        return QINS_OK;
    }
    item->options.codec = qins_plan_codec(item, bits);
    return qins_encode_parts(qins_plan_encoded_rows(item), (size_t)item->parameter->shape[1], &item->options,
                             item->parts, err);
}

/* An encoded matrix that is not to be encoded anew. */
static qins_status plan_kept(qins_plan_item *item, qins_error *err) {
    const qins_encoded_tensor *t = item->parameter->encoded;
    item->encode = item->keep = true;
    item->options = t->options;
    item->wanted = t->options.codec;
    qins_status status = qins_encode_parts(t->n_rows, t->n_cols, &item->options, item->parts, err);
    if (status != QINS_OK || t->rest == NULL) return status;
    item->type = t->rest->type;
    item->split = t->split;
    item->split.pieces = qins_alloc(t->split.n_pieces, sizeof *item->split.pieces);
    if (item->split.pieces == NULL) return qins_fail_memory(err, t->split.n_pieces, "ranges of rows");
    memcpy(item->split.pieces, t->split.pieces, t->split.n_pieces * sizeof *t->split.pieces);
    return QINS_OK;
}

static qins_status plan_parameter(const qins_compress_options *o, const qins_hparams *h, const qins_targets *targets,
                                  const qins_parameter *p, qins_plan_item *item, qins_error *err) {
    *item = (qins_plan_item){.parameter = p, .options = o->linear, .plain_index = -1};
    for (int i = 0; i < QINS_PART_COUNT; i++)
        item->index[i] = -1;
    bool table = p->role == QINS_ROLE_EMBEDDING || p->role == QINS_ROLE_HEAD;
    bool codec = o->linear.codec != QINS_CODEC_NONE && p->n_dims == 2;
    qins_selection selection = codec && table && o->embed_bits != 0 ? QINS_SELECT_ALL : QINS_SELECT_NONE;
    qins_status status = QINS_OK;
    plan_plain(item);
    if (codec && p->role == QINS_ROLE_LINEAR)
        status = qins_targets_select(targets, h, p, &selection, &item->split, err);
    if (status != QINS_OK) return status;
    if (selection == QINS_SELECT_NONE) return p->encoded != NULL ? plan_kept(item, err) : QINS_OK;
    if (table) {
        item->options.bits = o->embed_bits == QINS_EMBED_AUTO ? QINS_DEFAULT_EMBED_BITS : o->embed_bits;
        item->options.rate = item->options.sparsity = 0;
        if (qins_codec_is_uniform(item->options.codec)) item->options.codec = QINS_CODEC_UNIFORM;
        item->options.storage = QINS_STORAGE_PACKED;
    }
    item->encode = true;
    item->wanted = item->options.codec;
    status = qins_encode_resolve(&item->options, err);
    if (!qins_codec_is_trellis(item->wanted)) item->wanted = item->options.codec; /* uniform has become sparse */
    if (status == QINS_OK) status = qins_plan_set_bits(item, item->options.bits, err);
    return status == QINS_OK ? QINS_OK : qins_prefix(err, status, "tensor %s", p->name);
}

static qins_status plan_parameters(const qins_compress_options *o, const qins_weights *w, qins_plan *plan,
                                   qins_error *err) {
    qins_targets *targets = NULL;
    qins_status status = qins_targets_new(o->targets, &targets, err);
    plan->items = qins_alloc(w->n_parameters, sizeof *plan->items);
    if (status == QINS_OK && plan->items == NULL)
        status = qins_fail_memory(err, w->n_parameters * sizeof *plan->items, "a plan");
    for (size_t i = 0; i < w->n_parameters && status == QINS_OK; i++) {
        const qins_parameter *p = &w->parameters[i];
        if (p->role == QINS_ROLE_HEAD && w->hparams.tied_head) continue; /* a second copy of the embedding */
        status = plan_parameter(o, &w->hparams, targets, p, &plan->items[plan->n_items++], err);
    }
    qins_targets_free(targets);
    if (status != QINS_OK) return status;
    size_t linears = 0;
    const char *example = "?";
    for (size_t i = 0; i < plan->n_items; i++) {
        if (plan->items[i].parameter->role != QINS_ROLE_LINEAR) continue;
        linears += plan->items[i].encode && !plan->items[i].keep;
        example = plan->items[i].parameter->name;
    }
    if (linears == 0 && o->linear.codec != QINS_CODEC_NONE)
        return qins_fail(err, QINS_ERR_ARGUMENT, "targets \"%s\" match no linear of %s (they have names such as %s)",
                         o->targets != NULL ? o->targets : "all", w->checkpoint->path, example);
    return QINS_OK;
}

/* Bits a weight of all encoded linears, scales and tables included, at a width. */
static double bpw_at(const qins_plan *plan, int bits) {
    double stored = 0, values = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        if (!item->encode || item->keep || item->parameter->role != QINS_ROLE_LINEAR) continue;
        size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
        qins_encode_options options = item->options;
        options.bits = bits;
        qins_part_info parts[QINS_PART_COUNT];
        if (qins_encode_parts(n_rows, n_cols, &options, parts, NULL) != QINS_OK) continue;
        for (int p = 0; p < QINS_PART_COUNT; p++)
            stored += parts[p].shared ? 0 : (double)parts[p].n_bytes;
        values += (double)n_rows * (double)n_cols;
    }
    return 8.0 * stored / values;
}

static qins_status choose_bits(const qins_compress_options *o, qins_plan *plan, qins_error *err) {
    double bpw = o->bpw;
    if (bpw <= 0 || o->linear.codec == QINS_CODEC_NONE || o->calibrate != NULL) return QINS_OK;
    int bits = 8, least = qins_codec_min_bits(o->linear.codec);
    while (bits >= least && bpw_at(plan, bits) > bpw)
        bits--;
    if (bits < least)
        return qins_fail(err, QINS_ERR_ARGUMENT, "bpw %.3f is less than the smallest width takes (%.3f)", bpw,
                         bpw_at(plan, least));
    for (size_t i = 0; i < plan->n_items; i++) {
        qins_plan_item *item = &plan->items[i];
        if (!item->encode || item->keep || item->parameter->role != QINS_ROLE_LINEAR) continue;
        qins_status status = qins_plan_set_bits(item, bits, err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

/* Codes of equal steps whose linears take file_bpw bits a weight once they are entropy-coded, scales included. */
static qins_status choose_rate(const qins_compress_options *o, qins_plan *plan, qins_error *err) {
    /* What Huffman codes and chunks take beyond the entropy, measured at 3 to 5 bits (docs/entropy.md): more with rates
     * by row, which take wider codes, coded one by one. */
    const double coder_bits = o->calibrate != NULL ? 0.05 : 0.02;
    const double coded_scale_bits = 6; /* of their few digits and the rows' classes, measured there too */
    double scales = 0, values = 0;
    if (o->file_bpw <= 0) return QINS_OK;
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        if (!item->encode || item->parameter->role != QINS_ROLE_LINEAR) continue;
        double scale_bytes = (double)item->parts[QINS_PART_SCALES].n_bytes;
        scales += scale_bytes < QINS_MIN_CODED_BYTES ? 8 * scale_bytes : coded_scale_bits * scale_bytes / sizeof(float);
        values += (double)item->parameter->n_values;
    }
    double rate = o->file_bpw - (values > 0 ? scales / values : 0) - coder_bits;
    if (!(rate >= 1) || rate > 7)
        return qins_fail(err, QINS_ERR_ARGUMENT, "file-bpw: expected 1.1 to 7, not %g", o->file_bpw);
    int bits = qins_rate_width(o->linear.codec, rate, QINS_RATE_PRICE, o->linear.sparsity);
    for (size_t i = 0; i < plan->n_items; i++) {
        qins_plan_item *item = &plan->items[i];
        if (!item->encode || item->parameter->role != QINS_ROLE_LINEAR) continue;
        item->options.rate = rate;
        qins_status status = qins_plan_set_bits(item, bits, err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

qins_status qins_plan_make(const qins_compress_options *o, const qins_weights *weights, qins_plan *plan,
                           qins_error *err) {
    qins_status status = plan_parameters(o, weights, plan, err);
    if (status == QINS_OK) status = choose_bits(o, plan, err);
    return status == QINS_OK ? choose_rate(o, plan, err) : status;
}

void qins_plan_free(qins_plan *plan) {
    for (size_t i = 0; i < plan->n_items; i++) {
        qins_row_split_free(&plan->items[i].split);
        free(plan->items[i].row_rates);
    }
    free(plan->items);
    *plan = (qins_plan){0};
}
