/* Inner loops of encoding for AVX2. SPDX-License-Identifier: MIT */
#include "codec/simd.h"

#include <immintrin.h>

#define QINS_SIMD_NAME avx2
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef double vd4 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) vf swap(int h, vf x) {
    __m256 v = (__m256)x;
    return (vf)(h == 1   ? _mm256_permute_ps(v, 0xb1)
                : h == 2 ? _mm256_permute_ps(v, 0x4e)
                         : _mm256_permute2f128_ps(v, v, 1));
}

static inline __attribute__((always_inline)) vf lookup(int bits, const float *table, vi index) {
    if (bits == 3) return (vf)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
    return (vf)_mm256_i32gather_ps(table, (__m256i)index, 4);
}

/* The cell of u and its one bound, as in qins_nearest_code. */
static inline __attribute__((always_inline)) vi nearest(int bits, const qins_codebook *book, vf u) {
    vf at = u * book->cells_per_unit + 0.5f * (float)QINS_CELLS;
    __m256 inside = _mm256_min_ps(_mm256_max_ps((__m256)at, _mm256_setzero_ps()), _mm256_set1_ps(QINS_CELLS - 1));
    __m256i cell = _mm256_cvttps_epi32(inside);
    vi code = (vi)_mm256_i32gather_epi32((const int *)(const void *)book->cell_code, cell, 1) & 255;
    return code - (vi)(u > lookup(bits, book->bounds, code));
}

static inline void store_codes(uint16_t *codes, vi code) {
    __m256i c = (__m256i)code;
    _mm_storeu_si128((void *)codes, _mm_packus_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1)));
}

static inline __attribute__((always_inline)) vd4 add_squares(vd4 sum, vf e) {
    vd4 low = (vd4)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)e)),
        high = (vd4)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)e, 1));
    sum += low * low;
    return sum + high * high;
}

#include "codec/simd_vector.h"
