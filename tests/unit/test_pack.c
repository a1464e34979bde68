/* Bit planes of packed codes. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "codec/codec.h"

static unsigned code_at(const uint8_t *packed, int bits, size_t row, size_t col) {
    return qins_unpack_code(packed + col / 64 * qins_tile_bytes(bits), bits, row, col % 64);
}

static void unpacking_gives_back_every_code_of_every_width_and_shape(void **state) {
    (void)state;
    static const size_t shapes[][2] = {{16, 64}, {1, 1}, {3, 63}, {16, 65}, {15, 200}, {7, 128}, {16, 4}};
    rng r = {21};
    for (int bits = 3; bits <= 9; bits++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            size_t rows = shapes[s][0], cols = shapes[s][1], ld = cols + 3;
            uint16_t codes[16 * 256];
            for (size_t i = 0; i < rows * ld; i++)
                codes[i] = (uint16_t)rng_below(&r, (size_t)1 << bits);
            size_t n_bytes = qins_n_tiles(cols) * qins_tile_bytes(bits);
            uint8_t *packed = qins_alloc(n_bytes + 1, 1); /* exact size, so that a sanitizer sees a byte too many */
            assert_non_null(packed);
            memset(packed, 0xa5, n_bytes + 1);
            qins_pack_panel(codes, ld, rows, cols, bits, packed);
            assert_int_equal(packed[n_bytes], 0xa5);
            for (size_t row = 0; row < 16; row++)
                for (size_t col = 0; col < qins_n_tiles(cols) * 64; col++)
                    assert_int_equal(code_at(packed, bits, row, col),
                                     row < rows && col < cols ? codes[row * ld + col] : 0);
            free(packed);
        }
}

static void a_tile_takes_bits_times_128_bytes(void **state) {
    (void)state;
    for (int bits = 3; bits <= 9; bits++)
        assert_int_equal(qins_tile_bytes(bits), 16 * 64 * bits / 8);
}

typedef struct byte_at {
    size_t offset;
    uint8_t value;
} byte_at;

typedef struct pinned_code {
    int bits;
    size_t row, col;
    unsigned code;
    byte_at bytes[3]; /* the non-zero bytes; value 0 ends */
} pinned_code;

/* One code in an otherwise zero panel of two tiles. (row 1, column 6) is lane 6 of block 1, (15, 63) lane 63 of block
 * 15; column 64 opens the second tile. */
static const pinned_code pinned[] = {
    {3, 1, 6, 7, {{6, 0x0c}, {264, 0x40}}},
    {3, 15, 63, 7, {{255, 0xc0}, {383, 0x80}}},
    {3, 0, 0, 4, {{256, 0x01}}},
    {3, 0, 64, 1, {{384, 0x01}}},
    {4, 1, 6, 15, {{6, 0xf0}}},
    {4, 15, 63, 15, {{511, 0xf0}}},
    {4, 0, 0, 8, {{0, 0x08}}},
    {4, 0, 64, 1, {{512, 0x01}}},
    {5, 1, 6, 31, {{6, 0xf0}, {520, 0x40}}},
    {5, 15, 63, 31, {{511, 0xf0}, {639, 0x80}}},
    {5, 0, 0, 16, {{512, 0x01}}},
    {5, 0, 64, 1, {{640, 0x01}}},
    {6, 1, 6, 63, {{6, 0xf0}, {518, 0x0c}}},
    {6, 15, 63, 63, {{511, 0xf0}, {767, 0xc0}}},
    {6, 0, 0, 32, {{512, 0x02}}},
    {6, 0, 64, 1, {{768, 0x01}}},
    {7, 1, 6, 127, {{6, 0xf0}, {518, 0x0c}, {776, 0x40}}},
    {7, 15, 63, 127, {{511, 0xf0}, {767, 0xc0}, {895, 0x80}}},
    {7, 0, 0, 64, {{768, 0x01}}},
    {7, 0, 64, 1, {{896, 0x01}}},
    {8, 1, 6, 255, {{70, 0xff}}},
    {8, 15, 63, 255, {{1023, 0xff}}},
    {8, 0, 0, 128, {{0, 0x80}}},
    {8, 0, 64, 1, {{1024, 0x01}}},
    {9, 1, 6, 511, {{70, 0xff}, {1032, 0x40}}},
    {9, 15, 63, 511, {{1023, 0xff}, {1151, 0x80}}},
    {9, 0, 0, 256, {{1024, 0x01}}},
    {9, 0, 64, 1, {{1152, 0x01}}},
};

static void planes_lie_where_the_format_says(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++) {
        const pinned_code *p = &pinned[i];
        uint16_t codes[16 * 128] = {0};
        uint8_t packed[2 * 1152], expected[2 * 1152] = {0};
        codes[p->row * 128 + p->col] = (uint16_t)p->code;
        qins_pack_panel(codes, 128, 16, 128, p->bits, packed);
        for (size_t b = 0; b < 3; b++)
            expected[p->bytes[b].offset] |= p->bytes[b].value;
        if (memcmp(packed, expected, 2 * qins_tile_bytes(p->bits)) != 0)
            fail_msg("%d bits, row %zu, column %zu: bytes differ", p->bits, p->row, p->col);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unpacking_gives_back_every_code_of_every_width_and_shape),
        cmocka_unit_test(a_tile_takes_bits_times_128_bytes),
        cmocka_unit_test(planes_lie_where_the_format_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
