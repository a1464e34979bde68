/* Trellis-coded levels. SPDX-License-Identifier: MIT
 *
 * A code of b bits chooses among 2^b levels, but which 2^b of a table of 2^(b+1) depends on its neighbours' codes. With
 * codes c and lowest bits w of the rows of a panel in the order of their ring, the level of step t is
 *
 *     table[2 * (c[t] ^ w[t-2]) + w[t-1]]
 *
 * Neighbouring levels of the table thus belong to four subsets in turn, chosen by w[t-1] and w[t] ^ w[t-2]:
 * Ungerboeck's code of four states ("Channel coding with multilevel/phase signals", 1982), used as a quantiser with a
 * doubled alphabet (Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources", 1990).
 * The ring is closed, as tail-biting codes are, so that no row is worse off and 16 rows can be decoded alone. Rows of
 * one column make up the ring, not columns of one row, because feedback (feedback.h) needs a column decided before the
 * next one.
 *
 * Levels by tools/make_trellis.py: 0.25 to 0.29 bit nearer to the rate-distortion bound than Lloyd-Max levels.
 *
 * The table of the uniform trellis, made for an entropy coder, has equal steps: (2 k + 1) or k, k = -2^b .. 2^b - 1, in
 * the order of qins_trellis_label.
 */
#include "codec/simd.h"

#include <string.h>

typedef struct trellis_levels {
    double sigma, error;
    uint8_t half[QINS_MAX_TRELLIS_LEVELS / 2]; /* the positive ones */
} trellis_levels;

/* NumPy 2.4.6, 40000 columns of 16, seed 1 */
static const trellis_levels levels_of[QINS_TRELLIS_MAX_BITS + 1] = {
    [2] = {45.6254, 0.089119, {8, 28, 48, 85}},
    [3] = {40.6927, 0.024301, {4, 13, 21, 31, 41, 54, 72, 101}},
    [4] = {40.0364, 0.0064329, {2, 7, 11, 16, 20, 25, 30, 36, 41, 47, 54, 62, 72, 84, 100, 125}},
    [5] = {32.5426, 0.0016798, {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29,  32,
                                34, 37, 39, 42, 45, 48, 51, 55, 59, 63, 68, 74, 81, 90, 101, 119}},
    [6] = {30.6770, 0.00044246, {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,  14,  15,
                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,  30,  31,
                                 33, 34, 35, 36, 37, 39, 40, 41, 43, 44, 46, 47, 49, 50,  52,  54,
                                 56, 58, 60, 62, 64, 67, 69, 72, 75, 79, 83, 88, 93, 100, 109, 122}},
};

void qins_trellis_codebook(qins_codebook *book, int bits) {
    size_t half = (size_t)1 << bits;
    *book = (qins_codebook){
        .codec = QINS_CODEC_TRELLIS, .bits = bits + 1, .n_levels = 2 * half, .sigma = levels_of[bits].sigma};
    for (size_t i = 0; i < half; i++) {
        book->table[half + i] = (float)levels_of[bits].half[i];
        book->table[half - 1 - i] = -(float)levels_of[bits].half[i];
    }
    qins_codebook_sort(book);
}

void qins_uniform_trellis_codebook(qins_codebook *book, int bits) {
    int n = 2 << bits;
    bool odd = bits <= QINS_TRELLIS_MAX_BITS; /* with 7 bits the 256 levels just fit a byte */
    *book = (qins_codebook){
        .codec = QINS_CODEC_UNIFORM_TRELLIS, .bits = bits + 1, .n_levels = (size_t)n, .step = odd ? 2 : 1};
    book->sigma = (double)book->step * n / 8; /* four standard deviations either side */
    for (int i = 0; i < n; i++) {
        unsigned place = 2 * qins_trellis_label((unsigned)i, bits, true) | ((unsigned)i & 1u);
        book->table[place] = (float)(odd ? 2 * i - (n - 1) : i - n / 2);
    }
}

