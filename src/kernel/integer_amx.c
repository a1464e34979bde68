/* AVX-512 with VNNI and VBMI; many vectors with AMX-int8. SPDX-License-Identifier: MIT */
#include "kernel/integer.h"

#define QINS_INTEGER_NAME qins_integer_amx
#define QINS_AMX_LOOP     qins_amx_loop
#define VBMI              1
#define TILES             1
#include "kernel/integer_avx512.h"
