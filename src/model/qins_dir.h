/* The qins parts of a qins directory: which matrices are encoded and how, and checksums. SPDX-License-Identifier: MIT
 * docs/format.md is the specification. */
#ifndef QINS_DIR_H
#define QINS_DIR_H

#include "codec/codec.h"
#include "format/checkpoint.h"
#include "kernel/row_split.h"

#define QINS_MANIFEST_NAME "qins_manifest.json"
#define QINS_WEIGHTS_NAME  "model.safetensors"
#define QINS_RECEIPT_NAME  "qins_receipt.json" /* not in the manifest: src/model/receipt.h */
enum { QINS_FORMAT_VERSION = 1 };

typedef struct qins_encoded_tensor {
    char *name;
    size_t n_rows, n_cols;
    qins_encode_options options;
    const qins_tensor *parts[QINS_PART_COUNT]; /* NULL where the storage has none */
    /* Of a fused matrix, when only some of its rows are encoded (n_rows of them): the others, as [rows][n_cols], and
     * where which are. */
    const qins_tensor *rest;
    qins_row_split split;
    char source_dtype[16];
    uint64_t source_bytes;
} qins_encoded_tensor;

typedef struct qins_dir {
    qins_encoded_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    uint8_t *decoded; /* memory of entropy-coded tensors (model/coded.h), or NULL */
    size_t decoded_bytes;
    json_t *coded;   /* how they are coded, by name; or NULL */
    json_t *sources; /* of plain tensors that were converted: name -> [dtype, bytes] */
} qins_dir;

/* Progress of loading; may be NULL. */
typedef struct qins_load_progress {
    qins_progress report;
    void *user;
} qins_load_progress;

/* *dir is NULL when the checkpoint is a plain one. check: compares every checksum. Entropy-coded tensors are decoded:
 * the checkpoint then lists them as they were. It must outlive dir, and its tensors' data are gone with dir. */
qins_status qins_dir_read(qins_checkpoint *checkpoint, bool check, const qins_load_progress *progress, qins_dir **dir,
                          qins_error *err);
/* The same without the manifest: for a file that stands alone. */
qins_status qins_dir_read_tensors(qins_checkpoint *checkpoint, bool check, const qins_load_progress *progress,
                                  qins_dir **dir, qins_error *err);
void qins_dir_free(qins_dir *dir);
const qins_encoded_tensor *qins_dir_find(const qins_dir *dir, const char *name);
/* Name of the plain rows of a split matrix: "X.weight" + ".rest". False when it does not fit. */
bool qins_rest_name(const char *tensor_name, char *name, size_t size);
/* Name of a part's tensor: "X.weight" + ".codes"; shared tables "qins.table.gauss.4". False when it does not fit. */
bool qins_part_name(const char *tensor_name, const qins_encode_options *options, qins_part part, bool shared,
                    char *name, size_t size);

/* Metadata entry of one encoded matrix. */
json_t *qins_dir_entry(const qins_encoded_tensor *tensor);
/* The manifest of a finished directory: size and XXH3-64 of every file but the weights, and of the weights' header. */
qins_status qins_dir_manifest(const char *dir, uint64_t header_bytes, uint64_t header_hash, json_t **manifest,
                              qins_error *err);

#endif
