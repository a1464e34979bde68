/* Access to tests/golden/codec. SPDX-License-Identifier: MIT */
#ifndef QINS_TEST_CODEC_GOLDENS_H
#define QINS_TEST_CODEC_GOLDENS_H

#include "encode_memory.h"
#include "npy.h"

static inline npy_array golden(const char *dtype, const char *fmt, ...) QINS_PRINTF(2, 3);

static inline npy_array golden(const char *dtype, const char *fmt, ...) {
    char name[64], path[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    snprintf(path, sizeof path, "%s/tests/golden/codec/%s.npy", QINS_SOURCE_DIR, name);
    return npy_load(path, dtype);
}

/* Weights of case i. Borrows from `input`. */
static inline matrix golden_case(const npy_array *input, size_t i) {
    size_t n = input->shape[1] * input->shape[2];
    return (matrix){input->shape[1], input->shape[2], (float *)(uintptr_t)input->data + i * n};
}

/* ==, so that zeros of either sign are equal. */
static inline void assert_floats_equal(const float *found, const float *expected, size_t n, const char *what,
                                       size_t golden_index) {
    for (size_t i = 0; i < n; i++)
        if (!(found[i] == expected[i]))
            fail_msg("%s, case %zu: [%zu] is %.9g, expected %.9g", what, golden_index, i, (double)found[i],
                     (double)expected[i]);
}

/* Refusals that all codecs share: the message names the first bad weight. */
static inline void check_refuses_non_finite(qins_encode_options options) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        matrix m = matrix_normal(40, 64, 0.02, 1);
        m.data[37 * 64 + 5] = bad[i];
        m.data[21 * 64 + 13] = bad[i];
        encoded e;
        qins_error err = {0};
        assert_int_equal(try_encode(&m, &options, &e, &err), QINS_ERR_FORMAT);
        assert_contains(err.message, "weight [21][13] is NaN or infinite");
        encoded_free(&e);
        matrix_free(&m);
    }
}

#endif
