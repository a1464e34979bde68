/* Codes in bit planes. SPDX-License-Identifier: MIT
 *
 * A tile is 16 rows x 64 columns = 16 blocks of 4 columns; in a block, code of (row, column 4b+j) sits in lane 4*row +
 * j. A tile of b-bit codes is made of planes, one after another, each starting on a 64-byte boundary of the tile:
 *
 *   byte plane    1,024 B   lane l of block i = byte 64 i + l                             (8, 9 bits)
 *   nibble plane    512 B   lane l of block i = byte 64 (i/2) + l, low nibble for even i  (4, 5, 6, 7 bits)
 *   pair plane      256 B   lane l of block i = byte 64 (i/4) + l, bits 2 (i%4) ..        (2, 3, 6, 7 bits)
 *   bit plane       128 B   lane l of block i = bit l of the 64-bit little-endian word i  (3, 5, 7, 9 bits)
 *
 * in this order, lowest bits of the code first.
 */
#include "codec/codec.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { BLOCK_LANES = 64, BYTE_PLANE = 1024, NIBBLE_PLANE = 512, PAIR_PLANE = 256 };

/* Offsets of the planes in a tile and the code bit that each starts at; -1 when the width lacks the plane. */
typedef struct planes {
    int byte, nibble, pair, bit;
    int pair_shift, bit_shift;
} planes;

static const planes plane_table[QINS_MAX_BITS + 1] = {
    [2] = {-1, -1, 0, -1, 0, 0},           [3] = {-1, -1, 0, PAIR_PLANE, 0, 2},
    [4] = {-1, 0, -1, -1, 0, 0},           [5] = {-1, 0, -1, NIBBLE_PLANE, 0, 4},
    [6] = {-1, 0, NIBBLE_PLANE, -1, 4, 0}, [7] = {-1, 0, NIBBLE_PLANE, NIBBLE_PLANE + PAIR_PLANE, 4, 6},
    [8] = {0, -1, -1, -1, 0, 0},           [9] = {0, -1, -1, BYTE_PLANE, 0, 8},
};

/* Codes of a tile in lane order, low and high bytes apart: lanes[64*block + 4*row + j]. */
typedef struct tile_lanes {
    uint8_t low[QINS_TILE_CODES], high[QINS_TILE_CODES];
} tile_lanes;

/* Four 16-bit codes to the low byte of each; shifted right by 8 first, to the high byte. */
static uint32_t four_bytes(uint64_t codes) {
    codes &= 0x00ff00ff00ff00ffu;
    codes |= codes >> 8;
    return (uint32_t)(codes & 0xffffu) | (uint32_t)(codes >> 16 & 0xffff0000u);
}

/* Columns [col, col+n) of n_rows rows; the other lanes keep their zeros. */
static void gather_lanes(const uint16_t *codes, size_t ld, size_t n_rows, size_t n, bool high, tile_lanes *lanes) {
    for (size_t row = 0; row < n_rows; row++)
        for (size_t block = 0; 4 * block < n; block++) {
            uint64_t four = 0;
            memcpy(&four, codes + row * ld + 4 * block, qins_min_size(4, n - 4 * block) * sizeof *codes);
            uint32_t bytes = four_bytes(four);
            memcpy(lanes->low + BLOCK_LANES * block + 4 * row, &bytes, sizeof bytes);
            if (!high) continue;
            bytes = four_bytes(four >> 8);
            memcpy(lanes->high + BLOCK_LANES * block + 4 * row, &bytes, sizeof bytes);
        }
}

/* Bit `shift` of eight bytes, the first byte's lowest. */
static uint8_t eight_bits(const uint8_t *bytes, int shift) {
    uint64_t eight;
    memcpy(&eight, bytes, sizeof eight);
    return (uint8_t)((eight >> shift & 0x0101010101010101u) * 0x0102040810204080u >> 56);
}

static void write_planes(const tile_lanes *lanes, const planes *p, int bits, uint8_t *tile) {
    if (p->byte >= 0) memcpy(tile + p->byte, lanes->low, QINS_TILE_CODES);
    for (size_t i = 0; p->nibble >= 0 && i < QINS_TILE_CODES / BLOCK_LANES / 2; i++)
        for (size_t lane = 0; lane < BLOCK_LANES; lane++) {
            const uint8_t *even = lanes->low + 2 * i * BLOCK_LANES + lane;
            tile[(size_t)p->nibble + i * BLOCK_LANES + lane] =
                (uint8_t)((even[0] & 15u) | (even[BLOCK_LANES] & 15u) << 4);
        }
    for (size_t i = 0; p->pair >= 0 && i < QINS_TILE_CODES / BLOCK_LANES / 4; i++)
        for (size_t lane = 0; lane < BLOCK_LANES; lane++) {
            unsigned four = 0;
            for (size_t j = 0; j < 4; j++)
                four |= (lanes->low[(4 * i + j) * BLOCK_LANES + lane] >> p->pair_shift & 3u) << 2 * j;
            tile[(size_t)p->pair + i * BLOCK_LANES + lane] = (uint8_t)four;
        }
    for (size_t i = 0; p->bit >= 0 && i < QINS_TILE_CODES / 8; i++)
        tile[(size_t)p->bit + i] = bits == 9 ? eight_bits(lanes->high + 8 * i, p->bit_shift - 8)
                                             : eight_bits(lanes->low + 8 * i, p->bit_shift);
}

