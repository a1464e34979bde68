/* The portable inner loops of encoding, and which ones this CPU takes. SPDX-License-Identifier: MIT */
#include "codec/simd.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void hadamard(float *restrict x, size_t n) {
    for (size_t h = 1; h < n; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
}

static void nearest(const qins_codebook *book, const float *x, size_t n, float scale, uint16_t *codes) {
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint16_t)qins_nearest_code(book, x[i] / scale);
}

static double scale_error(const qins_codebook *book, const float *x, size_t n, float scale) {
    float inverse = 1.0f / scale;
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++) {
            float e = x[i + j] - scale * book->table[qins_nearest_code(book, x[i + j] * inverse)];
            sum[j] += (double)e * (double)e;
        }
    for (; i < n; i++) {
        float e = x[i] - scale * book->table[qins_nearest_code(book, x[i] * inverse)];
        sum[0] += (double)e * (double)e;
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static void scale_errors(const qins_codebook *book, const float *x, size_t n, const float *scales, size_t n_scales,
                         double *errors) {
    for (size_t s = 0; s < n_scales; s++)
        errors[s] = scale_error(book, x, n, scales[s]);
}

#define nearest_of nearest
#include "codec/trellis_lanes.h"
#undef nearest_of

const qins_codec_simd qins_codec_portable = {"portable", hadamard, nearest, scale_errors, trellis};

enum { MAX_TABLES = 4 };

size_t qins_all_codec_simd(const qins_codec_simd **tables, size_t max) {
    const qins_codec_simd *found[MAX_TABLES];
    size_t n = 0;
    found[n++] = &qins_codec_portable;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found[n++] = &qins_codec_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        found[n++] = &qins_codec_avx512;
#endif
    n = qins_min_size(n, max);
    memcpy(tables, found, n * sizeof *tables);
    return n;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const qins_codec_simd *chosen;

/* The best, unless QINS_CPU names another kernel level: then the one of that name, or the portable one. */
static void choose(void) {
    const qins_codec_simd *tables[MAX_TABLES];
    size_t n = qins_all_codec_simd(tables, MAX_TABLES);
    const char *name = getenv("QINS_CPU");
    chosen = tables[name == NULL ? n - 1 : 0];
    for (size_t i = 0; name != NULL && i < n; i++)
        if (strncmp(name, tables[i]->name, strlen(tables[i]->name)) == 0) chosen = tables[i];
}

const qins_codec_simd *qins_get_codec_simd(void) {
    pthread_once(&once, choose);
    return chosen;
}
