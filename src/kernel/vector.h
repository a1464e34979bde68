/* Kernels in the vector extensions of gcc and clang, compiled once per instruction set. SPDX-License-Identifier: MIT
 *
 * The including file defines
 *   QINS_VECTOR_NAME     name of the table: generic, avx2, avx512
 *   QINS_VECTOR_LANES    floats a register: 4, 8 or 16
 *   QINS_VECTOR_ENTRIES  a header with decode_long, for tables of QINS_LONG_BITS and more, and look_up_bytes
 *   QINS_VECTOR_TOKENS   tokens that multiply_panel keeps in registers at once
 *   lookup(table, bits, index)   table entries at QINS_VECTOR_LANES indices, a static inline function
 *   sum_lanes(v)         the sum of the lanes, likewise
 *   transpose(v)         QINS_VECTOR_LANES rows in as many registers to columns, likewise
 *   load_f16(p), load_bf16(p), load_i8(p)   QINS_VECTOR_LANES numbers, of any alignment, likewise
 *   row_nibbles(half, part)      nibble r%8 of half[r/8] in the low bits of word r, for the rows r of a part, likewise
 */
#include "kernel/kernel.h"

#include <string.h>

typedef float vf __attribute__((vector_size(4 * QINS_VECTOR_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * QINS_VECTOR_LANES)));

enum { LANES = QINS_VECTOR_LANES, PARTS = QINS_PANEL_ROWS / LANES }; /* registers for the 16 rows of a panel */

static inline __attribute__((always_inline)) vf lookup(const float *table, int bits, vu index);
static inline __attribute__((always_inline)) vu row_nibbles(const uint32_t half[2], unsigned part);
static inline __attribute__((always_inline)) vf load_f16(const uint8_t *p);
static inline __attribute__((always_inline)) vf load_bf16(const uint8_t *p);
static inline __attribute__((always_inline)) vf load_i8(const int8_t *p);
static inline __attribute__((always_inline)) void transpose(vf v[LANES]);
static inline __attribute__((always_inline)) float sum_lanes(vf v);

