/* Normalizers of tokenizer.json. SPDX-License-Identifier: MIT */
#include "text/normalizer.h"

#include "text/byte_level.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 }; /* of Sequences in Sequences */

/* ---- reading ---- */

static qins_status copy_string(const qins_node *where, const char *key, qins_normalizer_step *step, qins_error *err) {
    qins_node field = qins_node_field(where, key);
    const char *s;
    qins_status status = qins_node_string(&field, &s, &step->content_length, err);
    if (status != QINS_OK) return status;
    step->content = qins_alloc(step->content_length, 1);
    if (step->content == NULL) return qins_fail_memory(err, step->content_length, "a normalizer");
    if (step->content_length > 0) memcpy(step->content, s, step->content_length);
    return QINS_OK;
}

static qins_status load_strip(const qins_node *where, qins_normalizer_step *step, qins_error *err) {
    qins_node left = qins_node_field(where, "strip_left"), right = qins_node_field(where, "strip_right");
    qins_status status = qins_node_bool(&left, &step->strip_left, err);
    return status == QINS_OK ? qins_node_bool(&right, &step->strip_right, err) : status;
}

static qins_status load_prepend(const qins_node *where, qins_normalizer_step *step, qins_error *err) {
    return copy_string(where, "prepend", step, err);
}

static qins_status load_replace(const qins_node *where, qins_normalizer_step *step, qins_error *err) {
    qins_node pattern = qins_node_field(where, "pattern");
    qins_status status = qins_pattern_load(&pattern, &step->pattern, err);
    return status == QINS_OK ? copy_string(where, "content", step, err) : status;
}

static const char *const kind_names[] = {"Sequence",  "NFC",   "NFD",     "NFKC",    "NFKD", "Lowercase",
                                         "ByteLevel", "Strip", "Prepend", "Replace", NULL};
static const struct {
    qins_normalizer_kind kind;
    qins_status (*load)(const qins_node *where, qins_normalizer_step *step, qins_error *err);
} kinds[] = {{0, NULL}, /* Sequence */
             {QINS_NORMALIZE_NFC, NULL},
             {QINS_NORMALIZE_NFD, NULL},
             {QINS_NORMALIZE_NFKC, NULL},
             {QINS_NORMALIZE_NFKD, NULL},
             {QINS_NORMALIZE_LOWERCASE, NULL},
             {QINS_NORMALIZE_BYTE_LEVEL, NULL},
             {QINS_NORMALIZE_STRIP, load_strip},
             {QINS_NORMALIZE_PREPEND, load_prepend},
             {QINS_NORMALIZE_REPLACE, load_replace}};

static qins_status load_step(const qins_node *where, qins_normalizer *normalizer, int depth, qins_error *err);

static qins_status load_sequence(const qins_node *where, qins_normalizer *normalizer, int depth, qins_error *err) {
    qins_node list = qins_node_field(where, "normalizers");
    size_t n = 0;
    if (depth == MAX_DEPTH) return qins_node_fail(where, QINS_ERR_FORMAT, err, "Sequences are nested too deeply");
    qins_status status = qins_node_array(&list, &n, err);
    for (size_t i = 0; i < n && status == QINS_OK; i++) {
        qins_node item = qins_node_item(&list, i);
        status = load_step(&item, normalizer, depth + 1, err);
    }
    return status;
}

static qins_status load_step(const qins_node *where, qins_normalizer *normalizer, int depth, qins_error *err) {
    size_t kind = 0;
    qins_status status = qins_node_object(where, err);
    qins_node type = qins_node_field(where, "type");
    if (status == QINS_OK) status = qins_node_choice(&type, kind_names, "normalizer", &kind, err);
    if (status != QINS_OK) return status;
    if (kind == 0) return load_sequence(where, normalizer, depth, err);
    if (normalizer->n_steps == normalizer->capacity) {
        size_t capacity = 2 * normalizer->capacity + 4;
        qins_normalizer_step *steps = realloc(normalizer->steps, capacity * sizeof *steps);
        if (steps == NULL) return qins_fail_memory(err, capacity * sizeof *steps, "normalizers");
        normalizer->steps = steps;
        normalizer->capacity = capacity;
    }
    qins_normalizer_step *step = &normalizer->steps[normalizer->n_steps++];
    *step = (qins_normalizer_step){.kind = kinds[kind].kind};
    return kinds[kind].load != NULL ? kinds[kind].load(where, step, err) : QINS_OK;
}

qins_status qins_normalizer_load(const qins_node *where, qins_normalizer *normalizer, qins_error *err) {
    *normalizer = (qins_normalizer){0};
    if (qins_node_is_null(where)) return QINS_OK;
    qins_status status = load_step(where, normalizer, 0, err);
    if (status != QINS_OK) qins_normalizer_free(normalizer);
    return status;
}

void qins_normalizer_free(qins_normalizer *normalizer) {
    for (size_t i = 0; i < normalizer->n_steps; i++) {
        qins_pattern_free(&normalizer->steps[i].pattern);
        free(normalizer->steps[i].content);
    }
    free(normalizer->steps);
    *normalizer = (qins_normalizer){0};
}

/* ---- running ---- */

