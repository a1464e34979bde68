/* Encoding a matrix, 16 rows at a time. SPDX-License-Identifier: MIT
 *
 * What belongs to the whole tensor (log range, alpha, a single scale) is found in a first pass over the rows; the
 * second pass encodes panels in parallel and hands them to the sink in order. Memory: a few panels a thread and one
 * chunk of output.
 */
#include "codec/simd.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const qins_part_suffix[QINS_PART_COUNT] = {"codes", "sign", "scales", "table", "log_range", "alpha"};

enum { CHUNK_BYTES = 8 << 20, SAMPLE_VALUES = 1 << 17 };
enum { MAX_SPARSE_GROUP = 128 };      /* feedback rounds so many pruned columns at a time */
static const double LOG_FLOOR = 1e-8; /* magnitudes up to here do not widen the log range */
/* A rotation adds up to 4,096 = 2^12 weights before it normalises them. */
static const float ROTATION_LIMIT = FLT_MAX / 4096;

typedef struct encoder {
    size_t n_rows, n_cols;
    qins_encode_options options;
    qins_codebook book;
    qins_codebook scalar; /* trellis: the Gauss codebook that scales are fitted with */
    float tensor_scale;
    double rate_step;   /* > 0: the step in units of a row's root mean square */
    const float *signs; /* NULL without rotation */
    const qins_row_source *source;
} encoder;

/* ---- options and sizes ---- */

qins_status qins_encode_resolve(qins_encode_options *o, qins_error *err) {
    bool packed = o->storage == QINS_STORAGE_PACKED;
    if (o->rotate == QINS_AUTO) o->rotate = packed ? QINS_ON : QINS_OFF;
    if (o->scale == QINS_SCALE_AUTO) o->scale = packed ? QINS_SCALE_ROW : QINS_SCALE_TENSOR;
    if (packed) o->codec = qins_codec_at_width(o->codec, o->bits);
    const char *codec = qins_codec_name(o->codec), *storage = qins_storage_name(o->storage);
    int max_bits = o->codec == QINS_CODEC_LOG ? 9 : 8;
    if (*codec == '?' || *storage == '?' || *qins_scale_name(o->scale) == '?')
        return qins_fail(err, QINS_ERR_ARGUMENT, "unknown codec (%d), storage (%d) or scale (%d)", (int)o->codec,
                         (int)o->storage, (int)o->scale);
    if (o->codec == QINS_CODEC_NONE) return QINS_OK;
    int min_bits = qins_codec_min_bits(o->codec);
    if (packed && (o->bits < min_bits || o->bits > max_bits))
        return qins_fail(err, QINS_ERR_ARGUMENT, "bits: codec %s takes %d to %d, not %d", codec, min_bits, max_bits,
                         o->bits);
    if (o->storage == QINS_STORAGE_SEED && o->codec != QINS_CODEC_LOG)
        return qins_fail(err, QINS_ERR_ARGUMENT, "storage seed (u8 + i8) belongs to codec log, not %s", codec);
    if (qins_codec_is_trellis(o->codec) && packed && o->scale == QINS_SCALE_GROUP)
        return qins_fail(err, QINS_ERR_ARGUMENT, "codec %s takes a scale a row or tensor, not a group", codec);
    if (o->storage == QINS_STORAGE_F32 && o->codec != QINS_CODEC_RATIONAL)
        return qins_fail(err, QINS_ERR_ARGUMENT, "storage f32 (coordinates) belongs to codec rational, not %s", codec);
    if (!packed && (o->rotate == QINS_ON || o->scale != QINS_SCALE_TENSOR))
        return qins_fail(
            err, QINS_ERR_ARGUMENT,
            "storage %s is the original format: it takes neither rotation nor scales (use rotate off, scale "
            "tensor, or storage packed)",
            storage);
    if (o->scale == QINS_SCALE_GROUP && (o->group_size < 4 || o->group_size % 4 != 0))
        return qins_fail(err, QINS_ERR_ARGUMENT, "group size: expected a multiple of 4, not %zu", o->group_size);
    if (o->codec == QINS_CODEC_UNIFORM && o->sparsity > 0) o->codec = QINS_CODEC_SPARSE;
    if (o->rate != 0 && !(qins_codec_is_uniform(o->codec) && packed && o->scale == QINS_SCALE_ROW && o->rate > 0))
        return qins_fail(err, QINS_ERR_ARGUMENT, "a rate goes with equal steps, packed storage and a scale a row");
    bool has_zero = o->codec == QINS_CODEC_LOG || o->codec == QINS_CODEC_RATIONAL;
    bool can_prune = o->codec == QINS_CODEC_SPARSE || (has_zero && o->rotate != QINS_ON);
    if (o->sparsity != 0 && !(o->sparsity > 0 && o->sparsity < 1 && can_prune))
        return qins_fail(err, QINS_ERR_ARGUMENT,
                         "sparsity: expected a share below 1 and codec uniform, or log or rational without rotation: "
                         "those have a code for zero");
    if (o->sparse_group > MAX_SPARSE_GROUP || (o->sparse_group > 0 && MAX_SPARSE_GROUP % o->sparse_group != 0))
        return qins_fail(err, QINS_ERR_ARGUMENT, "sparse group: expected 0 or a divisor of %d, not %zu",
                         MAX_SPARSE_GROUP, o->sparse_group);
    if (o->alpha != 0 && !(o->alpha >= QINS_MIN_ALPHA && o->alpha <= QINS_MAX_ALPHA))
        return qins_fail(err, QINS_ERR_ARGUMENT, "alpha: expected %g to %g or fit, not %g", QINS_MIN_ALPHA,
                         QINS_MAX_ALPHA, o->alpha);
    return QINS_OK;
}

