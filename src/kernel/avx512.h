/* What vector.h needs, with AVX-512 (F, BW, DQ, VL). SPDX-License-Identifier: MIT */
#define QINS_VECTOR_LANES       16
#define QINS_VECTOR_TOKENS      8
#define QINS_VECTOR_ELEMENTWISE avx512
#include "kernel/vector.h"

#include <immintrin.h>

/* Entries of 64. */
static inline __m512 lookup_64(const float *table, __m512i i, __mmask16 bit5) {
    __m512 low = _mm512_permutex2var_ps(_mm512_loadu_ps(table), i, _mm512_loadu_ps(table + 16));
    __m512 high = _mm512_permutex2var_ps(_mm512_loadu_ps(table + 32), i, _mm512_loadu_ps(table + 48));
    return _mm512_mask_blend_ps(bit5, low, high);
}

/* Up to 128 entries live in registers. */
static inline vf lookup(const float *table, int bits, vu index) {
    __m512i i = (__m512i)index;
    if (bits == 3) return (vf)_mm512_permutexvar_ps(i, _mm512_castps256_ps512(_mm256_loadu_ps(table)));
    if (bits == 4) return (vf)_mm512_permutexvar_ps(i, _mm512_loadu_ps(table));
    if (bits == 5) return (vf)_mm512_permutex2var_ps(_mm512_loadu_ps(table), i, _mm512_loadu_ps(table + 16));
    __mmask16 bit5 = _mm512_test_epi32_mask(i, _mm512_set1_epi32(32));
    __m512 low = lookup_64(table, i, bit5);
    if (bits == 6) return (vf)low;
    return (vf)_mm512_mask_blend_ps(_mm512_test_epi32_mask(i, _mm512_set1_epi32(64)), low,
                                    lookup_64(table + 64, i, bit5));
}

static inline vf load_f16(const uint8_t *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline vf load_bf16(const uint8_t *p) {
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return (vf)_mm512_slli_epi32(words, 16);
}

static inline vf load_i8(const int8_t *p) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

static inline float sum_lanes(vf v) {
    return _mm512_reduce_add_ps((__m512)v);
}

static inline vu row_nibbles(const uint32_t half[2], unsigned part) {
    const vu shift = {0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28};
    uint32_t a = half[0], b = half[1];
    (void)part;
    return (vu){a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b} >> shift;
}

/* Four rounds, each a shuffle of all rows like that of two halves of a deck of cards. */
static inline void transpose(vf v[LANES]) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                  high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    vf w[LANES];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < LANES / 2; i++) {
            w[2 * i] = (vf)_mm512_permutex2var_ps((__m512)v[i], low, (__m512)v[i + LANES / 2]);
            w[2 * i + 1] = (vf)_mm512_permutex2var_ps((__m512)v[i], high, (__m512)v[i + LANES / 2]);
        }
        for (size_t i = 0; i < LANES / 2; i++) {
            v[2 * i] = (vf)_mm512_permutex2var_ps((__m512)w[i], low, (__m512)w[i + LANES / 2]);
            v[2 * i + 1] = (vf)_mm512_permutex2var_ps((__m512)w[i], high, (__m512)w[i + LANES / 2]);
        }
    }
}
