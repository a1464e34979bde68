/* Floats to GGUF blocks. SPDX-License-Identifier: MIT */
#include "format/gguf_write.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

/* A block: the scale d = max|x| / 127 as FP16, then round(x / d), halves away from zero. d is rounded to FP16 only when
 * it is stored; the division is a product with the FP32 reciprocal (ggml's quantize_row_q8_0_ref). */
void qins_quantize_q8_0(const float *src, size_t n, uint8_t *dst) {
    for (size_t i = 0; i < n; i += BLOCK, dst += sizeof(uint16_t) + BLOCK) {
        float largest = 0.0f;
        for (size_t k = 0; k < BLOCK; k++)
            largest = fmaxf(largest, fabsf(src[i + k]));
        float d = largest / 127.0f, inverse = d > 0.0f ? 1.0f / d : 0.0f;
        uint16_t half = qins_f32_to_f16(d);
        memcpy(dst, &half, sizeof half);
        for (size_t k = 0; k < BLOCK; k++)
            dst[sizeof half + k] = (uint8_t)(int8_t)roundf(src[i + k] * inverse);
    }
}
