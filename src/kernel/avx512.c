/* FP32 with AVX-512 (F, BW, DQ, VL). SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME    avx512
#define QINS_LONG_BITS      8
#define QINS_VECTOR_ENTRIES "kernel/entries_copy.h"
#include "kernel/avx512.h"
