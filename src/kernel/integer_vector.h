/* Integer kernels over registers of V bytes, compiled once per instruction set. SPDX-License-Identifier: MIT
 *
 * A block is 4 columns of 16 rows: 64 codes, byte 4*row + column, in PARTS registers of V bytes. The including file
 * defines, all static inline:
 *   V, ROWS              bytes a register, and rows of a part: V/4
 *   HALVES               1: int8 entries are multiplied as bytes with the halves of the input (there is an instruction
 *                        for 4 products of bytes a 32-bit lane); 0: they are widened to words
 *   BIASED               1: byte entries are unsigned, entry + 128, and offsets are added; 0: they are signed
 *   CURVED               1: entries of 7 and 8 bits are computed where the table is `curved`; 0: always looked up
 *   TOKENS_8, TOKENS_16  tokens whose sums stay in registers, for two panels of bytes and one of words
 *   vi, vf               registers of integers and of floats
 *   table_8, table_16    tables in registers
 *   load_table_8(table, bits), load_table_16(table, bits, curved)
 *   look_up_8(tables, tile, bits, block, part) -> entries of a part as bytes
 *   look_up_trellis(tables, tile, bits, block, part)    the same of the trellis codec, tables of bits + 1
 *   look_up_16(tables, tile, bits, curved, block, part, w) -> as words: w[0] rows 0, 1, 4, 5, 8, .. of the part, w[1]
 * the others, four columns each widen(bytes, w)      the same of bytes (HALVES 0) dot_bytes(sum, w, x) sum of row r +=
 * sum over j < 4 of w[4r + j] * x[j], x int8 dot_words(sum, w, x) lane 2i += w[4i] x[0] + w[4i+1] x[1], lane 2i+1
 * likewise of 2 and 3; x int16 pair_sum(a, b)       sums of neighbouring 32-bit lanes, a first, within 16 bytes load,
 * store, zero, add, combine (256*a + b), broadcast, multiply_add(sum, integers, unit), load_f, store_f, prefetch
 */
#include "kernel/integer.h"

enum { PARTS = 64 / V, BLOCKS = QINS_TILE_COLS / 4, BLOCK_BYTES = 64, WORDS = 2 };
/* Ahead of the code in work, into the second-level cache: two pages, so that the page after next is looked up, and the
 * hardware's prefetcher set going in it, before it is needed. One line in 512 bytes does; odd widths, whose planes are
 * read at several places, go faster with all of them. Prefetching 2 KiB into the first level instead takes up what few
 * misses it has at once (one thread of Zen 4, GB/s at 3, 4, 5, 8 bits: 20, 23, 22, 23; so: 21, 29, 28, 26). */
enum { PREFETCH_BYTES = 8192 };

#define INLINE static inline __attribute__((always_inline))

/* Tells the compiler that a sum is needed in a register, now: gcc 12 otherwise stores it in every turn of a loop for
 * the use after it, or puts off all additions of an unrolled loop to its end and runs out of registers. */
#define KEEP(v) __asm__("" : "+" REGISTER(v))

INLINE void prefetch_tile(const uint8_t *tile, int bits) {
    for (size_t line = 0; line < qins_tile_bytes(bits); line += bits % 2 == 1 ? 64 : 512)
        prefetch(tile + PREFETCH_BYTES + line);
}

/* Adds unit * (sums + offset) to 16 floats, from sums of rows. */
INLINE void fold_part(float *out, vi sums, int32_t offset, float unit, unsigned part) {
    float *p = out + part * ROWS;
    if (BIASED) sums = add(sums, broadcast(offset));
    store_f(p, multiply_add(load_f(p), sums, unit));
}

INLINE vi entries_8(const table_8 *tables, const uint8_t *tile, int bits, bool trellis, unsigned block, unsigned part) {
    return trellis ? look_up_trellis(tables, tile, bits, block, part) : look_up_8(tables, tile, bits, block, part);
}

/* ---- one vector ---- */

