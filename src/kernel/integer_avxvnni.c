/* AVX2 with AVX-VNNI. SPDX-License-Identifier: MIT */
#define QINS_INTEGER_NAME qins_integer_avxvnni
#define VNNI              1
#include "kernel/integer_avx2.h"
