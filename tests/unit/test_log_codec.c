/* The original QINS log codec against its restatement in NumPy. SPDX-License-Identifier: MIT */
#include "codec_goldens.h"

static void seed_storage_equals_the_numpy_reference(void **state) {
    (void)state;
    npy_array input = golden("<f4", "input"), range = golden("<f4", "log_range"),
              codes = golden("|u1", "log_seed_codes"), signs = golden("|i1", "log_seed_signs"),
              decoded = golden("<f4", "log_seed_decoded");
    assert_true(input.shape[0] >= 13);
    for (size_t i = 0; i < input.shape[0]; i++) {
        matrix m = golden_case(&input, i);
        size_t n = m.n_rows * m.n_cols;
        qins_encode_options o = plain_options(QINS_CODEC_LOG, 8);
        o.storage = QINS_STORAGE_SEED;
        encoded e = encode(&m, &o);
        assert_floats_equal((float *)(void *)e.part[QINS_PART_RANGE], (const float *)range.data + 2 * i, 2, "range", i);
        assert_memory_equal(e.part[QINS_PART_CODES], (const uint8_t *)codes.data + i * n, n);
        assert_memory_equal(e.part[QINS_PART_SIGNS], (const uint8_t *)signs.data + i * n, n);
        matrix d = decode(&e);
        assert_floats_equal(d.data, (const float *)decoded.data + i * n, n, "decoded", i);
        matrix_free(&d);
        encoded_free(&e);
    }
    npy_free(&input);
    npy_free(&range);
    npy_free(&codes);
    npy_free(&signs);
    npy_free(&decoded);
}

static unsigned golden_code(const npy_array *a, size_t i) {
    return a->dtype[2] == '2' ? ((const uint16_t *)a->data)[i] : ((const uint8_t *)a->data)[i];
}

static void packed_codes_and_tables_equal_the_numpy_reference(void **state) {
    (void)state;
    static const int widths[] = {3, 4, 6, 7, 8, 9};
    npy_array input = golden("<f4", "input");
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        int bits = widths[w];
        npy_array codes = golden(bits == 9 ? "<u2" : "|u1", "log_packed_%d_codes", bits);
        npy_array table = golden("<f4", "log_packed_%d_table", bits);
        size_t n_levels = (size_t)1 << bits;
        for (size_t i = 0; i < input.shape[0]; i++) {
            matrix m = golden_case(&input, i);
            qins_encode_options o = plain_options(QINS_CODEC_LOG, bits);
            encoded e = encode(&m, &o);
            assert_floats_equal((float *)(void *)e.part[QINS_PART_TABLE], (const float *)table.data + i * n_levels,
                                n_levels, "table", i);
            assert_true(part_float(&e, QINS_PART_SCALES, 0) == 1.0f);
            for (size_t r = 0; r < m.n_rows; r++)
                for (size_t k = 0; k < m.n_cols; k++)
                    assert_int_equal(stored_code(&e, r, k), golden_code(&codes, (i * m.n_rows + r) * m.n_cols + k));
            encoded_free(&e);
        }
        npy_free(&codes);
        npy_free(&table);
    }
    npy_free(&input);
}

static void code_1_is_the_largest_magnitude_and_the_last_the_smallest(void **state) {
    (void)state;
    qins_codebook book;
    qins_log_codebook(&book, 8, logf(0.001f), logf(2.0f));
    assert_close(book.table[1], 2.0, 1e-6);
    assert_close(book.table[127], 0.001, 1e-9);
    for (int m = 2; m <= 127; m++)
        assert_true(book.table[m] < book.table[m - 1]);
    for (int m = 0; m <= 127; m++)
        assert_true(book.table[128 + m] == -book.table[m]);
    assert_int_equal(qins_codebook_encode(&book, 2.0f), 1);
    assert_int_equal(qins_codebook_encode(&book, -0.001f), 128 + 127);
}