double qins_trellis_error(int bits) {
    return levels_of[bits].error;
}

void qins_trellis_scalar(qins_codebook *scalar, int bits) {
    qins_gauss_codebook(scalar, bits < QINS_MIN_BITS ? QINS_MIN_BITS : bits);
}

float qins_trellis_scale(const qins_codebook *book, const qins_codebook *scalar, const float *x, size_t n) {
    double square = 0;
    if (scalar != NULL) return (float)((double)qins_fit_scale(scalar, x, n, true) * scalar->sigma / book->sigma);
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    return (float)(sqrt(square / (double)n) / book->sigma);
}

void qins_trellis_places(const uint16_t *codes, size_t ld, unsigned places[QINS_PANEL_ROWS]) {
    for (size_t r = 0; r < QINS_PANEL_ROWS; r++)
        places[r] =
            qins_trellis_place(codes[r * ld], codes[qins_ring_before(r) * ld], codes[qins_ring_before_that(r) * ld]);
}

void qins_trellis_tile(const uint8_t *tile, int bits, uint8_t places[QINS_TILE_CODES]) {
    enum { LANES = 4 * QINS_PANEL_ROWS };
    uint8_t codes[QINS_TILE_CODES];
    for (size_t block = 0; block < QINS_TILE_COLS / 4; block++)
        for (size_t lane = 0; lane < LANES; lane++)
            codes[LANES * block + lane] = (uint8_t)qins_unpack_code(tile, bits, lane / 4, 4 * block + lane % 4);
    for (size_t block = 0; block < QINS_TILE_COLS / 4; block++)
        for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
            for (size_t j = 0; j < 4; j++) {
                const uint8_t *c = codes + LANES * block + j;
                places[LANES * block + 4 * row + j] = (uint8_t)qins_trellis_place(
                    c[4 * row], c[4 * qins_ring_before(row)], c[4 * qins_ring_before_that(row)]);
            }
}

void qins_trellis_weights(const float *scales, size_t n_rows, size_t ld, size_t n, float *weight) {
    float largest = 0;
    for (size_t r = 0; r < n_rows; r++)
        largest = scales[r] > largest ? scales[r] : largest;
    for (size_t r = 0; r < QINS_PANEL_ROWS; r++) {
        float ratio = r < n_rows && largest > 0 ? scales[r] / largest : 0;
        for (size_t i = 0; i < n; i++)
            weight[r * ld + i] = ratio * ratio;
    }
}

double qins_trellis_encode_panel(const qins_codebook *book, const float *x, size_t n_rows, size_t n_cols,
                                 const float *scales, uint16_t *codes) {
    enum { COLS = 64 };
    float u[QINS_PANEL_ROWS * COLS] = {0}, weight[QINS_PANEL_ROWS * COLS];
    uint16_t chosen[QINS_PANEL_ROWS * COLS];
    double sum = 0;
    qins_trellis_weights(scales, n_rows, COLS, COLS, weight);
    for (size_t col = 0; col < n_cols; col += COLS) {
        size_t n = qins_min_size(COLS, n_cols - col);
        for (size_t r = 0; r < n_rows; r++)
            for (size_t k = 0; k < n; k++)
                u[r * COLS + k] = scales[r] != 0.0f ? x[r * n_cols + col + k] / scales[r] : 0.0f;
        qins_get_codec_simd()->trellis(book, u, weight, COLS, n, chosen);
        for (size_t k = 0; k < n; k++) {
            unsigned places[QINS_PANEL_ROWS];
            qins_trellis_places(chosen + k, COLS, places);
            for (size_t r = 0; r < QINS_PANEL_ROWS; r++)
                codes[r * n_cols + col + k] = chosen[r * COLS + k];
            for (size_t r = 0; r < n_rows; r++) {
                double value = (double)scales[r] * (double)book->table[places[r]];
                double error = (double)x[r * n_cols + col + k] - value;
                sum += error * error;
            }
        }
    }
    return sum;
}
