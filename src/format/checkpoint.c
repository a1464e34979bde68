/* Opening a checkpoint, finding its tensors, reading their rows. SPDX-License-Identifier: MIT */
#include "format/checkpoint_private.h"

#include "format/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- tensor lists ---- */

static bool is_printable(const char *name, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) return false;
    }
    return n > 0;
}

qins_status qins_tensor_list_add(qins_tensor_list *list, const qins_tensor *tensor, const char *name, size_t n_name,
                                 const char *path, qins_error *err) {
    if (!is_printable(name, n_name))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: the name of tensor %zu is empty or has control characters", path,
                         list->n);
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        qins_tensor *items = reallocarray(list->items, capacity, sizeof *items);
        if (items == NULL) return qins_fail_memory(err, capacity * sizeof *items, "a list of tensors");
        list->items = items;
        list->capacity = capacity;
    }
    char *copy = strndup(name, n_name);
    if (copy == NULL) return qins_fail_memory(err, n_name + 1, "the name of a tensor");
    list->items[list->n] = *tensor;
    list->items[list->n++].name = copy;
    return QINS_OK;
}

void qins_tensor_list_free(qins_tensor_list *list) {
    for (size_t i = 0; i < list->n; i++)
        free((void *)(uintptr_t)list->items[i].name);
    free(list->items);
    *list = (qins_tensor_list){0};
}

qins_status qins_tensor_measure(qins_tensor *tensor, const char *name, const char *path, qins_error *err) {
    const qins_type_info *type = &qins_types[tensor->type];
    tensor->n_values = 1;
    for (size_t i = 0; i < tensor->n_dims; i++) {
        if (__builtin_mul_overflow(tensor->n_values, tensor->shape[i], &tensor->n_values))
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: the product of its dimensions overflows", path,
                             name);
    }
    uint64_t row = tensor->n_dims > 0 ? tensor->shape[tensor->n_dims - 1] : 1;
    if (row % type->block_values != 0)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: tensor %s: rows of %" PRIu64 " values are no whole number of %s blocks of %zu", path,
                         name, row, type->name, type->block_values);
    if (__builtin_mul_overflow(tensor->n_values / type->block_values, type->block_bytes, &tensor->n_bytes))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: its size in bytes overflows", path, name);
    return QINS_OK;
}

/* ---- building a checkpoint ---- */

qins_status qins_checkpoint_map(qins_checkpoint *checkpoint, const char *path, const qins_map **map, qins_error *err) {
    struct qins_checkpoint_private *p = checkpoint->private_data;
    size_t n = checkpoint->n_files + 1;
    qins_map *maps = reallocarray(p->maps, n, sizeof *maps);
    if (maps == NULL) return qins_fail_memory(err, n * sizeof *maps, "a list of files");
    p->maps = maps;
    qins_weight_file *files = reallocarray(checkpoint->files, n, sizeof *files);
    if (files == NULL) return qins_fail_memory(err, n * sizeof *files, "a list of files");
    checkpoint->files = files;

    qins_status status = qins_map_open(path, &maps[n - 1], err);
    if (status != QINS_OK) return status;
    files[n - 1] = (qins_weight_file){.path = maps[n - 1].path, .size = maps[n - 1].size};
    checkpoint->n_files = p->n_maps = n;
    *map = &maps[n - 1];
    return QINS_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const qins_tensor *)a)->name, ((const qins_tensor *)b)->name);
}

static size_t file_of(const qins_checkpoint *checkpoint, const qins_tensor *tensor) {
    for (size_t i = 0; i < checkpoint->n_files; i++) {
        const qins_map *map = &checkpoint->private_data->maps[i];
        /* the end belongs to the file too: an empty tensor may lie there */
        if (tensor->data >= map->data && tensor->data <= map->data + map->size) return i;
    }
    return 0;
}

qins_status qins_checkpoint_set_tensors(qins_checkpoint *checkpoint, qins_tensor_list *list, qins_error *err) {
    checkpoint->tensors = list->items;
    checkpoint->n_tensors = list->n;
    *list = (qins_tensor_list){0};
    if (checkpoint->n_tensors == 0) return qins_fail(err, QINS_ERR_FORMAT, "%s: holds no tensors", checkpoint->path);
    qsort(checkpoint->tensors, checkpoint->n_tensors, sizeof *checkpoint->tensors, compare_names);
    for (size_t i = 0; i < checkpoint->n_tensors; i++) {
        const qins_tensor *t = &checkpoint->tensors[i];
        qins_weight_file *file = &checkpoint->files[file_of(checkpoint, t)];
        if (i > 0 && strcmp(t[-1].name, t->name) == 0)
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s is there twice (the other one is in %s)", file->path,
                             t->name, checkpoint->files[file_of(checkpoint, t - 1)].path);
        file->tensor_bytes += t->n_bytes;
    }
    return QINS_OK;
}

qins_status qins_read_json(const char *path, json_t **object, qins_error *err) {
    char *text = NULL;
    size_t n = 0;
    qins_status status = qins_read_file(path, QINS_MAX_TEXT_FILE, &text, &n, err);
    if (status != QINS_OK) return status;
    json_error_t where;
    json_t *value = json_loadb(text, n, 0, &where);
    free(text);
    if (value == NULL)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: line %d, column %d: %s", path, where.line, where.column,
                         where.text);
    if (!json_is_object(value)) {
        json_decref(value);
        return qins_fail(err, QINS_ERR_FORMAT, "%s: expected a JSON object", path);
    }
    *object = value;
    return QINS_OK;
}

