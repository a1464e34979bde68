/* Byte pair encoding of one pre-token: merge the adjacent pair of lowest rank, leftmost first, until none is left.
 * SPDX-License-Identifier: MIT */
#include "text/bpe.h"

#include "text/byte_level.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Up to this many symbols a scan for the lowest rank beats the heap. */
enum { SHORT_WORD = 64 };

static const uint32_t NO_MERGE = UINT32_MAX;

typedef struct symbol_links {
    uint32_t prev, next; /* NO_LINK at the ends */
} symbol_links;

static const uint32_t NO_LINK = UINT32_MAX;

static inline const struct qins_merge *find_merge(const qins_bpe *bpe, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint32_t i = qins_bpe_slot(bpe, pair);; i = (i + 1) & bpe->mask) {
        const struct qins_merge *m = &bpe->merges[i];
        if (m->id == UINT32_MAX) return NULL;
        if (m->pair == pair) return m;
    }
}

typedef struct ranked {
    uint32_t rank, id;
} ranked;

static inline ranked rank_pair(const qins_bpe *bpe, int32_t left, int32_t right) {
    const struct qins_merge *m = find_merge(bpe, left, right);
    return m != NULL ? (ranked){m->rank, m->id} : (ranked){NO_MERGE, 0};
}

/* Merges symbols[0..n) in place, n <= SHORT_WORD; returns how many are left. */
static size_t merge_short(const qins_bpe *bpe, int32_t *symbols, size_t n) {
    ranked pairs[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++)
        pairs[i] = rank_pair(bpe, symbols[i], symbols[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (pairs[i].rank < pairs[best].rank) best = i;
        if (pairs[best].rank == NO_MERGE) break;
        symbols[best] = (int32_t)pairs[best].id;
        n--;
        memmove(symbols + best + 1, symbols + best + 2, (n - best - 1) * sizeof *symbols);
        memmove(pairs + best, pairs + best + 1, (n - best - 1) * sizeof *pairs);
        if (best > 0) pairs[best - 1] = rank_pair(bpe, symbols[best - 1], symbols[best]);
        if (best + 1 < n) pairs[best] = rank_pair(bpe, symbols[best], symbols[best + 1]);
    }
    return n;
}

/* ---- long words: a heap of rank << 32 | position ---- */

static void sift_down(uint64_t *heap, size_t n, size_t i) {
    uint64_t value = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[i] = heap[child];
    }
    heap[i] = value;
}

static void sift_up(uint64_t *heap, size_t i) {
    uint64_t value = heap[i];
    while (i > 0 && heap[(i - 1) / 2] > value) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = value;
}

static bool reserve_long(qins_bpe_scratch *s, size_t n) {
    if (n > s->links_capacity) {
        free(s->links);
        s->links = malloc(n * sizeof(symbol_links));
        s->links_capacity = s->links != NULL ? n : 0;
    }
    size_t heap_size = 2 * n; /* n - 1 pairs at first; every merge takes one out and puts at most two in */
    if (heap_size > s->heap_capacity) {
        free(s->heap);
        s->heap = malloc(heap_size * sizeof *s->heap);
        s->heap_capacity = s->heap != NULL ? heap_size : 0;
    }
    return s->links_capacity >= n && s->heap_capacity >= heap_size;
}

/* Like merge_short for any n; the symbols left over are moved to the front. A heap entry is stale when the pair at its
 * position has another rank by now. */
static size_t merge_long(const qins_bpe *bpe, qins_bpe_scratch *scratch, int32_t *symbols, size_t n) {
    symbol_links *links = scratch->links;
    uint64_t *heap = scratch->heap;
    size_t heap_size = 0;
    for (size_t i = 0; i < n; i++) {
        links[i].prev = i > 0 ? (uint32_t)(i - 1) : NO_LINK;
        links[i].next = i + 1 < n ? (uint32_t)(i + 1) : NO_LINK;
        uint32_t rank = i + 1 < n ? rank_pair(bpe, symbols[i], symbols[i + 1]).rank : NO_MERGE;
        if (rank != NO_MERGE) heap[heap_size++] = (uint64_t)rank << 32 | i;
    }
    for (size_t i = heap_size / 2; i-- > 0;)
        sift_down(heap, heap_size, i);
    while (heap_size > 0) {
        uint32_t rank = (uint32_t)(heap[0] >> 32), at = (uint32_t)heap[0];
        heap[0] = heap[--heap_size];
        if (heap_size > 0) sift_down(heap, heap_size, 0);
        uint32_t right = links[at].next;
        if (symbols[at] < 0 || right == NO_LINK) continue;
        ranked pair = rank_pair(bpe, symbols[at], symbols[right]);
        if (pair.rank != rank) continue;
        symbols[at] = (int32_t)pair.id;
        symbols[right] = -1;
        links[at].next = links[right].next;
        if (links[at].next != NO_LINK) links[links[at].next].prev = at;
        uint32_t pair_at[2] = {links[at].prev, at};
        for (int side = 0; side < 2; side++) {
            uint32_t left = pair_at[side];
            if (left == NO_LINK || links[left].next == NO_LINK) continue;
            uint32_t new_rank = rank_pair(bpe, symbols[left], symbols[links[left].next]).rank;
            if (new_rank == NO_MERGE) continue;
            heap[heap_size] = (uint64_t)new_rank << 32 | left;
            sift_up(heap, heap_size++);
        }
    }
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        if (symbols[i] >= 0) symbols[left++] = symbols[i];
    return left;
}

