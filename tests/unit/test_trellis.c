/* The trellis codec: least error around the ring, levels, storage. SPDX-License-Identifier: MIT */
#include "base/dense.h"
#include "codec/feedback.h"
#include "codec/simd.h"
#include "encode_memory.h"
#include "kernel/matrix.h"

enum { ROWS = 16, COLS = 37 };

/* Value of step t of the ring, from the definition in src/codec/trellis.c; rows in the order 0, 8, 1, 9, .. */
static size_t row_of(size_t step) {
    return step / 2 + 8 * (step % 2);
}
static double value_of(const qins_codebook *book, const unsigned *code_of_step, size_t t) {
    unsigned before = code_of_step[(t + 15) % 16] & 1u, before_that = code_of_step[(t + 14) % 16] & 1u;
    return (double)book->table[2 * (code_of_step[t] ^ before_that) + before];
}

/* Cost of the cheapest codes of a column: over all 2^16 choices of lowest bits, the nearest of the levels that they
 * leave to each row. */
static double least_cost(const qins_codebook *book, const double *u, const double *weight) {
    double cost[16][2][2][2]; /* step, own lowest bit, the one before, the one before that */
    for (size_t t = 0; t < 16; t++)
        for (unsigned w = 0; w < 2; w++)
            for (unsigned b = 0; b < 2; b++)
                for (unsigned c = 0; c < 2; c++) {
                    double best = INFINITY;
                    for (unsigned code = w; code < book->n_levels / 2; code += 2) {
                        double e = u[t] - (double)book->table[2 * (code ^ c) + b];
                        best = fmin(best, weight[t] * e * e);
                    }
                    cost[t][w][b][c] = best;
                }
    double least = INFINITY;
    for (unsigned bits = 0; bits < 1u << 16; bits++) {
        double sum = 0;
        for (size_t t = 0; t < 16; t++)
            sum += cost[t][bits >> t & 1][bits >> (t + 15) % 16 & 1][bits >> (t + 14) % 16 & 1];
        least = fmin(least, sum);
    }
    return least;
}

/* Every table: 2 to 6 bits of trellis, 3 to 7 of equal steps. */
enum { N_TABLES = 10 };
static int table_bits(int i) {
    return i < 5 ? 2 + i : i - 2;
}
static qins_codec table_codec(int i) {
    return i < 5 ? QINS_CODEC_TRELLIS : QINS_CODEC_UNIFORM_TRELLIS;
}

static void codes_have_the_least_error_of_all(void **state) {
    (void)state;
    rng r = {11};
    for (int i_table = 0; i_table < N_TABLES; i_table++) {
        int bits = table_bits(i_table);
        qins_codebook book;
        qins_fixed_codebook(&book, table_codec(i_table), bits);
        for (size_t n_rows = 16; n_rows >= 13; n_rows -= 3) {
            enum { N = 20 };
            float u[ROWS * N], weight[ROWS * N];
            uint16_t codes[ROWS * N];
            for (size_t i = 0; i < ROWS * N; i++) {
                u[i] = (float)(book.sigma * rng_normal(&r) * (i % N == 3 ? 4 : 1)); /* one column far outside */
                weight[i] = i / N < n_rows ? (float)(0.1 + (double)rng_below(&r, 1000) / 1000) : 0;
            }
            qins_get_codec_simd()->trellis(&book, u, weight, N, N, codes);
            for (size_t k = 0; k < N; k++) {
                unsigned of_step[16];
                double x[16], w[16], cost = 0;
                for (size_t t = 0; t < 16; t++) {
                    of_step[t] = codes[row_of(t) * N + k];
                    x[t] = (double)u[row_of(t) * N + k];
                    w[t] = (double)weight[row_of(t) * N + k];
                    assert_true(of_step[t] < 1u << bits);
                }
                for (size_t t = 0; t < 16; t++)
                    cost += w[t] * pow(x[t] - value_of(&book, of_step, t), 2);
                double least = least_cost(&book, x, w);
                assert_true(cost <= least * (1 + 1e-5) + 1e-9 && cost >= least * (1 - 1e-5) - 1e-9);
            }
        }
    }
}

