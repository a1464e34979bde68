/* tokenizer.json and tokenizer_config.json from the metadata of a GGUF file. SPDX-License-Identifier: MIT
 *
 * GGUF keeps vocabulary, merges and kinds of tokens, and of everything else only a name (tokenizer.ggml.pre). What the
 * name stands for is taken from the tokenizer.json of the models that have it.
 */
#include "format/gguf_vocabulary.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- vocabulary ---- */

static bool is_array_of(const qins_gguf_value *v, qins_gguf_kind kind) {
    return v != NULL && v->is_array && v->kind == kind;
}

static qins_status find_vocabulary(const qins_gguf *g, qins_vocabulary *v, qins_error *err) {
    *v = (qins_vocabulary){.gguf = g,
                           .tokens = qins_gguf_find(g, "tokenizer.ggml.tokens"),
                           .types = qins_gguf_find(g, "tokenizer.ggml.token_type"),
                           .merges = qins_gguf_find(g, "tokenizer.ggml.merges"),
                           .scores = qins_gguf_find(g, "tokenizer.ggml.scores"),
                           .err = err};
    if (!is_array_of(v->tokens, QINS_GGUF_STRING) || v->tokens->count > INT32_MAX)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: metadata tokenizer.ggml.tokens is missing or no list of strings",
                         g->path);
    bool types_good = v->types == NULL || (v->types->is_array && v->types->count == v->tokens->count &&
                                           (v->types->kind == QINS_GGUF_I32 || v->types->kind == QINS_GGUF_U32));
    bool scores_good =
        v->scores == NULL || (is_array_of(v->scores, QINS_GGUF_F32) && v->scores->count == v->tokens->count);
    if (!types_good || !scores_good)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: metadata tokenizer.ggml.%s: expected one number for each of the %" PRIu64 " tokens",
                         g->path, types_good ? "scores" : "token_type", v->tokens->count);
    return QINS_OK;
}

int64_t qins_vocabulary_type(const qins_vocabulary *v, uint64_t i) {
    return v->types != NULL ? qins_gguf_integer(v->types, i) : QINS_TOKEN_NORMAL;
}

/* Token i as JSON; refuses what is not UTF-8. */
static qins_status token_json(const qins_vocabulary *v, uint64_t i, qins_gguf_string token, json_t **json) {
    *json = json_stringn(token.data, token.n);
    if (*json == NULL)
        return qins_fail(v->err, QINS_ERR_FORMAT, "%s: metadata tokenizer.ggml.tokens: token %" PRIu64 " is not UTF-8",
                         v->gguf->path, i);
    return QINS_OK;
}

static qins_status add_token(const qins_vocabulary *v, uint64_t i, qins_gguf_string token, json_t *vocab) {
    if (token.n > 0 && json_object_getn(vocab, token.data, token.n) == NULL) {
        if (json_object_setn_new(vocab, token.data, token.n, json_integer((json_int_t)i)) == 0) return QINS_OK;
        return qins_fail(v->err, QINS_ERR_FORMAT, "%s: metadata tokenizer.ggml.tokens: token %" PRIu64 " is not UTF-8",
                         v->gguf->path, i);
    }
    return qins_fail(v->err, QINS_ERR_FORMAT,
                     "%s: metadata tokenizer.ggml.tokens: token %" PRIu64 " is empty or there twice", v->gguf->path, i);
}

qins_status qins_vocabulary_json(const qins_vocabulary *v, json_t *vocab, json_t *added) {
    const uint8_t *cursor = v->tokens->data;
    for (uint64_t i = 0; i < v->tokens->count; i++) {
        qins_gguf_string token = qins_gguf_next_string(&cursor);
        qins_status status = add_token(v, i, token, vocab);
        if (status != QINS_OK) return status;
        int64_t type = qins_vocabulary_type(v, i);
        if (type != QINS_TOKEN_CONTROL && type != QINS_TOKEN_USER && type != QINS_TOKEN_UNKNOWN) continue;
        json_t *content;
        status = token_json(v, i, token, &content);
        if (status != QINS_OK) return status;
        json_array_append_new(added, json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content",
                                               content, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                               "special", type != QINS_TOKEN_USER));
    }
    return QINS_OK;
}

