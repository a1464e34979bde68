/* The specification of every kernel, one value at a time. SPDX-License-Identifier: MIT */
#include "base/half.h"
#include "kernel/kernel.h"

#include <string.h>

static void decode(const uint8_t *tiles, int bits, const float *table, size_t n_cols, float *out) {
    for (size_t k = 0; k < n_cols; k++) {
        const uint8_t *tile = tiles + k / QINS_TILE_COLS * qins_tile_bytes(bits);
        for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
            out[k * QINS_PANEL_ROWS + row] = table[qins_unpack_code(tile, bits, row, k % QINS_TILE_COLS)];
    }
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

static void multiply_panel(const float *panel, size_t n_cols, const float *x, size_t ldx, size_t n_tokens, float *acc) {
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t k = 0; k < n_cols; k++)
            for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
                acc[t * QINS_PANEL_ROWS + row] += panel[k * QINS_PANEL_ROWS + row] * x[t * ldx + k];
}

static float dot(const float *a, const float *b, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static float number_at(const uint8_t *p, qins_number number) {
    uint32_t word;
    uint16_t half;
    if (number == QINS_NUMBER_F32) {
        memcpy(&word, p, sizeof word);
        return qins_float_from_bits(word);
    }
    memcpy(&half, p, sizeof half);
    return number == QINS_NUMBER_F16 ? qins_half_to_float(half) : qins_float_from_bits((uint32_t)half << 16);
}

static float dot_row(const uint8_t *w, qins_number number, const float *x, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += number_at(w + i * (number == QINS_NUMBER_F32 ? 4 : 2), number) * x[i];
    return sum;
}

static float dot_f32(const void *w, const float *x, size_t n) {
    return dot_row(w, QINS_NUMBER_F32, x, n);
}
static float dot_f16(const void *w, const float *x, size_t n) {
    return dot_row(w, QINS_NUMBER_F16, x, n);
}
static float dot_bf16(const void *w, const float *x, size_t n) {
    return dot_row(w, QINS_NUMBER_BF16, x, n);
}

static void turn_rows(const uint8_t *rows, size_t stride, qins_number number, size_t n_rows, size_t n, float *out) {
    for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
        for (size_t k = 0; k < n; k++)
            out[k * QINS_PANEL_ROWS + row] =
                row < n_rows ? number_at(rows + row * stride + k * (number == QINS_NUMBER_F32 ? 4 : 2), number) : 0;
}

static void panel_f32(const void *rows, size_t stride, size_t n_rows, size_t n, float *out) {
    turn_rows(rows, stride, QINS_NUMBER_F32, n_rows, n, out);
}
static void panel_f16(const void *rows, size_t stride, size_t n_rows, size_t n, float *out) {
    turn_rows(rows, stride, QINS_NUMBER_F16, n_rows, n, out);
}
static void panel_bf16(const void *rows, size_t stride, size_t n_rows, size_t n, float *out) {
    turn_rows(rows, stride, QINS_NUMBER_BF16, n_rows, n, out);
}

static void scale_panel(const float *scales, size_t n_cols, float *panel) {
    for (size_t k = 0; k < n_cols; k++)
        for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
            panel[k * QINS_PANEL_ROWS + row] *= scales[row];
}

static void signed_entries(const uint8_t *codes, const int8_t *signs, const float *table, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = table[codes[i]] * (float)signs[i];
}

static void rational(const float *z, float alpha, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = (float)qins_rational_w((double)alpha, (double)z[i]);
}

static void add_scaled(float a, const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

const qins_kernels qins_kernels_scalar = {
    .name = "scalar",
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
    .elementwise = &qins_elementwise_scalar,
};
