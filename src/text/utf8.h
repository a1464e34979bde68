/* UTF-8 and the few character classes that tokenizers ask for. SPDX-License-Identifier: MIT */
#ifndef QINS_UTF8_H
#define QINS_UTF8_H

#include "base/base.h"

typedef enum qins_utf8_state {
    QINS_UTF8_VALID,      /* one whole character */
    QINS_UTF8_INVALID,    /* a maximal part of an ill-formed sequence: it becomes one U+FFFD */
    QINS_UTF8_INCOMPLETE, /* well-formed as far as it goes, but the text ends inside the character */
} qins_utf8_state;

/* Looks at the sequence that starts at s[0], n > 0; *length is its length in bytes (Unicode, section 3.9, table 3-7 and
 * "maximal subpart" practice, which is what Python's errors="replace" does). */
qins_utf8_state qins_utf8_scan(const char *s, size_t n, size_t *length);
bool qins_utf8_is_valid(const char *s, size_t n);
/* Appends s with U+FFFD in place of each maximal ill-formed part. */
void qins_utf8_repair(const char *s, size_t n, qins_buffer *out);

/* The functions below take valid UTF-8. */

/* Length of a character from its first byte. */
static inline size_t qins_utf8_length(char first) {
    unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}
static inline bool qins_utf8_is_continuation(char c) {
    return ((unsigned char)c & 0xC0) == 0x80;
}
uint32_t qins_utf8_decode(const char *s);
/* Writes 1 to 4 bytes, returns how many. */
size_t qins_utf8_encode(uint32_t c, char out[4]);
void qins_utf8_append(qins_buffer *out, uint32_t c);

bool qins_is_whitespace(uint32_t c);  /* Unicode White_Space */
bool qins_is_numeric(uint32_t c);     /* categories Nd, Nl, No */
bool qins_is_punctuation(uint32_t c); /* categories P* of Unicode 8, and every ASCII punctuation or symbol */
uint32_t qins_lowercase(uint32_t c);  /* one character for one */
/* Normalization leaves it as it is: it is newer than the tables that tokenizers are trained with. */
bool qins_is_unnormalized(uint32_t c);
/* Whether text has characters that are too new for the regular expression library; if so, *out is the text with an
 * older character of the same category, script and length in place of each. */
bool qins_replace_newer_characters(const char *text, size_t n_bytes, qins_buffer *out);

#endif