qins_status qins_vocabulary_merges(const qins_vocabulary *v, json_t *merges) {
    if (!is_array_of(v->merges, QINS_GGUF_STRING))
        return qins_fail(v->err, QINS_ERR_FORMAT, "%s: metadata tokenizer.ggml.merges is missing or no list of strings",
                         v->gguf->path);
    const uint8_t *cursor = v->merges->data;
    for (uint64_t i = 0; i < v->merges->count; i++) {
        qins_gguf_string merge = qins_gguf_next_string(&cursor);
        /* the first byte cannot be the separator */
        const char *space = merge.n > 1 ? memchr(merge.data + 1, ' ', merge.n - 1) : NULL;
        size_t left = space != NULL ? (size_t)(space - merge.data) : 0;
        json_t *pair = space != NULL ? json_pack("[s%, s%]", merge.data, left, space + 1, merge.n - left - 1) : NULL;
        if (pair == NULL || json_array_append_new(merges, pair) != 0)
            return qins_fail(v->err, QINS_ERR_FORMAT,
                             "%s: metadata tokenizer.ggml.merges: entry %" PRIu64 " is not two pieces of UTF-8 with a "
                             "space between",
                             v->gguf->path, i);
    }
    return QINS_OK;
}

/* The text of token id as JSON, NULL when there is no such token. */
static json_t *token_text(const qins_gguf *g, int64_t id) {
    const qins_gguf_value *tokens = qins_gguf_find(g, "tokenizer.ggml.tokens");
    if (!is_array_of(tokens, QINS_GGUF_STRING) || id < 0 || (uint64_t)id >= tokens->count) return NULL;
    const uint8_t *cursor = tokens->data;
    qins_gguf_string token = {0};
    for (int64_t i = 0; i <= id; i++)
        token = qins_gguf_next_string(&cursor);
    return json_stringn(token.data, token.n);
}

/* ---- tokenizer.json ---- */

qins_status qins_gguf_post_processor(const qins_gguf *g, bool add_bos_default, json_t **json, qins_error *err) {
    static const char *const ids[2] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"};
    bool add[2] = {add_bos_default, false};
    (void)qins_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &add[0]);
    (void)qins_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &add[1]);
    json_t *special[2] = {NULL, NULL}, *tokens = json_object();
    for (size_t i = 0; i < 2; i++) {
        int64_t id;
        if (!add[i]) continue;
        json_t *text = qins_gguf_get_integer(g, ids[i], &id) ? token_text(g, id) : NULL;
        if (text == NULL) {
            json_decref(tokens);
            json_decref(special[0]);
            return qins_fail(err, QINS_ERR_FORMAT, "%s: metadata %s is missing or names no token", g->path, ids[i]);
        }
        json_object_set_new(tokens, json_string_value(text),
                            json_pack("{s:O, s:[I], s:[O]}", "id", text, "ids", (json_int_t)id, "tokens", text));
        special[i] = json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", text, "type_id", 0);
    }
    if (special[0] == NULL && special[1] == NULL) {
        json_decref(tokens);
        *json = json_null();
        return QINS_OK;
    }
    json_t *single = json_array(), *pair = json_array();
    for (int sequence = 0; sequence < 2; sequence++) {
        for (int target = 0; target < 2; target++) {
            json_t *template = target == 0 ? single : pair;
            if (target == 0 && sequence == 1) continue;
            if (special[0] != NULL) json_array_append(template, special[0]);
            json_array_append_new(template, json_pack("{s:{s:s, s:i}}", "Sequence", "id", sequence == 0 ? "A" : "B",
                                                      "type_id", sequence));
            if (special[1] != NULL) json_array_append(template, special[1]);
        }
    }
    json_decref(special[0]);
    json_decref(special[1]);
    *json = json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                      "special_tokens", tokens);
    return QINS_OK;
}

static qins_status find_pre_tokenizer(const qins_gguf *g, const qins_pre_tokenizer **found, qins_error *err) {
    qins_gguf_string name;
    if (!qins_gguf_get_string(g, "tokenizer.ggml.pre", &name))
        return qins_fail(err, QINS_ERR_UNSUPPORTED,
                         "%s: metadata tokenizer.ggml.pre is missing, so that the way to split text is not known; the "
                         "file is old, convert the model again",
                         g->path);
    const qins_pre_tokenizer *row;
    for (size_t i = 0; (row = qins_pre_tokenizer_at(i)) != NULL; i++) {
        if (strlen(row->name) == name.n && memcmp(row->name, name.data, name.n) == 0) {
            *found = row;
            return QINS_OK;
        }
    }
    char shown[64] = {0};
    for (size_t i = 0; i < name.n && i < sizeof shown - 1; i++)
        shown[i] = name.data[i] >= 0x20 && name.data[i] < 0x7f ? name.data[i] : '?';
    return qins_fail(err, QINS_ERR_UNSUPPORTED,
                     "%s: pre-tokenizer \"%s\" (metadata tokenizer.ggml.pre) is not supported; use the model's Hugging "
                     "Face directory",
                     g->path, shown);
}

