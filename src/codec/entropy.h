/* Entropy-coded tensors: byte streams in chunks, each coded on its own. SPDX-License-Identifier: MIT
 *
 * A tensor is cut into chunks of units, a chunk into byte streams of one kind: the symbols of tiles (codec.h) or the
 * bytes of numbers of equal significance. A stream is a zstd frame or, where that does not pay, the bytes as they are.
 * Between weights there is nothing to match, so zstd is asked for its Huffman stage: as small as rANS within 2 % and
 * faster (docs/entropy.md). docs/format.md specifies the layout.
 */
#ifndef QINS_ENTROPY_H
#define QINS_ENTROPY_H

#include "codec/codec.h"

typedef enum qins_coded_form {
    QINS_CODED_BYTES,   /* unit: a byte, one stream */
    QINS_CODED_PLANES,  /* unit: a tile of packed codes; stream 0: its symbols, 1: bit plane of 9-bit codes
                         */
    QINS_CODED_NUMBERS, /* unit: a number of 2 or 4 bytes; as many streams, lowest bytes first */
    QINS_CODED_ROWS,    /* unit: a tile; stream c: symbols of the rows of class c. Chunks are whole panels */
    QINS_CODED_UPPER,   /* the same of the upper four bits of 5-bit codes; the last stream: their lowest bits */
    QINS_CODED_FORM_COUNT
} qins_coded_form;

enum { QINS_CODED_STREAMS = 5, QINS_ROW_CLASSES = 4 };

extern const char *const qins_coded_form_name[QINS_CODED_FORM_COUNT];

typedef struct qins_coded_layout {
    qins_coded_form form;
    int bits;        /* planes */
    unsigned rotate; /* numbers: bits that a number is rotated left by, so that its highest byte is the exponent */
    size_t unit_bytes, n_streams, stream_bytes[QINS_CODED_STREAMS]; /* of a unit, decoded */
    size_t n_units, chunk_units, n_chunks;
    size_t panel_tiles, n_panels; /* rows */
    const uint8_t *row_class;     /* rows: [n_panels * 16], 0 .. 3; borrowed */
} qins_coded_layout;

/* chunk_units: 0 for the usual. `width`: planes: bits of a code; numbers: bytes. False for sizes that make no sense. */
bool qins_coded_plan(qins_coded_layout *layout, qins_coded_form form, int width, unsigned rotate, uint64_t n_bytes,
                     uint64_t chunk_units);
/* The same for forms rows and upper, of panels of panel_tiles tiles. The caller sets row_class; a reader finds it in
 * the blob. */
bool qins_coded_plan_rows(qins_coded_layout *layout, qins_coded_form form, int bits, uint64_t panel_tiles,
                          uint64_t n_bytes, uint64_t chunk_units);
static inline bool qins_coded_has_rows(qins_coded_form form) {
    return form == QINS_CODED_ROWS || form == QINS_CODED_UPPER;
}

/* Sorts rows of codes into classes: counts[n_rows][n_levels], how often a code is in a row. *together, *apart: bits
 * that all codes take with one table, and with one a class. False when out of memory. */
bool qins_row_classes(const uint32_t *counts, size_t n_rows, size_t n_levels, uint8_t *class_of, double *together,
                      double *apart);

/* ---- writing: chunks in order, then the index ---- */

typedef struct qins_chunk_record {
    uint32_t length[QINS_CODED_STREAMS]; /* stored bytes */
    uint64_t hash;                       /* XXH3-64 of the decoded bytes */
} qins_chunk_record;

/* What coding one chunk at a time needs; one a thread. */
typedef struct qins_coder qins_coder;
qins_coder *qins_coder_new(void); /* NULL when out of memory */
void qins_coder_free(qins_coder *coder);

/* Bytes that a coded chunk takes at most. */
size_t qins_coded_bound(const qins_coded_layout *layout);
/* Codes chunk `chunk` of `tensor` into out[qins_coded_bound]; *n_bytes of it are used. False when out of memory. */
bool qins_coded_encode(qins_coder *coder, const qins_coded_layout *layout, const uint8_t *tensor, size_t chunk,
                       uint8_t *out, size_t *n_bytes, qins_chunk_record *record);
size_t qins_coded_index_bytes(const qins_coded_layout *layout);
void qins_coded_write_index(const qins_coded_layout *layout, const qins_chunk_record *records, uint8_t *out);

/* ---- reading ---- */

typedef struct qins_coded {
    qins_coded_layout layout;
    const uint8_t *data;
    uint64_t *begin;            /* [n_chunks + 1] of a chunk in data */
    qins_chunk_record *records; /* [n_chunks] */
    uint8_t *row_class;         /* rows: [n_panels * 16] */
} qins_coded;

/* Reads the index of a blob and checks that it fits; the blob must outlive it. */
qins_status qins_coded_open(qins_coded *coded, const qins_coded_layout *layout, const uint8_t *blob, uint64_t n_bytes,
                            qins_error *err);
void qins_coded_close(qins_coded *coded);
/* Decodes a chunk into its place in the tensor. False when its bytes are damaged (or memory is out). Any blob is safe.
 */
bool qins_coded_decode(qins_coder *coder, const qins_coded *coded, size_t chunk, uint8_t *tensor);

#endif
