/* Unigram model: the segmentation of the highest score, found with the Viterbi algorithm. SPDX-License-Identifier: MIT
 *
 * Kudo, "Subword Regularization" (2018). Ties, the score of unknown characters and the fusing of their runs follow the
 * tokenizers package, which follows SentencePiece. */
#include "text/unigram.h"

#include "text/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* An unknown character scores this much less than the rarest token (kUnkPenalty of SentencePiece). */
static const double UNKNOWN_PENALTY = 10.0;

/* ---- reading ---- */

/* A score as tokenizers' JSON reader rounds it: the shortest digits as an integer, divided by a power of ten. The last
 * bit counts where two segmentations are equally good, such as the same tokens in another order. */
static double round_score(double score) {
    char text[32];
    int n_digits = 15; /* fewer are exact either way */
    do
        snprintf(text, sizeof text, "%.*e", n_digits - 1, fabs(score));
    while (strtod(text, NULL) != fabs(score) && ++n_digits <= 17);
    uint64_t digits = 0;
    for (const char *p = text; *p != 'e' && *p != '\0'; p++)
        if (*p >= '0' && *p <= '9') digits = digits * 10 + (uint64_t)(*p - '0');
    const char *e = strchr(text, 'e');
    long exponent = e != NULL ? strtol(e + 1, NULL, 10) - (n_digits - 1) : 0;
    static const double exact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (exponent >= 0 || -exponent >= (long)(sizeof exact / sizeof *exact)) return score;
    return copysign((double)digits / exact[-exponent], score);
}

static qins_status read_entry(const qins_node *where, qins_vocab_entry *entry, double *score, qins_error *err) {
    size_t n = 0;
    qins_status status = qins_node_array(where, &n, err);
    if (status != QINS_OK) return status;
    if (n != 2)
        return qins_node_fail(where, QINS_ERR_FORMAT, err, "expected a token and its score, found %zu values", n);
    qins_node token = qins_node_item(where, 0), number = qins_node_item(where, 1);
    status = qins_node_string(&token, &entry->token, &entry->length, err);
    if (status == QINS_OK) status = qins_node_number(&number, score, err);
    if (status == QINS_OK) *score = round_score(*score);
    return status;
}

static qins_status load_vocab(const qins_node *where, qins_vocab *vocab, qins_unigram *unigram, qins_error *err) {
    size_t n = 0;
    qins_status status = qins_node_array(where, &n, err);
    if (status != QINS_OK) return status;
    if (n > QINS_MAX_TOKEN_ID)
        return qins_node_fail(where, QINS_ERR_FORMAT, err, "expected at most %lu tokens, found %zu",
                              (unsigned long)QINS_MAX_TOKEN_ID, n);
    qins_vocab_entry *entries = qins_alloc(n, sizeof *entries);
    unigram->scores = qins_alloc(n, sizeof *unigram->scores);
    double lowest = INFINITY;
    if (entries == NULL || unigram->scores == NULL)
        status = qins_fail_memory(err, n * sizeof *entries, "the vocabulary");
    for (size_t i = 0; i < n && status == QINS_OK; i++) {
        qins_node item = qins_node_item(where, i);
        status = read_entry(&item, &entries[i], &unigram->scores[i], err);
        if (status == QINS_OK) lowest = fmin(lowest, unigram->scores[i]);
        if (status == QINS_OK && !qins_trie_add(&unigram->trie, entries[i].token, entries[i].length, (int32_t)i))
            status = qins_fail_memory(err, n * sizeof *entries, "the vocabulary");
    }
    unigram->unk_score = lowest - UNKNOWN_PENALTY;
    if (status == QINS_OK) status = qins_vocab_new(where, entries, (uint32_t)n, vocab, err);
    free(entries);
    return status;
}

static qins_status load_unk(const qins_node *model, qins_unigram *unigram, qins_error *err) {
    qins_node field = qins_node_field(model, "unk_id");
    uint32_t id = 0;
    unigram->unk_id = -1;
    if (qins_node_is_null(&field)) return QINS_OK;
    qins_status status = qins_node_index(&field, QINS_MAX_TOKEN_ID, &id, err);
    if (status != QINS_OK) return status;
    if (id >= unigram->vocab->n_ids)
        return qins_node_fail(&field, QINS_ERR_FORMAT, err, "no token has the id %lu", (unsigned long)id);
    unigram->unk_id = (int32_t)id;
    return QINS_OK;
}

qins_status qins_unigram_load(const qins_node *model, qins_vocab *vocab, qins_unigram *unigram, qins_error *err) {
    *unigram = (qins_unigram){.vocab = vocab};
    qins_node tokens = qins_node_field(model, "vocab"), fallback = qins_node_field(model, "byte_fallback");
    qins_status status = qins_trie_init(&unigram->trie) ? QINS_OK : qins_fail_memory(err, 1024, "the vocabulary");
    if (status == QINS_OK) status = load_vocab(&tokens, vocab, unigram, err);
    if (status == QINS_OK) status = load_unk(model, unigram, err);
    if (status == QINS_OK) status = qins_node_flag(&fallback, &unigram->byte_fallback, err);
    for (unsigned b = 0; b < 256 && status == QINS_OK; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        unigram->fallback_ids[b] = qins_vocab_find(vocab, name, 6);
    }
    if (status != QINS_OK) qins_unigram_free(unigram);
    return status;
}

