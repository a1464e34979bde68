/* Rows of codes whose spreads differ, in classes that an entropy coder gives tables of their own.
 * SPDX-License-Identifier: MIT
 *
 * k-means, with the bits that a row takes under the table of a class for a distance: rows in the order of what they
 * take under the common table are cut into equal parts, then every row goes to the class where it takes least, and
 * tables are made anew, a few times.
 */
#include "codec/entropy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 6 };

/* Bits of each code under the counts of a class; codes that it lacks cost as if seen half a time. */
static void code_lengths(const uint64_t *counts, size_t n_levels, double *length) {
    double total = 0.5;
    for (size_t c = 0; c < n_levels; c++)
        total += (double)counts[c];
    for (size_t c = 0; c < n_levels; c++)
        length[c] = log2(total / (counts[c] > 0 ? (double)counts[c] : 0.5));
}

static double cost(const uint32_t *row, size_t n_levels, const double *length) {
    double bits = 0;
    for (size_t c = 0; c < n_levels; c++)
        bits += row[c] * length[c];
    return bits;
}

typedef struct ranked {
    double bits;
    size_t row;
} ranked;

static int compare_ranked(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->bits != y->bits) return x->bits < y->bits ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* Entropy of all classes, and the lengths of their codes. */
static double make_tables(const uint32_t *counts, size_t n_rows, size_t n_levels, const uint8_t *class_of,
                          double length[QINS_ROW_CLASSES][QINS_MAX_LEVELS]) {
    uint64_t sums[QINS_ROW_CLASSES][QINS_MAX_LEVELS] = {{0}};
    double bits = 0;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_levels; c++)
            sums[class_of[r]][c] += counts[r * n_levels + c];
    for (size_t k = 0; k < QINS_ROW_CLASSES; k++) {
        code_lengths(sums[k], n_levels, length[k]);
        for (size_t c = 0; c < n_levels; c++)
            bits += (double)sums[k][c] * length[k][c];
    }
    return bits;
}

static uint8_t cheapest_class(const uint32_t *row, size_t n_levels, double length[QINS_ROW_CLASSES][QINS_MAX_LEVELS]) {
    uint8_t best = 0;
    double least = INFINITY;
    for (uint8_t k = 0; k < QINS_ROW_CLASSES; k++) {
        double bits = cost(row, n_levels, length[k]);
        if (bits < least) {
            least = bits;
            best = k;
        }
    }
    return best;
}

bool qins_row_classes(const uint32_t *counts, size_t n_rows, size_t n_levels, uint8_t *class_of, double *together,
                      double *apart) {
    double length[QINS_ROW_CLASSES][QINS_MAX_LEVELS];
    ranked *order = qins_alloc(n_rows, sizeof *order);
    if (order == NULL) return false;
    memset(class_of, 0, n_rows);
    *together = *apart = make_tables(counts, n_rows, n_levels, class_of, length);
    for (size_t r = 0; r < n_rows; r++)
        order[r] = (ranked){cost(counts + r * n_levels, n_levels, length[0]), r};
    qsort(order, n_rows, sizeof *order, compare_ranked);
    for (size_t i = 0; i < n_rows; i++)
        class_of[order[i].row] = (uint8_t)(i * QINS_ROW_CLASSES / n_rows);
    free(order);
    for (int round = 0; round < ROUNDS; round++) {
        make_tables(counts, n_rows, n_levels, class_of, length);
#pragma omp parallel for schedule(static)
        for (size_t r = 0; r < n_rows; r++)
            class_of[r] = cheapest_class(counts + r * n_levels, n_levels, length);
    }
    *apart = make_tables(counts, n_rows, n_levels, class_of, length);
    return true;
}