static size_t group_count(size_t n_cols, const qins_encode_options *o) {
    return o->scale == QINS_SCALE_GROUP ? (n_cols - 1) / o->group_size + 1 : 1;
}

/* Width of the codebook: seed has 255 magnitudes; f32 keeps coordinates, its table only serves to fit alpha. */
static int codebook_bits(const qins_encode_options *o) {
    return o->storage == QINS_STORAGE_SEED ? 9 : o->storage == QINS_STORAGE_F32 ? 8 : o->bits;
}

/* False on overflow. */
static bool set_part(qins_part_info *part, const char *dtype, size_t value_bytes, size_t n_dims, const size_t *shape) {
    *part = (qins_part_info){.dtype = dtype, .n_dims = n_dims};
    size_t n_bytes = value_bytes;
    for (size_t i = 0; i < n_dims; i++) {
        part->shape[i] = shape[i];
        if (!qins_mul_size(n_bytes, shape[i], &n_bytes)) return false;
    }
    part->n_bytes = n_bytes;
    return true;
}

qins_status qins_encode_parts(size_t n_rows, size_t n_cols, const qins_encode_options *o,
                              qins_part_info parts[QINS_PART_COUNT], qins_error *err) {
    memset(parts, 0, QINS_PART_COUNT * sizeof *parts);
    const size_t limit = SIZE_MAX / QINS_TILE_CODES; /* so that a panel's sizes do not overflow */
    if (n_rows == 0 || n_cols == 0 || n_rows > limit || n_cols > limit || o->codec == QINS_CODEC_NONE)
        return qins_fail(err, QINS_ERR_ARGUMENT, "a matrix of %zu x %zu cannot be encoded", n_rows, n_cols);
    size_t panels = qins_n_panels(n_rows), groups = group_count(n_cols, o), matrix[2] = {n_rows, n_cols}, one = 1,
           two = 2;
    bool ok = true;
    if (o->storage == QINS_STORAGE_SEED) {
        ok = set_part(&parts[QINS_PART_CODES], "U8", 1, 2, matrix) &&
             set_part(&parts[QINS_PART_SIGNS], "I8", 1, 2, matrix) &&
             set_part(&parts[QINS_PART_RANGE], "F32", 4, 1, &two);
    } else if (o->storage == QINS_STORAGE_F32) {
        ok = set_part(&parts[QINS_PART_CODES], "F32", 4, 2, matrix) &&
             set_part(&parts[QINS_PART_ALPHA], "F32", 4, 1, &one);
    } else {
        size_t codes[3] = {panels, qins_n_tiles(n_cols), qins_tile_bytes(o->bits)},
               levels = (size_t)(qins_codec_is_trellis(o->codec) ? 2 : 1) << o->bits;
        size_t by_row = panels * QINS_PANEL_ROWS, by_group[3] = {panels, groups, QINS_PANEL_ROWS};
        ok = set_part(&parts[QINS_PART_CODES], "U8", 1, 3, codes) &&
             set_part(&parts[QINS_PART_TABLE], "F32", 4, 1, &levels);
        if (o->scale == QINS_SCALE_TENSOR)
            ok = ok && set_part(&parts[QINS_PART_SCALES], "F32", 4, 1, &one);
        else if (o->scale == QINS_SCALE_ROW)
            ok = ok && set_part(&parts[QINS_PART_SCALES], "F32", 4, 1, &by_row);
        else
            ok = ok && set_part(&parts[QINS_PART_SCALES], "F32", 4, 3, by_group);
        if (o->codec == QINS_CODEC_RATIONAL) ok = ok && set_part(&parts[QINS_PART_ALPHA], "F32", 4, 1, &one);
        parts[QINS_PART_TABLE].shared = qins_codec_has_fixed_table(o->codec);
    }
    if (!ok) return qins_fail(err, QINS_ERR_ARGUMENT, "a matrix of %zu x %zu is too large", n_rows, n_cols);
    return QINS_OK;
}

