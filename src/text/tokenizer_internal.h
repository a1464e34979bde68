/* What a tokenizer is made of. SPDX-License-Identifier: MIT */
#ifndef QINS_TOKENIZER_INTERNAL_H
#define QINS_TOKENIZER_INTERNAL_H

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/template.h"
#include "text/tokenizer.h"
#include "text/unigram.h"

typedef enum qins_tokenizer_model { QINS_MODEL_BPE, QINS_MODEL_UNIGRAM } qins_tokenizer_model;

struct qins_tokenizer {
    qins_vocab vocab;
    qins_tokenizer_model model;
    qins_bpe bpe; /* the one of `model` is in use */
    qins_unigram unigram;
    qins_normalizer normalizer;
    qins_pretokenizer pretokenizer;
    qins_added_tokens added;
    qins_template template;
    qins_decoder decoder;
};

/* The string that an id is decoded from, NULL when there is none. */
const char *qins_tokenizer_token(const qins_tokenizer *t, int32_t id, size_t *n);

#endif
