/* --kv-bits: how the KV cache stores keys and values; the same for every command. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_KV_BITS_H
#define QINS_CLI_KV_BITS_H

#include "options.h"

typedef struct kv_bits {
    int keys, values; /* 0: the default, 16 */
} kv_bits;

/* "B" or "K:V" of 32, 16, 8, 6, 5, 4, 3. value is a kv_bits. */
bool parse_kv_bits(const char *text, void *value);

#define KV_BITS_OPTION(kv, whose)                                                                                      \
    {                                                                                                                  \
        .name = "kv-bits", .kind = OPTION_PARSED, .value = &(kv), .value_name = "B|K:V", .parse = parse_kv_bits,       \
        .expects = "32, 16, 8, 6, 5, 4 or 3, or two of them for keys and values, as in 16:4",                          \
        .help = "bits of a value in the KV cache" whose ", or of keys and of values: 32, 16, 8, 6, 5, 4 or 3 "         \
                "(default 16)"                                                                                         \
    }

#endif
