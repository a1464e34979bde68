/* What the compiler makes of the vector kernels with the baseline instruction set. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME    generic
#define QINS_VECTOR_LANES   4
#define QINS_VECTOR_TOKENS  2
#define QINS_LONG_BITS      5
#define QINS_VECTOR_ENTRIES "kernel/entries_copy.h"
#include "kernel/vector.h"

#include "base/half.h"

static inline vf lookup(const float *table, int bits, vu index) {
    (void)bits;
    return (vf){table[index[0]], table[index[1]], table[index[2]], table[index[3]]};
}

static inline vf load_f16(const uint8_t *p) {
    uint16_t half[4];
    memcpy(half, p, sizeof half);
    return (vf){qins_half_to_float(half[0]), qins_half_to_float(half[1]), qins_half_to_float(half[2]),
                qins_half_to_float(half[3])};
}

static inline vf load_bf16(const uint8_t *p) {
    uint16_t half[4];
    memcpy(half, p, sizeof half);
    return (vf)((vu){half[0], half[1], half[2], half[3]} << 16);
}

static inline vf load_i8(const int8_t *p) {
    return (vf){p[0], p[1], p[2], p[3]};
}

static inline float sum_lanes(vf v) {
    return (v[0] + v[1]) + (v[2] + v[3]);
}

static inline vu row_nibbles(const uint32_t half[2], unsigned part) {
    const vu shift = {0, 4, 8, 12};
    uint32_t h = half[part / 2] >> 16 * (part % 2);
    return (vu){h, h, h, h} >> shift;
}

static inline void transpose(vf v[LANES]) {
    for (size_t i = 0; i < LANES; i++)
        for (size_t j = 0; j < i; j++) {
            float upper = v[j][i];
            v[j][i] = v[i][j];
            v[i][j] = upper;
        }
}
