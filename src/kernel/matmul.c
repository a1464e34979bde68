/* y = W x^T from stored weights, for any storage. SPDX-License-Identifier: MIT
 *
 * A thread takes a panel of 16 rows, decodes 256 columns of it into 16 KiB that stay in the first-level cache,
 * multiplies them with all tokens, and goes on: nothing larger than that is ever decoded.
 */
#include "kernel/matrix.h"

#include <math.h>
#include <string.h>

enum { TOKEN_BLOCK = 128, FEW_TOKENS = 4, ROW_COLS = 4 * QINS_CHUNK_COLS };

/* ---- decoding 256 columns of a panel: out[k*16 + row] ---- */

static const float *group_scales(const qins_matrix *m, size_t panel, size_t col) {
    size_t n_groups = (m->n_cols - 1) / m->group_size + 1;
    return m->scales + (panel * n_groups + col / m->group_size) * QINS_PANEL_ROWS;
}

static void decode_trellis(const qins_matrix *m, size_t tile, size_t n, float *out) {
    for (size_t col = 0; col < n; col += QINS_TILE_COLS, tile++) {
        uint8_t places[QINS_TILE_CODES];
        qins_trellis_tile(m->codes + tile * qins_tile_bytes(m->bits), m->bits, places);
        for (size_t i = 0; i < QINS_TILE_CODES; i++) {
            size_t k = col + i / 64 * 4 + i % 4, row = i % 64 / 4;
            out[k * QINS_PANEL_ROWS + row] = m->table[places[i]];
        }
    }
}

static void decode_packed(const qins_matrix *m, const qins_kernels *kernels, size_t panel, size_t col, size_t n,
                          float *out) {
    size_t tile = panel * qins_n_tiles(m->n_cols) + col / QINS_TILE_COLS, tile_bytes = qins_tile_bytes(m->bits);
    const uint8_t *tiles = m->codes + tile * tile_bytes, *next = tiles + QINS_CHUNK_COLS / QINS_TILE_COLS * tile_bytes;
    for (size_t line = 0; line < QINS_CHUNK_COLS / QINS_TILE_COLS * tile_bytes; line += 64)
        __builtin_prefetch(next + line); /* while these are multiplied */
    if (m->trellis) {
        decode_trellis(m, tile, n, out);
        return;
    }
    kernels->decode[m->bits](tiles, m->table, qins_round_up(n, QINS_TILE_COLS), out);
    for (size_t k = 0; m->scale == QINS_SCALE_GROUP && k < n;) {
        size_t in_group = (col + k) % m->group_size, here = qins_min_size(m->group_size - in_group, n - k);
        kernels->scale_panel(group_scales(m, panel, col + k), here, out + k * QINS_PANEL_ROWS);
        k += here;
    }
}

static void read_seed_row(const qins_matrix *m, size_t row, size_t col, size_t n, float *dst);
static void read_coordinate_row(const qins_matrix *m, size_t row, size_t col, size_t n, float *dst);

/* Part of a row in FP32 arithmetic: qins_matrix_decode_rows may differ in the last bit. */
static void read_for_product(const qins_matrix *m, const qins_kernels *kernels, size_t row, size_t col, size_t n,
                             float *dst) {
    size_t first = row * m->n_cols + col;
    if (m->read_row == read_seed_row)
        kernels->signed_entries((const uint8_t *)m->source + first, m->signs8 + first, m->magnitudes, n, dst);
    else if (m->read_row == read_coordinate_row)
        kernels->rational((const float *)m->source + first, (float)m->alpha, n, dst);
    else
        m->read_row(m, row, col, n, dst);
}

static size_t plain_row_bytes(const qins_matrix *m) {
    return m->n_cols * (m->number == QINS_NUMBER_F32 ? 4 : 2);
}

