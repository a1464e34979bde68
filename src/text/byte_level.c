/* GPT-2's byte alphabet. SPDX-License-Identifier: MIT */
#include "text/byte_level.h"

#include "text/utf8.h"

/* Bytes that are not printable in Latin-1: 0..32, 127..160 and 173 (the soft hyphen). They are numbered in that order
 * from 256 on. */
enum { N_LOW = 33, N_MIDDLE = 34, FIRST_MIDDLE = 127, SOFT_HYPHEN = 173, FIRST_CODE = 256 };

uint32_t qins_byte_to_char(uint8_t byte) {
    if (byte < N_LOW) return FIRST_CODE + (uint32_t)byte;
    if (byte >= FIRST_MIDDLE && byte < FIRST_MIDDLE + N_MIDDLE) return FIRST_CODE + N_LOW + byte - FIRST_MIDDLE;
    if (byte == SOFT_HYPHEN) return FIRST_CODE + N_LOW + N_MIDDLE;
    return byte;
}

int qins_char_to_byte(uint32_t c) {
    if (c < FIRST_CODE) return qins_byte_to_char((uint8_t)c) == c ? (int)c : -1;
    c -= FIRST_CODE;
    if (c < N_LOW) return (int)c;
    if (c < N_LOW + N_MIDDLE) return (int)(c - N_LOW + FIRST_MIDDLE);
    return c == N_LOW + N_MIDDLE ? SOFT_HYPHEN : -1;
}

void qins_bytes_to_chars(const char *bytes, size_t n, qins_buffer *out) {
    char chunk[512];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (used + 4 > sizeof chunk) {
            qins_buffer_add(out, chunk, used);
            used = 0;
        }
        used += qins_utf8_encode(qins_byte_to_char((uint8_t)bytes[i]), chunk + used);
    }
    qins_buffer_add(out, chunk, used);
}

void qins_chars_to_bytes(const char *token, size_t n, qins_buffer *out) {
    size_t old_size = out->size;
    for (size_t i = 0; i < n; i += qins_utf8_length(token[i])) {
        int byte = qins_char_to_byte(qins_utf8_decode(token + i));
        if (byte < 0) {
            if (!out->failed) out->size = old_size;
            qins_buffer_add(out, token, n);
            return;
        }
        char c = (char)byte;
        qins_buffer_add(out, &c, 1);
    }
}
