/* Opening a model: every parameter found (weights.c has checked that it is there, in its shape), its text tools built.
 * SPDX-License-Identifier: MIT */
#include "model/model.h"
#include "model/kv_transform.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 512 };

/* A tensor by its place, with the prefix that whole models have or without. name: what was looked for. */
static const qins_parameter *find_place(const qins_model *m, qins_place place, const char *suffix, char *name) {
    const qins_family *family = m->weights->hparams.family;
    const qins_parameter *p = NULL;
    if (qins_place_name(family, place, suffix, false, name, NAME_SIZE)) p = qins_weights_find(m->weights, name);
    if (p == NULL && qins_place_name(family, place, suffix, true, name, NAME_SIZE))
        p = qins_weights_find(m->weights, name);
    return p;
}

static qins_status fail_missing(const qins_model *m, const char *name, qins_error *err) {
    return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s is missing", m->weights->checkpoint->path, name);
}

static qins_status load_vector(const qins_model *m, qins_place place, const char *suffix, float **values, size_t *n,
                               qins_error *err) {
    char name[NAME_SIZE] = "";
    const qins_parameter *p = find_place(m, place, suffix, name);
    if (p == NULL) return fail_missing(m, name, err);
    *n = (size_t)p->n_values;
    return qins_weights_vector(m->weights, p, values, err);
}

static qins_status load_bias(const qins_model *m, qins_place place, float **bias, qins_error *err) {
    size_t n;
    return m->weights->hparams.has_bias[place.slot] ? load_vector(m, place, ".bias", bias, &n, err) : QINS_OK;
}

static qins_status load_norm(const qins_model *m, qins_place place, qins_norm *norm, qins_error *err) {
    const qins_family *family = m->weights->hparams.family;
    if (family->slot[place.slot] == NULL) return QINS_OK;
    size_t n = 0;
    qins_status status = load_vector(m, place, ".weight", &norm->weight, &n, err);
    if (status == QINS_OK && family->norm == QINS_NORM_LAYER)
        status = load_vector(m, place, ".bias", &norm->bias, &n, err);
    if (status == QINS_OK && family->norm == QINS_NORM_RMS_PLUS_ONE)
        for (size_t i = 0; i < n; i++)
            norm->weight[i] += 1.0f;
    return status;
}

static qins_status load_matrix(const qins_model *m, qins_place place, qins_matrix *matrix, qins_error *err) {
    char name[NAME_SIZE] = "";
    const qins_parameter *p = find_place(m, place, ".weight", name);
    return p != NULL ? qins_weights_matrix(m->weights, p, matrix, err) : fail_missing(m, name, err);
}

static qins_status load_affine(const qins_model *m, qins_place place, qins_affine *a, qins_error *err) {
    if (m->weights->hparams.family->slot[place.slot] == NULL) return QINS_OK;
    qins_status status = load_matrix(m, place, &a->weight, err);
    if (status != QINS_OK) return status;
    a->present = true;
    return load_bias(m, place, &a->bias, err);
}

static qins_status load_norms(const qins_model *m, size_t l, qins_layer *layer, qins_error *err) {
    const struct {
        qins_slot slot;
        qins_norm *to;
    } norms[] = {{QINS_SLOT_ATTN_NORM, &layer->attn_norm}, {QINS_SLOT_ATTN_POST_NORM, &layer->attn_post_norm},
                 {QINS_SLOT_MLP_NORM, &layer->mlp_norm},   {QINS_SLOT_MLP_POST_NORM, &layer->mlp_post_norm},
                 {QINS_SLOT_Q_NORM, &layer->q_norm},       {QINS_SLOT_K_NORM, &layer->k_norm}};
    qins_status status = QINS_OK;
    for (size_t i = 0; i < sizeof norms / sizeof norms[0] && status == QINS_OK; i++)
        status = load_norm(m, (qins_place){norms[i].slot, l, 0}, norms[i].to, err);
    return status;
}

static qins_status load_expert(const qins_model *m, qins_place place, const qins_slot slots[3], qins_expert *expert,
                               qins_error *err) {
    qins_affine *affines[3] = {&expert->gate, &expert->up, &expert->down};
    qins_status status = QINS_OK;
    for (size_t i = 0; i < 3 && status == QINS_OK; i++) {
        place.slot = slots[i];
        status = load_affine(m, place, affines[i], err);
    }
    return status;
}

