/* The AMX kernels on the model of the instructions. SPDX-License-Identifier: MIT */
#include "kernel/integer.h"

#define QINS_AMX_MODEL    "amx_model.h"
#define QINS_INTEGER_NAME qins_integer_amx_model
#define QINS_AMX_LOOP     qins_amx_loop_model
#define VBMI              1
#define TILES             1

extern const qins_integer_kernels qins_integer_amx_model;
void qins_amx_loop_model(size_t n);

#include "kernel/integer_avx512.h"
