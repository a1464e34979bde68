/* `qins pack`, `qins unpack` and the lossless tier. SPDX-License-Identifier: MIT */
#include "model/repack.h"

#include "model/receipt.h"
#include "model/side_files.h"

#include <stdlib.h>
#include <string.h>

/* The quantization_config of the result: what the source says, or that it is lossless; NULL for a plain checkpoint. */
static json_t *repacked_config(const qins_checkpoint *c, const qins_dir *contents, bool code) {
    if (contents == NULL || contents->n_tensors == 0) {
        if (!code) return NULL;
        return json_pack("{s:s, s:i, s:s, s:s}", "quant_method", "qins", "version", QINS_FORMAT_VERSION, "codec",
                         "lossless", "pack", "entropy");
    }
    json_t *config = json_deep_copy(json_object_get(c->config, "quantization_config"));
    if (config == NULL) config = json_pack("{s:s, s:i}", "quant_method", "qins", "version", QINS_FORMAT_VERSION);
    if (code)
        json_object_set_new(config, "pack", json_string("entropy"));
    else
        json_object_del(config, "pack");
    return config;
}

/* What the source's receipt says holds: the codes are the same. Only the manifest, the stored bytes and the packing are
 * others. */
static qins_status carry_receipt(const char *source, qins_outdir *out, json_t *config, uint64_t stored_bytes,
                                 qins_error *err) {
    json_t *receipt = NULL;
    bool sealed = false;
    char manifest[17], *text = NULL;
    size_t n = 0;
    qins_status status = qins_receipt_read(source, &receipt, &sealed, err);
    if (status != QINS_OK || receipt == NULL || !sealed) {
        json_decref(receipt);
        return status;
    }
    status = qins_receipt_manifest_hash(qins_outdir_temp(out), manifest, err);
    if (status == QINS_OK) {
        json_t *made = json_object_get(receipt, "compress"), *sizes = json_object_get(made, "sizes");
        json_object_set_new(receipt, "manifest_xxh3_64", json_string(manifest));
        json_object_set(made, "options", config);
        json_object_set_new(sizes, "stored_bytes", json_integer((json_int_t)stored_bytes));
        status = qins_receipt_seal(receipt, &text, &n, err);
    }
    if (status == QINS_OK) status = qins_outdir_write(out, QINS_RECEIPT_NAME, text, n, err);
    free(text);
    json_decref(receipt);
    return status;
}

/* Decoded tensors against the hashes taken when they were coded. */
static qins_status check_decoded(const qins_checkpoint *c, const qins_dir *contents, qins_error *err) {
    const char *name;
    json_t *entry;
    json_object_foreach(contents->coded, name, entry) {
        const qins_tensor *t = qins_checkpoint_find(c, name);
        const char *expected = json_string_value(json_object_get(entry, "xxh3_64"));
        char found[17];
        if (t == NULL || expected == NULL)
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: no hash of its bytes is recorded", c->path, name);
        qins_receipt_hash_text(t->data, (size_t)t->n_bytes, found);
        if (strcmp(expected, found) != 0)
            return qins_fail(err, QINS_ERR_CHECKSUM, "%s: tensor %s: its bytes hash to %s, expected %s", c->path, name,
                             found, expected);
    }
    return QINS_OK;
}

qins_status qins_repack(const qins_checkpoint *c, const qins_dir *contents, bool code, qins_outdir *out,
                        const qins_load_progress *progress, qins_compress_result *result, qins_error *err) {
    if (c->source != QINS_SOURCE_SAFETENSORS)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: expected a directory of safetensors, found a GGUF file",
                         c->path);
    qins_coded_result written = {0};
    json_t *config = repacked_config(c, contents, code), *manifest = NULL;
    const char *dir = qins_outdir_temp(out);
    *result = (qins_compress_result){0};
    qins_status status = contents != NULL ? check_decoded(c, contents, err) : QINS_OK;
    if (status == QINS_OK)
        status = qins_coded_write(c, contents, code, dir, QINS_WEIGHTS_NAME, progress, &written, err);
    if (status == QINS_OK) status = qins_write_side_files(c, out, config, NULL, err);
    *result = (qins_compress_result){.n_tensors = c->n_tensors, .stored_bytes = written.stored_bytes};
    result->n_encoded = contents != NULL ? contents->n_tensors : 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        result->source_bytes += qins_tensor_file_bytes(&c->tensors[i]);
    if (status == QINS_OK && config != NULL) { /* a plain checkpoint has neither manifest nor receipt */
        status = qins_dir_manifest(dir, written.header_bytes, written.header_hash, &manifest, err);
        if (status == QINS_OK) status = qins_write_json(out, QINS_MANIFEST_NAME, manifest, err);
        if (status == QINS_OK && result->n_encoded > 0)
            status = carry_receipt(c->path, out, config, result->stored_bytes, err);
        else if (status == QINS_OK)
            status = qins_receipt_write(out, c, config, manifest, NULL, result, written.coded, err);
    }
    json_decref(written.coded);
    json_decref(manifest);
    json_decref(config);
    return status;
}

qins_status qins_pack(const char *model_path, const char *out_path, const qins_pack_options *options,
                      qins_compress_result *result, qins_error *err) {
    const qins_load_progress progress = {options->progress, options->progress_user};
    qins_checkpoint *checkpoint = NULL;
    qins_dir *contents = NULL;
    qins_outdir *out = NULL;
    qins_compress_result made = {0};
    qins_status status = qins_checkpoint_open(model_path, &checkpoint, err);
    if (status == QINS_OK) status = qins_dir_read(checkpoint, !options->no_check, &progress, &contents, err);
    if (status == QINS_OK && options->unpack && (contents == NULL || json_object_size(contents->coded) == 0))
        status = qins_fail(err, QINS_ERR_ARGUMENT, "%s: nothing in it is entropy-coded", model_path);
    if (status == QINS_OK) status = qins_outdir_begin(out_path, options->force, &out, err);
    if (status == QINS_OK) status = qins_repack(checkpoint, contents, !options->unpack, out, &progress, &made, err);
    if (status == QINS_OK)
        status = qins_outdir_commit(out, err);
    else
        qins_outdir_abort(out);
    if (status == QINS_OK && result != NULL) *result = made;
    qins_dir_free(contents);
    qins_checkpoint_close(checkpoint);
    return status;
}