/* ---- rows ---- */

/* Reads, rotates and prunes a row; column of the first value that is not finite, or n_cols. *pruned: squares of what
 * became 0. */
static size_t load_row(const encoder *e, size_t row, float *dst, double *pruned) {
    e->source->read(e->source->context, row, dst);
    const float limit = e->signs != NULL ? ROTATION_LIMIT : FLT_MAX;
    int bad = 0;
    for (size_t k = 0; k < e->n_cols; k++)
        bad |= !(fabsf(dst[k]) <= limit); /* NaN compares false */
    for (size_t k = 0; bad && k < e->n_cols; k++)
        if (!(fabsf(dst[k]) <= limit)) return k;
    if (e->signs != NULL) qins_rotate(dst, e->n_cols, e->signs);
    *pruned = qins_prune_row(dst, e->n_cols, e->options.sparsity, e->options.sparse_group);
    return e->n_cols;
}

static qins_status fail_not_finite(const encoder *e, size_t row, size_t col, qins_error *err) {
    return qins_fail(err, QINS_ERR_FORMAT,
                     "weight [%zu][%zu] is NaN or infinite%s: expected finite weights; repair the checkpoint or leave "
                     "this tensor out with --targets",
                     row, col, e->signs != NULL ? " (or above 8e34, too large to rotate)" : "");
}

static bool scale_per_part_of_row(const encoder *e) {
    return e->options.scale != QINS_SCALE_TENSOR;
}

static bool needs_thorough_search(const encoder *e) {
    return e->signs == NULL || e->options.scale == QINS_SCALE_GROUP || e->options.sparsity > 0;
}

/* Scales of a row: one, or one a group. For QINS_SCALE_TENSOR the tensor's. pruned: squares that the row lost. */
static void row_scales(const encoder *e, const float *row, double pruned, float *scales) {
    if (!scale_per_part_of_row(e)) {
        scales[0] = e->tensor_scale;
        return;
    }
    size_t step = e->options.scale == QINS_SCALE_GROUP ? e->options.group_size : e->n_cols;
    if (e->rate_step > 0) {
        scales[0] = qins_rate_scale(&e->book, row, e->n_cols, pruned, e->rate_step);
        return;
    }
    if (qins_codec_is_trellis(e->book.codec)) {
        scales[0] = qins_trellis_scale(&e->book, needs_thorough_search(e) ? &e->scalar : NULL, row, e->n_cols);
        return;
    }
    for (size_t k = 0, g = 0; k < e->n_cols; k += step, g++)
        scales[g] = qins_fit_scale(&e->book, row + k, qins_min_size(step, e->n_cols - k), needs_thorough_search(e));
}

