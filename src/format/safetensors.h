/* Parser of one safetensors file. SPDX-License-Identifier: MIT
 *
 * https://huggingface.co/docs/safetensors: 8 bytes header length, header (JSON), then the tensors, which must cover the
 * rest of the file without gaps and overlaps.
 */
#ifndef QINS_SAFETENSORS_H
#define QINS_SAFETENSORS_H

#include "format/checkpoint_private.h"

enum { QINS_SAFETENSORS_MAX_HEADER = 100000000 }; /* as in the reference implementation */

/* Appends the tensors of the file at data[0..size) to *tensors; they point into data. *metadata becomes a new reference
 * to the __metadata__ object, or NULL when there is none. path is for messages. On failure *tensors may hold some. */
qins_status qins_safetensors_parse(const uint8_t *data, size_t size, const char *path, qins_tensor_list *tensors,
                                   json_t **metadata, qins_error *err);

#endif
