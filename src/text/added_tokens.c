/* Added tokens: strings that become one token whatever the model would make of them. SPDX-License-Identifier: MIT */
#include "text/added_tokens.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* A search costs up to this much for each byte of text. The longest added tokens in use have some 30 bytes. */
enum { MAX_CONTENT = 1024 };

/* ---- reading ---- */

static qins_status read_token(const qins_node *where, qins_added_token *token, qins_error *err) {
    qins_node id = qins_node_field(where, "id"), content = qins_node_field(where, "content");
    const struct {
        const char *key;
        bool *value;
    } flags[] = {{"special", &token->special},
                 {"single_word", &token->single_word},
                 {"lstrip", &token->lstrip},
                 {"rstrip", &token->rstrip},
                 {"normalized", &token->normalized}};
    uint32_t number = 0;
    const char *s;
    qins_status status = qins_node_object(where, err);
    if (status == QINS_OK) status = qins_node_index(&id, QINS_MAX_TOKEN_ID, &number, err);
    if (status == QINS_OK) status = qins_node_string(&content, &s, &token->length, err);
    for (size_t i = 0; i < sizeof flags / sizeof *flags && status == QINS_OK; i++) {
        qins_node field = qins_node_field(where, flags[i].key);
        status = qins_node_bool(&field, flags[i].value, err);
    }
    if (status != QINS_OK) return status;
    if (token->length > MAX_CONTENT)
        return qins_node_fail(&content, QINS_ERR_UNSUPPORTED, err, "%zu bytes are more than the %d of an added token",
                              token->length, MAX_CONTENT);
    token->id = (int32_t)number;
    token->content = qins_alloc(token->length + 1, 1);
    if (token->content == NULL) return qins_fail_memory(err, token->length, "an added token");
    memcpy(token->content, s, token->length);
    return QINS_OK;
}

static qins_status check_id(const qins_node *where, const qins_added_token *token, const qins_vocab *vocab,
                            qins_error *err) {
    int32_t known = qins_vocab_find(vocab, token->content, token->length);
    if (known == token->id) return QINS_OK;
    if (known >= 0)
        return qins_node_fail(where, QINS_ERR_FORMAT, err, "\"%.80s\" has id %ld here and %ld in the vocabulary",
                              token->content, (long)token->id, (long)known);
    size_t length;
    const char *other = qins_vocab_token(vocab, (uint32_t)token->id, &length);
    if (other == NULL) return QINS_OK;
    return qins_node_fail(where, QINS_ERR_FORMAT, err, "\"%.80s\" has id %ld, which is that of \"%.*s\"",
                          token->content, (long)token->id, length > 80 ? 80 : (int)length, other);
}

static qins_status normalize_content(const qins_normalizer *normalizer, qins_added_token *token, qins_error *err) {
    if (!token->normalized || normalizer->n_steps == 0) return QINS_OK;
    qins_buffer out = {0}, spare = {0};
    bool at_start = true;
    struct pcre2_real_match_data_8 *scratch = qins_match_scratch_new();
    qins_status status = scratch == NULL ? qins_fail_memory(err, 64, "an added token")
                                         : qins_normalize_text(normalizer, scratch, token->content, token->length, &out,
                                                               &spare, &at_start, err);
    if (status == QINS_OK && (out.size != token->length || memcmp(out.data, token->content, out.size) != 0)) {
        token->normalized_content = out.data;
        token->normalized_length = out.size;
        out = (qins_buffer){0};
    }
    qins_match_scratch_free(scratch);
    qins_buffer_free(&out);
    qins_buffer_free(&spare);
    return status;
}

/* Index of the token with the same content, or n. */
static size_t find_content(const qins_added_tokens *added, const qins_trie *contents, const qins_added_token *token) {
    uint32_t node = QINS_TRIE_ROOT;
    for (size_t i = 0; i < token->length && node != QINS_TRIE_NONE; i++)
        node = qins_trie_step(contents, node, token->content[i]);
    return node == QINS_TRIE_NONE || contents->values[node] < 0 ? added->n_tokens : (size_t)contents->values[node];
}

static void free_token(qins_added_token *token) {
    free(token->content);
    free(token->normalized_content);
    *token = (qins_added_token){0};
}

