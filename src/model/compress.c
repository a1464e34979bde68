/* A checkpoint in, a qins directory out. SPDX-License-Identifier: MIT
 *
 * Everything that will be written is known from shapes and options, so the file is laid out first; then matrices are
 * encoded one after another, 16 rows at a time, straight from the mapped source.
 */
#include "format/safetensors_write.h"
#include "kernel/matrix.h"
#include "model/calibrate.h"
#include "model/compress_plan.h"
#include "model/kv_transform.h"
#include "model/receipt.h"
#include "model/repack.h"
#include "model/side_files.h"
#include "model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 512, COPY_BYTES = 4 << 20, NO_INDEX = -1 };

typedef struct job {
    const qins_compress_options *options;
    qins_model *model; /* owns the weights; NULL without calibration */
    qins_weights *weights;
    qins_st_writer *writer;
    qins_plan plan;
    qins_rounded *rounded;                                        /* by calibration; NULL without it */
    ptrdiff_t shared_tables[QINS_CODEC_COUNT][QINS_MAX_BITS + 1]; /* by codec and bits */
    bool table_written[QINS_CODEC_COUNT][QINS_MAX_BITS + 1];
    size_t kv_transform_index;          /* in the writer, when kv_transform_bytes says there is one */
    uint64_t values_done, values_total; /* progress */
    qins_compress_result result;
    double sum_squares, sum_squared_error;
    double codes_used, entropy_bits, linear_values; /* sums over encoded linears */
    size_t n_linears;
    uint64_t coded_bytes; /* tensor bytes after entropy coding; 0 without */
    json_t *errors;       /* of every encoded tensor: for the receipt */
} job;

/* Nothing is encoded and everything entropy-coded: the tensors keep their bytes. A GGUF's blocks become F32 first. */
static bool is_lossless(const job *j) {
    return j->options->pack == QINS_PACK_ENTROPY && j->options->linear.codec == QINS_CODEC_NONE &&
           j->weights->checkpoint->source == QINS_SOURCE_SAFETENSORS;
}

/* The key transform of the KV cache comes with calibration; 0 without. */
static uint64_t kv_transform_bytes(const job *j) {
    if (j->options->calibrate == NULL || j->options->no_kv_transform || is_lossless(j)) return 0;
    return (uint64_t)qins_kv_transform_values(&j->weights->hparams) * sizeof(uint16_t);
}

/* ---- layout ---- */

static qins_status declare_part(job *j, qins_plan_item *item, int part, qins_error *err) {
    const qins_part_info *info = &item->parts[part];
    if (info->dtype == NULL) return QINS_OK;
    ptrdiff_t *shared = &j->shared_tables[item->options.codec][item->options.bits];
    if (info->shared && *shared != NO_INDEX) {
        item->index[part] = *shared;
        return QINS_OK;
    }
    char name[NAME_SIZE];
    size_t index;
    if (!qins_part_name(item->parameter->name, &item->options, (qins_part)part, info->shared, name, sizeof name))
        return qins_fail(err, QINS_ERR_FORMAT, "tensor %s: its name is too long", item->parameter->name);
    qins_status status =
        qins_st_writer_add(j->writer, name, info->dtype, info->n_dims, info->shape, info->n_bytes, &index, err);
    if (status != QINS_OK) return status;
    item->index[part] = (ptrdiff_t)index;
    if (info->shared) *shared = (ptrdiff_t)index;
    return QINS_OK;
}

/* A tensor that is not encoded, or the rows that are not. */
static qins_status declare_plain(job *j, qins_plan_item *item, qins_error *err) {
    const qins_parameter *p = item->parameter;
    uint64_t shape[QINS_MAX_DIMS] = {item->split.n_plain, p->shape[1]};
    char name[NAME_SIZE];
    size_t index;
    if (!item->encode) qins_parameter_file_shape(p, shape);
    if (item->encode && !qins_rest_name(p->name, name, sizeof name))
        return qins_fail(err, QINS_ERR_FORMAT, "tensor %s: its name is too long", p->name);
    qins_status status = qins_st_writer_add(j->writer, item->encode ? name : p->name, qins_types[item->type].name,
                                            p->n_dims, shape, qins_plan_plain_bytes(item), &index, err);
    item->plain_index = (ptrdiff_t)index;
    return status;
}

