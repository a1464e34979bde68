/* Does a checkpoint hold the tensors that its config calls for, each in its shape? SPDX-License-Identifier: MIT */
#include "model/weights.h"

#include <string.h>

enum { NAME_SIZE = 512 };

typedef struct shape {
    size_t rows, cols;
} shape;

/* Outputs and inputs of a matrix; of a norm its length and 0. */
static shape expected_shape(const qins_hparams *h, qins_slot slot) {
    size_t width = h->hidden_size, inner = h->intermediate_size, expert = h->expert_size,
           shared = h->shared_expert_size, q = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim;
    bool full = h->family->qk_norm == QINS_QK_NORM_FULL;
    const shape shapes[QINS_SLOT_COUNT] = {[QINS_SLOT_EMBED] = {h->vocab_size, width},
                                           [QINS_SLOT_POSITION] = {h->max_position, width},
                                           [QINS_SLOT_FINAL_NORM] = {width, 0},
                                           [QINS_SLOT_HEAD] = {h->vocab_size, width},
                                           [QINS_SLOT_ATTN_NORM] = {width, 0},
                                           [QINS_SLOT_ATTN_POST_NORM] = {width, 0},
                                           [QINS_SLOT_MLP_NORM] = {width, 0},
                                           [QINS_SLOT_MLP_POST_NORM] = {width, 0},
                                           [QINS_SLOT_Q_NORM] = {full ? q : h->head_dim, 0},
                                           [QINS_SLOT_K_NORM] = {full ? kv : h->head_dim, 0},
                                           [QINS_SLOT_Q] = {q, width},
                                           [QINS_SLOT_K] = {kv, width},
                                           [QINS_SLOT_V] = {kv, width},
                                           [QINS_SLOT_QKV] = {q + 2 * kv, width},
                                           [QINS_SLOT_O] = {width, q},
                                           [QINS_SLOT_GATE] = {inner, width},
                                           [QINS_SLOT_UP] = {inner, width},
                                           [QINS_SLOT_GATE_UP] = {2 * inner, width},
                                           [QINS_SLOT_DOWN] = {width, inner},
                                           [QINS_SLOT_ROUTER] = {h->n_experts, width},
                                           [QINS_SLOT_SHARED_ROUTER] = {1, width},
                                           [QINS_SLOT_SHARED_GATE] = {shared, width},
                                           [QINS_SLOT_SHARED_UP] = {shared, width},
                                           [QINS_SLOT_SHARED_DOWN] = {width, shared},
                                           [QINS_SLOT_EXPERT_GATE] = {expert, width},
                                           [QINS_SLOT_EXPERT_UP] = {expert, width},
                                           [QINS_SLOT_EXPERT_DOWN] = {width, expert}};
    return shapes[slot];
}

static const qins_parameter *find_place(const qins_weights *w, qins_place place, const char *suffix, char *name) {
    const qins_parameter *p = NULL;
    for (int prefix = 0; prefix < 2 && p == NULL; prefix++)
        if (qins_place_name(w->hparams.family, place, suffix, prefix == 1, name, NAME_SIZE))
            p = qins_weights_find(w, name);
    return p;
}

static qins_status check_tensor(const qins_weights *w, qins_place place, const char *suffix, qins_error *err) {
    const char *path = w->checkpoint->path;
    shape expected = expected_shape(&w->hparams, place.slot);
    char name[NAME_SIZE] = "";
    const qins_parameter *p = find_place(w, place, suffix, name);
    if (p == NULL) {
        const char *why = place.slot == QINS_SLOT_HEAD ? " and the config does not tie it to the embedding" : "";
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s is missing%s", path, name, why);
    }
    if (strcmp(suffix, ".bias") == 0 || expected.cols == 0) {
        if (p->n_values == expected.rows) return QINS_OK;
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected %zu values, found %llu", path, p->name,
                         expected.rows, (unsigned long long)p->n_values);
    }
    if (p->n_dims != 2)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected %zu x %zu, found %zu dimensions", path, p->name,
                         expected.rows, expected.cols, p->n_dims);
    if (p->shape[0] == expected.rows && p->shape[1] == expected.cols) return QINS_OK;
    return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected %zu x %zu, found %llu x %llu", path, p->name,
                     expected.rows, expected.cols, (unsigned long long)p->shape[0], (unsigned long long)p->shape[1]);
}

/* Weight and bias of one place. A bias that the config announces has to be there; one that it does not announce would
 * be left out of the sum. */
static qins_status check_place(const qins_weights *w, qins_place place, qins_error *err) {
    const qins_hparams *h = &w->hparams;
    if (h->family->slot[place.slot] == NULL) return QINS_OK;
    bool tied = place.slot == QINS_SLOT_HEAD && h->tied_head;
    qins_status status = tied ? QINS_OK : check_tensor(w, place, ".weight", err);
    if (status != QINS_OK) return status;
    bool is_norm = expected_shape(h, place.slot).cols == 0;
    if (h->has_bias[place.slot] || (is_norm && h->family->norm == QINS_NORM_LAYER))
        return check_tensor(w, place, ".bias", err);
    char name[NAME_SIZE] = "";
    if (is_norm || find_place(w, place, ".bias", name) == NULL) return QINS_OK;
    return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: tensor %s: model_type \"%s\" has no such bias with this config",
                     w->checkpoint->path, name, h->family->model_type);
}

static qins_status check_layer(const qins_weights *w, size_t layer, qins_error *err) {
    bool has_experts = (w->hparams.layer_flags[layer] & QINS_LAYER_EXPERTS) != 0;
    qins_status status = QINS_OK;
    for (int s = QINS_SLOT_ATTN_NORM; s < QINS_SLOT_COUNT && status == QINS_OK; s++) {
        bool is_dense = s >= QINS_SLOT_GATE && s <= QINS_SLOT_DOWN;
        bool is_sparse = s >= QINS_SLOT_ROUTER;
        if ((is_dense && has_experts) || (is_sparse && !has_experts)) continue;
        size_t n = s >= QINS_SLOT_EXPERT_GATE ? w->hparams.n_experts : 1;
        for (size_t e = 0; e < n && status == QINS_OK; e++)
            status = check_place(w, (qins_place){(qins_slot)s, layer, e}, err);
    }
    return status;
}

qins_status qins_weights_check(const qins_weights *w, qins_error *err) {
    static const qins_slot before[] = {QINS_SLOT_EMBED, QINS_SLOT_POSITION};
    static const qins_slot after[] = {QINS_SLOT_FINAL_NORM, QINS_SLOT_HEAD};
    qins_status status = QINS_OK;
    for (size_t i = 0; i < 2 && status == QINS_OK; i++)
        status = check_place(w, (qins_place){.slot = before[i]}, err);
    for (size_t l = 0; l < w->hparams.n_layers && status == QINS_OK; l++)
        status = check_layer(w, l, err);
    for (size_t i = 0; i < 2 && status == QINS_OK; i++)
        status = check_place(w, (qins_place){.slot = after[i]}, err);
    return status;
}
