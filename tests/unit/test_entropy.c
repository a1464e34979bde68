/* Entropy-coded tensors: what comes back, what is refused. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "codec/entropy.h"

typedef struct blob {
    qins_coded_layout layout;
    uint8_t *data;
    size_t n_bytes;
} blob;

/* layout: planned. */
static blob code_layout(const uint8_t *tensor, const qins_coded_layout *layout) {
    blob b = {.layout = *layout};
    qins_coder *coder = qins_coder_new();
    qins_chunk_record *records = calloc(b.layout.n_chunks, sizeof *records);
    uint8_t *out = malloc(b.layout.n_chunks * qins_coded_bound(&b.layout) + qins_coded_index_bytes(&b.layout));
    size_t at = 0;
    for (size_t i = 0; i < b.layout.n_chunks; i++) {
        size_t n;
        assert_true(qins_coded_encode(coder, &b.layout, tensor, i, out + at, &n, &records[i]));
        assert_true(n <= qins_coded_bound(&b.layout));
        at += n;
    }
    qins_coded_write_index(&b.layout, records, out + at);
    b.n_bytes = at + qins_coded_index_bytes(&b.layout);
    b.data = malloc(b.n_bytes); /* exact size, so that a sanitizer sees a byte too many */
    memcpy(b.data, out, b.n_bytes);
    free(out);
    free(records);
    qins_coder_free(coder);
    return b;
}

static blob code(const uint8_t *tensor, qins_coded_form form, int width, unsigned rotate, size_t n_bytes,
                 size_t chunk_units) {
    qins_coded_layout layout;
    assert_true(qins_coded_plan(&layout, form, width, rotate, n_bytes, chunk_units));
    return code_layout(tensor, &layout);
}

/* Chunks in any order; false when one is refused. */
static bool decode(const blob *b, uint8_t *tensor) {
    qins_coded coded;
    if (qins_coded_open(&coded, &b->layout, b->data, b->n_bytes, NULL) != QINS_OK) return false;
    qins_coder *coder = qins_coder_new();
    bool ok = true;
    for (size_t i = b->layout.n_chunks; i-- > 0 && ok;)
        ok = qins_coded_decode(coder, &coded, i, tensor);
    qins_coder_free(coder);
    qins_coded_close(&coded);
    return ok;
}

static size_t assert_comes_back(const uint8_t *tensor, qins_coded_form form, int width, unsigned rotate, size_t n_bytes,
                                size_t chunk_units) {
    blob b = code(tensor, form, width, rotate, n_bytes, chunk_units);
    uint8_t *back = malloc(n_bytes);
    assert_true(decode(&b, back));
    assert_memory_equal(back, tensor, n_bytes);
    free(back);
    free(b.data);
    return b.n_bytes;
}

/* Tiles of codes that are rounded normal variables. */
static uint8_t *normal_tiles(int bits, size_t n_tiles, double sigma) {
    rng r = {5};
    uint16_t codes[16 * 64];
    uint8_t *tiles = malloc(n_tiles * qins_tile_bytes(bits));
    for (size_t t = 0; t < n_tiles; t++) {
        int top = (1 << bits) - 1;
        for (size_t i = 0; i < 1024; i++)
            codes[i] = (uint16_t)fmin(fmax(round(0.5 * top + sigma * rng_normal(&r)), 0), top);
        qins_pack_panel(codes, 64, 16, 64, bits, tiles + t * qins_tile_bytes(bits));
    }
    return tiles;
}

static void tiles_of_every_width_come_back(void **state) {
    (void)state;
    for (int bits = 3; bits <= 9; bits++) {
        uint8_t *tiles = normal_tiles(bits, 37, 1.3);
        assert_comes_back(tiles, QINS_CODED_PLANES, bits, 0, 37 * qins_tile_bytes(bits), 0);
        assert_comes_back(tiles, QINS_CODED_PLANES, bits, 0, 37 * qins_tile_bytes(bits), 5);
        free(tiles);
    }
}

