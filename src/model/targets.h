/* Which linears to encode. SPDX-License-Identifier: MIT */
#ifndef QINS_TARGETS_H
#define QINS_TARGETS_H

#include "model/weights.h"

typedef struct qins_targets qins_targets;

/* Which rows of a linear to encode. */
typedef enum qins_selection { QINS_SELECT_NONE, QINS_SELECT_SOME, QINS_SELECT_ALL } qins_selection;

/* spec: "all", "safe" (v, o, gate, up and down projections, also within fused matrices) or a PCRE2 regex. It is
 * searched in tensor names and in names of projections: the tensor name with its last component replaced, e.g.
 * "model.layers.0.self_attn.v_proj.weight" for the rows of v in "model.layers.0.self_attn.qkv_proj.weight". Of a fused
 * matrix those projections are meant whose names match; when none does, all rows if the tensor's own name matches. */
qins_status qins_targets_new(const char *spec, qins_targets **targets, qins_error *err);
/* split: the rows, for QINS_SELECT_SOME; freed with qins_row_split_free(). */
qins_status qins_targets_select(const qins_targets *targets, const qins_hparams *hparams, const qins_parameter *linear,
                                qins_selection *selection, qins_row_split *split, qins_error *err);
void qins_targets_free(qins_targets *targets);

#endif
