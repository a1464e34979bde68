/* How far one vector of logits is from another. SPDX-License-Identifier: MIT */
#ifndef QINS_FIDELITY_H
#define QINS_FIDELITY_H

#include "qins.h"

typedef struct qins_logit_comparison {
    double kl;                                 /* KL(reference || model), nats */
    double ref_target_logprob, target_logprob; /* log-probability of the target; 0 without one */
    double max_abs_diff;                       /* of the logits */
    bool same_argmax;                          /* lowest id on ties */
    size_t top10_shared;                       /* of the ten likeliest of each (all, when there are fewer) */
    size_t top10_of;
} qins_logit_comparison;

/* Compares two vectors of n logits in double precision. target is a token id; one outside 0..n stands for none.
 * False when a logit is not finite. */
bool qins_compare_logits(const float *reference, const float *model, size_t n, int32_t target,
                         qins_logit_comparison *result);

/* Lowest index of the largest value. */
int32_t qins_argmax(const float *values, size_t n);

/* Built-in material: some 24 kB of Grimm's tales (M. Hunt's translation, 1884) and openings for greedy generation. */
extern const char qins_default_text[];
extern const size_t qins_default_text_bytes;
typedef struct qins_default_prompt {
    const char *kind, *text;
} qins_default_prompt;
extern const qins_default_prompt qins_default_prompts[];
extern const size_t qins_n_default_prompts;

#endif
