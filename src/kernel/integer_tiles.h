/* Many vectors with AMX: tiles of 16 tokens times 16 rows of a panel, 64 columns at a time. SPDX-License-Identifier:
 * MIT
 *
 * Included by integer_vector.h for the level that has them. A decoded tile of a panel (64 columns of 16 rows, column
 * k of row r at byte 64*(k/4) + 4*r + k%4) is a second operand of tdpbsud as it lies there, and the halves of the
 * inputs, 64 columns a token, are rows of a first one. QINS_AMX_MODEL: a header that computes in C what the
 * instructions do, for tests on machines without them.
 */
#ifdef QINS_AMX_MODEL
#include QINS_AMX_MODEL
#endif

enum {
    TILE_ROWS = 16,
    TILE_BYTES = 64, /* of a row */
    PLANE = QINS_DECODED_PANEL / 2,
    FEWEST_TOKENS = 8 /* of a tile that is worth its 16; not measured, no machine at hand has AMX */
};

/* The operand of ldtilecfg (Intel SDM volume 1, 18.3.1): all eight tiles are full. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t colsb[16];
    uint8_t rows[16];
} tile_config;

static void configure_tiles(void) {
    _Alignas(64) tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.rows[i] = TILE_ROWS;
        config.colsb[i] = TILE_BYTES;
    }
    _tile_loadconfig(&config);
}

typedef struct tile_sums {
    _Alignas(64) int32_t token[TILE_ROWS][QINS_PANEL_ROWS];
} tile_sums;

/* The halves of 16 tokens: theirs, or copies with zeros for those that do not exist. stride: bytes from token to token.
 */
typedef struct tile_inputs {
    const int8_t *halves;
    size_t stride;
    _Alignas(64) int8_t padded[TILE_ROWS][2 * QINS_SPAN_COLS];
} tile_inputs;

static void load_inputs(tile_inputs *in, const qins_quantised *x, size_t col, size_t n_cols, size_t first,
                        size_t n_tokens) {
    in->halves = x->halves + 2 * (first * x->n_cols + col);
    in->stride = 2 * x->n_cols;
    if (n_tokens == TILE_ROWS) return;
    memset(in->padded, 0, sizeof in->padded);
    for (size_t t = 0; t < n_tokens; t++)
        memcpy(in->padded[t], in->halves + t * in->stride, 2 * n_cols);
    in->halves = in->padded[0];
    in->stride = sizeof in->padded[0];
}

/* Up to 16 tokens and two panels of bytes: entry + 128. */
static void multiply_tiles_8(const uint8_t *w, size_t n_panels, size_t n_cols, const qins_quantised *x, size_t col,
                             size_t first, size_t n_tokens, float *acc, size_t ld) {
    tile_inputs in;
    tile_sums high[2], low[2];
    load_inputs(&in, x, col, n_cols, first, n_tokens);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS) {
        const int8_t *columns = in.halves + 2 * k;
        const uint8_t *entries = w + k * QINS_PANEL_ROWS;
        _tile_loadd(4, columns, in.stride);
        _tile_loadd(5, columns + QINS_TILE_COLS, in.stride);
        _tile_loadd(6, entries, TILE_BYTES);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 5, 6);
        if (n_panels > 1) {
            _tile_loadd(7, entries + QINS_DECODED_PANEL, TILE_BYTES);
            _tile_dpbsud(2, 4, 7);
            _tile_dpbsud(3, 5, 7);
        }
    }
    _tile_stored(0, high[0].token, TILE_BYTES);
    _tile_stored(1, low[0].token, TILE_BYTES);
    _tile_stored(2, high[1].token, TILE_BYTES);
    _tile_stored(3, low[1].token, TILE_BYTES);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t p = 0; p < n_panels; p++) {
            size_t unit = (first + t) * x->n_spans + col / QINS_SPAN_COLS;
            fold_part(acc + t * ld + p * QINS_PANEL_ROWS, combine(load(high[p].token[t]), load(low[p].token[t])),
                      x->offsets[unit], x->units[unit], 0);
        }
}

/* Up to 16 tokens and one panel of words in two planes, entry = 256 * upper + lower, lower unsigned:
 * 65536 xh*eh + 256 (xh*el + xl*eh) + xl*el. Each of the three sums is below 2^24 over a span, so that floats hold it.
 */
