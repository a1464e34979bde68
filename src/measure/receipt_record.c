/* A measurement into the receipt of a model. SPDX-License-Identifier: MIT */
#include "measure/receipt_entry.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* "model name" of /proc/cpuinfo; "unknown" where there is none. */
static void cpu_name(char *name, size_t size) {
    snprintf(name, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[512];
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        colon += strspn(colon, ": \t");
        snprintf(name, size, "%.*s", (int)strcspn(colon, "\n"), colon);
        break;
    }
    if (f != NULL) fclose(f);
}

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *interval(qins_interval i) {
    return json_pack("[o, o]", number(i.low), number(i.high));
}

static json_t *strategies(const qins_verify_result *r) {
    json_t *all = json_object();
    for (size_t i = 0; i < r->n_strategies; i++) {
        const qins_strategy_score *s = &r->strategies[i];
        json_object_set_new(all, s->name,
                            json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "positions", (json_int_t)s->n, "agreement",
                                      number(s->agreement), "coupled", number(s->coupled), "overlap",
                                      number(s->overlap), "kl", number(s->kl), "missed", number(s->missed)));
    }
    return all;
}

json_t *qins_receipt_entry(json_t *source, const qins_verify_options *o, const qins_verify_result *r) {
    char cpu[256], date[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL) strftime(date, sizeof date, "%Y-%m-%d", &utc);
    cpu_name(cpu, sizeof cpu);
    size_t ctx = o->ctx > 0 ? o->ctx : 512;
    size_t stride = o->stride > 0 ? o->stride : ctx;
    json_t *text = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I}", "xxh3_64", r->text_xxh3_64, "built_in", o->text == NULL,
                             "max_tokens", (json_int_t)o->max_tokens, "tokens", (json_int_t)r->n_tokens, "ctx",
                             (json_int_t)ctx, "stride", (json_int_t)stride);
    json_t *kv_bits = json_pack("[i, i]", o->key_bits > 0 ? o->key_bits : 16, o->value_bits > 0 ? o->value_bits : 16);
    json_t *entry =
        json_pack("{s:O, s:o, s:o, s:s, s:s, s:s, s:s}", "reference", source, "text", text, "kv_bits", kv_bits,
                  "writer", "qins " QINS_VERSION_STRING, "kernels", qins_cpu_level(), "cpu", cpu, "date", date);
    if (entry == NULL) return NULL;
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"kl_mean", r->kl_mean},
                   {"kl_p50", r->kl_p50},
                   {"kl_p90", r->kl_p90},
                   {"kl_p99", r->kl_p99},
                   {"kl_p999", r->kl_p999},
                   {"top1", r->top1},
                   {"top10_overlap", r->top10_overlap},
                   {"ppl_ref", r->ppl_ref},
                   {"ppl", r->ppl},
                   {"ppl_delta_pct", r->ppl_delta_pct}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        json_object_set_new(entry, numbers[i].key, number(numbers[i].value));
    json_object_set_new(entry, "kl_interval", interval(r->kl_interval));
    json_object_set_new(entry, "ppl_delta_interval", interval(r->ppl_delta_interval));
    if (r->n_strategies > 0) json_object_set_new(entry, "strategies", strategies(r));
    if (r->n_greedy == 0) return entry;
    json_object_set_new(entry, "greedy",
                        json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "prompts_xxh3_64", r->prompts_xxh3_64,
                                  "built_in", o->prompts == NULL, "prompts", (json_int_t)r->n_greedy, "gen",
                                  (json_int_t)o->gen, "matched", (json_int_t)r->greedy_matched, "of",
                                  (json_int_t)r->greedy_of, "agreed", (json_int_t)r->greedy_agreed, "identical",
                                  (json_int_t)r->greedy_identical));
    return entry;
}

static bool same_member(const json_t *a, const json_t *b, const char *object, const char *key) {
    const json_t *x = json_object_get(json_object_get(a, object), key),
                 *y = json_object_get(json_object_get(b, object), key);
    return (x == NULL && y == NULL) || json_equal(x, y);
}

bool qins_receipt_same_conditions(const json_t *a, const json_t *b) {
    static const char *const members[][2] = {{"reference", "files"}, {"text", "xxh3_64"}, {"text", "max_tokens"},
                                             {"text", "ctx"},        {"text", "stride"},  {"greedy", "prompts_xxh3_64"},
                                             {"greedy", "gen"}};
    if (!json_equal(json_object_get(a, "kv_bits"), json_object_get(b, "kv_bits"))) return false;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        if (!same_member(a, b, members[i][0], members[i][1])) return false;
    return true;
}

/* Puts the entry in the place of one of the same conditions, or at the end. */
static int add_entry(json_t *receipt, json_t *entry) {
    json_t *all = json_object_get(receipt, "fidelity");
    if (!json_is_array(all)) {
        all = json_array();
        if (json_object_set_new(receipt, "fidelity", all) != 0) return -1;
    }
    for (size_t i = 0; i < json_array_size(all); i++)
        if (qins_receipt_same_conditions(json_array_get(all, i), entry)) return json_array_set(all, i, entry);
    return json_array_append(all, entry);
}

/* A directory made before there were receipts gets one that has nothing to say about its making. */
static qins_status fresh_receipt(const char *dir, json_t **receipt, qins_error *err) {
    char manifest[17];
    qins_status status = qins_receipt_manifest_hash(dir, manifest, err);
    if (status != QINS_OK) return status;
    *receipt = json_pack("{s:s, s:i, s:s, s:[]}", "format", "qins receipt", "version", QINS_RECEIPT_VERSION,
                         "manifest_xxh3_64", manifest, "fidelity");
    return *receipt != NULL ? QINS_OK : qins_fail_memory(err, 0, "a receipt");
}

qins_status qins_receipt_record(const qins_model *reference, const qins_model *model,
                                const qins_verify_options *options, const qins_verify_result *result, bool *recorded,
                                qins_error *err) {
    static const qins_verify_options defaults;
    const char *dir = model->weights->checkpoint->path;
    *recorded = false;
    if (model->weights->dir == NULL || access(dir, W_OK) != 0) return QINS_OK;
    json_t *receipt = NULL, *source = NULL, *entry = NULL;
    bool sealed = false;
    qins_status status = qins_receipt_read(dir, &receipt, &sealed, err);
    if (status == QINS_OK && receipt != NULL && !sealed)
        status = qins_fail(err, QINS_ERR_CHECKSUM,
                           "%s/%s: does not match its checksum and is left as it is; delete it or compress again", dir,
                           QINS_RECEIPT_NAME);
    if (status == QINS_OK && receipt == NULL) status = fresh_receipt(dir, &receipt, err);
    if (status == QINS_OK) status = qins_receipt_source(reference->weights->checkpoint, &source, err);
    if (status == QINS_OK) {
        entry = qins_receipt_entry(source, options != NULL ? options : &defaults, result);
        if (entry == NULL || add_entry(receipt, entry) != 0) status = qins_fail_memory(err, 0, "a receipt");
    }
    if (status == QINS_OK) status = qins_receipt_replace(dir, receipt, err);
    *recorded = status == QINS_OK;
    json_decref(entry);
    json_decref(source);
    json_decref(receipt);
    return status;
}
