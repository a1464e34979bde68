/* AVX2 and FMA. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME   avx2
#define QINS_VECTOR_LANES  8
#define QINS_VECTOR_TOKENS 4
#include "kernel/vector.h"

#include <immintrin.h>

/* 16 entries live in two registers. Longer tables are read entry by entry: slower gathers were measured than loads. */
static inline vf lookup(const float *table, int bits, vu index) {
    if (bits > 4)
        return (vf){table[index[0]], table[index[1]], table[index[2]], table[index[3]],
                    table[index[4]], table[index[5]], table[index[6]], table[index[7]]};
    __m256i i = (__m256i)index;
    __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i);
    if (bits == 3) return (vf)low;
    __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i);
    return (vf)_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28))); /* bit 3 to the sign */
}

static inline vf load_f16(const uint8_t *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline vu row_nibbles(const uint32_t half[2], unsigned part) {
    const vu shift = {0, 4, 8, 12, 16, 20, 24, 28};
    uint32_t h = half[part];
    return (vu){h, h, h, h, h, h, h, h} >> shift;
}
