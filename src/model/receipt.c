/* SPDX-License-Identifier: MIT */
#include "model/receipt.h"

#include "model/side_files.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_RECEIPT = 256 << 20, HEX_128 = 33, SEAL_DIGITS = 16, HASHED_AT_ONCE = 16 << 20 };
#define SEAL_NAME "\"xxh3_64\""

static const char *base_name(const char *path) {
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] != '/')
        n--;
    return path + n;
}

/* Last component of a path, a trailing slash aside. Freed with free(). */
static char *last_component(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *copy = strndup(path, n);
    char *name = copy != NULL ? qins_strdup(base_name(copy)) : NULL;
    free(copy);
    return name;
}

/* ---- made by compress ---- */

static qins_status hash_file(const qins_weight_file *file, json_t *files, qins_error *err) {
    qins_map map;
    qins_status status = qins_map_open(file->path, &map, err);
    if (status != QINS_OK) return status;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL || XXH3_128bits_reset(state) != XXH_OK) {
        XXH3_freeState(state);
        qins_map_close(&map);
        return qins_fail_memory(err, 0, "a receipt");
    }
    for (size_t at = 0; at < map.size; at += HASHED_AT_ONCE) { /* so that a large file never is resident as a whole */
        size_t n = qins_min_size(HASHED_AT_ONCE, map.size - at);
        XXH3_128bits_update(state, map.data + at, n);
        qins_map_release(map.data + at, n);
    }
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    char hex[HEX_128];
    snprintf(hex, sizeof hex, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
    json_t *entry =
        json_pack("{s:s, s:I, s:s}", "name", base_name(file->path), "bytes", (json_int_t)map.size, "xxh3_128", hex);
    qins_map_close(&map);
    if (json_array_append_new(files, entry) == 0) return QINS_OK;
    return qins_fail(err, QINS_ERR_FORMAT, "%s: its name is not UTF-8", file->path);
}

qins_status qins_receipt_source(const qins_checkpoint *c, json_t **source, qins_error *err) {
    *source = NULL;
    json_t *files = json_array();
    qins_status status = files == NULL ? qins_fail_memory(err, 0, "a receipt") : QINS_OK;
    for (size_t i = 0; i < c->n_files && status == QINS_OK; i++)
        status = hash_file(&c->files[i], files, err);
    char *name = last_component(c->path);
    if (status == QINS_OK) {
        *source = json_pack("{s:s?, s:O}", "name", name, "files", files);
        if (*source == NULL) status = qins_fail_memory(err, 0, "a receipt");
    }
    free(name);
    json_decref(files);
    return status;
}

json_t *qins_receipt_tensor(const qins_encode_options *o, uint64_t n_bytes, const qins_encode_stats *stats) {
    double rel_mse = stats->sum_squares > 0 ? stats->sum_squared_error / stats->sum_squares : 0;
    return json_pack("{s:s, s:i, s:I, s:f}", "codec", qins_codec_name(o->codec), "bits", o->bits, "bytes",
                     (json_int_t)n_bytes, "rel_mse", rel_mse);
}

/* What was predicted and what was measured on the part of the text that was held back. */
static void add_losses(const qins_compress_result *r, json_t *calibration) {
    if (r->predicted_kl >= 0) json_object_set_new(calibration, "predicted_kl", json_real(r->predicted_kl));
    if (r->measured_kl >= 0) json_object_set_new(calibration, "measured_kl", json_real(r->measured_kl));
}

/* The text that rounding was calibrated on; null without one. */
static qins_status calibration(const qins_compress_options *o, const qins_compress_result *r, json_t **out,
                               qins_error *err) {
    *out = json_null();
    if (o == NULL || o->calibrate == NULL) return QINS_OK;
    if (strcmp(o->calibrate, "self") == 0) { /* the model wrote it: there is no file */
        *out = json_pack("{s:s, s:I, s:I, s:I}", "text", "self", "tokens", (json_int_t)o->calibrate_tokens, "fed_back",
                         (json_int_t)r->n_fed_back, "fallbacks", (json_int_t)r->n_fallbacks);
        if (*out == NULL) return qins_fail_memory(err, 0, "a receipt");
        add_losses(r, *out);
        return QINS_OK;
    }
    qins_map map;
    char hex[17];
    qins_status status = qins_map_open(o->calibrate, &map, err);
    if (status != QINS_OK) return status;
    qins_receipt_hash_text(map.data, map.size, hex);
    *out = json_pack("{s:s, s:I, s:s, s:I, s:I, s:I}", "text", base_name(o->calibrate), "bytes", (json_int_t)map.size,
                     "xxh3_64", hex, "tokens", (json_int_t)o->calibrate_tokens, "fed_back", (json_int_t)r->n_fed_back,
                     "fallbacks", (json_int_t)r->n_fallbacks);
    qins_map_close(&map);
    if (*out == NULL) return qins_fail(err, QINS_ERR_FORMAT, "%s: its name is not UTF-8", o->calibrate);
    add_losses(r, *out);
    return QINS_OK;
}

