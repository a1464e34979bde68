/* A checkpoint's tensors into a file, entropy-coded. SPDX-License-Identifier: MIT
 *
 * Sizes are known only once a tensor is coded: tensors that stay as they are come first, in an order that keeps them
 * aligned, then coded ones, each laid out when the one before it is finished.
 */
#include "format/checkpoint_private.h"
#include "format/safetensors.h"
#include "format/safetensors_write.h"
#include "model/coded.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define TEMPORARY_NAME ".weights.qins-tmp"
enum { NAME_SIZE = 512, LINE = 64, COPY_BYTES = 4 << 20, CHUNKS_A_THREAD = 2 };

typedef struct item {
    const qins_tensor *tensor;
    bool code;
    qins_coded_layout layout;
    uint8_t *row_class; /* owned; NULL unless form rows */
    size_t index;       /* in the writer */
} item;

typedef struct writing {
    item *items;
    size_t n_items;
    qins_st_writer *writer;
    const qins_load_progress *progress;
    uint64_t done, total;
} writing;

/* ---- what is coded, and how ---- */

static int compare_pointers(const void *a, const void *b) {
    const qins_tensor *x = *(const qins_tensor *const *)a, *y = *(const qins_tensor *const *)b;
    return x < y ? -1 : x > y;
}

/* Sorted list of the tensors that hold codes; the packed ones are the first *n_packed. */
static const qins_tensor **list_codes(const qins_dir *contents, qins_storage storage, size_t *n) {
    size_t n_encoded = contents != NULL ? contents->n_tensors : 0;
    const qins_tensor **list = qins_alloc(n_encoded, sizeof *list);
    *n = 0;
    for (size_t i = 0; list != NULL && i < n_encoded; i++)
        if (contents->tensors[i].options.storage == storage) list[(*n)++] = contents->tensors[i].parts[QINS_PART_CODES];
    if (list != NULL) qsort(list, *n, sizeof *list, compare_pointers);
    return list;
}

/* How often every code is in every row of a packed tensor. */
static void count_codes(const qins_tensor *t, int bits, uint32_t *counts) {
    size_t n_panels = (size_t)t->shape[0], n_tiles = (size_t)t->shape[1], n_levels = (size_t)1 << bits;
#pragma omp parallel for schedule(static)
    for (size_t p = 0; p < n_panels; p++)
        for (size_t i = 0; i < n_tiles; i++) {
            uint8_t symbols[QINS_TILE_CODES];
            qins_unpack_symbols(t->data + (p * n_tiles + i) * qins_tile_bytes(bits), bits, symbols);
            for (size_t s = 0; s < qins_tile_symbols(bits); s++) {
                uint32_t *row = counts + (p * QINS_PANEL_ROWS + s % LINE / 4) * n_levels;
                row[bits <= 4 ? symbols[s] & 15u : symbols[s]]++;
                if (bits <= 4) row[symbols[s] >> 4]++;
            }
        }
}

static double entropy_bits(const double *counts, size_t n) {
    double total = 0, bits = 0;
    for (size_t i = 0; i < n; i++)
        total += counts[i];
    for (size_t i = 0; i < n; i++)
        if (counts[i] > 0) bits -= counts[i] / total * log2(counts[i] / total);
    return bits;
}

/* Whether the lowest bit of 5-bit codes is next to a coin, as that of the trellis is: then two codes without it make a
 * symbol, which Huffman codes come 0.04 bit nearer to. */
static bool has_random_lowest_bit(const uint32_t *counts, size_t n_rows) {
    enum { LEVELS = 32 };
    const double nearly_one = 0.99;
    double all[LEVELS] = {0}, upper[LEVELS / 2] = {0};
    for (size_t i = 0; i < n_rows * LEVELS; i++)
        all[i % LEVELS] += counts[i];
    for (size_t i = 0; i < LEVELS; i++)
        upper[i / 2] += all[i];
    return entropy_bits(all, LEVELS) - entropy_bits(upper, LEVELS / 2) > nearly_one;
}

