/* Causal attention over the KV cache, in blocks with online softmax. SPDX-License-Identifier: MIT
 *
 * Positions are read a page of 64 at a time, once for all queries that share them; each query keeps the largest score
 * so far, the sum of exponentials below it and the weighted sum of values (Milakov and Gimelshein, 2018; Dao et al.,
 * FlashAttention, 2022). Few queries read rows as they are stored, decoding in registers; many have a page decoded once
 * into 64 rows of floats and multiply matrices. When there are fewer blocks than threads (one token is generated), the
 * positions are shared out and the parts' sums put together at the end.
 */
#include "model/model.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_ROWS = 128,    /* queries of a block, unless one token has more */
    REGISTER_ROWS = 8,   /* up to so many queries read rows in the stored form */
    TASKS_A_THREAD = 4,  /* wanted, so that threads end together */
    MIN_SPLIT_PAGES = 4, /* positions of a part: not worth a task otherwise */
    PAGE = QINS_KV_PAGE
};

qins_qkv_view qins_qkv_view_of(const qins_hparams *h) {
    size_t q = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim;
    if (h->family->qkv == QINS_QKV_BY_HEAD)
        return (qins_qkv_view){
            .row = q + 2 * kv, .k_offset = h->head_dim, .v_offset = 2 * h->head_dim, .head_stride = 3 * h->head_dim};
    return (qins_qkv_view){.row = q + 2 * kv, .k_offset = q, .v_offset = q + kv, .head_stride = h->head_dim};
}

/* ---- scratch ---- */

/* One thread's share of qins_attention.scratch. */
typedef struct scratch {
    float *queries; /* [rows][dims] */
    float *scores;  /* [rows][PAGE], then weights */
    float *sums;    /* [rows][dims]: weighted values */
    float *largest; /* [rows] */
    float *total;   /* [rows]: of exp(score - largest) */
    float *offsets; /* [rows]: query times mean key */
    float *keys;    /* [PAGE][dims] */
    float *across;  /* [dims][PAGE]: keys, transposed */
} scratch;

static size_t scratch_floats(size_t rows, size_t dims) {
    return qins_round_up(rows * (2 * dims + PAGE + 3) + 2 * PAGE * dims, 16);
}

static scratch scratch_of(const qins_attention *a, size_t thread) {
    size_t rows = a->max_rows, dims = a->dims;
    scratch s = {.queries = a->scratch + thread * a->scratch_floats};
    s.scores = s.queries + rows * dims;
    s.sums = s.scores + rows * PAGE;
    s.keys = s.sums + rows * dims;
    s.across = s.keys + PAGE * dims;
    s.largest = s.across + PAGE * dims;
    s.total = s.largest + rows;
    s.offsets = s.total + rows;
    return s;
}

qins_status qins_attention_init(qins_attention *a, const qins_hparams *h, const qins_kv_cache *cache, size_t max_batch,
                                size_t n_threads, qins_error *err) {
    size_t group = h->n_heads / h->n_kv_heads, dims = cache->format.dims, n_scratch, n_partial;
    size_t rows = qins_max_size(group, BLOCK_ROWS);
    *a = (qins_attention){.n_threads = n_threads,
                          .max_rows = rows,
                          .dims = dims,
                          .group = group,
                          .scratch_floats = scratch_floats(rows, dims)};
    size_t n_tasks = 2 * TASKS_A_THREAD * n_threads;
    bool fits = qins_mul_size(n_threads, a->scratch_floats, &n_scratch) &&
                qins_mul_size(n_tasks, rows * (dims + 2), &n_partial);
    if (fits) {
        a->scratch = qins_alloc_aligned(n_scratch, sizeof *a->scratch);
        a->partial = qins_alloc_aligned(n_partial, sizeof *a->partial);
        a->blocks = qins_alloc(max_batch, sizeof *a->blocks);
    }
    if (a->scratch != NULL && a->partial != NULL && a->blocks != NULL) return QINS_OK;
    qins_attention_free(a);
    return qins_fail_memory(err, fits ? (n_scratch + n_partial) * sizeof(float) : SIZE_MAX, "attention");
}

