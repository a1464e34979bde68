/* Random signs and a blockwise Hadamard transform. SPDX-License-Identifier: MIT
 *
 * R = diag(signs) * H with H orthonormal and symmetric: rows of W and inputs x are both multiplied by H D, and
 * (W D H^T)(H D x) = W x. After it a row is very nearly Gaussian whatever it was (Ashkboos et al., QuaRot, 2024; Tseng
 * et al., QuIP#, 2024), so one table and one scale a row are enough.
 */
#include "codec/codec.h"

#include <math.h>

size_t qins_rotation_block(size_t n_cols) {
    enum { MAX_BLOCK = 4096 };
    size_t block = 1;
    while (block < MAX_BLOCK && n_cols % (2 * block) == 0)
        block *= 2;
    return block;
}

/* Sebastiano Vigna's splitmix64 finaliser, used as a hash of the column. */
static uint64_t splitmix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void qins_rotation_signs(uint64_t seed, size_t n_cols, float *signs) {
    for (size_t k = 0; k < n_cols; k++)
        signs[k] = splitmix64(seed + k) >> 63 ? -1.0f : 1.0f;
}

/* Fast Walsh-Hadamard transform of one block, scaled to be orthonormal. */
static void hadamard(float *restrict x, size_t n) {
    for (size_t h = 1; h < n; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
    float unit = (float)(1.0 / sqrt((double)n));
    for (size_t i = 0; i < n; i++)
        x[i] *= unit;
}

static void hadamard_blocks(float *x, size_t n_cols) {
    size_t block = qins_rotation_block(n_cols);
    for (size_t i = 0; i < n_cols; i += block)
        hadamard(x + i, block);
}

void qins_rotate(float *x, size_t n_cols, const float *signs) {
    for (size_t k = 0; k < n_cols; k++)
        x[k] *= signs[k];
    hadamard_blocks(x, n_cols);
}

void qins_unrotate(float *x, size_t n_cols, const float *signs) {
    hadamard_blocks(x, n_cols);
    for (size_t k = 0; k < n_cols; k++)
        x[k] *= signs[k];
}