static qins_status set_by_id(qins_added_tokens *added, size_t index, const qins_node *where, qins_error *err) {
    uint32_t id = (uint32_t)added->tokens[index].id;
    if (id >= added->n_ids) {
        uint32_t *by_id = realloc(added->by_id, ((size_t)id + 1) * sizeof *by_id);
        if (by_id == NULL) return qins_fail_memory(err, ((size_t)id + 1) * sizeof *by_id, "added tokens");
        memset(by_id + added->n_ids, 0, (id + 1 - added->n_ids) * sizeof *by_id);
        added->by_id = by_id;
        added->n_ids = id + 1;
    }
    if (added->by_id[id] != 0 && added->by_id[id] != index + 1)
        return qins_node_fail(where, QINS_ERR_FORMAT, err, "\"%.80s\" and \"%.80s\" have the same id %lu",
                              added->tokens[added->by_id[id] - 1].content, added->tokens[index].content,
                              (unsigned long)id);
    added->by_id[id] = (uint32_t)index + 1;
    return QINS_OK;
}

/* The same content again replaces what was said before, except that a special token stays one. */
static qins_status add_token(const qins_node *where, const qins_vocab *vocab, const qins_normalizer *normalizer,
                             qins_added_tokens *added, qins_trie *contents, qins_error *err) {
    qins_added_token token = {0};
    qins_status status = read_token(where, &token, err);
    if (status == QINS_OK && token.length == 0) {
        free_token(&token); /* tokenizers passes over it */
        return QINS_OK;
    }
    if (status == QINS_OK) status = check_id(where, &token, vocab, err);
    if (status == QINS_OK) status = normalize_content(normalizer, &token, err);
    if (status != QINS_OK) {
        free_token(&token);
        return status;
    }
    size_t index = find_content(added, contents, &token);
    if (index < added->n_tokens) {
        qins_added_token *old = &added->tokens[index];
        token.skipped = old->skipped || token.special;
        bool same_id = old->id == token.id;
        free_token(old);
        *old = token;
        return same_id ? QINS_OK : qins_node_fail(where, QINS_ERR_FORMAT, err, "\"%.80s\" has two ids", old->content);
    }
    token.skipped = token.special;
    added->tokens[added->n_tokens++] = token;
    if (!qins_trie_add(contents, token.content, token.length, (int32_t)index))
        return qins_fail_memory(err, token.length, "added tokens");
    return set_by_id(added, index, where, err);
}

static qins_status index_tokens(qins_added_tokens *added, qins_error *err) {
    for (size_t i = 0; i < added->n_tokens; i++) {
        const qins_added_token *t = &added->tokens[i];
        bool other = t->normalized && t->normalized_content != NULL;
        const char *content = other ? t->normalized_content : t->content;
        size_t length = other ? t->normalized_length : t->length;
        if (length == 0) continue;
        (t->normalized ? added->normalized_first : added->raw_first)[(uint8_t)content[0]] = true;
        if (!qins_trie_add(t->normalized ? &added->normalized : &added->raw, content, length, (int32_t)i))
            return qins_fail_memory(err, length, "added tokens");
    }
    return QINS_OK;
}

/* tokenizers decides by the string that it decodes: a special token that normalization changes is not left out. */
static void unskip_normalized(qins_added_tokens *added) {
    for (size_t i = 0; i < added->n_tokens; i++)
        if (added->tokens[i].normalized_content != NULL) added->tokens[i].skipped = false;
}

qins_status qins_added_tokens_load(const qins_node *where, const qins_vocab *vocab, const qins_normalizer *normalizer,
                                   qins_added_tokens *added, qins_error *err) {
    *added = (qins_added_tokens){0};
    size_t n = 0;
    qins_status status = qins_node_is_null(where) ? QINS_OK : qins_node_array(where, &n, err);
    if (status != QINS_OK) return status;
    qins_trie contents = {0};
    added->tokens = qins_alloc(n, sizeof *added->tokens);
    if (added->tokens == NULL || !qins_trie_init(&contents) || !qins_trie_init(&added->raw) ||
        !qins_trie_init(&added->normalized))
        status = qins_fail_memory(err, n * sizeof *added->tokens, "added tokens");
    bool needs_word = false;
    for (size_t i = 0; i < n && status == QINS_OK; i++) {
        qins_node item = qins_node_item(where, i);
        status = add_token(&item, vocab, normalizer, added, &contents, err);
    }
    if (status == QINS_OK) status = index_tokens(added, err);
    for (size_t i = 0; i < added->n_tokens; i++)
        needs_word |= added->tokens[i].single_word;
    static const char word[] = "[\\w\\u200C\\u200D]"; /* Rust's regex counts the two joiners in */
    if (status == QINS_OK && needs_word) status = qins_pattern_regex(where, word, strlen(word), &added->word, err);
    unskip_normalized(added);
    qins_trie_free(&contents);
    if (status != QINS_OK) qins_added_tokens_free(added);
    return status;
}

