/* qins audit: every byte of a model, by tensor, by role and in total. SPDX-License-Identifier: MIT */
#include "audit_print.h"
#include "commands.h"
#include "output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct audit_arguments {
    common_options common;
    bool summary, no_check;
} audit_arguments;

static int print_audit_json(const qins_audit *audit, bool summary) {
    const qins_audit_totals *totals = qins_audit_get_totals(audit);
    json_t *object = audit_object(audit, summary);
    json_object_set_new(object, "file_bytes", json_integer((json_int_t)totals->file_bytes));
    json_object_set_new(object, "resident_bytes", json_integer((json_int_t)totals->resident_bytes));
    return print_json(object);
}

static void print_totals(const qins_audit *audit) {
    const qins_audit_totals *t = qins_audit_get_totals(audit);
    print_audit_weights(audit);
    printf("all files     %s, tokenizer and configuration included\n", format_size(t->file_bytes).text);
    if (t->stored_bytes + t->header_bytes != t->weight_file_bytes) return;
    printf("check         tensors %s%s%s + headers %s = %s B on disk, to the byte\n",
           format_count(t->stored_bytes - t->shared_bytes).text, t->shared_bytes > 0 ? " + shared tables " : "",
           t->shared_bytes > 0 ? format_count(t->shared_bytes).text : "", format_count(t->header_bytes).text,
           format_count(t->weight_file_bytes).text);
}

/* The sum of the tensors is what the totals say, and it fills the files. Never printed as true without being so. */
static bool sums_agree(const qins_audit *audit) {
    const qins_audit_totals *totals = qins_audit_get_totals(audit);
    uint64_t sum = totals->shared_bytes;
    for (size_t i = 0; i < qins_audit_count(audit); i++)
        sum += qins_audit_get(audit, i)->bytes;
    return sum == totals->stored_bytes && sum + totals->header_bytes == totals->weight_file_bytes;
}

static int audit_model(const audit_arguments *a, const char *path) {
    const qins_model_options model_options = {.no_check = a->no_check};
    qins_error err = {0};
    qins_audit *audit = NULL;
    int exit_status = EXIT_DONE;
    if (qins_audit_open(path, &model_options, &audit, &err) != QINS_OK) return report_failure(&a->common, &err);
    if (!sums_agree(audit)) {
        const qins_audit_totals *t = qins_audit_get_totals(audit);
        exit_status = report_failure_text(&a->common, QINS_ERR_FORMAT,
                                          "%s: the sizes do not add up: %" PRIu64 " B of tensors, %" PRIu64
                                          " B of headers, %" PRIu64 " B on disk",
                                          path, t->stored_bytes, t->header_bytes, t->weight_file_bytes);
    } else if (a->common.json) {
        exit_status = print_audit_json(audit, a->summary);
    } else {
        print_audit_tables(audit, a->summary);
        print_totals(audit);
    }
    qins_audit_close(audit);
    return exit_status;
}

int command_audit(int argc, char **argv) {
    audit_arguments a = {0};
    const option options[] = {
        {.name = "summary", .kind = OPTION_FLAG, .value = &a.summary, .help = "leave the list of tensors out"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", NULL};
    const command_syntax syntax = {
        "audit", names,
        "Lists what every tensor of MODEL takes on disk, scales and tables included, sums it "
        "up by role, and checks the sum against the sizes of the files.",
        options, NULL};
    const char *path[1];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, path);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    qins_set_threads(a.common.threads);
    return audit_model(&a, path[0]);
}
