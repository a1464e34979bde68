/* SPDX-License-Identifier: MIT */
#include "measure/fidelity.h"

#include <math.h>
#include <stdlib.h>

enum { TOP = 10 };

int32_t qins_argmax(const float *values, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (values[i] > values[best]) best = i;
    return (int32_t)best;
}

/* log sum exp, shifted by the maximum so that nothing overflows. */
static double log_sum_exp(const float *logits, size_t n, double max) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum);
}

/* Indices of the largest values, largest first, lower index first on ties. Returns how many: TOP, or n when smaller. */
static size_t top_indices(const float *values, size_t n, size_t top[TOP]) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (used == TOP && values[i] <= values[top[TOP - 1]]) continue;
        size_t place = used < TOP ? used++ : TOP - 1;
        for (; place > 0 && values[i] > values[top[place - 1]]; place--)
            top[place] = top[place - 1];
        top[place] = i;
    }
    return used;
}

static size_t count_shared(const size_t *a, const size_t *b, size_t n) {
    size_t shared = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            shared += a[i] == b[j];
    return shared;
}

bool qins_compare_logits(const float *reference, const float *model, size_t n, int32_t target,
                         qins_logit_comparison *result) {
    size_t ref_top[TOP], model_top[TOP];
    double max_abs_diff = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(reference[i]) || !isfinite(model[i])) return false;
        max_abs_diff = fmax(max_abs_diff, fabs((double)reference[i] - (double)model[i]));
    }
    size_t n_top = top_indices(reference, n, ref_top);
    top_indices(model, n, model_top);
    double ref_norm = log_sum_exp(reference, n, (double)reference[ref_top[0]]);
    double model_norm = log_sum_exp(model, n, (double)model[model_top[0]]);

    double kl = 0;
    for (size_t i = 0; i < n; i++) {
        double ref_logprob = (double)reference[i] - ref_norm;
        kl += exp(ref_logprob) * (ref_logprob - ((double)model[i] - model_norm));
    }
    bool has_target = target >= 0 && (size_t)target < n;
    *result = (qins_logit_comparison){
        .kl = fmax(kl, 0), /* never negative but for the rounding of the sum */
        .ref_target_logprob = has_target ? (double)reference[target] - ref_norm : 0,
        .target_logprob = has_target ? (double)model[target] - model_norm : 0,
        .max_abs_diff = max_abs_diff,
        .same_argmax = ref_top[0] == model_top[0],
        .top10_shared = count_shared(ref_top, model_top, n_top),
        .top10_of = n_top,
    };
    return true;
}
