/* Half-precision conversions. SPDX-License-Identifier: MIT */
#include "format/checkpoint.h"

#include "base/half.h"

float qins_f16_to_f32(uint16_t h) {
    return qins_half_to_float(h);
}

uint16_t qins_f32_to_f16(float f) {
    return qins_float_to_half(f);
}

uint16_t qins_f32_to_bf16(float f) {
    uint32_t bits = qins_bits_from_float(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN, made quiet */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
