/* Every implementation of the inner loops of encoding gives the bits of the portable one. SPDX-License-Identifier: MIT
 */
#include "testing.h"

#include "codec/simd.h"

enum { MAX_VALUES = 4096 };

static size_t all_tables(const qins_codec_simd **tables) {
    size_t n = qins_all_codec_simd(tables, 8);
    assert_ptr_equal(tables[0], &qins_codec_portable);
    print_message("[          ] %zu implementations, the best is %s\n", n, tables[n - 1]->name);
    return n;
}

static void random_values(float *x, size_t n, double sigma, uint64_t seed) {
    rng r = {seed};
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(sigma * rng_normal(&r));
}

static void hadamard_transforms_are_the_same_bits(void **state) {
    (void)state;
    const qins_codec_simd *tables[8];
    size_t n_tables = all_tables(tables);
    float x[MAX_VALUES], expected[MAX_VALUES], found[MAX_VALUES];
    for (size_t n = 1; n <= MAX_VALUES; n *= 2) {
        random_values(x, n, 0.02, n);
        if (n > 2) x[1] = x[0]; /* an exact zero in between */
        memcpy(expected, x, sizeof x);
        qins_codec_portable.hadamard(expected, n);
        for (size_t t = 1; t < n_tables; t++) {
            memcpy(found, x, sizeof x);
            tables[t]->hadamard(found, n);
            assert_memory_equal(found, expected, n * sizeof *found);
        }
    }
}

/* Weights of all kinds: random, on the borders between two codes, next to them, far outside, zero. */
static void awkward_values(const qins_codebook *book, float scale, float *x, size_t n) {
    random_values(x, n, scale * book->sigma, 7);
    for (size_t i = 0; i + 1 < book->n_levels && 3 * i + 2 < n; i++) {
        x[3 * i] = book->bounds[i] * scale;
        x[3 * i + 1] = nextafterf(x[3 * i], INFINITY);
        x[3 * i + 2] = nextafterf(x[3 * i], -INFINITY);
    }
    x[n - 1] = 0.0f;
    x[n - 2] = 1e30f;
    x[n - 3] = -1e30f;
    x[n - 4] = -0.0f;
}

static void codes_and_errors_are_the_same_bits_at_every_width(void **state) {
    (void)state;
    const qins_codec_simd *tables[8];
    size_t n_tables = all_tables(tables);
    float x[MAX_VALUES];
    uint16_t expected[MAX_VALUES], found[MAX_VALUES];
    float scales[40];
    double errors[40], found_errors[40];
    for (int bits = 3; bits <= 8; bits++)
        for (int codec = 0; codec < 2; codec++) {
            qins_codebook book;
            (codec == 0 ? qins_gauss_codebook : qins_uniform_codebook)(&book, bits);
            for (size_t n = 1021; n <= 1040; n += 3) { /* whole and broken registers */
                const float scale = 0.0173f;
                awkward_values(&book, scale, x, n);
                for (size_t s = 0; s < 40; s++)
                    scales[s] = scale * (0.8f + 0.01f * (float)s);
                qins_codec_portable.nearest(&book, x, n, scale, expected);
                qins_codec_portable.scale_errors(&book, x, n, scales, 40, errors);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(expected[i], qins_codebook_encode(&book, x[i] / scale));
                for (size_t t = 1; t < n_tables; t++) {
                    tables[t]->nearest(&book, x, n, scale, found);
                    tables[t]->scale_errors(&book, x, n, scales, 40, found_errors);
                    assert_memory_equal(found, expected, n * sizeof *found);
                    assert_memory_equal(found_errors, errors, sizeof errors);
                }
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hadamard_transforms_are_the_same_bits),
        cmocka_unit_test(codes_and_errors_are_the_same_bits_at_every_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
