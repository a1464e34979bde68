/* Codecs: how a weight becomes a code and a code a value. SPDX-License-Identifier: MIT
 *
 * A matrix is stored as W[n][k] = scale * table[code[n][k]], optionally in a rotated basis. A codec makes the table and
 * chooses codes; packing, kernels, audit and files see codes, a table and scales and never ask which codec it was.
 */
#ifndef QINS_CODEC_H
#define QINS_CODEC_H

#include "base/base.h"

#include <math.h>

enum {
    QINS_MIN_BITS = 3, /* but of the trellis */
    QINS_MAX_BITS = 9, /* log codec: sign + 8 bits */
    QINS_MAX_LEVELS = 1 << QINS_MAX_BITS,
    QINS_CELLS = 1024,    /* of a sorted table's range: narrower than the distance of its levels */
    QINS_PANEL_ROWS = 16, /* rows a panel: 32-bit lanes of a 512-bit register */
    QINS_TILE_COLS = 64,  /* columns a tile: an AMX tile of int8, and what K is padded to */
    QINS_TILE_CODES = QINS_PANEL_ROWS * QINS_TILE_COLS,
    QINS_TRELLIS_MIN_BITS = 2,
    QINS_TRELLIS_MAX_BITS = 6,
    QINS_UNIFORM_TRELLIS_MAX_BITS = 7,
    QINS_MAX_TRELLIS_LEVELS = 2 << QINS_UNIFORM_TRELLIS_MAX_BITS
};

/* Alpha outside would overflow the FP32 table (largest entry 254/alpha) or round to zero in the file. */
#define QINS_MIN_ALPHA 1e-36
#define QINS_MAX_ALPHA 1e36

/* Everything a codec needs besides the weights; made by qins_codec_fit, rebuilt from nothing else. */
typedef struct qins_codebook {
    qins_codec codec;
    int bits;               /* of a place in the table: of a code; trellis: one more than of a code */
    float log_min, log_max; /* log: range of log|w/scale|, over |w/scale| > 1e-8; both 0 when there is none */
    double alpha;           /* rational */
    size_t n_levels;        /* of the table: 2^bits */
    float table[QINS_MAX_LEVELS];
    double sigma;                  /* gauss, uniform, trellis: table units that a standard deviation takes */
    float step;                    /* equal steps: table units between neighbouring levels; 0 for other tables */
    bool sorted;                   /* gauss, uniform, trellis: table ascends and what follows is filled in */
    float bounds[QINS_MAX_LEVELS]; /* midpoints; bounds[i] lies between table[i] and table[i+1], the last is infinite */
    float cells_per_unit;
    /* number of bounds below the cell; none or one lies in it. Vector code reads four bytes for one. */
    uint8_t cell_code[QINS_CELLS + 3];
} qins_codebook;

enum { QINS_CODEC_COUNT = QINS_CODEC_UNIFORM_TRELLIS + 1 };
/* Equal steps, for which a rate can be asked. */
static inline bool qins_codec_is_uniform(qins_codec codec) {
    return codec == QINS_CODEC_UNIFORM || codec == QINS_CODEC_SPARSE || codec == QINS_CODEC_UNIFORM_TRELLIS;
}
/* Twice as many levels as codes, chosen in rings of rows. */
static inline bool qins_codec_is_trellis(qins_codec codec) {
    return codec == QINS_CODEC_TRELLIS || codec == QINS_CODEC_UNIFORM_TRELLIS;
}
/* What a codec is at a width: the trellises end where their tables no longer fit a byte, or no longer pay. */
static inline qins_codec qins_codec_at_width(qins_codec codec, int bits) {
    if (codec == QINS_CODEC_TRELLIS && bits > QINS_TRELLIS_MAX_BITS) return QINS_CODEC_GAUSS;
    if (codec == QINS_CODEC_UNIFORM_TRELLIS && bits > QINS_UNIFORM_TRELLIS_MAX_BITS) return QINS_CODEC_UNIFORM;
    return codec;
}
/* Its table depends on the width alone. */
static inline bool qins_codec_has_fixed_table(qins_codec codec) {
    return codec == QINS_CODEC_GAUSS || codec == QINS_CODEC_TRELLIS || qins_codec_is_uniform(codec);
}

