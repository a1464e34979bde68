/* Session files: a sequence of a small cache. SPDX-License-Identifier: MIT
 *
 * The seed is made here; its name says how rows are stored, "kv@4_3" for keys of 4 and values of 3 bits. Every input is
 * tried as it is and with a checksum that fits, so that what lies behind the checksum is reached too.
 */
#include "fuzz.h"

#include "model/kv_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { N_LAYERS = 2, N_HEADS = 2, HEAD_DIM = 24, N_CTX = 100, LENGTH = 70, VOCAB = 50, MODEL = 77 };

static int key_bits = 16, value_bits = 16;

static bool make_cache(qins_kv_cache *c) {
    return qins_kv_cache_init(c, N_LAYERS, N_HEADS, HEAD_DIM, N_CTX, 1, key_bits, value_bits, NULL) == QINS_OK;
}

static void fill(qins_kv_cache *c) {
    float row[32] = {0}, scratch[QINS_KV_PAGE * 32];
    int32_t ids[LENGTH];
    for (int i = 0; i < LENGTH; i++)
        ids[i] = i % VOCAB;
    if (qins_kv_reserve(c, 0, LENGTH, NULL) != QINS_OK) return;
    qins_kv_append(c, 0, ids, LENGTH);
    for (size_t i = 0; i < N_LAYERS * N_HEADS * LENGTH; i++) {
        uint8_t *head = qins_kv_head(c, 0, i / LENGTH / N_HEADS, i / LENGTH % N_HEADS);
        for (size_t d = 0; d < HEAD_DIM; d++)
            row[d] = (float)((i * 31 + d * 17) % 64) / 32 - 1;
        qins_kv_store_key(&c->format, head, i % LENGTH, row, scratch);
        qins_kv_store_value(&c->format, head, i % LENGTH, row);
    }
}

uint8_t *fuzz_make_seed(const char *argument, size_t *size) {
    const char *at = strrchr(argument, '@');
    char path[64];
    uint8_t *data = NULL;
    qins_kv_cache c;
    if (at == NULL || sscanf(at + 1, "%d_%d", &key_bits, &value_bits) != 2 || !make_cache(&c)) return NULL;
    fill(&c);
    snprintf(path, sizeof path, "/tmp/qins-fuzz-kv-%ld", (long)getpid());
    qins_map map;
    if (qins_kv_save(&c, 0, MODEL, path, NULL) == QINS_OK && qins_map_open(path, &map, NULL) == QINS_OK) {
        *size = map.size;
        data = malloc(map.size);
        if (data != NULL) memcpy(data, map.data, map.size);
        qins_map_close(&map);
    }
    unlink(path);
    qins_kv_cache_free(&c);
    return data;
}

static qins_status parse(const uint8_t *data, size_t size) {
    qins_kv_cache c;
    qins_error err = {0};
    if (!make_cache(&c)) return QINS_ERR_MEMORY;
    qins_status status = qins_kv_parse(&c, 0, MODEL, VOCAB, data, size, "input", &err);
    float key[32], value[32];
    for (size_t i = 0; status == QINS_OK && i < c.seqs[0].length; i++) {
        if (c.seqs[0].tokens[i] < 0 || c.seqs[0].tokens[i] >= VOCAB) abort();
        qins_kv_read(&c.format, qins_kv_head(&c, 0, N_LAYERS - 1, N_HEADS - 1), i, key, value);
    }
    if (status != QINS_OK && c.seqs[0].length != 0) abort();
    qins_kv_cache_free(&c);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qins_status status = parse(data, size);
    uint8_t *sealed = size >= 8 ? malloc(size) : NULL;
    if (sealed != NULL) {
        memcpy(sealed, data, size);
        uint64_t sum = XXH3_64bits(sealed, size - sizeof sum);
        memcpy(sealed + size - sizeof sum, &sum, sizeof sum);
        if (parse(sealed, size) == QINS_ERR_CHECKSUM) abort();
        free(sealed);
    }
    return status == QINS_OK ? 0 : -1;
}
