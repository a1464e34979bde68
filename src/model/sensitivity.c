/* SPDX-License-Identifier: MIT */
#include "model/sensitivity.h"

#include "base/dense.h"
#include "model/backward.h"
#include "model/calibrate_group.h"

#include <stdlib.h>
#include <string.h>

enum { GROUP_QKV, GROUP_O, GROUP_IN, GROUP_DOWN, N_GROUPS };
enum { MATRIX_GATE, MATRIX_UP, MATRIX_GATE_UP };
static const double DAMPING = 0.01;

typedef struct pass {
    const qins_model *model;
    const qins_hparams *h;
    const qins_plan *plan;
    const qins_calibration_text *text;
    size_t n_sequences, n_tokens;
    size_t first_sequence;
    qins_losses *losses;
    double *kl; /* of losses */
    float *const *row_kl;
    float *states;   /* [n_layers + 1][n_tokens][hidden]: before every layer and after the last */
    float *gradient; /* [n_tokens][hidden] */
    qins_sequence_attention attention;
    /* of one sequence: what the layer computes */
    float *x, *attn_in, *qkv, *qkv_used, *heads, *attn_out, *middle, *mlp_in, *gate_up, *inner, *mlp_out;
    /* and gradients of it */
    float *d_out, *d_inner, *d_gate_up, *d_in, *d_heads, *d_qkv, *d_x;
    qins_group groups[N_GROUPS];
    double *squares[N_GROUPS]
                   [QINS_MAX_GROUP]; /* [n_rows]: sum of squared output gradients, each times its token's share */
    float *inputs[N_GROUPS];         /* [n_tokens][n_cols]: of one layer, in the basis of the group */
    float *shares;       /* [n_layers][N_GROUPS][n_tokens]: of the error that rounding makes on a token; 1 on average */
    double *conditional; /* [n_layers][N_GROUPS]: sum of D over columns, a column and token */
} pass;

/* ---- groups ---- */

static const qins_plan_item *find_item(const pass *p, qins_role role, qins_slot slot, size_t layer) {
    for (size_t i = 0; i < p->plan->n_items; i++) {
        const qins_plan_item *item = &p->plan->items[i];
        const qins_parameter *q = item->parameter;
        if (item->encode && q->role == role && q->slot == slot && (role != QINS_ROLE_LINEAR || q->layer == layer))
            return item;
    }
    return NULL;
}

static qins_status open_groups(pass *p, size_t l, qins_error *err) {
    const qins_layer *y = &p->model->layers[l];
    const struct {
        const qins_affine *affines[QINS_MAX_GROUP];
        qins_slot slots[QINS_MAX_GROUP];
        size_t n;
    } wanted[N_GROUPS] = {{{&y->q, &y->k, &y->v, &y->qkv}, {QINS_SLOT_Q, QINS_SLOT_K, QINS_SLOT_V, QINS_SLOT_QKV}, 4},
                          {{&y->o}, {QINS_SLOT_O}, 1},
                          {{&y->gate, &y->up, &y->gate_up}, {QINS_SLOT_GATE, QINS_SLOT_UP, QINS_SLOT_GATE_UP}, 3},
                          {{&y->down}, {QINS_SLOT_DOWN}, 1}};
    qins_status status = QINS_OK;
    for (size_t g = 0; g < N_GROUPS && status == QINS_OK; g++) {
        const qins_plan_item *items[QINS_MAX_GROUP];
        for (size_t i = 0; i < wanted[g].n; i++)
            items[i] = wanted[g].affines[i]->present ? find_item(p, QINS_ROLE_LINEAR, wanted[g].slots[i], l) : NULL;
        status = qins_group_open(&p->groups[g], wanted[g].affines, items, wanted[g].n, err);
        for (size_t i = 0; i < wanted[g].n && status == QINS_OK; i++) {
            if (!wanted[g].affines[i]->present) continue;
            size_t n_rows = wanted[g].affines[i]->weight.n_rows;
            p->squares[g][i] = qins_alloc(n_rows, sizeof(double));
            if (p->squares[g][i] == NULL) status = qins_fail_memory(err, n_rows * sizeof(double), "gradients");
        }
    }
    return status;
}

