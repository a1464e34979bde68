/* SPDX-License-Identifier: MIT */
#include "base/dense.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <stdlib.h>

enum { MIN_PIECE = 64 }; /* rows or columns that are worth a call */

int qins_dense_begin(void) {
    int previous = openblas_get_num_threads();
    openblas_set_num_threads(1);
    return previous;
}

void qins_dense_end(int previous) {
    openblas_set_num_threads(previous);
}

typedef struct product {
    CBLAS_TRANSPOSE transpose; /* of b */
    size_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    size_t lda, ldb, ldc;
    float *c;
} product;

/* Rows [row, row+m) and columns [col, col+n) of c. */
static void multiply_part(const product *p, size_t row, size_t m, size_t col, size_t n) {
    const float *b = p->b + (p->transpose == CblasTrans ? col * p->ldb : col);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, p->transpose, (blasint)m, (blasint)n, (blasint)p->k, p->alpha,
                p->a + row * p->lda, (blasint)p->lda, b, (blasint)p->ldb, p->beta, p->c + row * p->ldc + col,
                (blasint)p->ldc);
}

/* Cuts the longer side of c into pieces, a few a thread so that a busy core does not hold up the others. */
static void multiply(const product *p) {
    bool by_row = p->m >= p->n;
    size_t length = by_row ? p->m : p->n, wanted = 4 * (size_t)qins_get_threads();
    size_t piece = qins_max_size(MIN_PIECE, qins_round_up((length - 1) / wanted + 1, 16));
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < length; i += piece) {
        size_t n = qins_min_size(piece, length - i);
        if (by_row)
            multiply_part(p, i, n, 0, p->n);
        else
            multiply_part(p, 0, p->m, i, n);
    }
}

void qins_dense_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                   float beta, float *c, size_t ldc) {
    if (m == 0 || n == 0) return;
    const product p = {CblasTrans, m, n, k, alpha, beta, a, b, lda, ldb, ldc, c};
    multiply(&p);
}

void qins_dense_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                   float beta, float *c, size_t ldc) {
    if (m == 0 || n == 0) return;
    const product p = {CblasNoTrans, m, n, k, alpha, beta, a, b, lda, ldb, ldc, c};
    multiply(&p);
}

void qins_dense_nt_serial(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc) {
    if (m == 0 || n == 0) return;
    const product p = {CblasTrans, m, n, k, alpha, beta, a, b, lda, ldb, ldc, c};
    multiply_part(&p, 0, m, 0, n);
}

void qins_dense_nn_serial(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc) {
    if (m == 0 || n == 0) return;
    const product p = {CblasNoTrans, m, n, k, alpha, beta, a, b, lda, ldb, ldc, c};
    multiply_part(&p, 0, m, 0, n);
}

void qins_dense_tn_serial(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc) {
    if (m == 0 || n == 0) return;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, alpha, a, (blasint)lda, b,
                (blasint)ldb, beta, c, (blasint)ldc);
}

void qins_dense_solve_unit_upper(size_t m, size_t n, const float *u, float *x) {
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t row = 0; row < m; row += MIN_PIECE)
        cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasUnit,
                    (blasint)qins_min_size(MIN_PIECE, m - row), (blasint)n, 1.0f, u, (blasint)n, x + row * n,
                    (blasint)n);
}

void qins_dense_gram(size_t m, size_t n, const float *x, size_t ldx, float *h) {
    enum { PANEL = 192 };
    if (m == 0) return;
    size_t n_panels = (n - 1) / PANEL + 1;
    /* Panels of columns down to the diagonal; the long ones first. */
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < n_panels; i++) {
        size_t col = (n_panels - 1 - i) * PANEL, width = qins_min_size(PANEL, n - col);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)(col + width), (blasint)width, (blasint)m, 1.0f,
                    x, (blasint)ldx, x + col, (blasint)ldx, 1.0f, h + col, (blasint)n);
    }
}

bool qins_dense_cholesky(size_t n, double *a) {
    if (n > INT_MAX) return false;
    /* A row-major lower triangle is a column-major upper one. One large factorisation: here BLAS has all threads. */
    int previous = openblas_get_num_threads();
    openblas_set_num_threads(qins_get_threads());
    lapack_int info = LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', (lapack_int)n, a, (lapack_int)n);
    openblas_set_num_threads(previous);
    return info == 0;
}

bool qins_dense_eigen(size_t n, double *a, double *values) {
    if (n > INT_MAX) return false;
    return LAPACKE_dsyev(LAPACK_COL_MAJOR, 'V', 'U', (lapack_int)n, a, (lapack_int)n, values) == 0;
}

/* The transposed of an inverse is the inverse of the transposed: the order of rows and columns does not matter. */
bool qins_dense_invert(size_t n, double *a) {
    if (n > INT_MAX) return false;
    lapack_int *pivots = qins_alloc(n, sizeof *pivots), size = (lapack_int)n;
    bool good = pivots != NULL && LAPACKE_dgetrf(LAPACK_COL_MAJOR, size, size, a, size, pivots) == 0 &&
                LAPACKE_dgetri(LAPACK_COL_MAJOR, size, a, size, pivots) == 0;
    free(pivots);
    return good;
}
