/* Which linears to encode. SPDX-License-Identifier: MIT */
#include "model/targets.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

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
    [QINS_SLOT_V] = true,           [QINS_SLOT_O] = true,         [QINS_SLOT_GATE] = true,
    [QINS_SLOT_UP] = true,          [QINS_SLOT_GATE_UP] = true,   [QINS_SLOT_DOWN] = true,
    [QINS_SLOT_SHARED_GATE] = true, [QINS_SLOT_SHARED_UP] = true, [QINS_SLOT_SHARED_DOWN] = true,
    [QINS_SLOT_EXPERT_GATE] = true, [QINS_SLOT_EXPERT_UP] = true, [QINS_SLOT_EXPERT_DOWN] = true};

bool qins_targets_match(const qins_targets *t, const qins_parameter *p) {
    if (t->all) return true;
    if (t->safe) return is_safe[p->slot];
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(t->regex, NULL);
    bool found = match != NULL && pcre2_match(t->regex, (PCRE2_SPTR)p->name, strlen(p->name), 0, 0, match, NULL) >= 0;
    pcre2_match_data_free(match);
    return found;
}

void qins_targets_free(qins_targets *t) {
    if (t == NULL) return;
    pcre2_code_free(t->regex);
    free(t);
}