#if HALVES
/* One span: even and odd blocks are summed apart, to hide latency. */
INLINE void dot_span_8(const uint8_t *tile, int bits, bool trellis, const table_8 *tables, const int8_t *x,
                       size_t n_cols, int32_t offset, float unit, float *out) {
    vi high[2][PARTS], low[2][PARTS];
    for (unsigned part = 0; part < PARTS; part++)
        high[0][part] = high[1][part] = low[0][part] = low[1][part] = zero();
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tile += qins_tile_bytes(bits), x += 2 * QINS_TILE_COLS) {
        prefetch_tile(tile, bits);
        UNROLL(16)
        for (unsigned block = 0; block < BLOCKS; block++)
            UNROLL(4)
        for (unsigned part = 0; part < PARTS; part++) {
            vi w = entries_8(tables, tile, bits, trellis, block, part);
            high[block % 2][part] = dot_bytes(high[block % 2][part], w, x + 4 * block);
            low[block % 2][part] = dot_bytes(low[block % 2][part], w, x + QINS_TILE_COLS + 4 * block);
            KEEP(high[block % 2][part]);
            KEEP(low[block % 2][part]);
        }
    }
    for (unsigned part = 0; part < PARTS; part++)
        fold_part(out, combine(add(high[0][part], high[1][part]), add(low[0][part], low[1][part])), offset, unit, part);
}
#else
INLINE void dot_span_8(const uint8_t *tile, int bits, bool trellis, const table_8 *tables, const int16_t *x,
                       size_t n_cols, int32_t offset, float unit, float *out) {
    vi sum[PARTS][WORDS];
    for (unsigned part = 0; part < PARTS; part++)
        sum[part][0] = sum[part][1] = zero();
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tile += qins_tile_bytes(bits), x += QINS_TILE_COLS) {
        prefetch_tile(tile, bits);
        UNROLL(16)
        for (unsigned block = 0; block < BLOCKS; block++)
            UNROLL(4)
        for (unsigned part = 0; part < PARTS; part++) {
            vi w[WORDS];
            widen(entries_8(tables, tile, bits, trellis, block, part), w);
            sum[part][0] = dot_words(sum[part][0], w[0], x + 4 * block);
            sum[part][1] = dot_words(sum[part][1], w[1], x + 4 * block);
            KEEP(sum[part][0]);
            KEEP(sum[part][1]);
        }
    }
    for (unsigned part = 0; part < PARTS; part++)
        fold_part(out, pair_sum(sum[part][0], sum[part][1]), offset, unit, part);
}
#endif

INLINE void dot_8(const uint8_t *tiles, int bits, bool trellis, const qins_integer_table *table,
                  const qins_quantised *x, size_t t, float *out) {
    _Alignas(64) float rows[QINS_PANEL_ROWS] = {0};
    const table_8 tables = load_table_8(table, bits + trellis);
    for (size_t span = 0; span < x->n_spans; span++) {
        size_t col = span * QINS_SPAN_COLS, n = qins_min_size(QINS_SPAN_COLS, x->n_cols - col);
#if HALVES
        const int8_t *values = x->halves + 2 * (t * x->n_cols + col);
#else
        const int16_t *values = x->words + t * x->n_cols + col;
#endif
        dot_span_8(tiles + col / QINS_TILE_COLS * qins_tile_bytes(bits), bits, trellis, &tables, values, n,
                   x->offsets[t * x->n_spans + span], x->units[t * x->n_spans + span], rows);
    }
    for (unsigned part = 0; part < PARTS; part++)
        store_f(out + part * ROWS, load_f(rows + part * ROWS));
}

/* Words: a tile at a time, as 32 bits hold no more. */
INLINE void dot_16(const uint8_t *tiles, int bits, bool curved, const qins_integer_table *table,
                   const qins_quantised *x, size_t t, float *out) {
    _Alignas(64) float rows[QINS_PANEL_ROWS] = {0};
    const table_16 tables = load_table_16(table, bits, curved);
    for (size_t k = 0; k < x->n_cols; k += QINS_TILE_COLS, tiles += qins_tile_bytes(bits)) {
        const int16_t *values = x->words + t * x->n_cols + k;
        vi sum[PARTS][WORDS];
        for (unsigned part = 0; part < PARTS; part++)
            sum[part][0] = sum[part][1] = zero();
        prefetch_tile(tiles, bits);
        UNROLL(16)
        for (unsigned block = 0; block < BLOCKS; block++)
            UNROLL(4)
        for (unsigned part = 0; part < PARTS; part++) {
            vi w[WORDS];
            look_up_16(&tables, tiles, bits, curved, block, part, w);
            sum[part][0] = dot_words(sum[part][0], w[0], values + 4 * block);
            sum[part][1] = dot_words(sum[part][1], w[1], values + 4 * block);
            KEEP(sum[part][0]);
            KEEP(sum[part][1]);
        }
        float unit = x->units[t * x->n_spans + k / QINS_SPAN_COLS], *p = rows;
        for (unsigned part = 0; part < PARTS; part++, p += ROWS)
            store_f(p, multiply_add(load_f(p), pair_sum(sum[part][0], sum[part][1]), unit));
    }
    for (unsigned part = 0; part < PARTS; part++)
        store_f(out + part * ROWS, load_f(rows + part * ROWS));
}