static void decode_rows_transposed(const qins_matrix *m, const qins_kernels *kernels, size_t panel, size_t col,
                                   size_t n, float *out) {
    _Alignas(64) float rows_read[QINS_PANEL_ROWS * QINS_CHUNK_COLS];
    size_t first = panel * QINS_PANEL_ROWS, rows = qins_min_size(QINS_PANEL_ROWS, m->n_rows - first);
    if (m->transposed) {
        if (rows < QINS_PANEL_ROWS) memset(out, 0, n * QINS_PANEL_ROWS * sizeof *out);
        for (size_t k = 0; k < n; k++)
            m->read_row(m, col + k, first, rows, out + k * QINS_PANEL_ROWS);
        return;
    }
    if (m->number != QINS_NUMBER_NONE) {
        size_t stride = plain_row_bytes(m);
        kernels->panel_of_rows[m->number](m->rows + first * stride + stride / m->n_cols * col, stride, rows, n, out);
        return;
    }
    for (size_t r = 0; r < rows; r++)
        read_for_product(m, kernels, first + r, col, n, rows_read + r * QINS_CHUNK_COLS);
    kernels->panel_of_rows[QINS_NUMBER_F32](rows_read, QINS_CHUNK_COLS * sizeof(float), rows, n, out);
}

static float row_scale(const qins_matrix *m, size_t row) {
    if (!m->packed || m->scale == QINS_SCALE_GROUP) return 1.0f;
    return m->scales[m->scale == QINS_SCALE_ROW ? row : 0];
}

/* ---- multiplication ---- */

/* A run of rows of one product, and the tokens they are multiplied with. */
typedef struct piece {
    const qins_product *product;
    size_t panel, n_panels; /* at most QINS_PANELS_AT_ONCE */
    const qins_vectors *x;
    size_t first, n_tokens; /* at most TOKEN_BLOCK */
    float *y;               /* of the first row and token */
    size_t ldy;
} piece;

/* Rows that panel p of the matrix really has. */
static size_t rows_of_panel(const qins_matrix *m, size_t p) {
    return qins_min_size(QINS_PANEL_ROWS, m->n_rows - p * QINS_PANEL_ROWS);
}

/* y[t*ldy + r] := scale[r] * acc[t*ld + r] + bias[r]; n_rows is a constant where compilers should make vectors of it.
 */
static inline __attribute__((always_inline)) void write_rows(const piece *w, float *y, const float *acc, size_t ld,
                                                             const float *scale, const float *bias, size_t n_rows) {
    for (size_t t = 0; t < w->n_tokens; t++)
        for (size_t r = 0; r < n_rows; r++)
            y[t * w->ldy + r] = scale[r] * acc[t * ld + r] + bias[r];
}

/* y := scale * acc + bias for some panels; acc[t*ld + row]. */
static void write_panels(const piece *w, size_t panel, size_t n_panels, const float *acc, size_t ld) {
    enum { ROWS = QINS_PANELS_AT_ONCE * QINS_PANEL_ROWS };
    const qins_matrix *m = w->product->matrix;
    size_t row = panel * QINS_PANEL_ROWS, rows = qins_min_size(n_panels * QINS_PANEL_ROWS, m->n_rows - row);
    float scale[ROWS], bias[ROWS] = {0}, *y = w->y + (panel - w->panel) * QINS_PANEL_ROWS;
    for (size_t r = 0; r < rows; r++)
        scale[r] = row_scale(m, row + r);
    if (w->product->bias != NULL) memcpy(bias, w->product->bias + row, rows * sizeof *bias);
    if (rows == ROWS)
        write_rows(w, y, acc, ld, scale, bias, ROWS);
    else if (rows == QINS_PANEL_ROWS)
        write_rows(w, y, acc, ld, scale, bias, QINS_PANEL_ROWS);
    else
        write_rows(w, y, acc, ld, scale, bias, rows);
}

