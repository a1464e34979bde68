/* The projections that a fused matrix holds. SPDX-License-Identifier: MIT */
#ifndef QINS_PROJECTIONS_H
#define QINS_PROJECTIONS_H

#include "kernel/row_split.h"
#include "model/weights.h"

enum { QINS_MAX_PROJECTIONS = 3 };

/* Slots of the projections in a matrix of this slot, e.g. q, k and v in qkv; their number, 1 (the slot itself) when the
 * matrix is not fused. */
size_t qins_projections_of(qins_slot slot, qins_slot projections[QINS_MAX_PROJECTIONS]);
/* "v_proj", "gate_proj" ...; NULL for slots that are no projection. */
const char *qins_projection_name(qins_slot slot);
/* The rows of some projections of a fused matrix. wanted[i]: that of projections[i]. */
qins_status qins_projection_rows(const qins_hparams *hparams, qins_slot fused, const bool *wanted,
                                 qins_row_split *split, qins_error *err);

#endif
