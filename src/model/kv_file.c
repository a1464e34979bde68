/* A sequence of the KV cache as a file: a prompt that was evaluated once. SPDX-License-Identifier: MIT
 *
 * Little-endian: a header of 64 bytes, the token ids (i32), the rows as they lie in the cache (qins_kv_each_stretch),
 * and the XXH3-64 of everything before. docs/kv-cache.md has the layout.
 */
#include "model/kv_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const char MAGIC[8] = {'Q', 'I', 'N', 'S', 'K', 'V', '0', '2'};

typedef struct kv_header {
    char magic[8];
    uint64_t model; /* fingerprint */
    uint32_t key_bits, value_bits;
    uint64_t n_layers, n_heads, head_dim, length;
    uint64_t reserved; /* 0 */
} kv_header;

_Static_assert(sizeof(kv_header) == 64, "no padding");

static kv_header header_of(const qins_kv_cache *c, size_t length, uint64_t model) {
    kv_header h = {.model = model,
                   .key_bits = (uint32_t)qins_kv_bits(c->format.key_type),
                   .value_bits = (uint32_t)qins_kv_bits(c->format.value_type),
                   .n_layers = c->n_layers,
                   .n_heads = c->n_heads,
                   .head_dim = c->format.head_dim,
                   .length = length};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    return h;
}

/* ---- saving ---- */

typedef struct kv_writer {
    qins_writer *w;
    XXH3_state_t *hash;
} kv_writer;

static void put(void *user, uint8_t *data, size_t n) {
    kv_writer *k = user;
    qins_writer_put(k->w, data, n);
    XXH3_64bits_update(k->hash, data, n);
}

static void put_sequence(const qins_kv_cache *c, size_t seq, uint64_t model, kv_writer *k) {
    const qins_kv_sequence *s = &c->seqs[seq];
    kv_header header = header_of(c, s->length, model);
    put(k, (uint8_t *)&header, sizeof header);
    if (s->length > 0) put(k, (uint8_t *)s->tokens, s->length * sizeof *s->tokens);
    if (s->length > 0) qins_kv_each_stretch(c, seq, put, k);
    uint64_t sum = XXH3_64bits_digest(k->hash);
    qins_writer_put(k->w, &sum, sizeof sum);
}

qins_status qins_kv_save(const qins_kv_cache *c, size_t seq, uint64_t model, const char *path, qins_error *err) {
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL   ? qins_strdup(".")
                : slash == path ? qins_strdup("/")
                                : strndup(path, (size_t)(slash - path));
    char *name = qins_format(".%s.qins-tmp-%ld", slash != NULL ? slash + 1 : path, (long)getpid());
    char *temporary = dir != NULL && name != NULL ? qins_format("%s/%s", dir, name) : NULL;
    kv_writer k = {.hash = XXH3_createState()};
    qins_writer w;
    qins_status status = QINS_OK;
    if (temporary == NULL || k.hash == NULL || XXH3_64bits_reset(k.hash) != XXH_OK)
        status = qins_fail_memory(err, strlen(path), "a session file");
    else
        status = qins_writer_open(&w, dir, name, err);
    if (status == QINS_OK) {
        k.w = &w;
        put_sequence(c, seq, model, &k);
        status = qins_writer_close(&w, err);
        if (status == QINS_OK && rename(temporary, path) != 0)
            status =
                qins_fail(err, QINS_ERR_IO, "%s: cannot put the finished file in place: %s", path, strerror(errno));
        if (status != QINS_OK) unlink(temporary);
    }
    XXH3_freeState(k.hash);
    free(dir);
    free(name);
    free(temporary);
    return status;
}

/* ---- loading ---- */

