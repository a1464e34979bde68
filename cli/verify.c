/* qins verify: fidelity of a model against a reference. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "output.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct verify_arguments {
    common_options common;
    const char *text, *prompts;
    size_t ctx, max_tokens, gen;
    bool no_check;
} verify_arguments;

/* Non-empty lines of a file; they point into `text`, which is cut up in place. */
typedef struct line_list {
    char *text;
    const char **lines;
    size_t n;
} line_list;

static void free_lines(line_list *list) {
    free(list->text);
    free(list->lines);
}

static qins_status read_lines(const char *path, line_list *list, qins_error *err) {
    size_t n_bytes = 0, n_breaks = 1;
    if (read_input(path, &list->text, &n_bytes, err) != QINS_OK) return err->code;
    for (size_t i = 0; i < n_bytes; i++)
        n_breaks += list->text[i] == '\n';
    list->lines = calloc(n_breaks, sizeof *list->lines);
    if (list->lines == NULL) {
        err->code = QINS_ERR_MEMORY;
        snprintf(err->message, sizeof err->message, "%.700s: out of memory", path);
        return err->code;
    }
    for (char *rest = NULL, *line = strtok_r(list->text, "\r\n", &rest); line != NULL;
         line = strtok_r(NULL, "\r\n", &rest))
        list->lines[list->n++] = line;
    if (list->n > 0) return QINS_OK;
    err->code = QINS_ERR_ARGUMENT;
    snprintf(err->message, sizeof err->message, "%.700s: no prompts in it; they go one a line", path);
    return err->code;
}

static json_t *greedy_object(const qins_verify_result *r) {
    json_t *prompts = json_array();
    for (size_t i = 0; i < r->n_greedy; i++) {
        const qins_greedy_result *g = &r->greedy[i];
        bool diverged = g->first_divergence < g->of;
        json_array_append_new(prompts, json_pack("{s:I, s:I, s:o, s:o, s:o, s:o}", "matched", (json_int_t)g->matched,
                                                 "of", (json_int_t)g->of, "first_divergence",
                                                 diverged ? json_integer((json_int_t)g->first_divergence) : json_null(),
                                                 "ref_token", diverged ? json_integer(g->ref_token) : json_null(),
                                                 "token", diverged ? json_integer(g->token) : json_null(), "ref_margin",
                                                 diverged ? json_number(g->ref_margin) : json_null()));
    }
    return json_pack("{s:I, s:I, s:o}", "matched", (json_int_t)r->greedy_matched, "of", (json_int_t)r->greedy_of,
                     "prompts", prompts);
}

static int print_verify_json(const qins_verify_result *r) {
    return print_json(json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "tokens", (json_int_t)r->n_tokens,
                                "kl_mean", json_number(r->kl_mean), "kl_p99", json_number(r->kl_p99), "top1",
                                json_number(r->top1), "top10_overlap", json_number(r->top10_overlap), "ppl_ref",
                                json_number(r->ppl_ref), "ppl", json_number(r->ppl), "ppl_delta_pct",
                                json_number(r->ppl_delta_pct), "max_abs_logit_diff", json_number(r->max_abs_logit_diff),
                                "greedy", greedy_object(r)));
}

static int print_verify_text(const qins_verify_result *r) {
    printf("scored on %s tokens\n", format_count(r->n_tokens).text);
    printf("  KL divergence   %.6g nats a token, 99th percentile %.6g\n", r->kl_mean, r->kl_p99);
    printf("  same best token %.3f %%, top ten shared %.3f %%\n", 100 * r->top1, 100 * r->top10_overlap);
    printf("  perplexity      %.4f -> %.4f (%+.3f %%)\n", r->ppl_ref, r->ppl, r->ppl_delta_pct);
    printf("  largest logit difference %.4g\n", r->max_abs_logit_diff);
    if (r->n_greedy == 0) return EXIT_DONE;
    printf("greedy generation: %s of %s tokens as the reference's, up to the first that differs\n",
           format_count(r->greedy_matched).text, format_count(r->greedy_of).text);
    for (size_t i = 0; i < r->n_greedy; i++) {
        const qins_greedy_result *g = &r->greedy[i];
        printf("  prompt %-3zu %5zu of %zu", i + 1, g->matched, g->of);
        if (g->first_divergence < g->of)
            printf(", then token %d instead of %d; the reference preferred its own by %.4g", g->token, g->ref_token,
                   g->ref_margin);
        printf("\n");
    }
    return EXIT_DONE;
}

