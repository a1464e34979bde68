/* qins audit: every byte of a model, by tensor, by role and in total. SPDX-License-Identifier: MIT */
#include "audit_print.h"
#include "commands.h"
#include "kv_bits.h"
#include "output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct audit_arguments {
    common_options common;
    bool summary, no_check;
    kv_bits kv;
    size_t context;
} audit_arguments;

enum { DEFAULT_CONTEXT = 8192 };

/* F16 first, to compare with; then what --kv-bits asks for, or all. */
static qins_status list_caches(const qins_audit *audit, const audit_arguments *a, audit_caches *c, qins_error *err) {
    static const kv_bits all[MAX_CACHES] = {{16, 16}, {8, 8}, {6, 6}, {5, 5}, {5, 4}, {16, 4}, {4, 4}, {3, 3}};
    size_t max_position = qins_audit_max_position(audit);
    *c = (audit_caches){.context = a->context};
    if (c->context == 0)
        c->context = max_position > 0 && max_position < DEFAULT_CONTEXT ? max_position : DEFAULT_CONTEXT;
    c->n = a->kv.keys > 0 ? 2 : MAX_CACHES;
    for (size_t i = 0; i < c->n; i++) {
        c->bits[i] = i > 0 && a->kv.keys > 0 ? a->kv : all[i];
        qins_status status = qins_audit_kv_bytes(audit, c->bits[i].keys, c->bits[i].values, c->context, &c->kv[i], err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

static int print_audit_json(const qins_audit *audit, bool summary, const audit_caches *caches) {
    const qins_audit_totals *totals = qins_audit_get_totals(audit);
    json_t *object = audit_object(audit, summary);
    json_object_set_new(object, "kv_cache", audit_caches_object(caches));
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
    audit_caches caches;
    int exit_status = EXIT_DONE;
    if (qins_audit_open(path, &model_options, &audit, &err) != QINS_OK) return report_failure(&a->common, &err);
    if (list_caches(audit, a, &caches, &err) != QINS_OK) {
        exit_status = report_failure(&a->common, &err);
    } else if (!sums_agree(audit)) {
        const qins_audit_totals *t = qins_audit_get_totals(audit);
        exit_status = report_failure_text(&a->common, QINS_ERR_FORMAT,
                                          "%s: the sizes do not add up: %" PRIu64 " B of tensors, %" PRIu64
                                          " B of headers, %" PRIu64 " B on disk",
                                          path, t->stored_bytes, t->header_bytes, t->weight_file_bytes);
    } else if (a->common.json) {
        exit_status = print_audit_json(audit, a->summary, &caches);
    } else {
        print_audit_tables(audit, a->summary);
        print_totals(audit);
        print_audit_caches(&caches);
    }
    qins_audit_close(audit);
    return exit_status;
}

int command_audit(int argc, char **argv) {
    audit_arguments a = {0};
    const option options[] = {
        {.name = "summary", .kind = OPTION_FLAG, .value = &a.summary, .help = "leave the list of tensors out"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums"},
        {.name = "context",
         .kind = OPTION_SIZE,
         .value = &a.context,
         .value_name = "N",
         .min = 1,
         .help = "tokens that the KV cache holds (default 8192, or what the model was trained for if that is less)"},
        {.name = "kv-bits",
         .kind = OPTION_PARSED,
         .value = &a.kv,
         .value_name = "B|K:V",
         .parse = parse_kv_bits,
         .expects = "32, 16, 8, 6, 5, 4 or 3, or two of them for keys and values, as in 16:4",
         .help = "show the KV cache with so many bits of a value, or of keys and of values (default: several)"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", NULL};
    const command_syntax syntax = {
        "audit", names,
        "Lists what every tensor of MODEL takes on disk, scales and tables included, sums it "
        "up by role, checks the sum against the sizes of the files, and says what the KV cache takes beside them.",
        options, NULL};
    const char *path[1];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, path);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    qins_set_threads(a.common.threads);
    return audit_model(&a, path[0]);
}
