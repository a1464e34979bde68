/* Parser of one GGUF file. SPDX-License-Identifier: MIT */
#include "format/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_ALIGNMENT = 32,
    MAX_KEY = 65535,         /* as the specification says */
    MAX_VALUES = 65536,      /* real files have under a hundred */
    MIN_VALUE_BYTES = 8 + 5, /* key length, type, one byte */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8
};

/* Bytes of one item; 0 for those without a fixed size. */
static const uint8_t kind_bytes[QINS_GGUF_KIND_COUNT] = {
    [QINS_GGUF_U8] = 1,  [QINS_GGUF_I8] = 1,  [QINS_GGUF_U16] = 2, [QINS_GGUF_I16] = 2,
    [QINS_GGUF_U32] = 4, [QINS_GGUF_I32] = 4, [QINS_GGUF_F32] = 4, [QINS_GGUF_BOOL] = 1,
    [QINS_GGUF_U64] = 8, [QINS_GGUF_I64] = 8, [QINS_GGUF_F64] = 8,
};

/* Tensor types by their number in the file (ggml_type). type = QINS_TYPE_COUNT: known, not supported. */
static const struct {
    const char *name;
    qins_type type;
} tensor_types[] = {
    [0] = {"F32", QINS_TYPE_F32},
    [1] = {"F16", QINS_TYPE_F16},
    [2] = {"Q4_0", QINS_TYPE_Q4_0},
    [3] = {"Q4_1", QINS_TYPE_Q4_1},
    [4] = {"Q4_2", QINS_TYPE_COUNT},
    [5] = {"Q4_3", QINS_TYPE_COUNT},
    [6] = {"Q5_0", QINS_TYPE_Q5_0},
    [7] = {"Q5_1", QINS_TYPE_Q5_1},
    [8] = {"Q8_0", QINS_TYPE_Q8_0},
    [9] = {"Q8_1", QINS_TYPE_COUNT},
    [10] = {"Q2_K", QINS_TYPE_Q2_K},
    [11] = {"Q3_K", QINS_TYPE_Q3_K},
    [12] = {"Q4_K", QINS_TYPE_Q4_K},
    [13] = {"Q5_K", QINS_TYPE_Q5_K},
    [14] = {"Q6_K", QINS_TYPE_Q6_K},
    [15] = {"Q8_K", QINS_TYPE_Q8_K},
    [16] = {"IQ2_XXS", QINS_TYPE_COUNT},
    [17] = {"IQ2_XS", QINS_TYPE_COUNT},
    [18] = {"IQ3_XXS", QINS_TYPE_COUNT},
    [19] = {"IQ1_S", QINS_TYPE_COUNT},
    [20] = {"IQ4_NL", QINS_TYPE_IQ4_NL},
    [21] = {"IQ3_S", QINS_TYPE_COUNT},
    [22] = {"IQ2_S", QINS_TYPE_COUNT},
    [23] = {"IQ4_XS", QINS_TYPE_IQ4_XS},
    [24] = {"I8", QINS_TYPE_I8},
    [25] = {"I16", QINS_TYPE_I16},
    [26] = {"I32", QINS_TYPE_I32},
    [27] = {"I64", QINS_TYPE_I64},
    [28] = {"F64", QINS_TYPE_F64},
    [29] = {"IQ1_M", QINS_TYPE_COUNT},
    [30] = {"BF16", QINS_TYPE_BF16},
    [31] = {"Q4_0_4_4", QINS_TYPE_COUNT},
    [32] = {"Q4_0_4_8", QINS_TYPE_COUNT},
    [33] = {"Q4_0_8_8", QINS_TYPE_COUNT},
    [34] = {"TQ1_0", QINS_TYPE_TQ1_0},
    [35] = {"TQ2_0", QINS_TYPE_TQ2_0},
    [36] = {"IQ4_NL_4_4", QINS_TYPE_COUNT},
    [37] = {"IQ4_NL_4_8", QINS_TYPE_COUNT},
    [38] = {"IQ4_NL_8_8", QINS_TYPE_COUNT},
    [39] = {"MXFP4", QINS_TYPE_MXFP4},
    [40] = {"NVFP4", QINS_TYPE_COUNT},
    [41] = {"Q1_0", QINS_TYPE_COUNT},
};

