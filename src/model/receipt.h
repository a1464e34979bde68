/* qins_receipt.json: what a model was made from and how, and what was measured on it. SPDX-License-Identifier: MIT
 *
 * `compress` writes it beside the weights, `verify` adds to it. It is not listed in the manifest, because it changes
 * while the model does not: it names the hash of the manifest instead, and carries a checksum of its own.
 * docs/format.md.
 */
#ifndef QINS_RECEIPT_H
#define QINS_RECEIPT_H

#include "format/checkpoint.h"
#include "model/qins_dir.h"

enum { QINS_RECEIPT_VERSION = 1 };

/* ---- made by compress ---- */

/* {"name", "files": [{"name", "bytes", "xxh3_128"}]} of a checkpoint: names without folders. */
qins_status qins_receipt_source(const qins_checkpoint *checkpoint, json_t **source, qins_error *err);
/* Entry of one encoded matrix: {"codec", "bits", "bytes", "rel_mse"}. */
json_t *qins_receipt_tensor(const qins_encode_options *options, uint64_t n_bytes, const qins_encode_stats *stats);

/* Writes the receipt of a directory that will have this manifest. config: the quantization_config; tensors: name ->
 * qins_receipt_tensor. options: NULL without calibration. */
qins_status qins_receipt_write(qins_outdir *out, const qins_checkpoint *source, json_t *config, const json_t *manifest,
                               const qins_compress_options *options, const qins_compress_result *result,
                               json_t *tensors, qins_error *err);

/* ---- the file ---- */

/* Text of the receipt: indented JSON whose last member "xxh3_64" is the XXH3-64 of all bytes before that member's name.
 * Freed with free(). */
qins_status qins_receipt_seal(json_t *receipt, char **text, size_t *n_bytes, qins_error *err);
/* Reads dir's receipt. *receipt is NULL when there is none. *sealed: the checksum fits. */
qins_status qins_receipt_read(const char *dir, json_t **receipt, bool *sealed, qins_error *err);
/* Puts a receipt in the place of dir's, atomically. */
qins_status qins_receipt_replace(const char *dir, json_t *receipt, qins_error *err);

/* XXH3-64 of dir's manifest, 16 hex digits. */
qins_status qins_receipt_manifest_hash(const char *dir, char hex[17], qins_error *err);
void qins_receipt_hash_text(const void *data, size_t n, char hex[17]);

#endif
