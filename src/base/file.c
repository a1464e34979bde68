/* Reading, mapping and writing files. SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static qins_status open_regular(const char *path, int *fd, size_t *size, qins_error *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang */
    if (*fd < 0) return qins_fail(err, QINS_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    if (fstat(*fd, &st) != 0) {
        int e = errno;
        close(*fd);
        return qins_fail(err, QINS_ERR_IO, "%s: cannot stat: %s", path, strerror(e));
    }
    if (!S_ISREG(st.st_mode)) {
        close(*fd);
        return qins_fail(err, QINS_ERR_IO, "%s: expected a regular file", path);
    }
    *size = (size_t)st.st_size;
    return QINS_OK;
}

qins_status qins_map_open(const char *path, qins_map *map, qins_error *err) {
    *map = (qins_map){0};
    int fd = -1;
    size_t size = 0;
    qins_status status = open_regular(path, &fd, &size, err);
    if (status != QINS_OK) return status;
    if (size == 0) {
        close(fd);
        return qins_fail(err, QINS_ERR_FORMAT, "%s: the file is empty", path);
    }
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    int e = errno;
    close(fd);
    if (data == MAP_FAILED) return qins_fail(err, QINS_ERR_IO, "%s: cannot map %zu bytes: %s", path, size, strerror(e));
    map->path = qins_strdup(path);
    if (map->path == NULL) {
        munmap(data, size);
        return qins_fail_memory(err, strlen(path), "a path");
    }
    map->data = data;
    map->size = size;
    return QINS_OK;
}

void qins_map_close(qins_map *map) {
    if (map->data != NULL) munmap((void *)(uintptr_t)map->data, map->size);
    free(map->path);
    *map = (qins_map){0};
}

void qins_map_release(const void *data, size_t n) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data, end = (begin + n) / page * page;
    begin = (begin + page - 1) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

qins_status qins_read_file(const char *path, size_t max_bytes, char **data, size_t *size, qins_error *err) {
    int fd = -1;
    size_t n = 0;
    qins_status status = open_regular(path, &fd, &n, err);
    if (status != QINS_OK) return status;
    if (n > max_bytes) {
        close(fd);
        return qins_fail(err, QINS_ERR_FORMAT, "%s: has %zu bytes, more than the %zu allowed for this kind of file",
                         path, n, max_bytes);
    }
    char *buffer = malloc(n + 1);
    if (buffer == NULL) {
        close(fd);
        return qins_fail_memory(err, n + 1, path);
    }
    size_t done = 0;
    while (done < n) {
        ssize_t got = read(fd, buffer + done, n - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            int e = errno;
            free(buffer);
            close(fd);
            return qins_fail(err, QINS_ERR_IO, "%s: cannot read: %s", path,
                             got < 0 ? strerror(e) : "file became shorter");
        }
        done += (size_t)got;
    }
    close(fd);
    buffer[n] = '\0';
    *data = buffer;
    if (size != NULL) *size = n;
    return QINS_OK;
}

bool qins_path_exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

bool qins_path_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

const char *qins_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

int qins_sync_dir(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int r = fsync(fd);
    close(fd);
    return r;
}

qins_status qins_writer_open(qins_writer *w, const char *dir, const char *name, qins_error *err) {
    *w = (qins_writer){0};
    w->path = qins_format("%s/%s", dir, name);
    if (w->path == NULL) return qins_fail_memory(err, strlen(dir) + strlen(name) + 2, "a path");
    w->file = fopen(w->path, "wbe");
    if (w->file == NULL) {
        qins_fail(err, QINS_ERR_IO, "%s: cannot create: %s", w->path, strerror(errno));
        free(w->path);
        w->path = NULL;
        return QINS_ERR_IO;
    }
    return QINS_OK;
}

void qins_writer_put(qins_writer *w, const void *data, size_t n) {
    if (w->error == 0 && n > 0 && fwrite(data, 1, n, w->file) != n) w->error = errno != 0 ? errno : EIO;
    w->offset += n;
}

void qins_writer_put_at(qins_writer *w, uint64_t offset, const void *data, size_t n) {
    if (w->error != 0) return;
    if (fseeko(w->file, (off_t)offset, SEEK_SET) != 0 || fwrite(data, 1, n, w->file) != n ||
        fseeko(w->file, 0, SEEK_END) != 0)
        w->error = errno != 0 ? errno : EIO;
}

qins_status qins_writer_close(qins_writer *w, qins_error *err) {
    if (w->file == NULL) return QINS_OK;
    if (w->error == 0 && (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0)) w->error = errno;
    if (fclose(w->file) != 0 && w->error == 0) w->error = errno;
    qins_status status = QINS_OK;
    if (w->error != 0) status = qins_fail(err, QINS_ERR_IO, "%s: cannot write: %s", w->path, strerror(w->error));
    free(w->path);
    *w = (qins_writer){0};
    return status;
}

qins_status qins_replace_file(const char *dir, const char *name, const void *data, size_t n, qins_error *err) {
    char *temporary = qins_format(".%s" QINS_TEMP_MARK "%ld", name, (long)getpid());
    char *from = temporary != NULL ? qins_format("%s/%s", dir, temporary) : NULL, *to = qins_format("%s/%s", dir, name);
    qins_writer w;
    qins_status status = from == NULL || to == NULL ? qins_fail_memory(err, strlen(dir), "a path") : QINS_OK;
    if (status == QINS_OK) status = qins_writer_open(&w, dir, temporary, err);
    if (status == QINS_OK) {
        qins_writer_put(&w, data, n);
        status = qins_writer_close(&w, err);
        if (status == QINS_OK && rename(from, to) != 0)
            status = qins_fail(err, QINS_ERR_IO, "%s: cannot replace: %s", to, strerror(errno));
        if (status != QINS_OK) unlink(from);
    }
    if (status == QINS_OK) (void)qins_sync_dir(dir);
    free(temporary);
    free(from);
    free(to);
    return status;
}