static qins_status check_header(const qins_kv_cache *c, const kv_header *h, uint64_t model, const char *name,
                                qins_error *err) {
    kv_header expected = header_of(c, (size_t)h->length, model);
    if (memcmp(h->magic, MAGIC, sizeof MAGIC) != 0)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: expected a session file that this version of qins wrote", name);
    if (h->n_layers != expected.n_layers || h->n_heads != expected.n_heads || h->head_dim != expected.head_dim ||
        h->model != expected.model)
        return qins_fail(err, QINS_ERR_FORMAT,
                         "%s: expected a session of this model and context length, found one of another; evaluate the "
                         "prompt again",
                         name);
    if (h->key_bits != expected.key_bits || h->value_bits != expected.value_bits)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: expected a cache of %u:%u bits, found %u:%u; ask for those", name,
                         expected.key_bits, expected.value_bits, h->key_bits, h->value_bits);
    if (h->length > c->n_ctx)
        return qins_fail(err, QINS_ERR_ARGUMENT, "%s: %llu positions do not fit a context of %zu", name,
                         (unsigned long long)h->length, c->n_ctx);
    if (h->reserved != 0) return qins_fail(err, QINS_ERR_FORMAT, "%s: a reserved field is not 0", name);
    return QINS_OK;
}

static void count_bytes(void *user, uint8_t *data, size_t n) {
    (void)data;
    *(size_t *)user += n;
}

static void take_bytes(void *user, uint8_t *data, size_t n) {
    const uint8_t **from = user;
    memcpy(data, *from, n);
    *from += n;
}

static qins_status check_tokens(const uint8_t *tokens, size_t n, size_t vocab_size, const char *name, qins_error *err) {
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        memcpy(&id, tokens + i * sizeof id, sizeof id);
        if (id < 0 || (size_t)id >= vocab_size)
            return qins_fail(err, QINS_ERR_FORMAT, "%s: token %zu: id %d is outside the vocabulary of %zu", name, i,
                             (int)id, vocab_size);
    }
    return QINS_OK;
}

/* The whole file is checked before the sequence changes. */
qins_status qins_kv_parse(qins_kv_cache *c, size_t seq, uint64_t model, size_t vocab_size, const uint8_t *data,
                          size_t size, const char *name, qins_error *err) {
    kv_header h;
    uint64_t sum;
    if (size < sizeof h + sizeof sum)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: %zu bytes are too few for a session file", name, size);
    memcpy(&h, data, sizeof h);
    qins_status status = check_header(c, &h, model, name, err);
    if (status != QINS_OK) return status;
    size_t length = (size_t)h.length, n_bytes = sizeof h + length * sizeof(int32_t) + sizeof sum;
    qins_kv_each_stretch_of(c, NULL, length, count_bytes, &n_bytes);
    if (size != n_bytes)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: expected %zu bytes for %zu positions, found %zu", name, n_bytes,
                         length, size);
    memcpy(&sum, data + size - sizeof sum, sizeof sum);
    if (XXH3_64bits(data, size - sizeof sum) != sum)
        return qins_fail(err, QINS_ERR_CHECKSUM, "%s: the checksum does not match: the file was damaged", name);
    const uint8_t *tokens = data + sizeof h, *rows = tokens + length * sizeof(int32_t);
    status = check_tokens(tokens, length, vocab_size, name, err);
    if (status != QINS_OK) return status;
    size_t before = c->seqs[seq].length;
    qins_kv_truncate(c, seq, 0);
    status = qins_kv_reserve(c, seq, length, err);
    if (status != QINS_OK) {
        c->seqs[seq].length = before;
        return status;
    }
    if (length == 0) return QINS_OK;
    memcpy(c->seqs[seq].tokens, tokens, length * sizeof(int32_t));
    c->seqs[seq].length = length;
    qins_kv_each_stretch(c, seq, take_bytes, &rows);
    return QINS_OK;
}

qins_status qins_kv_load(qins_kv_cache *c, size_t seq, uint64_t model, size_t vocab_size, const char *path,
                         qins_error *err) {
    qins_map map;
    qins_status status = qins_map_open(path, &map, err);
    if (status != QINS_OK) return status;
    status = qins_kv_parse(c, seq, model, vocab_size, map.data, map.size, path, err);
    qins_map_close(&map);
    return status;
}
