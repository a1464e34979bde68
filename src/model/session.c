/* Sessions: sequences of tokens and the calls that move them on. SPDX-License-Identifier: MIT */
#include "model/session.h"

#include "model/kv_file.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

qins_status qins_session_new(const qins_model *m, size_t n_ctx, qins_session **out, qins_error *err) {
    const qins_session_options options = {.n_ctx = n_ctx};
    return qins_session_new_with(m, &options, out, err);
}

qins_status qins_session_new_with(const qins_model *m, const qins_session_options *options, qins_session **out,
                                  qins_error *err) {
    *out = NULL;
    const qins_hparams *h = &m->weights->hparams;
    size_t n_ctx = options->n_ctx, n_seqs = options->n_sequences > 0 ? options->n_sequences : 1, n_positions;
    int key_bits = options->key_bits != 0 ? options->key_bits : 16;
    int value_bits = options->value_bits != 0 ? options->value_bits : 16;
    if (n_ctx == 0) return qins_fail(err, QINS_ERR_ARGUMENT, "context length: expected at least 1");
    if (m->positions.present && n_ctx > h->max_position)
        return qins_fail(err, QINS_ERR_ARGUMENT, "context length: this model has %zu learned positions, not %zu",
                         h->max_position, n_ctx);
    qins_session *s = qins_alloc(1, sizeof *s);
    if (s == NULL) return qins_fail_memory(err, sizeof *s, "a session");
    s->model = m;
    if (!qins_mul_size(n_ctx, n_seqs, &n_positions)) n_positions = SIZE_MAX;
    size_t heads = h->n_heads * h->head_dim, batch = qins_min_size(QINS_BATCH, n_positions);
    size_t widest = qins_max_size(qins_max_size(h->hidden_size, heads), h->intermediate_size);
    widest = qins_max_size(widest, qins_max_size(h->expert_size, h->shared_expert_size));
    const struct {
        float **to;
        size_t row;
    } buffers[] = {{&s->x, h->hidden_size},
                   {&s->normed, h->hidden_size},
                   {&s->prepared, qins_prepared_row(widest)},
                   {&s->rows, m->has_splits ? qins_max_size(qins_qkv_view_of(h).row, 2 * h->intermediate_size) : 0},
                   {&s->qkv, qins_qkv_view_of(h).row},
                   {&s->heads, heads},
                   {&s->inner, h->intermediate_size},
                   {&s->gate_up, 2 * h->intermediate_size},
                   {&s->delta, h->hidden_size}};
    qins_status status = qins_kv_cache_init(&s->cache, h->n_layers, h->n_kv_heads, h->head_dim, n_ctx, n_seqs, key_bits,
                                            value_bits, err);
    if (s->cache.format.coded_keys) s->cache.transform = m->kv_transform;
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0] && status == QINS_OK; i++) {
        *buffers[i].to = qins_alloc_aligned(batch * buffers[i].row, sizeof(float));
        if (*buffers[i].to == NULL)
            status = qins_fail_memory(err, batch * buffers[i].row * sizeof(float), "activations");
    }
    for (size_t i = 0; i < 2 && status == QINS_OK; i++)
        status = qins_rope_init(&s->rope[i], &h->rope[i], n_ctx, batch, err);
    if (status == QINS_OK) status = qins_expert_scratch_init(&s->experts, h, batch, err);
    if (status == QINS_OK)
        status = qins_attention_init(&s->attention, h, &s->cache, batch, (size_t)qins_get_threads(), err);
    if (status == QINS_OK)
        *out = s;
    else
        qins_session_free(s);
    return status;
}

void qins_session_free(qins_session *s) {
    if (s == NULL) return;
    qins_kv_cache_free(&s->cache);
    qins_attention_free(&s->attention);
    for (size_t i = 0; i < 2; i++)
        qins_rope_free(&s->rope[i]);
    qins_expert_scratch_free(&s->experts);
    float *buffers[] = {s->x, s->normed, s->prepared, s->rows, s->qkv, s->heads, s->inner, s->gate_up, s->delta};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    free(s);
}

void qins_session_set_probe(qins_session *s, const qins_probe *probe) {
    s->probe = *probe;
}

size_t qins_session_kv_bytes(const qins_session *s) {
    size_t total = 0;
    for (size_t i = 0; i < s->cache.n_seqs; i++)
        total += qins_kv_sequence_bytes(&s->cache, i);
    return total;
}

/* ---- sequences ---- */

static qins_status check_sequence(const qins_session *s, size_t sequence, qins_error *err) {
    if (sequence < s->cache.n_seqs) return QINS_OK;
    return qins_fail(err, QINS_ERR_ARGUMENT, "sequence %zu: the session has %zu", sequence, s->cache.n_seqs);
}

size_t qins_sequence_length(const qins_session *s, size_t sequence) {
    return sequence < s->cache.n_seqs ? s->cache.seqs[sequence].length : 0;
}

const int32_t *qins_sequence_tokens(const qins_session *s, size_t sequence) {
    return sequence < s->cache.n_seqs ? s->cache.seqs[sequence].tokens : NULL;
}

