/* Any checkpoint in, a GGUF file out. SPDX-License-Identifier: MIT
 *
 * The header is laid out and compared with the model before the file is created; then the tensors are decoded,
 * rearranged and written a block of rows at a time.
 */
#include "model/export_gguf.h"

#include "format/gguf_write_tokenizer.h"
#include "model/gguf_metadata.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_AT_ONCE = 256, NAME_SIZE = 256, MAX_TEMPLATE = 16 << 20, QUANTIZATION_VERSION = 2 };

/* Types of the tensors that are stored as asked; `file_type` is llama.cpp's number for such a file. */
static const struct {
    qins_type type;
    uint32_t file_type;
} dtypes[] = {[QINS_F32] = {QINS_TYPE_F32, 0},
              [QINS_F16] = {QINS_TYPE_F16, 1},
              [QINS_BF16] = {QINS_TYPE_BF16, 32},
              [QINS_Q8_0] = {QINS_TYPE_Q8_0, 7}};

/* One tensor of the file: a parameter, or as many as there are experts. */
typedef struct item {
    const qins_parameter *p; /* of the first expert */
    size_t n_experts;        /* 0: no stack */
    qins_type type;
    size_t rope_pairs, qkv_heads; /* see qins_tensor */
    float offset, factor;         /* (value + offset) * factor is stored */
} item;

typedef struct job {
    const qins_export_options *options;
    const qins_weights *weights;
    const qins_gguf_arch *arch;
    qins_gguf_writer *writer;
    item *items;
    size_t n_items;
    uint64_t values_done, values_total;
} job;

/* ---- the plan ---- */

static bool is_of_layer(qins_slot slot) {
    return slot >= QINS_SLOT_ATTN_NORM;
}

static bool is_bias(const qins_parameter *p) {
    size_t n = strlen(p->name);
    return n > 5 && strcmp(p->name + n - 5, ".bias") == 0;
}

static size_t place_in_file(const qins_parameter *p) {
    return is_of_layer(p->slot)                                          ? 1 + p->layer
           : p->slot == QINS_SLOT_EMBED || p->slot == QINS_SLOT_POSITION ? 0
                                                                         : SIZE_MAX;
}

/* Embeddings, layer by layer, what follows the layers. */
static int compare_items(const void *a, const void *b) {
    const qins_parameter *x = ((const item *)a)->p, *y = ((const item *)b)->p;
    size_t i = place_in_file(x), k = place_in_file(y);
    if (i != k) return i < k ? -1 : 1;
    if (x->slot != y->slot) return x->slot < y->slot ? -1 : 1;
    return is_bias(x) - is_bias(y);
}

/* llama.cpp computes with vectors, norms, routers and learned positions as F32 only. Rows that are no whole number of
 * Q8_0 blocks become F16, as its conversion does. */
static qins_type type_of(const job *j, const qins_parameter *p) {
    if (p->n_dims != 2 || p->role == QINS_ROLE_NORM || p->role == QINS_ROLE_BIAS || p->role == QINS_ROLE_OTHER)
        return QINS_TYPE_F32;
    qins_type type = dtypes[j->options->dtype].type;
    return p->shape[1] % qins_types[type].block_values == 0 ? type : QINS_TYPE_F16;
}

static item plan_item(const job *j, const qins_parameter *p, const qins_gguf_name *row) {
    const qins_hparams *h = &j->weights->hparams;
    item it = {.p = p, .type = type_of(j, p), .factor = 1.0f};
    if (p->slot >= QINS_SLOT_EXPERT_GATE) it.n_experts = h->n_experts;
    if (j->arch->norm_offset && p->role == QINS_ROLE_NORM) it.offset = 1.0f;
    if (j->arch->rope_pairs && (qins_gguf_is_kind(row, "attn_q") || qins_gguf_is_kind(row, "attn_k")))
        it.rope_pairs = h->head_dim;
    if (j->arch->qkv_by_part && qins_gguf_is_kind(row, "attn_qkv")) it.qkv_heads = h->n_heads;
    return it;
}

