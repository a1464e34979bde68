/* Rounding with error feedback: against NumPy, and what must hold for any input. SPDX-License-Identifier: MIT */
#include "base/dense.h"
#include "codec/feedback.h"
#include "encode_memory.h"
#include "npy.h"

static const qins_feedback_options one_scale = {.n_scales = 1, .scale_lo = 1, .scale_hi = 1};

static npy_array golden(const char *name, const char *dtype) {
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/feedback/%s.npy", QINS_SOURCE_DIR, name);
    return npy_load(path, dtype);
}

static qins_codebook *uniform_book(int bits) {
    qins_codebook *book = calloc(1, sizeof *book);
    assert_non_null(book);
    qins_uniform_codebook(book, bits);
    return book;
}

/* Second moments of n_tokens inputs whose columns depend on each other; column `dead` is 0. */
static float *moments(size_t n_cols, size_t n_tokens, size_t dead) {
    matrix x = matrix_normal(n_tokens, n_cols, 1, 7);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t k = 0; k < n_cols; k++) {
            float *row = x.data + t * n_cols;
            if (k > 0) row[k] = 0.9f * row[k - 1] + 0.4f * row[k];
        }
    for (size_t t = 0; t < n_tokens && dead < n_cols; t++)
        x.data[t * n_cols + dead] = 0;
    float *h = calloc(n_cols * n_cols, sizeof *h);
    assert_non_null(h);
    qins_dense_gram(n_tokens, n_cols, x.data, n_cols, h);
    matrix_free(&x);
    return h;
}

/* (w-q) (H + damping * mean * I) (w-q)^T of a row */
static double quadratic_error(const float *h, size_t n, double damping, const float *w, const float *q) {
    double sum = 0, mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)h[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double hij = (double)(i <= j ? h[i * n + j] : h[j * n + i]) + (i == j ? damping * mean : 0);
            sum += ((double)w[i] - (double)q[i]) * hij * ((double)w[j] - (double)q[j]);
        }
    return sum;
}

typedef struct rounded {
    size_t n_rows, n_cols;
    uint16_t *codes;
    float *scales, *values;
    double *error;
} rounded;

static rounded round_rows(const matrix *w, const float *h, double damping, const qins_feedback_options *options,
                          const qins_codebook *book, double *used) {
    qins_error err = {0};
    qins_feedback f;
    rounded r = {w->n_rows,
                 w->n_cols,
                 calloc(w->n_rows * w->n_cols, sizeof *r.codes),
                 calloc(w->n_rows, sizeof *r.scales),
                 calloc(w->n_rows * w->n_cols, sizeof *r.values),
                 calloc(w->n_rows, sizeof *r.error)};
    for (size_t i = 0; i < w->n_rows; i++)
        r.scales[i] = qins_fit_scale(book, w->data + i * w->n_cols, w->n_cols, true);
    int threads = qins_dense_begin();
    assert_int_equal(qins_feedback_factor(h, w->n_cols, damping, &f, used, &err), QINS_OK);
    assert_int_equal(qins_feedback_round(&f, book, options, w->data, w->n_rows, r.scales, r.codes, r.error, &err),
                     QINS_OK);
    qins_dense_end(threads);
    qins_feedback_free(&f);
    for (size_t i = 0; i < w->n_rows * w->n_cols; i++)
        r.values[i] = r.scales[i / w->n_cols] * book->table[r.codes[i]];
    return r;
}

static void rounded_free(rounded *r) {
    free(r->codes);
    free(r->scales);
    free(r->values);
    free(r->error);
}

static void codes_are_those_of_gptq_in_numpy(void **state) {
    (void)state;
    npy_array w = golden("weights", "<f4"), h = golden("moments", "<f4"), scales = golden("scales", "<f4"),
              expected = golden("codes", "<u2");
    size_t n_rows = w.shape[0], n_cols = w.shape[1], different = 0;
    qins_error err = {0};
    qins_feedback f;
    qins_codebook *book = uniform_book(4);
    float *found_scales = malloc(n_rows * sizeof *found_scales);
    uint16_t *codes = malloc(n_rows * n_cols * sizeof *codes);
    memcpy(found_scales, scales.data, n_rows * sizeof *found_scales);
    int threads = qins_dense_begin();
    assert_int_equal(qins_feedback_factor(h.data, n_cols, 0.01, &f, NULL, &err), QINS_OK);
    assert_int_equal(qins_feedback_round(&f, book, &one_scale, w.data, n_rows, found_scales, codes, NULL, &err),
                     QINS_OK);
    qins_dense_end(threads);
    for (size_t i = 0; i < n_rows * n_cols; i++)
        different += codes[i] != ((const uint16_t *)expected.data)[i];
    assert_int_equal(different, 0);
    assert_memory_equal(found_scales, scales.data, n_rows * sizeof *found_scales);
    qins_feedback_free(&f);
    free(found_scales);
    free(codes);
    free(book);
    npy_free(&w);
    npy_free(&h);
    npy_free(&scales);
    npy_free(&expected);
}