static bool has_suffix(const char *s, const char *suffix) {
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static qins_status open_source(qins_checkpoint *checkpoint, qins_error *err) {
    const char *path = checkpoint->path;
    if (qins_path_is_dir(path)) return qins_model_dir_open(path, checkpoint, err);
    if (has_suffix(path, ".gguf")) return qins_gguf_open(path, checkpoint, err);
    if (!qins_path_exists(path))
        return qins_fail(err, QINS_ERR_IO, "%s: no such model; give a model directory or a .gguf file", path);
    if (has_suffix(path, ".safetensors"))
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: give the directory that holds this file and its config.json",
                         path);
    return qins_gguf_open(path, checkpoint, err); /* whatever it is called; the magic decides */
}

qins_status qins_checkpoint_open(const char *path, qins_checkpoint **checkpoint, qins_error *err) {
    *checkpoint = NULL;
    qins_checkpoint *c = qins_alloc(1, sizeof *c);
    if (c == NULL) return qins_fail_memory(err, sizeof *c, "a checkpoint");
    c->private_data = qins_alloc(1, sizeof *c->private_data);
    c->path = qins_strdup(path);
    qins_status status = QINS_OK;
    if (c->private_data == NULL || c->path == NULL)
        status = qins_fail_memory(err, strlen(path) + sizeof *c->private_data, "a checkpoint");
    else
        status = open_source(c, err);
    if (status != QINS_OK) {
        qins_checkpoint_close(c);
        return status;
    }
    *checkpoint = c;
    return QINS_OK;
}

void qins_checkpoint_close(qins_checkpoint *checkpoint) {
    if (checkpoint == NULL) return;
    struct qins_checkpoint_private *p = checkpoint->private_data;
    if (p != NULL) {
        for (size_t i = 0; i < p->n_maps; i++)
            qins_map_close(&p->maps[i]);
        free(p->maps);
        qins_gguf_free(p->gguf);
        free(p);
    }
    qins_tensor_list list = {.items = checkpoint->tensors, .n = checkpoint->n_tensors};
    qins_tensor_list_free(&list);
    json_decref(checkpoint->config);
    json_decref(checkpoint->generation_config);
    json_decref(checkpoint->tokenizer_config);
    json_decref(checkpoint->metadata);
    free(checkpoint->files);
    free(checkpoint->path);
    free(checkpoint);
}

/* ---- using it ---- */

const qins_tensor *qins_checkpoint_find(const qins_checkpoint *checkpoint, const char *name) {
    qins_tensor key = {.name = name};
    return bsearch(&key, checkpoint->tensors, checkpoint->n_tensors, sizeof key, compare_names);
}

qins_status qins_checkpoint_tokenizer(const qins_checkpoint *checkpoint, json_t **tokenizer, qins_error *err) {
    *tokenizer = NULL;
    if (checkpoint->source == QINS_SOURCE_GGUF)
        return qins_gguf_tokenizer(checkpoint->private_data->gguf, tokenizer, err);
    char *path = qins_format("%s/tokenizer.json", checkpoint->path);
    if (path == NULL) return qins_fail_memory(err, strlen(checkpoint->path), "a path");
    qins_status status = QINS_OK;
    if (!qins_path_exists(path))
        status = qins_fail(err, QINS_ERR_UNSUPPORTED,
                           "%s: there is no tokenizer.json; save the model's fast tokenizer there "
                           "(AutoTokenizer.from_pretrained(...).save_pretrained(...))",
                           checkpoint->path);
    else
        status = qins_read_json(path, tokenizer, err);
    free(path);
    return status;
}

/* Output row -> row in the file, see qins_tensor. */
static size_t source_row(const qins_tensor *tensor, size_t row) {
    if (tensor->rope_pairs != 0) {
        size_t d = tensor->rope_pairs, j = row % d, half = d / 2;
        return row - j + 2 * (j % half) + j / half;
    }
    if (tensor->qkv_heads != 0) {
        size_t d = (size_t)tensor->shape[0] / (3 * tensor->qkv_heads);
        size_t head = row / (3 * d), part = row / d % 3, j = row % d;
        return (part * tensor->qkv_heads + head) * d + j;
    }
    return row;
}

/* n values from value `first` on. */
static void read_values(const qins_tensor *tensor, size_t first, size_t n, float *dst) {
    const qins_type_info *type = &qins_types[tensor->type];
    type->to_float(tensor->data + first / type->block_values * type->block_bytes, dst, n);
}

void qins_tensor_row(const qins_tensor *tensor, size_t row, size_t col, size_t n, float *dst) {
    if (qins_types[tensor->type].to_float == NULL) { /* no weights: something a caller will notice */
        for (size_t i = 0; i < n; i++)
            dst[i] = NAN;
        return;
    }
    bool in_order = tensor->rope_pairs == 0 && tensor->qkv_heads == 0;
    if (tensor->n_dims > 1) {
        size_t n_cols = tensor->shape[0] > 0 ? (size_t)(tensor->n_values / tensor->shape[0]) : 0;
        read_values(tensor, source_row(tensor, row) * n_cols + col, n, dst);
    } else if (in_order) {
        read_values(tensor, col, n, dst);
    } else { /* a bias: its values are permuted as the rows of its matrix are; never a block type */
        for (size_t i = 0; i < n; i++)
            read_values(tensor, source_row(tensor, col + i), 1, dst + i);
    }
    if (tensor->offset < 0.0f) {
        for (size_t i = 0; i < n; i++)
            dst[i] += tensor->offset;
    }
}
