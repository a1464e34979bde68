/* The layer-by-layer pass of calibration is the model's own forward pass, in every family. SPDX-License-Identifier: MIT
 */
#include "each_family.h"
#include "model/calibrate.h"
#include "scratch_dir.h"
#include "testing.h"

enum { WINDOW = 12, SEQUENCES = 3 };

static void check(qins_status status, const qins_error *err) {
    if (status != QINS_OK) fail_msg("%s", err->message);
}

static qins_calibration_text random_text(const qins_model *model) {
    qins_calibration_text text = {malloc(WINDOW * SEQUENCES * sizeof(int32_t)), SEQUENCES, WINDOW, 0};
    rng r = {5};
    for (size_t i = 0; i < WINDOW * SEQUENCES; i++)
        text.ids[i] = (int32_t)(rng_bits(&r) % model->weights->hparams.vocab_size);
    return text;
}

/* Final norm and head. */
static float *logits_of(const qins_model *m, const float *hidden, size_t n) {
    const qins_hparams *h = &m->weights->hparams;
    float *normed = malloc(n * h->hidden_size * sizeof *normed), *logits = malloc(n * h->vocab_size * sizeof *logits);
    qins_apply_norm(h, &m->final_norm, h->hidden_size, hidden, h->hidden_size, n, normed, h->hidden_size);
    float *prepared = qins_alloc_aligned(n * qins_prepared_row(h->hidden_size), sizeof *prepared);
    qins_input in = {.x = normed, .n_cols = h->hidden_size, .n_tokens = n, .prepared = prepared};
    qins_affine_apply_one(&m->head, &in, logits, h->vocab_size);
    free(prepared);
    if (h->logit_cap > 0) qins_soft_cap(h->logit_cap, logits, n * h->vocab_size);
    free(normed);
    return logits;
}

/* Runs calibration with the options and compares its hidden states' logits with those of a session; the largest
 * difference. */
static double largest_difference(const char *path, const qins_compress_options *options,
                                 qins_calibrate_result *result) {
    qins_error err = {0};
    qins_model *model = NULL;
    qins_session *session = NULL;
    qins_plan plan = {0};
    qins_rounded *rounded = NULL;
    scratch_dir dir = scratch_new();
    char out[400];
    snprintf(out, sizeof out, "%s/out", dir.path);
    check(qins_model_open(path, NULL, &model, &err), &err);
    check(qins_plan_make(options, model->weights, &plan, &err), &err);
    check(qins_rounded_open(out, "0123456789abcdef0123456789abcdef", &rounded, &err), &err);
    qins_calibration_text text = random_text(model);
    check(qins_calibrate(model, &plan, &text, NULL, rounded, NULL, NULL, result, &err), &err);

    size_t n = WINDOW * SEQUENCES, width = model->weights->hparams.hidden_size,
           vocab = model->weights->hparams.vocab_size;
    float *hidden = malloc(n * width * sizeof *hidden), *expected = malloc(n * vocab * sizeof *expected);
    check(qins_rounded_load_hidden(rounded, hidden, n * width, &err), &err);
    float *found = logits_of(model, hidden, n);
    const qins_session_options exact = {.n_ctx = WINDOW, .key_bits = 32, .value_bits = 32};
    check(qins_session_new_with(model, &exact, &session, &err), &err);
    for (size_t s = 0; s < SEQUENCES; s++) {
        check(qins_session_truncate(session, 0, &err), &err);
        check(qins_session_eval(session, text.ids + s * WINDOW, WINDOW, expected + s * WINDOW * vocab, WINDOW, &err),
              &err);
    }
    double largest = 0, scale = 0;
    for (size_t i = 0; i < n * vocab; i++) {
        largest = fmax(largest, fabs((double)found[i] - (double)expected[i]));
        scale = fmax(scale, fabs((double)expected[i]));
    }
    qins_rounded_close(rounded, true);
    qins_session_free(session);
    qins_plan_free(&plan);
    qins_calibration_free(&text);
    qins_model_close(model);
    free(hidden);
    free(expected);
    free(found);
    scratch_free(&dir);
    return largest / scale;
}

static void check_plain(const char *path) {
    qins_compress_options options;
    qins_calibrate_result result;
    qins_compress_defaults(&options);
    options.linear.codec = QINS_CODEC_NONE;
    double difference = largest_difference(path, &options, &result);
    if (!(difference < 2e-5)) fail_msg("%s: logits differ by %g of the largest", path, difference);
    assert_int_equal(result.n_fed_back, 0);
}

static void without_rounding_hidden_states_are_those_of_the_model(void **state) {
    (void)state;
    each_family(check_plain);
}

static bool has_experts(const char *path) {
    qins_model *model = NULL;
    qins_error err = {0};
    check(qins_model_open(path, NULL, &model, &err), &err);
    bool experts = model->weights->hparams.n_experts > 0;
    qins_model_close(model);
    return experts;
}

/* 8 bits: near, but not the same. A token near the border of two experts may change over. */
static void check_rounded(const char *path) {
    qins_compress_options options;
    qins_calibrate_result result;
    qins_compress_defaults(&options);
    options.linear.bits = 8;
    double difference = largest_difference(path, &options, &result);
    double limit = has_experts(path) ? 1 : 0.1;
    if (!(difference < limit) || difference == 0) fail_msg("%s: logits differ by %g of the largest", path, difference);
    assert_true(result.n_fed_back > 0);
}

static void every_family_can_be_rounded(void **state) {
    (void)state;
    each_family(check_rounded);
}

static void experts_with_few_tokens_fall_back_and_are_counted(void **state) {
    (void)state;
    qins_compress_options options;
    qins_calibrate_result result;
    qins_compress_defaults(&options);
    largest_difference(QINS_SOURCE_DIR "/tests/golden/families/mixtral", &options, &result);
    assert_true(result.n_fallbacks > 0);
    assert_true(result.n_fed_back > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rounding_hidden_states_are_those_of_the_model),
        cmocka_unit_test(every_family_can_be_rounded),
        cmocka_unit_test(experts_with_few_tokens_fall_back_and_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