/* Form rows where classes of rows save enough, beyond what their tables take, or form upper. */
static bool plan_rows(const qins_tensor *t, int bits, item *it) {
    enum { MOST_COUNTS = 1 << 24, TABLE_BITS = 8 * 64 };
    const double pays = 0.99;
    size_t n_rows, n_counts;
    if (bits > 8 || !qins_mul_size((size_t)t->shape[0], QINS_PANEL_ROWS, &n_rows) ||
        !qins_mul_size(n_rows, (size_t)1 << bits, &n_counts) || n_counts > MOST_COUNTS ||
        !qins_coded_plan_rows(&it->layout, QINS_CODED_ROWS, bits, t->shape[1], t->n_bytes, 0))
        return false;
    uint32_t *counts = qins_alloc(n_counts, sizeof *counts);
    it->row_class = qins_alloc(n_rows, 1);
    double together = 0, apart = 0;
    bool ok = counts != NULL && it->row_class != NULL, upper = false;
    if (ok) {
        count_codes(t, bits, counts);
        upper = bits == 5 && has_random_lowest_bit(counts, n_rows) &&
                qins_coded_plan_rows(&it->layout, QINS_CODED_UPPER, bits, t->shape[1], t->n_bytes, 0);
        ok = qins_row_classes(counts, n_rows, (size_t)1 << bits, it->row_class, &together, &apart);
    }
    free(counts);
    double more = (double)it->layout.n_chunks * (QINS_ROW_CLASSES - 1) * TABLE_BITS + 2.0 * (double)n_rows;
    bool classes = apart + more < pays * together;
    if (ok && (classes || upper)) {
        if (!classes) memset(it->row_class, 0, n_rows);
        it->layout.row_class = it->row_class;
        return true;
    }
    free(it->row_class);
    it->row_class = NULL;
    return false;
}

/* F16 has sign, exponent and two bits of the fraction in its high byte; BF16 and F32 are rotated by one, so that the
 * high byte is the exponent. */
static bool plan_coding(const qins_tensor *t, bool packed_codes, item *it) {
    qins_coded_layout *layout = &it->layout;
    if (t->n_bytes < QINS_MIN_CODED_BYTES) return false;
    if (packed_codes) {
        int bits = (int)(t->shape[2] * 8 / QINS_TILE_CODES);
        return plan_rows(t, bits, it) || qins_coded_plan(layout, QINS_CODED_PLANES, bits, 0, t->n_bytes, 0);
    }
    switch (t->type) {
    case QINS_TYPE_F16:
        return qins_coded_plan(layout, QINS_CODED_NUMBERS, 2, 0, t->n_bytes, 0);
    case QINS_TYPE_BF16:
        return qins_coded_plan(layout, QINS_CODED_NUMBERS, 2, 1, t->n_bytes, 0);
    case QINS_TYPE_F32:
        return qins_coded_plan(layout, QINS_CODED_NUMBERS, 4, 1, t->n_bytes, 0);
    case QINS_TYPE_U8:
    case QINS_TYPE_I8:
        return qins_coded_plan(layout, QINS_CODED_BYTES, 1, 0, t->n_bytes, 0);
    default:
        return false;
    }
}

/* Uncoded before coded; of the uncoded whole lines first, then wider numbers first; otherwise by name. */
static int compare_items(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->code != y->code) return x->code ? 1 : -1;
    if (!x->code) {
        bool line_x = x->tensor->n_bytes % LINE == 0, line_y = y->tensor->n_bytes % LINE == 0;
        size_t wide_x = qins_types[x->tensor->type].block_bytes, wide_y = qins_types[y->tensor->type].block_bytes;
        if (line_x != line_y) return line_x ? -1 : 1;
        if (wide_x != wide_y) return wide_x > wide_y ? -1 : 1;
    }
    return strcmp(x->tensor->name, y->tensor->name);
}

