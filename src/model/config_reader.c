/* Values of a config.json, checked as they are read. SPDX-License-Identifier: MIT */
#include "model/config_reader.h"

#include <stdlib.h>

void qins_config_fail(qins_config_reader *r, const char *key, const char *expected, const json_t *found) {
    if (r->status != QINS_OK) return;
    char *text = found != NULL ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    r->status =
        qins_fail(r->err, QINS_ERR_FORMAT, "%s: config key \"%s\": expected %s, found %.60s", r->path, key, expected,
                  found == NULL  ? "nothing"
                  : text != NULL ? text
                                 : "?");
    qins_free(text);
}

void qins_config_unsupported(qins_config_reader *r, const char *fmt, ...) {
    if (r->status != QINS_OK) return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    r->status = qins_fail(r->err, QINS_ERR_UNSUPPORTED, "%s: %s is not implemented", r->path, text);
}

const json_t *qins_config_get(const qins_config_reader *r, const char *key) {
    const json_t *value = key != NULL ? json_object_get(r->config, key) : NULL;
    return json_is_null(value) ? NULL : value;
}

size_t qins_config_size(qins_config_reader *r, const char *key, size_t fallback, size_t max) {
    const json_t *value = qins_config_get(r, key);
    if (value == NULL && fallback > 0) return fallback;
    if (!json_is_integer(value) || json_integer_value(value) < 1 || (uint64_t)json_integer_value(value) > max) {
        char expected[64];
        snprintf(expected, sizeof expected, "an integer from 1 to %zu", max);
        qins_config_fail(r, key, expected, value);
        return 1;
    }
    return (size_t)json_integer_value(value);
}

double qins_config_number(qins_config_reader *r, const char *key, double fallback, double lo, double hi) {
    const json_t *value = qins_config_get(r, key);
    if (value == NULL) return fallback;
    double x = json_number_value(value);
    if (!json_is_number(value) || !(x >= lo && x <= hi)) {
        char expected[64];
        snprintf(expected, sizeof expected, "a number from %g to %g", lo, hi);
        qins_config_fail(r, key, expected, value);
        return fallback;
    }
    return x;
}

bool qins_config_bool(qins_config_reader *r, const char *key, bool fallback) {
    const json_t *value = qins_config_get(r, key);
    if (value == NULL) return fallback;
    if (!json_is_boolean(value)) qins_config_fail(r, key, "true or false", value);
    return json_is_true(value);
}

const char *qins_config_string(qins_config_reader *r, const char *key, const char *fallback) {
    const json_t *value = qins_config_get(r, key);
    if (value == NULL) return fallback;
    if (!json_is_string(value)) qins_config_fail(r, key, "a string", value);
    return json_is_string(value) ? json_string_value(value) : fallback;
}

const json_t *qins_config_list(qins_config_reader *r, const char *key, size_t n) {
    const json_t *value = qins_config_get(r, key);
    if (value == NULL || (json_is_array(value) && json_array_size(value) == n)) return value;
    char expected[64];
    snprintf(expected, sizeof expected, "a list of %zu values", n);
    if (json_is_array(value)) {
        json_t *length = json_sprintf("a list of %zu", json_array_size(value));
        qins_config_fail(r, key, expected, length);
        json_decref(length);
    } else {
        qins_config_fail(r, key, expected, value);
    }
    return NULL;
}
