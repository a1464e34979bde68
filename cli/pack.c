/* qins pack and qins unpack. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "output.h"
#include "progress.h"

#include <stdio.h>
#include <string.h>

typedef struct pack_arguments {
    common_options common;
    bool force, no_check;
} pack_arguments;

static int pack(const pack_arguments *a, bool unpack, const char *model_path, const char *out_path) {
    progress_bar bar;
    progress_start(&bar);
    catch_interrupts();
    const qins_pack_options options = {.unpack = unpack,
                                       .force = a->force,
                                       .no_check = a->no_check,
                                       .progress = progress_update,
                                       .progress_user = &bar};
    qins_compress_result result = {0};
    qins_error err = {0};
    qins_status status = qins_pack(model_path, out_path, &options, &result, &err);
    progress_end(&bar);
    if (status == QINS_ERR_CANCELLED)
        return report_failure_text(&a->common, status, "interrupted: nothing was written to %s", out_path);
    if (status != QINS_OK) return report_failure(&a->common, &err);
    double share = result.source_bytes > 0 ? (double)result.stored_bytes / (double)result.source_bytes : 0;
    if (a->common.json)
        return print_json(json_pack("{s:o, s:I, s:I, s:o, s:I}", "out", json_text(out_path, strlen(out_path)),
                                    "source_bytes", (json_int_t)result.source_bytes, "stored_bytes",
                                    (json_int_t)result.stored_bytes, "share", json_number(share), "tensors",
                                    (json_int_t)result.n_tensors));
    printf("wrote %s\n  weights     %s -> %s in the file, %.1f %%\n", out_path, format_size(result.source_bytes).text,
           format_size(result.stored_bytes).text, 100 * share);
    return EXIT_DONE;
}

static int command(int argc, char **argv, bool unpack) {
    pack_arguments a = {0};
    const option options[] = {
        {.name = "force", .kind = OPTION_FLAG, .value = &a.force, .help = "replace OUT when it exists"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums of the source"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", "OUT", NULL};
    const command_syntax syntax = {
        unpack ? "unpack" : "pack", names,
        unpack ? "Takes the entropy coding of a directory away: OUT has the same tensors, and is mapped instead of "
                 "decoded."
               : "Entropy-codes the tensors of MODEL into OUT: a smaller file of exactly the same values, decoded into "
                 "memory when it is opened. MODEL is a directory that 'qins compress' wrote, or a plain one of "
                 "safetensors, which becomes lossless.",
        options, NULL};
    const char *paths[2];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, paths);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    qins_set_threads(a.common.threads);
    return pack(&a, unpack, paths[0], paths[1]);
}

int command_pack(int argc, char **argv) {
    return command(argc, argv, false);
}

int command_unpack(int argc, char **argv) {
    return command(argc, argv, true);
}
