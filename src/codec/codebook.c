/* Choosing the code of a value. SPDX-License-Identifier: MIT */
#include "codec/codec.h"

#include <math.h>

void qins_codebook_sort(qins_codebook *book) {
    size_t n = book->n_levels;
    book->sorted = true;
    for (size_t i = 0; i + 1 < n; i++)
        book->bounds[i] = 0.5f * (book->table[i] + book->table[i + 1]);
    book->bounds[n - 1] = INFINITY;
    book->cells_per_unit = 0.5f * (float)QINS_CELLS / book->table[n - 1];
    for (size_t cell = 0, code = 0; cell < QINS_CELLS; cell++) {
        while (code + 1 < n && qins_cell_of(book, book->bounds[code]) < (int)cell)
            code++;
        book->cell_code[cell] = (uint8_t)code;
    }
}

void qins_fixed_codebook(qins_codebook *book, qins_codec codec, int bits) {
    if (codec == QINS_CODEC_GAUSS)
        qins_gauss_codebook(book, bits);
    else if (codec == QINS_CODEC_SPARSE)
        qins_sparse_codebook(book, bits);
    else if (codec == QINS_CODEC_TRELLIS)
        qins_trellis_codebook(book, bits);
    else if (codec == QINS_CODEC_UNIFORM_TRELLIS)
        qins_uniform_trellis_codebook(book, bits);
    else
        qins_uniform_codebook(book, bits);
}

static unsigned encode_log(const qins_codebook *book, float u) {
    /* With a single magnitude (or none) a tiny weight is nearer to zero. */
    if (u == 0.0f || (book->log_min == book->log_max && fabs((double)u) <= 1e-8)) return 0;
    int n = (1 << (book->bits - 1)) - 1;
    unsigned m = (unsigned)qins_log_magnitude(book, n, fabs((double)u));
    return m | (u < 0 ? 1u << (book->bits - 1) : 0u);
}

static unsigned encode_rational(const qins_codebook *book, float u) {
    double steps = (double)(book->n_levels - 1);
    double c = rint((qins_rational_z(book->alpha, (double)u) + 1.0) * 0.5 * steps);
    return (unsigned)(c < 0 ? 0 : c > steps ? steps : c);
}

unsigned qins_codebook_encode(const qins_codebook *book, float u) {
    if (book->sorted) return qins_nearest_code(book, u);
    return book->codec == QINS_CODEC_LOG ? encode_log(book, u) : encode_rational(book, u);
}
