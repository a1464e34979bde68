/* The BPE model of tokenizer.json: vocabulary, merges and options. SPDX-License-Identifier: MIT */
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

static void add_merge(qins_bpe *bpe, struct qins_merge merge) {
    uint32_t i = qins_bpe_slot(bpe, merge.pair);
    while (bpe->merges[i].id != UINT32_MAX && bpe->merges[i].pair != merge.pair)
        i = (i + 1) & bpe->mask;
    bpe->merges[i] = merge; /* the same pair again: the later rank counts, as in tokenizers */
}

static qins_status find_part(const qins_node *where, const qins_vocab *vocab, const char *s, size_t n, int32_t *id,
                             qins_error *err) {
    *id = qins_vocab_find(vocab, s, n);
    if (*id >= 0) return QINS_OK;
    return qins_node_fail(where, QINS_ERR_FORMAT, err, "merge token \"%.*s\" is not in the vocabulary",
                          n > 80 ? 80 : (int)n, s);
}

/* "left right" or ["left", "right"]. */
static qins_status merge_parts(const qins_node *where, const char *part[2], size_t length[2], qins_error *err) {
    if (json_is_array(where->json)) {
        if (json_array_size(where->json) != 2)
            return qins_node_fail(where, QINS_ERR_FORMAT, err, "expected two strings, found %zu",
                                  json_array_size(where->json));
        for (size_t i = 0; i < 2; i++) {
            qins_node item = qins_node_item(where, i);
            qins_status status = qins_node_string(&item, &part[i], &length[i], err);
            if (status != QINS_OK) return status;
        }
        return QINS_OK;
    }
    if (!json_is_string(where->json)) return qins_node_unexpected(where, "a string or an array of two strings", err);
    const char *text;
    size_t n;
    qins_status status = qins_node_string(where, &text, &n, err);
    if (status != QINS_OK) return status;
    const char *space = memchr(text, ' ', n);
    if (space == NULL || memchr(space + 1, ' ', n - (size_t)(space + 1 - text)) != NULL)
        return qins_node_fail(where, QINS_ERR_FORMAT, err,
                              "expected two tokens separated by one space, found \"%.80s\"", text);
    part[0] = text;
    length[0] = (size_t)(space - text);
    part[1] = space + 1;
    length[1] = n - length[0] - 1;
    return QINS_OK;
}

static qins_status load_merge(const qins_node *where, uint32_t rank, qins_bpe *bpe, qins_buffer *joined,
                              qins_error *err) {
    const char *part[2];
    size_t length[2];
    qins_status status = merge_parts(where, part, length, err);
    int32_t left, right, result;
    if (status == QINS_OK) status = find_part(where, bpe->vocab, part[0], length[0], &left, err);
    if (status == QINS_OK) status = find_part(where, bpe->vocab, part[1], length[1], &right, err);
    if (status != QINS_OK) return status;
    joined->size = 0;
    qins_buffer_add(joined, part[0], length[0]);
    qins_buffer_add(joined, part[1], length[1]);
    if (joined->failed) return qins_fail_memory(err, length[0] + length[1], "a merge");
    status = find_part(where, bpe->vocab, joined->data, joined->size, &result, err);
    if (status != QINS_OK) return status;
    add_merge(bpe, (struct qins_merge){
                       .pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, .rank = rank, .id = (uint32_t)result});
    return QINS_OK;
}

/* "#version: 0.2", the first line of a merges.txt, counts for nothing. */
static bool is_comment(const qins_node *where) {
    return json_is_string(where->json) && strncmp(json_string_value(where->json), "#version", 8) == 0;
}

