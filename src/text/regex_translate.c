/* Oniguruma's regular expressions (Ruby syntax) in PCRE2's. SPDX-License-Identifier: MIT */
#include "text/pattern.h"
#include "text/utf8.h"

#include <string.h>

enum { MAX_DEPTH = 100 }; /* nested groups */

/* The classes as they stand between [ and ]. Oniguruma follows Unicode's White_Space, and Annex C of UTS 18 (without
 * joiners) for words; PCRE2's own \s has U+180E too, and its \w depends on the version. */
#define SPACE "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                                      \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"        \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Outside of a class Oniguruma looks characters of Latin-1 up in a table of its own, with superscripts and fractions.
 */
#define WORD_ALONE WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

typedef struct translator {
    const qins_node *where;
    qins_error *err;
    const char *p, *end;
    qins_buffer *out;
    size_t atom; /* where in `out` the last thing that can be repeated begins, or NO_ATOM */
    size_t group_start[MAX_DEPTH];
    bool group_caseless[MAX_DEPTH]; /* of the group around, restored at its end */
    int depth;
    bool caseless;
    char last_letter; /* the letter before, in a caseless group */
} translator;

static const size_t NO_ATOM = SIZE_MAX;

static qins_status refuse(const translator *t, const char *what) {
    return qins_node_fail(t->where, QINS_ERR_UNSUPPORTED, t->err, "regular expression: %s is not supported", what);
}

static qins_status malformed(const translator *t, const char *what) {
    return qins_node_fail(t->where, QINS_ERR_FORMAT, t->err, "regular expression: %s", what);
}

static void emit(translator *t, const char *s) {
    qins_buffer_add(t->out, s, strlen(s));
}

static void emit_atom(translator *t, const char *s) {
    t->atom = t->out->size;
    emit(t, s);
}

static void emit_char(translator *t, uint32_t c) {
    qins_buffer_printf(t->out, "\\x{%x}", (unsigned)c);
}

/* Oniguruma lets "ss" match U+00DF and the like where case is ignored; PCRE2 does not. */
static bool folds_to_one_char(char a, char b) {
    a = (char)(a | 0x20);
    b = (char)(b | 0x20);
    return (a == 's' && (b == 's' || b == 't')) || (a == 'f' && (b == 'f' || b == 'i' || b == 'l'));
}

static qins_status literal(translator *t, uint32_t c) {
    if (t->caseless) {
        if (c >= 0x80) return refuse(t, "a letter outside ASCII where case is ignored");
        if (folds_to_one_char(t->last_letter, (char)c)) return refuse(t, "ss, st, ff, fi or fl where case is ignored");
        t->last_letter = (char)c;
    }
    t->atom = t->out->size;
    emit_char(t, c);
    return QINS_OK;
}

/* General categories have the same names in both libraries; scripts need "sc:", without which PCRE2 takes the script
 * extensions. */
static const char *const categories[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
                                         "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
                                         "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cs", "Co"};
static const char *const scripts[] = {"Han",    "Hiragana", "Katakana", "Hangul",     "Latin", "Greek",   "Cyrillic",
                                      "Arabic", "Hebrew",   "Thai",     "Devanagari", "Lao",   "Tibetan", "Khmer"};

static qins_status property(translator *t, bool negated) {
    const char *close = t->p < t->end && *t->p == '{' ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
    if (close == NULL) return malformed(t, "expected {NAME} after \\p");
    const char *name = t->p + 1;
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    int n = (int)(close - name);
    t->p = close + 1;
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++) {
        if (strlen(categories[i]) != (size_t)n || memcmp(categories[i], name, (size_t)n) != 0) continue;
        if (t->caseless && categories[i][0] == 'L' && categories[i][1] != '\0')
            return refuse(t, "a case of letters (\\p{Lu}, \\p{Ll}, \\p{Lt}) where case is ignored");
        qins_buffer_printf(t->out, "\\%c{%s}", negated ? 'P' : 'p', categories[i]);
        return QINS_OK;
    }
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        if (strlen(scripts[i]) != (size_t)n || memcmp(scripts[i], name, (size_t)n) != 0) continue;
        qins_buffer_printf(t->out, "\\%c{sc:%s}", negated ? 'P' : 'p', scripts[i]);
        return QINS_OK;
    }
    return qins_node_fail(t->where, QINS_ERR_UNSUPPORTED, t->err,
                          "regular expression: property \\p{%.*s} is not supported", n > 40 ? 40 : n, name);
}

