/* What compress does with every parameter of a checkpoint. SPDX-License-Identifier: MIT */
#ifndef QINS_COMPRESS_PLAN_H
#define QINS_COMPRESS_PLAN_H

#include "model/weights.h"

/* What happens to one parameter. */
typedef struct qins_plan_item {
    const qins_parameter *parameter;
    bool encode;
    qins_encode_options options;
    qins_part_info parts[QINS_PART_COUNT];
    ptrdiff_t index[QINS_PART_COUNT]; /* in the writer; plain tensors use index[0]; -1 for none */
    bool convert;   /* plain, but not in a form safetensors holds: becomes F32 or is put in row order */
    qins_type type; /* plain: what is written */
} qins_plan_item;

typedef struct qins_plan {
    qins_plan_item *items; /* a head that is tied to the embedding is not among them */
    size_t n_items;
} qins_plan;

/* Chooses codec and width of every parameter. The weights must outlive the plan. */
qins_status qins_plan_make(const qins_compress_options *options, const qins_weights *weights, qins_plan *plan,
                           qins_error *err);
void qins_plan_free(qins_plan *plan);
/* Gives an encoded item another width. */
qins_status qins_plan_set_bits(qins_plan_item *item, int bits, qins_error *err);

/* Bytes of a plain item as it is written. */
uint64_t qins_plan_plain_bytes(const qins_plan_item *item);
/* Bytes of codes, scales and what else belongs to an encoded item alone. */
uint64_t qins_plan_encoded_bytes(const qins_plan_item *item);
/* Bytes of a parameter in the source file; tables that matrices share belong to none of them. */
uint64_t qins_plan_source_bytes(const qins_parameter *parameter);
const char *qins_plan_source_dtype(const qins_parameter *parameter);
/* Tensor bytes of the source that shared tables take. */
uint64_t qins_plan_shared_source_bytes(const qins_plan *plan);

#endif
