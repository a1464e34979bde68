/* The KV cache against a plain array of floats, under random sequences of operations. SPDX-License-Identifier: MIT */
#include "model/kv_cache.h"
#include "model/kv_file.h"
#include "model/kv_transform.h"
#include "testing.h"

#include "base/dense.h"

#include <unistd.h>

enum { N_LAYERS = 2, N_HEADS = 2, N_CTX = 300, N_SEQS = 3, HEAD_DIM = 40, DIMS = 48, MODEL = 5, VOCAB = 1000 };

/* What the cache should hold: the plain model of it. */
typedef struct plain_sequence {
    size_t length;
    int32_t tokens[N_CTX];
    float keys[N_LAYERS][N_HEADS][N_CTX][HEAD_DIM], values[N_LAYERS][N_HEADS][N_CTX][HEAD_DIM];
} plain_sequence;

typedef struct fixture {
    qins_kv_cache cache;
    plain_sequence *plain; /* [N_SEQS] */
    rng random;
} fixture;

static void check(qins_status status, const qins_error *err) {
    if (status != QINS_OK) fail_msg("%s", err->message);
}

static void begin(fixture *f, int key_bits, int value_bits, uint64_t seed) {
    qins_error err = {0};
    check(qins_kv_cache_init(&f->cache, N_LAYERS, N_HEADS, HEAD_DIM, N_CTX, N_SEQS, key_bits, value_bits, &err), &err);
    f->plain = calloc(N_SEQS, sizeof *f->plain);
    assert_non_null(f->plain);
    f->random = (rng){seed};
}

static void end(fixture *f) {
    qins_kv_cache_free(&f->cache);
    free(f->plain);
}

/* Keys have a mean of their own and the first ones are outliers, as in models. */
static void append(fixture *f, size_t seq, size_t n) {
    plain_sequence *p = &f->plain[seq];
    qins_error err = {0};
    int32_t ids[N_CTX];
    float row[DIMS], scratch[QINS_KV_PAGE * DIMS];
    n = n < N_CTX - p->length ? n : N_CTX - p->length;
    for (size_t i = 0; i < n; i++)
        p->tokens[p->length + i] = ids[i] = (int32_t)rng_below(&f->random, VOCAB);
    check(qins_kv_reserve(&f->cache, seq, n, &err), &err);
    qins_kv_append(&f->cache, seq, ids, n);
    for (size_t i = 0; i < n; i++, p->length++)
        for (size_t l = 0; l < N_LAYERS; l++)
            for (size_t h = 0; h < N_HEADS; h++) {
                uint8_t *head = qins_kv_head(&f->cache, seq, l, h);
                float *key = p->keys[l][h][p->length], *value = p->values[l][h][p->length];
                for (size_t d = 0; d < HEAD_DIM; d++) {
                    key[d] = (float)(rng_normal(&f->random) + (d == 3 ? 5 : 0) + (p->length == 0 ? 40 : 0));
                    value[d] = (float)rng_normal(&f->random);
                }
                memcpy(row, key, HEAD_DIM * sizeof *row);
                qins_kv_key_to_rows(&f->cache, l, h, row);
                qins_kv_store_key(&f->cache.format, head, p->length, row, scratch);
                memset(row, 0, sizeof row);
                memcpy(row, value, HEAD_DIM * sizeof *row);
                if (f->cache.format.coded_values) qins_kv_rotate(&f->cache.format, f->cache.format.value_type, row);
                qins_kv_store_value(&f->cache.format, head, p->length, row);
            }
}

/* Relative squared error of rows [first, length) of a sequence: keys, values. */
static void errors(const fixture *f, size_t seq, size_t first, double *key_error, double *value_error) {
    const plain_sequence *p = &f->plain[seq];
    double error[2] = {0}, square[2] = {1e-30, 1e-30};
    for (size_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < N_HEADS; h++)
            for (size_t i = first; i < p->length; i++) {
                float key[DIMS], value[DIMS];
                qins_kv_read(&f->cache.format, qins_kv_head(&f->cache, seq, l, h), i, key, value);
                qins_kv_key_from_rows(&f->cache, l, h, key);
                if (f->cache.format.coded_values) qins_kv_rotate(&f->cache.format, f->cache.format.value_type, value);
                for (size_t d = 0; d < HEAD_DIM; d++) {
                    double k = (double)p->keys[l][h][i][d], v = (double)p->values[l][h][i][d];
                    error[0] += ((double)key[d] - k) * ((double)key[d] - k);
                    error[1] += ((double)value[d] - v) * ((double)value[d] - v);
                    square[0] += k * k;
                    square[1] += v * v;
                }
            }
    *key_error = error[0] / square[0];
    *value_error = error[1] / square[1];
}

