/* AVX-512 with VNNI. SPDX-License-Identifier: MIT */
#define QINS_INTEGER_NAME qins_integer_avx512
#define VBMI              0
#include "kernel/integer_avx512.h"
