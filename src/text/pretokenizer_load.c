/* Pre-tokenizers of tokenizer.json, put down to a few steps. SPDX-License-Identifier: MIT */
#include "text/pretokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 }; /* of Sequences in Sequences */

/* GPT-2's pattern (openai/gpt-2, encoder.py), which ByteLevel has built in. */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* \w+|[^\w\s]+ of Rust's regex, whose words have the two joiners. */
static const char whitespace_pattern[] = "[\\w\\u200C\\u200D]+|[^\\w\\s\\u200C\\u200D]+";

static const char *const behavior_names[] = {"Isolated",       "Removed",    "MergedWithPrevious",
                                             "MergedWithNext", "Contiguous", NULL};

static qins_pretokenizer_step *add_step(qins_pretokenizer *p, qins_error *err) {
    if (p->n_steps == p->capacity) {
        size_t capacity = 2 * p->capacity + 4;
        qins_pretokenizer_step *steps = realloc(p->steps, capacity * sizeof *steps);
        if (steps == NULL) {
            qins_fail_memory(err, capacity * sizeof *steps, "pre-tokenizers");
            return NULL;
        }
        p->steps = steps;
        p->capacity = capacity;
    }
    p->steps[p->n_steps] = (qins_pretokenizer_step){0};
    return &p->steps[p->n_steps++];
}

static qins_status add_class_split(qins_pretokenizer *p, bool (*is_member)(uint32_t), qins_split_behavior behavior,
                                   qins_error *err) {
    qins_pretokenizer_step *step = add_step(p, err);
    if (step == NULL) return QINS_ERR_MEMORY;
    step->pattern.is_member = is_member;
    step->behavior = behavior;
    return QINS_OK;
}

static qins_status add_regex_split(const qins_node *where, qins_pretokenizer *p, const char *regex,
                                   qins_split_behavior behavior, bool invert, qins_error *err) {
    qins_pretokenizer_step *step = add_step(p, err);
    if (step == NULL) return QINS_ERR_MEMORY;
    step->behavior = behavior;
    step->invert = invert;
    return qins_pattern_regex(where, regex, strlen(regex), &step->pattern, err);
}

static qins_status add_char_split(const qins_node *where, qins_pretokenizer *p, uint32_t c,
                                  qins_split_behavior behavior, qins_error *err) {
    char bytes[4];
    size_t n = qins_utf8_encode(c, bytes);
    qins_pretokenizer_step *step = add_step(p, err);
    if (step == NULL) return QINS_ERR_MEMORY;
    step->behavior = behavior;
    return qins_pattern_literal(where, bytes, n, &step->pattern, err);
}

static qins_status add_mark(qins_pretokenizer *p, qins_pretokenizer_kind kind, uint32_t mark, bool only_first,
                            qins_error *err) {
    qins_pretokenizer_step *step = add_step(p, err);
    if (step == NULL) return QINS_ERR_MEMORY;
    step->kind = kind;
    step->mark_length = qins_utf8_encode(mark, step->mark);
    step->only_first = only_first;
    return QINS_OK;
}

static qins_status load_behavior(const qins_node *where, qins_split_behavior *behavior, qins_error *err) {
    size_t choice = 0;
    qins_node field = qins_node_field(where, "behavior");
    qins_status status = qins_node_choice(&field, behavior_names, "behavior", &choice, err);
    *behavior = (qins_split_behavior)choice;
    return status;
}

static qins_status load_byte_level(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    qins_node prefix_node = qins_node_field(where, "add_prefix_space"), regex = qins_node_field(where, "use_regex");
    bool prefix, use_regex = true;
    qins_status status = qins_node_bool(&prefix_node, &prefix, err);
    if (status == QINS_OK && regex.json != NULL) status = qins_node_bool(&regex, &use_regex, err);
    if (status == QINS_OK && prefix) status = add_mark(p, QINS_PRETOKENIZE_PREFIX, ' ', false, err);
    if (status == QINS_OK && use_regex)
        status = add_regex_split(where, p, gpt2_pattern, QINS_SPLIT_ISOLATED, false, err);
    return status == QINS_OK ? add_mark(p, QINS_PRETOKENIZE_TO_CHARS, 0, false, err) : status;
}

static qins_status load_split(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    qins_node pattern = qins_node_field(where, "pattern"), invert = qins_node_field(where, "invert");
    qins_pretokenizer_step *step = add_step(p, err);
    if (step == NULL) return QINS_ERR_MEMORY;
    qins_status status = load_behavior(where, &step->behavior, err);
    if (status == QINS_OK) status = qins_node_bool(&invert, &step->invert, err);
    return status == QINS_OK ? qins_pattern_load(&pattern, &step->pattern, err) : status;
}

static qins_status load_digits(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    qins_node field = qins_node_field(where, "individual_digits");
    bool individual;
    qins_status status = qins_node_bool(&field, &individual, err);
    if (status != QINS_OK) return status;
    return add_class_split(p, qins_is_numeric, individual ? QINS_SPLIT_ISOLATED : QINS_SPLIT_CONTIGUOUS, err);
}

static qins_status load_punctuation(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    qins_split_behavior behavior = QINS_SPLIT_ISOLATED;
    qins_node field = qins_node_field(where, "behavior");
    qins_status status = field.json != NULL ? load_behavior(where, &behavior, err) : QINS_OK;
    return status == QINS_OK ? add_class_split(p, qins_is_punctuation, behavior, err) : status;
}

