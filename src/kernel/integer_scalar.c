/* The specification of integer arithmetic, one value at a time. SPDX-License-Identifier: MIT */
#include "kernel/integer.h"

/* Entry of the code of a row and column of a panel. */
static int entry_at(const uint8_t *tiles, int bits, const qins_integer_table *table, size_t row, size_t k) {
    const uint8_t *tile = tiles + k / QINS_TILE_COLS * qins_tile_bytes(bits);
    size_t col = k % QINS_TILE_COLS;
    if (table->kind != QINS_INTEGER_TRELLIS) return qins_integer_entry(table, qins_unpack_code(tile, bits, row, col));
    return qins_integer_entry(table, qins_trellis_index(qins_trellis_unpack(tile, bits, row, col), bits));
}

static void dot(const uint8_t *tiles, int bits, const qins_integer_table *table, const qins_quantised *x, size_t t,
                float *out) {
    for (size_t row = 0; row < QINS_PANEL_ROWS; row++) {
        out[row] = 0;
        int64_t sum = 0;
        for (size_t k = 0; k < x->n_cols; k++) {
            sum += (int64_t)entry_at(tiles, bits, table, row, k) * x->words[t * x->n_cols + k];
            if ((k + 1) % QINS_SPAN_COLS != 0 && k + 1 < x->n_cols) continue;
            out[row] += (float)sum * x->units[t * x->n_spans + k / QINS_SPAN_COLS];
            sum = 0;
        }
    }
}

/* Decoded panels: int16 [16][n_cols]. */
static void decode(const uint8_t *tiles, int bits, const qins_integer_table *table, size_t n_cols, void *out) {
    int16_t *entries = out;
    for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
        for (size_t k = 0; k < n_cols; k++)
            entries[row * n_cols + k] = (int16_t)entry_at(tiles, bits, table, row, k);
}

static void multiply(const void *decoded, size_t n_panels, size_t n_cols, const qins_quantised *x, size_t col,
                     size_t first, size_t n, float *acc, size_t ld) {
    for (size_t p = 0; p < n_panels; p++) {
        const int16_t *entries = (const int16_t *)decoded + p * QINS_DECODED_PANEL / sizeof *entries;
        for (size_t t = first; t < first + n; t++)
            for (size_t row = 0; row < QINS_PANEL_ROWS; row++) {
                int64_t sum = 0;
                for (size_t k = 0; k < n_cols; k++)
                    sum += (int64_t)entries[row * n_cols + k] * x->words[t * x->n_cols + col + k];
                acc[(t - first) * ld + p * QINS_PANEL_ROWS + row] +=
                    (float)sum * x->units[t * x->n_spans + col / QINS_SPAN_COLS];
            }
    }
}

#define WIDTH(bits)                                                                                                    \
    static void dot_##bits(const uint8_t *tiles, const qins_integer_table *table, const qins_quantised *x, size_t t,   \
                           float *out) {                                                                               \
        dot(tiles, bits, table, x, t, out);                                                                            \
    }                                                                                                                  \
    static void decode_##bits(const uint8_t *tiles, const qins_integer_table *table, size_t n_cols, void *out) {       \
        decode(tiles, bits, table, n_cols, out);                                                                       \
    }
WIDTH(2)
WIDTH(3)
WIDTH(4)
WIDTH(5)
WIDTH(6)
WIDTH(7)
WIDTH(8)

#define BOTH(function)                                                                                                 \
    { NULL, function, function, function }

const qins_integer_kernels qins_integer_scalar = {
    .dot = {[2] = BOTH(dot_2),
            [3] = BOTH(dot_3),
            [4] = BOTH(dot_4),
            [5] = BOTH(dot_5),
            [6] = BOTH(dot_6),
            [7] = BOTH(dot_7),
            [8] = BOTH(dot_8)},
    .decode = {[2] = BOTH(decode_2),
               [3] = BOTH(decode_3),
               [4] = BOTH(decode_4),
               [5] = BOTH(decode_5),
               [6] = BOTH(decode_6),
               [7] = BOTH(decode_7),
               [8] = BOTH(decode_8)},
    .multiply = {NULL, multiply, multiply, multiply},
};
