/* Rounding with error feedback where the codes of a panel's rows are chosen together. SPDX-License-Identifier: MIT
 *
 * As in feedback.c, but a column is rounded in all 16 rows of a panel at once: the least sum over rows of
 * scale^2 (v - q)^2, around the ring of trellis.c. D_j is the same for all of them and does not matter, but where bits
 * have a price.
 */
#include "base/dense.h"
#include "codec/feedback.h"
#include "codec/simd.h"

#include <stdlib.h>
#include <string.h>

/* Columns as in feedback.c; lanes: panels at some scales each, lane = panel * n_scales + scale. */
enum { BLOCK_COLS = 32, MAX_LANES = 16, MAX_VALUES = QINS_PANEL_ROWS * MAX_LANES };

/* Values of a column are row * n_lanes + lane. */
typedef struct tile {
    size_t n_lanes, n_values;
    float *e;        /* [n_values][n]: w - q so far */
    float *carried;  /* [n_values][BLOCK_COLS]: feedback from earlier blocks */
    uint16_t *codes; /* [n_values][n] */
    float (*v)[MAX_VALUES], (*w)[MAX_VALUES], (*own)[MAX_VALUES]; /* [BLOCK_COLS]: of the block, column by column */
    float scales[MAX_VALUES], weights[MAX_VALUES];
    float pull[MAX_VALUES]; /* times mean(D) */
    size_t rows[MAX_LANES]; /* of a lane that are not padding */
    double error[MAX_VALUES];
} tile;

static void free_tile(tile *t) {
    if (t == NULL) return;
    free(t->e);
    free(t->carried);
    free(t->codes);
    free(t->v);
    free(t->w);
    free(t->own);
    free(t);
}

static tile *new_tile(size_t n_lanes, size_t n) {
    tile *t = qins_alloc(1, sizeof *t);
    if (t == NULL) return NULL;
    size_t values = n_lanes * QINS_PANEL_ROWS;
    *t = (tile){.n_lanes = n_lanes,
                .n_values = values,
                .e = qins_alloc_aligned(values * n, sizeof *t->e),
                .carried = qins_alloc_aligned(values * BLOCK_COLS, sizeof *t->carried),
                .codes = qins_alloc(values * n, sizeof *t->codes),
                .v = qins_alloc_aligned(BLOCK_COLS, sizeof *t->v),
                .w = qins_alloc_aligned(BLOCK_COLS, sizeof *t->w),
                .own = qins_alloc_aligned(BLOCK_COLS, sizeof *t->own)};
    if (t->e != NULL && t->carried != NULL && t->codes != NULL && t->v != NULL && t->w != NULL && t->own != NULL)
        return t;
    free_tile(t);
    return NULL;
}

/* w: of the tile's rows. */
static void load_block(const tile *t, const float *w, size_t n_scales, size_t n, size_t first, size_t width) {
    for (size_t i = 0; i < t->n_values; i++) {
        size_t r = i / t->n_lanes, lane = i % t->n_lanes, row = lane / n_scales * QINS_PANEL_ROWS + r;
        for (size_t j = 0; j < width; j++) {
            float value = r < t->rows[lane] ? w[row * n + first + j] : 0;
            t->w[j][i] = value;
            t->v[j][i] = value + (first == 0 ? 0 : t->carried[i * BLOCK_COLS + j]);
        }
    }
}

/* Column j of the block in every row and lane. */
static void round_column(const qins_codebook *book, tile *t, size_t j, float d, uint16_t *chosen) {
    float u[MAX_VALUES], weights[MAX_VALUES], q[MAX_VALUES] = {0};
    float per_d = d > 0 ? 1.0f / d : 0.0f;
    for (size_t i = 0; i < t->n_values; i++) {
        float pulled = 1 + t->pull[i] * per_d; /* (v - q)^2 + p q^2 = (1 + p) (v / (1 + p) - q)^2 + a constant */
        u[i] = t->scales[i] != 0.0f ? t->v[j][i] / (t->scales[i] * pulled) : 0.0f;
        weights[i] = t->weights[i] * pulled;
    }
    qins_get_codec_simd()->trellis(book, u, weights, t->n_lanes, t->n_lanes, chosen);
    for (size_t lane = 0; lane < t->n_lanes; lane++) {
        unsigned places[QINS_PANEL_ROWS];
        qins_trellis_places(chosen + lane, t->n_lanes, places);
        for (size_t r = 0; r < t->rows[lane]; r++) {
            size_t i = r * t->n_lanes + lane;
            q[i] = t->scales[i] * book->table[places[r]];
        }
    }
    for (size_t i = 0; i < t->n_values; i++) {
        double miss = (double)(t->v[j][i] - q[i]);
        t->own[j][i] = t->w[j][i] - q[i];
        t->error[i] += (double)d * miss * miss;
    }
}

