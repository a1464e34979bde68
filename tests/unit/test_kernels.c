/* Every kernel table against the scalar specification, and matrices against plain arithmetic. SPDX-License-Identifier:
 * MIT With --bench: weights a second of every table. */
#include "base/half.h"
#include "kernel/matrix.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { MAX_TABLES = 8 };

static uint64_t random_state;

static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_float(void) {
    return (float)random_u32() * 0x1p-31f - 1.0f;
}

static float *random_floats(size_t n) {
    float *x = qins_alloc_aligned(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float();
    return x;
}

/* The FP32 tables of the levels this CPU runs, each once. */
static size_t all_tables(const qins_kernels *tables[MAX_TABLES]) {
    const qins_cpu *cpus[2 * MAX_TABLES];
    size_t n = 0, n_cpus = qins_all_cpus(cpus, 2 * MAX_TABLES);
    for (size_t i = 0; i < n_cpus && n < MAX_TABLES; i++)
        if (n == 0 || tables[n - 1] != cpus[i]->kernels) tables[n++] = cpus[i]->kernels;
    return n;
}

static void every_table_decodes_the_codes_that_were_packed(void **state) {
    (void)state;
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables), n_cols = 3 * QINS_TILE_COLS;
    random_state = 1;
    for (int bits = QINS_MIN_BITS; bits <= QINS_MAX_BITS; bits++) {
        uint16_t codes[QINS_PANEL_ROWS * 3 * QINS_TILE_COLS];
        float values[QINS_MAX_LEVELS], out[QINS_PANEL_ROWS * 3 * QINS_TILE_COLS];
        for (size_t i = 0; i < QINS_PANEL_ROWS * n_cols; i++)
            codes[i] = (uint16_t)(random_u32() & ((1u << bits) - 1));
        for (size_t i = 0; i < QINS_MAX_LEVELS; i++)
            values[i] = (float)i + 0.5f;
        uint8_t *packed = qins_alloc(3 * qins_tile_bytes(bits) + 1, 1);
        assert_non_null(packed);
        for (size_t shift = 0; shift < 2; shift++) { /* aligned and not */
            qins_pack_panel(codes, n_cols, QINS_PANEL_ROWS, n_cols, bits, packed + shift);
            for (size_t t = 0; t < n_tables; t++) {
                tables[t]->decode[bits](packed + shift, values, n_cols, out);
                for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
                    for (size_t k = 0; k < n_cols; k++)
                        if (out[k * QINS_PANEL_ROWS + row] != values[codes[row * n_cols + k]])
                            fail_msg("%s, %d bits, row %zu, column %zu", tables[t]->name, bits, row, k);
            }
        }
        free(packed);
    }
}

/* Largest difference allowed between two orders of summing n products of numbers up to 1. */
static double tolerance(size_t n) {
    return 1e-6 * (double)n + 1e-6;
}

static void every_table_multiplies_like_scalar(void **state) {
    (void)state;
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 2;
    for (int trial = 0; trial < 60; trial++) {
        size_t n_cols = 1 + random_u32() % 300, n_tokens = 1 + random_u32() % 21, ldx = n_cols + random_u32() % 5;
        float *panel = random_floats(n_cols * QINS_PANEL_ROWS), *x = random_floats(ldx * n_tokens);
        float *start = random_floats(n_tokens * QINS_PANEL_ROWS), *expected = random_floats(n_tokens * QINS_PANEL_ROWS);
        memcpy(expected, start, n_tokens * QINS_PANEL_ROWS * sizeof *start);
        qins_kernels_scalar.multiply_panel(panel, n_cols, x, ldx, n_tokens, expected);
        for (size_t t = 0; t < n_tables; t++) {
            float *acc = random_floats(n_tokens * QINS_PANEL_ROWS);
            memcpy(acc, start, n_tokens * QINS_PANEL_ROWS * sizeof *start);
            tables[t]->multiply_panel(panel, n_cols, x, ldx, n_tokens, acc);
            for (size_t i = 0; i < n_tokens * QINS_PANEL_ROWS; i++)
                if (!(fabs((double)acc[i] - (double)expected[i]) <= tolerance(n_cols)))
                    fail_msg("%s: %zu columns, %zu tokens: %g, expected %g", tables[t]->name, n_cols, n_tokens,
                             (double)acc[i], (double)expected[i]);
            free(acc);
        }
        free(panel);
        free(x);
        free(start);
        free(expected);
    }
}

