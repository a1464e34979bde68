/* AVX2 and FMA. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME    avx2
#define QINS_VECTOR_LANES   8
#define QINS_VECTOR_TOKENS  6
#define QINS_LONG_BITS      7
#define QINS_VECTOR_ENTRIES "kernel/entries_copy.h"
#include "kernel/vector.h"

#include <immintrin.h>

/* The second where `bit` of the index is set. */
static inline __m256 choose(__m256 low, __m256 high, __m256i i, int bit) {
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 31 - bit)));
}

static inline __m256 lookup_8(const float *table, __m256i i) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i);
}

static inline __m256 lookup_32(const float *table, __m256i i) {
    return choose(choose(lookup_8(table, i), lookup_8(table + 8, i), i, 3),
                  choose(lookup_8(table + 16, i), lookup_8(table + 24, i), i, 3), i, 4);
}

/* Entries of 8 at once, the right ones chosen bit by bit. */
static inline vf lookup(const float *table, int bits, vu index) {
    __m256i i = (__m256i)index;
    if (bits == 3) return (vf)lookup_8(table, i);
    if (bits == 4) return (vf)choose(lookup_8(table, i), lookup_8(table + 8, i), i, 3);
    __m256 low = lookup_32(table, i);
    return (vf)(bits == 5 ? low : choose(low, lookup_32(table + 32, i), i, 5));
}

static inline vf load_f16(const uint8_t *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline vf load_bf16(const uint8_t *p) {
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)), 16);
}

static inline vf load_i8(const int8_t *p) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

static inline float sum_lanes(vf v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline vu row_nibbles(const uint32_t half[2], unsigned part) {
    const vu shift = {0, 4, 8, 12, 16, 20, 24, 28};
    uint32_t h = half[part];
    return (vu){h, h, h, h, h, h, h, h} >> shift;
}

/* 4 x 4 values of each half, then the halves. */
static inline void transpose(vf v[LANES]) {
    __m256 a[LANES], b[LANES];
    for (size_t i = 0; i < LANES; i += 2) {
        a[i] = _mm256_unpacklo_ps((__m256)v[i], (__m256)v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps((__m256)v[i], (__m256)v[i + 1]);
    }
    for (size_t i = 0; i < LANES; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
    for (size_t i = 0; i < LANES / 2; i++) {
        v[i] = (vf)_mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = (vf)_mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}