/* Character by character, without the context of a final sigma, as Rust's char::to_lowercase. */
static void lowercase(const char *text, size_t n_bytes, qins_buffer *out) {
    for (size_t i = 0, length; i < n_bytes; i += length) {
        length = qins_utf8_length(text[i]);
        uint32_t c = qins_utf8_decode(text + i);
        if (c == 0x130) /* the one character whose lower case is two */
            qins_buffer_add(out, "i\xCC\x87", 3);
        else
            qins_utf8_append(out, qins_lowercase(c));
    }
}

static void strip(const qins_normalizer_step *step, const char *text, size_t n_bytes, qins_buffer *out,
                  bool *at_start) {
    size_t start = 0, end = n_bytes;
    while (step->strip_left && start < end && qins_is_whitespace(qins_utf8_decode(text + start)))
        start += qins_utf8_length(text[start]);
    while (step->strip_right && end > start) {
        size_t last = end - 1;
        while (qins_utf8_is_continuation(text[last]))
            last--;
        if (!qins_is_whitespace(qins_utf8_decode(text + last))) break;
        end = last;
    }
    qins_buffer_add(out, text + start, end - start);
    if (start > 0) *at_start = false;
}

/* `matched` is text as the pattern sees it. */
static qins_status replace_matches(const qins_normalizer_step *step, struct pcre2_real_match_data_8 *scratch,
                                   const char *text, const char *matched, size_t n_bytes, qins_buffer *out,
                                   bool *at_start, qins_error *err) {
    qins_matches m;
    qins_matches_begin(&m, &step->pattern, scratch, matched, n_bytes);
    size_t copied = 0, start, end;
    for (bool found = n_bytes > 0; found;) {
        qins_status status = qins_matches_next(&m, &start, &end, &found, err);
        if (status != QINS_OK) return status;
        if (!found) break;
        qins_buffer_add(out, text + copied, start - copied);
        qins_buffer_add(out, step->content, step->content_length);
        copied = end;
        /* the new text stands where the last character of the old one stood */
        if (start == 0 && end > 0 && (step->content_length == 0 || end > qins_utf8_length(text[0]))) *at_start = false;
    }
    qins_buffer_add(out, text + copied, n_bytes - copied);
    return QINS_OK;
}

static qins_status replace(const qins_normalizer_step *step, struct pcre2_real_match_data_8 *scratch, const char *text,
                           size_t n_bytes, qins_buffer *out, bool *at_start, qins_error *err) {
    qins_buffer older = {0};
    bool is_newer = step->pattern.code != NULL && qins_replace_newer_characters(text, n_bytes, &older);
    qins_status status =
        older.failed ? qins_fail_memory(err, n_bytes, "normalized text")
                     : replace_matches(step, scratch, text, is_newer ? older.data : text, n_bytes, out, at_start, err);
    qins_buffer_free(&older);
    return status;
}

static qins_status run_step(const qins_normalizer_step *step, struct pcre2_real_match_data_8 *scratch, const char *text,
                            size_t n_bytes, qins_buffer *out, bool *at_start, qins_error *err) {
    switch (step->kind) {
    case QINS_NORMALIZE_NFC:
    case QINS_NORMALIZE_NFD:
    case QINS_NORMALIZE_NFKC:
    case QINS_NORMALIZE_NFKD:
        return qins_unicode_normalize(text, n_bytes, step->kind, out, err);
    case QINS_NORMALIZE_LOWERCASE:
        lowercase(text, n_bytes, out);
        return QINS_OK;
    case QINS_NORMALIZE_BYTE_LEVEL:
        qins_bytes_to_chars(text, n_bytes, out);
        return QINS_OK;
    case QINS_NORMALIZE_STRIP:
        strip(step, text, n_bytes, out, at_start);
        return QINS_OK;
    case QINS_NORMALIZE_PREPEND:
        if (n_bytes > 0) qins_buffer_add(out, step->content, step->content_length);
        qins_buffer_add(out, text, n_bytes);
        return QINS_OK;
    case QINS_NORMALIZE_REPLACE:
        return replace(step, scratch, text, n_bytes, out, at_start, err);
    }
    return qins_fail(err, QINS_ERR_ARGUMENT, "unknown normalizer");
}

static void swap(qins_buffer *a, qins_buffer *b) {
    qins_buffer old = *a;
    *a = *b;
    *b = old;
}

qins_status qins_normalize_text(const qins_normalizer *normalizer, struct pcre2_real_match_data_8 *scratch,
                                const char *text, size_t n_bytes, qins_buffer *out, qins_buffer *spare, bool *at_start,
                                qins_error *err) {
    out->size = 0;
    if (normalizer->n_steps == 0) qins_buffer_add(out, text, n_bytes);
    for (size_t i = 0; i < normalizer->n_steps; i++) {
        spare->size = 0;
        qins_buffer_add(spare, "", 0);
        qins_status status = run_step(&normalizer->steps[i], scratch, i == 0 ? text : out->data,
                                      i == 0 ? n_bytes : out->size, spare, at_start, err);
        if (status != QINS_OK) return status;
        if (spare->failed) return qins_fail_memory(err, n_bytes, "normalized text");
        swap(out, spare);
    }
    return out->failed ? qins_fail_memory(err, n_bytes, "normalized text") : QINS_OK;
}
