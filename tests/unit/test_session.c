/* Sessions: however a text is cut up, its logits are the same; what is refused changes nothing.
 * SPDX-License-Identifier: MIT */
#include "qins.h"
#include "testing.h"

#include <unistd.h>

#define TOY QINS_SOURCE_DIR "/models/toy"

enum { N_IDS = 300, N_CTX = 300 };
static const double TOLERANCE = 1e-4; /* batches add up in another order than single tokens; the cache is FP32 */

/* One model for all tests, and the logits of every position, one token at a time. */
typedef struct fixture {
    qins_model *model;
    size_t vocab_size;
    int32_t ids[N_IDS];
    float *expected; /* [N_IDS][vocab_size] */
} fixture;

static void check(qins_status status, const qins_error *err) {
    if (status != QINS_OK) fail_msg("%s", err->message);
}

static qins_session *new_session(const fixture *f, size_t n_ctx) {
    qins_error err = {0};
    qins_session *session = NULL;
    const qins_session_options options = {.n_ctx = n_ctx, .key_bits = 32, .value_bits = 32};
    check(qins_session_new_with(f->model, &options, &session, &err), &err);
    return session;
}

static float *new_logits(const fixture *f, size_t n) {
    float *logits = calloc(n, f->vocab_size * sizeof *logits);
    assert_non_null(logits);
    return logits;
}

static void eval(qins_session *session, const int32_t *ids, size_t n, float *logits, size_t n_logits) {
    qins_error err = {0};
    check(qins_session_eval(session, ids, n, logits, n_logits, &err), &err);
}

/* logits are those of positions first..first+n of the fixture's text. */
static void assert_expected(const fixture *f, const float *logits, size_t first, size_t n) {
    for (size_t i = 0; i < n * f->vocab_size; i++)
        assert_close(logits[i], f->expected[first * f->vocab_size + i], TOLERANCE);
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    qins_error err = {0};
    qins_model_info info;
    rng random = {1};
    *state = f;
    check(qins_model_open(TOY, NULL, &f->model, &err), &err);
    qins_model_get_info(f->model, &info);
    f->vocab_size = info.vocab_size;
    f->expected = new_logits(f, N_IDS);
    qins_session *session = new_session(f, N_CTX);
    for (size_t i = 0; i < N_IDS; i++) {
        f->ids[i] = (int32_t)rng_below(&random, f->vocab_size);
        eval(session, &f->ids[i], 1, f->expected + i * f->vocab_size, 1);
    }
    qins_session_free(session);
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    qins_model_close(f->model);
    free(f->expected);
    free(f);
    return 0;
}

/* ---- cutting up ---- */

static void any_cut_gives_the_same_logits(void **state) {
    const fixture *f = *state;
    const size_t cuts[] = {1, 127, 128, 129, 256, 299};
    float *logits = new_logits(f, N_IDS);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        qins_session *session = new_session(f, N_CTX);
        eval(session, f->ids, cuts[i], logits, cuts[i]);
        eval(session, f->ids + cuts[i], N_IDS - cuts[i], logits + cuts[i] * f->vocab_size, N_IDS - cuts[i]);
        assert_int_equal(qins_session_position(session), N_IDS);
        assert_expected(f, logits, 0, N_IDS);
        qins_session_free(session);
    }
    free(logits);
}

/* The wanted logits begin in the first, second or third batch of 128, at and beside their edges. */
static void the_last_logits_are_those_of_the_last_tokens(void **state) {
    const fixture *f = *state;
    const size_t wanted[] = {1, 43, 44, 45, 171, 172, 173, 299};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        float *logits = new_logits(f, wanted[i]); /* of exact size: a sanitizer sees what is written beyond */
        qins_session *session = new_session(f, N_CTX);
        eval(session, f->ids, N_IDS, logits, wanted[i]);
        assert_expected(f, logits, N_IDS - wanted[i], wanted[i]);
        qins_session_free(session);
        free(logits);
    }
}

static void tokens_without_logits_still_count(void **state) {
    const fixture *f = *state;
    float *logits = new_logits(f, 1);
    qins_session *session = new_session(f, N_CTX);
    eval(session, f->ids, 0, NULL, 0);
    assert_int_equal(qins_session_position(session), 0);
    eval(session, f->ids, 200, NULL, 0);
    eval(session, f->ids + 200, 1, logits, 1);
    assert_expected(f, logits, 200, 1);
    qins_session_free(session);
    free(logits);
}

