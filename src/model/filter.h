/* What sampling leaves of a distribution. SPDX-License-Identifier: MIT */
#ifndef QINS_FILTER_H
#define QINS_FILTER_H

#include "base/base.h"

typedef struct qins_candidate {
    int32_t id;
    float logit;
    double probability;
} qins_candidate;

/* Ids of the logits that are numbers, likeliest first, the lower id first among equals: in the low 32 bits of
 * order[0..result). scratch has n words too. n is at most 2^31. */
size_t qins_rank_logits(const float *logits, size_t n, uint64_t *order, uint64_t *scratch);
static inline int32_t qins_ranked_id(uint64_t word) {
    return (int32_t)(uint32_t)word;
}

/* Candidates left by temperature (above 0), top-k, top-p and min-p, in this order, as transformers applies them;
 * likeliest first, their probabilities sum to 1. out has room for n_order. Returns how many, at least 1; n_order must
 * not be 0. */
size_t qins_filter(const qins_sampling *params, const float *logits, const uint64_t *order, size_t n_order,
                   qins_candidate *out);

/* The candidate on which `draw`, uniform in [0, 1), falls. */
size_t qins_draw(const qins_candidate *candidates, size_t n, double draw);

#endif