static int verify_models(const verify_arguments *a, const qins_model *reference, const qins_model *model,
                         const char *text, size_t text_bytes, const line_list *prompts) {
    progress_bar bar;
    qins_error err = {0};
    qins_verify_result result = {0};
    progress_start(&bar);
    catch_interrupts();
    const qins_verify_options options = {.text = text,
                                         .text_bytes = text_bytes,
                                         .ctx = a->ctx,
                                         .max_tokens = a->max_tokens,
                                         .prompts = prompts->lines,
                                         .n_prompts = prompts->n,
                                         .gen = a->gen,
                                         .progress = progress_update,
                                         .progress_user = &bar};
    qins_status status = qins_verify(reference, model, &options, &result, &err);
    progress_end(&bar);
    if (status == QINS_ERR_CANCELLED) return report_failure_text(&a->common, status, "interrupted");
    if (status != QINS_OK) return report_failure(&a->common, &err);
    int exit_status = a->common.json ? print_verify_json(&result) : print_verify_text(&result);
    qins_verify_result_free(&result);
    return exit_status;
}

static int verify_paths(const verify_arguments *a, const char *reference_path, const char *model_path) {
    const qins_model_options model_options = {.no_check = a->no_check};
    qins_model *reference = NULL, *model = NULL;
    line_list prompts = {0};
    char *text = NULL;
    size_t text_bytes = 0;
    qins_error err = {0};
    int exit_status = EXIT_FAILED;
    qins_status status = a->text != NULL ? read_input(a->text, &text, &text_bytes, &err) : QINS_OK;
    if (status == QINS_OK && a->prompts != NULL) status = read_lines(a->prompts, &prompts, &err);
    if (status == QINS_OK) status = qins_model_open(reference_path, &model_options, &reference, &err);
    if (status == QINS_OK) status = qins_model_open(model_path, &model_options, &model, &err);
    if (status == QINS_OK)
        exit_status = verify_models(a, reference, model, text, text_bytes, &prompts);
    else
        report_failure(&a->common, &err);
    qins_model_close(model);
    qins_model_close(reference);
    free_lines(&prompts);
    free(text);
    return exit_status;
}

int command_verify(int argc, char **argv) {
    verify_arguments a = {.ctx = 512, .gen = 32};
    const option options[] = {
        {.name = "text",
         .kind = OPTION_TEXT,
         .value = &a.text,
         .value_name = "FILE",
         .help = "text to score on (default: a built-in one, about 24 kB of fairy tales)"},
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
         .help = "score the first N tokens only (default 0: all)"},
        {.name = "prompts",
         .kind = OPTION_TEXT,
         .value = &a.prompts,
         .value_name = "FILE",
         .help = "prompts for greedy generation, one a line (default: 20 built-in ones)"},
        {.name = "gen",
         .kind = OPTION_SIZE,
         .value = &a.gen,
         .value_name = "N",
         .help = "tokens to generate for each prompt; 0 leaves it out (default 32)"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"REF", "MODEL", NULL};
    const command_syntax syntax = {
        "verify", names,
        "Runs both models on the same text and compares what they predict: Kullback-Leibler "
        "divergence of MODEL from REF over the whole vocabulary, agreement of the best tokens, "
        "perplexity, and greedy generation token by token.",
        options, NULL};
    const char *paths[2];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, paths);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    qins_set_threads(a.common.threads);
    return verify_paths(&a, paths[0], paths[1]);
}
