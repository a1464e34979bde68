/* Predicted loss against the loss that rounding causes, in every family. SPDX-License-Identifier: MIT */
#include "each_family.h"
#include "model/allocate.h"
#include "model/sensitivity.h"
#include "scratch_dir.h"
#include "testing.h"

enum { WINDOW = 12, SEQUENCES = 64 };

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

static float *logits_of(const qins_model *m, const qins_calibration_text *text) {
    qins_error err = {0};
    qins_session *session = NULL;
    const qins_session_options exact = {.n_ctx = WINDOW, .key_bits = 32, .value_bits = 32};
    size_t vocab = m->weights->hparams.vocab_size;
    float *logits = malloc(WINDOW * SEQUENCES * vocab * sizeof *logits);
    check(qins_session_new_with(m, &exact, &session, &err), &err);
    for (size_t s = 0; s < SEQUENCES; s++) {
        check(qins_session_truncate(session, 0, &err), &err);
        check(qins_session_eval(session, text->ids + s * WINDOW, WINDOW, logits + s * WINDOW * vocab, WINDOW, &err),
              &err);
    }
    qins_session_free(session);
    return logits;
}

static double log_sum(const float *x, size_t n) {
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

static double mean_kl(const float *p, const float *q, size_t n_tokens, size_t vocab) {
    double sum = 0;
    for (size_t t = 0; t < n_tokens; t++, p += vocab, q += vocab) {
        double p_norm = log_sum(p, vocab), q_norm = log_sum(q, vocab);
        for (size_t i = 0; i < vocab; i++)
            sum += exp((double)p[i] - p_norm) * (((double)p[i] - p_norm) - ((double)q[i] - q_norm));
    }
    return sum / (double)n_tokens;
}

/* Rounds to the nearest at 6 bits and compares. */
static void check_prediction(const char *path) {
    qins_error err = {0};
    qins_model *model = NULL, *coarse = NULL;
    qins_plan plan = {0};
    scratch_dir dir = scratch_new();
    char out[400];
    snprintf(out, sizeof out, "%s/out", dir.path);
    check(qins_model_open(path, NULL, &model, &err), &err);
    qins_compress_options options;
    qins_compress_defaults(&options);
    options.linear.bits = 6;
    options.embed_bits = 6;
    check(qins_plan_make(&options, model->weights, &plan, &err), &err);
    qins_calibration_text text = random_text(model);
    float **row_kl = calloc(plan.n_items, sizeof *row_kl);
    for (size_t i = 0; i < plan.n_items; i++)
        if (plan.items[i].parameter->role == QINS_ROLE_LINEAR)
            row_kl[i] = calloc((size_t)plan.items[i].parameter->shape[0], sizeof **row_kl);
    qins_losses losses;
    check(qins_losses_new(&plan, 0, &losses, &err), &err);
    qins_status status = qins_sensitivities(model, &plan, &text, SEQUENCES, NULL, NULL, &losses, row_kl, &err);
    if (model->weights->hparams.n_experts > 0) {
        assert_int_equal(status, QINS_ERR_UNSUPPORTED);
    } else {
        check(status, &err);
        for (size_t i = 0; i < plan.n_items; i++) {
            double sum = 0;
            for (size_t r = 0; row_kl[i] != NULL && r < (size_t)plan.items[i].parameter->shape[0]; r++)
                sum += (double)row_kl[i][r];
            if (row_kl[i] != NULL) assert_close(sum, losses.kl[i], 1e-4 * losses.kl[i]);
        }
        check(qins_compress(path, out, &options, NULL, &err), &err);
        check(qins_model_open(out, NULL, &coarse, &err), &err);
        size_t vocab = model->weights->hparams.vocab_size;
        float *p = logits_of(model, &text), *q = logits_of(coarse, &text);
        double found = mean_kl(p, q, WINDOW * SEQUENCES, vocab), predicted = qins_predict_kl(&plan, losses.kl);
        print_message("%-24s predicted %.3g, found %.3g\n", strrchr(path, '/') + 1, predicted, found);
        if (!(predicted > 0.7 * found && predicted < 1.7 * found))
            fail_msg("%s: predicted %g, found %g", path, predicted, found);
        free(p);
        free(q);
        qins_model_close(coarse);
    }
    for (size_t i = 0; i < plan.n_items; i++)
        free(row_kl[i]);
    free(row_kl);
    qins_losses_free(&losses);
    qins_plan_free(&plan);
    qins_calibration_free(&text);
    qins_model_close(model);
    scratch_free(&dir);
}

static void predictions_are_near_what_is_found_in_every_family(void **state) {
    (void)state;
    each_family(check_prediction);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(predictions_are_near_what_is_found_in_every_family)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
