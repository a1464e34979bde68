/* Random signs and a blockwise Hadamard transform. SPDX-License-Identifier: MIT
 *
 * R = diag(signs) * H with H orthonormal and symmetric: rows of W and inputs x are both multiplied by H D, and
 * (W D H^T)(H D x) = W x. After it a row is very nearly Gaussian whatever it was (Ashkboos et al., QuaRot, 2024; Tseng
 * et al., QuIP#, 2024), so one table and one scale a row are enough.
 */
#include "codec/simd.h"

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

/* Each block through the fast Walsh-Hadamard transform, scaled to be orthonormal. */
void qins_hadamard(float *x, size_t n_cols) {
    size_t block = qins_rotation_block(n_cols);
    const qins_codec_simd *simd = qins_get_codec_simd();
    float unit = (float)(1.0 / sqrt((double)block));
    for (size_t i = 0; i < n_cols; i += block) {
        simd->hadamard(x + i, block);
        for (size_t k = 0; k < block; k++)
            x[i + k] *= unit;
    }
}

void qins_rotate(float *x, size_t n_cols, const float *signs) {
    for (size_t k = 0; k < n_cols; k++)
        x[k] *= signs[k];
    qins_hadamard(x, n_cols);
}

void qins_rotate_into(const float *x, size_t n_cols, const float *signs, float *out) {
    for (size_t k = 0; k < n_cols; k++)
        out[k] = x[k] * signs[k];
    qins_hadamard(out, n_cols);
}

void qins_unrotate(float *x, size_t n_cols, const float *signs) {
    qins_hadamard(x, n_cols);
    for (size_t k = 0; k < n_cols; k++)
        x[k] *= signs[k];
}
