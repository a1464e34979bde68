/* Errors and version. SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <string.h>

const char *qins_version(void) {
    return QINS_VERSION_STRING;
}

const char *qins_status_name(qins_status status) {
    switch (status) {
    case QINS_OK:
        return "ok";
    case QINS_ERR_IO:
        return "input/output error";
    case QINS_ERR_FORMAT:
        return "malformed file";
    case QINS_ERR_CHECKSUM:
        return "checksum mismatch";
    case QINS_ERR_UNSUPPORTED:
        return "not supported";
    case QINS_ERR_MEMORY:
        return "out of memory";
    case QINS_ERR_ARGUMENT:
        return "bad argument";
    case QINS_ERR_CANCELLED:
        return "cancelled";
    case QINS_ERR_EXISTS:
        return "target exists";
    }
    return "unknown status";
}

qins_status qins_fail(qins_error *err, qins_status code, const char *fmt, ...) {
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err->message, sizeof err->message, fmt, args);
        va_end(args);
        err->code = code;
    }
    return code;
}

/* Adds text to a message of `size` bytes; what does not fit is cut. */
static void append(char *message, size_t size, const char *text) {
    size_t n = strlen(message), added = qins_min_size(strlen(text), size - n - 1);
    memcpy(message + n, text, added);
    message[n + added] = '\0';
}

qins_status qins_prefix(qins_error *err, qins_status code, const char *fmt, ...) {
    if (err == NULL) return code;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    append(err->message, sizeof err->message, ": ");
    append(err->message, sizeof err->message, old);
    return err->code;
}

qins_status qins_fail_memory(qins_error *err, size_t n_bytes, const char *what) {
    return qins_fail(err, QINS_ERR_MEMORY, "out of memory: could not allocate %zu bytes for %s", n_bytes, what);
}