static qins_status load_experts(const qins_model *m, size_t l, qins_layer *layer, qins_error *err) {
    static const qins_slot shared[3] = {QINS_SLOT_SHARED_GATE, QINS_SLOT_SHARED_UP, QINS_SLOT_SHARED_DOWN};
    static const qins_slot own[3] = {QINS_SLOT_EXPERT_GATE, QINS_SLOT_EXPERT_UP, QINS_SLOT_EXPERT_DOWN};
    const qins_hparams *h = &m->weights->hparams;
    layer->experts = qins_alloc(h->n_experts, sizeof *layer->experts);
    if (layer->experts == NULL) return qins_fail_memory(err, h->n_experts * sizeof *layer->experts, "experts");
    qins_place place = {QINS_SLOT_ROUTER, l, 0};
    qins_status status = load_affine(m, place, &layer->router, err);
    place.slot = QINS_SLOT_SHARED_ROUTER;
    if (status == QINS_OK) status = load_affine(m, place, &layer->shared_router, err);
    if (status == QINS_OK) status = load_expert(m, place, shared, &layer->shared, err);
    for (size_t e = 0; e < h->n_experts && status == QINS_OK; e++) {
        place.expert = e;
        status = load_expert(m, place, own, &layer->experts[e], err);
    }
    return status;
}

static qins_status load_layer(const qins_model *m, size_t l, qins_layer *layer, qins_error *err) {
    const struct {
        qins_slot slot;
        qins_affine *to;
    } affines[] = {{QINS_SLOT_Q, &layer->q},
                   {QINS_SLOT_K, &layer->k},
                   {QINS_SLOT_V, &layer->v},
                   {QINS_SLOT_QKV, &layer->qkv},
                   {QINS_SLOT_O, &layer->o},
                   /* of the MLP: layers of experts lack them */
                   {QINS_SLOT_GATE, &layer->gate},
                   {QINS_SLOT_UP, &layer->up},
                   {QINS_SLOT_GATE_UP, &layer->gate_up},
                   {QINS_SLOT_DOWN, &layer->down}};
    layer->flags = m->weights->hparams.layer_flags[l];
    bool experts = (layer->flags & QINS_LAYER_EXPERTS) != 0;
    qins_status status = load_norms(m, l, layer, err);
    for (size_t i = 0; i < sizeof affines / sizeof affines[0] && status == QINS_OK; i++)
        if (!experts || affines[i].slot < QINS_SLOT_GATE)
            status = load_affine(m, (qins_place){affines[i].slot, l, 0}, affines[i].to, err);
    return status == QINS_OK && experts ? load_experts(m, l, layer, err) : status;
}

static qins_status load_head(qins_model *m, qins_error *err) {
    m->head.present = true;
    qins_place place = {.slot = QINS_SLOT_HEAD};
    qins_status status = QINS_OK;
    if (m->weights->hparams.tied_head)
        m->head.weight = m->embed;
    else
        status = load_matrix(m, place, &m->head.weight, err);
    return status == QINS_OK ? load_bias(m, place, &m->head.bias, err) : status;
}

static qins_status load_tokenizer(qins_model *m, qins_error *err) {
    json_t *json = NULL;
    qins_status status = qins_checkpoint_tokenizer(m->weights->checkpoint, &json, err);
    if (status != QINS_OK) return status;
    status = qins_tokenizer_new(json, m->weights->checkpoint->path, &m->tokenizer, err);
    json_decref(json);
    return status;
}

/* The codec of the linears, "mixed" when they differ, and the bytes that decoding one token reads. */
static void summarize(qins_model *m) {
    const qins_weights *w = m->weights;
    const char *codec = NULL;
    uint64_t expert_bytes = 0;
    bool untied = m->head.weight.codes != m->embed.codes || m->head.weight.source != m->embed.source;
    for (size_t i = 0; i < w->n_parameters; i++) {
        const qins_parameter *p = &w->parameters[i];
        if ((p->role == QINS_ROLE_EMBEDDING && untied) || p->slot == QINS_SLOT_POSITION) continue; /* one row */
        uint64_t bytes = p->plain != NULL ? p->plain->n_bytes : 0;
        for (int part = 0; p->encoded != NULL && part < QINS_PART_COUNT; part++)
            bytes += p->encoded->parts[part] != NULL ? p->encoded->parts[part]->n_bytes : 0;
        if (p->encoded != NULL && p->encoded->rest != NULL) {
            bytes += p->encoded->rest->n_bytes;
            m->has_splits = true;
        }
        if (p->role == QINS_ROLE_LINEAR && p->slot >= QINS_SLOT_EXPERT_GATE && p->slot < QINS_SLOT_COUNT)
            expert_bytes += bytes;
        else
            m->bytes_per_token += bytes;
        if (p->encoded == NULL || p->role != QINS_ROLE_LINEAR) continue;
        const char *name = qins_codec_name(p->encoded->options.codec);
        codec = codec == NULL || strcmp(codec, name) == 0 ? name : "mixed";
    }
    if (w->hparams.n_experts > 0) m->bytes_per_token += expert_bytes / w->hparams.n_experts * w->hparams.n_experts_used;
    snprintf(m->codec, sizeof m->codec, "%s", codec != NULL ? codec : "none");
}

