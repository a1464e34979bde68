/* SPDX-License-Identifier: MIT */
#include "model/rounded.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define HIDDEN_NAME "hidden"
#define KEY_NAME    "key"

enum { FILE_NAME = 32, MAX_NAME = 512 };

/* Where a matrix lies. */
typedef struct entry {
    char *name;
    size_t layer;
    uint64_t offset; /* of its parts */
    qins_encode_stats stats;
} entry;

struct qins_rounded {
    char *path;
    int lock_fd;
    size_t n_layers;
    FILE *layer; /* in work; NULL before its first matrix */
    XXH3_state_t *hash;
    bool saved; /* something to go on from without a layer */
    uint64_t offset;
    entry *entries;
    size_t n_entries, capacity;
};

/* What precedes the parts of a matrix in a layer's file. */
typedef struct record {
    uint64_t n_bytes; /* of the parts */
    char name[MAX_NAME];
    qins_encode_stats stats;
} record;

static char *file_path(const qins_rounded *r, const char *name) {
    return qins_format("%s/%s", r->path, name);
}

static void layer_name(char name[FILE_NAME], size_t layer) {
    snprintf(name, FILE_NAME, "layer-%zu", layer);
}

static qins_status fail_io(const qins_rounded *r, const char *what, qins_error *err) {
    return qins_fail(err, QINS_ERR_IO, "%s: cannot %s: %s", r->path, what, strerror(errno));
}

/* ---- the folder ---- */

static void empty_dir(const char *path) {
    DIR *d = opendir(path);
    const struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL) closedir(d);
}

static char *folder_of(const char *out_path) {
    size_t n = strlen(out_path);
    while (n > 1 && out_path[n - 1] == '/')
        n--;
    size_t name = n;
    while (name > 0 && out_path[name - 1] != '/')
        name--;
    return qins_format("%.*s.%.*s.qins-resume", (int)name, out_path, (int)(n - name), out_path + name);
}

void qins_rounded_remove(const char *out_path) {
    char *folder = folder_of(out_path);
    if (folder != NULL) qins_remove_flat_dir(folder);
    free(folder);
}

static qins_status lock_folder(qins_rounded *r, qins_error *err) {
    if (mkdir(r->path, 0777) != 0 && errno != EEXIST) return fail_io(r, "create this folder", err);
    r->lock_fd = open(r->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r->lock_fd < 0) return fail_io(r, "open this folder", err);
    /* A process that was just killed holds the lock until its memory is gone. */
    enum { TRIES = 50, PAUSE_NANOSECONDS = 100000000 };
    for (int i = 0; i < TRIES; i++) {
        if (flock(r->lock_fd, LOCK_EX | LOCK_NB) == 0) return QINS_OK;
        const struct timespec pause = {.tv_nsec = PAUSE_NANOSECONDS};
        nanosleep(&pause, NULL);
    }
    return qins_fail(err, QINS_ERR_EXISTS, "%s: another process is calibrating for the same output", r->path);
}

/* ---- files with a checksum at their end, in place only when whole ---- */

static bool write_all(FILE *f, XXH3_state_t *hash, const void *data, size_t n) {
    XXH3_64bits_update(hash, data, n);
    return fwrite(data, 1, n, f) == n;
}

/* A process that is killed leaves what it has written to the system: there is no need to sync. After a power failure
 * the checksums tell what is whole. */
static qins_status finish_file(qins_rounded *r, FILE *f, const char *name, bool ok, qins_error *err) {
    uint64_t sum = XXH3_64bits_digest(r->hash);
    ok = ok && fwrite(&sum, 1, sizeof sum, f) == sizeof sum;
    ok = fclose(f) == 0 && ok;
    char *temp = file_path(r, "tmp"), *path = file_path(r, name);
    ok = ok && temp != NULL && path != NULL && rename(temp, path) == 0;
    free(temp);
    free(path);
    return ok ? QINS_OK : fail_io(r, "write", err);
}

static qins_status begin_file(qins_rounded *r, FILE **f, qins_error *err) {
    char *temp = file_path(r, "tmp");
    *f = temp != NULL ? fopen(temp, "wb") : NULL;
    free(temp);
    XXH3_64bits_reset(r->hash);
    return *f != NULL ? QINS_OK : fail_io(r, "write", err);
}

static qins_status write_file(qins_rounded *r, const char *name, const void *data, size_t n, qins_error *err) {
    FILE *f;
    qins_status status = begin_file(r, &f, err);
    if (status != QINS_OK) return status;
    bool ok = write_all(f, r->hash, data, n);
    return finish_file(r, f, name, ok, err);
}

/* Maps a file when its checksum holds; size without the checksum. */
static bool map_whole(const qins_rounded *r, const char *name, qins_map *map) {
    char *path = file_path(r, name);
    bool ok = path != NULL && qins_map_open(path, map, NULL) == QINS_OK;
    free(path);
    if (!ok) return false;
    uint64_t sum;
    if (map->size >= sizeof sum) {
        memcpy(&sum, map->data + map->size - sizeof sum, sizeof sum);
        if (XXH3_64bits(map->data, map->size - sizeof sum) == sum) return true;
    }
    qins_map_close(map);
    return false;
}

