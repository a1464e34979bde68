/* A JSON value and where it is, so that every complaint names its path. SPDX-License-Identifier: MIT */
#ifndef QINS_JSON_NODE_H
#define QINS_JSON_NODE_H

#include "base/base.h"

#include <jansson.h>

typedef struct qins_node {
    const json_t *json; /* NULL when the document has nothing here */
    const struct qins_node *parent;
    const char *key; /* inside an object, otherwise NULL and: */
    size_t index;
    const char *file; /* of the root */
} qins_node;

qins_node qins_node_root(const json_t *json, const char *file);
qins_node qins_node_field(const qins_node *parent, const char *key);
qins_node qins_node_item(const qins_node *parent, size_t index);
static inline bool qins_node_is_null(const qins_node *n) {
    return n->json == NULL || json_is_null(n->json);
}

/* QINS_ERR_FORMAT: "FILE: PATH: expected EXPECTED, found an integer". */
qins_status qins_node_unexpected(const qins_node *n, const char *expected, qins_error *err);
/* Another complaint about this place: "FILE: PATH: message". */
qins_status qins_node_fail(const qins_node *n, qins_status code, qins_error *err, const char *fmt, ...)
    QINS_PRINTF(4, 5);

qins_status qins_node_object(const qins_node *n, qins_error *err);
qins_status qins_node_array(const qins_node *n, size_t *size, qins_error *err);
/* Strings are valid UTF-8, may contain NUL, and are borrowed from the document. */
qins_status qins_node_string(const qins_node *n, const char **s, size_t *length, qins_error *err);
qins_status qins_node_bool(const qins_node *n, bool *value, qins_error *err);
/* The same, false when absent or null. */
qins_status qins_node_flag(const qins_node *n, bool *value, qins_error *err);
qins_status qins_node_number(const qins_node *n, double *value, qins_error *err);
/* An integer of 0..max. */
qins_status qins_node_index(const qins_node *n, uint32_t max, uint32_t *value, qins_error *err);
/* A string of exactly one character. */
qins_status qins_node_char(const qins_node *n, uint32_t *c, qins_error *err);
/* Index in a NULL-terminated list of names; QINS_ERR_UNSUPPORTED for any other string, with `what` it should name. */
qins_status qins_node_choice(const qins_node *n, const char *const *names, const char *what, size_t *choice,
                             qins_error *err);

#endif