static void the_number_of_threads_does_not_matter(void **state) {
    const fixture *f = *state;
    float *logits = new_logits(f, N_IDS);
    int threads = qins_get_threads();
    for (int n = 1; n <= 3; n++) {
        qins_set_threads(n);
        qins_session *session = new_session(f, N_CTX);
        eval(session, f->ids, N_IDS, logits, N_IDS);
        assert_expected(f, logits, 0, N_IDS);
        qins_session_free(session);
    }
    qins_set_threads(threads);
    free(logits);
}

/* ---- truncating ---- */

static void truncating_forgets_what_came_after(void **state) {
    const fixture *f = *state;
    const size_t positions[] = {0, 1, 100, 128, 250};
    float *logits = new_logits(f, N_IDS);
    int32_t other[N_CTX];
    for (size_t i = 0; i < N_CTX; i++)
        other[i] = f->ids[N_IDS - 1 - i];
    for (size_t i = 0; i < sizeof positions / sizeof positions[0]; i++) {
        size_t keep = positions[i], n = N_IDS - keep;
        qins_error err = {0};
        qins_session *session = new_session(f, N_CTX);
        eval(session, f->ids, keep, NULL, 0);
        eval(session, other, N_CTX - keep, NULL, 0);
        check(qins_session_truncate(session, keep, &err), &err);
        assert_int_equal(qins_session_position(session), keep);
        eval(session, f->ids + keep, n, logits, n);
        assert_expected(f, logits, keep, n);
        qins_session_free(session);
    }
    free(logits);
}

static void truncating_forward_is_refused(void **state) {
    const fixture *f = *state;
    qins_error err = {0};
    qins_session *session = new_session(f, N_CTX);
    eval(session, f->ids, 3, NULL, 0);
    assert_int_equal(qins_session_truncate(session, 4, &err), QINS_ERR_ARGUMENT);
    assert_int_equal(qins_session_truncate(session, 4, NULL), QINS_ERR_ARGUMENT);
    assert_int_equal(qins_session_position(session), 3);
    qins_session_free(session);
}

/* ---- refusals ---- */

/* After a refused call the session goes on as if nothing had been asked. */
static void refused(const fixture *f, const int32_t *ids, size_t n, size_t n_logits, const char *says) {
    qins_error err = {0};
    float *logits = new_logits(f, N_IDS);
    qins_session *session = new_session(f, 150);
    eval(session, f->ids, 140, NULL, 0);
    assert_int_equal(qins_session_eval(session, ids, n, logits, n_logits, &err), QINS_ERR_ARGUMENT);
    assert_contains(err.message, says);
    assert_int_equal(qins_session_eval(session, ids, n, logits, n_logits, NULL), QINS_ERR_ARGUMENT);
    assert_int_equal(qins_session_position(session), 140);
    eval(session, f->ids + 140, 10, logits, 10);
    assert_expected(f, logits, 140, 10);
    qins_session_free(session);
    free(logits);
}

static void ids_outside_the_vocabulary_are_refused(void **state) {
    const fixture *f = *state;
    const int32_t bad[] = {-1, (int32_t)f->vocab_size, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const int32_t ids[] = {1, 2, bad[i]};
        char text[32];
        snprintf(text, sizeof text, "%d", (int)bad[i]);
        refused(f, ids, 3, 1, text);
    }
}

static void a_full_context_is_refused(void **state) {
    const fixture *f = *state;
    refused(f, f->ids, 11, 1, "140 of 150");
    refused(f, f->ids, SIZE_MAX, 0, "do not fit");
}

static void more_logits_than_tokens_are_refused(void **state) {
    refused(*state, ((const fixture *)*state)->ids, 2, 3, "3 logits");
}

static void an_impossible_context_is_refused(void **state) {
    const fixture *f = *state;
    const size_t lengths[] = {0, SIZE_MAX, SIZE_MAX / 64};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        qins_session *session = (qins_session *)(uintptr_t)1;
        assert_int_not_equal(qins_session_new(f->model, lengths[i], &session, NULL), QINS_OK);
        assert_null(session);
    }
}

static void a_context_of_one_holds_one_token(void **state) {
    const fixture *f = *state;
    float *logits = new_logits(f, 1);
    qins_session *session = new_session(f, 1);
    eval(session, f->ids, 1, logits, 1);
    assert_expected(f, logits, 0, 1);
    assert_int_equal(qins_session_eval(session, f->ids, 1, logits, 1, NULL), QINS_ERR_ARGUMENT);
    qins_session_free(session);
    free(logits);
}