static qins_status hexadecimal(translator *t, size_t min, size_t max, uint32_t *c) {
    size_t n = 0;
    for (*c = 0; n < max && t->p < t->end; n++, t->p++) {
        char d = *t->p;
        uint32_t digit;
        if (d >= '0' && d <= '9')
            digit = (uint32_t)(d - '0');
        else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
            digit = (uint32_t)((d | 0x20) - 'a' + 10);
        else
            break;
        *c = *c << 4 | digit;
    }
    if (n < min || *c > 0x10FFFF || (*c >= 0xD800 && *c <= 0xDFFF))
        return malformed(t, "expected a hexadecimal character number");
    return QINS_OK;
}

/* A backslash escape that stands for one character; *is_char is false, and t->p unmoved, for any other. */
static qins_status char_escape(translator *t, uint32_t *c, bool *is_char) {
    static const char letters[] = "nrtfvae", values[] = "\n\r\t\f\v\a\x1b";
    const char *start = t->p;
    *is_char = true;
    if (start == t->end) return malformed(t, "ends with a backslash");
    size_t length = qins_utf8_length(*start);
    char letter = *start;
    t->p += length;
    const char *found = memchr(letters, letter, sizeof letters - 1);
    if (found != NULL) {
        *c = (uint32_t)values[found - letters];
        return QINS_OK;
    }
    if (letter == 'u') return hexadecimal(t, 4, 4, c);
    if (letter == 'x') {
        if (t->p == t->end || *t->p != '{') return hexadecimal(t, 2, 2, c);
        t->p++;
        qins_status status = hexadecimal(t, 1, 6, c);
        if (status != QINS_OK) return status;
        if (t->p == t->end || *t->p != '}') return malformed(t, "expected } after \\x{");
        t->p++;
        return QINS_OK;
    }
    if (((letter | 0x20) >= 'a' && (letter | 0x20) <= 'z') || (letter >= '0' && letter <= '9')) {
        *is_char = false;
        t->p = start;
        return QINS_OK;
    }
    *c = qins_utf8_decode(start);
    return QINS_OK;
}

/* \s, \S, \d, \D, \w, \p, \P between [ and ]. */
static qins_status class_escape(translator *t) {
    char letter = *t->p++;
    switch (letter) {
    case 's':
        emit(t, SPACE);
        return QINS_OK;
    case 'S':
        emit(t, NOT_SPACE);
        return QINS_OK;
    case 'd':
        emit(t, "\\p{Nd}");
        return QINS_OK;
    case 'D':
        emit(t, "\\P{Nd}");
        return QINS_OK;
    case 'w':
        emit(t, WORD);
        return QINS_OK;
    case 'p':
    case 'P':
        return property(t, letter == 'P');
    default:
        break;
    }
    char what[] = "\\? in a class";
    what[1] = letter;
    return refuse(t, what);
}

/* One end of a range, or a character on its own. */
static qins_status class_char(translator *t, uint32_t *c, bool *is_char) {
    *is_char = true;
    if (*t->p == '\\') {
        t->p++;
        return char_escape(t, c, is_char);
    }
    *c = qins_utf8_decode(t->p);
    t->p += qins_utf8_length(*t->p);
    return QINS_OK;
}

static qins_status class_item(translator *t) {
    if (*t->p == '[') return refuse(t, t->p + 1 < t->end && t->p[1] == ':' ? "a POSIX class" : "a class in a class");
    if (t->p + 1 < t->end && t->p[0] == '&' && t->p[1] == '&') return refuse(t, "&& in a class");
    uint32_t first, last;
    bool is_char;
    qins_status status = class_char(t, &first, &is_char);
    if (status != QINS_OK) return status;
    if (!is_char) return class_escape(t);
    if (t->caseless && first >= 0x80) return refuse(t, "a letter outside ASCII where case is ignored");
    emit_char(t, first);
    if (t->p + 1 >= t->end || t->p[0] != '-' || t->p[1] == ']') return QINS_OK;
    t->p++;
    if (*t->p == '[') return refuse(t, "a class in a class");
    status = class_char(t, &last, &is_char);
    if (status != QINS_OK) return status;
    if (!is_char || last < first) return malformed(t, "a range in a class has no end");
    emit(t, "-");
    emit_char(t, last);
    return QINS_OK;
}

