/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- numbers for people ---- */

size_text format_count(uint64_t n) {
    char digits[32];
    size_text out;
    int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
    size_t used = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) out.text[used++] = ',';
        out.text[used++] = digits[i];
    }
    out.text[used] = '\0';
    return out;
}

size_text format_size(uint64_t n_bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    size_text out, count = format_count(n_bytes);
    double value = (double)n_bytes / 1024;
    size_t unit = 0;
    /* MiB from 1 MiB to just below 10 GiB, so that the sizes of one model line up in one unit. */
    while (unit + 1 < sizeof units / sizeof *units && value >= (unit == 1 ? 10240 : 1024)) {
        value /= 1024;
        unit++;
    }
    if (n_bytes < 1024)
        snprintf(out.text, sizeof out.text, "%.20s B", count.text);
    else
        snprintf(out.text, sizeof out.text, "%.2f %s (%.30s B)", value, units[unit], count.text);
    return out;
}

size_text format_shape(const uint64_t *shape, size_t n_dims) {
    size_text out = {"["};
    for (size_t i = 0; i < n_dims; i++) {
        size_t used = strlen(out.text);
        snprintf(out.text + used, sizeof out.text - used, "%s%" PRIu64, i == 0 ? "" : ", ", shape[i]);
    }
    size_t used = strlen(out.text);
    snprintf(out.text + used, sizeof out.text - used, "]");
    return out;
}

/* ---- UTF-8 ---- */

/* Length of the well-formed character at s, 0 when it is ill-formed or cut off (Unicode 15, table 3-7). */
static int utf8_char_length(const unsigned char *s, size_t n) {
    if (s[0] < 0x80) return 1;
    int length = s[0] >= 0xC2 && s[0] <= 0xDF   ? 2
                 : s[0] >= 0xE0 && s[0] <= 0xEF ? 3
                 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4
                                                : 0;
    unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n || s[i] < low || s[i] > high) return 0;
        low = 0x80, high = 0xBF;
    }
    return length;
}

char *utf8_repair(const char *text, size_t n_bytes, size_t *n_out) {
    if (n_bytes > (SIZE_MAX - 1) / 3) return NULL;
    char *out = malloc(3 * n_bytes + 1);
    if (out == NULL) return NULL;
    const unsigned char *s = (const unsigned char *)text;
    size_t used = 0;
    for (size_t i = 0; i < n_bytes;) {
        int length = utf8_char_length(s + i, n_bytes - i);
        if (length > 0) {
            memcpy(out + used, text + i, (size_t)length);
            used += (size_t)length;
            i += (size_t)length;
        } else {
            memcpy(out + used, "\xEF\xBF\xBD", 3);
            used += 3;
            i += 1;
        }
    }
    out[used] = '\0';
    *n_out = used;
    return out;
}

/* ---- JSON ---- */

json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *json_text(const char *text, size_t n_bytes) {
    size_t n = 0;
    char *repaired = utf8_repair(text, n_bytes, &n);
    if (repaired == NULL) return NULL;
    json_t *string = json_stringn_nocheck(repaired, n);
    free(repaired);
    return string;
}

int print_json(json_t *object) {
    if (object == NULL) {
        fputs("qins: out of memory while building the JSON result\n", stderr);
        return EXIT_FAILED;
    }
    int failed = json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    fputc('\n', stdout);
    json_decref(object);
    return failed != 0 ? finish_output(EXIT_FAILED) : EXIT_DONE;
}

/* ---- failures ---- */

int report_failure(const common_options *common, const qins_error *err) {
    fflush(stdout);
    fprintf(stderr, "qins: %s\n", err->message[0] != '\0' ? err->message : qins_status_name(err->code));
    if (common->json)
        print_json(json_pack("{s:{s:s, s:o}}", "error", "code", qins_status_name(err->code), "message",
                             json_text(err->message, strlen(err->message))));
    return EXIT_FAILED;
}

int report_failure_text(const common_options *common, qins_status status, const char *fmt, ...) {
    qins_error err = {.code = status};
    va_list args;
    va_start(args, fmt);
    vsnprintf(err.message, sizeof err.message, fmt, args);
    va_end(args);
    return report_failure(common, &err);
}

int finish_output(int exit_status) {
    errno = 0;
    bool failed = fflush(stdout) != 0;
    int reason = errno;
    failed = failed || ferror(stdout) != 0;
    if (!failed) return exit_status;
    fprintf(stderr, "qins: cannot write to standard output%s%s\n", reason != 0 ? ": " : "",
            reason != 0 ? strerror(reason) : "");
    return exit_status == EXIT_DONE ? EXIT_FAILED : exit_status;
}

/* ---- input ---- */

static qins_status input_failure(qins_error *err, qins_status status, const char *path, const char *reason) {
    err->code = status;
    snprintf(err->message, sizeof err->message, "%.700s: cannot read: %s", path, reason);
    return status;
}

qins_status read_input(const char *path, char **data, size_t *n_bytes, qins_error *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (file == NULL) return input_failure(err, QINS_ERR_IO, path, strerror(errno));
    size_t capacity = 1 << 16, used = 0, got = 0;
    char *buffer = malloc(capacity);
    while (buffer != NULL && (got = fread(buffer + used, 1, capacity - 1 - used, file)) > 0) {
        used += got;
        if (capacity - 1 - used > 0) continue;
        char *larger = capacity <= SIZE_MAX / 2 ? realloc(buffer, capacity * 2) : NULL;
        if (larger == NULL) free(buffer);
        buffer = larger;
        capacity *= 2;
    }
    int reason = ferror(file) ? errno : 0;
    if (!is_stdin) fclose(file);
    if (buffer == NULL) return input_failure(err, QINS_ERR_MEMORY, path, "out of memory");
    if (reason != 0) {
        free(buffer);
        return input_failure(err, QINS_ERR_IO, path, strerror(reason));
    }
    buffer[used] = '\0';
    *data = buffer;
    *n_bytes = used;
    return QINS_OK;
}
