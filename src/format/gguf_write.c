/* Writing a GGUF file: metadata first, then tensors one after the other. SPDX-License-Identifier: MIT
 *
 * Numbers are copied as the machine holds them: little endian, as everywhere in this library.
 */
#include "format/gguf_write.h"

#include <stdlib.h>
#include <string.h>

enum { VERSION = 3, ALIGNMENT = 32 };

/* One metadata entry: where key and value lie in `metadata`. */
typedef struct entry {
    size_t key, n_key, value, n_value;
    qins_gguf_kind kind;
    bool is_array;
    uint64_t count;
} entry;

struct qins_gguf_writer {
    qins_buffer metadata; /* keys and values, as in the file */
    entry *entries;
    size_t n_entries, capacity;
    bool failed; /* an allocation failed */
    qins_tensor_list tensors;
    uint64_t tensor_bytes;
    qins_writer *out;
    size_t current; /* tensor that is being written */
    uint64_t done;  /* bytes of it */
};

qins_status qins_gguf_writer_new(qins_gguf_writer **writer, qins_error *err) {
    *writer = qins_alloc(1, sizeof **writer);
    return *writer != NULL ? QINS_OK : qins_fail_memory(err, sizeof **writer, "a file writer");
}

void qins_gguf_writer_free(qins_gguf_writer *w) {
    if (w == NULL) return;
    qins_buffer_free(&w->metadata);
    free(w->entries);
    qins_tensor_list_free(&w->tensors);
    free(w);
}

/* ---- metadata ---- */

static void add_u32(qins_buffer *b, uint32_t value) {
    qins_buffer_add(b, &value, sizeof value);
}

static void add_u64(qins_buffer *b, uint64_t value) {
    qins_buffer_add(b, &value, sizeof value);
}

void qins_gguf_add_string(qins_buffer *strings, const char *text, size_t n) {
    add_u64(strings, n);
    qins_buffer_add(strings, text, n);
}

static void put(qins_gguf_writer *w, qins_gguf_string key, qins_gguf_kind kind, bool is_array, uint64_t count,
                const void *bytes, size_t n_bytes) {
    if (w->n_entries == w->capacity) {
        size_t capacity = w->capacity > 0 ? 2 * w->capacity : 64;
        entry *entries = reallocarray(w->entries, capacity, sizeof *entries);
        if (entries == NULL) {
            w->failed = true;
            return;
        }
        w->entries = entries;
        w->capacity = capacity;
    }
    qins_buffer *b = &w->metadata;
    entry *e = &w->entries[w->n_entries++];
    *e = (entry){.n_key = key.n, .n_value = n_bytes, .kind = kind, .is_array = is_array, .count = count};
    qins_gguf_add_string(b, key.data, key.n);
    e->key = b->size - key.n;
    add_u32(b, is_array ? QINS_GGUF_ARRAY : kind);
    if (is_array) {
        add_u32(b, kind);
        add_u64(b, count);
    }
    e->value = b->size;
    qins_buffer_add(b, bytes, n_bytes);
}

static qins_gguf_string key_string(const char *key) {
    return (qins_gguf_string){key, strlen(key)};
}

void qins_gguf_put_string(qins_gguf_writer *w, const char *key, const char *text, size_t n) {
    qins_buffer value = {0};
    qins_gguf_add_string(&value, text, n);
    w->failed = w->failed || value.failed;
    put(w, key_string(key), QINS_GGUF_STRING, false, 1, value.data, value.size);
    qins_buffer_free(&value);
}

void qins_gguf_put_u32(qins_gguf_writer *w, const char *key, uint64_t value) {
    uint32_t v = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    put(w, key_string(key), QINS_GGUF_U32, false, 1, &v, sizeof v);
}

void qins_gguf_put_f32(qins_gguf_writer *w, const char *key, double value) {
    float v = (float)value;
    put(w, key_string(key), QINS_GGUF_F32, false, 1, &v, sizeof v);
}

void qins_gguf_put_bool(qins_gguf_writer *w, const char *key, bool value) {
    uint8_t v = value;
    put(w, key_string(key), QINS_GGUF_BOOL, false, 1, &v, sizeof v);
}

void qins_gguf_put_array(qins_gguf_writer *w, const char *key, qins_gguf_kind kind, uint64_t count, const void *bytes,
                         size_t n_bytes) {
    put(w, key_string(key), kind, true, count, bytes, n_bytes);
}

void qins_gguf_put_value(qins_gguf_writer *w, const qins_gguf_value *value) {
    size_t n = qins_gguf_value_bytes(value);
    put(w, value->key, value->kind, value->is_array, value->count, value->data, n);
}

/* ---- tensors ---- */

qins_status qins_gguf_writer_add(qins_gguf_writer *w, const char *name, qins_type type, size_t n_dims,
                                 const uint64_t *shape, qins_error *err) {
    qins_tensor t = {.type = type, .n_dims = n_dims};
    memcpy(t.shape, shape, n_dims * sizeof *shape);
    qins_status status = qins_tensor_measure(&t, name, "GGUF", err);
    if (status == QINS_OK) status = qins_tensor_list_add(&w->tensors, &t, name, strlen(name), "GGUF", err);
    if (status == QINS_OK) w->tensor_bytes += t.n_bytes;
    return status;
}

