/* What the compiler makes of passes over activations with the baseline instruction set. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME  generic
#define QINS_VECTOR_LANES 4
#include "kernel/elementwise_vector.h"

INLINE float sum_lanes(vf v) {
    return (v[0] + v[1]) + (v[2] + v[3]);
}
