/* Rate against fidelity: compress, score, compare, for many codecs and widths. SPDX-License-Identifier: MIT */
#include "measure/sweep.h"
#include "model/rounded.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Columns of the heat map, in the order a token meets them. */
static const struct {
    qins_slot slot;
    const char *name;
} kinds[] = {
    {QINS_SLOT_QKV, "qkv"},
    {QINS_SLOT_Q, "q"},
    {QINS_SLOT_K, "k"},
    {QINS_SLOT_V, "v"},
    {QINS_SLOT_O, "o"},
    {QINS_SLOT_GATE_UP, "gate+up"},
    {QINS_SLOT_GATE, "gate"},
    {QINS_SLOT_UP, "up"},
    {QINS_SLOT_DOWN, "down"},
    {QINS_SLOT_SHARED_GATE, "sh. gate"},
    {QINS_SLOT_SHARED_UP, "sh. up"},
    {QINS_SLOT_SHARED_DOWN, "sh. down"},
    {QINS_SLOT_EXPERT_GATE, "gates"},
    {QINS_SLOT_EXPERT_UP, "ups"},
    {QINS_SLOT_EXPERT_DOWN, "downs"},
};

typedef struct sweeper {
    const qins_sweep_options *options;
    const char *path;
    qins_sweep *sweep;
    qins_model *model;     /* the reference, to score against */
    qins_weights *weights; /* the same, to compare with */
    size_t n_done;
} sweeper;

/* Steps of a point for the progress callback: compressing, then scoring. */
enum { STEPS = 1000, COMPRESS_STEPS = 200 };

static int report_point(const sweeper *s, const char *stage, uint64_t step) {
    return qins_report(s->options->progress, s->options->progress_user, stage, s->n_done * STEPS + step,
                       s->options->n_requests * STEPS);
}

static uint64_t share(uint64_t done, uint64_t total, uint64_t steps) {
    return total > 0 ? (uint64_t)((double)done / (double)total * (double)steps) : 0;
}

static int compress_progress(void *user, const char *stage, uint64_t done, uint64_t total) {
    (void)stage;
    return report_point(user, "sweep", share(done, total, COMPRESS_STEPS));
}

static int verify_progress(void *user, const char *stage, uint64_t done, uint64_t total) {
    (void)stage;
    return report_point(user, "sweep", COMPRESS_STEPS + share(done, total, STEPS - COMPRESS_STEPS));
}

static void find_kinds(sweeper *s) {
    qins_sweep *sweep = s->sweep;
    for (size_t i = 0; i < QINS_SLOT_COUNT; i++)
        sweep->kind_of[i] = -1;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t i = 0; i < s->weights->n_parameters; i++) {
            const qins_parameter *p = &s->weights->parameters[i];
            if (p->role != QINS_ROLE_LINEAR || p->slot != kinds[k].slot) continue;
            sweep->kind_of[p->slot] = (int)sweep->info.n_kinds;
            sweep->kinds[sweep->info.n_kinds++] = kinds[k].name;
            break;
        }
    sweep->info.kinds = sweep->kinds;
}

static qins_status compress_point(sweeper *s, const qins_sweep_request *request, qins_sweep_point *point,
                                  qins_error *err) {
    qins_compress_options options = request->compress;
    qins_compress_result result;
    options.force = false;
    options.no_check = s->options->no_check;
    options.progress = compress_progress;
    options.progress_user = s;
    qins_status status = qins_compress(s->path, s->options->work_path, &options, &result, err);
    if (status != QINS_OK) return status;
    point->bpw = result.bpw;
    point->codes_used = result.codes_used;
    point->code_entropy = result.code_entropy;
    return QINS_OK;
}

static qins_status score_point(sweeper *s, qins_sweep_point *point, qins_error *err) {
    const qins_sweep_options *o = s->options;
    const qins_verify_options options = {.text = o->text,
                                         .text_bytes = o->text_bytes,
                                         .ctx = o->ctx,
                                         .max_tokens = o->max_tokens,
                                         .no_strategies = true,
                                         .progress = verify_progress,
                                         .progress_user = s};
    qins_model *model = NULL;
    qins_verify_result r = {0};
    qins_status status = qins_model_open(o->work_path, NULL, &model, err);
    if (status == QINS_OK) status = qins_verify(s->model, model, &options, &r, err);
    if (status == QINS_OK) {
        point->kl_mean = r.kl_mean;
        point->kl_p99 = r.kl_p99;
        point->top1 = r.top1;
        point->top10_overlap = r.top10_overlap;
        point->ppl = r.ppl;
        point->ppl_delta_pct = r.ppl_delta_pct;
        s->sweep->info.n_tokens = r.n_tokens;
        s->sweep->info.ppl_ref = r.ppl_ref;
        qins_verify_result_free(&r);
    }
    qins_model_close(model);
    return status;
}

