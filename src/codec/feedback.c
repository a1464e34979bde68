/* SPDX-License-Identifier: MIT */
#include "codec/feedback.h"

#include "base/dense.h"

#include <stdlib.h>
#include <string.h>

/* Columns whose mutual feedback goes value by value; that of earlier blocks comes as one matrix product. */
enum { BLOCK_COLS = 32, LANES = 128 };
/* Columns that compete for being kept, with what is known before the first of them: as in SparseGPT. */
enum { PRUNE_COLS = 128 };

/* ---- H = U D U^T ---- */

/* Reversing the order of rows and columns turns U D U^T into the Cholesky factorisation L L^T. */
static void load_reversed(const float *h, size_t n, double ridge, double *a) {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++)
            a[i * n + j] = (double)h[(n - 1 - i) * n + (n - 1 - j)] + (i == j ? ridge : 0.0);
}

static void store_factor(const double *l, qins_feedback *f) {
    size_t n = f->n;
    for (size_t j = 0; j < n; j++) {
        double root = l[(n - 1 - j) * n + (n - 1 - j)];
        f->d[j] = (float)(root * root);
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++)
            f->u[i * n + j] = (float)(l[(n - 1 - i) * n + (n - 1 - j)] / l[(n - 1 - j) * n + (n - 1 - j)]);
}

qins_status qins_feedback_factor(const float *h, size_t n, double damping, qins_feedback *f, double *used,
                                 qins_error *err) {
    static const double MAX_DAMPING = 1e3;
    *f = (qins_feedback){.n = n};
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)h[i * n + i] / (double)n;
    if (!(mean > 0) || !isfinite(mean))
        return qins_fail(err, QINS_ERR_ARGUMENT, "no inputs to calibrate with: their mean square is %g", mean);
    size_t values;
    bool fits = qins_mul_size(n, n, &values);
    double *a = fits ? qins_alloc_aligned(values, sizeof *a) : NULL;
    f->u = fits ? qins_alloc_aligned(values, sizeof *f->u) : NULL;
    f->d = qins_alloc(n, sizeof *f->d);
    qins_status status = QINS_OK;
    if (a == NULL || f->u == NULL || f->d == NULL)
        status = qins_fail_memory(err, n * n * (sizeof *a + sizeof *f->u), "second moments of inputs");
    bool done = false;
    for (; status == QINS_OK && !done && damping <= MAX_DAMPING; damping *= 10) {
        load_reversed(h, n, damping * mean, a);
        done = qins_dense_cholesky(n, a);
        if (done && used != NULL) *used = damping;
    }
    if (status == QINS_OK && !done)
        status = qins_fail(err, QINS_ERR_ARGUMENT, "second moments of inputs cannot be factored: not finite");
    if (status == QINS_OK)
        store_factor(a, f);
    else
        qins_feedback_free(f);
    free(a);
    return status;
}

void qins_feedback_free(qins_feedback *f) {
    free(f->u);
    free(f->d);
    *f = (qins_feedback){0};
}

/* ---- rounding ---- */

/* Some rows at some scales each: lane = row * n_scales + scale. */
typedef struct tile {
    size_t block;   /* columns */
    float *e;       /* [lanes][n]: w - q so far */
    float *carried; /* [lanes][block]: feedback from earlier blocks, then also from within */
    uint8_t *zero;  /* [rows][n]: what would be pruned if nothing were fed back; NULL without pruning */
    uint16_t *codes;
    float *scales;
    double *error;
} tile;

static void free_tile(tile *t) {
    free(t->e);
    free(t->carried);
    free(t->zero);
    free(t->codes);
    free(t->scales);
    free(t->error);
}

