/* What the files of the single linear share. SPDX-License-Identifier: MIT */
#ifndef QINS_LINEAR_H
#define QINS_LINEAR_H

#include "kernel/matrix.h"

struct qins_linear {
    qins_encode_options options;
    qins_part_info info[QINS_PART_COUNT];
    uint8_t *parts[QINS_PART_COUNT]; /* owned; NULL where the storage has none */
    float *rotation, *bias;          /* owned; NULL without one */
    qins_matrix matrix;
};

/* A linear whose parts (and bias) are allocated but empty. */
qins_status qins_linear_allocate(size_t n_out, size_t n_in, const qins_encode_options *options, bool with_bias,
                                 qins_linear **linear, qins_error *err);
/* Makes the matrix from the filled parts. */
void qins_linear_finish(qins_linear *linear);

#endif