void qins_unigram_free(qins_unigram *unigram) {
    qins_trie_free(&unigram->trie);
    free(unigram->scores);
    *unigram = (qins_unigram){0};
}

/* ---- encoding ---- */

/* The best way to reach a place in the text. */
typedef struct node {
    double score;
    uint32_t start; /* of its last token; NOWHERE when nothing ends here */
    int32_t id;
} node;

static const uint32_t NOWHERE = UINT32_MAX;

static inline void reach(node *target, double score, size_t start, int32_t id) {
    if (target->start == NOWHERE || score > target->score)
        *target = (node){.score = score, .start = (uint32_t)start, .id = id};
}

static qins_status find_best(const qins_unigram *u, node *nodes, const char *text, size_t n_bytes, qins_error *err) {
    for (size_t i = 0; i <= n_bytes; i++)
        nodes[i] = (node){.start = NOWHERE};
    for (size_t start = 0, length; start < n_bytes; start += length) {
        double so_far = nodes[start].score;
        bool has_char = false;
        uint32_t at = QINS_TRIE_ROOT;
        length = qins_utf8_length(text[start]);
        for (size_t end = start; end < n_bytes;) {
            at = qins_trie_step(&u->trie, at, text[end++]);
            if (at == QINS_TRIE_NONE) break;
            int32_t id = u->trie.values[at];
            if (id < 0) continue;
            reach(&nodes[end], u->scores[id] + so_far, start, id);
            has_char |= end - start == length;
        }
        if (has_char) continue;
        double score = u->unk_score + so_far;
        node *target = &nodes[start + length];
        if (u->unk_id < 0 && (target->start == NOWHERE || score > target->score))
            return qins_fail(err, QINS_ERR_FORMAT, "tokenizer: the unknown token is needed, and there is none");
        reach(target, score, start, u->unk_id);
    }
    return QINS_OK;
}

/* The ids of text that is no token as a whole: its bytes' tokens if they all exist, else the unknown token. */
static qins_status add_text(const qins_unigram *u, const char *text, size_t n_bytes, qins_ids *ids, qins_error *err) {
    int32_t id = qins_vocab_find(u->vocab, text, n_bytes);
    bool has_bytes = id < 0 && u->byte_fallback;
    for (size_t i = 0; i < n_bytes && has_bytes; i++)
        has_bytes = u->fallback_ids[(uint8_t)text[i]] >= 0;
    if (has_bytes) {
        for (size_t i = 0; i < n_bytes; i++)
            qins_ids_add(ids, u->fallback_ids[(uint8_t)text[i]]);
        return QINS_OK;
    }
    if (id < 0) id = u->unk_id;
    if (id < 0) return qins_fail(err, QINS_ERR_FORMAT, "tokenizer: the unknown token is needed, and there is none");
    qins_ids_add(ids, id);
    return QINS_OK;
}

/* Walks the best path back to the start, then forward again; runs of unknown characters are taken together. */
static qins_status add_path(const qins_unigram *u, qins_ids *ends, const node *nodes, const char *text, size_t n_bytes,
                            qins_ids *ids, qins_error *err) {
    ends->size = 0;
    for (size_t end = n_bytes; end > 0; end = nodes[end].start)
        qins_ids_add(ends, (int32_t)end);
    if (ends->failed) return qins_fail_memory(err, n_bytes * sizeof *ends->data, "a long text");
    size_t start = 0;
    for (size_t i = ends->size; i-- > 0;) {
        size_t end = (size_t)ends->data[i];
        if (u->unk_id < 0 || nodes[end].id != u->unk_id) {
            qins_ids_add(ids, nodes[end].id);
        } else {
            while (i > 0 && nodes[ends->data[i - 1]].id == u->unk_id)
                end = (size_t)ends->data[--i];
            qins_status status = add_text(u, text + start, end - start, ids, err);
            if (status != QINS_OK) return status;
        }
        start = end;
    }
    return QINS_OK;
}

qins_status qins_unigram_encode(const qins_unigram *unigram, qins_unigram_scratch *scratch, const char *text,
                                size_t n_bytes, qins_ids *ids, qins_error *err) {
    if (n_bytes >= INT32_MAX) return qins_fail(err, QINS_ERR_UNSUPPORTED, "a text of 2 GiB without a break");
    if (n_bytes + 1 > scratch->capacity) {
        free(scratch->nodes);
        scratch->capacity = n_bytes + n_bytes / 2 + 64;
        scratch->nodes = malloc(scratch->capacity * sizeof(node));
        if (scratch->nodes == NULL) {
            scratch->capacity = 0;
            return qins_fail_memory(err, n_bytes * sizeof(node), "a long text");
        }
    }
    qins_status status = find_best(unigram, scratch->nodes, text, n_bytes, err);
    return status == QINS_OK ? add_path(unigram, &scratch->path, scratch->nodes, text, n_bytes, ids, err) : status;
}

void qins_unigram_scratch_free(qins_unigram_scratch *scratch) {
    free(scratch->nodes);
    free(scratch->path.data);
    *scratch = (qins_unigram_scratch){0};
}
