/* Does a receipt hold? SPDX-License-Identifier: MIT */
#include "measure/receipt_entry.h"
#include "measure/tensor_error.h"
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums in another order, and KL by the kernels of another CPU, differ in the last digits; what was changed differs in
 * the first. */
static const double TOLERANCE = 0.01;
#define NEEDS_SOURCE "not checked: give the source"
enum { MAX_GEN = 1 << 20 }; /* of an honest receipt */

typedef struct receipt_check {
    const qins_receipt_options *options;
    const char *path;
    json_t *receipt;
    qins_model *model, *reference; /* NULL when it could not be opened or was not given */
    size_t n_broken;
} receipt_check;

static void say(receipt_check *c, qins_verdict verdict, const char *what, const char *said, const char *found) {
    qins_receipt_line line = {.verdict = verdict};
    snprintf(line.what, sizeof line.what, "%.*s", (int)sizeof line.what - 1, what);
    snprintf(line.said, sizeof line.said, "%.*s", (int)sizeof line.said - 1, said);
    snprintf(line.found, sizeof line.found, "%.*s", (int)sizeof line.found - 1, found);
    c->n_broken += verdict == QINS_BROKEN;
    if (c->options->line != NULL) c->options->line(c->options->line_user, &line);
}

static void compare_text(receipt_check *c, const char *what, const char *said, const char *found) {
    say(c, said != NULL && strcmp(said, found) == 0 ? QINS_HOLDS : QINS_BROKEN, what, said != NULL ? said : "nothing",
        found);
}

static void compare_count(receipt_check *c, const char *what, const json_t *said, uint64_t found) {
    char a[32] = "nothing", b[32];
    snprintf(b, sizeof b, "%" PRIu64, found);
    if (json_is_integer(said)) snprintf(a, sizeof a, "%" JSON_INTEGER_FORMAT, json_integer_value(said));
    compare_text(c, what, a, b);
}

/* Within TOLERANCE of what was said, or of `scale` when that is larger. */
static void compare_number(receipt_check *c, const char *what, const json_t *said, double found, double scale) {
    char a[32] = "nothing", b[32];
    double value = json_number_value(said);
    snprintf(b, sizeof b, "%.6g", found);
    if (json_is_number(said)) snprintf(a, sizeof a, "%.6g", value);
    bool holds = json_is_number(said) && fabs(value - found) <= TOLERANCE * fmax(fabs(value), scale);
    say(c, holds ? QINS_HOLDS : QINS_BROKEN, what, a, b);
}

/* ---- without the reference ---- */

static const json_t *made(const receipt_check *c, const char *key) {
    return json_object_get(json_object_get(c->receipt, "compress"), key);
}

static qins_status check_manifest(receipt_check *c, qins_error *err) {
    char found[17] = "";
    const char *said = json_string_value(json_object_get(c->receipt, "manifest_xxh3_64"));
    qins_status status = qins_receipt_manifest_hash(c->path, found, err);
    if (status == QINS_OK) compare_text(c, "it belongs to this manifest", said, found);
    return status;
}

/* Opening compares the checksum of every file and tensor with the manifest. */
static qins_status check_files(receipt_check *c, qins_error *err) {
    qins_error reason = {0};
    qins_status status = qins_model_open(c->path, NULL, &c->model, &reason);
    if (status == QINS_ERR_MEMORY) return qins_fail(err, status, "%s", reason.message);
    say(c, status == QINS_OK ? QINS_HOLDS : QINS_BROKEN, "checksums of files and tensors", "as in the manifest",
        status == QINS_OK ? "as in the manifest" : reason.message);
    return QINS_OK;
}

