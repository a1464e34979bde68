/* Reads tensors as the library does. SPDX-License-Identifier: MIT */
#ifndef QINS_FUZZ_READ_ROWS_H
#define QINS_FUZZ_READ_ROWS_H

#include "format/checkpoint_private.h"

#include <stdlib.h>

/* The first and the last row of every tensor, and its last block. */
static inline void read_rows(const qins_tensor_list *tensors) {
    for (size_t i = 0; i < tensors->n; i++) {
        const qins_tensor *t = &tensors->items[i];
        if (t->n_values == 0) continue;
        size_t n_rows = t->n_dims > 1 ? (size_t)t->shape[0] : 1;
        size_t n_cols = (size_t)t->n_values / n_rows, block = qins_types[t->type].block_values;
        float *row = malloc(n_cols * sizeof *row);
        if (row == NULL) return;
        qins_tensor_row(t, 0, 0, n_cols, row);
        qins_tensor_row(t, n_rows - 1, 0, n_cols, row);
        qins_tensor_row(t, n_rows - 1, n_cols - block, block, row);
        free(row);
    }
}

#endif