qins_status qins_receipt_write(qins_outdir *out, const qins_checkpoint *checkpoint, json_t *config,
                               const json_t *manifest, const qins_compress_options *options,
                               const qins_compress_result *r, json_t *tensors, qins_error *err) {
    char hash[17], *text = NULL;
    size_t n_bytes = 0;
    json_t *source = NULL, *calibrated = NULL, *receipt = NULL;
    qins_status status = qins_receipt_source(checkpoint, &source, err);
    if (status == QINS_OK) status = calibration(options, r, &calibrated, err);
    if (status == QINS_OK && (text = qins_json_file_text(manifest, &n_bytes)) == NULL)
        status = qins_fail_memory(err, 0, "the manifest");
    if (status == QINS_OK) {
        qins_receipt_hash_text(text, n_bytes, hash);
        free(text);
        text = NULL;
        json_t *sizes = json_pack("{s:I, s:I, s:f, s:f}", "source_bytes", (json_int_t)r->source_bytes, "stored_bytes",
                                  (json_int_t)r->stored_bytes, "bpw", r->bpw, "rel_mse", r->rel_mse);
        json_t *made =
            json_pack("{s:s, s:O, s:O, s:O, s:o, s:O}", "writer", "qins " QINS_VERSION_STRING, "source", source,
                      "options", config, "calibration", calibrated, "sizes", sizes, "tensors", tensors);
        receipt = json_pack("{s:s, s:i, s:s, s:o, s:[]}", "format", "qins receipt", "version", QINS_RECEIPT_VERSION,
                            "manifest_xxh3_64", hash, "compress", made, "fidelity");
        if (receipt == NULL) status = qins_fail_memory(err, 0, "a receipt");
    }
    if (status == QINS_OK) status = qins_receipt_seal(receipt, &text, &n_bytes, err);
    if (status == QINS_OK) status = qins_outdir_write(out, QINS_RECEIPT_NAME, text, n_bytes, err);
    free(text);
    json_decref(receipt);
    json_decref(calibrated);
    json_decref(source);
    return status;
}

/* ---- the file ---- */

void qins_receipt_hash_text(const void *data, size_t n, char hex[17]) {
    snprintf(hex, 17, "%016llx", (unsigned long long)XXH3_64bits(data, n));
}

/* The last `"xxh3_64"` of a receipt's text. */
static char *find_seal(char *text, size_t n) {
    const size_t length = sizeof SEAL_NAME - 1;
    for (size_t i = n; i >= length; i--)
        if (memcmp(text + i - length, SEAL_NAME, length) == 0) return text + i - length;
    return NULL;
}

qins_status qins_receipt_seal(json_t *receipt, char **text, size_t *n_bytes, qins_error *err) {
    static const char blank[] = "0000000000000000";
    json_object_del(receipt, "xxh3_64");
    if (json_object_set_new(receipt, "xxh3_64", json_string(blank)) != 0) return qins_fail_memory(err, 0, "a receipt");
    char *dump = json_dumps(receipt, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    char *seal = dump != NULL ? find_seal(dump, strlen(dump)) : NULL;
    char *digits = seal != NULL ? strstr(seal, blank) : NULL, hex[17];
    if (digits == NULL) {
        free(dump);
        return qins_fail_memory(err, 0, "a receipt");
    }
    qins_receipt_hash_text(dump, (size_t)(seal - dump), hex);
    memcpy(digits, hex, SEAL_DIGITS);
    *n_bytes = strlen(dump) + 1;
    dump[*n_bytes - 1] = '\n'; /* in place of the NUL */
    *text = dump;
    return QINS_OK;
}

qins_status qins_receipt_read(const char *dir, json_t **receipt, bool *sealed, qins_error *err) {
    *receipt = NULL;
    *sealed = false;
    char *path = qins_format("%s/%s", dir, QINS_RECEIPT_NAME), *text = NULL, hex[17];
    size_t n = 0;
    json_error_t json_error;
    if (path == NULL) return qins_fail_memory(err, strlen(dir), "a path");
    qins_status status = QINS_OK;
    if (qins_path_exists(path)) status = qins_read_file(path, MAX_RECEIPT, &text, &n, err);
    if (status == QINS_OK && text != NULL) {
        json_t *json = json_loadb(text, n, JSON_REJECT_DUPLICATES, &json_error);
        const char *said = json_string_value(json_object_get(json, "xxh3_64"));
        const char *seal = find_seal(text, n);
        if (json == NULL)
            status = qins_fail(err, QINS_ERR_FORMAT, "%s: line %d: %s", path, json_error.line, json_error.text);
        else if (!json_is_object(json))
            status = qins_fail(err, QINS_ERR_FORMAT, "%s: expected a JSON object", path);
        if (status == QINS_OK && seal != NULL && said != NULL) {
            qins_receipt_hash_text(text, (size_t)(seal - text), hex);
            *sealed = strcmp(said, hex) == 0;
        }
        if (status == QINS_OK)
            *receipt = json;
        else
            json_decref(json);
    }
    free(text);
    free(path);
    return status;
}

qins_status qins_receipt_replace(const char *dir, json_t *receipt, qins_error *err) {
    char *text = NULL;
    size_t n = 0;
    qins_status status = qins_receipt_seal(receipt, &text, &n, err);
    if (status == QINS_OK) status = qins_replace_file(dir, QINS_RECEIPT_NAME, text, n, err);
    free(text);
    return status;
}

qins_status qins_receipt_manifest_hash(const char *dir, char hex[17], qins_error *err) {
    char *path = qins_format("%s/%s", dir, QINS_MANIFEST_NAME), *text = NULL;
    size_t n = 0;
    if (path == NULL) return qins_fail_memory(err, strlen(dir), "a path");
    qins_status status = qins_read_file(path, MAX_RECEIPT, &text, &n, err);
    if (status == QINS_OK) qins_receipt_hash_text(text, n, hex);
    free(text);
    free(path);
    return status;
}
