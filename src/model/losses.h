/* What rounding the matrices of a plan costs: predicted, from its output errors, and measured. SPDX-License-Identifier:
 * MIT */
#ifndef QINS_LOSSES_H
#define QINS_LOSSES_H

#include "model/compress_plan.h"
#include "model/model.h"

typedef struct qins_losses {
    const qins_plan_item *items; /* of the plan */
    size_t n_items, n_rows, n_hidden;
    size_t *first_row; /* [n_items]: of the item's rows in squared_gradient */
    double *kl;        /* [n_items]: KL (nats a token) of an item when its relative squared error is 1, as predicted */
    double *found;     /* [n_items]: KL by the output errors of the rounded item on held text; 0 where unknown */
    double *squared_gradient; /* [n_rows]: mean square of the gradient of a row's output */
    float *hidden;            /* [n_hidden]: of the source, after its last layer, on the held text */
} qins_losses;

/* hidden_values: n_hidden. Everything is 0. */
qins_status qins_losses_new(const qins_plan *plan, size_t hidden_values, qins_losses *losses, qins_error *err);
void qins_losses_free(qins_losses *losses);

/* KL of an item whose errors are e[n_rows][n_cols] (its encoded rows), with the moments[n_cols][n_cols] (upper
 * triangle) of n_tokens inputs: 1/2 sum_n E[g_n^2] e_n H e_n^T / tokens. */
qins_status qins_losses_of_errors(const qins_losses *losses, const qins_plan_item *item, const float *e,
                                  const float *moments, size_t n_tokens, double *kl, qins_error *err);

/* KL of the predictions of n tokens whose last hidden states are `hidden` instead of `reference`, mean. */
qins_status qins_losses_measure(const qins_model *model, const float *reference, const float *hidden, size_t n,
                                double *kl, qins_error *err);

#endif