static qins_status add_item(job *j, const qins_parameter *p, qins_error *err) {
    const qins_family *family = j->weights->hparams.family;
    const qins_place place = {p->slot, p->layer, p->expert};
    char hf[NAME_SIZE], name[NAME_SIZE];
    const qins_gguf_name *row = NULL;
    if (qins_place_name(family, place, "", true, hf, sizeof hf))
        row = qins_gguf_name_of(j->arch, hf, p->layer, p->expert, name, sizeof name - sizeof ".weight");
    if (row == NULL)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: tensor %s has no name in GGUF files of architecture %s",
                         j->weights->checkpoint->path, p->name, j->arch->name);
    strcat(name, is_bias(p) ? ".bias" : ".weight");
    item it = plan_item(j, p, row);
    uint64_t shape[3] = {it.n_experts, p->shape[0], p->shape[1]};
    size_t skipped = it.n_experts > 0 ? 0 : p->slot == QINS_SLOT_SHARED_ROUTER ? 2 : 1; /* a single row is a vector */
    size_t n_dims = p->n_dims == 2 ? 3 - skipped : 1;
    j->items[j->n_items++] = it;
    j->values_total += p->n_values * qins_max_size(1, it.n_experts);
    return qins_gguf_writer_add(j->writer, name, it.type, n_dims, p->n_dims == 2 ? shape + skipped : shape + 1, err);
}

/* Some architectures have a head of their own even where it is the embedding. */
static qins_status add_copied_head(job *j, qins_error *err) {
    for (size_t i = 0; i < j->n_items; i++) {
        item it = j->items[i];
        if (it.p->slot != QINS_SLOT_EMBED) continue;
        j->items[j->n_items++] = it;
        j->values_total += it.p->n_values;
        return qins_gguf_writer_add(j->writer, "output.weight", it.type, 2, it.p->shape, err);
    }
    return QINS_OK;
}

static qins_status declare(job *j, qins_error *err) {
    const qins_weights *w = j->weights;
    item *order = qins_alloc(w->n_parameters, sizeof *order);
    j->items = qins_alloc(w->n_parameters + 1, sizeof *j->items);
    size_t n = 0;
    qins_status status = QINS_OK;
    if (order == NULL || j->items == NULL) status = qins_fail_memory(err, w->n_parameters * sizeof *order, "a plan");
    for (size_t i = 0; status == QINS_OK && i < w->n_parameters; i++) {
        const qins_parameter *p = &w->parameters[i];
        bool unused = p->slot == QINS_SLOT_COUNT || (p->slot == QINS_SLOT_HEAD && !is_bias(p) && w->hparams.tied_head);
        if (!unused && p->expert == 0) order[n++].p = p; /* the others follow the first */
    }
    if (n > 0) qsort(order, n, sizeof *order, compare_items);
    for (size_t i = 0; i < n && status == QINS_OK; i++)
        status = add_item(j, order[i].p, err);
    if (status == QINS_OK && w->hparams.tied_head && j->arch->has_head) status = add_copied_head(j, err);
    free(order);
    return status;
}

/* Queries of gemma2 (rows of the projection) or of gemma3 (their norm) take the factor. */
static void set_query_factor(job *j, double factor) {
    qins_slot slot = j->weights->hparams.family->qk_norm == QINS_QK_NORM_NONE ? QINS_SLOT_Q : QINS_SLOT_Q_NORM;
    for (size_t i = 0; i < j->n_items; i++)
        if (j->items[i].p->slot == slot) j->items[i].factor = (float)factor;
}

/* ---- values ---- */

/* Row i of a block of rows of the file is row source_row(i) of the model's, in the same block: see qins_tensor. */
static size_t row_in_block(const item *it, size_t i) {
    size_t d = it->rope_pairs;
    return d == 0 ? i : i - i % d + i % d / 2 + i % 2 * (d / 2);
}

/* Where the block that begins at row `row` of the file begins in the model. */
static size_t first_row(const item *it, size_t row, size_t n_rows) {
    if (it->qkv_heads == 0) return row;
    size_t d = n_rows / (3 * it->qkv_heads), part = row / d / it->qkv_heads, head = row / d % it->qkv_heads;
    return (3 * head + part) * d + row % d;
}

static size_t block_rows(const item *it, size_t n_rows) {
    if (it->qkv_heads > 0) return n_rows / (3 * it->qkv_heads);
    if (it->rope_pairs > 0) return qins_max_size(1, ROWS_AT_ONCE / it->rope_pairs) * it->rope_pairs;
    return ROWS_AT_ONCE;
}

/* n floats as they are stored; index of the first that does not fit, or n. */
static size_t convert(qins_type type, const float *src, size_t n, uint8_t *dst) {
    const float limit = type == QINS_TYPE_Q8_0 ? 127.0f * 65504.0f : INFINITY; /* the scale is FP16 */
    for (size_t i = 0; type == QINS_TYPE_Q8_0 && i < n; i++)
        if (!(fabsf(src[i]) <= limit)) return i;
    if (type == QINS_TYPE_Q8_0)
        qins_quantize_q8_0(src, n, dst);
    else if (type == QINS_TYPE_F32)
        memcpy(dst, src, n * sizeof *src);
    else
        for (size_t i = 0; i < n; i++) {
            uint16_t half = type == QINS_TYPE_F16 ? qins_f32_to_f16(src[i]) : qins_f32_to_bf16(src[i]);
            float back = type == QINS_TYPE_F16 ? qins_f16_to_f32(half) : qins_bf16_to_f32(half);
            if (isinf(back) && !isinf(src[i])) return i;
            memcpy(dst + 2 * i, &half, sizeof half);
        }
    return n;
}