/* Smallest width of a packed code. */
static inline int qins_codec_min_bits(qins_codec codec) {
    return codec == QINS_CODEC_TRELLIS ? QINS_TRELLIS_MIN_BITS : QINS_MIN_BITS;
}

const char *qins_codec_name(qins_codec codec);
const char *qins_storage_name(qins_storage storage);
const char *qins_scale_name(qins_scale_kind scale);
/* -1 when there is no such name. */
int qins_codec_from_name(const char *name);
int qins_storage_from_name(const char *name);
int qins_scale_from_name(const char *name);

/* ---- the four tables ---- */

/* log.c: design of the original QINS log codec. n = 2^(bits-1)-1 magnitudes; code = m | negative << (bits-1), m
 * in 1..n, 1 the largest, n the smallest, 0 exact zero. */
void qins_log_codebook(qins_codebook *book, int bits, float log_min, float log_max);
/* Magnitude code 1..n_magnitudes of a > 0, in log coordinates: clamp(round(n - (n-1)*norm), 1, n). */
int qins_log_magnitude(const qins_codebook *book, int n_magnitudes, double a);
/* exp(log_min + (n-m)/(n-1)*(log_max-log_min)); 0 for m = 0. */
float qins_log_value(const qins_codebook *book, int n_magnitudes, int m);

/* rational.c: z = sign(w)/(1+alpha|w|), sign(0) = +1; code = round((z+1)*(2^bits-1)/2). */
void qins_rational_codebook(qins_codebook *book, int bits, double alpha);
double qins_rational_z(double alpha, double w);
static inline double qins_rational_w(double alpha, double z) {
    double a = fabs(z), w = (1.0 - a) / (alpha * a);
    return copysign(w, z);
}

/* gauss.c: Lloyd-Max levels of N(0,1), as integers: int8 range up to 6 bits, int16 above (src/kernel multiplies
 * integers). The unit is absorbed by the scales. */
void qins_gauss_codebook(qins_codebook *book, int bits);
/* Tables of 7 and 8 bits are integers base + slope * l + bend * curve(l) in segments of 2^(bits-4) codes, l = 0, 1, ..
 * away from zero, so that vector code computes an entry from four tables of 16 instead of one of 128 or 256. The curve
 * is l^3 / 32 at 8 bits, and the same shape on half as many codes at 7. */
static inline int qins_curve(int bits, int l) {
    return bits == 8 ? (l * l * l + 16) / 32 : (l * l * l + 2) / 4;
}
/* The converged real-valued levels (n = 2^bits, ascending) and their mean squared error on N(0,1). */
double qins_lloyd_max_gauss(size_t n, double *levels);
/* Quantile of N(0,1), by bisection. */
double qins_normal_quantile(double p);

/* trellis.c: a code chooses among half of a table of twice as many levels, and the lowest bits of the codes of the two
 * rows before it, in the same column, choose which half. The rows of a panel form a ring: 0, 8, 1, 9, .. 7, 15, and 0
 * again, so that the one before, and the one before that, are found by moving lanes of registers of any width. */
void qins_trellis_codebook(qins_codebook *book, int bits);
/* Equal steps, for an entropy coder: 3 to 7 bits. */
void qins_uniform_trellis_codebook(qins_codebook *book, int bits);
/* The code that chooses a level, 0, 1, .. in ascending order of value, where the bits of the rows before are 0. Up to 6
 * bits of equal steps are labelled so that the two levels that differ in the lowest bit lie on either side of zero:
 * that bit is scrambled by the rows before, and the coder would miss a difference in probability. */
