/* Equal steps: the honest baseline. SPDX-License-Identifier: MIT */
#include "codec/codec.h"

void qins_uniform_codebook(qins_codebook *book, int bits) {
    int n = 1 << bits;
    *book = (qins_codebook){.codec = QINS_CODEC_UNIFORM, .bits = bits, .n_levels = (size_t)n};
    for (int i = 0; i < n; i++)
        book->table[i] = (float)(2 * i - (n - 1));
    /* Step of least squared error on N(0,1) in standard deviations (J. Max, 1960, table II, and the same computation
     * further on). */
    static const double step[QINS_MAX_BITS + 1] = {
        [3] = 0.5860, [4] = 0.3352, [5] = 0.1881, [6] = 0.1041, [7] = 0.0569, [8] = 0.0308, [9] = 0.0165};
    book->sigma = 2.0 / step[bits]; /* neighbouring odd integers are two units apart */
    qins_codebook_sort(book);
}
