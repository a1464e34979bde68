/* Reading what makes a directory a qins directory. SPDX-License-Identifier: MIT */
#include "model/qins_dir.h"

#include "model/coded.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { NAME_SIZE = 512, MAX_SMALL_FILE = 256 << 20 };

bool qins_part_name(const char *tensor_name, const qins_encode_options *options, qins_part part, bool shared,
                    char *name, size_t size) {
    int n = shared ? snprintf(name, size, "qins.%s.%s.%d", qins_part_suffix[part], qins_codec_name(options->codec),
                              options->bits)
                   : snprintf(name, size, "%s.%s", tensor_name, qins_part_suffix[part]);
    return n > 0 && (size_t)n < size;
}

bool qins_rest_name(const char *tensor_name, char *name, size_t size) {
    int n = snprintf(name, size, "%s.rest", tensor_name);
    return n > 0 && (size_t)n < size;
}

/* ---- entries ---- */

/* [[begin, end], ...] of the encoded rows. */
static json_t *encoded_rows(const qins_row_split *split) {
    json_t *rows = json_array();
    for (size_t i = 0; i < split->n_pieces; i++)
        if (split->pieces[i].encoded)
            json_array_append_new(
                rows, json_pack("[I, I]", (json_int_t)split->pieces[i].begin, (json_int_t)split->pieces[i].end));
    return rows;
}

json_t *qins_dir_entry(const qins_encoded_tensor *t) {
    const qins_encode_options *o = &t->options;
    json_t *entry = json_pack("{s:[I,I], s:s, s:i, s:s, s:s, s:s, s:I}", "shape", (json_int_t)t->n_rows,
                              (json_int_t)t->n_cols, "codec", qins_codec_name(o->codec), "bits", o->bits, "storage",
                              qins_storage_name(o->storage), "scale", qins_scale_name(o->scale), "source_dtype",
                              t->source_dtype, "source_bytes", (json_int_t)t->source_bytes);
    if (entry == NULL) return NULL;
    if (o->scale == QINS_SCALE_GROUP) json_object_set_new(entry, "group_size", json_integer((json_int_t)o->group_size));
    if (o->rotate == QINS_ON) json_object_set_new(entry, "rotation_seed", json_integer((json_int_t)o->rotation_seed));
    if (t->split.n_pieces > 0) json_object_set_new(entry, "rows", encoded_rows(&t->split));
    return entry;
}

/* One of the names that `parse` knows, as its number. */
static bool parse_name(const json_t *entry, const char *key, int (*parse)(const char *), int *value) {
    const char *text = json_string_value(json_object_get(entry, key));
    *value = text != NULL ? parse(text) : -1;
    return *value >= 0;
}

static qins_status parse_entry(const char *path, const char *name, const json_t *entry, qins_encoded_tensor *t,
                               qins_error *err) {
    const json_t *shape = json_object_get(entry, "shape"), *group = json_object_get(entry, "group_size");
    const json_t *seed = json_object_get(entry, "rotation_seed");
    json_int_t rows = json_integer_value(json_array_get(shape, 0)), cols = json_integer_value(json_array_get(shape, 1));
    const char *dtype = json_string_value(json_object_get(entry, "source_dtype"));
    int codec, storage, scale;
    if (json_array_size(shape) != 2 || rows < 1 || cols < 1 || dtype == NULL ||
        strlen(dtype) >= sizeof t->source_dtype || !parse_name(entry, "codec", qins_codec_from_name, &codec) ||
        !parse_name(entry, "storage", qins_storage_from_name, &storage) ||
        !parse_name(entry, "scale", qins_scale_from_name, &scale) || codec == QINS_CODEC_NONE)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: its qins metadata is not valid", path, name);
    t->name = qins_strdup(name);
    if (t->name == NULL) return qins_fail_memory(err, strlen(name), "a tensor name");
    t->n_rows = (size_t)rows;
    t->n_cols = (size_t)cols;
    memcpy(t->source_dtype, dtype, strlen(dtype) + 1);
    t->source_bytes = (uint64_t)json_integer_value(json_object_get(entry, "source_bytes"));
    t->options =
        (qins_encode_options){.codec = (qins_codec)codec,
                              .bits = (int)json_integer_value(json_object_get(entry, "bits")),
                              .storage = (qins_storage)storage,
                              .rotate = json_is_integer(seed) ? QINS_ON : QINS_OFF,
                              .rotation_seed = (uint64_t)json_integer_value(seed),
                              .scale = (qins_scale_kind)scale,
                              .group_size = json_integer_value(group) > 0 ? (size_t)json_integer_value(group) : 0};
    qins_status status = qins_encode_resolve(&t->options, err);
    return status == QINS_OK ? QINS_OK : qins_prefix(err, status, "%s: tensor %s", path, name);
}

