/* Comparison of distributions against torch, transformers and NumPy: tools/make_fidelity_golden.py.
 * SPDX-License-Identifier: MIT */
#include "measure/fidelity.h"
#include "measure/stats.h"
#include "measure/strategies.h"
#include "npy.h"
#include "testing.h"

#include <jansson.h>

#define GOLDEN QINS_SOURCE_DIR "/tests/golden/fidelity/"

typedef struct fixture {
    npy_array reference, model, targets;
    size_t n_positions, vocab_size;
    json_t *expected;
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->reference = npy_load(GOLDEN "reference.npy", "<f4");
    f->model = npy_load(GOLDEN "model.npy", "<f4");
    f->targets = npy_load(GOLDEN "targets.npy", "<i4");
    f->n_positions = f->reference.shape[0];
    f->vocab_size = f->reference.shape[1];
    f->expected = json_load_file(GOLDEN "expected.json", 0, NULL);
    assert_non_null(f->expected);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    free(f->reference.file);
    free(f->model.file);
    free(f->targets.file);
    json_decref(f->expected);
    free(f);
    return 0;
}

static const float *row(const fixture *f, const npy_array *a, size_t i) {
    return (const float *)a->data + i * f->vocab_size;
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void kl_top_tokens_and_perplexity_are_those_of_torch(void **state) {
    const fixture *f = *state;
    const json_t *kl = json_object_get(f->expected, "kl"), *argmax = json_object_get(f->expected, "same_argmax"),
                 *shared = json_object_get(f->expected, "top10_shared");
    double ref_sum = 0, sum = 0;
    assert_int_equal(json_array_size(kl), f->n_positions);
    for (size_t i = 0; i < f->n_positions; i++) {
        qins_logit_comparison c;
        int32_t target = ((const int32_t *)f->targets.data)[i];
        assert_true(qins_compare_logits(row(f, &f->reference, i), row(f, &f->model, i), f->vocab_size, target, &c));
        assert_close(c.kl, json_number_value(json_array_get(kl, i)), 1e-12);
        assert_int_equal(c.same_argmax, json_is_true(json_array_get(argmax, i)));
        assert_int_equal(c.top10_shared, json_integer_value(json_array_get(shared, i)));
        ref_sum += c.ref_target_logprob;
        sum += c.target_logprob;
    }
    double n = (double)f->n_positions;
    assert_close(exp(-ref_sum / n) / number(f->expected, "ppl_ref"), 1, 1e-12);
    assert_close(exp(-sum / n) / number(f->expected, "ppl"), 1, 1e-12);
}

static void quantiles_are_those_of_numpy(void **state) {
    const fixture *f = *state;
    double kl[1024];
    assert_true(f->n_positions <= 1024);
    for (size_t i = 0; i < f->n_positions; i++)
        kl[i] = json_number_value(json_array_get(json_object_get(f->expected, "kl"), i));
    qins_sort(kl, f->n_positions);
    const json_t *quantiles = json_object_get(f->expected, "quantiles");
    assert_true(qins_quantile(kl, f->n_positions, 0.5) == number(quantiles, "0.5"));
    assert_true(qins_quantile(kl, f->n_positions, 0.9) == number(quantiles, "0.9"));
    assert_true(qins_quantile(kl, f->n_positions, 0.99) == number(quantiles, "0.99"));
    assert_true(qins_quantile(kl, f->n_positions, 0.999) == number(quantiles, "0.999"));
}

/* NumPy drew 200,000 times: its interval is exact to about half a per cent of its width, ours (2,000) to about five. */
static void the_bootstrap_interval_is_that_of_numpy(void **state) {
    const fixture *f = *state;
    const json_t *b = json_object_get(f->expected, "bootstrap"), *sums = json_object_get(b, "sums"),
                 *counts = json_object_get(b, "counts"), *interval = json_object_get(b, "interval");
    double s[64], c[64];
    size_t n = json_array_size(sums);
    assert_in_range(n, 2, 64);
    for (size_t i = 0; i < n; i++) {
        s[i] = json_number_value(json_array_get(sums, i));
        c[i] = json_number_value(json_array_get(counts, i));
    }
    double low = json_number_value(json_array_get(interval, 0)), high = json_number_value(json_array_get(interval, 1));
    qins_interval found = qins_bootstrap(s, c, n);
    assert_close(found.low, low, 0.08 * (high - low));
    assert_close(found.high, high, 0.08 * (high - low));
    found = qins_bootstrap(s, c, 1);
    assert_true(isnan(found.low) && isnan(found.high));
}

static bool same_pair(const json_t *expected, const char *key) {
    const json_t *pair = json_object_get(expected, key);
    return json_integer_value(json_array_get(pair, 0)) == json_integer_value(json_array_get(pair, 1));
}

static void filtered_distributions_are_those_of_transformers(void **state) {
    const fixture *f = *state;
    qins_filter_scratch scratch = {0};
    assert_true(qins_filter_scratch_init(&scratch, f->vocab_size));
    for (size_t k = 0; k < QINS_N_STRATEGIES; k++) {
        const json_t *all = json_object_get(json_object_get(f->expected, "strategies"), qins_strategies[k].name);
        assert_int_equal(json_array_size(all), f->n_positions);
        for (size_t i = 0; i < f->n_positions; i++) {
            const json_t *expected = json_array_get(all, i);
            qins_filtered_comparison c;
            qins_compare_filtered(&qins_strategies[k].sampling, row(f, &f->reference, i), row(f, &f->model, i),
                                  f->vocab_size, i, &scratch, &c);
            assert_close(c.kl, number(expected, "kl"), 1e-6); /* 0.7 is a float here */
            assert_close(c.overlap, number(expected, "overlap"), 1e-6);
            assert_close(c.missed, number(expected, "missed"), 1e-6);
            assert_int_equal(c.same_token, same_pair(expected, "one_draw"));
            assert_int_equal(c.same_coupled, same_pair(expected, "coupled"));
        }
    }
    qins_filter_scratch_free(&scratch);
}

/* The tokens themselves, not only whether they are the same. */
static void draws_fall_on_the_tokens_that_transformers_filters_leave(void **state) {
    const fixture *f = *state;
    qins_filter_scratch s = {0};
    assert_true(qins_filter_scratch_init(&s, f->vocab_size));
    for (size_t k = 0; k < QINS_N_STRATEGIES; k++)
        for (size_t i = 0; i < f->n_positions; i++) {
            const json_t *expected =
                json_array_get(json_object_get(json_object_get(f->expected, "strategies"), qins_strategies[k].name), i);
            const float *logits = row(f, &f->reference, i);
            size_t n = qins_rank_logits(logits, f->vocab_size, s.ref_order, s.sort);
            n = qins_filter(&qins_strategies[k].sampling, logits, s.ref_order, n, s.ref_kept);
            int32_t id = s.ref_kept[qins_draw(s.ref_kept, n, qins_position_draw(i, 0))].id;
            assert_int_equal(id, json_integer_value(json_array_get(json_object_get(expected, "one_draw"), 0)));
        }
    qins_filter_scratch_free(&s);
}

static void equal_distributions_give_equal_tokens(void **state) {
    const fixture *f = *state;
    qins_filter_scratch scratch = {0};
    qins_filtered_comparison c[QINS_N_STRATEGIES];
    assert_true(qins_filter_scratch_init(&scratch, f->vocab_size));
    for (size_t i = 0; i < f->n_positions; i++) {
        qins_compare_strategies(row(f, &f->reference, i), row(f, &f->reference, i), f->vocab_size, i, &scratch, c);
        for (size_t k = 0; k < QINS_N_STRATEGIES; k++) {
            assert_true(c[k].same_token && c[k].same_coupled);
            assert_true(c[k].missed == 0);
            assert_close(c[k].overlap, 1, 1e-12);
            assert_close(c[k].kl, 0, 1e-12);
        }
    }
    qins_filter_scratch_free(&scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kl_top_tokens_and_perplexity_are_those_of_torch),
        cmocka_unit_test(quantiles_are_those_of_numpy),
        cmocka_unit_test(the_bootstrap_interval_is_that_of_numpy),
        cmocka_unit_test(filtered_distributions_are_those_of_transformers),
        cmocka_unit_test(draws_fall_on_the_tokens_that_transformers_filters_leave),
        cmocka_unit_test(equal_distributions_give_equal_tokens),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
