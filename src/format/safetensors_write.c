/* Writing a safetensors file whose tensors arrive in any order. SPDX-License-Identifier: MIT
 *
 * The header comes first in the file but holds the hashes of what follows: it is laid out with hashes of the final
 * length, reserved, and written at the end. The data begins on a 64-byte boundary, so that tensors of a multiple of 64
 * bytes stay aligned when the file is mapped.
 */
#include "format/safetensors_write.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { DATA_ALIGNMENT = 64, LENGTH_BYTES = 8 };

typedef struct out_tensor {
    char *name;
    const char *dtype;
    size_t n_dims;
    uint64_t shape[4];
    uint64_t n_bytes, begin, done;
    XXH3_state_t *hash;
} out_tensor;

struct qins_st_writer {
    bool with_hashes, open;
    out_tensor *tensors;
    size_t n_tensors, capacity;
    uint64_t total, data_start;
    json_t *metadata;
    qins_writer file;
};

qins_status qins_st_writer_new(bool with_hashes, qins_st_writer **writer, qins_error *err) {
    *writer = qins_alloc(1, sizeof **writer);
    if (*writer == NULL) return qins_fail_memory(err, sizeof **writer, "a file writer");
    (*writer)->with_hashes = with_hashes;
    return QINS_OK;
}

qins_status qins_st_writer_add(qins_st_writer *w, const char *name, const char *dtype, size_t n_dims,
                               const uint64_t *shape, uint64_t n_bytes, size_t *index, qins_error *err) {
    if (w->n_tensors == w->capacity) {
        size_t capacity = w->capacity > 0 ? 2 * w->capacity : 64;
        out_tensor *tensors = realloc(w->tensors, capacity * sizeof *tensors);
        if (tensors == NULL) return qins_fail_memory(err, capacity * sizeof *tensors, "tensor names");
        w->tensors = tensors;
        w->capacity = capacity;
    }
    out_tensor *t = &w->tensors[w->n_tensors];
    *t = (out_tensor){
        .name = qins_strdup(name), .dtype = dtype, .n_dims = n_dims, .n_bytes = n_bytes, .begin = w->total};
    if (w->with_hashes) t->hash = XXH3_createState();
    if (t->name == NULL || (w->with_hashes && (t->hash == NULL || XXH3_64bits_reset(t->hash) != XXH_OK))) {
        XXH3_freeState(t->hash);
        free(t->name);
        return qins_fail_memory(err, strlen(name), "tensor names");
    }
    memcpy(t->shape, shape, n_dims * sizeof *shape);
    w->total += n_bytes;
    *index = w->n_tensors++;
    return QINS_OK;
}

static json_t *tensor_entry(const out_tensor *t) {
    json_t *shape = json_array();
    for (size_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", t->dtype, "shape", shape, "data_offsets", (json_int_t)t->begin,
                     (json_int_t)(t->begin + t->n_bytes));
}

/* The header text; hashes of bytes not yet put are those of nothing, of the same length. NULL when out of memory. */
static char *header_text(const qins_st_writer *w) {
    json_t *header = json_object(), *metadata = json_pack("{s:s}", "format", "pt"), *hashes = json_object();
    if (w->metadata != NULL) json_object_update(metadata, w->metadata);
    for (size_t i = 0; w->with_hashes && i < w->n_tensors; i++) {
        char hex[17];
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)XXH3_64bits_digest(w->tensors[i].hash));
        json_object_set_new(hashes, w->tensors[i].name, json_string(hex));
    }
    char *hash_text = w->with_hashes ? json_dumps(hashes, JSON_COMPACT) : NULL;
    if (hash_text != NULL) json_object_set_new(metadata, "qins_xxh3_64", json_string(hash_text));
    free(hash_text);
    json_object_set_new(header, "__metadata__", metadata);
    for (size_t i = 0; i < w->n_tensors; i++)
        json_object_set_new(header, w->tensors[i].name, tensor_entry(&w->tensors[i]));
    bool whole = json_object_size(header) == w->n_tensors + 1;
    char *text = whole ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    json_decref(hashes);
    return text;
}