static qins_status declare_kv_transform(job *j, uint64_t n_bytes, qins_error *err) {
    const qins_hparams *h = &j->weights->hparams;
    const uint64_t shape[] = {h->n_layers, h->n_kv_heads, h->head_dim, h->head_dim};
    return qins_st_writer_add(j->writer, QINS_KV_TRANSFORM_NAME, "F16", 4, shape, n_bytes, &j->kv_transform_index, err);
}

/* Tensors of whole 64-byte lines come first, so that each begins on one; then the others, widest numbers first, so that
 * each is aligned to its numbers. */
static qins_status declare_all(job *j, qins_error *err) {
    enum { LINE = 64, PASSES = 5 };
    static const size_t number_bytes[PASSES] = {0, 8, 4, 2, 1}; /* 0: whole lines */
    uint64_t transform = kv_transform_bytes(j);
    for (int pass = 0; pass < PASSES; pass++) {
        if (transform > 0 && number_bytes[pass] == (transform % LINE == 0 ? 0 : sizeof(uint16_t))) {
            qins_status status = declare_kv_transform(j, transform, err);
            if (status != QINS_OK) return status;
        }
        for (size_t i = 0; i < j->plan.n_items; i++) {
            qins_plan_item *item = &j->plan.items[i];
            qins_status status = QINS_OK;
            for (int part = 0; item->encode && part < QINS_PART_COUNT && status == QINS_OK; part++) {
                const qins_part_info *info = &item->parts[part];
                size_t number = info->dtype != NULL && info->dtype[0] == 'F' ? 4 : 1;
                if (number_bytes[pass] == (info->n_bytes % LINE == 0 ? 0 : number))
                    status = declare_part(j, item, part, err);
            }
            bool plain = !item->encode || item->split.n_pieces > 0;
            size_t number = qins_types[item->type].block_bytes;
            if (plain && status == QINS_OK &&
                number_bytes[pass] == (qins_plan_plain_bytes(item) % LINE == 0 ? 0 : number))
                status = declare_plain(j, item, err);
            if (status != QINS_OK) return status;
        }
    }
    return QINS_OK;
}

static json_t *make_metadata(const job *j) {
    json_t *tensors = json_object(), *sources = json_object();
    for (size_t i = 0; i < j->plan.n_items; i++) {
        const qins_plan_item *item = &j->plan.items[i];
        const qins_parameter *p = item->parameter;
        if (item->encode) {
            qins_encoded_tensor t = {.n_rows = qins_plan_encoded_rows(item),
                                     .n_cols = (size_t)p->shape[1],
                                     .options = item->options,
                                     .split = item->split,
                                     .source_bytes = qins_plan_source_bytes(p)};
            snprintf(t.source_dtype, sizeof t.source_dtype, "%s", qins_plan_source_dtype(p));
            json_object_set_new(tensors, p->name, qins_dir_entry(&t));
        } else if (qins_plan_plain_bytes(item) != qins_plan_source_bytes(p)) {
            json_object_set_new(sources, p->name,
                                json_pack("[s, I]", qins_plan_source_dtype(p), (json_int_t)qins_plan_source_bytes(p)));
        }
    }
    json_t *meta = json_pack("{s:i, s:s, s:o, s:o}", "version", QINS_FORMAT_VERSION, "writer",
                             "qins " QINS_VERSION_STRING, "tensors", tensors, "sources", sources);
    char *text = meta != NULL ? json_dumps(meta, JSON_COMPACT) : NULL;
    json_t *metadata = text != NULL ? json_pack("{s:s}", "qins", text) : NULL;
    free(text);
    json_decref(meta);
    return metadata;
}

/* ---- writing ---- */

typedef struct sink_context {
    job *job;
    qins_plan_item *item;
    uint64_t values_before;
} sink_context;

/* Shared tables are written once. */
static qins_status put_part(job *j, const qins_plan_item *item, int part, uint64_t offset, const void *data, size_t n,
                            qins_error *err) {
    if (item->parts[part].shared) {
        bool *written = &j->table_written[item->options.codec][item->options.bits];
        if (*written) return QINS_OK;
        *written = true;
    }
    return qins_st_writer_put(j->writer, (size_t)item->index[part], offset, data, n, err);
}