/* Byte-level BPE. */
static qins_status make_gpt2(const qins_vocabulary *v, json_t *vocab, json_t *merges, json_t *added, json_t **json) {
    const qins_pre_tokenizer *pre = NULL;
    json_t *post = NULL;
    qins_status status = find_pre_tokenizer(v->gguf, &pre, v->err);
    if (status == QINS_OK) status = qins_vocabulary_merges(v, merges);
    if (status == QINS_OK) status = qins_vocabulary_json(v, vocab, added);
    if (status == QINS_OK) status = qins_gguf_post_processor(v->gguf, pre->add_bos, &post, v->err);
    if (status != QINS_OK) return status;
    json_t *decoder = json_loads(qins_byte_level_decoder, 0, NULL), *pieces = json_loads(pre->pieces, 0, NULL);
    json_t *normalizer = pre->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    *json = json_pack("{s:s, s:n, s:n, s:O, s:o, s:o, s:o, s:o,"
                      " s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:O, s:O}}",
                      "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer", normalizer,
                      "pre_tokenizer", pieces, "post_processor", post, "decoder", decoder, "model", "type", "BPE",
                      "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                      "byte_fallback", 0, "ignore_merges", pre->ignore_merges, "vocab", vocab, "merges", merges);
    return *json != NULL ? QINS_OK : qins_fail_memory(v->err, 0, "a tokenizer");
}

qins_status qins_gguf_tokenizer(const qins_gguf *gguf, json_t **tokenizer, qins_error *err) {
    *tokenizer = NULL;
    qins_gguf_string model;
    qins_vocabulary v;
    if (!qins_gguf_get_string(gguf, "tokenizer.ggml.model", &model))
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: has no tokenizer (metadata tokenizer.ggml.model is missing)",
                         gguf->path);
    qins_status status = find_vocabulary(gguf, &v, err);
    if (status != QINS_OK) return status;
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
    if (model.n == 4 && memcmp(model.data, "gpt2", 4) == 0)
        status = make_gpt2(&v, vocab, merges, added, tokenizer);
    else if (model.n == 5 && memcmp(model.data, "llama", 5) == 0)
        status = qins_gguf_sentencepiece(&v, vocab, merges, added, tokenizer);
    else
        status = qins_fail(err, QINS_ERR_UNSUPPORTED,
                           "%s: tokenizer \"%.*s\" (metadata tokenizer.ggml.model) is not supported; use the model's "
                           "Hugging Face directory",
                           gguf->path, (int)qins_min_size(model.n, 32), model.data);
    json_decref(vocab);
    json_decref(merges);
    json_decref(added);
    return status;
}

/* ---- tokenizer_config.json ---- */

static void put_flag(const qins_gguf *g, const char *key, const char *name, json_t *config) {
    bool value;
    if (qins_gguf_get_bool(g, key, &value)) json_object_set_new(config, name, json_boolean(value));
}

qins_status qins_gguf_tokenizer_config(const qins_gguf *gguf, json_t **tokenizer_config, qins_error *err) {
    static const struct {
        const char *key, *name;
    } specials[] = {
        {"tokenizer.ggml.bos_token_id", "bos_token"},
        {"tokenizer.ggml.eos_token_id", "eos_token"},
        {"tokenizer.ggml.unknown_token_id", "unk_token"},
        {"tokenizer.ggml.padding_token_id", "pad_token"},
    };
    *tokenizer_config = NULL;
    json_t *config = json_object();
    if (config == NULL) return qins_fail_memory(err, 0, "a tokenizer config");
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
        int64_t id;
        json_t *text = qins_gguf_get_integer(gguf, specials[i].key, &id) ? token_text(gguf, id) : NULL;
        if (text != NULL) json_object_set_new(config, specials[i].name, text);
    }
    put_flag(gguf, "tokenizer.ggml.add_bos_token", "add_bos_token", config);
    put_flag(gguf, "tokenizer.ggml.add_eos_token", "add_eos_token", config);
    qins_gguf_string template;
    if (qins_gguf_get_string(gguf, "tokenizer.chat_template", &template)) {
        json_t *text = json_stringn(template.data, template.n);
        if (text == NULL) {
            json_decref(config);
            return qins_fail(err, QINS_ERR_FORMAT, "%s: metadata tokenizer.chat_template is not UTF-8", gguf->path);
        }
        json_object_set_new(config, "chat_template", text);
    }
    *tokenizer_config = config;
    return QINS_OK;
}