qins_status qins_st_writer_lay_out(qins_st_writer *w, const json_t *metadata, uint64_t *header_bytes, qins_error *err) {
    json_decref(w->metadata);
    w->metadata = metadata != NULL ? json_deep_copy(metadata) : NULL;
    char *text = header_text(w);
    if (text == NULL) return qins_fail_memory(err, 0, "the header (or two tensors have the same name)");
    w->data_start = qins_round_up(LENGTH_BYTES + strlen(text), DATA_ALIGNMENT);
    free(text);
    *header_bytes = w->data_start;
    return QINS_OK;
}

qins_status qins_st_writer_begin(qins_st_writer *w, const char *dir, const char *file, const json_t *metadata,
                                 qins_error *err) {
    uint64_t header_bytes;
    qins_status status = qins_st_writer_lay_out(w, metadata, &header_bytes, err);
    if (status != QINS_OK) return status;
    status = qins_writer_open(&w->file, dir, file, err);
    w->open = status == QINS_OK;
    return status;
}

qins_status qins_st_writer_put(qins_st_writer *w, size_t index, uint64_t offset, const void *data, size_t n,
                               qins_error *err) {
    out_tensor *t = &w->tensors[index];
    if (offset != t->done || n > t->n_bytes - t->done)
        return qins_fail(err, QINS_ERR_ARGUMENT, "%s: bytes written out of order", t->name);
    qins_writer_put_at(&w->file, w->data_start + t->begin + offset, data, n);
    if (t->hash != NULL) XXH3_64bits_update(t->hash, data, n);
    t->done += n;
    if (w->file.error != 0)
        return qins_fail(err, QINS_ERR_IO, "%s: cannot write: %s", w->file.path, strerror(w->file.error));
    return QINS_OK;
}

void qins_st_writer_resize(qins_st_writer *w, size_t index, uint64_t n_bytes) {
    uint64_t less = w->tensors[index].n_bytes - n_bytes;
    w->tensors[index].n_bytes = w->tensors[index].shape[0] = n_bytes;
    for (size_t i = index + 1; i < w->n_tensors; i++)
        w->tensors[i].begin -= less;
    w->total -= less;
}

qins_status qins_st_writer_finish(qins_st_writer *w, uint64_t *header_bytes, uint64_t *header_hash, qins_error *err) {
    for (size_t i = 0; i < w->n_tensors; i++)
        if (w->tensors[i].done != w->tensors[i].n_bytes)
            return qins_fail(err, QINS_ERR_ARGUMENT, "%s: %llu of %llu bytes written", w->tensors[i].name,
                             (unsigned long long)w->tensors[i].done, (unsigned long long)w->tensors[i].n_bytes);
    char *text = header_text(w), *header = qins_alloc(w->data_start, 1);
    if (text == NULL || header == NULL || strlen(text) + LENGTH_BYTES > w->data_start) {
        free(text);
        free(header);
        return qins_fail_memory(err, w->data_start, "the header");
    }
    memset(header, ' ', w->data_start);
    uint64_t length = w->data_start - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES; i++)
        header[i] = (char)(length >> 8 * i & 255);
    memcpy(header + LENGTH_BYTES, text, strlen(text));
    qins_writer_put_at(&w->file, 0, header, w->data_start);
    if (header_bytes != NULL) *header_bytes = w->data_start;
    if (header_hash != NULL) *header_hash = XXH3_64bits(header, w->data_start);
    free(text);
    free(header);
    w->open = false;
    return qins_writer_close(&w->file, err);
}

uint64_t qins_st_writer_tensor_bytes(const qins_st_writer *w) {
    return w->total;
}

void qins_st_writer_free(qins_st_writer *w) {
    if (w == NULL) return;
    if (w->open) qins_writer_close(&w->file, NULL);
    for (size_t i = 0; i < w->n_tensors; i++) {
        XXH3_freeState(w->tensors[i].hash);
        free(w->tensors[i].name);
    }
    free(w->tensors);
    json_decref(w->metadata);
    free(w);
}