static size_t scale_index(const encoder *e, size_t col) {
    return e->options.scale == QINS_SCALE_GROUP ? col / e->options.group_size : 0;
}

/* ---- first pass ---- */

/* What the first pass learns of u = w/scale. */
typedef struct survey {
    double smallest, largest; /* of |u|; the smallest of those above LOG_FLOOR, infinite when there is none */
    float *sample;            /* every `stride`-th u of the flattened matrix; NULL when not wanted */
    size_t stride;
} survey;

static void survey_row(const encoder *e, size_t r, float *row, double pruned, float *scales, survey *s) {
    row_scales(e, row, pruned, scales);
    for (size_t k = 0; k < e->n_cols; k++) {
        float scale = scales[scale_index(e, k)];
        row[k] = scale != 0.0f ? row[k] / scale : 0.0f;
        double a = fabs((double)row[k]);
        if (a > LOG_FLOOR) s->smallest = fmin(s->smallest, a);
        s->largest = fmax(s->largest, a);
    }
    if (s->sample == NULL) return;
    size_t begin = r * e->n_cols, end = begin + e->n_cols;
    for (size_t i = (begin + s->stride - 1) / s->stride; i * s->stride < end; i++)
        s->sample[i] = row[i * s->stride - begin];
}

static qins_status survey_rows(const encoder *e, survey *s, qins_error *err) {
    size_t n_groups = group_count(e->n_cols, &e->options), bad_row = SIZE_MAX, bad_col = 0;
    bool no_memory = false;
    s->smallest = INFINITY;
    s->largest = 0;
#pragma omp parallel
    {
        float *row = qins_alloc(e->n_cols + n_groups, sizeof *row), *scales = row != NULL ? row + e->n_cols : NULL;
        survey mine = *s;
#pragma omp for schedule(dynamic, 16)
        for (size_t r = 0; r < e->n_rows; r++) {
            if (row == NULL) continue;
            double pruned;
            size_t bad = load_row(e, r, row, &pruned);
            if (bad == e->n_cols) {
                survey_row(e, r, row, pruned, scales, &mine);
                continue;
            }
#pragma omp critical(qins_survey)
            if (r < bad_row) {
                bad_row = r;
                bad_col = bad;
            }
        }
#pragma omp critical(qins_survey)
        {
            no_memory |= row == NULL;
            s->smallest = fmin(s->smallest, mine.smallest);
            s->largest = fmax(s->largest, mine.largest);
        }
        free(row);
    }
    if (no_memory) return qins_fail_memory(err, e->n_cols * sizeof(float), "a row");
    if (bad_row != SIZE_MAX) return fail_not_finite(e, bad_row, bad_col, err);
    return QINS_OK;
}

static qins_status fit_log_range(encoder *e, qins_error *err) {
    survey s = {0};
    qins_status status = survey_rows(e, &s, err);
    if (status != QINS_OK) return status;
    bool empty = isinf(s.smallest);
    qins_log_codebook(&e->book, codebook_bits(&e->options), empty ? 0.0f : (float)log(s.smallest),
                      empty ? 0.0f : (float)log(s.largest));
    return QINS_OK;
}