static void close_groups(pass *p) {
    for (size_t g = 0; g < N_GROUPS; g++) {
        qins_group_close(&p->groups[g]);
        for (size_t i = 0; i < QINS_MAX_GROUP; i++) {
            free(p->squares[g][i]);
            p->squares[g][i] = NULL;
        }
    }
}

static double energy(const float *w, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)w[i];
    return sum;
}

static bool is_encoded(const qins_plan_item *item, size_t row) {
    for (size_t i = 0; i < item->split.n_pieces; i++)
        if (row >= item->split.pieces[i].begin && row < item->split.pieces[i].end) return item->split.pieces[i].encoded;
    return item->split.n_pieces == 0;
}

static size_t group_cols(const pass *p, size_t g) {
    const qins_hparams *h = p->h;
    return g == GROUP_O ? h->n_heads * h->head_dim : g == GROUP_DOWN ? h->intermediate_size : h->hidden_size;
}

/* D of H = U D U^T from n_tokens inputs is too small: column j was fitted with as many columns as come after it. What
 * it is on other inputs when U comes from n_fit. */
static double held_out(double d, double n_regressors, double n_tokens, double n_fit) {
    static const double MOST = 0.9; /* of the tokens: beyond it damping holds D up */
    double share = fmin(n_regressors / n_tokens, MOST);
    return d / (1 - share) * (1 + n_regressors / n_fit);
}

/* From the inputs of a group: what rounding its matrices to errors of mean square 1 does to their outputs. With e = m
 * U^-1, m the rounding errors that feedback leaves, the output error on input x is m . U^-1 x. */
static qins_status weigh_inputs(const pass *p, size_t l, size_t g, qins_error *err) {
    const qins_group *group = &p->groups[g];
    double *conditional = &p->conditional[l * N_GROUPS + g];
    float *shares = p->shares + (l * N_GROUPS + g) * p->n_tokens;
    *conditional = 0;
    if (group->moments == NULL) return QINS_OK;
    qins_feedback f;
    qins_status status = qins_feedback_factor(group->moments, group->n_cols, DAMPING, &f, NULL, err);
    if (status == QINS_ERR_ARGUMENT) return QINS_OK; /* no inputs: whatever they are, nothing moves */
    if (status != QINS_OK) return status;
    size_t n_fit = p->text->n_sequences - p->text->n_held;
    double n = (double)p->n_tokens, total = 0;
    for (size_t k = 0; k < f.n; k++)
        *conditional +=
            held_out((double)f.d[k], (double)(f.n - 1 - k), n, (double)(n_fit * p->text->window)) / (double)f.n / n;
    qins_dense_solve_unit_upper(p->n_tokens, f.n, f.u, p->inputs[g]);
    for (size_t t = 0; t < p->n_tokens; t++) {
        shares[t] = (float)energy(p->inputs[g] + t * f.n, f.n);
        total += (double)shares[t];
    }
    for (size_t t = 0; t < p->n_tokens; t++)
        shares[t] = total > 0 ? (float)((double)shares[t] * n / total) : 1;
    qins_feedback_free(&f);
    return QINS_OK;
}

/* What a group's matrices cost, from their gradients. */
static void rate_group(const pass *p, size_t l, size_t g) {
    const qins_group *group = &p->groups[g];
    double conditional = p->conditional[l * N_GROUPS + g], n = (double)p->n_tokens;
    for (size_t i = 0; i < group->n; i++) {
        const qins_group_matrix *m = &group->matrices[i];
        if (m->w == NULL || m->item == NULL) continue;
        size_t index = (size_t)(m->item - p->plan->items);
        double sum = 0, *squares = p->losses->squared_gradient + p->losses->first_row[index];
        for (size_t r = 0; r < m->affine->weight.n_rows; r++) {
            squares[r] = p->squares[g][i][r] / n;
            double row = 0.5 * conditional * squares[r] * energy(m->w + r * group->n_cols, group->n_cols);
            if (p->row_kl != NULL && p->row_kl[index] != NULL) p->row_kl[index][r] = (float)row;
            if (is_encoded(m->item, r)) sum += row;
        }
        p->kl[index] = sum;
    }
}

