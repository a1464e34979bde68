/* Every table of attention kernels computes what the scalar one does. SPDX-License-Identifier: MIT */
#include "codec/codec.h"
#include "kernel/kernel.h"
#include "model/kv_cache.h"
#include "testing.h"

#include "base/half.h"

#include <time.h>

enum { MAX_TABLES = 8, MAX_ROWS = 64, MAX_DIMS = 256, MAX_QUERIES = 9, ROW_BYTES = MAX_DIMS * 4 };

static const qins_cpu *tables[MAX_TABLES];
static size_t n_tables;
static const size_t dims_tried[] = {16, 48, 64, 80, 128, 256}, rows_tried[] = {1, 2, 15, 60, 64};

/* Rows of random bits: codes may be anything, floats and halves are made of random normals. */
typedef struct case_data {
    uint8_t data[MAX_ROWS * ROW_BYTES + QINS_KV_OVERREAD];
    uint16_t scales[MAX_ROWS];
    qins_kv_codebook book;
    qins_kv_rows rows;
    float queries[MAX_QUERIES * MAX_DIMS], weights[MAX_QUERIES * MAX_ROWS];
} case_data;

static case_data *make_case(qins_kv_type type, size_t dims, rng *r) {
    case_data *c = qins_alloc_aligned(1, sizeof *c);
    assert_non_null(c);
    int bits = qins_kv_bits(type);
    size_t row_bytes = dims * (size_t)bits / 8;
    for (size_t i = 0; i < sizeof c->data; i++)
        c->data[i] = (uint8_t)rng_bits(r);
    for (size_t i = 0; i < MAX_ROWS * dims; i++) {
        float x = (float)rng_normal(r);
        uint16_t half = qins_float_to_half(x);
        if (type == QINS_KV_F32) memcpy(c->data + 4 * i, &x, 4);
        if (type == QINS_KV_F16) memcpy(c->data + 2 * i, &half, 2);
    }
    for (size_t i = 0; i < MAX_ROWS; i++)
        c->scales[i] = qins_float_to_half((float)exp(rng_normal(r)));
    if (bits <= 8) {
        qins_kv_format f;
        qins_error err = {0};
        assert_int_equal(qins_kv_format_init(&f, 64, bits, 16, &err), QINS_OK);
        c->book = *f.key_book;
        qins_kv_format_free(&f);
    }
    for (size_t i = 0; i < MAX_QUERIES * MAX_DIMS; i++)
        c->queries[i] = (float)rng_normal(r);
    for (size_t i = 0; i < MAX_QUERIES * MAX_ROWS; i++)
        c->weights[i] = (float)rng_uniform(r);
    c->rows = (qins_kv_rows){.data = c->data,
                             .row_bytes = row_bytes,
                             .scales = bits <= 8 ? c->scales : NULL,
                             .table = bits <= 8 ? c->book.table : NULL,
                             .levels = bits <= 8 ? c->book.levels : NULL,
                             .unit = bits <= 8 ? c->book.unit : 0};
    return c;
}

/* Sums of `n` products of numbers of size about one, times the largest scale. */
static double tolerance(size_t n) {
    return 2e-6 * sqrt((double)n) * 20;
}

/* What rounding may change, where attention.h allows it. */
static double score_rounding(const case_data *c, qins_kv_type type, size_t dims, size_t row, size_t query) {
    if (qins_kv_bits(type) > 8) return 0;
    double sum = 0, largest = 0;
    for (size_t d = 0; d < dims; d++) {
        unsigned code = qins_kv_code(c->data + row * c->rows.row_bytes, qins_kv_bits(type), d);
        sum += fabs((double)c->book.table[code]);
        largest = fmax(largest, fabs((double)c->queries[query * dims + d]));
    }
    return 0.5 * largest / 8191 * sum * (double)qins_half_to_float(c->scales[row]);
}

static double value_rounding(const case_data *c, qins_kv_type type, size_t n_rows, size_t d, size_t query) {
    if (qins_kv_bits(type) > 8) return 0;
    double sum = 0, largest = 0;
    for (size_t i = 0; i < n_rows; i++) {
        unsigned code = qins_kv_code(c->data + i * c->rows.row_bytes, qins_kv_bits(type), d);
        sum += fabs((double)c->book.table[code]);
        largest = fmax(largest, (double)(c->weights[query * MAX_ROWS + i] * qins_half_to_float(c->scales[i])));
    }
    return 0.5 * largest / 16383 * sum;
}

