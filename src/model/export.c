/* Any checkpoint in, a plain Hugging Face directory (or a GGUF file, export_gguf.c) out. SPDX-License-Identifier: MIT
 */
#include "format/safetensors_write.h"
#include "kernel/matrix.h"
#include "model/export_gguf.h"
#include "model/repack.h"
#include "model/side_files.h"
#include "model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_AT_ONCE = 256 };

static const struct {
    const char *dtype, *torch_name;
    size_t bytes;
} dtypes[] = {
    [QINS_F32] = {"F32", "float32", 4}, [QINS_F16] = {"F16", "float16", 2}, [QINS_BF16] = {"BF16", "bfloat16", 2}};

/* Nothing in it is encoded, so that every tensor can have its bytes back. */
static bool is_lossless(const qins_weights *w) {
    return w->dir != NULL && w->dir->n_tensors == 0 && json_object_size(w->dir->coded) > 0;
}

typedef struct job {
    const qins_export_options *options;
    qins_weights *weights;
    qins_st_writer *writer;
    const qins_parameter **parameters;
    size_t n_parameters;
    uint64_t values_done, values_total;
} job;

/* Converts n floats; index of the first that became infinite, or n. */
static size_t convert(qins_dtype dtype, const float *src, size_t n, uint8_t *dst) {
    if (dtype == QINS_F32) {
        memcpy(dst, src, n * sizeof *src);
        return n;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half = dtype == QINS_F16 ? qins_f32_to_f16(src[i]) : qins_f32_to_bf16(src[i]);
        float back = dtype == QINS_F16 ? qins_f16_to_f32(half) : qins_bf16_to_f32(half);
        if (isinf(back) && !isinf(src[i])) return i;
        memcpy(dst + 2 * i, &half, sizeof half);
    }
    return n;
}

/* Is it a tensor of numbers that the model computes with? Others (masks, buffers of integers) are copied. */
static bool is_float(const qins_parameter *p) {
    return p->encoded != NULL || (qins_types[p->plain->type].to_float != NULL && p->plain->type != QINS_TYPE_I8 &&
                                  p->plain->type != QINS_TYPE_U8 && p->plain->type != QINS_TYPE_I16 &&
                                  p->plain->type != QINS_TYPE_I32 && p->plain->type != QINS_TYPE_I64);
}

static qins_status write_float(job *j, size_t index, const qins_parameter *p, qins_error *err) {
    if (p->n_values == 0) return QINS_OK;
    qins_dtype dtype = j->options->dtype;
    bool is_matrix = p->n_dims == 2 && !p->conv1d;
    size_t rows = is_matrix ? (size_t)p->shape[0] : 1, cols = rows > 0 ? (size_t)p->n_values / rows : 0;
    size_t step = qins_min_size(rows, ROWS_AT_ONCE);
    float *values = NULL;
    qins_matrix matrix;
    qins_status status;
    if (is_matrix) {
        status = qins_weights_matrix(j->weights, p, &matrix, err);
        if (status == QINS_OK && (values = qins_alloc(step * cols, sizeof *values)) == NULL)
            status = qins_fail_memory(err, step * cols * sizeof *values, p->name);
    } else {
        status = qins_weights_vector(j->weights, p, &values, err);
    }
    uint8_t *bytes = qins_alloc(step * cols, dtypes[dtype].bytes);
    if (status == QINS_OK && bytes == NULL) status = qins_fail_memory(err, step * cols * 4, p->name);
    uint64_t offset = 0;
    for (size_t r = 0; r < rows && status == QINS_OK; r += step) {
        size_t n_rows = qins_min_size(step, rows - r), n = n_rows * cols;
        if (is_matrix) qins_matrix_decode_rows(&matrix, r, n_rows, values);
        size_t bad = convert(dtype, values, n, bytes);
        if (bad < n) {
            status = qins_fail(err, QINS_ERR_ARGUMENT, "tensor %s: value %g does not fit %s; export as f32 or bf16",
                               p->name, (double)values[bad], dtypes[dtype].dtype);
            break;
        }
        status = qins_st_writer_put(j->writer, index, offset, bytes, n * dtypes[dtype].bytes, err);
        offset += n * dtypes[dtype].bytes;
        if (status == QINS_OK && qins_report(j->options->progress, j->options->progress_user, "export",
                                             j->values_done + r * cols, j->values_total))
            status = qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
    }
    free(values);
    free(bytes);
    return status;
}

