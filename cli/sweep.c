/* qins sweep: rate against fidelity for codecs and widths, as a page with charts. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "output.h"
#include "progress.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One way to use a codec. */
typedef struct codec_row {
    const char *name;   /* for --codecs */
    const char *series; /* in charts and tables */
    qins_encode_options encode;
    int bits; /* 0: every width asked for */
    enum { ALWAYS, CALIBRATED, NOT_CALIBRATED } when;
    bool entropy_coded; /* to what the width takes in a file */
} codec_row;

#define PACKED(name) .codec = QINS_CODEC_##name, .rotate = QINS_AUTO, .scale = QINS_SCALE_AUTO

/* Of rows with one name all are swept. The embedding stays as it is, so that the rate is that of what is compared. */
static const codec_row codec_rows[] = {
    {"gauss", "gauss", {PACKED(GAUSS)}, 0, ALWAYS, false},
    {"gauss", "gauss, calibrated", {PACKED(GAUSS)}, 0, CALIBRATED, false},
    {"trellis", "trellis", {PACKED(TRELLIS)}, 0, ALWAYS, false},
    {"trellis", "trellis, calibrated", {PACKED(TRELLIS)}, 0, CALIBRATED, false},
    {"uniform", "uniform", {PACKED(UNIFORM)}, 0, ALWAYS, false},
    {"rational", "rational", {PACKED(RATIONAL)}, 0, ALWAYS, false},
    {"log", "log", {PACKED(LOG)}, 0, ALWAYS, false},
    {"original",
     "rational, original: alpha = 1",
     {.codec = QINS_CODEC_RATIONAL, .rotate = QINS_OFF, .scale = QINS_SCALE_TENSOR, .alpha = 1},
     8,
     ALWAYS,
     false},
    {"original",
     "log, original: 2 bytes",
     {.codec = QINS_CODEC_LOG, .storage = QINS_STORAGE_SEED, .rotate = QINS_AUTO, .scale = QINS_SCALE_AUTO},
     8,
     ALWAYS,
     false},
    {"entropy", "entropy-coded", {PACKED(UNIFORM_TRELLIS)}, 0, NOT_CALIBRATED, true},
    {"entropy", "entropy-coded, calibrated", {PACKED(UNIFORM_TRELLIS)}, 0, CALIBRATED, true},
    {"sparse", "half zeros", {PACKED(UNIFORM), .sparsity = 0.5}, 0, NOT_CALIBRATED, true},
    {"sparse", "half zeros, by loss", {PACKED(UNIFORM), .sparsity = 0.5}, 0, CALIBRATED, true},
    {"sparse",
     "half zeros, by magnitude",
     {PACKED(UNIFORM), .sparsity = 0.5, .prune_by_magnitude = true},
     0,
     CALIBRATED,
     true},
    {"sparse", "a fifth zeros, by loss", {PACKED(UNIFORM), .sparsity = 0.2}, 0, CALIBRATED, true},
    {"sparse", "2:4 zeros, by loss", {PACKED(UNIFORM), .sparsity = 0.5, .sparse_group = 4}, 0, CALIBRATED, true},
};
static const char *const codec_names[] = {"gauss",    "trellis", "uniform", "rational", "log",
                                          "original", "entropy", "sparse",  NULL};
enum { N_ROWS = sizeof codec_rows / sizeof *codec_rows, MIN_BITS = 3, MAX_BITS = 8, MAX_POINTS = N_ROWS * MAX_BITS };
/* What scales add to a fixed width, about; and the widest that is entropy-coded. */
static const double SCALE_BITS = 0.05;
enum { MAX_FILE_BITS = 6, MAX_TRELLIS_BITS = 6 };

typedef struct sweep_arguments {
    common_options common;
    const char *out, *text, *calibrate;
    unsigned codecs; /* bit i: codec_names[i] */
    unsigned bits;   /* bit b: width b */
    size_t ctx, max_tokens;
    bool no_check;
} sweep_arguments;

/* "a,b,c" into a set of bits, one a word; false when a word has none. */
static bool parse_list(const char *text, int (*bit_of)(const char *word), unsigned *set) {
    char word[32];
    *set = 0;
    for (;;) {
        size_t n = strcspn(text, ",");
        if (n == 0 || n >= sizeof word) return false;
        memcpy(word, text, n);
        word[n] = '\0';
        int bit = bit_of(word);
        if (bit < 0) return false;
        *set |= 1u << bit;
        if (text[n] == '\0') return true;
        text += n + 1;
    }
}

static int codec_bit(const char *word) {
    for (int i = 0; codec_names[i] != NULL; i++)
        if (strcmp(codec_names[i], word) == 0) return i;
    return -1;
}

static int width_bit(const char *word) {
    uint64_t bits;
    return parse_u64(word, &bits) && bits >= MIN_BITS && bits <= MAX_BITS ? (int)bits : -1;
}

static bool parse_codecs(const char *text, void *value) {
    return parse_list(text, codec_bit, value);
}

