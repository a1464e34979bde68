/* The committed checkpoints of every model family, one after another. SPDX-License-Identifier: MIT */
#ifndef QINS_EACH_FAMILY_H
#define QINS_EACH_FAMILY_H

#include "testing.h"

#include <dirent.h>
#include <sys/stat.h>

/* Calls test with each folder; fails when there are fewer than there are families. */
static inline void each_family(void (*test)(const char *path)) {
    const char *folder = QINS_SOURCE_DIR "/tests/golden/families";
    DIR *d = opendir(folder);
    assert_non_null(d);
    size_t n = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        char path[600];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) continue;
        test(path);
        n++;
    }
    closedir(d);
    assert_true(n >= 20);
}

#endif