static void check_options(receipt_check *c) {
    const json_t *said = made(c, "options"),
                 *found = json_object_get(c->model->weights->checkpoint->config, "quantization_config");
    char *a = json_dumps(said, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY),
         *b = json_dumps(found, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    if (a != NULL && b != NULL) {
        bool same = strcmp(a, b) == 0;
        say(c, same ? QINS_HOLDS : QINS_BROKEN, "codec, widths and seeds", same ? "as in config.json" : a,
            same ? "as in config.json" : b);
    } else {
        say(c, QINS_BROKEN, "codec, widths and seeds", a != NULL ? a : "nothing", b != NULL ? b : "nothing");
    }
    free(a);
    free(b);
}

static qins_status check_sizes(receipt_check *c, qins_error *err) {
    qins_audit *audit = NULL;
    const json_t *sizes = made(c, "sizes"), *tensors = made(c, "tensors");
    qins_status status = qins_audit_open(c->path, &(qins_model_options){.no_check = true}, &audit, err);
    if (status != QINS_OK) return status;
    const qins_audit_totals *totals = qins_audit_get_totals(audit);
    compare_count(c, "stored bytes", json_object_get(sizes, "stored_bytes"), totals->stored_bytes);
    size_t n_said = 0, n_encoded = 0, n_same = 0;
    const char *name;
    const json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)tensors, name, entry) n_said +=
        json_object_get(entry, "codec") != NULL; /* those of a lossless copy have none */
    for (size_t i = 0; i < qins_audit_count(audit); i++) {
        const qins_audit_tensor *t = qins_audit_get(audit, i);
        const json_t *said = json_object_get(tensors, t->name);
        uint64_t bytes = t->entropy_coded ? t->resident_bytes : t->bytes;
        if (strcmp(t->codec, "none") == 0) continue;
        const char *codec = json_string_value(json_object_get(said, "codec"));
        n_encoded++;
        n_same += codec != NULL && strcmp(codec, t->codec) == 0 &&
                  json_integer_value(json_object_get(said, "bytes")) == (json_int_t)bytes;
    }
    char a[64], b[64];
    snprintf(a, sizeof a, "%zu encoded matrices", n_said);
    snprintf(b, sizeof b, "%zu, %zu of them as said", n_encoded, n_same);
    say(c, n_encoded == n_said && n_same == n_encoded ? QINS_HOLDS : QINS_BROKEN, "codec and bytes of every matrix", a,
        b);
    qins_audit_close(audit);
    return QINS_OK;
}

/* Rounding again is compressing again. */
static void mention_calibration(receipt_check *c) {
    const json_t *calibration = made(c, "calibration");
    const char *name = json_string_value(json_object_get(calibration, "text")),
               *hash = json_string_value(json_object_get(calibration, "xxh3_64"));
    char said[160];
    if (name == NULL || hash == NULL) return;
    snprintf(said, sizeof said, "%.100s %.16s", name, hash);
    say(c, QINS_UNCHECKED, "what it was calibrated on", said, "not checked: compress again with it");
}

/* ---- with it ---- */

static void list_files(const json_t *source, char *text, size_t size) {
    const json_t *file = json_array_get(json_object_get(source, "files"), 0);
    const char *name = json_string_value(json_object_get(file, "name")),
               *hash = json_string_value(json_object_get(file, "xxh3_128"));
    size_t n = json_array_size(json_object_get(source, "files"));
    snprintf(text, size, "%zu file%s, %s %s", n, n == 1 ? "" : "s", name != NULL ? name : "?",
             hash != NULL ? hash : "?");
}

static void check_source(receipt_check *c, const json_t *source) {
    char a[160], b[160] = NEEDS_SOURCE;
    const json_t *said = made(c, "source");
    list_files(said, a, sizeof a);
    if (source != NULL) list_files(source, b, sizeof b);
    bool same = source != NULL && json_equal(json_object_get(said, "files"), json_object_get(source, "files"));
    say(c, source == NULL ? QINS_UNCHECKED : same ? QINS_HOLDS : QINS_BROKEN, "what it was made from", a, b);
}

