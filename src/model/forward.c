/* The forward pass: a batch of tokens through all layers. SPDX-License-Identifier: MIT
 *
 * Every matrix is multiplied in the form it is stored in.
 */
#include "model/session.h"

#include <string.h>

/* ---- blocks ---- */

/* delta := attention(normed) */
static void attention_block(qins_session *s, const qins_batch *batch, const qins_layer *layer, size_t l) {
    size_t n = batch->n;
    const qins_hparams *h = &s->model->weights->hparams;
    qins_qkv_view view = qins_qkv_view_of(h);
    bool rotate = !h->family->no_rope && (layer->flags & QINS_LAYER_NO_ROPE) == 0;
    const qins_rope *rope = &s->rope[(layer->flags & QINS_LAYER_SLIDING) != 0];
    qins_input in = {.x = s->normed, .n_cols = h->hidden_size, .n_tokens = n, .prepared = s->prepared, .rows = s->rows};
    const qins_affine_output qkv[] = {{&layer->qkv, s->qkv, view.row},
                                      {&layer->q, s->qkv + view.q_offset, view.row},
                                      {&layer->k, s->qkv + view.k_offset, view.row},
                                      {&layer->v, s->qkv + view.v_offset, view.row}};
    qins_affine_apply(qkv, sizeof qkv / sizeof qkv[0], &in);
    qins_attend(&s->attention, h, layer, &s->cache, l, rotate ? rope : NULL, batch->runs, batch->n_runs, s->qkv,
                s->heads);
    qins_input out = {.x = s->heads, .n_cols = h->n_heads * h->head_dim, .n_tokens = n, .prepared = s->prepared};
    qins_affine_apply_one(&layer->o, &out, s->delta, h->hidden_size);
}

/* delta := mlp(normed): down(act(gate(x)) * up(x)), or down(act(up(x))) without a gate */
static void dense_mlp_block(qins_session *s, const qins_layer *layer, size_t n) {
    const qins_hparams *h = &s->model->weights->hparams;
    size_t inner = h->intermediate_size;
    qins_input in = {.x = s->normed, .n_cols = h->hidden_size, .n_tokens = n, .prepared = s->prepared, .rows = s->rows};
    if (qins_affine_apply_gated(&layer->gate, &layer->up, h->activation, &in, s->inner, inner)) {
        /* done */
    } else if (layer->gate.present || layer->gate_up.present) {
        const qins_affine_output gate_up[] = {{&layer->gate, s->gate_up, 2 * inner},
                                              {&layer->up, s->gate_up + inner, 2 * inner},
                                              {&layer->gate_up, s->gate_up, 2 * inner}};
        qins_affine_apply(gate_up, sizeof gate_up / sizeof gate_up[0], &in);
        qins_activate_gated(h->activation, s->gate_up, inner, n, s->inner);
    } else {
        qins_affine_apply_one(&layer->up, &in, s->inner, inner);
        qins_activate(h->activation, s->inner, n * inner);
    }
    qins_input hidden = {.x = s->inner, .n_cols = inner, .n_tokens = n, .prepared = s->prepared};
    qins_affine_apply_one(&layer->down, &hidden, s->delta, h->hidden_size);
}

static void mlp_block(qins_session *s, const qins_layer *layer, size_t n) {
    if ((layer->flags & QINS_LAYER_EXPERTS) != 0)
        qins_experts(&s->model->weights->hparams, layer, s->normed, n, s->prepared, &s->experts, s->delta);
    else
        dense_mlp_block(s, layer, n);
}

/* normed := norm(x) */
static void normalize_input(qins_session *s, const qins_norm *norm, size_t n) {
    const qins_hparams *h = &s->model->weights->hparams;
    qins_apply_norm(h, norm, h->hidden_size, s->x, h->hidden_size, n, s->normed, h->hidden_size);
}

typedef struct addition {
    qins_session *s;
    const qins_norm *norm, *next;
} addition;

static void add_token(void *context, size_t t) {
    const addition *a = context;
    const qins_hparams *h = &a->s->model->weights->hparams;
    size_t width = h->hidden_size;
    float *x = a->s->x + t * width, *delta = a->s->delta + t * width;
    if (a->norm->weight != NULL) qins_apply_norm_row(h, a->norm, width, delta, delta);
    qins_get_elementwise()->add(x, delta, width);
    if (a->next != NULL) qins_apply_norm_row(h, a->next, width, x, a->s->normed + t * width);
}

