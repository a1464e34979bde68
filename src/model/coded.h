/* Entropy-coded tensors of a directory. SPDX-License-Identifier: MIT
 *
 * At rest tensor X is a tensor X.entropy of bytes (codec/entropy.h), listed under "coded" in the qins metadata. Loading
 * decodes it into memory and puts X in its place among the checkpoint's tensors: nothing else sees a difference.
 */
#ifndef QINS_MODEL_CODED_H
#define QINS_MODEL_CODED_H

#include "codec/entropy.h"
#include "model/qins_dir.h"

#define QINS_CODED_SUFFIX ".entropy"
enum { QINS_MIN_CODED_BYTES = 2048 }; /* smaller tensors, among them shared tables, stay as they are */

/* Decodes every tensor that `coded` (the metadata's object, or NULL) lists; dir owns the memory. With all threads,
 * chunk by chunk, dropping coded pages that are done: the model is never twice in memory. */
qins_status qins_coded_load(qins_checkpoint *checkpoint, const json_t *coded, const qins_load_progress *progress,
                            qins_dir *dir, qins_error *err);
void qins_coded_unload(qins_dir *dir);

typedef struct qins_coded_result {
    uint64_t header_bytes, header_hash; /* of the file */
    uint64_t stored_bytes;              /* sum of its tensors */
    json_t *coded; /* tensor -> how it is coded, with the XXH3-64 of its bytes; released by the caller */
} qins_coded_result;

/* Writes the tensors of a checkpoint as dir/file, entropy-coded where that can pay (code) or all as they are.
 * contents: how the checkpoint's matrices are encoded; NULL for a plain one. */
qins_status qins_coded_write(const qins_checkpoint *checkpoint, const qins_dir *contents, bool code, const char *dir,
                             const char *file, const qins_load_progress *progress, qins_coded_result *result,
                             qins_error *err);
/* The same for the finished weights file of an output directory, in its place. */
qins_status qins_coded_rewrite(const char *dir, const qins_load_progress *progress, qins_coded_result *result,
                               qins_error *err);

#endif
