/* A directory that appears whole or not at all. SPDX-License-Identifier: MIT
 *
 * Files are written into ".NAME.qins-tmp-XXXXXX" beside the target, synced, and the directory is renamed. An existing
 * target is exchanged with the new one in a single renameat2(RENAME_EXCHANGE), so at no moment is the name without a
 * whole directory. The temporary directory is locked (flock) while its writer lives: the next writer of the same target
 * removes unlocked ones.
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

struct qins_outdir {
    char *target; /* final path, no trailing slash */
    char *parent; /* folder of the target */
    char *temp;   /* temporary directory */
    int lock_fd;  /* the temporary directory, locked */
    bool force;
};

void qins_remove_flat_dir(const char *path) {
    DIR *d = opendir(path);
    if (d != NULL) {
        const struct dirent *entry;
        while ((entry = readdir(d)) != NULL)
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                unlinkat(dirfd(d), entry->d_name, 0);
        closedir(d);
    }
    rmdir(path);
}

/* True when the path is a directory, not a link to one, that holds only plain files: what replacing with `force` may
 * remove. */
static bool is_flat_dir(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return false;
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return false;
    }
    bool flat = true;
    const struct dirent *entry;
    while (flat && (entry = readdir(d)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        struct stat st;
        flat = fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode);
    }
    closedir(d);
    return flat;
}

/* Locks a directory against other writers; -1 when another process holds it. */
static int lock_dir(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void remove_stale(const char *parent, const char *name) {
    char *prefix = qins_format(".%s" QINS_TEMP_MARK, name);
    DIR *d = prefix != NULL ? opendir(parent) : NULL;
    const struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
        char *path = qins_format("%s/%s", parent, entry->d_name);
        int fd = path != NULL ? lock_dir(path) : -1;
        if (fd >= 0) {
            qins_remove_flat_dir(path);
            close(fd);
        }
        free(path);
    }
    if (d != NULL) closedir(d);
    free(prefix);
}

static void outdir_free(qins_outdir *dir) {
    if (dir == NULL) return;
    if (dir->lock_fd >= 0) close(dir->lock_fd);
    free(dir->target);
    free(dir->parent);
    free(dir->temp);
    free(dir);
}

static qins_status check_target(const char *target, bool force, qins_error *err) {
    if (!qins_path_exists(target)) return QINS_OK;
    if (!force)
        return qins_fail(err, QINS_ERR_EXISTS,
                         "%s: already exists; choose another name or ask for it to be replaced (--force)", target);
    if (!is_flat_dir(target))
        return qins_fail(err, QINS_ERR_EXISTS,
                         "%s: will not be replaced: expected a directory that holds only plain files", target);
    return QINS_OK;
}

qins_status qins_outdir_begin(const char *path, bool force, qins_outdir **out, qins_error *err) {
    *out = NULL;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    qins_outdir *dir = qins_alloc(1, sizeof *dir);
    if (dir == NULL) return qins_fail_memory(err, sizeof *dir, "an output directory");
    dir->lock_fd = -1;
    qins_status status;
    dir->force = force;
    dir->target = strndup(path, n);
    if (dir->target == NULL) goto no_memory;
    const char *name = qins_base_name(dir->target);
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        status = qins_fail(err, QINS_ERR_ARGUMENT, "'%s': not a name for an output directory", path);
        goto failed;
    }
    dir->parent = name == dir->target ? qins_strdup(".")
                                      : strndup(dir->target, qins_max_size(1, (size_t)(name - dir->target - 1)));
    if (dir->parent == NULL) goto no_memory;
    if ((status = check_target(dir->target, force, err)) != QINS_OK) goto failed;
    remove_stale(dir->parent, name);
    dir->temp = qins_format("%s/.%s" QINS_TEMP_MARK "XXXXXX", dir->parent, name);
    if (dir->temp == NULL) goto no_memory;
    if (mkdtemp(dir->temp) == NULL) {
        status = qins_fail(err, QINS_ERR_IO, "%s: cannot create a directory here: %s", dir->parent, strerror(errno));
        goto failed;
    }
    dir->lock_fd = lock_dir(dir->temp);
    if (dir->lock_fd < 0 || chmod(dir->temp, 0777 & ~022) != 0) {
        status = qins_fail(err, QINS_ERR_IO, "%s: cannot lock: %s", dir->temp, strerror(errno));
        rmdir(dir->temp);
        goto failed;
    }
    *out = dir;
    return QINS_OK;
no_memory:
    status = qins_fail_memory(err, n, "a path");
failed:
    outdir_free(dir);
    return status;
}

const char *qins_outdir_temp(const qins_outdir *dir) {
    return dir->temp;
}

qins_status qins_outdir_write(qins_outdir *dir, const char *name, const void *data, size_t n, qins_error *err) {
    qins_writer w;
    qins_status status = qins_writer_open(&w, dir->temp, name, err);
    if (status != QINS_OK) return status;
    qins_writer_put(&w, data, n);
    return qins_writer_close(&w, err);
}

qins_status qins_outdir_commit(qins_outdir *dir, qins_error *err) {
    qins_status status = check_target(dir->target, dir->force, err);
    if (status != QINS_OK) {
        qins_outdir_abort(dir);
        return status;
    }
    bool replace = qins_path_exists(dir->target);
    int r = qins_sync_dir(dir->temp); /* every writer has synced its file */
    if (r == 0) r = renameat2(AT_FDCWD, dir->temp, AT_FDCWD, dir->target, replace ? RENAME_EXCHANGE : RENAME_NOREPLACE);
    if (r != 0 && (errno == EINVAL || errno == ENOSYS)) {
        /* The file system lacks renameat2: the old target leaves first, so an interruption here leaves it under a
         * hidden name. */
        char *old = replace ? qins_format("%s/.%s.qins-old", dir->parent, qins_base_name(dir->target)) : NULL;
        if (old != NULL) qins_remove_flat_dir(old); /* of an interrupted run; the target is whole */
        r = replace ? (old != NULL ? rename(dir->target, old) : -1) : 0;
        if (r == 0 && (r = rename(dir->temp, dir->target)) != 0 && replace) rename(old, dir->target);
        if (r == 0 && replace) qins_remove_flat_dir(old);
        free(old);
    } else if (r == 0 && replace) {
        qins_remove_flat_dir(dir->temp);
    }
    if (r != 0) {
        status = qins_fail(err, errno == EEXIST ? QINS_ERR_EXISTS : QINS_ERR_IO,
                           "%s: cannot put the finished directory in place: %s", dir->target, strerror(errno));
        qins_outdir_abort(dir);
        return status;
    }
    qins_sync_dir(dir->parent);
    outdir_free(dir);
    return QINS_OK;
}

void qins_outdir_abort(qins_outdir *dir) {
    if (dir == NULL) return;
    qins_remove_flat_dir(dir->temp);
    outdir_free(dir);
}
