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

/* Fills in an entry for the key transform of the KV cache (model/kv_transform.h), which is no parameter. */
void qins_audit_kv_transform(const qins_hparams *h, uint64_t bytes, qins_audit_tensor *t);
/* fp32_bytes and the ratios, from the sums. */
void qins_audit_finish_totals(qins_audit_totals *totals);

#endif