/* ---- one layer ---- */

/* y := W x of every matrix, at its offset in a row of ldy */
static void apply(const qins_group *g, const float *x, size_t n, const size_t *offsets, float *y, size_t ldy) {
    for (size_t i = 0; i < g->n; i++)
        qins_group_apply(g, i, x, n, y + offsets[i], ldy);
}

/* dx := sum of W^T dy over the matrices, out of the basis of the group; squared gradients are added up. */
static void apply_backward(pass *p, size_t which, const float *shares, const float *dy, size_t n, const size_t *offsets,
                           size_t ldy, float *dx) {
    const qins_group *g = &p->groups[which];
    float beta = 0;
    for (size_t i = 0; i < g->n; i++) {
        if (g->matrices[i].w == NULL) continue;
        size_t n_rows = g->matrices[i].affine->weight.n_rows;
        const float *d = dy + offsets[i];
        for (size_t t = 0; t < n; t++)
            for (size_t r = 0; r < n_rows; r++)
                p->squares[which][i][r] += (double)shares[t] * (double)d[t * ldy + r] * (double)d[t * ldy + r];
        qins_dense_nn(n, g->n_cols, n_rows, 1.0f, d, ldy, g->matrices[i].w, g->n_cols, beta, dx, g->n_cols);
        beta = 1;
    }
    if (g->signs == NULL) return;
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++)
        qins_unrotate(dx + t * g->n_cols, g->n_cols, g->signs);
}

static void add(float *x, const float *delta, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += delta[i];
}

typedef struct offsets {
    size_t qkv[QINS_MAX_GROUP], in[QINS_MAX_GROUP], one[QINS_MAX_GROUP];
    size_t qkv_row, in_row;
    bool gated;
} offsets;

static offsets offsets_of(const pass *p) {
    qins_qkv_view view = qins_qkv_view_of(p->h);
    bool gated =
        p->groups[GROUP_IN].matrices[MATRIX_GATE].w != NULL || p->groups[GROUP_IN].matrices[MATRIX_GATE_UP].w != NULL;
    size_t inner = p->h->intermediate_size;
    return (offsets){.qkv = {view.q_offset, view.k_offset, view.v_offset, 0},
                     .in = {0, gated ? inner : 0, 0, 0},
                     .qkv_row = view.row,
                     .in_row = gated ? 2 * inner : inner,
                     .gated = gated};
}

/* Second norm of a layer with parallel blocks; without one both blocks read the first. */
static const qins_norm *mlp_norm(const qins_hparams *h, const qins_layer *layer) {
    return h->parallel_residual && layer->mlp_norm.weight == NULL ? &layer->attn_norm : &layer->mlp_norm;
}

/* Hidden states of one sequence through the layer, everything kept that the way back needs. Their moments are observed
 * when `observe` and the inputs of the groups kept as those of sequence s. out: may be NULL. */