static qins_status plan_items(const qins_checkpoint *c, const qins_dir *contents, bool code, writing *w,
                              qins_error *err) {
    size_t n_packed = 0;
    const qins_tensor **packed = list_codes(contents, QINS_STORAGE_PACKED, &n_packed);
    w->items = qins_alloc(c->n_tensors, sizeof *w->items);
    if (packed == NULL || w->items == NULL) {
        free(packed);
        return qins_fail_memory(err, c->n_tensors * sizeof *w->items, "a list of tensors");
    }
    for (size_t i = 0; i < c->n_tensors; i++) {
        const qins_tensor *t = &c->tensors[i];
        item *it = &w->items[w->n_items++];
        bool is_packed = n_packed > 0 && bsearch(&t, packed, n_packed, sizeof *packed, compare_pointers) != NULL;
        it->tensor = t;
        it->code = code && plan_coding(t, is_packed, it);
        w->total += t->n_bytes;
    }
    free(packed);
    qsort(w->items, w->n_items, sizeof *w->items, compare_items);
    return QINS_OK;
}

static qins_status declare(const item *it, qins_st_writer *writer, size_t *index, qins_error *err) {
    const qins_tensor *t = it->tensor;
    if (!it->code)
        return qins_st_writer_add(writer, t->name, qins_types[t->type].name, t->n_dims, t->shape, t->n_bytes, index,
                                  err);
    char name[NAME_SIZE];
    int n = snprintf(name, sizeof name, "%s" QINS_CODED_SUFFIX, t->name);
    if (n < 0 || (size_t)n >= sizeof name)
        return qins_fail(err, QINS_ERR_FORMAT, "tensor %s: its name is too long", t->name);
    uint64_t most = (uint64_t)it->layout.n_chunks * qins_coded_bound(&it->layout) + qins_coded_index_bytes(&it->layout);
    return qins_st_writer_add(writer, name, "U8", 1, &most, most, index, err);
}

/* ---- metadata ---- */

static json_t *coded_entry(const item *it) {
    const qins_tensor *t = it->tensor;
    json_t *shape = json_array();
    for (size_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    char hex[17];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)XXH3_64bits(t->data, (size_t)t->n_bytes));
    json_t *entry =
        json_pack("{s:s, s:o, s:s, s:I, s:s}", "dtype", qins_types[t->type].name, "shape", shape, "form",
                  qins_coded_form_name[it->layout.form], "chunk", (json_int_t)it->layout.chunk_units, "xxh3_64", hex);
    if (it->layout.rotate > 0) json_object_set_new(entry, "rotate", json_integer((json_int_t)it->layout.rotate));
    return entry;
}

/* The checkpoint's qins metadata with another list of coded tensors. *metadata stays NULL for a plain checkpoint of
 * which nothing is coded. */
static qins_status make_metadata(const qins_checkpoint *c, const writing *w, json_t *coded, json_t **metadata,
                                 qins_error *err) {
    const char *old = json_string_value(json_object_get(c->metadata, "qins"));
    json_t *meta = old != NULL ? json_loads(old, 0, NULL) : NULL;
    *metadata = NULL;
    for (size_t i = 0; i < w->n_items; i++)
        if (w->items[i].code) json_object_set_new(coded, w->items[i].tensor->name, coded_entry(&w->items[i]));
    bool plain = json_object_size(json_object_get(meta, "tensors")) == 0;
    if (plain && json_object_size(coded) == 0) {
        json_decref(meta);
        return QINS_OK;
    }
    if (meta == NULL)
        meta = json_pack("{s:i, s:s, s:{}, s:{}}", "version", QINS_FORMAT_VERSION, "writer",
                         "qins " QINS_VERSION_STRING, "tensors", "sources");
    if (json_object_size(coded) > 0)
        json_object_set(meta, "coded", coded);
    else
        json_object_del(meta, "coded");
    char *text = meta != NULL ? json_dumps(meta, JSON_COMPACT) : NULL;
    *metadata = text != NULL ? json_pack("{s:s}", "qins", text) : NULL;
    free(text);
    json_decref(meta);
    return *metadata != NULL ? QINS_OK : qins_fail_memory(err, 0, "metadata");
}

