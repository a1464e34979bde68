/* Random signs and the blockwise Hadamard transform. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "codec/codec.h"

enum { MAX_COLS = 8192 };

typedef struct fixture {
    float signs[MAX_COLS], x[MAX_COLS], y[MAX_COLS], original_x[MAX_COLS], original_y[MAX_COLS];
} fixture;

static const size_t widths[] = {1, 7, 64, 96, 576, 1536, 4096, 8192};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

static void fill(fixture *f, size_t n, uint64_t seed) {
    rng r = {seed};
    qins_rotation_signs(seed, n, f->signs);
    for (size_t k = 0; k < n; k++) {
        f->x[k] = f->original_x[k] = (float)rng_normal(&r);
        f->y[k] = f->original_y[k] = (float)rng_normal(&r);
    }
}

static double dot(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static int setup(void **state) {
    *state = calloc(1, sizeof(fixture));
    return *state == NULL;
}

static int teardown(void **state) {
    free(*state);
    return 0;
}

static void block_is_the_largest_power_of_two_that_divides_the_width_up_to_4096(void **state) {
    (void)state;
    static const size_t expected[][2] = {{1, 1},       {3, 1},       {64, 64},     {576, 64},
                                         {1536, 512},  {768, 256},   {2048, 2048}, {3072, 1024},
                                         {4096, 4096}, {8192, 4096}, {4097, 1},    {12288, 4096}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(qins_rotation_block(expected[i][0]), expected[i][1]);
}

/* A file stores only the seed: other signs would make every rotated file wrong. */
static void signs_of_a_seed_never_change(void **state) {
    fixture *f = *state;
    static const int first_of_seed_1[16] = {-1, -1, 1, 1, 1, -1, 1, -1, -1, 1, 1, -1, -1, 1, -1, 1};
    qins_rotation_signs(1, MAX_COLS, f->signs);
    for (size_t k = 0; k < 16; k++)
        assert_int_equal((int)f->signs[k], first_of_seed_1[k]);
    double sum = 0;
    for (size_t k = 0; k < MAX_COLS; k++) {
        assert_true(fabsf(f->signs[k]) == 1.0f);
        sum += (double)f->signs[k];
    }
    assert_true(fabs(sum) < 4 * sqrt(MAX_COLS)); /* as many of each */
}

static void rotation_keeps_lengths_and_inner_products(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < N_WIDTHS; i++) {
        size_t n = widths[i];
        fill(f, n, 31 + i);
        qins_rotate(f->x, n, f->signs);
        qins_rotate(f->y, n, f->signs);
        double length = sqrt(dot(f->original_x, f->original_x, n) * dot(f->original_y, f->original_y, n));
        assert_close(dot(f->x, f->x, n) / dot(f->original_x, f->original_x, n), 1.0, 1e-6);
        assert_close(dot(f->x, f->y, n), dot(f->original_x, f->original_y, n), 1e-6 * length); /* W x */
    }
}

static void unrotating_gives_the_vector_back(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < N_WIDTHS; i++) {
        size_t n = widths[i];
        fill(f, n, 41 + i);
        qins_rotate(f->x, n, f->signs);
        if (n % 2 == 0) assert_memory_not_equal(f->x, f->original_x, n * sizeof(float));
        qins_unrotate(f->x, n, f->signs);
        for (size_t k = 0; k < n; k++)
            assert_close(f->x[k], f->original_x[k], 5e-6);
    }
}

/* Entry (j, k) of the Sylvester Hadamard matrix is (-1)^popcount(j & k). */
static void columns_of_the_rotation_are_signed_hadamard_columns(void **state) {
    fixture *f = *state;
    size_t n = 192, block = 64; /* three blocks */
    qins_rotation_signs(5, n, f->signs);
    for (size_t k = 0; k < n; k++) {
        memset(f->x, 0, n * sizeof(float));
        f->x[k] = 1;
        qins_rotate(f->x, n, f->signs);
        for (size_t j = 0; j < n; j++) {
            bool negative = __builtin_popcountll((j % block) & (k % block)) % 2 == 1;
            double entry = j / block == k / block ? (double)f->signs[k] * (negative ? -0.125 : 0.125) : 0.0;
            assert_true((double)f->x[j] == entry);
        }
    }
}

static void a_single_outlier_is_spread_over_its_block(void **state) {
    fixture *f = *state;
    qins_rotation_signs(1, 4096, f->signs);
    memset(f->x, 0, 4096 * sizeof(float));
    f->x[1234] = 64;
    qins_rotate(f->x, 4096, f->signs);
    for (size_t k = 0; k < 4096; k++)
        assert_true(fabsf(f->x[k]) == 1.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_is_the_largest_power_of_two_that_divides_the_width_up_to_4096),
        cmocka_unit_test(signs_of_a_seed_never_change),
        cmocka_unit_test(rotation_keeps_lengths_and_inner_products),
        cmocka_unit_test(unrotating_gives_the_vector_back),
        cmocka_unit_test(columns_of_the_rotation_are_signed_hadamard_columns),
        cmocka_unit_test(a_single_outlier_is_spread_over_its_block),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
