/* The QINS rational (projective) codec: z = sign(w)/(1 + alpha|w|), z equally spaced. SPDX-License-Identifier: MIT
 *
 * z lies in [-1, 1] and never in between the smallest magnitudes: z = +-1 is w = 0 and z -> 0 is infinite. sign(0) is
 * taken as +1, so that zero is a value like any other (with sign(0) = 0 it would decode to the largest weight).
 */
#include "codec/codec.h"

#include <math.h>

double qins_rational_z(double alpha, double w) {
    return (w < 0 ? -1.0 : 1.0) / (1.0 + alpha * fabs(w));
}

void qins_rational_codebook(qins_codebook *book, int bits, double alpha) {
    *book = (qins_codebook){.codec = QINS_CODEC_RATIONAL, .bits = bits, .alpha = alpha, .n_levels = (size_t)1 << bits};
    double steps = (double)(book->n_levels - 1);
    for (size_t c = 0; c < book->n_levels; c++)
        book->table[c] = (float)qins_rational_w(alpha, (double)c * 2.0 / steps - 1.0);
}