static void multiply_panel(const piece *w, size_t panel) {
    const qins_matrix *m = w->product->matrix;
    const qins_kernels *kernels = qins_get_kernels();
    _Alignas(64) float weights[QINS_CHUNK_COLS * QINS_PANEL_ROWS], acc[TOKEN_BLOCK * QINS_PANEL_ROWS];
    memset(acc, 0, w->n_tokens * QINS_PANEL_ROWS * sizeof *acc);
    for (size_t col = 0; col < m->n_cols; col += QINS_CHUNK_COLS) {
        size_t n = qins_min_size(QINS_CHUNK_COLS, m->n_cols - col);
        if (m->packed)
            decode_packed(m, kernels, panel, col, n, weights);
        else
            decode_rows_transposed(m, kernels, panel, col, n, weights);
        kernels->multiply_panel(weights, n, w->x->x + w->first * w->x->ldx + col, w->x->ldx, w->n_tokens, acc);
    }
    write_panels(w, panel, 1, acc, QINS_PANEL_ROWS);
}

/* Row-major storages and few tokens: a dot product a row, no transposition. */
static void multiply_rows(const piece *w, size_t panel) {
    const qins_matrix *m = w->product->matrix;
    const qins_kernels *kernels = qins_get_kernels();
    const float *x = w->x->x + w->first * w->x->ldx;
    float buffer[ROW_COLS], acc[FEW_TOKENS * QINS_PANEL_ROWS] = {0};
    size_t row_bytes = plain_row_bytes(m);
    for (size_t r = 0; r < rows_of_panel(m, panel) && m->number != QINS_NUMBER_NONE; r++)
        for (size_t t = 0; t < w->n_tokens; t++)
            acc[t * QINS_PANEL_ROWS + r] = kernels->dot_row[m->number](
                m->rows + (panel * QINS_PANEL_ROWS + r) * row_bytes, x + t * w->x->ldx, m->n_cols);
    for (size_t r = 0; r < rows_of_panel(m, panel) && m->number == QINS_NUMBER_NONE; r++)
        for (size_t col = 0; col < m->n_cols; col += ROW_COLS) {
            size_t n = qins_min_size(ROW_COLS, m->n_cols - col), row = panel * QINS_PANEL_ROWS + r;
            read_for_product(m, kernels, row, col, n, buffer);
            for (size_t t = 0; t < w->n_tokens; t++)
                acc[t * QINS_PANEL_ROWS + r] += kernels->dot(buffer, x + t * w->x->ldx + col, n);
        }
    write_panels(w, panel, 1, acc, QINS_PANEL_ROWS);
}

static void multiply_integers(const piece *w, const qins_integer_kernels *kernels) {
    const qins_matrix *m = w->product->matrix;
    const qins_integer_table *table = &m->integers;
    size_t tile_bytes = qins_tile_bytes(m->bits), panel_bytes = qins_n_tiles(m->n_cols) * tile_bytes;
    const uint8_t *tiles = m->codes + w->panel * panel_bytes;
    enum { LD = QINS_PANELS_AT_ONCE * QINS_PANEL_ROWS };
    _Alignas(64) float acc[TOKEN_BLOCK * LD];
    for (size_t p = 0; p < w->n_panels && m->scale == QINS_SCALE_ROW; p++) /* write_panels wants them */
        __builtin_prefetch(m->scales + (w->panel + p) * QINS_PANEL_ROWS);
    if (w->n_tokens == 1) {
        for (size_t p = 0; p < w->n_panels; p++)
            kernels->dot[m->bits][table->kind](tiles + p * panel_bytes, table, &w->x->integers, w->first,
                                               acc + p * QINS_PANEL_ROWS);
        write_panels(w, w->panel, w->n_panels, acc, LD);
        return;
    }
    _Alignas(64) uint8_t decoded[QINS_PANELS_AT_ONCE * QINS_DECODED_PANEL];
    size_t n_cols = w->x->integers.n_cols;
    memset(acc, 0, w->n_tokens * LD * sizeof *acc);
    for (size_t col = 0; col < n_cols; col += QINS_SPAN_COLS, tiles += QINS_SPAN_COLS / QINS_TILE_COLS * tile_bytes) {
        size_t n = qins_min_size(QINS_SPAN_COLS, n_cols - col);
        for (size_t p = 0; p < w->n_panels; p++) {
            const uint8_t *codes = tiles + p * panel_bytes;
            kernels->decode[m->bits][table->kind](codes, table, n, decoded + p * QINS_DECODED_PANEL);
            /* the next span, while this one is multiplied */
            const uint8_t *next = codes + QINS_SPAN_COLS / QINS_TILE_COLS * tile_bytes;
            for (size_t line = 0; line < QINS_SPAN_COLS / QINS_TILE_COLS * tile_bytes; line += 64)
                __builtin_prefetch(next + line);
        }
        kernels->multiply[table->kind](decoded, w->n_panels, n, &w->x->integers, col, w->first, w->n_tokens, acc, LD);
    }
    write_panels(w, w->panel, w->n_panels, acc, LD);
}

