/* What two models would sample after the same text with the same random draws. SPDX-License-Identifier: MIT */
#ifndef QINS_STRATEGIES_H
#define QINS_STRATEGIES_H

#include "model/filter.h"

enum { QINS_N_STRATEGIES = 5 };

typedef struct qins_strategy {
    const char *name;
    qins_sampling sampling;
} qins_strategy;
extern const qins_strategy qins_strategies[QINS_N_STRATEGIES];

/* Scratch for one thread. */
typedef struct qins_filter_scratch {
    uint64_t *ref_order, *order, *sort;
    qins_candidate *ref_kept, *kept;
} qins_filter_scratch;

bool qins_filter_scratch_init(qins_filter_scratch *scratch, size_t vocab_size);
void qins_filter_scratch_free(qins_filter_scratch *scratch);

typedef struct qins_filtered_comparison {
    double kl, overlap, missed; /* of qins_strategy_score */
    bool same_token;            /* one draw for both, as qins_sample draws */
    bool same_coupled;          /* one draw a token of the vocabulary for both */
} qins_filtered_comparison;

/* Two vectors of n finite logits through the same filters and with the same draws, those of a position. */
void qins_compare_filtered(const qins_sampling *sampling, const float *reference, const float *model, size_t n,
                           uint64_t position, qins_filter_scratch *scratch, qins_filtered_comparison *result);
/* All strategies at once: result[QINS_N_STRATEGIES]. */
void qins_compare_strategies(const float *reference, const float *model, size_t n, uint64_t position,
                             qins_filter_scratch *scratch, qins_filtered_comparison *result);

/* Draws in (0, 1), the same for both models, every run and every strategy. stream 0 is the draw of the position, stream
 * 1 + id that of a token there. */
double qins_position_draw(uint64_t position, uint64_t stream);

#endif
