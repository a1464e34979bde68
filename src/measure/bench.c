/* Speed beside this machine's own limits. SPDX-License-Identifier: MIT */
#include "base/base.h"
#include "kernel/matrix.h"
#include "measure/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PASSES = 21, BATCH_PASSES = 7, GEMV_COLS = 4096, MAX_TIMES = 4096 };
static const size_t BUFFER_BYTES = (size_t)256 << 20; /* several times the last-level cache */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the machine ---- */

/* One word of every 64-byte line: memory hands over whole lines, and a program that does more with them misses the
 * cache too often at once, which holds up the prefetcher (adding up all bytes reached 20 GB/s where this reaches 27, on
 * one core of Zen 4). Two pages ahead one line in eight is asked for, as the kernels do. */
static uint64_t read_all(const uint8_t *buffer, size_t n) {
    enum { LINE = 64 / sizeof(uint64_t), LINES = 8, AHEAD = 8192 / sizeof(uint64_t) };
    uint64_t total = 0;
#pragma omp parallel reduction(+ : total)
    {
        size_t step = LINE * LINES, share = n / sizeof(uint64_t) / (size_t)qins_get_threads() / step * step;
        const uint64_t *p = (const uint64_t *)(const void *)buffer + share * (size_t)qins_thread_index();
        for (size_t i = 0; i < share; i += step) {
            __builtin_prefetch(p + i + AHEAD, 0, 2);
            for (size_t j = 0; j < LINES; j++)
                total += p[i + LINE * j];
        }
    }
    return total;
}

/* GB/s of the fastest of some passes. */
static double read_speed(const uint8_t *buffer) {
    double best = INFINITY;
    volatile uint64_t sink = 0;
    for (int i = 0; i < PASSES; i++) {
        double start = seconds();
        sink += read_all(buffer, BUFFER_BYTES);
        best = fmin(best, seconds() - start);
    }
    (void)sink;
    return (double)BUFFER_BYTES / best * 1e-9;
}

/* The buffer taken as codes of a matrix. */
static qins_matrix matrix_over(const uint8_t *buffer, int bits, size_t n_bytes, const float *table,
                               const float *scales) {
    size_t panel_bytes = qins_n_tiles(GEMV_COLS) * qins_tile_bytes(bits);
    qins_matrix m = {.n_rows = n_bytes / panel_bytes * QINS_PANEL_ROWS,
                     .n_cols = GEMV_COLS,
                     .packed = true,
                     .bits = bits,
                     .codes = buffer,
                     .table = table,
                     .scales = scales,
                     .scale = QINS_SCALE_TENSOR};
    qins_integer_table_make(&m.integers, table, bits);
    return m;
}

typedef struct bench_memory {
    uint8_t *buffer;
    float *x, *y;
    void *quantised;
    qins_codebook *book;
} bench_memory;

enum { PEAK_TOKENS = 126, PEAK_ROWS = 512 };

static double multiply_seconds(const bench_memory *b, const qins_matrix *m, size_t n_tokens) {
    double best = INFINITY;
    for (int i = 0; i < PASSES; i++) {
        qins_product product = {.matrix = m, .y = b->y, .ldy = m->n_rows};
        qins_vectors x = {
            .x = b->x, .ldx = GEMV_COLS, .n_cols = GEMV_COLS, .n_tokens = n_tokens, .memory = b->quantised};
        double start = seconds();
        qins_multiply(&product, 1, &x);
        best = fmin(best, seconds() - start);
    }
    return best;
}

static void measure_gemv(const bench_memory *b, int threads, qins_bench_result *r) {
    static const float one[1] = {1.0f};
    for (size_t i = 0; i < QINS_BENCH_WIDTHS; i++) {
        qins_bench_gemv *g = &r->gemv[i];
        g->bits = QINS_MIN_BITS + (int)i;
        qins_gauss_codebook(b->book, g->bits);
        qins_matrix m = matrix_over(b->buffer, g->bits, BUFFER_BYTES, b->book->table, one);
        double bytes = (double)(m.n_rows / QINS_PANEL_ROWS * qins_n_tiles(GEMV_COLS) * qins_tile_bytes(g->bits));
        qins_set_threads(1);
        g->gbps_one = bytes / multiply_seconds(b, &m, 1) * 1e-9;
        qins_set_threads(threads);
        g->gbps = bytes / multiply_seconds(b, &m, 1) * 1e-9;
        g->share_one = g->gbps_one / r->read_gbps_one;
        g->share = g->gbps / r->read_gbps;
        m.n_rows = PEAK_ROWS;
        double macs = (double)PEAK_ROWS * GEMV_COLS * PEAK_TOKENS;
        g->gmacs = macs / multiply_seconds(b, &m, PEAK_TOKENS) * 1e-9;
    }
}