static inline unsigned qins_trellis_label(unsigned level, int bits, bool equal_steps) {
    if (!equal_steps || bits > QINS_TRELLIS_MAX_BITS) return level >> 1;
    int k = (int)level - (1 << bits), magnitude = k < 0 ? ~k : k;
    return ((unsigned)magnitude & ~1u) | (level >> 1 & 1u);
}
/* Mean squared error of N(0,1) at its best scale, as tools/make_trellis.py measured it. */
double qins_trellis_error(int bits);
static inline size_t qins_ring_row(size_t step) {
    return step / 2 + step % 2 * (QINS_PANEL_ROWS / 2);
}
static inline size_t qins_ring_before(size_t row) {
    return row < QINS_PANEL_ROWS / 2 ? QINS_PANEL_ROWS / 2 + (row + 7) % 8 : row - QINS_PANEL_ROWS / 2;
}
static inline size_t qins_ring_before_that(size_t row) {
    return row / 8 * 8 + (row + 7) % 8;
}
/* Place in the table of a code, given those before it in the ring and before that. */
static inline unsigned qins_trellis_place(unsigned code, unsigned before, unsigned before_that) {
    return 2 * (code ^ (before_that & 1u)) | (before & 1u);
}
/* Places in the table of the codes of a panel's column, codes[row * ld]. */
void qins_trellis_places(const uint16_t *codes, size_t ld, unsigned places[QINS_PANEL_ROWS]);
/* The same of a packed tile, from its 1,024 codes: places[64 * block + 4 * row + column of the block]. */
void qins_trellis_tile(const uint8_t *tile, int bits, uint8_t places[QINS_TILE_CODES]);
/* Scale that the values x[0..n) share: of their root mean square, which is best for normal deviates (a fit to the
 * jagged error of Lloyd-Max levels, row by row, would only add noise). scalar: NULL, or the codebook made by
 * qins_trellis_scalar, for data that may be far from Gaussian: its best scale decides. */
float qins_trellis_scale(const qins_codebook *book, const qins_codebook *scalar, const float *x, size_t n);
/* The Gauss codebook with one level a code. */
void qins_trellis_scalar(qins_codebook *scalar, int bits);
/* Codes of a panel's rows x[n_rows][n_cols] at the scales of its rows, codes[16][n_cols], padding included, whose codes
 * help those of the others; the squared error. */
double qins_trellis_encode_panel(const qins_codebook *book, const float *x, size_t n_rows, size_t n_cols,
                                 const float *scales, uint16_t *codes);
/* weight[row*ld + i] of qins_codec_simd.trellis for rows of these scales, n columns: least squared error. */
void qins_trellis_weights(const float *scales, size_t n_rows, size_t ld, size_t n, float *weight);

/* uniform.c: odd integers -(n-1), -(n-3) .. n-1. */
void qins_uniform_codebook(qins_codebook *book, int bits);
/* Even integers -n, -(n-2) .. n-2: code n/2 is zero. */
void qins_sparse_codebook(qins_codebook *book, int bits);

/* The table of a codec that has a fixed one. */
void qins_fixed_codebook(qins_codebook *book, qins_codec codec, int bits);

/* rate.c: codes of equal steps, `codec`, whose step is chosen for an entropy coder. price: share of the rate-distortion
 * slope that rounding with feedback pays for a bit (QINS_RATE_PRICE); 0 for nearest rounding. */
#define QINS_RATE_PRICE    0.5
#define QINS_TRELLIS_PRICE 0.75
/* sparsity: codec sparse: the share of values that become the zero of its table. */
/* Width whose levels reach four standard deviations at `rate` bits a code, at most 8. */
int qins_rate_width(qins_codec codec, double rate, double price, double sparsity);
/* Rate of the smallest step of a width, whose levels reach four standard deviations: the most it can hold. */
double qins_rate_of_least_step(qins_codec codec, int bits, double sparsity, double *length);
/* Step in standard deviations that brings N(0,1) to `rate` bits a code; length[2^bits]: -log2 of the codes'
 * probabilities. */
double qins_rate_step(qins_codec codec, int bits, double rate, double price, double sparsity, double *length);
/* Scale of a row for a table of equal steps at a step in units of its root mean square. pruned: squares that it had
 * besides x. */
float qins_rate_scale(const qins_codebook *book, const float *x, size_t n, double pruned, double step);
/* Uniform trellis: the price of bits as a pull to zero. Least of (v - q)^2 + pull * q^2 instead of (v - q)^2. */
double qins_rate_pull(double price, double step);