static void symbols_of_a_tile_are_its_codes(void **state) {
    (void)state;
    for (int bits = 3; bits <= 8; bits++) {
        uint8_t *tile = normal_tiles(bits, 1, 3.0), symbols[1024], packed[1024];
        qins_unpack_symbols(tile, bits, symbols);
        for (size_t row = 0; row < 16; row++)
            for (size_t col = 0; col < 64; col++) {
                size_t block = col / 4, lane = 4 * row + col % 4;
                unsigned symbol =
                    bits <= 4 ? symbols[64 * (block / 2) + lane] >> 4 * (block % 2) & 15u : symbols[64 * block + lane];
                assert_int_equal(symbol, qins_unpack_code(tile, bits, row, col));
            }
        qins_pack_symbols(symbols, bits, packed);
        assert_memory_equal(packed, tile, qins_tile_bytes(bits));
        free(tile);
    }
}

static void size_is_near_the_entropy(void **state) {
    (void)state;
    enum { TILES = 2048 };
    for (int bits = 3; bits <= 8; bits++) {
        double sigma = ldexp(1, bits - 3), entropy = 0, total = TILES * 1024.0;
        uint8_t *tiles = normal_tiles(bits, TILES, sigma);
        size_t histogram[256] = {0};
        for (size_t t = 0; t < TILES; t++)
            for (size_t i = 0; i < 1024; i++)
                histogram[qins_unpack_code(tiles + t * qins_tile_bytes(bits), bits, i / 64, i % 64)]++;
        for (size_t s = 0; s < 256; s++)
            if (histogram[s] > 0) entropy -= (double)histogram[s] / total * log2((double)histogram[s] / total);
        size_t stored = assert_comes_back(tiles, QINS_CODED_PLANES, bits, 0, TILES * qins_tile_bytes(bits), 0);
        double coded = 8.0 * (double)stored / total;
        assert_true(coded >= entropy);
        assert_true(coded < 1.02 * entropy + 0.01);
        free(tiles);
    }
}

/* Panels whose rows have spreads from 0.5 to 4 codes; classes of rows and the bits that they take. */
enum { ROWS_PANELS = 40, ROWS_TILES = 9, ROWS = ROWS_PANELS * 16 };

static uint8_t *panels_of_uneven_rows(int bits, uint8_t *row_class, double *together, double *apart) {
    rng r = {11};
    size_t n_levels = (size_t)1 << bits, n_cols = ROWS_TILES * 64;
    uint16_t *codes = malloc(16 * n_cols * sizeof *codes);
    uint32_t *counts = calloc(ROWS * n_levels, sizeof *counts);
    uint8_t *tiles = malloc(ROWS_PANELS * ROWS_TILES * qins_tile_bytes(bits));
    for (size_t p = 0; p < ROWS_PANELS; p++) {
        for (size_t row = 0; row < 16; row++) {
            double sigma = ldexp(0.5, (int)rng_below(&r, 4)), top = (double)(n_levels - 1);
            for (size_t i = 0; i < n_cols; i++) {
                codes[row * n_cols + i] = (uint16_t)fmin(fmax(round(0.5 * top + sigma * rng_normal(&r)), 0), top);
                counts[(p * 16 + row) * n_levels + codes[row * n_cols + i]]++;
            }
        }
        qins_pack_panel(codes, n_cols, 16, n_cols, bits, tiles + p * ROWS_TILES * qins_tile_bytes(bits));
    }
    assert_true(qins_row_classes(counts, ROWS, n_levels, row_class, together, apart));
    free(counts);
    free(codes);
    return tiles;
}