#if defined(QINS_HAVE_AMX)
enum { AMX_INSTRUCTIONS = 1 << 18, AMX_PRODUCTS = 16 * 16 * 64 };

static void run_amx_loop(void *context, size_t i) {
    (void)context;
    (void)i;
    qins_amx_loop(AMX_INSTRUCTIONS);
}

static double amx_peak(size_t threads) {
    double best = INFINITY;
    for (int i = 0; i < PASSES; i++) {
        double start = seconds();
        qins_parallel(threads, 1, run_amx_loop, NULL);
        best = fmin(best, seconds() - start);
    }
    return (double)threads * AMX_INSTRUCTIONS * AMX_PRODUCTS / best * 1e-9;
}
#endif

static qins_status measure_machine(qins_bench_result *r, qins_error *err) {
    size_t rows = BUFFER_BYTES / qins_tile_bytes(QINS_MIN_BITS) * QINS_PANEL_ROWS / (GEMV_COLS / QINS_TILE_COLS);
    bench_memory b = {
        .buffer = qins_alloc_aligned(BUFFER_BYTES + QINS_TILE_CODES, 1),
        .x = qins_alloc_aligned((size_t)PEAK_TOKENS * GEMV_COLS, sizeof(float)),
        .y = qins_alloc_aligned(rows > PEAK_TOKENS * PEAK_ROWS ? rows : PEAK_TOKENS * PEAK_ROWS, sizeof(float)),
        .quantised = qins_alloc_aligned(qins_quantised_bytes(PEAK_TOKENS, GEMV_COLS), 1),
        .book = qins_alloc(1, sizeof(qins_codebook))};
    qins_status status = QINS_OK;
    if (b.buffer == NULL || b.x == NULL || b.y == NULL || b.quantised == NULL || b.book == NULL) {
        status = qins_fail_memory(err, BUFFER_BYTES, "measuring");
    } else {
        uint64_t state = 1;
        for (size_t i = 0; i < BUFFER_BYTES; i += sizeof state) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            memcpy(b.buffer + i, &state, sizeof state);
        }
        for (size_t i = 0; i < (size_t)PEAK_TOKENS * GEMV_COLS; i++)
            b.x[i] = (float)(i % 251) * 0.01f - 1.25f;
        int threads = qins_get_threads();
        r->read_gbps = read_speed(b.buffer);
        qins_set_threads(1);
        r->read_gbps_one = read_speed(b.buffer);
        qins_set_threads(threads);
        measure_gemv(&b, threads, r);
#if defined(QINS_HAVE_AMX)
        if (qins_has_amx()) r->amx_gmacs = amx_peak((size_t)threads);
#endif
    }
    free(b.buffer);
    free(b.x);
    free(b.y);
    free(b.quantised);
    free(b.book);
    return status;
}

/* ---- the model ---- */

static int32_t some_id(size_t i, size_t vocab_size) {
    return (int32_t)(i * 7919 % vocab_size);
}

/* Prompt, then token by token; the median token counts, so that an interruption does not. */
static qins_status measure_session(qins_session *session, const qins_bench_options *o, size_t vocab_size, float *logits,
                                   int32_t *ids, double *times, qins_bench_result *r, qins_error *err) {
    for (size_t i = 0; i < o->prompt; i++)
        ids[i] = some_id(i, vocab_size);
    double start = seconds();
    qins_status status = qins_session_eval(session, ids, o->prompt, logits, 1, err);
    double prompt_seconds = seconds() - start;
    r->first_token_seconds = r->open_seconds + prompt_seconds;
    /* Again with every page of the weights in memory. */
    if (status == QINS_OK) status = qins_session_truncate(session, 0, err);
    start = seconds();
    if (status == QINS_OK) status = qins_session_eval(session, ids, o->prompt, logits, 1, err);
    double again_seconds = seconds() - start;
    r->prefill_tps = (double)o->prompt / again_seconds;
    r->first_token_overhead = r->first_token_seconds - again_seconds;
    size_t n = qins_min_size(o->gen, MAX_TIMES);
    for (size_t i = 0; i < n && status == QINS_OK; i++) {
        if (qins_report(o->progress, o->progress_user, "generating", i, n))
            status = qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
        int32_t id = some_id(o->prompt + i, vocab_size);
        start = seconds();
        if (status == QINS_OK) status = qins_session_eval(session, &id, 1, logits, 1, err);
        times[i] = seconds() - start;
    }
    if (status != QINS_OK) return status;
    qins_sort(times, n);
    r->decode_tps = 1 / times[n / 2];
    return QINS_OK;
}