static qins_status sink_put(void *context, qins_part part, uint64_t offset, const void *data, size_t n,
                            qins_error *err) {
    sink_context *s = context;
    return put_part(s->job, s->item, (int)part, offset, data, n, err);
}

static bool report(const job *j) {
    return qins_report(j->options->progress, j->options->progress_user, "compress", j->values_done, j->values_total);
}

static bool sink_advance(void *context, size_t rows_done) {
    sink_context *s = context;
    s->job->values_done = s->values_before + rows_done * s->item->parameter->shape[1];
    return report(s->job);
}

/* The encoded rows of a matrix: all of them, or those that the split names. */
typedef struct encoded_rows {
    const qins_matrix *matrix;
    const qins_row_split *split;
} encoded_rows;

static void read_encoded_row(const void *context, size_t row, float *dst) {
    const encoded_rows *rows = context;
    if (rows->split->n_pieces > 0) row = qins_row_split_row(rows->split, true, row);
    qins_matrix_decode_rows(rows->matrix, row, 1, dst);
}

/* How many codes occur and how many bits an ideal entropy coder would need: a table that does not suit the weights
 * shows here. */
static void count_codes(job *j, const qins_plan_item *item, const uint64_t *histogram) {
    if (item->parameter->role != QINS_ROLE_LINEAR) return;
    double n = (double)qins_plan_encoded_rows(item) * (double)item->parameter->shape[1];
    for (size_t i = 0; i < QINS_MAX_LEVELS; i++) {
        if (histogram[i] == 0) continue;
        j->codes_used += 1;
        j->entropy_bits -= (double)histogram[i] * log2((double)histogram[i] / n);
    }
    j->linear_values += n;
    j->n_linears++;
}

static qins_status write_encoded(job *j, qins_plan_item *item, qins_error *err) {
    const qins_parameter *p = item->parameter;
    qins_matrix matrix;
    qins_status status = qins_weights_matrix(j->weights, p, &matrix, err);
    if (status != QINS_OK) return status;
    sink_context context = {j, item, j->values_done};
    encoded_rows rows = {&matrix, &item->split};
    qins_row_source source = {read_encoded_row, &rows};
    qins_part_sink sink = {sink_put, &context, sink_advance};
    qins_encode_stats *stats = qins_alloc(1, sizeof *stats);
    if (stats == NULL) return qins_fail_memory(err, sizeof *stats, "statistics");
    bool done = false;
    if (j->rounded != NULL) status = qins_rounded_get(j->rounded, p->name, item->parts, &sink, stats, &done, err);
    if (status == QINS_OK && !done)
        status = qins_encode(qins_plan_encoded_rows(item), matrix.n_cols, &source, &item->options, &sink, stats, err);
    j->sum_squares += stats->sum_squares;
    j->sum_squared_error += stats->sum_squared_error;
    count_codes(j, item, stats->histogram);
    json_object_set_new(j->errors, p->name, qins_receipt_tensor(&item->options, qins_plan_encoded_bytes(item), stats));
    free(stats);
    j->result.n_encoded++;
    return status == QINS_OK ? QINS_OK
                             : qins_prefix(err, status, "%s: tensor %s", j->weights->checkpoint->path, p->name);
}

static qins_status write_raw(job *j, ptrdiff_t index, const qins_tensor *t, qins_error *err) {
    qins_status status = QINS_OK;
    for (uint64_t done = 0; done < t->n_bytes && status == QINS_OK;) {
        size_t n = t->n_bytes - done < COPY_BYTES ? (size_t)(t->n_bytes - done) : COPY_BYTES;
        status = qins_st_writer_put(j->writer, (size_t)index, done, t->data + done, n, err);
        done += n;
    }
    return status;
}

/* A matrix that stays encoded as it is. */
static qins_status write_kept(job *j, const qins_plan_item *item, qins_error *err) {
    const qins_encoded_tensor *t = item->parameter->encoded;
    qins_status status = QINS_OK;
    for (int part = 0; part < QINS_PART_COUNT && status == QINS_OK; part++) {
        if (t->parts[part] == NULL) continue;
        status = item->parts[part].shared
                     ? put_part(j, item, part, 0, t->parts[part]->data, (size_t)t->parts[part]->n_bytes, err)
                     : write_raw(j, item->index[part], t->parts[part], err);
    }
    if (status == QINS_OK && t->rest != NULL) status = write_raw(j, item->plain_index, t->rest, err);
    j->result.n_encoded++;
    return status;
}

