/* Long options from a table, with typed values and the nearest valid name for a misspelt one. SPDX-License-Identifier:
 * MIT */
#ifndef QINS_CLI_OPTIONS_H
#define QINS_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses of the program; part of its contract. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef enum option_kind {
    OPTION_FLAG,   /* bool *: set to true */
    OPTION_TEXT,   /* const char ** */
    OPTION_INT,    /* int *, within [min, max] */
    OPTION_SIZE,   /* size_t *, at least min */
    OPTION_U64,    /* uint64_t * */
    OPTION_REAL,   /* double *, within [min, max] */
    OPTION_CHOICE, /* int *: index into `choices` */
    OPTION_PARSED  /* any: `parse` fills it in */
} option_kind;

typedef struct option {
    const char *name; /* without the dashes; NULL ends the table */
    char letter;      /* one-letter form, 0 for none */
    option_kind kind;
    void *value;
    const char *value_name;     /* "N" in the help; NULL for flags */
    const char *help;           /* what it does, with the default */
    double min, max;            /* max == 0: no upper limit */
    const char *const *choices; /* NULL-terminated, for OPTION_CHOICE; also offered for OPTION_PARSED */
    bool (*parse)(const char *text, void *value);
    const char *expects; /* for OPTION_PARSED: "row, tensor or group:G" */
} option;

typedef struct command_syntax {
    const char *name;               /* "compress" */
    const char *const *positionals; /* {"MODEL", "OUT", NULL}; one in brackets is optional */
    const char *description;        /* first lines of the help */
    const option *options;
    const char *footer; /* last lines of the help, or NULL */
} command_syntax;

/* Options that every command takes. */
typedef struct common_options {
    bool json, help;
    int threads;
} common_options;

#define COMMON_OPTIONS(common)                                                                                         \
    {.name = "threads",                                                                                                \
     .letter = 't',                                                                                                    \
     .kind = OPTION_INT,                                                                                               \
     .value = &(common).threads,                                                                                       \
     .value_name = "N",                                                                                                \
     .max = 4096,                                                                                                      \
     .help = "threads to use (default 0: one a core)"},                                                                \
        {.name = "json",                                                                                               \
         .kind = OPTION_FLAG,                                                                                          \
         .value = &(common).json,                                                                                      \
         .help = "print one JSON object on standard output"},                                                          \
        {.name = "help", .letter = 'h', .kind = OPTION_FLAG, .value = &(common).help, .help = "print this help"}, {    \
        .name = NULL                                                                                                   \
    }

typedef enum parse_outcome { PARSE_GO, PARSE_HELP_SHOWN, PARSE_BAD } parse_outcome;

/* Reads argv[0..argc), the arguments after the command's name. positionals[] gets one entry a name in
 * syntax->positionals (NULL for an absent optional one). Prints the help or the complaint itself. */
parse_outcome options_parse(const command_syntax *syntax, const common_options *common, int argc, char **argv,
                            const char **positionals);
/* The exit status of a command whose options_parse did not say PARSE_GO. */
int options_exit_status(parse_outcome outcome);

/* "qins: ..." on standard error; returns EXIT_USAGE. */
int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Whole-string numbers: no blanks, no trailing text, no overflow; reals finite. */
bool parse_real(const char *text, double *value);
bool parse_u64(const char *text, uint64_t *value);

/* Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours (Damerau 1964). */
size_t edit_distance(const char *a, const char *b);
/* The candidate that `text` most likely meant, or NULL when none is near. Candidates are NULL-terminated. */
const char *nearest_name(const char *text, const char *const *candidates);

#endif
