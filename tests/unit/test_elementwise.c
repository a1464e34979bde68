/* Passes over activations of every level against the scalar specification. SPDX-License-Identifier: MIT */
#include "kernel/kernel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_TABLES = 16, MAX_N = 700 };

static uint64_t random_state;

static float random_float(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 32) * 0x1p-31f - 1.0f;
}

typedef struct table {
    const char *name;
    const qins_elementwise *functions;
} table;

static size_t all_tables(table tables[MAX_TABLES]) {
    const qins_cpu *cpus[MAX_TABLES];
    size_t n = qins_all_cpus(cpus, MAX_TABLES);
    for (size_t i = 0; i < n; i++)
        tables[i] = (table){cpus[i]->name, cpus[i]->kernels->elementwise};
    return n;
}

static void expect_near(const char *level, const char *what, size_t n, const float *got, const float *expected,
                        float relative, float absolute) {
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - expected[i]) <= relative * fabsf(expected[i]) + absolute))
            fail_msg("%s, %s of %zu: %g at %zu, expected %g", level, what, n, (double)got[i], i, (double)expected[i]);
}

/* Values behind the n that were asked for stay what they were. */
static void expect_untouched(const char *level, const char *what, size_t n, const float *got) {
    for (size_t i = n; i < MAX_N; i++)
        if (got[i] != 7.0f) fail_msg("%s, %s of %zu wrote %zu", level, what, n, i);
}

static void fill(float *x, float v) {
    for (size_t i = 0; i < MAX_N; i++)
        x[i] = v;
}

static void every_table_has_the_same_norms_and_sums(void **state) {
    (void)state;
    table tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 1;
    static float x[MAX_N], w[MAX_N], b[MAX_N], expected[MAX_N], got[MAX_N];
    for (size_t n = 1; n <= MAX_N; n = n < 70 ? n + 1 : n + 63) {
        for (size_t i = 0; i < n; i++) {
            x[i] = 3.0f * random_float() + 0.5f;
            w[i] = random_float() + 1.0f;
            b[i] = random_float();
        }
        x[n / 2] *= 50; /* an outlier, as residual streams have */
        for (size_t t = 0; t < n_tables; t++) {
            const qins_elementwise *e = tables[t].functions;
            fill(got, 7.0f);
            qins_elementwise_scalar.norm_rms(x, n, 1e-5f, w, expected);
            e->norm_rms(x, n, 1e-5f, w, got);
            expect_near(tables[t].name, "norm_rms", n, got, expected, 2e-6f, 0);
            expect_untouched(tables[t].name, "norm_rms", n, got);
            qins_elementwise_scalar.norm_layer(x, n, 1e-5f, w, b, expected);
            e->norm_layer(x, n, 1e-5f, w, b, got);
            expect_near(tables[t].name, "norm_layer", n, got, expected, 5e-6f, 2e-5f);
            qins_elementwise_scalar.norm_layer(x, n, 1e-5f, w, NULL, expected);
            memcpy(got, x, n * sizeof *x);
            e->norm_layer(got, n, 1e-5f, w, NULL, got); /* in place */
            expect_near(tables[t].name, "norm_layer", n, got, expected, 5e-6f, 2e-5f);
            for (size_t i = 0; i < n; i++)
                expected[i] = got[i] + x[i];
            e->add(got, x, n);
            expect_near(tables[t].name, "add", n, got, expected, 0, 0);
            expect_untouched(tables[t].name, "add", n, got);
        }
    }
}

static void every_table_has_the_same_activations(void **state) {
    (void)state;
    static const char *const names[] = {"silu", "gelu", "gelu_tanh", "relu"};
    table tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 2;
    static float x[MAX_N], up[MAX_N], expected[MAX_N], got[MAX_N];
    for (size_t n = 1; n <= MAX_N; n = n < 70 ? n + 1 : n + 63)
        for (int a = QINS_ACT_SILU; a <= QINS_ACT_RELU; a++) {
            for (size_t i = 0; i < n; i++) {
                x[i] = (i % 3 == 0 ? 30.0f : 4.0f) * random_float();
                up[i] = random_float();
            }
            if (n > 3) {
                x[0] = 200.0f;
                x[1] = -200.0f;
                x[2] = 0.0f;
            }
            for (size_t t = 0; t < n_tables; t++) {
                memcpy(expected, x, n * sizeof *x);
                qins_elementwise_scalar.activate((qins_activation)a, expected, n);
                fill(got, 7.0f);
                memcpy(got, x, n * sizeof *x);
                tables[t].functions->activate((qins_activation)a, got, n);
                expect_near(tables[t].name, names[a], n, got, expected, 2e-6f, 1e-6f);
                expect_untouched(tables[t].name, names[a], n, got);
                qins_elementwise_scalar.gate((qins_activation)a, x, up, n, expected);
                fill(got, 7.0f);
                tables[t].functions->gate((qins_activation)a, x, up, n, got);
                expect_near(tables[t].name, names[a], n, got, expected, 2e-6f, 1e-6f);
                expect_untouched(tables[t].name, names[a], n, got);
            }
        }
}

