/* Config, tokenizer and generation files of an output directory. SPDX-License-Identifier: MIT */
#include "model/side_files.h"

#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SIDE_FILE = 256 << 20 };

/* Copied as they are when the source directory has them. */
static const char *const copied[] = {"tokenizer.json",
                                     "tokenizer_config.json",
                                     "special_tokens_map.json",
                                     "added_tokens.json",
                                     "generation_config.json",
                                     "chat_template.jinja",
                                     "vocab.json",
                                     "merges.txt",
                                     "tokenizer.model",
                                     "LICENSE"};

char *qins_json_file_text(const json_t *json, size_t *n_bytes) {
    char *text = json_dumps(json, JSON_INDENT(2));
    if (text == NULL) return NULL;
    *n_bytes = strlen(text) + 1;
    text[*n_bytes - 1] = '\n'; /* in place of the NUL */
    return text;
}

qins_status qins_write_json(qins_outdir *out, const char *name, const json_t *json, qins_error *err) {
    size_t n;
    char *text = qins_json_file_text(json, &n);
    if (text == NULL) return qins_fail_memory(err, 0, name);
    qins_status status = qins_outdir_write(out, name, text, n, err);
    free(text);
    return status;
}

static qins_status write_config(const qins_checkpoint *c, qins_outdir *out, json_t *quantization, const char *dtype,
                                qins_error *err) {
    json_t *config = json_deep_copy(c->config);
    if (config == NULL) return qins_fail_memory(err, 0, "config.json");
    json_object_del(config, "quantization_config");
    json_object_del(config, QINS_ORIENTATION_KEY); /* what is written is in the order of Hugging Face files */
    if (quantization != NULL) json_object_set(config, "quantization_config", quantization);
    if (dtype != NULL) {
        const char *key = json_object_get(config, "dtype") != NULL ? "dtype" : "torch_dtype";
        json_object_set_new(config, key, json_string(dtype));
    }
    qins_status status = qins_write_json(out, "config.json", config, err);
    json_decref(config);
    return status;
}

static qins_status copy_files(const qins_checkpoint *c, qins_outdir *out, qins_error *err) {
    qins_status status = QINS_OK;
    for (size_t i = 0; i < sizeof copied / sizeof copied[0] && status == QINS_OK; i++) {
        char *path = qins_format("%s/%s", c->path, copied[i]), *data = NULL;
        size_t n = 0;
        if (path == NULL) return qins_fail_memory(err, strlen(c->path), "a path");
        if (qins_path_exists(path)) {
            status = qins_read_file(path, MAX_SIDE_FILE, &data, &n, err);
            if (status == QINS_OK && n > 0) status = qins_outdir_write(out, copied[i], data, n, err);
        }
        free(data);
        free(path);
    }
    return status;
}

static qins_status write_built_files(const qins_checkpoint *c, qins_outdir *out, qins_error *err) {
    json_t *tokenizer = NULL;
    qins_status status = qins_checkpoint_tokenizer(c, &tokenizer, err);
    if (status == QINS_OK) status = qins_write_json(out, "tokenizer.json", tokenizer, err);
    json_decref(tokenizer);
    if (status == QINS_OK && c->tokenizer_config != NULL)
        status = qins_write_json(out, "tokenizer_config.json", c->tokenizer_config, err);
    if (status == QINS_OK && c->generation_config != NULL)
        status = qins_write_json(out, "generation_config.json", c->generation_config, err);
    return status;
}

qins_status qins_write_side_files(const qins_checkpoint *c, qins_outdir *out, json_t *quantization, const char *dtype,
                                  qins_error *err) {
    qins_status status = c->source == QINS_SOURCE_GGUF ? write_built_files(c, out, err) : copy_files(c, out, err);
    return status == QINS_OK ? write_config(c, out, quantization, dtype, err) : status;
}
