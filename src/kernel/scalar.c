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

static float dot_f32(const void *w, const float *x, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, (const uint8_t *)w + i * sizeof value, sizeof value);
        sum += value * x[i];
    }
    return sum;
}

static float dot_f16(const void *w, const float *x, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, (const uint8_t *)w + i * sizeof half, sizeof half);
        sum += qins_half_to_float(half) * x[i];
    }
    return sum;
}

static float dot_bf16(const void *w, const float *x, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, (const uint8_t *)w + i * sizeof half, sizeof half);
        sum += qins_float_from_bits((uint32_t)half << 16) * x[i];
    }
    return sum;
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
    .add_scaled = add_scaled,
    .elementwise = &qins_elementwise_scalar,
};