/* The cell of a sorted table that u lies in. It never decreases in u, so that rounding at a cell's edge is harmless. */
static inline int qins_cell_of(const qins_codebook *book, float u) {
    float cell = u * book->cells_per_unit + 0.5f * (float)QINS_CELLS;
    cell = cell > 0.0f ? cell : 0.0f;
    return (int)(cell < (float)(QINS_CELLS - 1) ? cell : (float)(QINS_CELLS - 1));
}

/* Code of the entry of a sorted table nearest to u; of two as near, the lower one. */
static inline unsigned qins_nearest_code(const qins_codebook *book, float u) {
    unsigned code = book->cell_code[qins_cell_of(book, u)];
    return code + (u > book->bounds[code] ? 1u : 0u);
}

/* Code of u = w/scale. Log and rational round in their own coordinate, as the original does; gauss and uniform to the
 * nearest value. */
unsigned qins_codebook_encode(const qins_codebook *book, float u);

/* Makes midpoints and cells from an ascending, symmetric table of at most 256 entries. */
void qins_codebook_sort(qins_codebook *book);

/* ---- fit.c: what depends on the weights ---- */

/* Scale of values x[0..n) that one scale covers: log the largest magnitude, rational the root mean square, gauss and
 * uniform least squared error (thorough: over a wide range, for data that may be far from Gaussian). 0 when all are
 * zero. */
float qins_fit_scale(const qins_codebook *book, const float *x, size_t n, bool thorough);
/* Alpha of least squared error of x[0..n) at `bits` bits, in QINS_MIN_ALPHA .. QINS_MAX_ALPHA. */
double qins_fit_alpha(const float *x, size_t n, int bits);
/* Sum of (x - scale*table[code])^2. */
double qins_squared_error(const qins_codebook *book, const float *x, size_t n, float scale);

/* ---- prune.c ---- */

/* Sets the smallest `share` of a row to 0: of all of it, or of every `group` neighbours (a rest stays). Returns the
 * squares that went. */
double qins_prune_row(float *x, size_t n_cols, double share, size_t group);
/* The `n` smallest of a row. */
double qins_prune_smallest(float *x, size_t n_cols, size_t n);

/* ---- rotate.c ---- */

/* Hadamard block of a row of n_cols: the largest power of two that divides it, at most 4096. */
size_t qins_rotation_block(size_t n_cols);
/* signs[k] = +1 or -1 for k in 0..n_cols: bit 63 of splitmix64(seed + k) set means -1. */
void qins_rotation_signs(uint64_t seed, size_t n_cols, float *signs);
/* x := H D x in place, D = diag(signs), H the blockwise orthonormal Hadamard matrix. Applied to the rows of W and to
 * the inputs x it leaves W x unchanged. */
void qins_rotate(float *x, size_t n_cols, const float *signs);
/* The same of x, which stays, to out. */
void qins_rotate_into(const float *x, size_t n_cols, const float *signs, float *out);
/* x := H x. */
void qins_hadamard(float *x, size_t n_cols);
/* x := D H x, the inverse. */
void qins_unrotate(float *x, size_t n_cols, const float *signs);

/* ---- pack.c: codes in panels of 16 rows, tiles of 64 columns, bit planes (docs/format.md) ---- */

/* Bytes of a tile: 16*64 codes of `bits` bits. */
static inline size_t qins_tile_bytes(int bits) {
    return (size_t)QINS_TILE_CODES / 8 * (size_t)bits;
}
static inline size_t qins_n_panels(size_t n_rows) {
    return (n_rows + QINS_PANEL_ROWS - 1) / QINS_PANEL_ROWS;
}
static inline size_t qins_n_tiles(size_t n_cols) {
    return (n_cols + QINS_TILE_COLS - 1) / QINS_TILE_COLS;
}

