/* Unicode normalization forms with utf8proc's tables. SPDX-License-Identifier: MIT
 *
 * utf8proc_map would do it in one call, but sorts combining marks in quadratic time: a megabyte of marks would take
 * hours. Here a run of marks is sorted by counting. */
#include "text/normalizer.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct points {
    utf8proc_int32_t *data;
    size_t size, capacity;
} points;

/* Longest decomposition of one character: U+FDFA has 18 characters in NFKD. */
enum { MAX_DECOMPOSITION = 32 };

static bool grow(points *p, size_t n) {
    if (p->size + n <= p->capacity) return true;
    size_t capacity = 2 * p->capacity + n + 256;
    utf8proc_int32_t *data = realloc(p->data, capacity * sizeof *data);
    if (data == NULL) return false;
    p->data = data;
    p->capacity = capacity;
    return true;
}

static unsigned combining_class(utf8proc_int32_t c) {
    return c < 0x300 || qins_is_unnormalized((uint32_t)c) ? 0 : (unsigned)utf8proc_get_property(c)->combining_class;
}

static bool decompose(const char *text, size_t n_bytes, utf8proc_option_t options, points *p) {
    int boundary = UTF8PROC_BOUNDCLASS_START;
    for (size_t i = 0; i < n_bytes; i += qins_utf8_length(text[i])) {
        utf8proc_int32_t c = (utf8proc_int32_t)qins_utf8_decode(text + i);
        if (!grow(p, MAX_DECOMPOSITION)) return false;
        if (qins_is_unnormalized((uint32_t)c)) {
            p->data[p->size++] = c;
            continue;
        }
        utf8proc_ssize_t n = utf8proc_decompose_char(c, p->data + p->size, MAX_DECOMPOSITION, options, &boundary);
        if (n < 0 || n > MAX_DECOMPOSITION) return false;
        p->size += (size_t)n;
    }
    return true;
}

/* Stable counting sort of marks[0..n), none of class 0. */
static bool sort_marks(utf8proc_int32_t *marks, size_t n, points *spare) {
    size_t count[257] = {0};
    spare->size = 0;
    if (!grow(spare, n)) return false;
    for (size_t i = 0; i < n; i++)
        count[combining_class(marks[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        count[c] += count[c - 1];
    for (size_t i = 0; i < n; i++)
        spare->data[count[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare->data, n * sizeof *marks);
    return true;
}

static bool reorder(points *p, points *spare) {
    for (size_t i = 0; i < p->size;) {
        size_t start = i;
        unsigned last = 0;
        bool sorted = true;
        for (unsigned class; i < p->size && (class = combining_class(p->data[i])) != 0; i++) {
            sorted &= class >= last;
            last = class;
        }
        if (!sorted && !sort_marks(p->data + start, i - start, spare)) return false;
        if (i == start) i++;
    }
    return true;
}

/* Composes and appends; what normalization leaves alone keeps its neighbours apart. */
static void append_points(points *p, bool compose, qins_buffer *out) {
    for (size_t start = 0, end; start < p->size; start = end) {
        for (end = start + 1; end < p->size && !qins_is_unnormalized((uint32_t)p->data[end]);)
            end++;
        utf8proc_ssize_t n = (utf8proc_ssize_t)(end - start);
        if (compose) n = utf8proc_normalize_utf32(p->data + start, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        for (utf8proc_ssize_t i = 0; i < n; i++)
            qins_utf8_append(out, (uint32_t)p->data[start + (size_t)i]);
    }
}

qins_status qins_unicode_normalize(const char *text, size_t n_bytes, qins_normalizer_kind form, qins_buffer *out,
                                   qins_error *err) {
    bool compose = form == QINS_NORMALIZE_NFC || form == QINS_NORMALIZE_NFKC;
    bool compatible = form == QINS_NORMALIZE_NFKC || form == QINS_NORMALIZE_NFKD;
    utf8proc_option_t options = UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
    points p = {0}, spare = {0};
    bool ok = true;
    for (size_t i = 0; i < n_bytes && ok;) {
        /* ASCII stays as it is, but for the last character before a mark, which may combine with it */
        size_t start = i;
        while (i < n_bytes && (unsigned char)text[i] < 0x80)
            i++;
        size_t plain = i < n_bytes && i > start ? i - 1 : i;
        qins_buffer_add(out, text + start, plain - start);
        start = plain;
        while (i < n_bytes && (unsigned char)text[i] >= 0x80)
            i++;
        p.size = 0;
        ok = decompose(text + start, i - start, options | UTF8PROC_DECOMPOSE, &p) && reorder(&p, &spare);
        if (ok) append_points(&p, compose, out);
    }
    free(p.data);
    free(spare.data);
    return ok && !out->failed ? QINS_OK : qins_fail_memory(err, n_bytes, "normalized text");
}
