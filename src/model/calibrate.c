/* SPDX-License-Identifier: MIT */
#include "model/calibrate.h"

#include "base/dense.h"
#include "model/calibrate_attention.h"
#include "model/calibrate_group.h"
#include "model/kv_transform.h"

#include <stdlib.h>
#include <string.h>

/* Experts with fewer inputs than this share of their width are rounded to the nearest: directions nobody has seen would
 * take all the error. */
enum { EXPERT_MIN_SHARE = 4 };

typedef struct calibrator {
    const qins_model *model;
    const qins_hparams *h;
    const qins_plan *plan;
    const qins_calibration_text *text;
    qins_losses *losses; /* NULL: nobody asks */
    qins_rounded *rounded;
    qins_calibrate_result *result;
    size_t n_tokens;
    float *hidden;    /* [n_tokens][hidden]: residual stream before the layer in work */
    float *kept;      /* [n_tokens][widest]: input of o, then of down */
    float *mlp_input; /* [n_tokens][hidden]: where the MLP does not read the residual stream after attention */
    /* of one sequence */
    float *x, *qkv, *gate_up, *delta;
    qins_sequence_attention attention;
    qins_kv_moments moments; /* of the layer in work */
    uint16_t *kv_transform;  /* its result, halves; NULL without */
    /* of experts */
    size_t *chosen;   /* [n_tokens][n_experts_used] */
    float *weights;   /* the same shape */
    float *gathered;  /* [n_tokens][hidden]: inputs of one expert */
    float *expert_in; /* [n_tokens][hidden]: inputs of all */
    size_t *tokens;   /* [n_tokens]: those of the expert in work */
    qins_progress progress;
    void *progress_user;
    uint64_t steps_done, steps_total;
} calibrator;

/* ---- what belongs to a layer ---- */

static const qins_plan_item *find_item(const calibrator *c, qins_slot slot, size_t layer, size_t expert) {
    for (size_t i = 0; i < c->plan->n_items; i++) {
        const qins_plan_item *item = &c->plan->items[i];
        const qins_parameter *p = item->parameter;
        if (p->role == QINS_ROLE_LINEAR && p->slot == slot && p->layer == layer && p->expert == expert)
            return qins_can_feed_back(item) ? item : NULL;
    }
    return NULL;
}

static qins_status open_group(const calibrator *c, size_t layer, size_t expert, const qins_affine *const *affines,
                              const qins_slot *slots, size_t n, qins_group *g, qins_error *err) {
    const qins_plan_item *items[QINS_MAX_GROUP];
    for (size_t i = 0; i < n; i++)
        items[i] = affines[i]->present ? find_item(c, slots[i], layer, expert) : NULL;
    qins_status status = qins_group_open(g, affines, items, n, err);
    return status == QINS_OK && c->losses != NULL && c->text->n_held > 0 ? qins_group_hold(g, err) : status;
}

/* Inputs of one sequence. */
static void observe(const calibrator *c, qins_group *g, size_t sequence, const float *x) {
    if (sequence + c->text->n_held < c->text->n_sequences)
        qins_group_observe(g, x, c->text->window);
    else
        qins_group_observe_held(g, x, c->text->window);
}

static qins_status step(calibrator *c, qins_error *err) {
    c->steps_done++;
    if (!qins_report(c->progress, c->progress_user, "calibrate", c->steps_done, c->steps_total)) return QINS_OK;
    return qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
}

/* Rounds and closes. */
static qins_status round_group(calibrator *c, qins_group *g, size_t min_tokens, qins_error *err) {
    qins_status status = qins_group_round(g, min_tokens, c->losses, c->rounded, c->result, err);
    return status == QINS_OK ? step(c, err) : status;
}

static float *hidden_of(const calibrator *c, size_t sequence) {
    return c->hidden + sequence * c->text->window * c->h->hidden_size;
}

static void add(float *x, const float *delta, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += delta[i];
}