bool qins_takes_integers(const qins_matrix *m) {
    return m->packed && m->integers.kind != QINS_INTEGER_NONE && qins_get_cpu()->integer != NULL;
}

static bool in_integers(const qins_matrix *m, const qins_vectors *x) {
    return x->memory != NULL && qins_takes_integers(m);
}

static void multiply_piece(const piece *w) {
    const qins_matrix *m = w->product->matrix;
    if (in_integers(m, w->x)) {
        multiply_integers(w, qins_get_cpu()->integer);
        return;
    }
    for (size_t p = w->panel; p < w->panel + w->n_panels; p++) {
        if (!m->packed && !m->transposed && w->n_tokens < FEW_TOKENS)
            multiply_rows(w, p);
        else
            multiply_panel(w, p);
    }
}

static void quantise_token(void *context, size_t t) {
    qins_vectors *x = context;
    qins_get_elementwise()->quantise(&x->integers, t, x->x + t * x->ldx, x->n_cols);
}

static void quantise(qins_vectors *x) {
    qins_quantised_place(&x->integers, x->n_tokens, x->n_cols, x->memory);
    qins_parallel(x->n_tokens, 1, quantise_token, x);
    x->quantised = true;
}

static size_t n_pieces_of(const qins_product *product) {
    size_t n_panels = qins_n_panels(product->matrix->n_rows);
    return (n_panels + QINS_PANELS_AT_ONCE - 1) / QINS_PANELS_AT_ONCE;
}

typedef struct multiplication {
    const qins_product *products;
    const qins_vectors *x;
    size_t first, n_tokens;
} multiplication;

static void multiply_task(void *context, size_t i) {
    const multiplication *job = context;
    const qins_product *product = job->products;
    for (; i >= n_pieces_of(product); product++)
        i -= n_pieces_of(product);
    size_t panel = i * QINS_PANELS_AT_ONCE, n_panels = qins_n_panels(product->matrix->n_rows) - panel;
    const piece w = {product,
                     panel,
                     qins_min_size(QINS_PANELS_AT_ONCE, n_panels),
                     job->x,
                     job->first,
                     job->n_tokens,
                     product->y + job->first * product->ldy + panel * QINS_PANEL_ROWS,
                     product->ldy};
    multiply_piece(&w);
}

void qins_multiply(const qins_product *products, size_t n_products, qins_vectors *x) {
    size_t n_pieces = 0;
    for (size_t i = 0; i < n_products; i++) {
        n_pieces += n_pieces_of(&products[i]);
        if (!x->quantised && in_integers(products[i].matrix, x)) quantise(x);
    }
    size_t step = qins_parallel_step(n_pieces, (size_t)qins_get_threads());
    for (size_t first = 0; first < x->n_tokens; first += TOKEN_BLOCK) {
        multiplication job = {products, x, first, qins_min_size(TOKEN_BLOCK, x->n_tokens - first)};
        qins_parallel(n_pieces, step, multiply_task, &job);
    }
}

typedef struct gated {
    const qins_gated_product *product;
    const qins_vectors *x;
    size_t first, n_tokens;
} gated;

