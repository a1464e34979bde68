/* Lloyd-Max tables, the uniform table, and their rate-distortion. SPDX-License-Identifier: MIT */
#include "encode_memory.h"
#include "gauss_math.h"
#include "kernel/integer.h"

/* Relative mean squared error of the Lloyd-Max quantiser of N(0,1) by bits. */
static const double lloyd_max_error[9] = {
    [3] = 3.455e-2, [4] = 9.501e-3, [5] = 2.505e-3, [6] = 6.442e-4, [7] = 1.635e-4, [8] = 4.119e-5};

static void levels_satisfy_both_lloyd_max_conditions(void **state) {
    (void)state;
    for (int bits = 3; bits <= 8; bits++) {
        size_t n = (size_t)1 << bits;
        double levels[QINS_MAX_LEVELS];
        qins_lloyd_max_gauss(n, levels);
        for (size_t i = 0; i < n; i++) {
            double a = gauss_boundary(levels, n, i), b = gauss_boundary(levels, n, i + 1);
            assert_close((gauss_density(a) - gauss_density(b)) / gauss_mass(a, b), levels[i], 1e-10);
            assert_close(levels[i], -levels[n - 1 - i], 1e-10);
            if (i > 0) assert_true(levels[i] > levels[i - 1]);
        }
    }
}

static void error_of_the_levels_is_the_converged_one(void **state) {
    (void)state;
    for (int bits = 3; bits <= 8; bits++) {
        size_t n = (size_t)1 << bits;
        double levels[QINS_MAX_LEVELS], error = qins_lloyd_max_gauss(n, levels);
        assert_close(gauss_error(levels, n), error, 1e-12);
        assert_close(error / lloyd_max_error[bits], 1.0, 0.00015); /* four digits */
    }
}

/* What rounding the table to integers may cost, in bits. */
static void integer_tables_fit_8_or_13_bits_and_cost_next_to_nothing(void **state) {
    (void)state;
    static const double cost_allowed[9] = {
        [3] = 0.0005, [4] = 0.0005, [5] = 0.0045, [6] = 0.0205, [7] = 0.0035, [8] = 0.0090};
    for (int bits = 3; bits <= 8; bits++) {
        qins_codebook book;
        qins_gauss_codebook(&book, bits);
        float limit = bits <= 6 ? 127.0f : 4095.0f;
        for (size_t i = 0; i < book.n_levels; i++) {
            assert_true(book.table[i] == rintf(book.table[i]) && fabsf(book.table[i]) <= limit);
            assert_true(book.table[i] == -book.table[book.n_levels - 1 - i]);
        }
        qins_integer_table integers; /* which fast kernels need of wide tables */
        qins_integer_table_make(&integers, book.table, bits);
        assert_true(integers.curved == (bits >= 7));
        double levels[QINS_MAX_LEVELS], exact = qins_lloyd_max_gauss(book.n_levels, levels);
        scaled_minimum best = gauss_best_scale(book.table, book.n_levels, 0.9 / book.sigma, 1.1 / book.sigma);
        double cost = 0.5 * log2(best.error / exact);
        print_message("%d bits: Lloyd-Max error %.4e, gap %.3f bits, integer table +%.4f bits\n", bits, exact,
                      bits - 0.5 * log2(1 / exact), cost);
        assert_in_range(cost > -1e-9 && cost < cost_allowed[bits], 1, 1);
        assert_close(best.scale * book.sigma, 1.0, 0.01); /* sigma is where a fit may start */
    }
}

static void codes_are_those_of_the_nearest_level(void **state) {
    (void)state;
    rng r = {11};
    for (int bits = 3; bits <= 8; bits++)
        for (int uniform = 0; uniform < 2; uniform++) {
            qins_codebook book;
            if (uniform)
                qins_uniform_codebook(&book, bits);
            else
                qins_gauss_codebook(&book, bits);
            for (size_t trial = 0; trial < 2000 + 3 * (book.n_levels - 1); trial++) {
                float u = (float)(1.5 * book.sigma * rng_normal(&r)), found, best = INFINITY;
                if (trial >= 2000) { /* on a midpoint and next to it */
                    float middle = 0.5f * (book.table[(trial - 2000) / 3] + book.table[(trial - 2000) / 3 + 1]);
                    u = trial % 3 == 0 ? middle : nextafterf(middle, trial % 3 == 1 ? -INFINITY : INFINITY);
                }
                found = fabsf(u - book.table[qins_codebook_encode(&book, u)]);
                for (size_t i = 0; i < book.n_levels; i++)
                    best = fminf(best, fabsf(u - book.table[i]));
                assert_true(found == best);
            }
        }
}

