/* Entropy-coded tensors into memory. SPDX-License-Identifier: MIT */
#include "model/coded.h"

#include "format/checkpoint_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, NAME_SIZE = 512, HUGE_PAGE = 2 << 20 };

/* One coded tensor. */
typedef struct source {
    const char *name; /* key in the metadata */
    qins_tensor tensor;
    size_t stored; /* index of its blob in the checkpoint */
    qins_coded coded;
    size_t offset, first_chunk; /* in the region; in the list of all chunks */
    size_t chunks_left;
} source;

typedef struct loader {
    qins_checkpoint *checkpoint;
    source *sources;
    size_t n_sources, n_chunks;
    const qins_load_progress *progress;
} loader;

static bool parse_type(const char *text, qins_type *type) {
    for (int i = 0; text != NULL && i < QINS_TYPE_COUNT; i++)
        if (qins_types[i].block_values == 1 && strcmp(qins_types[i].name, text) == 0) {
            *type = (qins_type)i;
            return true;
        }
    return false;
}

static bool parse_form(const char *text, qins_coded_form *form) {
    for (int i = 0; text != NULL && i < QINS_CODED_FORM_COUNT; i++)
        if (strcmp(qins_coded_form_name[i], text) == 0) {
            *form = (qins_coded_form)i;
            return true;
        }
    return false;
}

static bool parse_shape(const json_t *shape, qins_tensor *t) {
    t->n_dims = json_array_size(shape);
    if (!json_is_array(shape) || t->n_dims > QINS_MAX_DIMS) return false;
    for (size_t i = 0; i < t->n_dims; i++) {
        json_int_t n = json_integer_value(json_array_get(shape, i));
        if (n < 1) return false;
        t->shape[i] = (uint64_t)n;
    }
    return true;
}

/* Width for qins_coded_plan: bits of packed codes, bytes of a number; 0 when form and tensor do not go together. */
static int width_of(qins_coded_form form, const qins_tensor *t) {
    size_t bytes = qins_types[t->type].block_bytes;
    if (form == QINS_CODED_NUMBERS) return (int)bytes;
    if (form == QINS_CODED_BYTES) return 1;
    if (t->type != QINS_TYPE_U8 || t->n_dims != 3) return 0;
    for (int bits = QINS_TRELLIS_MIN_BITS; bits <= QINS_MAX_BITS; bits++)
        if (t->shape[2] == qins_tile_bytes(bits)) return bits;
    return 0;
}

static qins_status parse_source(const loader *l, const char *name, const json_t *entry, source *s, qins_error *err) {
    const char *path = l->checkpoint->path;
    char stored_name[NAME_SIZE];
    qins_coded_form form;
    qins_coded_layout layout;
    *s = (source){.name = name};
    qins_tensor *t = &s->tensor;
    int n = snprintf(stored_name, sizeof stored_name, "%s" QINS_CODED_SUFFIX, name);
    const qins_tensor *stored =
        n > 0 && (size_t)n < sizeof stored_name ? qins_checkpoint_find(l->checkpoint, stored_name) : NULL;
    if (stored == NULL || stored->type != QINS_TYPE_U8)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected its entropy-coded bytes \"%s\", found none",
                         path, name, QINS_CODED_SUFFIX);
    if (qins_checkpoint_find(l->checkpoint, name) != NULL)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s is there twice: entropy-coded and as it is", path, name);
    json_int_t chunk = json_integer_value(json_object_get(entry, "chunk")),
               rotate = json_integer_value(json_object_get(entry, "rotate"));
    bool valid = parse_type(json_string_value(json_object_get(entry, "dtype")), &t->type) &&
                 parse_form(json_string_value(json_object_get(entry, "form")), &form) &&
                 parse_shape(json_object_get(entry, "shape"), t) && chunk > 0 && rotate >= 0 && rotate < 32;
    if (!valid)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: the metadata of its coding is not valid", path, name);
    qins_status status = qins_tensor_measure(t, name, path, err);
    if (status != QINS_OK) return status;
    int width = width_of(form, t);
    bool planned =
        qins_coded_has_rows(form)
            ? width > 0 && qins_coded_plan_rows(&layout, form, width, t->shape[1], t->n_bytes, (uint64_t)chunk)
            : qins_coded_plan(&layout, form, width, (unsigned)rotate, t->n_bytes, (uint64_t)chunk);
    if (!planned)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: cannot be coded in form %s with chunks of %lld", path,
                         name, qins_coded_form_name[form], (long long)chunk);
    status = qins_coded_open(&s->coded, &layout, stored->data, stored->n_bytes, err);
    if (status != QINS_OK) return qins_prefix(err, status, "%s: tensor %s", path, name);
    t->file_bytes = stored->n_bytes;
    s->stored = (size_t)(stored - l->checkpoint->tensors);
    s->chunks_left = layout.n_chunks;
    return QINS_OK;
}