/* The plain rows of a matrix that is encoded in part, when its entry says so. */
static qins_status find_rest(const qins_checkpoint *c, const json_t *rows, qins_encoded_tensor *t, qins_error *err) {
    if (rows == NULL) return QINS_OK;
    char name[NAME_SIZE];
    t->rest = qins_rest_name(t->name, name, sizeof name) ? qins_checkpoint_find(c, name) : NULL;
    if (t->rest == NULL)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected its other rows as \"%s.rest\", found none",
                         c->path, t->name, t->name);
    bool number = t->rest->type == QINS_TYPE_F32 || t->rest->type == QINS_TYPE_F16 || t->rest->type == QINS_TYPE_BF16;
    size_t n = json_array_size(rows), total;
    if (t->rest->n_dims != 2 || t->rest->shape[0] == 0 || t->rest->shape[1] != t->n_cols || !number ||
        !qins_add_size(t->n_rows, (size_t)t->rest->shape[0], &total))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected rows of %zu columns in F32, F16 or BF16",
                         c->path, name, t->n_cols);
    qins_row_range *ranges = qins_alloc(n, sizeof *ranges);
    if (ranges == NULL) return qins_fail_memory(err, n * sizeof *ranges, "ranges of rows");
    bool valid = n > 0;
    for (size_t i = 0; i < n && valid; i++) {
        json_int_t begin = -1, end = -1;
        valid = json_unpack(json_array_get(rows, i), "[I, I!]", &begin, &end) == 0 && begin >= 0 && end > begin;
        ranges[i] = (qins_row_range){(size_t)begin, (size_t)end};
    }
    qins_status status = valid ? qins_row_split_new(total, ranges, n, &t->split, err)
                               : qins_fail(err, QINS_ERR_FORMAT, "its \"rows\" are not pairs of row numbers");
    free(ranges);
    if (status == QINS_OK && t->split.n_encoded != t->n_rows)
        status = qins_fail(err, QINS_ERR_FORMAT, "expected %zu encoded rows, found %zu in \"rows\"", t->n_rows,
                           t->split.n_encoded);
    return status == QINS_OK ? QINS_OK : qins_prefix(err, status, "%s: tensor %s", c->path, t->name);
}

