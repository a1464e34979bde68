/* Matrices that read the same inputs, while their layer is calibrated. SPDX-License-Identifier: MIT */
#ifndef QINS_CALIBRATE_GROUP_H
#define QINS_CALIBRATE_GROUP_H

#include "model/calibrate.h"

enum { QINS_MAX_GROUP = 4 };

/* One matrix in the basis of its group: as it is, then as it was rounded. */
typedef struct qins_group_matrix {
    const qins_affine *affine;
    const qins_plan_item *item;  /* NULL: stays as it is */
    float *w;                    /* [n_rows][n_cols]; NULL when it is not present, or coded */
    struct qins_rounding *coded; /* once it is rounded, where kernels multiply codes of all its rows: faster than w */
} qins_group_matrix;

/* q, k and v; gate and up; or one alone. */
typedef struct qins_group {
    qins_group_matrix matrices[QINS_MAX_GROUP];
    size_t n, n_cols;
    float *signs;   /* of the rotation; NULL without one */
    float *moments; /* [n_cols][n_cols], upper triangle: sum of x x^T over inputs */
    size_t n_tokens;
    float *held_moments; /* the same of inputs that are not rounded on; NULL without */
    size_t n_held_tokens;
    void *inputs; /* of coded matrices: some vectors of 16-bit integers */
} qins_group;

static inline bool qins_group_has(const qins_group *g, size_t m) {
    return g->matrices[m].w != NULL || g->matrices[m].coded != NULL;
}

/* Decodes the matrices that are present. items[i] belongs to affines[i]. */
qins_status qins_group_open(qins_group *g, const qins_affine *const *affines, const qins_plan_item *const *items,
                            size_t n, qins_error *err);
void qins_group_close(qins_group *g);
/* Puts inputs x[n][n_cols] into the basis of the group, in place. */
void qins_group_rotate(const qins_group *g, float *x, size_t n);
/* Makes room for the moments of inputs that are held back. */
qins_status qins_group_hold(qins_group *g, qins_error *err);
/* Adds inputs, in the basis of the group, to the moments, or to the held ones. */
void qins_group_observe(qins_group *g, const float *x, size_t n);
void qins_group_observe_held(qins_group *g, const float *x, size_t n);
/* Rounds the matrices, with feedback where there are at least min_tokens inputs, and puts them into `rounded`. losses:
 * NULL, or gets what that costs on the held inputs. */
qins_status qins_group_round(qins_group *g, size_t min_tokens, qins_losses *losses, qins_rounded *rounded,
                             qins_calibrate_result *result, qins_error *err);
/* y[t*ldy + i] = (W x_t)[i] + bias[i] of matrix m; nothing when it is not present. */
void qins_group_apply(const qins_group *g, size_t m, const float *x, size_t n, float *y, size_t ldy);

#endif
