/* How rows of keys and values are stored. SPDX-License-Identifier: MIT
 *
 * After the Hadamard transform the values of a head are nearly Gaussian, so that one table serves all of them and a row
 * needs one scale. With only head_dim values to a scale, the scale of least squared error differs from the root mean
 * square; trying sixteen takes 24 % off the squared error at 4 bits and head_dim 64, 32 % at 6 bits (docs/kv-cache.md).
 */
#include "codec/codec.h"
#include "model/kv_cache.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool qins_kv_type_of_bits(int bits, qins_kv_type *type) {
    for (int t = 0; t < QINS_KV_TYPES; t++)
        if (qins_kv_bits((qins_kv_type)t) == bits) {
            *type = (qins_kv_type)t;
            return true;
        }
    return false;
}

static bool is_coded(qins_kv_type type) {
    return type != QINS_KV_F32 && type != QINS_KV_F16;
}

/* As multiples of a unit. Of the units that use up to 127 multiples, the one that moves the levels least, each counting
 * as often as it is used: about density * distance to its neighbours. */
static void round_levels(qins_kv_codebook *book, const double *levels, size_t n) {
    double best = INFINITY;
    for (int most = 96; most <= 127; most++) {
        double unit = levels[n - 1] / most, moved = 0;
        for (size_t i = 0; i < n; i++) {
            double from = i > 0 ? levels[i - 1] : levels[i], to = i + 1 < n ? levels[i + 1] : levels[i];
            double distance = levels[i] - unit * rint(levels[i] / unit);
            moved += exp(-0.5 * levels[i] * levels[i]) * (to - from) * distance * distance;
        }
        if (moved >= best) continue;
        best = moved;
        book->unit = (float)unit;
    }
    for (size_t i = 0; i < sizeof book->levels; i++)
        book->levels[i] = (int8_t)rint(levels[i % n] / (double)book->unit);
}

static qins_kv_codebook *make_book(qins_kv_type type) {
    qins_kv_codebook *book = qins_alloc_aligned(1, sizeof *book);
    if (book == NULL) return NULL;
    size_t n = (size_t)1 << qins_kv_bits(type);
    if (type == QINS_KV_8) {
        for (size_t i = 0; i < n; i++)
            book->table[i] = ((float)i - 127.5f) / 127.5f;
        book->unit = 1 / 127.5f;
        return book;
    }
    double levels[64];
    qins_lloyd_max_gauss(n, levels);
    round_levels(book, levels, n);
    for (size_t i = 0; i < n; i++)
        book->table[i] = book->unit * (float)book->levels[i];
    for (size_t i = 0; i < n; i++)
        book->bounds[i] = i + 1 < n ? 0.5f * (book->table[i] + book->table[i + 1]) : INFINITY;
    return book;
}

qins_status qins_kv_format_init(qins_kv_format *f, size_t head_dim, int key_bits, int value_bits, qins_error *err) {
    *f = (qins_kv_format){.head_dim = head_dim, .dims = qins_round_up(head_dim, QINS_KV_LANES)};
    if (!qins_kv_type_of_bits(key_bits, &f->key_type) || !qins_kv_type_of_bits(value_bits, &f->value_type))
        return qins_fail(err, QINS_ERR_ARGUMENT, "KV cache: expected 32, 16, 8, 6, 5, 4 or 3 bits, not %d:%d", key_bits,
                         value_bits);
    if (head_dim > QINS_KV_MAX_DIMS)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "KV cache: heads of %zu values, more than %d", head_dim,
                         QINS_KV_MAX_DIMS);
    f->coded_keys = is_coded(f->key_type);
    f->coded_values = is_coded(f->value_type);
    f->key_row = f->dims * (size_t)key_bits / 8;
    f->value_row = f->dims * (size_t)value_bits / 8;
    f->values = QINS_KV_PAGE * f->key_row;
    f->key_scales = f->values + QINS_KV_PAGE * f->value_row;
    f->value_scales = f->key_scales + (f->coded_keys ? QINS_KV_PAGE * sizeof(uint16_t) : 0);
    f->mean = f->value_scales + (f->coded_values ? QINS_KV_PAGE * sizeof(uint16_t) : 0);
    f->page_bytes = qins_round_up(f->mean + (f->coded_keys ? f->dims * sizeof(uint16_t) : 0), 64);
    size_t sink_bytes = QINS_KV_SINKS * f->dims * sizeof(uint16_t);
    f->sink_values = f->coded_keys ? sink_bytes : 0;
    f->first_page = qins_round_up(f->sink_values + (f->coded_values ? sink_bytes : 0), 64);
    if (f->coded_keys) f->key_book = make_book(f->key_type);
    if (f->coded_values) f->value_book = make_book(f->value_type);
    if ((f->coded_keys && f->key_book == NULL) || (f->coded_values && f->value_book == NULL)) {
        qins_kv_format_free(f);
        return qins_fail_memory(err, sizeof(qins_kv_codebook), "a code book");
    }
    return QINS_OK;
}

void qins_kv_format_free(qins_kv_format *f) {
    free(f->key_book);
    free(f->value_book);
    f->key_book = f->value_book = NULL;
}