static qins_status write_row(job *j, const item *it, const qins_parameter *p, float *row, size_t n, uint8_t *bytes,
                             qins_error *err) {
    const qins_type_info *type = &qins_types[it->type];
    for (size_t k = 0; k < n; k++)
        row[k] = (row[k] + it->offset) * it->factor;
    size_t bad = convert(it->type, row, n, bytes);
    if (bad < n)
        return qins_fail(err, QINS_ERR_ARGUMENT, "tensor %s: value %g does not fit %s; export as f32 or bf16", p->name,
                         (double)row[bad], type->name);
    return qins_gguf_writer_put(j->writer, bytes, n / type->block_values * type->block_bytes, err);
}

/* Rows of a matrix, or single values of a vector. */
static qins_status write_rows(job *j, const item *it, const qins_parameter *p, const qins_matrix *m, float *vector,
                              qins_error *err) {
    size_t rows = m != NULL ? m->n_rows : (size_t)p->n_values, cols = m != NULL ? m->n_cols : 1;
    size_t step = qins_min_size(rows, block_rows(it, rows));
    float *block = m != NULL ? qins_alloc(step * cols, sizeof *block) : NULL;
    uint8_t *bytes = qins_alloc(cols, sizeof(float));
    qins_status status = QINS_OK;
    if ((m != NULL && block == NULL) || bytes == NULL)
        status = qins_fail_memory(err, step * cols * sizeof *block, p->name);
    for (size_t r = 0; r < rows && status == QINS_OK; r += step) {
        size_t n = qins_min_size(step, rows - r), first = first_row(it, r, rows);
        if (m != NULL) qins_matrix_decode_rows(m, first, n, block);
        float *values = m != NULL ? block : vector + first;
        for (size_t i = 0; i < n && status == QINS_OK; i++)
            status = write_row(j, it, p, values + row_in_block(it, i) * cols, cols, bytes, err);
        j->values_done += n * cols;
        if (status == QINS_OK &&
            qins_report(j->options->progress, j->options->progress_user, "export", j->values_done, j->values_total))
            status = qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
    }
    free(block);
    free(bytes);
    return status;
}

static qins_status write_parameter(job *j, const item *it, const qins_parameter *p, qins_error *err) {
    qins_matrix m;
    float *vector = NULL;
    qins_status status;
    if (p->n_dims == 2)
        status = qins_weights_matrix(j->weights, p, &m, err);
    else
        status = qins_weights_vector(j->weights, p, &vector, err);
    if (status == QINS_OK) status = write_rows(j, it, p, p->n_dims == 2 ? &m : NULL, vector, err);
    free(vector);
    return status;
}

static qins_status write_item(job *j, const item *it, qins_error *err) {
    qins_status status = write_parameter(j, it, it->p, err);
    bool with_prefix = strstr(it->p->name, j->weights->hparams.family->prefix) == it->p->name;
    for (size_t e = 1; e < it->n_experts && status == QINS_OK; e++) {
        char name[NAME_SIZE];
        const qins_place place = {it->p->slot, it->p->layer, e};
        bool named = qins_place_name(j->weights->hparams.family, place, ".weight", with_prefix, name, sizeof name);
        const qins_parameter *p = named ? qins_weights_find(j->weights, name) : NULL;
        if (p == NULL)
            return qins_fail(err, QINS_ERR_FORMAT, "%s: the weights of expert %zu of layer %zu are missing",
                             j->weights->checkpoint->path, e, it->p->layer);
        status = write_parameter(j, it, p, err);
    }
    return status;
}

/* ---- the whole ---- */

static void put_general(job *j) {
    const char *path = j->weights->checkpoint->path;
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--) {
    }
    bool is_gguf = j->weights->checkpoint->source == QINS_SOURCE_GGUF;
    qins_gguf_put_string(j->writer, "general.architecture", j->arch->name, strlen(j->arch->name));
    if (is_gguf) {
        qins_gguf_copy_metadata(j->writer, j->weights->checkpoint);
    } else {
        qins_gguf_put_string(j->writer, "general.type", "model", 5);
        qins_gguf_put_string(j->writer, "general.name", path + begin, end - begin);
    }
    qins_gguf_put_u32(j->writer, "general.file_type", dtypes[j->options->dtype].file_type);
    qins_gguf_put_u32(j->writer, "general.quantization_version", QUANTIZATION_VERSION);
}

