/* Makes GGUF files in memory, good and bad ones. SPDX-License-Identifier: MIT */
#ifndef QINS_TEST_GGUF_FILE_H
#define QINS_TEST_GGUF_FILE_H

#include "testing.h"

#include "format/gguf.h"

typedef struct gguf_file {
    qins_buffer head;  /* metadata entries */
    qins_buffer infos; /* tensor entries */
    qins_buffer data;
    uint64_t n_values, n_tensors;
} gguf_file;

static inline void put_le(qins_buffer *b, uint64_t value, size_t n) {
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    qins_buffer_add(b, bytes, n);
}

static inline void put_gguf_string(qins_buffer *b, const char *s) {
    put_le(b, strlen(s), 8);
    qins_buffer_add(b, s, strlen(s));
}

static inline void gguf_key(gguf_file *f, const char *key, uint32_t kind) {
    put_gguf_string(&f->head, key);
    put_le(&f->head, kind, 4);
    f->n_values++;
}

static inline void gguf_u32(gguf_file *f, const char *key, uint32_t value) {
    gguf_key(f, key, QINS_GGUF_U32);
    put_le(&f->head, value, 4);
}

static inline void gguf_bool(gguf_file *f, const char *key, bool value) {
    gguf_key(f, key, QINS_GGUF_BOOL);
    put_le(&f->head, value, 1);
}

static inline void gguf_f32(gguf_file *f, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    gguf_key(f, key, QINS_GGUF_F32);
    put_le(&f->head, bits, 4);
}

static inline void gguf_string(gguf_file *f, const char *key, const char *value) {
    gguf_key(f, key, QINS_GGUF_STRING);
    put_gguf_string(&f->head, value);
}

static inline void gguf_strings(gguf_file *f, const char *key, const char *const *values, size_t n) {
    gguf_key(f, key, QINS_GGUF_ARRAY);
    put_le(&f->head, QINS_GGUF_STRING, 4);
    put_le(&f->head, n, 8);
    for (size_t i = 0; i < n; i++)
        put_gguf_string(&f->head, values[i]);
}

static inline void gguf_i32s(gguf_file *f, const char *key, const int32_t *values, size_t n) {
    gguf_key(f, key, QINS_GGUF_ARRAY);
    put_le(&f->head, QINS_GGUF_I32, 4);
    put_le(&f->head, n, 8);
    for (size_t i = 0; i < n; i++)
        put_le(&f->head, (uint32_t)values[i], 4);
}

static inline void gguf_f32s(gguf_file *f, const char *key, const float *values, size_t n) {
    gguf_key(f, key, QINS_GGUF_ARRAY);
    put_le(&f->head, QINS_GGUF_F32, 4);
    put_le(&f->head, n, 8);
    qins_buffer_add(&f->head, values, n * sizeof *values);
}

/* dims fastest first, as in the file; offset within the data part. */
static inline void gguf_info(gguf_file *f, const char *name, size_t n_dims, const uint64_t *dims, uint32_t type,
                             uint64_t offset) {
    put_gguf_string(&f->infos, name);
    put_le(&f->infos, n_dims, 4);
    for (size_t i = 0; i < n_dims; i++)
        put_le(&f->infos, dims[i], 8);
    put_le(&f->infos, type, 4);
    put_le(&f->infos, offset, 8);
    f->n_tensors++;
}

/* A tensor with its bytes, aligned to 32. */
static inline void gguf_tensor(gguf_file *f, const char *name, size_t n_dims, const uint64_t *dims, uint32_t type,
                               const void *bytes, size_t n) {
    static const uint8_t zeros[32];
    qins_buffer_add(&f->data, zeros, (32 - f->data.size % 32) % 32);
    gguf_info(f, name, n_dims, dims, type, f->data.size);
    qins_buffer_add(&f->data, bytes, n);
}

/* An F32 tensor [rows][cols] (a vector when rows is 0) of the values first, first + 1, ... */
static inline void gguf_counting(gguf_file *f, const char *name, uint64_t rows, uint64_t cols, float first) {
    size_t n = (size_t)((rows > 0 ? rows : 1) * cols);
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = first + (float)i;
    const uint64_t dims[2] = {cols, rows};
    gguf_tensor(f, name, rows > 0 ? 2 : 1, dims, 0, values, n * sizeof *values);
    free(values);
}

/* The bytes of the file; frees f. */
static inline uint8_t *gguf_bytes(gguf_file *f, size_t *size) {
    static const uint8_t zeros[32];
    qins_buffer b = {0};
    qins_buffer_add(&b, "GGUF", 4);
    put_le(&b, 3, 4);
    put_le(&b, f->n_tensors, 8);
    put_le(&b, f->n_values, 8);
    qins_buffer_add(&b, f->head.data, f->head.size);
    qins_buffer_add(&b, f->infos.data, f->infos.size);
    qins_buffer_add(&b, zeros, (32 - b.size % 32) % 32);
    qins_buffer_add(&b, f->data.data, f->data.size);
    assert_false(b.failed);
    qins_buffer_free(&f->head);
    qins_buffer_free(&f->infos);
    qins_buffer_free(&f->data);
    *f = (gguf_file){0};
    *size = b.size;
    return (uint8_t *)b.data;
}

#endif
