/* Sampling against distributions worked out by hand. SPDX-License-Identifier: MIT */
#include "qins.h"
#include "testing.h"

enum { DRAWS = 20000 };

static qins_sampler *new_sampler(qins_sampling params, size_t n) {
    qins_error err = {0};
    qins_sampler *sampler = NULL;
    if (qins_sampler_new(&params, n, &sampler, &err) != QINS_OK) fail_msg("%s", err.message);
    return sampler;
}

static int32_t sample_once(qins_sampling params, const float *logits, size_t n) {
    qins_sampler *sampler = new_sampler(params, n);
    int32_t id = qins_sample(sampler, logits);
    qins_sampler_free(sampler);
    return id;
}

/* The shares of many draws are the expected probabilities (within five standard deviations, and never a token of
 * probability 0). */
static void assert_distribution(qins_sampling params, const float *logits, const double *expected, size_t n) {
    size_t count[16] = {0};
    assert_true(n <= 16);
    qins_sampler *sampler = new_sampler(params, n);
    for (size_t i = 0; i < DRAWS; i++)
        count[qins_sample(sampler, logits)]++;
    qins_sampler_free(sampler);
    for (size_t i = 0; i < n; i++) {
        double p = expected[i];
        assert_close((double)count[i] / DRAWS, p, 5 * sqrt(p * (1 - p) / DRAWS));
    }
}

static const qins_sampling plain = {.temperature = 1, .top_p = 1, .seed = 7};
static const qins_sampling greedy = {.temperature = 0, .top_p = 1};

/* Logits of the probabilities 0.15, 0.4, 0.05, 0.3, 0.1: not in order, and not normalised (+3). */
static void five_tokens(float logits[5]) {
    const double p[5] = {0.15, 0.4, 0.05, 0.3, 0.1};
    for (size_t i = 0; i < 5; i++)
        logits[i] = (float)(log(p[i]) + 3);
}

/* ---- greedy ---- */

static void greedy_takes_the_largest(void **state) {
    (void)state;
    const float logits[] = {-3, 2, 5, 4.9999f};
    assert_int_equal(sample_once(greedy, logits, 4), 2);
}

static void greedy_takes_the_lowest_id_on_ties(void **state) {
    (void)state;
    const float logits[] = {1, 5, 5, 5}, same[] = {2, 2, 2}, minus[] = {-INFINITY, -INFINITY};
    assert_int_equal(sample_once(greedy, logits, 4), 1);
    assert_int_equal(sample_once(greedy, same, 3), 0);
    assert_int_equal(sample_once(greedy, minus, 2), 0);
}

static void nan_is_never_taken(void **state) {
    (void)state;
    const float logits[] = {NAN, 1, NAN, 3, NAN}, none[] = {NAN, NAN};
    assert_int_equal(sample_once(greedy, logits, 5), 3);
    assert_distribution(plain, logits, (double[]){0, 1 / (1 + exp(2)), 0, 1 / (1 + exp(-2)), 0}, 5);
    assert_int_equal(sample_once(greedy, none, 2), 0); /* some valid id */
    assert_int_equal(sample_once(plain, none, 2), 0);
}

static void an_infinite_logit_wins(void **state) {
    (void)state;
    const float logits[] = {1, INFINITY, 2, INFINITY}, masked[] = {-INFINITY, 0, -INFINITY, 0},
                minus[] = {-INFINITY, -INFINITY};
    const qins_sampling filtered = {.temperature = 0.7f, .top_k = 3, .top_p = 0.9f, .min_p = 0.1f};
    assert_int_equal(sample_once(plain, logits, 4), 1);
    assert_int_equal(sample_once(filtered, logits, 4), 1);
    assert_distribution(plain, masked, (double[]){0, 0.5, 0, 0.5}, 4);
    assert_int_equal(sample_once(plain, minus, 2), 0);
}

/* ---- filters ---- */

