/* Half-precision conversions. SPDX-License-Identifier: MIT */
#include "format/checkpoint.h"

#include "format/half.h"

float qins_f16_to_f32(uint16_t h) {
    return qins_half_to_float(h);
}

uint16_t qins_f32_to_f16(float f) {
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

uint16_t qins_f32_to_bf16(float f) {
    uint32_t bits = qins_bits_from_float(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN, made quiet */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
