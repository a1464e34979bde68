/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 48, MAX_NAME = 63, HELP_WIDTH = 80, HELP_INDENT = 24 };

int usage_error(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fputs("qins: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return EXIT_USAGE;
}

int options_exit_status(parse_outcome outcome) {
    return outcome == PARSE_BAD ? EXIT_USAGE : EXIT_DONE;
}

/* ---- nearest name ---- */

static size_t min3(size_t a, size_t b, size_t c) {
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

size_t edit_distance(const char *a, const char *b) {
    size_t n = strnlen(a, MAX_NAME), m = strnlen(b, MAX_NAME);
    /* Three rows of the table: i - 2 (for swaps), i - 1 and i. */
    size_t rows[3][MAX_NAME + 1];
    size_t *two_up = rows[0], *up = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *recycled = two_up;
        two_up = up, up = row, row = recycled;
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = min3(up[j] + 1, row[j - 1] + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && two_up[j - 2] + 1 < row[j]) row[j] = two_up[j - 2] + 1;
        }
    }
    return row[m];
}

const char *nearest_name(const char *text, const char *const *candidates) {
    const char *best = NULL;
    size_t length = strlen(text), best_distance = 0;
    /* A third of the letters may be wrong; more is another word. */
    size_t tolerance = length < 3 ? 1 : length / 3 > 3 ? 3 : (length + 1) / 3;
    for (; *candidates != NULL; candidates++) {
        size_t d = edit_distance(text, *candidates);
        bool is_start = length >= 3 && strncmp(text, *candidates, length) == 0;
        if (is_start) d = 1;
        if (d <= tolerance && d < strlen(*candidates) && (best == NULL || d < best_distance)) {
            best = *candidates;
            best_distance = d;
        }
    }
    return best;
}

/* ---- values ---- */

bool parse_real(const char *text, double *value) {
    char *end = NULL;
    bool begins_well = (*text >= '0' && *text <= '9') || *text == '.' || *text == '-' || *text == '+';
    if (!begins_well) return false;
    errno = 0;
    double v = strtod(text, &end);
    if (*end != '\0' || end == text || !isfinite(v)) return false;
    *value = v;
    return true;
}

bool parse_u64(const char *text, uint64_t *value) {
    char *end = NULL;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (*end != '\0' || errno == ERANGE) return false;
    *value = v;
    return true;
}

static parse_outcome bad_range(const option *o, const char *text) {
    if (o->max > 0)
        usage_error("option '--%s' takes a number from %g to %g, not '%s'", o->name, o->min, o->max, text);
    else
        usage_error("option '--%s' takes a number of at least %g, not '%s'", o->name, o->min, text);
    return PARSE_BAD;
}

static parse_outcome bad_choice(const option *o, const char *text, const char *expects) {
    const char *meant = o->choices != NULL ? nearest_name(text, o->choices) : NULL;
    if (meant != NULL)
        usage_error("option '--%s' does not know '%s' - did you mean '%s'?", o->name, text, meant);
    else
        usage_error("option '--%s' takes %s, not '%s'", o->name, expects, text);
    return PARSE_BAD;
}

static parse_outcome set_choice(const option *o, const char *text) {
    char all[256] = "";
    for (int i = 0; o->choices[i] != NULL; i++) {
        if (strcmp(o->choices[i], text) == 0) {
            *(int *)o->value = i;
            return PARSE_GO;
        }
        size_t used = strlen(all);
        const char *joint = i == 0 ? "" : o->choices[i + 1] == NULL ? " or " : ", ";
        snprintf(all + used, sizeof all - used, "%s%s", joint, o->choices[i]);
    }
    return bad_choice(o, text, all);
}

static parse_outcome set_number(const option *o, const char *text) {
    double real = 0;
    uint64_t whole = 0;
    bool ok = o->kind == OPTION_REAL ? parse_real(text, &real) : parse_u64(text, &whole);
    if (o->kind != OPTION_REAL) real = (double)whole;
    if (!ok || real < o->min || (o->max > 0 && real > o->max)) return bad_range(o, text);
    if (o->kind == OPTION_REAL)
        *(double *)o->value = real;
    else if (o->kind == OPTION_INT)
        *(int *)o->value = (int)whole;
    else if (o->kind == OPTION_U64)
        *(uint64_t *)o->value = whole;
    else
        *(size_t *)o->value = (size_t)whole;
    return PARSE_GO;
}

static parse_outcome set_value(const option *o, const char *text) {
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->value = true;
        return PARSE_GO;
    case OPTION_TEXT:
        *(const char **)o->value = text;
        return PARSE_GO;
    case OPTION_CHOICE:
        return set_choice(o, text);
    case OPTION_PARSED:
        return o->parse(text, o->value) ? PARSE_GO : bad_choice(o, text, o->expects);
    default:
        return set_number(o, text);
    }
}

/* ---- help ---- */

