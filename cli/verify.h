/* The parts of `qins verify`. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_VERIFY_H
#define QINS_CLI_VERIFY_H

#include "output.h"

/* ---- require.c: bounds that a model must keep ---- */

enum { MAX_REQUIREMENTS = 16 };

typedef struct requirement {
    const char *name; /* "kl" */
    double bound;
    double value;  /* what was measured; NaN when it was not */
    bool at_least; /* the value must not be below the bound; otherwise not above */
    bool met;
} requirement;

typedef struct requirement_list {
    requirement items[MAX_REQUIREMENTS];
    size_t n;
} requirement_list;

/* An option's parser: "kl=0.01,top1=0.97". */
bool parse_requirements(const char *text, void *value);
extern const char requirements_expected[];
/* Fills in what was measured. True when all are met. */
bool judge(requirement_list *list, const qins_verify_result *result);
/* One line on standard error for each that is not met. */
void print_shortfalls(const requirement_list *list);
json_t *requirements_object(const requirement_list *list);

/* ---- verify_print.c, verify_json.c, verify_html.c ---- */

void print_verification(const qins_verify_result *result);
json_t *verification_object(const qins_verify_result *result);
/* Share of the tokens, NaN without any. */
double share_of(size_t n, size_t of);

/* ---- verify_receipt.c ---- */

typedef struct receipt_arguments {
    const common_options *common;
    const char *model, *reference; /* reference NULL: what needs it stays unchecked */
    const char *text;
    size_t text_bytes;
    const char *const *prompts;
    size_t n_prompts;
} receipt_arguments;

int check_receipt(const receipt_arguments *arguments);

#endif
