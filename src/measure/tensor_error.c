/* SPDX-License-Identifier: MIT */
#include "measure/tensor_error.h"

#include <stdlib.h>

enum { ROWS = 64 }; /* decoded at a time, of each model */

qins_status qins_tensor_error_add(const qins_weights *reference, const qins_weights *model, const qins_parameter *p,
                                  qins_tensor_error *error, bool *paired, qins_error *err) {
    const qins_parameter *ref = qins_weights_find(reference, p->name);
    *paired = p->n_dims == 2 && ref != NULL && ref->n_dims == 2 && ref->shape[0] == p->shape[0] &&
              ref->shape[1] == p->shape[1];
    if (!*paired) return QINS_OK;
    qins_matrix a, b;
    qins_status status = qins_weights_matrix(reference, ref, &a, err);
    if (status == QINS_OK) status = qins_weights_matrix(model, p, &b, err);
    if (status != QINS_OK) return status;
    size_t block = ROWS * b.n_cols;
    float *rows = qins_alloc(2 * block, sizeof *rows);
    if (rows == NULL) return qins_fail_memory(err, 2 * block * sizeof *rows, "rows");
    for (size_t r = 0; r < b.n_rows; r += ROWS) {
        size_t n = qins_min_size(ROWS, b.n_rows - r), n_values = n * b.n_cols;
        double squares = 0, errors = 0;
        qins_matrix_decode_rows(&a, r, n, rows);
        qins_matrix_decode_rows(&b, r, n, rows + block);
        for (size_t i = 0; i < n_values; i++) {
            double w = (double)rows[i], d = (double)rows[block + i] - w;
            squares += w * w;
            errors += d * d;
        }
        error->sum_squares += squares;
        error->sum_squared_error += errors;
    }
    free(rows);
    return QINS_OK;
}