static qins_status load(qins_model *m, qins_error *err) {
    const qins_hparams *h = &m->weights->hparams;
    m->layers = qins_alloc(h->n_layers, sizeof *m->layers);
    if (m->layers == NULL) return qins_fail_memory(err, h->n_layers * sizeof *m->layers, "layers");
    qins_place embed = {.slot = QINS_SLOT_EMBED}, position = {.slot = QINS_SLOT_POSITION},
               norm = {.slot = QINS_SLOT_FINAL_NORM};
    qins_status status = load_matrix(m, embed, &m->embed, err);
    if (status == QINS_OK) status = load_affine(m, position, &m->positions, err);
    for (size_t l = 0; l < h->n_layers && status == QINS_OK; l++)
        status = load_layer(m, l, &m->layers[l], err);
    if (status == QINS_OK) status = load_norm(m, norm, &m->final_norm, err);
    if (status == QINS_OK) status = load_head(m, err);
    if (status == QINS_OK) status = qins_kv_transform_load(m->weights, &m->kv_transform, err);
    if (status == QINS_OK) status = load_tokenizer(m, err);
    if (status == QINS_OK) summarize(m);
    return status;
}

qins_status qins_model_open(const char *path, const qins_model_options *options, qins_model **model, qins_error *err) {
    *model = NULL;
    qins_model *m = qins_alloc(1, sizeof *m);
    if (m == NULL) return qins_fail_memory(err, sizeof *m, "a model");
    const qins_load_progress progress = {options != NULL ? options->progress : NULL,
                                         options != NULL ? options->progress_user : NULL};
    qins_status status = qins_weights_load(path, options != NULL && options->no_check, &progress, &m->weights, err);
    if (status == QINS_OK && options != NULL && options->float_arithmetic) qins_weights_multiply_in_float(m->weights);
    if (status == QINS_OK) status = load(m, err);
    if (status == QINS_OK)
        *model = m;
    else
        qins_model_close(m);
    return status;
}

static void free_norm(qins_norm *norm) {
    free(norm->weight);
    free(norm->bias);
}

static void free_layer(qins_layer *layer) {
    qins_norm *norms[] = {&layer->attn_norm,     &layer->attn_post_norm, &layer->mlp_norm,
                          &layer->mlp_post_norm, &layer->q_norm,         &layer->k_norm};
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++)
        free_norm(norms[i]);
    qins_affine *affines[] = {&layer->q,    &layer->k,  &layer->v,       &layer->qkv, &layer->o,
                              &layer->gate, &layer->up, &layer->gate_up, &layer->down};
    for (size_t i = 0; i < sizeof affines / sizeof affines[0]; i++)
        free(affines[i]->bias);
    free(layer->experts); /* experts and routers have no biases */
}

void qins_model_close(qins_model *m) {
    if (m == NULL) return;
    for (size_t l = 0; m->layers != NULL && l < m->weights->hparams.n_layers; l++)
        free_layer(&m->layers[l]);
    free(m->layers);
    free_norm(&m->final_norm);
    free(m->head.bias);
    qins_kv_transform_free(m->kv_transform);
    qins_tokenizer_free(m->tokenizer);
    qins_weights_close(m->weights);
    free(m);
}

void qins_model_get_info(const qins_model *m, qins_model_info *info) {
    const qins_hparams *h = &m->weights->hparams;
    *info = (qins_model_info){.model_type = h->family->model_type,
                              .codec = m->codec,
                              .n_layers = h->n_layers,
                              .hidden_size = h->hidden_size,
                              .n_heads = h->n_heads,
                              .n_kv_heads = h->n_kv_heads,
                              .head_dim = h->head_dim,
                              .intermediate_size = h->intermediate_size,
                              .vocab_size = h->vocab_size,
                              .max_position = h->max_position,
                              .bytes_touched_per_token = m->bytes_per_token,
                              .bos_id = h->bos_id,
                              .eos_id = h->eos_id};
    for (size_t i = 0; i < m->weights->n_parameters; i++)
        info->n_params += m->weights->parameters[i].n_values;
}

qins_status qins_tokenize(const qins_model *m, const char *text, size_t n_bytes, bool add_special, bool parse_special,
                          int32_t **ids, size_t *n_ids, qins_error *err) {
    return qins_tokenizer_encode(m->tokenizer, text, n_bytes, add_special, parse_special, ids, n_ids, err);
}

qins_status qins_detokenize(const qins_model *m, const int32_t *ids, size_t n_ids, bool skip_special, char **text,
                            size_t *n_bytes, qins_error *err) {
    return qins_tokenizer_decode(m->tokenizer, ids, n_ids, skip_special, text, n_bytes, err);
}

qins_status qins_detok_new(const qins_model *m, bool skip_special, qins_detok **detok, qins_error *err) {
    return qins_detok_of(m->tokenizer, skip_special, detok, err);
}
