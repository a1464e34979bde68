/* Inputs and tables as integers. SPDX-License-Identifier: MIT */
#include "kernel/elementwise.h"

#include <math.h>
#include <string.h>

enum { CURVED_BITS = 7 };

/* Segments of 7 and 8 bits: base, slope and bend follow from the first entries; the others must agree. */
static bool find_segments(qins_integer_table *table, const float *entries, int bits) {
    int length = 1 << (bits - 4);
    for (int segment = 0; segment < QINS_SEGMENTS; segment++) {
        const float *first = entries + segment * length;
        int step = 1; /* away from zero */
        if (segment < QINS_SEGMENTS / 2) {
            first += length - 1;
            step = -1;
        }
        int base = (int)first[0], last = length - 1, slope = (int)first[step] - base; /* curve(1) is 0 */
        int bend = ((int)first[step * last] - base - slope * last) / qins_curve(bits, last);
        if (slope != (int8_t)slope || bend != (int8_t)bend) return false;
        for (int l = 0; l < length; l++)
            if ((int)first[step * l] != base + slope * l + bend * qins_curve(bits, l)) return false;
        table->base_low[segment] = (uint8_t)(base & 255);
        table->base_high[segment] = (uint8_t)(base >> 8 & 255);
        table->slope[segment] = (int8_t)slope;
        table->bend[segment] = (int8_t)bend;
    }
    return true;
}

void qins_integer_table_make(qins_integer_table *table, const float *entries, int bits) {
    *table = (qins_integer_table){.kind = QINS_INTEGER_NONE};
    if (bits > QINS_INTEGER_MAX_BITS) return;
    size_t n = (size_t)1 << bits;
    float largest = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(entries[i]) <= (float)QINS_INT16_ENTRY) || entries[i] != rintf(entries[i])) return;
        largest = fmaxf(largest, fabsf(entries[i]));
    }
    table->kind = largest <= (float)QINS_INT8_ENTRY ? QINS_INTEGER_8 : QINS_INTEGER_16;
    for (size_t i = 0; i < QINS_INTEGER_LEVELS; i++) {
        int entry = (int)entries[i % n];
        bool narrow = table->kind == QINS_INTEGER_8;
        table->low[i] = (uint8_t)(narrow ? entry + QINS_ENTRY_BIAS : entry & 255);
        table->high[i] = (uint8_t)(narrow ? 0 : entry >> 8 & 255);
    }
    table->curved = table->kind == QINS_INTEGER_16 && bits >= CURVED_BITS && find_segments(table, entries, bits);
}

/* 7 bits: kernels compute the entries of equal steps and look up none. */
static void make_trellis_7(qins_integer_table *table, const float *entries) {
    for (unsigned place = 0; place < QINS_INTEGER_LEVELS; place++)
        if (entries[place] != (float)((int)place - QINS_ENTRY_BIAS)) return;
    table->kind = QINS_INTEGER_TRELLIS;
    for (unsigned place = 0; place < QINS_INTEGER_LEVELS; place++)
        table->low[qins_trellis_index(place, 7)] = (uint8_t)place;
}

void qins_integer_table_make_trellis(qins_integer_table *table, const float *entries, int bits) {
    float by_index[QINS_MAX_TRELLIS_LEVELS];
    *table = (qins_integer_table){.kind = QINS_INTEGER_NONE};
    if (bits == 7) make_trellis_7(table, entries);
    if (bits > QINS_TRELLIS_MAX_BITS) return;
    for (unsigned place = 0; place < 2u << bits; place++)
        by_index[qins_trellis_index(place, bits)] = entries[place];
    qins_integer_table_make(table, by_index, bits + 1);
    table->kind = table->kind == QINS_INTEGER_8 ? QINS_INTEGER_TRELLIS : QINS_INTEGER_NONE;
}

/* ---- inputs ---- */

static size_t n_spans_of(size_t n_cols) {
    return (n_cols + QINS_SPAN_COLS - 1) / QINS_SPAN_COLS;
}

enum { ALIGNMENT = 64 };

size_t qins_quantised_bytes(size_t n_tokens, size_t n_cols) {
    size_t values, cols = qins_round_up(n_cols, QINS_TILE_COLS), spans = n_spans_of(cols), n_units;
    if (cols < n_cols || !qins_mul_size(n_tokens, cols, &values) || values > SIZE_MAX / 16) return 0;
    if (!qins_mul_size(n_tokens, spans, &n_units) || n_units > SIZE_MAX / 64) return 0;
    return 4 * values + 2 * qins_round_up(n_units * sizeof(float), ALIGNMENT);
}

void qins_quantised_place(qins_quantised *q, size_t n_tokens, size_t n_cols, void *memory) {
    uint8_t *p = memory;
    size_t cols = qins_round_up(n_cols, QINS_TILE_COLS), spans = n_spans_of(cols);
    size_t unit_bytes = qins_round_up(n_tokens * spans * sizeof(float), ALIGNMENT);
    *q = (qins_quantised){.n_tokens = n_tokens, .n_cols = cols, .n_spans = spans};
    q->words = (int16_t *)(void *)p;
    q->halves = (int8_t *)(p + 2 * n_tokens * cols);
    q->units = (float *)(void *)(p + 4 * n_tokens * cols);
    q->offsets = (int32_t *)(void *)(p + 4 * n_tokens * cols + unit_bytes);
}

/* Of n <= QINS_SPAN_COLS values. */
static float unit_of(const float *x, size_t n) {
    float largest = 0, largest_sum = 0, total = 0;
    for (size_t tile = 0; tile < n; tile += QINS_TILE_COLS) {
        float sum = 0;
        for (size_t k = tile; k < qins_min_size(n, tile + QINS_TILE_COLS); k++) {
            float a = fabsf(x[k]);
            largest = a > largest ? a : largest;
            sum += a;
        }
        largest_sum = sum > largest_sum ? sum : largest_sum;
        total += sum;
    }
    return qins_unit_of_span(largest, largest_sum, total);
}

void qins_quantise(qins_quantised *q, size_t t, const float *x, size_t n) {
    int16_t *words = q->words + t * q->n_cols;
    int8_t *halves = q->halves + 2 * t * q->n_cols;
    for (size_t span = 0; span < q->n_spans; span++) {
        size_t col = span * QINS_SPAN_COLS, end = qins_min_size(col + QINS_SPAN_COLS, q->n_cols);
        size_t given = qins_min_size(qins_max_size(n, col), end);
        float unit = unit_of(x + col, given - col), inverse = qins_inverse_unit(unit);
        int32_t sum = 0;
        for (size_t k = col; k < given; k++) {
            float value = x[k] * inverse;
            value = value > -(float)QINS_INPUT_MAX ? value : -(float)QINS_INPUT_MAX; /* also of NaN */
            value = value < (float)QINS_INPUT_MAX ? value : (float)QINS_INPUT_MAX;
            words[k] = (int16_t)rintf(value);
            sum += words[k];
        }
        for (size_t k = given; k < end; k++)
            words[k] = 0;
        for (size_t k = col; k < end; k++) {
            int low = ((words[k] + 128) & 255) - 128;
            int8_t *high = halves + k / QINS_TILE_COLS * 2 * QINS_TILE_COLS + k % QINS_TILE_COLS;
            high[0] = (int8_t)((words[k] - low) / 256);
            high[QINS_TILE_COLS] = (int8_t)low;
        }
        q->units[t * q->n_spans + span] = unit;
        q->offsets[t * q->n_spans + span] = -QINS_ENTRY_BIAS * sum;
    }
}