static uint64_t load(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* ---- reading the header front to back ---- */

typedef struct reader {
    const uint8_t *data;
    size_t size, at;
    const char *path;
    qins_error *err;
} reader;

static qins_status truncated(const reader *r, const char *what) {
    return qins_fail(r->err, QINS_ERR_FORMAT,
                     "%s: the file ends within %s (byte %zu of %zu); it is truncated or damaged", r->path, what, r->at,
                     r->size);
}

static qins_status read_number(reader *r, size_t n, const char *what, uint64_t *value) {
    if (n > r->size - r->at) return truncated(r, what);
    *value = load(r->data + r->at, n);
    r->at += n;
    return QINS_OK;
}

static qins_status read_string(reader *r, const char *what, qins_gguf_string *s) {
    uint64_t n = 0;
    qins_status status = read_number(r, 8, what, &n);
    if (status != QINS_OK) return status;
    if (n > r->size - r->at)
        return qins_fail(r->err, QINS_ERR_FORMAT,
                         "%s: %s at byte %zu has length %" PRIu64 ", but only %zu bytes follow; the file is damaged",
                         r->path, what, r->at, n, r->size - r->at);
    *s = (qins_gguf_string){(const char *)r->data + r->at, (size_t)n};
    r->at += (size_t)n;
    return QINS_OK;
}

/* A string of the file for a message: shortened, with only printable ASCII. */
typedef struct shown {
    char text[129];
} shown;

static shown show(qins_gguf_string s) {
    shown out = {0};
    for (size_t i = 0; i < s.n && i < sizeof out.text - 1; i++)
        out.text[i] = s.data[i] >= 0x20 && s.data[i] < 0x7f ? s.data[i] : '?';
    return out;
}

static qins_status read_kind(reader *r, qins_gguf_string key, qins_gguf_kind *kind) {
    uint64_t n = 0;
    qins_status status = read_number(r, 4, "a metadata type", &n);
    if (status != QINS_OK) return status;
    if (n >= QINS_GGUF_KIND_COUNT)
        return qins_fail(r->err, QINS_ERR_FORMAT, "%s: metadata %s: unknown value type %" PRIu64, r->path,
                         show(key).text, n);
    *kind = (qins_gguf_kind)n;
    return QINS_OK;
}

/* Moves past `count` items, checking that they lie within the file. */
static qins_status skip_items(reader *r, qins_gguf_string key, qins_gguf_kind kind, uint64_t count) {
    size_t item = kind == QINS_GGUF_STRING ? 8 : kind_bytes[kind];
    if (count > (r->size - r->at) / item)
        return qins_fail(r->err, QINS_ERR_FORMAT,
                         "%s: metadata %s: %" PRIu64 " items do not fit in the %zu bytes that follow; the file is "
                         "damaged",
                         r->path, show(key).text, count, r->size - r->at);
    if (kind != QINS_GGUF_STRING) {
        r->at += (size_t)count * item;
        return QINS_OK;
    }
    for (uint64_t i = 0; i < count; i++) {
        qins_gguf_string s;
        qins_status status = read_string(r, "a metadata string", &s);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

static qins_status read_value(reader *r, qins_gguf_value *v) {
    qins_status status = read_string(r, "a metadata key", &v->key);
    if (status != QINS_OK) return status;
    if (v->key.n == 0 || v->key.n > MAX_KEY)
        return qins_fail(r->err, QINS_ERR_FORMAT, "%s: a metadata key has length %zu, expected 1 to %d", r->path,
                         v->key.n, MAX_KEY);
    status = read_kind(r, v->key, &v->kind);
    if (status != QINS_OK) return status;
    v->count = 1;
    if (v->kind == QINS_GGUF_ARRAY) {
        v->is_array = true;
        status = read_kind(r, v->key, &v->kind);
        if (status == QINS_OK) status = read_number(r, 8, "an array length", &v->count);
        if (status != QINS_OK) return status;
        if (v->kind == QINS_GGUF_ARRAY)
            return qins_fail(r->err, QINS_ERR_UNSUPPORTED, "%s: metadata %s: arrays of arrays are not supported",
                             r->path, show(v->key).text);
    }
    v->data = r->data + r->at;
    return skip_items(r, v->key, v->kind, v->count);
}

static int compare_strings(qins_gguf_string a, qins_gguf_string b) {
    int order = memcmp(a.data, b.data, qins_min_size(a.n, b.n));
    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

static int compare_keys(const void *a, const void *b) {
    return compare_strings(((const qins_gguf_value *)a)->key, ((const qins_gguf_value *)b)->key);
}

void qins_gguf_sort(qins_gguf *g) {
    qsort(g->values, g->n_values, sizeof *g->values, compare_keys);
}

static qins_status read_values(reader *r, uint64_t count, qins_gguf *g) {
    if (count > MAX_VALUES || count > (r->size - r->at) / MIN_VALUE_BYTES)
        return qins_fail(r->err, QINS_ERR_FORMAT, "%s: %" PRIu64 " metadata entries are more than the file can hold",
                         r->path, count);
    g->values = qins_alloc((size_t)count, sizeof *g->values);
    if (g->values == NULL) return qins_fail_memory(r->err, (size_t)count * sizeof *g->values, "metadata");
    for (; g->n_values < count; g->n_values++) {
        qins_status status = read_value(r, &g->values[g->n_values]);
        if (status != QINS_OK) return status;
    }
    qins_gguf_sort(g);
    for (size_t i = 1; i < g->n_values; i++) {
        qins_gguf_string key = g->values[i].key;
        if (compare_strings(g->values[i - 1].key, key) == 0)
            return qins_fail(r->err, QINS_ERR_FORMAT, "%s: metadata %s is there twice", r->path, show(key).text);
    }
    return QINS_OK;
}

/* ---- tensors ---- */

size_t qins_gguf_value_bytes(const qins_gguf_value *value) {
    if (value->kind != QINS_GGUF_STRING) return (size_t)value->count * kind_bytes[value->kind];
    const uint8_t *cursor = value->data;
    for (uint64_t i = 0; i < value->count; i++)
        (void)qins_gguf_next_string(&cursor);
    return (size_t)(cursor - value->data);
}

uint32_t qins_gguf_type_number(qins_type type) {
    uint32_t number = 0;
    while (tensor_types[number].name == NULL || tensor_types[number].type != type)
        number++; /* every type of ours that a GGUF file can have is in the table */
    return number;
}

/* Checks the type number and turns it into ours. */
static qins_status tensor_type(const reader *r, const char *name, uint64_t number, qins_type *type) {
    if (number >= sizeof tensor_types / sizeof tensor_types[0])
        return qins_fail(r->err, QINS_ERR_UNSUPPORTED, "%s: tensor %s: unknown tensor type %" PRIu64, r->path, name,
                         number);
    *type = tensor_types[number].type;
    if (*type == QINS_TYPE_COUNT)
        return qins_fail(r->err, QINS_ERR_UNSUPPORTED,
                         "%s: tensor %s: type %s is not supported; use a file in another quantization, such as Q4_K_M, "
                         "Q8_0 or F16",
                         r->path, name, tensor_types[number].name);
    return QINS_OK;
}

/* Reads one tensor's entry; its offset within the data part goes to *offset. */
static qins_status read_tensor(reader *r, qins_tensor_list *list, uint64_t *offset) {
    qins_gguf_string s;
    uint64_t n_dims = 0, number = 0;
    qins_tensor tensor = {0};
    qins_status status = read_string(r, "the name of a tensor", &s);
    if (status == QINS_OK) status = read_number(r, 4, "a tensor's entry", &n_dims);
    if (status != QINS_OK) return status;
    const shown printable = show(s);
    const char *name = printable.text;
    if (n_dims > QINS_MAX_DIMS)
        return qins_fail(r->err, QINS_ERR_FORMAT, "%s: tensor %s has %" PRIu64 " dimensions, at most %d are allowed",
                         r->path, name, n_dims, QINS_MAX_DIMS);
    tensor.n_dims = (size_t)n_dims;
    for (size_t i = tensor.n_dims; i-- > 0;) { /* stored fastest first */
        status = read_number(r, 8, "a tensor's entry", &tensor.shape[i]);
        if (status != QINS_OK) return status;
    }
    status = read_number(r, 4, "a tensor's entry", &number);
    if (status == QINS_OK) status = read_number(r, 8, "a tensor's entry", offset);
    if (status == QINS_OK) status = tensor_type(r, name, number, &tensor.type);
    if (status == QINS_OK) status = qins_tensor_measure(&tensor, name, r->path, r->err);
    if (status == QINS_OK) status = qins_tensor_list_add(list, &tensor, s.data, s.n, r->path, r->err);
    return status;
}

typedef struct span {
    uint64_t begin, end;
    const char *name;
} span;

static int compare_spans(const void *a, const void *b) {
    const span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* Bounds, alignment and overlaps; sets the data pointers. spans[i].begin holds the offset of tensor i. */
static qins_status place_tensors(const reader *r, qins_tensor_list *list, span *spans, uint64_t alignment,
                                 size_t data_start) {
    uint64_t n_data = r->size - data_start;
    for (size_t i = 0; i < list->n; i++) {
        qins_tensor *t = &list->items[i];
        span *s = &spans[i];
        s->name = t->name;
        if (s->begin % alignment != 0)
            return qins_fail(r->err, QINS_ERR_FORMAT,
                             "%s: tensor %s: offset %" PRIu64 " is no multiple of the alignment %" PRIu64, r->path,
                             t->name, s->begin, alignment);
        if (s->begin > n_data || t->n_bytes > n_data - s->begin)
            return qins_fail(r->err, QINS_ERR_FORMAT,
                             "%s: tensor %s needs %" PRIu64 " bytes at offset %" PRIu64 ", but the file has only "
                             "%" PRIu64 " bytes of data; it is truncated, fetch it again",
                             r->path, t->name, t->n_bytes, s->begin, n_data);
        s->end = s->begin + t->n_bytes;
        t->data = r->data + data_start + s->begin;
    }
    qsort(spans, list->n, sizeof *spans, compare_spans);
    for (size_t i = 1; i < list->n; i++) {
        if (spans[i].begin < spans[i - 1].end)
            return qins_fail(r->err, QINS_ERR_FORMAT, "%s: tensors %s and %s overlap", r->path, spans[i - 1].name,
                             spans[i].name);
    }
    return QINS_OK;
}

static qins_status read_alignment(const reader *r, const qins_gguf *g, uint64_t *alignment) {
    const qins_gguf_value *v = qins_gguf_find(g, "general.alignment");
    *alignment = DEFAULT_ALIGNMENT;
    if (v == NULL) return QINS_OK;
    if (v->is_array || v->kind != QINS_GGUF_U32)
        return qins_fail(r->err, QINS_ERR_FORMAT, "%s: general.alignment is not a 32-bit unsigned integer", r->path);
    *alignment = load(v->data, 4);
    if (*alignment == 0 || (*alignment & (*alignment - 1)) != 0)
        return qins_fail(r->err, QINS_ERR_FORMAT, "%s: general.alignment is %" PRIu64 ", expected a power of two",
                         r->path, *alignment);
    return QINS_OK;
}

static qins_status read_tensors(reader *r, uint64_t count, qins_gguf *g) {
    if (count > (r->size - r->at) / MIN_TENSOR_BYTES)
        return qins_fail(r->err, QINS_ERR_FORMAT, "%s: %" PRIu64 " tensors are more than the file can hold", r->path,
                         count);
    uint64_t alignment;
    qins_status status = read_alignment(r, g, &alignment);
    if (status != QINS_OK) return status;
    span *spans = qins_alloc((size_t)count, sizeof *spans);
    if (spans == NULL) return qins_fail_memory(r->err, (size_t)count * sizeof *spans, "a list of tensors");
    for (size_t i = 0; i < count && status == QINS_OK; i++)
        status = read_tensor(r, &g->tensors, &spans[i].begin);
    if (status == QINS_OK) {
        uint64_t start = (r->at + alignment - 1) / alignment * alignment;
        if (start > r->size) start = r->size; /* only possible when no tensor has data; bounds are checked */
        status = place_tensors(r, &g->tensors, spans, alignment, (size_t)start);
    }
    free(spans);
    return status;
}

/* ---- the whole file ---- */

static qins_status read_magic(reader *r, uint32_t *version) {
    uint64_t magic = 0, number = 0;
    if (r->size < 4 || memcmp(r->data, "GGUF", 4) != 0)
        return qins_fail(r->err, QINS_ERR_FORMAT,
                         "%s: is not a GGUF file (it does not begin with \"GGUF\"); give a model directory or a .gguf "
                         "file",
                         r->path);
    qins_status status = read_number(r, 4, "the header", &magic);
    if (status == QINS_OK) status = read_number(r, 4, "the header", &number);
    if (status != QINS_OK) return status;
    *version = (uint32_t)number;
    if ((*version & 0xffff) == 0)
        return qins_fail(r->err, QINS_ERR_UNSUPPORTED, "%s: big-endian GGUF files are not supported", r->path);
    if (*version != 2 && *version != 3)
        return qins_fail(r->err, QINS_ERR_UNSUPPORTED,
                         "%s: GGUF version %" PRIu32 " is not supported (2 and 3 are); convert the model again",
                         r->path, *version);
    return QINS_OK;
}

qins_status qins_gguf_parse(const uint8_t *data, size_t size, const char *path, qins_gguf **gguf, qins_error *err) {
    *gguf = NULL;
    reader r = {.data = data, .size = size, .path = path, .err = err};
    qins_gguf *g = qins_alloc(1, sizeof *g);
    if (g == NULL) return qins_fail_memory(err, sizeof *g, "a GGUF header");
    g->path = qins_strdup(path);
    uint64_t n_tensors = 0, n_values = 0;
    qins_status status = g->path != NULL ? QINS_OK : qins_fail_memory(err, strlen(path), "a path");
    if (status == QINS_OK) status = read_magic(&r, &g->version);
    if (status == QINS_OK) status = read_number(&r, 8, "the header", &n_tensors);
    if (status == QINS_OK) status = read_number(&r, 8, "the header", &n_values);
    if (status == QINS_OK) status = read_values(&r, n_values, g);
    if (status == QINS_OK) status = read_tensors(&r, n_tensors, g);
    if (status != QINS_OK) {
        qins_gguf_free(g);
        return status;
    }
    *gguf = g;
    return QINS_OK;
}

void qins_gguf_free(qins_gguf *gguf) {
    if (gguf == NULL) return;
    qins_tensor_list_free(&gguf->tensors);
    free(gguf->values);
    free(gguf->path);
    free(gguf);
}

/* ---- metadata ---- */

const qins_gguf_value *qins_gguf_find(const qins_gguf *gguf, const char *key) {
    qins_gguf_value wanted = {.key = {key, strlen(key)}};
    return bsearch(&wanted, gguf->values, gguf->n_values, sizeof wanted, compare_keys);
}

static int64_t sign_extend(uint64_t v, size_t n_bytes) {
    unsigned shift = (unsigned)(64 - 8 * n_bytes);
    return (int64_t)(v << shift) >> shift;
}

double qins_gguf_number(const qins_gguf_value *value, uint64_t i) {
    size_t n = kind_bytes[value->kind];
    uint64_t bits = load(value->data + i * n, n);
    if (value->kind == QINS_GGUF_F32) {
        uint32_t low = (uint32_t)bits;
        float f;
        memcpy(&f, &low, sizeof f);
        return (double)f;
    }
    if (value->kind == QINS_GGUF_F64) {
        double d;
        memcpy(&d, &bits, sizeof d);
        return d;
    }
    if (value->kind == QINS_GGUF_U64) return (double)bits;
    return (double)qins_gguf_integer(value, i);
}

int64_t qins_gguf_integer(const qins_gguf_value *value, uint64_t i) {
    size_t n = kind_bytes[value->kind];
    uint64_t bits = load(value->data + i * n, n);
    switch (value->kind) {
    case QINS_GGUF_I8:
    case QINS_GGUF_I16:
    case QINS_GGUF_I32:
    case QINS_GGUF_I64:
        return sign_extend(bits, n);
    case QINS_GGUF_F32:
    case QINS_GGUF_F64: {
        double d = qins_gguf_number(value, i);
        return d >= 9.2e18 ? INT64_MAX : d > -9.2e18 ? (int64_t)d : INT64_MIN; /* NaN gives INT64_MIN */
    }
    case QINS_GGUF_BOOL:
        return bits != 0;
    default:
        return bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
    }
}

qins_gguf_string qins_gguf_next_string(const uint8_t **cursor) {
    size_t n = (size_t)load(*cursor, 8);
    qins_gguf_string s = {(const char *)*cursor + 8, n};
    *cursor += 8 + n;
    return s;
}

static const qins_gguf_value *find_single(const qins_gguf *gguf, const char *key) {
    const qins_gguf_value *v = qins_gguf_find(gguf, key);
    return v != NULL && !v->is_array ? v : NULL;
}

bool qins_gguf_get_integer(const qins_gguf *gguf, const char *key, int64_t *value) {
    const qins_gguf_value *v = find_single(gguf, key);
    if (v == NULL || v->kind == QINS_GGUF_STRING || v->kind == QINS_GGUF_F32 || v->kind == QINS_GGUF_F64) return false;
    *value = qins_gguf_integer(v, 0);
    return true;
}

bool qins_gguf_get_number(const qins_gguf *gguf, const char *key, double *value) {
    const qins_gguf_value *v = find_single(gguf, key);
    if (v == NULL || v->kind == QINS_GGUF_STRING) return false;
    *value = qins_gguf_number(v, 0);
    return true;
}

bool qins_gguf_get_bool(const qins_gguf *gguf, const char *key, bool *value) {
    const qins_gguf_value *v = find_single(gguf, key);
    if (v == NULL || v->kind != QINS_GGUF_BOOL) return false;
    *value = qins_gguf_integer(v, 0) != 0;
    return true;
}

bool qins_gguf_get_string(const qins_gguf *gguf, const char *key, qins_gguf_string *value) {
    const qins_gguf_value *v = find_single(gguf, key);
    if (v == NULL || v->kind != QINS_GGUF_STRING) return false;
    const uint8_t *cursor = v->data;
    *value = qins_gguf_next_string(&cursor);
    return true;
}