/* ---- entries ---- */

static qins_status add_entry(qins_rounded *r, const record *rec, uint64_t offset, qins_error *err) {
    if (r->n_entries == r->capacity) {
        size_t capacity = 2 * r->capacity + 16;
        entry *grown = realloc(r->entries, capacity * sizeof *grown);
        if (grown == NULL) return qins_fail_memory(err, capacity * sizeof *grown, "rounded matrices");
        r->entries = grown;
        r->capacity = capacity;
    }
    entry *e = &r->entries[r->n_entries];
    *e = (entry){.name = qins_strdup(rec->name), .layer = r->n_layers, .offset = offset, .stats = rec->stats};
    if (e->name == NULL) return qins_fail_memory(err, strlen(rec->name), "a name");
    r->n_entries++;
    return QINS_OK;
}

/* Lists the matrices of a finished layer; false when its file is not whole. */
static bool read_layer(qins_rounded *r, qins_error *err) {
    char name[FILE_NAME];
    qins_map map;
    layer_name(name, r->n_layers);
    if (!map_whole(r, name, &map)) return false;
    size_t end = map.size - sizeof(uint64_t), offset = 0;
    bool ok = true;
    while (ok && offset < end) {
        record rec;
        ok = end - offset >= sizeof rec;
        if (!ok) break;
        memcpy(&rec, map.data + offset, sizeof rec);
        offset += sizeof rec;
        ok = rec.n_bytes <= end - offset && memchr(rec.name, 0, sizeof rec.name) != NULL &&
             add_entry(r, &rec, offset, err) == QINS_OK;
        offset += ok ? rec.n_bytes : 0;
    }
    qins_map_close(&map);
    return ok;
}

static bool same_key(const qins_rounded *r, const char *key) {
    qins_map map;
    if (!map_whole(r, KEY_NAME, &map)) return false;
    bool same = map.size == QINS_ROUNDED_KEY + sizeof(uint64_t) && memcmp(map.data, key, QINS_ROUNDED_KEY) == 0;
    qins_map_close(&map);
    return same;
}

/* ---- opening ---- */

static void forget_layers(qins_rounded *r) {
    for (size_t i = 0; i < r->n_entries; i++)
        free(r->entries[i].name);
    r->n_entries = r->n_layers = 0;
}

/* Finished layers, as many as the hidden states are after. The states are written last. */
static void read_finished(qins_rounded *r) {
    qins_map map;
    uint64_t n_layers = 0;
    if (!map_whole(r, HIDDEN_NAME, &map)) return;
    if (map.size >= 2 * sizeof(uint64_t)) memcpy(&n_layers, map.data, sizeof n_layers);
    qins_map_close(&map);
    while (r->n_layers < n_layers && read_layer(r, NULL))
        r->n_layers++;
    if (r->n_layers == n_layers) return;
    forget_layers(r); /* damaged: begin anew */
}

qins_status qins_rounded_open(const char *out_path, const char key[QINS_ROUNDED_KEY], qins_rounded **out,
                              qins_error *err) {
    *out = NULL;
    qins_rounded *r = qins_alloc(1, sizeof *r);
    if (r == NULL) return qins_fail_memory(err, sizeof *r, "a folder to go on from");
    r->lock_fd = -1;
    r->path = folder_of(out_path);
    r->hash = XXH3_createState();
    qins_status status = r->path == NULL || r->hash == NULL ? qins_fail_memory(err, sizeof *r, "a path") : QINS_OK;
    if (status == QINS_OK) status = lock_folder(r, err);
    if (status == QINS_OK && same_key(r, key)) {
        read_finished(r);
    } else if (status == QINS_OK) {
        empty_dir(r->path);
        status = write_file(r, KEY_NAME, key, QINS_ROUNDED_KEY, err);
    }
    if (status == QINS_OK)
        *out = r;
    else
        qins_rounded_close(r, false);
    return status;
}

void qins_rounded_close(qins_rounded *r, bool remove) {
    if (r == NULL) return;
    if (r->layer != NULL) fclose(r->layer);
    if (r->lock_fd >= 0 && r->path != NULL && (remove || (r->n_layers == 0 && !r->saved))) {
        empty_dir(r->path);
        rmdir(r->path);
    }
    if (r->lock_fd >= 0) close(r->lock_fd);
    for (size_t i = 0; i < r->n_entries; i++)
        free(r->entries[i].name);
    free(r->entries);
    XXH3_freeState(r->hash);
    free(r->path);
    free(r);
}

qins_status qins_rounded_restart(qins_rounded *r, qins_error *err) {
    if (unlinkat(r->lock_fd, HIDDEN_NAME, 0) != 0 && errno != ENOENT) return fail_io(r, "remove hidden states", err);
    forget_layers(r);
    return QINS_OK;
}

size_t qins_rounded_n_layers(const qins_rounded *r) {
    return r->n_layers;
}

