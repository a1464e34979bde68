/* Unigram model: the segmentation of the highest score. SPDX-License-Identifier: MIT */
#ifndef QINS_UNIGRAM_H
#define QINS_UNIGRAM_H

#include "text/trie.h"
#include "text/vocab.h"

typedef struct qins_unigram {
    const qins_vocab *vocab; /* borrowed */
    qins_trie trie;          /* values are ids */
    double *scores;          /* [vocab->n_ids], log probabilities */
    double unk_score;
    int32_t unk_id; /* -1: none, text with unknown characters fails */
    bool byte_fallback;
    int32_t fallback_ids[256]; /* id of "<0x00>" ... "<0xFF>", -1 when there is none */
} qins_unigram;

/* From the "model" object of tokenizer.json: [["token", score], ...], ids in order. */
qins_status qins_unigram_load(const qins_node *model, qins_vocab *vocab, qins_unigram *unigram, qins_error *err);
void qins_unigram_free(qins_unigram *unigram);

/* Memory of one thread's encoding, reused from piece to piece. */
typedef struct qins_unigram_scratch {
    void *nodes;
    size_t capacity;
    qins_ids path;
} qins_unigram_scratch;

void qins_unigram_scratch_free(qins_unigram_scratch *scratch);

/* Appends the ids of one pre-token, valid UTF-8. */
qins_status qins_unigram_encode(const qins_unigram *unigram, qins_unigram_scratch *scratch, const char *text,
                                size_t n_bytes, qins_ids *ids, qins_error *err);

#endif
