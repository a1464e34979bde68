/* A temporary directory with small files in it. SPDX-License-Identifier: MIT */
#ifndef QINS_TEST_SCRATCH_DIR_H
#define QINS_TEST_SCRATCH_DIR_H

#include "testing.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct scratch_dir {
    char path[256];
} scratch_dir;

static inline scratch_dir scratch_new(void) {
    scratch_dir dir;
    const char *base = getenv("TMPDIR");
    snprintf(dir.path, sizeof dir.path, "%.200s/qins-test-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(dir.path));
    return dir;
}

/* Path of a file in the directory; valid until the next call. */
static inline const char *scratch_path(const scratch_dir *dir, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%.255s/%.200s", dir->path, name);
    return path;
}

static inline void scratch_write(const scratch_dir *dir, const char *name, const void *data, size_t n) {
    FILE *f = fopen(scratch_path(dir, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void scratch_text(const scratch_dir *dir, const char *name, const char *text) {
    scratch_write(dir, name, text, strlen(text));
}

/* Removes the directory; it must hold only files. */
static inline void scratch_free(scratch_dir *dir) {
    DIR *d = opendir(dir->path);
    if (d == NULL) return;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
        if (e->d_name[0] != '.') unlink(scratch_path(dir, e->d_name));
    closedir(d);
    rmdir(dir->path);
}

#endif
