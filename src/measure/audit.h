/* The list behind qins_audit. SPDX-License-Identifier: MIT */
#ifndef QINS_MEASURE_AUDIT_H
#define QINS_MEASURE_AUDIT_H

#include "model/weights.h"

struct qins_audit {
    qins_weights *weights;
    qins_audit_tensor *tensors;
    size_t n_tensors;
    char **names; /* of tensors that are not in the checkpoint; owned */
    size_t n_names;
    qins_audit_totals totals;
};

/* fp32_bytes and the ratios, from the sums. */
void qins_audit_finish_totals(qins_audit_totals *totals);

#endif
