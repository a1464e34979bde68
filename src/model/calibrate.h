/* Rounding a model's matrices on text: layer by layer, with the inputs that the layers before, already rounded, give.
 * SPDX-License-Identifier: MIT */
#ifndef QINS_CALIBRATE_H
#define QINS_CALIBRATE_H

#include "codec/feedback.h"
#include "model/compress_plan.h"
#include "model/losses.h"
#include "model/model.h"
#include "model/rounded.h"

enum { QINS_CALIBRATION_WINDOW = 512 };

/* Calibration text: sequences of `window` tokens, each beginning with an empty context. */
typedef struct qins_calibration_text {
    int32_t *ids; /* [n_sequences][window] */
    size_t n_sequences, window;
    size_t n_held; /* of the sequences, the last: not rounded on, so that losses can be measured on them */
} qins_calibration_text;

/* About n_tokens tokens of a text file, in windows spread evenly over it. */
qins_status qins_calibration_read(const qins_model *model, const char *path, size_t n_tokens,
                                  qins_calibration_text *text, qins_error *err);
/* The same, written by the model itself: samples at temperature 1 from several openings. The same on every run with the
 * same number of threads and CPU. */
qins_status qins_calibration_write(const qins_model *model, size_t n_tokens, qins_progress progress,
                                   void *progress_user, qins_calibration_text *text, qins_error *err);
void qins_calibration_free(qins_calibration_text *text);

/* Can an item be rounded with feedback? Packed gauss and uniform codes with a scale a row can. */
bool qins_can_feed_back(const qins_plan_item *item);

typedef struct qins_calibrate_result {
    size_t n_fed_back;  /* matrices rounded with feedback */
    size_t n_fallbacks; /* those of experts that too few tokens reached: rounded to the nearest */
    /* nats a token, where widths were chosen; else -1. Both with the predicted part of embedding and head. */
    double predicted_kl; /* sum over matrices: by their output errors on held text, or their width without any */
    double measured_kl;  /* on held text; -1 without any */
} qins_calibrate_result;

/* Rounds the linears of all layers that the plan encodes, as far as they are not in `rounded` yet. losses: NULL, or
 * what errors cost; it gets what rounding did on the held sequences. Memory: the hidden states of the text, the widest
 * activations of one layer, and its largest matrix and second moments. */
qins_status qins_calibrate(const qins_model *model, const qins_plan *plan, const qins_calibration_text *text,
                           qins_losses *losses, qins_rounded *rounded, qins_progress progress, void *progress_user,
                           qins_calibrate_result *result, qins_error *err);

/* The whole of it, with the text that options name. `rounded` then also has the key transform of every layer
 * (model/kv_transform.h). On failure *rounded may be set: it is closed by the caller in every case. */
qins_status qins_calibrate_run(const qins_model *model, qins_plan *plan, const qins_compress_options *options,
                               const char *out_path, qins_rounded **rounded, qins_calibrate_result *result,
                               qins_error *err);

#endif