static void assert_same_tokens(const fixture *f) {
    for (size_t s = 0; s < N_SEQS; s++) {
        assert_int_equal(f->cache.seqs[s].length, f->plain[s].length);
        if (f->plain[s].length > 0)
            assert_memory_equal(f->cache.seqs[s].tokens, f->plain[s].tokens, f->plain[s].length * sizeof(int32_t));
    }
}

static void no_turn(void *user, size_t layer, float *key) {
    (void)user;
    (void)layer;
    (void)key;
}

static void shift_plain(plain_sequence *p, size_t keep, size_t drop) {
    size_t n = p->length - keep - drop;
    memmove(p->tokens + keep, p->tokens + keep + drop, n * sizeof *p->tokens);
    for (size_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < N_HEADS; h++) {
            memmove(p->keys[l][h][keep], p->keys[l][h][keep + drop], n * sizeof p->keys[l][h][0]);
            memmove(p->values[l][h][keep], p->values[l][h][keep + drop], n * sizeof p->values[l][h][0]);
        }
    p->length -= drop;
}

static void save_and_load(fixture *f, size_t from, size_t to) {
    qins_error err = {0};
    char path[64];
    snprintf(path, sizeof path, "/tmp/qins-test-kv-%ld", (long)getpid());
    check(qins_kv_save(&f->cache, from, MODEL, path, &err), &err);
    check(qins_kv_load(&f->cache, to, MODEL, VOCAB, path, &err), &err);
    unlink(path);
}

/* One random operation on cache and plain model. */
static void operate(fixture *f) {
    qins_error err = {0};
    size_t a = rng_below(&f->random, N_SEQS), b = rng_below(&f->random, N_SEQS);
    plain_sequence *p = &f->plain[a];
    switch (rng_below(&f->random, 8)) {
    default:
        append(f, a, 1 + rng_below(&f->random, 90));
        break;
    case 4: {
        size_t n = rng_below(&f->random, p->length + 1);
        qins_kv_truncate(&f->cache, a, n);
        p->length = n;
        break;
    }
    case 5:
        check(qins_kv_fork(&f->cache, a, b, &err), &err);
        if (a != b) memcpy(&f->plain[b], p, sizeof *p);
        break;
    case 6: {
        size_t keep = rng_below(&f->random, p->length + 1), drop = rng_below(&f->random, p->length - keep + 1);
        if (f->cache.seqs[a].data == NULL) break;
        check(qins_kv_shift(&f->cache, a, keep, drop, no_turn, NULL, &err), &err);
        shift_plain(p, keep, drop);
        break;
    }
    case 7:
        save_and_load(f, a, b);
        if (a != b) memcpy(&f->plain[b], p, sizeof *p);
        break;
    }
}

static void exact_rows_survive_every_operation(void **state) {
    (void)state;
    fixture f;
    begin(&f, 32, 32, 1);
    for (int i = 0; i < 200; i++) {
        operate(&f);
        assert_same_tokens(&f);
        for (size_t s = 0; s < N_SEQS; s++) {
            double key_error, value_error;
            errors(&f, s, 0, &key_error, &value_error);
            assert_true(key_error == 0 && value_error == 0);
        }
    }
    end(&f);
}

/* Squared errors of N(0,1) by bits, a little above those of one fresh coding; shifted rows are coded again and again,
 * so that here they may be several times as large. */
static const struct {
    int bits;
    double error;
} expected_error[] = {{16, 1e-7}, {8, 4.2e-5}, {6, 5.5e-4}, {5, 2.1e-3}, {4, 8.2e-3}, {3, 3.3e-2}};

static void coded_rows_survive_every_operation_with_their_noise(void **state) {
    (void)state;
    for (size_t b = 0; b < sizeof expected_error / sizeof expected_error[0]; b++) {
        fixture f;
        begin(&f, expected_error[b].bits, expected_error[b].bits, 100 + b);
        for (int i = 0; i < 60; i++) {
            operate(&f);
            assert_same_tokens(&f);
            for (size_t s = 0; s < N_SEQS; s++) {
                double key_error, value_error;
                errors(&f, s, 0, &key_error, &value_error);
                if (!(key_error < 8 * expected_error[b].error && value_error < 8 * expected_error[b].error))
                    fail_msg("%d bits: errors %g, %g", expected_error[b].bits, key_error, value_error);
            }
        }
        end(&f);
    }
}