void qins_pack_panel(const uint16_t *codes, size_t ld, size_t n_rows, size_t n_cols, int bits, uint8_t *out) {
    const planes *p = &plane_table[bits];
    tile_lanes lanes;
    memset(&lanes, 0, sizeof lanes);
    for (size_t col = 0; col < n_cols; col += QINS_TILE_COLS, out += qins_tile_bytes(bits)) {
        size_t n = qins_min_size(QINS_TILE_COLS, n_cols - col);
        if (n < QINS_TILE_COLS) memset(&lanes, 0, sizeof lanes);
        gather_lanes(codes + col, ld, n_rows, n, bits == 9, &lanes);
        write_planes(&lanes, p, bits, out);
    }
}

unsigned qins_unpack_code(const uint8_t *tile, int bits, size_t row, size_t col) {
    const planes *p = &plane_table[bits];
    size_t block = col / 4, lane = 4 * row + col % 4;
    unsigned code = 0;
    if (p->byte >= 0) code = tile[(size_t)p->byte + BLOCK_LANES * block + lane];
    if (p->nibble >= 0) {
        unsigned two = tile[(size_t)p->nibble + BLOCK_LANES * (block / 2) + lane];
        code = two >> 4 * (block % 2) & 15u;
    }
    if (p->pair >= 0) {
        unsigned four = tile[(size_t)p->pair + BLOCK_LANES * (block / 4) + lane];
        code |= (four >> 2 * (block % 4) & 3u) << p->pair_shift;
    }
    if (p->bit >= 0) {
        unsigned eight = tile[(size_t)p->bit + 8 * block + lane / 8];
        code |= (eight >> lane % 8 & 1u) << p->bit_shift;
    }
    return code;
}

/* ---- whole tiles as symbols; written for the compiler to vectorise ---- */

enum { TILE_BLOCKS = QINS_TILE_CODES / BLOCK_LANES, ROWS_OF_TWO = TILE_BLOCKS / 2 };

static void pack_nibbles(const uint8_t *codes, uint8_t *plane) {
    for (size_t i = 0; i < ROWS_OF_TWO; i++) {
        const uint8_t *even = codes + 2 * BLOCK_LANES * i, *odd = even + BLOCK_LANES;
        for (size_t l = 0; l < BLOCK_LANES; l++)
            plane[BLOCK_LANES * i + l] = (uint8_t)((even[l] & 15) | odd[l] << 4);
    }
}

static void pack_pairs(const uint8_t *codes, int shift, uint8_t *plane) {
    for (size_t i = 0; i < TILE_BLOCKS / 4; i++) {
        const uint8_t *c = codes + 4 * BLOCK_LANES * i;
        for (size_t l = 0; l < BLOCK_LANES; l++) {
            unsigned a = c[l] >> shift & 3u, b = c[BLOCK_LANES + l] >> shift & 3u;
            unsigned d = c[2 * BLOCK_LANES + l] >> shift & 3u, e = c[3 * BLOCK_LANES + l] >> shift & 3u;
            plane[BLOCK_LANES * i + l] = (uint8_t)(a | b << 2 | d << 4 | e << 6);
        }
    }
}

/* Bit `bit` of 64 bytes. */
static void pack_bits(const uint8_t *bytes, int bit, uint8_t *plane) {
#if defined(__SSE2__)
    for (size_t i = 0; i < BLOCK_LANES / 16; i++) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(bytes + 16 * i));
        int mask = _mm_movemask_epi8(_mm_sll_epi64(v, _mm_cvtsi32_si128(7 - bit)));
        plane[2 * i] = (uint8_t)mask;
        plane[2 * i + 1] = (uint8_t)(mask >> 8);
    }
#else
    for (size_t i = 0; i < BLOCK_LANES / 8; i++) {
        plane[i] = 0;
        for (size_t j = 0; j < 8; j++)
            plane[i] |= (uint8_t)((bytes[8 * i + j] >> bit & 1) << j);
    }