static void every_table_scores_and_accumulates_like_scalar(void **state) {
    (void)state;
    static float expected[MAX_QUERIES * MAX_DIMS], found[MAX_QUERIES * MAX_DIMS];
    rng r = {1};
    for (int type = 0; type < QINS_KV_TYPES; type++)
        for (size_t d = 0; d < sizeof dims_tried / sizeof *dims_tried; d++) {
            size_t dims = dims_tried[d];
            case_data *c = make_case((qins_kv_type)type, dims, &r);
            for (size_t i = 0; i < sizeof rows_tried / sizeof *rows_tried; i++)
                for (size_t t = 1; t < n_tables; t++)
                    for (size_t q = 1; q <= MAX_QUERIES; q++) {
                        size_t n = rows_tried[i];
                        const qins_attention_kernels *k = tables[t]->attention;
                        qins_attention_scalar.score[type](&c->rows, n, dims, c->queries, q, expected, MAX_ROWS);
                        k->score[type](&c->rows, n, dims, c->queries, q, found, MAX_ROWS);
                        for (size_t j = 0; j < q * n; j++)
                            assert_close(found[j / n * MAX_ROWS + j % n], expected[j / n * MAX_ROWS + j % n],
                                         tolerance(dims) + score_rounding(c, (qins_kv_type)type, dims, j % n, j / n));
                        for (size_t j = 0; j < q * dims; j++)
                            expected[j] = found[j] = (float)j;
                        qins_attention_scalar.accumulate[type](&c->rows, n, dims, c->weights, MAX_ROWS, q, expected);
                        k->accumulate[type](&c->rows, n, dims, c->weights, MAX_ROWS, q, found);
                        for (size_t j = 0; j < q * dims; j++)
                            assert_close(found[j], expected[j],
                                         tolerance(n) + 1e-6 * (double)j +
                                             value_rounding(c, (qins_kv_type)type, n, j % dims, j / dims));
                    }
            free(c);
        }
}

/* Queries, and weights with scales of one, that need no rounding: whole numbers up to the largest. */
static void whole_numbers_are_multiplied_exactly(void **state) {
    (void)state;
    static float expected[MAX_QUERIES * MAX_DIMS], found[MAX_QUERIES * MAX_DIMS];
    rng r = {7};
    for (int type = QINS_KV_8; type < QINS_KV_TYPES; type++)
        for (size_t i = 0; i < sizeof dims_tried / sizeof *dims_tried; i++) {
            size_t dims = dims_tried[i];
            case_data *c = make_case((qins_kv_type)type, dims, &r);
            for (size_t j = 0; j < MAX_ROWS; j++)
                c->scales[j] = 0x3c00;
            for (size_t j = 0; j < MAX_QUERIES * dims; j++)
                c->queries[j] = j % dims == dims / 2 ? -8191 : (float)(int)(rng_bits(&r) % 16383) - 8191;
            for (size_t j = 0; j < MAX_QUERIES * MAX_ROWS; j++)
                c->weights[j] = j % MAX_ROWS == 0 ? 16383 : (float)(rng_bits(&r) % 16384);
            for (size_t t = 1; t < n_tables; t++)
                for (size_t q = 1; q <= MAX_QUERIES; q++) {
                    const qins_attention_kernels *k = tables[t]->attention;
                    qins_attention_scalar.score[type](&c->rows, MAX_ROWS, dims, c->queries, q, expected, MAX_ROWS);
                    k->score[type](&c->rows, MAX_ROWS, dims, c->queries, q, found, MAX_ROWS);
                    for (size_t j = 0; j < q * MAX_ROWS; j++) /* of sums of some 100 products of size 10^4 */
                        assert_close(found[j], expected[j], 1e-6 * 1e4 * (double)dims);
                    memset(expected, 0, sizeof expected);
                    memset(found, 0, sizeof found);
                    qins_attention_scalar.accumulate[type](&c->rows, MAX_ROWS, dims, c->weights, MAX_ROWS, q, expected);
                    k->accumulate[type](&c->rows, MAX_ROWS, dims, c->weights, MAX_ROWS, q, found);
                    for (size_t j = 0; j < q * dims; j++)
                        assert_close(found[j], expected[j], 1e-6 * 1e4 * MAX_ROWS);
                }
            free(c);
        }
}