/* x += norm(delta), the norm where there is one; then normed := next(x) unless next is NULL */
static void add_block(qins_session *s, const qins_norm *norm, const qins_norm *next, size_t n) {
    addition a = {s, norm, next};
    qins_parallel(n, 1, add_token, &a);
}

static void layer_forward(qins_session *s, const qins_batch *batch, size_t l) {
    size_t n = batch->n;
    const qins_layer *layer = &s->model->layers[l];
    normalize_input(s, &layer->attn_norm, n);
    attention_block(s, batch, layer, l);
    if (s->model->weights->hparams.parallel_residual) {
        /* x + attn(norm1(x)) + mlp(norm2(x)); without a second norm both read the first */
        if (layer->mlp_norm.weight != NULL) normalize_input(s, &layer->mlp_norm, n);
        add_block(s, &layer->attn_post_norm, NULL, n);
    } else {
        add_block(s, &layer->attn_post_norm, &layer->mlp_norm, n);
    }
    mlp_block(s, layer, n);
    add_block(s, &layer->mlp_post_norm, NULL, n);
}

static void embed(qins_session *s, const qins_batch *batch) {
    const qins_model *m = s->model;
    const qins_hparams *h = &m->weights->hparams;
    for (size_t t = 0; t < batch->n; t++) {
        float *x = s->x + t * h->hidden_size;
        qins_matrix_decode_rows(&m->embed, (size_t)batch->ids[t], 1, x);
        for (size_t i = 0; h->embedding_scale != 1.0f && i < h->hidden_size; i++)
            x[i] *= h->embedding_scale;
    }
    if (!m->positions.present) return;
    for (size_t r = 0; r < batch->n_runs; r++)
        for (size_t t = 0; t < batch->runs[r].n; t++) {
            qins_matrix_decode_rows(&m->positions.weight, batch->runs[r].position + t, 1, s->delta);
            qins_get_elementwise()->add(s->x + (batch->runs[r].first + t) * h->hidden_size, s->delta, h->hidden_size);
        }
}

/* logits of the tokens that want them */
static void head_forward(qins_session *s, const qins_batch *batch, float *logits) {
    const qins_model *m = s->model;
    const qins_hparams *h = &m->weights->hparams;
    size_t width = h->hidden_size, n = 0;
    for (size_t t = 0; t < batch->n; t++) /* to the front of x: their own rows or ones behind them */
        if (batch->wants_logits[t]) memmove(s->x + n++ * width, s->x + t * width, width * sizeof *s->x);
    if (n == 0) return;
    qins_apply_norm(h, &m->final_norm, width, s->x, width, n, s->normed, width);
    qins_input in = {.x = s->normed, .n_cols = width, .n_tokens = n, .prepared = s->prepared};
    qins_affine_apply_one(&m->head, &in, logits, h->vocab_size);
    if (h->logit_cap > 0) qins_soft_cap(h->logit_cap, logits, n * h->vocab_size);
}

/* x of the tokens as the probe has it */
static void take_probe_input(qins_session *s, const qins_batch *batch) {
    size_t width = s->model->weights->hparams.hidden_size;
    for (size_t r = 0; r < batch->n_runs; r++)
        memcpy(s->x + batch->runs[r].first * width, s->probe.input + batch->runs[r].position * width,
               batch->runs[r].n * width * sizeof *s->x);
}

void qins_forward(qins_session *s, const qins_batch *batch, float *logits) {
    if (s->probe.first_layer == 0)
        embed(s, batch);
    else
        take_probe_input(s, batch);
    for (size_t r = 0; r < batch->n_runs; r++)
        for (size_t i = 0; i < 2; i++)
            qins_rope_set_positions(&s->rope[i], batch->runs[r].first, batch->runs[r].position, batch->runs[r].n);
    for (size_t l = s->probe.first_layer; l < s->model->weights->hparams.n_layers; l++) {
        layer_forward(s, batch, l);
        if (s->probe.output != NULL) s->probe.output(s->probe.user, l, s->x, batch->n);
    }
    head_forward(s, batch, logits);
}
