/* Text to calibrate with. SPDX-License-Identifier: MIT */
#include "model/calibrate.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 64 << 20 };

/* Windows of a token sequence, spread evenly. */
static qins_status cut_windows(const qins_hparams *h, const int32_t *ids, size_t n_ids, size_t n_tokens,
                               qins_calibration_text *text, qins_error *err) {
    size_t window =
        qins_min_size(qins_min_size(QINS_CALIBRATION_WINDOW, h->max_position), qins_min_size(n_ids, n_tokens));
    if (window < 2)
        return qins_fail(err, QINS_ERR_ARGUMENT, "the calibration text has %zu tokens: at least 2 are needed", n_ids);
    size_t n = qins_max_size(1, qins_min_size(n_ids, n_tokens) / window);
    *text = (qins_calibration_text){qins_alloc(n * window, sizeof *text->ids), n, window, 0};
    if (text->ids == NULL) return qins_fail_memory(err, n * window * sizeof *text->ids, "calibration text");
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= h->vocab_size)
            return qins_fail(err, QINS_ERR_FORMAT, "token id %d is outside the vocabulary of %zu", (int)ids[i],
                             h->vocab_size);
    for (size_t i = 0; i < n; i++)
        memcpy(text->ids + i * window, ids + (n > 1 ? i * ((n_ids - window) / (n - 1)) : 0), window * sizeof *ids);
    return QINS_OK;
}

qins_status qins_calibration_read(const qins_model *model, const char *path, size_t n_tokens,
                                  qins_calibration_text *text, qins_error *err) {
    char *data = NULL;
    size_t n_bytes = 0, n_ids = 0;
    int32_t *ids = NULL;
    *text = (qins_calibration_text){0};
    qins_status status = qins_read_file(path, MAX_TEXT, &data, &n_bytes, err);
    if (status == QINS_OK) status = qins_tokenize(model, data, n_bytes, false, false, &ids, &n_ids, err);
    if (status == QINS_OK) status = cut_windows(&model->weights->hparams, ids, n_ids, n_tokens, text, err);
    qins_free(ids);
    free(data);
    return status == QINS_OK ? QINS_OK : qins_prefix(err, status, "%s", path);
}

void qins_calibration_free(qins_calibration_text *text) {
    free(text->ids);
    *text = (qins_calibration_text){0};
}
