/* What the compiler makes of arithmetic on cached rows with the baseline instruction set. SPDX-License-Identifier: MIT
 */
#define QINS_VECTOR_NAME   generic
#define QINS_VECTOR_LANES  4
#define QINS_VECTOR_CHUNKS 2
#include "kernel/attention_vector.h"

INLINE vf load_half(const uint16_t *p) {
    return (vf){qins_half_to_float(p[0]), qins_half_to_float(p[1]), qins_half_to_float(p[2]), qins_half_to_float(p[3])};
}

INLINE void store_half(uint16_t *p, vf v) {
    for (size_t i = 0; i < LANES; i++)
        p[i] = qins_float_to_half(v[i]);
}

INLINE vf load_bytes(const uint8_t *p) {
    return (vf){p[0], p[1], p[2], p[3]};
}

INLINE void store_bytes(uint8_t *p, vu v) {
    for (size_t i = 0; i < LANES; i++)
        p[i] = (uint8_t)v[i];
}

INLINE vu load_codes(const uint8_t *row, int bits, size_t i) {
    unsigned b = (unsigned)bits, first = (unsigned)(i * b % 8);
    uint32_t word;
    memcpy(&word, row + i * b / 8, sizeof word);
    return (vu){word >> first, word >> (first + b), word >> (first + 2 * b), word >> (first + 3 * b)};
}

INLINE vf lookup(const float *table, int bits, vu codes) {
    codes &= (1u << bits) - 1;
    return (vf){table[codes[0]], table[codes[1]], table[codes[2]], table[codes[3]]};
}

INLINE float sum_lanes(vf v) {
    return (v[0] + v[1]) + (v[2] + v[3]);
}

INLINE float max_lanes(vf v) {
    float low = v[0] > v[1] ? v[0] : v[1], high = v[2] > v[3] ? v[2] : v[3];
    return low > high ? low : high;
}
