/* A file that appears whole or not at all. SPDX-License-Identifier: MIT
 *
 * Written as ".NAME.qins-tmp-XXXXXX" beside the target, synced, renamed. The temporary file is locked (flock) while its
 * writer lives: the next writer of the same target removes unlocked ones.
 */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct qins_outfile {
    char *target, *parent, *temp;
    bool force;
    qins_writer writer;
};

static void remove_stale(const char *parent, const char *name) {
    char *prefix = qins_format(".%s" QINS_TEMP_MARK, name);
    DIR *d = prefix != NULL ? opendir(parent) : NULL;
    const struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
        int fd = openat(dirfd(d), entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        struct stat st;
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(d), entry->d_name, 0);
        if (fd >= 0) close(fd);
    }
    if (d != NULL) closedir(d);
    free(prefix);
}

static void outfile_free(qins_outfile *f) {
    if (f->writer.file == NULL) free(f->writer.path);
    qins_writer_close(&f->writer, NULL);
    free(f->target);
    free(f->parent);
    free(f->temp);
    free(f);
}

static qins_status check_target(const qins_outfile *f, qins_error *err) {
    struct stat st;
    if (lstat(f->target, &st) != 0) return QINS_OK;
    if (!f->force)
        return qins_fail(err, QINS_ERR_EXISTS,
                         "%s: already exists; choose another name or ask for it to be replaced (--force)", f->target);
    if (!S_ISREG(st.st_mode))
        return qins_fail(err, QINS_ERR_EXISTS, "%s: will not be replaced: expected a plain file", f->target);
    return QINS_OK;
}

static qins_status open_temporary(qins_outfile *f, qins_error *err) {
    const char *name = qins_base_name(f->target);
    f->temp = qins_format("%s/.%s" QINS_TEMP_MARK "XXXXXX", f->parent, name);
    f->writer.path = qins_strdup(f->target); /* for messages */
    if (f->temp == NULL || f->writer.path == NULL) return qins_fail_memory(err, strlen(f->target), "a path");
    remove_stale(f->parent, name);
    int fd = mkostemp(f->temp, O_CLOEXEC);
    if (fd < 0) {
        free(f->temp);
        f->temp = NULL;
        return qins_fail(err, QINS_ERR_IO, "%s: cannot create a file here: %s", f->parent, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || fchmod(fd, 0666 & ~022) != 0 ||
        (f->writer.file = fdopen(fd, "wb")) == NULL) {
        int e = errno;
        close(fd);
        return qins_fail(err, QINS_ERR_IO, "%s: cannot open for writing: %s", f->temp, strerror(e));
    }
    return QINS_OK;
}

qins_status qins_outfile_begin(const char *path, bool force, qins_outfile **file, qins_error *err) {
    *file = NULL;
    const char *name = qins_base_name(path);
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return qins_fail(err, QINS_ERR_ARGUMENT, "'%s': not a name for an output file", path);
    qins_outfile *f = qins_alloc(1, sizeof *f);
    if (f == NULL) return qins_fail_memory(err, sizeof *f, "an output file");
    f->force = force;
    f->target = qins_strdup(path);
    f->parent = name == path ? qins_strdup(".") : strndup(path, qins_max_size(1, (size_t)(name - path - 1)));
    qins_status status =
        f->target == NULL || f->parent == NULL ? qins_fail_memory(err, strlen(path), "a path") : QINS_OK;
    if (status == QINS_OK) status = check_target(f, err);
    if (status == QINS_OK) status = open_temporary(f, err);
    if (status == QINS_OK)
        *file = f;
    else
        qins_outfile_abort(f);
    return status;
}

qins_writer *qins_outfile_writer(qins_outfile *file) {
    return &file->writer;
}

qins_status qins_outfile_commit(qins_outfile *f, qins_error *err) {
    qins_writer *w = &f->writer;
    if (w->error == 0 && (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0)) w->error = errno;
    qins_status status = QINS_OK;
    if (w->error != 0) status = qins_fail(err, QINS_ERR_IO, "%s: cannot write: %s", f->target, strerror(w->error));
    if (status == QINS_OK) status = check_target(f, err);
    if (status == QINS_OK && rename(f->temp, f->target) != 0)
        status =
            qins_fail(err, QINS_ERR_IO, "%s: cannot put the finished file in place: %s", f->target, strerror(errno));
    if (status != QINS_OK) {
        qins_outfile_abort(f);
        return status;
    }
    (void)qins_sync_dir(f->parent);
    outfile_free(f);
    return QINS_OK;
}

void qins_outfile_abort(qins_outfile *f) {
    if (f == NULL) return;
    if (f->temp != NULL) unlink(f->temp);
    outfile_free(f);
}
