/* What splits and replacements look for: a literal string, a regular expression or a class of characters.
 * SPDX-License-Identifier: MIT */
#ifndef QINS_PATTERN_H
#define QINS_PATTERN_H

#include "text/json_node.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

typedef struct qins_pattern {
    char *literal; /* not empty, or NULL */
    size_t literal_length;
    struct pcre2_real_code_8 *code; /* or NULL */
    bool jit;
    bool (*is_member)(uint32_t c); /* or NULL: matches single characters */
} qins_pattern;

/* Oniguruma's regular expression (Ruby syntax, the dialect of tokenizer.json) in PCRE2's: the classes \s \w are spelt
 * out because the two libraries differ there. What has no exact counterpart is refused by name. `*out` is a
 * NUL-terminated pattern for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE. */
qins_status qins_regex_translate(const qins_node *where, const char *pattern, size_t n, qins_buffer *out,
                                 qins_error *err);

qins_status qins_pattern_literal(const qins_node *where, const char *s, size_t n, qins_pattern *p, qins_error *err);
qins_status qins_pattern_regex(const qins_node *where, const char *regex, size_t n, qins_pattern *p, qins_error *err);
/* {"String": "..."} or {"Regex": "..."}. */
qins_status qins_pattern_load(const qins_node *where, qins_pattern *p, qins_error *err);
void qins_pattern_free(qins_pattern *p);

/* Walks over the matches in a text, from left to right, without overlap. */
typedef struct qins_matches {
    const qins_pattern *pattern;
    struct pcre2_real_match_data_8 *scratch;
    const char *text;
    size_t n_bytes, position, last_end;
} qins_matches;

/* Room for the matcher's results, one for each thread; freed with qins_match_scratch_free. */
struct pcre2_real_match_data_8 *qins_match_scratch_new(void);
void qins_match_scratch_free(struct pcre2_real_match_data_8 *scratch);

/* `text` is valid UTF-8 and outlives the walk. */
void qins_matches_begin(qins_matches *m, const qins_pattern *pattern, struct pcre2_real_match_data_8 *scratch,
                        const char *text, size_t n_bytes);
/* *found is false at the end. Matches may be empty. */
qins_status qins_matches_next(qins_matches *m, size_t *start, size_t *end, bool *found, qins_error *err);

#endif
