/* Which kernels this CPU runs. SPDX-License-Identifier: MIT */
#include "kernel/kernel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

enum { MAX_LEVELS = 16 };

#if defined(__x86_64__)
/* clang before 15 does not know "f16c" in __builtin_cpu_supports. */
static bool has_f16c(void) {
    unsigned eax, ebx, ecx = 0, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

typedef struct level {
    qins_cpu cpu;
    bool (*runs)(void);
} level;

static bool always(void) {
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
/* EAX bit 4 of leaf 7, subleaf 1; older compilers have no name for it. */
static bool has_avxvnni(void) {
    unsigned eax, ebx, ecx, edx;
    return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1u) != 0;
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool has_avx512_vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
static bool has_avx512_vbmi(void) {
    return has_avx512_vnni() && __builtin_cpu_supports("avx512vbmi");
}

#if defined(QINS_HAVE_AMX)
/* AMX-TILE and AMX-INT8 are EDX bits 24 and 25 of leaf 7. Linux enables the registers a process that asks (Linux,
 * Documentation/arch/x86/xstate.rst). */
bool qins_has_amx(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned eax, ebx, ecx, edx;
    if (!has_avx512_vbmi() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx >> 24 & 3u) != 3u)
        return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif
#endif

#if defined(__aarch64__)
static bool has_dot_product(void) {
    enum { DOT_PRODUCT = 1 << 20 }; /* HWCAP_ASIMDDP of Linux */
    return (getauxval(AT_HWCAP) & DOT_PRODUCT) != 0;
}
#endif

/* From the lowest to the best. */
static const level levels[] = {
    {{"scalar", &qins_kernels_scalar, &qins_integer_scalar, &qins_attention_scalar}, always},
    {{"generic", &qins_kernels_generic, NULL, &qins_attention_generic}, always},
#if defined(__x86_64__)
    {{"avx2", &qins_kernels_avx2, &qins_integer_avx2, &qins_attention_avx2}, has_avx2},
    {{"avxvnni", &qins_kernels_avx2, &qins_integer_avxvnni, &qins_attention_avx2}, has_avxvnni},
    {{"avx512", &qins_kernels_avx512, &qins_integer_avx2, &qins_attention_avx512}, has_avx512},
    {{"avx512vnni", &qins_kernels_avx512, &qins_integer_avx512, &qins_attention_avx512}, has_avx512_vnni},
    {{"avx512vbmi", &qins_kernels_avx512vbmi, &qins_integer_avx512vbmi, &qins_attention_avx512vbmi}, has_avx512_vbmi},
#if defined(QINS_HAVE_AMX)
    {{"amx", &qins_kernels_avx512vbmi, &qins_integer_amx, &qins_attention_avx512vbmi}, qins_has_amx},
#endif
#endif
#if defined(__aarch64__)
    {{"neon", &qins_kernels_generic, &qins_integer_neon, &qins_attention_generic}, has_dot_product},
#endif
};

size_t qins_all_cpus(const qins_cpu **cpus, size_t max) {
    size_t n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    for (size_t i = 0; i < sizeof levels / sizeof levels[0] && n < max; i++)
        if (levels[i].runs()) cpus[n++] = &levels[i].cpu;
    return n;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const qins_cpu *chosen;

/* The best one, or the one that QINS_CPU names if this CPU can run it. */
static void choose(void) {
    const qins_cpu *cpus[MAX_LEVELS];
    size_t n = qins_all_cpus(cpus, MAX_LEVELS);
    chosen = cpus[n - 1];
    const char *name = getenv("QINS_CPU");
    for (size_t i = 0; name != NULL && i < n; i++)
        if (strcmp(cpus[i]->name, name) == 0) chosen = cpus[i];
}

const qins_cpu *qins_get_cpu(void) {
    pthread_once(&once, choose);
    return chosen;
}

const qins_kernels *qins_get_kernels(void) {
    return qins_get_cpu()->kernels;
}

const qins_attention_kernels *qins_get_attention_kernels(void) {
    return qins_get_cpu()->attention;
}

const qins_elementwise *qins_get_elementwise(void) {
    return qins_get_kernels()->elementwise;
}

const char *qins_cpu_level(void) {
    return qins_get_cpu()->name;
}
