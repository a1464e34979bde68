/* The forward pass and the session that carries it. SPDX-License-Identifier: MIT
 *
 * Tokens go through in batches of up to 128; every matrix is multiplied in the form it is stored in.
 */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 128 };

struct qins_session {
    const qins_model *model;
    qins_kv_cache cache;
    size_t position;
    /* scratch for BATCH tokens */
    float *x;       /* residual stream [BATCH][hidden] */
    float *normed;  /* [BATCH][hidden] */
    float *rotated; /* the input of a rotated matrix [BATCH][widest] */
    float *qkv;     /* [BATCH][qkv row] */
    float *heads;   /* attention output [BATCH][n_heads*head_dim] */
    float *inner;   /* [BATCH][intermediate] */
    float *gate_up; /* [BATCH][2 * intermediate]: gate, then up */
    float *delta;   /* what a block adds to x [BATCH][hidden] */
    float *scores;  /* one row of n_ctx a thread */
    size_t n_score_rows;
    qins_rope rope[2];           /* of full and of sliding layers */
    qins_expert_scratch experts; /* empty in dense models */
    qins_probe probe;
};

static void add(float *x, const float *delta, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += delta[i];
}

/* ---- blocks ---- */

/* delta := attention(normed) */
static void attention_block(qins_session *s, const qins_layer *layer, size_t l, size_t n) {
    const qins_hparams *h = &s->model->weights->hparams;
    qins_qkv_view view = qins_qkv_view_of(h);
    bool rotate = !h->family->no_rope && (layer->flags & QINS_LAYER_NO_ROPE) == 0;
    const qins_rope *rope = &s->rope[(layer->flags & QINS_LAYER_SLIDING) != 0];
    qins_input in = {.x = s->normed, .n_cols = h->hidden_size, .n_tokens = n, .rotated = s->rotated};
    qins_affine_apply(&layer->qkv, &in, s->qkv, view.row);
    qins_affine_apply(&layer->q, &in, s->qkv + view.q_offset, view.row);
    qins_affine_apply(&layer->k, &in, s->qkv + view.k_offset, view.row);
    qins_affine_apply(&layer->v, &in, s->qkv + view.v_offset, view.row);
    qins_attention(h, layer, &s->cache, l, rotate ? rope : NULL, s->qkv, s->position, n, s->scores, s->cache.n_ctx,
                   s->heads);
    qins_input out = {.x = s->heads, .n_cols = h->n_heads * h->head_dim, .n_tokens = n, .rotated = s->rotated};
    qins_affine_apply(&layer->o, &out, s->delta, h->hidden_size);
}

/* delta := mlp(normed): down(act(gate(x)) * up(x)), or down(act(up(x))) without a gate */
static void dense_mlp_block(qins_session *s, const qins_layer *layer, size_t n) {
    const qins_hparams *h = &s->model->weights->hparams;
    size_t inner = h->intermediate_size;
    qins_input in = {.x = s->normed, .n_cols = h->hidden_size, .n_tokens = n, .rotated = s->rotated};
    if (layer->gate.present || layer->gate_up.present) {
        qins_affine_apply(&layer->gate, &in, s->gate_up, 2 * inner);
        qins_affine_apply(&layer->up, &in, s->gate_up + inner, 2 * inner);
        qins_affine_apply(&layer->gate_up, &in, s->gate_up, 2 * inner);
        qins_activate_gated(h->activation, s->gate_up, inner, n, s->inner);
    } else {
        qins_affine_apply(&layer->up, &in, s->inner, inner);
        qins_activate(h->activation, s->inner, n * inner);
    }
    qins_input hidden = {.x = s->inner, .n_cols = inner, .n_tokens = n, .rotated = s->rotated};
    qins_affine_apply(&layer->down, &hidden, s->delta, h->hidden_size);
}

static void mlp_block(qins_session *s, const qins_layer *layer, size_t n) {
    if ((layer->flags & QINS_LAYER_EXPERTS) != 0)
        qins_experts(&s->model->weights->hparams, layer, s->normed, n, s->rotated, &s->experts, s->delta);
    else
        dense_mlp_block(s, layer, n);
}

/* x += norm(delta), the norm where there is one */
static void add_block(qins_session *s, const qins_norm *norm, size_t n) {
    const qins_hparams *h = &s->model->weights->hparams;
    size_t width = h->hidden_size;
    if (norm->weight != NULL) qins_apply_norm(h, norm, width, s->delta, width, n, s->delta, width);
    add(s->x, s->delta, n * width);
}