static bool alloc_tile(tile *t, size_t rows, const qins_feedback_options *o, size_t n) {
    size_t lanes = rows * o->n_scales, block = o->sparsity > 0 ? PRUNE_COLS : BLOCK_COLS;
    *t = (tile){.block = block,
                .e = qins_alloc_aligned(lanes * n, sizeof *t->e),
                .carried = qins_alloc_aligned(lanes * block, sizeof *t->carried),
                .zero = o->sparsity > 0 ? qins_alloc(rows, n) : NULL,
                .codes = qins_alloc(lanes * n, sizeof *t->codes),
                .scales = qins_alloc(lanes, sizeof *t->scales),
                .error = qins_alloc(lanes, sizeof *t->error)};
    return t->e != NULL && t->carried != NULL && t->codes != NULL && t->scales != NULL && t->error != NULL &&
           (t->zero != NULL) == (o->sparsity > 0);
}

/* ---- pruning ---- */

/* Marks what a row loses least by: its smallest scores. score: scratch. */
static void choose_zeros(const qins_feedback *f, const qins_feedback_options *o, const float *w, float *score,
                         uint8_t *zero) {
    for (size_t j = 0; j < f->n; j++)
        score[j] = fabsf(w[j]) * (o->by_magnitude ? 1.0f : sqrtf(f->d[j]));
    qins_prune_row(score, f->n, o->sparsity, o->sparse_group);
    for (size_t j = 0; j < f->n; j++)
        zero[j] = score[j] == 0.0f;
}

/* As many of n columns, now that what they have to make up for is known. */
static void choose_again(const float *w, const float *carried, const float *d, size_t n, uint8_t *zero) {
    float score[PRUNE_COLS];
    size_t n_zeros = 0;
    for (size_t j = 0; j < n; j++) {
        score[j] = fabsf(w[j] + carried[j]) * sqrtf(d[j]);
        n_zeros += zero[j];
    }
    if (n_zeros > 0) qins_prune_smallest(score, n, n_zeros);
    for (size_t j = 0; j < n; j++)
        zero[j] = score[j] == 0.0f;
}

/* ---- codes ---- */

/* Of the nearest code and its neighbours the one of least error plus price. */
static unsigned cheapest_code(const qins_codebook *book, const float *price, float weight, float u) {
    unsigned nearest = qins_nearest_code(book, u), best = nearest;
    float least = INFINITY;
    unsigned first = nearest > 0 ? nearest - 1 : 0,
             last = nearest + 1 < (unsigned)book->n_levels ? nearest + 1 : nearest;
    for (unsigned c = first; c <= last; c++) {
        float miss = u - book->table[c], cost = weight * miss * miss + price[c];
        if (cost < least) {
            least = cost;
            best = c;
        }
    }
    return best;
}

static unsigned choose_code(const qins_codebook *book, const float *price, float weight, float u) {
    if (price != NULL) return cheapest_code(book, price, weight, u);
    return book->sorted ? qins_nearest_code(book, u) : qins_codebook_encode(book, u);
}

/* One block of one lane. zero: of the block's columns, NULL without pruning; group: columns among which zeros are
 * chosen again, 0 for never. */
static void round_block(const qins_feedback *f, const qins_codebook *book, const float *price, const float *w,
                        size_t first, size_t width, float scale, float *carried, uint8_t *zero, size_t group, float *e,
                        uint16_t *codes, double *error) {
    float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    double sum = 0;
    for (size_t j = 0; j < width; j++) {
        size_t col = first + j;
        if (group > 0 && j % group == 0)
            choose_again(w + col, carried + j, f->d + col, qins_min_size(group, width - j), zero + j);
        float v = w[col] + carried[j];
        bool pruned = zero != NULL && zero[j];
        unsigned code = choose_code(book, pruned ? NULL : price, f->d[col], pruned ? 0.0f : v * inverse);
        float q = scale * book->table[code], miss = v - q, own = w[col] - q;
        codes[col] = (uint16_t)code;
        e[col] = own;
        sum += (double)f->d[col] * (double)miss * (double)miss;
        const float *u_row = f->u + col * f->n + first;
        for (size_t k = j + 1; k < width; k++)
            carried[k] += own * u_row[k];
    }
    *error += sum;
}

