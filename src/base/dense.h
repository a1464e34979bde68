/* FP32 matrix products and factorisations, by OpenBLAS and LAPACKE. SPDX-License-Identifier: MIT
 *
 * Threads are OpenMP's: a product is cut into pieces, and each piece is one call of a BLAS that is told to use a single
 * thread. Two thread pools that wait for each other by spinning cost more than they gain, and --threads holds this way.
 */
#ifndef QINS_DENSE_H
#define QINS_DENSE_H

#include "base/base.h"

/* Tells BLAS to use one thread a call, until qins_dense_end is given the value back. The setting is the process's:
 * programs that call OpenBLAS themselves at the same time get one thread as well. */
int qins_dense_begin(void);
void qins_dense_end(int previous);

/* c[m][n] = alpha * a[m][k] * b[n][k]^T + beta * c. Row-major; ld* are floats from row to row. */
void qins_dense_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                   float beta, float *c, size_t ldc);
/* c[m][n] = alpha * a[m][k] * b[k][n] + beta * c */
void qins_dense_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                   float beta, float *c, size_t ldc);
/* The same on the calling thread, for use within parallel regions. */
void qins_dense_nt_serial(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc);
void qins_dense_nn_serial(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc);
/* c[m][n] = alpha * a[k][m]^T b[k][n] + beta * c */
void qins_dense_tn_serial(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc);
/* x[m][n] := rows y with U y = x; u[n][n] upper triangular with ones on its diagonal. */
void qins_dense_solve_unit_upper(size_t m, size_t n, const float *u, float *x);
/* Upper triangle of h[n][n] += x^T x, x[m][n]. */
void qins_dense_gram(size_t m, size_t n, const float *x, size_t ldx, float *h);
/* a[n][n] = L L^T in place: the lower triangle of the row-major symmetric matrix is read and L written to it. False
 * when a is not positive definite. */
bool qins_dense_cholesky(size_t n, double *a);
/* Eigenvectors of the symmetric a[n][n], which its rows become, and their values[n], ascending. False on failure. */
bool qins_dense_eigen(size_t n, double *a, double *values);
/* a[n][n] := its inverse. False when it has none. */
bool qins_dense_invert(size_t n, double *a);

#endif