static void the_error_it_reports_is_the_quadratic_form(void **state) {
    (void)state;
    matrix w = matrix_normal(5, 150, 0.02, 3);
    float *h = moments(150, 600, SIZE_MAX);
    qins_codebook *book = uniform_book(4);
    rounded r = round_rows(&w, h, 0.01, &one_scale, book, NULL);
    for (size_t i = 0; i < 5; i++) {
        double direct = quadratic_error(h, 150, 0.01, w.data + i * 150, r.values + i * 150);
        assert_close(r.error[i] / direct, 1, 1e-3);
    }
    rounded_free(&r);
    matrix_free(&w);
    free(h);
    free(book);
}

/* Correlated inputs: this is what feedback is for. */
static void it_is_better_than_rounding_to_the_nearest(void **state) {
    (void)state;
    matrix w = matrix_normal(32, 200, 0.02, 4);
    float *h = moments(200, 800, SIZE_MAX), *nearest = calloc(200, sizeof *nearest);
    qins_codebook *book = uniform_book(4);
    rounded r = round_rows(&w, h, 0.01, &one_scale, book, NULL);
    double fed_back = 0, plain = 0;
    for (size_t i = 0; i < 32; i++) {
        const float *row = w.data + i * 200;
        for (size_t k = 0; k < 200; k++)
            nearest[k] = r.scales[i] * book->table[qins_codebook_encode(book, row[k] / r.scales[i])];
        fed_back += quadratic_error(h, 200, 0, row, r.values + i * 200);
        plain += quadratic_error(h, 200, 0, row, nearest);
    }
    print_message("output error, feedback / nearest: %.3f\n", fed_back / plain);
    assert_true(fed_back < 0.3 * plain);
    rounded_free(&r);
    matrix_free(&w);
    free(nearest);
    free(h);
    free(book);
}

static void more_scales_never_do_worse(void **state) {
    (void)state;
    const qins_feedback_options many = {.n_scales = 9, .scale_lo = 0.8, .scale_hi = 1.25}; /* the fifth is 1 */
    matrix w = matrix_normal(40, 96, 0.02, 5);
    float *h = moments(96, 300, SIZE_MAX);
    qins_codebook *book = uniform_book(3);
    rounded one = round_rows(&w, h, 0.01, &one_scale, book, NULL), best = round_rows(&w, h, 0.01, &many, book, NULL);
    double sum_one = 0, sum_best = 0;
    for (size_t i = 0; i < 40; i++) {
        assert_true(best.error[i] <= one.error[i] * (1 + 1e-4));
        sum_one += one.error[i];
        sum_best += best.error[i];
    }
    assert_true(sum_best < 0.97 * sum_one);
    rounded_free(&one);
    rounded_free(&best);
    matrix_free(&w);
    free(h);
    free(book);
}

static void singular_moments_and_dead_inputs_are_damped(void **state) {
    (void)state;
    matrix w = matrix_normal(20, 128, 0.02, 6);
    float *h = moments(128, 3, 11); /* rank 3, and column 11 never sees anything */
    qins_codebook *book = uniform_book(4);
    double used = 0;
    rounded r = round_rows(&w, h, 0.01, &one_scale, book, &used);
    assert_close(used, 0.01, 1e-12);
    for (size_t i = 0; i < 20 * 128; i++)
        assert_true(isfinite(r.values[i]));
    /* No damping at all: it is raised until the factor exists. */
    for (size_t i = 0; i < 128; i++)
        h[i * 128 + i] *= 0.5f; /* not even semidefinite */
    rounded raised = round_rows(&w, h, 1e-6, &one_scale, book, &used);
    assert_true(used > 1e-6);
    rounded_free(&r);
    rounded_free(&raised);
    matrix_free(&w);
    free(h);
    free(book);
}

static void nothing_to_calibrate_with_is_refused(void **state) {
    (void)state;
    float h[4] = {0, 0, 0, 0};
    qins_feedback f;
    qins_error err = {0};
    assert_int_equal(qins_feedback_factor(h, 2, 0.01, &f, NULL, &err), QINS_ERR_ARGUMENT);
    h[0] = h[3] = INFINITY;
    assert_int_equal(qins_feedback_factor(h, 2, 0.01, &f, NULL, &err), QINS_ERR_ARGUMENT);
    h[0] = h[3] = 1;
    h[1] = NAN;
    assert_int_equal(qins_feedback_factor(h, 2, 0.01, &f, NULL, &err), QINS_ERR_ARGUMENT);
}