#endif
}

/* The lower two bits of symbols that hold two codes, a nibble each. */
static void pack_lower_pairs(const uint8_t *symbols, uint8_t *plane) {
    for (size_t i = 0; i < ROWS_OF_TWO / 2; i++) {
        const uint8_t *a = symbols + 2 * BLOCK_LANES * i, *b = a + BLOCK_LANES;
        for (size_t l = 0; l < BLOCK_LANES; l++)
            plane[BLOCK_LANES * i + l] =
                (uint8_t)((a[l] & 3) | (a[l] >> 2 & 12) | (b[l] & 3) << 4 | (b[l] << 2 & 0xc0));
    }
}

static void pack_3(const uint8_t *symbols, uint8_t *tile) {
    pack_lower_pairs(symbols, tile);
    for (size_t i = 0; i < ROWS_OF_TWO; i++) {
        pack_bits(symbols + BLOCK_LANES * i, 2, tile + PAIR_PLANE + 16 * i);
        pack_bits(symbols + BLOCK_LANES * i, 6, tile + PAIR_PLANE + 16 * i + 8);
    }
}

size_t qins_tile_symbols(int bits) {
    return bits <= 4 ? QINS_TILE_CODES / 2 : QINS_TILE_CODES;
}

void qins_pack_symbols(const uint8_t *symbols, int bits, uint8_t *tile) {
    const planes *p = &plane_table[bits];
    if (bits == 2) {
        pack_lower_pairs(symbols, tile);
    } else if (bits == 3) {
        pack_3(symbols, tile);
    } else if (bits == 4) {
        memcpy(tile, symbols, NIBBLE_PLANE);
    } else {
        if (p->byte >= 0) memcpy(tile + p->byte, symbols, BYTE_PLANE);
        if (p->nibble >= 0) pack_nibbles(symbols, tile + p->nibble);
        if (p->pair >= 0) pack_pairs(symbols, p->pair_shift, tile + p->pair);
        for (size_t i = 0; i < TILE_BLOCKS && p->bit >= 0 && bits <= 8; i++)
            pack_bits(symbols + BLOCK_LANES * i, p->bit_shift, tile + p->bit + 8 * i);
    }
}

void qins_unpack_symbols(const uint8_t *tile, int bits, uint8_t *symbols) {
    memset(symbols, 0, qins_tile_symbols(bits));
    for (size_t block = 0; block < TILE_BLOCKS; block++)
        for (size_t lane = 0; lane < BLOCK_LANES; lane++) {
            unsigned code = qins_unpack_code(tile, bits, lane / 4, 4 * block + lane % 4);
            if (bits <= 4)
                symbols[BLOCK_LANES * (block / 2) + lane] |= (uint8_t)(code << 4 * (block % 2));
            else
                symbols[BLOCK_LANES * block + lane] = (uint8_t)code;
        }
}

enum { UPPER_BITS = 5 };

void qins_pack_upper(const uint8_t *symbols, const uint8_t *low, uint8_t *tile) {
    const planes *p = &plane_table[UPPER_BITS];
    for (size_t i = 0; i < ROWS_OF_TWO; i++, symbols += BLOCK_LANES, low += BLOCK_LANES / 4) {
        uint8_t *nibbles = tile + p->nibble + BLOCK_LANES * i;
        for (size_t l = 0; l < BLOCK_LANES; l++) {
            unsigned even = low[l / 8] >> l % 8 & 1u, odd = low[BLOCK_LANES / 8 + l / 8] >> l % 8 & 1u;
            nibbles[l] = (uint8_t)((symbols[l] & 0x77u) << 1 | even | odd << 4);
        }
        pack_bits(symbols, 3, tile + p->bit + 16 * i);
        pack_bits(symbols, 7, tile + p->bit + 16 * i + 8);
    }
}

void qins_unpack_upper(const uint8_t *tile, uint8_t *symbols, uint8_t *low) {
    memset(symbols, 0, QINS_TILE_CODES / 2);
    memset(low, 0, QINS_TILE_CODES / 8);
    for (size_t block = 0; block < TILE_BLOCKS; block++)
        for (size_t lane = 0; lane < BLOCK_LANES; lane++) {
            unsigned code = qins_unpack_code(tile, UPPER_BITS, lane / 4, 4 * block + lane % 4);
            symbols[BLOCK_LANES * (block / 2) + lane] |= (uint8_t)(code >> 1 << 4 * (block % 2));
            low[BLOCK_LANES / 8 * block + lane / 8] |= (uint8_t)((code & 1) << lane % 8);
        }
}