static size_t common_divisor(size_t a, size_t b) {
    while (b != 0) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* A sample of the whole tensor, each weight divided by its scale. It is not all zero unless the tensor is. */
static qins_status take_sample(const encoder *e, float **sample, size_t *n, qins_error *err) {
    size_t total = e->n_rows * e->n_cols;
    survey s = {.stride = qins_max_size(1, total / SAMPLE_VALUES)};
    while (common_divisor(s.stride, e->n_cols) != 1) /* so that every column takes part */
        s.stride++;
    *n = (total - 1) / s.stride + 1;
    s.sample = qins_alloc(*n, sizeof *s.sample);
    if (s.sample == NULL) return qins_fail_memory(err, *n * sizeof *s.sample, "a sample of the weights");
    qins_status status = survey_rows(e, &s, err);
    if (status != QINS_OK) {
        free(s.sample);
        return status;
    }
    bool all_zero = true;
    for (size_t i = 0; i < *n && all_zero; i++)
        all_zero = s.sample[i] == 0.0f;
    if (all_zero) s.sample[0] = (float)s.largest;
    *sample = s.sample;
    return QINS_OK;
}

/* Makes the codebook and the tensor's scale. */
static qins_status fit_tensor(encoder *e, qins_error *err) {
    const qins_encode_options *o = &e->options;
    int bits = codebook_bits(o);
    e->tensor_scale = 1.0f; /* log and rational follow the weights through their range and alpha */
    e->book = (qins_codebook){.codec = o->codec, .bits = bits};
    if (o->codec == QINS_CODEC_LOG) return fit_log_range(e, err);
    bool fit_alpha = o->codec == QINS_CODEC_RATIONAL && o->alpha == 0;
    /* The file holds alpha as FP32. */
    if (o->codec == QINS_CODEC_RATIONAL && !fit_alpha) qins_rational_codebook(&e->book, bits, (float)o->alpha);
    if (qins_codec_has_fixed_table(o->codec)) qins_fixed_codebook(&e->book, o->codec, bits);
    if (qins_codec_is_trellis(o->codec)) qins_trellis_scalar(&e->scalar, bits);
    if (o->rate > 0) {
        double length[QINS_MAX_LEVELS];
        e->rate_step = qins_rate_step(o->codec, bits, o->rate, 0, o->sparsity, length);
    }
    bool fit_scale = o->codec != QINS_CODEC_RATIONAL && o->scale == QINS_SCALE_TENSOR;
    if (!fit_alpha && !fit_scale) return QINS_OK;
    float *sample = NULL;
    size_t n = 0;
    qins_status status = take_sample(e, &sample, &n, err);
    if (status != QINS_OK) return status;
    if (fit_scale && qins_codec_is_trellis(o->codec))
        e->tensor_scale = qins_trellis_scale(&e->book, &e->scalar, sample, n);
    else if (fit_scale)
        e->tensor_scale = qins_fit_scale(&e->book, sample, n, true);
    if (fit_alpha) qins_rational_codebook(&e->book, bits, (float)qins_fit_alpha(sample, n, bits));
    free(sample);
    return QINS_OK;
}

/* ---- second pass ---- */

/* Output of some panels, and what one panel needs. */
typedef struct chunk {
    uint8_t *codes, *signs;
    float *scales;
    size_t code_stride, sign_stride, scale_stride; /* per panel: bytes, bytes, floats */
} chunk;

typedef struct panel_scratch {
    float *row, *scales; /* of a row; trellis: of the 16 rows */
    uint16_t *codes;     /* [16][n_cols] */
} panel_scratch;

enum { HISTOGRAMS = 4 }; /* neighbours count apart: adding to one count twice in a row waits for the first */

typedef struct panel_stats {
    double sum_squares, sum_squared_error;
    uint64_t histogram[HISTOGRAMS][QINS_MAX_LEVELS];
} panel_stats;

/* n values that share a scale. */
static void encode_values(const encoder *e, const float *x, size_t n, float scale, uint16_t *codes,
                          panel_stats *stats) {
    if (e->book.sorted && scale != 0.0f)
        qins_get_codec_simd()->nearest(&e->book, x, n, scale, codes);
    else
        for (size_t k = 0; k < n; k++)
            codes[k] = (uint16_t)qins_codebook_encode(&e->book, scale != 0.0f ? x[k] / scale : 0.0f);
    double sum[4] = {0};
    for (size_t k = 0; k < n; k++) {
        double error = (double)x[k] - (double)scale * (double)e->book.table[codes[k]];
        stats->histogram[k % HISTOGRAMS][codes[k]]++;
        sum[k % 4] += error * error;
    }
    stats->sum_squared_error += sum[0] + sum[1] + sum[2] + sum[3];
}

static void encode_row_packed(const encoder *e, const float *row, const float *scales, uint16_t *codes,
                              panel_stats *stats) {
    size_t step = e->options.scale == QINS_SCALE_GROUP ? e->options.group_size : e->n_cols;
    for (size_t k = 0, g = 0; k < e->n_cols; k += step, g++)
        encode_values(e, row + k, qins_min_size(step, e->n_cols - k), scales[g], codes + k, stats);
}

static double sum_of_squares(const float *x, size_t n) {
    double sum[4] = {0};
    for (size_t k = 0; k < n; k++)
        sum[k % 4] += (double)x[k] * (double)x[k];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static void encode_row_seed(const encoder *e, const float *row, uint8_t *stored, int8_t *signs, panel_stats *stats) {
    for (size_t k = 0; k < e->n_cols; k++) {
        unsigned code = qins_codebook_encode(&e->book, row[k]);
        stored[k] = (uint8_t)(code & 255u);
        signs[k] = code > 255 ? -1 : 1; /* exact zero is +1 */
        double error = (double)row[k] - (double)e->book.table[code];
        stats->histogram[k % HISTOGRAMS][stored[k]]++;
        stats->sum_squared_error += error * error;
    }
}

static void encode_row_f32(const encoder *e, const float *row, float *z, panel_stats *stats) {
    for (size_t k = 0; k < e->n_cols; k++) {
        z[k] = (float)qins_rational_z(e->book.alpha, (double)row[k]);
        double error = (double)row[k] - (double)(float)qins_rational_w(e->book.alpha, (double)z[k]);
        stats->sum_squared_error += error * error;
    }
}

/* Trellis: a panel of which all rows are loaded. */
static void encode_rows_together(const encoder *e, size_t rows, const panel_scratch *s, panel_stats *stats) {
    stats->sum_squared_error += qins_trellis_encode_panel(&e->book, s->row, rows, e->n_cols, s->scales, s->codes);
    for (size_t i = 0; i < rows * e->n_cols; i++)
        stats->histogram[i % HISTOGRAMS][s->codes[i]]++;
}

/* Encodes panel `panel` into slot `slot` of the chunk. Column of a non-finite weight goes to *bad_row, *bad_col. */
static bool encode_panel(const encoder *e, size_t panel, const chunk *out, size_t slot, const panel_scratch *s,
                         panel_stats *stats, size_t *bad_row, size_t *bad_col) {
    size_t first = panel * QINS_PANEL_ROWS, rows = qins_min_size(QINS_PANEL_ROWS, e->n_rows - first);
    uint8_t *codes = out->codes + slot * out->code_stride;
    float *scales = out->scales != NULL ? out->scales + slot * out->scale_stride : NULL;
    size_t n_groups = group_count(e->n_cols, &e->options);
    bool together = qins_codec_is_trellis(e->book.codec);
    if (scales != NULL) memset(scales, 0, out->scale_stride * sizeof *scales);
    for (size_t r = 0; r < rows; r++) {
        double pruned = 0;
        float *row = s->row + (together ? r * e->n_cols : 0), *row_scale = s->scales + (together ? r : 0);
        size_t bad = load_row(e, first + r, row, &pruned);
        if (bad < e->n_cols) {
            *bad_row = first + r;
            *bad_col = bad;
            return false;
        }
        stats->sum_squares += sum_of_squares(row, e->n_cols) + pruned;
        stats->sum_squared_error += pruned;
        if (e->options.storage == QINS_STORAGE_SEED) {
            encode_row_seed(e, row, codes + r * e->n_cols,
                            (int8_t *)out->signs + slot * out->sign_stride + r * e->n_cols, stats);
        } else if (e->options.storage == QINS_STORAGE_F32) {
            encode_row_f32(e, row, (float *)(void *)codes + r * e->n_cols, stats);
        } else {
            row_scales(e, row, pruned, row_scale);
            if (!together) encode_row_packed(e, row, row_scale, s->codes + r * e->n_cols, stats);
            if (scales != NULL)
                for (size_t g = 0; g < n_groups; g++)
                    scales[g * QINS_PANEL_ROWS + r] = row_scale[g];
        }
    }
    if (together) encode_rows_together(e, rows, s, stats);
    if (e->options.storage == QINS_STORAGE_PACKED)
        qins_pack_panel(s->codes, e->n_cols, together ? QINS_PANEL_ROWS : rows, e->n_cols, e->options.bits, codes);
    return true;
}

static void add_stats(qins_encode_stats *total, const panel_stats *part) {
    total->sum_squares += part->sum_squares;
    total->sum_squared_error += part->sum_squared_error;
    for (size_t i = 0; i < QINS_MAX_LEVELS; i++)
        for (size_t h = 0; h < HISTOGRAMS; h++)
            total->histogram[i] += part->histogram[h][i];
}

static qins_status encode_chunk(const encoder *e, size_t first_panel, size_t n_panels, const chunk *out,
                                qins_encode_stats *stats, qins_error *err) {
    size_t bad_row = SIZE_MAX, bad_col = 0;
    bool no_memory = false;
#pragma omp parallel
    {
        size_t rows = qins_codec_is_trellis(e->book.codec) ? QINS_PANEL_ROWS : 1;
        panel_scratch s = {qins_alloc(e->n_cols, rows * sizeof(float)),
                           qins_alloc(group_count(e->n_cols, &e->options), rows * sizeof(float)),
                           qins_alloc(e->n_cols, QINS_PANEL_ROWS * sizeof(uint16_t))};
        bool ok = s.row != NULL && s.scales != NULL && s.codes != NULL;
        panel_stats mine = {0};
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < n_panels; i++) {
            size_t row, col;
            if (ok && !encode_panel(e, first_panel + i, out, i, &s, &mine, &row, &col)) {
#pragma omp critical(qins_encode)
                if (row < bad_row) {
                    bad_row = row;
                    bad_col = col;
                }
            }
        }
#pragma omp critical(qins_encode)
        {
            no_memory |= !ok;
            add_stats(stats, &mine);
        }
        free(s.row);
        free(s.scales);
        free(s.codes);
    }
    if (no_memory) return qins_fail_memory(err, e->n_cols * QINS_PANEL_ROWS * sizeof(uint16_t), "a panel");
    if (bad_row != SIZE_MAX) return fail_not_finite(e, bad_row, bad_col, err);
    return QINS_OK;
}

static qins_status put_whole(const qins_part_sink *sink, qins_part part, const void *data, const qins_part_info *info,
                             qins_error *err) {
    return info->dtype == NULL ? QINS_OK : sink->put(sink->context, part, 0, data, (size_t)info->n_bytes, err);
}

/* Parts that are known after the first pass. */
static qins_status put_fitted(const encoder *e, const qins_part_sink *sink, const qins_part_info *parts,
                              qins_error *err) {
    float range[2] = {e->book.log_min, e->book.log_max}, alpha = (float)e->book.alpha;
    qins_status status = put_whole(sink, QINS_PART_TABLE, e->book.table, &parts[QINS_PART_TABLE], err);
    if (status == QINS_OK) status = put_whole(sink, QINS_PART_RANGE, range, &parts[QINS_PART_RANGE], err);
    if (status == QINS_OK) status = put_whole(sink, QINS_PART_ALPHA, &alpha, &parts[QINS_PART_ALPHA], err);
    if (status == QINS_OK && e->options.scale == QINS_SCALE_TENSOR)
        status = put_whole(sink, QINS_PART_SCALES, &e->tensor_scale, &parts[QINS_PART_SCALES], err);
    return status;
}

static qins_status encode_panels(const encoder *e, const qins_part_sink *sink, const qins_part_info *parts,
                                 qins_encode_stats *stats, qins_error *err) {
    size_t panels = qins_n_panels(e->n_rows), row_values = QINS_PANEL_ROWS * e->n_cols;
    bool packed = e->options.storage == QINS_STORAGE_PACKED, scales = packed && scale_per_part_of_row(e);
    chunk out = {.code_stride = packed ? (size_t)parts[QINS_PART_CODES].n_bytes / panels
                                : e->options.storage == QINS_STORAGE_F32 ? row_values * sizeof(float)
                                                                         : row_values,
                 .sign_stride = parts[QINS_PART_SIGNS].dtype != NULL ? row_values : 0,
                 .scale_stride = scales ? group_count(e->n_cols, &e->options) * QINS_PANEL_ROWS : 0};
    size_t per_chunk = qins_min_size(panels, qins_max_size((size_t)qins_get_threads(), CHUNK_BYTES / out.code_stride));
    out.codes = qins_alloc_aligned(per_chunk, out.code_stride);
    out.signs = qins_alloc(per_chunk, qins_max_size(1, out.sign_stride));
    out.scales = scales ? qins_alloc(per_chunk * out.scale_stride, sizeof(float)) : NULL;
    qins_status status = QINS_OK;
    if (out.codes == NULL || out.signs == NULL || (scales && out.scales == NULL))
        status = qins_fail_memory(err, per_chunk * out.code_stride, "encoded panels");
    uint64_t offset[QINS_PART_COUNT] = {0};
    for (size_t p = 0; p < panels && status == QINS_OK; p += per_chunk) {
        size_t n = qins_min_size(per_chunk, panels - p);
        status = encode_chunk(e, p, n, &out, stats, err);
        size_t rows = qins_min_size(n * QINS_PANEL_ROWS, e->n_rows - p * QINS_PANEL_ROWS);
        const void *data[QINS_PART_COUNT] = {
            [QINS_PART_CODES] = out.codes, [QINS_PART_SIGNS] = out.signs, [QINS_PART_SCALES] = out.scales};
        size_t size[QINS_PART_COUNT] = {[QINS_PART_CODES] =
                                            packed ? n * out.code_stride : out.code_stride / QINS_PANEL_ROWS * rows,
                                        [QINS_PART_SIGNS] = out.sign_stride / QINS_PANEL_ROWS * rows,
                                        [QINS_PART_SCALES] = n * out.scale_stride * sizeof(float)};
        for (int part = 0; part < QINS_PART_COUNT && status == QINS_OK; part++) {
            if (size[part] == 0) continue;
            status = sink->put(sink->context, (qins_part)part, offset[part], data[part], size[part], err);
            offset[part] += size[part];
        }
        if (status == QINS_OK && sink->advance != NULL && sink->advance(sink->context, p * QINS_PANEL_ROWS + rows))
            status = qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
    }
    free(out.codes);
    free(out.signs);
    free(out.scales);
    return status;
}

qins_status qins_encode(size_t n_rows, size_t n_cols, const qins_row_source *source, const qins_encode_options *options,
                        const qins_part_sink *sink, qins_encode_stats *stats, qins_error *err) {
    qins_part_info parts[QINS_PART_COUNT];
    qins_status status = qins_encode_parts(n_rows, n_cols, options, parts, err);
    if (status != QINS_OK) return status;
    *stats = (qins_encode_stats){0};
    encoder *e = qins_alloc(1, sizeof *e);
    float *signs = options->rotate == QINS_ON ? qins_alloc(n_cols, sizeof *signs) : NULL;
    if (e == NULL || (options->rotate == QINS_ON && signs == NULL)) {
        status = qins_fail_memory(err, n_cols * sizeof *signs, "an encoder");
    } else {
        *e = (encoder){.n_rows = n_rows, .n_cols = n_cols, .options = *options, .signs = signs, .source = source};
        if (signs != NULL) qins_rotation_signs(options->rotation_seed, n_cols, signs);
        status = fit_tensor(e, err);
        if (status == QINS_OK) status = put_fitted(e, sink, parts, err);
        if (status == QINS_OK) status = encode_panels(e, sink, parts, stats, err);
        stats->alpha = e->book.alpha;
    }
    free(signs);
    free(e);
    return status;
}
