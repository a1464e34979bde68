/* SPDX-License-Identifier: MIT */
#include "audit_print.h"

#include "output.h"

#include <stdio.h>
#include <string.h>

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

json_t *audit_object(const qins_audit *audit, bool summary) {
    json_t *object = json_pack("{s:o}", "totals", totals_object(qins_audit_get_totals(audit)));
    if (object == NULL || summary) return object;
    json_t *tensors = json_array();
    for (size_t i = 0; i < qins_audit_count(audit); i++)
        json_array_append_new(tensors, tensor_object(qins_audit_get(audit, i)));
    json_object_set_new(object, "tensors", tensors);
    return object;
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
    printf("%-*s  %-14s %-9s %-6s %-15s %-7s %5s %14s %14s\n", width, "tensor", "shape", "role", "dtype", "codec",
           "storage", "bits", "source B", "stored B");
    for (size_t i = 0; i < qins_audit_count(audit); i++) {
        const qins_audit_tensor *t = qins_audit_get(audit, i);
        printf("%-*s  %-14s %-9s %-6s %-15s %-7s %5.4g %14s %14s\n", width, t->name,
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

void print_audit_tables(const qins_audit *audit, bool summary) {
    if (!summary) print_tensors(audit);
    print_roles(audit);
}

void print_audit_weights(const qins_audit *audit) {
    const qins_audit_totals *t = qins_audit_get_totals(audit);
    printf("weights       %s, tied tensors once\n", format_count(t->params).text);
    printf("as FP32       %s\n", format_size(t->fp32_bytes).text);
    printf("source        %s\n", format_size(t->source_bytes).text);
    printf("stored        %s = %.2fx smaller than FP32, %.2fx than the source\n", format_size(t->stored_bytes).text,
           t->ratio_fp32, t->ratio_source);
    printf("bits a weight %.3f\n", t->params > 0 ? 8 * (double)t->stored_bytes / (double)t->params : 0);
    printf("resident      %s of weights while running\n", format_size(t->resident_bytes).text);
}

/* ---- KV cache ---- */

static double ratio_to_f16(const audit_caches *c, size_t i) {
    return (double)c->kv[i].bytes / (double)c->kv[0].bytes;
}

json_t *audit_caches_object(const audit_caches *c) {
    json_t *types = json_array();
    for (size_t i = 0; i < c->n; i++)
        json_array_append_new(
            types, json_pack("{s:i, s:i, s:o, s:I, s:I, s:I, s:o}", "key_bits", c->bits[i].keys, "value_bits",
                             c->bits[i].values, "bytes_per_token", json_number(c->kv[i].bytes_per_token), "bytes",
                             (json_int_t)c->kv[i].bytes, "code_bytes", (json_int_t)c->kv[i].code_bytes, "side_bytes",
                             (json_int_t)c->kv[i].side_bytes, "ratio_f16", json_number(ratio_to_f16(c, i))));
    return json_pack("{s:I, s:o}", "context", (json_int_t)c->context, "types", types);
}

void print_audit_caches(const audit_caches *c) {
    printf("\nKV cache of %s tokens, by --kv-bits\n", format_count(c->context).text);
    printf("%-8s %12s %15s %15s %15s %7s\n", "keys:val.", "B a token", "bytes", "codes", "scales etc.", "x F16");
    for (size_t i = 0; i < c->n; i++)
        printf("%5d:%-3d %12s %15s %15s %15s %7.4f\n", c->bits[i].keys, c->bits[i].values,
               format_count((uint64_t)(c->kv[i].bytes_per_token + 0.5)).text, format_count(c->kv[i].bytes).text,
               format_count(c->kv[i].code_bytes).text, format_count(c->kv[i].side_bytes).text, ratio_to_f16(c, i));
}