/* Integers may differ by one where a value lies between two and the units differ in the last place. */
static void every_table_quantises_alike(void **state) {
    (void)state;
    enum { TOKENS = 3 };
    table tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 3;
    static float x[TOKENS * MAX_N];
    for (size_t n = 1; n <= MAX_N; n = n < 70 ? n + 1 : n + 63)
        for (int kind = 0; kind < 4; kind++) {
            for (size_t i = 0; i < TOKENS * n; i++)
                x[i] = kind == 0 ? random_float() : kind == 1 ? 2.0f : i % 2 == 0 ? 1e-3f : -1e-3f;
            if (kind == 3) x[n / 2] = -1000.0f;
            void *memory[2] = {qins_alloc_aligned(qins_quantised_bytes(TOKENS, n), 1),
                               qins_alloc_aligned(qins_quantised_bytes(TOKENS, n), 1)};
            assert_non_null(memory[0]);
            assert_non_null(memory[1]);
            qins_quantised expected, got;
            qins_quantised_place(&expected, TOKENS, n, memory[0]);
            qins_quantised_place(&got, TOKENS, n, memory[1]);
            for (size_t i = 0; i < n_tables; i++) {
                memset(memory[1], 0x55, qins_quantised_bytes(TOKENS, n));
                for (size_t t = 0; t < TOKENS; t++) {
                    qins_quantise(&expected, t, x + t * n, n);
                    tables[i].functions->quantise(&got, t, x + t * n, n);
                }
                expect_near(tables[i].name, "units", TOKENS * got.n_spans, got.units, expected.units, 1e-6f, 0);
                for (size_t k = 0; k < TOKENS * got.n_cols; k++) {
                    if (abs(got.words[k] - expected.words[k]) > 1)
                        fail_msg("%s: %d, expected %d", tables[i].name, got.words[k], expected.words[k]);
                    const int8_t *halves = got.halves + k / QINS_TILE_COLS * 2 * QINS_TILE_COLS + k % QINS_TILE_COLS;
                    assert_int_equal(256 * halves[0] + halves[QINS_TILE_COLS], got.words[k]);
                }
                for (size_t span = 0; span < TOKENS * got.n_spans; span++) {
                    size_t col = span % got.n_spans * QINS_SPAN_COLS;
                    const int16_t *words = got.words + span / got.n_spans * got.n_cols + col;
                    int32_t sum = 0;
                    for (size_t k = 0; k < qins_min_size(QINS_SPAN_COLS, got.n_cols - col); k++)
                        sum += words[k];
                    assert_int_equal(got.offsets[span], -QINS_ENTRY_BIAS * sum);
                }
            }
            free(memory[0]);
            free(memory[1]);
        }
}

static void values_that_are_not_finite_spoil_the_unit(void **state) {
    (void)state;
    table tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    static _Alignas(64) uint8_t memory[8192];
    float x[128] = {0};
    for (size_t i = 0; i < n_tables; i++)
        for (int kind = 0; kind < 2; kind++) {
            qins_quantised q;
            qins_quantised_place(&q, 1, 128, memory);
            x[77] = kind == 0 ? NAN : -INFINITY;
            tables[i].functions->quantise(&q, 0, x, 128);
            if (isfinite(q.units[0])) fail_msg("%s: %g", tables[i].name, (double)q.units[0]);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_table_has_the_same_norms_and_sums),
                                       cmocka_unit_test(every_table_has_the_same_activations),
                                       cmocka_unit_test(every_table_quantises_alike),
                                       cmocka_unit_test(values_that_are_not_finite_spoil_the_unit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