/* normed := norm(x) */
static void normalize_input(qins_session *s, const qins_norm *norm, size_t n) {
    const qins_hparams *h = &s->model->weights->hparams;
    qins_apply_norm(h, norm, h->hidden_size, s->x, h->hidden_size, n, s->normed, h->hidden_size);
}

static void layer_forward(qins_session *s, size_t l, size_t n) {
    const qins_layer *layer = &s->model->layers[l];
    normalize_input(s, &layer->attn_norm, n);
    attention_block(s, layer, l, n);
    if (s->model->weights->hparams.parallel_residual) {
        /* x + attn(norm1(x)) + mlp(norm2(x)); without a second norm both read the first */
        if (layer->mlp_norm.weight != NULL) normalize_input(s, &layer->mlp_norm, n);
        add_block(s, &layer->attn_post_norm, n);
    } else {
        add_block(s, &layer->attn_post_norm, n);
        normalize_input(s, &layer->mlp_norm, n);
    }
    mlp_block(s, layer, n);
    add_block(s, &layer->mlp_post_norm, n);
}

static void embed(qins_session *s, const int32_t *ids, size_t n) {
    const qins_model *m = s->model;
    const qins_hparams *h = &m->weights->hparams;
    for (size_t t = 0; t < n; t++) {
        float *x = s->x + t * h->hidden_size;
        qins_matrix_decode_rows(&m->embed, (size_t)ids[t], 1, x);
        for (size_t i = 0; h->embedding_scale != 1.0f && i < h->hidden_size; i++)
            x[i] *= h->embedding_scale;
        if (!m->positions.present) continue;
        qins_matrix_decode_rows(&m->positions.weight, s->position + t, 1, s->delta);
        add(x, s->delta, h->hidden_size);
    }
}

/* logits of the last n_logits of n tokens */
static void head_forward(qins_session *s, size_t n, float *logits, size_t n_logits) {
    const qins_model *m = s->model;
    const qins_hparams *h = &m->weights->hparams;
    size_t width = h->hidden_size;
    qins_apply_norm(h, &m->final_norm, width, s->x + (n - n_logits) * width, width, n_logits, s->normed, width);
    qins_input in = {.x = s->normed, .n_cols = width, .n_tokens = n_logits, .rotated = s->rotated};
    qins_matmul(&m->head, qins_input_for(&in, &m->head), width, n_logits, logits, h->vocab_size);
    for (size_t t = 0; m->head_bias != NULL && t < n_logits; t++)
        add(logits + t * h->vocab_size, m->head_bias, h->vocab_size);
    if (h->logit_cap > 0) qins_soft_cap(h->logit_cap, logits, n_logits * h->vocab_size);
}

static void batch_forward(qins_session *s, const int32_t *ids, size_t n, float *logits, size_t n_logits) {
    const qins_hparams *h = &s->model->weights->hparams;
    if (s->probe.first_layer == 0)
        embed(s, ids, n);
    else
        memcpy(s->x, s->probe.input + s->position * h->hidden_size, n * h->hidden_size * sizeof *s->x);
    for (size_t i = 0; i < 2; i++)
        qins_rope_set_positions(&s->rope[i], s->position, n);
    for (size_t l = s->probe.first_layer; l < h->n_layers; l++) {
        layer_forward(s, l, n);
        if (s->probe.output != NULL) s->probe.output(s->probe.user, l, s->x, n);
    }
    if (n_logits > 0) head_forward(s, n, logits, n_logits);
    s->position += n;
}

/* ---- sessions ---- */

