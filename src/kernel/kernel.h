/* Functions that have one implementation per instruction set. SPDX-License-Identifier: MIT
 *
 * One table, filled once from the CPU's flags (cpu.c). scalar.c is the specification; the others compute the same in
 * another order. Adding an instruction set means adding a file and a line in cpu.c. tests/unit/test_kernels.c compares
 * every table with scalar.
 */
#ifndef QINS_KERNEL_H
#define QINS_KERNEL_H

#include "codec/codec.h"
#include "kernel/attention.h"
#include "kernel/elementwise.h"
#include "kernel/integer.h"

/* n_cols columns (a multiple of 64) of one packed panel: out[k*16 + row] = table[code of (row, k)]. */
typedef void (*qins_decode_fn)(const uint8_t *tiles, const float *table, size_t n_cols, float *out);

/* Plain numbers as files store them; NONE: a storage that only its reader understands. */
typedef enum qins_number { QINS_NUMBER_NONE, QINS_NUMBER_F32, QINS_NUMBER_F16, QINS_NUMBER_BF16 } qins_number;
enum { QINS_NUMBERS = QINS_NUMBER_BF16 + 1 };

/* sum of w[i] * x[i]; w of any alignment */
typedef float (*qins_dot_fn)(const void *w, const float *x, size_t n);

/* n_rows rows of n numbers, one every `stride` bytes, as a panel: out[k*16 + row]; rows from n_rows (at most 16) on are
 * zero. Rows of any alignment. */
typedef void (*qins_panel_fn)(const void *rows, size_t stride, size_t n_rows, size_t n, float *out);

typedef struct qins_kernels {
    const char *name;
    qins_decode_fn decode[QINS_MAX_BITS + 1]; /* by bits */
    /* acc[t*16 + row] += sum over k < n_cols of panel[k*16 + row] * x[t*ldx + k] */
    void (*multiply_panel)(const float *panel, size_t n_cols, const float *x, size_t ldx, size_t n_tokens, float *acc);
    float (*dot)(const float *a, const float *b, size_t n);
    qins_dot_fn dot_row[QINS_NUMBERS]; /* by qins_number: rows that come from memory, one after another */
    qins_panel_fn panel_of_rows[QINS_NUMBERS];
    /* panel[k*16 + row] *= scales[row] */
    void (*scale_panel)(const float *scales, size_t n_cols, float *panel);
    /* The original storages: out[i] = table[codes[i]] * signs[i], of 256 entries; out[i] = qins_rational_w of z[i] in
     * FP32 */
    void (*signed_entries)(const uint8_t *codes, const int8_t *signs, const float *table, size_t n, float *out);
    void (*rational)(const float *z, float alpha, size_t n, float *out);
    /* y += a*x */
    void (*add_scaled)(float a, const float *x, float *y, size_t n);
    const qins_elementwise *elementwise;
} qins_kernels;

/* What one kind of CPU runs. */
typedef struct qins_cpu {
    const char *name; /* what QINS_CPU calls it */
    const qins_kernels *kernels;
    const qins_integer_kernels *integer; /* NULL: integers are not faster than FP32 */
    const qins_attention_kernels *attention;
} qins_cpu;

#if defined(QINS_HAVE_AMX)
/* Whether this CPU has AMX-int8 and the system lets this process use it. */
bool qins_has_amx(void);
#endif

/* The level in use. */
const qins_cpu *qins_get_cpu(void);
/* The table of FP32 kernels in use. */
const qins_kernels *qins_get_kernels(void);
/* Levels this CPU can run, scalar first, the best last; the number of them. For tests. */
size_t qins_all_cpus(const qins_cpu **cpus, size_t max);

extern const qins_kernels qins_kernels_scalar;
extern const qins_kernels qins_kernels_generic;
#if defined(__x86_64__)
extern const qins_kernels qins_kernels_avx2;
extern const qins_kernels qins_kernels_avx512;
extern const qins_kernels qins_kernels_avx512vbmi;
#endif

#endif