/* ---- writing ---- */

static qins_status advance(writing *w, uint64_t n, qins_error *err) {
    w->done += n;
    if (w->progress != NULL && qins_report(w->progress->report, w->progress->user, "pack", w->done, w->total))
        return qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
    return QINS_OK;
}

static qins_status write_raw(writing *w, const item *it, qins_error *err) {
    const qins_tensor *t = it->tensor;
    qins_status status = QINS_OK;
    for (uint64_t at = 0; at < t->n_bytes && status == QINS_OK;) {
        size_t n = t->n_bytes - at < COPY_BYTES ? (size_t)(t->n_bytes - at) : COPY_BYTES;
        status = qins_st_writer_put(w->writer, it->index, at, t->data + at, n, err);
        at += n;
        if (status == QINS_OK) status = advance(w, n, err);
    }
    return status;
}

/* Some chunks of a tensor, coded side by side. */
typedef struct batch {
    size_t capacity, stride;
    uint8_t *out;
    size_t *n_bytes;
} batch;

static bool code_batch(const item *it, size_t first, size_t n, const batch *b, qins_chunk_record *records) {
    bool ok = true;
#pragma omp parallel
    {
        qins_coder *coder = qins_coder_new();
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < n; i++) {
            bool coded =
                coder != NULL && qins_coded_encode(coder, &it->layout, it->tensor->data, first + i,
                                                   b->out + i * b->stride, &b->n_bytes[i], &records[first + i]);
            if (!coded) {
#pragma omp atomic write
                ok = false;
            }
        }
        qins_coder_free(coder);
    }
    return ok;
}

