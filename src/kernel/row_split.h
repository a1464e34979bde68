/* A matrix of which some rows are encoded and the others are plain. SPDX-License-Identifier: MIT */
#ifndef QINS_ROW_SPLIT_H
#define QINS_ROW_SPLIT_H

#include "base/base.h"

/* Rows [begin, end) of the matrix. */
typedef struct qins_row_range {
    size_t begin, end;
} qins_row_range;

/* A run of rows that lie in one of the two parts, from row `at` of that part on. */
typedef struct qins_row_piece {
    size_t begin, end, at;
    bool encoded;
} qins_row_piece;

/* All rows in order; no pieces: the matrix is not split. */
typedef struct qins_row_split {
    qins_row_piece *pieces;
    size_t n_pieces;
    size_t n_encoded, n_plain; /* rows of the parts */
} qins_row_split;

/* ranges: the encoded rows, ascending, not overlapping, within n_rows; ones that touch are joined. */
qins_status qins_row_split_new(size_t n_rows, const qins_row_range *ranges, size_t n_ranges, qins_row_split *split,
                               qins_error *err);
void qins_row_split_free(qins_row_split *split);
/* The piece that holds a row. */
const qins_row_piece *qins_row_split_find(const qins_row_split *split, size_t row);
/* Row of the matrix that is row `at` of a part. */
size_t qins_row_split_row(const qins_row_split *split, bool encoded, size_t at);

#endif
