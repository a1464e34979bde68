/* Decoders of tokenizer.json: token strings back to text. SPDX-License-Identifier: MIT */
#ifndef QINS_DECODER_H
#define QINS_DECODER_H

#include "text/pattern.h"

typedef enum qins_decoder_kind {
    QINS_DECODE_BYTE_LEVEL,    /* byte-level characters to bytes, all tokens to one */
    QINS_DECODE_BYTE_FALLBACK, /* "<0xE2>" to a byte, a run of them to one token */
    QINS_DECODE_FUSE,          /* all tokens to one */
    QINS_DECODE_STRIP,         /* up to `start` and `stop` of a character from the ends of each token */
    QINS_DECODE_REPLACE,
    QINS_DECODE_METASPACE, /* a mark to a space, and to nothing in the first token */
} qins_decoder_kind;

typedef struct qins_decoder_step {
    qins_decoder_kind kind;
    qins_pattern pattern; /* of replace */
    char *content;
    size_t content_length;
    uint32_t c; /* what strip takes off, or the mark */
    uint32_t start, stop;
    bool drops_first; /* metaspace: marks of the first token vanish */
} qins_decoder_step;

typedef struct qins_decoder {
    qins_decoder_step *steps;
    size_t n_steps, capacity;
    bool exists; /* without a decoder tokens are joined by spaces */
} qins_decoder;

/* `where` may be null: no decoder. */
qins_status qins_decoder_load(const qins_node *where, qins_decoder *decoder, qins_error *err);
void qins_decoder_free(qins_decoder *decoder);

/* Strings one behind the other: item i is text[end[i-1]..end[i]). */
typedef struct qins_strings {
    qins_buffer text;
    size_t *end;
    size_t size, capacity;
    bool failed;
} qins_strings;

/* Ends an item: all that was added to `text` since the last one. */
void qins_strings_end(qins_strings *s);
void qins_strings_free(qins_strings *s);

/* Decodes tokens to one text (tokens->text); `tokens` and `spare` are both overwritten. */
qins_status qins_decode(const qins_decoder *decoder, qins_strings *tokens, qins_strings *spare, qins_error *err);

/* The byte of a token "<0x00>" ... "<0xFF>", -1 for any other. */
int qins_byte_token(const char *token, size_t n);

#endif