static void without_filters_tokens_come_as_likely_as_they_are(void **state) {
    (void)state;
    float logits[5];
    five_tokens(logits);
    assert_distribution(plain, logits, (double[]){0.15, 0.4, 0.05, 0.3, 0.1}, 5);
}

/* p^(1/T), normalised: at T = 1/2 the squares. */
static void temperature_sharpens(void **state) {
    (void)state;
    float logits[5];
    five_tokens(logits);
    const double sum = 0.0225 + 0.16 + 0.0025 + 0.09 + 0.01;
    qins_sampling p = plain;
    p.temperature = 0.5f;
    assert_distribution(p, logits, (double[]){0.0225 / sum, 0.16 / sum, 0.0025 / sum, 0.09 / sum, 0.01 / sum}, 5);
    p.temperature = 1e-30f; /* as good as greedy, and no overflow */
    assert_distribution(p, logits, (double[]){0, 1, 0, 0, 0}, 5);
}

static void top_k_keeps_the_k_likeliest(void **state) {
    (void)state;
    float logits[5];
    five_tokens(logits);
    qins_sampling p = plain;
    p.top_k = 3;
    assert_distribution(p, logits, (double[]){0.15 / 0.85, 0.4 / 0.85, 0, 0.3 / 0.85, 0}, 5);
    p.top_k = 1;
    assert_distribution(p, logits, (double[]){0, 1, 0, 0, 0}, 5);
    p.top_k = 99;
    assert_distribution(p, logits, (double[]){0.15, 0.4, 0.05, 0.3, 0.1}, 5);
}

static void top_k_keeps_the_lowest_ids_on_ties(void **state) {
    (void)state;
    const float logits[] = {1, 1, 1, 1};
    qins_sampling p = plain;
    p.top_k = 2;
    assert_distribution(p, logits, (double[]){0.5, 0.5, 0, 0}, 4);
}

/* 0.4, 0.7, 0.85, 0.95, 1: the fewest whose sum reaches P. */
static void top_p_keeps_the_fewest_that_reach_it(void **state) {
    (void)state;
    float logits[5];
    five_tokens(logits);
    qins_sampling p = plain;
    p.top_p = 0.75f;
    assert_distribution(p, logits, (double[]){0.15 / 0.85, 0.4 / 0.85, 0, 0.3 / 0.85, 0}, 5);
    p.top_p = 0.65f;
    assert_distribution(p, logits, (double[]){0, 0.4 / 0.7, 0, 0.3 / 0.7, 0}, 5);
    p.top_p = 1e-6f;
    assert_distribution(p, logits, (double[]){0, 1, 0, 0, 0}, 5);
}

/* Less than P times the likeliest: 0.3 * 0.4 = 0.12. */
static void min_p_drops_what_is_far_below_the_likeliest(void **state) {
    (void)state;
    float logits[5];
    five_tokens(logits);
    qins_sampling p = plain;
    p.min_p = 0.3f;
    assert_distribution(p, logits, (double[]){0.15 / 0.85, 0.4 / 0.85, 0, 0.3 / 0.85, 0}, 5);
    p.min_p = 1;
    assert_distribution(p, logits, (double[]){0, 1, 0, 0, 0}, 5);
}

