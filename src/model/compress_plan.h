/* What compress does with every parameter of a checkpoint. SPDX-License-Identifier: MIT */
#ifndef QINS_COMPRESS_PLAN_H
#define QINS_COMPRESS_PLAN_H

#include "model/weights.h"

enum { QINS_DEFAULT_EMBED_BITS = 8, QINS_WIDEST_CODE = 8 };
/* Width of an item that could be encoded and stays plain, as numbers of 16 bits: where more than 8 may be spent. */
enum { QINS_PLAIN_BITS = 16 };

/* What happens to one parameter. */
typedef struct qins_plan_item {
    const qins_parameter *parameter;
    bool encode;          /* all of it, or the encoded rows of `split` */
    bool keep;            /* it is encoded already and is copied */
    qins_row_split split; /* owned; no pieces: not split */
    qins_encode_options options;
    qins_codec wanted; /* what options.codec is at widths that it has: qins_codec_at_width */
    float *row_rates;  /* owned; wanted bits a code of every encoded row. NULL: options.rate for all */
    qins_part_info parts[QINS_PART_COUNT];
    ptrdiff_t index[QINS_PART_COUNT]; /* in the writer; -1 for none */
    ptrdiff_t plain_index;            /* of the plain tensor or the plain rows */
    bool convert;   /* plain, but not in a form safetensors holds: becomes F32 or is put in row order */
    qins_type type; /* plain: what is written */
} qins_plan_item;

typedef struct qins_plan {
    qins_plan_item *items; /* a head that is tied to the embedding is not among them */
    size_t n_items;
} qins_plan;

/* Chooses codec and width of every parameter. The weights must outlive the plan. */
qins_status qins_plan_make(const qins_compress_options *options, const qins_weights *weights, qins_plan *plan,
                           qins_error *err);
void qins_plan_free(qins_plan *plan);
/* Codec that an encoded item has at a width. */
qins_codec qins_plan_codec(const qins_plan_item *item, int bits);
/* Smallest width that an encoded item can have. */
int qins_plan_min_bits(const qins_plan_item *item);
/* An item of width QINS_PLAIN_BITS. */
static inline bool qins_plan_is_wide(const qins_plan_item *item) {
    return !item->encode && item->options.bits == QINS_PLAIN_BITS;
}
/* The width after, or before, that of an encoded or wide item; 0 when there is none. */
int qins_plan_wider(const qins_plan_item *item);
int qins_plan_narrower(const qins_plan_item *item);
/* Gives an encoded or wide item another width. */
qins_status qins_plan_set_bits(qins_plan_item *item, int bits, qins_error *err);

/* Rows of a matrix that are encoded. */
size_t qins_plan_encoded_rows(const qins_plan_item *item);
/* Bytes of a plain item, or of the plain rows, as they are written; 0 when all is encoded. */
uint64_t qins_plan_plain_bytes(const qins_plan_item *item);
/* Bytes of codes, scales and what else belongs to an encoded item alone; of the numbers of a wide one. */
uint64_t qins_plan_encoded_bytes(const qins_plan_item *item);
/* Bytes of a parameter in the source file; tables that matrices share belong to none of them. */
uint64_t qins_plan_source_bytes(const qins_parameter *parameter);
const char *qins_plan_source_dtype(const qins_parameter *parameter);
/* Tensor bytes of the source that shared tables take. */
uint64_t qins_plan_shared_source_bytes(const qins_plan *plan);

/* ---- compress.c ---- */

qins_status qins_compress_check_options(const qins_compress_options *options, qins_error *err);

/* The weight file that a plan leads to. */
typedef struct qins_compress_layout {
    uint64_t tensor_bytes, header_bytes;
    uint64_t kv_transform_bytes; /* part of tensor_bytes */
} qins_compress_layout;

/* Sets the places of the plan's tensors and nothing else: no file is made. */
qins_status qins_compress_lay_out(const qins_compress_options *options, qins_weights *weights, qins_plan *plan,
                                  qins_compress_layout *layout, qins_error *err);

#endif
