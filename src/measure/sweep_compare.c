/* Errors and codes of a compressed model, tensor by tensor, from what was stored. SPDX-License-Identifier: MIT */
#include "measure/sweep.h"

#include <math.h>
#include <stdlib.h>

/* Sum of squares of the reference and of the differences. */
typedef struct error_sums {
    double power, error;
} error_sums;

static qins_status compare_rows(const qins_matrix *a, const qins_matrix *b, error_sums *sums, qins_error *err) {
    size_t n_cols = a->n_cols, n_values;
    if (!qins_mul_size(2 * n_cols, (size_t)qins_get_threads(), &n_values))
        return qins_fail_memory(err, SIZE_MAX, "rows");
    float *rows = qins_alloc(n_values, sizeof *rows);
    if (rows == NULL) return qins_fail_memory(err, n_values * sizeof *rows, "rows");
    double power = 0, error = 0;
#pragma omp parallel for num_threads(qins_get_threads()) reduction(+ : power, error)
    for (size_t r = 0; r < a->n_rows; r++) {
        float *x = rows + 2 * n_cols * (size_t)qins_thread_index(), *y = x + n_cols;
        qins_matrix_decode_rows(a, r, 1, x);
        qins_matrix_decode_rows(b, r, 1, y);
        for (size_t k = 0; k < n_cols; k++) {
            double d = (double)y[k] - (double)x[k];
            power += (double)x[k] * (double)x[k];
            error += d * d;
        }
    }
    free(rows);
    sums->power += power;
    sums->error += error;
    return QINS_OK;
}

static size_t code_count(const qins_matrix *m) {
    if (m->packed) return (size_t)1 << m->bits;
    return m->signs8 != NULL ? 256 : 0;
}

static void count_packed(const qins_matrix *m, uint64_t *histogram) {
    size_t n_tiles = qins_n_tiles(m->n_cols), tile_bytes = qins_tile_bytes(m->bits);
    for (size_t r = 0; r < m->n_rows; r++) {
        const uint8_t *panel = m->codes + r / QINS_PANEL_ROWS * n_tiles * tile_bytes;
        for (size_t k = 0; k < m->n_cols; k++)
            histogram[qins_unpack_code(panel + k / QINS_TILE_COLS * tile_bytes, m->bits, r % QINS_PANEL_ROWS,
                                       k % QINS_TILE_COLS)]++;
    }
}

/* Seed storage: the magnitudes. */
static void count_stored(const qins_matrix *m, uint64_t *histogram) {
    const uint8_t *stored = m->source;
    for (size_t i = 0; i < m->n_rows * m->n_cols; i++)
        histogram[stored[i]]++;
}

static qins_status count_codes(const qins_matrix *m, qins_sweep_point *point, qins_error *err) {
    size_t n = code_count(m);
    if (n == 0) return QINS_OK;
    if (n > point->n_codes) { /* wider codes than before: the earlier counts keep their places */
        uint64_t *wider = qins_alloc(n, sizeof *wider);
        if (wider == NULL) return qins_fail_memory(err, n * sizeof *wider, "histogram");
        for (size_t i = 0; i < point->n_codes; i++)
            wider[i] = point->histogram[i];
        free((uint64_t *)point->histogram);
        point->histogram = wider;
        point->n_codes = n;
    }
    uint64_t *histogram = (uint64_t *)point->histogram;
    if (m->packed)
        count_packed(m, histogram);
    else
        count_stored(m, histogram);
    return QINS_OK;
}

/* Bytes in the file, and without entropy coding; shared tables belong to no matrix. */
typedef struct size_sums {
    double file, memory;
} size_sums;

static void add_sizes(const qins_encoded_tensor *t, size_sums *sizes) {
    for (int i = 0; i < QINS_PART_COUNT; i++) {
        if (t->parts[i] == NULL || (i == QINS_PART_TABLE && qins_codec_has_fixed_table(t->options.codec))) continue;
        sizes->file += (double)qins_tensor_file_bytes(t->parts[i]);
        sizes->memory += (double)t->parts[i]->n_bytes;
    }
}

static qins_status compare_parameter(const qins_weights *reference, const qins_weights *model,
                                     const qins_parameter *encoded, qins_sweep_point *point, error_sums *sums,
                                     qins_error *err) {
    const qins_parameter *original = qins_weights_find(reference, encoded->name);
    qins_matrix a, b;
    if (original == NULL) return qins_fail(err, QINS_ERR_FORMAT, "%s: not in the reference", encoded->name);
    qins_status status = qins_weights_matrix(reference, original, &a, err);
    if (status == QINS_OK) status = qins_weights_matrix(model, encoded, &b, err);
    if (status != QINS_OK) return status;
    if (a.n_rows != b.n_rows || a.n_cols != b.n_cols)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: %zu x %zu in the reference, %zu x %zu here", encoded->name,
                         a.n_rows, a.n_cols, b.n_rows, b.n_cols);
    status = compare_rows(&a, &b, sums, err);
    return status == QINS_OK ? count_codes(&b, point, err) : status;
}

qins_status qins_sweep_compare(const qins_sweep *sweep, const qins_weights *reference, const qins_weights *model,
                               qins_sweep_point *point, qins_error *err) {
    size_t n_kinds = sweep->info.n_kinds, n_cells = sweep->info.n_layers * n_kinds;
    error_sums *cells = qins_alloc(n_cells, sizeof *cells), all = {0, 0};
    size_sums sizes = {0, 0};
    double *errors = qins_alloc(n_cells, sizeof *errors);
    point->layer_errors = errors;
    qins_status status = QINS_OK;
    if (cells == NULL || errors == NULL) status = qins_fail_memory(err, n_cells * sizeof *cells, "errors of layers");
    for (size_t i = 0; i < model->n_parameters && status == QINS_OK; i++) {
        const qins_parameter *p = &model->parameters[i];
        if (p->role != QINS_ROLE_LINEAR || p->encoded == NULL) continue;
        int kind = sweep->kind_of[p->slot];
        error_sums sums = {0, 0};
        status = compare_parameter(reference, model, p, point, &sums, err);
        all.power += sums.power;
        all.error += sums.error;
        add_sizes(p->encoded, &sizes);
        if (status != QINS_OK || kind < 0 || p->layer >= sweep->info.n_layers) continue;
        error_sums *cell = &cells[p->layer * n_kinds + (size_t)kind];
        cell->power += sums.power;
        cell->error += sums.error;
    }
    if (status == QINS_OK) {
        for (size_t i = 0; i < n_cells; i++)
            errors[i] = cells[i].power > 0 ? cells[i].error / cells[i].power : NAN;
        point->file_bpw = sizes.file < sizes.memory ? point->bpw * sizes.file / sizes.memory : point->bpw;
        point->rel_mse = all.power > 0 ? all.error / all.power : 0;
    }
    free(cells);
    return status;
}
