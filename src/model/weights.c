/* Parameters of a model by name. SPDX-License-Identifier: MIT */
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

static int compare_parameters(const void *a, const void *b) {
    return strcmp(((const qins_parameter *)a)->name, ((const qins_parameter *)b)->name);
}

/* Is this tensor a part of an encoded matrix? Parts are found by identity. */
static int compare_pointers(const void *a, const void *b) {
    const qins_tensor *x = *(const qins_tensor *const *)a, *y = *(const qins_tensor *const *)b;
    return x < y ? -1 : x > y;
}

static void swap_dimensions(uint64_t *shape) {
    uint64_t rows = shape[0];
    shape[0] = shape[1];
    shape[1] = rows;
}

static qins_status list_parameters(qins_weights *w, qins_error *err) {
    const qins_checkpoint *c = w->checkpoint;
    size_t n_encoded = w->dir != NULL ? w->dir->n_tensors : 0, n_parts = 0;
    const qins_tensor **parts = qins_alloc(n_encoded * (QINS_PART_COUNT + 1), sizeof *parts);
    w->parameters = qins_alloc(c->n_tensors + n_encoded, sizeof *w->parameters);
    if (parts == NULL || w->parameters == NULL) {
        free(parts);
        return qins_fail_memory(err, c->n_tensors * sizeof *w->parameters, "parameters");
    }
    for (size_t i = 0; i < n_encoded; i++) {
        const qins_encoded_tensor *t = &w->dir->tensors[i];
        for (int p = 0; p < QINS_PART_COUNT; p++)
            if (t->parts[p] != NULL) parts[n_parts++] = t->parts[p];
        if (t->rest != NULL) parts[n_parts++] = t->rest;
        uint64_t n_rows = t->n_rows + (t->rest != NULL ? t->rest->shape[0] : 0);
        w->parameters[w->n_parameters++] = (qins_parameter){
            .name = t->name, .n_dims = 2, .shape = {n_rows, t->n_cols}, .n_values = n_rows * t->n_cols, .encoded = t};
    }
    qsort(parts, n_parts, sizeof *parts, compare_pointers);
    for (size_t i = 0; i < c->n_tensors; i++) {
        const qins_tensor *t = &c->tensors[i];
        if (n_parts > 0 && bsearch(&t, parts, n_parts, sizeof *parts, compare_pointers) != NULL) continue;
        if (strcmp(t->name, QINS_KV_TRANSFORM_NAME) == 0) {
            w->kv_transform = t; /* not a parameter of the model */
            continue;
        }
        qins_parameter p = {.name = t->name, .n_dims = t->n_dims, .n_values = t->n_values, .plain = t};
        memcpy(p.shape, t->shape, sizeof p.shape);
        w->parameters[w->n_parameters++] = p;
    }
    free(parts);
    const char *orientation = json_string_value(json_object_get(c->config, QINS_ORIENTATION_KEY));
    bool outputs_first = orientation != NULL && strcmp(orientation, "out_in") == 0;
    for (size_t i = 0; i < w->n_parameters; i++) {
        qins_parameter *p = &w->parameters[i];
        qins_place place;
        p->role = qins_tensor_role(w->hparams.family, p->name, &place);
        p->slot = place.slot;
        p->layer = place.layer;
        p->expert = place.expert;
        p->conv1d = w->hparams.family->transposed_linears && p->role == QINS_ROLE_LINEAR && p->n_dims == 2;
        p->transposed = p->conv1d && p->plain != NULL && !outputs_first;
        if (p->transposed) swap_dimensions(p->shape);
    }
    qsort(w->parameters, w->n_parameters, sizeof *w->parameters, compare_parameters);
    return QINS_OK;
}

static qins_status check_kv_transform(const qins_weights *w, qins_error *err) {
    const qins_tensor *t = w->kv_transform;
    const qins_hparams *h = &w->hparams;
    if (t == NULL || (t->type == QINS_TYPE_F16 && t->n_dims == 4 && t->shape[0] == h->n_layers &&
                      t->shape[1] == h->n_kv_heads && t->shape[2] == h->head_dim && t->shape[3] == h->head_dim))
        return QINS_OK;
    return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected F16 of %zu x %zu x %zu x %zu", w->checkpoint->path,
                     t->name, h->n_layers, h->n_kv_heads, h->head_dim, h->head_dim);
}

static const float *find_rotation(const qins_weights *w, uint64_t seed, size_t n_cols) {
    for (size_t i = 0; i < w->n_rotations; i++)
        if (w->rotations[i].seed == seed && w->rotations[i].n_cols == n_cols) return w->rotations[i].signs;
    return NULL;
}