/* x := norm(from) of one sequence, in the basis of the group */
static void normalize(const calibrator *c, const qins_norm *norm, const float *from, const qins_group *g, float *x) {
    size_t n = c->text->window, width = c->h->hidden_size;
    qins_apply_norm(c->h, norm, width, from, width, n, x, width);
    qins_group_rotate(g, x, n);
}

/* hidden += norm(delta) */
static void add_block(const calibrator *c, const qins_norm *norm, float *delta, size_t n, float *hidden) {
    size_t width = c->h->hidden_size;
    if (norm->weight != NULL) qins_apply_norm(c->h, norm, width, delta, width, n, delta, width);
    add(hidden, delta, n * width);
}

/* ---- attention ---- */

static void attend(calibrator *c, const qins_layer *layer, const qins_group *qkv, const float *x, float *out) {
    qins_qkv_view view = qins_qkv_view_of(c->h);
    const size_t offsets[QINS_MAX_GROUP] = {view.q_offset, view.k_offset, view.v_offset, 0};
    for (size_t i = 0; i < QINS_MAX_GROUP; i++)
        qins_group_apply(qkv, i, x, c->text->window, c->qkv + offsets[i], view.row);
    qins_sequence_attend(&c->attention, c->h, layer, c->qkv, out);
}

static qins_status calibrate_attention(calibrator *c, const qins_layer *layer, size_t l, qins_error *err) {
    const qins_affine *inputs[] = {&layer->q, &layer->k, &layer->v, &layer->qkv}, *output[] = {&layer->o};
    static const qins_slot slots[] = {QINS_SLOT_Q, QINS_SLOT_K, QINS_SLOT_V, QINS_SLOT_QKV},
                           output_slot[] = {QINS_SLOT_O};
    size_t n = c->text->window, heads = c->h->n_heads * c->h->head_dim, width = c->h->hidden_size;
    bool parallel = c->h->parallel_residual;
    qins_group qkv = {0}, o = {0};
    qins_status status = open_group(c, l, 0, inputs, slots, QINS_MAX_GROUP, &qkv, err);
    for (size_t s = 0; s < c->text->n_sequences && status == QINS_OK; s++) {
        normalize(c, &layer->attn_norm, hidden_of(c, s), &qkv, c->x);
        observe(c, &qkv, s, c->x);
    }
    if (status == QINS_OK) status = round_group(c, &qkv, 0, err);
    if (status == QINS_OK) status = open_group(c, l, 0, output, output_slot, 1, &o, err);
    for (size_t s = 0; s < c->text->n_sequences && status == QINS_OK; s++) {
        float *out = c->kept + s * n * heads;
        normalize(c, &layer->attn_norm, hidden_of(c, s), &qkv, c->x);
        attend(c, layer, &qkv, c->x, out);
        if (c->kv_transform != NULL) qins_kv_moments_add(&c->moments, &c->attention, c->h, layer, c->qkv);
        qins_group_rotate(&o, out, n);
        observe(c, &o, s, out);
    }
    qins_group_close(&qkv);
    if (status == QINS_OK) status = round_group(c, &o, 0, err);
    for (size_t s = 0; s < c->text->n_sequences && status == QINS_OK; s++) {
        /* x + attn(norm1(x)) + mlp(norm2(x)); without a second norm both read the first */
        const qins_norm *second = layer->mlp_norm.weight != NULL ? &layer->mlp_norm : &layer->attn_norm;
        if (parallel)
            qins_apply_norm(c->h, second, width, hidden_of(c, s), width, n, c->mlp_input + s * n * width, width);
        qins_group_apply(&o, 0, c->kept + s * n * heads, n, c->delta, width);
        add_block(c, &layer->attn_post_norm, c->delta, n, hidden_of(c, s));
    }
    qins_group_close(&o);
    return status;
}

/* ---- key transform ---- */

static size_t layer_transform_values(const calibrator *c) {
    return qins_kv_transform_values(c->h) / c->h->n_layers;
}

