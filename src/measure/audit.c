/* Where every byte of a checkpoint goes. SPDX-License-Identifier: MIT
 *
 * Sums of real tensors only: nothing here multiplies a ratio by a size. (The original claim of 34x came from a
 * subtraction that went negative; a sum of what is in the file cannot.)
 */
#include "measure/audit.h"
#include "model/kv_cache.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void count_plain(const qins_weights *w, const qins_parameter *p, qins_audit_tensor *t) {
    const qins_type_info *type = &qins_types[p->plain->type];
    const json_t *source = w->dir != NULL ? json_object_get(w->dir->sources, p->name) : NULL;
    t->dtype = type->name;
    t->codec = "none";
    t->storage = "plain";
    t->bits = 8.0 * (double)type->block_bytes / (double)type->block_values;
    t->code_bytes = qins_tensor_file_bytes(p->plain);
    t->resident_bytes = p->plain->n_bytes;
    t->entropy_coded = p->plain->file_bytes > 0;
    t->source_bytes = source != NULL ? (uint64_t)json_integer_value(json_array_get(source, 1)) : p->plain->n_bytes;
}

/* Tables that belong to several tensors are counted with the totals. */
static void count_encoded(const qins_parameter *p, qins_audit_tensor *t) {
    const qins_encode_options *o = &p->encoded->options;
    qins_part_info parts[QINS_PART_COUNT];
    qins_encode_parts(p->encoded->n_rows, p->encoded->n_cols, o, parts, NULL); /* checked when the directory was read */
    t->dtype = parts[QINS_PART_CODES].dtype;
    t->codec = qins_codec_name(o->codec);
    t->storage = qins_storage_name(o->storage);
    t->bits = o->storage == QINS_STORAGE_SEED ? 16 : o->storage == QINS_STORAGE_F32 ? 32 : o->bits;
    t->source_bytes = p->encoded->source_bytes;
    for (int i = 0; i < QINS_PART_COUNT; i++) {
        if (p->encoded->parts[i] == NULL || parts[i].shared) continue;
        const qins_tensor *part = p->encoded->parts[i];
        *(i == QINS_PART_CODES || i == QINS_PART_SIGNS ? &t->code_bytes : &t->side_bytes) +=
            qins_tensor_file_bytes(part);
        t->resident_bytes += part->n_bytes;
        t->entropy_coded = t->entropy_coded || part->file_bytes > 0;
    }
}

/* Of a matrix that is encoded in part: its encoded rows, then its plain ones. */
static void count_split(const qins_parameter *p, qins_audit_tensor *encoded, qins_audit_tensor *plain) {
    const qins_tensor *rest = p->encoded->rest;
    const qins_type_info *type = &qins_types[rest->type];
    uint64_t of_rest = p->encoded->source_bytes / p->shape[0] * rest->shape[0]; /* rows of equal size */
    *plain = *encoded;
    encoded->shape[0] = p->encoded->n_rows;
    encoded->n_params = p->n_values - rest->n_values;
    encoded->source_bytes -= of_rest;
    plain->name = rest->name;
    plain->dtype = type->name;
    plain->codec = "none";
    plain->storage = "plain";
    plain->shape[0] = rest->shape[0];
    plain->n_params = rest->n_values;
    plain->bits = 8.0 * (double)type->block_bytes;
    plain->bytes = plain->code_bytes = qins_tensor_file_bytes(rest);
    plain->resident_bytes = rest->n_bytes;
    plain->entropy_coded = rest->file_bytes > 0;
    plain->side_bytes = 0;
    plain->source_bytes = of_rest;
}

static void count_tensor(const qins_weights *w, const qins_parameter *p, qins_audit_tensor *t) {
    *t = (qins_audit_tensor){
        .name = p->name, .role = qins_role_name(p->role), .n_dims = p->n_dims, .n_params = p->n_values};
    memcpy(t->shape, p->shape, sizeof t->shape);
    if (p->plain != NULL)
        count_plain(w, p, t);
    else
        count_encoded(p, t);
    t->bytes = t->code_bytes + t->side_bytes;
}