static qins_status make_rotations(qins_weights *w, qins_error *err) {
    size_t n_encoded = w->dir != NULL ? w->dir->n_tensors : 0;
    w->rotations = qins_alloc(n_encoded, sizeof *w->rotations);
    if (w->rotations == NULL) return qins_fail_memory(err, n_encoded * sizeof *w->rotations, "rotations");
    for (size_t i = 0; i < n_encoded; i++) {
        const qins_encoded_tensor *t = &w->dir->tensors[i];
        if (t->options.rotate != QINS_ON || find_rotation(w, t->options.rotation_seed, t->n_cols) != NULL) continue;
        qins_rotation *r = &w->rotations[w->n_rotations];
        *r = (qins_rotation){t->options.rotation_seed, t->n_cols, qins_alloc(t->n_cols, sizeof(float))};
        if (r->signs == NULL) return qins_fail_memory(err, t->n_cols * sizeof(float), "a rotation");
        qins_rotation_signs(r->seed, r->n_cols, r->signs);
        w->n_rotations++;
    }
    return QINS_OK;
}

static void encoded_matrix(const qins_weights *w, const qins_encoded_tensor *t, qins_matrix *m) {
    const void *parts[QINS_PART_COUNT];
    for (int i = 0; i < QINS_PART_COUNT; i++)
        parts[i] = t->parts[i] != NULL ? t->parts[i]->data : NULL;
    const float *signs = t->options.rotate == QINS_ON ? find_rotation(w, t->options.rotation_seed, t->n_cols) : NULL;
    qins_matrix_from_parts(m, t->n_rows, t->n_cols, &t->options, parts, signs);
    if (w->float_arithmetic) m->integers.kind = QINS_INTEGER_NONE;
}

static void read_plain_row(const qins_matrix *m, size_t row, size_t col, size_t n, float *dst) {
    qins_tensor_row(m->source, row, col, n, dst);
}

static void plain_matrix(const qins_tensor *t, size_t n_rows, size_t n_cols, bool transposed, qins_matrix *m) {
    *m = (qins_matrix){
        .n_rows = n_rows, .n_cols = n_cols, .read_row = read_plain_row, .transposed = transposed, .source = t};
    if (!qins_tensor_is_verbatim(t) || transposed) return;
    m->rows = t->data;
    if (t->type == QINS_TYPE_F32) m->number = QINS_NUMBER_F32;
    if (t->type == QINS_TYPE_F16) m->number = QINS_NUMBER_F16;
    if (t->type == QINS_TYPE_BF16) m->number = QINS_NUMBER_BF16;
}

/* Both parts of the matrices of which only some rows are encoded. Only fused ones may be: what multiplies them knows.
 */
static qins_status make_splits(qins_weights *w, qins_error *err) {
    bool any = false;
    for (size_t i = 0; i < w->n_parameters; i++) {
        const qins_parameter *p = &w->parameters[i];
        if (p->encoded == NULL || p->encoded->split.n_pieces == 0) continue;
        any = true;
        if (p->role != QINS_ROLE_LINEAR || (p->slot != QINS_SLOT_QKV && p->slot != QINS_SLOT_GATE_UP))
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: only fused projections can be encoded in part",
                             w->checkpoint->path, p->name);
    }
    if (!any) return QINS_OK;
    w->splits = qins_alloc(w->dir->n_tensors, sizeof *w->splits);
    if (w->splits == NULL) return qins_fail_memory(err, w->dir->n_tensors * sizeof *w->splits, "a model");
    for (size_t i = 0; i < w->dir->n_tensors; i++) {
        const qins_encoded_tensor *t = &w->dir->tensors[i];
        if (t->split.n_pieces == 0) continue;
        w->splits[i].rows = &t->split;
        encoded_matrix(w, t, &w->splits[i].encoded);
        plain_matrix(t->rest, (size_t)t->rest->shape[0], t->n_cols, false, &w->splits[i].plain);
    }
    return QINS_OK;
}

qins_status qins_weights_open(const char *path, bool no_check, qins_weights **out, qins_error *err) {
    return qins_weights_load(path, no_check, NULL, out, err);
}

qins_status qins_weights_load(const char *path, bool no_check, const qins_load_progress *progress, qins_weights **out,
                              qins_error *err) {
    *out = NULL;
    qins_weights *w = qins_alloc(1, sizeof *w);
    if (w == NULL) return qins_fail_memory(err, sizeof *w, "a model");
    qins_status status = qins_checkpoint_open(path, &w->checkpoint, err);
    if (status == QINS_OK) status = qins_dir_read(w->checkpoint, !no_check, progress, &w->dir, err);
    if (status == QINS_OK) status = qins_hparams_read(w->checkpoint->config, path, &w->hparams, err);
    if (status == QINS_OK) status = list_parameters(w, err);
    if (status == QINS_OK) status = check_kv_transform(w, err);
    if (status == QINS_OK) status = qins_weights_check(w, err);
    if (status == QINS_OK) status = make_rotations(w, err);
    if (status == QINS_OK) status = make_splits(w, err);
    if (status == QINS_OK)
        *out = w;
    else
        qins_weights_close(w);
    return status;
}

