/* Numbers of a model from its config.json. SPDX-License-Identifier: MIT
 *
 * Everything read here sizes memory or drives loops, so every number has bounds.
 */
#include "model/config_reader.h"
#include "model/families.h"

#include <math.h>
#include <string.h>

typedef qins_config_reader reader;

enum { MAX_WIDTH = 1 << 24, MAX_VOCABULARY = 1 << 26, MAX_POSITIONS = 1 << 28, MAX_EXPERTS = 1 << 16 };

/* The family's own name of a key where the config has it, else the usual one. */
static const char *key_of(const reader *r, const char *own, const char *usual) {
    return qins_config_get(r, own) != NULL ? own : usual;
}

/* A token id or the first of a list; -1 without one. */
static int64_t get_id(const reader *r, const char *key) {
    const json_t *value = qins_config_get(r, key);
    if (json_is_array(value)) value = json_array_get(value, 0);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static void read_activation(reader *r, const qins_family *family, qins_activation *activation) {
    static const struct {
        const char *name;
        qins_activation activation;
    } known[] = {
        {"silu", QINS_ACT_SILU},          {"swish", QINS_ACT_SILU},          {"gelu", QINS_ACT_GELU},
        {"gelu_new", QINS_ACT_GELU_TANH}, {"gelu_fast", QINS_ACT_GELU_TANH}, {"gelu_pytorch_tanh", QINS_ACT_GELU_TANH},
        {"relu", QINS_ACT_RELU}};
    const char *fallback = family->default_activation != NULL ? family->default_activation : "silu";
    const char *name = qins_config_string(r, key_of(r, family->activation_key, "hidden_act"), fallback);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            *activation = known[i].activation;
            if (*activation == QINS_ACT_GELU && family->gelu_is_tanh) *activation = QINS_ACT_GELU_TANH;
            return;
        }
    qins_config_unsupported(r, "activation \"%s\"", name);
}

static void check_fixed_options(reader *r, const qins_family *family) {
    for (size_t i = 0; i < QINS_MAX_FIXED_OPTIONS && family->fixed[i].key != NULL; i++) {
        const json_t *found = qins_config_get(r, family->fixed[i].key);
        if (found == NULL) continue;
        char *text = json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT);
        if (text == NULL || strcmp(text, family->fixed[i].value) != 0)
            qins_config_unsupported(r, "config key \"%s\" = %.60s in model_type \"%s\"", family->fixed[i].key,
                                    text != NULL ? text : "?", family->model_type);
        qins_free(text);
    }
    /* Weights that another tool quantised need that tool's decoder. */
    const json_t *quantization = qins_config_get(r, "quantization_config");
    const char *method = json_string_value(json_object_get(quantization, "quant_method"));
    if (quantization != NULL && (method == NULL || strcmp(method, "qins") != 0))
        qins_config_unsupported(r, "quantization method \"%.60s\"", method != NULL ? method : "?");
}

static void read_biases(reader *r, const qins_family *family, bool *has_bias) {
    const bool value[] = {[QINS_BIAS_NONE] = false,
                          [QINS_BIAS_ALWAYS] = true,
                          [QINS_BIAS_ATTENTION] = qins_config_bool(r, "attention_bias", family->attention_bias),
                          [QINS_BIAS_MLP] = qins_config_bool(r, "mlp_bias", false),
                          [QINS_BIAS_QKV] = qins_config_bool(r, "qkv_bias", family->qkv_bias)};
    for (int s = 0; s < QINS_SLOT_COUNT; s++)
        has_bias[s] = value[family->bias[s]];
}

/* ---- what differs from layer to layer ---- */

static void set_flag(qins_hparams *h, size_t layer, qins_layer_flag flag, bool on) {
    if (on) h->layer_flags[layer] = (uint8_t)(h->layer_flags[layer] | flag);
}

static void read_rope_layers(reader *r, qins_hparams *h) {
    if (!h->family->skips_rope_in_layers) return;
    const json_t *list = qins_config_list(r, "no_rope_layers", h->n_layers); /* 1 = has rope */
    size_t interval = qins_config_size(r, "no_rope_layer_interval", 4, QINS_MAX_LAYERS);
    for (size_t l = 0; l < h->n_layers; l++) {
        const json_t *item = json_array_get(list, l);
        if (list != NULL && !json_is_integer(item)) qins_config_fail(r, "no_rope_layers", "0 or 1", item);
        set_flag(h, l, QINS_LAYER_NO_ROPE, list != NULL ? json_integer_value(item) == 0 : (l + 1) % interval == 0);
    }
}