/* ---- sequences ---- */

static qins_session *new_sequences(const fixture *f, size_t n_ctx, size_t n_sequences, int bits) {
    qins_error err = {0};
    qins_session *session = NULL;
    const qins_session_options options = {
        .n_ctx = n_ctx, .n_sequences = n_sequences, .key_bits = bits, .value_bits = bits};
    check(qins_session_new_with(f->model, &options, &session, &err), &err);
    return session;
}

/* Prompts of different length, then a token of each in turn, some twice in one call. */
static void sequences_decoded_together_are_those_decoded_alone(void **state) {
    const fixture *f = *state;
    enum { N_SEQUENCES = 3, N = 120 };
    const size_t prompts[N_SEQUENCES] = {1, 70, 90};
    qins_session *session = new_sequences(f, N, N_SEQUENCES, 32);
    qins_batch_token tokens[N_SEQUENCES * N];
    float *logits = new_logits(f, N_SEQUENCES * N);
    size_t n = 0, done[N_SEQUENCES];
    qins_error err = {0};
    for (uint32_t s = 0; s < N_SEQUENCES; s++)
        for (size_t i = 0; i < prompts[s]; i++)
            tokens[n++] = (qins_batch_token){f->ids[i], s, i + 1 == prompts[s]};
    check(qins_session_eval_batch(session, tokens, n, logits, &err), &err);
    for (size_t s = 0; s < N_SEQUENCES; s++) {
        assert_expected(f, logits + s * f->vocab_size, prompts[s] - 1, 1);
        done[s] = prompts[s];
    }
    for (int round = 0; round < 5; round++) {
        const uint32_t order[] = {2, 0, 1, 0};
        size_t positions[4];
        for (size_t i = 0; i < 4; i++) {
            positions[i] = done[order[i]]++;
            tokens[i] = (qins_batch_token){f->ids[positions[i]], order[i], true};
        }
        check(qins_session_eval_batch(session, tokens, 4, logits, &err), &err);
        for (size_t i = 0; i < 4; i++)
            assert_expected(f, logits + i * f->vocab_size, positions[i], 1);
    }
    for (size_t s = 0; s < N_SEQUENCES; s++) {
        assert_int_equal(qins_sequence_length(session, s), done[s]);
        assert_memory_equal(qins_sequence_tokens(session, s), f->ids, done[s] * sizeof(int32_t));
    }
    tokens[0].sequence = N_SEQUENCES;
    assert_int_equal(qins_session_eval_batch(session, tokens, 1, logits, &err), QINS_ERR_ARGUMENT);
    assert_contains(err.message, "sequence 3");
    qins_session_free(session);
    free(logits);
}

static void a_fork_goes_its_own_way(void **state) {
    const fixture *f = *state;
    for (int bits = 4; bits <= 32; bits *= 2) {
        qins_session *session = new_sequences(f, N_CTX, 2, bits);
        float *logits = new_logits(f, 1), *forked = new_logits(f, 1);
        qins_error err = {0};
        eval(session, f->ids, 200, NULL, 0);
        check(qins_sequence_fork(session, 0, 1, &err), &err);
        qins_batch_token token = {f->ids[200], 1, true};
        check(qins_session_eval_batch(session, &token, 1, forked, &err), &err);
        assert_int_equal(qins_session_position(session), 200);
        eval(session, f->ids + 200, 1, logits, 1);
        assert_memory_equal(forked, logits, f->vocab_size * sizeof *logits);
        if (bits == 32) assert_expected(f, logits, 200, 1);
        qins_session_free(session);
        free(logits);
        free(forked);
    }
}

