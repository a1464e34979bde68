/* A sequence of the KV cache as a file. SPDX-License-Identifier: MIT */
#ifndef QINS_KV_FILE_H
#define QINS_KV_FILE_H

#include "model/kv_cache.h"

/* model: fingerprint of what the rows depend on; a file is only read back for the same one. Atomically: a temporary
 * name, synced, renamed. */
qins_status qins_kv_save(const qins_kv_cache *c, size_t seq, uint64_t model, const char *path, qins_error *err);
/* Replaces a sequence. The file is checked first: when it is refused nothing has changed. */
qins_status qins_kv_load(qins_kv_cache *c, size_t seq, uint64_t model, size_t vocab_size, const char *path,
                         qins_error *err);
/* The same from memory; name is for messages. */
qins_status qins_kv_parse(qins_kv_cache *c, size_t seq, uint64_t model, size_t vocab_size, const uint8_t *data,
                          size_t size, const char *name, qins_error *err);

#endif
