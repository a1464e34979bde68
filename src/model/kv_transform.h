/* The key transform: a basis in which errors of coded keys fall where queries do not look. SPDX-License-Identifier: MIT
 *
 * Scores are products query * key. Coding keys' = k T and using queries' = q T^-T leaves them as they are, but the
 * error of coding is spread evenly over the values of k T. With A and B the second moments of keys and queries, the
 * mean squared error of scores is proportional to tr(A G) tr(B G^-1), G = T T^t, and least for the geometric mean of
 * A^-1 and B.
 */
#ifndef QINS_KV_TRANSFORM_H
#define QINS_KV_TRANSFORM_H

#include "model/calibrate_attention.h"
#include "model/kv_cache.h"
#include "model/weights.h"

/* ---- making it ---- */

/* Second moments of the keys and queries of one layer's kv heads. */
typedef struct qins_kv_moments {
    size_t n_heads, dims;
    float *sums; /* [n_heads][2][dims][dims]: keys, queries */
} qins_kv_moments;

qins_status qins_kv_moments_init(qins_kv_moments *m, const qins_hparams *h, qins_error *err);
void qins_kv_moments_clear(qins_kv_moments *m);
void qins_kv_moments_free(qins_kv_moments *m);
/* Adds the keys and queries of a sequence, whose projections qins_sequence_attend has seen, each by how much errors of
 * its scores change the attention. The first tokens' keys are left out and the mean of the page before is subtracted,
 * as in the cache. Overwrites the scratch of a. */
void qins_kv_moments_add(qins_kv_moments *m, const qins_sequence_attention *a, const qins_hparams *h,
                         const qins_layer *layer, const float *qkv);
/* T of every head, symmetric, as halves[n_heads][dims][dims]. */
qins_status qins_kv_moments_transform(const qins_kv_moments *m, uint16_t *halves, qins_error *err);
/* Of one head, from keys[dims][dims] and queries; t[dims][dims]. */
qins_status qins_kv_transform_of(size_t dims, const float *keys, const float *queries, double *t, qins_error *err);

/* Halves of the tensor for a model; 0 when heads are too large to be worth it. */
size_t qins_kv_transform_values(const qins_hparams *h);

/* Under which the result of calibrating one layer is kept (model/rounded.h), as the first part. */
enum { QINS_KV_TRANSFORM_LAYER_NAME = 64 };
void qins_kv_transform_layer_name(size_t layer, char name[QINS_KV_TRANSFORM_LAYER_NAME]);

/* ---- using it ---- */

/* Of a model that has the tensor; *transform stays NULL for one that has not. */
qins_status qins_kv_transform_load(const qins_weights *weights, qins_kv_transform **transform, qins_error *err);
void qins_kv_transform_free(qins_kv_transform *transform);

#endif
