/* AMX kernels on a model of the instructions, against scalar: no machine that this was written on has them.
 * SPDX-License-Identifier: MIT */
#include "kernel/kernel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_COLS = QINS_SPAN_COLS, MAX_TOKENS = 45, PANELS = 2, LD = PANELS * QINS_PANEL_ROWS };

extern const qins_integer_kernels qins_integer_amx_model;
void qins_amx_loop_model(size_t n);
int amx_model_faults;

static uint64_t random_state = 1;

static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

/* The model replaces the tile instructions only; the rest is AVX-512 with VNNI and VBMI. */
static bool cpu_runs_the_rest(void) {
    const qins_cpu *cpus[16];
    size_t n = qins_all_cpus(cpus, 16);
    for (size_t i = 0; i < n; i++)
        if (strcmp(cpus[i]->name, "avx512vbmi") == 0) return true;
    return false;
}

static void make_table(qins_integer_table *table, int bits, int limit) {
    float entries[QINS_INTEGER_LEVELS];
    for (unsigned i = 0; i < 1u << bits; i++)
        entries[i] = (float)((int)(random_u32() % (unsigned)(2 * limit + 1)) - limit);
    entries[0] = (float)-limit;
    entries[1] = (float)limit;
    qins_integer_table_make(table, entries, bits);
}

/* n_cols of the one span that `decode` and `multiply` take, behind another one when col > 0. */
static void compare(int bits, int limit, size_t col, size_t n_cols, size_t n_tokens, size_t n_panels, bool extreme) {
    static float x[MAX_TOKENS * 2 * MAX_COLS], expected[MAX_TOKENS * LD], got[MAX_TOKENS * LD];
    static uint8_t tiles[PANELS][MAX_COLS * QINS_PANEL_ROWS];
    static _Alignas(64) uint8_t decoded[2][PANELS * QINS_DECODED_PANEL];
    static uint16_t codes[QINS_PANEL_ROWS * MAX_COLS];
    const qins_integer_kernels *kernels[2] = {&qins_integer_scalar, &qins_integer_amx_model};
    qins_integer_table table;
    make_table(&table, bits, limit);
    size_t all_cols = col + n_cols;
    for (size_t i = 0; i < n_tokens * all_cols; i++)
        x[i] = extreme ? (random_u32() % 2 == 0 ? 1.0f : -1.0f) : (float)random_u32() * 0x1p-31f - 1.0f;
    void *memory = qins_alloc_aligned(qins_quantised_bytes(n_tokens, all_cols), 1);
    assert_non_null(memory);
    qins_quantised q;
    qins_quantised_place(&q, n_tokens, all_cols, memory);
    for (size_t t = 0; t < n_tokens; t++)
        qins_quantise(&q, t, x + t * all_cols, all_cols);
    for (size_t p = 0; p < n_panels; p++) {
        for (size_t i = 0; i < QINS_PANEL_ROWS * n_cols; i++)
            codes[i] = (uint16_t)(extreme ? random_u32() % 2 : random_u32() % (1u << bits));
        qins_pack_panel(codes, n_cols, QINS_PANEL_ROWS, n_cols, bits, tiles[p]);
    }
    for (size_t i = 0; i < MAX_TOKENS * LD; i++)
        expected[i] = got[i] = (float)(i % 7);
    size_t first = n_tokens > 3 ? 2 : 0;
    for (int k = 0; k < 2; k++) {
        for (size_t p = 0; p < n_panels; p++)
            kernels[k]->decode[bits][table.kind](tiles[p], &table, n_cols, decoded[k] + p * QINS_DECODED_PANEL);
        kernels[k]->multiply[table.kind](decoded[k], n_panels, n_cols, &q, col, first, n_tokens - first,
                                         k == 0 ? expected : got, LD);
    }
    for (size_t i = 0; i < MAX_TOKENS * LD; i++) {
        size_t t = i / LD < n_tokens - first ? first + i / LD : 0;
        /* of the largest sum that could be: that much FP32 may round */
        float scale = q.units[t * q.n_spans + col / QINS_SPAN_COLS] * (float)limit * 32639.0f * (float)n_cols;
        if (!(fabsf(got[i] - expected[i]) <= 3e-7f * (scale + 8.0f)))
            fail_msg("%d bits, limit %d, %zu columns from %zu, %zu tokens, %zu panels: %g at %zu, expected %g", bits,
                     limit, n_cols, col, n_tokens, n_panels, (double)got[i], i, (double)expected[i]);
    }
    free(memory);
}

static void tiles_multiply_like_scalar(void **state) {
    (void)state;
    if (!cpu_runs_the_rest()) skip();
    for (int bits = 3; bits <= 8; bits++)
        for (int limit = QINS_INT8_ENTRY; limit <= QINS_INT16_ENTRY; limit += QINS_INT16_ENTRY - QINS_INT8_ENTRY)
            for (size_t n_tokens = 1; n_tokens <= MAX_TOKENS; n_tokens += n_tokens < 20 ? 3 : 5)
                for (size_t n_panels = 1; n_panels <= PANELS; n_panels++) {
                    size_t n_cols = QINS_TILE_COLS * (1 + random_u32() % 4);
                    compare(bits, limit, random_u32() % 2 * QINS_SPAN_COLS, n_cols, n_tokens, n_panels, false);
                    compare(bits, limit, 0, MAX_COLS, n_tokens, n_panels, true);
                }
    assert_int_equal(amx_model_faults, 0);
}

static void the_loop_that_measures_runs(void **state) {
    (void)state;
    if (!cpu_runs_the_rest()) skip();
    qins_amx_loop_model(8);
    assert_int_equal(amx_model_faults, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles_multiply_like_scalar),
                                       cmocka_unit_test(the_loop_that_measures_runs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