static void a_fresh_coding_is_as_exact_as_its_bits_allow(void **state) {
    (void)state;
    for (size_t b = 0; b < sizeof expected_error / sizeof expected_error[0]; b++) {
        fixture f;
        double key_error, value_error;
        begin(&f, expected_error[b].bits, expected_error[b].bits, 7);
        append(&f, 0, N_CTX);
        /* behind the first page, which has no mean to subtract */
        errors(&f, 0, QINS_KV_PAGE, &key_error, &value_error);
        if (!(value_error < expected_error[b].error)) fail_msg("%d bits: %g", expected_error[b].bits, value_error);
        /* the mean is 25 of 26 parts of the square of what is not coded */
        if (!(key_error < expected_error[b].error)) fail_msg("%d bits: %g", expected_error[b].bits, key_error);
        end(&f);
    }
}

static void the_first_tokens_are_not_coded(void **state) {
    (void)state;
    fixture f;
    double key_error, value_error;
    begin(&f, 3, 3, 8);
    append(&f, 0, QINS_KV_SINKS);
    errors(&f, 0, 0, &key_error, &value_error);
    assert_true(key_error < 1e-6 && value_error < 1e-6);
    end(&f);
}

static void how_tokens_were_cut_up_does_not_matter(void **state) {
    (void)state;
    fixture f;
    float a[DIMS], b[DIMS], c[DIMS], d[DIMS];
    begin(&f, 4, 4, 9);
    append(&f, 0, N_CTX);
    f.random = (rng){9};
    for (size_t n = 0; n < N_CTX; n += 7)
        append(&f, 1, 7);
    size_t length = f.cache.seqs[1].length;
    assert_int_equal(length, N_CTX);
    /* the same numbers were drawn in another order; code what sequence 0 was given, token by token */
    float scratch[QINS_KV_PAGE * DIMS], row[DIMS];
    for (size_t i = 0; i < N_CTX; i++) {
        memcpy(row, f.plain[0].keys[1][1][i], HEAD_DIM * sizeof *row);
        qins_kv_key_to_rows(&f.cache, 1, 1, row);
        qins_kv_store_key(&f.cache.format, qins_kv_head(&f.cache, 1, 1, 1), i, row, scratch);
    }
    for (size_t i = 0; i < N_CTX; i++) {
        qins_kv_read(&f.cache.format, qins_kv_head(&f.cache, 0, 1, 1), i, a, c);
        qins_kv_read(&f.cache.format, qins_kv_head(&f.cache, 1, 1, 1), i, b, d);
        assert_memory_equal(a, b, sizeof a);
    }
    end(&f);
}

static void four_bits_take_a_quarter_of_the_bytes(void **state) {
    (void)state;
    static const size_t head_dims[] = {64, 96, 128};
    for (size_t i = 0; i < 3; i++) {
        size_t bytes[2];
        for (int coded = 0; coded < 2; coded++) {
            qins_kv_cache c;
            qins_error err = {0};
            static const int32_t ids[2048];
            check(qins_kv_cache_init(&c, 2, 2, head_dims[i], 2048, 1, coded ? 4 : 16, coded ? 4 : 16, &err), &err);
            check(qins_kv_reserve(&c, 0, 2048, &err), &err);
            assert_int_equal(qins_kv_sequence_bytes(&c, 0), 0);
            qins_kv_append(&c, 0, ids, 2048);
            bytes[coded] = qins_kv_sequence_bytes(&c, 0);
            qins_kv_cache_free(&c);
        }
        assert_true((double)bytes[1] <= 0.28 * (double)bytes[0]);
    }
}

