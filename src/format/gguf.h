/* GGUF files: parser of the header, and what is made of it. SPDX-License-Identifier: MIT
 *
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian. Nothing is copied out of
 * the file while parsing: strings and arrays are views of its bytes, valid as long as the mapping.
 */
#ifndef QINS_GGUF_H
#define QINS_GGUF_H

#include "format/checkpoint_private.h"

typedef enum qins_gguf_kind {
    QINS_GGUF_U8 = 0,
    QINS_GGUF_I8 = 1,
    QINS_GGUF_U16 = 2,
    QINS_GGUF_I16 = 3,
    QINS_GGUF_U32 = 4,
    QINS_GGUF_I32 = 5,
    QINS_GGUF_F32 = 6,
    QINS_GGUF_BOOL = 7,
    QINS_GGUF_STRING = 8,
    QINS_GGUF_ARRAY = 9,
    QINS_GGUF_U64 = 10,
    QINS_GGUF_I64 = 11,
    QINS_GGUF_F64 = 12,
    QINS_GGUF_KIND_COUNT
} qins_gguf_kind;

/* Not NUL-terminated. */
typedef struct qins_gguf_string {
    const char *data;
    size_t n;
} qins_gguf_string;

/* One metadata entry: a value, or an array (kind = that of its items, is_array set). */
typedef struct qins_gguf_value {
    qins_gguf_string key;
    qins_gguf_kind kind;
    bool is_array;
    uint64_t count;      /* items of an array; 1 otherwise */
    const uint8_t *data; /* first item */
} qins_gguf_value;

typedef struct qins_gguf {
    char *path;
    uint32_t version;
    qins_gguf_value *values; /* sorted by key */
    size_t n_values;
    qins_tensor_list tensors; /* under their GGUF names, in file order */
} qins_gguf;

/* Parses data[0..size). path is for messages. *gguf is freed with qins_gguf_free. */
qins_status qins_gguf_parse(const uint8_t *data, size_t size, const char *path, qins_gguf **gguf, qins_error *err);
void qins_gguf_free(qins_gguf *gguf);
/* Sorts the metadata by key, as qins_gguf_find needs it. */
void qins_gguf_sort(qins_gguf *gguf);
/* The number that stands for a type in files (ggml_type). The type must be one that GGUF has. */
uint32_t qins_gguf_type_number(qins_type type);

/* ---- metadata ---- */

/* NULL when absent. */
const qins_gguf_value *qins_gguf_find(const qins_gguf *gguf, const char *key);
/* Item i (below count) of a value; the caller has checked the kind. */
double qins_gguf_number(const qins_gguf_value *value, uint64_t i);   /* any numeric kind or bool */
int64_t qins_gguf_integer(const qins_gguf_value *value, uint64_t i); /* likewise; values that do not fit saturate */
/* The string at *cursor (which starts as value->data), advanced to the next. */
qins_gguf_string qins_gguf_next_string(const uint8_t **cursor);

/* Bytes of all items in the file. */
size_t qins_gguf_value_bytes(const qins_gguf_value *value);

/* Shortcuts for single values; false when absent or of another kind. */
bool qins_gguf_get_integer(const qins_gguf *gguf, const char *key, int64_t *value);
bool qins_gguf_get_number(const qins_gguf *gguf, const char *key, double *value);
bool qins_gguf_get_bool(const qins_gguf *gguf, const char *key, bool *value);
bool qins_gguf_get_string(const qins_gguf *gguf, const char *key, qins_gguf_string *value);

/* ---- architectures (gguf_names.c) ---- */

typedef struct qins_gguf_name {
    const char *gguf; /* "blk.%.attn_q": % stands for the layer; no .weight or .bias */
    const char *hf;   /* "@" stands for the expert: the tensor is a stack of that many matrices */
} qins_gguf_name;

typedef struct qins_gguf_arch {
    const char *name;       /* general.architecture */
    const char *model_type; /* Hugging Face */
    const char *class_name; /* entry of "architectures" in config.json */
    const qins_gguf_name *names[3];
    bool rope_pairs;   /* rows of q and k are stored in pairs */
    bool qkv_by_part;  /* attn_qkv holds all of q, then k, then v; Hugging Face has them head by head */
    bool norm_offset;  /* norm weights are stored with 1 added */
    bool layer_norm;   /* layer norm instead of RMS norm */
    bool has_head;     /* output.weight is there even when it is the embedding */
    bool lacks_head;   /* output.weight is never there */
    bool rope_factors; /* divisors of the rotary frequencies may be stored as tensors */
    /* keys of config.json that differ; NULL = the usual one */
    const char *norm_eps_key, *theta_key, *rotary_key, *experts_key;
    const char *activation; /* hidden_act */
    const char *constants;  /* JSON object of what the architecture implies; entries made of metadata win */
} qins_gguf_arch;

/* The row for this file; refuses unknown architectures by name. */
qins_status qins_gguf_find_arch(const qins_gguf *gguf, const qins_gguf_arch **arch, qins_error *err);
/* Appends to *out the tensors of *in under their Hugging Face names, stacks of experts taken apart. config is the one
 * made of the same file. Refuses names that the architecture does not have. */
qins_status qins_gguf_translate(const qins_gguf_arch *arch, const json_t *config, const char *path,
                                const qins_tensor_list *in, qins_tensor_list *out, qins_error *err);

/* The row for a model type, NULL when there is none. */
const qins_gguf_arch *qins_gguf_arch_of(const char *model_type);
/* The GGUF name (without .weight or .bias) of a Hugging Face name (likewise) of this layer and expert. Returns its row,
 * NULL when the architecture has no such tensor or the name does not fit. */
const qins_gguf_name *qins_gguf_name_of(const qins_gguf_arch *arch, const char *hf, size_t layer, size_t expert,
                                        char *name, size_t size);
/* Is it the row of this kind of tensor, such as "attn_q", in whatever layer? */
bool qins_gguf_is_kind(const qins_gguf_name *row, const char *kind);

/* ---- what is made of the metadata; each returns a new reference ---- */

/* config.json (gguf_config.c). */
qins_status qins_gguf_config(const qins_gguf *gguf, const qins_gguf_arch *arch, json_t **config, qins_error *err);
/* tokenizer.json and tokenizer_config.json (gguf_tokenizer.c). */
qins_status qins_gguf_tokenizer(const qins_gguf *gguf, json_t **tokenizer, qins_error *err);
qins_status qins_gguf_tokenizer_config(const qins_gguf *gguf, json_t **tokenizer_config, qins_error *err);

#endif
