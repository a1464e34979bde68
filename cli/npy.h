/* NumPy's .npy files, format 1.0: float32 matrices written row by row. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_NPY_H
#define QINS_CLI_NPY_H

#include "qins.h"

#include <stdio.h>

typedef struct npy_writer {
    FILE *file;
    char *path, *temp_path;
} npy_writer;

/* Opens a temporary file beside `path`; `path` itself appears, whole, with npy_commit. */
qins_status npy_begin(npy_writer *w, const char *path, size_t n_rows, size_t n_cols, qins_error *err);
qins_status npy_write(npy_writer *w, const float *values, size_t n, qins_error *err);
/* Syncs, closes and renames. Frees w in every case. */
qins_status npy_commit(npy_writer *w, qins_error *err);
/* Removes the temporary file. */
void npy_abort(npy_writer *w);

#endif