static qins_status load_whitespace(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    return add_regex_split(where, p, whitespace_pattern, QINS_SPLIT_REMOVED, true, err);
}

static qins_status load_whitespace_split(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    (void)where;
    return add_class_split(p, qins_is_whitespace, QINS_SPLIT_REMOVED, err);
}

static qins_status load_delimiter(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    qins_node field = qins_node_field(where, "delimiter");
    uint32_t c;
    qins_status status = qins_node_char(&field, &c, err);
    return status == QINS_OK ? add_char_split(&field, p, c, QINS_SPLIT_REMOVED, err) : status;
}

qins_status qins_prepend_scheme(const qins_node *metaspace, size_t *scheme, qins_error *err) {
    static const char *const names[] = {"always", "first", "never", NULL};
    enum { ALWAYS, NEVER = 2 };
    qins_node field = qins_node_field(metaspace, "prepend_scheme");
    qins_node legacy = qins_node_field(metaspace, "add_prefix_space");
    bool prefix = true;
    *scheme = ALWAYS;
    qins_status status = QINS_OK;
    if (field.json != NULL) status = qins_node_choice(&field, names, "prepend scheme", scheme, err);
    if (status == QINS_OK && !qins_node_is_null(&legacy)) status = qins_node_bool(&legacy, &prefix, err);
    if (status != QINS_OK || prefix) return status;
    if (field.json != NULL && *scheme != NEVER)
        return qins_node_fail(&legacy, QINS_ERR_FORMAT, err, "false contradicts prepend_scheme \"%s\"", names[*scheme]);
    if (field.json == NULL)
        return qins_node_fail(&legacy, QINS_ERR_FORMAT, err, "false needs prepend_scheme \"never\"");
    return QINS_OK;
}

static qins_status load_metaspace(const qins_node *where, qins_pretokenizer *p, qins_error *err) {
    qins_node mark_node = qins_node_field(where, "replacement"), split_node = qins_node_field(where, "split");
    uint32_t mark = 0;
    size_t scheme = 0; /* always, first, never */
    bool split = true;
    qins_status status = qins_node_char(&mark_node, &mark, err);
    if (status == QINS_OK) status = qins_prepend_scheme(where, &scheme, err);
    if (status == QINS_OK && !qins_node_is_null(&split_node)) status = qins_node_bool(&split_node, &split, err);
    if (status == QINS_OK) status = add_mark(p, QINS_PRETOKENIZE_SPACES, mark, false, err);
    if (status == QINS_OK && scheme != 2) status = add_mark(p, QINS_PRETOKENIZE_PREFIX, mark, scheme == 1, err);
    if (status == QINS_OK && split) status = add_char_split(where, p, mark, QINS_SPLIT_MERGED_WITH_NEXT, err);
    return status;
}

static const char *const kind_names[] = {
    "Sequence",        "ByteLevel",          "Split",     "Digits",    "Punctuation", "Whitespace",
    "WhitespaceSplit", "CharDelimiterSplit", "Delimiter", "Metaspace", NULL};
static qins_status (*const loaders[])(const qins_node *where, qins_pretokenizer *p,
                                      qins_error *err) = {NULL,
                                                          load_byte_level,
                                                          load_split,
                                                          load_digits,
                                                          load_punctuation,
                                                          load_whitespace,
                                                          load_whitespace_split,
                                                          load_delimiter,
                                                          load_delimiter,
                                                          load_metaspace};

static qins_status load_one(const qins_node *where, qins_pretokenizer *p, int depth, qins_error *err) {
    size_t kind = 0, n = 0;
    qins_status status = qins_node_object(where, err);
    qins_node type = qins_node_field(where, "type");
    if (status == QINS_OK) status = qins_node_choice(&type, kind_names, "pre-tokenizer", &kind, err);
    if (status != QINS_OK) return status;
    if (kind != 0) return loaders[kind](where, p, err);
    if (depth == MAX_DEPTH) return qins_node_fail(where, QINS_ERR_FORMAT, err, "Sequences are nested too deeply");
    qins_node list = qins_node_field(where, "pretokenizers");
    status = qins_node_array(&list, &n, err);
    for (size_t i = 0; i < n && status == QINS_OK; i++) {
        qins_node item = qins_node_item(&list, i);
        status = load_one(&item, p, depth + 1, err);
    }
    return status;
}

qins_status qins_pretokenizer_load(const qins_node *where, qins_pretokenizer *pretokenizer, qins_error *err) {
    *pretokenizer = (qins_pretokenizer){0};
    if (qins_node_is_null(where)) return QINS_OK;
    qins_status status = load_one(where, pretokenizer, 0, err);
    if (status != QINS_OK) {
        qins_pretokenizer_free(pretokenizer);
        return status;
    }
    size_t n = pretokenizer->n_steps;
    if (n > 0 && pretokenizer->steps[n - 1].kind == QINS_PRETOKENIZE_TO_CHARS) {
        pretokenizer->n_steps--;
        pretokenizer->gives_bytes = true;
    }
    return QINS_OK;
}

void qins_pretokenizer_free(qins_pretokenizer *pretokenizer) {
    for (size_t i = 0; i < pretokenizer->n_steps; i++)
        qins_pattern_free(&pretokenizer->steps[i].pattern);
    free(pretokenizer->steps);
    *pretokenizer = (qins_pretokenizer){0};
}