static bool parse_widths(const char *text, void *value) {
    return parse_list(text, width_bit, value);
}

static size_t make_requests(const sweep_arguments *a, qins_sweep_request *requests) {
    size_t n = 0;
    for (int row = 0; row < N_ROWS; row++) {
        if ((a->codecs >> codec_bit(codec_rows[row].name) & 1) == 0) continue;
        if (codec_rows[row].when == (a->calibrate == NULL ? CALIBRATED : NOT_CALIBRATED)) continue;
        for (int bits = MIN_BITS; bits <= MAX_BITS; bits++) {
            int fixed = codec_rows[row].bits;
            if (fixed != 0 ? bits != fixed : (a->bits >> bits & 1) == 0) continue;
            if (codec_rows[row].entropy_coded && bits > MAX_FILE_BITS) continue;
            if (codec_rows[row].encode.codec == QINS_CODEC_TRELLIS && bits > MAX_TRELLIS_BITS) continue; /* is gauss */
            qins_sweep_request *r = &requests[n++];
            r->series = codec_rows[row].series;
            qins_compress_defaults(&r->compress);
            uint64_t seed = r->compress.linear.rotation_seed;
            r->compress.linear = codec_rows[row].encode;
            r->compress.linear.rotation_seed = seed;
            r->compress.linear.bits = bits;
            r->compress.embed_bits = 0;
            r->compress.calibrate = codec_rows[row].when == CALIBRATED ? a->calibrate : NULL;
            r->compress.file_bpw = codec_rows[row].entropy_coded ? bits + SCALE_BITS : 0;
        }
    }
    return n;
}

static json_t *point_object(const qins_sweep_point *p) {
    return json_pack("{s:o, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "series",
                     json_text(p->series, strlen(p->series)), "codec", p->codec, "bits", p->bits, "bpw",
                     json_number(p->bpw), "file_bpw", json_number(p->file_bpw), "rel_mse", json_number(p->rel_mse),
                     "gap_bits", json_number(p->gap_bits), "kl_mean", json_number(p->kl_mean), "kl_p99",
                     json_number(p->kl_p99), "top1", json_number(p->top1), "top10_overlap",
                     json_number(p->top10_overlap), "ppl", json_number(p->ppl), "ppl_delta_pct",
                     json_number(p->ppl_delta_pct), "codes_used", json_number(p->codes_used), "code_entropy",
                     json_number(p->code_entropy));
}

static int print_sweep(const sweep_arguments *a, const qins_sweep *sweep) {
    const qins_sweep_info *info = qins_sweep_get_info(sweep);
    if (a->common.json) {
        json_t *points = json_array();
        for (size_t i = 0; i < info->n_points; i++)
            json_array_append_new(points, point_object(qins_sweep_get(sweep, i)));
        return print_json(json_pack("{s:o, s:I, s:o, s:o}", "out", json_text(a->out, strlen(a->out)), "tokens",
                                    (json_int_t)info->n_tokens, "ppl_ref", json_number(info->ppl_ref), "points",
                                    points));
    }
    printf("%-30s %4s %7s %7s %9s %6s %11s %7s\n", "codec", "bits", "bpw", "in file", "rel. MSE", "gap", "KL", "top-1");
    for (size_t i = 0; i < info->n_points; i++) {
        const qins_sweep_point *p = qins_sweep_get(sweep, i);
        printf("%-30s %4d %7.3f %7.3f %9.2e %6.3f %11.5g %5.1f %%\n", p->series, p->bits, p->bpw, p->file_bpw,
               p->rel_mse, p->gap_bits, p->kl_mean, 100 * p->top1);
    }
    printf("wrote %s\n", a->out);
    return EXIT_DONE;
}

/* Last part of a path, without slashes at its end. */
static void base_name(const char *path, char *name, size_t n) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(name, n, "%.*s", (int)(end - start), path + start);
}

static qins_status write_report(const sweep_arguments *a, const char *ref, const qins_sweep *sweep, qins_error *err) {
    const qins_sweep_info *info = qins_sweep_get_info(sweep);
    char name[256], title[320], about[640], text_name[256] = "a built-in text";
    base_name(ref, name, sizeof name);
    if (a->text != NULL) base_name(a->text, text_name, sizeof text_name);
    snprintf(title, sizeof title, "Rate against fidelity: %s", name);
    snprintf(about, sizeof about,
             "Every point is a copy of %s whose linears were compressed; embedding and head stay as they are. "
             "Scored on %s tokens of %s in windows of %zu: perplexity of the original %.4f. qins %s.",
             name, format_count(info->n_tokens).text, text_name, a->ctx, info->ppl_ref, qins_version());
    return qins_sweep_write_html(sweep, a->out, title, about, err);
}