void qins_attention_free(qins_attention *a) {
    free(a->scratch);
    free(a->partial);
    free(a->blocks);
    *a = (qins_attention){0};
}

/* ---- storing ---- */

typedef struct attention_job {
    const qins_attention *a;
    const qins_hparams *h;
    const qins_layer *layer;
    const qins_kv_cache *cache;
    size_t layer_index;
    const qins_rope *rope;
    qins_qkv_view view;
    size_t window;
    const float *qkv;
    float *out;
    const qins_token_run *runs;
    size_t n_parts; /* of the positions */
} attention_job;

static void store_keys(const attention_job *j, const qins_token_run *run, size_t head, scratch *s) {
    const qins_hparams *h = j->h;
    uint8_t *rows = qins_kv_head(j->cache, run->seq, j->layer_index, head);
    float *key = s->queries;
    for (size_t t = 0; t < run->n; t++) {
        const float *from = j->qkv + (run->first + t) * j->view.row + j->view.k_offset + head * j->view.head_stride;
        memcpy(key, from, h->head_dim * sizeof *key);
        if (h->family->qk_norm == QINS_QK_NORM_HEAD) qins_apply_norm_row(h, &j->layer->k_norm, h->head_dim, key, key);
        if (j->rope != NULL) qins_rope_apply(j->rope, run->first + t, key);
        qins_kv_key_to_rows(j->cache, j->layer_index, head, key);
        qins_kv_store_key(&j->cache->format, rows, run->position + t, key, s->keys);
    }
}

static void store_values(const attention_job *j, const qins_token_run *run, size_t head, scratch *s) {
    const qins_kv_format *f = &j->cache->format;
    uint8_t *rows = qins_kv_head(j->cache, run->seq, j->layer_index, head);
    float *value = s->queries;
    memset(value, 0, f->dims * sizeof *value);
    for (size_t t = 0; t < run->n; t++) {
        const float *from = j->qkv + (run->first + t) * j->view.row + j->view.v_offset + head * j->view.head_stride;
        memcpy(value, from, f->head_dim * sizeof *value);
        if (f->coded_values) qins_kv_rotate(f, f->value_type, value);
        qins_kv_store_value(f, rows, run->position + t, value);
    }
}

/* ---- one block of queries, one kv head, some pages ---- */

static void load_queries(const attention_job *j, const qins_query_block *b, size_t kv_head, scratch *s) {
    const qins_hparams *h = j->h;
    size_t group = j->a->group, dims = j->a->dims;
    for (size_t t = 0; t < b->n; t++)
        for (size_t g = 0; g < group; g++) {
            float *query = s->queries + (t * group + g) * dims;
            memcpy(query,
                   j->qkv + (b->first + t) * j->view.row + j->view.q_offset +
                       (kv_head * group + g) * j->view.head_stride,
                   h->head_dim * sizeof *query);
            if (h->family->qk_norm == QINS_QK_NORM_HEAD)
                qins_apply_norm_row(h, &j->layer->q_norm, h->head_dim, query, query);
            if (j->rope != NULL) qins_rope_apply(j->rope, b->first + t, query);
            for (size_t d = 0; d < h->head_dim; d++)
                query[d] *= h->attention_scale;
            qins_kv_query_to_rows(j->cache, j->layer_index, kv_head, query);
        }
}

static void transpose(const float *rows, size_t n_rows, size_t dims, float *out) {
    for (size_t d = 0; d < dims; d++)
        for (size_t i = 0; i < n_rows; i++)
            out[d * PAGE + i] = rows[i * dims + d];
}