/* Finds the tensors of the parts and checks dtype, shape and alignment: from here on sizes can be relied on. */
static qins_status find_parts(const qins_checkpoint *c, qins_encoded_tensor *t, qins_error *err) {
    qins_part_info parts[QINS_PART_COUNT];
    qins_status status = qins_encode_parts(t->n_rows, t->n_cols, &t->options, parts, err);
    if (status != QINS_OK) return qins_prefix(err, status, "%s: tensor %s", c->path, t->name);
    if (qins_checkpoint_find(c, t->name) != NULL)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s is there twice: encoded and as it was", c->path, t->name);
    for (int p = 0; p < QINS_PART_COUNT; p++) {
        if (parts[p].dtype == NULL) continue;
        char name[NAME_SIZE];
        const qins_tensor *found = NULL;
        if (qins_part_name(t->name, &t->options, (qins_part)p, parts[p].shared, name, sizeof name))
            found = qins_checkpoint_find(c, name);
        if (found == NULL)
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected its part \"%s\", found none", c->path,
                             t->name, qins_part_suffix[p]);
        bool same = strcmp(qins_types[found->type].name, parts[p].dtype) == 0 && found->n_dims == parts[p].n_dims &&
                    found->n_bytes == parts[p].n_bytes &&
                    memcmp(found->shape, parts[p].shape, found->n_dims * sizeof(uint64_t)) == 0;
        if (!same)
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected %s of %llu bytes, found %s of %llu bytes",
                             c->path, name, parts[p].dtype, (unsigned long long)parts[p].n_bytes,
                             qins_types[found->type].name, (unsigned long long)found->n_bytes);
        if (found->type == QINS_TYPE_F32 && (uintptr_t)found->data % sizeof(float) != 0)
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: not aligned to 4 bytes", c->path, name);
        t->parts[p] = found;
    }
    return QINS_OK;
}

static int compare_encoded(const void *a, const void *b) {
    return strcmp(((const qins_encoded_tensor *)a)->name, ((const qins_encoded_tensor *)b)->name);
}

static qins_status parse_metadata(const qins_checkpoint *c, const json_t *meta, qins_dir *dir, qins_error *err) {
    json_int_t version = json_integer_value(json_object_get(meta, "version"));
    if (version != QINS_FORMAT_VERSION)
        return qins_fail(err, QINS_ERR_UNSUPPORTED,
                         "%s: qins format version %lld, this program reads version %d; use a newer qins", c->path,
                         (long long)version, QINS_FORMAT_VERSION);
    json_t *tensors = json_object_get(meta, "tensors");
    if (!json_is_object(tensors))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: qins metadata has no \"tensors\" object", c->path);
    dir->sources = json_incref(json_object_get(meta, "sources"));
    dir->tensors = qins_alloc(json_object_size(tensors), sizeof *dir->tensors);
    if (dir->tensors == NULL) return qins_fail_memory(err, json_object_size(tensors), "tensor names");
    const char *name;
    json_t *entry;
    json_object_foreach(tensors, name, entry) {
        qins_encoded_tensor *t = &dir->tensors[dir->n_tensors++];
        qins_status status = parse_entry(c->path, name, entry, t, err);
        if (status == QINS_OK) status = find_parts(c, t, err);
        if (status == QINS_OK) status = find_rest(c, json_object_get(entry, "rows"), t, err);
        if (status != QINS_OK) return status;
    }
    qsort(dir->tensors, dir->n_tensors, sizeof *dir->tensors, compare_encoded);
    return QINS_OK;
}

/* ---- checksums ---- */

static void hex64(uint64_t hash, char hex[17]) {
    snprintf(hex, 17, "%016llx", (unsigned long long)hash);
}

/* Compares tensor data with the hashes in the metadata, in parallel. Every tensor must have one. */
static qins_status check_tensors(const qins_checkpoint *c, const json_t *hashes, qins_error *err) {
    size_t bad = c->n_tensors;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < c->n_tensors; i++) {
        const qins_tensor *t = &c->tensors[i];
        const char *expected = json_string_value(json_object_get(hashes, t->name));
        char found[17];
        hex64(XXH3_64bits(t->data, (size_t)t->n_bytes), found);
        if (expected == NULL || strcmp(expected, found) != 0) {
#pragma omp critical(qins_check)
            if (i < bad) bad = i;
        }
    }
    if (bad == c->n_tensors) return QINS_OK;
    return qins_fail(
        err, QINS_ERR_CHECKSUM,
        "%s: tensor %s: its bytes do not match their checksum; the file is damaged: copy or compress it again "
        "(--no-check loads it all the same)",
        c->path, c->tensors[bad].name);
}

