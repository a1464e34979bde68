/* What compress asks for: text, widths, a folder to go on from, and the rounding. SPDX-License-Identifier: MIT */
#include "model/allocate.h"
#include "model/calibrate.h"
#include "model/kv_transform.h"
#include "model/sensitivity.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

/* Sequences that sensitivities are measured on: 4,096 tokens. */
enum { SENSITIVITY_SEQUENCES = 8 };

static bool writes_itself(const qins_compress_options *o) {
    return strcmp(o->calibrate, "self") == 0;
}

/* Everything that the rounded matrices depend on. text: without ids when the model writes it. */
static void make_key(const qins_model *model, const qins_plan *plan, const qins_compress_options *o,
                     const qins_calibration_text *text, XXH3_state_t *hash, char key[QINS_ROUNDED_KEY]) {
    const qins_checkpoint *c = model->weights->checkpoint;
    XXH3_128bits_reset(hash);
    XXH3_128bits_update(hash, QINS_VERSION_STRING, sizeof QINS_VERSION_STRING);
    for (size_t i = 0; i < c->n_files; i++) {
        struct stat st = {0};
        stat(c->files[i].path, &st);
        const int64_t about[] = {(int64_t)st.st_size, (int64_t)st.st_mtim.tv_sec, (int64_t)st.st_mtim.tv_nsec,
                                 (int64_t)st.st_ino};
        XXH3_128bits_update(hash, about, sizeof about);
    }
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        const int64_t about[] = {item->encode,         item->options.codec,
                                 item->options.bits,   item->options.storage,
                                 item->options.rotate, (int64_t)item->options.rotation_seed,
                                 item->options.scale,  (int64_t)(item->options.rate * 1e6)};
        for (size_t k = 0; k < item->split.n_pieces; k++) {
            const int64_t rows[] = {(int64_t)item->split.pieces[k].begin, item->split.pieces[k].encoded};
            XXH3_128bits_update(hash, rows, sizeof rows);
        }
        XXH3_128bits_update(hash, item->parameter->name, strlen(item->parameter->name) + 1);
        XXH3_128bits_update(hash, about, sizeof about);
    }
    const double goals[] = {
        o->bpw, o->max_kl, (double)o->max_bytes, (double)o->embed_bits, (double)o->calibrate_tokens, writes_itself(o)};
    XXH3_128bits_update(hash, goals, sizeof goals);
    if (text->ids != NULL) XXH3_128bits_update(hash, text->ids, text->n_sequences * text->window * sizeof *text->ids);
    XXH128_hash_t sum = XXH3_128bits_digest(hash);
    snprintf(key, QINS_ROUNDED_KEY, "%016llx%016llx", (unsigned long long)sum.high64, (unsigned long long)sum.low64);
}

static qins_status open_folder(const qins_model *model, const qins_plan *plan, const qins_compress_options *o,
                               const qins_calibration_text *text, const char *out_path, qins_rounded **rounded,
                               qins_error *err) {
    char key[QINS_ROUNDED_KEY];
    XXH3_state_t *hash = XXH3_createState();
    if (hash == NULL) return qins_fail_memory(err, sizeof(XXH128_hash_t), "a hash");
    make_key(model, plan, o, text, hash, key);
    XXH3_freeState(hash);
    return qins_rounded_open(out_path, key, rounded, err);
}

/* The model's own text, or that of the run before. */
static qins_status own_text(const qins_model *model, const qins_compress_options *o, qins_rounded *rounded,
                            qins_calibration_text *text, qins_error *err) {
    size_t shape[2];
    if (qins_rounded_load(rounded, "text-shape", shape, sizeof shape)) {
        *text = (qins_calibration_text){qins_alloc(shape[0] * shape[1], sizeof *text->ids), shape[0], shape[1]};
        if (text->ids == NULL) return qins_fail_memory(err, shape[0] * shape[1] * sizeof *text->ids, "text");
        if (qins_rounded_load(rounded, "text", text->ids, shape[0] * shape[1] * sizeof *text->ids)) return QINS_OK;
        qins_calibration_free(text);
    }
    qins_status status = qins_calibration_write(model, o->calibrate_tokens, o->progress, o->progress_user, text, err);
    if (status != QINS_OK) return status;
    shape[0] = text->n_sequences;
    shape[1] = text->window;
    status = qins_rounded_save(rounded, "text", text->ids, shape[0] * shape[1] * sizeof *text->ids, err);
    return status == QINS_OK ? qins_rounded_save(rounded, "text-shape", shape, sizeof shape, err) : status;
}

/* ---- widths ---- */

static bool has_goal(const qins_compress_options *o) {
    return o->bpw > 0 || o->max_bytes > 0 || o->max_kl > 0;
}

/* Bytes of the file besides codes and scales of the matrices whose width is chosen; headers from above. */
static uint64_t fixed_bytes(const qins_plan *plan) {
    enum { TABLES = 4096, HEADER = 4096, PER_TENSOR = 256, PER_ENCODED = 800, NAMES = 8 };
    uint64_t n = TABLES + HEADER;
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        n += NAMES * strlen(item->parameter->name) + (item->encode ? PER_ENCODED : PER_TENSOR);
        n += qins_plan_plain_bytes(item);
    }
    return n;
}