static void shifting_in_two_steps_is_shifting_in_one(void **state) {
    const fixture *f = *state;
    enum { N = 60 };
    qins_session *session = new_sequences(f, N_CTX, 2, 32);
    float *logits = new_logits(f, 1), *expected = new_logits(f, 1);
    qins_error err = {0};
    eval(session, f->ids, N, NULL, 0);
    check(qins_sequence_shift(session, 0, N, 0, &err), &err);
    assert_int_equal(qins_session_position(session), N);
    check(qins_sequence_shift(session, 0, 10, 20, &err), &err);
    assert_int_equal(qins_session_position(session), N - 20);
    assert_memory_equal(qins_sequence_tokens(session, 0), f->ids, 10 * sizeof(int32_t));
    assert_memory_equal(qins_sequence_tokens(session, 0) + 10, f->ids + 30, 30 * sizeof(int32_t));
    assert_int_equal(qins_sequence_shift(session, 0, 30, 11, &err), QINS_ERR_ARGUMENT);
    /* shifting twice by 1 and once by 2 turn keys alike */
    check(qins_sequence_fork(session, 0, 1, &err), &err);
    check(qins_sequence_shift(session, 0, 5, 1, &err), &err);
    check(qins_sequence_shift(session, 0, 5, 1, &err), &err);
    check(qins_sequence_shift(session, 1, 5, 2, &err), &err);
    eval(session, f->ids, 1, expected, 1);
    qins_batch_token token = {f->ids[0], 1, true};
    check(qins_session_eval_batch(session, &token, 1, logits, &err), &err);
    for (size_t i = 0; i < f->vocab_size; i++)
        assert_close(logits[i], expected[i], TOLERANCE);
    qins_session_free(session);
    free(logits);
    free(expected);
}

static void a_saved_sequence_goes_on_as_if_it_had_not_been(void **state) {
    const fixture *f = *state;
    const int bits[] = {32, 16, 4};
    for (size_t b = 0; b < 3; b++) {
        qins_error err = {0};
        char path[64];
        float *logits = new_logits(f, 1), *expected = new_logits(f, 1);
        snprintf(path, sizeof path, "/tmp/qins-test-session-%ld", (long)getpid());
        qins_session *first = new_sequences(f, N_CTX, 1, bits[b]), *second = new_sequences(f, N_CTX, 2, bits[b]);
        eval(first, f->ids, 150, NULL, 0);
        check(qins_sequence_save(first, 0, path, &err), &err);
        check(qins_sequence_load(second, 1, path, &err), &err);
        assert_int_equal(qins_sequence_length(second, 1), 150);
        assert_memory_equal(qins_sequence_tokens(second, 1), f->ids, 150 * sizeof(int32_t));
        eval(first, f->ids + 150, 1, expected, 1);
        qins_batch_token token = {f->ids[150], 1, true};
        check(qins_session_eval_batch(second, &token, 1, logits, &err), &err);
        assert_memory_equal(logits, expected, f->vocab_size * sizeof *logits);
        qins_session_free(second);
        second = new_sequences(f, 100, 1, bits[b]);
        assert_int_equal(qins_sequence_load(second, 0, path, &err), QINS_ERR_ARGUMENT);
        assert_contains(err.message, "150 positions do not fit a context of 100");
        unlink(path);
        assert_int_equal(qins_sequence_load(second, 0, path, &err), QINS_ERR_IO);
        qins_session_free(first);
        qins_session_free(second);
        free(logits);
        free(expected);
    }
}

/* Memory follows what is used: a context of a million positions costs nothing before. */
static void a_long_context_costs_what_is_used(void **state) {
    const fixture *f = *state;
    qins_session *session = new_sequences(f, 1 << 20, 1, 16);
    eval(session, f->ids, 10, NULL, 0);
    assert_true(qins_session_kv_bytes(session) > 0 && qins_session_kv_bytes(session) < 1 << 20);
    qins_session_free(session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_decoded_together_are_those_decoded_alone),
        cmocka_unit_test(a_fork_goes_its_own_way),
        cmocka_unit_test(shifting_in_two_steps_is_shifting_in_one),
        cmocka_unit_test(a_saved_sequence_goes_on_as_if_it_had_not_been),
        cmocka_unit_test(a_long_context_costs_what_is_used),
        cmocka_unit_test(any_cut_gives_the_same_logits),
        cmocka_unit_test(the_last_logits_are_those_of_the_last_tokens),
        cmocka_unit_test(tokens_without_logits_still_count),
        cmocka_unit_test(the_number_of_threads_does_not_matter),
        cmocka_unit_test(truncating_forgets_what_came_after),
        cmocka_unit_test(truncating_forward_is_refused),
        cmocka_unit_test(ids_outside_the_vocabulary_are_refused),
        cmocka_unit_test(a_full_context_is_refused),
        cmocka_unit_test(more_logits_than_tokens_are_refused),
        cmocka_unit_test(an_impossible_context_is_refused),
        cmocka_unit_test(a_context_of_one_holds_one_token),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