static void exact_zero_survives_every_storage_and_width(void **state) {
    (void)state;
    matrix m = matrix_normal(20, 70, 0.02, 2);
    for (size_t i = 0; i < 20 * 70; i += 3)
        m.data[i] = i % 2 ? 0.0f : -0.0f;
    for (int bits = 2; bits <= 9; bits++) { /* 2 stands for seed storage */
        qins_encode_options o = plain_options(QINS_CODEC_LOG, bits == 2 ? 8 : bits);
        if (bits == 2) o.storage = QINS_STORAGE_SEED;
        encoded e = encode(&m, &o);
        matrix d = decode(&e);
        for (size_t i = 0; i < 20 * 70; i++)
            assert_true((d.data[i] == 0.0f) == (m.data[i] == 0.0f));
        matrix_free(&d);
        encoded_free(&e);
    }
    matrix_free(&m);
}

static void constant_and_all_zero_tensors_round_trip(void **state) {
    (void)state;
    static const float values[] = {0.0f, 1.0f, -1.0f, 0.37f, -3e-5f, 1e-7f, 1e30f};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        matrix m = matrix_new(3, 5);
        for (size_t i = 0; i < 15; i++)
            m.data[i] = values[v];
        qins_encode_options o = plain_options(QINS_CODEC_LOG, 8);
        o.storage = v % 2 ? QINS_STORAGE_SEED : QINS_STORAGE_PACKED;
        encoded e = encode(&m, &o);
        matrix d = decode(&e);
        /* log is rounded to FP32: a relative error of |log| * 2^-24 */
        for (size_t i = 0; i < 15; i++)
            assert_close(d.data[i], values[v], 5e-6 * fabs((double)values[v]));
        matrix_free(&d);
        encoded_free(&e);
        matrix_free(&m);
    }
}

static void tiny_weights_beside_a_single_magnitude_become_zero(void **state) {
    (void)state;
    static const float magnitudes[] = {1.0f, 0.25f};
    for (size_t i = 0; i < 2; i++) {
        float weights[4] = {magnitudes[i], -1e-9f, -magnitudes[i], 1e-12f};
        matrix m = {1, 4, weights};
        qins_encode_options o = plain_options(QINS_CODEC_LOG, 4);
        encoded e = encode(&m, &o);
        matrix d = decode(&e);
        assert_close(d.data[0], magnitudes[i], 1e-6);
        assert_close(d.data[2], -magnitudes[i], 1e-6);
        assert_true(d.data[1] == 0.0f && d.data[3] == 0.0f);
        matrix_free(&d);
        encoded_free(&e);
    }
}

static void row_scales_make_the_log_codec_independent_of_row_magnitude(void **state) {
    (void)state;
    matrix m = matrix_normal(16, 256, 0.02, 3);
    for (size_t k = 0; k < 256; k++)
        m.data[256 + k] = m.data[k] * 0x1p-20f; /* row 1 is row 0, a million times smaller */
    qins_encode_options o = plain_options(QINS_CODEC_LOG, 6);
    o.scale = QINS_SCALE_ROW;
    encoded e = encode(&m, &o);
    for (size_t k = 0; k < 256; k++)
        assert_int_equal(stored_code(&e, 0, k), stored_code(&e, 1, k));
    assert_true(part_float(&e, QINS_PART_SCALES, 1) == part_float(&e, QINS_PART_SCALES, 0) * 0x1p-20f);
    encoded_free(&e);
    matrix_free(&m);
}

static void non_finite_weights_are_refused_by_index(void **state) {
    (void)state;
    qins_encode_options o = plain_options(QINS_CODEC_LOG, 8);
    check_refuses_non_finite(o);
    o.storage = QINS_STORAGE_SEED;
    check_refuses_non_finite(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seed_storage_equals_the_numpy_reference),
        cmocka_unit_test(packed_codes_and_tables_equal_the_numpy_reference),
        cmocka_unit_test(code_1_is_the_largest_magnitude_and_the_last_the_smallest),
        cmocka_unit_test(exact_zero_survives_every_storage_and_width),
        cmocka_unit_test(constant_and_all_zero_tensors_round_trip),
        cmocka_unit_test(tiny_weights_beside_a_single_magnitude_become_zero),
        cmocka_unit_test(row_scales_make_the_log_codec_independent_of_row_magnitude),
        cmocka_unit_test(non_finite_weights_are_refused_by_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
