/* Small tokenizers written in C strings. SPDX-License-Identifier: MIT */
#ifndef QINS_TOKENIZER_TESTING_H
#define QINS_TOKENIZER_TESTING_H

#include "testing.h"

#include "text/tokenizer.h"

/* JSON with ' for ", so that it can stand in C; the test fails when it is malformed. */
static inline json_t *json_of(const char *text) {
    char *copy = qins_strdup(text);
    assert_non_null(copy);
    for (char *p = copy; *p != '\0'; p++)
        if (*p == '\'') *p = '"';
    json_error_t error;
    json_t *json = json_loads(copy, 0, &error);
    if (json == NULL) fail_msg("%s: %s", error.text, copy);
    free(copy);
    return json;
}

static inline qins_tokenizer *tokenizer_of(const json_t *json) {
    qins_tokenizer *t = NULL;
    qins_error err = {0};
    if (qins_tokenizer_new(json, "tokenizer.json", &t, &err) != QINS_OK) fail_msg("%s", err.message);
    return t;
}

static inline qins_tokenizer *tokenizer_of_text(const char *text) {
    json_t *json = json_of(text);
    qins_tokenizer *t = tokenizer_of(json);
    json_decref(json);
    return t;
}

static inline json_t *json_of_file(const char *path) {
    json_error_t error;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (json == NULL) fail_msg("%s: %s", path, error.text);
    return json;
}

static inline qins_tokenizer *tokenizer_of_file(const char *path) {
    json_t *json = json_of_file(path);
    qins_tokenizer *t = tokenizer_of(json);
    json_decref(json);
    return t;
}

/* The test fails unless building a tokenizer from `text` gives `status` and a message with `message` in it. */
static inline void assert_refused(const char *text, qins_status status, const char *message) {
    json_t *json = json_of(text);
    qins_tokenizer *t = NULL;
    qins_error err = {0};
    qins_status got = qins_tokenizer_new(json, "tokenizer.json", &t, &err);
    if (got != status || strstr(err.message, message) == NULL)
        fail_msg("%s\nexpected status %d and \"%s\", got %d and \"%s\"", text, status, message, got, err.message);
    assert_null(t);
    json_decref(json);
}

typedef struct id_list {
    int32_t *data;
    size_t size;
} id_list;

static inline id_list encode_with(const qins_tokenizer *t, const char *text, size_t n, bool add_special,
                                  bool parse_special) {
    id_list ids;
    qins_error err = {0};
    if (qins_tokenizer_encode(t, text, n, add_special, parse_special, &ids.data, &ids.size, &err) != QINS_OK)
        fail_msg("%s", err.message);
    return ids;
}

/* ids of text, written as "1 2 3" */
static inline void assert_ids_with(const qins_tokenizer *t, const char *text, bool add_special, bool parse_special,
                                   const char *expected) {
    id_list ids = encode_with(t, text, strlen(text), add_special, parse_special);
    qins_buffer found = {0};
    qins_buffer_add(&found, "", 0);
    for (size_t i = 0; i < ids.size; i++)
        qins_buffer_printf(&found, "%s%d", i > 0 ? " " : "", (int)ids.data[i]);
    if (strcmp(found.data, expected) != 0) fail_msg("\"%s\": expected %s, got %s", text, expected, found.data);
    qins_buffer_free(&found);
    free(ids.data);
}

static inline void assert_ids(const qins_tokenizer *t, const char *text, const char *expected) {
    assert_ids_with(t, text, false, true, expected);
}

static inline void assert_decodes(const qins_tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special,
                                  const char *expected, size_t n_expected) {
    char *text;
    size_t n;
    qins_error err = {0};
    if (qins_tokenizer_decode(t, ids, n_ids, skip_special, &text, &n, &err) != QINS_OK) fail_msg("%s", err.message);
    if (n != n_expected || memcmp(text, expected, n) != 0)
        fail_msg("expected \"%.*s\", got \"%s\"", (int)n_expected, expected, text);
    free(text);
}

#endif