static void implementations_give_the_same_codes(void **state) {
    (void)state;
    const qins_codec_simd *tables[8];
    size_t n_tables = qins_all_codec_simd(tables, 8);
    rng r = {5};
    for (int i_table = 0; i_table < N_TABLES; i_table++) {
        qins_codebook book;
        qins_fixed_codebook(&book, table_codec(i_table), table_bits(i_table));
        float u[ROWS * COLS], weight[ROWS * COLS];
        uint16_t expected[ROWS * COLS], found[ROWS * COLS];
        for (size_t i = 0; i < ROWS * COLS; i++) {
            u[i] = (float)(book.sigma * rng_normal(&r));
            weight[i] = i % 11 == 0 || i / COLS > 14 ? 0.0f : 1.0f / (float)(1 + i % 7);
        }
        u[0] = 1e30f;
        u[1] = -1e30f;
        u[2] = NAN; /* becomes a code, whichever */
        qins_codec_portable.trellis(&book, u, weight, COLS, COLS, expected);
        for (size_t t = 1; t < n_tables; t++) {
            tables[t]->trellis(&book, u, weight, COLS, COLS, found);
            assert_memory_equal(found, expected, sizeof found);
        }
    }
}

/* The error that allocation counts on is the one that codes have; Lloyd-Max levels of as many bits are far behind. */
static void error_is_the_one_that_was_promised(void **state) {
    (void)state;
    matrix m = matrix_normal(1024, 192, 0.02, 9);
    for (int bits = QINS_TRELLIS_MIN_BITS; bits <= QINS_TRELLIS_MAX_BITS; bits++) {
        qins_codebook book;
        qins_trellis_codebook(&book, bits);
        for (size_t i = 0; i < book.n_levels; i++)
            assert_true(book.table[i] == rintf(book.table[i]) && fabsf(book.table[i]) <= 127 &&
                        book.table[i] == -book.table[book.n_levels - 1 - i]);
        qins_encode_options o = plain_options(QINS_CODEC_TRELLIS, bits);
        o.rotate = QINS_ON;
        o.scale = QINS_SCALE_ROW;
        encoded e = encode(&m, &o);
        double lloyd, levels[QINS_MAX_LEVELS], error = relative_error(&e);
        lloyd = qins_lloyd_max_gauss((size_t)1 << bits, levels);
        print_message("%d bits: error %.4e, %.3f of Lloyd-Max, gap %.3f bits\n", bits, error, error / lloyd,
                      gap_bits(&e));
        assert_close(error / qins_trellis_error(bits), 1, 0.02);
        assert_true(error < 0.77 * lloyd);
        encoded_free(&e);
    }
    matrix_free(&m);
}

/* Stored parts, read by hand, give the values that the matrix decodes to; panels that are not full, columns that fill
 * no tile. */
static void stored_parts_decode_by_the_definition(void **state) {
    (void)state;
    for (int i_table = 0; i_table < N_TABLES; i_table++) {
        int bits = table_bits(i_table);
        matrix m = matrix_normal(21, 70, 0.02, (uint64_t)bits);
        memset(m.data + 3 * 70, 0, 70 * sizeof *m.data); /* a row of zeros */
        qins_encode_options o = plain_options(table_codec(i_table), bits);
        o.scale = QINS_SCALE_ROW;
        encoded e = encode(&m, &o);
        assert_int_equal(e.info[QINS_PART_TABLE].shape[0], 2u << bits);
        qins_matrix decoded;
        const void *parts[QINS_PART_COUNT];
        for (int p = 0; p < QINS_PART_COUNT; p++)
            parts[p] = e.part[p];
        qins_matrix_from_parts(&decoded, 21, 70, &e.options, parts, NULL);
        assert_int_equal(decoded.integers.kind, QINS_INTEGER_TRELLIS);
        double error = 0;
        for (size_t row = 0; row < 21; row++) {
            float values[70];
            qins_matrix_decode_rows(&decoded, row, 1, values);
            size_t step = row % 16 % 8 * 2 + row % 16 / 8;
            for (size_t k = 0; k < 70; k++) {
                unsigned code = stored_code(&e, row, k), lowest[2];
                for (size_t back = 1; back <= 2; back++) {
                    size_t other = row / 16 * 16 + row_of((step + 16 - back) % 16);
                    lowest[back - 1] = stored_code(&e, other, k) & 1u;
                }
                float value =
                    stored_scale(&e, row, k) * part_float(&e, QINS_PART_TABLE, 2 * (code ^ lowest[1]) + lowest[0]);
                assert_true(values[k] == value);
                error += pow((double)m.data[row * 70 + k] - (double)value, 2);
            }
        }
        assert_close(error / e.stats.sum_squared_error, 1, 1e-6);
        encoded_free(&e);
        matrix_free(&m);
    }
}

