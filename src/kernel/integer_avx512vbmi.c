/* AVX-512 with VNNI and VBMI. SPDX-License-Identifier: MIT */
#define QINS_INTEGER_NAME qins_integer_avx512vbmi
#define VBMI              1
#include "kernel/integer_avx512.h"
