/* A matrix that is multiplied in the form it is stored in. SPDX-License-Identifier: MIT */
#ifndef QINS_MATRIX_H
#define QINS_MATRIX_H

#include "codec/codec.h"
#include "kernel/kernel.h"
#include "kernel/row_split.h"

typedef struct qins_matrix qins_matrix;

/* Columns [col, col+n) of a row as floats, without scales of rows and in the stored basis. col is a multiple of
 * QINS_CHUNK_COLS. */
typedef void (*qins_read_row_fn)(const qins_matrix *m, size_t row, size_t col, size_t n, float *dst);

enum { QINS_CHUNK_COLS = 256 }; /* columns decoded at a time: 16 KiB of floats a panel; the longest GGUF block */

/* Points into a mapped file or into an owner's memory; owns nothing. */
struct qins_matrix {
    size_t n_rows, n_cols;
    bool packed;
    /* packed */
    int bits;
    const uint8_t *codes;
    const float *table;
    bool trellis;                /* a code's place in the table depends on its neighbours' */
    qins_integer_table integers; /* of `table`; kind NONE: FP32 arithmetic */
    const float *scales;         /* layout of QINS_PART_SCALES */
    qins_scale_kind scale;
    size_t group_size;
    /* row-major storages: plain tensors, seed, f32 coordinates */
    qins_read_row_fn read_row;
    bool transposed;       /* row k of the source holds column k of this matrix: read_row reads source rows */
    const void *source;    /* plain: for the reader; seed: U8; coordinates: F32 */
    const int8_t *signs8;  /* seed */
    float magnitudes[256]; /* seed */
    double alpha;          /* coordinates */
    const uint8_t *rows;   /* plain, when `source` holds them one after another as numbers of the kind: */
    qins_number number;    /* NONE otherwise */
    /* rotation of the columns; NULL when there is none */
    const float *rotation;
    const struct qins_split_matrix *split; /* NULL, or where its rows are: then nothing above but the size is set */
};

/* Rows in two matrices: encoded ones and plain ones. qins_matmul takes the parts, one after another. */
typedef struct qins_split_matrix {
    qins_matrix encoded, plain;
    const qins_row_split *rows;
} qins_split_matrix;

/* A matrix from encoded parts (NULL for parts the storage lacks). rotation: signs for n_cols, or NULL. */
void qins_matrix_from_parts(qins_matrix *m, size_t n_rows, size_t n_cols, const qins_encode_options *options,
                            const void *const parts[QINS_PART_COUNT], const float *rotation);

/* Whether this CPU multiplies it in integers. */
bool qins_takes_integers(const qins_matrix *m);

/* Inputs of matrices: vectors of n_cols floats, already rotated for matrices that are. */
typedef struct qins_vectors {
    const float *x;
    size_t ldx, n_cols, n_tokens;
    void *memory;   /* qins_quantised_bytes(n_tokens, n_cols), 64-byte aligned; NULL: FP32 arithmetic */
    bool quantised; /* `integers` hold x: set by the first matrix that wants them */
    qins_quantised integers;
} qins_vectors;

/* y[t*ldy + n] = sum_k W[n][k] x[t][k] + bias[n]; bias may be NULL. */
typedef struct qins_product {
    const qins_matrix *matrix;
    const float *bias;
    float *y;
    size_t ldy;
} qins_product;

/* Several matrices that read the same vectors, in one parallel region. */
void qins_multiply(const qins_product *products, size_t n_products, qins_vectors *x);

/* y[t*ldy + n] = act(gate x + bias) * (up x + bias); both matrices have the same size. */
typedef struct qins_gated_product {
    const qins_matrix *gate, *up;
    const float *gate_bias, *up_bias; /* or NULL */
    qins_activation activation;
    float *y;
    size_t ldy;
} qins_gated_product;

void qins_multiply_gated(const qins_gated_product *product, qins_vectors *x);

/* Rows [row, row+n) as n x n_cols floats in the original basis. */
void qins_matrix_decode_rows(const qins_matrix *m, size_t row, size_t n, float *dst);

#endif
