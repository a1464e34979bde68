/* The original QINS rational codec against its restatement in NumPy. SPDX-License-Identifier: MIT */
#include "codec_goldens.h"

static const int alphas[] = {1, 32};

static void f32_coordinates_equal_the_numpy_reference(void **state) {
    (void)state;
    npy_array input = golden("<f4", "input");
    for (size_t a = 0; a < 2; a++) {
        npy_array z = golden("<f4", "rational_f32_alpha_%d_z", alphas[a]);
        npy_array decoded = golden("<f4", "rational_f32_alpha_%d_decoded", alphas[a]);
        for (size_t i = 0; i < input.shape[0]; i++) {
            matrix m = golden_case(&input, i);
            size_t n = m.n_rows * m.n_cols;
            qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, 8);
            o.storage = QINS_STORAGE_F32;
            o.alpha = alphas[a];
            encoded e = encode(&m, &o);
            assert_floats_equal((float *)(void *)e.part[QINS_PART_CODES], (const float *)z.data + i * n, n, "z", i);
            assert_true(part_float(&e, QINS_PART_ALPHA, 0) == (float)alphas[a]);
            matrix d = decode(&e);
            assert_floats_equal(d.data, (const float *)decoded.data + i * n, n, "decoded", i);
            matrix_free(&d);
            encoded_free(&e);
        }
        npy_free(&z);
        npy_free(&decoded);
    }
    npy_free(&input);
}

static void packed_codes_and_tables_equal_the_numpy_reference(void **state) {
    (void)state;
    static const int widths[] = {3, 4, 6, 8};
    npy_array input = golden("<f4", "input");
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t a = 0; a < 2; a++) {
            int bits = widths[w];
            npy_array codes = golden("|u1", "rational_%d_alpha_%d_codes", bits, alphas[a]);
            npy_array table = golden("<f4", "rational_%d_alpha_%d_table", bits, alphas[a]);
            for (size_t i = 0; i < input.shape[0]; i++) {
                matrix m = golden_case(&input, i);
                qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, bits);
                o.alpha = alphas[a];
                encoded e = encode(&m, &o);
                assert_floats_equal((float *)(void *)e.part[QINS_PART_TABLE], table.data, (size_t)1 << bits, "table",
                                    i);
                assert_true(part_float(&e, QINS_PART_SCALES, 0) == 1.0f);
                for (size_t r = 0; r < m.n_rows; r++)
                    for (size_t k = 0; k < m.n_cols; k++)
                        assert_int_equal(stored_code(&e, r, k),
                                         ((const uint8_t *)codes.data)[(i * m.n_rows + r) * m.n_cols + k]);
                encoded_free(&e);
            }
            npy_free(&codes);
            npy_free(&table);
        }
    npy_free(&input);
}

static void zero_is_the_top_code_and_decodes_to_zero(void **state) {
    (void)state;
    float weights[4] = {0.0f, -0.0f, 0.5f, -0.5f};
    matrix m = {1, 4, weights};
    for (int bits = 3; bits <= 8; bits++) {
        qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, bits);
        o.alpha = 3;
        encoded e = encode(&m, &o);
        assert_int_equal(stored_code(&e, 0, 0), (1 << bits) - 1);
        assert_int_equal(stored_code(&e, 0, 1), (1 << bits) - 1);
        assert_true(decode_one(&e, 0, 0) == 0.0f && decode_one(&e, 0, 1) == 0.0f);
        assert_true(decode_one(&e, 0, 2) > 0.0f && decode_one(&e, 0, 3) < 0.0f);
        encoded_free(&e);
    }
}

static size_t codes_used(const encoded *e) {
    size_t used = 0;
    for (size_t i = 0; i < QINS_MAX_LEVELS; i++)
        used += e->stats.histogram[i] > 0;
    return used;
}

