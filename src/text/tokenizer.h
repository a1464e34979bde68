/* Token ids from text and back, from a Hugging Face tokenizer.json. SPDX-License-Identifier: MIT */
#ifndef QINS_TOKENIZER_H
#define QINS_TOKENIZER_H

#include "base/base.h"

#include <jansson.h>

typedef struct qins_tokenizer qins_tokenizer;

/* Builds a tokenizer from the parsed tokenizer.json (borrowed; not needed afterwards). What it does not implement is
 * refused by name (QINS_ERR_UNSUPPORTED): never tokenized wrongly. `name` is the file, for messages. */
qins_status qins_tokenizer_new(const json_t *tokenizer_json, const char *name, qins_tokenizer **tokenizer,
                               qins_error *err);
void qins_tokenizer_free(qins_tokenizer *tokenizer);

/* See qins_tokenize in qins.h. Thread-safe: the tokenizer is not modified. */
qins_status qins_tokenizer_encode(const qins_tokenizer *tokenizer, const char *text, size_t n_bytes, bool add_special,
                                  bool parse_special, int32_t **ids, size_t *n_ids, qins_error *err);
/* See qins_detokenize. Same bytes as tokenizers' decode for valid UTF-8 results. */
qins_status qins_tokenizer_decode(const qins_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special,
                                  char **text, size_t *n_bytes, qins_error *err);

size_t qins_tokenizer_size(const qins_tokenizer *tokenizer); /* largest id + 1 */
/* Id of an exact token string (added token or vocabulary entry), -1 when there is none. */
int32_t qins_tokenizer_id(const qins_tokenizer *tokenizer, const char *token);
bool qins_tokenizer_is_special(const qins_tokenizer *tokenizer, int32_t id);

/* qins_detok_new of qins.h; the tokenizer must outlive it. */
qins_status qins_detok_of(const qins_tokenizer *tokenizer, bool skip_special, qins_detok **detok, qins_error *err);

#endif
