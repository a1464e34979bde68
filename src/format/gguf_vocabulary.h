/* What the makers of tokenizer.json from GGUF metadata share. SPDX-License-Identifier: MIT */
#ifndef QINS_GGUF_VOCABULARY_H
#define QINS_GGUF_VOCABULARY_H

#include "format/gguf.h"

/* tokenizer.ggml.token_type */
enum {
    QINS_TOKEN_NORMAL = 1,
    QINS_TOKEN_UNKNOWN = 2,
    QINS_TOKEN_CONTROL = 3,
    QINS_TOKEN_USER = 4,
    QINS_TOKEN_UNUSED = 5,
    QINS_TOKEN_BYTE = 6
};

/* A way to cut text before byte-level BPE (gguf_pretokenizers.c). */
typedef struct qins_pre_tokenizer {
    const char *name;   /* tokenizer.ggml.pre */
    const char *pieces; /* "pre_tokenizer" of tokenizer.json */
    bool nfc;           /* text is normalised first */
    bool ignore_merges; /* a piece that is in the vocabulary is taken whole */
    bool add_bos;       /* when the file does not say */
    bool only_read;     /* other programs do not know this name or mean something else by it */
} qins_pre_tokenizer;

/* Row i of the table, NULL past its end. */
const qins_pre_tokenizer *qins_pre_tokenizer_at(size_t i);
extern const char qins_byte_level_decoder[]; /* JSON */

typedef struct qins_vocabulary {
    const qins_gguf *gguf;
    const qins_gguf_value *tokens, *types, *merges, *scores; /* types, merges and scores may be NULL */
    qins_error *err;
} qins_vocabulary;

int64_t qins_vocabulary_type(const qins_vocabulary *v, uint64_t i);
/* Fills the object `vocab` (token -> id) and the array `added` (entries of "added_tokens"). */
qins_status qins_vocabulary_json(const qins_vocabulary *v, json_t *vocab, json_t *added);
/* Fills the array `merges` with the pairs of tokenizer.ggml.merges, which must be there. */
qins_status qins_vocabulary_merges(const qins_vocabulary *v, json_t *merges);
/* The two pieces of an entry of "merges" in tokenizer.json, either form of it. False when it has none. */
bool qins_merge_pieces(const json_t *merge, const char *pieces[2], size_t n[2]);
/* A TemplateProcessing that puts BOS in front or EOS behind; JSON null when neither is asked for. add_bos_default is
 * for files that do not say. */
qins_status qins_gguf_post_processor(const qins_gguf *g, bool add_bos_default, json_t **json, qins_error *err);
/* tokenizer.json of a SentencePiece BPE vocabulary (tokenizer.ggml.model = llama). Fills the three empty containers and
 * makes *json of them. */
qins_status qins_gguf_sentencepiece(const qins_vocabulary *v, json_t *vocab, json_t *merges, json_t *added,
                                    json_t **json);

#endif