static void forward(pass *p, const qins_layer *layer, size_t s, const float *hidden, bool observe, float *out) {
    const qins_hparams *h = p->h;
    size_t n = p->text->window, width = h->hidden_size, inner = h->intermediate_size;
    qins_group *g = p->groups;
    offsets o = offsets_of(p);
    qins_apply_norm(h, &layer->attn_norm, width, hidden, width, n, p->attn_in, width);
    qins_group_rotate(&g[GROUP_QKV], p->attn_in, n);
    apply(&g[GROUP_QKV], p->attn_in, n, o.qkv, p->qkv, o.qkv_row);
    memcpy(p->qkv_used, p->qkv, n * o.qkv_row * sizeof *p->qkv);
    qins_sequence_attend(&p->attention, h, layer, p->qkv_used, p->heads);
    qins_group_rotate(&g[GROUP_O], p->heads, n);
    apply(&g[GROUP_O], p->heads, n, o.one, p->attn_out, width);
    memcpy(p->middle, hidden, n * width * sizeof *hidden);
    qins_apply_norm(h, &layer->attn_post_norm, width, p->attn_out, width, n, p->x, width);
    add(p->middle, p->x, n * width);
    qins_apply_norm(h, mlp_norm(h, layer), width, h->parallel_residual ? hidden : p->middle, width, n, p->mlp_in,
                    width);
    qins_group_rotate(&g[GROUP_IN], p->mlp_in, n);
    apply(&g[GROUP_IN], p->mlp_in, n, o.in, p->gate_up, o.in_row);
    if (o.gated) {
        qins_activate_gated(h->activation, p->gate_up, inner, n, p->inner);
    } else {
        memcpy(p->inner, p->gate_up, n * inner * sizeof *p->inner);
        qins_activate(h->activation, p->inner, n * inner);
    }
    qins_group_rotate(&g[GROUP_DOWN], p->inner, n);
    apply(&g[GROUP_DOWN], p->inner, n, o.one, p->mlp_out, width);
    if (observe) {
        const float *inputs[N_GROUPS] = {p->attn_in, p->heads, p->mlp_in, p->inner};
        for (size_t i = 0; i < N_GROUPS; i++) {
            size_t values = n * group_cols(p, i);
            qins_group_observe(&g[i], inputs[i], n);
            memcpy(p->inputs[i] + s * values, inputs[i], values * sizeof(float));
        }
    }
    if (out == NULL) return;
    qins_apply_norm(h, &layer->mlp_post_norm, width, p->mlp_out, width, n, p->x, width);
    memcpy(out, p->middle, n * width * sizeof *out);
    add(out, p->x, n * width);
}

static const float *shares_of(const pass *p, size_t layer, size_t group, size_t sequence) {
    return p->shares + (layer * N_GROUPS + group) * p->n_tokens + sequence * p->text->window;
}

/* gradient: of the layer's output, becomes that of its input. After forward() of the same sequence. */
static qins_status backward(pass *p, size_t l, size_t s, const float *hidden, float *gradient, qins_error *err) {
    const qins_layer *layer = &p->model->layers[l];
    const qins_hparams *h = p->h;
    size_t n = p->text->window, width = h->hidden_size, inner = h->intermediate_size;
    offsets o = offsets_of(p);
    qins_norm_backward(h, &layer->mlp_post_norm, width, p->mlp_out, width, n, gradient, width, p->d_out, width);
    apply_backward(p, GROUP_DOWN, shares_of(p, l, GROUP_DOWN, s), p->d_out, n, o.one, width, p->d_inner);
    if (o.gated)
        qins_activate_gated_backward(h->activation, p->gate_up, inner, n, p->d_inner, p->d_gate_up);
    else
        qins_activate_backward(h->activation, p->gate_up, p->d_inner, n * inner, p->d_gate_up);
    apply_backward(p, GROUP_IN, shares_of(p, l, GROUP_IN, s), p->d_gate_up, n, o.in, o.in_row, p->d_in);
    const float *mlp_from = h->parallel_residual ? hidden : p->middle;
    qins_norm_backward(h, mlp_norm(h, layer), width, mlp_from, width, n, p->d_in, width, p->d_x, width);
    /* The attention block does not feed the MLP of a layer with parallel blocks. */
    if (!h->parallel_residual) add(gradient, p->d_x, n * width);
    qins_norm_backward(h, &layer->attn_post_norm, width, p->attn_out, width, n, gradient, width, p->d_out, width);
    if (h->parallel_residual) add(gradient, p->d_x, n * width);
    apply_backward(p, GROUP_O, shares_of(p, l, GROUP_O, s), p->d_out, n, o.one, width, p->d_heads);
    qins_status status = qins_sequence_attend_backward(&p->attention, h, layer, p->qkv, p->d_heads, p->d_qkv, err);
    if (status != QINS_OK) return status;
    apply_backward(p, GROUP_QKV, shares_of(p, l, GROUP_QKV, s), p->d_qkv, n, o.qkv, o.qkv_row, p->d_in);
    qins_norm_backward(h, &layer->attn_norm, width, hidden, width, n, p->d_in, width, p->d_x, width);
    add(gradient, p->d_x, n * width);
    return QINS_OK;
}