/* ---- the first symbols of a word ---- */

/* The symbols of one character: its token, else its bytes' tokens, else the unknown token. An unknown token waits in
 * *pending, so that a run of them can be fused; that it is overtaken by bytes is how tokenizers does it. */
static qins_status add_char(const qins_bpe *bpe, const char *c, size_t n_bytes, int32_t *pending, qins_ids *symbols,
                            qins_error *err) {
    int32_t id = qins_vocab_find(bpe->vocab, c, n_bytes);
    if (id >= 0) {
        if (*pending >= 0) qins_ids_add(symbols, *pending);
        *pending = -1;
        qins_ids_add(symbols, id);
        return QINS_OK;
    }
    bool has_bytes = bpe->byte_fallback;
    for (size_t i = 0; i < n_bytes && has_bytes; i++)
        has_bytes = bpe->fallback_ids[(uint8_t)c[i]] >= 0;
    if (has_bytes) {
        for (size_t i = 0; i < n_bytes; i++)
            qins_ids_add(symbols, bpe->fallback_ids[(uint8_t)c[i]]);
        return QINS_OK;
    }
    if (bpe->unk == QINS_UNK_MISSING)
        return qins_fail(err, QINS_ERR_FORMAT, "tokenizer: the unknown token is needed and not in the vocabulary");
    if (bpe->unk == QINS_UNK_ID) {
        if (*pending >= 0 && !bpe->fuse_unk) qins_ids_add(symbols, *pending);
        *pending = bpe->unk_id;
    }
    return QINS_OK;
}

static qins_status chars_to_symbols(const qins_bpe *bpe, const char *word, size_t n_bytes, qins_ids *symbols,
                                    qins_error *err) {
    int32_t pending = -1;
    for (size_t i = 0, length; i < n_bytes; i += length) {
        length = qins_utf8_length(word[i]);
        qins_status status = add_char(bpe, word + i, length, &pending, symbols, err);
        if (status != QINS_OK) return status;
    }
    if (pending >= 0) qins_ids_add(symbols, pending);
    return QINS_OK;
}

static qins_status merge(const qins_bpe *bpe, qins_bpe_scratch *scratch, qins_ids *ids, qins_error *err) {
    qins_ids *symbols = &scratch->symbols;
    size_t n = symbols->size;
    if (symbols->failed || n >= NO_LINK) return qins_fail_memory(err, n * sizeof *symbols->data, "a long word");
    if (n <= SHORT_WORD) {
        n = merge_short(bpe, symbols->data, n);
    } else {
        if (!reserve_long(scratch, n)) return qins_fail_memory(err, n * 24, "a long word");
        n = merge_long(bpe, scratch, symbols->data, n);
    }
    int32_t *out = qins_ids_reserve(ids, n);
    if (out == NULL) return qins_fail_memory(err, n * sizeof *out, "token ids");
    if (n > 0) memcpy(out, symbols->data, n * sizeof *out);
    ids->size += n;
    return QINS_OK;
}

/* The symbols of raw bytes, the usual case and the fast one; false when a byte has no token of its own. */
static bool bytes_to_symbols(const qins_bpe *bpe, const char *word, size_t n_bytes, qins_ids *symbols) {
    int32_t *out = qins_ids_reserve(symbols, n_bytes), known = 0;
    if (out == NULL) return true; /* merge() will say so */
    for (size_t i = 0; i < n_bytes; i++)
        known |= out[i] = bpe->byte_ids[(uint8_t)word[i]];
    symbols->size = known >= 0 ? n_bytes : 0;
    return known >= 0;
}

qins_status qins_bpe_encode(const qins_bpe *bpe, qins_bpe_scratch *scratch, const char *word, size_t n_bytes,
                            bool is_bytes, qins_ids *ids, qins_error *err) {
    qins_ids *symbols = &scratch->symbols;
    symbols->size = 0;
    bool has_symbols = is_bytes && bytes_to_symbols(bpe, word, n_bytes, symbols);
    if (has_symbols && !bpe->ignore_merges) return merge(bpe, scratch, ids, err);
    if (is_bytes) {
        scratch->chars.size = 0;
        qins_bytes_to_chars(word, n_bytes, &scratch->chars);
        if (scratch->chars.failed) return qins_fail_memory(err, 2 * n_bytes, "a long word");
        word = scratch->chars.data;
        n_bytes = scratch->chars.size;
    }
    int32_t whole = bpe->ignore_merges ? qins_vocab_find(bpe->vocab, word, n_bytes) : -1;
    if (whole >= 0) {
        qins_ids_add(ids, whole);
        return QINS_OK;
    }
    qins_status status = has_symbols ? QINS_OK : chars_to_symbols(bpe, word, n_bytes, symbols, err);
    return status == QINS_OK ? merge(bpe, scratch, ids, err) : status;
}

void qins_bpe_scratch_free(qins_bpe_scratch *scratch) {
    free(scratch->symbols.data);
    qins_buffer_free(&scratch->chars);
    free(scratch->links);
    free(scratch->heap);
    *scratch = (qins_bpe_scratch){0};
}
