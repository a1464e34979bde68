/* Which kernels this CPU runs. SPDX-License-Identifier: MIT */
#include "kernel/kernel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum { MAX_TABLES = 8 };

#if defined(__x86_64__)
/* clang before 15 does not know "f16c" in __builtin_cpu_supports. */
static bool has_f16c(void) {
    unsigned eax, ebx, ecx = 0, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

size_t qins_all_kernels(const qins_kernels **tables, size_t max) {
    const qins_kernels *found[MAX_TABLES];
    size_t n = 0;
    found[n++] = &qins_kernels_scalar;
    found[n++] = &qins_kernels_generic;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (avx2) found[n++] = &qins_kernels_avx2;
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found[n++] = &qins_kernels_avx512;
#endif
    n = qins_min_size(n, max);
    memcpy(tables, found, n * sizeof *tables);
    return n;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const qins_kernels *chosen;

/* The best one, or the one that QINS_CPU names if this CPU can run it. */
static void choose(void) {
    const qins_kernels *tables[MAX_TABLES];
    size_t n = qins_all_kernels(tables, MAX_TABLES);
    chosen = tables[n - 1];
    const char *name = getenv("QINS_CPU");
    for (size_t i = 0; name != NULL && i < n; i++)
        if (strcmp(tables[i]->name, name) == 0) chosen = tables[i];
}

const qins_kernels *qins_get_kernels(void) {
    pthread_once(&once, choose);
    return chosen;
}

const qins_attention_kernels *qins_get_attention_kernels(void) {
    return qins_get_kernels()->attention;
}

const char *qins_cpu_level(void) {
    return qins_get_kernels()->name;
}
