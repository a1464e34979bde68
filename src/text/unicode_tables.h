/* Where the tokenizers package and our libraries know different Unicode versions. SPDX-License-Identifier: MIT */
#ifndef QINS_UNICODE_TABLES_H
#define QINS_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

typedef struct qins_code_range {
    uint32_t first, last;
} qins_code_range;

typedef struct qins_newer_range {
    uint32_t first, last, instead; /* of the same category and script, and as long in UTF-8 */
} qins_newer_range;

/* All in ascending order. */
extern const qins_newer_range qins_newer_characters[];
extern const size_t qins_newer_characters_size;
extern const qins_newer_range qins_newer_lowercase[]; /* instead: of `first`; the others follow in step */
extern const size_t qins_newer_lowercase_size;
extern const qins_code_range qins_unnormalized[];
extern const size_t qins_unnormalized_size;
extern const qins_code_range qins_punctuation[];
extern const size_t qins_punctuation_size;

#endif
