/* qins audit: every byte of a model, by tensor, by role and in total. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct audit_arguments {
    common_options common;
    bool summary, no_check;
} audit_arguments;

/* ---- JSON ---- */

static json_t *tensor_object(const qins_audit_tensor *t) {
    json_t *shape = json_array();
    for (size_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    return json_pack("{s:o, s:o, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "name",
                     json_text(t->name, strlen(t->name)), "shape", shape, "dtype", t->dtype, "role", t->role, "codec",
                     t->codec, "storage", t->storage, "bits", json_number(t->bits), "params", (json_int_t)t->n_params,
                     "bytes", (json_int_t)t->bytes, "code_bytes", (json_int_t)t->code_bytes, "side_bytes",
                     (json_int_t)t->side_bytes, "source_bytes", (json_int_t)t->source_bytes, "resident_bytes",
                     (json_int_t)t->resident_bytes, "pack", t->entropy_coded ? "entropy" : "none");
}

static json_t *totals_object(const qins_audit_totals *t) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "params", (json_int_t)t->params, "fp32_bytes",
                     (json_int_t)t->fp32_bytes, "source_bytes", (json_int_t)t->source_bytes, "stored_bytes",
                     (json_int_t)t->stored_bytes, "shared_bytes", (json_int_t)t->shared_bytes, "header_bytes",
                     (json_int_t)t->header_bytes, "weight_file_bytes", (json_int_t)t->weight_file_bytes, "ratio_fp32",
                     json_number(t->ratio_fp32), "ratio_source", json_number(t->ratio_source));
}

static int print_audit_json(const qins_audit *audit, bool summary) {
    const qins_audit_totals *totals = qins_audit_get_totals(audit);
    json_t *object = json_pack("{s:o, s:I, s:I}", "totals", totals_object(totals), "file_bytes",
                               (json_int_t)totals->file_bytes, "resident_bytes", (json_int_t)totals->resident_bytes);
    if (object == NULL || summary) return print_json(object);
    json_t *tensors = json_array();
    for (size_t i = 0; i < qins_audit_count(audit); i++)
        json_array_append_new(tensors, tensor_object(qins_audit_get(audit, i)));
    json_object_set_new(object, "tensors", tensors);
    return print_json(object);
}

/* ---- tables ---- */

static int name_width(const qins_audit *audit) {
    size_t width = 6;
    for (size_t i = 0; i < qins_audit_count(audit); i++) {
        size_t length = strlen(qins_audit_get(audit, i)->name);
        if (length > width) width = length;
    }
    return (int)(width < 60 ? width : 60);
}

static void print_tensors(const qins_audit *audit) {
    int width = name_width(audit);
    printf("%-*s  %-14s %-9s %-6s %-8s %-7s %5s %14s %14s\n", width, "tensor", "shape", "role", "dtype", "codec",
           "storage", "bits", "source B", "stored B");
    for (size_t i = 0; i < qins_audit_count(audit); i++) {
        const qins_audit_tensor *t = qins_audit_get(audit, i);
        printf("%-*s  %-14s %-9s %-6s %-8s %-7s %5.4g %14s %14s\n", width, t->name,
               format_shape(t->shape, t->n_dims).text, t->role, t->dtype, t->codec, t->storage, t->bits,
               format_count(t->source_bytes).text, format_count(t->bytes).text);
    }
    printf("\n");
}

/* One line a role, in the order of their first appearance in a transformer. */
static void print_roles(const qins_audit *audit) {
    static const char *const roles[] = {"linear", "embedding", "head", "bias", "norm", "other"};
    printf("%-10s %7s %13s %15s %15s %15s %13s %7s\n", "role", "tensors", "weights", "FP32 B", "source B", "stored B",
           "scales etc.", "bits/w");
    for (size_t r = 0; r < sizeof roles / sizeof *roles; r++) {
        uint64_t n = 0, params = 0, source = 0, stored = 0, side = 0;
        for (size_t i = 0; i < qins_audit_count(audit); i++) {
            const qins_audit_tensor *t = qins_audit_get(audit, i);
            if (strcmp(t->role, roles[r]) != 0) continue;
            n++, params += t->n_params, source += t->source_bytes, stored += t->bytes, side += t->side_bytes;
        }
        if (n == 0) continue;
        printf("%-10s %7s %13s %15s %15s %15s %13s %7.3f\n", roles[r], format_count(n).text, format_count(params).text,
               format_count(4 * params).text, format_count(source).text, format_count(stored).text,
               format_count(side).text, params > 0 ? 8 * (double)stored / (double)params : 0);
    }
    printf("\n");
}

static void print_totals(const qins_audit *audit) {
    const qins_audit_totals *t = qins_audit_get_totals(audit);
    printf("weights       %s, tied tensors once\n", format_count(t->params).text);
    printf("as FP32       %s\n", format_size(t->fp32_bytes).text);
    printf("source        %s\n", format_size(t->source_bytes).text);
    printf("stored        %s = %.2fx smaller than FP32, %.2fx than the source\n", format_size(t->stored_bytes).text,
           t->ratio_fp32, t->ratio_source);
    printf("bits a weight %.3f\n", t->params > 0 ? 8 * (double)t->stored_bytes / (double)t->params : 0);
    printf("resident      %s of weights while running\n", format_size(t->resident_bytes).text);
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
        if (!a->summary) print_tensors(audit);
        print_roles(audit);
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