/* Values that FP16 and BF16 hold exactly, at addresses that are no multiple of anything. */
static void every_table_has_the_same_dot_of_plain_rows(void **state) {
    (void)state;
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 4;
    for (size_t n = 0; n < 300; n++) {
        uint8_t *rows[QINS_NUMBERS];
        float *x = random_floats(n + 1), *w = random_floats(n + 1);
        double expected = 0;
        for (int number = QINS_NUMBER_F32; number < QINS_NUMBERS; number++) {
            rows[number] = malloc(4 * n + 1);
            assert_non_null(rows[number]);
        }
        for (size_t i = 0; i < n; i++) {
            /* eight bits of fraction, exponents down to subnormal halves */
            float value = rintf(w[i] * 127) * (i % 3 == 0 ? 0x1p-24f : 0x1p-7f);
            uint16_t half = qins_float_to_half(value), brain = (uint16_t)(qins_bits_from_float(value) >> 16);
            expected += (double)value * (double)x[i];
            memcpy(rows[QINS_NUMBER_F32] + 1 + 4 * i, &value, 4);
            memcpy(rows[QINS_NUMBER_F16] + 1 + 2 * i, &half, 2);
            memcpy(rows[QINS_NUMBER_BF16] + 1 + 2 * i, &brain, 2);
        }
        for (size_t t = 0; t < n_tables; t++)
            for (int number = QINS_NUMBER_F32; number < QINS_NUMBERS; number++)
                assert_true(fabs((double)tables[t]->dot_row[number](rows[number] + 1, x, n) - expected) <=
                            tolerance(n));
        for (int number = QINS_NUMBER_F32; number < QINS_NUMBERS; number++)
            free(rows[number]);
        free(x);
        free(w);
    }
}

/* Panels of rows that lie apart, at addresses that are no multiple of anything; rows that are not there are zero. */
static void every_table_turns_rows_into_panels(void **state) {
    (void)state;
    enum { PAD = 3 };
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 6;
    for (int trial = 0; trial < 80; trial++) {
        size_t n = 1 + random_u32() % 70, n_rows = 1 + random_u32() % QINS_PANEL_ROWS;
        float *expected = random_floats(n * QINS_PANEL_ROWS), *out = random_floats(n * QINS_PANEL_ROWS);
        for (int number = QINS_NUMBER_F32; number < QINS_NUMBERS; number++) {
            size_t bytes = number == QINS_NUMBER_F32 ? 4 : 2, stride = n * bytes + PAD;
            uint8_t *rows = malloc(1 + n_rows * stride); /* ends with the last value and PAD bytes */
            assert_non_null(rows);
            for (size_t i = 0; i < n_rows * stride + 1; i++)
                rows[i] = (uint8_t)(random_u32() & 0x3f); /* finite numbers of every kind */
            for (size_t t = 0; t < n_tables; t++) {
                for (size_t i = 0; i < n * QINS_PANEL_ROWS; i++)
                    out[i] = NAN;
                tables[t]->panel_of_rows[number](rows + 1, stride, n_rows, n, out);
                if (t == 0) memcpy(expected, out, n * QINS_PANEL_ROWS * sizeof *out);
                assert_memory_equal(out, expected, n * QINS_PANEL_ROWS * sizeof *out);
            }
            for (size_t row = 0; row < QINS_PANEL_ROWS; row++) {
                float one = 1.0f, value = 0;
                if (row < n_rows)
                    value = tables[0]->dot_row[number](rows + 1 + row * stride + (n - 1) * bytes, &one, 1);
                assert_true(out[(n - 1) * QINS_PANEL_ROWS + row] == value);
            }
            free(rows);
        }
        free(expected);
        free(out);
    }
}

