/* AVX2. SPDX-License-Identifier: MIT */
#define QINS_INTEGER_NAME qins_integer_avx2
#define VNNI              0
#include "kernel/integer_avx2.h"
