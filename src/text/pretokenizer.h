/* Pre-tokenizers of tokenizer.json: text into the pieces that the model sees one by one. SPDX-License-Identifier: MIT
 */
#ifndef QINS_PRETOKENIZER_H
#define QINS_PRETOKENIZER_H

#include "text/pattern.h"

typedef enum qins_split_behavior {
    QINS_SPLIT_ISOLATED,
    QINS_SPLIT_REMOVED,
    QINS_SPLIT_MERGED_WITH_PREVIOUS,
    QINS_SPLIT_MERGED_WITH_NEXT,
    QINS_SPLIT_CONTIGUOUS,
} qins_split_behavior;

/* Every pre-tokenizer is made of these four. */
typedef enum qins_pretokenizer_kind {
    QINS_PRETOKENIZE_SPLIT,   /* by pattern, invert and behavior */
    QINS_PRETOKENIZE_SPACES,  /* U+0020 becomes `mark` */
    QINS_PRETOKENIZE_PREFIX,  /* `mark` in front of a piece that does not begin with it */
    QINS_PRETOKENIZE_TO_CHARS /* bytes become byte-level characters */
} qins_pretokenizer_kind;

typedef struct qins_pretokenizer_step {
    qins_pretokenizer_kind kind;
    qins_pattern pattern;
    qins_split_behavior behavior;
    bool invert;
    char mark[4];
    size_t mark_length;
    bool only_first; /* prefix only the piece at the start of the input */
} qins_pretokenizer_step;

typedef struct qins_pretokenizer {
    qins_pretokenizer_step *steps;
    size_t n_steps, capacity;
    bool gives_bytes; /* the last step would be TO_CHARS; it is left out, and the pieces are raw bytes */
} qins_pretokenizer;

/* `where` may be null: no steps. */
qins_status qins_pretokenizer_load(const qins_node *where, qins_pretokenizer *pretokenizer, qins_error *err);
void qins_pretokenizer_free(qins_pretokenizer *pretokenizer);

/* Metaspace's prepend_scheme, also read by its decoder: 0 always, 1 first, 2 never. */
qins_status qins_prepend_scheme(const qins_node *metaspace, size_t *scheme, qins_error *err);

typedef struct qins_piece {
    size_t start, end;
    bool at_start; /* of the input */
} qins_piece;

/* Pieces of a text, and the memory to make them in. */
typedef struct qins_pieces {
    qins_piece *data, *spare;
    size_t size, capacity, spare_capacity;
    bool failed;
    const char *text;    /* what start and end count in: the input, or `rewritten` */
    const char *matched; /* the same for regular expressions, without newer characters than they know */
    qins_buffer rewritten, spare_text, older;
} qins_pieces;

void qins_pieces_free(qins_pieces *pieces);

/* Splits text, which must outlive the pieces. None of them is empty. */
qins_status qins_pretokenize(const qins_pretokenizer *pretokenizer, struct pcre2_real_match_data_8 *scratch,
                             const char *text, size_t n_bytes, bool at_start, qins_pieces *pieces, qins_error *err);

#endif