/* Of a layer whose attention was calibrated: goes with its matrices. */
static qins_status end_transform(calibrator *c, size_t l, qins_error *err) {
    if (c->kv_transform == NULL) return QINS_OK;
    qins_part_info info[QINS_PART_COUNT] = {
        [QINS_PART_CODES] = {.dtype = "F16", .n_bytes = layer_transform_values(c) * sizeof *c->kv_transform}};
    const void *data[QINS_PART_COUNT] = {[QINS_PART_CODES] = c->kv_transform};
    char name[QINS_KV_TRANSFORM_LAYER_NAME];
    qins_encode_stats *stats = qins_alloc(1, sizeof *stats);
    qins_status status = stats == NULL ? qins_fail_memory(err, sizeof *stats, "statistics")
                                       : qins_kv_moments_transform(&c->moments, c->kv_transform, err);
    qins_kv_moments_clear(&c->moments);
    qins_kv_transform_layer_name(l, name);
    if (status == QINS_OK) status = qins_rounded_put(c->rounded, name, info, data, stats, err);
    free(stats);
    return status;
}

/* ---- MLP ---- */

/* x := input of the MLP of one sequence, in the basis of the group */
static void mlp_input(const calibrator *c, const qins_layer *layer, size_t sequence, const qins_group *g, float *x) {
    size_t n = c->text->window, width = c->h->hidden_size;
    if (!c->h->parallel_residual) {
        normalize(c, &layer->mlp_norm, hidden_of(c, sequence), g, x);
        return;
    }
    memcpy(x, c->mlp_input + sequence * n * width, n * width * sizeof *x);
    qins_group_rotate(g, x, n);
}

/* gate, up and gate_up are matrices 0, 1 and 2 of the group */
static void inner_activations(const calibrator *c, const qins_group *g, const float *x, size_t n, size_t inner,
                              float *out) {
    bool gated = qins_group_has(g, 0) || qins_group_has(g, 2);
    if (!gated) {
        qins_group_apply(g, 1, x, n, out, inner);
        qins_activate(c->h->activation, out, n * inner);
        return;
    }
    qins_group_apply(g, 0, x, n, c->gate_up, 2 * inner);
    qins_group_apply(g, 1, x, n, c->gate_up + inner, 2 * inner);
    qins_group_apply(g, 2, x, n, c->gate_up, 2 * inner);
    qins_activate_gated(c->h->activation, c->gate_up, inner, n, out);
}

static qins_status calibrate_dense_mlp(calibrator *c, const qins_layer *layer, size_t l, qins_error *err) {
    const qins_affine *inputs[] = {&layer->gate, &layer->up, &layer->gate_up}, *output[] = {&layer->down};
    static const qins_slot slots[] = {QINS_SLOT_GATE, QINS_SLOT_UP, QINS_SLOT_GATE_UP},
                           output_slot[] = {QINS_SLOT_DOWN};
    size_t n = c->text->window, inner = c->h->intermediate_size, width = c->h->hidden_size;
    qins_group in = {0}, down = {0};
    qins_status status = open_group(c, l, 0, inputs, slots, 3, &in, err);
    for (size_t s = 0; s < c->text->n_sequences && status == QINS_OK; s++) {
        mlp_input(c, layer, s, &in, c->x);
        observe(c, &in, s, c->x);
    }
    if (status == QINS_OK) status = round_group(c, &in, 0, err);
    if (status == QINS_OK) status = open_group(c, l, 0, output, output_slot, 1, &down, err);
    for (size_t s = 0; s < c->text->n_sequences && status == QINS_OK; s++) {
        float *out = c->kept + s * n * inner;
        mlp_input(c, layer, s, &in, c->x);
        inner_activations(c, &in, c->x, n, inner, out);
        qins_group_rotate(&down, out, n);
        observe(c, &down, s, out);
    }
    qins_group_close(&in);
    if (status == QINS_OK) status = round_group(c, &down, 0, err);
    for (size_t s = 0; s < c->text->n_sequences && status == QINS_OK; s++) {
        qins_group_apply(&down, 0, c->kept + s * n * inner, n, c->delta, width);
        add_block(c, &layer->mlp_post_norm, c->delta, n, hidden_of(c, s));
    }
    qins_group_close(&down);
    return status;
}