static void every_table_scales_panels(void **state) {
    (void)state;
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 7;
    for (size_t n = 0; n < 20; n++) {
        float *panel = random_floats((n + 1) * QINS_PANEL_ROWS), *scales = random_floats(QINS_PANEL_ROWS),
              *out = random_floats((n + 1) * QINS_PANEL_ROWS);
        for (size_t t = 0; t < n_tables; t++) {
            memcpy(out, panel, (n + 1) * QINS_PANEL_ROWS * sizeof *out);
            tables[t]->scale_panel(scales, n, out);
            for (size_t i = 0; i < (n + 1) * QINS_PANEL_ROWS; i++)
                assert_true(out[i] == (i < n * QINS_PANEL_ROWS ? panel[i] * scales[i % QINS_PANEL_ROWS] : panel[i]));
        }
        free(panel);
        free(scales);
        free(out);
    }
}

/* Codes and signs of every value a file may hold, coordinates from the smallest to 1 and above, zero, and less. */
static void every_table_reads_the_original_storages(void **state) {
    (void)state;
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 8;
    for (size_t n = 1; n < 300; n++) {
        float *entries = random_floats(256), *out = random_floats(n + 1), *z = random_floats(n);
        uint8_t *codes = malloc(2 * n);
        assert_non_null(codes);
        int8_t *signs = (int8_t *)codes + n;
        for (size_t i = 0; i < 2 * n; i++)
            codes[i] = (uint8_t)(random_u32() >> 3);
        for (size_t i = 0; i < n; i++)
            z[i] = i % 7 == 0 ? ldexpf(z[i], -(int)(random_u32() % 30)) : i % 50 == 3 ? 0.0f : 1.5f * z[i];
        for (size_t t = 0; t < n_tables; t++) {
            out[n] = 12.0f;
            tables[t]->signed_entries(codes, signs, entries, n, out);
            for (size_t i = 0; i < n; i++)
                if (out[i] != entries[codes[i]] * (float)signs[i])
                    fail_msg("%s: entry %zu of %zu", tables[t]->name, i, n);
            tables[t]->rational(z, 3.5f, n, out);
            for (size_t i = 0; i < n; i++) {
                double w = qins_rational_w(3.5, (double)z[i]);
                if (!((double)out[i] == w || fabs((double)out[i] - w) <= 4e-7 * fabs(w)))
                    fail_msg("%s: coordinate %g: %g, expected %g", tables[t]->name, (double)z[i], (double)out[i], w);
            }
            assert_true(out[n] == 12.0f);
        }
        free(entries);
        free(out);
        free(z);
        free(codes);
    }
}

static void every_table_has_the_same_dot_and_add_scaled(void **state) {
    (void)state;
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    random_state = 3;
    for (size_t n = 0; n < 150; n++) {
        float *a = random_floats(n + 1), *b = random_floats(n + 1), *y = random_floats(n + 1),
              *expected = random_floats(n + 1);
        double dot = 0;
        for (size_t i = 0; i < n; i++)
            dot += (double)a[i] * (double)b[i];
        for (size_t t = 0; t < n_tables; t++) {
            assert_true(fabs((double)tables[t]->dot(a + 1, b + 1, n) - dot + (double)a[0] * (double)b[0] -
                             (double)a[n] * (double)b[n]) <= tolerance(n));
            memcpy(y, a, (n + 1) * sizeof *a);
            memcpy(expected, a, (n + 1) * sizeof *a);
            tables[t]->add_scaled(0.75f, b, y, n);
            qins_kernels_scalar.add_scaled(0.75f, b, expected, n);
            for (size_t i = 0; i <= n; i++)
                assert_true(fabsf(y[i] - expected[i]) <= 1e-6f);
        }
        free(a);
        free(b);
        free(y);
        free(expected);
    }
}

