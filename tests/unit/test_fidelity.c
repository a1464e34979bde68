/* Comparison of logits against values worked out by hand. SPDX-License-Identifier: MIT */
#include "measure/fidelity.h"
#include "measure/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void kl_of_two_coins_is_the_textbook_value(void **state) {
    (void)state;
    /* softmax gives (3/4, 1/4) and (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2). */
    const float reference[] = {logf(3.0f), 0.0f}, model[] = {7.0f, 7.0f};
    qins_logit_comparison c;
    assert_true(qins_compare_logits(reference, model, 2, 1, &c));
    assert_true(fabs(c.kl - (0.75 * log(1.5) + 0.25 * log(0.5))) < 1e-7);
    assert_true(fabs(c.ref_target_logprob - log(0.25)) < 1e-7);
    assert_true(fabs(c.target_logprob - log(0.5)) < 1e-7);
}

static void kl_is_zero_for_equal_and_for_shifted_logits(void **state) {
    (void)state;
    float reference[100], shifted[100];
    for (int i = 0; i < 100; i++) {
        reference[i] = (float)((i * 37) % 100) * 0.125f;
        shifted[i] = reference[i] + 64.0f;
    }
    qins_logit_comparison c;
    assert_true(qins_compare_logits(reference, reference, 100, -1, &c));
    assert_true(c.kl == 0);
    assert_true(c.max_abs_diff == 0);
    assert_true(qins_compare_logits(reference, shifted, 100, -1, &c));
    assert_true(c.kl < 1e-12);
    assert_true(c.max_abs_diff == 64);
    assert_true(c.same_argmax);
    assert_int_equal(c.top10_shared, 10);
}

/* A tokenizer may know ids that the model has no logit for. */
static void a_target_outside_the_vocabulary_counts_as_none(void **state) {
    (void)state;
    const float logits[] = {1.0f, 2.0f};
    qins_logit_comparison c;
    assert_true(qins_compare_logits(logits, logits, 2, 2, &c));
    assert_true(c.ref_target_logprob == 0 && c.target_logprob == 0);
    assert_true(qins_compare_logits(logits, logits, 2, INT32_MAX, &c));
    assert_true(c.ref_target_logprob == 0 && c.target_logprob == 0);
}

static void kl_survives_logits_that_overflow_exp(void **state) {
    (void)state;
    const float reference[] = {5000.0f, 0.0f, -5000.0f}, model[] = {0.0f, 5000.0f, -5000.0f};
    qins_logit_comparison c;
    assert_true(qins_compare_logits(reference, model, 3, 0, &c));
    assert_true(fabs(c.kl - 5000) < 1e-6);
    assert_true(c.ref_target_logprob == 0);
    assert_true(fabs(c.target_logprob + 5000) < 1e-6);
    assert_false(c.same_argmax);
}

static void kl_matches_a_direct_sum_over_probabilities(void **state) {
    (void)state;
    enum { N = 257 };
    float reference[N], model[N];
    double p[N], q[N], p_sum = 0, q_sum = 0, expected = 0;
    for (int i = 0; i < N; i++) {
        reference[i] = sinf((float)i) * 4;
        model[i] = reference[i] + cosf((float)(i * i)) * 0.1f;
        p_sum += p[i] = exp((double)reference[i]);
        q_sum += q[i] = exp((double)model[i]);
    }
    for (int i = 0; i < N; i++)
        expected += p[i] / p_sum * log(p[i] / p_sum / (q[i] / q_sum));
    qins_logit_comparison c;
    assert_true(qins_compare_logits(reference, model, N, -1, &c));
    assert_true(expected > 1e-4);
    assert_true(fabs(c.kl - expected) < 1e-12);
}

static void top_ten_counts_shared_tokens_whatever_their_order(void **state) {
    (void)state;
    float reference[20], model[20];
    for (int i = 0; i < 20; i++) {
        reference[i] = (float)(20 - i); /* top ten: 0..9 */
        model[i] = (float)-abs(i - 7);  /* top ten: 3..11, and 2, which ties with 12 and comes first */
    }
    qins_logit_comparison c;
    assert_true(qins_compare_logits(reference, model, 20, -1, &c));
    assert_int_equal(c.top10_shared, 8);
    assert_int_equal(c.top10_of, 10);
    assert_true(qins_compare_logits(reference, model, 4, -1, &c));
    assert_int_equal(c.top10_shared, 4);
    assert_int_equal(c.top10_of, 4);
}

static void argmax_takes_the_lowest_id_on_ties(void **state) {
    (void)state;
    const float values[] = {1, 3, 2, 3, 3};
    assert_int_equal(qins_argmax(values, 5), 1);
}

static void logits_that_are_not_finite_are_refused(void **state) {
    (void)state;
    const float good[] = {1, 2}, nan_logits[] = {1, NAN}, inf_logits[] = {INFINITY, 1};
    qins_logit_comparison c;
    assert_false(qins_compare_logits(good, nan_logits, 2, -1, &c));
    assert_false(qins_compare_logits(inf_logits, good, 2, -1, &c));
}

static void quantile_is_the_nearest_rank(void **state) {
    (void)state;
    double values[100], one[] = {5};
    for (int i = 0; i < 100; i++)
        values[i] = (double)((i * 37 + 11) % 100 + 1);
    qins_sort(values, 100);
    assert_true(qins_quantile(values, 100, 0.99) == 99);
    assert_true(qins_quantile(values, 100, 0.5) == 50);
    assert_true(qins_quantile(values, 100, 1.0) == 100);
    assert_true(qins_quantile(one, 1, 0.99) == 5);
}

static void built_in_material_is_there(void **state) {
    (void)state;
    assert_int_equal(strlen(qins_default_text), qins_default_text_bytes);
    assert_true(qins_default_text_bytes > 20000);
    assert_int_equal(qins_n_default_prompts, 32);
    size_t n_kinds = 0;
    for (size_t i = 0; i < qins_n_default_prompts; i++)
        n_kinds += i == 0 || strcmp(qins_default_prompts[i].kind, qins_default_prompts[i - 1].kind) != 0;
    assert_int_equal(n_kinds, 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kl_of_two_coins_is_the_textbook_value),
        cmocka_unit_test(kl_is_zero_for_equal_and_for_shifted_logits),
        cmocka_unit_test(a_target_outside_the_vocabulary_counts_as_none),
        cmocka_unit_test(kl_survives_logits_that_overflow_exp),
        cmocka_unit_test(kl_matches_a_direct_sum_over_probabilities),
        cmocka_unit_test(top_ten_counts_shared_tokens_whatever_their_order),
        cmocka_unit_test(argmax_takes_the_lowest_id_on_ties),
        cmocka_unit_test(logits_that_are_not_finite_are_refused),
        cmocka_unit_test(quantile_is_the_nearest_rank),
        cmocka_unit_test(built_in_material_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
