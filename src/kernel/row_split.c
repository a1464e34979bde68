/* SPDX-License-Identifier: MIT */
#include "kernel/row_split.h"

#include <stdlib.h>

static void add_piece(qins_row_split *s, size_t begin, size_t end, bool encoded) {
    if (begin == end) return;
    size_t *rows = encoded ? &s->n_encoded : &s->n_plain;
    if (s->n_pieces > 0 && s->pieces[s->n_pieces - 1].encoded == encoded)
        s->pieces[s->n_pieces - 1].end = end;
    else
        s->pieces[s->n_pieces++] = (qins_row_piece){begin, end, *rows, encoded};
    *rows += end - begin;
}

qins_status qins_row_split_new(size_t n_rows, const qins_row_range *ranges, size_t n_ranges, qins_row_split *s,
                               qins_error *err) {
    *s = (qins_row_split){.pieces = qins_alloc(2 * n_ranges + 1, sizeof *s->pieces)};
    if (s->pieces == NULL) return qins_fail_memory(err, n_ranges * 2 * sizeof *s->pieces, "ranges of rows");
    size_t row = 0;
    for (size_t i = 0; i < n_ranges; i++) {
        if (ranges[i].begin < row || ranges[i].end < ranges[i].begin || ranges[i].end > n_rows) {
            qins_row_split_free(s);
            return qins_fail(err, QINS_ERR_FORMAT, "rows %zu to %zu: expected ascending ranges within %zu rows",
                             ranges[i].begin, ranges[i].end, n_rows);
        }
        add_piece(s, row, ranges[i].begin, false);
        add_piece(s, ranges[i].begin, ranges[i].end, true);
        row = ranges[i].end;
    }
    add_piece(s, row, n_rows, false);
    return QINS_OK;
}

void qins_row_split_free(qins_row_split *s) {
    free(s->pieces);
    *s = (qins_row_split){0};
}

/* Number of pieces that begin at or before a row. */
static size_t count_before(const qins_row_split *s, size_t row) {
    size_t low = 0, high = s->n_pieces;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->pieces[middle].begin <= row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const qins_row_piece *qins_row_split_find(const qins_row_split *s, size_t row) {
    return &s->pieces[count_before(s, row) - 1];
}

size_t qins_row_split_row(const qins_row_split *s, bool encoded, size_t at) {
    /* pieces of one part are every other one, their `at` ascends */
    size_t first = s->pieces[0].encoded == encoded ? 0 : 1, low = 0, high = (s->n_pieces - first + 1) / 2;
    while (low + 1 < high) {
        size_t middle = (low + high) / 2;
        if (s->pieces[first + 2 * middle].at <= at)
            low = middle;
        else
            high = middle;
    }
    const qins_row_piece *piece = &s->pieces[first + 2 * low];
    return piece->begin + (at - piece->at);
}