static qins_status load_merges(const qins_node *where, qins_bpe *bpe, qins_error *err) {
    size_t n_merges = 0;
    qins_status status = qins_node_array(where, &n_merges, err);
    if (status != QINS_OK) return status;
    if (n_merges > QINS_MAX_TOKEN_ID)
        return qins_node_fail(where, QINS_ERR_FORMAT, err, "expected at most %lu merges, found %zu",
                              (unsigned long)QINS_MAX_TOKEN_ID, n_merges);
    size_t n_slots = 16;
    while (n_slots / 4 * 3 < n_merges)
        n_slots *= 2;
    bpe->mask = (uint32_t)n_slots - 1;
    bpe->merges = qins_alloc(n_slots, sizeof *bpe->merges);
    if (bpe->merges == NULL) return qins_fail_memory(err, n_slots * sizeof *bpe->merges, "the merges");
    for (size_t i = 0; i < n_slots; i++)
        bpe->merges[i].id = UINT32_MAX;
    qins_buffer joined = {0};
    for (size_t i = 0; i < n_merges && status == QINS_OK; i++) {
        qins_node item = qins_node_item(where, i);
        if (!is_comment(&item)) status = load_merge(&item, (uint32_t)i, bpe, &joined, err);
    }
    qins_buffer_free(&joined);
    return status;
}

static void find_byte_tokens(qins_bpe *bpe) {
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        size_t n = qins_utf8_encode(qins_byte_to_char((uint8_t)b), name);
        bpe->byte_ids[b] = qins_vocab_find(bpe->vocab, name, n);
        snprintf(name, sizeof name, "<0x%02X>", b);
        bpe->fallback_ids[b] = qins_vocab_find(bpe->vocab, name, 6);
    }
}

/* Parts of subwords that the file may ask to mark; no language model of ours does. */
static qins_status refuse_affix(const qins_node *model, const char *key, qins_error *err) {
    qins_node affix = qins_node_field(model, key);
    if (qins_node_is_null(&affix)) return QINS_OK;
    const char *s;
    size_t n;
    qins_status status = qins_node_string(&affix, &s, &n, err);
    if (status != QINS_OK || n == 0) return status;
    return qins_node_fail(&affix, QINS_ERR_UNSUPPORTED, err, "\"%.80s\" is not supported (only none)", s);
}

static qins_status refuse_dropout(const qins_node *model, qins_error *err) {
    qins_node dropout = qins_node_field(model, "dropout");
    if (qins_node_is_null(&dropout)) return QINS_OK;
    double value;
    qins_status status = qins_node_number(&dropout, &value, err);
    if (status != QINS_OK || value == 0) return status;
    return qins_node_fail(&dropout, QINS_ERR_UNSUPPORTED, err, "random merges (%g) are not supported", value);
}

static qins_status load_unk(const qins_node *model, qins_bpe *bpe, qins_error *err) {
    qins_node unk = qins_node_field(model, "unk_token");
    if (qins_node_is_null(&unk)) return QINS_OK;
    const char *s;
    size_t n;
    qins_status status = qins_node_string(&unk, &s, &n, err);
    if (status != QINS_OK) return status;
    bpe->unk_id = qins_vocab_find(bpe->vocab, s, n);
    bpe->unk = bpe->unk_id >= 0 ? QINS_UNK_ID : QINS_UNK_MISSING;
    return QINS_OK;
}

qins_status qins_bpe_load(const qins_node *model, const qins_vocab *vocab, qins_bpe *bpe, qins_error *err) {
    *bpe = (qins_bpe){.vocab = vocab};
    qins_node merges = qins_node_field(model, "merges"), fallback = qins_node_field(model, "byte_fallback");
    qins_node ignore = qins_node_field(model, "ignore_merges"), fuse = qins_node_field(model, "fuse_unk");
    qins_status status = qins_node_flag(&fallback, &bpe->byte_fallback, err);
    if (status == QINS_OK) status = qins_node_flag(&ignore, &bpe->ignore_merges, err);
    if (status == QINS_OK) status = qins_node_flag(&fuse, &bpe->fuse_unk, err);
    if (status == QINS_OK) status = refuse_dropout(model, err);
    if (status == QINS_OK) status = refuse_affix(model, "continuing_subword_prefix", err);
    if (status == QINS_OK) status = refuse_affix(model, "end_of_word_suffix", err);
    if (status == QINS_OK) status = load_unk(model, bpe, err);
    if (status == QINS_OK) status = load_merges(&merges, bpe, err);
    if (status == QINS_OK) find_byte_tokens(bpe);
    if (status != QINS_OK) qins_bpe_free(bpe);
    return status;
}

void qins_bpe_free(qins_bpe *bpe) {
    free(bpe->merges);
    *bpe = (qins_bpe){0};
}
