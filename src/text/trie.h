/* Byte trie: which of a set of strings begin at a place in a text. SPDX-License-Identifier: MIT */
#ifndef QINS_TRIE_H
#define QINS_TRIE_H

#include "base/base.h"

/* One hash table of edges (node, byte) -> node; node 0 is the root. */
typedef struct qins_trie {
    struct qins_trie_edge {
        uint32_t key;   /* node << 8 | byte */
        uint32_t child; /* 0: free slot */
    } * edges;
    uint32_t mask, n_edges;
    int32_t *values; /* [n_nodes], -1 when no string ends there */
    size_t capacity; /* of values */
} qins_trie;

/* Begins an empty trie. */
bool qins_trie_init(qins_trie *trie);
/* A second value for the same string replaces the first. False when out of memory or of nodes (16 Mi). */
bool qins_trie_add(qins_trie *trie, const char *s, size_t n, int32_t value);
void qins_trie_free(qins_trie *trie);

#define QINS_TRIE_ROOT 0u
#define QINS_TRIE_NONE UINT32_MAX

static inline uint32_t qins_trie_slot(const qins_trie *trie, uint32_t key) {
    uint32_t h = key * UINT32_C(0x9E3779B1); /* Knuth's multiplicative hash; the high bits are the good ones */
    return (h ^ h >> 15) & trie->mask;
}

/* The node after one more byte, or QINS_TRIE_NONE. */
static inline uint32_t qins_trie_step(const qins_trie *trie, uint32_t node, char byte) {
    uint32_t key = node << 8 | (unsigned char)byte;
    for (uint32_t i = qins_trie_slot(trie, key);; i = (i + 1) & trie->mask) {
        if (trie->edges[i].child == 0) return QINS_TRIE_NONE;
        if (trie->edges[i].key == key) return trie->edges[i].child;
    }
}

#endif
