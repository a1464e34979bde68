/* What splits and replacements look for, and the walk over its matches. SPDX-License-Identifier: MIT */
#include "text/pattern.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* PCRE2 10.42 makes \P{N}* before \P{L} possessive, which loses matches: that optimisation stays off. */
static const uint32_t COMPILE_OPTIONS = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_POSSESS;

qins_status qins_pattern_regex(const qins_node *where, const char *regex, size_t n, qins_pattern *p, qins_error *err) {
    *p = (qins_pattern){0};
    qins_buffer translated = {0};
    qins_status status = qins_regex_translate(where, regex, n, &translated, err);
    pcre2_compile_context *context = NULL;
    if (status != QINS_OK) goto done;
    context = pcre2_compile_context_create(NULL);
    if (context == NULL) {
        status = qins_fail_memory(err, translated.size, "a regular expression");
        goto done;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF); /* what "." leaves out and "^" follows, as in Oniguruma */
    int code;
    PCRE2_SIZE offset;
    p->code = pcre2_compile((PCRE2_SPTR)translated.data, translated.size, COMPILE_OPTIONS, &code, &offset, context);
    if (p->code == NULL) {
        PCRE2_UCHAR message[160];
        pcre2_get_error_message(code, message, sizeof message);
        status = qins_node_fail(where, QINS_ERR_UNSUPPORTED, err, "regular expression: %s", (const char *)message);
        goto done;
    }
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
done:
    pcre2_compile_context_free(context);
    qins_buffer_free(&translated);
    return status;
}

qins_status qins_pattern_literal(const qins_node *where, const char *s, size_t n, qins_pattern *p, qins_error *err) {
    if (n == 0) return qins_pattern_regex(where, "", 0, p, err); /* matches between all characters, as tokenizers' */
    *p = (qins_pattern){.literal = qins_alloc(n, 1), .literal_length = n};
    if (p->literal == NULL) return qins_fail_memory(err, n, "a pattern");
    memcpy(p->literal, s, n);
    return QINS_OK;
}

qins_status qins_pattern_load(const qins_node *where, qins_pattern *p, qins_error *err) {
    *p = (qins_pattern){0};
    const char *s;
    size_t n;
    qins_status status = qins_node_object(where, err);
    if (status != QINS_OK) return status;
    qins_node literal = qins_node_field(where, "String"), regex = qins_node_field(where, "Regex");
    if (literal.json != NULL) {
        status = qins_node_string(&literal, &s, &n, err);
        return status == QINS_OK ? qins_pattern_literal(&literal, s, n, p, err) : status;
    }
    if (regex.json == NULL)
        return qins_node_fail(where, QINS_ERR_FORMAT, err, "expected a field \"String\" or \"Regex\"");
    status = qins_node_string(&regex, &s, &n, err);
    return status == QINS_OK ? qins_pattern_regex(&regex, s, n, p, err) : status;
}

void qins_pattern_free(qins_pattern *p) {
    free(p->literal);
    pcre2_code_free(p->code);
    *p = (qins_pattern){0};
}

struct pcre2_real_match_data_8 *qins_match_scratch_new(void) {
    return pcre2_match_data_create(1, NULL); /* translated patterns have no groups that capture */
}

void qins_match_scratch_free(struct pcre2_real_match_data_8 *scratch) {
    pcre2_match_data_free(scratch);
}

void qins_matches_begin(qins_matches *m, const qins_pattern *pattern, struct pcre2_real_match_data_8 *scratch,
                        const char *text, size_t n_bytes) {
    *m = (qins_matches){.pattern = pattern, .scratch = scratch, .text = text, .n_bytes = n_bytes, .last_end = SIZE_MAX};
}

static bool next_literal(qins_matches *m, size_t *start, size_t *end) {
    const qins_pattern *p = m->pattern;
    const char *at = memmem(m->text + m->position, m->n_bytes - m->position, p->literal, p->literal_length);
    if (at == NULL) return false;
    *start = (size_t)(at - m->text);
    *end = m->position = *start + p->literal_length;
    return true;
}

static bool next_member(qins_matches *m, size_t *start, size_t *end) {
    while (m->position < m->n_bytes) {
        *start = m->position;
        *end = m->position += qins_utf8_length(m->text[m->position]);
        if (m->pattern->is_member(qins_utf8_decode(m->text + *start))) return true;
    }
    return false;
}

/* One search. The JIT compiler's matcher has a fixed stack; what does not fit goes to the interpreter, which uses the
 * heap. */
static int search(const qins_matches *m) {
    PCRE2_SPTR text = (PCRE2_SPTR)m->text;
    if (m->pattern->jit) {
        int rc = pcre2_jit_match(m->pattern->code, text, m->n_bytes, m->position, 0, m->scratch, NULL);
        if (rc != PCRE2_ERROR_JIT_STACKLIMIT) return rc;
    }
    return pcre2_match(m->pattern->code, text, m->n_bytes, m->position, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->scratch,
                       NULL);
}

/* Empty matches right after a match do not count: the search goes on one character later. */
static qins_status next_regex(qins_matches *m, size_t *start, size_t *end, bool *found, qins_error *err) {
    *found = false;
    while (m->position <= m->n_bytes) {
        int rc = search(m);
        if (rc == PCRE2_ERROR_NOMATCH) return QINS_OK;
        if (rc < 0) {
            PCRE2_UCHAR message[160];
            pcre2_get_error_message(rc, message, sizeof message);
            return qins_fail(err, rc == PCRE2_ERROR_NOMEMORY ? QINS_ERR_MEMORY : QINS_ERR_UNSUPPORTED,
                             "tokenizer: a regular expression could not be matched: %s", (const char *)message);
        }
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(m->scratch);
        *start = range[0];
        *end = range[1];
        if (*start != *end || *end != m->last_end) {
            m->position = m->last_end = *end;
            *found = true;
            return QINS_OK;
        }
        m->position += m->position < m->n_bytes ? qins_utf8_length(m->text[m->position]) : 1;
    }
    return QINS_OK;
}

qins_status qins_matches_next(qins_matches *m, size_t *start, size_t *end, bool *found, qins_error *err) {
    if (m->pattern->code != NULL) return next_regex(m, start, end, found, err);
    *found = m->pattern->literal != NULL ? next_literal(m, start, end) : next_member(m, start, end);
    return QINS_OK;
}