void qins_audit_kv_transform(const qins_hparams *h, uint64_t bytes, qins_audit_tensor *t) {
    *t = (qins_audit_tensor){.name = QINS_KV_TRANSFORM_NAME,
                             .dtype = "F16",
                             .role = qins_role_name(QINS_ROLE_OTHER),
                             .codec = "none",
                             .storage = "plain",
                             .bits = 16,
                             .n_dims = 4,
                             .shape = {h->n_layers, h->n_kv_heads, h->head_dim, h->head_dim},
                             .bytes = bytes,
                             .code_bytes = bytes};
    /* held as FP32, with its inverse */
    t->resident_bytes = 2 * sizeof(float) * t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

/* Each shared table once. */
static uint64_t shared_bytes(const qins_weights *w) {
    uint64_t n = 0;
    const qins_tensor *seen[64];
    size_t n_seen = 0;
    for (size_t i = 0; w->dir != NULL && i < w->dir->n_tensors; i++) {
        const qins_encoded_tensor *t = &w->dir->tensors[i];
        const qins_tensor *table = t->parts[QINS_PART_TABLE];
        qins_part_info parts[QINS_PART_COUNT];
        qins_encode_parts(t->n_rows, t->n_cols, &t->options, parts, NULL);
        bool fresh = table != NULL && parts[QINS_PART_TABLE].shared && n_seen < 64;
        for (size_t s = 0; s < n_seen && fresh; s++)
            fresh = seen[s] != table;
        if (!fresh) continue;
        seen[n_seen++] = table;
        n += table->n_bytes;
    }
    return n;
}

/* Bytes of a directory's files, or of the weight files when the model is not a directory. */
static uint64_t bytes_on_disk(const qins_checkpoint *c, uint64_t weight_bytes) {
    DIR *d = opendir(c->path);
    if (d == NULL) return weight_bytes;
    uint64_t n = 0;
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL) {
        struct stat st;
        if (fstatat(dirfd(d), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode)) n += (uint64_t)st.st_size;
    }
    closedir(d);
    return n;
}

void qins_audit_finish_totals(qins_audit_totals *s) {
    s->fp32_bytes = s->params * sizeof(float);
    s->ratio_fp32 = s->stored_bytes > 0 ? (double)s->fp32_bytes / (double)s->stored_bytes : 0;
    s->ratio_source = s->stored_bytes > 0 ? (double)s->source_bytes / (double)s->stored_bytes : 0;
}

static qins_status add_up(qins_audit *a, qins_error *err) {
    const qins_weights *w = a->weights;
    const qins_checkpoint *c = w->checkpoint;
    qins_audit_totals *s = &a->totals;
    uint64_t in_files = 0, vector_copies = 0;
    for (size_t i = 0; i < a->n_tensors; i++) {
        const qins_audit_tensor *t = &a->tensors[i];
        s->params += t->n_params;
        s->source_bytes += t->source_bytes;
        s->stored_bytes += t->bytes;
        s->resident_bytes += t->resident_bytes;
        if (t->n_dims < 2) vector_copies += t->n_params * sizeof(float); /* norms and biases are held as FP32 */
    }
    s->shared_bytes = shared_bytes(w);
    s->stored_bytes += s->shared_bytes;
    for (size_t i = 0; i < c->n_files; i++) {
        s->weight_file_bytes += c->files[i].size;
        in_files += c->files[i].tensor_bytes;
    }
    s->header_bytes = s->weight_file_bytes - in_files;
    s->file_bytes = bytes_on_disk(c, s->weight_file_bytes);
    s->resident_bytes += s->shared_bytes + vector_copies;
    qins_audit_finish_totals(s);
    if (s->stored_bytes + s->header_bytes != s->weight_file_bytes)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: %llu bytes in its files belong to no tensor of the model", c->path,
                         (unsigned long long)(in_files - s->stored_bytes));
    return QINS_OK;
}

