/* Opening a model that is one or several GGUF files. SPDX-License-Identifier: MIT */
#include "format/gguf.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- split files: PREFIX-00001-of-00003.gguf ---- */

static const char tail_pattern[] = "-00000-of-00000.gguf"; /* 0 stands for a digit */
enum { TAIL = sizeof tail_pattern - 1, FIRST_DIGIT = 1, COUNT_DIGIT = 10, DIGITS = 5 };

static long digits(const char *s) {
    long n = 0;
    for (int i = 0; i < DIGITS; i++)
        n = 10 * n + (s[i] - '0');
    return n;
}

/* Number of files by the name, or 0 when this is no name of a part. */
static long parts_by_name(const char *path) {
    size_t n = strlen(path);
    if (n < TAIL) return 0;
    const char *tail = path + n - TAIL;
    for (size_t i = 0; i < TAIL; i++) {
        bool good = tail_pattern[i] == '0' ? isdigit((unsigned char)tail[i]) != 0 : tail[i] == tail_pattern[i];
        if (!good) return 0;
    }
    return digits(tail + COUNT_DIGIT);
}

/* Path of part i (from 1). */
static char *part_path(const char *path, long i, long count) {
    return qins_format("%.*s-%05ld-of-%05ld.gguf", (int)(strlen(path) - TAIL), path, i, count);
}

/* A part must say that it is this one of so many. */
static qins_status check_part(const qins_gguf *g, long i, long count, qins_error *err) {
    int64_t no = 0, of = 0;
    bool has_no = qins_gguf_get_integer(g, "split.no", &no), has_count = qins_gguf_get_integer(g, "split.count", &of);
    if (!has_no || !has_count || no != i - 1 || of != count)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: expected part %ld of %ld by its name; its metadata says part %" PRId64 " of %" PRId64,
                         g->path, i, count, no + 1, of);
    return QINS_OK;
}

/* Appends the tensors of `from` to those of `to`, which takes them over. */
static qins_status move_tensors(qins_gguf *to, qins_gguf *from, qins_error *err) {
    size_t n = to->tensors.n + from->tensors.n;
    if (from->tensors.n == 0) return QINS_OK;
    qins_tensor *items = reallocarray(to->tensors.items, n, sizeof *items);
    if (items == NULL) return qins_fail_memory(err, n * sizeof *items, "a list of tensors");
    memcpy(items + to->tensors.n, from->tensors.items, from->tensors.n * sizeof *items);
    to->tensors = (qins_tensor_list){items, n, n};
    from->tensors.n = 0;
    return QINS_OK;
}

static qins_status map_and_parse(qins_checkpoint *checkpoint, const char *path, qins_gguf **g, qins_error *err) {
    const qins_map *map = NULL;
    qins_status status = qins_checkpoint_map(checkpoint, path, &map, err);
    if (status == QINS_OK) status = qins_gguf_parse(map->data, map->size, path, g, err);
    return status;
}

/* Parts 2 and on; the first is in checkpoint->private_data->gguf and takes their tensors. */
static qins_status open_parts(const char *path, long count, qins_checkpoint *checkpoint, qins_error *err) {
    qins_gguf *first = checkpoint->private_data->gguf;
    qins_status status = check_part(first, 1, count, err);
    for (long i = 2; i <= count && status == QINS_OK; i++) {
        char *name = part_path(path, i, count);
        qins_gguf *part = NULL;
        status =
            name != NULL ? map_and_parse(checkpoint, name, &part, err) : qins_fail_memory(err, strlen(path), "a path");
        if (status == QINS_OK) status = check_part(part, i, count, err);
        if (status == QINS_OK) status = move_tensors(first, part, err);
        qins_gguf_free(part);
        free(name);
    }
    int64_t n_tensors;
    if (status == QINS_OK && qins_gguf_get_integer(first, "split.tensors.count", &n_tensors) &&
        n_tensors != (int64_t)first->tensors.n)
        status = qins_fail(err, QINS_ERR_FORMAT, "%s: its metadata says %" PRId64 " tensors, its %ld files hold %zu",
                           path, n_tensors, count, first->tensors.n);
    return status;
}

static qins_status open_files(const char *path, qins_checkpoint *checkpoint, qins_error *err) {
    qins_gguf **first = &checkpoint->private_data->gguf;
    long by_name = parts_by_name(path);
    if (by_name > 1) {
        char *name = part_path(path, 1, by_name);
        if (name == NULL) return qins_fail_memory(err, strlen(path), "a path");
        qins_status status = map_and_parse(checkpoint, name, first, err);
        free(name);
        return status == QINS_OK ? open_parts(path, by_name, checkpoint, err) : status;
    }
    qins_status status = map_and_parse(checkpoint, path, first, err);
    int64_t count = 0;
    if (status == QINS_OK && qins_gguf_get_integer(*first, "split.count", &count) && count > 1)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: is one of %" PRId64 " files of a split model; name them ...-00001-of-%05" PRId64
                         ".gguf and so on, in one directory",
                         path, count, count);
    return status;
}

/* ---- the checkpoint ---- */

/* eos_token_id as a list when the file names other tokens that end a turn. */
static void make_generation_config(const qins_gguf *g, json_t **config) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    json_t *ids = json_array();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int64_t id;
        bool is_new = qins_gguf_get_integer(g, keys[i], &id);
        for (size_t k = 0; is_new && k < json_array_size(ids); k++)
            is_new = json_integer_value(json_array_get(ids, k)) != id;
        if (is_new) json_array_append_new(ids, json_integer(id));
    }
    if (json_array_size(ids) > 1)
        *config = json_pack("{s:o}", "eos_token_id", ids);
    else
        json_decref(ids);
}

qins_status qins_gguf_open(const char *path, qins_checkpoint *checkpoint, qins_error *err) {
    checkpoint->source = QINS_SOURCE_GGUF;
    qins_status status = open_files(path, checkpoint, err);
    const qins_gguf *g = checkpoint->private_data->gguf;
    const qins_gguf_arch *arch = NULL;
    qins_tensor_list tensors = {0};
    if (status == QINS_OK) status = qins_gguf_find_arch(g, &arch, err);
    if (status == QINS_OK) status = qins_gguf_config(g, arch, &checkpoint->config, err);
    if (status == QINS_OK) status = qins_gguf_translate(arch, checkpoint->config, path, &g->tensors, &tensors, err);
    if (status == QINS_OK) status = qins_checkpoint_set_tensors(checkpoint, &tensors, err);
    if (status == QINS_OK) status = qins_gguf_tokenizer_config(g, &checkpoint->tokenizer_config, err);
    if (status == QINS_OK) make_generation_config(g, &checkpoint->generation_config);
    qins_tensor_list_free(&tensors);
    return status;
}
