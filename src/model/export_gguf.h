/* Any checkpoint in, a GGUF file out. SPDX-License-Identifier: MIT */
#ifndef QINS_EXPORT_GGUF_H
#define QINS_EXPORT_GGUF_H

#include "model/weights.h"

/* Writes the model as one GGUF file, atomically. *stored_bytes (may be NULL): tensor bytes written. */
qins_status qins_export_gguf(const qins_weights *weights, const char *out_path, const qins_export_options *options,
                             uint64_t *stored_bytes, qins_error *err);

#endif