/* Each of these pairs keeps another set in the opposite order. */
static void filters_come_in_the_documented_order(void **state) {
    (void)state;
    float logits[5];
    five_tokens(logits);
    /* T = 1/2 first: squares of 0.4 and 0.3 are 0.16 and 0.09 of 0.285: 0.56, 0.88 >= 0.8. Before temperature three
     * tokens are needed to reach 0.8. */
    qins_sampling p = plain;
    p.temperature = 0.5f;
    p.top_p = 0.8f;
    assert_distribution(p, logits, (double[]){0, 0.16 / 0.25, 0, 0.09 / 0.25, 0}, 5);
    /* top-k first: of 0.4, 0.3, 0.15 (sum 0.85) the first two are 0.82 >= 0.8. Before top-k three are needed. */
    p = plain;
    p.top_k = 3;
    p.top_p = 0.8f;
    assert_distribution(p, logits, (double[]){0, 0.4 / 0.7, 0, 0.3 / 0.7, 0}, 5);
    /* temperature before min-p: at T = 2 roots 0.632, 0.548, 0.387 (0.61 of the likeliest), 0.316 (0.5). */
    p = plain;
    p.temperature = 2;
    p.min_p = 0.6f;
    const double roots = sqrt(0.4) + sqrt(0.3) + sqrt(0.15);
    assert_distribution(p, logits, (double[]){sqrt(0.15) / roots, sqrt(0.4) / roots, 0, sqrt(0.3) / roots, 0}, 5);
}

/* ---- seeds ---- */

static void a_seed_gives_the_same_draws(void **state) {
    (void)state;
    float logits[64];
    rng random = {3};
    for (size_t i = 0; i < 64; i++)
        logits[i] = (float)rng_normal(&random);
    qins_sampling other = plain;
    other.seed = plain.seed + 1;
    qins_sampler *a = new_sampler(plain, 64), *b = new_sampler(plain, 64), *c = new_sampler(other, 64);
    size_t same = 0;
    for (size_t i = 0; i < 200; i++) {
        int32_t id = qins_sample(a, logits);
        assert_int_equal(qins_sample(b, logits), id);
        same += qins_sample(c, logits) == id;
    }
    assert_true(same < 100);
    qins_sampler_free(a);
    qins_sampler_free(b);
    qins_sampler_free(c);
}

/* xoshiro256++ seeded by splitmix64 from 0 begins with 0x53175d61490b23df: the draw is 0.3245... of the way. */
static void the_generator_is_the_published_one(void **state) {
    (void)state;
    float logits[16] = {0};
    qins_sampling p = plain;
    p.seed = 0;
    assert_int_equal(sample_once(p, logits, 16), 5); /* floor(16 * 0.3245) */
}

static void parameters_out_of_range_are_refused(void **state) {
    (void)state;
    const qins_sampling bad[] = {{.temperature = -1, .top_p = 1},
                                 {.temperature = NAN, .top_p = 1},
                                 {.temperature = INFINITY, .top_p = 1},
                                 {.top_k = -1, .top_p = 1},
                                 {.top_p = 0},
                                 {.top_p = 1.5f},
                                 {.top_p = NAN},
                                 {.top_p = 1, .min_p = -0.1f},
                                 {.top_p = 1, .min_p = 1.1f},
                                 {.top_p = 1, .min_p = NAN}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qins_sampler *sampler = (qins_sampler *)(uintptr_t)1;
        assert_int_equal(qins_sampler_new(&bad[i], 4, &sampler, NULL), QINS_ERR_ARGUMENT);
        assert_null(sampler);
    }
    qins_sampler *sampler = NULL;
    assert_int_equal(qins_sampler_new(&plain, 0, &sampler, NULL), QINS_ERR_ARGUMENT);
    qins_sampler_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest),
        cmocka_unit_test(greedy_takes_the_lowest_id_on_ties),
        cmocka_unit_test(nan_is_never_taken),
        cmocka_unit_test(an_infinite_logit_wins),
        cmocka_unit_test(without_filters_tokens_come_as_likely_as_they_are),
        cmocka_unit_test(temperature_sharpens),
        cmocka_unit_test(top_k_keeps_the_k_likeliest),
        cmocka_unit_test(top_k_keeps_the_lowest_ids_on_ties),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(min_p_drops_what_is_far_below_the_likeliest),
        cmocka_unit_test(filters_come_in_the_documented_order),
        cmocka_unit_test(a_seed_gives_the_same_draws),
        cmocka_unit_test(the_generator_is_the_published_one),
        cmocka_unit_test(parameters_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
