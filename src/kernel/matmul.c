/* y = W x^T from stored weights, for any storage. SPDX-License-Identifier: MIT
 *
 * A thread takes a panel of 16 rows, decodes 256 columns of it into 16 KiB that stay in the first-level cache,
 * multiplies them with all tokens, and goes on: nothing larger than that is ever decoded.
 */
#include "kernel/matrix.h"

#include <math.h>
#include <string.h>

enum { TOKEN_BLOCK = 128 };

/* ---- decoding 256 columns of a panel: out[k*16 + row] ---- */

static const float *group_scales(const qins_matrix *m, size_t panel, size_t col) {
    size_t n_groups = (m->n_cols - 1) / m->group_size + 1;
    return m->scales + (panel * n_groups + col / m->group_size) * QINS_PANEL_ROWS;
}

static void decode_packed(const qins_matrix *m, const qins_kernels *kernels, size_t panel, size_t col, size_t n,
                          float *out) {
    size_t tile = panel * qins_n_tiles(m->n_cols) + col / QINS_TILE_COLS;
    kernels->decode[m->bits](m->codes + tile * qins_tile_bytes(m->bits), m->table, qins_round_up(n, QINS_TILE_COLS),
                             out);
    if (m->scale != QINS_SCALE_GROUP) return;
    for (size_t k = 0; k < n; k++) {
        const float *scales = group_scales(m, panel, col + k);
        for (size_t r = 0; r < QINS_PANEL_ROWS; r++)
            out[k * QINS_PANEL_ROWS + r] *= scales[r];
    }
}

static void decode_rows_transposed(const qins_matrix *m, size_t panel, size_t col, size_t n, float *out) {
    float row[QINS_CHUNK_COLS];
    size_t first = panel * QINS_PANEL_ROWS, rows = qins_min_size(QINS_PANEL_ROWS, m->n_rows - first);
    if (rows < QINS_PANEL_ROWS) memset(out, 0, n * QINS_PANEL_ROWS * sizeof *out);
    for (size_t k = 0; m->transposed && k < n; k++)
        m->read_row(m, col + k, first, rows, out + k * QINS_PANEL_ROWS);
    if (m->transposed) return;
    for (size_t r = 0; r < rows; r++) {
        const float *src = row;
        if (m->plain_f32 != NULL)
            src = m->plain_f32 + (first + r) * m->n_cols + col;
        else
            m->read_row(m, first + r, col, n, row);
        for (size_t k = 0; k < n; k++)
            out[k * QINS_PANEL_ROWS + r] = src[k];
    }
}

static float row_scale(const qins_matrix *m, size_t row) {
    if (!m->packed || m->scale == QINS_SCALE_GROUP) return 1.0f;
    return m->scales[m->scale == QINS_SCALE_ROW ? row : 0];
}

/* ---- multiplication ---- */

static void multiply_panel(const qins_matrix *m, const qins_kernels *kernels, size_t panel, const float *x, size_t ldx,
                           size_t n_tokens, float *y, size_t ldy) {
    _Alignas(64) float weights[QINS_CHUNK_COLS * QINS_PANEL_ROWS], acc[TOKEN_BLOCK * QINS_PANEL_ROWS];
    memset(acc, 0, n_tokens * QINS_PANEL_ROWS * sizeof *acc);
    for (size_t col = 0; col < m->n_cols; col += QINS_CHUNK_COLS) {
        size_t n = qins_min_size(QINS_CHUNK_COLS, m->n_cols - col);
        if (m->packed)
            decode_packed(m, kernels, panel, col, n, weights);
        else
            decode_rows_transposed(m, panel, col, n, weights);
        kernels->multiply_panel(weights, n, x + col, ldx, n_tokens, acc);
    }
    size_t first = panel * QINS_PANEL_ROWS, rows = qins_min_size(QINS_PANEL_ROWS, m->n_rows - first);
    for (size_t r = 0; r < rows; r++) {
        float scale = row_scale(m, first + r);
        for (size_t t = 0; t < n_tokens; t++)
            y[t * ldy + first + r] = scale * acc[t * QINS_PANEL_ROWS + r];
    }
}

/* Row-major storages and few tokens: a dot product a row, no transposition. */
static void multiply_rows(const qins_matrix *m, const qins_kernels *kernels, size_t panel, const float *x, size_t ldx,
                          size_t n_tokens, float *y, size_t ldy) {
    float buffer[QINS_CHUNK_COLS];
    size_t first = panel * QINS_PANEL_ROWS, rows = qins_min_size(QINS_PANEL_ROWS, m->n_rows - first);
    for (size_t r = first; r < first + rows; r++) {
        for (size_t t = 0; t < n_tokens; t++)
            y[t * ldy + r] = 0;
        for (size_t col = 0; col < m->n_cols; col += QINS_CHUNK_COLS) {
            size_t n = qins_min_size(QINS_CHUNK_COLS, m->n_cols - col);
            const float *w = buffer;
            if (m->plain_f32 != NULL)
                w = m->plain_f32 + r * m->n_cols + col;
            else
                m->read_row(m, r, col, n, buffer);
            for (size_t t = 0; t < n_tokens; t++)
                y[t * ldy + r] += kernels->dot(w, x + t * ldx + col, n);
        }
    }
}

