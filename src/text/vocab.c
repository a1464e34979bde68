/* Token strings by id and ids by token string. SPDX-License-Identifier: MIT */
#include "text/vocab.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static uint32_t first_slot(const qins_vocab *vocab, const char *token, size_t length) {
    return (uint32_t)XXH3_64bits(token, length) & vocab->mask;
}

static bool is_token(const qins_vocab *vocab, uint32_t id, const char *token, size_t length) {
    return vocab->start[id + 1] - vocab->start[id] == length &&
           memcmp(vocab->bytes + vocab->start[id], token, length) == 0;
}

int32_t qins_vocab_find(const qins_vocab *vocab, const char *token, size_t length) {
    for (uint32_t i = first_slot(vocab, token, length);; i = (i + 1) & vocab->mask) {
        if (vocab->slots[i] == 0) return -1;
        if (is_token(vocab, vocab->slots[i] - 1, token, length)) return (int32_t)(vocab->slots[i] - 1);
    }
}

static void index_token(qins_vocab *vocab, uint32_t id) {
    size_t length;
    const char *token = qins_vocab_token(vocab, id, &length);
    if (token == NULL) return;
    uint32_t i = first_slot(vocab, token, length);
    while (vocab->slots[i] != 0 && !is_token(vocab, vocab->slots[i] - 1, token, length))
        i = (i + 1) & vocab->mask;
    vocab->slots[i] = id + 1;
}

qins_status qins_vocab_new(const qins_node *where, const qins_vocab_entry *entries, uint32_t n_ids, qins_vocab *vocab,
                           qins_error *err) {
    *vocab = (qins_vocab){.n_ids = n_ids};
    uint64_t n_bytes = 0;
    for (uint32_t id = 0; id < n_ids; id++) {
        if (entries[id].token == NULL) continue;
        n_bytes += entries[id].length;
        vocab->n_tokens++;
    }
    if (n_bytes > UINT32_MAX)
        return qins_node_fail(where, QINS_ERR_UNSUPPORTED, err, "more than 4 GiB of token strings");
    size_t n_slots = 16;
    while (n_slots / 4 * 3 < vocab->n_tokens)
        n_slots *= 2;
    vocab->mask = (uint32_t)n_slots - 1;
    vocab->bytes = qins_alloc(n_bytes, 1);
    vocab->start = qins_alloc((size_t)n_ids + 1, sizeof *vocab->start);
    vocab->present = qins_alloc(n_ids, 1);
    vocab->slots = qins_alloc(n_slots, sizeof *vocab->slots);
    if (vocab->bytes == NULL || vocab->start == NULL || vocab->present == NULL || vocab->slots == NULL) {
        qins_vocab_free(vocab);
        return qins_fail_memory(err, n_bytes + n_slots * 4 + (size_t)n_ids * 5, "the vocabulary");
    }
    for (uint32_t id = 0; id < n_ids; id++) {
        size_t length = entries[id].token != NULL ? entries[id].length : 0;
        vocab->present[id] = entries[id].token != NULL;
        if (length > 0) memcpy(vocab->bytes + vocab->start[id], entries[id].token, length);
        vocab->start[id + 1] = vocab->start[id] + (uint32_t)length;
    }
    for (uint32_t id = 0; id < n_ids; id++)
        index_token(vocab, id);
    return QINS_OK;
}

static qins_status largest_id(const qins_node *where, uint32_t *n_ids, qins_error *err) {
    const char *token;
    const json_t *value;
    *n_ids = 0;
    json_object_foreach((json_t *)where->json, token, value) {
        qins_node entry = {.json = value, .parent = where, .key = token, .file = where->file};
        uint32_t id;
        qins_status status = qins_node_index(&entry, QINS_MAX_TOKEN_ID, &id, err);
        if (status != QINS_OK) return status;
        if (id >= *n_ids) *n_ids = id + 1;
    }
    return QINS_OK;
}

qins_status qins_vocab_load(const qins_node *where, qins_vocab *vocab, qins_error *err) {
    *vocab = (qins_vocab){0};
    uint32_t n_ids = 0;
    qins_status status = qins_node_object(where, err);
    if (status == QINS_OK) status = largest_id(where, &n_ids, err);
    if (status != QINS_OK) return status;
    qins_vocab_entry *entries = qins_alloc(n_ids, sizeof *entries);
    if (entries == NULL) return qins_fail_memory(err, n_ids * sizeof *entries, "the vocabulary");
    json_t *object = (json_t *)where->json;
    for (void *i = json_object_iter(object); i != NULL && status == QINS_OK; i = json_object_iter_next(object, i)) {
        qins_vocab_entry *entry = &entries[json_integer_value(json_object_iter_value(i))];
        const char *token = json_object_iter_key(i);
        if (!qins_utf8_is_valid(token, json_object_iter_key_len(i)))
            status = qins_node_fail(where, QINS_ERR_FORMAT, err, "a token is not valid UTF-8");
        if (status == QINS_OK && entry->token != NULL)
            status = qins_node_fail(where, QINS_ERR_FORMAT, err, "\"%.80s\" and \"%.80s\" have the same id %zu",
                                    entry->token, token, (size_t)(entry - entries));
        *entry = (qins_vocab_entry){.token = token, .length = json_object_iter_key_len(i)};
    }
    if (status == QINS_OK) status = qins_vocab_new(where, entries, n_ids, vocab, err);
    free(entries);
    return status;
}

void qins_vocab_free(qins_vocab *vocab) {
    free(vocab->bytes);
    free(vocab->start);
    free(vocab->present);
    free(vocab->slots);
    *vocab = (qins_vocab){0};
}

int32_t *qins_ids_reserve(qins_ids *ids, size_t n) {
    size_t need, n_bytes;
    if (ids->failed || !qins_add_size(ids->size, n, &need)) {
        ids->failed = true;
        return NULL;
    }
    if (need > ids->capacity || ids->data == NULL) {
        size_t capacity = qins_max_size(need, qins_max_size(64, ids->capacity + ids->capacity / 2));
        int32_t *data = qins_mul_size(capacity, sizeof *data, &n_bytes) ? realloc(ids->data, n_bytes) : NULL;
        if (data == NULL) {
            ids->failed = true;
            return NULL;
        }
        ids->data = data;
        ids->capacity = capacity;
    }
    return ids->data + ids->size;
}

void qins_ids_add(qins_ids *ids, int32_t id) {
    int32_t *slot = qins_ids_reserve(ids, 1);
    if (slot == NULL) return;
    *slot = id;
    ids->size++;
}
