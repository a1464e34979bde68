/* What attention_vector.h needs, with AVX-512 (F, BW, DQ, VL). SPDX-License-Identifier: MIT */
#define QINS_VECTOR_LANES  16
#define QINS_VECTOR_CHUNKS 4
#define QINS_VECTOR_FOURS
#include "kernel/attention_vector.h"

#include <immintrin.h>

INLINE vf load_half(const uint16_t *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

INLINE void store_half(uint16_t *p, vf v) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}

INLINE vf load_bytes(const uint8_t *p) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

INLINE void store_bytes(uint8_t *p, vu v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8((__m512i)v));
}

/* 16 codes of b bits are 2 b bytes. Each word gets the two bytes that hold its code, then the code moves to its lowest
 * bit. */
INLINE vu load_codes(const uint8_t *row, int bits, size_t i) {
    int b = bits;
    __m512i bytes =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(row + i / 8 * (size_t)bits)));
#define PAIR(j) (int)(0x80800000u | (unsigned)((j)*b / 8 + 1) << 8 | (unsigned)((j)*b / 8))
#define BIT(j)  ((j)*b % 8)
    const __m512i pick =
        _mm512_setr_epi32(PAIR(0), PAIR(1), PAIR(2), PAIR(3), PAIR(4), PAIR(5), PAIR(6), PAIR(7), PAIR(8), PAIR(9),
                          PAIR(10), PAIR(11), PAIR(12), PAIR(13), PAIR(14), PAIR(15));
    const __m512i shift = _mm512_setr_epi32(BIT(0), BIT(1), BIT(2), BIT(3), BIT(4), BIT(5), BIT(6), BIT(7), BIT(8),
                                            BIT(9), BIT(10), BIT(11), BIT(12), BIT(13), BIT(14), BIT(15));
#undef PAIR
#undef BIT
    return (vu)_mm512_srlv_epi32(_mm512_shuffle_epi8(bytes, pick), shift);
}

/* The tables of up to 6 bits live in one, two or four registers. Permutations use no more bits of an index than they
 * need. */
INLINE vf lookup(const float *table, int bits, vu codes) {
    __m512i i = (__m512i)codes;
    if (bits == 3) i = _mm512_and_si512(i, _mm512_set1_epi32(7));
    __m512 t0 = _mm512_load_ps(table);
    if (bits <= 4) return (vf)_mm512_permutexvar_ps(i, t0);
    __m512 low = _mm512_permutex2var_ps(t0, i, _mm512_load_ps(table + 16));
    if (bits == 5) return (vf)low;
    __m512 high = _mm512_permutex2var_ps(_mm512_load_ps(table + 32), i, _mm512_load_ps(table + 48));
    return (vf)_mm512_mask_blend_ps(_mm512_test_epi32_mask(i, _mm512_set1_epi32(32)), low, high);
}

INLINE float sum_lanes(vf v) {
    return _mm512_reduce_add_ps((__m512)v);
}

INLINE float max_lanes(vf v) {
    return _mm512_reduce_max_ps((__m512)v);
}

INLINE __m512 add_pairs(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

/* In each 128 bits, four sums of as many values. */
INLINE __m512 sum_quarters(const vf v[4]) {
    __m512d a = _mm512_castps_pd(add_pairs((__m512)v[0], (__m512)v[1])),
            b = _mm512_castps_pd(add_pairs((__m512)v[2], (__m512)v[3]));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}

INLINE __m512 add_halves(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

INLINE vf sum_fours(vf v[4][4]) {
    return (vf)add_halves(add_halves(sum_quarters(v[0]), sum_quarters(v[1])),
                          add_halves(sum_quarters(v[2]), sum_quarters(v[3])));
}
