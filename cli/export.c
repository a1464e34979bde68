/* qins export. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "output.h"
#include "progress.h"

#include <stdio.h>
#include <string.h>

static const char *const dtype_names[] = {"auto", "f32", "f16", "bf16", "q8_0", NULL};
static const qins_dtype dtype_values[] = {QINS_DTYPE_AUTO, QINS_F32, QINS_F16, QINS_BF16, QINS_Q8_0};
static const char *const format_names[] = {"safetensors", "gguf", NULL};
static const qins_export_format format_values[] = {QINS_FORMAT_SAFETENSORS, QINS_FORMAT_GGUF};

typedef struct export_arguments {
    common_options common;
    int dtype, format;
    bool force, no_check;
} export_arguments;

static int export_model(const export_arguments *a, const char *model_path, const char *out_path) {
    progress_bar bar;
    progress_start(&bar);
    catch_interrupts();
    const qins_export_options options = {.format = format_values[a->format],
                                         .dtype = dtype_values[a->dtype],
                                         .force = a->force,
                                         .no_check = a->no_check,
                                         .progress = progress_update,
                                         .progress_user = &bar};
    uint64_t stored_bytes = 0;
    qins_error err = {0};
    qins_status status = qins_export(model_path, out_path, &options, &stored_bytes, &err);
    progress_end(&bar);
    if (status == QINS_ERR_CANCELLED)
        return report_failure_text(&a->common, status, "interrupted: nothing was written to %s", out_path);
    if (status != QINS_OK) return report_failure(&a->common, &err);
    const char *dtype = dtype_values[a->dtype] != QINS_DTYPE_AUTO      ? dtype_names[a->dtype]
                        : format_values[a->format] == QINS_FORMAT_GGUF ? "f32"
                                                                       : "auto";
    if (a->common.json)
        return print_json(json_pack("{s:o, s:s, s:s, s:I}", "out", json_text(out_path, strlen(out_path)), "format",
                                    format_names[a->format], "dtype", dtype, "stored_bytes", (json_int_t)stored_bytes));
    printf("wrote %s\n  weights     %s as %s\n", out_path, format_size(stored_bytes).text, dtype);
    return EXIT_DONE;
}

int command_export(int argc, char **argv) {
    export_arguments a = {0};
    const option options[] = {
        {.name = "format",
         .kind = OPTION_CHOICE,
         .value = &a.format,
         .value_name = "F",
         .choices = format_names,
         .help = "safetensors: a Hugging Face directory; gguf: one file (default safetensors)"},
        {.name = "dtype",
         .kind = OPTION_CHOICE,
         .value = &a.dtype,
         .value_name = "D",
         .choices = dtype_names,
         .help = "f32, f16 or bf16; for gguf also q8_0 (default auto: f32; of a lossless directory, every tensor as it "
                 "was)"},
        {.name = "force", .kind = OPTION_FLAG, .value = &a.force, .help = "replace OUT when it exists"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums of the source"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", "OUT", NULL};
    const command_syntax syntax = {
        "export", names,
        "Decodes MODEL to plain files that other programs load: a Hugging Face directory OUT "
        "(config.json, safetensors, tokenizer), or with --format gguf a GGUF file OUT.",
        options, NULL};
    const char *paths[2];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, paths);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    if (dtype_values[a.dtype] == QINS_Q8_0 && format_values[a.format] != QINS_FORMAT_GGUF)
        return usage_error("--dtype q8_0 is a type of GGUF files: add --format gguf");
    qins_set_threads(a.common.threads);
    return export_model(&a, paths[0], paths[1]);
}