/* ---- many vectors: a decoded span stays in the first-level cache ---- */

/* Bytes [block][64] when HALVES, else words [block][part][2]. */
INLINE void decode_8(const uint8_t *tile, int bits, bool trellis, const qins_integer_table *table, size_t n_cols,
                     uint8_t *out) {
    const table_8 tables = load_table_8(table, bits + trellis);
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tile += qins_tile_bytes(bits))
        UNROLL(16)
    for (unsigned block = 0; block < BLOCKS; block++)
        UNROLL(4)
    for (unsigned part = 0; part < PARTS; part++) {
        vi w = entries_8(&tables, tile, bits, trellis, block, part);
#if HALVES
        store(out, w);
        out += V;
#else
        vi wide[WORDS];
        widen(w, wide);
        store(out, wide[0]);
        store(out + V, wide[1]);
        out += 2 * V;
#endif
    }
}

#ifndef TILES
INLINE void decode_16(const uint8_t *tile, int bits, bool curved, const qins_integer_table *table, size_t n_cols,
                      uint8_t *out) {
    const table_16 tables = load_table_16(table, bits, curved);
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tile += qins_tile_bytes(bits))
        UNROLL(16)
    for (unsigned block = 0; block < BLOCKS; block++)
        UNROLL(4)
    for (unsigned part = 0; part < PARTS; part++) {
        vi w[WORDS];
        look_up_16(&tables, tile, bits, curved, block, part, w);
        store(out, w[0]);
        store(out + V, w[1]);
        out += 2 * V;
    }
}
#endif

/* Sums are variables with numbers, not arrays: gcc 12 keeps a copy of an array in memory and writes it in every turn.
 */
#define EACH_TOKEN(step) step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7)

