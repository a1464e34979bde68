/* Is a written tokenizer the one that it was made from? SPDX-License-Identifier: MIT
 *
 * The metadata is read back with the reader of GGUF files; anything that comes out differently is refused.
 */
#include "format/gguf_vocabulary.h"
#include "format/gguf_write_tokenizer.h"

#include <stdlib.h>
#include <string.h>

static bool is_true(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

static qins_status check_added(const json_t *source, const json_t *read, const char *path, qins_error *err) {
    static const char *const flags[] = {"special", "single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < json_array_size(source); i++) {
        const json_t *a = json_array_get(source, i), *b = NULL;
        const char *content = json_string_value(json_object_get(a, "content"));
        for (size_t k = 0; k < json_array_size(read) && b == NULL; k++)
            if (json_equal(json_object_get(json_array_get(read, k), "id"), json_object_get(a, "id")))
                b = json_array_get(read, k);
        for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++)
            if (b == NULL || is_true(a, flags[f]) != is_true(b, flags[f]))
                return qins_fail(
                    err, QINS_ERR_UNSUPPORTED,
                    "%s: tokenizer.json: \"%s\" of the added token \"%.64s\" cannot be expressed in a GGUF "
                    "file of this architecture",
                    path, flags[f], content);
    }
    return QINS_OK;
}

/* Appends the merges that make the same token as merge *i does, up to the next that makes another; sorted. */
static json_t *next_group(const json_t *merges, size_t *i) {
    json_t *group = json_object(); /* keys are sorted when dumped and compared without order */
    char *made = NULL;
    for (; *i < json_array_size(merges); (*i)++) {
        const char *p[2];
        size_t n[2];
        if (!qins_merge_pieces(json_array_get(merges, *i), p, n)) break;
        char *token = qins_format("%.*s%.*s", (int)n[0], p[0], (int)n[1], p[1]);
        char *pair = qins_format("%.*s %.*s", (int)n[0], p[0], (int)n[1], p[1]);
        bool same = token != NULL && pair != NULL && (made == NULL || strcmp(made, token) == 0);
        if (same) json_object_set_new(group, pair, json_true());
        if (same && made == NULL) {
            made = token;
            token = NULL;
        }
        free(token);
        free(pair);
        if (!same) break;
    }
    free(made);
    return group;
}

/* Merges of the same token have the same score: their order among themselves does not count. */
static bool same_merges(const json_t *a, const json_t *b) {
    size_t i = 0, k = 0, n = json_array_size(a);
    if (json_array_size(b) != n) return false;
    while (i < n || k < n) {
        size_t before = i;
        json_t *x = next_group(a, &i), *y = next_group(b, &k);
        bool same = json_equal(x, y) != 0 && i > before;
        json_decref(x);
        json_decref(y);
        if (!same) return false;
    }
    return true;
}

qins_status qins_gguf_check_tokenizer(const qins_gguf *written, const qins_tokenizer_source *source, qins_error *err) {
    json_t *read = NULL;
    qins_status status = qins_gguf_tokenizer(written, &read, err);
    const json_t *a = source->tokenizer, *b = read;
    if (status == QINS_OK)
        status = check_added(json_object_get(a, "added_tokens"), json_object_get(b, "added_tokens"), source->path, err);
    if (status == QINS_OK && !same_merges(json_object_get(json_object_get(a, "model"), "merges"),
                                          json_object_get(json_object_get(b, "model"), "merges")))
        status =
            qins_fail(err, QINS_ERR_UNSUPPORTED,
                      "%s: tokenizer.json: its merges do not follow from a score for each token, which is all that "
                      "a GGUF file of a SentencePiece vocabulary has",
                      source->path);
    json_decref(read);
    return status;
}
