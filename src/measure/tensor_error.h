/* How far the matrices of a model are from a reference's. SPDX-License-Identifier: MIT */
#ifndef QINS_TENSOR_ERROR_H
#define QINS_TENSOR_ERROR_H

#include "model/weights.h"

typedef struct qins_tensor_error {
    double sum_squares;       /* of the reference */
    double sum_squared_error; /* of model minus reference */
} qins_tensor_error;

/* Adds the error of one matrix, decoded a few rows at a time. False (nothing added) when the reference has no matrix of
 * this name and shape. */
qins_status qins_tensor_error_add(const qins_weights *reference, const qins_weights *model,
                                  const qins_parameter *parameter, qins_tensor_error *error, bool *paired,
                                  qins_error *err);

#endif