static void classes_of_rows_take_their_own_entropies(void **state) {
    (void)state;
    for (int bits = 3; bits <= 8; bits++) {
        uint8_t row_class[ROWS];
        double together, apart, values = ROWS * ROWS_TILES * 64.0;
        uint8_t *tiles = panels_of_uneven_rows(bits, row_class, &together, &apart);
        size_t n_bytes = ROWS_PANELS * ROWS_TILES * qins_tile_bytes(bits);
        if (bits >=
            6) { /* none clipped: sigma of one code has 2.105 bits, each doubling one more; of half a code 1.237 */
            assert_close(apart / values, (1.237 + 2.105 + 3.05 + 4.05) / 4, 0.03);
            assert_true(together / values > apart / values + 0.15);
        }
        for (size_t chunk = 0; chunk <= 5 * ROWS_TILES; chunk += 5 * ROWS_TILES) {
            for (int form = QINS_CODED_ROWS; form <= (bits == 5 ? QINS_CODED_UPPER : QINS_CODED_ROWS); form++) {
                qins_coded_layout l;
                assert_true(qins_coded_plan_rows(&l, (qins_coded_form)form, bits, ROWS_TILES, n_bytes, chunk));
                l.row_class = row_class;
                blob b = code_layout(tiles, &l);
                uint8_t *back = malloc(n_bytes);
                assert_true(decode(&b, back));
                assert_memory_equal(back, tiles, n_bytes);
                free(back);
                free(b.data);
            }
        }
        free(tiles);
    }
}

static void every_bf16_and_f16_payload_comes_back(void **state) {
    (void)state;
    uint16_t *all = malloc(2 * 65536 * sizeof *all);
    for (size_t i = 0; i < 2 * 65536; i++)
        all[i] = (uint16_t)(i * 40503u); /* odd: every payload, twice */
    for (unsigned rotate = 0; rotate < 2; rotate++)
        assert_comes_back((const uint8_t *)all, QINS_CODED_NUMBERS, 2, rotate, 2 * 65536 * sizeof *all, 1000);
    free(all);
}

static void f32_specials_come_back_bit_for_bit(void **state) {
    (void)state;
    static const uint32_t specials[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
                                        0x7f800001, 0x7fffffff, 1,          0x807fffff, 0x3f800000, 0xbf800000};
    rng r = {9};
    uint32_t *values = malloc(5000 * sizeof *values);
    for (size_t i = 0; i < 5000; i++)
        values[i] = i % 3 == 0 ? specials[rng_below(&r, 12)] : (uint32_t)rng_bits(&r);
    assert_comes_back((const uint8_t *)values, QINS_CODED_NUMBERS, 4, 1, 5000 * sizeof *values, 777);
    free(values);
}

/* Trained weights are roughly normal: 8 bits of sign and fraction stay, the exponent shrinks to less than three. */
static void normal_bf16_weights_take_less_than_0_72(void **state) {
    (void)state;
    enum { N = 1 << 19 };
    rng r = {3};
    uint16_t *values = malloc(N * sizeof *values);
    for (size_t i = 0; i < N; i++) {
        float f = (float)(0.02 * rng_normal(&r));
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        values[i] = (uint16_t)(u >> 16);
    }
    size_t stored = assert_comes_back((const uint8_t *)values, QINS_CODED_NUMBERS, 2, 1, N * sizeof *values, 0);
    assert_true((double)stored < 0.72 * N * sizeof *values);
    free(values);
}

static void f32_that_holds_bf16_takes_no_more_than_bf16(void **state) {
    (void)state;
    enum { N = 1 << 18 };
    rng r = {3};
    uint32_t *values = malloc(N * sizeof *values);
    for (size_t i = 0; i < N; i++) {
        float f = (float)(0.02 * rng_normal(&r));
        memcpy(&values[i], &f, sizeof f);
        values[i] &= 0xffff0000u;
    }
    size_t stored = assert_comes_back((const uint8_t *)values, QINS_CODED_NUMBERS, 4, 1, N * sizeof *values, 0);
    assert_true((double)stored < 0.75 * N * sizeof(uint16_t));
    free(values);
}

