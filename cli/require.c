/* Bounds on what verify measured. SPDX-License-Identifier: MIT */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

double share_of(size_t n, size_t of) {
    return of > 0 ? (double)n / (double)of : (double)NAN;
}

static double kl(const qins_verify_result *r) {
    return r->kl_mean;
}
static double kl_high(const qins_verify_result *r) {
    return r->kl_interval.high;
}
static double kl_p99(const qins_verify_result *r) {
    return r->kl_p99;
}
static double kl_p999(const qins_verify_result *r) {
    return r->kl_p999;
}
static double ppl(const qins_verify_result *r) {
    return fabs(r->ppl_delta_pct);
}
static double top1(const qins_verify_result *r) {
    return r->top1;
}
static double top10(const qins_verify_result *r) {
    return r->top10_overlap;
}
static double greedy(const qins_verify_result *r) {
    return share_of(r->greedy_matched, r->greedy_of);
}
static double forced(const qins_verify_result *r) {
    return share_of(r->greedy_agreed, r->greedy_of);
}
static double identical(const qins_verify_result *r) {
    return share_of(r->greedy_identical, r->n_greedy);
}

static const struct known {
    const char *name;
    bool at_least;
    double (*measured)(const qins_verify_result *);
} known[] = {
    {"kl", false, kl},        {"kl_high", false, kl_high},   {"kl_p99", false, kl_p99}, {"kl_p999", false, kl_p999},
    {"ppl", false, ppl},      {"top1", true, top1},          {"top10", true, top10},    {"greedy", true, greedy},
    {"forced", true, forced}, {"identical", true, identical}};

const char requirements_expected[] =
    "a list such as kl=0.01,top1=0.97 of kl, kl_high, kl_p99, kl_p999 and ppl (at most), "
    "top1, top10, greedy, forced and identical (at least)";

static const struct known *find_known(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].name) == length && strncmp(known[i].name, name, length) == 0) return &known[i];
    return NULL;
}

bool parse_requirements(const char *text, void *value) {
    requirement_list *list = value;
    for (const char *p = text; *p != '\0';) {
        char number[64];
        size_t length = strcspn(p, ",="), digits = p[length] == '=' ? strcspn(p + length + 1, ",") : 0;
        const struct known *k = find_known(p, length);
        if (k == NULL || digits == 0 || digits >= sizeof number || list->n == MAX_REQUIREMENTS) return false;
        memcpy(number, p + length + 1, digits);
        number[digits] = '\0';
        requirement *r = &list->items[list->n++];
        *r = (requirement){.name = k->name, .at_least = k->at_least, .value = NAN};
        if (!parse_real(number, &r->bound)) return false;
        p += length + 1 + digits;
        if (*p == ',' && *++p == '\0') return false;
    }
    return list->n > 0;
}

bool judge(requirement_list *list, const qins_verify_result *result) {
    bool all = true;
    for (size_t i = 0; i < list->n; i++) {
        requirement *r = &list->items[i];
        r->value = find_known(r->name, strlen(r->name))->measured(result);
        /* false for NaN, too: what was not measured is not met */
        r->met = r->at_least ? r->value >= r->bound : r->value <= r->bound;
        all = all && r->met;
    }
    return all;
}

void print_shortfalls(const requirement_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        const requirement *r = &list->items[i];
        if (r->met) continue;
        if (isnan(r->value))
            fprintf(stderr, "qins: required %s %s %g, which was not measured\n", r->name,
                    r->at_least ? ">=" : "<=", r->bound);
        else
            fprintf(stderr, "qins: required %s %s %g, measured %.6g\n", r->name, r->at_least ? ">=" : "<=", r->bound,
                    r->value);
    }
}

json_t *requirements_object(const requirement_list *list) {
    json_t *all = json_array();
    for (size_t i = 0; i < list->n; i++) {
        const requirement *r = &list->items[i];
        json_array_append_new(all, json_pack("{s:s, s:s, s:o, s:o, s:b}", "name", r->name, "bound_is",
                                             r->at_least ? "least" : "most", "bound", json_number(r->bound), "value",
                                             json_number(r->value), "met", r->met));
    }
    return all;
}