/* ---- experts ---- */

/* One expert on n tokens, whose inputs are c->gathered: rounds it and leaves its outputs there. */
static qins_status calibrate_expert(calibrator *c, const qins_expert *expert, const qins_slot slots[3], size_t l,
                                    size_t e, size_t inner, size_t n, qins_error *err) {
    const qins_affine *none = &(qins_affine){0};
    const qins_affine *inputs[] = {&expert->gate, &expert->up, none}, *output[] = {&expert->down};
    const qins_slot input_slots[] = {slots[0], slots[1], QINS_SLOT_COUNT};
    size_t width = c->h->hidden_size, batch = c->text->window;
    qins_group in = {0}, down = {0};
    qins_status status = open_group(c, l, e, inputs, input_slots, 3, &in, err);
    if (status == QINS_OK) {
        qins_group_rotate(&in, c->gathered, n);
        qins_group_observe(&in, c->gathered, n);
        status = qins_group_round(&in, width / EXPERT_MIN_SHARE, NULL, c->rounded, c->result, err);
    }
    if (status == QINS_OK) status = open_group(c, l, e, output, slots + 2, 1, &down, err);
    for (size_t t = 0; t < n && status == QINS_OK; t += batch) {
        size_t m = qins_min_size(batch, n - t);
        float *out = c->kept + t * inner;
        inner_activations(c, &in, c->gathered + t * width, m, inner, out);
        qins_group_rotate(&down, out, m);
        qins_group_observe(&down, out, m);
    }
    qins_group_close(&in);
    if (status == QINS_OK) status = qins_group_round(&down, inner / EXPERT_MIN_SHARE, NULL, c->rounded, c->result, err);
    if (status == QINS_OK) qins_group_apply(&down, 0, c->kept, n, c->gathered, width);
    qins_group_close(&down);
    return status;
}

/* Chooses the experts of all tokens, whose inputs go to c->expert_in. */
static void route(calibrator *c, const qins_layer *layer) {
    size_t n = c->text->window, width = c->h->hidden_size, used = c->h->n_experts_used;
    const qins_group plain = {0};
    for (size_t s = 0; s < c->text->n_sequences; s++) {
        float *x = c->expert_in + s * n * width;
        mlp_input(c, layer, s, &plain, x);
        qins_input in = {.x = x, .n_cols = width, .n_tokens = n, .prepared = c->x, .floats_only = true};
        qins_affine_apply_one(&layer->router, &in, c->gate_up, c->h->n_experts);
        for (size_t t = 0; t < n; t++)
            qins_choose_experts(c->h, c->gate_up + t * c->h->n_experts, c->chosen + (s * n + t) * used,
                                c->weights + (s * n + t) * used);
    }
}

/* delta[token] += weight * output of the expert */
static void scatter(const calibrator *c, const float *token_weights, size_t found, float *delta) {
    size_t width = c->h->hidden_size;
    for (size_t j = 0; j < found; j++)
        for (size_t i = 0; i < width; i++)
            delta[c->tokens[j] * width + i] += token_weights[j] * c->gathered[j * width + i];
}