static qins_status check_errors(receipt_check *c, qins_error *err) {
    const json_t *tensors = made(c, "tensors");
    const qins_weights *w = c->model->weights;
    const char *what = "error of every matrix", *bad = NULL;
    char said[64], found[160];
    size_t n = 0, n_same = 0;
    snprintf(said, sizeof said, "%zu relative errors", json_object_size(tensors));
    if (c->reference == NULL) {
        say(c, QINS_UNCHECKED, what, said, NEEDS_SOURCE);
        return QINS_OK;
    }
    for (size_t i = 0; i < w->n_parameters; i++) {
        const qins_parameter *p = &w->parameters[i];
        const json_t *value = json_object_get(json_object_get(tensors, p->name), "rel_mse");
        qins_tensor_error error = {0};
        bool paired = false;
        if (p->encoded == NULL) continue;
        qins_status status = qins_tensor_error_add(c->reference->weights, w, p, &error, &paired, err);
        if (status != QINS_OK) return status;
        double rel_mse = error.sum_squares > 0 ? error.sum_squared_error / error.sum_squares : 0;
        bool same = paired && json_is_number(value) &&
                    fabs(json_number_value(value) - rel_mse) <= TOLERANCE * fmax(rel_mse, 1e-9);
        n++;
        n_same += same;
        if (!same && bad == NULL) bad = p->name;
    }
    snprintf(found, sizeof found, "%zu of %zu within 1 %%%s%.100s", n_same, n, bad != NULL ? ", not " : "",
             bad != NULL ? bad : "");
    say(c, bad == NULL ? QINS_HOLDS : QINS_BROKEN, what, said, found);
    return QINS_OK;
}

/* Measures again what an entry of "fidelity" says. */
static qins_status check_entry(receipt_check *c, size_t index, const json_t *entry, const json_t *source,
                               qins_error *err) {
    const qins_receipt_options *o = c->options;
    const json_t *text = json_object_get(entry, "text"), *greedy = json_object_get(entry, "greedy");
    const json_t *kv_bits = json_object_get(entry, "kv_bits");
    bool own_text = !json_is_true(json_object_get(text, "built_in")),
         own_prompts = greedy != NULL && !json_is_true(json_object_get(greedy, "built_in"));
    char what[160], said[160];
    snprintf(what, sizeof what, "measurement %zu", index + 1);
    const char *text_hash = json_string_value(json_object_get(text, "xxh3_64"));
    if (text_hash == NULL) text_hash = "?";
    snprintf(said, sizeof said, "KL %.6g on text %.32s", json_number_value(json_object_get(entry, "kl_mean")),
             own_text ? text_hash : "built in");
    json_int_t ctx = json_integer_value(json_object_get(text, "ctx")),
               stride = json_integer_value(json_object_get(text, "stride")),
               max_tokens = json_integer_value(json_object_get(text, "max_tokens")),
               gen = json_integer_value(json_object_get(greedy, "gen"));
    bool sane = ctx >= 2 && stride >= 1 && stride <= ctx && max_tokens >= 0 && gen >= 0 && gen <= MAX_GEN;
    bool same_reference =
        json_equal(json_object_get(json_object_get(entry, "reference"), "files"), json_object_get(source, "files"));
    const char *needs = c->reference == NULL                ? "not checked: give the reference"
                        : !sane                             ? "not checked: its windows or prompts make no sense"
                        : own_text && o->text == NULL       ? "not checked: give the text (--text)"
                        : own_prompts && o->prompts == NULL ? "not checked: give the prompts (--prompts)"
                        : !same_reference                   ? "not checked: it was measured against another reference"
                                                            : NULL;
    if (needs != NULL) {
        say(c, QINS_UNCHECKED, what, said, needs);
        return QINS_OK;
    }
    const qins_verify_options options = {
        .text = own_text ? o->text : NULL,
        .text_bytes = own_text ? o->text_bytes : 0,
        .ctx = (size_t)ctx,
        .stride = (size_t)stride,
        .max_tokens = (size_t)max_tokens,
        .prompts = own_prompts ? o->prompts : NULL,
        .n_prompts = own_prompts ? o->n_prompts : 0,
        .gen = (size_t)gen,
        .no_strategies = true,
        .key_bits = (int)json_integer_value(json_array_get(kv_bits, 0)),
        .value_bits = (int)json_integer_value(json_array_get(kv_bits, 1)),
        .progress = o->progress,
        .progress_user = o->progress_user,
    };
    qins_verify_result r;
    qins_status status = qins_verify(c->reference, c->model, &options, &r, err);
    if (status != QINS_OK) return qins_prefix(err, status, "measurement %zu", index + 1);
    if (strcmp(text_hash, r.text_xxh3_64) != 0) {
        say(c, QINS_UNCHECKED, what, said, "not checked: it was measured on another text");
    } else {
        const struct {
            const char *key;
            double value, scale; /* what counts as one when the figure is smaller */
        } numbers[] = {{"kl_mean", r.kl_mean, 1e-6},          {"kl_p99", r.kl_p99, 1e-5}, {"top1", r.top1, 1},
                       {"top10_overlap", r.top10_overlap, 1}, {"ppl_ref", r.ppl_ref, 1},  {"ppl", r.ppl, 1}};
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            snprintf(what, sizeof what, "measurement %zu, %s", index + 1, numbers[i].key);
            compare_number(c, what, json_object_get(entry, numbers[i].key), numbers[i].value, numbers[i].scale);
        }
        snprintf(what, sizeof what, "measurement %zu, greedy tokens matched", index + 1);
        if (greedy != NULL)
            compare_number(c, what, json_object_get(greedy, "matched"), (double)r.greedy_matched, (double)r.greedy_of);
    }
    qins_verify_result_free(&r);
    return QINS_OK;
}

