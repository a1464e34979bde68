/* The QINS log codec: magnitudes equally spaced in log|w|. SPDX-License-Identifier: MIT
 *
 * norm = (log|w| - log_min)/(log_max - log_min), m = clamp(round(n - (n-1)*norm), 1, n): 1 is the largest magnitude, n
 * the smallest, 0 exact zero. Logarithms are taken in double; log_min and log_max are rounded to FP32 first because
 * that is what the file holds.
 */
#include "codec/codec.h"

#include <math.h>

int qins_log_magnitude(const qins_codebook *book, int n_magnitudes, double a) {
    double range = (double)book->log_max - (double)book->log_min;
    double norm = range > 0 ? (log(a) - (double)book->log_min) / range : 1.0;
    double m = rint(n_magnitudes - (n_magnitudes - 1) * norm);
    return m < 1 ? 1 : m > n_magnitudes ? n_magnitudes : (int)m;
}

float qins_log_value(const qins_codebook *book, int n_magnitudes, int m) {
    if (m == 0) return 0.0f;
    double range = (double)book->log_max - (double)book->log_min;
    double norm = (double)(n_magnitudes - m) / (double)(n_magnitudes - 1);
    return (float)exp((double)book->log_min + norm * range);
}

void qins_log_codebook(qins_codebook *book, int bits, float log_min, float log_max) {
    *book = (qins_codebook){
        .codec = QINS_CODEC_LOG, .bits = bits, .log_min = log_min, .log_max = log_max, .n_levels = (size_t)1 << bits};
    int n = (1 << (bits - 1)) - 1;
    for (int m = 0; m <= n; m++) {
        float value = qins_log_value(book, n, m);
        book->table[m] = value;
        book->table[m | 1 << (bits - 1)] = m == 0 ? 0.0f : -value;
    }
}
