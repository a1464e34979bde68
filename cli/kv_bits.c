/* SPDX-License-Identifier: MIT */
#include "kv_bits.h"

#include <stdio.h>
#include <string.h>

static bool parse_bits(const char *text, size_t length, int *bits) {
    static const struct {
        const char *text;
        int bits;
    } known[] = {{"32", 32}, {"16", 16}, {"8", 8}, {"6", 6}, {"5", 5}, {"4", 4}, {"3", 3}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].text) == length && strncmp(text, known[i].text, length) == 0) {
            *bits = known[i].bits;
            return true;
        }
    return false;
}

bool parse_kv_bits(const char *text, void *value) {
    kv_bits *kv = value;
    size_t length = strcspn(text, ":");
    const char *values = text[length] == ':' ? text + length + 1 : text;
    return parse_bits(text, length, &kv->keys) && parse_bits(values, strlen(values), &kv->values);
}