size_t qins_session_position(const qins_session *s) {
    return qins_sequence_length(s, 0);
}

qins_status qins_sequence_truncate(qins_session *s, size_t sequence, size_t n, qins_error *err) {
    qins_status status = check_sequence(s, sequence, err);
    if (status != QINS_OK) return status;
    size_t length = s->cache.seqs[sequence].length;
    if (n > length)
        return qins_fail(err, QINS_ERR_ARGUMENT, "truncate: the session has %zu positions, not %zu", length, n);
    qins_kv_truncate(&s->cache, sequence, n);
    return QINS_OK;
}

qins_status qins_session_truncate(qins_session *s, size_t n, qins_error *err) {
    return qins_sequence_truncate(s, 0, n, err);
}

qins_status qins_sequence_fork(qins_session *s, size_t from, size_t to, qins_error *err) {
    qins_status status = check_sequence(s, from, err);
    if (status == QINS_OK) status = check_sequence(s, to, err);
    return status != QINS_OK ? status : qins_kv_fork(&s->cache, from, to, err);
}

typedef struct turn_back {
    const qins_session *s;
    size_t distance;
} turn_back;

static void turn_key(void *user, size_t layer, float *key) {
    const turn_back *t = user;
    uint8_t flags = t->s->model->layers[layer].flags;
    if (t->s->model->weights->hparams.family->no_rope || (flags & QINS_LAYER_NO_ROPE) != 0) return;
    qins_rope_turn_back(&t->s->rope[(flags & QINS_LAYER_SLIDING) != 0], t->distance, key);
}

qins_status qins_sequence_shift(qins_session *s, size_t sequence, size_t keep, size_t drop, qins_error *err) {
    qins_status status = check_sequence(s, sequence, err);
    if (status != QINS_OK) return status;
    size_t length = s->cache.seqs[sequence].length;
    if (keep > length || drop > length - keep)
        return qins_fail(err, QINS_ERR_ARGUMENT, "shift: positions %zu to %zu+%zu of a sequence of %zu", keep, keep,
                         drop, length);
    if (s->model->positions.present)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "shift: this model has learned positions, which cannot be changed");
    turn_back turn = {s, drop};
    return qins_kv_shift(&s->cache, sequence, keep, drop, turn_key, &turn, err);
}

/* ---- files ---- */

static void hash_row(XXH3_state_t *hash, const qins_affine *a, float *row) {
    if (!a->present) return;
    qins_matrix_decode_rows(&a->weight, 0, 1, row);
    XXH3_64bits_update(hash, row, a->weight.n_cols * sizeof *row);
}

/* Of what rows of the cache depend on: the first row of each projection, norms, rotary frequencies, key
 * transform. Samples of the
 * weights tell models apart without reading all of them. */
static qins_status fingerprint(const qins_session *s, uint64_t *result, qins_error *err) {
    const qins_model *m = s->model;
    const qins_hparams *h = &m->weights->hparams;
    size_t widest = qins_max_size(h->hidden_size, h->n_heads * h->head_dim);
    widest = qins_max_size(widest, h->intermediate_size);
    float *row = qins_alloc(widest, sizeof *row);
    XXH3_state_t *hash = XXH3_createState();
    qins_status status = QINS_OK;
    if (row == NULL || hash == NULL || XXH3_64bits_reset(hash) != XXH_OK) {
        status = qins_fail_memory(err, widest * sizeof *row, "a fingerprint of the model");
    } else {
        XXH3_64bits_update(hash, h->family->model_type, strlen(h->family->model_type));
        for (size_t i = 0; i < 2; i++)
            XXH3_64bits_update(hash, s->rope[i].frequencies, s->rope[i].n_pairs * sizeof(float));
        for (size_t l = 0; l < h->n_layers; l++) {
            const qins_layer *layer = &m->layers[l];
            const qins_affine *sampled[] = {&layer->q, &layer->k, &layer->v, &layer->qkv, &layer->o, &layer->down};
            for (size_t i = 0; i < sizeof sampled / sizeof sampled[0]; i++)
                hash_row(hash, sampled[i], row);
        }
        if (s->cache.transform != NULL)
            XXH3_64bits_update(hash, m->weights->kv_transform->data, m->weights->kv_transform->n_bytes);
        *result = XXH3_64bits_digest(hash);
    }
    XXH3_freeState(hash);
    free(row);
    return status;
}

qins_status qins_sequence_save(const qins_session *s, size_t sequence, const char *path, qins_error *err) {
    uint64_t model = 0;
    qins_status status = check_sequence(s, sequence, err);
    if (status == QINS_OK) status = fingerprint(s, &model, err);
    return status != QINS_OK ? status : qins_kv_save(&s->cache, sequence, model, path, err);
}

qins_status qins_sequence_load(qins_session *s, size_t sequence, const char *path, qins_error *err) {
    uint64_t model = 0;
    qins_status status = check_sequence(s, sequence, err);
    if (status == QINS_OK) status = fingerprint(s, &model, err);
    if (status != QINS_OK) return status;
    return qins_kv_load(&s->cache, sequence, model, s->model->weights->hparams.vocab_size, path, err);
}