/* Numbers of one row in the type that is written. Only exact conversions happen here, but FP32 to BF16 of wide items.
 */
static size_t store_row(qins_type type, const float *row, size_t n, uint8_t *out) {
    if (type == QINS_TYPE_F32) {
        memcpy(out, row, n * sizeof *row);
        return n * sizeof *row;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half = type == QINS_TYPE_F16 ? qins_f32_to_f16(row[i]) : qins_f32_to_bf16(row[i]);
        memcpy(out + 2 * i, &half, sizeof half);
    }
    return n * sizeof(uint16_t);
}

/* A plain tensor in another form, or the plain rows of a matrix: those are always [outputs][inputs]. */
static qins_status write_converted(job *j, const qins_plan_item *item, qins_error *err) {
    const qins_parameter *p = item->parameter;
    bool split = item->split.n_pieces > 0, matrix = split || (p->n_dims == 2 && !p->conv1d);
    size_t rows = matrix ? (size_t)p->shape[0] : 1, cols = rows > 0 ? (size_t)p->n_values / rows : 0;
    if (split) rows = item->split.n_plain;
    float *row = qins_alloc(2 * cols, sizeof *row), *vector = NULL;
    qins_matrix m;
    qins_status status = row == NULL ? qins_fail_memory(err, 2 * cols * sizeof *row, "a row") : QINS_OK;
    if (status == QINS_OK)
        status =
            matrix ? qins_weights_matrix(j->weights, p, &m, err) : qins_weights_vector(j->weights, p, &vector, err);
    uint64_t offset = 0;
    for (size_t r = 0; r < rows && status == QINS_OK; r++) {
        if (matrix)
            qins_matrix_decode_rows(&m, split ? qins_row_split_row(&item->split, false, r) : r, 1, row);
        else
            memcpy(row, vector, cols * sizeof *row);
        size_t n = store_row(item->type, row, cols, (uint8_t *)(row + cols));
        status = qins_st_writer_put(j->writer, (size_t)item->plain_index, offset, row + cols, n, err);
        offset += n;
    }
    free(vector);
    free(row);
    return status;
}

typedef struct transform_sink {
    qins_st_writer *writer;
    size_t index;
    uint64_t first; /* of the layer, in the tensor */
} transform_sink;

static qins_status put_transform(void *context, qins_part part, uint64_t offset, const void *data, size_t n,
                                 qins_error *err) {
    const transform_sink *s = context;
    (void)part;
    return qins_st_writer_put(s->writer, s->index, s->first + offset, data, n, err);
}

static qins_status write_kv_transform(job *j, qins_error *err) {
    uint64_t n_bytes = kv_transform_bytes(j);
    if (n_bytes == 0) return QINS_OK;
    size_t n_layers = j->weights->hparams.n_layers;
    qins_part_info info[QINS_PART_COUNT] = {[QINS_PART_CODES] = {.dtype = "F16", .n_bytes = n_bytes / n_layers}};
    qins_encode_stats *stats = qins_alloc(1, sizeof *stats);
    qins_status status = stats == NULL ? qins_fail_memory(err, sizeof *stats, "statistics") : QINS_OK;
    for (size_t l = 0; l < n_layers && status == QINS_OK; l++) {
        char name[QINS_KV_TRANSFORM_LAYER_NAME];
        transform_sink context = {j->writer, j->kv_transform_index, l * info[QINS_PART_CODES].n_bytes};
        const qins_part_sink sink = {put_transform, &context, NULL};
        bool found = false;
        qins_kv_transform_layer_name(l, name);
        status = qins_rounded_get(j->rounded, name, info, &sink, stats, &found, err);
        if (status == QINS_OK && !found) status = qins_fail(err, QINS_ERR_FORMAT, "calibration left no %s", name);
    }
    free(stats);
    return status;
}