static qins_status declare(job *j, qins_error *err) {
    const qins_weights *w = j->weights;
    for (size_t i = 0; i < w->n_parameters; i++) {
        const qins_parameter *p = &w->parameters[i];
        if (p->role == QINS_ROLE_HEAD && w->hparams.tied_head) continue;
        bool number = is_float(p);
        const char *dtype = number ? dtypes[j->options->dtype].dtype : qins_types[p->plain->type].name;
        uint64_t bytes = number ? p->n_values * dtypes[j->options->dtype].bytes : p->plain->n_bytes;
        uint64_t shape[QINS_MAX_DIMS];
        size_t index;
        qins_parameter_file_shape(p, shape);
        qins_status status = qins_st_writer_add(j->writer, p->name, dtype, p->n_dims, shape, bytes, &index, err);
        if (status != QINS_OK) return status;
        j->parameters[j->n_parameters++] = p; /* its place is its index in the writer */
        j->values_total += p->n_values;
    }
    return QINS_OK;
}

static qins_status write_directory(job *j, qins_outdir *out, qins_error *err) {
    j->parameters = qins_alloc(j->weights->n_parameters, sizeof *j->parameters);
    if (j->parameters == NULL) return qins_fail_memory(err, j->weights->n_parameters * sizeof *j->parameters, "a plan");
    qins_status status = qins_st_writer_new(false, &j->writer, err);
    if (status == QINS_OK) status = declare(j, err);
    if (status == QINS_OK)
        status = qins_st_writer_begin(j->writer, qins_outdir_temp(out), QINS_WEIGHTS_NAME, NULL, err);
    for (size_t i = 0; i < j->n_parameters && status == QINS_OK; i++) {
        const qins_parameter *p = j->parameters[i];
        status = is_float(p) ? write_float(j, i, p, err)
                             : qins_st_writer_put(j->writer, i, 0, p->plain->data, (size_t)p->plain->n_bytes, err);
        qins_parameter_release(p);
        j->values_done += p->n_values;
    }
    if (status == QINS_OK) status = qins_st_writer_finish(j->writer, NULL, NULL, err);
    if (status == QINS_OK)
        status = qins_write_side_files(j->weights->checkpoint, out, NULL, dtypes[j->options->dtype].torch_name, err);
    return status;
}

/* The tensors of a lossless directory as they were. */
static qins_status restore(const job *j, qins_outdir *out, uint64_t *written, qins_error *err) {
    const qins_load_progress progress = {j->options->progress, j->options->progress_user};
    qins_compress_result result;
    qins_status status = qins_repack(j->weights->checkpoint, j->weights->dir, false, out, &progress, &result, err);
    *written = result.stored_bytes;
    return status;
}

static qins_status export_directory(qins_weights *weights, const char *out_path, const qins_export_options *options,
                                    bool lossless, uint64_t *stored_bytes, qins_error *err) {
    job j = {.options = options, .weights = weights};
    qins_outdir *out = NULL;
    uint64_t written = 0;
    qins_status status = qins_outdir_begin(out_path, options->force, &out, err);
    if (status == QINS_OK && lossless) {
        status = restore(&j, out, &written, err);
    } else if (status == QINS_OK) {
        status = write_directory(&j, out, err);
        if (status == QINS_OK) written = qins_st_writer_tensor_bytes(j.writer);
    }
    if (status == QINS_OK)
        status = qins_outdir_commit(out, err);
    else
        qins_outdir_abort(out);
    if (status == QINS_OK && stored_bytes != NULL) *stored_bytes = written;
    qins_st_writer_free(j.writer);
    free(j.parameters);
    return status;
}

qins_status qins_export(const char *model_path, const char *out_path, const qins_export_options *options,
                        uint64_t *stored_bytes, qins_error *err) {
    bool is_gguf = options->format == QINS_FORMAT_GGUF;
    if ((int)options->format < QINS_FORMAT_SAFETENSORS || options->format > QINS_FORMAT_GGUF)
        return qins_fail(err, QINS_ERR_ARGUMENT, "format: expected safetensors or gguf");
    bool as_stored = options->dtype == QINS_DTYPE_AUTO;
    if ((int)options->dtype < QINS_F32 || (options->dtype > (is_gguf ? QINS_Q8_0 : QINS_BF16) && !as_stored))
        return qins_fail(err, QINS_ERR_ARGUMENT, "dtype: expected f32, f16%s",
                         is_gguf ? ", bf16 or q8_0" : " or bf16 (q8_0 is a type of GGUF files)");
    qins_weights *weights = NULL;
    qins_status status = qins_weights_open(model_path, options->no_check, &weights, err);
    qins_export_options resolved = *options;
    if (as_stored) resolved.dtype = QINS_F32;
    if (status == QINS_OK)
        status = is_gguf ? qins_export_gguf(weights, out_path, &resolved, stored_bytes, err)
                         : export_directory(weights, out_path, &resolved, as_stored && is_lossless(weights),
                                            stored_bytes, err);
    qins_weights_close(weights);
    return status;
}