static qins_status choose_widths(const qins_model *model, const qins_compress_options *o,
                                 const qins_calibration_text *text, qins_rounded *rounded, qins_plan *plan,
                                 double *predicted_kl, qins_error *err) {
    double *kl = qins_alloc(plan->n_items, sizeof *kl);
    if (kl == NULL) return qins_fail_memory(err, plan->n_items * sizeof *kl, "sensitivities");
    qins_status status = QINS_OK;
    if (!qins_rounded_load(rounded, "sensitivities", kl, plan->n_items * sizeof *kl)) {
        status =
            qins_sensitivities(model, plan, text, SENSITIVITY_SEQUENCES, o->progress, o->progress_user, kl, NULL, err);
        if (status == QINS_OK)
            status = qins_rounded_save(rounded, "sensitivities", kl, plan->n_items * sizeof *kl, err);
    }
    uint64_t fixed = fixed_bytes(plan);
    if (!o->no_kv_transform) fixed += qins_kv_transform_values(&model->weights->hparams) * sizeof(uint16_t);
    if (status == QINS_OK) status = qins_allocate(o, kl, fixed, plan, predicted_kl, err);
    free(kl);
    return status;
}

/* ---- rates ---- */

/* All encoded linears' rows in one block. */
typedef struct row_losses {
    float **of; /* [n_items]; NULL where there are none */
    float *values;
    size_t n;
} row_losses;

static qins_status new_row_losses(const qins_plan *plan, row_losses *l, qins_error *err) {
    *l = (row_losses){.of = qins_alloc(plan->n_items, sizeof *l->of)};
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].parameter->role == QINS_ROLE_LINEAR && plan->items[i].encode)
            l->n += (size_t)plan->items[i].parameter->shape[0];
    l->values = qins_alloc(qins_max_size(l->n, 1), sizeof *l->values);
    if (l->of == NULL || l->values == NULL) return qins_fail_memory(err, l->n * sizeof *l->values, "sensitivities");
    float *at = l->values;
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].parameter->role == QINS_ROLE_LINEAR && plan->items[i].encode) {
            l->of[i] = at;
            at += plan->items[i].parameter->shape[0];
        }
    return QINS_OK;
}

/* Moves what belongs to encoded rows to the front. */
static void keep_encoded_rows(const qins_plan_item *item, float *rows) {
    for (size_t k = 0; k < item->split.n_pieces; k++) {
        const qins_row_piece *piece = &item->split.pieces[k];
        if (piece->encoded) memmove(rows + piece->at, rows + piece->begin, (piece->end - piece->begin) * sizeof *rows);
    }
}

static qins_status choose_rates(const qins_model *model, const qins_compress_options *o,
                                const qins_calibration_text *text, qins_rounded *rounded, qins_plan *plan,
                                qins_error *err) {
    row_losses l;
    double *kl = qins_alloc(plan->n_items, sizeof *kl);
    qins_status status = new_row_losses(plan, &l, err);
    if (status == QINS_OK && kl == NULL) status = qins_fail_memory(err, plan->n_items * sizeof *kl, "sensitivities");
    if (status == QINS_OK && !qins_rounded_load(rounded, "row-losses", l.values, l.n * sizeof *l.values)) {
        status =
            qins_sensitivities(model, plan, text, SENSITIVITY_SEQUENCES, o->progress, o->progress_user, kl, l.of, err);
        if (status == QINS_OK) status = qins_rounded_save(rounded, "row-losses", l.values, l.n * sizeof *l.values, err);
    }
    for (size_t i = 0; i < plan->n_items && status == QINS_OK; i++)
        if (l.of[i] != NULL) keep_encoded_rows(&plan->items[i], l.of[i]);
    if (status == QINS_OK) status = qins_allocate_rates((const float *const *)l.of, plan, err);
    free(kl);
    free(l.of);
    free(l.values);
    return status;
}

qins_status qins_calibrate_run(const qins_model *model, qins_plan *plan, const qins_compress_options *o,
                               const char *out_path, qins_rounded **rounded, qins_calibrate_result *result,
                               qins_error *err) {
    *rounded = NULL;
    *result = (qins_calibrate_result){.predicted_kl = -1};
    qins_calibration_text text = {0};
    double predicted_kl = -1;
    qins_status status = QINS_OK;
    if (!writes_itself(o)) status = qins_calibration_read(model, o->calibrate, o->calibrate_tokens, &text, err);
    if (status == QINS_OK) status = open_folder(model, plan, o, &text, out_path, rounded, err);
    if (status == QINS_OK && writes_itself(o)) status = own_text(model, o, *rounded, &text, err);
    /* Mixtures of experts have no sensitivities yet: all rows get the same rate. */
    if (status == QINS_OK && o->file_bpw > 0 && model->weights->hparams.n_experts == 0)
        status = choose_rates(model, o, &text, *rounded, plan, err);
    if (status == QINS_OK && has_goal(o)) status = choose_widths(model, o, &text, *rounded, plan, &predicted_kl, err);
    if (status == QINS_OK)
        status = qins_calibrate(model, plan, &text, *rounded, o->progress, o->progress_user, result, err);
    result->predicted_kl = predicted_kl;
    qins_calibration_free(&text);
    return status;
}
