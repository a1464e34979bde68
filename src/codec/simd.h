/* Inner loops of encoding that have one implementation per instruction set. SPDX-License-Identifier: MIT
 *
 * All of them give the same bits: additions happen in the same order and nothing is fused. simd.c has the
 * specification and the choice; tests/unit/test_encode.c compares every table with it.
 */
#ifndef QINS_CODEC_SIMD_H
#define QINS_CODEC_SIMD_H

#include "codec/codec.h"

typedef struct qins_codec_simd {
    const char *name;
    /* Walsh-Hadamard transform of n (a power of two) values in place, not normalised. */
    void (*hadamard)(float *x, size_t n);
    /* Sorted tables: codes[i] = code of the entry nearest to x[i] / scale. */
    void (*nearest)(const qins_codebook *book, const float *x, size_t n, float scale, uint16_t *codes);
    /* Sorted tables: errors[s] = sum of (x - scale*table[code])^2, code of x * (1/scale); 1/scale is a normal number.
     * The squares of x[i] are added in double to the (i mod 4)th of four sums, those after the last multiple of 4 to
     * the first. */
    void (*scale_errors)(const qins_codebook *book, const float *x, size_t n, const float *scales, size_t n_scales,
                         double *errors);
    /* Codes of least summed weight * squared error around the ring, for n columns of a panel: u[row*ld + i] in units of
     * the table, weight[row*ld + i] >= 0, codes[row*ld + i]. Rows of padding have weight 0 and get codes too. */
    void (*trellis)(const qins_codebook *book, const float *u, const float *weight, size_t ld, size_t n,
                    uint16_t *codes);
} qins_codec_simd;

const qins_codec_simd *qins_get_codec_simd(void);
/* Those that this CPU runs, the specification first; the number of them. For tests. */
size_t qins_all_codec_simd(const qins_codec_simd **tables, size_t max);

extern const qins_codec_simd qins_codec_portable;
#if defined(__x86_64__)
extern const qins_codec_simd qins_codec_avx2;
extern const qins_codec_simd qins_codec_avx512;
#endif

#endif