/* A mistake in a path is found before the work, not after it. */
static int check_paths(const sweep_arguments *a) {
    struct stat st;
    char dir[PATH_MAX];
    const char *slash = strrchr(a->out, '/');
    if (slash == NULL)
        snprintf(dir, sizeof dir, ".");
    else
        snprintf(dir, sizeof dir, "%.*s", (int)(slash == a->out ? 1 : slash - a->out), a->out);
    if (stat(a->out, &st) == 0 && S_ISDIR(st.st_mode))
        return report_failure_text(&a->common, QINS_ERR_ARGUMENT,
                                   "%s is a directory: --out names the file of the report", a->out);
    if (access(dir, W_OK | X_OK) != 0)
        return report_failure_text(&a->common, QINS_ERR_IO,
                                   "cannot write in %s: --out names a file in an existing folder", dir);
    if (a->calibrate != NULL && access(a->calibrate, R_OK) != 0)
        return report_failure_text(&a->common, QINS_ERR_IO, "%s: cannot be read; --calibrate names a text file",
                                   a->calibrate);
    return EXIT_DONE;
}

static int sweep_model(const sweep_arguments *a, const char *ref) {
    qins_sweep_request requests[MAX_POINTS];
    char work[PATH_MAX + 32], *text = NULL;
    size_t text_bytes = 0;
    qins_error err = {0};
    qins_sweep *sweep = NULL;
    progress_bar bar;
    int exit_status = check_paths(a);
    if (exit_status != EXIT_DONE) return exit_status;
    snprintf(work, sizeof work, "%s.sweep-%ld", a->out, (long)getpid());
    qins_status status = a->text != NULL ? read_input(a->text, &text, &text_bytes, &err) : QINS_OK;
    progress_start(&bar);
    catch_interrupts();
    if (status == QINS_OK) {
        const qins_sweep_options options = {.requests = requests,
                                            .n_requests = make_requests(a, requests),
                                            .work_path = work,
                                            .text = text,
                                            .text_bytes = text_bytes,
                                            .ctx = a->ctx,
                                            .max_tokens = a->max_tokens,
                                            .no_check = a->no_check,
                                            .progress = progress_update,
                                            .progress_user = &bar};
        status = qins_sweep_run(ref, &options, &sweep, &err);
    }
    progress_end(&bar);
    if (status == QINS_OK) status = write_report(a, ref, sweep, &err);
    if (status == QINS_OK)
        exit_status = print_sweep(a, sweep);
    else if (status == QINS_ERR_CANCELLED)
        exit_status = report_failure_text(&a->common, status, "interrupted: no report was written");
    else
        exit_status = report_failure(&a->common, &err);
    qins_sweep_free(sweep);
    free(text);
    return exit_status;
}

int command_sweep(int argc, char **argv) {
    sweep_arguments a = {.codecs = ~0u, .bits = ~0u, .ctx = 512, .max_tokens = 4096};
    const option options[] = {
        {.name = "out",
         .letter = 'o',
         .kind = OPTION_TEXT,
         .value = &a.out,
         .value_name = "FILE",
         .help = "the report, an HTML page; an existing file is replaced"},
        {.name = "codecs",
         .kind = OPTION_PARSED,
         .value = &a.codecs,
         .value_name = "LIST",
         .choices = codec_names,
         .parse = parse_codecs,
         .expects = "some of gauss,trellis,uniform,rational,log,original,entropy,sparse",
         .help = "codecs to try, with commas; 'original' are the two as first published, 'entropy' and 'sparse' "
                 "uniform codes for an entropy coder that take as much in the file as a width, up to 6 (default: all)"},
        {.name = "bits",
         .kind = OPTION_PARSED,
         .value = &a.bits,
         .value_name = "LIST",
         .parse = parse_widths,
         .expects = "widths from 3 to 8 with commas, such as 3,4,6",
         .help = "widths to try (default: 3,4,5,6,7,8)"},
        {.name = "text",
         .kind = OPTION_TEXT,
         .value = &a.text,
         .value_name = "FILE",
         .help = "text to score on (default: a built-in one, about 24 kB of fairy tales)"},
        {.name = "calibrate",
         .kind = OPTION_TEXT,
         .value = &a.calibrate,
         .value_name = "FILE",
         .help = "also try gauss with feedback rounding, calibrated on this text; entropy and sparse use it"},
        {.name = "ctx",
         .letter = 'c',
         .kind = OPTION_SIZE,
         .value = &a.ctx,
         .value_name = "N",
         .min = 2,
         .help = "tokens a window; each begins with an empty context (default 512)"},
        {.name = "max-tokens",
         .kind = OPTION_SIZE,
         .value = &a.max_tokens,
         .value_name = "N",
         .help = "score the first N tokens only, 0 for all (default 4096)"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums of REF"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"REF", NULL};
    const command_syntax syntax = {"sweep", names,
                                   "Compresses REF with each codec at each width, one after the other beside the "
                                   "report, scores every copy against REF and writes a page with charts, error maps, "
                                   "histograms of the codes and a table.",
                                   options, NULL};
    const char *paths[1];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, paths);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    if (a.out == NULL) return usage_error("sweep needs --out FILE: where the report goes");
    qins_set_threads(a.common.threads);
    return sweep_model(&a, paths[0]);
}