static void rows_of_zeros_stay_zero(void **state) {
    (void)state;
    matrix w = matrix_normal(3, 64, 0.02, 8);
    memset(w.data + 64, 0, 64 * sizeof *w.data);
    float *h = moments(64, 200, SIZE_MAX);
    qins_codebook *book = uniform_book(4);
    rounded r = round_rows(&w, h, 0.01, &one_scale, book, NULL);
    for (size_t k = 0; k < 64; k++)
        assert_true(r.values[64 + k] == 0);
    rounded_free(&r);
    matrix_free(&w);
    free(h);
    free(book);
}

/* A price on every code but two makes those two frequent; a price of nothing changes nothing. */
static void prices_move_codes(void **state) {
    (void)state;
    matrix w = matrix_normal(16, 128, 0.02, 9);
    float *h = moments(128, 500, SIZE_MAX), price[16] = {0};
    qins_codebook *book = uniform_book(4);
    qins_feedback_options o = one_scale;
    rounded plain = round_rows(&w, h, 0.01, &o, book, NULL);
    o.price = price;
    rounded free_of_charge = round_rows(&w, h, 0.01, &o, book, NULL);
    assert_memory_equal(plain.codes, free_of_charge.codes, 16 * 128 * sizeof *plain.codes);
    for (size_t c = 0; c < 16; c++)
        price[c] = c == 7 || c == 8 ? 0.0f : 400.0f;
    rounded priced = round_rows(&w, h, 0.01, &o, book, NULL);
    size_t inner_plain = 0, inner_priced = 0;
    for (size_t i = 0; i < 16 * 128; i++) {
        inner_plain += plain.codes[i] == 7 || plain.codes[i] == 8;
        inner_priced += priced.codes[i] == 7 || priced.codes[i] == 8;
    }
    assert_true(inner_priced > inner_plain + inner_plain / 4);
    rounded_free(&plain);
    rounded_free(&free_of_charge);
    rounded_free(&priced);
    matrix_free(&w);
    free(h);
    free(book);
}

static qins_codebook *sparse_book(int bits) {
    qins_codebook *book = calloc(1, sizeof *book);
    assert_non_null(book);
    qins_sparse_codebook(book, bits);
    return book;
}

/* Inputs that depend on each other and differ in size, as those of a model do. */
static float *uneven_moments(size_t n_cols, size_t n_tokens) {
    float *h = moments(n_cols, n_tokens, SIZE_MAX);
    for (size_t i = 0; i < n_cols; i++)
        for (size_t j = i; j < n_cols; j++)
            h[i * n_cols + j] *= (1.0f + (float)(i * 7 % 11)) * (1.0f + (float)(j * 7 % 11));
    return h;
}

/* Zeros of every row, or of every `group` neighbours, are as many as asked for; more only where rounding makes them. */
static void check_zeros(const rounded *r, double share, size_t group, bool exactly) {
    size_t unit = group > 0 ? group : r->n_cols, expected = (size_t)(share * (double)unit);
    for (size_t i = 0; i < r->n_rows; i++)
        for (size_t k = 0; k + unit <= r->n_cols; k += unit) {
            size_t zeros = 0;
            for (size_t j = 0; j < unit; j++)
                zeros += r->values[i * r->n_cols + k + j] == 0.0f;
            assert_true(exactly ? zeros == expected : zeros >= expected);
        }
}

