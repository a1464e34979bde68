/* GGUF files from memory: everything that is made of one. SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include "format/gguf.h"
#include "read_rows.h"

static qins_status translate(const qins_gguf *g, qins_error *err) {
    const qins_gguf_arch *arch = NULL;
    json_t *config = NULL;
    qins_tensor_list tensors = {0};
    qins_status status = qins_gguf_find_arch(g, &arch, err);
    if (status == QINS_OK) status = qins_gguf_config(g, arch, &config, err);
    if (status == QINS_OK) status = qins_gguf_translate(arch, config, "input", &g->tensors, &tensors, err);
    if (status == QINS_OK) read_rows(&tensors);
    qins_tensor_list_free(&tensors);
    json_decref(config);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qins_gguf *g = NULL;
    qins_error err = {0};
    if (qins_gguf_parse(data, size, "input", &g, &err) != QINS_OK) return -1;
    read_rows(&g->tensors);
    json_t *tokenizer = NULL, *tokenizer_config = NULL;
    qins_status model = translate(g, &err), text = qins_gguf_tokenizer(g, &tokenizer, &err);
    (void)qins_gguf_tokenizer_config(g, &tokenizer_config, &err);
    json_decref(tokenizer);
    json_decref(tokenizer_config);
    qins_gguf_free(g);
    return model == QINS_OK || text == QINS_OK ? 0 : -1;
}
