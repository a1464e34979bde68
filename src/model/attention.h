/* Attention of a batch of tokens over the cached positions of their sequences. SPDX-License-Identifier: MIT */
#ifndef QINS_ATTENTION_H
#define QINS_ATTENTION_H

#include "model/families.h"
#include "model/kv_cache.h"

/* Consecutive tokens of one sequence in a batch. */
typedef struct qins_token_run {
    size_t seq, position; /* of the first */
    size_t first, n;      /* tokens of the batch */
} qins_token_run;

/* Queries of one kv head that go through the cache together: a few tokens times the heads that share the kv head. */
typedef struct qins_query_block {
    size_t seq, position, first, n;
} qins_query_block;

/* Scratch of a session. */
typedef struct qins_attention {
    size_t n_threads, max_rows; /* rows: queries of a block */
    size_t dims, group;         /* group: heads that share a kv head */
    float *scratch;             /* of each thread: queries, scores, sums ... */
    size_t scratch_floats;      /* a thread */
    float *partial;             /* [tasks][max_rows][dims + 2]: sums over a part of the positions */
    qins_query_block *blocks;   /* [max_batch] */
} qins_attention;

qins_status qins_attention_init(qins_attention *a, const qins_hparams *h, const qins_kv_cache *cache, size_t max_batch,
                                size_t n_threads, qins_error *err);
void qins_attention_free(qins_attention *a);

#endif
