/* A JSON value and where it is, so that every complaint names its path. SPDX-License-Identifier: MIT */
#include "text/json_node.h"

#include "text/utf8.h"

#include <string.h>

qins_node qins_node_root(const json_t *json, const char *file) {
    return (qins_node){.json = json, .file = file};
}

qins_node qins_node_field(const qins_node *parent, const char *key) {
    return (qins_node){.json = json_object_get(parent->json, key), .parent = parent, .key = key, .file = parent->file};
}

qins_node qins_node_item(const qins_node *parent, size_t index) {
    return (qins_node){
        .json = json_array_get(parent->json, index), .parent = parent, .index = index, .file = parent->file};
}

static void add_path(qins_buffer *out, const qins_node *n) {
    if (n->parent == NULL) return;
    add_path(out, n->parent);
    if (n->key == NULL)
        qins_buffer_printf(out, "[%zu]", n->index);
    else
        qins_buffer_printf(out, "%s%s", out->size > 0 ? "." : "", n->key);
}

static qins_status fail_at(const qins_node *n, qins_status code, qins_error *err, const char *message) {
    qins_buffer path = {0};
    add_path(&path, n);
    qins_fail(err, code, "%s: %s: %s", n->file, path.size > 0 ? path.data : "(top level)", message);
    qins_buffer_free(&path);
    return code;
}

qins_status qins_node_fail(const qins_node *n, qins_status code, qins_error *err, const char *fmt, ...) {
    char message[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    size_t end = strlen(message), length; /* what was cut off must not leave half a character */
    for (size_t i = 0; i < end; i += length)
        if (qins_utf8_scan(message + i, end - i, &length) == QINS_UTF8_INCOMPLETE) message[end = i] = '\0';
    return fail_at(n, code, err, message);
}

static const char *type_name(const json_t *json) {
    if (json == NULL) return "nothing";
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a fractional number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "an unknown type";
}

qins_status qins_node_unexpected(const qins_node *n, const char *expected, qins_error *err) {
    return qins_node_fail(n, QINS_ERR_FORMAT, err, "expected %s, found %s", expected, type_name(n->json));
}

qins_status qins_node_object(const qins_node *n, qins_error *err) {
    return json_is_object(n->json) ? QINS_OK : qins_node_unexpected(n, "an object", err);
}

qins_status qins_node_array(const qins_node *n, size_t *size, qins_error *err) {
    if (!json_is_array(n->json)) return qins_node_unexpected(n, "an array", err);
    *size = json_array_size(n->json);
    return QINS_OK;
}

qins_status qins_node_string(const qins_node *n, const char **s, size_t *length, qins_error *err) {
    if (!json_is_string(n->json)) return qins_node_unexpected(n, "a string", err);
    *s = json_string_value(n->json);
    *length = json_string_length(n->json);
    if (!qins_utf8_is_valid(*s, *length)) return qins_node_fail(n, QINS_ERR_FORMAT, err, "expected valid UTF-8");
    return QINS_OK;
}

qins_status qins_node_bool(const qins_node *n, bool *value, qins_error *err) {
    if (!json_is_boolean(n->json)) return qins_node_unexpected(n, "true or false", err);
    *value = json_is_true(n->json);
    return QINS_OK;
}

qins_status qins_node_flag(const qins_node *n, bool *value, qins_error *err) {
    *value = false;
    return qins_node_is_null(n) ? QINS_OK : qins_node_bool(n, value, err);
}

qins_status qins_node_number(const qins_node *n, double *value, qins_error *err) {
    if (!json_is_number(n->json)) return qins_node_unexpected(n, "a number", err);
    *value = json_number_value(n->json);
    return QINS_OK;
}

qins_status qins_node_index(const qins_node *n, uint32_t max, uint32_t *value, qins_error *err) {
    if (!json_is_integer(n->json)) return qins_node_unexpected(n, "an integer", err);
    json_int_t v = json_integer_value(n->json);
    if (v < 0 || v > (json_int_t)max)
        return qins_node_fail(n, QINS_ERR_FORMAT, err, "expected an integer from 0 to %lu, found %" JSON_INTEGER_FORMAT,
                              (unsigned long)max, v);
    *value = (uint32_t)v;
    return QINS_OK;
}

qins_status qins_node_char(const qins_node *n, uint32_t *c, qins_error *err) {
    const char *s = NULL;
    size_t length = 0;
    qins_status status = qins_node_string(n, &s, &length, err);
    if (status != QINS_OK) return status;
    if (length == 0 || qins_utf8_length(s[0]) != length)
        return qins_node_fail(n, QINS_ERR_FORMAT, err, "expected one character, found \"%s\"", s);
    *c = qins_utf8_decode(s);
    return QINS_OK;
}

qins_status qins_node_choice(const qins_node *n, const char *const *names, const char *what, size_t *choice,
                             qins_error *err) {
    const char *s = NULL;
    size_t length = 0;
    qins_status status = qins_node_string(n, &s, &length, err);
    if (status != QINS_OK) return status;
    for (*choice = 0; names[*choice] != NULL; ++*choice)
        if (strcmp(s, names[*choice]) == 0) return QINS_OK;
    return qins_node_fail(n, QINS_ERR_UNSUPPORTED, err, "%s \"%s\" is not supported", what, s);
}