/* Feedback on correlated inputs: the same error as it reports, below that of Lloyd-Max levels with feedback. */
static void feedback_rounds_panels(void **state) {
    (void)state;
    enum { N_ROWS = 40, N = 96, TOKENS = 500 };
    matrix w = matrix_normal(N_ROWS, N, 0.02, 3), x = matrix_normal(TOKENS, N, 1, 4);
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t k = 1; k < N; k++)
            x.data[t * N + k] += 0.9f * x.data[t * N + k - 1];
    float *h = calloc(N * N, sizeof *h);
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++)
                h[i * N + j] += x.data[t * N + i] * x.data[t * N + j];
    qins_error err = {0};
    qins_feedback f;
    int threads = qins_dense_begin();
    double damping = 0;
    assert_int_equal(qins_feedback_factor(h, N, 0.01, &f, &damping, &err), QINS_OK);
    double mean = 0, found[2] = {0};
    for (size_t i = 0; i < N; i++)
        mean += (double)h[i * N + i] / N;
    for (int trellis = 0; trellis < 2; trellis++) {
        qins_codebook book;
        if (trellis)
            qins_trellis_codebook(&book, 4);
        else
            qins_gauss_codebook(&book, 4);
        float scales[N_ROWS];
        uint16_t *codes = calloc((N_ROWS + 15) * N, sizeof *codes);
        double error[N_ROWS];
        for (size_t r = 0; r < N_ROWS; r++) {
            scales[r] = trellis ? qins_trellis_scale(&book, NULL, w.data + r * N, N)
                                : qins_fit_scale(&book, w.data + r * N, N, false);
        }
        const qins_feedback_options o = {.n_scales = 1, .scale_lo = 1, .scale_hi = 1};
        assert_int_equal(qins_feedback_round(&f, &book, &o, w.data, N_ROWS, scales, codes, error, &err), QINS_OK);
        for (size_t r = 0; r < N_ROWS; r++) {
            double e[N], direct = 0;
            for (size_t k = 0; k < N; k++) {
                unsigned places[QINS_PANEL_ROWS];
                size_t panel = r / 16 * 16;
                qins_trellis_places(codes + panel * N + k, N, places);
                unsigned place = trellis ? places[r % 16] : codes[r * N + k];
                e[k] = (double)w.data[r * N + k] - (double)scales[r] * (double)book.table[place];
            }
            for (size_t i = 0; i < N; i++)
                for (size_t j = 0; j < N; j++)
                    direct += e[i] * e[j] * ((double)h[i * N + j] + (i == j ? damping * mean : 0));
            assert_close(error[r] / direct, 1, 1e-3);
            found[trellis] += direct;
        }
        free(codes);
    }
    qins_dense_end(threads);
    print_message("error with feedback, trellis / Lloyd-Max: %.3f\n", found[1] / found[0]);
    assert_true(found[1] < 0.8 * found[0]);
    qins_feedback_free(&f);
    free(h);
    matrix_free(&w);
    matrix_free(&x);
}

/* The levels of equal steps in ascending order: their labels are all places of the table, neighbours in value are four
 * subsets in turn, and up to 6 bits the codes of a pair lie on either side of zero at magnitudes a step apart. */
static void equal_steps_are_labelled_in_pairs(void **state) {
    (void)state;
    for (int bits = 3; bits <= QINS_UNIFORM_TRELLIS_MAX_BITS; bits++) {
        qins_codebook book;
        qins_uniform_trellis_codebook(&book, bits);
        bool seen[QINS_MAX_TRELLIS_LEVELS] = {false};
        float before = 0;
        for (unsigned i = 0; i < book.n_levels; i++) {
            unsigned place = 2 * qins_trellis_label(i, bits, true) | (i & 1u);
            assert_false(seen[place]);
            seen[place] = true;
            assert_int_equal((place & 1u) | (place >> 1 & 1u) << 1, i % 4);
            assert_true(i == 0 || book.table[place] == before + book.step);
            before = book.table[place];
        }
        for (unsigned place = 0; bits <= QINS_TRELLIS_MAX_BITS && place < book.n_levels; place++) {
            float a = book.table[place], b = book.table[place ^ 2u];
            assert_true((a < 0) != (b < 0) && fabsf(fabsf(a) - fabsf(b)) == book.step);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_have_the_least_error_of_all),
        cmocka_unit_test(implementations_give_the_same_codes),
        cmocka_unit_test(error_is_the_one_that_was_promised),
        cmocka_unit_test(stored_parts_decode_by_the_definition),
        cmocka_unit_test(feedback_rounds_panels),
        cmocka_unit_test(equal_steps_are_labelled_in_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
