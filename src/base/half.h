/* FP16 to FP32 without branches, for loops, and back. SPDX-License-Identifier: MIT */
#ifndef QINS_BASE_HALF_H
#define QINS_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float qins_float_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t qins_bits_from_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Exact; the payload of NaNs is kept. All three cases are computed so that compilers vectorise it. */
static inline float qins_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t normal = magnitude + (112u << 23);  /* from exponent bias 15 to 127 */
    uint32_t special = magnitude + (224u << 23); /* infinity and NaN: exponent 31 becomes 255 */
    /* subnormal: with an exponent of -14 in front, (1 + fraction) * 2^-14 - 2^-14 is exact */
    uint32_t subnormal = qins_bits_from_float(qins_float_from_bits(magnitude + (113u << 23)) - 0x1p-14f);
    uint32_t bits = magnitude < 0x00800000u ? subnormal : magnitude < 0x0f800000u ? normal : special;
    return qins_float_from_bits(sign | bits);
}

/* Nearest, ties to even; NaN stays NaN. */
static inline uint16_t qins_float_to_half(float f) {
    uint32_t bits = qins_bits_from_float(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (bits >> 13 & 0x3ffu)); /* NaN, made quiet */
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (bits < 0x38800000u) {
        /* below 2^-14: adding 0.5 leaves multiples of 2^-24 in the fraction, rounded to even by the addition */
        uint32_t rounded = qins_bits_from_float(qins_float_from_bits(bits) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | rounded);
    }
    uint32_t odd = bits >> 13 & 1u;
    return (uint16_t)(sign | (bits - (112u << 23) + 0xfffu + odd) >> 13);
}

#endif
