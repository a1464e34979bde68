/* The files of a Hugging Face directory that are not weights. SPDX-License-Identifier: MIT */
#ifndef QINS_SIDE_FILES_H
#define QINS_SIDE_FILES_H

#include "format/checkpoint.h"

/* Writes config.json (quantization: its quantization_config, or NULL for a plain checkpoint; dtype: "float32" ... or
 * NULL to keep what is there), tokenizer and generation files of the checkpoint into the output directory. */
qins_status qins_write_side_files(const qins_checkpoint *checkpoint, qins_outdir *out, json_t *quantization,
                                  const char *dtype, qins_error *err);
/* Writes a JSON document, indented. */
/* What qins_write_json puts into a file; freed with free(). NULL when out of memory. */
char *qins_json_file_text(const json_t *json, size_t *n_bytes);
qins_status qins_write_json(qins_outdir *out, const char *name, const json_t *json, qins_error *err);

#endif