/* scores[row][slot] of a span */
static void score_span(const qins_attention_kernels *kernels, const qins_kv_span *span, size_t dims, size_t n_rows,
                       scratch *s) {
    float *scores = s->scores + span->slot;
    if (n_rows <= REGISTER_ROWS) {
        kernels->score[span->key_type](&span->keys, span->n, dims, s->queries, n_rows, scores, PAGE);
        if (span->mean == NULL) return;
        const qins_kv_rows mean = {.data = (const uint8_t *)span->mean, .row_bytes = dims * sizeof(uint16_t)};
        kernels->score[QINS_KV_F16](&mean, 1, dims, s->queries, n_rows, s->offsets, 1);
        for (size_t r = 0, n = span->n; r < n_rows; r++) {
            float *row = scores + r * PAGE, offset = s->offsets[r];
            for (size_t i = 0; i < n; i++)
                row[i] += offset;
        }
        return;
    }
    kernels->decode[span->key_type](&span->keys, span->n, dims, s->keys);
    for (size_t i = 0; span->mean != NULL && i < span->n; i++)
        for (size_t d = 0; d < dims; d++)
            s->keys[i * dims + d] += qins_half_to_float(span->mean[d]);
    transpose(s->keys, span->n, dims, s->across);
    for (size_t r = 0; r < n_rows; r++)
        memset(scores + r * PAGE, 0, span->n * sizeof *scores);
    size_t whole = span->n / QINS_KV_LANES * QINS_KV_LANES;
    kernels->multiply_add(s->queries, dims, s->across, PAGE, n_rows, whole, dims, scores, PAGE);
    const qins_kv_rows rest = {.data = (const uint8_t *)(s->keys + whole * dims), .row_bytes = dims * sizeof(float)};
    kernels->score[QINS_KV_F32](&rest, span->n - whole, dims, s->queries, n_rows, scores + whole, PAGE);
}

static void add_values(const qins_attention_kernels *kernels, const qins_kv_span *span, size_t dims, size_t n_rows,
                       scratch *s) {
    const float *weights = s->scores + span->slot;
    if (n_rows <= REGISTER_ROWS) {
        kernels->accumulate[span->value_type](&span->values, span->n, dims, weights, PAGE, n_rows, s->sums);
        return;
    }
    kernels->decode[span->value_type](&span->values, span->n, dims, s->keys);
    kernels->multiply_add(weights, PAGE, s->keys, dims, n_rows, dims, span->n, s->sums, dims);
}

/* Scores of a row in [lo, hi) to weights, zero elsewhere; what was summed before is scaled to the new largest score. */
static void update_row(const attention_job *j, const qins_attention_kernels *kernels, scratch *s, size_t row, size_t lo,
                       size_t hi, size_t n) {
    float *x = s->scores + row * PAGE;
    if (hi > lo) {
        if (j->h->attention_cap > 0) qins_soft_cap(j->h->attention_cap, x + lo, hi - lo);
        float largest = fmaxf(s->largest[row], kernels->max(x + lo, hi - lo));
        if (largest > s->largest[row]) {
            float correction = expf(s->largest[row] - largest);
            s->total[row] *= correction;
            kernels->scale(s->sums + row * j->a->dims, j->a->dims, correction);
            s->largest[row] = largest;
        }
        s->total[row] += kernels->exp_sum(x + lo, hi - lo, largest);
    }
    if (lo > 0) memset(x, 0, qins_min_size(lo, n) * sizeof *x);
    if (hi < n) memset(x + hi, 0, (n - hi) * sizeof *x);
}

/* The range of slots of a page that the query at `position` sees. */
static void visible(size_t position, size_t window, size_t base, size_t n, size_t *lo, size_t *hi) {
    size_t first = position + 1 > window ? position + 1 - window : 0;
    *lo = first > base ? qins_min_size(first - base, n) : 0;
    *hi = position + 1 > base ? qins_min_size(position + 1 - base, n) : 0;
    if (*hi < *lo) *hi = *lo;
}

