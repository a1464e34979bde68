/* Arithmetic on cached rows with AVX-512, coded ones with VBMI and VNNI. SPDX-License-Identifier: MIT */
#define QINS_VECTOR_NAME  avx512vbmi
#define QINS_VECTOR_CODES "kernel/attention_codes_vbmi.h"
#include "kernel/attention_avx512.h"