#define KEEP_BYTES(t)                                                                                                  \
    if (t < n_tokens) {                                                                                                \
        KEEP(high0_##t);                                                                                               \
        KEEP(low0_##t);                                                                                                \
        if (n_panels > 1) {                                                                                            \
            KEEP(high1_##t);                                                                                           \
            KEEP(low1_##t);                                                                                            \
        }                                                                                                              \
    }
#define KEEP_WORDS(t)                                                                                                  \
    if (t < n_tokens) {                                                                                                \
        KEEP(sum0_##t);                                                                                                \
        KEEP(sum1_##t);                                                                                                \
    }

#if HALVES
/* n_panels and n_tokens are constants after inlining, and all sums stay in registers. */
INLINE void multiply_bytes(const uint8_t *w, size_t n_panels, size_t n_cols, const qins_quantised *x, size_t col,
                           size_t first, size_t n_tokens, float *acc, size_t ld) {
    const int8_t *values = x->halves + 2 * (first * x->n_cols + col);
    size_t token_bytes = 2 * x->n_cols;
    for (unsigned part = 0; part < PARTS; part++) {
#define CLEAR(t) vi high0_##t = zero(), low0_##t = zero(), high1_##t = zero(), low1_##t = zero();
        EACH_TOKEN(CLEAR)
        for (size_t tile = 0; tile < n_cols / QINS_TILE_COLS; tile++)
            for (size_t block = 0; block < BLOCKS; block++) {
                const uint8_t *p = w + (tile * BLOCKS + block) * BLOCK_BYTES + part * V;
                const int8_t *columns = values + tile * 2 * QINS_TILE_COLS + 4 * block;
                vi entries0 = load(p), entries1 = n_panels > 1 ? load(p + QINS_DECODED_PANEL) : entries0;
#define DOT(t)                                                                                                         \
    if (t < n_tokens) {                                                                                                \
        high0_##t = dot_bytes(high0_##t, entries0, columns + t * token_bytes);                                         \
        low0_##t = dot_bytes(low0_##t, entries0, columns + t * token_bytes + QINS_TILE_COLS);                          \
        if (n_panels > 1) {                                                                                            \
            high1_##t = dot_bytes(high1_##t, entries1, columns + t * token_bytes);                                     \
            low1_##t = dot_bytes(low1_##t, entries1, columns + t * token_bytes + QINS_TILE_COLS);                      \
        }                                                                                                              \
    }
                EACH_TOKEN(DOT)
                EACH_TOKEN(KEEP_BYTES)
            }
#define FOLD(t)                                                                                                        \
    if (t < n_tokens) {                                                                                                \
        size_t unit = (first + t) * x->n_spans + col / QINS_SPAN_COLS;                                                 \
        float *out = acc + t * ld;                                                                                     \
        fold_part(out, combine(high0_##t, low0_##t), x->offsets[unit], x->units[unit], part);                          \
        if (n_panels > 1)                                                                                              \
            fold_part(out + QINS_PANEL_ROWS, combine(high1_##t, low1_##t), x->offsets[unit], x->units[unit], part);    \
    }
        EACH_TOKEN(FOLD)
#undef CLEAR
#undef DOT
#undef FOLD
    }
}
#endif

/* n_cols: 64 for int16 entries, a span for int8 ones, which then have offsets. */
INLINE void multiply_words(const uint8_t *w, size_t n_cols, const qins_quantised *x, size_t col, size_t first,
                           size_t n_tokens, bool offsets, float *acc, size_t ld) {
    const int16_t *values = x->words + first * x->n_cols + col;
    for (unsigned part = 0; part < PARTS; part++) {
#define CLEAR(t) vi sum0_##t = zero(), sum1_##t = zero();
        EACH_TOKEN(CLEAR)
        for (size_t block = 0; block < n_cols / 4; block++) {
            const uint8_t *p = w + block * 2 * BLOCK_BYTES + part * 2 * V;
            vi entries0 = load(p), entries1 = load(p + V);
#define DOT(t)                                                                                                         \
    if (t < n_tokens) {                                                                                                \
        sum0_##t = dot_words(sum0_##t, entries0, values + t * x->n_cols + 4 * block);                                  \
        sum1_##t = dot_words(sum1_##t, entries1, values + t * x->n_cols + 4 * block);                                  \
    }
            EACH_TOKEN(DOT)
            EACH_TOKEN(KEEP_WORDS)
        }
#define FOLD(t)                                                                                                        \
    if (t < n_tokens) {                                                                                                \
        size_t unit = (first + t) * x->n_spans + col / QINS_SPAN_COLS;                                                 \
        fold_part(acc + t * ld, pair_sum(sum0_##t, sum1_##t), offsets ? x->offsets[unit] : 0, x->units[unit], part);   \
    }
        EACH_TOKEN(FOLD)
#undef CLEAR
#undef DOT
#undef FOLD
    }
}

INLINE void multiply_words_all(const uint8_t *w, size_t n_panels, size_t n_cols, size_t step, const qins_quantised *x,
                               size_t col, size_t first, size_t n, bool offsets, float *acc, size_t ld) {
    for (size_t p = 0; p < n_panels; p++, w += QINS_DECODED_PANEL, acc += QINS_PANEL_ROWS)
        for (size_t k = 0; k < n_cols; k += step) {
            const uint8_t *entries = w + 2 * QINS_PANEL_ROWS * k;
            size_t t = 0, cols = qins_min_size(step, n_cols - k);
            for (; t + TOKENS_16 <= n; t += TOKENS_16)
                multiply_words(entries, cols, x, col + k, first + t, TOKENS_16, offsets, acc + t * ld, ld);
            for (; t < n; t++)
                multiply_words(entries, cols, x, col + k, first + t, 1, offsets, acc + t * ld, ld);
        }
}

static void multiply_8(const void *decoded, size_t n_panels, size_t n_cols, const qins_quantised *x, size_t col,
                       size_t first, size_t n, float *acc, size_t ld) {
#if HALVES
    size_t t = 0;
    for (; n_panels == 2 && t + TOKENS_8 <= n; t += TOKENS_8)
        multiply_bytes(decoded, 2, n_cols, x, col, first + t, TOKENS_8, acc + t * ld, ld);
    for (; n_panels == 2 && t + 2 <= n; t += 2)
        multiply_bytes(decoded, 2, n_cols, x, col, first + t, 2, acc + t * ld, ld);
    for (; n_panels == 2 && t < n; t++)
        multiply_bytes(decoded, 2, n_cols, x, col, first + t, 1, acc + t * ld, ld);
    for (; t + 2 <= n; t += 2)
        multiply_bytes(decoded, 1, n_cols, x, col, first + t, 2, acc + t * ld, ld);
    for (; t < n; t++)
        multiply_bytes(decoded, 1, n_cols, x, col, first + t, 1, acc + t * ld, ld);
#else
    multiply_words_all(decoded, n_panels, n_cols, QINS_SPAN_COLS, x, col, first, n, true, acc, ld);
#endif
}

#ifndef TILES
static void multiply_16(const void *decoded, size_t n_panels, size_t n_cols, const qins_quantised *x, size_t col,
                        size_t first, size_t n, float *acc, size_t ld) {
    multiply_words_all(decoded, n_panels, n_cols, QINS_TILE_COLS, x, col, first, n, false, acc, ld);
}
#endif

/* With TILES many vectors are multiplied by AMX. */
#ifdef TILES
#include "kernel/integer_tiles.h"
#define DECODE_16(tiles, bits, curved, table, n_cols, out) decode_planes(tiles, bits, table, n_cols, out)
#define MULTIPLY_8                                         multiply_8_tiles
#define MULTIPLY_16                                        multiply_16_tiles
#else
#define DECODE_16   decode_16
#define MULTIPLY_8  multiply_8
#define MULTIPLY_16 multiply_16
#endif

#define WIDTH_BYTES(bits, kind, trellis)                                                                               \
    static void dot_##bits##_##kind(const uint8_t *tiles, const qins_integer_table *table, const qins_quantised *x,    \
                                    size_t t, float *out) {                                                            \
        dot_8(tiles, bits, trellis, table, x, t, out);                                                                 \
    }                                                                                                                  \
    static void decode_##bits##_##kind(const uint8_t *tiles, const qins_integer_table *table, size_t n_cols,           \
                                       void *out) {                                                                    \
        decode_8(tiles, bits, trellis, table, n_cols, out);                                                            \
    }
#define WIDTH_8(bits)       WIDTH_BYTES(bits, 8, false)
#define WIDTH_TRELLIS(bits) WIDTH_BYTES(bits, trellis, true)
/* Both ways to look up: decided once a call. */
#define WIDTH_16(bits)                                                                                                 \
    static void dot_##bits##_16(const uint8_t *tiles, const qins_integer_table *table, const qins_quantised *x,        \
                                size_t t, float *out) {                                                                \
        if (CURVED && bits >= 7 && table->curved)                                                                      \
            dot_16(tiles, bits, true, table, x, t, out);                                                               \
        else                                                                                                           \
            dot_16(tiles, bits, false, table, x, t, out);                                                              \
    }                                                                                                                  \
    static void decode_##bits##_16(const uint8_t *tiles, const qins_integer_table *table, size_t n_cols, void *out) {  \
        if (CURVED && bits >= 7 && table->curved)                                                                      \
            DECODE_16(tiles, bits, true, table, n_cols, out);                                                          \
        else                                                                                                           \
            DECODE_16(tiles, bits, false, table, n_cols, out);                                                         \
    }
WIDTH_8(3)
WIDTH_8(4)
WIDTH_8(5)
WIDTH_8(6)
WIDTH_8(7)
WIDTH_8(8)
WIDTH_TRELLIS(2)
WIDTH_TRELLIS(3)
WIDTH_TRELLIS(4)
WIDTH_TRELLIS(5)
WIDTH_TRELLIS(6)
WIDTH_TRELLIS(7)
WIDTH_16(3)
WIDTH_16(4)
WIDTH_16(5)
WIDTH_16(6)
WIDTH_16(7)
WIDTH_16(8)

#define BOTH(function, bits)                                                                                           \
    { NULL, function##_##bits##_8, function##_##bits##_16 }
#define EACH(function, bits)                                                                                           \
    { NULL, function##_##bits##_8, function##_##bits##_16, function##_##bits##_trellis }
#define BY_WIDTH(function)                                                                                             \
    {                                                                                                                  \
        [2] = {NULL, NULL, NULL, function##_2_trellis}, [3] = EACH(function, 3), [4] = EACH(function, 4),              \
        [5] = EACH(function, 5), [6] = EACH(function, 6), [7] = EACH(function, 7), [8] = BOTH(function, 8)             \
    }

const qins_integer_kernels QINS_INTEGER_NAME = {
    .dot = BY_WIDTH(dot),
    .decode = BY_WIDTH(decode),
    .multiply = {NULL, MULTIPLY_8, MULTIPLY_16, MULTIPLY_8},
};
