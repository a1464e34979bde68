/* AVX-512 (F, BW, DQ, VL). SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME   avx512
#define QINS_VECTOR_LANES  16
#define QINS_VECTOR_TOKENS 8
#include "kernel/vector.h"

#include <immintrin.h>

/* 16, 32 and 64 entries live in one, two and four registers; longer tables stay in the cache. */
static inline vf lookup(const float *table, int bits, vu index) {
    __m512i i = (__m512i)index;
    if (bits > 6) return (vf)_mm512_i32gather_ps(i, table, 4);
    if (bits == 3) return (vf)_mm512_permutexvar_ps(i, _mm512_castps256_ps512(_mm256_loadu_ps(table)));
    __m512 t0 = _mm512_loadu_ps(table);
    if (bits == 4) return (vf)_mm512_permutexvar_ps(i, t0);
    __m512 low = _mm512_permutex2var_ps(t0, i, _mm512_loadu_ps(table + 16));
    if (bits == 5) return (vf)low;
    __m512 high = _mm512_permutex2var_ps(_mm512_loadu_ps(table + 32), i, _mm512_loadu_ps(table + 48));
    return (vf)_mm512_mask_blend_ps(_mm512_test_epi32_mask(i, _mm512_set1_epi32(32)), low, high);
}

static inline vf load_f16(const uint8_t *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline vu row_nibbles(const uint32_t half[2], unsigned part) {
    const vu shift = {0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28};
    uint32_t a = half[0], b = half[1];
    (void)part;
    return (vu){a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b} >> shift;
}
