/* Parser of one safetensors file. SPDX-License-Identifier: MIT */
#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    qins_type type;
} dtypes[] = {
    {"F32", QINS_TYPE_F32}, {"F16", QINS_TYPE_F16},   {"BF16", QINS_TYPE_BF16},       {"F64", QINS_TYPE_F64},
    {"U8", QINS_TYPE_U8},   {"I8", QINS_TYPE_I8},     {"I16", QINS_TYPE_I16},         {"I32", QINS_TYPE_I32},
    {"I64", QINS_TYPE_I64}, {"BOOL", QINS_TYPE_BOOL}, {"F8_E4M3", QINS_TYPE_F8_E4M3}, {"F8_E5M2", QINS_TYPE_F8_E5M2},
};

/* Where a tensor lies in the data part. */
typedef struct span {
    uint64_t begin, end;
    const char *name; /* borrowed from the header */
} span;

static int compare_spans(const void *a, const void *b) {
    const span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static qins_status parse_dtype(const json_t *entry, const char *name, const char *path, qins_type *type,
                               qins_error *err) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (dtype == NULL)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: \"dtype\" is missing or not a string", path, name);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtype, dtypes[i].name) == 0) {
            *type = dtypes[i].type;
            return QINS_OK;
        }
    }
    return qins_fail(err, QINS_ERR_UNSUPPORTED,
                     "%s: tensor %s: dtype %.32s is not supported; convert it to F32, F16 or BF16", path, name, dtype);
}

static bool get_count(const json_t *value, uint64_t *count) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *count = (uint64_t)json_integer_value(value);
    return true;
}

static qins_status parse_shape(const json_t *entry, const char *name, const char *path, qins_tensor *tensor,
                               qins_error *err) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: \"shape\" is missing or not an array", path, name);
    tensor->n_dims = json_array_size(shape);
    if (tensor->n_dims > QINS_MAX_DIMS)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: tensor %s has %zu dimensions, at most %d are supported", path,
                         name, tensor->n_dims, QINS_MAX_DIMS);
    for (size_t i = 0; i < tensor->n_dims; i++) {
        if (!get_count(json_array_get(shape, i), &tensor->shape[i]))
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: dimension %zu is not a non-negative integer", path,
                             name, i);
    }
    return QINS_OK;
}

static qins_status parse_offsets(const json_t *entry, const char *name, const char *path, uint64_t n_data, span *where,
                                 qins_error *err) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    *where = (span){.name = name};
    if (json_array_size(offsets) != 2 || !get_count(json_array_get(offsets, 0), &where->begin) ||
        !get_count(json_array_get(offsets, 1), &where->end))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: \"data_offsets\" must be two non-negative integers",
                         path, name);
    if (where->begin > where->end)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: tensor %s: data_offsets [%" PRIu64 ", %" PRIu64 "]: the end lies before the begin", path,
                         name, where->begin, where->end);
    if (where->end > n_data)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: tensor %s ends at data byte %" PRIu64 " but the file has only %" PRIu64
                         " bytes of data; the file is truncated, fetch it again",
                         path, name, where->end, n_data);
    return QINS_OK;
}

static qins_status parse_tensor(const json_t *entry, const char *name, const char *path, const uint8_t *data,
                                uint64_t n_data, qins_tensor *tensor, span *where, qins_error *err) {
    *tensor = (qins_tensor){0};
    if (!json_is_object(entry))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected an object in the header", path, name);
    qins_status status = parse_dtype(entry, name, path, &tensor->type, err);
    if (status == QINS_OK) status = parse_shape(entry, name, path, tensor, err);
    if (status == QINS_OK) status = qins_tensor_measure(tensor, name, path, err);
    if (status == QINS_OK) status = parse_offsets(entry, name, path, n_data, where, err);
    if (status != QINS_OK) return status;
    if (where->end - where->begin != tensor->n_bytes)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: tensor %s: data_offsets span %" PRIu64 " bytes, but its shape and dtype %s need %" PRIu64,
                         path, name, where->end - where->begin, qins_types[tensor->type].name, tensor->n_bytes);
    tensor->data = data + where->begin;
    return QINS_OK;
}

