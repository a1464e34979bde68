/* tokenizer.json of SentencePiece BPE vocabularies in GGUF files. SPDX-License-Identifier: MIT
 *
 * The file has a score for each token and no merges. Hugging Face runs these models as BPE with byte fallback, with
 * merges derived from the scores: every way to cut a token in two tokens is a merge, best score first (transformers'
 * generate_merges). The rest of tokenizer.json is that of Llama 2, Mistral, Phi-3 and Gemma.
 */
#include "format/gguf_vocabulary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Longer tokens are never the result of merges; bounds the work on hostile files. SentencePiece pieces have at most 16
 * characters, runs of spaces up to 64. */
enum { MAX_PIECE_BYTES = 256 };

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

typedef struct merge {
    double score;
    uint32_t token, left, right;      /* ids */
    uint16_t left_chars, right_chars; /* code points */
    uint16_t left_bytes;
    const char *text;
    uint16_t n_bytes;
} merge;

typedef struct merge_list {
    merge *items;
    size_t n, capacity;
} merge_list;

/* Best score first, then longest left and right part; the rest as transformers' stable sort leaves it. */
static int compare_merges(const void *a, const void *b) {
    const merge *x = a, *y = b;
    if (x->score > y->score || x->score < y->score) return x->score > y->score ? -1 : 1;
    if (x->left_chars != y->left_chars) return x->left_chars > y->left_chars ? -1 : 1;
    if (x->right_chars != y->right_chars) return x->right_chars > y->right_chars ? -1 : 1;
    if (x->token != y->token) return x->token < y->token ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static bool append(merge_list *list, const merge *item) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 4096 : 2 * list->capacity;
        merge *items = reallocarray(list->items, capacity, sizeof *items);
        if (items == NULL) return false;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = *item;
    return true;
}

static bool is_continuation(char c) {
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* All ways to cut a token in two tokens. */
static bool split_token(const json_t *vocab, const char *text, size_t n, uint32_t id, double score, merge_list *list) {
    size_t n_chars = 0, left_chars = 0;
    for (size_t i = 0; i < n; i++)
        n_chars += !is_continuation(text[i]);
    for (size_t i = 1; i < n; i++) {
        left_chars += !is_continuation(text[i - 1]);
        if (is_continuation(text[i])) continue;
        const json_t *left = json_object_getn(vocab, text, i), *right = json_object_getn(vocab, text + i, n - i);
        if (left == NULL || right == NULL) continue;
        merge m = {.score = score,
                   .token = id,
                   .left = (uint32_t)json_integer_value(left),
                   .right = (uint32_t)json_integer_value(right),
                   .left_chars = (uint16_t)left_chars,
                   .right_chars = (uint16_t)(n_chars - left_chars),
                   .left_bytes = (uint16_t)i,
                   .text = text,
                   .n_bytes = (uint16_t)n};
        if (!append(list, &m)) return false;
    }
    return true;
}

static bool is_made_by_merges(int64_t type) {
    return type == QINS_TOKEN_NORMAL || type == QINS_TOKEN_USER || type == QINS_TOKEN_UNUSED;
}

/* by_position: the order of the tokens counts, not their scores (Gemma). */
static qins_status derive_merges(const qins_vocabulary *v, const json_t *vocab, bool by_position, json_t *merges) {
    merge_list list = {0};
    bool good = true;
    const char *token;
    size_t n_token;
    json_t *id;
    json_object_keylen_foreach((json_t *)(uintptr_t)vocab, token, n_token, id) {
        uint64_t i = (uint64_t)json_integer_value(id);
        if (!is_made_by_merges(qins_vocabulary_type(v, i)) || n_token > MAX_PIECE_BYTES) continue;
        double score = by_position ? -(double)i : qins_gguf_number(v->scores, i);
        if (isnan(score)) score = -INFINITY;
        good = good && split_token(vocab, token, n_token, (uint32_t)i, score, &list);
    }
    if (list.n > 0) qsort(list.items, list.n, sizeof *list.items, compare_merges);
    for (size_t i = 0; i < list.n && good; i++) {
        const merge *m = &list.items[i];
        json_t *pair = json_pack("[s%, s%]", m->text, (size_t)m->left_bytes, m->text + m->left_bytes,
                                 (size_t)(m->n_bytes - m->left_bytes));
        good = json_array_append_new(merges, pair) == 0;
    }
    free(list.items);
    return good ? QINS_OK : qins_fail_memory(v->err, list.n * sizeof *list.items, "merges");
}

/* Gemma files have runs of spaces as such and as added tokens; its tokenizer has them as U+2581, made by merges. */
static bool mark_spaces(json_t *vocab, json_t *added) {
    static const char mark[] = SPACE_MARK;
    char spaces[MAX_PIECE_BYTES], marked[3 * MAX_PIECE_BYTES];
    for (size_t n = 1; n <= sizeof spaces; n++) {
        spaces[n - 1] = ' ';
        memcpy(marked + 3 * (n - 1), mark, 3);
        json_t *id = json_object_getn(vocab, spaces, n);
        if (n == 1 || id == NULL || json_object_getn(vocab, marked, 3 * n) != NULL) continue;
        if (json_object_setn(vocab, marked, 3 * n, id) != 0 || json_object_deln(vocab, spaces, n) != 0) return false;
    }
    for (size_t i = json_array_size(added); i-- > 0;) {
        const char *content = json_string_value(json_object_get(json_array_get(added, i), "content"));
        if (json_object_get(vocab, content) == NULL) json_array_remove(added, i);
    }
    return true;
}

static bool arch_starts_with(const qins_gguf *g, const char *prefix) {
    qins_gguf_string arch;
    return qins_gguf_get_string(g, "general.architecture", &arch) && arch.n >= strlen(prefix) &&
           memcmp(arch.data, prefix, strlen(prefix)) == 0;
}

/* Phi-3's added tokens take the spaces after them along, all but these. */
static void strip_after_added(json_t *added) {
    static const char *const others[] = {"<unk>", "<s>", "<|endoftext|>"};
    size_t i;
    json_t *entry;
    json_array_foreach(added, i, entry) {
        const char *content = json_string_value(json_object_get(entry, "content"));
        bool strip = true;
        for (size_t k = 0; k < sizeof others / sizeof others[0]; k++)
            strip = strip && strcmp(content, others[k]) != 0;
        json_object_set_new(entry, "rstrip", json_boolean(strip));
    }
}

static json_t *make_normalizer(bool prefix) {
    json_t *replace =
        json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", SPACE_MARK);
    if (!prefix) return replace;
    return json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend",
                     SPACE_MARK, replace);
}