static void attend_pages(const attention_job *j, const qins_query_block *b, size_t kv_head, size_t first_page,
                         size_t end_page, scratch *s) {
    const qins_attention_kernels *kernels = qins_get_attention_kernels();
    size_t dims = j->a->dims, group = j->a->group, n_rows = b->n * group, end = b->position + b->n;
    const uint8_t *head = qins_kv_head(j->cache, b->seq, j->layer_index, kv_head);
    load_queries(j, b, kv_head, s);
    memset(s->sums, 0, n_rows * dims * sizeof *s->sums);
    for (size_t r = 0; r < n_rows; r++) {
        s->largest[r] = -INFINITY;
        s->total[r] = 0;
    }
    for (size_t page = first_page; page < end_page; page++) {
        size_t base = page * PAGE, n = qins_min_size(PAGE, end - base);
        qins_kv_span spans[2];
        size_t n_spans = qins_kv_spans(&j->cache->format, head, page, n, spans);
        if (page + 1 < end_page) qins_kv_fetch_page(&j->cache->format, head, page + 1);
        for (size_t i = 0; i < n_spans; i++)
            score_span(kernels, &spans[i], dims, n_rows, s);
        for (size_t r = 0; r < n_rows; r++) {
            size_t lo, hi;
            visible(b->position + r / group, j->window, base, n, &lo, &hi);
            update_row(j, kernels, s, r, lo, hi, n);
        }
        for (size_t i = 0; i < n_spans; i++)
            add_values(kernels, &spans[i], dims, n_rows, s);
    }
}

/* out := sum / total in the model's basis; row r of the block. sum is overwritten. */
static void write_row(const attention_job *j, const qins_query_block *b, size_t kv_head, size_t r, float *sum,
                      float total) {
    const qins_kv_format *f = &j->cache->format;
    size_t group = j->a->group, head = kv_head * group + r % group;
    float *out = j->out + ((b->first + r / group) * j->h->n_heads + head) * f->head_dim;
    if (f->coded_values) qins_kv_rotate(f, f->value_type, sum);
    for (size_t d = 0; d < f->head_dim; d++)
        out[d] = sum[d] / total;
}

/* ---- parts of the positions ---- */

/* [max_rows][dims + 2]: sum, largest, total */
static float *partial_of(const qins_attention *a, size_t task) {
    return a->partial + task * a->max_rows * (a->dims + 2);
}

static void keep_partial(const attention_job *j, size_t task, size_t n_rows, const scratch *s) {
    size_t dims = j->a->dims;
    float *row = partial_of(j->a, task);
    for (size_t r = 0; r < n_rows; r++, row += dims + 2) {
        memcpy(row, s->sums + r * dims, dims * sizeof *row);
        row[dims] = s->largest[r];
        row[dims + 1] = s->total[r];
    }
}

/* Puts the parts of row r together, into the first. */
static void merge_row(const attention_job *j, const qins_query_block *b, size_t kv_head, size_t first_task,
                      size_t n_parts, size_t r) {
    size_t dims = j->a->dims;
    float *sum = partial_of(j->a, first_task) + r * (dims + 2), largest = -INFINITY, total = 0;
    for (size_t p = 0; p < n_parts; p++)
        largest = fmaxf(largest, partial_of(j->a, first_task + p)[r * (dims + 2) + dims]);
    for (size_t p = 0; p < n_parts; p++) {
        const float *part = partial_of(j->a, first_task + p) + r * (dims + 2);
        float weight = part[dims] == -INFINITY ? 0.0f : expf(part[dims] - largest);
        total += weight * part[dims + 1];
        for (size_t d = 0; d < dims; d++)
            sum[d] = weight * part[d] + (p > 0 ? sum[d] : 0.0f);
    }
    write_row(j, b, kv_head, r, sum, total);
}

/* ---- a batch ---- */

static size_t cut_into_blocks(qins_attention *a, const qins_token_run *runs, size_t n_runs) {
    size_t most = qins_max_size(1, a->max_rows / a->group), n_blocks = 0;
    for (size_t i = 0; i < n_runs; i++)
        for (size_t t = 0; t < runs[i].n; t += most)
            a->blocks[n_blocks++] = (qins_query_block){.seq = runs[i].seq,
                                                       .position = runs[i].position + t,
                                                       .first = runs[i].first + t,
                                                       .n = qins_min_size(most, runs[i].n - t)};
    return n_blocks;
}

static size_t first_page_of(const attention_job *j, const qins_query_block *b) {
    return b->position + 1 > j->window ? (b->position + 1 - j->window) / PAGE : 0;
}

static size_t end_page_of(const qins_query_block *b) {
    return (b->position + b->n - 1) / PAGE + 1;
}

