/* Safetensors files from memory: header, then the rows of every tensor. SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include "format/safetensors.h"
#include "read_rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qins_tensor_list tensors = {0};
    json_t *metadata = NULL;
    qins_error err = {0};
    qins_status status = qins_safetensors_parse(data, size, "input", &tensors, &metadata, &err);
    if (status == QINS_OK) read_rows(&tensors);
    qins_tensor_list_free(&tensors);
    json_decref(metadata);
    return status == QINS_OK ? 0 : -1;
}