/* ---- all of it ---- */

static qins_status check_all(receipt_check *c, qins_error *err) {
    json_t *source = NULL;
    qins_status status = check_manifest(c, err);
    if (status == QINS_OK) status = check_files(c, err);
    if (status != QINS_OK || c->model == NULL) return status;
    if (c->options->reference != NULL) {
        status = qins_model_open(c->options->reference, NULL, &c->reference, err);
        if (status == QINS_OK) status = qins_receipt_source(c->reference->weights->checkpoint, &source, err);
    }
    if (status == QINS_OK && json_object_get(c->receipt, "compress") != NULL) {
        check_options(c);
        mention_calibration(c);
        status = check_sizes(c, err);
        if (status == QINS_OK) check_source(c, source);
        if (status == QINS_OK) status = check_errors(c, err);
    }
    const json_t *entries = json_object_get(c->receipt, "fidelity");
    for (size_t i = 0; i < json_array_size(entries) && status == QINS_OK; i++)
        status = check_entry(c, i, json_array_get(entries, i), source, err);
    json_decref(source);
    return status;
}

qins_status qins_receipt_check(const char *model_path, const qins_receipt_options *options, size_t *n_broken,
                               qins_error *err) {
    receipt_check c = {.options = options, .path = model_path};
    bool sealed = false;
    *n_broken = 0;
    qins_status status = qins_receipt_read(model_path, &c.receipt, &sealed, err);
    if (status == QINS_OK && c.receipt == NULL)
        status = qins_fail(err, QINS_ERR_IO, "%s: has no %s; 'qins verify REF MODEL' writes one into a qins directory",
                           model_path, QINS_RECEIPT_NAME);
    if (status == QINS_OK) {
        say(&c, sealed ? QINS_HOLDS : QINS_BROKEN, "the receipt's own checksum", "fits the text",
            sealed ? "fits the text" : "does not: it was edited or damaged");
        status = check_all(&c, err);
    }
    *n_broken = c.n_broken;
    qins_model_close(c.reference);
    qins_model_close(c.model);
    json_decref(c.receipt);
    return status;
}