static void round_block(const qins_feedback *f, const qins_codebook *book, tile *t, size_t first, size_t width) {
    uint16_t chosen[MAX_VALUES];
    for (size_t j = 0; j < width; j++) {
        size_t col = first + j;
        const float *u_row = f->u + col * f->n + first;
        round_column(book, t, j, f->d[col], chosen);
        for (size_t k = j + 1; k < width; k++) {
            float *v = t->v[k];
            const float *own = t->own[j];
            for (size_t i = 0; i < t->n_values; i++)
                v[i] += own[i] * u_row[k];
        }
        for (size_t i = 0; i < t->n_values; i++)
            t->codes[i * f->n + col] = chosen[i];
    }
    for (size_t i = 0; i < t->n_values; i++)
        for (size_t j = 0; j < width; j++)
            t->e[i * f->n + first + j] = t->own[j][i];
}

static double mean_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    return sum / (double)n;
}

/* first_row: of the matrix; scales from there on. */
static void start_tile(const qins_feedback_options *o, float mean_d, size_t first_row, const float *scales,
                       size_t n_rows, tile *t) {
    for (size_t lane = 0; lane < t->n_lanes; lane++) {
        size_t first = lane / o->n_scales * QINS_PANEL_ROWS;
        float own[QINS_PANEL_ROWS], alike[QINS_PANEL_ROWS];
        t->rows[lane] = first < n_rows ? qins_min_size(QINS_PANEL_ROWS, n_rows - first) : 0;
        for (size_t r = 0; r < QINS_PANEL_ROWS; r++) {
            own[r] = r < t->rows[lane] ? qins_feedback_trial_scale(o, scales[first + r], lane % o->n_scales) : 0;
            alike[r] = own[r] != 0.0f;
            t->scales[r * t->n_lanes + lane] = own[r];
            t->pull[r * t->n_lanes + lane] =
                o->pull != NULL && r < t->rows[lane] ? o->pull[first_row + first + r] * mean_d : 0;
        }
        qins_trellis_weights(o->pull != NULL ? alike : own, t->rows[lane], t->n_lanes, 1, t->weights + lane);
    }
    memset(t->error, 0, sizeof t->error);
}

/* Of each panel the scales of least error. */
static void take_best(const tile *t, size_t n_scales, size_t n, size_t n_rows, float *scales, uint16_t *codes,
                      double *error) {
    for (size_t row = 0; row < n_rows; row += QINS_PANEL_ROWS) {
        size_t first = row / QINS_PANEL_ROWS * n_scales, best = first;
        double least = INFINITY;
        for (size_t lane = first; lane < first + n_scales; lane++) {
            double sum = 0;
            for (size_t r = 0; r < t->rows[lane]; r++)
                sum += t->error[r * t->n_lanes + lane];
            if (sum < least) {
                least = sum;
                best = lane;
            }
        }
        for (size_t r = 0; r < QINS_PANEL_ROWS; r++) {
            size_t i = r * t->n_lanes + best;
            memcpy(codes + (row + r) * n, t->codes + i * n, n * sizeof *codes);
            if (r >= t->rows[best]) continue;
            scales[row + r] = t->scales[i];
            if (error != NULL) error[row + r] = t->error[i];
        }
    }
}

qins_status qins_feedback_round_trellis(const qins_feedback *f, const qins_codebook *book,
                                        const qins_feedback_options *o, const float *w, size_t n_rows, float *scales,
                                        uint16_t *codes, double *error, qins_error *err) {
    size_t panels = qins_max_size(1, MAX_LANES / o->n_scales), tile_rows = panels * QINS_PANEL_ROWS, n = f->n;
    bool no_memory = false;
    float mean_d = (float)mean_of(f->d, n);
    if (o->price != NULL || o->n_scales > MAX_LANES)
        return qins_fail(err, QINS_ERR_ARGUMENT, "the trellis takes no prices and at most %d scales", MAX_LANES);
#pragma omp parallel
    {
        tile *t = new_tile(panels * o->n_scales, n);
#pragma omp for schedule(dynamic, 1)
        for (size_t row = 0; row < n_rows; row += tile_rows) {
            if (t == NULL) continue;
            size_t rows = qins_min_size(tile_rows, n_rows - row);
            start_tile(o, mean_d, row, scales + row, rows, t);
            for (size_t first = 0; first < n; first += BLOCK_COLS) {
                size_t width = qins_min_size(BLOCK_COLS, n - first);
                if (first > 0)
                    qins_dense_nn_serial(t->n_values, width, first, 1.0f, t->e, n, f->u + first, n, 0.0f, t->carried,
                                         BLOCK_COLS);
                load_block(t, w + row * n, o->n_scales, n, first, width);
                round_block(f, book, t, first, width);
            }
            take_best(t, o->n_scales, n, rows, scales + row, codes + row * n, error != NULL ? error + row : NULL);
        }
#pragma omp critical(qins_feedback)
        no_memory |= t == NULL;
        free_tile(t);
    }
    return no_memory ? qins_fail_memory(err, MAX_VALUES * n * sizeof(float), "rounding") : QINS_OK;
}