void qins_matmul(const qins_matrix *m, const float *x, size_t ldx, size_t n_tokens, float *y, size_t ldy) {
    enum { FEW_TOKENS = 4 };
    const qins_kernels *kernels = qins_get_kernels();
    size_t panels = qins_n_panels(m->n_rows);
    for (size_t t = 0; t < n_tokens; t += TOKEN_BLOCK) {
        size_t n = qins_min_size(TOKEN_BLOCK, n_tokens - t);
        bool by_row = !m->packed && !m->transposed && n < FEW_TOKENS;
#pragma omp parallel for schedule(static)
        for (size_t p = 0; p < panels; p++) {
            if (by_row)
                multiply_rows(m, kernels, p, x + t * ldx, ldx, n, y + t * ldy, ldy);
            else
                multiply_panel(m, kernels, p, x + t * ldx, ldx, n, y + t * ldy, ldy);
        }
    }
}

/* ---- whole rows ---- */

static void decode_packed_row(const qins_matrix *m, size_t row, float *dst) {
    size_t panel = row / QINS_PANEL_ROWS, lane = row % QINS_PANEL_ROWS;
    const uint8_t *tiles = m->codes + panel * qins_n_tiles(m->n_cols) * qins_tile_bytes(m->bits);
    for (size_t k = 0; k < m->n_cols; k++) {
        const uint8_t *tile = tiles + k / QINS_TILE_COLS * qins_tile_bytes(m->bits);
        float scale = m->scale == QINS_SCALE_GROUP ? group_scales(m, panel, k)[lane] : row_scale(m, row);
        dst[k] = scale * m->table[qins_unpack_code(tile, m->bits, lane, k % QINS_TILE_COLS)];
    }
}

void qins_matrix_decode_rows(const qins_matrix *m, size_t row, size_t n, float *dst) {
#pragma omp parallel for schedule(static) if (n >= QINS_PANEL_ROWS)
    for (size_t i = 0; i < n; i++) {
        float *out = dst + i * m->n_cols;
        if (m->packed)
            decode_packed_row(m, row + i, out);
        else if (m->transposed)
            for (size_t col = 0; col < m->n_cols; col++)
                m->read_row(m, col, row + i, 1, out + col);
        else
            for (size_t col = 0; col < m->n_cols; col += QINS_CHUNK_COLS)
                m->read_row(m, row + i, col, qins_min_size(QINS_CHUNK_COLS, m->n_cols - col), out + col);
        if (m->rotation != NULL) qins_unrotate(out, m->n_cols, m->rotation);
    }
}

/* ---- the original storages ---- */

static void read_seed_row(const qins_matrix *m, size_t row, size_t col, size_t n, float *dst) {
    const uint8_t *stored = (const uint8_t *)m->source + row * m->n_cols + col;
    const int8_t *sign = m->signs8 + row * m->n_cols + col;
    for (size_t k = 0; k < n; k++)
        dst[k] = m->magnitudes[stored[k]] * (float)sign[k];
}

static void read_coordinate_row(const qins_matrix *m, size_t row, size_t col, size_t n, float *dst) {
    const float *z = (const float *)m->source + row * m->n_cols + col;
    for (size_t k = 0; k < n; k++)
        dst[k] = (float)qins_rational_w(m->alpha, (double)z[k]);
}

void qins_matrix_from_parts(qins_matrix *m, size_t n_rows, size_t n_cols, const qins_encode_options *options,
                            const void *const parts[QINS_PART_COUNT], const float *rotation) {
    *m = (qins_matrix){.n_rows = n_rows, .n_cols = n_cols, .rotation = rotation};
    if (options->storage == QINS_STORAGE_SEED) {
        const float *range = parts[QINS_PART_RANGE];
        qins_codebook book = {.log_min = range[0], .log_max = range[1]};
        for (int i = 0; i < 256; i++)
            m->magnitudes[i] = qins_log_value(&book, 255, i);
        m->read_row = read_seed_row;
        m->source = parts[QINS_PART_CODES];
        m->signs8 = parts[QINS_PART_SIGNS];
    } else if (options->storage == QINS_STORAGE_F32) {
        m->read_row = read_coordinate_row;
        m->source = parts[QINS_PART_CODES];
        m->alpha = (double)*(const float *)parts[QINS_PART_ALPHA];
    } else {
        m->packed = true;
        m->bits = options->bits;
        m->codes = parts[QINS_PART_CODES];
        m->table = parts[QINS_PART_TABLE];
        m->scales = parts[QINS_PART_SCALES];
        m->scale = options->scale;
        m->group_size = options->group_size;
    }
}
