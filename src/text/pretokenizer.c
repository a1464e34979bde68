/* Splitting text into pieces. SPDX-License-Identifier: MIT */
#include "text/pretokenizer.h"

#include "text/byte_level.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

static void add_piece(qins_pieces *out, size_t start, size_t end, bool at_start) {
    if (start == end || out->failed) return;
    if (out->size == out->capacity) {
        size_t capacity = qins_max_size(64, 2 * out->capacity), n_bytes;
        qins_piece *data = qins_mul_size(capacity, sizeof *data, &n_bytes) ? realloc(out->data, n_bytes) : NULL;
        if (data == NULL) {
            out->failed = true;
            return;
        }
        out->data = data;
        out->capacity = capacity;
    }
    out->data[out->size++] = (qins_piece){start, end, at_start};
}

/* ---- splits ---- */

/* Puts matches and the text between them together to pieces, as the behavior says. Spans come in order and cover the
 * whole; `held` is the last one, which the next may still be joined to. */
typedef struct joiner {
    qins_pieces *out;
    qins_split_behavior behavior;
    qins_piece held;
    bool holds, held_is_match; /* the last span was a match */
} joiner;

static void flush(joiner *j) {
    if (j->holds) add_piece(j->out, j->held.start, j->held.end, j->held.at_start);
    j->holds = false;
}

static bool joins_held(const joiner *j, bool is_match) {
    switch (j->behavior) {
    case QINS_SPLIT_CONTIGUOUS:
        return is_match == j->held_is_match;
    case QINS_SPLIT_MERGED_WITH_PREVIOUS:
        return is_match && !j->held_is_match;
    case QINS_SPLIT_MERGED_WITH_NEXT:
        return !is_match && j->held_is_match;
    case QINS_SPLIT_ISOLATED:
    case QINS_SPLIT_REMOVED:
        break;
    }
    return false;
}

static void add_span(joiner *j, qins_piece span, bool is_match) {
    if (j->behavior == QINS_SPLIT_ISOLATED || (j->behavior == QINS_SPLIT_REMOVED && !is_match)) {
        add_piece(j->out, span.start, span.end, span.at_start);
        return;
    }
    if (j->behavior == QINS_SPLIT_REMOVED) return;
    if (j->holds && joins_held(j, is_match)) {
        j->held.end = span.end;
    } else {
        flush(j);
        j->held = span;
        j->holds = true;
    }
    j->held_is_match = is_match;
}

static qins_status split_piece(const qins_pretokenizer_step *step, struct pcre2_real_match_data_8 *scratch,
                               const char *text, qins_piece piece, qins_pieces *out, qins_error *err) {
    joiner j = {.out = out, .behavior = step->behavior};
    qins_matches m;
    qins_matches_begin(&m, &step->pattern, scratch, text + piece.start, piece.end - piece.start);
    size_t done = 0, start, end, n = piece.end - piece.start;
    for (bool found;;) {
        qins_status status = qins_matches_next(&m, &start, &end, &found, err);
        if (status != QINS_OK) return status;
        if (!found) break;
        if (start > done)
            add_span(&j, (qins_piece){piece.start + done, piece.start + start, piece.at_start && done == 0},
                     step->invert);
        add_span(&j, (qins_piece){piece.start + start, piece.start + end, piece.at_start && start == 0}, !step->invert);
        done = end;
    }
    if (done < n) add_span(&j, (qins_piece){piece.start + done, piece.end, piece.at_start && done == 0}, step->invert);
    flush(&j);
    return QINS_OK;
}

static void swap_pieces(qins_pieces *p) {
    qins_piece *data = p->data;
    size_t capacity = p->capacity;
    p->data = p->spare;
    p->capacity = p->spare_capacity;
    p->spare = data;
    p->spare_capacity = capacity;
}

