/* One encoded linear in memory: the codecs without a model. SPDX-License-Identifier: MIT */
#include "model/linear.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

typedef struct float_matrix {
    const float *values;
    size_t n_cols;
} float_matrix;

static void read_row(const void *context, size_t row, float *dst) {
    const float_matrix *m = context;
    memcpy(dst, m->values + row * m->n_cols, m->n_cols * sizeof *dst);
}

static qins_status put(void *context, qins_part part, uint64_t offset, const void *data, size_t n, qins_error *err) {
    (void)err;
    memcpy(((qins_linear *)context)->parts[part] + offset, data, n);
    return QINS_OK;
}

qins_status qins_linear_allocate(size_t n_out, size_t n_in, const qins_encode_options *options, bool with_bias,
                                 qins_linear **out, qins_error *err) {
    *out = NULL;
    qins_linear *l = qins_alloc(1, sizeof *l);
    if (l == NULL) return qins_fail_memory(err, sizeof *l, "a linear");
    l->options = *options;
    qins_status status = QINS_OK;
    if (options->codec == QINS_CODEC_NONE) status = qins_fail(err, QINS_ERR_ARGUMENT, "a linear needs a codec");
    if (status == QINS_OK) status = qins_encode_resolve(&l->options, err);
    if (status == QINS_OK) status = qins_encode_parts(n_out, n_in, &l->options, l->info, err);
    for (int p = 0; p < QINS_PART_COUNT && status == QINS_OK; p++) {
        if (l->info[p].dtype == NULL) continue;
        l->parts[p] = qins_alloc_aligned((size_t)l->info[p].n_bytes, 1);
        if (l->parts[p] == NULL) status = qins_fail_memory(err, (size_t)l->info[p].n_bytes, "an encoded matrix");
    }
    if (status == QINS_OK && l->options.rotate == QINS_ON) {
        l->rotation = qins_alloc(n_in, sizeof *l->rotation);
        if (l->rotation == NULL)
            status = qins_fail_memory(err, n_in * sizeof *l->rotation, "a rotation");
        else
            qins_rotation_signs(l->options.rotation_seed, n_in, l->rotation);
    }
    if (status == QINS_OK && with_bias && (l->bias = qins_alloc(n_out, sizeof *l->bias)) == NULL)
        status = qins_fail_memory(err, n_out * sizeof *l->bias, "a bias");
    if (status == QINS_OK) {
        *out = l;
        l->matrix.n_rows = n_out;
        l->matrix.n_cols = n_in;
    } else {
        qins_linear_free(l);
    }
    return status;
}

void qins_linear_finish(qins_linear *l) {
    const void *parts[QINS_PART_COUNT];
    for (int p = 0; p < QINS_PART_COUNT; p++)
        parts[p] = l->parts[p];
    qins_matrix_from_parts(&l->matrix, l->matrix.n_rows, l->matrix.n_cols, &l->options, parts, l->rotation);
}

qins_status qins_linear_from_float(const float *weight, const float *bias, size_t n_out, size_t n_in,
                                   const qins_encode_options *options, qins_linear **out, qins_error *err) {
    *out = NULL;
    qins_linear *l;
    qins_status status = qins_linear_allocate(n_out, n_in, options, bias != NULL, &l, err);
    if (status != QINS_OK) return status;
    qins_encode_stats *stats = qins_alloc(1, sizeof *stats);
    float_matrix matrix = {weight, n_in};
    qins_row_source source = {read_row, &matrix};
    qins_part_sink sink = {put, l, NULL};
    if (stats == NULL)
        status = qins_fail_memory(err, sizeof *stats, "statistics");
    else
        status = qins_encode(n_out, n_in, &source, &l->options, &sink, stats, err);
    free(stats);
    if (status != QINS_OK) {
        qins_linear_free(l);
        return status;
    }
    if (bias != NULL) memcpy(l->bias, bias, n_out * sizeof *bias);
    qins_linear_finish(l);
    *out = l;
    return QINS_OK;
}

void qins_linear_free(qins_linear *l) {
    if (l == NULL) return;
    for (int p = 0; p < QINS_PART_COUNT; p++)
        free(l->parts[p]);
    free(l->rotation);
    free(l->bias);
    free(l);
}

qins_status qins_linear_forward(const qins_linear *l, const float *x, float *y, size_t n_tokens, qins_error *err) {
    size_t n_in = l->matrix.n_cols, n_out = l->matrix.n_rows, n_values = 0;
    bool fits = qins_mul_size(n_tokens, qins_prepared_row(n_in), &n_values);
    float *prepared = fits ? qins_alloc_aligned(n_values, sizeof *prepared) : NULL;
    if (prepared == NULL) return qins_fail_memory(err, n_values * sizeof *prepared, "inputs");
    const qins_affine affine = {.present = true, .weight = l->matrix, .bias = l->bias};
    qins_input in = {.x = x, .n_cols = n_in, .n_tokens = n_tokens, .prepared = prepared};
    qins_affine_apply_one(&affine, &in, y, n_out);
    free(prepared);
    return QINS_OK;
}

qins_status qins_linear_decode(const qins_linear *l, float *weight, qins_error *err) {
    (void)err;
    qins_matrix_decode_rows(&l->matrix, 0, l->matrix.n_rows, weight);
    return QINS_OK;
}

void qins_linear_bytes(const qins_linear *l, uint64_t *code_bytes, uint64_t *side_bytes) {
    *code_bytes = *side_bytes = 0;
    for (int p = 0; p < QINS_PART_COUNT; p++)
        *(p == QINS_PART_CODES || p == QINS_PART_SIGNS ? code_bytes : side_bytes) += l->info[p].n_bytes;
}