static double total(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static void pruning_by_loss_is_better_than_by_magnitude(void **state) {
    (void)state;
    static const struct {
        double share;
        size_t group;
    } kinds[] = {{0.5, 0}, {0.3, 0}, {0.5, 4}};
    enum { N_ROWS = 48, N_COLS = 300 }; /* two blocks and a rest */
    matrix w = matrix_normal(N_ROWS, N_COLS, 0.02, 11);
    float *h = uneven_moments(N_COLS, 900);
    qins_codebook *book = sparse_book(8);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        qins_feedback_options o = one_scale;
        o.sparsity = kinds[i].share;
        o.sparse_group = kinds[i].group;
        rounded by_loss = round_rows(&w, h, 0.01, &o, book, NULL);
        o.by_magnitude = true;
        rounded by_magnitude = round_rows(&w, h, 0.01, &o, book, NULL);
        check_zeros(&by_loss, kinds[i].share, kinds[i].group, false);
        check_zeros(&by_magnitude, kinds[i].share, kinds[i].group, false);
        double nothing_fed_back = 0;
        float pruned[N_COLS];
        for (size_t r = 0; r < N_ROWS; r++) {
            memcpy(pruned, w.data + r * N_COLS, sizeof pruned);
            qins_prune_row(pruned, N_COLS, kinds[i].share, kinds[i].group);
            for (size_t k = 0; k < N_COLS; k++)
                assert_true(pruned[k] != 0.0f || by_magnitude.values[r * N_COLS + k] == 0.0f);
            nothing_fed_back += quadratic_error(h, N_COLS, 0.01, w.data + r * N_COLS, pruned);
        }
        double loss = total(by_loss.error, N_ROWS), magnitude = total(by_magnitude.error, N_ROWS);
        print_message("%.1f of %zu: error by loss %.3g, by magnitude %.3g, without feedback %.3g\n", kinds[i].share,
                      kinds[i].group, loss, magnitude, nothing_fed_back);
        assert_true(loss < 0.7 * magnitude && magnitude < 0.7 * nothing_fed_back);
        for (size_t r = 0; r < N_ROWS; r++) /* the error that is reported is the quadratic form, pruned or not */
            assert_close(by_loss.error[r] /
                             quadratic_error(h, N_COLS, 0.01, w.data + r * N_COLS, by_loss.values + r * N_COLS),
                         1, 2e-3);
        rounded_free(&by_loss);
        rounded_free(&by_magnitude);
    }
    matrix_free(&w);
    free(h);
    free(book);
}

/* With equal and independent inputs the least loss is the least magnitude. Weights are at least half a step away from
 * zero, so that none is rounded to it. */
static void without_correlation_both_prune_the_same(void **state) {
    (void)state;
    enum { N = 128 };
    matrix w = matrix_normal(10, N, 0.02, 12);
    for (size_t i = 0; i < 10 * N; i++)
        w.data[i] += w.data[i] < 0 ? -0.002f : 0.002f;
    float *h = calloc(N * N, sizeof *h);
    for (size_t i = 0; i < N; i++)
        h[i * N + i] = 1;
    qins_codebook *book = sparse_book(8);
    qins_feedback_options o = one_scale;
    for (o.sparse_group = 0; o.sparse_group <= 8; o.sparse_group += 4) {
        o.sparsity = 0.6; /* 2 of 4, 4 of 8 */
        o.by_magnitude = false;
        rounded by_loss = round_rows(&w, h, 0.01, &o, book, NULL);
        check_zeros(&by_loss, 0.6, o.sparse_group, true);
        o.by_magnitude = true;
        rounded by_magnitude = round_rows(&w, h, 0.01, &o, book, NULL);
        assert_memory_equal(by_loss.codes, by_magnitude.codes, 10 * N * sizeof *by_loss.codes);
        rounded_free(&by_loss);
        rounded_free(&by_magnitude);
    }
    matrix_free(&w);
    free(h);
    free(book);
}

static void results_do_not_depend_on_the_number_of_threads(void **state) {
    (void)state;
    matrix w = matrix_normal(300, 96, 0.02, 10);
    float *h = moments(96, 300, SIZE_MAX);
    qins_codebook *book = uniform_book(4);
    const qins_feedback_options many = {.n_scales = 4, .scale_lo = 0.9, .scale_hi = 1.1};
    rounded all = round_rows(&w, h, 0.01, &many, book, NULL);
    qins_set_threads(1);
    rounded one = round_rows(&w, h, 0.01, &many, book, NULL);
    qins_set_threads(0);
    assert_memory_equal(all.codes, one.codes, 300 * 96 * sizeof *all.codes);
    rounded_free(&all);
    rounded_free(&one);
    matrix_free(&w);
    free(h);
    free(book);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_gptq_in_numpy),
        cmocka_unit_test(the_error_it_reports_is_the_quadratic_form),
        cmocka_unit_test(it_is_better_than_rounding_to_the_nearest),
        cmocka_unit_test(more_scales_never_do_worse),
        cmocka_unit_test(singular_moments_and_dead_inputs_are_damped),
        cmocka_unit_test(nothing_to_calibrate_with_is_refused),
        cmocka_unit_test(rows_of_zeros_stay_zero),
        cmocka_unit_test(prices_move_codes),
        cmocka_unit_test(pruning_by_loss_is_better_than_by_magnitude),
        cmocka_unit_test(without_correlation_both_prune_the_same),
        cmocka_unit_test(results_do_not_depend_on_the_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
