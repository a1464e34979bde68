/* A checkpoint, wherever it comes from: named tensors, a config and a tokenizer. SPDX-License-Identifier: MIT
 *
 * Three sources give the same picture, in Hugging Face names:
 *   safetensors directory   tensors as they are (one file or sharded with model.safetensors.index.json)
 *   qins directory          the same; encoded matrices are recognised one level up (src/model/weights.c)
 *   .gguf file              names, config and tokenizer translated to Hugging Face form (src/format/gguf_*.c)
 */
#ifndef QINS_CHECKPOINT_H
#define QINS_CHECKPOINT_H

#include "base/base.h"

#include <jansson.h>

/* How the bytes of one tensor are laid out: plain numbers or GGUF blocks along a row. */
typedef enum qins_type {
    QINS_TYPE_F32,
    QINS_TYPE_F16,
    QINS_TYPE_BF16,
    QINS_TYPE_F64,
    QINS_TYPE_U8,
    QINS_TYPE_I8,
    QINS_TYPE_I16,
    QINS_TYPE_I32,
    QINS_TYPE_I64,
    QINS_TYPE_BOOL,
    QINS_TYPE_F8_E4M3,
    QINS_TYPE_F8_E5M2,
    QINS_TYPE_Q4_0,
    QINS_TYPE_Q4_1,
    QINS_TYPE_Q5_0,
    QINS_TYPE_Q5_1,
    QINS_TYPE_Q8_0,
    QINS_TYPE_Q2_K,
    QINS_TYPE_Q3_K,
    QINS_TYPE_Q4_K,
    QINS_TYPE_Q5_K,
    QINS_TYPE_Q6_K,
    QINS_TYPE_Q8_K,
    QINS_TYPE_IQ4_NL,
    QINS_TYPE_IQ4_XS,
    QINS_TYPE_TQ1_0,
    QINS_TYPE_TQ2_0,
    QINS_TYPE_MXFP4,
    QINS_TYPE_COUNT
} qins_type;

typedef struct qins_type_info {
    const char *name;    /* "F32", "Q4_K" */
    size_t block_values; /* 1 for plain numbers */
    size_t block_bytes;
    /* n values (a multiple of block_values) to float, bit-exact with the gguf package; NULL when the type holds no
     * weights */
    void (*to_float)(const uint8_t *src, float *dst, size_t n);
} qins_type_info;

extern const qins_type_info qins_types[QINS_TYPE_COUNT]; /* src/format/dequantize.c */

enum { QINS_MAX_DIMS = 4 };

typedef struct qins_tensor {
    const char *name; /* Hugging Face name */
    qins_type type;
    size_t n_dims;                 /* 0..4; 0 = one value */
    uint64_t shape[QINS_MAX_DIMS]; /* slowest first, as in safetensors */
    uint64_t n_values;             /* product of shape, checked */
    const uint8_t *data;           /* mapped */
    uint64_t n_bytes;              /* checked against type and shape */
    uint64_t file_bytes; /* of a tensor that was decoded into memory: what it takes in the file; else 0 = n_bytes */
    /* llama GGUFs store the rows of q and k in pairs for interleaved rope. Source row r' of output row r, within each
     * head of rope_pairs rows: r = h*d + j  ->  r' = h*d + 2*(j % (d/2)) + j/(d/2), d = rope_pairs. 0 = rows in order.
     */
    size_t rope_pairs;
    /* gptneox GGUFs store all rows of q, then k, then v; Hugging Face has q, k and v of one head after another. Number
     * of heads; output row r = (3*h + p)*d + j -> source row (p*heads + h)*d + j. 0 = rows in order. */
    size_t qkv_heads;
    float offset; /* added to every value: -1 for norms of gemma GGUFs, which store 1 + w */
} qins_tensor;

/* True when `data` holds the tensor as it is: rows in order and values unchanged. Otherwise only qins_tensor_row reads
 * it right. */
static inline bool qins_tensor_is_verbatim(const qins_tensor *tensor) {
    return tensor->rope_pairs == 0 && tensor->qkv_heads == 0 && !(tensor->offset < 0.0f);
}

/* Bytes that the tensor takes in its file. */
static inline uint64_t qins_tensor_file_bytes(const qins_tensor *tensor) {
    return tensor->file_bytes > 0 ? tensor->file_bytes : tensor->n_bytes;
}

typedef struct qins_weight_file {
    const char *path;
    uint64_t size;         /* on disk */
    uint64_t tensor_bytes; /* sum over its tensors; the rest is header and padding */
} qins_weight_file;

typedef enum qins_source { QINS_SOURCE_SAFETENSORS, QINS_SOURCE_GGUF } qins_source;

typedef struct qins_checkpoint {
    qins_source source;
    char *path;
    json_t *config;            /* Hugging Face config.json (built from metadata for GGUF) */
    json_t *generation_config; /* or NULL */
    json_t *tokenizer_config;  /* tokenizer_config.json: chat_template, bos_token, eos_token ...; or NULL */
    json_t *metadata;          /* __metadata__ of the (first) safetensors file, an object; NULL for GGUF */
    qins_tensor *tensors;      /* sorted by name */
    size_t n_tensors;
    qins_weight_file *files;
    size_t n_files;
    struct qins_checkpoint_private *private_data;
} qins_checkpoint;

qins_status qins_checkpoint_open(const char *path, qins_checkpoint **checkpoint, qins_error *err);
void qins_checkpoint_close(qins_checkpoint *checkpoint);
/* NULL when absent. */
const qins_tensor *qins_checkpoint_find(const qins_checkpoint *checkpoint, const char *name);
/* tokenizer.json as a jansson object (a new reference; parsed on demand because it is large; built from metadata for
 * GGUF). */
qins_status qins_checkpoint_tokenizer(const qins_checkpoint *checkpoint, json_t **tokenizer, qins_error *err);

/* Row r of a matrix [shape[0]][rest] (or of the whole tensor seen as one row when n_dims <= 1) as floats, columns
 * [col, col+n). col and n must be multiples of the type's block (col+n may be the end of the row). Undoes
 * rope_pairs, qkv_heads and offset. */
void qins_tensor_row(const qins_tensor *tensor, size_t row, size_t col, size_t n, float *dst);

/* Half-precision conversions, exact on every payload. */
float qins_f16_to_f32(uint16_t h);
uint16_t qins_f32_to_f16(float f); /* nearest, ties to even */
static inline float qins_bf16_to_f32(uint16_t b) {
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)b << 16};
    return v.f;
}
uint16_t qins_f32_to_bf16(float f); /* nearest, ties to even; NaN stays NaN */

#endif
