/* GGUF metadata from tokenizer.json and its companions. SPDX-License-Identifier: MIT */
#ifndef QINS_GGUF_WRITE_TOKENIZER_H
#define QINS_GGUF_WRITE_TOKENIZER_H

#include "format/gguf_write.h"

/* All borrowed; what may be NULL says so. */
typedef struct qins_tokenizer_source {
    const char *path; /* of the model, for messages */
    const json_t *tokenizer, *config;
    const json_t *tokenizer_config, *generation_config; /* or NULL */
    const char *chat_template;                          /* of chat_template.jinja, or NULL */
    size_t n_tokens;                                    /* rows of the embedding */
} qins_tokenizer_source;

/* Puts tokenizer.*; refuses by name what GGUF cannot express. */
qins_status qins_gguf_put_tokenizer(qins_gguf_writer *w, const qins_tokenizer_source *source, qins_error *err);
/* Compares what a reader makes of the written header with the source. */
qins_status qins_gguf_check_tokenizer(const qins_gguf *written, const qins_tokenizer_source *source, qins_error *err);
/* Puts what a checkpoint that is a GGUF file says about its tokenizer and itself (tokenizer.*, general.*), unchanged,
 * without what depends on the way it is stored. */
void qins_gguf_copy_metadata(qins_gguf_writer *w, const qins_checkpoint *checkpoint);

#endif