qins_status qins_gguf_writer_add_f32(qins_gguf_writer *w, const char *name, const float *values, size_t n,
                                     qins_error *err) {
    const uint64_t shape[1] = {n};
    qins_status status = qins_gguf_writer_add(w, name, QINS_TYPE_F32, 1, shape, err);
    if (status == QINS_OK) w->tensors.items[w->tensors.n - 1].data = (const uint8_t *)values;
    return status;
}

qins_status qins_gguf_writer_view(const qins_gguf_writer *w, const char *path, qins_gguf **view, qins_error *err) {
    qins_gguf *g = *view = qins_alloc(1, sizeof *g);
    if (g == NULL || w->failed || w->metadata.failed) return qins_fail_memory(err, w->metadata.size, "metadata");
    g->path = qins_strdup(path);
    g->version = VERSION;
    g->values = qins_alloc(w->n_entries, sizeof *g->values);
    if (g->path == NULL || g->values == NULL) return qins_fail_memory(err, w->metadata.size, "metadata");
    for (size_t i = 0; i < w->n_entries; i++) {
        const entry *e = &w->entries[i];
        g->values[i] = (qins_gguf_value){.key = {w->metadata.data + e->key, e->n_key},
                                         .kind = e->kind,
                                         .is_array = e->is_array,
                                         .count = e->count,
                                         .data = (const uint8_t *)w->metadata.data + e->value};
    }
    g->n_values = w->n_entries;
    qins_gguf_sort(g);
    qins_status status = QINS_OK;
    for (size_t i = 0; i < w->tensors.n && status == QINS_OK; i++) {
        const qins_tensor *t = &w->tensors.items[i];
        status = qins_tensor_list_add(&g->tensors, t, t->name, strlen(t->name), path, err);
    }
    return status;
}

/* ---- the file ---- */

static uint64_t padding(uint64_t n) {
    return (ALIGNMENT - n % ALIGNMENT) % ALIGNMENT;
}

static void put_padding(qins_gguf_writer *w, uint64_t n) {
    static const uint8_t zeros[ALIGNMENT];
    qins_writer_put(w->out, zeros, (size_t)padding(n));
}

qins_status qins_gguf_writer_begin(qins_gguf_writer *w, qins_writer *out, qins_error *err) {
    qins_buffer head = {0}, infos = {0};
    uint64_t offset = 0;
    qins_buffer_add(&head, "GGUF", 4);
    add_u32(&head, VERSION);
    add_u64(&head, w->tensors.n);
    add_u64(&head, w->n_entries);
    for (size_t i = 0; i < w->tensors.n; i++) {
        const qins_tensor *t = &w->tensors.items[i];
        qins_gguf_add_string(&infos, t->name, strlen(t->name));
        add_u32(&infos, (uint32_t)t->n_dims);
        for (size_t d = t->n_dims; d-- > 0;) /* fastest first */
            add_u64(&infos, t->shape[d]);
        add_u32(&infos, qins_gguf_type_number(t->type));
        add_u64(&infos, offset);
        offset += t->n_bytes + padding(t->n_bytes);
    }
    w->out = out;
    bool failed = w->failed || w->metadata.failed || head.failed || infos.failed;
    if (!failed) {
        qins_writer_put(out, head.data, head.size);
        qins_writer_put(out, w->metadata.data, w->metadata.size);
        qins_writer_put(out, infos.data, infos.size);
        put_padding(w, head.size + w->metadata.size + infos.size);
    }
    size_t size = head.size + infos.size;
    qins_buffer_free(&head);
    qins_buffer_free(&infos);
    return failed ? qins_fail_memory(err, size, "the header of a GGUF file") : QINS_OK;
}

qins_status qins_gguf_writer_put(qins_gguf_writer *w, const void *data, size_t n, qins_error *err) {
    const qins_tensor *t = &w->tensors.items[w->current];
    if (w->current >= w->tensors.n || n > t->n_bytes - w->done)
        return qins_fail(err, QINS_ERR_ARGUMENT, "%s: more bytes than its tensors have", w->out->path);
    qins_writer_put(w->out, data, n);
    w->done += n;
    if (w->done == t->n_bytes) {
        put_padding(w, t->n_bytes);
        w->current++;
        w->done = 0;
    }
    if (w->out->error == 0) return QINS_OK;
    return qins_fail(err, QINS_ERR_IO, "%s: cannot write: %s", w->out->path, strerror(w->out->error));
}

qins_status qins_gguf_writer_finish(qins_gguf_writer *w, qins_error *err) {
    if (w->current == w->tensors.n) return QINS_OK;
    const qins_tensor *t = &w->tensors.items[w->current];
    return qins_fail(err, QINS_ERR_ARGUMENT, "%s: tensor %s: %llu of %llu bytes written", w->out->path, t->name,
                     (unsigned long long)w->done, (unsigned long long)t->n_bytes);
}

uint64_t qins_gguf_writer_tensor_bytes(const qins_gguf_writer *w) {
    return w->tensor_bytes;
}
