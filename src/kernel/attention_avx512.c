/* Arithmetic on cached rows with AVX-512 (F, BW, DQ, VL). SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME  avx512
#define QINS_VECTOR_CODES "kernel/attention_codes_avx2.h"
#include "kernel/attention_avx512.h"