static inline vu load_u(const uint8_t *p) {
    vu v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline vf load_f(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_f(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

/* 64 bits, bit 4*row + j, to one word a row with bit j in byte j; the rows of one part. */
static inline vu spread_bits(const uint8_t *p, unsigned part) {
    uint32_t half[2]; /* rows 0..7 and 8..15 */
    memcpy(half, p, sizeof half);
    vu v = row_nibbles(half, part);
    return ((v & 15u) * 0x00204081u) & 0x01010101u;
}

/* Codes of one block and part: word r holds the codes of row r, columns 4*block .. +3, a byte each (of 9-bit codes the
 * low 8 bits). The planes are those of codec/pack.c. */
static inline __attribute__((always_inline)) vu block_codes(const uint8_t *tile, int bits, unsigned block,
                                                            unsigned part) {
    const uint8_t *plane = tile;
    unsigned rows = 4 * LANES * part; /* bytes to the first row */
    if (bits >= 8) return load_u(plane + 64 * block + rows);
    vu codes = {0};
    unsigned shift = 0;
    if (bits >= 4) {
        codes = (load_u(plane + 64 * (block / 2) + rows) >> 4 * (block % 2)) & 0x0f0f0f0fu;
        plane += 512;
        shift = 4;
    }
    if (bits == 3 || bits >= 6) {
        codes |= ((load_u(plane + 64 * (block / 4) + rows) >> 2 * (block % 4)) & 0x03030303u) << shift;
        plane += 256;
        shift += 2;
    }
    if (bits % 2 == 1) codes |= spread_bits(plane + 8 * block, part) << shift;
    return codes;
}

static inline __attribute__((always_inline)) void decode_part(const uint8_t *tile, int bits, const float *table,
                                                              unsigned block, unsigned part, float *out) {
    vu codes = block_codes(tile, bits, block, part), top = {0};
    if (bits == 9) top = spread_bits(tile + 1024 + 8 * block, part);
    for (unsigned j = 0; j < 4; j++) {
        vu index = (codes >> 8 * j) & 255u;
        if (bits == 9) index |= ((top >> 8 * j) & 1u) << 8;
        store_f(out + (4 * block + j) * QINS_PANEL_ROWS + part * LANES, lookup(table, bits, index));
    }
}

#include QINS_VECTOR_ENTRIES

static inline __attribute__((always_inline)) void decode(const uint8_t *tiles, int bits, const float *table,
                                                         size_t n_cols, float *out) {
    if (bits >= QINS_LONG_BITS) {
        decode_long(tiles, bits, table, n_cols, out);
        return;
    }
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tiles += qins_tile_bytes(bits))
        for (unsigned block = 0; block < QINS_TILE_COLS / 4; block++)
            for (unsigned part = 0; part < PARTS; part++)
                decode_part(tiles, bits, table, block, part, out + k * QINS_PANEL_ROWS);
}

#define DECODE(bits)                                                                                                   \
    static void decode_##bits(const uint8_t *tiles, const float *table, size_t n_cols, float *out) {                   \
        decode(tiles, bits, table, n_cols, out);                                                                       \
    }
DECODE(3)
DECODE(4)
DECODE(5)
DECODE(6)
DECODE(7)
DECODE(8)
DECODE(9)

/* n tokens at once: their accumulators stay in registers. n is a constant after inlining. */
static inline __attribute__((always_inline)) void multiply_tokens(const float *panel, size_t n_cols, const float *x,
                                                                  size_t ldx, size_t n, float *acc) {
    vf sum[QINS_VECTOR_TOKENS][PARTS];
    for (size_t t = 0; t < n; t++)
        for (size_t p = 0; p < PARTS; p++)
            sum[t][p] = load_f(acc + t * QINS_PANEL_ROWS + p * LANES);
    for (size_t k = 0; k < n_cols; k++) {
        vf w[PARTS];
        for (size_t p = 0; p < PARTS; p++)
            w[p] = load_f(panel + k * QINS_PANEL_ROWS + p * LANES);
        for (size_t t = 0; t < n; t++)
            for (size_t p = 0; p < PARTS; p++)
                sum[t][p] += w[p] * x[t * ldx + k];
    }
    for (size_t t = 0; t < n; t++)
        for (size_t p = 0; p < PARTS; p++)
            store_f(acc + t * QINS_PANEL_ROWS + p * LANES, sum[t][p]);
}

/* One token: as many independent sums as hide the latency of an addition. */
static inline void multiply_one(const float *panel, size_t n_cols, const float *x, float *acc) {
    enum { SUMS = PARTS >= 4 ? 1 : 4 / PARTS };
    vf sum[SUMS][PARTS] = {{{0}}};
    for (size_t p = 0; p < PARTS; p++)
        sum[0][p] = load_f(acc + p * LANES);
    size_t k = 0;
    for (; k + SUMS <= n_cols; k += SUMS)
        for (size_t j = 0; j < SUMS; j++)
            for (size_t p = 0; p < PARTS; p++)
                sum[j][p] += load_f(panel + (k + j) * QINS_PANEL_ROWS + p * LANES) * x[k + j];
    for (; k < n_cols; k++)
        for (size_t p = 0; p < PARTS; p++)
            sum[0][p] += load_f(panel + k * QINS_PANEL_ROWS + p * LANES) * x[k];
    for (size_t j = 1; j < SUMS; j++)
        for (size_t p = 0; p < PARTS; p++)
            sum[0][p] += sum[j][p];
    for (size_t p = 0; p < PARTS; p++)
        store_f(acc + p * LANES, sum[0][p]);
}

static void multiply_panel(const float *panel, size_t n_cols, const float *x, size_t ldx, size_t n_tokens, float *acc) {
    size_t t = 0;
    for (; t + QINS_VECTOR_TOKENS <= n_tokens; t += QINS_VECTOR_TOKENS)
        multiply_tokens(panel, n_cols, x + t * ldx, ldx, QINS_VECTOR_TOKENS, acc + t * QINS_PANEL_ROWS);
    for (; t + 2 <= n_tokens; t += 2)
        multiply_tokens(panel, n_cols, x + t * ldx, ldx, 2, acc + t * QINS_PANEL_ROWS);
    if (t < n_tokens) multiply_one(panel, n_cols, x + t * ldx, acc + t * QINS_PANEL_ROWS);
}

static float dot(const float *a, const float *b, size_t n) {
    enum { SUMS = 4 };
    vf sum[SUMS] = {{0}};
    size_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (size_t j = 0; j < SUMS; j++)
            sum[j] += load_f(a + i + j * LANES) * load_f(b + i + j * LANES);
    for (; i + LANES <= n; i += LANES)
        sum[0] += load_f(a + i) * load_f(b + i);
    float total = sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < n; i++)
        total += a[i] * b[i];
    return total;
}

#include "kernel/rows_vector.h"

static void add_scaled(float a, const float *x, float *y, size_t n) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store_f(y + i, load_f(y + i) + load_f(x + i) * a);
    for (; i < n; i++)
        y[i] += a * x[i];
}

#define TABLE_NAME_OF_(kind, name) kind##name
#define TABLE_NAME_OF(kind, name)  TABLE_NAME_OF_(kind, name)
#define TEXT_(name)                #name
#define TEXT(name)                 TEXT_(name)

#ifndef QINS_VECTOR_ELEMENTWISE
#define QINS_VECTOR_ELEMENTWISE QINS_VECTOR_NAME
#endif

const qins_kernels TABLE_NAME_OF(qins_kernels_, QINS_VECTOR_NAME) = {
    .name = TEXT(QINS_VECTOR_NAME),
    .decode = {[3] = decode_3,
               [4] = decode_4,
               [5] = decode_5,
               [6] = decode_6,
               [7] = decode_7,
               [8] = decode_8,
               [9] = decode_9},
    .multiply_panel = multiply_panel,
    .dot = dot,
    .dot_row = {NULL, dot_f32, dot_f16, dot_bf16},
    .panel_of_rows = {NULL, panel_f32, panel_f16, panel_bf16},
    .scale_panel = scale_panel,
    .signed_entries = signed_entries,
    .rational = rational,
    .add_scaled = add_scaled,
    .elementwise = &TABLE_NAME_OF(qins_elementwise_, QINS_VECTOR_ELEMENTWISE),
};