/* Squared error of coded values of a head, to their squared size, where one of them is much larger than the others. */
static double error_with_one_large_value(size_t head_dim) {
    qins_kv_format f;
    qins_error err = {0};
    rng r = {3};
    float value[128], row[128], key[128], found[128];
    double error = 0, size = 0;
    check(qins_kv_format_init(&f, head_dim, 16, 4, &err), &err);
    uint8_t *head = qins_alloc_aligned(f.first_page + f.page_bytes + QINS_KV_OVERREAD, 1);
    assert_non_null(head);
    for (size_t i = QINS_KV_SINKS; i < QINS_KV_PAGE; i++) {
        for (size_t d = 0; d < head_dim; d++)
            value[d] = (float)rng_normal(&r) * (d == 5 ? 30.0f : 1.0f);
        memcpy(row, value, sizeof row);
        qins_kv_rotate(&f, f.value_type, row);
        qins_kv_store_value(&f, head, i, row);
        qins_kv_read(&f, head, i, key, found);
        qins_kv_rotate(&f, f.value_type, found);
        for (size_t d = 0; d < head_dim; d++) {
            error += ((double)found[d] - (double)value[d]) * ((double)found[d] - (double)value[d]);
            size += (double)value[d] * (double)value[d];
        }
    }
    free(head);
    qins_kv_format_free(&f);
    return error / size;
}

/* 96 values are three blocks of the Hadamard transform, and share one scale all the same. */
static void a_large_value_is_spread_over_the_whole_row(void **state) {
    (void)state;
    double one_block = error_with_one_large_value(128), three_blocks = error_with_one_large_value(96);
    print_message("relative error of 128 values %.4f, of 96 %.4f\n", one_block, three_blocks);
    assert_true(one_block > 0.001 && three_blocks <= 1.1 * one_block);
}

/* ---- key transform ---- */

static void random_moments(rng *r, size_t n, float *out) {
    float *x = malloc(n * n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n * n; i++)
        x[i] = (float)(rng_normal(r) * exp(2.0 * (double)(i % n) / (double)n));
    for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b < n; b++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += (double)x[i * n + a] * (double)x[i * n + b];
            out[a * n + b] = (float)sum;
        }
    free(x);
}

/* tr(A G) tr(B G^-1) / n^2 with G = T T^t: what the error of scores is proportional to. */
static double score_error(size_t n, const float *a, const float *b, const double *t) {
    double *g = calloc(n * n, sizeof *g), keys = 0, queries = 0;
    assert_non_null(g);
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < n; c++)
            for (size_t i = 0; i < n; i++)
                g[r * n + c] += t[r * n + i] * t[c * n + i];
    for (size_t i = 0; i < n * n; i++)
        keys += (double)a[i] * g[i];
    assert_true(qins_dense_invert(n, g));
    for (size_t i = 0; i < n * n; i++)
        queries += (double)b[i] * g[i];
    free(g);
    return keys * queries / (double)(n * n);
}

/* Nothing near it is better, and doing nothing is much worse. */
static void the_transform_makes_the_error_of_scores_least(void **state) {
    (void)state;
    enum { N = 24 };
    static float keys[N * N], queries[N * N];
    static double t[N * N], other[N * N], identity[N * N];
    qins_error err = {0};
    rng r = {11};
    random_moments(&r, N, keys);
    random_moments(&r, N, queries);
    check(qins_kv_transform_of(N, keys, queries, t, &err), &err);
    for (size_t i = 0; i < N; i++)
        identity[i * N + i] = 1;
    double best = score_error(N, keys, queries, t);
    assert_true(best < 0.7 * score_error(N, keys, queries, identity));
    for (int trial = 0; trial < 50; trial++) {
        for (size_t i = 0; i < N * N; i++)
            other[i] = t[i] * (1 + 0.1 * rng_normal(&r));
        assert_true(best <= 1.002 * score_error(N, keys, queries, other)); /* it is damped a little */
    }
    memset(keys, 0, sizeof keys); /* nothing seen: nothing done */
    check(qins_kv_transform_of(N, keys, queries, t, &err), &err);
    assert_memory_equal(t, identity, sizeof t);
}