static json_t *make_decoder(bool prefix) {
    json_t *decoder =
        json_pack("{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]}", "type", "Sequence", "decoders", "type", "Replace",
                  "pattern", "String", SPACE_MARK, "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (prefix)
        json_array_append_new(json_object_get(decoder, "decoders"), json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                                              "content", " ", "start", 1, "stop", 0));
    return decoder;
}

/* The text of the unknown token, JSON null without one. */
static json_t *unknown_token(const qins_vocabulary *v) {
    const uint8_t *cursor = v->tokens->data;
    for (uint64_t i = 0; i < v->tokens->count; i++) {
        qins_gguf_string token = qins_gguf_next_string(&cursor);
        if (qins_vocabulary_type(v, i) == QINS_TOKEN_UNKNOWN) return json_stringn(token.data, token.n);
    }
    return json_null();
}

qins_status qins_gguf_sentencepiece(const qins_vocabulary *v, json_t *vocab, json_t *merges, json_t *added,
                                    json_t **json) {
    bool is_gemma = arch_starts_with(v->gguf, "gemma"), prefix = !is_gemma;
    (void)qins_gguf_get_bool(v->gguf, "tokenizer.ggml.add_space_prefix", &prefix);
    if (v->scores == NULL || v->types == NULL)
        return qins_fail(v->err, QINS_ERR_FORMAT,
                         "%s: metadata tokenizer.ggml.%s is missing, which a SentencePiece vocabulary needs",
                         v->gguf->path, v->scores == NULL ? "scores" : "token_type");
    json_t *post = NULL;
    qins_status status = qins_vocabulary_json(v, vocab, added);
    if (status == QINS_OK && is_gemma && !mark_spaces(vocab, added))
        status = qins_fail_memory(v->err, 0, "a vocabulary");
    if (status == QINS_OK)
        status = v->merges != NULL ? qins_vocabulary_merges(v, merges) : derive_merges(v, vocab, is_gemma, merges);
    if (status == QINS_OK) status = qins_gguf_post_processor(v->gguf, true, &post, v->err);
    if (status != QINS_OK) return status;
    if (arch_starts_with(v->gguf, "phi3")) strip_after_added(added);
    *json = json_pack("{s:s, s:n, s:n, s:O, s:o, s:n, s:o, s:o,"
                      " s:{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:O, s:O}}",
                      "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
                      make_normalizer(prefix), "pre_tokenizer", "post_processor", post, "decoder", make_decoder(prefix),
                      "model", "type", "BPE", "dropout", "unk_token", unknown_token(v), "continuing_subword_prefix",
                      "end_of_word_suffix", "fuse_unk", 1, "byte_fallback", 1, "ignore_merges", 0, "vocab", vocab,
                      "merges", merges);
    return *json != NULL ? QINS_OK : qins_fail_memory(v->err, 0, "a tokenizer");
}
