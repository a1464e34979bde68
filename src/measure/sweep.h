/* What a sweep holds. SPDX-License-Identifier: MIT */
#ifndef QINS_SWEEP_H
#define QINS_SWEEP_H

#include "base/base.h"
#include "model/weights.h"

enum { QINS_SWEEP_MAX_KINDS = QINS_SLOT_COUNT };

struct qins_sweep {
    qins_sweep_info info;
    qins_sweep_point *points; /* [n_points]; strings and arrays belong to the sweep */
    const char *kinds[QINS_SWEEP_MAX_KINDS];
    int kind_of[QINS_SLOT_COUNT]; /* column of a slot, -1 for none */
};

/* Errors of the linears and the codes they are stored in; model must be a compressed form of reference. Fills in
 * file_bpw, rel_mse, n_codes, histogram and layer_errors of the point, whose bpw is known. */
qins_status qins_sweep_compare(const qins_sweep *sweep, const qins_weights *reference, const qins_weights *model,
                               qins_sweep_point *point, qins_error *err);

#endif