static void uniform_steps_minimise_the_error_on_gaussian_weights(void **state) {
    (void)state;
    for (int bits = 3; bits <= 8; bits++) {
        qins_codebook book;
        qins_uniform_codebook(&book, bits);
        for (size_t i = 1; i < book.n_levels; i++)
            assert_true(book.table[i] - book.table[i - 1] == 2.0f);
        scaled_minimum best = gauss_best_scale(book.table, book.n_levels, 0.5 / book.sigma, 2.0 / book.sigma);
        assert_close(2 * best.scale, 2 / book.sigma, 0.00006); /* the step has four decimals */
    }
}

/* ---- rate and distortion ---- */

typedef enum weights { GAUSSIAN, STUDENT_T3, LAPLACE_SQUARED, OUTLIER_CHANNELS, N_WEIGHTS } weights;
static const char *const weight_names[N_WEIGHTS] = {"Gaussian", "Student t, 3 degrees", "Laplace squared",
                                                    "outlier channels"};

static matrix random_weights(weights kind, size_t n_rows, size_t n_cols) {
    matrix m = matrix_new(n_rows, n_cols);
    rng r = {100 + (uint64_t)kind};
    for (size_t i = 0; i < n_rows * n_cols; i++) {
        double w = kind == STUDENT_T3        ? rng_student3(&r)
                   : kind == LAPLACE_SQUARED ? rng_laplace_squared(&r)
                                             : rng_normal(&r);
        if (kind == OUTLIER_CHANNELS && i % n_cols % 97 == 0) w *= 30;
        m.data[i] = (float)(0.02 * w);
    }
    return m;
}

static double gap_of(const matrix *m, int bits, qins_switch rotate) {
    qins_encode_options o = plain_options(QINS_CODEC_GAUSS, bits);
    o.scale = QINS_SCALE_ROW;
    o.rotate = rotate;
    encoded e = encode(m, &o);
    double gap = gap_bits(&e);
    encoded_free(&e);
    return gap;
}

static void rotated_gauss_stays_within_three_quarters_of_a_bit_of_the_bound(void **state) {
    (void)state;
    for (size_t n_cols = 1024; n_cols <= 4096; n_cols *= 4)
        for (weights kind = GAUSSIAN; kind < N_WEIGHTS; kind++) {
            matrix m = random_weights(kind, 256, n_cols);
            print_message("K = %4zu, %-20s gap in bits:", n_cols, weight_names[kind]);
            for (int bits = 3; bits <= 8; bits++) {
                double gap = gap_of(&m, bits, QINS_ON);
                print_message("  %d: %.3f", bits, gap);
                assert_in_range(gap < 0.75, 1, 1);
            }
            print_message("\n");
            matrix_free(&m);
        }
}

static void without_rotation_heavy_tails_leave_the_bound_far_behind(void **state) {
    (void)state;
    for (weights kind = STUDENT_T3; kind < N_WEIGHTS; kind++) {
        matrix m = random_weights(kind, 64, 1024);
        for (int bits = 4; bits <= 8; bits += 2) {
            double plain = gap_of(&m, bits, QINS_OFF), rotated = gap_of(&m, bits, QINS_ON);
            print_message("%-20s %d bits: gap %.3f without rotation, %.3f with\n", weight_names[kind], bits, plain,
                          rotated);
            assert_in_range(plain > 0.75 && plain > rotated + 0.25, 1, 1);
        }
        matrix_free(&m);
    }
}

static void gauss_beats_uniform_at_every_width(void **state) {
    (void)state;
    matrix m = random_weights(GAUSSIAN, 64, 1024);
    for (int bits = 3; bits <= 8; bits++) {
        qins_encode_options o = plain_options(QINS_CODEC_UNIFORM, bits);
        o.scale = QINS_SCALE_ROW;
        encoded e = encode(&m, &o);
        assert_true(gap_of(&m, bits, QINS_OFF) + 0.02 < gap_bits(&e));
        encoded_free(&e);
    }
    matrix_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_satisfy_both_lloyd_max_conditions),
        cmocka_unit_test(error_of_the_levels_is_the_converged_one),
        cmocka_unit_test(integer_tables_fit_8_or_13_bits_and_cost_next_to_nothing),
        cmocka_unit_test(codes_are_those_of_the_nearest_level),
        cmocka_unit_test(uniform_steps_minimise_the_error_on_gaussian_weights),
        cmocka_unit_test(rotated_gauss_stays_within_three_quarters_of_a_bit_of_the_bound),
        cmocka_unit_test(without_rotation_heavy_tails_leave_the_bound_far_behind),
        cmocka_unit_test(gauss_beats_uniform_at_every_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
