/* Arithmetic on cached rows with AVX2, FMA and F16C. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME   avx2
#define QINS_VECTOR_LANES  8
#define QINS_VECTOR_CHUNKS 2
#define QINS_VECTOR_CODES  "kernel/attention_codes_avx2.h"
#include "kernel/attention_vector.h"

#include <immintrin.h>

INLINE vf load_half(const uint16_t *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE void store_half(uint16_t *p, vf v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}

INLINE vf load_bytes(const uint8_t *p) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

INLINE void store_bytes(uint8_t *p, vu v) {
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(words, words));
}

/* 8 codes of b bits are b bytes. Each word gets the two bytes that hold its code, then the code moves to its lowest
 * bit.
 */
INLINE vu load_codes(const uint8_t *row, int bits, size_t i) {
    char b = (char)bits;
    __m256i bytes =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(row + i / 8 * (size_t)bits)));
#define PAIR(j) (char)((j)*b / 8), (char)((j)*b / 8 + 1), -1, -1
    const __m256i pick = _mm256_setr_epi8(PAIR(0), PAIR(1), PAIR(2), PAIR(3), PAIR(4), PAIR(5), PAIR(6), PAIR(7));
#undef PAIR
    const __m256i shift = _mm256_setr_epi32(0, b % 8, 2 * b % 8, 3 * b % 8, 4 * b % 8, 5 * b % 8, 6 * b % 8, 7 * b % 8);
    return (vu)_mm256_srlv_epi32(_mm256_shuffle_epi8(bytes, pick), shift);
}

/* 16 entries live in two registers; longer tables are read entry by entry. */
INLINE vf lookup(const float *table, int bits, vu codes) {
    __m256i i = (__m256i)codes;
    if (bits > 4) {
        codes &= (1u << bits) - 1;
        return (vf){table[codes[0]], table[codes[1]], table[codes[2]], table[codes[3]],
                    table[codes[4]], table[codes[5]], table[codes[6]], table[codes[7]]};
    }
    __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), i);
    if (bits == 3) return (vf)low;
    __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), i);
    return (vf)_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28))); /* bit 3 to the sign */
}

INLINE float sum_lanes(vf v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE float max_lanes(vf v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