static float *states_of(const pass *p, size_t layer, size_t sequence) {
    return p->states + (layer * p->n_tokens + sequence * p->text->window) * p->h->hidden_size;
}

static float *gradient_of(const pass *p, size_t sequence) {
    return p->gradient + sequence * p->text->window * p->h->hidden_size;
}

/* ---- embedding and head ---- */

static void embed(pass *p) {
    const qins_model *m = p->model;
    size_t width = p->h->hidden_size;
    const int32_t *ids = p->text->ids + p->first_sequence * p->text->window;
    for (size_t t = 0; t < p->n_tokens; t++) {
        float *x = p->states + t * width;
        qins_matrix_decode_rows(&m->embed, (size_t)ids[t], 1, x);
        for (size_t i = 0; i < width; i++)
            x[i] *= p->h->embedding_scale;
        if (!m->positions.present) continue;
        qins_matrix_decode_rows(&m->positions.weight, t % p->text->window, 1, p->x);
        add(x, p->x, width);
    }
}

/* splitmix64, uniform in [0, 1) */
static double next_random(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (double)((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

/* logits[vocab] become the gradient of log p(y) with respect to them before the cap, y sampled from p. */
static void logit_gradient(const qins_hparams *h, float *logits, double draw) {
    size_t n = h->vocab_size;
    float largest = -INFINITY;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, logits[i]);
    double sum = 0, so_far = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)expf(logits[i] - largest);
    size_t y = n;
    for (size_t i = 0; i < n; i++) {
        float slope = h->logit_cap > 0 ? 1.0f - logits[i] / h->logit_cap * (logits[i] / h->logit_cap) : 1.0f;
        double probability = (double)expf(logits[i] - largest) / sum;
        so_far += probability;
        bool sampled = y == n && so_far > draw;
        if (sampled) y = i;
        logits[i] = slope * ((sampled ? 1.0f : 0.0f) - (float)probability);
    }
}

/* Gradient of the last layer's output, and what rounding the head costs. */
static qins_status head_backward(pass *p, qins_error *err) {
    enum { CHUNK = 64 };
    const qins_model *m = p->model;
    const qins_hparams *h = p->h;
    size_t width = h->hidden_size, vocab = h->vocab_size;
    float *w = qins_alloc_aligned(vocab * width, sizeof *w), *logits = qins_alloc_aligned(CHUNK * vocab, sizeof *w);
    float *x = qins_alloc_aligned(2 * CHUNK * width, sizeof *x), *dx = x != NULL ? x + CHUNK * width : NULL;
    double *squares = qins_alloc(vocab, sizeof *squares), input_energy = 0;
    qins_status status = QINS_OK;
    if (w == NULL || logits == NULL || x == NULL || squares == NULL)
        status = qins_fail_memory(err, vocab * width * sizeof *w, "the head");
    if (status == QINS_OK) qins_matrix_decode_rows(&m->head.weight, 0, vocab, w);
    uint64_t random = 1;
    for (size_t t = 0; t < p->n_tokens && status == QINS_OK; t += CHUNK) {
        size_t n = qins_min_size(CHUNK, p->n_tokens - t);
        const float *hidden = states_of(p, h->n_layers, 0) + t * width;
        double draws[CHUNK];
        for (size_t i = 0; i < n; i++)
            draws[i] = next_random(&random);
        qins_apply_norm(h, &m->final_norm, width, hidden, width, n, x, width);
        qins_dense_nt(n, vocab, width, 1.0f, x, width, w, width, 0.0f, logits, vocab);
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < n; i++) {
            if (m->head.bias != NULL) add(logits + i * vocab, m->head.bias, vocab);
            if (h->logit_cap > 0) qins_soft_cap(h->logit_cap, logits + i * vocab, vocab);
            logit_gradient(h, logits + i * vocab, draws[i]);
        }
        for (size_t i = 0; i < n; i++)
            for (size_t v = 0; v < vocab; v++)
                squares[v] += (double)logits[i * vocab + v] * (double)logits[i * vocab + v];
        input_energy += energy(x, n * width);
        qins_dense_nn(n, width, vocab, 1.0f, logits, vocab, w, width, 0.0f, dx, width);
        qins_norm_backward(h, &m->final_norm, width, hidden, width, n, dx, width, p->gradient + t * width, width);
    }
    const qins_plan_item *item = find_item(p, QINS_ROLE_HEAD, QINS_SLOT_HEAD, 0);
    if (item == NULL && h->tied_head) item = find_item(p, QINS_ROLE_EMBEDDING, QINS_SLOT_EMBED, 0);
    if (status == QINS_OK && item != NULL) {
        double sum = 0, n = (double)p->n_tokens;
        for (size_t v = 0; v < vocab; v++)
            sum += squares[v] / n * energy(w + v * width, width);
        p->kl[item - p->plan->items] += 0.5 * sum * input_energy / n / (double)width;
    }
    free(w);
    free(logits);
    free(x);
    free(squares);
    return status;
}

