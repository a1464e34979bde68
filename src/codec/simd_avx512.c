/* Inner loops of encoding for AVX-512 (F, BW, DQ, VL). SPDX-License-Identifier: MIT */
#include "codec/simd.h"

#include <immintrin.h>

#define QINS_SIMD_NAME avx512
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef double vd4 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) vf swap(int h, vf x) {
    __m512 v = (__m512)x;
    return (vf)(h == 1   ? _mm512_permute_ps(v, 0xb1)
                : h == 2 ? _mm512_permute_ps(v, 0x4e)
                : h == 4 ? _mm512_shuffle_f32x4(v, v, 0xb1)
                         : _mm512_shuffle_f32x4(v, v, 0x4e));
}

/* Tables of 8 to 64 entries live in registers; longer ones stay in the cache. */
static inline __attribute__((always_inline)) vf lookup(int bits, const float *table, vi index) {
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

/* The cell of u and its one bound, as in qins_nearest_code. */
static inline __attribute__((always_inline)) vi nearest_by_cell(const qins_codebook *book, vf u) {
    vf at = u * book->cells_per_unit + 0.5f * (float)QINS_CELLS;
    __m512 inside = _mm512_min_ps(_mm512_max_ps((__m512)at, _mm512_setzero_ps()), _mm512_set1_ps(QINS_CELLS - 1));
    __m512i cell = _mm512_cvttps_epi32(inside);
    __m512i code = _mm512_and_si512(_mm512_i32gather_epi32(cell, book->cell_code, 1), _mm512_set1_epi32(255));
    __mmask16 above = _mm512_cmp_ps_mask((__m512)u, _mm512_i32gather_ps(code, book->bounds, 4), _CMP_GT_OQ);
    return (vi)_mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(1));
}

/* The number of bounds below u, by halving. */
static inline __attribute__((always_inline)) vi nearest(int bits, const qins_codebook *book, vf u) {
    if (bits > 6) return nearest_by_cell(book, u);
    __m512i code = _mm512_setzero_si512();
    for (int step = 1 << (bits - 1); step > 0; step /= 2) {
        vf bound = step == 1 << (bits - 1)
                       ? (vf)_mm512_set1_ps(book->bounds[step - 1])
                       : lookup(bits, book->bounds, (vi)_mm512_add_epi32(code, _mm512_set1_epi32(step - 1)));
        __mmask16 above = _mm512_cmp_ps_mask((__m512)u, (__m512)bound, _CMP_GT_OQ);
        code = _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(step));
    }
    return (vi)code;
}

static inline void store_codes(uint16_t *codes, vi code) {
    _mm256_storeu_si256((void *)codes, _mm512_cvtepi32_epi16((__m512i)code));
}

static inline __attribute__((always_inline)) vd4 add_squares(vd4 sum, vf e) {
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256((__m512)e)),
            high = _mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)e, 1));
    low = _mm512_mul_pd(low, low);
    high = _mm512_mul_pd(high, high);
    sum += (vd4)_mm512_castpd512_pd256(low);
    sum += (vd4)_mm512_extractf64x4_pd(low, 1);
    sum += (vd4)_mm512_castpd512_pd256(high);
    return sum + (vd4)_mm512_extractf64x4_pd(high, 1);
}

#include "codec/simd_vector.h"
