/* Which linears to encode. SPDX-License-Identifier: MIT */
#ifndef QINS_TARGETS_H
#define QINS_TARGETS_H

#include "model/weights.h"

typedef struct qins_targets qins_targets;

/* spec: "all", "safe" (v, o, gate, up and down projections; a fused qkv stays as it is) or a PCRE2 regex searched in
 * tensor names. */
qins_status qins_targets_new(const char *spec, qins_targets **targets, qins_error *err);
bool qins_targets_match(const qins_targets *targets, const qins_parameter *linear);
void qins_targets_free(qins_targets *targets);

#endif