/* ---- views ---- */

static uint8_t *page_of(const qins_kv_format *f, const uint8_t *head, size_t page) {
    return (uint8_t *)(uintptr_t)(head + f->first_page + page * f->page_bytes);
}

static qins_kv_rows sink_rows(const qins_kv_format *f, const uint8_t *sinks) {
    return (qins_kv_rows){.data = sinks, .row_bytes = f->dims * sizeof(uint16_t)};
}

static qins_kv_rows page_rows(const qins_kv_format *f, const uint8_t *data, size_t row_bytes, const uint8_t *scales,
                              const qins_kv_codebook *book) {
    return (qins_kv_rows){.data = data,
                          .row_bytes = row_bytes,
                          .ahead = f->page_bytes,
                          .scales = book != NULL ? (const uint16_t *)(const void *)scales : NULL,
                          .table = book != NULL ? book->table : NULL,
                          .levels = book != NULL ? book->levels : NULL,
                          .unit = book != NULL ? book->unit : 0};
}

static void skip_rows(qins_kv_rows *rows, size_t n) {
    rows->data += n * rows->row_bytes;
    if (rows->scales != NULL) rows->scales += n;
}

size_t qins_kv_spans(const qins_kv_format *f, const uint8_t *head, size_t page, size_t n, qins_kv_span spans[2]) {
    const uint8_t *p = page_of(f, head, page);
    bool sinks = page == 0 && (f->coded_keys || f->coded_values);
    qins_kv_span all = {.keys = page_rows(f, p, f->key_row, p + f->key_scales, f->key_book),
                        .values = page_rows(f, p + f->values, f->value_row, p + f->value_scales, f->value_book),
                        .key_type = f->key_type,
                        .value_type = f->value_type,
                        .mean = f->coded_keys && page > 0 ? (const uint16_t *)(const void *)(p + f->mean) : NULL,
                        .n = n};
    spans[0] = all;
    if (!sinks) return 1;
    if (f->coded_keys) {
        spans[0].keys = sink_rows(f, head);
        spans[0].key_type = QINS_KV_F16;
    }
    if (f->coded_values) {
        spans[0].values = sink_rows(f, head + f->sink_values);
        spans[0].value_type = QINS_KV_F16;
    }
    if (n <= QINS_KV_SINKS) return 1;
    spans[0].n = QINS_KV_SINKS;
    spans[1] = all;
    spans[1].slot = QINS_KV_SINKS;
    spans[1].n = n - QINS_KV_SINKS;
    skip_rows(&spans[1].keys, QINS_KV_SINKS);
    skip_rows(&spans[1].values, QINS_KV_SINKS);
    return 2;
}