/* Prints text from column `column`, broken at blanks before HELP_WIDTH and continued at `indent`. */
static void print_wrapped(const char *text, size_t column, size_t indent) {
    size_t line_start = column;
    for (size_t word; (word = strcspn(text, " ")) > 0; text += word, text += *text == ' ') {
        if (column > line_start && column + 1 + word > HELP_WIDTH) {
            printf("\n%*s", (int)indent, "");
            column = line_start = indent;
        } else if (column > line_start) {
            fputc(' ', stdout);
            column++;
        }
        printf("%.*s", (int)word, text);
        column += word;
    }
    fputc('\n', stdout);
}

static void print_help(const command_syntax *syntax) {
    printf("Usage: qins %s", syntax->name);
    for (const char *const *p = syntax->positionals; *p != NULL; p++)
        printf(" %s", *p);
    printf(" [options]\n\n");
    print_wrapped(syntax->description, 0, 0);
    printf("\nOptions:\n");
    for (const option *o = syntax->options; o->name != NULL; o++) {
        char left[64];
        char letter[] = {'-', o->letter, ',', ' ', '\0'};
        snprintf(left, sizeof left, "  %s--%s%s%s", o->letter != 0 ? letter : "", o->name,
                 o->value_name != NULL ? " " : "", o->value_name != NULL ? o->value_name : "");
        size_t used = strlen(left);
        if (used + 1 > HELP_INDENT) {
            printf("%s\n%*s", left, HELP_INDENT, "");
        } else {
            printf("%-*s", HELP_INDENT, left);
        }
        print_wrapped(o->help, HELP_INDENT, HELP_INDENT);
    }
    if (syntax->footer != NULL) printf("\n%s\n", syntax->footer);
}

/* ---- arguments ---- */

static const option *find_option(const option *options, const char *name, size_t length) {
    for (; options->name != NULL; options++) {
        bool same_name = strlen(options->name) == length && strncmp(options->name, name, length) == 0;
        if (same_name || (length == 1 && options->letter != 0 && options->letter == name[0])) return options;
    }
    return NULL;
}

static parse_outcome unknown_option(const command_syntax *syntax, const char *argument) {
    char given[MAX_NAME + 1];
    const char *names[MAX_OPTIONS + 1];
    size_t n = 0;
    const char *start = argument + strspn(argument, "-");
    snprintf(given, sizeof given, "%.*s", (int)strcspn(start, "="), start);
    for (const option *o = syntax->options; o->name != NULL && n < MAX_OPTIONS; o++)
        names[n++] = o->name;
    names[n] = NULL;
    const char *meant = nearest_name(given, names);
    int shown = (int)strcspn(argument, "=");
    if (meant != NULL)
        usage_error("unknown option '%.*s' - did you mean '--%s'?", shown, argument, meant);
    else
        usage_error("unknown option '%.*s' (see 'qins %s --help')", shown, argument, syntax->name);
    return PARSE_BAD;
}

/* Handles argv[*i], which begins with a dash; moves *i on when it takes the next argument as its value. */
static parse_outcome parse_option(const command_syntax *syntax, int argc, char **argv, int *i) {
    const char *argument = argv[*i];
    bool is_long = argument[1] == '-';
    const char *name = argument + (is_long ? 2 : 1);
    size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    const option *o = (length > 1) == is_long ? find_option(syntax->options, name, length) : NULL;
    if (o == NULL) return unknown_option(syntax, argument);
    if (o->kind == OPTION_FLAG) {
        if (value == NULL) return set_value(o, NULL);
        usage_error("option '--%s' takes no value", o->name);
        return PARSE_BAD;
    }
    if (value == NULL) {
        bool missing = *i + 1 >= argc || (o->kind == OPTION_TEXT && strncmp(argv[*i + 1], "--", 2) == 0);
        if (missing) {
            usage_error("option '--%s' needs a value: --%s %s", o->name, o->name, o->value_name);
            return PARSE_BAD;
        }
        value = argv[++*i];
    }
    return set_value(o, value);
}

parse_outcome options_parse(const command_syntax *syntax, const common_options *common, int argc, char **argv,
                            const char **positionals) {
    size_t n_positionals = 0, n_given = 0;
    while (syntax->positionals[n_positionals] != NULL)
        positionals[n_positionals++] = NULL;
    bool options_over = false;
    for (int i = 0; i < argc; i++) {
        bool is_option = !options_over && argv[i][0] == '-' && argv[i][1] != '\0';
        if (is_option && strcmp(argv[i], "--") == 0) {
            options_over = true;
        } else if (is_option) {
            if (parse_option(syntax, argc, argv, &i) == PARSE_BAD) return PARSE_BAD;
        } else if (n_given < n_positionals) {
            positionals[n_given++] = argv[i];
        } else {
            usage_error("unexpected argument '%s' (see 'qins %s --help')", argv[i], syntax->name);
            return PARSE_BAD;
        }
    }
    if (common->help) {
        print_help(syntax);
        return PARSE_HELP_SHOWN;
    }
    if (n_given < n_positionals && syntax->positionals[n_given][0] != '[') {
        usage_error("'qins %s' needs %s (see 'qins %s --help')", syntax->name, syntax->positionals[n_given],
                    syntax->name);
        return PARSE_BAD;
    }
    return PARSE_GO;
}
