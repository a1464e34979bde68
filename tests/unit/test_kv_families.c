/* Coded KV caches in every model family: partial rotary, sliding windows, capped scores, shared and expert layers.
 * SPDX-License-Identifier: MIT */
#include "each_family.h"

#include "base/base.h"

#include <math.h>

enum { N_TOKENS = 150 /* three pages */ };

/* Random networks this small amplify errors, and where a router hesitates the last bit decides which expert a token
 * goes to: medians over positions. A token by itself has its query and weights rounded to 14 bits, which moves a few
 * codes of the layers behind to their neighbours. */
static const double MAX_KL_OF_8_BITS = 1e-3, MAX_SHARE_OF_4_BITS = 1.0 / 16, MAX_SHARE_OF_STEPS = 1.0 / 20;

static qins_model *open_model(const char *path) {
    qins_error err = {0};
    qins_model *m = NULL;
    if (qins_model_open(path, NULL, &m, &err) != QINS_OK) fail_msg("%s", err.message);
    return m;
}

static size_t vocabulary(const qins_model *m) {
    qins_model_info info;
    qins_model_get_info(m, &info);
    return info.vocab_size;
}

/* [n][vocabulary]; `step` tokens a pass. */
static float *logits_with(const qins_model *m, int key_bits, int value_bits, const int32_t *ids, size_t n,
                          size_t step) {
    const qins_session_options options = {.n_ctx = n, .key_bits = key_bits, .value_bits = value_bits};
    size_t n_vocab = vocabulary(m);
    float *logits = calloc(n * n_vocab, sizeof *logits);
    assert_non_null(logits);
    qins_session *s = NULL;
    qins_error err = {0};
    if (qins_session_new_with(m, &options, &s, &err) != QINS_OK) fail_msg("%s", err.message);
    for (size_t at = 0; at < n; at += step) {
        size_t here = n - at < step ? n - at : step;
        if (qins_session_eval(s, ids + at, here, logits + at * n_vocab, here, &err) != QINS_OK)
            fail_msg("%s", err.message);
    }
    qins_session_free(s);
    return logits;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* KL(p || q) of two rows of logits. */
static double divergence(const float *p, const float *q, size_t n) {
    double sum_p = 0, sum_q = 0, difference = 0;
    for (size_t v = 0; v < n; v++) {
        sum_p += exp((double)p[v]);
        sum_q += exp((double)q[v]);
    }
    for (size_t v = 0; v < n; v++)
        difference += exp((double)p[v]) / sum_p * ((double)p[v] - (double)q[v]);
    return difference + log(sum_q) - log(sum_p);
}

static double median_divergence(const float *p, const float *q, size_t n_vocab, size_t n) {
    double values[N_TOKENS];
    for (size_t t = 0; t < n; t++)
        values[t] = divergence(p + t * n_vocab, q + t * n_vocab, n_vocab);
    qsort(values, n, sizeof *values, ascending);
    return values[n / 2];
}

/* As many ids as the model has positions, N_TOKENS at most. */
static void make_ids(const qins_model *m, int32_t *ids, size_t *n) {
    qins_model_info info;
    qins_model_get_info(m, &info);
    rng r = {5};
    *n = info.max_position < N_TOKENS ? info.max_position : N_TOKENS;
    for (size_t i = 0; i < *n; i++)
        ids[i] = (int32_t)(rng_bits(&r) % info.vocab_size);
}

static void check_family(const char *path) {
    qins_model *m = open_model(path);
    int32_t ids[N_TOKENS];
    size_t n, n_vocab = vocabulary(m);
    make_ids(m, ids, &n);
    float *exact = logits_with(m, 32, 32, ids, n, n), *eight = logits_with(m, 8, 8, ids, n, n);
    float *four = logits_with(m, 4, 4, ids, n, n), *steps = logits_with(m, 4, 4, ids, n, 1);
    double kl_8 = median_divergence(exact, eight, n_vocab, n), kl_4 = median_divergence(exact, four, n_vocab, n);
    double apart = median_divergence(four, steps, n_vocab, n);
    print_message("%s, %zu tokens: KL of 8 bits %.2g, of 4 bits %.2g; token by token %.2g\n", strrchr(path, '/') + 1, n,
                  kl_8, kl_4, apart);
    assert_true(kl_8 > 0 && kl_8 <= MAX_KL_OF_8_BITS && kl_8 <= MAX_SHARE_OF_4_BITS * kl_4);
    assert_true(apart <= MAX_SHARE_OF_STEPS * kl_4);
    free(exact);
    free(eight);
    free(four);
    free(steps);
    qins_model_close(m);
}

static void coded_caches_follow_the_exact_one(void **state) {
    (void)state;
    each_family(check_family);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(coded_caches_follow_the_exact_one)};
    return cmocka_run_group_tests_name("kv_families", tests, NULL, NULL);
}
