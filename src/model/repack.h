/* Directories entropy-coded and back. SPDX-License-Identifier: MIT */
#ifndef QINS_REPACK_H
#define QINS_REPACK_H

#include "model/coded.h"

/* Copies a checkpoint of safetensors into an output directory, entropy-coded (code) or not: weights, manifest, side
 * files, receipt. Nothing is rounded; of a plain checkpoint this makes a lossless directory. contents as for
 * qins_coded_write. */
qins_status qins_repack(const qins_checkpoint *checkpoint, const qins_dir *contents, bool code, qins_outdir *out,
                        const qins_load_progress *progress, qins_compress_result *result, qins_error *err);

#endif
