/* A single linear as a file: a safetensors file with the tensors of one encoded matrix called "weight" and a "bias".
 * SPDX-License-Identifier: MIT */
#include "format/safetensors.h"
#include "format/safetensors_write.h"
#include "model/linear.h"
#include "model/qins_dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WEIGHT "weight"
#define BIAS   "bias"
enum { NAME_SIZE = 64, NO_INDEX = -1 };

/* ---- save ---- */

static json_t *metadata_of(const qins_linear *l) {
    qins_encoded_tensor t = {.n_rows = l->matrix.n_rows,
                             .n_cols = l->matrix.n_cols,
                             .options = l->options,
                             .source_dtype = "F32",
                             .source_bytes = (uint64_t)l->matrix.n_rows * l->matrix.n_cols * sizeof(float)};
    json_t *meta = json_pack("{s:i, s:{s:o}}", "version", QINS_FORMAT_VERSION, "tensors", WEIGHT, qins_dir_entry(&t));
    char *text = meta != NULL ? json_dumps(meta, JSON_COMPACT) : NULL;
    json_t *metadata = text != NULL ? json_pack("{s:s}", "qins", text) : NULL;
    free(text);
    json_decref(meta);
    return metadata;
}

static qins_status write_file(const qins_linear *l, qins_st_writer *w, const char *dir, const char *name,
                              qins_error *err) {
    ptrdiff_t index[QINS_PART_COUNT + 1];
    uint64_t n_out = l->matrix.n_rows;
    qins_status status = QINS_OK;
    for (int p = 0; p <= QINS_PART_COUNT && status == QINS_OK; p++) {
        const qins_part_info bias = {.dtype = "F32", .n_dims = 1, .shape = {n_out}, .n_bytes = n_out * sizeof(float)};
        bool is_bias = p == QINS_PART_COUNT;
        const qins_part_info *info = is_bias ? &bias : &l->info[p];
        char part[NAME_SIZE] = BIAS;
        size_t i;
        index[p] = NO_INDEX;
        if (is_bias ? l->bias == NULL : info->dtype == NULL) continue;
        if (!is_bias) qins_part_name(WEIGHT, &l->options, (qins_part)p, info->shared, part, sizeof part);
        status = qins_st_writer_add(w, part, info->dtype, info->n_dims, info->shape, info->n_bytes, &i, err);
        index[p] = (ptrdiff_t)i;
    }
    json_t *metadata = metadata_of(l);
    if (status == QINS_OK && metadata == NULL) status = qins_fail_memory(err, 0, "metadata");
    if (status == QINS_OK) status = qins_st_writer_begin(w, dir, name, metadata, err);
    json_decref(metadata);
    for (int p = 0; p <= QINS_PART_COUNT && status == QINS_OK; p++) {
        if (index[p] == NO_INDEX) continue;
        const void *data = p == QINS_PART_COUNT ? (const void *)l->bias : l->parts[p];
        size_t n = p == QINS_PART_COUNT ? (size_t)n_out * sizeof(float) : (size_t)l->info[p].n_bytes;
        status = qins_st_writer_put(w, (size_t)index[p], 0, data, n, err);
    }
    return status == QINS_OK ? qins_st_writer_finish(w, NULL, NULL, err) : status;
}

qins_status qins_linear_save(const qins_linear *l, const char *path, qins_error *err) {
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    char *dir = slash == NULL   ? qins_strdup(".")
                : slash == path ? qins_strdup("/")
                                : strndup(path, (size_t)(slash - path));
    char *name = qins_format(".%s.qins-tmp-%ld", base, (long)getpid());
    char *temporary = dir != NULL && name != NULL ? qins_format("%s/%s", dir, name) : NULL;
    qins_st_writer *w = NULL;
    qins_status status =
        temporary == NULL ? qins_fail_memory(err, strlen(path), "a path") : qins_st_writer_new(true, &w, err);
    if (status == QINS_OK) {
        status = write_file(l, w, dir, name, err);
        qins_st_writer_free(w);
        if (status == QINS_OK && rename(temporary, path) != 0)
            status =
                qins_fail(err, QINS_ERR_IO, "%s: cannot put the finished file in place: %s", path, strerror(errno));
        if (status != QINS_OK) unlink(temporary);
    }
    free(dir);
    free(name);
    free(temporary);
    return status;
}

/* ---- load ---- */

static int compare_tensors(const void *a, const void *b) {
    return strcmp(((const qins_tensor *)a)->name, ((const qins_tensor *)b)->name);
}

static qins_status copy_parts(const qins_checkpoint *c, const qins_dir *dir, qins_linear **out, qins_error *err) {
    const qins_encoded_tensor *t = dir != NULL ? qins_dir_find(dir, WEIGHT) : NULL;
    if (t == NULL || t->split.n_pieces > 0)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: expected a linear that qins saved", c->path);
    const qins_tensor *bias = qins_checkpoint_find(c, BIAS);
    if (bias != NULL && (bias->type != QINS_TYPE_F32 || bias->n_values != t->n_rows))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: bias: expected %zu values of F32", c->path, t->n_rows);
    qins_linear *l;
    qins_status status = qins_linear_allocate(t->n_rows, t->n_cols, &t->options, bias != NULL, &l, err);
    if (status != QINS_OK) return status;
    for (int p = 0; p < QINS_PART_COUNT; p++)
        if (t->parts[p] != NULL) memcpy(l->parts[p], t->parts[p]->data, (size_t)t->parts[p]->n_bytes);
    if (bias != NULL) memcpy(l->bias, bias->data, (size_t)bias->n_bytes);
    qins_linear_finish(l);
    *out = l;
    return QINS_OK;
}

qins_status qins_linear_load(const char *path, qins_linear **linear, qins_error *err) {
    *linear = NULL;
    qins_map map;
    qins_status status = qins_map_open(path, &map, err);
    if (status != QINS_OK) return status;
    qins_tensor_list list = {0};
    qins_checkpoint c = {.source = QINS_SOURCE_SAFETENSORS, .path = map.path};
    qins_dir *dir = NULL;
    status = qins_safetensors_parse(map.data, map.size, path, &list, &c.metadata, err);
    if (status == QINS_OK) {
        qsort(list.items, list.n, sizeof *list.items, compare_tensors);
        c.tensors = list.items;
        c.n_tensors = list.n;
        status = qins_dir_read_tensors(&c, true, NULL, &dir, err);
    }
    if (status == QINS_OK) status = copy_parts(&c, dir, linear, err);
    qins_dir_free(dir);
    json_decref(c.metadata);
    qins_tensor_list_free(&list);
    qins_map_close(&map);
    return status;
}