static const float *price_of(const qins_feedback_options *o, const qins_codebook *book, size_t row) {
    return o->price == NULL || o->price_of == NULL ? o->price : o->price + o->price_of[row] * book->n_levels;
}

/* first_row: of the matrix; w: from there on. */
static void round_tile(const qins_feedback *f, const qins_codebook *book, const qins_feedback_options *o,
                       size_t first_row, const float *w, size_t n_rows, const tile *t) {
    size_t n = f->n, lanes = n_rows * o->n_scales, block = t->block;
    size_t group = o->sparsity > 0 && !o->by_magnitude ? (o->sparse_group > 0 ? o->sparse_group : block) : 0;
    uint8_t zero[PRUNE_COLS];
    for (size_t row = 0; row < n_rows && t->zero != NULL; row++)
        choose_zeros(f, o, w + row * n, t->e, t->zero + row * n);
    for (size_t first = 0; first < n; first += block) {
        size_t width = qins_min_size(block, n - first);
        if (first == 0)
            memset(t->carried, 0, lanes * block * sizeof *t->carried);
        else
            qins_dense_nn_serial(lanes, width, first, 1.0f, t->e, n, f->u + first, n, 0.0f, t->carried, block);
        for (size_t lane = 0; lane < lanes; lane++) {
            size_t row = lane / o->n_scales;
            if (t->zero != NULL) memcpy(zero, t->zero + row * n + first, width);
            round_block(f, book, price_of(o, book, first_row + row), w + row * n, first, width, t->scales[lane],
                        t->carried + lane * block, t->zero != NULL ? zero : NULL, group, t->e + lane * n,
                        t->codes + lane * n, &t->error[lane]);
        }
    }
}

float qins_feedback_trial_scale(const qins_feedback_options *o, float scale, size_t i) {
    if (o->n_scales == 1) return scale;
    return (float)((double)scale * o->scale_lo * pow(o->scale_hi / o->scale_lo, (double)i / (double)(o->n_scales - 1)));
}

qins_status qins_feedback_round(const qins_feedback *f, const qins_codebook *book, const qins_feedback_options *o,
                                const float *w, size_t n_rows, float *scales, uint16_t *codes, double *error,
                                qins_error *err) {
    size_t tile_rows = qins_max_size(1, LANES / o->n_scales), n = f->n;
    bool no_memory = false;
    if (qins_codec_is_trellis(book->codec))
        return qins_feedback_round_trellis(f, book, o, w, n_rows, scales, codes, error, err);
#pragma omp parallel
    {
        tile t;
        bool ok = alloc_tile(&t, tile_rows, o, n);
#pragma omp for schedule(dynamic, 1)
        for (size_t row = 0; row < n_rows; row += tile_rows) {
            if (!ok) continue;
            size_t rows = qins_min_size(tile_rows, n_rows - row);
            for (size_t lane = 0; lane < rows * o->n_scales; lane++) {
                t.scales[lane] = qins_feedback_trial_scale(o, scales[row + lane / o->n_scales], lane % o->n_scales);
                t.error[lane] = 0;
            }
            round_tile(f, book, o, row, w + row * n, rows, &t);
            for (size_t r = 0; r < rows; r++) {
                size_t best = r * o->n_scales;
                for (size_t i = 1; i < o->n_scales; i++)
                    if (t.error[r * o->n_scales + i] < t.error[best]) best = r * o->n_scales + i;
                scales[row + r] = t.scales[best];
                memcpy(codes + (row + r) * n, t.codes + best * n, n * sizeof *codes);
                if (error != NULL) error[row + r] = t.error[best];
            }
        }
        free_tile(&t);
#pragma omp critical(qins_feedback)
        no_memory |= !ok;
    }
    return no_memory ? qins_fail_memory(err, LANES * n * sizeof(float), "rounding") : QINS_OK;
}