/* codes[16][ld] (columns n_cols.. and rows n_rows.. are written as 0) -> n_tiles tiles. */
void qins_pack_panel(const uint16_t *codes, size_t ld, size_t n_rows, size_t n_cols, int bits, uint8_t *out);
/* The specification of unpacking, one code at a time: row in 0..15, column within the tile. */
unsigned qins_unpack_code(const uint8_t *tile, int bits, size_t row, size_t col);
/* Place in the table of a code of the trellis. */
static inline unsigned qins_trellis_unpack(const uint8_t *tile, int bits, size_t row, size_t col) {
    return qins_trellis_place(qins_unpack_code(tile, bits, row, col),
                              qins_unpack_code(tile, bits, qins_ring_before(row), col),
                              qins_unpack_code(tile, bits, qins_ring_before_that(row), col));
}
/* What an entropy coder takes for a symbol: up to 4 bits two codes in a byte, lanes of blocks 2i and 2i+1 as low and
 * high nibble (512 symbols a tile); above that the low 8 bits of a code in the order of the byte plane (1,024). */
size_t qins_tile_symbols(int bits);
/* Symbols into the planes of a tile; the bit plane of 9-bit tiles is left alone. */
void qins_pack_symbols(const uint8_t *symbols, int bits, uint8_t *tile);
/* The way back. */
void qins_unpack_symbols(const uint8_t *tile, int bits, uint8_t *symbols);
/* Tiles of 5 bits as the upper four bits of codes, the symbols of a tile of 4 bits, and their lowest bits, a bit plane:
 * for codes whose lowest bit is as good as random. */
void qins_pack_upper(const uint8_t *symbols, const uint8_t *low, uint8_t *tile);
void qins_unpack_upper(const uint8_t *tile, uint8_t *symbols, uint8_t *low);

/* ---- encode.c: a matrix, row block by row block, into parts ---- */

typedef enum qins_part {
    QINS_PART_CODES,  /* packed: U8 [panels][tiles][tile bytes]; seed: "stored" U8 [N][K]; f32: "z" F32 [N][K] */
    QINS_PART_SIGNS,  /* seed: I8 [N][K] */
    QINS_PART_SCALES, /* packed: F32, tensor [1], row [panels*16], group [panels][groups][16] */
    QINS_PART_TABLE,  /* packed: F32 [2^bits]; trellises: [2^(bits+1)] */
    QINS_PART_RANGE,  /* seed: F32 [2] = log_min, log_max */
    QINS_PART_ALPHA,  /* rational: F32 [1] */
    QINS_PART_COUNT
} qins_part;

extern const char
    *const qins_part_suffix[QINS_PART_COUNT]; /* "codes", "sign", "scales" ... appended to the tensor name */

typedef struct qins_part_info {
    const char *dtype; /* safetensors name; NULL when the storage lacks this part */
    size_t n_dims;
    uint64_t shape[3];
    uint64_t n_bytes;
    bool shared; /* the same for every tensor of this codec and width */
} qins_part_info;

/* Checks options against each other and fills in the automatic ones. */
qins_status qins_encode_resolve(qins_encode_options *options, qins_error *err);
/* Parts and sizes of an encoded matrix; depends on nothing but shape and (resolved) options. */
qins_status qins_encode_parts(size_t n_rows, size_t n_cols, const qins_encode_options *options,
                              qins_part_info parts[QINS_PART_COUNT], qins_error *err);

/* Reads row `row` as n_cols floats. Called from several threads. */
typedef struct qins_row_source {
    void (*read)(const void *context, size_t row, float *dst);
    const void *context;
} qins_row_source;

/* Receives bytes of a part, in order within the part, from the calling thread. */
typedef struct qins_part_sink {
    qins_status (*put)(void *context, qins_part part, uint64_t offset, const void *data, size_t n, qins_error *err);
    void *context;
    /* Called with rows done now and then; true = stop. May be NULL. */
    bool (*advance)(void *context, size_t rows_done);
} qins_part_sink;

typedef struct qins_encode_stats {
    double sum_squares;       /* of the weights */
    double sum_squared_error; /* of decoded minus original, in the original basis (rotations are orthonormal) */
    uint64_t histogram[QINS_MAX_LEVELS]; /* of codes; seed: of stored magnitudes */
    double alpha;
} qins_encode_stats;

/* Options must be resolved. NaN and infinities are refused, naming row and column. */
qins_status qins_encode(size_t n_rows, size_t n_cols, const qins_row_source *source, const qins_encode_options *options,
                        const qins_part_sink *sink, qins_encode_stats *stats, qins_error *err);

#endif