static qins_status split(const qins_pretokenizer_step *step, struct pcre2_real_match_data_8 *scratch, qins_pieces *p,
                         qins_error *err) {
    size_t n_old = p->size;
    swap_pieces(p);
    p->size = 0;
    for (size_t i = 0; i < n_old; i++) {
        qins_status status =
            split_piece(step, scratch, step->pattern.code != NULL ? p->matched : p->text, p->spare[i], p, err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

/* ---- rewriting ---- */

static void rewrite_spaces(const qins_pretokenizer_step *step, const char *text, qins_piece piece, qins_buffer *out) {
    while (piece.start < piece.end) {
        const char *space = memchr(text + piece.start, ' ', piece.end - piece.start);
        size_t stop = space != NULL ? (size_t)(space - text) : piece.end;
        qins_buffer_add(out, text + piece.start, stop - piece.start);
        if (space != NULL) qins_buffer_add(out, step->mark, step->mark_length);
        piece.start = stop + 1;
    }
}

static void rewrite_prefix(const qins_pretokenizer_step *step, const char *text, qins_piece piece, qins_buffer *out) {
    size_t n = piece.end - piece.start;
    bool has_it = n >= step->mark_length && memcmp(text + piece.start, step->mark, step->mark_length) == 0;
    if (!has_it && (!step->only_first || piece.at_start)) qins_buffer_add(out, step->mark, step->mark_length);
    qins_buffer_add(out, text + piece.start, n);
}

static void set_text(qins_pieces *p, const char *text, size_t n_bytes) {
    p->text = p->matched = text;
    if (qins_replace_newer_characters(text, n_bytes, &p->older)) p->matched = p->older.data;
    p->failed |= p->older.failed;
}

static void rewrite(const qins_pretokenizer_step *step, qins_pieces *p) {
    p->spare_text.size = 0;
    for (size_t i = 0; i < p->size; i++) {
        size_t start = p->spare_text.size;
        qins_piece piece = p->data[i];
        if (step->kind == QINS_PRETOKENIZE_SPACES)
            rewrite_spaces(step, p->text, piece, &p->spare_text);
        else if (step->kind == QINS_PRETOKENIZE_PREFIX)
            rewrite_prefix(step, p->text, piece, &p->spare_text);
        else
            qins_bytes_to_chars(p->text + piece.start, piece.end - piece.start, &p->spare_text);
        p->data[i] = (qins_piece){start, p->spare_text.size, piece.at_start};
    }
    qins_buffer old = p->rewritten;
    p->rewritten = p->spare_text;
    p->spare_text = old;
    p->failed |= p->rewritten.failed;
    if (!p->failed) set_text(p, p->rewritten.data, p->rewritten.size);
}

qins_status qins_pretokenize(const qins_pretokenizer *pretokenizer, struct pcre2_real_match_data_8 *scratch,
                             const char *text, size_t n_bytes, bool at_start, qins_pieces *pieces, qins_error *err) {
    pieces->size = 0;
    set_text(pieces, text, n_bytes);
    add_piece(pieces, 0, n_bytes, at_start);
    for (size_t i = 0; i < pretokenizer->n_steps && pieces->size > 0 && !pieces->failed; i++) {
        const qins_pretokenizer_step *step = &pretokenizer->steps[i];
        if (step->kind != QINS_PRETOKENIZE_SPLIT) {
            rewrite(step, pieces);
            continue;
        }
        qins_status status = split(step, scratch, pieces, err);
        if (status != QINS_OK) return status;
    }
    return pieces->failed ? qins_fail_memory(err, n_bytes * sizeof(qins_piece), "the pieces of a text") : QINS_OK;
}

void qins_pieces_free(qins_pieces *pieces) {
    free(pieces->data);
    free(pieces->spare);
    qins_buffer_free(&pieces->rewritten);
    qins_buffer_free(&pieces->spare_text);
    qins_buffer_free(&pieces->older);
    *pieces = (qins_pieces){0};
}