static void every_table_decodes_like_scalar(void **state) {
    (void)state;
    static float expected[MAX_ROWS * MAX_DIMS], found[MAX_ROWS * MAX_DIMS];
    rng r = {2};
    for (int type = 0; type < QINS_KV_TYPES; type++)
        for (size_t d = 0; d < sizeof dims_tried / sizeof *dims_tried; d++) {
            size_t dims = dims_tried[d];
            case_data *c = make_case((qins_kv_type)type, dims, &r);
            qins_attention_scalar.decode[type](&c->rows, MAX_ROWS, dims, expected);
            for (size_t t = 1; t < n_tables; t++) {
                tables[t]->attention->decode[type](&c->rows, MAX_ROWS, dims, found);
                for (size_t i = 0; i < MAX_ROWS * dims; i++)
                    assert_close(found[i], expected[i], 1e-6 * fabs((double)expected[i]));
            }
            free(c);
        }
}

static void every_table_takes_the_nearest_code(void **state) {
    (void)state;
    rng r = {3};
    for (int type = QINS_KV_8; type < QINS_KV_TYPES; type++) {
        case_data *c = make_case((qins_kv_type)type, MAX_DIMS, &r);
        size_t n_codes = (size_t)1 << qins_kv_bits((qins_kv_type)type);
        uint8_t codes[MAX_DIMS];
        for (size_t t = 0; t < n_tables; t++) {
            float cross, square, inverse = 0.7f;
            double cross_expected = 0, square_expected = 0;
            tables[t]->attention->quantize[type](&c->book, c->queries, MAX_DIMS, inverse, codes, &cross, &square);
            for (size_t d = 0; d < MAX_DIMS; d++) {
                double u = (double)c->queries[d] * (double)inverse, best = INFINITY,
                       at = (double)c->book.table[codes[d]];
                for (size_t i = 0; i < n_codes; i++)
                    best = fmin(best, fabs(u - (double)c->book.table[i]));
                assert_close(fabs(u - at), best, 1e-6);
                cross_expected += (double)c->queries[d] * at;
                square_expected += at * at;
            }
            assert_close(cross, cross_expected, 1e-4);
            assert_close(square, square_expected, 1e-4 + 1e-6 * square_expected);
        }
        free(c);
    }
}

static void every_table_has_the_same_small_functions(void **state) {
    (void)state;
    enum { N = 77 };
    rng r = {4};
    for (size_t t = 0; t < n_tables; t++)
        for (size_t n = 1; n <= N; n++) {
            const qins_attention_kernels *k = tables[t]->attention;
            float x[N], y[N];
            uint16_t half[N];
            double largest = -INFINITY, sum = 0;
            for (size_t i = 0; i < n; i++) {
                x[i] = y[i] = (float)(30 * rng_normal(&r));
                largest = fmax(largest, (double)x[i]);
            }
            assert_close(k->max(x, n), largest, 0);
            double found = (double)k->exp_sum(y, n, (float)largest);
            for (size_t i = 0; i < n; i++) {
                double e = exp((double)(x[i] - (float)largest)); /* the difference is FP32 */
                assert_close(y[i], e, 3e-7 * e + 1e-37);
                sum += e;
            }
            assert_close(found, sum, 1e-6 * sum);
            x[0] = 1e6f;
            k->to_half(x, n, half);
            assert_int_equal(half[0], 0x7bff);
            for (size_t i = 1; i < n; i++)
                assert_int_equal(half[i], qins_float_to_half(x[i]));
            k->scale(x, n, 2.0f);
            assert_close(x[0], 2e6, 0);
        }
}

