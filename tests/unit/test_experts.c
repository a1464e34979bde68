/* Choice of experts. SPDX-License-Identifier: MIT */
#include "model/model.h"
#include "testing.h"

enum { N = 6, USED = 3 };

static const qins_hparams plain = {.n_experts = N, .n_experts_used = USED};

static void the_likeliest_are_chosen_best_first(void **state) {
    (void)state;
    float logits[N] = {0.0f, 2.0f, 1.0f, -1.0f, 3.0f, -2.0f}, weights[USED], sum = 0;
    size_t chosen[USED];
    for (size_t i = 0; i < N; i++)
        sum += expf(logits[i]);
    qins_choose_experts(&plain, logits, chosen, weights);
    assert_int_equal(chosen[0], 4);
    assert_int_equal(chosen[1], 1);
    assert_int_equal(chosen[2], 2);
    assert_close(weights[0], expf(3.0f) / sum, 1e-6);
    assert_close(weights[2], expf(1.0f) / sum, 1e-6);
}

static void lower_indices_win_ties(void **state) {
    (void)state;
    float logits[N] = {1, 1, 1, 1, 1, 1}, weights[USED];
    size_t chosen[USED];
    const qins_hparams normalized = {.n_experts = N, .n_experts_used = USED, .normalize_experts = true};
    qins_choose_experts(&normalized, logits, chosen, weights);
    for (size_t k = 0; k < USED; k++) {
        assert_int_equal(chosen[k], k);
        assert_close(weights[k], 1.0 / USED, 1e-6);
    }
}

/* A token comes to an expert at most once: the room for its tokens is that of a batch. */
static void no_expert_is_chosen_twice_whatever_the_logits(void **state) {
    (void)state;
    const float values[] = {NAN, -INFINITY, INFINITY, 0.0f};
    for (unsigned pattern = 0; pattern < 4096; pattern++) { /* four values in six places */
        float logits[N], weights[USED];
        size_t chosen[USED];
        for (unsigned i = 0; i < N; i++)
            logits[i] = values[pattern >> 2 * i & 3];
        qins_choose_experts(&plain, logits, chosen, weights);
        for (size_t k = 0; k < USED; k++) {
            assert_true(chosen[k] < N);
            for (size_t j = 0; j < k; j++)
                assert_int_not_equal(chosen[j], chosen[k]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest_are_chosen_best_first),
        cmocka_unit_test(lower_indices_win_ties),
        cmocka_unit_test(no_expert_is_chosen_twice_whatever_the_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
