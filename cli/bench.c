/* qins bench: speed beside this machine's own limits. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "kv_bits.h"
#include "output.h"
#include "progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench_arguments {
    common_options common;
    size_t prompt, gen;
    const char *html;
    bool no_check, quick;
    kv_bits kv;
} bench_arguments;

static int print_bench_json(const qins_bench_result *r, bool quick) {
    json_t *gemv = json_array();
    for (size_t i = 0; i < QINS_BENCH_WIDTHS && !quick; i++) {
        const qins_bench_gemv *g = &r->gemv[i];
        json_array_append_new(gemv, json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "bits", g->bits, "gbps", g->gbps,
                                              "share", g->share, "gbps_one_thread", g->gbps_one, "share_one_thread",
                                              g->share_one, "gmacs_prompt", g->gmacs));
    }
    json_t *batch = json_array();
    for (size_t i = 0; i < QINS_BENCH_BATCHES && !quick; i++)
        json_array_append_new(
            batch, json_pack("{s:I, s:f}", "sequences", (json_int_t)r->batch[i].sequences, "tps", r->batch[i].tps));
    return print_json(json_pack(
        "{s:s, s:i, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "kernels", qins_cpu_level(),
        "threads", r->threads, "read_gbps", quick ? json_null() : json_real(r->read_gbps), "read_gbps_one_thread",
        quick ? json_null() : json_real(r->read_gbps_one), "gemv", gemv, "prefill_tps", r->prefill_tps, "decode_tps",
        r->decode_tps, "open_seconds", r->open_seconds, "first_token_seconds", r->first_token_seconds,
        "first_token_overhead", r->first_token_overhead, "bytes_per_token", r->bytes_per_token, "decode_limit_tps",
        quick ? json_null() : json_real(r->decode_limit_tps), "decode_share",
        quick ? json_null() : json_real(r->decode_share), "amx_gmacs",
        r->amx_gmacs > 0 ? json_real(r->amx_gmacs) : json_null(), "batch", batch));
}

/* A bar of 40 places; the last one is the limit. */
static void print_bar(const char *name, double share, const char *text) {
    enum { PLACES = 40 };
    int filled = (int)(share * PLACES + 0.5);
    printf("  %-12s ", name);
    for (int i = 0; i < PLACES; i++)
        fputs(i < filled ? "█" : "·", stdout);
    printf("| %s\n", text);
}

static int print_bench_text(const qins_bench_result *r, const bench_arguments *a) {
    char name[64], text[128];
    if (!a->quick) {
        if (r->amx_gmacs > 0) printf("AMX multiplies %.0f GMAC/s from registers\n", r->amx_gmacs);
        printf("kernels %s; memory reads at %.1f GB/s with one thread, %.1f with %d\n\n", qins_cpu_level(),
               r->read_gbps_one, r->read_gbps, r->threads);
        printf("share of the limit that memory sets\n");
        for (size_t i = 0; i < QINS_BENCH_WIDTHS; i++) {
            const qins_bench_gemv *g = &r->gemv[i];
            snprintf(name, sizeof name, "%d bits", g->bits);
            snprintf(text, sizeof text, "%5.1f GB/s, %3.0f %% (one thread %5.1f, %3.0f %%); many tokens %4.0f GMAC/s",
                     g->gbps, 100 * g->share, g->gbps_one, 100 * g->share_one, g->gmacs);
            print_bar(name, g->share, text);
        }
        snprintf(text, sizeof text, "%.1f of %.1f tokens/s, %.0f %%", r->decode_tps, r->decode_limit_tps,
                 100 * r->decode_share);
        print_bar("generation", r->decode_share, text);
        printf("\n");
    }
    printf("prompt of %zu tokens  %8.1f tokens/s\n", a->prompt, r->prefill_tps);
    printf("generation           %8.1f tokens/s, %.1f MB read a token\n", r->decode_tps, r->bytes_per_token * 1e-6);
    for (size_t i = 1; i < QINS_BENCH_BATCHES && !a->quick; i++) {
        const qins_bench_batch *b = &r->batch[i];
        printf("%s %2zu sequences %8.1f tokens/s together, %.0f %% of the time a token\n",
               i == 1 ? "generation," : "           ", b->sequences, b->tps, 100 * r->batch[0].tps / b->tps);
    }
    printf("first token after    %8.3f s, of which opening %.3f s; %.3f s more than the prompt takes again\n",
           r->first_token_seconds, r->open_seconds, r->first_token_overhead);
    return EXIT_DONE;
}

static qins_status write_page(const qins_bench_result *r, const char *model, const char *path, qins_error *err) {
    char *html = NULL;
    size_t n = 0;
    qins_status status = qins_bench_page(r, model, &html, &n, err);
    if (status != QINS_OK) return status;
    FILE *f = fopen(path, "wb");
    bool good = f != NULL && fwrite(html, 1, n, f) == n;
    if (f != NULL) good = fclose(f) == 0 && good;
    qins_free(html);
    if (good) return QINS_OK;
    err->code = QINS_ERR_IO;
    snprintf(err->message, sizeof err->message, "%.700s: %s", path, strerror(errno));
    return err->code;
}

int command_bench(int argc, char **argv) {
    qins_bench_options defaults;
    qins_bench_defaults(&defaults);
    bench_arguments a = {.prompt = defaults.prompt, .gen = defaults.gen};
    const option options[] = {
        {.name = "prompt",
         .kind = OPTION_SIZE,
         .value = &a.prompt,
         .value_name = "N",
         .min = 1,
         .help = "tokens of the prompt (default 512)"},
        {.name = "gen",
         .letter = 'n',
         .kind = OPTION_SIZE,
         .value = &a.gen,
         .value_name = "N",
         .min = 1,
         .help = "tokens to generate (default 64)"},
        KV_BITS_OPTION(a.kv, ""),
        {.name = "html", .kind = OPTION_TEXT, .value = &a.html, .value_name = "F", .help = "write a page with charts"},
        {.name = "quick",
         .kind = OPTION_FLAG,
         .value = &a.quick,
         .help = "measure the model only, not the machine: no shares, no page"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", NULL};
    const command_syntax syntax = {
        "bench", names,
        "Measures how fast this machine reads memory, how fast matrices of every width are multiplied, and how fast "
        "MODEL "
        "reads a prompt and generates, beside the limit that reading its weights sets.",
        options, "Needs 270 MB besides the model. Other work on the machine spoils the figures."};
    const char *path[1];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, path);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    if (a.quick && a.html != NULL) return usage_error("'qins bench' draws no page with --quick");
    qins_set_threads(a.common.threads);
    qins_error err = {0};
    qins_bench_result result;
    progress_bar bar;
    progress_start(&bar);
    catch_interrupts();
    const qins_bench_options o = {.prompt = a.prompt,
                                  .gen = a.gen,
                                  .key_bits = a.kv.keys,
                                  .value_bits = a.kv.values,
                                  .model_only = a.quick,
                                  .no_check = a.no_check,
                                  .progress = progress_update,
                                  .progress_user = &bar};
    qins_status status = qins_bench(path[0], &o, &result, &err);
    progress_end(&bar);
    if (status == QINS_ERR_CANCELLED) return report_failure_text(&a.common, status, "interrupted");
    if (status == QINS_OK && a.html != NULL) status = write_page(&result, path[0], a.html, &err);
    if (status != QINS_OK) return report_failure(&a.common, &err);
    return a.common.json ? print_bench_json(&result, a.quick) : print_bench_text(&result, &a);
}