qins_status qins_rounded_load_hidden(qins_rounded *r, float *hidden, size_t n, qins_error *err) {
    qins_map map;
    if (!map_whole(r, HIDDEN_NAME, &map)) return fail_io(r, "read the hidden states", err);
    bool fits = map.size == 2 * sizeof(uint64_t) + n * sizeof *hidden;
    if (fits) memcpy(hidden, map.data + sizeof(uint64_t), n * sizeof *hidden);
    qins_map_close(&map);
    return fits ? QINS_OK : qins_fail(err, QINS_ERR_FORMAT, "%s: hidden states of another size; remove it", r->path);
}

bool qins_rounded_load(const qins_rounded *r, const char *name, void *data, size_t n) {
    qins_map map;
    if (!map_whole(r, name, &map)) return false;
    bool fits = map.size == n + sizeof(uint64_t);
    if (fits) memcpy(data, map.data, n);
    qins_map_close(&map);
    return fits;
}

qins_status qins_rounded_save(qins_rounded *r, const char *name, const void *data, size_t n, qins_error *err) {
    r->saved = true;
    return write_file(r, name, data, n, err);
}

/* ---- writing ---- */

qins_status qins_rounded_put(qins_rounded *r, const char *name, const qins_part_info info[QINS_PART_COUNT],
                             const void *const data[QINS_PART_COUNT], const qins_encode_stats *stats, qins_error *err) {
    record *rec = qins_alloc(1, sizeof *rec);
    if (rec == NULL) return qins_fail_memory(err, sizeof *rec, "a record");
    qins_status status = QINS_OK;
    if (r->layer == NULL) {
        status = begin_file(r, &r->layer, err);
        r->offset = 0;
    }
    snprintf(rec->name, sizeof rec->name, "%s", name);
    rec->stats = *stats;
    for (int p = 0; p < QINS_PART_COUNT; p++)
        rec->n_bytes += info[p].dtype != NULL ? info[p].n_bytes : 0;
    if (status == QINS_OK) status = add_entry(r, rec, r->offset + sizeof *rec, err);
    bool ok = status == QINS_OK && write_all(r->layer, r->hash, rec, sizeof *rec);
    for (int p = 0; p < QINS_PART_COUNT && ok; p++)
        if (info[p].dtype != NULL) ok = write_all(r->layer, r->hash, data[p], (size_t)info[p].n_bytes);
    r->offset += sizeof *rec + rec->n_bytes;
    free(rec);
    if (status != QINS_OK) return status;
    return ok ? QINS_OK : fail_io(r, "write", err);
}

static qins_status write_hidden(qins_rounded *r, const float *hidden, size_t n, qins_error *err) {
    FILE *f;
    qins_status status = begin_file(r, &f, err);
    if (status != QINS_OK) return status;
    uint64_t n_layers = r->n_layers + 1;
    bool ok = write_all(f, r->hash, &n_layers, sizeof n_layers) && write_all(f, r->hash, hidden, n * sizeof *hidden);
    return finish_file(r, f, HIDDEN_NAME, ok, err);
}

qins_status qins_rounded_end_layer(qins_rounded *r, const float *hidden, size_t n, qins_error *err) {
    char name[FILE_NAME];
    layer_name(name, r->n_layers);
    qins_status status = r->layer == NULL ? begin_file(r, &r->layer, err) : QINS_OK;
    if (status == QINS_OK) status = finish_file(r, r->layer, name, true, err);
    r->layer = NULL;
    if (status == QINS_OK) status = write_hidden(r, hidden, n, err);
    if (status == QINS_OK) r->n_layers++;
    return status;
}

/* ---- reading ---- */

qins_status qins_rounded_get(const qins_rounded *r, const char *name, const qins_part_info info[QINS_PART_COUNT],
                             const qins_part_sink *sink, qins_encode_stats *stats, bool *found, qins_error *err) {
    const entry *e = NULL;
    for (size_t i = 0; i < r->n_entries && e == NULL; i++)
        if (strcmp(r->entries[i].name, name) == 0) e = &r->entries[i];
    *found = e != NULL;
    if (e == NULL) return QINS_OK;
    char file[FILE_NAME];
    layer_name(file, e->layer);
    char *path = file_path(r, file);
    qins_map map;
    qins_status status = path != NULL ? qins_map_open(path, &map, err) : qins_fail_memory(err, sizeof file, "a path");
    free(path);
    if (status != QINS_OK) return status;
    uint64_t offset = e->offset;
    *stats = e->stats;
    for (int p = 0; p < QINS_PART_COUNT && status == QINS_OK; p++) {
        if (info[p].dtype == NULL) continue;
        if (offset > map.size || info[p].n_bytes > map.size - offset)
            status = qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: cut short; remove this folder", r->path, name);
        else
            status = sink->put(sink->context, (qins_part)p, 0, map.data + offset, (size_t)info[p].n_bytes, err);
        offset += info[p].n_bytes;
    }
    qins_map_close(&map);
    return status;
}
