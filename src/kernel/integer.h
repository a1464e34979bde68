/* Integer arithmetic on packed codes. SPDX-License-Identifier: MIT
 *
 * Inputs are quantised to 16 bits, tables hold integers, so that a code is looked up and multiplied without ever
 * becoming a float. integer_scalar.c is the specification: the integer sum of a span is exact, whatever the order. The
 * others are made from integer_vector.h, one file an instruction set. docs/kernels.md has the arithmetic.
 */
#ifndef QINS_INTEGER_H
#define QINS_INTEGER_H

#include "codec/codec.h"

enum {
    QINS_SPAN_COLS = 256, /* columns that share a unit: 32-bit sums of int8 entries stay exact, and one outlier coarsens
                             no more than these */
    /* Both halves of a value fit int8: 256 * 127 + 127. */
    QINS_INPUT_MAX = 32639,
    /* Sum of |input| over the 64 columns of a tile, so that sums of entries up to QINS_INT16_ENTRY fit 32 bits. */
    QINS_INPUT_TILE_SUM = 524000,
    QINS_INT8_ENTRY = 127,
    QINS_INT16_ENTRY = 4095,
    QINS_INTEGER_MAX_BITS = 8,
    QINS_INTEGER_LEVELS = 1 << QINS_INTEGER_MAX_BITS,
    QINS_ENTRY_BIAS = 128 /* int8 entries are stored as unsigned bytes, entry + 128 */
};

#if defined(__SANITIZE_ADDRESS__)
#define UNROLL(n) /* checks at every access, unrolled, take gcc minutes a file */
#elif defined(__clang__)
#define QINS_PRAGMA_(text) _Pragma(#text)
#define UNROLL(n)          QINS_PRAGMA_(clang loop unroll(full))
#else
#define QINS_PRAGMA_(text) _Pragma(#text)
#define UNROLL(n)          QINS_PRAGMA_(GCC unroll n)
#endif

typedef enum qins_integer_kind {
    QINS_INTEGER_NONE, /* not integers, or too large: multiplied in FP32 */
    QINS_INTEGER_8,
    QINS_INTEGER_16,
    QINS_INTEGER_TRELLIS, /* int8 entries of the trellis codecs */
    QINS_INTEGER_KINDS
} qins_integer_kind;

/* Entries of 7 and 8 bits that need no table of 128 or 256: on each side of zero 8 segments of 8 or 16 codes, within
 * which entry = base + slope * l + bend * qins_curve(l), l = 0, 1, .. away from zero. What the gauss and uniform codecs
 * make is so (codec/gauss.c); another table is looked up entry by entry where lookups are short. */
enum { QINS_SEGMENTS = 16 };

typedef struct qins_integer_table {
    qins_integer_kind kind;
    bool curved;                                               /* int16: what follows holds the same entries */
    uint8_t base_low[QINS_SEGMENTS], base_high[QINS_SEGMENTS]; /* by the upper four bits of the code */
    int8_t slope[QINS_SEGMENTS], bend[QINS_SEGMENTS];
    /* The 2^bits entries, repeated to the end, so that registers are filled with loads alone. */
    uint8_t low[QINS_INTEGER_LEVELS];  /* int8: entry + 128; int16: low byte */
    uint8_t high[QINS_INTEGER_LEVELS]; /* int16: high byte */
} qins_integer_table;

/* The integers of a table of 2^bits floats, if they are that. */
void qins_integer_table_make(qins_integer_table *table, const float *entries, int bits);
/* Where the entry of a place of the trellis' table (codec.h) lies in the kernels': a code with its lowest bit changed
 * by the row before the one before, and the lowest bit of the row before on top. */
static inline unsigned qins_trellis_index(unsigned place, int bits) {
    return place / 2 | (place % 2) << bits;
}
/* The same of the 2^(bits+1) floats of a trellis, by qins_trellis_index; of 7 bits if entry i is i - 128. */
void qins_integer_table_make_trellis(qins_integer_table *table, const float *entries, int bits);

static inline int qins_integer_entry(const qins_integer_table *t, unsigned code) {
    if (t->kind != QINS_INTEGER_16) return (int)t->low[code] - QINS_ENTRY_BIAS;
    return (int)(int16_t)(uint16_t)(t->low[code] | t->high[code] << 8);
}

/* Vectors of n_cols values (columns of padding are zero), x = unit of the span * integer. The integers are kept as
 * words, or as halves: for the 64 columns of a tile first their high halves, then the low ones, integer = 256 * high +
 * low, both signed. */
typedef struct qins_quantised {
    size_t n_tokens, n_cols, n_spans; /* n_cols is a multiple of 64 */
    int16_t *words;                   /* [n_tokens][n_cols] */
    int8_t *halves;                   /* [n_tokens][n_cols / 64][2][64] */
    float *units;                     /* [n_tokens][n_spans] */
    int32_t *offsets;                 /* [n_tokens][n_spans]: -128 * sum of the span's integers */
} qins_quantised;

/* Bytes of the arrays of a qins_quantised; 0 on overflow. */
size_t qins_quantised_bytes(size_t n_tokens, size_t n_cols);
/* Lays the arrays out in `memory`, 64-byte aligned. */
void qins_quantised_place(qins_quantised *q, size_t n_tokens, size_t n_cols, void *memory);
/* Fills token t from n values. Tokens may be filled by different threads. */
void qins_quantise(qins_quantised *q, size_t t, const float *x, size_t n);

/* out[row] = sum over columns of unit * entry * integer, for the 16 rows of a panel and token t. */
typedef void (*qins_integer_dot_fn)(const uint8_t *tiles, const qins_integer_table *table, const qins_quantised *x,
                                    size_t t, float *out);
/* n_cols columns (a multiple of 64, at most QINS_SPAN_COLS) of a panel to the form that `multiply` reads. */
typedef void (*qins_integer_decode_fn)(const uint8_t *tiles, const qins_integer_table *table, size_t n_cols, void *out);
/* acc[(t - first)*ld + 16*p + row] += unit * sum over the n_cols columns from col (a multiple of QINS_SPAN_COLS) on,
 * for tokens [first, first + n) and n_panels (1 or 2) decoded panels, which lie QINS_DECODED_PANEL bytes apart. */
typedef void (*qins_integer_multiply_fn)(const void *decoded, size_t n_panels, size_t n_cols, const qins_quantised *x,
                                         size_t col, size_t first, size_t n, float *acc, size_t ld);

enum { QINS_DECODED_PANEL = QINS_SPAN_COLS * QINS_PANEL_ROWS * 2, QINS_PANELS_AT_ONCE = 2 };

typedef struct qins_integer_kernels {
    qins_integer_dot_fn dot[QINS_INTEGER_MAX_BITS + 1][QINS_INTEGER_KINDS]; /* by bits and kind */
    qins_integer_decode_fn decode[QINS_INTEGER_MAX_BITS + 1][QINS_INTEGER_KINDS];
    qins_integer_multiply_fn multiply[QINS_INTEGER_KINDS];
} qins_integer_kernels;

extern const qins_integer_kernels qins_integer_scalar;
#if defined(__x86_64__)
extern const qins_integer_kernels qins_integer_avx2, qins_integer_avxvnni, qins_integer_avx512, qins_integer_avx512vbmi;
#if defined(QINS_HAVE_AMX)
extern const qins_integer_kernels qins_integer_amx;
/* n (a multiple of 4) tdpbsud of 16 x 16 x 64 products from registers: to measure the peak. */
void qins_amx_loop(size_t n);
#endif
#endif
#if defined(__aarch64__)
extern const qins_integer_kernels qins_integer_neon;
#endif

#endif
