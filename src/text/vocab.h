/* Token strings by id and ids by token string. SPDX-License-Identifier: MIT */
#ifndef QINS_VOCAB_H
#define QINS_VOCAB_H

#include "text/json_node.h"

/* Ids above this are taken for damage: arrays are as long as the largest id. The largest vocabularies in use have
 * 262,144 tokens. */
#define QINS_MAX_TOKEN_ID ((uint32_t)(16u << 20) - 1)

typedef struct qins_vocab {
    uint32_t n_ids; /* largest id + 1 */
    uint32_t n_tokens;
    char *bytes;      /* all strings, in order of ids */
    uint32_t *start;  /* [n_ids + 1] */
    uint8_t *present; /* [n_ids], 0 for gaps */
    uint32_t *slots;  /* open addressing: id + 1, 0 when free */
    uint32_t mask;
} qins_vocab;

typedef struct qins_vocab_entry {
    const char *token; /* NULL: no token has this id */
    size_t length;
} qins_vocab_entry;

/* From entries[id]; the strings are copied. The same string twice keeps the last id, as tokenizers' Unigram does. */
qins_status qins_vocab_new(const qins_node *where, const qins_vocab_entry *entries, uint32_t n_ids, qins_vocab *vocab,
                           qins_error *err);
/* From {"token": id, ...}. */
qins_status qins_vocab_load(const qins_node *where, qins_vocab *vocab, qins_error *err);
void qins_vocab_free(qins_vocab *vocab);

/* -1 when there is none. */
int32_t qins_vocab_find(const qins_vocab *vocab, const char *token, size_t length);
/* NULL when no token has this id. */
static inline const char *qins_vocab_token(const qins_vocab *vocab, uint32_t id, size_t *length) {
    if (id >= vocab->n_ids || !vocab->present[id]) return NULL;
    *length = vocab->start[id + 1] - vocab->start[id];
    return vocab->bytes + vocab->start[id];
}

/* Growing list of token ids. */
typedef struct qins_ids {
    int32_t *data;
    size_t size, capacity;
    bool failed;
} qins_ids;

/* Room for n more, which may be 0: NULL (and failed) when out of memory, otherwise where to write; the caller then adds
 * to size. */
int32_t *qins_ids_reserve(qins_ids *ids, size_t n);
void qins_ids_add(qins_ids *ids, int32_t id);

#endif
