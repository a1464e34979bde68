/* FP32 with AVX-512, long tables with VBMI. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME    avx512vbmi
#define QINS_LONG_BITS      6
#define QINS_VECTOR_ENTRIES "kernel/entries_vbmi.h"
#include "kernel/avx512.h"