/* Errors of embeddings are as long as mse * |embedding|^2 says, in any direction. */
static void rate_embedding(const pass *p) {
    const qins_plan_item *item = find_item(p, QINS_ROLE_EMBEDDING, QINS_SLOT_EMBED, 0);
    size_t width = p->h->hidden_size;
    if (item == NULL) return;
    double sum = 0;
    for (size_t t = 0; t < p->n_tokens; t++)
        sum += energy(p->gradient + t * width, width) * energy(p->states + t * width, width);
    p->kl[item - p->plan->items] += 0.5 * sum / (double)p->n_tokens / (double)width;
}

/* ---- all layers ---- */

static qins_status prepare(pass *p, qins_error *err) {
    const qins_hparams *h = p->h;
    size_t n = p->text->window, width = h->hidden_size, heads = h->n_heads * h->head_dim, row = qins_qkv_view_of(h).row;
    size_t inner = h->intermediate_size, states = (h->n_layers + 1) * p->n_tokens;
    const struct {
        float **to;
        size_t rows, cols;
    } buffers[] = {{&p->states, states, width},
                   {&p->gradient, p->n_tokens, width},
                   {&p->x, n, width},
                   {&p->attn_in, n, width},
                   {&p->qkv, n, row},
                   {&p->qkv_used, n, row},
                   {&p->heads, n, heads},
                   {&p->attn_out, n, width},
                   {&p->middle, n, width},
                   {&p->mlp_in, n, width},
                   {&p->gate_up, n, 2 * inner},
                   {&p->inner, n, inner},
                   {&p->mlp_out, n, width},
                   {&p->d_out, n, width},
                   {&p->d_inner, n, inner},
                   {&p->d_gate_up, n, 2 * inner},
                   {&p->d_in, n, width},
                   {&p->d_heads, n, heads},
                   {&p->d_qkv, n, row},
                   {&p->d_x, n, width},
                   {&p->inputs[0], p->n_tokens, group_cols(p, 0)},
                   {&p->inputs[1], p->n_tokens, group_cols(p, 1)},
                   {&p->inputs[2], p->n_tokens, group_cols(p, 2)},
                   {&p->inputs[3], p->n_tokens, group_cols(p, 3)},
                   {&p->shares, h->n_layers * N_GROUPS, p->n_tokens}};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        size_t values;
        bool fits = qins_mul_size(buffers[i].rows, buffers[i].cols, &values);
        *buffers[i].to = fits ? qins_alloc_aligned(values, sizeof(float)) : NULL;
        if (*buffers[i].to == NULL)
            return qins_fail_memory(err, buffers[i].rows * buffers[i].cols * sizeof(float), "activations");
    }
    p->conditional = qins_alloc(h->n_layers * N_GROUPS, sizeof *p->conditional);
    if (p->conditional == NULL) return qins_fail_memory(err, h->n_layers * N_GROUPS * sizeof(double), "moments");
    return qins_sequence_attention_init(&p->attention, h, n, err);
}

