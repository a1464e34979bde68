/* Errors, checked arithmetic, growing buffers, file mapping, atomic output, threads. SPDX-License-Identifier: MIT */
#ifndef QINS_BASE_H
#define QINS_BASE_H

#include "qins.h"

#include <stdarg.h>
#include <stdio.h>

#define QINS_PRINTF(fmt_index, arg_index) __attribute__((format(printf, fmt_index, arg_index)))

/* ---- errors ---- */

/* Fills *err (which may be NULL) and returns code, so that callers can write `return qins_fail(...)`. */
qins_status qins_fail(qins_error *err, qins_status code, const char *fmt, ...) QINS_PRINTF(3, 4);
/* Puts "text: " in front of the message that is already there; returns err->code (or `code` when err is NULL). */
qins_status qins_prefix(qins_error *err, qins_status code, const char *fmt, ...) QINS_PRINTF(3, 4);
qins_status qins_fail_memory(qins_error *err, size_t n_bytes, const char *what);

/* ---- checked arithmetic: false on overflow ---- */

static inline bool qins_mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool qins_add_size(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline size_t qins_round_up(size_t n, size_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}
static inline size_t qins_min_size(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t qins_max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Zeroed array of n elements, or NULL on overflow or out of memory. */
void *qins_alloc(size_t n, size_t element_size);
/* The same aligned to 64 bytes; freed with free(). */
void *qins_alloc_aligned(size_t n, size_t element_size);
char *qins_strdup(const char *s);
/* printf into a new string; NULL when out of memory. */
char *qins_format(const char *fmt, ...) QINS_PRINTF(1, 2);

/* ---- growing byte buffer ---- */

typedef struct qins_buffer {
    char *data; /* NUL-terminated when not NULL */
    size_t size, capacity;
    bool failed; /* an allocation failed: contents are incomplete */
} qins_buffer;

void qins_buffer_add(qins_buffer *b, const void *data, size_t n);
void qins_buffer_printf(qins_buffer *b, const char *fmt, ...) QINS_PRINTF(2, 3);
void qins_buffer_free(qins_buffer *b);

/* ---- read-only file mapping ---- */

typedef struct qins_map {
    char *path;
    const uint8_t *data;
    size_t size;
} qins_map;

qins_status qins_map_open(const char *path, qins_map *map, qins_error *err);
void qins_map_close(qins_map *map);
/* Takes the whole pages of n mapped bytes out of the resident memory of this process; reading them again is allowed and
 * maps them anew. For files that are read once, front to back. */
void qins_map_release(const void *data, size_t n);
/* Whole file as a NUL-terminated string; refuses files larger than max_bytes. */
qins_status qins_read_file(const char *path, size_t max_bytes, char **data, size_t *size, qins_error *err);
bool qins_path_exists(const char *path);
bool qins_path_is_dir(const char *path);
/* What follows the last slash. */
const char *qins_base_name(const char *path);
/* Makes renames in a directory durable; -1 with errno on failure. */
int qins_sync_dir(const char *path);

/* ---- output directory that appears whole or not at all ---- */

/* In the names of what is not finished: ".NAME.qins-tmp-XXXXXX". */
#define QINS_TEMP_MARK ".qins-tmp-"

typedef struct qins_outdir qins_outdir;

/* Creates a temporary directory beside `path` (same folder, same file system) and removes what interrupted runs left
 * there. Fails with QINS_ERR_EXISTS when path exists and !force. */
qins_status qins_outdir_begin(const char *path, bool force, qins_outdir **dir, qins_error *err);
/* Path of the temporary directory. */
const char *qins_outdir_temp(const qins_outdir *dir);
/* Writes a small file into it. */
qins_status qins_outdir_write(qins_outdir *dir, const char *name, const void *data, size_t n, qins_error *err);
/* Syncs every file and the directory, renames it to its final name (an old target is swapped out and removed).
 * Frees dir in every case. */
qins_status qins_outdir_commit(qins_outdir *dir, qins_error *err);
/* Removes the temporary directory. NULL is allowed. */
void qins_outdir_abort(qins_outdir *dir);
/* Removes a directory and the files in it; qins never writes folders inside. Does nothing when there is none. */
void qins_remove_flat_dir(const char *path);

/* ---- file writer: an error that sticks ---- */

typedef struct qins_writer {
    FILE *file;
    char *path;
    uint64_t offset;
    int error; /* errno of the first failure */
} qins_writer;

qins_status qins_writer_open(qins_writer *w, const char *dir, const char *name, qins_error *err);
void qins_writer_put(qins_writer *w, const void *data, size_t n);
/* Overwrites bytes written before, then returns to the end. */
void qins_writer_put_at(qins_writer *w, uint64_t offset, const void *data, size_t n);
/* Flushes, syncs and closes; reports the first error. */
qins_status qins_writer_close(qins_writer *w, qins_error *err);
/* dir/name := data, atomically: written under a temporary name, synced, renamed. */
qins_status qins_replace_file(const char *dir, const char *name, const void *data, size_t n, qins_error *err);

/* ---- output file that appears whole or not at all ---- */

typedef struct qins_outfile qins_outfile;

/* Opens a temporary file beside `path` and removes what interrupted runs left there. Fails with QINS_ERR_EXISTS when
 * path exists and !force, or is no plain file. */
qins_status qins_outfile_begin(const char *path, bool force, qins_outfile **file, qins_error *err);
/* What the contents are written with. */
qins_writer *qins_outfile_writer(qins_outfile *file);
/* Syncs the file and renames it to its final name. Frees file in every case. */
qins_status qins_outfile_commit(qins_outfile *file, qins_error *err);
/* Removes the temporary file. NULL is allowed. */
void qins_outfile_abort(qins_outfile *file);

/* ---- threads ---- */

/* Of the calling thread inside a parallel region or a task: 0..qins_get_threads()-1. */
int qins_thread_index(void);

/* A list as Linux writes it, "0-1,4", to bits of n_words words; the number of nodes. */
size_t qins_parse_nodes(const char *list, unsigned long *mask, size_t n_words);

typedef void (*qins_task)(void *context, size_t i);
/* Calls fn(context, i) for every i < n on the threads of the caller, which take `step` (at least 1) neighbouring ones
 * at a time. Inside a task, and inside a parallel region of OpenMP, the caller does it all. For the short loops of a
 * forward pass; the others are left to OpenMP. */
void qins_parallel(size_t n, size_t step, qins_task fn, void *context);
/* Steps that give each thread some to take, so that threads end together though they do not run alike. */
static inline size_t qins_parallel_step(size_t n, size_t n_threads) {
    enum { STEPS_A_THREAD = 8 };
    return qins_max_size(1, n / (STEPS_A_THREAD * n_threads));
}

/* Progress that may be absent: true when the caller asked to stop. */
static inline bool qins_report(qins_progress fn, void *user, const char *stage, uint64_t done, uint64_t total) {
    return fn != NULL && fn(user, stage, done, total) != 0;
}

#endif