static qins_status class(translator *t) {
    emit_atom(t, "[");
    if (t->p < t->end && *t->p == '^') {
        emit(t, "^");
        t->p++;
    }
    if (t->p < t->end && *t->p == ']') return refuse(t, "] at the start of a class");
    while (t->p < t->end && *t->p != ']') {
        qins_status status = class_item(t);
        if (status != QINS_OK) return status;
    }
    if (t->p == t->end) return malformed(t, "a class has no ]");
    t->p++;
    emit(t, "]");
    return QINS_OK;
}

static qins_status escape(translator *t) {
    uint32_t c;
    bool is_char;
    qins_status status = char_escape(t, &c, &is_char);
    if (status != QINS_OK) return status;
    if (is_char) return literal(t, c);
    static const struct {
        char letter;
        bool repeatable;
        const char *pcre2;
    } escapes[] = {
        {'s', true, "[" SPACE "]"},
        {'S', true, "[^" SPACE "]"},
        {'d', true, "\\p{Nd}"},
        {'D', true, "\\P{Nd}"},
        {'w', true, "[" WORD_ALONE "]"},
        {'W', true, "[^" WORD_ALONE "]"},
        {'b', false, "(?:(?<=[" WORD_ALONE "])(?![" WORD_ALONE "])|(?<![" WORD_ALONE "])(?=[" WORD_ALONE "]))"},
        {'B', false, "(?:(?<=[" WORD_ALONE "])(?=[" WORD_ALONE "])|(?<![" WORD_ALONE "])(?![" WORD_ALONE "]))"},
        {'A', false, "\\A"},
        {'z', false, "\\z"},
        {'Z', false, "(?=\\n?\\z)"}};
    char letter = *t->p++;
    if (letter == 'p' || letter == 'P') {
        t->atom = t->out->size;
        return property(t, letter == 'P');
    }
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        if (escapes[i].letter != letter) continue;
        emit_atom(t, escapes[i].pcre2);
        if (!escapes[i].repeatable) t->atom = NO_ATOM;
        return QINS_OK;
    }
    char what[] = "\\?";
    what[1] = letter;
    return refuse(t, what);
}

/* Options such as (?i:...) and (?i); Ruby's m is PCRE2's s: "." matches a newline too. */
static qins_status group_options(translator *t, bool *opens_group) {
    bool on = true;
    for (; t->p < t->end && *t->p != ':' && *t->p != ')'; t->p++) {
        if (*t->p == '-') {
            on = false;
        } else if (*t->p == 'i') {
            t->caseless = on;
        } else if (*t->p == 'm') {
            qins_buffer_printf(t->out, on ? "(?s)" : "(?-s)");
        } else {
            return refuse(t, "this kind of group");
        }
    }
    if (t->p == t->end) return malformed(t, "a group has no )");
    *opens_group = *t->p++ == ':';
    qins_buffer_printf(t->out, t->caseless ? "(?i)" : "(?-i)");
    return QINS_OK;
}

