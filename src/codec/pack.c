/* Codes in bit planes. SPDX-License-Identifier: MIT
 *
 * A tile is 16 rows x 64 columns = 16 blocks of 4 columns; in a block, code of (row, column 4b+j) sits in lane 4*row +
 * j. A tile of b-bit codes is made of planes, one after another, each starting on a 64-byte boundary of the tile:
 *
 *   byte plane    1,024 B   lane l of block i = byte 64 i + l                             (8, 9 bits)
 *   nibble plane    512 B   lane l of block i = byte 64 (i/2) + l, low nibble for even i  (4, 5, 6, 7 bits)
 *   pair plane      256 B   lane l of block i = byte 64 (i/4) + l, bits 2 (i%4) ..        (3, 6, 7 bits)
 *   bit plane       128 B   lane l of block i = bit l of the 64-bit little-endian word i  (3, 5, 7, 9 bits)
 *
 * in this order, lowest bits of the code first.
 */
#include "codec/codec.h"

#include <string.h>

enum { BLOCK_LANES = 64, BYTE_PLANE = 1024, NIBBLE_PLANE = 512, PAIR_PLANE = 256 };

/* Offsets of the planes in a tile and the code bit that each starts at; -1 when the width lacks the plane. */
typedef struct planes {
    int byte, nibble, pair, bit;
    int pair_shift, bit_shift;
} planes;

static const planes plane_table[QINS_MAX_BITS + 1] = {
    [3] = {-1, -1, 0, PAIR_PLANE, 0, 2},
    [4] = {-1, 0, -1, -1, 0, 0},
    [5] = {-1, 0, -1, NIBBLE_PLANE, 0, 4},
    [6] = {-1, 0, NIBBLE_PLANE, -1, 4, 0},
    [7] = {-1, 0, NIBBLE_PLANE, NIBBLE_PLANE + PAIR_PLANE, 4, 6},
    [8] = {0, -1, -1, -1, 0, 0},
    [9] = {0, -1, -1, BYTE_PLANE, 0, 8},
};

static void pack_code(uint8_t *tile, const planes *p, size_t block, size_t lane, unsigned code) {
    if (p->byte >= 0) tile[(size_t)p->byte + BLOCK_LANES * block + lane] = (uint8_t)code;
    if (p->nibble >= 0)
        tile[(size_t)p->nibble + BLOCK_LANES * (block / 2) + lane] |= (uint8_t)((code & 15u) << 4 * (block % 2));
    if (p->pair >= 0)
        tile[(size_t)p->pair + BLOCK_LANES * (block / 4) + lane] |=
            (uint8_t)((code >> p->pair_shift & 3u) << 2 * (block % 4));
    if (p->bit >= 0) tile[(size_t)p->bit + 8 * block + lane / 8] |= (uint8_t)((code >> p->bit_shift & 1u) << lane % 8);
}

void qins_pack_panel(const uint16_t *codes, size_t ld, size_t n_rows, size_t n_cols, int bits, uint8_t *out) {
    const planes *p = &plane_table[bits];
    size_t tile_bytes = qins_tile_bytes(bits);
    memset(out, 0, qins_n_tiles(n_cols) * tile_bytes);
    for (size_t row = 0; row < n_rows; row++)
        for (size_t col = 0; col < n_cols; col++) {
            size_t in_tile = col % QINS_TILE_COLS;
            pack_code(out + col / QINS_TILE_COLS * tile_bytes, p, in_tile / 4, 4 * row + in_tile % 4,
                      codes[row * ld + col]);
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
