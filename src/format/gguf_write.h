/* Writing a GGUF file: metadata first, then tensors one after the other. SPDX-License-Identifier: MIT */
#ifndef QINS_GGUF_WRITE_H
#define QINS_GGUF_WRITE_H

#include "format/gguf.h"

typedef struct qins_gguf_writer qins_gguf_writer;

qins_status qins_gguf_writer_new(qins_gguf_writer **writer, qins_error *err);
void qins_gguf_writer_free(qins_gguf_writer *writer);

/* ---- metadata: a failed allocation is reported by qins_gguf_writer_begin ---- */

void qins_gguf_put_string(qins_gguf_writer *w, const char *key, const char *text, size_t n);
void qins_gguf_put_u32(qins_gguf_writer *w, const char *key, uint64_t value); /* at most UINT32_MAX */
void qins_gguf_put_f32(qins_gguf_writer *w, const char *key, double value);
void qins_gguf_put_bool(qins_gguf_writer *w, const char *key, bool value);
/* An array of count items; bytes as they are in the file (strings: qins_gguf_add_string). */
void qins_gguf_put_array(qins_gguf_writer *w, const char *key, qins_gguf_kind kind, uint64_t count, const void *bytes,
                         size_t n_bytes);
/* A value of another file. */
void qins_gguf_put_value(qins_gguf_writer *w, const qins_gguf_value *value);
/* Appends a string as it is in a file: length and bytes. */
void qins_gguf_add_string(qins_buffer *strings, const char *text, size_t n);

/* ---- tensors ---- */

/* Declares a tensor; shape slowest first. The order of declaration is the order in the file. */
qins_status qins_gguf_writer_add(qins_gguf_writer *w, const char *name, qins_type type, size_t n_dims,
                                 const uint64_t *shape, qins_error *err);
/* The same with its values at hand (they must outlive the writer), so that whoever looks at the header can read them.
 */
qins_status qins_gguf_writer_add_f32(qins_gguf_writer *w, const char *name, const float *values, size_t n,
                                     qins_error *err);
/* What a reader of the header will see. Valid until the writer changes; freed with qins_gguf_free. */
qins_status qins_gguf_writer_view(const qins_gguf_writer *w, const char *path, qins_gguf **view, qins_error *err);

/* Writes the header to `out`. */
qins_status qins_gguf_writer_begin(qins_gguf_writer *w, qins_writer *out, qins_error *err);
/* The next bytes of the data: tensors in order, each whole. */
qins_status qins_gguf_writer_put(qins_gguf_writer *w, const void *data, size_t n, qins_error *err);
/* Checks that every tensor is whole. */
qins_status qins_gguf_writer_finish(qins_gguf_writer *w, qins_error *err);
/* Sum of declared tensor bytes. */
uint64_t qins_gguf_writer_tensor_bytes(const qins_gguf_writer *w);

/* n floats (a multiple of 32) as Q8_0 blocks, bit-exact with gguf-py. */
void qins_quantize_q8_0(const float *src, size_t n, uint8_t *dst);

#endif