/* ---- evaluation ---- */

/* Tokens of one sequence, the last n_logits with logits; or of several, each with its own mind. */
typedef struct token_source {
    const int32_t *ids; /* NULL: take `tokens` */
    const qins_batch_token *tokens;
    size_t n, first_logit;
} token_source;

static qins_batch_token token_at(const token_source *from, size_t i) {
    if (from->ids == NULL) return from->tokens[i];
    return (qins_batch_token){.id = from->ids[i], .wants_logits = i >= from->first_logit};
}

/* Refuses what cannot be evaluated, and makes room for the rest. counts: [n_seqs] */
static qins_status prepare(qins_session *s, const token_source *from, size_t *counts, qins_error *err) {
    size_t vocab_size = s->model->weights->hparams.vocab_size;
    if ((size_t)qins_get_threads() > s->attention.n_threads)
        return qins_fail(err, QINS_ERR_ARGUMENT, "eval: the session was made for %zu threads", s->attention.n_threads);
    if (from->ids != NULL && from->n > s->cache.n_ctx) /* before a length that cannot be true is believed */
        return qins_fail(err, QINS_ERR_ARGUMENT, "eval: %zu tokens do not fit: %zu of %zu positions are taken", from->n,
                         s->cache.seqs[0].length, s->cache.n_ctx);
    for (size_t i = 0; i < from->n; i++) {
        qins_batch_token t = token_at(from, i);
        if (t.id < 0 || (size_t)t.id >= vocab_size)
            return qins_fail(err, QINS_ERR_ARGUMENT, "eval: token id %d is outside the vocabulary of %zu", (int)t.id,
                             vocab_size);
        qins_status status = check_sequence(s, t.sequence, err);
        if (status != QINS_OK) return status;
        counts[t.sequence]++;
    }
    for (size_t i = 0; i < s->cache.n_seqs; i++)
        if (counts[i] > s->cache.n_ctx - s->cache.seqs[i].length)
            return qins_fail(err, QINS_ERR_ARGUMENT, "eval: %zu tokens do not fit: %zu of %zu positions are taken",
                             counts[i], s->cache.seqs[i].length, s->cache.n_ctx);
    qins_status status = QINS_OK;
    for (size_t i = 0; i < s->cache.n_seqs && status == QINS_OK; i++)
        if (counts[i] > 0) status = qins_kv_reserve(&s->cache, i, counts[i], err);
    return status;
}

static bool has_run(const qins_batch *batch, size_t seq) {
    for (size_t i = 0; i < batch->n_runs; i++)
        if (batch->runs[i].seq == seq) return true;
    return false;
}

/* Tokens from i on, as many as go together; returns where the next batch begins. */
static size_t fill_batch(qins_session *s, const token_source *from, size_t i, qins_batch *batch) {
    qins_token_run *run = NULL;
    batch->n = batch->n_runs = 0;
    for (; i < from->n && batch->n < QINS_BATCH; i++) {
        qins_batch_token t = token_at(from, i);
        if (run == NULL || run->seq != t.sequence) {
            if (has_run(batch, t.sequence)) break;
            run = &batch->runs[batch->n_runs++];
            *run = (qins_token_run){.seq = t.sequence, .position = s->cache.seqs[t.sequence].length, .first = batch->n};
        }
        qins_kv_append(&s->cache, t.sequence, &t.id, 1);
        run->n++;
        batch->ids[batch->n] = t.id;
        batch->wants_logits[batch->n++] = t.wants_logits;
    }
    return i;
}

static qins_status eval(qins_session *s, const token_source *from, float *logits, qins_error *err) {
    size_t *counts = qins_alloc(s->cache.n_seqs, sizeof *counts);
    if (counts == NULL) return qins_fail_memory(err, s->cache.n_seqs * sizeof *counts, "counts of tokens");
    qins_status status = prepare(s, from, counts, err);
    free(counts);
    if (status != QINS_OK) return status;
    qins_batch batch;
    for (size_t i = 0; i < from->n;) {
        i = fill_batch(s, from, i, &batch);
        qins_forward(s, &batch, logits);
        for (size_t t = 0; t < batch.n; t++)
            if (batch.wants_logits[t]) logits += s->model->weights->hparams.vocab_size;
    }
    return QINS_OK;
}

qins_status qins_session_eval(qins_session *s, const int32_t *ids, size_t n, float *logits, size_t n_logits,
                              qins_error *err) {
    if (n_logits > n) return qins_fail(err, QINS_ERR_ARGUMENT, "eval: %zu logits asked of %zu tokens", n_logits, n);
    if (n == 0) return QINS_OK;
    const token_source from = {.ids = ids, .n = n, .first_logit = n - n_logits};
    return eval(s, &from, logits, err);
}

qins_status qins_session_eval_batch(qins_session *s, const qins_batch_token *tokens, size_t n, float *logits,
                                    qins_error *err) {
    const token_source from = {.tokens = tokens, .n = n};
    return eval(s, &from, logits, err);
}
