/* Encodes a matrix into memory and decodes it by hand: an independent reading of the stored parts.
 * SPDX-License-Identifier: MIT */
#ifndef QINS_TEST_ENCODE_MEMORY_H
#define QINS_TEST_ENCODE_MEMORY_H

#include "testing.h"

#include "codec/codec.h"

typedef struct matrix {
    size_t n_rows, n_cols;
    float *data;
} matrix;

typedef struct encoded {
    size_t n_rows, n_cols;
    qins_encode_options options; /* resolved */
    qins_part_info info[QINS_PART_COUNT];
    uint8_t *part[QINS_PART_COUNT]; /* NULL for parts that the storage lacks */
    uint64_t received[QINS_PART_COUNT];
    qins_encode_stats stats;
} encoded;

static inline matrix matrix_new(size_t n_rows, size_t n_cols) {
    matrix m = {n_rows, n_cols, qins_alloc(n_rows * n_cols, sizeof(float))};
    assert_non_null(m.data);
    return m;
}

static inline void matrix_free(matrix *m) {
    free(m->data);
    *m = (matrix){0};
}

static inline matrix matrix_normal(size_t n_rows, size_t n_cols, double sigma, uint64_t seed) {
    matrix m = matrix_new(n_rows, n_cols);
    rng r = {seed};
    for (size_t i = 0; i < n_rows * n_cols; i++)
        m.data[i] = (float)(sigma * rng_normal(&r));
    return m;
}

/* Options of the original codecs: packed, one scale, no rotation. */
static inline qins_encode_options plain_options(qins_codec codec, int bits) {
    qins_encode_options o;
    qins_encode_defaults(&o);
    o.codec = codec;
    o.bits = bits;
    o.rotate = QINS_OFF;
    o.scale = QINS_SCALE_TENSOR;
    return o;
}

static inline void memory_read_row(const void *context, size_t row, float *dst) {
    const matrix *m = context;
    memcpy(dst, m->data + row * m->n_cols, m->n_cols * sizeof *dst);
}

static inline qins_status memory_put(void *context, qins_part part, uint64_t offset, const void *data, size_t n,
                                     qins_error *err) {
    (void)err;
    encoded *e = context;
    assert_non_null(e->part[part]);
    assert_true(offset == e->received[part]); /* in order, no gaps */
    assert_true(offset + n <= e->info[part].n_bytes);
    memcpy(e->part[part] + offset, data, n);
    e->received[part] += n;
    return QINS_OK;
}

static inline void encoded_free(encoded *e) {
    for (int p = 0; p < QINS_PART_COUNT; p++)
        free(e->part[p]);
    *e = (encoded){0};
}

/* Encodes m; parts are only meaningful when QINS_OK comes back. Free with encoded_free in every case. */
static inline qins_status try_encode(const matrix *m, const qins_encode_options *options, encoded *e, qins_error *err) {
    *e = (encoded){.n_rows = m->n_rows, .n_cols = m->n_cols, .options = *options};
    qins_status status = qins_encode_resolve(&e->options, err);
    if (status != QINS_OK) return status;
    if ((status = qins_encode_parts(m->n_rows, m->n_cols, &e->options, e->info, err)) != QINS_OK) return status;
    for (int p = 0; p < QINS_PART_COUNT; p++)
        if (e->info[p].dtype != NULL) e->part[p] = qins_alloc((size_t)e->info[p].n_bytes, 1);
    qins_row_source source = {memory_read_row, m};
    qins_part_sink sink = {memory_put, e, NULL};
    return qins_encode(m->n_rows, m->n_cols, &source, &e->options, &sink, &e->stats, err);
}

/* The test fails unless every byte of every part arrives. */
static inline encoded encode(const matrix *m, const qins_encode_options *options) {
    encoded e;
    qins_error err = {0};
    if (try_encode(m, options, &e, &err) != QINS_OK) fail_msg("%s", err.message);
    for (int p = 0; p < QINS_PART_COUNT; p++)
        assert_true(e.received[p] == e.info[p].n_bytes);
    return e;
}

static inline double relative_error(const encoded *e) {
    return e->stats.sum_squared_error / e->stats.sum_squares;
}

/* Bits above the rate-distortion bound of a Gaussian, rate = 0.5 log2(1/D) (Cover and Thomas, 10.3). */
static inline double gap_bits(const encoded *e) {
    return e->options.bits - 0.5 * log2(1.0 / relative_error(e));
}

static inline float part_float(const encoded *e, qins_part part, size_t i) {
    float x;
    assert_true((i + 1) * sizeof x <= e->info[part].n_bytes);
    memcpy(&x, e->part[part] + i * sizeof x, sizeof x);
    return x;
}

/* Packed storage. */
static inline unsigned stored_code(const encoded *e, size_t row, size_t col) {
    size_t tile = row / 16 * ((e->n_cols + 63) / 64) + col / 64;
    return qins_unpack_code(e->part[QINS_PART_CODES] + tile * (size_t)(128 * e->options.bits), e->options.bits,
                            row % 16, col % 64);
}

static inline float stored_scale(const encoded *e, size_t row, size_t col) {
    size_t groups;
    switch (e->options.scale) {
    case QINS_SCALE_TENSOR:
        return part_float(e, QINS_PART_SCALES, 0);
    case QINS_SCALE_GROUP:
        groups = (e->n_cols + e->options.group_size - 1) / e->options.group_size;
        return part_float(e, QINS_PART_SCALES, (row / 16 * groups + col / e->options.group_size) * 16 + row % 16);
    default:
        return part_float(e, QINS_PART_SCALES, row);
    }
}

static inline float decode_one(const encoded *e, size_t row, size_t col) {
    size_t i = row * e->n_cols + col;
    if (e->options.storage == QINS_STORAGE_SEED) {
        double lo = (double)part_float(e, QINS_PART_RANGE, 0), hi = (double)part_float(e, QINS_PART_RANGE, 1);
        int stored = e->part[QINS_PART_CODES][i], sign = (int8_t)e->part[QINS_PART_SIGNS][i];
        return stored == 0 ? 0.0f : (float)(sign * exp(lo + (255 - stored) / 254.0 * (hi - lo)));
    }
    if (e->options.storage == QINS_STORAGE_F32) {
        double z = (double)part_float(e, QINS_PART_CODES, i), alpha = (double)part_float(e, QINS_PART_ALPHA, 0);
        return (float)((z < 0 ? -1 : 1) * (1 - fabs(z)) / (alpha * fabs(z)));
    }
    return stored_scale(e, row, col) * part_float(e, QINS_PART_TABLE, stored_code(e, row, col));
}

/* Decoded weights in the original basis. */
static inline matrix decode(const encoded *e) {
    matrix m = matrix_new(e->n_rows, e->n_cols);
    float *signs = qins_alloc(e->n_cols, sizeof *signs);
    assert_non_null(signs);
    if (e->options.rotate == QINS_ON) qins_rotation_signs(e->options.rotation_seed, e->n_cols, signs);
    for (size_t r = 0; r < e->n_rows; r++) {
        for (size_t k = 0; k < e->n_cols; k++)
            m.data[r * e->n_cols + k] = decode_one(e, r, k);
        if (e->options.rotate == QINS_ON) qins_unrotate(m.data + r * e->n_cols, e->n_cols, signs);
    }
    free(signs);
    return m;
}

#endif