qins_status qins_session_new(const qins_model *m, size_t n_ctx, qins_session **out, qins_error *err) {
    *out = NULL;
    const qins_hparams *h = &m->weights->hparams;
    if (n_ctx == 0) return qins_fail(err, QINS_ERR_ARGUMENT, "context length: expected at least 1");
    if (m->positions.present && n_ctx > h->max_position)
        return qins_fail(err, QINS_ERR_ARGUMENT, "context length: this model has %zu learned positions, not %zu",
                         h->max_position, n_ctx);
    qins_session *s = qins_alloc(1, sizeof *s);
    if (s == NULL) return qins_fail_memory(err, sizeof *s, "a session");
    s->model = m;
    s->n_score_rows = (size_t)qins_get_threads();
    size_t heads = h->n_heads * h->head_dim, batch = qins_min_size(BATCH, n_ctx);
    size_t widest = qins_max_size(qins_max_size(h->hidden_size, heads), h->intermediate_size), n_scores;
    widest = qins_max_size(widest, qins_max_size(h->expert_size, h->shared_expert_size));
    const struct {
        float **to;
        size_t row;
    } buffers[] = {{&s->x, h->hidden_size},
                   {&s->normed, h->hidden_size},
                   {&s->rotated, widest},
                   {&s->qkv, qins_qkv_view_of(h).row},
                   {&s->heads, heads},
                   {&s->inner, h->intermediate_size},
                   {&s->gate_up, 2 * h->intermediate_size},
                   {&s->delta, h->hidden_size}};
    qins_status status = qins_kv_cache_init(&s->cache, h, n_ctx, err);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0] && status == QINS_OK; i++) {
        *buffers[i].to = qins_alloc_aligned(batch * buffers[i].row, sizeof(float));
        if (*buffers[i].to == NULL)
            status = qins_fail_memory(err, batch * buffers[i].row * sizeof(float), "activations");
    }
    for (size_t i = 0; i < 2 && status == QINS_OK; i++)
        status = qins_rope_init(&s->rope[i], &h->rope[i], n_ctx, batch, err);
    if (status == QINS_OK) status = qins_expert_scratch_init(&s->experts, h, batch, err);
    if (status == QINS_OK) {
        s->scores = qins_mul_size(s->n_score_rows, n_ctx, &n_scores) ? qins_alloc(n_scores, sizeof *s->scores) : NULL;
        if (s->scores == NULL) status = qins_fail_memory(err, n_ctx * sizeof(float), "attention scores");
    }
    if (status == QINS_OK)
        *out = s;
    else
        qins_session_free(s);
    return status;
}

void qins_session_free(qins_session *s) {
    if (s == NULL) return;
    qins_kv_cache_free(&s->cache);
    for (size_t i = 0; i < 2; i++)
        qins_rope_free(&s->rope[i]);
    qins_expert_scratch_free(&s->experts);
    float *buffers[] = {s->x, s->normed, s->rotated, s->qkv, s->heads, s->inner, s->gate_up, s->delta, s->scores};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    free(s);
}

void qins_session_set_probe(qins_session *s, const qins_probe *probe) {
    s->probe = *probe;
}

size_t qins_session_position(const qins_session *s) {
    return s->position;
}

size_t qins_session_kv_bytes(const qins_session *s) {
    return qins_kv_cache_bytes(&s->cache);
}

qins_status qins_session_truncate(qins_session *s, size_t n, qins_error *err) {
    if (n > s->position)
        return qins_fail(err, QINS_ERR_ARGUMENT, "truncate: the session has %zu positions, not %zu", s->position, n);
    s->position = n;
    return QINS_OK;
}

qins_status qins_session_eval(qins_session *s, const int32_t *ids, size_t n, float *logits, size_t n_logits,
                              qins_error *err) {
    const qins_hparams *h = &s->model->weights->hparams;
    if (n_logits > n) return qins_fail(err, QINS_ERR_ARGUMENT, "eval: %zu logits asked of %zu tokens", n_logits, n);
    if (n > s->cache.n_ctx - s->position)
        return qins_fail(err, QINS_ERR_ARGUMENT, "eval: %zu tokens do not fit: %zu of %zu positions are taken", n,
                         s->position, s->cache.n_ctx);
    if ((size_t)qins_get_threads() > s->n_score_rows)
        return qins_fail(err, QINS_ERR_ARGUMENT, "eval: the session was made for %zu threads", s->n_score_rows);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= h->vocab_size)
            return qins_fail(err, QINS_ERR_ARGUMENT, "eval: token id %d is outside the vocabulary of %zu", (int)ids[i],
                             h->vocab_size);
    for (size_t i = 0; i < n; i += BATCH) {
        size_t batch = qins_min_size(BATCH, n - i), end = i + batch, first_logit = n - n_logits;
        size_t wanted = end > first_logit ? qins_min_size(batch, end - first_logit) : 0;
        size_t row = wanted > 0 ? end - wanted - first_logit : 0;
        batch_forward(s, ids + i, batch, logits + row * h->vocab_size, wanted);
    }
    return QINS_OK;
}