static void read_windows(reader *r, qins_hparams *h) {
    const qins_family *family = h->family;
    bool absent = json_object_get(r->config, "sliding_window") == NULL;
    bool on = family->window != QINS_WINDOW_NONE &&
              (qins_config_get(r, "sliding_window") != NULL || (absent && family->default_window > 0)) &&
              (!family->window_switch || qins_config_bool(r, "use_sliding_window", false));
    if (on) h->sliding_window = qins_config_size(r, "sliding_window", family->default_window, MAX_POSITIONS);
    size_t first = 0, pattern = 0;
    if (on && family->window == QINS_WINDOW_UPPER) {
        const json_t *value = qins_config_get(r, "max_window_layers");
        if (value != NULL && (!json_is_integer(value) || json_integer_value(value) < 0))
            qins_config_fail(r, "max_window_layers", "a number of layers", value);
        first = value != NULL ? (size_t)json_integer_value(value) : 28;
    }
    if (family->window == QINS_WINDOW_ALTERNATE)
        pattern = qins_config_size(r, "sliding_window_pattern", family->default_window_pattern, QINS_MAX_LAYERS);
    const json_t *types = qins_config_list(r, "layer_types", h->n_layers);
    for (size_t l = 0; l < h->n_layers; l++) {
        bool sliding = on;
        if (family->window == QINS_WINDOW_UPPER) sliding = on && l >= first;
        if (family->window == QINS_WINDOW_ALTERNATE) sliding = on && (l + 1) % pattern != 0;
        if (family->window == QINS_WINDOW_WITHOUT_ROPE) sliding = on && (h->layer_flags[l] & QINS_LAYER_NO_ROPE) != 0;
        if (types != NULL) {
            const char *type = json_string_value(json_array_get(types, l));
            bool named = type != NULL && strcmp(type, "sliding_attention") == 0;
            if (!named && (type == NULL || strcmp(type, "full_attention") != 0))
                qins_config_unsupported(r, "layer type \"%s\"", type != NULL ? type : "?");
            if ((named && !on) || (named != sliding && !family->own_layer_types))
                qins_config_unsupported(r,
                                        "layer type \"%s\" of layer %zu in model_type \"%s\" with this sliding_window",
                                        type != NULL ? type : "?", l, family->model_type);
            sliding = named;
        }
        set_flag(h, l, QINS_LAYER_SLIDING, sliding);
    }
}

static void read_experts(reader *r, qins_hparams *h) {
    const qins_family *family = h->family;
    if (family->n_experts_key == NULL) return;
    const char *usual = key_of(r, "num_local_experts", "num_experts"); /* both names are in use */
    h->n_experts = qins_config_size(r, key_of(r, family->n_experts_key, usual), 0, MAX_EXPERTS);
    h->n_experts_used = qins_config_size(r, "num_experts_per_tok", 0, h->n_experts);
    h->expert_size = qins_config_size(r, family->expert_size_key, 0, MAX_WIDTH);
    if (family->shared_expert_size_key != NULL)
        h->shared_expert_size = qins_config_size(r, family->shared_expert_size_key, 0, MAX_WIDTH);
    h->normalize_experts =
        family->normalize_experts || (family->norm_topk_key && qins_config_bool(r, "norm_topk_prob", false));
    size_t step = qins_config_size(r, "decoder_sparse_step", 1, QINS_MAX_LAYERS);
    for (size_t l = 0; l < h->n_layers; l++)
        set_flag(h, l, QINS_LAYER_EXPERTS, (l + 1) % step == 0);
    const json_t *dense = qins_config_get(r, "mlp_only_layers");
    for (size_t i = 0; i < json_array_size(dense); i++) {
        json_int_t l = json_integer_value(json_array_get(dense, i));
        if (l >= 0 && (size_t)l < h->n_layers) h->layer_flags[l] &= (uint8_t)~QINS_LAYER_EXPERTS;
    }
    for (size_t l = 0; l < h->n_layers; l++)
        if ((h->layer_flags[l] & QINS_LAYER_EXPERTS) == 0 && family->slot[QINS_SLOT_DOWN] == NULL)
            qins_config_unsupported(r, "a layer without experts in model_type \"%s\"", family->model_type);
}

/* ---- the whole ---- */

