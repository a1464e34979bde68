/* What the program prints: results on standard output, complaints on standard error. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_OUTPUT_H
#define QINS_CLI_OUTPUT_H

#include "options.h"
#include "qins.h"

#include <jansson.h>

typedef struct size_text {
    char text[64];
} size_text;

/* "9.38 MiB (9,830,400 B)" */
size_text format_size(uint64_t n_bytes);
/* "9,830,400" */
size_text format_count(uint64_t n);
/* "[768, 256]" */
size_text format_shape(const uint64_t *shape, size_t n_dims);

/* A JSON number, or null where JSON has none (NaN, infinity). */
json_t *json_number(double value);
/* A JSON string; bytes that are not UTF-8 become U+FFFD. */
json_t *json_text(const char *text, size_t n_bytes);
/* Prints *object on standard output and frees it. NULL means that it could not be built. Returns an exit status. */
int print_json(json_t *object);

/* "qins: message" on standard error and, with --json, an object with the member "error" on standard output.
 * Returns EXIT_FAILED. */
int report_failure(const common_options *common, const qins_error *err);
int report_failure_text(const common_options *common, qins_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Flushes standard output; an exit status of EXIT_DONE turns into EXIT_FAILED when it could not be written. */
int finish_output(int exit_status);

/* Reads a whole file, or standard input for "-". *data is NUL-terminated and freed with free(). */
qins_status read_input(const char *path, char **data, size_t *n_bytes, qins_error *err);

/* Copies text with every ill-formed byte replaced by U+FFFD; NULL when out of memory. Freed with free(). */
char *utf8_repair(const char *text, size_t n_bytes, size_t *n_out);

/* Seconds on the monotonic clock. */
double now_seconds(void);

#endif