static qins_status write_tensors(job *j, qins_error *err) {
    for (size_t i = 0; i < j->plan.n_items; i++) {
        qins_plan_item *item = &j->plan.items[i];
        uint64_t before = j->values_done;
        qins_status status = item->keep      ? write_kept(j, item, err)
                             : item->encode  ? write_encoded(j, item, err)
                             : item->convert ? write_converted(j, item, err)
                                             : write_raw(j, item->plain_index, item->parameter->plain, err);
        if (status == QINS_OK && item->split.n_pieces > 0 && !item->keep) status = write_converted(j, item, err);
        if (status != QINS_OK) return status;
        qins_parameter_release(item->parameter);
        j->values_done = before + item->parameter->n_values;
        if (report(j)) return qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
    }
    return QINS_OK;
}

static json_t *quantization_config(const qins_compress_options *o) {
    qins_encode_options linear = o->linear;
    qins_encode_resolve(&linear, NULL);
    json_t *config = json_pack("{s:s, s:i, s:s, s:i, s:s, s:s, s:s}", "quant_method", "qins", "version",
                               QINS_FORMAT_VERSION, "codec", qins_codec_name(linear.codec), "bits", linear.bits,
                               "storage", qins_storage_name(linear.storage), "scale", qins_scale_name(linear.scale),
                               "targets", o->targets != NULL ? o->targets : "all");
    bool chosen = o->calibrate != NULL && (o->bpw > 0 || o->max_bytes > 0 || o->max_kl > 0);
    if (o->embed_bits != QINS_EMBED_AUTO || !chosen)
        json_object_set_new(config, "embed_bits",
                            json_integer(o->embed_bits != QINS_EMBED_AUTO ? o->embed_bits : QINS_DEFAULT_EMBED_BITS));
    if (o->calibrate != NULL) {
        json_object_set_new(config, "calibrate", json_string(strcmp(o->calibrate, "self") == 0 ? "self" : "text"));
        json_object_set_new(config, "calibrate_tokens", json_integer((json_int_t)o->calibrate_tokens));
    }
    if (linear.rotate == QINS_ON)
        json_object_set_new(config, "rotation_seed", json_integer((json_int_t)linear.rotation_seed));
    if (o->pack == QINS_PACK_ENTROPY) json_object_set_new(config, "pack", json_string("entropy"));
    if (linear.scale == QINS_SCALE_GROUP)
        json_object_set_new(config, "group_size", json_integer((json_int_t)linear.group_size));
    if (linear.sparsity > 0) {
        bool by_loss = linear.codec == QINS_CODEC_SPARSE && o->calibrate != NULL && !linear.prune_by_magnitude;
        json_object_set_new(config, "sparsity", json_real(linear.sparsity));
        if (linear.sparse_group > 0)
            json_object_set_new(config, "sparse_group", json_integer((json_int_t)linear.sparse_group));
        json_object_set_new(config, "pruned_by", json_string(by_loss ? "loss" : "magnitude"));
    }
    return config;
}

static void summarize(job *j) {
    qins_compress_result *r = &j->result;
    double bits = 0, values = 0;
    bool counted[QINS_CODEC_COUNT][QINS_MAX_BITS + 1] = {{false}};
    for (size_t i = 0; i < j->plan.n_items; i++) {
        const qins_plan_item *item = &j->plan.items[i];
        r->source_bytes += qins_plan_source_bytes(item->parameter);
        if (qins_plan_is_wide(item)) {
            values += (double)item->parameter->n_values;
            bits += 8.0 * (double)qins_plan_plain_bytes(item);
        }
        if (!item->encode) continue;
        values += (double)qins_plan_encoded_rows(item) * (double)item->parameter->shape[1];
        for (int p = 0; p < QINS_PART_COUNT; p++) {
            bool *seen = &counted[item->options.codec][item->options.bits];
            if (item->parts[p].shared && *seen) continue;
            if (item->parts[p].shared) *seen = true;
            bits += 8.0 * (double)item->parts[p].n_bytes;
        }
    }
    r->source_bytes += qins_plan_shared_source_bytes(&j->plan);
    r->n_tensors = j->plan.n_items;
    r->stored_bytes = j->coded_bytes > 0 ? j->coded_bytes : qins_st_writer_tensor_bytes(j->writer);
    r->bpw = values > 0 ? bits / values : 0;
    r->codes_used = j->n_linears > 0 ? j->codes_used / (double)j->n_linears : 0;
    r->code_entropy = j->linear_values > 0 ? j->entropy_bits / j->linear_values : 0;
    r->rel_mse = j->sum_squares > 0 ? j->sum_squared_error / j->sum_squares : 0;
}