static void a_constant_tensor_takes_almost_nothing(void **state) {
    (void)state;
    uint8_t *zeros = calloc(1 << 20, 1);
    assert_true(assert_comes_back(zeros, QINS_CODED_BYTES, 1, 0, 1 << 20, 0) < 1000);
    free(zeros);
}

static void every_changed_byte_is_refused_or_harmless(void **state) {
    (void)state;
    uint8_t *tiles = normal_tiles(5, 6, 1.0), back[6 * 640];
    blob b = code(tiles, QINS_CODED_PLANES, 5, 0, 6 * 640, 2);
    size_t refused = 0;
    for (size_t i = 0; i < b.n_bytes; i++) {
        b.data[i] ^= 0x10;
        if (!decode(&b, back))
            refused++;
        else
            assert_memory_equal(back, tiles, sizeof back); /* a bit of a frame's header that means nothing */
        b.data[i] ^= 0x10;
    }
    assert_true(refused > b.n_bytes * 95 / 100);
    free(b.data);
    free(tiles);
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    uint8_t *tiles = normal_tiles(4, 4, 1.0), back[4 * 512];
    blob b = code(tiles, QINS_CODED_PLANES, 4, 0, 4 * 512, 2);
    size_t whole = b.n_bytes;
    for (b.n_bytes = 0; b.n_bytes < whole; b.n_bytes++)
        assert_false(decode(&b, back));
    free(b.data);
    free(tiles);
}

static void sizes_that_make_no_sense_are_refused(void **state) {
    (void)state;
    qins_coded_layout l;
    assert_false(qins_coded_plan(&l, QINS_CODED_PLANES, 4, 0, 513, 0));  /* no whole tiles */
    assert_false(qins_coded_plan(&l, QINS_CODED_PLANES, 1, 0, 1024, 0)); /* no such width */
    assert_false(qins_coded_plan(&l, QINS_CODED_NUMBERS, 3, 0, 3, 0));
    assert_false(qins_coded_plan(&l, QINS_CODED_NUMBERS, 2, 16, 2, 0));
    assert_false(qins_coded_plan(&l, QINS_CODED_BYTES, 1, 0, 0, 0));
    assert_false(qins_coded_plan(&l, QINS_CODED_BYTES, 1, 0, 100, (uint64_t)1 << 40)); /* chunks without end */
    assert_false(qins_coded_plan_rows(&l, QINS_CODED_ROWS, 4, 3, 512 * 4, 0));         /* no whole panels */
    assert_false(qins_coded_plan_rows(&l, QINS_CODED_ROWS, 4, 2, 512 * 4, 1));
    assert_false(qins_coded_plan_rows(&l, QINS_CODED_ROWS, 9, 2, 1152 * 4, 0));
    assert_false(qins_coded_plan_rows(&l, QINS_CODED_UPPER, 4, 2, 512 * 4, 0)); /* 5 bits only */
    /* An index that the bytes cannot hold. */
    assert_true(qins_coded_plan(&l, QINS_CODED_BYTES, 1, 0, (uint64_t)1 << 50, 1));
    qins_coded coded;
    qins_error err = {0};
    uint8_t bytes[64] = {0};
    assert_int_equal(qins_coded_open(&coded, &l, bytes, sizeof bytes, &err), QINS_ERR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_of_every_width_come_back),
        cmocka_unit_test(symbols_of_a_tile_are_its_codes),
        cmocka_unit_test(size_is_near_the_entropy),
        cmocka_unit_test(classes_of_rows_take_their_own_entropies),
        cmocka_unit_test(every_bf16_and_f16_payload_comes_back),
        cmocka_unit_test(f32_specials_come_back_bit_for_bit),
        cmocka_unit_test(normal_bf16_weights_take_less_than_0_72),
        cmocka_unit_test(f32_that_holds_bf16_takes_no_more_than_bf16),
        cmocka_unit_test(a_constant_tensor_takes_almost_nothing),
        cmocka_unit_test(every_changed_byte_is_refused_or_harmless),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(sizes_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