void qins_weights_close(qins_weights *w) {
    if (w == NULL) return;
    for (size_t i = 0; i < w->n_rotations; i++)
        free(w->rotations[i].signs);
    free(w->rotations);
    free(w->splits);
    free(w->parameters);
    qins_dir_free(w->dir);
    qins_checkpoint_close(w->checkpoint);
    free(w);
}

void qins_weights_multiply_in_float(qins_weights *w) {
    w->float_arithmetic = true;
    for (size_t i = 0; w->splits != NULL && i < w->dir->n_tensors; i++)
        w->splits[i].encoded.integers.kind = QINS_INTEGER_NONE;
}

const qins_parameter *qins_weights_find(const qins_weights *w, const char *name) {
    qins_parameter key = {.name = name};
    return bsearch(&key, w->parameters, w->n_parameters, sizeof key, compare_parameters);
}

static qins_status check_readable(const qins_weights *w, const qins_parameter *p, qins_error *err) {
    if (p->plain == NULL || qins_types[p->plain->type].to_float != NULL) return QINS_OK;
    return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: tensor %s has dtype %s: expected F32, F16 or BF16",
                     w->checkpoint->path, p->name, qins_types[p->plain->type].name);
}

qins_status qins_weights_matrix(const qins_weights *w, const qins_parameter *p, qins_matrix *m, qins_error *err) {
    if (p->n_dims != 2 || p->shape[0] == 0 || p->shape[1] == 0)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected a matrix, found %zu dimensions",
                         w->checkpoint->path, p->name, p->n_dims);
    if (p->encoded != NULL) {
        if (p->encoded->split.n_pieces == 0)
            encoded_matrix(w, p->encoded, m);
        else
            *m = (qins_matrix){.n_rows = (size_t)p->shape[0],
                               .n_cols = (size_t)p->shape[1],
                               .split = &w->splits[p->encoded - w->dir->tensors]};
        return QINS_OK;
    }
    qins_status status = check_readable(w, p, err);
    if (status != QINS_OK) return status;
    plain_matrix(p->plain, (size_t)p->shape[0], (size_t)p->shape[1], p->transposed, m);
    return QINS_OK;
}

qins_status qins_weights_vector(const qins_weights *w, const qins_parameter *p, float **values, qins_error *err) {
    qins_status status = check_readable(w, p, err);
    if (status != QINS_OK) return status;
    *values = qins_alloc((size_t)p->n_values, sizeof **values);
    if (*values == NULL) return qins_fail_memory(err, (size_t)p->n_values * sizeof **values, p->name);
    if (p->encoded == NULL && p->conv1d == p->transposed) {
        const qins_tensor *t = p->plain;
        size_t rows = t->n_dims > 1 ? (size_t)t->shape[0] : 1, cols = rows > 0 ? (size_t)t->n_values / rows : 0;
        for (size_t r = 0; r < rows && cols > 0; r++)
            qins_tensor_row(t, r, 0, cols, *values + r * cols);
        return QINS_OK;
    }
    qins_matrix m;
    status = qins_weights_matrix(w, p, &m, err);
    if (status != QINS_OK) return status;
    if (!p->conv1d) {
        qins_matrix_decode_rows(&m, 0, m.n_rows, *values);
        return QINS_OK;
    }
    float *row = qins_alloc(m.n_cols, sizeof *row);
    if (row == NULL) return qins_fail_memory(err, m.n_cols * sizeof *row, "a row");
    for (size_t r = 0; r < m.n_rows; r++) {
        qins_matrix_decode_rows(&m, r, 1, row);
        for (size_t k = 0; k < m.n_cols; k++)
            (*values)[k * m.n_rows + r] = row[k];
    }
    free(row);
    return QINS_OK;
}

/* Decoded tensors are in no file: their pages would not come back. */
static void release(const qins_tensor *t) {
    if (t->file_bytes == 0) qins_map_release(t->data, (size_t)t->n_bytes);
}

void qins_parameter_release(const qins_parameter *p) {
    if (p->plain != NULL) release(p->plain);
    for (int i = 0; p->encoded != NULL && i < QINS_PART_COUNT; i++)
        if (p->encoded->parts[i] != NULL) release(p->encoded->parts[i]);
    if (p->encoded != NULL && p->encoded->rest != NULL) release(p->encoded->rest);
}

void qins_parameter_file_shape(const qins_parameter *p, uint64_t shape[QINS_MAX_DIMS]) {
    memcpy(shape, p->shape, sizeof p->shape);
    if (p->conv1d) swap_dimensions(shape);
}