/* Names, sizes and places of all tensors, and the metadata. */
static qins_status lay_out(job *j, json_t **metadata, qins_error *err) {
    for (size_t c = 0; c < QINS_CODEC_COUNT; c++)
        for (size_t b = 0; b <= QINS_MAX_BITS; b++)
            j->shared_tables[c][b] = NO_INDEX;
    qins_status status = qins_st_writer_new(true, &j->writer, err);
    if (status == QINS_OK) status = declare_all(j, err);
    if (status == QINS_OK && (*metadata = make_metadata(j)) == NULL) status = qins_fail_memory(err, 0, "metadata");
    return status;
}

qins_status qins_compress_lay_out(const qins_compress_options *options, qins_weights *weights, qins_plan *plan,
                                  qins_compress_layout *layout, qins_error *err) {
    job j = {.options = options, .weights = weights, .plan = *plan};
    json_t *metadata = NULL;
    qins_status status = lay_out(&j, &metadata, err);
    if (status == QINS_OK) status = qins_st_writer_lay_out(j.writer, metadata, &layout->header_bytes, err);
    if (status == QINS_OK) layout->tensor_bytes = qins_st_writer_tensor_bytes(j.writer);
    layout->kv_transform_bytes = kv_transform_bytes(&j);
    qins_st_writer_free(j.writer);
    json_decref(metadata);
    return status;
}

static qins_status write_directory(job *j, qins_outdir *out, qins_error *err) {
    json_t *metadata = NULL, *config = NULL, *manifest = NULL;
    uint64_t header_bytes = 0, header_hash = 0;
    qins_status status = lay_out(j, &metadata, err);
    if (status == QINS_OK)
        status = qins_st_writer_begin(j->writer, qins_outdir_temp(out), QINS_WEIGHTS_NAME, metadata, err);
    if (status == QINS_OK) status = write_tensors(j, err);
    if (status == QINS_OK) status = write_kv_transform(j, err);
    if (status == QINS_OK) status = qins_st_writer_finish(j->writer, &header_bytes, &header_hash, err);
    if (status == QINS_OK && j->options->pack == QINS_PACK_ENTROPY) {
        const qins_load_progress progress = {j->options->progress, j->options->progress_user};
        qins_coded_result coded;
        status = qins_coded_rewrite(qins_outdir_temp(out), &progress, &coded, err);
        header_bytes = coded.header_bytes;
        header_hash = coded.header_hash;
        j->coded_bytes = coded.stored_bytes;
        json_decref(coded.coded);
    }
    if (status == QINS_OK && (config = quantization_config(j->options)) == NULL)
        status = qins_fail_memory(err, 0, "config.json");
    if (status == QINS_OK) status = qins_write_side_files(j->weights->checkpoint, out, config, NULL, err);
    if (status == QINS_OK) status = qins_dir_manifest(qins_outdir_temp(out), header_bytes, header_hash, &manifest, err);
    if (status == QINS_OK) summarize(j);
    if (status == QINS_OK)
        status =
            qins_receipt_write(out, j->weights->checkpoint, config, manifest, j->options, &j->result, j->errors, err);
    if (status == QINS_OK) status = qins_write_json(out, QINS_MANIFEST_NAME, manifest, err);
    json_decref(metadata);
    json_decref(config);
    json_decref(manifest);
    return status;
}

void qins_compress_defaults(qins_compress_options *o) {
    *o = (qins_compress_options){.embed_bits = QINS_EMBED_AUTO, .calibrate_tokens = 32768};
    qins_encode_defaults(&o->linear);
}