static void release(pass *p) {
    float *buffers[] = {p->states,    p->gradient,  p->x,         p->attn_in, p->qkv,   p->qkv_used, p->heads,
                        p->attn_out,  p->middle,    p->mlp_in,    p->gate_up, p->inner, p->mlp_out,  p->d_out,
                        p->d_inner,   p->d_gate_up, p->d_in,      p->d_heads, p->d_qkv, p->d_x,      p->inputs[0],
                        p->inputs[1], p->inputs[2], p->inputs[3], p->shares};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    free(p->conditional);
    close_groups(p);
    qins_sequence_attention_free(&p->attention);
}

typedef struct reporter {
    qins_progress progress;
    void *user;
    uint64_t done, total;
} reporter;

static qins_status step(reporter *r, qins_error *err) {
    r->done++;
    if (!qins_report(r->progress, r->user, "measure", r->done, r->total)) return QINS_OK;
    return qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
}

static qins_status run(pass *p, reporter *r, qins_error *err) {
    size_t n_layers = p->h->n_layers;
    qins_status status = QINS_OK;
    embed(p);
    for (size_t l = 0; l < n_layers && status == QINS_OK; l++) {
        status = open_groups(p, l, err);
        for (size_t s = 0; s < p->n_sequences && status == QINS_OK; s++)
            forward(p, &p->model->layers[l], s, states_of(p, l, s), true, states_of(p, l + 1, s));
        for (size_t g = 0; g < N_GROUPS && status == QINS_OK; g++)
            status = weigh_inputs(p, l, g, err);
        close_groups(p);
        if (status == QINS_OK) status = step(r, err);
    }
    if (status == QINS_OK) status = head_backward(p, err);
    for (size_t l = n_layers; l-- > 0 && status == QINS_OK;) {
        status = open_groups(p, l, err);
        for (size_t s = 0; s < p->n_sequences && status == QINS_OK; s++) {
            forward(p, &p->model->layers[l], s, states_of(p, l, s), false, NULL);
            status = backward(p, l, s, states_of(p, l, s), gradient_of(p, s), err);
        }
        for (size_t g = 0; g < N_GROUPS && status == QINS_OK; g++)
            rate_group(p, l, g);
        close_groups(p);
        for (size_t i = 0; i < 2 && status == QINS_OK; i++)
            status = step(r, err);
    }
    if (status == QINS_OK) rate_embedding(p);
    return status;
}

qins_status qins_sensitivities(const qins_model *model, const qins_plan *plan, const qins_calibration_text *text,
                               size_t n_sequences, qins_progress progress, void *progress_user, qins_losses *losses,
                               float *const *row_kl, qins_error *err) {
    const qins_hparams *h = &model->weights->hparams;
    if (h->n_experts > 0)
        return qins_fail(err, QINS_ERR_UNSUPPORTED,
                         "widths cannot be chosen by tensor in a mixture of experts yet: use --bits");
    pass p = {.model = model,
              .h = h,
              .plan = plan,
              .text = text,
              .n_sequences = n_sequences,
              .first_sequence = text->n_sequences - n_sequences,
              .losses = losses,
              .kl = losses->kl,
              .row_kl = row_kl};
    p.n_tokens = p.n_sequences * text->window;
    reporter r = {progress, progress_user, 0, 3 * h->n_layers};
    int blas_threads = qins_dense_begin();
    qins_status status = prepare(&p, err);
    if (status == QINS_OK) status = run(&p, &r, err);
    if (status == QINS_OK)
        memcpy(losses->hidden, states_of(&p, h->n_layers, n_sequences) - losses->n_hidden,
               losses->n_hidden * sizeof(float));
    release(&p);
    qins_dense_end(blas_threads);
    return status;
}
