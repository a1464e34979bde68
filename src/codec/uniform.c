/* Equal steps: the honest baseline. SPDX-License-Identifier: MIT */
#include "codec/codec.h"

static void fill(qins_codebook *book, qins_codec codec, int bits) {
    int n = 1 << bits, first = codec == QINS_CODEC_SPARSE ? -n : -(n - 1);
    *book = (qins_codebook){.codec = codec, .bits = bits, .n_levels = (size_t)n, .step = 2};
    for (int i = 0; i < n; i++)
        book->table[i] = (float)(first + 2 * i);
    /* Step of least squared error on N(0,1) in standard deviations (J. Max, 1960, table II, and the same computation
     * further on). */
    static const double step[QINS_MAX_BITS + 1] = {
        [3] = 0.5860, [4] = 0.3352, [5] = 0.1881, [6] = 0.1041, [7] = 0.0569, [8] = 0.0308, [9] = 0.0165};
    book->sigma = (double)book->step / step[bits];
    qins_codebook_sort(book);
}

void qins_uniform_codebook(qins_codebook *book, int bits) {
    fill(book, QINS_CODEC_UNIFORM, bits);
}

void qins_sparse_codebook(qins_codebook *book, int bits) {
    fill(book, QINS_CODEC_SPARSE, bits);
}
