/* qins verify: fidelity of a model against a reference. SPDX-License-Identifier: MIT */
#include "verify.h"
#include "commands.h"
#include "kv_bits.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_NOT_GIVEN SIZE_MAX
enum { REPORT_LAYER_TOKENS = 256 };

typedef struct verify_arguments {
    common_options common;
    const char *text, *prompts, *html;
    size_t ctx, stride, max_tokens, gen, layers;
    requirement_list require;
    bool no_check, against_float, receipt, no_receipt, no_sampling;
    kv_bits kv;
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

/* Into the receipt of a model that can carry one. Failing at that is worth a word, not the result. */
static bool record(const verify_arguments *a, const qins_model *reference, const qins_model *model,
                   const qins_verify_options *options, const qins_verify_result *result) {
    qins_error err = {0};
    bool recorded = false;
    if (a->no_receipt) return false;
    if (qins_receipt_record(reference, model, options, result, &recorded, &err) != QINS_OK)
        fprintf(stderr, "qins: nothing was added to the receipt: %s\n", err.message);
    return recorded;
}

static int print_result(const verify_arguments *a, const qins_verify_result *result, bool recorded) {
    if (!a->common.json) {
        print_verification(result);
        if (recorded) printf("added to the model's receipt\n");
        return EXIT_DONE;
    }
    json_t *object = verification_object(result);
    if (object != NULL) {
        json_object_set_new(object, "receipt_updated", json_boolean(recorded));
        if (a->require.n > 0) json_object_set_new(object, "require", requirements_object(&a->require));
    }
    return print_json(object);
}

static int verify_models(verify_arguments *a, const qins_model *reference, const qins_model *model, const char *text,
                         size_t text_bytes, const line_list *prompts, const char *const names[2]) {
    progress_bar bar;
    qins_error err = {0};
    qins_verify_result result = {0};
    progress_start(&bar);
    catch_interrupts();
    const qins_verify_options options = {.text = text,
                                         .text_bytes = text_bytes,
                                         .ctx = a->ctx,
                                         .stride = a->stride,
                                         .max_tokens = a->max_tokens,
                                         .prompts = prompts->lines,
                                         .n_prompts = prompts->n,
                                         .gen = a->gen,
                                         .no_strategies = a->no_sampling,
                                         .layer_tokens = a->layers,
                                         .key_bits = a->kv.keys,
                                         .value_bits = a->kv.values,
                                         .progress = progress_update,
                                         .progress_user = &bar};
    qins_status status = qins_verify(reference, model, &options, &result, &err);
    progress_end(&bar);
    if (status == QINS_ERR_CANCELLED) return report_failure_text(&a->common, status, "interrupted");
    if (status != QINS_OK) return report_failure(&a->common, &err);
    if (a->html != NULL && qins_verify_write_html(&result, names[0], names[1], a->html, &err) != QINS_OK) {
        qins_verify_result_free(&result);
        return report_failure(&a->common, &err);
    }
    bool met = judge(&a->require, &result);
    int exit_status = print_result(a, &result, record(a, reference, model, &options, &result));
    if (!met) {
        print_shortfalls(&a->require);
        exit_status = EXIT_FAILED;
    }
    qins_verify_result_free(&result);
    return exit_status;
}

static int verify_paths(verify_arguments *a, const char *reference_path, const char *model_path) {
    qins_model *reference = NULL, *model = NULL;
    line_list prompts = {0};
    char *text = NULL;
    size_t text_bytes = 0;
    qins_error err = {0};
    int exit_status = EXIT_FAILED;
    qins_status status = a->text != NULL ? read_input(a->text, &text, &text_bytes, &err) : QINS_OK;
    if (status == QINS_OK && a->prompts != NULL) status = read_lines(a->prompts, &prompts, &err);
    if (status == QINS_OK && a->receipt) {
        exit_status = check_receipt(
            &(receipt_arguments){&a->common, model_path, reference_path, text, text_bytes, prompts.lines, prompts.n});
    } else {
        if (status == QINS_OK)
            status =
                (a->against_float ? open_model_in_float : open_model)(reference_path, a->no_check, &reference, &err);
        if (status == QINS_OK) status = open_model(model_path, a->no_check, &model, &err);
        if (status == QINS_OK)
            exit_status = verify_models(a, reference, model, text, text_bytes, &prompts,
                                        (const char *const[]){reference_path, model_path});
        else
            report_failure(&a->common, &err);
    }
    qins_model_close(model);
    qins_model_close(reference);
    free_lines(&prompts);
    free(text);
    return exit_status;
}

int command_verify(int argc, char **argv) {
    verify_arguments a = {.ctx = 512, .gen = 32, .layers = LAYERS_NOT_GIVEN};
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
        {.name = "stride",
         .kind = OPTION_SIZE,
         .value = &a.stride,
         .value_name = "N",
         .help = "begin a window every N tokens and score only what is new in it (default 0: --ctx, no overlap)"},
        {.name = "max-tokens",
         .kind = OPTION_SIZE,
         .value = &a.max_tokens,
         .value_name = "N",
         .help = "score the first N tokens only (default 0: all)"},
        {.name = "prompts",
         .kind = OPTION_TEXT,
         .value = &a.prompts,
         .value_name = "FILE",
         .help = "prompts for greedy generation, one a line (default: 32 built-in ones of 8 kinds)"},
        {.name = "gen",
         .kind = OPTION_SIZE,
         .value = &a.gen,
         .value_name = "N",
         .help = "tokens to generate for each prompt; 0 leaves it out (default 32)"},
        {.name = "no-sampling",
         .kind = OPTION_FLAG,
         .value = &a.no_sampling,
         .help = "leave the sampling strategies out"},
        {.name = "layers",
         .kind = OPTION_SIZE,
         .value = &a.layers,
         .value_name = "N",
         .help = "also measure every layer by itself, on the first N tokens (default 0: not)"},
        {.name = "html",
         .kind = OPTION_TEXT,
         .value = &a.html,
         .value_name = "F",
         .help = "also write a report with charts; measures the layers on 256 tokens unless --layers says otherwise"},
        {.name = "require",
         .kind = OPTION_PARSED,
         .value = &a.require,
         .value_name = "LIST",
         .parse = parse_requirements,
         .expects = requirements_expected,
         .help = "exit with status 1 unless all hold: kl=0.01,top1=0.97 (kl, kl_high, kl_p99, kl_p999, ppl at most; "
                 "top1, top10, greedy, forced, identical at least)"},
        {.name = "receipt",
         .kind = OPTION_FLAG,
         .value = &a.receipt,
         .help = "qins verify --receipt MODEL [SOURCE]: check MODEL's receipt line by line instead"},
        {.name = "no-receipt",
         .kind = OPTION_FLAG,
         .value = &a.no_receipt,
         .help = "do not add the result to the receipt of MODEL (a qins directory that can be written to)"},
        KV_BITS_OPTION(a.kv, " of MODEL; REF always has 16"),
        {.name = "against-float",
         .kind = OPTION_FLAG,
         .value = &a.against_float,
         .help = "REF multiplies in FP32: with MODEL as REF too, what the arithmetic alone costs"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"REF", "[MODEL]", NULL};
    const command_syntax syntax = {
        "verify", names,
        "Runs both models on the same text and compares what they predict: Kullback-Leibler "
        "divergence of MODEL from REF over the whole vocabulary, agreement of the best tokens, "
        "perplexity, sampling with equal draws, and greedy generation token by token. Each of them may be any model: a "
        "GGUF against the checkpoint that it was made from is measured as well as a qins directory.",
        options, NULL};
    const char *paths[2];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, paths);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    if (a.layers == LAYERS_NOT_GIVEN) a.layers = a.html != NULL ? REPORT_LAYER_TOKENS : 0;
    if (!a.receipt && paths[1] == NULL)
        return usage_error("'qins verify' needs MODEL after REF (see 'qins verify --help')");
    if (a.stride > a.ctx)
        return usage_error("option '--stride %zu' would leave tokens between windows of %zu out", a.stride, a.ctx);
    qins_set_threads(a.common.threads);
    return a.receipt ? verify_paths(&a, paths[1], paths[0]) : verify_paths(&a, paths[0], paths[1]);
}
