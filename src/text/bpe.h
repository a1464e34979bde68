/* Byte pair encoding of one pre-token. SPDX-License-Identifier: MIT */
#ifndef QINS_BPE_H
#define QINS_BPE_H

#include "text/vocab.h"

typedef struct qins_bpe {
    const qins_vocab *vocab; /* borrowed */
    struct qins_merge {
        uint64_t pair; /* left id << 32 | right id */
        uint32_t rank; /* 0 is merged first */
        uint32_t id;   /* of the result; UINT32_MAX: free slot */
    } * merges;        /* open addressing */
    uint32_t mask;
    int32_t byte_ids[256];     /* id of the byte-level character of each byte, -1 when there is none */
    int32_t fallback_ids[256]; /* id of "<0x00>" ... "<0xFF>", -1 when there is none */
    bool byte_fallback, ignore_merges, fuse_unk;
    int32_t unk_id;
    enum { QINS_UNK_NONE, QINS_UNK_ID, QINS_UNK_MISSING } unk; /* missing: named, but not in the vocabulary */
} qins_bpe;

static inline uint32_t qins_bpe_slot(const qins_bpe *bpe, uint64_t pair) {
    return (uint32_t)((pair * UINT64_C(0x9E3779B97F4A7C15)) >> 32) &
           bpe->mask; /* the product's middle bits are mixed */
}

/* From the "model" object of tokenizer.json. */
qins_status qins_bpe_load(const qins_node *model, const qins_vocab *vocab, qins_bpe *bpe, qins_error *err);
void qins_bpe_free(qins_bpe *bpe);

/* Memory of one thread's encoding, reused from word to word. */
typedef struct qins_bpe_scratch {
    qins_ids symbols;
    qins_buffer chars;
    void *links;
    size_t links_capacity;
    uint64_t *heap;
    size_t heap_capacity;
} qins_bpe_scratch;

void qins_bpe_scratch_free(qins_bpe_scratch *scratch);

/* Appends the ids of one word. is_bytes: the word is raw bytes, and the vocabulary has their byte-level characters;
 * otherwise it is UTF-8 and the vocabulary has its characters. */
qins_status qins_bpe_encode(const qins_bpe *bpe, qins_bpe_scratch *scratch, const char *word, size_t n_bytes,
                            bool is_bytes, qins_ids *ids, qins_error *err);

#endif
