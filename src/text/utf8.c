/* UTF-8 and the few character classes that tokenizers ask for. SPDX-License-Identifier: MIT */
#include "text/utf8.h"

#include "text/unicode_tables.h"

#include <string.h>
#include <utf8proc.h>

qins_utf8_state qins_utf8_scan(const char *text, size_t n, size_t *length) {
    const unsigned char *s = (const unsigned char *)text;
    *length = 1;
    if (s[0] < 0x80) return QINS_UTF8_VALID;
    size_t want;
    unsigned char low = 0x80, high = 0xBF; /* range of the second byte: no overlong forms, surrogates or > U+10FFFF */
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        want = 2;
    } else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        want = 3;
        if (s[0] == 0xE0) low = 0xA0;
        if (s[0] == 0xED) high = 0x9F;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        want = 4;
        if (s[0] == 0xF0) low = 0x90;
        if (s[0] == 0xF4) high = 0x8F;
    } else {
        return QINS_UTF8_INVALID;
    }
    for (size_t i = 1; i < want; i++, low = 0x80, high = 0xBF) {
        if (i == n) return QINS_UTF8_INCOMPLETE;
        if (s[i] < low || s[i] > high) return QINS_UTF8_INVALID;
        *length = i + 1;
    }
    return QINS_UTF8_VALID;
}

/* Length of the ASCII text at the start of s. */
static size_t ascii_run(const char *s, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, s + i, sizeof word);
        if ((word & UINT64_C(0x8080808080808080)) != 0) break;
    }
    while (i < n && (unsigned char)s[i] < 0x80)
        i++;
    return i;
}

/* Length of the valid text at the start of s. */
static size_t valid_run(const char *s, size_t n) {
    size_t i = 0, length;
    for (;;) {
        i += ascii_run(s + i, n - i);
        if (i == n || qins_utf8_scan(s + i, n - i, &length) != QINS_UTF8_VALID) return i;
        i += length;
    }
}

bool qins_utf8_is_valid(const char *s, size_t n) {
    return valid_run(s, n) == n;
}

void qins_utf8_repair(const char *s, size_t n, qins_buffer *out) {
    for (size_t i = 0; i < n;) {
        size_t run = valid_run(s + i, n - i), length;
        qins_buffer_add(out, s + i, run);
        i += run;
        if (i == n) return;
        qins_utf8_scan(s + i, n - i, &length);
        qins_buffer_add(out, "\xEF\xBF\xBD", 3);
        i += length;
    }
}

uint32_t qins_utf8_decode(const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) return s[0];
    if (s[0] < 0xE0) return (uint32_t)(s[0] & 0x1F) << 6 | (s[1] & 0x3F);
    if (s[0] < 0xF0) return (uint32_t)(s[0] & 0x0F) << 12 | (uint32_t)(s[1] & 0x3F) << 6 | (s[2] & 0x3F);
    return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3F) << 12 | (uint32_t)(s[2] & 0x3F) << 6 | (s[3] & 0x3F);
}

size_t qins_utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

void qins_utf8_append(qins_buffer *out, uint32_t c) {
    char bytes[4];
    qins_buffer_add(out, bytes, qins_utf8_encode(c, bytes));
}

bool qins_is_whitespace(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool is_in(uint32_t c, const qins_code_range *ranges, size_t n) {
    size_t low = 0;
    while (n > 0) { /* the first range that does not end before c is in [low, low + n) or right behind */
        size_t half = n / 2;
        if (ranges[low + half].last < c) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return ranges[low].first <= c && c <= ranges[low].last;
}

static uint32_t older_character(uint32_t c) {
    const qins_newer_range *ranges = qins_newer_characters;
    size_t low = 0, high = qins_newer_characters_size - 1;
    if (c < ranges[0].first || c > ranges[high].last) return c;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return ranges[low].first <= c ? ranges[low].instead : c;
}

bool qins_replace_newer_characters(const char *text, size_t n_bytes, qins_buffer *out) {
    bool found = false;
    for (size_t i = 0; i < n_bytes;) {
        i += ascii_run(text + i, n_bytes - i);
        if (i == n_bytes) break;
        size_t length = qins_utf8_length(text[i]);
        uint32_t c = length > 2 ? qins_utf8_decode(text + i) : 0, older = older_character(c);
        if (older != c) {
            if (!found) {
                out->size = 0;
                qins_buffer_add(out, text, n_bytes);
                found = true;
            }
            if (!out->failed) qins_utf8_encode(older, out->data + i);
        }
        i += length;
    }
    return found;
}

bool qins_is_numeric(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    if ((c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6)) return true; /* Unicode 17: Rust has them */
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)older_character(c));
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

bool qins_is_punctuation(uint32_t c) {
    if (c < 0x80) return c > ' ' && c < 0x7F && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && !(c >= '0' && c <= '9');
    return c <= qins_punctuation[qins_punctuation_size - 1].last && is_in(c, qins_punctuation, qins_punctuation_size);
}

bool qins_is_unnormalized(uint32_t c) {
    if (c < qins_unnormalized[0].first) return false;
    return older_character(c) != c || (c <= qins_unnormalized[qins_unnormalized_size - 1].last &&
                                       is_in(c, qins_unnormalized, qins_unnormalized_size));
}

uint32_t qins_lowercase(uint32_t c) {
    for (size_t i = 0; i < qins_newer_lowercase_size && c >= qins_newer_lowercase[0].first; i++) {
        const qins_newer_range *range = &qins_newer_lowercase[i];
        if (c >= range->first && c <= range->last) return range->instead + (c - range->first);
    }
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}
