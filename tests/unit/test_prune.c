/* Pruned rows, and codes that hold exact zeros. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "codec/codec.h"

#include <stdlib.h>
#include <string.h>

enum { N_ROWS = 20, N_COLS = 333 };

static int compare_magnitudes(const void *a, const void *b) {
    float x = fabsf(*(const float *)a), y = fabsf(*(const float *)b);
    return x < y ? -1 : x > y;
}

static size_t zeros_of(const float *x, size_t n) {
    size_t zeros = 0;
    for (size_t i = 0; i < n; i++)
        zeros += x[i] == 0.0f;
    return zeros;
}

static void the_smallest_of_a_row_go(void **state) {
    (void)state;
    rng r = {1};
    for (double share = 0.1; share < 1; share += 0.2) {
        float x[N_COLS], sorted[N_COLS], pruned[N_COLS];
        for (size_t k = 0; k < N_COLS; k++)
            x[k] = (float)rng_normal(&r);
        memcpy(sorted, x, sizeof x);
        memcpy(pruned, x, sizeof x);
        qsort(sorted, N_COLS, sizeof *sorted, compare_magnitudes);
        size_t n = (size_t)(share * N_COLS);
        double dropped = 0;
        for (size_t k = 0; k < n; k++)
            dropped += (double)sorted[k] * (double)sorted[k];
        assert_close(qins_prune_row(pruned, N_COLS, share, 0), dropped, 1e-9);
        assert_int_equal(zeros_of(pruned, N_COLS), n);
        for (size_t k = 0; k < N_COLS; k++)
            assert_true(pruned[k] == (fabsf(x[k]) < fabsf(sorted[n]) ? 0.0f : x[k]));
    }
}

static void equal_weights_are_counted_not_all_dropped(void **state) {
    (void)state;
    float x[10] = {1, -1, 1, 1, 0, 1, -1, 1, 1, 1};
    qins_prune_row(x, 10, 0.5, 0);
    assert_int_equal(zeros_of(x, 10), 5);
}

static void two_of_every_four_go(void **state) {
    (void)state;
    float x[] = {4, 1, -3, 2, 0.5f, -0.25f, 8, 9, 1, 2}, expected[] = {4, 0, -3, 0, 0, 0, 8, 9, 1, 2};
    assert_close(qins_prune_row(x, 10, 0.5, 4), 1 + 4 + 0.25 + 0.0625, 1e-9);
    assert_memory_equal(x, expected, sizeof x);
}

static void zeros_stay_zeros_in_every_code_that_has_one(void **state) {
    (void)state;
    static const struct {
        qins_codec codec;
        qins_storage storage;
        int bits;
    } kinds[] = {{QINS_CODEC_LOG, QINS_STORAGE_SEED, 8},
                 {QINS_CODEC_LOG, QINS_STORAGE_PACKED, 8},
                 {QINS_CODEC_RATIONAL, QINS_STORAGE_PACKED, 8},
                 {QINS_CODEC_UNIFORM, QINS_STORAGE_PACKED, 5}};
    rng r = {2};
    float *w = malloc(N_ROWS * N_COLS * sizeof *w), *back = malloc(N_ROWS * N_COLS * sizeof *w);
    for (size_t i = 0; i < N_ROWS * N_COLS; i++)
        w[i] = (float)(0.02 * rng_normal(&r));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        qins_encode_options o;
        qins_error err = {0};
        qins_linear *linear;
        qins_encode_defaults(&o);
        o.codec = kinds[i].codec;
        o.storage = kinds[i].storage;
        o.bits = kinds[i].bits;
        o.rotate = QINS_OFF;
        o.scale = QINS_SCALE_TENSOR;
        o.sparsity = 0.5;
        assert_int_equal(qins_linear_from_float(w, NULL, N_ROWS, N_COLS, &o, &linear, &err), QINS_OK);
        assert_int_equal(qins_linear_decode(linear, back, &err), QINS_OK);
        for (size_t row = 0; row < N_ROWS; row++)
            assert_true(zeros_of(back + row * N_COLS, N_COLS) >= N_COLS / 2);
        qins_linear_free(linear);
    }
    free(w);
    free(back);
}

static void uniform_codes_are_pruned_in_the_rotated_basis(void **state) {
    (void)state;
    enum { COLS = 320 }; /* five blocks of a rotation */
    rng r = {3};
    float *w = malloc(N_ROWS * COLS * sizeof *w), *back = malloc(N_ROWS * COLS * sizeof *w), signs[COLS];
    for (size_t i = 0; i < N_ROWS * COLS; i++)
        w[i] = (float)(0.02 * rng_normal(&r));
    qins_encode_options o;
    qins_error err = {0};
    qins_linear *linear;
    qins_encode_defaults(&o);
    o.codec = QINS_CODEC_UNIFORM;
    o.bits = 6;
    o.sparsity = 0.5;
    o.sparse_group = 4;
    assert_int_equal(qins_linear_from_float(w, NULL, N_ROWS, COLS, &o, &linear, &err), QINS_OK);
    assert_int_equal(qins_linear_decode(linear, back, &err), QINS_OK);
    qins_rotation_signs(o.rotation_seed, COLS, signs);
    double error = 0, power = 0;
    for (size_t i = 0; i < N_ROWS * COLS; i++) {
        error += pow((double)w[i] - (double)back[i], 2);
        power += pow((double)w[i], 2);
    }
    for (size_t row = 0; row < N_ROWS; row++) {
        float *x = back + row * COLS;
        assert_true(zeros_of(x, COLS) < COLS / 8);
        qins_rotate(x, COLS, signs);
        for (size_t k = 0; k < COLS; k += 4) {
            size_t zeros = 0;
            for (size_t j = 0; j < 4; j++)
                zeros += fabsf(x[k + j]) < 1e-6f;
            assert_true(zeros >= 2);
        }
    }
    assert_true(error / power > 0.1 && error / power < 0.3); /* two of four normal numbers hold 0.16 of the squares */
    qins_linear_free(linear);
    free(w);
    free(back);
}

static void codes_without_a_zero_are_refused(void **state) {
    (void)state;
    qins_encode_options o;
    qins_error err = {0};
    qins_encode_defaults(&o);
    o.sparsity = 0.5;
    assert_int_equal(qins_encode_resolve(&o, &err), QINS_ERR_ARGUMENT); /* gauss, rotated */
    qins_encode_defaults(&o);
    o.codec = QINS_CODEC_LOG;
    o.sparsity = 0.5;
    o.rotate = QINS_ON;
    assert_int_equal(qins_encode_resolve(&o, &err), QINS_ERR_ARGUMENT);
    o.rotate = QINS_OFF;
    assert_int_equal(qins_encode_resolve(&o, &err), QINS_OK);
    o.sparsity = 1;
    assert_int_equal(qins_encode_resolve(&o, &err), QINS_ERR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_of_a_row_go),
        cmocka_unit_test(equal_weights_are_counted_not_all_dropped),
        cmocka_unit_test(two_of_every_four_go),
        cmocka_unit_test(zeros_stay_zeros_in_every_code_that_has_one),
        cmocka_unit_test(uniform_codes_are_pruned_in_the_rotated_basis),
        cmocka_unit_test(codes_without_a_zero_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