static qins_status parse_sources(loader *l, const json_t *coded, qins_dir *dir, qins_error *err) {
    const char *name;
    json_t *entry;
    size_t total = 0;
    json_object_foreach((json_t *)(uintptr_t)coded, name, entry) {
        source *s = &l->sources[l->n_sources];
        qins_status status = parse_source(l, name, entry, s, err);
        if (status != QINS_OK) return status;
        l->n_sources++;
        s->offset = total;
        s->first_chunk = l->n_chunks;
        l->n_chunks += s->coded.layout.n_chunks;
        if (!qins_add_size(total, qins_round_up((size_t)s->tensor.n_bytes, ALIGNMENT), &total))
            return qins_fail(err, QINS_ERR_FORMAT, "%s: the sizes of its tensors overflow", l->checkpoint->path);
    }
    if (total == 0) return QINS_OK;
    void *region = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) return qins_fail_memory(err, total, "the decoded model");
    dir->decoded = region;
    dir->decoded_bytes = total;
    if (total >= HUGE_PAGE) madvise(region, total, MADV_HUGEPAGE); /* a hint: fewer page faults while decoding */
    return QINS_OK;
}

/* ---- decoding ---- */

static source *source_of(const loader *l, size_t chunk) {
    size_t low = 0, high = l->n_sources;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (l->sources[middle].first_chunk <= chunk)
            low = middle;
        else
            high = middle;
    }
    return &l->sources[low];
}

static qins_status decode_all(loader *l, const qins_dir *dir, qins_error *err) {
    size_t bad = SIZE_MAX, done = 0;
    bool no_memory = false, stop = false;
#pragma omp parallel
    {
        qins_coder *coder = qins_coder_new();
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < l->n_chunks; i++) {
            bool skip;
#pragma omp atomic read
            skip = stop;
            if (skip || coder == NULL) continue;
            source *s = source_of(l, i);
            bool ok = qins_coded_decode(coder, &s->coded, i - s->first_chunk, dir->decoded + s->offset);
            size_t left, now;
#pragma omp atomic capture
            left = --s->chunks_left;
#pragma omp atomic capture
            now = ++done;
            if (left == 0) qins_map_release(s->coded.data, (size_t)s->tensor.file_bytes);
            if (!ok) {
#pragma omp critical(qins_coded_load)
                if (i < bad) bad = i;
            }
            bool asked = qins_thread_index() == 0 && l->progress != NULL &&
                         qins_report(l->progress->report, l->progress->user, "load", now, l->n_chunks);
            if (asked || !ok) {
#pragma omp atomic write
                stop = true;
            }
        }
        if (coder == NULL) {
#pragma omp atomic write
            no_memory = true;
        }
        qins_coder_free(coder);
    }
    if (no_memory) return qins_fail_memory(err, 0, "a decoder");
    if (bad != SIZE_MAX)
        return qins_fail(
            err, QINS_ERR_CHECKSUM,
            "%s: tensor %s: chunk %zu does not decode to what its checksum says; the file is damaged: copy "
            "or compress it again",
            l->checkpoint->path, source_of(l, bad)->name, bad - source_of(l, bad)->first_chunk);
    return stop ? qins_fail(err, QINS_ERR_CANCELLED, "cancelled") : QINS_OK;
}

/* ---- among the checkpoint's tensors ---- */

static int compare_names(const void *a, const void *b) {
    return strcmp(((const qins_tensor *)a)->name, ((const qins_tensor *)b)->name);
}

static qins_status replace_all(loader *l, const qins_dir *dir, qins_error *err) {
    qins_checkpoint *c = l->checkpoint;
    for (size_t i = 0; i < l->n_sources; i++) {
        source *s = &l->sources[i];
        qins_tensor *t = &c->tensors[s->stored];
        char *name = qins_strdup(s->name);
        if (name == NULL) return qins_fail_memory(err, strlen(s->name), "a tensor name");
        free((void *)(uintptr_t)t->name);
        *t = s->tensor;
        t->name = name;
        t->data = dir->decoded + s->offset;
    }
    qsort(c->tensors, c->n_tensors, sizeof *c->tensors, compare_names);
    return QINS_OK;
}

qins_status qins_coded_load(qins_checkpoint *checkpoint, const json_t *coded, const qins_load_progress *progress,
                            qins_dir *dir, qins_error *err) {
    if (json_object_size(coded) == 0) return QINS_OK;
    loader l = {.checkpoint = checkpoint,
                .sources = qins_alloc(json_object_size(coded), sizeof *l.sources),
                .progress = progress};
    if (l.sources == NULL) return qins_fail_memory(err, json_object_size(coded) * sizeof *l.sources, "coded tensors");
    qins_status status = parse_sources(&l, coded, dir, err);
    if (status == QINS_OK) status = decode_all(&l, dir, err);
    if (status == QINS_OK) status = replace_all(&l, dir, err);
    for (size_t i = 0; i < l.n_sources; i++)
        qins_coded_close(&l.sources[i].coded);
    free(l.sources);
    return status;
}

void qins_coded_unload(qins_dir *dir) {
    if (dir->decoded != NULL) munmap(dir->decoded, dir->decoded_bytes);
}
