/* Added tokens: strings that become one token whatever the model would make of them. SPDX-License-Identifier: MIT */
#ifndef QINS_ADDED_TOKENS_H
#define QINS_ADDED_TOKENS_H

#include "text/normalizer.h"
#include "text/trie.h"
#include "text/vocab.h"

typedef struct qins_added_token {
    int32_t id;
    char *content, *normalized_content; /* the latter NULL when it is the same */
    size_t length, normalized_length;
    bool special, single_word, lstrip, rstrip, normalized;
    bool skipped; /* left out by a decoding that skips special tokens */
} qins_added_token;

typedef struct qins_added_tokens {
    qins_added_token *tokens;
    size_t n_tokens;
    uint32_t n_ids;            /* largest id + 1 */
    uint32_t *by_id;           /* [n_ids]: index + 1, 0 for none */
    qins_trie raw, normalized; /* values are indices of tokens */
    bool raw_first[256];       /* bytes that a token of `raw` begins with */
    bool normalized_first[256];
    qins_pattern word; /* \w, when a token needs it */
} qins_added_tokens;

/* `where` is the array of tokenizer.json, or null. Ids of tokens that are in the vocabulary must be the same there.
 * Others keep the file's id; tokenizers numbers them on from the vocabulary's end, which is the same in the files it
 * writes. */
qins_status qins_added_tokens_load(const qins_node *where, const qins_vocab *vocab, const qins_normalizer *normalizer,
                                   qins_added_tokens *added, qins_error *err);
void qins_added_tokens_free(qins_added_tokens *added);

const qins_added_token *qins_added_token_by_id(const qins_added_tokens *added, int32_t id);

/* A part of a text: an added token, or text between two. */
typedef struct qins_added_span {
    const qins_added_token *token; /* NULL: text */
    size_t start, end;
} qins_added_span;

typedef struct qins_added_search {
    const qins_added_tokens *added;
    struct pcre2_real_match_data_8 *scratch;
    const char *text;
    size_t n_bytes, position, done;
    bool normalized, parse_special;
    qins_added_span pending; /* a token that was found behind the text returned last */
    bool has_pending;
} qins_added_search;

/* normalized: the text is, and the tokens that are looked for in normalized text are meant. */
void qins_added_search_begin(qins_added_search *s, const qins_added_tokens *added,
                             struct pcre2_real_match_data_8 *scratch, const char *text, size_t n_bytes, bool normalized,
                             bool parse_special);
/* The next part, false at the end. */
bool qins_added_search_next(qins_added_search *s, qins_added_span *span);

#endif
