/* SPDX-License-Identifier: MIT */
#include "npy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static qins_status io_failure(qins_error *err, const char *path, const char *what) {
    int reason = errno;
    err->code = QINS_ERR_IO;
    snprintf(err->message, sizeof err->message, "%.700s: cannot %s: %s", path, what, strerror(reason));
    return QINS_ERR_IO;
}

/* Magic, version 1.0, header length as little-endian u16, then a Python dict padded with blanks so that the data
 * begins at a multiple of 64 (numpy.lib.format). */
static bool write_header(FILE *file, size_t n_rows, size_t n_cols) {
    char header[128 + 1];
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10); /* 0x76 = 118 = 128 - 10 */
    int n = snprintf(header + 10, sizeof header - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                     n_rows, n_cols);
    if (n < 0 || n > 117) return false;
    memset(header + 10 + n, ' ', (size_t)(117 - n));
    header[127] = '\n';
    return fwrite(header, 1, 128, file) == 128;
}

qins_status npy_begin(npy_writer *w, const char *path, size_t n_rows, size_t n_cols, qins_error *err) {
    static const char suffix[] = ".tmp-XXXXXX";
    memset(w, 0, sizeof *w);
    size_t length = strlen(path);
    w->path = malloc(length + 1);
    w->temp_path = malloc(length + sizeof suffix);
    if (w->path == NULL || w->temp_path == NULL) {
        npy_abort(w);
        errno = ENOMEM;
        return io_failure(err, path, "create");
    }
    memcpy(w->path, path, length + 1);
    memcpy(w->temp_path, path, length);
    memcpy(w->temp_path + length, suffix, sizeof suffix);
    int fd = mkstemp(w->temp_path);
    if (fd < 0) {
        qins_status status = io_failure(err, path, "create");
        free(w->temp_path);
        w->temp_path = NULL;
        npy_abort(w);
        return status;
    }
    w->file = fdopen(fd, "wb");
    if (w->file == NULL || !write_header(w->file, n_rows, n_cols)) {
        qins_status status = io_failure(err, path, "write");
        if (w->file == NULL) close(fd);
        npy_abort(w);
        return status;
    }
    return QINS_OK;
}

qins_status npy_write(npy_writer *w, const float *values, size_t n, qins_error *err) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the values are written as they lie in memory: little-endian machines only"
#endif
    if (fwrite(values, sizeof *values, n, w->file) == n) return QINS_OK;
    return io_failure(err, w->path, "write");
}

qins_status npy_commit(npy_writer *w, qins_error *err) {
    qins_status status = QINS_OK;
    if (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0) status = io_failure(err, w->path, "write");
    if (fclose(w->file) != 0 && status == QINS_OK) status = io_failure(err, w->path, "write");
    w->file = NULL;
    /* mkstemp makes the file private; give it the permissions of an ordinary new file. */
    mode_t mask = umask(0);
    umask(mask);
    if (status == QINS_OK && chmod(w->temp_path, 0666 & ~mask) != 0) status = io_failure(err, w->path, "write");
    if (status == QINS_OK && rename(w->temp_path, w->path) != 0) status = io_failure(err, w->path, "create");
    if (status == QINS_OK) {
        free(w->temp_path);
        w->temp_path = NULL;
    }
    npy_abort(w);
    return status;
}

void npy_abort(npy_writer *w) {
    if (w->file != NULL) fclose(w->file);
    if (w->temp_path != NULL) unlink(w->temp_path);
    free(w->temp_path);
    free(w->path);
    memset(w, 0, sizeof *w);
}
