/* Passes over activations with AVX2 and FMA. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME  avx2
#define QINS_VECTOR_LANES 8
#include "kernel/elementwise_vector.h"

#include <immintrin.h>

INLINE float sum_lanes(vf v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
}