/* The tensors must lie end to end from the first data byte to the last. */
static qins_status check_coverage(span *spans, size_t n, uint64_t n_data, const char *path, qins_error *err) {
    qsort(spans, n, sizeof *spans, compare_spans);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (spans[i].begin != at)
            return qins_fail(err, QINS_ERR_FORMAT,
                             "%s: tensor %s begins at data byte %" PRIu64 ", expected %" PRIu64 " (%s)", path,
                             spans[i].name, spans[i].begin, at,
                             spans[i].begin < at ? "it overlaps another tensor" : "there is a hole before it");
        at = spans[i].end;
    }
    if (at != n_data)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: %" PRIu64 " bytes follow the last tensor; the header describes %" PRIu64
                         " bytes of data, the file has %" PRIu64,
                         path, n_data - at, at, n_data);
    return QINS_OK;
}

static qins_status parse_metadata(json_t *metadata, const char *path, qins_error *err) {
    if (!json_is_object(metadata)) return qins_fail(err, QINS_ERR_FORMAT, "%s: __metadata__ is not an object", path);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return qins_fail(err, QINS_ERR_FORMAT, "%s: __metadata__.%.64s is not a string", path, key);
    }
    return QINS_OK;
}

static qins_status parse_tensors(json_t *header, const uint8_t *data, uint64_t n_data, const char *path, span *spans,
                                 qins_tensor_list *tensors, qins_error *err) {
    size_t n = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        qins_tensor tensor;
        qins_status status = parse_tensor(entry, name, path, data, n_data, &tensor, &spans[n], err);
        if (status == QINS_OK) status = qins_tensor_list_add(tensors, &tensor, name, strlen(name), path, err);
        if (status != QINS_OK) return status;
        n++;
    }
    return check_coverage(spans, n, n_data, path, err);
}

static qins_status parse_header(const uint8_t *data, size_t size, const char *path, json_t **header, size_t *n_header,
                                qins_error *err) {
    if (size < 8)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: has %zu bytes, too few for a safetensors file", path, size);
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n |= (uint64_t)data[i] << (8 * i);
    if (n > QINS_SAFETENSORS_MAX_HEADER)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: header of %" PRIu64 " bytes, more than the %d allowed; is this a safetensors file?", path,
                         n, QINS_SAFETENSORS_MAX_HEADER);
    if (n > size - 8)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: header of %" PRIu64 " bytes, but only %zu follow; the file is truncated, fetch it again",
                         path, n, size - 8);
    json_error_t where;
    *n_header = (size_t)n;
    *header = json_loadb((const char *)data + 8, *n_header, JSON_REJECT_DUPLICATES, &where);
    if (*header == NULL)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: header is not valid JSON at byte %d: %s", path, 8 + where.position,
                         where.text);
    if (!json_is_object(*header)) {
        json_decref(*header);
        *header = NULL;
        return qins_fail(err, QINS_ERR_FORMAT, "%s: header is not a JSON object", path);
    }
    return QINS_OK;
}

qins_status qins_safetensors_parse(const uint8_t *data, size_t size, const char *path, qins_tensor_list *tensors,
                                   json_t **metadata, qins_error *err) {
    *metadata = NULL;
    json_t *header = NULL;
    size_t n_header = 0;
    qins_status status = parse_header(data, size, path, &header, &n_header, err);
    if (status != QINS_OK) return status;

    span *spans = qins_alloc(json_object_size(header), sizeof *spans);
    json_t *found = json_object_get(header, "__metadata__");
    if (spans == NULL)
        status = qins_fail_memory(err, json_object_size(header) * sizeof *spans, "a list of tensors");
    else if (found != NULL)
        status = parse_metadata(found, path, err);
    if (status == QINS_OK)
        status = parse_tensors(header, data + 8 + n_header, size - 8 - n_header, path, spans, tensors, err);
    if (status == QINS_OK && found != NULL) *metadata = json_incref(found);
    free(spans);
    json_decref(header);
    return status;
}