void qins_added_tokens_free(qins_added_tokens *added) {
    for (size_t i = 0; i < added->n_tokens; i++)
        free_token(&added->tokens[i]);
    free(added->tokens);
    free(added->by_id);
    qins_trie_free(&added->raw);
    qins_trie_free(&added->normalized);
    qins_pattern_free(&added->word);
    *added = (qins_added_tokens){0};
}

const qins_added_token *qins_added_token_by_id(const qins_added_tokens *added, int32_t id) {
    if (id < 0 || (uint32_t)id >= added->n_ids || added->by_id[id] == 0) return NULL;
    return &added->tokens[added->by_id[id] - 1];
}

/* ---- searching ---- */

void qins_added_search_begin(qins_added_search *s, const qins_added_tokens *added,
                             struct pcre2_real_match_data_8 *scratch, const char *text, size_t n_bytes, bool normalized,
                             bool parse_special) {
    *s = (qins_added_search){.added = added,
                             .scratch = scratch,
                             .text = text,
                             .n_bytes = n_bytes,
                             .normalized = normalized,
                             .parse_special = parse_special};
}

/* The longest token at the first place where one begins. */
static const qins_added_token *find_token(qins_added_search *s, size_t *start, size_t *end) {
    const qins_trie *trie = s->normalized ? &s->added->normalized : &s->added->raw;
    const bool *first = s->normalized ? s->added->normalized_first : s->added->raw_first;
    if (trie->n_edges == 0) return NULL;
    for (size_t i = s->position; i < s->n_bytes; i++) {
        if (!first[(uint8_t)s->text[i]]) continue;
        const qins_added_token *token = NULL;
        uint32_t node = QINS_TRIE_ROOT;
        for (size_t k = i; k < s->n_bytes; k++) {
            node = qins_trie_step(trie, node, s->text[k]);
            if (node == QINS_TRIE_NONE) break;
            if (trie->values[node] < 0) continue;
            token = &s->added->tokens[trie->values[node]];
            *end = k + 1;
        }
        if (token != NULL) {
            *start = i;
            return token;
        }
    }
    return NULL;
}

static size_t char_before(const char *text, size_t end) {
    size_t start = end - 1;
    while (start > 0 && qins_utf8_is_continuation(text[start]))
        start--;
    return start;
}

static bool is_word(const qins_added_search *s, size_t at) {
    qins_matches m;
    size_t start, end;
    bool found;
    qins_matches_begin(&m, &s->added->word, s->scratch, s->text + at, qins_utf8_length(s->text[at]));
    return qins_matches_next(&m, &start, &end, &found, NULL) == QINS_OK && found;
}

static bool counts(const qins_added_search *s, const qins_added_token *token, size_t start, size_t end) {
    if (token->special && !s->parse_special) return false;
    if (!token->single_word) return true;
    return (start == 0 || !is_word(s, char_before(s->text, start))) && (end == s->n_bytes || !is_word(s, end));
}

bool qins_added_search_next(qins_added_search *s, qins_added_span *span) {
    if (s->has_pending) {
        *span = s->pending;
        s->has_pending = false;
        return true;
    }
    size_t start, end, from = s->done;
    const qins_added_token *token;
    while ((token = find_token(s, &start, &end)) != NULL) {
        s->position = end; /* a token that does not count still hides others in it */
        if (!counts(s, token, start, end)) continue;
        if (token->lstrip) {
            while (start > from) {
                size_t before = char_before(s->text, start);
                if (!qins_is_whitespace(qins_utf8_decode(s->text + before))) break;
                start = before;
            }
            start = qins_max_size(start, from);
        }
        while (token->rstrip && end < s->n_bytes && qins_is_whitespace(qins_utf8_decode(s->text + end)))
            end += qins_utf8_length(s->text[end]);
        s->done = end;
        *span = (qins_added_span){.token = token, .start = start, .end = end};
        if (from >= start) return true;
        s->pending = *span;
        s->has_pending = true;
        *span = (qins_added_span){.start = from, .end = start};
        return true;
    }
    if (from == s->n_bytes) return false;
    s->done = s->n_bytes;
    s->position = s->n_bytes;
    *span = (qins_added_span){.start = from, .end = s->n_bytes};
    return true;
}