static void multiply_tiles_16(const uint8_t *w, size_t n_cols, const qins_quantised *x, size_t col, size_t first,
                              size_t n_tokens, float *acc, size_t ld) {
    tile_inputs in;
    tile_sums high, middle, low;
    load_inputs(&in, x, col, n_cols, first, n_tokens);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS) {
        const int8_t *columns = in.halves + 2 * k;
        const uint8_t *entries = w + k * QINS_PANEL_ROWS;
        _tile_loadd(4, columns, in.stride);
        _tile_loadd(5, columns + QINS_TILE_COLS, in.stride);
        _tile_loadd(6, entries, TILE_BYTES);
        _tile_loadd(7, entries + PLANE, TILE_BYTES);
        _tile_dpbssd(0, 4, 7);
        _tile_dpbsud(1, 4, 6);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbssd(1, 5, 7);
    }
    _tile_stored(0, high.token, TILE_BYTES);
    _tile_stored(1, middle.token, TILE_BYTES);
    _tile_stored(2, low.token, TILE_BYTES);
    for (size_t t = 0; t < n_tokens; t++) {
        float unit = x->units[(first + t) * x->n_spans + col / QINS_SPAN_COLS], *out = acc + t * ld;
        vf sum = multiply_add(load_f(out), load(high.token[t]), 65536.0f * unit);
        sum = multiply_add(sum, load(middle.token[t]), 256.0f * unit);
        store_f(out, multiply_add(sum, load(low.token[t]), unit));
    }
}

static void multiply_8_tiles(const void *decoded, size_t n_panels, size_t n_cols, const qins_quantised *x, size_t col,
                             size_t first, size_t n, float *acc, size_t ld) {
    size_t t = 0;
    if (n >= FEWEST_TOKENS) configure_tiles();
    for (; t + FEWEST_TOKENS <= n; t += qins_min_size(TILE_ROWS, n - t))
        multiply_tiles_8(decoded, n_panels, n_cols, x, col, first + t, qins_min_size(TILE_ROWS, n - t), acc + t * ld,
                         ld);
    if (t < n) multiply_8(decoded, n_panels, n_cols, x, col, first + t, n - t, acc + t * ld, ld);
    if (n >= FEWEST_TOKENS) _tile_release();
}

static void multiply_16_tiles(const void *decoded, size_t n_panels, size_t n_cols, const qins_quantised *x, size_t col,
                              size_t first, size_t n, float *acc, size_t ld) {
    configure_tiles();
    for (size_t p = 0; p < n_panels; p++)
        for (size_t t = 0; t < n; t += TILE_ROWS)
            multiply_tiles_16((const uint8_t *)decoded + p * QINS_DECODED_PANEL, n_cols, x, col, first + t,
                              qins_min_size(TILE_ROWS, n - t), acc + t * ld + p * QINS_PANEL_ROWS, ld);
    _tile_release();
}

/* Lower bytes of the entries, then the upper ones, as bytes [block][64]. */
INLINE void decode_planes(const uint8_t *tile, int bits, const qins_integer_table *table, size_t n_cols, uint8_t *out) {
    const table_16 tables = load_table_16(table, bits, false);
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tile += qins_tile_bytes(bits))
        UNROLL(16)
    for (unsigned block = 0; block < BLOCKS; block++, out += BLOCK_BYTES) {
        vi index = codes(tile, bits, block);
        store(out, look_up(&tables.low, bits, index));
        store(out + PLANE, look_up(&tables.high, bits, index));
    }
}

void QINS_AMX_LOOP(size_t n) {
    _Alignas(64) static const uint8_t zeros[TILE_ROWS * TILE_BYTES];
    configure_tiles();
    _tile_loadd(6, zeros, TILE_BYTES);
    _tile_loadd(7, zeros, TILE_BYTES);
    for (size_t i = 0; i < n; i += 4) {
        _tile_dpbsud(0, 6, 7);
        _tile_dpbsud(1, 6, 7);
        _tile_dpbsud(2, 6, 7);
        _tile_dpbsud(3, 6, 7);
    }
    _tile_release();
}