/* With alpha = 1 and |w| < 0.1, |z| stays above 1/1.1: 255/2 * (1 - 1/1.1) = 11.6 steps on each side. */
static void alpha_1_wastes_the_codes_that_a_fitted_alpha_uses(void **state) {
    (void)state;
    matrix m = matrix_normal(64, 512, 0.02, 4);
    for (size_t i = 0; i < 64 * 512; i++)
        m.data[i] = fminf(fmaxf(m.data[i], -0.0999f), 0.0999f);
    qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, 8);
    o.alpha = 1;
    encoded wasteful = encode(&m, &o);
    o.alpha = 0;
    encoded fitted = encode(&m, &o);
    assert_in_range(codes_used(&wasteful), 10, 26);
    assert_in_range(codes_used(&fitted), 150, 256);
    assert_true(relative_error(&fitted) < 0.02 * relative_error(&wasteful));
    encoded_free(&wasteful);
    encoded_free(&fitted);
    matrix_free(&m);
}

/* The coordinates are FP32 and near 1 for small weights, so that what is lost is FP32 rounding of z. */
static void f32_storage_loses_only_the_rounding_of_its_coordinate(void **state) {
    (void)state;
    matrix m = matrix_normal(32, 100, 0.02, 5);
    qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, 8);
    o.storage = QINS_STORAGE_F32;
    encoded e = encode(&m, &o);
    assert_true(e.info[QINS_PART_CODES].n_bytes == 32 * 100 * sizeof(float));
    matrix d = decode(&e);
    double alpha = (double)part_float(&e, QINS_PART_ALPHA, 0);
    for (size_t i = 0; i < 32 * 100; i++) {
        double s = 1 + alpha * fabs((double)m.data[i]); /* dw/dz = s^2/alpha, z = 1/s in error by z 2^-24 */
        assert_close(d.data[i], m.data[i], s / alpha * 0x1p-24 * 1.001 + fabs((double)m.data[i]) * 0x1p-24);
    }
    matrix_free(&d);
    encoded_free(&e);
    matrix_free(&m);
}

/* Once --bits 32 wrote past the table. */
static void f32_storage_ignores_bits(void **state) {
    (void)state;
    matrix m = matrix_normal(2, 8, 0.02, 6);
    for (int bits = -1; bits <= 32; bits += 33) {
        qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, bits);
        o.storage = QINS_STORAGE_F32;
        encoded e = encode(&m, &o);
        assert_true(relative_error(&e) < 1e-12);
        encoded_free(&e);
    }
    matrix_free(&m);
}

static void extreme_weights_get_a_finite_alpha_and_table(void **state) {
    (void)state;
    static const double sigmas[] = {1e-44, 1e-41, 1e-30, 1e30, 1e37};
    for (size_t i = 0; i < sizeof sigmas / sizeof *sigmas; i++) {
        matrix m = matrix_normal(8, 64, sigmas[i], 7);
        qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, 8);
        encoded e = encode(&m, &o);
        assert_in_range(isfinite(part_float(&e, QINS_PART_ALPHA, 0)), 1, 1);
        for (size_t k = 0; k < 256; k++)
            assert_true(isfinite(part_float(&e, QINS_PART_TABLE, k)));
        if (sigmas[i] > 1e-40 && sigmas[i] < 1e36) assert_true(relative_error(&e) < 1e-3);
        encoded_free(&e);
        matrix_free(&m);
    }
}

static void non_finite_weights_are_refused_by_index(void **state) {
    (void)state;
    qins_encode_options o = plain_options(QINS_CODEC_RATIONAL, 8);
    check_refuses_non_finite(o); /* alpha fitted */
    o.alpha = 1;
    check_refuses_non_finite(o);
    o.storage = QINS_STORAGE_F32;
    check_refuses_non_finite(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_coordinates_equal_the_numpy_reference),
        cmocka_unit_test(packed_codes_and_tables_equal_the_numpy_reference),
        cmocka_unit_test(zero_is_the_top_code_and_decodes_to_zero),
        cmocka_unit_test(alpha_1_wastes_the_codes_that_a_fitted_alpha_uses),
        cmocka_unit_test(f32_storage_loses_only_the_rounding_of_its_coordinate),
        cmocka_unit_test(f32_storage_ignores_bits),
        cmocka_unit_test(extreme_weights_get_a_finite_alpha_and_table),
        cmocka_unit_test(non_finite_weights_are_refused_by_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