static qins_status calibrate_experts(calibrator *c, const qins_layer *layer, size_t l, qins_error *err) {
    static const qins_slot own[] = {QINS_SLOT_EXPERT_GATE, QINS_SLOT_EXPERT_UP, QINS_SLOT_EXPERT_DOWN},
                           shared[] = {QINS_SLOT_SHARED_GATE, QINS_SLOT_SHARED_UP, QINS_SLOT_SHARED_DOWN};
    size_t n = c->n_tokens, width = c->h->hidden_size, used = c->h->n_experts_used;
    route(c, layer);
    float *delta = qins_alloc_aligned(n * width, sizeof *delta), *token_weights = qins_alloc(n, sizeof *token_weights);
    qins_status status = delta == NULL || token_weights == NULL
                             ? qins_fail_memory(err, n * width * sizeof *delta, "outputs of experts")
                             : QINS_OK;
    for (size_t e = 0; e < c->h->n_experts && status == QINS_OK; e++) {
        size_t found = 0;
        for (size_t i = 0; i < n * used; i++) {
            if (c->chosen[i] != e) continue;
            memcpy(c->gathered + found * width, c->expert_in + i / used * width, width * sizeof *c->gathered);
            token_weights[found] = c->weights[i];
            c->tokens[found++] = i / used;
        }
        status = calibrate_expert(c, &layer->experts[e], own, l, e, c->h->expert_size, found, err);
        if (status == QINS_OK) scatter(c, token_weights, found, delta);
    }
    if (status == QINS_OK) status = step(c, err);
    if (status == QINS_OK && layer->shared.down.present) {
        qins_input in = {
            .x = c->expert_in, .n_cols = width, .n_tokens = n, .prepared = c->gathered, .floats_only = true};
        qins_affine_apply_one(&layer->shared_router, &in, token_weights, 1);
        for (size_t t = 0; t < n; t++) {
            token_weights[t] = 1.0f / (1.0f + expf(-token_weights[t]));
            c->tokens[t] = t;
        }
        memcpy(c->gathered, c->expert_in, n * width * sizeof *c->gathered);
        status = calibrate_expert(c, &layer->shared, shared, l, 0, c->h->shared_expert_size, n, err);
        if (status == QINS_OK) scatter(c, token_weights, n, delta);
    }
    if (status == QINS_OK) {
        add_block(c, &layer->mlp_post_norm, delta, n, c->hidden);
        status = step(c, err);
    }
    free(delta);
    free(token_weights);
    return status;
}

/* ---- all layers ---- */

static void embed(calibrator *c) {
    const qins_model *m = c->model;
    size_t width = c->h->hidden_size;
    for (size_t t = 0; t < c->n_tokens; t++) {
        float *x = c->hidden + t * width;
        qins_matrix_decode_rows(&m->embed, (size_t)c->text->ids[t], 1, x);
        for (size_t i = 0; i < width; i++)
            x[i] *= c->h->embedding_scale;
        if (!m->positions.present) continue;
        qins_matrix_decode_rows(&m->positions.weight, t % c->text->window, 1, c->delta);
        add(x, c->delta, width);
    }
}

static qins_status alloc_floats(float **to, size_t rows, size_t cols, const char *what, qins_error *err) {
    size_t n;
    *to = qins_mul_size(rows, cols, &n) ? qins_alloc_aligned(qins_max_size(n, 1), sizeof **to) : NULL;
    return *to != NULL ? QINS_OK : qins_fail_memory(err, rows * cols * sizeof **to, what);
}

static qins_status prepare(calibrator *c, qins_error *err) {
    const qins_hparams *h = c->h;
    size_t n = c->n_tokens, window = c->text->window, width = h->hidden_size;
    bool experts = h->n_experts > 0;
    size_t inner = qins_max_size(h->intermediate_size, qins_max_size(h->expert_size, h->shared_expert_size));
    size_t gate_up = qins_max_size(2 * inner, h->n_experts);
    qins_status status = alloc_floats(&c->hidden, n, width, "hidden states of the calibration text", err);
    if (status == QINS_OK)
        status = alloc_floats(&c->kept, n, qins_max_size(h->n_heads * h->head_dim, inner), "activations", err);
    if (status == QINS_OK && h->parallel_residual) status = alloc_floats(&c->mlp_input, n, width, "activations", err);
    if (status == QINS_OK) status = alloc_floats(&c->x, window, width, "activations", err);
    if (status == QINS_OK) status = alloc_floats(&c->qkv, window, qins_qkv_view_of(h).row, "activations", err);
    if (status == QINS_OK) status = alloc_floats(&c->gate_up, window, gate_up, "activations", err);
    if (status == QINS_OK) status = alloc_floats(&c->delta, window, width, "activations", err);
    if (status == QINS_OK && experts) {
        status = alloc_floats(&c->weights, n, h->n_experts_used, "experts", err);
        if (status == QINS_OK) status = alloc_floats(&c->gathered, n, width, "activations", err);
        if (status == QINS_OK) status = alloc_floats(&c->expert_in, n, width, "activations", err);
        c->chosen = qins_alloc(n * h->n_experts_used, sizeof *c->chosen);
        c->tokens = qins_alloc(n, sizeof *c->tokens);
        if (c->chosen == NULL || c->tokens == NULL) status = qins_fail_memory(err, n * sizeof *c->tokens, "experts");
    }
    if (status == QINS_OK) status = qins_sequence_attention_init(&c->attention, h, window, err);
    size_t n_transform = layer_transform_values(c);
    if (status == QINS_OK && n_transform > 0) {
        status = qins_kv_moments_init(&c->moments, h, err);
        c->kv_transform = qins_alloc(n_transform, sizeof *c->kv_transform);
        if (c->kv_transform == NULL)
            status = qins_fail_memory(err, n_transform * sizeof *c->kv_transform, "the key transform");
    }
    return status;
}