void qins_kv_fetch_page(const qins_kv_format *f, const uint8_t *head, size_t page) {
    const uint8_t *p = page_of(f, head, page);
    for (size_t i = f->key_scales; i < f->page_bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

/* ---- writing ---- */

static void pack(const uint8_t *codes, size_t n, int bits, uint8_t *out) {
    uint64_t word = 0;
    unsigned filled = 0;
    for (size_t i = 0; i < n; i++) {
        word |= (uint64_t)codes[i] << filled;
        for (filled += (unsigned)bits; filled >= 8; filled -= 8, word >>= 8)
            *out++ = (uint8_t)word;
    }
}

/* Scales to try: factors of the root mean square, for 8 bits of the largest magnitude. */
typedef struct scale_search {
    float first, step;
    int n;
} scale_search;

static void encode(qins_kv_type type, const qins_kv_codebook *book, size_t dims, const float *x, uint8_t *row,
                   uint16_t *scale) {
    static const scale_search gauss = {.first = 0.80f, .step = 0.032f, .n = 16},
                              uniform = {.first = 0.86f, .step = 0.02f, .n = 8};
    const qins_attention_kernels *kernels = qins_get_attention_kernels();
    const scale_search *search = type == QINS_KV_8 ? &uniform : &gauss;
    uint8_t codes[2][QINS_KV_MAX_DIMS];
    float unit = 0, best = -1, best_cross = 0, size = 0;
    int kept = 0;
    for (size_t d = 0; d < dims; d++) {
        unit = fmaxf(unit, fabsf(x[d]));
        size += x[d] * x[d];
    }
    if (type != QINS_KV_8) unit = sqrtf(size / (float)dims);
    if (unit == 0.0f) {
        *scale = 0;
        memset(row, 0, dims * (size_t)qins_kv_bits(type) / 8);
        return;
    }
    for (int i = 0; i < search->n; i++) {
        float cross, square, inverse = 1.0f / (unit * (search->first + search->step * (float)i));
        kernels->quantize[type](book, x, dims, inverse, codes[!kept], &cross, &square);
        float explained = cross * cross / square; /* |x|^2 - squared error with the scale cross / square */
        if (explained > best) {
            best = explained;
            best_cross = cross;
            kept = !kept;
        }
    }
    /* The scale of least squares, cross / square, makes a row smaller by its share of error: every key that a query
     * looks for gets a lower score, and every value shrinks. Errors of other directions average out, this one does not:
     * with this scale <x, row> = <x, x>. */
    float best_scale = best_cross > 0 ? size / best_cross : 0;
    if (best < 0) best_scale = NAN; /* x is not finite: let the logits say so */
    pack(codes[kept], dims, qins_kv_bits(type), row);
    kernels->to_half(&best_scale, 1, scale);
}

/* mean := of the rows of a full page */
static void mean_of_page(const qins_kv_format *f, const uint8_t *head, size_t page, uint16_t *mean, float *scratch) {
    const qins_attention_kernels *kernels = qins_get_attention_kernels();
    qins_kv_span spans[2];
    size_t n_spans = qins_kv_spans(f, head, page, QINS_KV_PAGE, spans);
    const qins_kv_span *last = &spans[n_spans - 1]; /* sinks are unlike other keys */
    float *sum = scratch;
    kernels->decode[last->key_type](&last->keys, last->n, f->dims, scratch);
    for (size_t i = 1; i < last->n; i++)
        for (size_t d = 0; d < f->dims; d++)
            sum[d] += scratch[i * f->dims + d];
    for (size_t d = 0; d < f->dims; d++)
        sum[d] = sum[d] / (float)last->n + (last->mean != NULL ? qins_half_to_float(last->mean[d]) : 0.0f);
    kernels->to_half(sum, f->dims, mean);
}

void qins_kv_store_key(const qins_kv_format *f, uint8_t *head, size_t position, const float *key, float *scratch) {
    const qins_attention_kernels *kernels = qins_get_attention_kernels();
    size_t page = position / QINS_KV_PAGE, slot = position % QINS_KV_PAGE;
    uint8_t *p = page_of(f, head, page), *row = p + slot * f->key_row;
    if (f->key_type == QINS_KV_F32) {
        memcpy(row, key, f->key_row);
    } else if (f->key_type == QINS_KV_F16) {
        kernels->to_half(key, f->dims, (uint16_t *)(void *)row);
    } else if (position < QINS_KV_SINKS) {
        kernels->to_half(key, f->dims, (uint16_t *)(void *)head + position * f->dims);
    } else {
        uint16_t *mean = (uint16_t *)(void *)(p + f->mean);
        if (page > 0 && slot == 0) mean_of_page(f, head, page - 1, mean, scratch);
        for (size_t d = 0; d < f->dims; d++)
            scratch[d] = key[d] - (page > 0 ? qins_half_to_float(mean[d]) : 0.0f);
        encode(f->key_type, f->key_book, f->dims, scratch, row, (uint16_t *)(void *)(p + f->key_scales) + slot);
    }
}

void qins_kv_store_value(const qins_kv_format *f, uint8_t *head, size_t position, const float *value) {
    const qins_attention_kernels *kernels = qins_get_attention_kernels();
    size_t page = position / QINS_KV_PAGE, slot = position % QINS_KV_PAGE;
    uint8_t *p = page_of(f, head, page), *row = p + f->values + slot * f->value_row;
    if (f->value_type == QINS_KV_F32)
        memcpy(row, value, f->value_row);
    else if (f->value_type == QINS_KV_F16)
        kernels->to_half(value, f->dims, (uint16_t *)(void *)row);
    else if (position < QINS_KV_SINKS)
        kernels->to_half(value, f->dims, (uint16_t *)(void *)(head + f->sink_values) + position * f->dims);
    else
        encode(f->value_type, f->value_book, f->dims, value, row, (uint16_t *)(void *)(p + f->value_scales) + slot);
}

void qins_kv_read(const qins_kv_format *f, const uint8_t *head, size_t position, float *key, float *value) {
    const qins_attention_kernels *kernels = qins_get_attention_kernels();
    size_t page = position / QINS_KV_PAGE, slot = position % QINS_KV_PAGE;
    qins_kv_span spans[2];
    qins_kv_span *s = &spans[qins_kv_spans(f, head, page, slot + 1, spans) - 1];
    skip_rows(&s->keys, slot - s->slot);
    skip_rows(&s->values, slot - s->slot);
    kernels->decode[s->key_type](&s->keys, 1, f->dims, key);
    kernels->decode[s->value_type](&s->values, 1, f->dims, value);
    for (size_t d = 0; s->mean != NULL && d < f->dims; d++)
        key[d] += qins_half_to_float(s->mean[d]);
}

/* The Hadamard transform works in blocks of the largest power of two that divides head_dim. Where there are several
 * (96 = 3 * 32), a reflection across them, 1 - 2/n, gives each of n blocks a share of all: one scale and one Gaussian
 * table have to serve the whole row. The equal steps of 8 bits do without. Both are symmetric and commute. */
void qins_kv_rotate(const qins_kv_format *f, qins_kv_type type, float *x) {
    size_t block = qins_rotation_block(f->head_dim), n = f->head_dim / block;
    qins_hadamard(x, f->head_dim);
    for (size_t k = 0; n > 1 && type != QINS_KV_8 && k < block; k++) {
        float sum = 0;
        for (size_t i = k; i < f->head_dim; i += block)
            sum += x[i];
        for (size_t i = k; i < f->head_dim; i += block)
            x[i] -= sum * 2.0f / (float)n;
    }
}