static qins_status open_group(translator *t, const char *pattern) {
    static const char *const plain[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    if (t->depth == MAX_DEPTH) return refuse(t, "this depth of groups");
    size_t start = t->out->size;
    bool caseless = t->caseless, opens_group = true;
    size_t left = (size_t)(t->end - t->p);
    if (left > 0 && *t->p == '*') return refuse(t, "(*");
    if (left > 0 && *t->p == '?') {
        size_t i = 0, n_plain = sizeof plain / sizeof *plain;
        while (i < n_plain && (strlen(plain[i]) > left || memcmp(plain[i], t->p, strlen(plain[i])) != 0))
            i++;
        if (i < n_plain) {
            t->p += strlen(plain[i]);
            qins_buffer_printf(t->out, "(%s", plain[i]);
        } else {
            bool at_start = t->p - 1 == pattern;
            t->p++;
            emit(t, "(?:");
            qins_status status = group_options(t, &opens_group);
            if (status != QINS_OK) return status;
            if (!opens_group) {
                if (!at_start) return refuse(t, "(?i) after the start of the pattern");
                t->out->size = start; /* for the whole pattern: no group */
                if (t->caseless) emit(t, "(?i)");
                return QINS_OK;
            }
        }
    } else {
        emit(t, "(?:"); /* nothing refers back to groups */
    }
    t->group_start[t->depth] = start;
    t->group_caseless[t->depth++] = caseless;
    t->atom = NO_ATOM;
    return QINS_OK;
}

static qins_status close_group(translator *t) {
    if (t->depth == 0) return malformed(t, "a ) without a (");
    emit(t, ")");
    t->atom = t->group_start[--t->depth];
    t->caseless = t->group_caseless[t->depth];
    return QINS_OK;
}

static void wrap_atom(translator *t, const char *repeat, size_t n) {
    qins_buffer wrapped = {0};
    qins_buffer_printf(&wrapped, "(?:%s%.*s)", t->out->data + t->atom, (int)n, repeat);
    t->out->size = t->atom;
    qins_buffer_add(t->out, wrapped.data, wrapped.size);
    t->out->failed |= wrapped.failed;
    qins_buffer_free(&wrapped);
}

/* {n}, {n,}, {,m} or {n,m} at t->p, as PCRE2 writes it; false when the { is a literal. */
static bool interval(translator *t, char out[32], bool *fixed) {
    unsigned long bound[2] = {0, 0};
    bool given[2] = {false, false};
    const char *p = t->p;
    int side = 0;
    for (; p < t->end && *p != '}'; p++) {
        if (*p == ',' && side == 0) {
            side = 1;
        } else if (*p >= '0' && *p <= '9' && bound[side] < 10000) {
            bound[side] = bound[side] * 10 + (unsigned long)(*p - '0');
            given[side] = true;
        } else {
            return false;
        }
    }
    if (p == t->end || (!given[0] && !given[1])) return false;
    t->p = p + 1;
    *fixed = side == 0;
    if (side == 0)
        snprintf(out, 32, "{%lu}", bound[0]);
    else if (given[1])
        snprintf(out, 32, "{%lu,%lu}", bound[0], bound[1]);
    else
        snprintf(out, 32, "{%lu,}", bound[0]);
    return true;
}

static qins_status repeat(translator *t, char c) {
    char range[32] = {c, '\0'};
    bool is_interval = c == '{', fixed = false;
    if (is_interval && !interval(t, range, &fixed)) return literal(t, '{');
    if (t->atom == NO_ATOM) return refuse(t, "a repeat with nothing to repeat");
    char next = t->p < t->end ? *t->p : '\0';
    if (is_interval && (next == '+' || (next == '?' && fixed))) {
        /* Ruby: x{1,3}+ is (?:x{1,3})+, not possessive; x{3}? is (?:x{3})?, not lazy */
        wrap_atom(t, range, strlen(range));
        emit(t, next == '+' ? "+" : "?");
        t->p++;
    } else {
        emit(t, range);
        if (next == '+' || next == '?') {
            emit(t, next == '+' ? "+" : "?");
            t->p++;
        }
    }
    if (t->p < t->end && (*t->p == '*' || *t->p == '+' || *t->p == '?')) return refuse(t, "a repeat of a repeat");
    t->atom = NO_ATOM;
    t->last_letter = '\0';
    return QINS_OK;
}

static qins_status translate_one(translator *t, const char *pattern) {
    char c = *t->p;
    char before = t->last_letter;
    t->last_letter = '\0';
    switch (c) {
    case '\\':
        t->p++;
        t->last_letter = before;
        return escape(t);
    case '[':
        t->p++;
        return class(t);
    case '(':
        t->p++;
        return open_group(t, pattern);
    case ')':
        t->p++;
        return close_group(t);
    case '*':
    case '+':
    case '?':
    case '{':
        t->p++;
        return repeat(t, c);
    case '|':
        t->p++;
        emit(t, "|");
        t->atom = NO_ATOM;
        return QINS_OK;
    case '.':
        t->p++;
        emit_atom(t, ".");
        return QINS_OK;
    case '^':
        t->p++;
        emit(t, "^");
        t->atom = NO_ATOM;
        return QINS_OK;
    case '$':
        t->p++;
        emit(t, "$");
        t->atom = NO_ATOM;
        return QINS_OK;
    default:
        break;
    }
    t->last_letter = before;
    uint32_t value = qins_utf8_decode(t->p);
    t->p += qins_utf8_length(c);
    return literal(t, value);
}

qins_status qins_regex_translate(const qins_node *where, const char *pattern, size_t n, qins_buffer *out,
                                 qins_error *err) {
    translator t = {.where = where, .err = err, .p = pattern, .end = pattern + n, .out = out, .atom = NO_ATOM};
    qins_buffer_add(out, "", 0);
    while (t.p < t.end && !out->failed) {
        qins_status status = translate_one(&t, pattern);
        if (status != QINS_OK) return status;
    }
    if (t.depth > 0) return malformed(&t, "a group has no )");
    return out->failed ? qins_fail_memory(err, out->size, "a regular expression") : QINS_OK;
}
