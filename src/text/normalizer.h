/* Normalizers of tokenizer.json: what happens to the text before it is split. SPDX-License-Identifier: MIT */
#ifndef QINS_NORMALIZER_H
#define QINS_NORMALIZER_H

#include "text/pattern.h"

typedef enum qins_normalizer_kind {
    QINS_NORMALIZE_NFC,
    QINS_NORMALIZE_NFD,
    QINS_NORMALIZE_NFKC,
    QINS_NORMALIZE_NFKD,
    QINS_NORMALIZE_LOWERCASE,
    QINS_NORMALIZE_BYTE_LEVEL,
    QINS_NORMALIZE_STRIP,
    QINS_NORMALIZE_PREPEND,
    QINS_NORMALIZE_REPLACE,
} qins_normalizer_kind;

typedef struct qins_normalizer_step {
    qins_normalizer_kind kind;
    bool strip_left, strip_right;
    qins_pattern pattern; /* of replace */
    char *content;        /* of replace and prepend */
    size_t content_length;
} qins_normalizer_step;

/* Steps in order; a nested Sequence is flattened. */
typedef struct qins_normalizer {
    qins_normalizer_step *steps;
    size_t n_steps, capacity;
} qins_normalizer;

/* `where` may be null: no steps. */
qins_status qins_normalizer_load(const qins_node *where, qins_normalizer *normalizer, qins_error *err);
void qins_normalizer_free(qins_normalizer *normalizer);

/* Normalizes text into *out, which is emptied first; `spare` is a second buffer to work in. *at_start says on entry
 * that the text begins where the input does, and on return that the normalized text still does (nothing was removed
 * there). */
qins_status qins_normalize_text(const qins_normalizer *normalizer, struct pcre2_real_match_data_8 *scratch,
                                const char *text, size_t n_bytes, qins_buffer *out, qins_buffer *spare, bool *at_start,
                                qins_error *err);

/* Unicode normalization form of valid UTF-8, in time O(n log n). */
qins_status qins_unicode_normalize(const char *text, size_t n_bytes, qins_normalizer_kind form, qins_buffer *out,
                                   qins_error *err);

#endif