static qins_status compare_point(sweeper *s, qins_sweep_point *point, qins_error *err) {
    qins_weights *weights = NULL;
    qins_status status = qins_weights_open(s->options->work_path, true, &weights, err);
    if (status == QINS_OK) status = qins_sweep_compare(s->sweep, s->weights, weights, point, err);
    qins_weights_close(weights);
    point->gap_bits = point->rel_mse > 0 ? point->file_bpw + log2(point->rel_mse) / 2 : NAN;
    return status;
}

static qins_status run_point(sweeper *s, const qins_sweep_request *request, qins_sweep_point *point, qins_error *err) {
    qins_status status = compress_point(s, request, point, err);
    if (status != QINS_OK) {
        qins_rounded_remove(s->options->work_path);
        return status;
    }
    status = score_point(s, point, err);
    if (status == QINS_OK) status = compare_point(s, point, err);
    qins_remove_flat_dir(s->options->work_path);
    return status;
}

static qins_status run_all(sweeper *s, qins_error *err) {
    const qins_sweep_options *o = s->options;
    qins_sweep *sweep = s->sweep;
    sweep->points = qins_alloc(o->n_requests, sizeof *sweep->points);
    if (sweep->points == NULL) return qins_fail_memory(err, o->n_requests * sizeof *sweep->points, "points");
    for (; s->n_done < o->n_requests; s->n_done++) {
        const qins_sweep_request *request = &o->requests[s->n_done];
        qins_sweep_point *point = &sweep->points[s->n_done];
        sweep->info.n_points = s->n_done + 1;
        point->bits = request->compress.linear.bits;
        point->codec = qins_codec_name(request->compress.linear.codec);
        point->series = qins_strdup(request->series);
        if (point->series == NULL) return qins_fail_memory(err, strlen(request->series) + 1, "name of a series");
        qins_status status = run_point(s, request, point, err);
        if (status == QINS_ERR_CANCELLED) return status;
        if (status != QINS_OK) return qins_prefix(err, status, "%s, %d bits", request->series, point->bits);
    }
    return QINS_OK;
}

qins_status qins_sweep_run(const char *path, const qins_sweep_options *options, qins_sweep **out, qins_error *err) {
    const qins_model_options model_options = {.no_check = options->no_check};
    sweeper s = {.options = options, .path = path};
    *out = NULL;
    if (options->n_requests == 0 || options->work_path == NULL)
        return qins_fail(err, QINS_ERR_ARGUMENT, "a sweep needs at least one request and a work_path");
    s.sweep = qins_alloc(1, sizeof *s.sweep);
    qins_status status = s.sweep == NULL ? qins_fail_memory(err, sizeof *s.sweep, "sweep") : QINS_OK;
    if (status == QINS_OK) status = qins_model_open(path, &model_options, &s.model, err);
    if (status == QINS_OK) status = qins_weights_open(path, true, &s.weights, err);
    if (status == QINS_OK) {
        qins_model_info info;
        qins_model_get_info(s.model, &info);
        s.sweep->info.n_layers = info.n_layers;
        find_kinds(&s);
        status = run_all(&s, err);
    }
    qins_weights_close(s.weights);
    qins_model_close(s.model);
    if (status == QINS_OK)
        *out = s.sweep;
    else
        qins_sweep_free(s.sweep);
    return status;
}

void qins_sweep_free(qins_sweep *sweep) {
    if (sweep == NULL) return;
    for (size_t i = 0; i < sweep->info.n_points; i++) {
        free((char *)sweep->points[i].series);
        free((uint64_t *)sweep->points[i].histogram);
        free((double *)sweep->points[i].layer_errors);
    }
    free(sweep->points);
    free(sweep);
}

const qins_sweep_info *qins_sweep_get_info(const qins_sweep *sweep) {
    return &sweep->info;
}

const qins_sweep_point *qins_sweep_get(const qins_sweep *sweep, size_t i) {
    return i < sweep->info.n_points ? &sweep->points[i] : NULL;
}