/* chat_template.jinja of a directory, NULL when it has none. */
static qins_status read_chat_template(const qins_checkpoint *c, char **text, qins_error *err) {
    char *path = qins_format("%s/chat_template.jinja", c->path);
    if (path == NULL) return qins_fail_memory(err, strlen(c->path), "a path");
    qins_status status = QINS_OK;
    if (qins_path_exists(path)) status = qins_read_file(path, MAX_TEMPLATE, text, NULL, err);
    free(path);
    return status;
}

static qins_status put_tokenizer(job *j, json_t *tokenizer, const char *chat_template, qins_tokenizer_source *source,
                                 qins_error *err) {
    const qins_checkpoint *c = j->weights->checkpoint;
    *source = (qins_tokenizer_source){.path = c->path,
                                      .tokenizer = tokenizer,
                                      .config = c->config,
                                      .tokenizer_config = c->tokenizer_config,
                                      .generation_config = c->generation_config,
                                      .chat_template = chat_template,
                                      .n_tokens = j->weights->hparams.vocab_size};
    return qins_gguf_put_tokenizer(j->writer, source, err);
}

/* Metadata and tensor list, compared with the model. */
static qins_status lay_out(job *j, const char *out_path, qins_rope_factors *factors, qins_error *err) {
    const qins_checkpoint *c = j->weights->checkpoint;
    const qins_hparams *h = &j->weights->hparams;
    bool is_gguf = c->source == QINS_SOURCE_GGUF;
    json_t *tokenizer = NULL;
    char *chat_template = NULL;
    qins_gguf *view = NULL;
    qins_tokenizer_source source;
    double query_factor = 1.0;
    put_general(j);
    qins_status status = qins_gguf_put_hparams(j->writer, j->arch, h, c->path, factors, err);
    if (status == QINS_OK && !is_gguf) status = qins_checkpoint_tokenizer(c, &tokenizer, err);
    if (status == QINS_OK && !is_gguf) status = read_chat_template(c, &chat_template, err);
    if (status == QINS_OK && !is_gguf) status = put_tokenizer(j, tokenizer, chat_template, &source, err);
    if (status == QINS_OK) status = declare(j, err);
    if (status == QINS_OK) status = qins_gguf_writer_view(j->writer, out_path, &view, err);
    if (status == QINS_OK) status = qins_gguf_check_hparams(view, j->arch, h, c->path, &query_factor, err);
    if (status == QINS_OK && !is_gguf) status = qins_gguf_check_tokenizer(view, &source, err);
    if (status == QINS_OK && fabs(query_factor - 1.0) > 1e-7) set_query_factor(j, query_factor);
    qins_gguf_free(view);
    json_decref(tokenizer);
    free(chat_template);
    return status;
}

static qins_status write_file(job *j, qins_outfile *out, const qins_rope_factors *factors, qins_error *err) {
    qins_status status = qins_gguf_writer_begin(j->writer, qins_outfile_writer(out), err);
    for (size_t i = 0; i < 2 && status == QINS_OK && factors->values[i] != NULL; i++)
        status = qins_gguf_writer_put(j->writer, factors->values[i],
                                      j->weights->hparams.rope[0].rotary_dims / 2 * sizeof(float), err);
    for (size_t i = 0; i < j->n_items && status == QINS_OK; i++)
        status = write_item(j, &j->items[i], err);
    return status == QINS_OK ? qins_gguf_writer_finish(j->writer, err) : status;
}

qins_status qins_export_gguf(const qins_weights *weights, const char *out_path, const qins_export_options *options,
                             uint64_t *stored_bytes, qins_error *err) {
    const char *model_type = weights->hparams.family->model_type;
    job j = {.options = options, .weights = weights, .arch = qins_gguf_arch_of(model_type)};
    qins_rope_factors factors = {0};
    qins_outfile *out = NULL;
    if (j.arch == NULL)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: model_type \"%s\" has no GGUF architecture",
                         weights->checkpoint->path, model_type);
    qins_status status = qins_gguf_writer_new(&j.writer, err);
    if (status == QINS_OK) status = lay_out(&j, out_path, &factors, err);
    if (status == QINS_OK) status = qins_outfile_begin(out_path, options->force, &out, err);
    if (status == QINS_OK) status = write_file(&j, out, &factors, err);
    if (status == QINS_OK)
        status = qins_outfile_commit(out, err);
    else
        qins_outfile_abort(out);
    if (status == QINS_OK && stored_bytes != NULL) *stored_bytes = qins_gguf_writer_tensor_bytes(j.writer);
    qins_gguf_writer_free(j.writer);
    qins_rope_factors_free(&factors);
    free(j.items);
    return status;
}