/* The same panels of both matrices, and the activation while they are in the cache. */
static void gated_task(void *context, size_t i) {
    enum { LD = QINS_PANELS_AT_ONCE * QINS_PANEL_ROWS };
    _Alignas(64) float gate[TOKEN_BLOCK * LD], up[TOKEN_BLOCK * LD];
    const gated *job = context;
    const qins_gated_product *p = job->product;
    size_t n_rows = p->gate->n_rows, panel = i * QINS_PANELS_AT_ONCE, row = panel * QINS_PANEL_ROWS;
    size_t rows = qins_min_size(LD, n_rows - row), n_panels = qins_n_panels(rows);
    const qins_product products[2] = {{p->gate, p->gate_bias, gate, LD}, {p->up, p->up_bias, up, LD}};
    for (size_t j = 0; j < 2; j++) {
        if (rows < LD) memset(products[j].y, 0, job->n_tokens * LD * sizeof(float));
        multiply_piece(&(piece){&products[j], panel, n_panels, job->x, job->first, job->n_tokens, products[j].y, LD});
    }
    qins_get_elementwise()->gate(p->activation, gate, up, job->n_tokens * LD, gate);
    for (size_t t = 0; t < job->n_tokens; t++)
        memcpy(p->y + (job->first + t) * p->ldy + row, gate + t * LD, rows * sizeof *gate);
}

void qins_multiply_gated(const qins_gated_product *product, qins_vectors *x) {
    size_t n_pieces = (qins_n_panels(product->gate->n_rows) + QINS_PANELS_AT_ONCE - 1) / QINS_PANELS_AT_ONCE;
    if (!x->quantised && (in_integers(product->gate, x) || in_integers(product->up, x))) quantise(x);
    size_t step = qins_parallel_step(n_pieces, (size_t)qins_get_threads());
    for (size_t first = 0; first < x->n_tokens; first += TOKEN_BLOCK) {
        gated job = {product, x, first, qins_min_size(TOKEN_BLOCK, x->n_tokens - first)};
        qins_parallel(n_pieces, step, gated_task, &job);
    }
}

/* ---- whole rows ---- */

static void decode_packed_row(const qins_matrix *m, size_t row, float *dst) {
    size_t panel = row / QINS_PANEL_ROWS, lane = row % QINS_PANEL_ROWS;
    const uint8_t *tiles = m->codes + panel * qins_n_tiles(m->n_cols) * qins_tile_bytes(m->bits);
    for (size_t k = 0; k < m->n_cols; k++) {
        const uint8_t *tile = tiles + k / QINS_TILE_COLS * qins_tile_bytes(m->bits);
        float scale = m->scale == QINS_SCALE_GROUP ? group_scales(m, panel, k)[lane] : row_scale(m, row);
        unsigned code = (m->trellis ? qins_trellis_unpack : qins_unpack_code)(tile, m->bits, lane, k % QINS_TILE_COLS);
        dst[k] = scale * m->table[code];
    }
}

static void decode_split_rows(const qins_matrix *m, size_t row, size_t n, float *dst) {
    for (size_t i = 0; i < n; i++) {
        const qins_row_piece *run = qins_row_split_find(m->split->rows, row + i);
        qins_matrix_decode_rows(run->encoded ? &m->split->encoded : &m->split->plain, run->at + (row + i - run->begin),
                                1, dst + i * m->n_cols);
    }
}

void qins_matrix_decode_rows(const qins_matrix *m, size_t row, size_t n, float *dst) {
    if (m->split != NULL) {
        decode_split_rows(m, row, n, dst);
        return;
    }
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
        m->trellis = qins_codec_is_trellis(options->codec);
        if (m->trellis)
            qins_integer_table_make_trellis(&m->integers, m->table, m->bits);
        else if (m->scale != QINS_SCALE_GROUP)
            qins_integer_table_make(&m->integers, m->table, m->bits);
    }
}
