/* Entries of tables longer than registers hold, copied one by one. SPDX-License-Identifier: MIT
 *
 * Two loads and a store an entry: faster on Zen 4 than its gathers, and than putting vectors together.
 */

/* Keeps compilers from making gathers of it. */
#define APART(index) __asm__("" : "+r"(index))

static inline __attribute__((always_inline)) void copy_block(const uint8_t *tile, int bits, const float *table,
                                                             unsigned block, float *out) {
    uint8_t codes[64], top[64];
    for (unsigned part = 0; part < PARTS && bits != 8; part++) {
        vu v = block_codes(tile, bits, block, part);
        memcpy(codes + 4 * LANES * part, &v, sizeof v);
    }
    for (unsigned part = 0; part < PARTS && bits == 9; part++) {
        vu v = spread_bits(tile + 1024 + 8 * block, part);
        memcpy(top + 4 * LANES * part, &v, sizeof v);
    }
    const uint8_t *from = bits == 8 ? tile + 64 * block : codes;
    for (unsigned row = 0; row < QINS_PANEL_ROWS; row++)
        for (unsigned j = 0; j < 4; j++) {
            size_t index = from[4 * row + j];
            if (bits == 9) index |= (size_t)top[4 * row + j] << 8;
            APART(index);
            out[(4 * block + j) * QINS_PANEL_ROWS + row] = table[index];
        }
}

static inline __attribute__((always_inline)) void decode_long(const uint8_t *tiles, int bits, const float *table,
                                                              size_t n_cols, float *out) {
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tiles += qins_tile_bytes(bits))
        for (unsigned block = 0; block < QINS_TILE_COLS / 4; block++)
            copy_block(tiles, bits, table, block, out + k * QINS_PANEL_ROWS);
}

/* out[i] = table[codes[i]] */
static inline void look_up_bytes(const uint8_t *codes, const float *table, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        size_t index = codes[i];
        APART(index);
        out[i] = table[index];
    }
}