static void release(calibrator *c) {
    float *buffers[] = {c->hidden,  c->kept,  c->mlp_input, c->x,        c->qkv,
                        c->gate_up, c->delta, c->weights,   c->gathered, c->expert_in};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    free(c->chosen);
    free(c->tokens);
    free(c->kv_transform);
    qins_kv_moments_free(&c->moments);
    qins_sequence_attention_free(&c->attention);
}

static qins_status calibrate_layers(calibrator *c, qins_error *err) {
    enum { STEPS = 4 }; /* reports a layer */
    size_t hidden_values = c->n_tokens * c->h->hidden_size, first = qins_rounded_n_layers(c->rounded);
    c->steps_total = STEPS * c->h->n_layers;
    c->steps_done = STEPS * first;
    embed(c);
    qins_status status = first > 0 ? qins_rounded_load_hidden(c->rounded, c->hidden, hidden_values, err) : QINS_OK;
    if (first > 0 && !qins_rounded_load(c->rounded, "counts", c->result, sizeof *c->result))
        *c->result = (qins_calibrate_result){.predicted_kl = -1, .measured_kl = -1};
    if (first > 0 && c->losses != NULL)
        qins_rounded_load(c->rounded, "found", c->losses->found, c->losses->n_items * sizeof *c->losses->found);
    for (size_t l = first; l < c->h->n_layers && status == QINS_OK; l++) {
        const qins_layer *layer = &c->model->layers[l];
        status = calibrate_attention(c, layer, l, err);
        if (status == QINS_OK) status = end_transform(c, l, err);
        if (status == QINS_OK)
            status = (layer->flags & QINS_LAYER_EXPERTS) != 0 ? calibrate_experts(c, layer, l, err)
                                                              : calibrate_dense_mlp(c, layer, l, err);
        if (status == QINS_OK) status = qins_rounded_end_layer(c->rounded, c->hidden, hidden_values, err);
        if (status == QINS_OK) status = qins_rounded_save(c->rounded, "counts", c->result, sizeof *c->result, err);
        if (status == QINS_OK && c->losses != NULL)
            status = qins_rounded_save(c->rounded, "found", c->losses->found,
                                       c->losses->n_items * sizeof *c->losses->found, err);
    }
    return status;
}

qins_status qins_calibrate(const qins_model *model, const qins_plan *plan, const qins_calibration_text *text,
                           qins_losses *losses, qins_rounded *rounded, qins_progress progress, void *progress_user,
                           qins_calibrate_result *result, qins_error *err) {
    calibrator c = {.model = model,
                    .h = &model->weights->hparams,
                    .plan = plan,
                    .text = text,
                    .losses = losses,
                    .rounded = rounded,
                    .result = result,
                    .n_tokens = text->n_sequences * text->window,
                    .progress = progress,
                    .progress_user = progress_user};
    *result = (qins_calibrate_result){.predicted_kl = -1, .measured_kl = -1};
    int blas_threads = qins_dense_begin();
    qins_status status = prepare(&c, err);
    if (status == QINS_OK) status = calibrate_layers(&c, err);
    release(&c);
    qins_dense_end(blas_threads);
    return status;
}