/* Tokens a second when so many sequences generate in the same pass: the fastest of some. */
static qins_status measure_batch(qins_session *session, qins_bench_batch *b, size_t vocab_size, float *logits,
                                 qins_error *err) {
    qins_batch_token tokens[1 << (QINS_BENCH_BATCHES - 1)];
    double best = INFINITY;
    for (size_t i = 0; i < BATCH_PASSES; i++) {
        for (size_t s = 0; s < b->sequences; s++)
            tokens[s] = (qins_batch_token){
                .sequence = (uint32_t)s, .id = some_id(s + 16 * i, vocab_size), .wants_logits = true};
        double start = seconds();
        qins_status status = qins_session_eval_batch(session, tokens, b->sequences, logits, err);
        if (status != QINS_OK) return status;
        best = fmin(best, seconds() - start);
    }
    b->tps = (double)b->sequences / best;
    return QINS_OK;
}

static qins_status measure_batches(const qins_model *model, size_t vocab_size, qins_bench_result *r, qins_error *err) {
    const size_t most = (size_t)1 << (QINS_BENCH_BATCHES - 1);
    const qins_session_options options = {.n_ctx = BATCH_PASSES * QINS_BENCH_BATCHES, .n_sequences = most};
    qins_session *session = NULL;
    float *logits = qins_alloc(most * vocab_size, sizeof *logits);
    qins_status status = QINS_OK;
    if (logits == NULL)
        status = qins_fail_memory(err, most * vocab_size * sizeof *logits, "logits");
    else
        status = qins_session_new_with(model, &options, &session, err);
    for (size_t i = 0; i < QINS_BENCH_BATCHES && status == QINS_OK; i++) {
        r->batch[i].sequences = (size_t)1 << i;
        status = measure_batch(session, &r->batch[i], vocab_size, logits, err);
    }
    qins_session_free(session);
    free(logits);
    return status;
}

static qins_status measure_model(const char *path, const qins_bench_options *o, qins_bench_result *r, qins_error *err) {
    const qins_model_options options = {.no_check = o->no_check};
    qins_model *model = NULL;
    qins_session *session = NULL;
    qins_model_info info = {0};
    double start = seconds();
    size_t n_ctx = 0;
    if (!qins_add_size(o->prompt, o->gen, &n_ctx)) return qins_fail(err, QINS_ERR_ARGUMENT, "bench: too many tokens");
    qins_status status = qins_model_open(path, &options, &model, err);
    const qins_session_options session_options = {.n_ctx = n_ctx, .key_bits = o->key_bits, .value_bits = o->value_bits};
    if (status == QINS_OK) status = qins_session_new_with(model, &session_options, &session, err);
    r->open_seconds = seconds() - start;
    if (status == QINS_OK) qins_model_get_info(model, &info);
    float *logits = qins_alloc(info.vocab_size, sizeof *logits);
    int32_t *ids = qins_alloc(o->prompt, sizeof *ids);
    double *times = qins_alloc(MAX_TIMES, sizeof *times);
    if (status == QINS_OK && (logits == NULL || ids == NULL || times == NULL))
        status = qins_fail_memory(err, info.vocab_size * sizeof *logits, "logits");
    if (status == QINS_OK) status = measure_session(session, o, info.vocab_size, logits, ids, times, r, err);
    if (status == QINS_OK) {
        r->params = info.n_params;
        /* The median token sees half of the generated ones. */
        double positions = (double)o->prompt + (double)o->gen / 2;
        r->bytes_per_token =
            (double)info.bytes_touched_per_token + (double)qins_session_kv_bytes(session) * positions / (double)n_ctx;
        r->decode_limit_tps = r->read_gbps * 1e9 / r->bytes_per_token;
        r->decode_share = r->read_gbps > 0 ? r->decode_tps / r->decode_limit_tps : 0;
        if (!o->model_only) status = measure_batches(model, info.vocab_size, r, err);
    }
    free(logits);
    free(ids);
    free(times);
    qins_session_free(session);
    qins_model_close(model);
    return status;
}

void qins_bench_defaults(qins_bench_options *options) {
    *options = (qins_bench_options){.prompt = 512, .gen = 64};
}

qins_status qins_bench(const char *model_path, const qins_bench_options *options, qins_bench_result *result,
                       qins_error *err) {
    qins_bench_options o;
    qins_bench_defaults(&o);
    if (options != NULL) o = *options;
    *result = (qins_bench_result){.threads = qins_get_threads()};
    if (o.prompt == 0 || o.gen == 0) return qins_fail(err, QINS_ERR_ARGUMENT, "bench: expected at least one token");
    qins_status status = QINS_OK;
    if (!o.model_only) status = measure_machine(result, err);
    return status == QINS_OK ? measure_model(model_path, &o, result, err) : status;
}
