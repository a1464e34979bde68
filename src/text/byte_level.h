/* GPT-2's byte alphabet: a printable character for each byte, so that tokens of bytes can be written as text.
 * SPDX-License-Identifier: MIT */
#ifndef QINS_BYTE_LEVEL_H
#define QINS_BYTE_LEVEL_H

#include "base/base.h"

/* The character of a byte: itself where printable in Latin-1, otherwise 256, 257, ... in order. */
uint32_t qins_byte_to_char(uint8_t byte);
/* The byte of a character, -1 when it is none. */
int qins_char_to_byte(uint32_t c);
/* Appends the characters of n bytes. */
void qins_bytes_to_chars(const char *bytes, size_t n, qins_buffer *out);
/* Appends the bytes that a token's characters stand for, or the token as it is when one of them stands for none. */
void qins_chars_to_bytes(const char *token, size_t n, qins_buffer *out);

#endif