qins_status qins_compress_check_options(const qins_compress_options *o, qins_error *err) {
    qins_encode_options linear = o->linear;
    int max_embed_bits = linear.codec == QINS_CODEC_LOG ? 9 : 8;
    if (o->embed_bits != 0 && o->embed_bits != QINS_EMBED_AUTO &&
        (o->embed_bits < QINS_MIN_BITS || o->embed_bits > max_embed_bits))
        return qins_fail(err, QINS_ERR_ARGUMENT, "embed-bits: expected keep or %d to %d, not %d", QINS_MIN_BITS,
                         max_embed_bits, o->embed_bits);
    if ((o->bpw > 0) + (o->max_bytes > 0) + (o->max_kl > 0) > 1)
        return qins_fail(err, QINS_ERR_ARGUMENT, "bpw, size and max-kl each choose the widths: give one of them");
    if ((o->max_bytes > 0 || o->max_kl > 0) && o->calibrate == NULL)
        return qins_fail(err, QINS_ERR_ARGUMENT, "size and max-kl need text to calibrate with");
    if (linear.sparsity > 0 && o->calibrate != NULL && (o->bpw > 0 || o->max_bytes > 0 || o->max_kl > 0))
        return qins_fail(err, QINS_ERR_ARGUMENT,
                         "sparsity: what pruning costs is not foreseen when widths are chosen; give bits or file-bpw");
    return qins_encode_resolve(&linear, err);
}

/* Calibration runs the model; without it the weights are enough. */
static qins_status open_source(job *j, const char *path, qins_error *err) {
    if (j->options->calibrate == NULL) return qins_weights_open(path, j->options->no_check, &j->weights, err);
    const qins_model_options options = {.no_check = j->options->no_check};
    qins_status status = qins_model_open(path, &options, &j->model, err);
    if (status == QINS_OK) j->weights = j->model->weights;
    return status;
}

static qins_status calibrate(job *j, const char *out_path, qins_error *err) {
    if (j->options->calibrate == NULL || is_lossless(j)) return QINS_OK;
    qins_calibrate_result result = {.predicted_kl = -1, .measured_kl = -1};
    qins_status status = qins_calibrate_run(j->model, &j->plan, j->options, out_path, &j->rounded, &result, err);
    j->result.n_fed_back = result.n_fed_back;
    j->result.n_fallbacks = result.n_fallbacks;
    j->result.predicted_kl = result.predicted_kl;
    j->result.measured_kl = result.measured_kl;
    return status;
}

static void release(job *j, bool done) {
    qins_st_writer_free(j->writer);
    qins_rounded_close(j->rounded, done);
    json_decref(j->errors);
    qins_plan_free(&j->plan);
    if (j->model != NULL)
        qins_model_close(j->model);
    else
        qins_weights_close(j->weights);
}

qins_status qins_compress(const char *model_path, const char *out_path, const qins_compress_options *options,
                          qins_compress_result *result, qins_error *err) {
    qins_compress_options resolved = *options;
    if (options->file_bpw > 0) {
        /* Lowest bits of the trellis' codes cannot cost less than a bit each: where rows are down to one and a half, it
         * loses (docs/entropy.md). */
        const double least_of_trellis = 2.4;
        bool uniform = options->linear.codec == QINS_CODEC_UNIFORM || options->linear.sparsity > 0 ||
                       options->file_bpw < least_of_trellis;
        resolved.linear.codec = uniform ? QINS_CODEC_UNIFORM : QINS_CODEC_UNIFORM_TRELLIS;
        resolved.pack = QINS_PACK_ENTROPY;
    }
    job j = {.options = &resolved, .errors = json_object(), .result = {.predicted_kl = -1, .measured_kl = -1}};
    qins_outdir *out = NULL;
    qins_status status = qins_compress_check_options(&resolved, err);
    if (status == QINS_OK) status = open_source(&j, model_path, err);
    if (status == QINS_OK) status = qins_plan_make(&resolved, j.weights, &j.plan, err);
    for (size_t i = 0; status == QINS_OK && i < j.plan.n_items; i++)
        j.values_total += j.plan.items[i].parameter->n_values;
    if (status == QINS_OK) status = qins_outdir_begin(out_path, options->force, &out, err);
    if (status == QINS_OK) status = calibrate(&j, out_path, err);
    if (status == QINS_OK && is_lossless(&j)) {
        const qins_load_progress progress = {options->progress, options->progress_user};
        status = qins_repack(j.weights->checkpoint, j.weights->dir, true, out, &progress, &j.result, err);
    } else if (status == QINS_OK) {
        status = write_directory(&j, out, err);
    }
    if (status == QINS_OK)
        status = qins_outdir_commit(out, err);
    else
        qins_outdir_abort(out);
    if (status == QINS_OK && result != NULL) *result = j.result;
    release(&j, status == QINS_OK);
    return status;
}
