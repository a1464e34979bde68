/* SPDX-License-Identifier: MIT */
#include "model/projections.h"

#include "model/model.h"

#include <stdlib.h>

static const char *const names[QINS_SLOT_COUNT] = {
    [QINS_SLOT_Q] = "q_proj",
    [QINS_SLOT_K] = "k_proj",
    [QINS_SLOT_V] = "v_proj",
    [QINS_SLOT_O] = "o_proj",
    [QINS_SLOT_GATE] = "gate_proj",
    [QINS_SLOT_UP] = "up_proj",
    [QINS_SLOT_DOWN] = "down_proj",
    [QINS_SLOT_SHARED_GATE] = "gate_proj",
    [QINS_SLOT_SHARED_UP] = "up_proj",
    [QINS_SLOT_SHARED_DOWN] = "down_proj",
    [QINS_SLOT_EXPERT_GATE] = "gate_proj",
    [QINS_SLOT_EXPERT_UP] = "up_proj",
    [QINS_SLOT_EXPERT_DOWN] = "down_proj",
};

const char *qins_projection_name(qins_slot slot) {
    return slot < QINS_SLOT_COUNT ? names[slot] : NULL;
}

size_t qins_projections_of(qins_slot slot, qins_slot projections[QINS_MAX_PROJECTIONS]) {
    if (slot == QINS_SLOT_QKV) {
        projections[0] = QINS_SLOT_Q;
        projections[1] = QINS_SLOT_K;
        projections[2] = QINS_SLOT_V;
        return 3;
    }
    if (slot == QINS_SLOT_GATE_UP) {
        projections[0] = QINS_SLOT_GATE;
        projections[1] = QINS_SLOT_UP;
        return 2;
    }
    projections[0] = slot;
    return 1;
}

static int compare_ranges(const void *a, const void *b) {
    const qins_row_range *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* Each head's rows of each wanted projection, in the order of the matrix. */
static size_t qkv_ranges(const qins_hparams *h, const bool *wanted, qins_row_range *ranges) {
    qins_qkv_view view = qins_qkv_view_of(h);
    const size_t offsets[] = {view.q_offset, view.k_offset, view.v_offset};
    const size_t heads[] = {h->n_heads, h->n_kv_heads, h->n_kv_heads};
    size_t n = 0;
    for (size_t p = 0; p < 3; p++)
        for (size_t head = 0; wanted[p] && head < heads[p]; head++) {
            size_t begin = offsets[p] + head * view.head_stride;
            ranges[n++] = (qins_row_range){begin, begin + h->head_dim};
        }
    qsort(ranges, n, sizeof *ranges, compare_ranges);
    return n;
}

qins_status qins_projection_rows(const qins_hparams *h, qins_slot fused, const bool *wanted, qins_row_split *split,
                                 qins_error *err) {
    size_t inner = h->intermediate_size, n = 0;
    if (fused == QINS_SLOT_GATE_UP) {
        qins_row_range ranges[2];
        for (size_t p = 0; p < 2; p++)
            if (wanted[p]) ranges[n++] = (qins_row_range){p * inner, (p + 1) * inner};
        return qins_row_split_new(2 * inner, ranges, n, split, err);
    }
    size_t heads = h->n_heads + 2 * h->n_kv_heads;
    qins_row_range *ranges = qins_alloc(heads, sizeof *ranges);
    if (ranges == NULL) return qins_fail_memory(err, heads * sizeof *ranges, "ranges of rows");
    n = qkv_ranges(h, wanted, ranges);
    qins_status status = qins_row_split_new(qins_qkv_view_of(h).row, ranges, n, split, err);
    free(ranges);
    return status;
}