static void read_sizes(reader *r, const qins_family *family, qins_hparams *h) {
    h->hidden_size = qins_config_size(r, key_of(r, family->hidden_size_key, "hidden_size"), 0, MAX_WIDTH);
    h->n_layers = qins_config_size(r, key_of(r, family->n_layers_key, "num_hidden_layers"), 0, QINS_MAX_LAYERS);
    h->n_heads = qins_config_size(r, key_of(r, family->n_heads_key, "num_attention_heads"), 0, MAX_WIDTH);
    h->n_kv_heads = qins_config_size(r, "num_key_value_heads", h->n_heads, MAX_WIDTH);
    size_t four_wide = family->intermediate_size_key != NULL ? 4 * h->hidden_size : 0;
    h->intermediate_size =
        qins_config_size(r, key_of(r, family->intermediate_size_key, "intermediate_size"), four_wide, MAX_WIDTH);
    h->vocab_size = qins_config_size(r, "vocab_size", 0, MAX_VOCABULARY);
    h->max_position =
        qins_config_size(r, key_of(r, family->max_position_key, "max_position_embeddings"), 2048, MAX_POSITIONS);
    size_t head_dim =
        family->default_head_dim > 0 ? family->default_head_dim : qins_max_size(1, h->hidden_size / h->n_heads);
    h->head_dim = qins_config_size(r, "head_dim", head_dim, MAX_WIDTH);
}

/* A null is a model without the cap; an absent key is one with the usual cap. */
static float read_cap(reader *r, const char *key, double fallback) {
    if (json_object_get(r->config, key) == NULL) return (float)fallback;
    return (float)qins_config_number(r, key, 0.0, 1e-3, 1e9);
}

static void read_scales(reader *r, const qins_family *family, qins_hparams *h) {
    double eps = family->default_norm_eps > 0 ? family->default_norm_eps : 1e-6;
    h->norm_eps = (float)qins_config_number(r, key_of(r, family->norm_eps_key, "rms_norm_eps"), eps, 0.0, 1.0);
    double scalar = (double)h->head_dim;
    if (family->query_scalar) scalar = qins_config_number(r, "query_pre_attn_scalar", 256.0, 1e-6, 1e9);
    h->attention_scale = (float)(1.0 / sqrt(scalar));
    h->embedding_scale = family->scaled_embedding ? (float)sqrt((double)h->hidden_size) : 1.0f;
    if (!family->caps) return;
    h->attention_cap = read_cap(r, "attn_logit_softcapping", family->default_attention_cap);
    h->logit_cap = read_cap(r, "final_logit_softcapping", family->default_logit_cap);
}

qins_status qins_hparams_read(const json_t *config, const char *path, qins_hparams *h, qins_error *err) {
    *h = (qins_hparams){0};
    const char *model_type = json_string_value(json_object_get(config, "model_type"));
    if (model_type == NULL)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: config has no \"model_type\": expected a Hugging Face config.json",
                         path);
    const qins_family *family = qins_family_find(model_type);
    if (family == NULL) {
        char list[512];
        qins_family_list(list, sizeof list);
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: model_type \"%s\" is not implemented; implemented are %s",
                         path, model_type, list);
    }
    reader r = {config, path, err, QINS_OK};
    h->family = family;
    check_fixed_options(&r, family);
    read_sizes(&r, family, h);
    read_scales(&r, family, h);
    h->parallel_residual = family->parallel_residual;
    if (family->parallel_residual_key != NULL)
        h->parallel_residual = qins_config_bool(&r, family->parallel_residual_key, true);
    h->tied_head = qins_config_bool(&r, "tie_word_embeddings", family->default_tied);
    h->bos_id = get_id(&r, "bos_token_id");
    h->eos_id = get_id(&r, "eos_token_id");
    read_activation(&r, family, &h->activation);
    read_biases(&r, family, h->has_bias);
    read_rope_layers(&r, h);
    read_windows(&r, h);
    read_experts(&r, h);
    for (int sliding = 0; sliding < 2 && r.status == QINS_OK; sliding++)
        r.status =
            qins_rope_params_read(config, path, family, sliding, h->head_dim, h->max_position, &h->rope[sliding], err);
    if (r.status != QINS_OK) return r.status;
    if (h->n_heads % h->n_kv_heads != 0 || h->n_heads * h->head_dim > MAX_WIDTH)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: %zu attention heads of %zu cannot share %zu key-value heads", path,
                         h->n_heads, h->head_dim, h->n_kv_heads);
    if (family->qkv == QINS_QKV_BY_HEAD && h->n_kv_heads != h->n_heads)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: a fused qkv with fewer key-value heads is not implemented",
                         path);
    return QINS_OK;
}