static qins_status manifest_mismatch(const char *path, const char *file, const char *what, qins_error *err) {
    return qins_fail(
        err, QINS_ERR_CHECKSUM,
        "%s/%s: %s; the file changed since qins wrote it: copy or compress it again (--no-check loads it all the same)",
        path, file, what);
}

/* The first n bytes of a file (all for n = 0) against an entry {"bytes", "xxh3_64"}. */
static qins_status check_file(const char *dir, const char *name, const json_t *entry, bool header_only,
                              qins_error *err) {
    if (strchr(name, '/') != NULL) return manifest_mismatch(dir, QINS_MANIFEST_NAME, "a file name has a slash", err);
    char *path = qins_format("%s/%s", dir, name);
    if (path == NULL) return qins_fail_memory(err, strlen(dir) + strlen(name), "a path");
    qins_map map;
    qins_status status = qins_map_open(path, &map, err);
    free(path);
    if (status != QINS_OK) return status;
    json_int_t bytes = json_integer_value(json_object_get(entry, "bytes"));
    const char *expected = json_string_value(json_object_get(entry, "xxh3_64"));
    char found[17] = "";
    bool fits = bytes > 0 && (header_only ? (uint64_t)bytes <= map.size : (uint64_t)bytes == map.size);
    if (fits) hex64(XXH3_64bits(map.data, (size_t)bytes), found);
    qins_map_close(&map);
    if (!fits) return manifest_mismatch(dir, name, "its size is not the one in the manifest", err);
    if (expected == NULL || strcmp(expected, found) != 0)
        return manifest_mismatch(
            dir, name, header_only ? "its header does not match its checksum" : "it does not match its checksum", err);
    return QINS_OK;
}

static qins_status check_manifest(const qins_checkpoint *c, qins_error *err) {
    char *path = qins_format("%s/%s", c->path, QINS_MANIFEST_NAME), *text = NULL;
    if (path == NULL) return qins_fail_memory(err, strlen(c->path), "a path");
    size_t size;
    qins_status status = qins_read_file(path, MAX_SMALL_FILE, &text, &size, err);
    json_error_t json_error;
    json_t *manifest = status == QINS_OK ? json_loadb(text, size, JSON_REJECT_DUPLICATES, &json_error) : NULL;
    if (status == QINS_OK && manifest == NULL)
        status = qins_fail(err, QINS_ERR_CHECKSUM, "%s: line %d: %s", path, json_error.line, json_error.text);
    free(text);
    free(path);
    json_t *files = json_object_get(manifest, "files");
    if (status == QINS_OK && json_object_get(files, "config.json") == NULL)
        status = manifest_mismatch(c->path, QINS_MANIFEST_NAME, "it does not list config.json", err);
    if (status == QINS_OK)
        status = check_file(c->path, QINS_WEIGHTS_NAME, json_object_get(manifest, "weights_header"), true, err);
    const char *name;
    json_t *entry;
    json_object_foreach(files, name, entry) {
        if (status == QINS_OK) status = check_file(c->path, name, entry, false, err);
    }
    json_decref(manifest);
    return status;
}

static qins_status hash_file(const char *dir, const char *name, json_t *files, qins_error *err) {
    char *path = qins_format("%s/%s", dir, name), hex[17];
    if (path == NULL) return qins_fail_memory(err, strlen(dir), "a path");
    qins_map map;
    qins_status status = qins_map_open(path, &map, err);
    free(path);
    if (status != QINS_OK) return status;
    hex64(XXH3_64bits(map.data, map.size), hex);
    json_object_set_new(files, name, json_pack("{s:I, s:s}", "bytes", (json_int_t)map.size, "xxh3_64", hex));
    qins_map_close(&map);
    return QINS_OK;
}