static qins_status write_chunks(writing *w, const item *it, const batch *b, qins_chunk_record *records, uint64_t *at,
                                qins_error *err) {
    const qins_coded_layout *l = &it->layout;
    uint64_t before = w->done;
    for (size_t first = 0; first < l->n_chunks; first += b->capacity) {
        size_t n = qins_min_size(b->capacity, l->n_chunks - first);
        if (!code_batch(it, first, n, b, records)) return qins_fail_memory(err, n * b->stride, "coded chunks");
        for (size_t i = 0; i < n; i++) {
            qins_status status =
                qins_st_writer_put(w->writer, it->index, *at, b->out + i * b->stride, b->n_bytes[i], err);
            if (status != QINS_OK) return status;
            *at += b->n_bytes[i];
        }
        uint64_t here = before + it->tensor->n_bytes / l->n_chunks * (first + n);
        qins_status status = advance(w, here - w->done, err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

static qins_status write_coded(writing *w, const item *it, qins_error *err) {
    const qins_coded_layout *l = &it->layout;
    size_t per_batch = qins_min_size(l->n_chunks, (size_t)qins_get_threads() * CHUNKS_A_THREAD);
    size_t index_bytes = qins_coded_index_bytes(l);
    batch b = {.capacity = per_batch, .stride = qins_coded_bound(l)};
    b.out = qins_alloc(per_batch, b.stride);
    b.n_bytes = qins_alloc(per_batch, sizeof *b.n_bytes);
    qins_chunk_record *records = qins_alloc(l->n_chunks, sizeof *records);
    uint8_t *index = qins_alloc(index_bytes, 1);
    uint64_t at = 0;
    qins_status status = QINS_OK;
    if (b.out == NULL || b.n_bytes == NULL || records == NULL || index == NULL)
        status = qins_fail_memory(err, per_batch * b.stride, "coded chunks");
    if (status == QINS_OK) status = write_chunks(w, it, &b, records, &at, err);
    if (status == QINS_OK) {
        qins_coded_write_index(l, records, index);
        status = qins_st_writer_put(w->writer, it->index, at, index, index_bytes, err);
        at += index_bytes;
    }
    if (status == QINS_OK) qins_st_writer_resize(w->writer, it->index, at);
    free(b.out);
    free(b.n_bytes);
    free(records);
    free(index);
    return status;
}

qins_status qins_coded_write(const qins_checkpoint *c, const qins_dir *contents, bool code, const char *dir,
                             const char *file, const qins_load_progress *progress, qins_coded_result *result,
                             qins_error *err) {
    writing w = {.progress = progress};
    json_t *metadata = NULL;
    *result = (qins_coded_result){.coded = json_object()};
    qins_status status = plan_items(c, contents, code, &w, err);
    if (status == QINS_OK) status = make_metadata(c, &w, result->coded, &metadata, err);
    if (status == QINS_OK) status = qins_st_writer_new(metadata != NULL, &w.writer, err);
    for (size_t i = 0; i < w.n_items && status == QINS_OK; i++)
        status = declare(&w.items[i], w.writer, &w.items[i].index, err);
    if (status == QINS_OK) status = qins_st_writer_begin(w.writer, dir, file, metadata, err);
    for (size_t i = 0; i < w.n_items && status == QINS_OK; i++) {
        status = w.items[i].code ? write_coded(&w, &w.items[i], err) : write_raw(&w, &w.items[i], err);
        if (w.items[i].tensor->file_bytes == 0) /* pages of a file, not decoded ones */
            qins_map_release(w.items[i].tensor->data, (size_t)w.items[i].tensor->n_bytes);
    }
    if (status == QINS_OK) status = qins_st_writer_finish(w.writer, &result->header_bytes, &result->header_hash, err);
    if (status == QINS_OK) result->stored_bytes = qins_st_writer_tensor_bytes(w.writer);
    qins_st_writer_free(w.writer);
    json_decref(metadata);
    for (size_t i = 0; i < w.n_items; i++)
        free(w.items[i].row_class);
    free(w.items);
    return status;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const qins_tensor *)a)->name, ((const qins_tensor *)b)->name);
}

static qins_status rewrite(const char *dir, const char *path, const qins_load_progress *progress,
                           qins_coded_result *result, qins_error *err) {
    qins_map map;
    qins_status status = qins_map_open(path, &map, err);
    if (status != QINS_OK) return status;
    qins_tensor_list list = {0};
    qins_checkpoint c = {.source = QINS_SOURCE_SAFETENSORS, .path = map.path};
    qins_dir *contents = NULL;
    status = qins_safetensors_parse(map.data, map.size, path, &list, &c.metadata, err);
    if (status == QINS_OK) {
        qsort(list.items, list.n, sizeof *list.items, compare_names);
        c.tensors = list.items;
        c.n_tensors = list.n;
        status = qins_dir_read_tensors(&c, false, NULL, &contents, err);
    }
    if (status == QINS_OK) status = qins_coded_write(&c, contents, true, dir, TEMPORARY_NAME, progress, result, err);
    qins_dir_free(contents);
    json_decref(c.metadata);
    qins_tensor_list_free(&list);
    qins_map_close(&map);
    return status;
}

qins_status qins_coded_rewrite(const char *dir, const qins_load_progress *progress, qins_coded_result *result,
                               qins_error *err) {
    char *path = qins_format("%s/%s", dir, QINS_WEIGHTS_NAME), *temporary = qins_format("%s/%s", dir, TEMPORARY_NAME);
    qins_status status = path == NULL || temporary == NULL ? qins_fail_memory(err, strlen(dir), "a path") : QINS_OK;
    if (status == QINS_OK) status = rewrite(dir, path, progress, result, err);
    if (status == QINS_OK && rename(temporary, path) != 0)
        status = qins_fail(err, QINS_ERR_IO, "%s: cannot replace: %s", path, strerror(errno));
    free(path);
    free(temporary);
    return status;
}
