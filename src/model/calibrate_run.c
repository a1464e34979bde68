/* What compress asks for: text, a folder to go on from, and the rounding. SPDX-License-Identifier: MIT */
#include "model/calibrate.h"

#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

/* Everything that the rounded matrices depend on. */
static void make_key(const qins_model *model, const qins_plan *plan, const qins_calibration_text *text,
                     XXH3_state_t *hash, char key[QINS_ROUNDED_KEY]) {
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
        const int64_t about[] = {item->encode,          item->options.codec,  item->options.bits,
                                 item->options.storage, item->options.rotate, (int64_t)item->options.rotation_seed,
                                 item->options.scale};
        for (size_t k = 0; k < item->split.n_pieces; k++) {
            const int64_t rows[] = {(int64_t)item->split.pieces[k].begin, item->split.pieces[k].encoded};
            XXH3_128bits_update(hash, rows, sizeof rows);
        }
        XXH3_128bits_update(hash, item->parameter->name, strlen(item->parameter->name) + 1);
        XXH3_128bits_update(hash, about, sizeof about);
    }
    XXH3_128bits_update(hash, &text->window, sizeof text->window);
    XXH3_128bits_update(hash, text->ids, text->n_sequences * text->window * sizeof *text->ids);
    XXH128_hash_t sum = XXH3_128bits_digest(hash);
    snprintf(key, QINS_ROUNDED_KEY, "%016llx%016llx", (unsigned long long)sum.high64, (unsigned long long)sum.low64);
}

static bool any_item(const qins_plan *plan) {
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].parameter->role == QINS_ROLE_LINEAR && qins_can_feed_back(&plan->items[i])) return true;
    return false;
}

qins_status qins_calibrate_run(const qins_model *model, const qins_plan *plan, const qins_compress_options *options,
                               const char *out_path, qins_rounded **rounded, qins_calibrate_result *result,
                               qins_error *err) {
    *rounded = NULL;
    if (!any_item(plan)) return QINS_OK;
    qins_calibration_text text;
    char key[QINS_ROUNDED_KEY];
    qins_status status = qins_calibration_read(model, options->calibrate, options->calibrate_tokens, &text, err);
    XXH3_state_t *hash = XXH3_createState();
    if (status == QINS_OK && hash == NULL) status = qins_fail_memory(err, sizeof(XXH128_hash_t), "a hash");
    if (status == QINS_OK) {
        make_key(model, plan, &text, hash, key);
        status = qins_rounded_open(out_path, key, rounded, err);
    }
    if (status == QINS_OK)
        status = qins_calibrate(model, plan, &text, *rounded, options->progress, options->progress_user, result, err);
    XXH3_freeState(hash);
    qins_calibration_free(&text);
    return status;
}