qins_status qins_dir_manifest(const char *dir, uint64_t header_bytes, uint64_t header_hash, json_t **manifest,
                              qins_error *err) {
    json_t *files = json_object();
    qins_status status = QINS_OK;
    DIR *d = opendir(dir);
    if (d == NULL) status = qins_fail(err, QINS_ERR_IO, "%s: cannot list", dir);
    const struct dirent *entry;
    while (status == QINS_OK && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, QINS_WEIGHTS_NAME) != 0 &&
            strcmp(entry->d_name, QINS_RECEIPT_NAME) != 0)
            status = hash_file(dir, entry->d_name, files, err);
    if (d != NULL) closedir(d);
    char hex[17];
    hex64(header_hash, hex);
    *manifest = json_pack("{s:s, s:i, s:o, s:{s:I, s:s}}", "format", "qins", "version", QINS_FORMAT_VERSION, "files",
                          files, "weights_header", "bytes", (json_int_t)header_bytes, "xxh3_64", hex);
    if (status == QINS_OK && *manifest == NULL) status = qins_fail_memory(err, 0, "the manifest");
    if (status != QINS_OK) {
        json_decref(*manifest);
        *manifest = NULL;
    }
    return status;
}

/* ---- reading ---- */

/* A JSON object stored as a string in the safetensors metadata; NULL when absent or malformed. */
static json_t *metadata_object(const qins_checkpoint *c, const char *key) {
    const char *text = json_string_value(json_object_get(c->metadata, key));
    json_t *object = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (json_is_object(object)) return object;
    json_decref(object);
    return NULL;
}

static bool says_qins(const qins_checkpoint *c) {
    const char *method =
        json_string_value(json_object_get(json_object_get(c->config, "quantization_config"), "quant_method"));
    return json_object_get(c->metadata, "qins") != NULL || (method != NULL && strcmp(method, "qins") == 0);
}

qins_status qins_dir_read_tensors(qins_checkpoint *c, bool check, const qins_load_progress *progress, qins_dir **out,
                                  qins_error *err) {
    *out = NULL;
    qins_status status = QINS_OK;
    json_t *meta = metadata_object(c, "qins"), *hashes = metadata_object(c, "qins_xxh3_64");
    qins_dir *dir = qins_alloc(1, sizeof *dir);
    if (dir == NULL)
        status = qins_fail_memory(err, sizeof *dir, "a model");
    else if (meta == NULL || hashes == NULL)
        status = qins_fail(err, QINS_ERR_FORMAT, "%s: the header lacks valid qins metadata", c->path);
    if (status == QINS_OK && check) status = check_tensors(c, hashes, err);
    if (status == QINS_OK) {
        dir->coded = json_incref(json_object_get(meta, "coded"));
        status = qins_coded_load(c, dir->coded, progress, dir, err);
    }
    if (status == QINS_OK) status = parse_metadata(c, meta, dir, err);
    json_decref(meta);
    json_decref(hashes);
    if (status == QINS_OK)
        *out = dir;
    else
        qins_dir_free(dir);
    return status;
}

qins_status qins_dir_read(qins_checkpoint *c, bool check, const qins_load_progress *progress, qins_dir **out,
                          qins_error *err) {
    *out = NULL;
    if (c->source != QINS_SOURCE_SAFETENSORS || !says_qins(c)) return QINS_OK;
    qins_status status = check ? check_manifest(c, err) : QINS_OK;
    return status == QINS_OK ? qins_dir_read_tensors(c, check, progress, out, err) : status;
}

void qins_dir_free(qins_dir *dir) {
    if (dir == NULL) return;
    for (size_t i = 0; i < dir->n_tensors; i++) {
        free(dir->tensors[i].name);
        qins_row_split_free(&dir->tensors[i].split);
    }
    free(dir->tensors);
    json_decref(dir->sources);
    json_decref(dir->coded);
    qins_coded_unload(dir);
    free(dir);
}

const qins_encoded_tensor *qins_dir_find(const qins_dir *dir, const char *name) {
    if (dir == NULL || dir->n_tensors == 0) return NULL;
    qins_encoded_tensor key = {.name = (char *)(uintptr_t)name};
    return bsearch(&key, dir->tensors, dir->n_tensors, sizeof key, compare_encoded);
}