typedef struct encoding {
    qins_codec codec;
    qins_storage storage;
    int bits;
    qins_scale_kind scale;
    size_t group;
    qins_switch rotate;
} encoding;

/* Largest and mean difference of the product from exact arithmetic on the decoded weights, as shares of the outputs'
 * root mean square. */
typedef struct relative_error {
    double largest, mean;
} relative_error;

static relative_error error_of(const encoding *e, size_t n, size_t k, size_t tokens, const float *w, const float *x) {
    float *bias = random_floats(n), *decoded = random_floats(n * k), *y = random_floats(tokens * n);
    qins_encode_options options;
    qins_encode_defaults(&options);
    options.codec = e->codec;
    options.storage = e->storage;
    options.bits = e->bits;
    options.scale = e->scale;
    options.group_size = e->group;
    options.rotate = e->rotate;
    qins_linear *linear;
    qins_error err = {0};
    if (qins_linear_from_float(w, bias, n, k, &options, &linear, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_int_equal(qins_linear_decode(linear, decoded, &err), QINS_OK);
    assert_int_equal(qins_linear_forward(linear, x, y, tokens, &err), QINS_OK);
    double largest = 0, sum = 0, squares = 0;
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < n; i++) {
            double expected = (double)bias[i];
            for (size_t j = 0; j < k; j++)
                expected += (double)decoded[i * k + j] * (double)x[t * k + j];
            double difference = fabs((double)y[t * n + i] - expected);
            assert_true(difference >= 0); /* a number */
            largest = fmax(largest, difference);
            sum += difference;
            squares += expected * expected;
        }
    double count = (double)(tokens * n), rms = sqrt(squares / count);
    qins_linear_free(linear);
    free(bias);
    free(decoded);
    free(y);
    return (relative_error){largest / rms, sum / count / rms};
}

static void forward_equals_arithmetic_on_decoded_weights(void **state) {
    (void)state;
    random_state = 4;
    static const encoding cases[] = {{QINS_CODEC_GAUSS, QINS_STORAGE_PACKED, 3, QINS_SCALE_ROW, 0, QINS_ON},
                                     {QINS_CODEC_GAUSS, QINS_STORAGE_PACKED, 4, QINS_SCALE_GROUP, 32, QINS_OFF},
                                     {QINS_CODEC_GAUSS, QINS_STORAGE_PACKED, 4, QINS_SCALE_ROW, 0, QINS_ON},
                                     {QINS_CODEC_UNIFORM, QINS_STORAGE_PACKED, 5, QINS_SCALE_GROUP, 20, QINS_ON},
                                     {QINS_CODEC_GAUSS, QINS_STORAGE_PACKED, 6, QINS_SCALE_ROW, 0, QINS_ON},
                                     {QINS_CODEC_RATIONAL, QINS_STORAGE_PACKED, 6, QINS_SCALE_ROW, 0, QINS_OFF},
                                     {QINS_CODEC_UNIFORM, QINS_STORAGE_PACKED, 7, QINS_SCALE_TENSOR, 0, QINS_ON},
                                     {QINS_CODEC_GAUSS, QINS_STORAGE_PACKED, 7, QINS_SCALE_ROW, 0, QINS_OFF},
                                     {QINS_CODEC_GAUSS, QINS_STORAGE_PACKED, 8, QINS_SCALE_ROW, 0, QINS_ON},
                                     {QINS_CODEC_RATIONAL, QINS_STORAGE_PACKED, 8, QINS_SCALE_TENSOR, 0, QINS_OFF},
                                     {QINS_CODEC_LOG, QINS_STORAGE_PACKED, 9, QINS_SCALE_ROW, 0, QINS_ON},
                                     {QINS_CODEC_LOG, QINS_STORAGE_SEED, 8, QINS_SCALE_TENSOR, 0, QINS_OFF},
                                     {QINS_CODEC_RATIONAL, QINS_STORAGE_F32, 8, QINS_SCALE_TENSOR, 0, QINS_OFF}};
    static const size_t shapes[][3] = {{1, 1, 1}, {16, 64, 1}, {17, 65, 3}, {50, 300, 9}, {33, 576, 130}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            size_t n = shapes[s][0], k = shapes[s][1], tokens = shapes[s][2];
            float *w = random_floats(n * k), *x = random_floats(tokens * k);
            relative_error e = error_of(&cases[c], n, k, tokens, w, x);
            if (!(e.largest <= 1e-3 && e.mean <= 2e-4))
                fail_msg("%s %d bits, %zu x %zu, %zu tokens: %g, mean %g", qins_codec_name(cases[c].codec),
                         cases[c].bits, n, k, tokens, e.largest, e.mean);
            free(w);
            free(x);
        }
}

/* What 16-bit inputs cost, also where a few of them are far larger than the others and no rotation spreads them. */
static void integer_arithmetic_is_within_its_bounds_of_exact_arithmetic(void **state) {
    (void)state;
    enum { ROWS = 64, COLS = 2048, TOKENS = 8 };
    random_state = 5;
    for (int outliers = 0; outliers < 3; outliers++) {
        float *w = random_floats((size_t)ROWS * COLS), *x = random_floats((size_t)TOKENS * COLS);
        for (size_t i = 0; i < TOKENS * COLS; i++) {
            float normal = 0;
            for (int j = 0; j < 12; j++)
                normal += random_float();
            x[i] = normal * 0.5f * (outliers > 0 && random_u32() % (outliers == 1 ? 100 : 700) == 0 ? 300.0f : 1.0f);
        }
        for (int bits = 3; bits <= 8; bits++)
            for (int rotate = 0; rotate < 2; rotate++) {
                const encoding e = {QINS_CODEC_GAUSS,           QINS_STORAGE_PACKED, bits, QINS_SCALE_ROW, 0,
                                    rotate ? QINS_ON : QINS_OFF};
                relative_error r = error_of(&e, ROWS, COLS, TOKENS, w, x);
                print_message("%d bits, %s, outliers %d: largest %.1e, mean %.1e\n", bits,
                              rotate ? "rotated" : "not rotated", outliers, r.largest, r.mean);
                assert_true(r.largest <= 1e-3);
                assert_true(r.mean <= 2e-4);
            }
        free(w);
        free(x);
    }
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct bench_data {
    const qins_kernels *table;
    uint8_t *packed;
    float *values, *panel, *x, *acc;
    int which;
} bench_data;

enum { BENCH_COLS = 256, BENCH_TOKENS = 32, BENCH_RUNS = 30 };

static void bench_decode(const bench_data *d) {
    d->table->decode[d->which](d->packed, d->values, BENCH_COLS, d->panel);
}
static void bench_multiply(const bench_data *d) {
    d->table->multiply_panel(d->panel, BENCH_COLS, d->x, BENCH_COLS, (size_t)d->which, d->acc);
}
static void bench_panel(const bench_data *d) {
    d->table->panel_of_rows[d->which](d->packed, BENCH_COLS * (d->which == QINS_NUMBER_F32 ? 4 : 2), QINS_PANEL_ROWS,
                                      BENCH_COLS, d->panel);
}
static void bench_dot(const bench_data *d) {
    for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
        d->acc[row] = d->table->dot_row[d->which](d->packed + row * BENCH_COLS * 4, d->x, BENCH_COLS);
}
static void bench_seed(const bench_data *d) {
    for (size_t row = 0; row < QINS_PANEL_ROWS; row += 4)
        d->table->signed_entries(d->packed + row * BENCH_COLS, (const int8_t *)d->packed + (row + 16) * BENCH_COLS,
                                 d->values, 4 * BENCH_COLS, d->panel + row * BENCH_COLS);
}
static void bench_rational(const bench_data *d) {
    for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
        d->table->rational((const float *)(const void *)d->packed + row * BENCH_COLS, 2.0f, BENCH_COLS,
                           d->panel + row * BENCH_COLS);
}
static void bench_scale(const bench_data *d) {
    d->table->scale_panel(d->values, BENCH_COLS, d->panel);
}

/* Weights a nanosecond, the fastest of some runs of about 50 microseconds, on one core from the first-level cache. */
static double bench_one(void (*fn)(const bench_data *), bench_data *d, int which) {
    double best = 0;
    d->which = which;
    for (int run = 0; run < BENCH_RUNS; run++) {
        double start = seconds(), elapsed;
        int n = 0;
        do {
            fn(d);
            n++;
        } while ((elapsed = seconds() - start) < 5e-5);
        best = fmax(best, 1e-9 * n * BENCH_COLS * QINS_PANEL_ROWS / elapsed);
    }
    return best;
}

/* Prints 10^9 weights a second of everything a table has. */
static void bench(void) {
    const qins_kernels *tables[MAX_TABLES];
    size_t n_tables = all_tables(tables);
    static uint8_t packed[BENCH_COLS * QINS_PANEL_ROWS * 4 + 64];
    static float values[QINS_MAX_LEVELS], panel[BENCH_COLS * QINS_PANEL_ROWS], x[BENCH_TOKENS * BENCH_COLS],
        acc[BENCH_TOKENS * QINS_PANEL_ROWS];
    static const char *const numbers[] = {"", "F32", "F16", "BF16"};
    printf("10^9 weights a second\n");
    for (size_t i = 0; i < QINS_MAX_LEVELS; i++)
        values[i] = 1;
    for (size_t t = 0; t < n_tables; t++) {
        bench_data d = {tables[t], packed, values, panel, x, acc, 0};
        printf("%s\n  decode", tables[t]->name);
        for (int bits = QINS_MIN_BITS; bits <= QINS_MAX_BITS; bits++)
            printf("  %d bits %.2f", bits, bench_one(bench_decode, &d, bits));
        printf("; group scales %.2f\n  rows, one vector", bench_one(bench_scale, &d, 0));
        for (int number = QINS_NUMBER_F32; number < QINS_NUMBERS; number++)
            printf("  %s %.2f", numbers[number], bench_one(bench_dot, &d, number));
        printf(", to panels");
        for (int number = QINS_NUMBER_F32; number < QINS_NUMBERS; number++)
            printf("  %s %.2f", numbers[number], bench_one(bench_panel, &d, number));
        printf("\n  codes and signs %.2f, coordinates %.2f", bench_one(bench_seed, &d, 0),
               bench_one(bench_rational, &d, 0));
        printf("\n  products of a panel, one vector %.2f, %d vectors %.2f\n", bench_one(bench_multiply, &d, 1),
               BENCH_TOKENS, BENCH_TOKENS * bench_one(bench_multiply, &d, BENCH_TOKENS));
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench();
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_decodes_the_codes_that_were_packed),
        cmocka_unit_test(every_table_multiplies_like_scalar),
        cmocka_unit_test(every_table_has_the_same_dot_of_plain_rows),
        cmocka_unit_test(every_table_turns_rows_into_panels),
        cmocka_unit_test(every_table_scales_panels),
        cmocka_unit_test(every_table_reads_the_original_storages),
        cmocka_unit_test(every_table_has_the_same_dot_and_add_scaled),
        cmocka_unit_test(forward_equals_arithmetic_on_decoded_weights),
        cmocka_unit_test(integer_arithmetic_is_within_its_bounds_of_exact_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
