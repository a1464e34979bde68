/* Byte trie: which of a set of strings begin at a place in a text. SPDX-License-Identifier: MIT */
#include "text/trie.h"

#include <stdlib.h>

enum { FIRST_EDGES = 64, MAX_NODES = 1 << 24 /* a node number and a byte share 32 bits */ };

bool qins_trie_init(qins_trie *trie) {
    *trie = (qins_trie){.mask = FIRST_EDGES - 1, .capacity = FIRST_EDGES};
    trie->edges = qins_alloc(FIRST_EDGES, sizeof *trie->edges);
    trie->values = qins_alloc(FIRST_EDGES, sizeof *trie->values);
    if (trie->edges == NULL || trie->values == NULL) {
        qins_trie_free(trie);
        return false;
    }
    trie->values[0] = -1;
    return true;
}

void qins_trie_free(qins_trie *trie) {
    free(trie->edges);
    free(trie->values);
    *trie = (qins_trie){0};
}

static void insert(qins_trie *trie, struct qins_trie_edge edge) {
    uint32_t i = qins_trie_slot(trie, edge.key);
    while (trie->edges[i].child != 0)
        i = (i + 1) & trie->mask;
    trie->edges[i] = edge;
}

static bool grow_edges(qins_trie *trie) {
    struct qins_trie_edge *old = trie->edges;
    size_t n_old = (size_t)trie->mask + 1;
    trie->edges = qins_alloc(2 * n_old, sizeof *trie->edges);
    if (trie->edges == NULL) {
        trie->edges = old;
        return false;
    }
    trie->mask = (uint32_t)(2 * n_old) - 1;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].child != 0) insert(trie, old[i]);
    free(old);
    return true;
}

static uint32_t new_node(qins_trie *trie) {
    uint32_t node = trie->n_edges + 1;
    if (node >= MAX_NODES) return QINS_TRIE_NONE;
    if (node >= trie->capacity) {
        int32_t *values = realloc(trie->values, 2 * trie->capacity * sizeof *values);
        if (values == NULL) return QINS_TRIE_NONE;
        trie->values = values;
        trie->capacity *= 2;
    }
    if (4 * (size_t)(node + 1) > 3 * ((size_t)trie->mask + 1) && !grow_edges(trie)) return QINS_TRIE_NONE;
    trie->values[node] = -1;
    trie->n_edges++;
    return node;
}

bool qins_trie_add(qins_trie *trie, const char *s, size_t n, int32_t value) {
    uint32_t node = QINS_TRIE_ROOT;
    for (size_t i = 0; i < n; i++) {
        uint32_t child = qins_trie_step(trie, node, s[i]);
        if (child == QINS_TRIE_NONE) {
            child = new_node(trie);
            if (child == QINS_TRIE_NONE) return false;
            insert(trie, (struct qins_trie_edge){.key = node << 8 | (unsigned char)s[i], .child = child});
        }
        node = child;
    }
    trie->values[node] = value;
    return true;
}