qins_status qins_audit_open(const char *path, const qins_model_options *options, qins_audit **out, qins_error *err) {
    *out = NULL;
    qins_audit *a = qins_alloc(1, sizeof *a);
    if (a == NULL) return qins_fail_memory(err, sizeof *a, "an audit");
    qins_status status = qins_weights_open(path, options != NULL && options->no_check, &a->weights, err);
    if (status == QINS_OK) {
        size_t most = 2 * a->weights->n_parameters + 1; /* two entries for a matrix of two parts */
        a->tensors = qins_alloc(most, sizeof *a->tensors);
        if (a->tensors == NULL) status = qins_fail_memory(err, most * sizeof *a->tensors, "an audit");
    }
    if (status == QINS_OK) {
        for (size_t i = 0; i < a->weights->n_parameters; i++) {
            const qins_parameter *p = &a->weights->parameters[i];
            qins_audit_tensor *t = &a->tensors[a->n_tensors++];
            count_tensor(a->weights, p, t);
            if (p->encoded != NULL && p->encoded->rest != NULL) count_split(p, t, &a->tensors[a->n_tensors++]);
        }
        const qins_tensor *transform = a->weights->kv_transform;
        if (transform != NULL) {
            qins_audit_tensor *t = &a->tensors[a->n_tensors++];
            qins_audit_kv_transform(&a->weights->hparams, qins_tensor_file_bytes(transform), t);
            t->entropy_coded = transform->file_bytes > 0;
        }
        status = add_up(a, err);
    }
    if (status == QINS_OK)
        *out = a;
    else
        qins_audit_close(a);
    return status;
}

void qins_audit_close(qins_audit *a) {
    if (a == NULL) return;
    free(a->tensors);
    for (size_t i = 0; i < a->n_names; i++)
        free(a->names[i]);
    free(a->names);
    qins_weights_close(a->weights);
    free(a);
}

size_t qins_audit_count(const qins_audit *a) {
    return a->n_tensors;
}

const qins_audit_tensor *qins_audit_get(const qins_audit *a, size_t i) {
    return i < a->n_tensors ? &a->tensors[i] : NULL;
}

const qins_audit_totals *qins_audit_get_totals(const qins_audit *a) {
    return &a->totals;
}

qins_status qins_audit_kv_bytes(const qins_audit *a, int key_bits, int value_bits, size_t positions, qins_audit_kv *kv,
                                qins_error *err) {
    const qins_hparams *h = &a->weights->hparams;
    qins_kv_format f;
    *kv = (qins_audit_kv){0};
    qins_status status = qins_kv_format_init(&f, h->head_dim, key_bits, value_bits, err);
    if (status != QINS_OK) return status;
    size_t n_heads = h->n_layers * h->n_kv_heads, pages = positions / QINS_KV_PAGE + 1, most;
    bool fits = qins_mul_size(pages, f.page_bytes, &most) && qins_add_size(most, f.first_page, &most) &&
                qins_mul_size(most, n_heads, &most);
    if (fits) {
        kv->bytes = qins_kv_bytes(&f, n_heads, positions);
        size_t rows = qins_round_up(positions, QINS_KV_PAGE) * n_heads;
        kv->code_bytes = (uint64_t)rows * (f.key_row + f.value_row);
        kv->side_bytes = kv->bytes - kv->code_bytes;
        kv->bytes_per_token = (double)(n_heads * f.page_bytes) / QINS_KV_PAGE;
    } else {
        status = qins_fail(err, QINS_ERR_ARGUMENT, "KV cache: %zu positions are too many", positions);
    }
    qins_kv_format_free(&f);
    return status;
}

size_t qins_audit_max_position(const qins_audit *a) {
    return a->weights->hparams.max_position;
}
