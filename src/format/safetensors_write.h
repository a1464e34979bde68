/* Writing a safetensors file whose tensors arrive in any order. SPDX-License-Identifier: MIT */
#ifndef QINS_SAFETENSORS_WRITE_H
#define QINS_SAFETENSORS_WRITE_H

#include "base/base.h"

#include <jansson.h>

typedef struct qins_st_writer qins_st_writer;

/* with_hashes: the metadata gets "qins_xxh3_64", a JSON object of tensor name -> XXH3-64 in hex. */
qins_status qins_st_writer_new(bool with_hashes, qins_st_writer **writer, qins_error *err);
/* Declares a tensor; the order of declaration is the order in the file. *index names it from then on. */
qins_status qins_st_writer_add(qins_st_writer *w, const char *name, const char *dtype, size_t n_dims,
                               const uint64_t *shape, uint64_t n_bytes, size_t *index, qins_error *err);
/* What `begin` will reserve for the header, padding included. */
qins_status qins_st_writer_lay_out(qins_st_writer *w, const json_t *metadata, uint64_t *header_bytes, qins_error *err);
/* Creates dir/file and reserves the header. metadata: an object of strings (borrowed) or NULL. */
qins_status qins_st_writer_begin(qins_st_writer *w, const char *dir, const char *file, const json_t *metadata,
                                 qins_error *err);
/* Bytes of a tensor, in order within the tensor. */
qins_status qins_st_writer_put(qins_st_writer *w, size_t index, uint64_t offset, const void *data, size_t n,
                               qins_error *err);
/* Gives a tensor of one dimension the size that was written, at most the declared one; those after it move up and must
 * not have been begun. */
void qins_st_writer_resize(qins_st_writer *w, size_t index, uint64_t n_bytes);
/* Checks that every tensor is whole, writes the header, syncs. The header's size and hash go to *header_bytes and
 * *header_hash (both may be NULL). */
qins_status qins_st_writer_finish(qins_st_writer *w, uint64_t *header_bytes, uint64_t *header_hash, qins_error *err);
/* Sum of declared tensor bytes. */
uint64_t qins_st_writer_tensor_bytes(const qins_st_writer *w);
void qins_st_writer_free(qins_st_writer *w);

#endif