static void what_is_not_a_number_stays_visible(void **state) {
    (void)state;
    for (size_t t = 0; t < n_tables; t++) {
        float x[20] = {0};
        uint16_t half[20];
        x[3] = x[19] = NAN;
        tables[t]->attention->to_half(x, 20, half);
        assert_true(isnan(qins_half_to_float(half[3])) && isnan(qins_half_to_float(half[19])));
        assert_true(isnan(tables[t]->attention->exp_sum(x, 20, 0)));
        rng r = {8};
        case_data *c = make_case(QINS_KV_4, 64, &r);
        float score, out[64] = {0};
        c->queries[5] = NAN;
        tables[t]->attention->score[QINS_KV_4](&c->rows, 1, 64, c->queries, 1, &score, 1);
        assert_true(isnan(score));
        c->scales[2] = 0x7e00; /* a NaN */
        tables[t]->attention->accumulate[QINS_KV_4](&c->rows, 3, 64, c->weights, 3, 1, out);
        assert_true(isnan(out[63]));
        free(c);
    }
}

static void every_table_multiplies_like_scalar(void **state) {
    (void)state;
    enum { M = 19, N = 64, K = 80 };
    static float a[M * K], b[K * N], expected[M * N], found[M * N];
    rng r = {5};
    for (size_t i = 0; i < M * K; i++)
        a[i] = (float)rng_normal(&r);
    for (size_t i = 0; i < K * N; i++)
        b[i] = (float)rng_normal(&r);
    for (size_t t = 1; t < n_tables; t++)
        for (size_t m = 1; m <= M; m++)
            for (size_t n = 0; n <= N; n += 16) {
                for (size_t i = 0; i < M * N; i++)
                    expected[i] = found[i] = (float)(i % 7);
                qins_attention_scalar.multiply_add(a, K, b, N, m, n, K, expected, N);
                tables[t]->attention->multiply_add(a, K, b, N, m, n, K, found, N);
                for (size_t i = 0; i < M * N; i++)
                    assert_close(found[i], expected[i], tolerance(K));
            }
}

/* ---- --bench ---- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Nanoseconds a row of 128 values, scored for and added to some queries, from the first-level cache. */
static void bench(void) {
    enum { REPEAT = 20000, DIMS = 128 };
    rng r = {6};
    for (size_t t = 0; t < n_tables; t++)
        for (int type = 0; type < QINS_KV_TYPES; type++) {
            static float scores[MAX_QUERIES * MAX_ROWS], out[MAX_QUERIES * MAX_DIMS];
            case_data *c = make_case((qins_kv_type)type, DIMS, &r);
            const qins_attention_kernels *k = tables[t]->attention;
            int repeat = t == 0 ? REPEAT / 1000 : REPEAT / 10;
            printf("%-8s %2d bits", tables[t]->name, qins_kv_bits((qins_kv_type)type));
            for (size_t q = 1; q <= 8; q *= 2) {
                double start = seconds();
                for (int i = 0; i < repeat; i++)
                    k->score[type](&c->rows, MAX_ROWS, DIMS, c->queries, q, scores, MAX_ROWS);
                double middle = seconds();
                for (int i = 0; i < repeat; i++)
                    k->accumulate[type](&c->rows, MAX_ROWS, DIMS, c->weights, MAX_ROWS, q, out);
                double end = seconds(), rows = (double)repeat * MAX_ROWS;
                printf("  %zu: %5.2f + %5.2f", q, (middle - start) * 1e9 / rows, (end - middle) * 1e9 / rows);
            }
            printf(" ns\n");
            free(c);
        }
}

int main(int argc, char **argv) {
    const qins_cpu *cpus[2 * MAX_TABLES];
    size_t n_cpus = qins_all_cpus(cpus, 2 * MAX_TABLES);
    for (size_t i = 0; i < n_cpus && n_tables < MAX_TABLES; i++) /* levels may share tables */
        if (n_tables == 0 || tables[n_tables - 1]->attention != cpus[i]->attention) tables[n_tables++] = cpus[i];
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench();
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_scores_and_accumulates_like_scalar),
        cmocka_unit_test(whole_numbers_are_multiplied_exactly),
        cmocka_unit_test(every_table_decodes_like_scalar),
        cmocka_unit_test(every_table_takes_the_nearest_code),
        cmocka_unit_test(every_table_has_the_same_small_functions),
        cmocka_unit_test(what_is_not_a_number_stays_visible),
        cmocka_unit_test(every_table_multiplies_like_scalar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