static void products_survive_the_transform(void **state) {
    (void)state;
    fixture f;
    rng r = {12};
    qins_error err = {0};
    enum { MATRICES = N_LAYERS * N_HEADS, N = HEAD_DIM * HEAD_DIM };
    static float matrices[MATRICES * N], inverses[MATRICES * N], moments[2][N];
    static double t[N];
    qins_kv_transform transform = {.keys = matrices, .queries = inverses};
    for (size_t m = 0; m < MATRICES; m++) {
        random_moments(&r, HEAD_DIM, moments[0]);
        random_moments(&r, HEAD_DIM, moments[1]);
        check(qins_kv_transform_of(HEAD_DIM, moments[0], moments[1], t, &err), &err);
        for (size_t i = 0; i < N; i++)
            matrices[m * N + i] = (float)t[i];
        assert_true(qins_dense_invert(HEAD_DIM, t));
        for (size_t i = 0; i < N; i++)
            inverses[m * N + i % HEAD_DIM * HEAD_DIM + i / HEAD_DIM] = (float)t[i];
    }
    begin(&f, 8, 8, 13);
    f.cache.transform = &transform;
    for (size_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < N_HEADS; h++) {
            float key[DIMS], query[DIMS], back[DIMS];
            double expected = 0, found = 0, size = 0;
            for (size_t d = 0; d < HEAD_DIM; d++) {
                key[d] = back[d] = (float)rng_normal(&r);
                query[d] = (float)rng_normal(&r);
                expected += (double)key[d] * (double)query[d];
            }
            qins_kv_key_to_rows(&f.cache, l, h, back);
            qins_kv_query_to_rows(&f.cache, l, h, query);
            for (size_t d = 0; d < DIMS; d++) {
                found += (double)back[d] * (double)query[d];
                size += fabs((double)back[d] * (double)query[d]);
            }
            assert_close(found, expected, 1e-5 * size);
            qins_kv_key_from_rows(&f.cache, l, h, back);
            for (size_t d = 0; d < HEAD_DIM; d++)
                assert_close(back[d], key[d], 1e-3);
        }
    end(&f);
}

/* ---- files ---- */

static qins_status parse(fixture *f, uint64_t model, const uint8_t *data, size_t size, qins_error *err) {
    return qins_kv_parse(&f->cache, 1, model, VOCAB, data, size, "file", err);
}

static void damaged_and_foreign_files_are_refused(void **state) {
    (void)state;
    fixture f;
    qins_error err = {0};
    char path[64], *data = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "/tmp/qins-test-kv-%ld", (long)getpid());
    begin(&f, 4, 8, 10);
    append(&f, 0, 70);
    append(&f, 1, 5);
    check(qins_kv_save(&f.cache, 0, MODEL, path, &err), &err);
    check(qins_read_file(path, (size_t)1 << 30, &data, &size, &err), &err);
    unlink(path);
    uint8_t *bytes = (uint8_t *)data;
    assert_int_equal(parse(&f, MODEL + 1, bytes, size, &err), QINS_ERR_FORMAT);
    assert_contains(err.message, "of another");
    for (size_t n = 0; n < size; n += 1 + n / 3)
        assert_int_not_equal(parse(&f, MODEL, bytes, n, &err), QINS_OK);
    for (size_t at = 0; at < size; at += 1 + at / 5) {
        bytes[at] ^= 4;
        assert_int_not_equal(parse(&f, MODEL, bytes, size, &err), QINS_OK);
        bytes[at] ^= 4;
    }
    assert_same_tokens(&f); /* nothing has changed */
    check(parse(&f, MODEL, bytes, size, &err), &err);
    assert_int_equal(f.cache.seqs[1].length, 70);
    qins_kv_cache other;
    check(qins_kv_cache_init(&other, N_LAYERS, N_HEADS, HEAD_DIM, N_CTX, 1, 8, 8, &err), &err);
    assert_int_equal(qins_kv_parse(&other, 0, MODEL, VOCAB, bytes, size, "file", &err), QINS_ERR_FORMAT);
    assert_contains(err.message, "found 4:8");
    qins_kv_cache_free(&other);
    free(data);
    end(&f);
}

static void bits_that_do_not_exist_are_refused(void **state) {
    (void)state;
    static const int bad[] = {0, 1, 2, 7, 9, 15, 33, -4};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qins_kv_format f;
        assert_int_equal(qins_kv_format_init(&f, 64, bad[i], 16, NULL), QINS_ERR_ARGUMENT);
        assert_int_equal(qins_kv_format_init(&f, 64, 16, bad[i], NULL), QINS_ERR_ARGUMENT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_rows_survive_every_operation),
        cmocka_unit_test(coded_rows_survive_every_operation_with_their_noise),
        cmocka_unit_test(a_fresh_coding_is_as_exact_as_its_bits_allow),
        cmocka_unit_test(the_first_tokens_are_not_coded),
        cmocka_unit_test(how_tokens_were_cut_up_does_not_matter),
        cmocka_unit_test(four_bits_take_a_quarter_of_the_bytes),
        cmocka_unit_test(a_large_value_is_spread_over_the_whole_row),
        cmocka_unit_test(the_transform_makes_the_error_of_scores_least),
        cmocka_unit_test(products_survive_the_transform),
        cmocka_unit_test(damaged_and_foreign_files_are_refused),
        cmocka_unit_test(bits_that_do_not_exist_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
