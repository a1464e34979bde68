/* Speed of generation at a given position, by bits of the KV cache. SPDX-License-Identifier: MIT
 *
 *     bench_kv_speed MODEL [POSITION [ROUNDS]]
 *
 * The cache is filled with random rows instead of evaluating a text, which would take long and change nothing: then
 * single tokens are evaluated at the position, the widths in turn (A B C A B C ...), and the medians are printed.
 */
#include "measure/stats.h"
#include "model/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_ROUNDS = 101, N_WIDTHS = 4 };
static const int widths[N_WIDTHS] = {16, 8, 6, 4};

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float noise(uint64_t *state) {
    float sum = -2;
    for (int i = 0; i < 4; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) * 0x1p-24f;
    }
    return sum * 1.7f;
}

static void fill(qins_session *s, size_t n) {
    const qins_kv_format *f = &s->cache.format;
    int32_t *ids = calloc(n, sizeof *ids);
    float row[QINS_KV_MAX_DIMS] = {0}, *scratch = calloc(QINS_KV_PAGE * f->dims, sizeof *scratch);
    uint64_t state = 1;
    if (ids == NULL || scratch == NULL || qins_kv_reserve(&s->cache, 0, n, NULL) != QINS_OK) exit(1);
    qins_kv_append(&s->cache, 0, ids, n);
    for (size_t l = 0; l < s->cache.n_layers; l++)
        for (size_t h = 0; h < s->cache.n_heads; h++)
            for (size_t i = 0; i < n; i++) {
                for (size_t d = 0; d < f->head_dim; d++)
                    row[d] = noise(&state);
                qins_kv_store_key(f, qins_kv_head(&s->cache, 0, l, h), i, row, scratch);
                qins_kv_store_value(f, qins_kv_head(&s->cache, 0, l, h), i, row);
            }
    free(ids);
    free(scratch);
}

int main(int argc, char **argv) {
    qins_model *model = NULL;
    qins_error err = {0};
    qins_session *sessions[N_WIDTHS];
    static double times[N_WIDTHS][MAX_ROUNDS], cpu[N_WIDTHS][MAX_ROUNDS];
    size_t position = argc > 2 ? strtoul(argv[2], NULL, 10) : 8000, rounds = argc > 3 ? strtoul(argv[3], NULL, 10) : 11;
    if (argc < 2 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_kv_speed MODEL [POSITION [ROUNDS]]\n");
        return 2;
    }
    if (qins_model_open(argv[1], NULL, &model, &err) != QINS_OK) goto failed;
    for (int w = 0; w < N_WIDTHS; w++) {
        const qins_session_options options = {.n_ctx = position + 1, .key_bits = widths[w], .value_bits = widths[w]};
        if (qins_session_new_with(model, &options, &sessions[w], &err) != QINS_OK) goto failed;
        fill(sessions[w], position);
    }
    qins_model_info info;
    qins_model_get_info(model, &info);
    printf("%s, %d threads, %zu layers, %zu heads on %zu kv heads of %zu, position %zu, weights %.1f MiB a token\n",
           qins_cpu_level(), qins_get_threads(), info.n_layers, info.n_heads, info.n_kv_heads, info.head_dim, position,
           (double)info.bytes_touched_per_token / 1048576);
    float *logits = calloc(info.vocab_size, sizeof *logits);
    for (size_t r = 0; r < rounds; r++)
        for (int w = 0; w < N_WIDTHS; w++) {
            const int32_t id = 1;
            double start = seconds(CLOCK_MONOTONIC), cpu_start = seconds(CLOCK_PROCESS_CPUTIME_ID);
            if (logits == NULL || qins_session_eval(sessions[w], &id, 1, logits, 1, &err) != QINS_OK) goto failed;
            times[w][r] = seconds(CLOCK_MONOTONIC) - start;
            cpu[w][r] = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start;
            qins_session_truncate(sessions[w], position, &err);
        }
    free(logits);
    double first = 0, first_cpu = 0;
    for (int w = 0; w < N_WIDTHS; w++) {
        qins_sort(times[w], rounds);
        qins_sort(cpu[w], rounds);
        double median = times[w][rounds / 2], median_cpu = cpu[w][rounds / 2];
        if (w == 0) {
            first = median;
            first_cpu = median_cpu;
        }
        printf("%2d:%-2d  cache %7.1f MiB  %7.2f ms a token  %.2f x F16; CPU time %7.2f ms, %.2f x\n", widths[w],
               widths[w], (double)qins_session_kv_bytes(sessions[w]) / 1048576, 1e3 * median, first / median,
               1e3 * median_cpu, first_cpu / median_cpu);
        qins_session_free(sessions[w]);
    }
    qins_model_close(model);
    return 0;
failed:
    fprintf(stderr, "bench_kv_speed: %s\n", err.message);
    return 1;
}
