/* Passes over activations with AVX-512 (F, BW, DQ, VL). SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME  avx512
#define QINS_VECTOR_LANES 16
#include "kernel/elementwise_vector.h"

#include <immintrin.h>

INLINE float sum_lanes(vf v) {
    return _mm512_reduce_add_ps((__m512)v);
}
