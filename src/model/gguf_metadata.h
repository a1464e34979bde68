/* The numbers of a model as GGUF metadata. SPDX-License-Identifier: MIT */
#ifndef QINS_GGUF_METADATA_H
#define QINS_GGUF_METADATA_H

#include "format/gguf_write.h"
#include "model/families.h"

/* Divisors of rotary frequencies, which GGUF files hold as tensors. They must outlive the writer. */
typedef struct qins_rope_factors {
    float *values[2];
} qins_rope_factors;

void qins_rope_factors_free(qins_rope_factors *factors);

/* Puts everything under the architecture's name, and the tensors of rope factors. Refuses by name what GGUF has no keys
 * for. */
qins_status qins_gguf_put_hparams(qins_gguf_writer *w, const qins_gguf_arch *arch, const qins_hparams *h,
                                  const char *path, qins_rope_factors *factors, qins_error *err);

/* Compares what a reader makes of the written header with the model; refuses the first difference by name.
 * *query_factor: GGUF files of gemma2 and gemma3 have no key for the scale of the attention scores. Queries multiplied
 * by this factor give the model's scores with the scale that readers assume. */
qins_status qins_gguf_check_hparams(const qins_gguf *written, const qins_gguf_arch *arch, const qins_hparams *h,
                                    const char *path, double *query_factor, qins_error *err);

#endif