/* Parts that the positions are cut into, so that there is work for all threads. */
static size_t choose_parts(const attention_job *j, size_t n_blocks) {
    size_t tasks = n_blocks * j->h->n_kv_heads, wanted = TASKS_A_THREAD * j->a->n_threads, pages = 0;
    if (tasks >= wanted || j->a->n_threads == 1) return 1;
    for (size_t i = 0; i < n_blocks; i++)
        pages = qins_max_size(pages, end_page_of(&j->a->blocks[i]) - first_page_of(j, &j->a->blocks[i]));
    return qins_max_size(1, qins_min_size((wanted + tasks - 1) / tasks, pages / MIN_SPLIT_PAGES));
}

static void run_task(void *context, size_t task) {
    const attention_job *j = context;
    size_t n_parts = j->n_parts;
    scratch s = scratch_of(j->a, (size_t)qins_thread_index());
    size_t part = task % n_parts, kv_head = task / n_parts % j->h->n_kv_heads;
    const qins_query_block *b = &j->a->blocks[task / n_parts / j->h->n_kv_heads];
    size_t first = first_page_of(j, b), n = end_page_of(b) - first, n_rows = b->n * j->a->group;
    attend_pages(j, b, kv_head, first + part * n / n_parts, first + (part + 1) * n / n_parts, &s);
    if (n_parts > 1) {
        keep_partial(j, task, n_rows, &s);
        return;
    }
    for (size_t r = 0; r < n_rows; r++)
        write_row(j, b, kv_head, r, s.sums + r * j->a->dims, s.total[r]);
}

static void store_task(void *context, size_t task) {
    const attention_job *j = context;
    size_t n_heads = j->h->n_kv_heads;
    scratch s = scratch_of(j->a, (size_t)qins_thread_index());
    const qins_token_run *run = &j->runs[task / (2 * n_heads)];
    if (task % 2 == 0)
        store_keys(j, run, task / 2 % n_heads, &s);
    else
        store_values(j, run, task / 2 % n_heads, &s);
}

static void merge_task(void *context, size_t task) {
    const attention_job *j = context;
    size_t n_heads = j->h->n_kv_heads;
    const qins_query_block *b = &j->a->blocks[task / n_heads];
    for (size_t r = 0; r < b->n * j->a->group; r++)
        merge_row(j, b, task % n_heads, task * j->n_parts, j->n_parts, r);
}

void qins_attend(qins_attention *a, const qins_hparams *h, const qins_layer *layer, const qins_kv_cache *cache,
                 size_t layer_index, const qins_rope *rope, const qins_token_run *runs, size_t n_runs, float *qkv,
                 float *out) {
    qins_qkv_view view = qins_qkv_view_of(h);
    size_t n_tokens = runs[n_runs - 1].first + runs[n_runs - 1].n;
    attention_job j = {.a = a,
                       .h = h,
                       .layer = layer,
                       .cache = cache,
                       .layer_index = layer_index,
                       .rope = rope,
                       .view = view,
                       .window = (layer->flags & QINS_LAYER_SLIDING) != 0 ? h->sliding_window : SIZE_MAX,
                       .qkv = qkv,
                       .out = out,
                       .runs = runs};
    if (h->family->qk_norm == QINS_QK_NORM_FULL) {
        float *q = qkv + view.q_offset, *k = qkv + view.k_offset;
        qins_apply_norm(h, &layer->q_norm, h->n_heads * h->head_dim, q, view.row, n_tokens, q, view.row);
        qins_apply_norm(h, &layer->k_norm, h->n_kv_heads * h->head_dim, k, view.row, n_tokens, k, view.row);
    }
    /* Of a single token each task is so little that waking others costs more. */
    size_t n_stores = 2 * h->n_kv_heads * n_runs;
    qins_parallel(n_stores, n_tokens > 1 ? 1 : n_stores, store_task, &j);
    size_t n_blocks = cut_into_blocks(a, runs, n_runs);
    j.n_parts = choose_parts(&j, n_blocks);
    qins_parallel(n_blocks * h->n_kv_heads * j.n_parts, 1, run_task, &j);
    if (j.n_parts > 1) qins_parallel(n_blocks * h->n_kv_heads, 1, merge_task, &j);
}
