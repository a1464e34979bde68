/* Which linears to encode. SPDX-License-Identifier: MIT */
#include "model/targets.h"

#include "model/projections.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 512 };

struct qins_targets {
    bool all, safe;
    pcre2_code *regex;
};

qins_status qins_targets_new(const char *spec, qins_targets **out, qins_error *err) {
    *out = NULL;
    qins_targets *t = qins_alloc(1, sizeof *t);
    if (t == NULL) return qins_fail_memory(err, sizeof *t, "targets");
    t->all = spec == NULL || strcmp(spec, "all") == 0;
    t->safe = !t->all && strcmp(spec, "safe") == 0;
    if (!t->all && !t->safe) {
        int code;
        PCRE2_SIZE offset;
        t->regex = pcre2_compile((PCRE2_SPTR)spec, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &offset, NULL);
        if (t->regex == NULL) {
            PCRE2_UCHAR text[128];
            pcre2_get_error_message(code, text, sizeof text);
            free(t);
            return qins_fail(err, QINS_ERR_ARGUMENT,
                             "targets: expected all, safe or a regular expression; '%s' at offset %zu: %s", spec,
                             (size_t)offset, (const char *)text);
        }
    }
    *out = t;
    return QINS_OK;
}

/* v, o, gate, up and down, of experts as well. */
static const bool is_safe[QINS_SLOT_COUNT + 1] = {
    [QINS_SLOT_V] = true,         [QINS_SLOT_O] = true,           [QINS_SLOT_GATE] = true,
    [QINS_SLOT_UP] = true,        [QINS_SLOT_DOWN] = true,        [QINS_SLOT_SHARED_GATE] = true,
    [QINS_SLOT_SHARED_UP] = true, [QINS_SLOT_SHARED_DOWN] = true, [QINS_SLOT_EXPERT_GATE] = true,
    [QINS_SLOT_EXPERT_UP] = true, [QINS_SLOT_EXPERT_DOWN] = true};

static bool matches(const qins_targets *t, const char *name) {
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(t->regex, NULL);
    bool found = match != NULL && pcre2_match(t->regex, (PCRE2_SPTR)name, strlen(name), 0, 0, match, NULL) >= 0;
    pcre2_match_data_free(match);
    return found;
}

/* "a.b.LEAF.weight" with the projection's name for LEAF. False when it does not fit. */
static bool projection_name(const char *tensor_name, qins_slot slot, char *name, size_t size) {
    const char *projection = qins_projection_name(slot), *suffix = strrchr(tensor_name, '.'), *leaf = suffix;
    if (projection == NULL || suffix == NULL) return false;
    while (leaf > tensor_name && leaf[-1] != '.')
        leaf--;
    int n = snprintf(name, size, "%.*s%s%s", (int)(leaf - tensor_name), tensor_name, projection, suffix);
    return n > 0 && (size_t)n < size;
}

static bool wants(const qins_targets *t, const char *tensor_name, qins_slot slot) {
    char name[NAME_SIZE];
    if (t->all) return true;
    if (t->safe) return is_safe[slot];
    return projection_name(tensor_name, slot, name, sizeof name) && matches(t, name);
}

qins_status qins_targets_select(const qins_targets *t, const qins_hparams *h, const qins_parameter *p,
                                qins_selection *selection, qins_row_split *split, qins_error *err) {
    qins_slot projections[QINS_MAX_PROJECTIONS];
    bool wanted[QINS_MAX_PROJECTIONS];
    size_t n = qins_projections_of(p->slot, projections), n_wanted = 0;
    for (size_t i = 0; i < n; i++)
        n_wanted += wanted[i] = wants(t, p->name, projections[i]);
    if (n_wanted == 0 && t->regex != NULL && matches(t, p->name)) n_wanted = n;
    *selection = n_wanted == 0 ? QINS_SELECT_NONE : n_wanted == n ? QINS_SELECT_ALL : QINS_SELECT_SOME;
    if (*selection != QINS_SELECT_SOME) return QINS_OK;
    qins_status status = qins_projection_rows(h, p->slot, wanted, split, err);
    if (status != QINS_OK || split->n_encoded + split->n_plain == p->shape[0]) return status;
    size_t expected = split->n_encoded + split->n_plain;
    qins_row_split_free(split);
    return qins_fail(err, QINS_ERR_FORMAT, "tensor %s: expected %zu rows, found %llu", p->name, expected,
                     (unsigned long long)p->shape[0]);
}

void qins_targets_free(qins_targets *t) {
    if (t == NULL) return;
    pcre2_code_free(t->regex);
    free(t);
}
