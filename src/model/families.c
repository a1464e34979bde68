/* The families, and what a tensor is for. SPDX-License-Identifier: MIT */
#include "model/families.h"

#include <stdlib.h>
#include <string.h>

/* Names that many families share. */
#define LAYER "model.layers.%zu."
#define EMBED_AND_HEAD                                                                                                 \
    [QINS_SLOT_EMBED] = "model.embed_tokens", [QINS_SLOT_FINAL_NORM] = "model.norm", [QINS_SLOT_HEAD] = "lm_head"
#define SPLIT_ATTENTION                                                                                                \
    [QINS_SLOT_Q] = LAYER "self_attn.q_proj", [QINS_SLOT_K] = LAYER "self_attn.k_proj",                                \
    [QINS_SLOT_V] = LAYER "self_attn.v_proj", [QINS_SLOT_O] = LAYER "self_attn.o_proj"
#define GATED_MLP                                                                                                      \
    [QINS_SLOT_GATE] = LAYER "mlp.gate_proj", [QINS_SLOT_UP] = LAYER "mlp.up_proj",                                    \
    [QINS_SLOT_DOWN] = LAYER "mlp.down_proj"
#define QK_NORMS [QINS_SLOT_Q_NORM] = LAYER "self_attn.q_norm", [QINS_SLOT_K_NORM] = LAYER "self_attn.k_norm"
/* x + attn(norm(x)), then x + mlp(norm(x)) */
#define PRE_NORMS                                                                                                      \
    [QINS_SLOT_ATTN_NORM] = LAYER "input_layernorm", [QINS_SLOT_MLP_NORM] = LAYER "post_attention_layernorm"
/* x + norm(attn(norm(x))), then x + norm(mlp(norm(x))) */
#define SANDWICH_NORMS                                                                                                 \
    [QINS_SLOT_ATTN_NORM] = LAYER "input_layernorm", [QINS_SLOT_ATTN_POST_NORM] = LAYER "post_attention_layernorm",    \
    [QINS_SLOT_MLP_NORM] = LAYER "pre_feedforward_layernorm",                                                          \
    [QINS_SLOT_MLP_POST_NORM] = LAYER "post_feedforward_layernorm"
/* x + norm(attn(x)), then x + norm(mlp(x)) */
#define POST_NORMS                                                                                                     \
    [QINS_SLOT_ATTN_POST_NORM] = LAYER "post_attention_layernorm", [QINS_SLOT_MLP_POST_NORM] =                         \
                                                                       LAYER "post_feedforward_layernorm"
#define EXPERTS                                                                                                        \
    [QINS_SLOT_ROUTER] = LAYER "mlp.gate", [QINS_SLOT_EXPERT_GATE] = LAYER "mlp.experts.%zu.gate_proj",                \
    [QINS_SLOT_EXPERT_UP] = LAYER "mlp.experts.%zu.up_proj",                                                           \
    [QINS_SLOT_EXPERT_DOWN] = LAYER "mlp.experts.%zu.down_proj"

#define ATTENTION_BIAS(rule) [QINS_SLOT_Q] = rule, [QINS_SLOT_K] = rule, [QINS_SLOT_V] = rule, [QINS_SLOT_O] = rule
#define QKV_BIAS(rule)       [QINS_SLOT_Q] = rule, [QINS_SLOT_K] = rule, [QINS_SLOT_V] = rule
#define MLP_BIAS(rule)       [QINS_SLOT_GATE] = rule, [QINS_SLOT_UP] = rule, [QINS_SLOT_DOWN] = rule

/* What a row leaves out is as in llama: RMS norms, a gated MLP with SiLU, rope over the whole head, no biases. */
static const qins_family families[] = {
    {.model_type = "llama",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, GATED_MLP},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION), MLP_BIAS(QINS_BIAS_MLP)}},
    {.model_type = "mistral",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, GATED_MLP},
     .window = QINS_WINDOW_ALL,
     .default_window = 4096},
    {.model_type = "ministral",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, GATED_MLP},
     .own_layer_types = true,
     .window = QINS_WINDOW_ALL,
     .default_window = 4096},
    {.model_type = "qwen2",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, GATED_MLP},
     .bias = {QKV_BIAS(QINS_BIAS_ALWAYS)},
     .own_layer_types = true,
     .window = QINS_WINDOW_UPPER,
     .default_window = 4096,
     .window_switch = true},
    {.model_type = "qwen3",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, QK_NORMS, GATED_MLP},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION)},
     .qk_norm = QINS_QK_NORM_HEAD,
     .default_head_dim = 128,
     .own_layer_types = true,
     .window = QINS_WINDOW_UPPER,
     .default_window = 4096,
     .window_switch = true},
    {.model_type = "phi3",
     .prefix = "model.",
     .default_norm_eps = 1e-5,
     .slot = {EMBED_AND_HEAD,
              PRE_NORMS, [QINS_SLOT_QKV] = LAYER "self_attn.qkv_proj", [QINS_SLOT_O] = LAYER "self_attn.o_proj",
              [QINS_SLOT_GATE_UP] = LAYER "mlp.gate_up_proj", [QINS_SLOT_DOWN] = LAYER "mlp.down_proj"},
     .rotary_fraction_key = "partial_rotary_factor",
     .yarn_is_longrope = true,
     .window = QINS_WINDOW_ALL},
    {.model_type = "phi",
     .prefix = "model.",
     .slot = {[QINS_SLOT_EMBED] = "model.embed_tokens",
              [QINS_SLOT_FINAL_NORM] = "model.final_layernorm",
              [QINS_SLOT_HEAD] = "lm_head",
              [QINS_SLOT_ATTN_NORM] = LAYER "input_layernorm", /* the MLP reads it as well */
              [QINS_SLOT_Q] = LAYER "self_attn.q_proj",
              [QINS_SLOT_K] = LAYER "self_attn.k_proj",
              [QINS_SLOT_V] = LAYER "self_attn.v_proj",
              [QINS_SLOT_O] = LAYER "self_attn.dense",
              [QINS_SLOT_UP] = LAYER "mlp.fc1",
              [QINS_SLOT_DOWN] = LAYER "mlp.fc2"},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ALWAYS), MLP_BIAS(QINS_BIAS_ALWAYS), [QINS_SLOT_HEAD] = QINS_BIAS_ALWAYS},
     .norm = QINS_NORM_LAYER,
     .norm_eps_key = "layer_norm_eps",
     .default_norm_eps = 1e-5,
     .rope_theta_key = "rope_theta",
     .rotary_fraction_key = "partial_rotary_factor",
     .default_rotary_fraction = 0.5,
     .parallel_residual = true,
     .default_activation = "gelu_new",
     .fixed = {{"qk_layernorm", "false"}}},
    {.model_type = "gpt_neox",
     .prefix = "gpt_neox.",
     .slot = {[QINS_SLOT_EMBED] = "gpt_neox.embed_in",
              [QINS_SLOT_FINAL_NORM] = "gpt_neox.final_layer_norm",
              [QINS_SLOT_HEAD] = "embed_out",
              [QINS_SLOT_ATTN_NORM] = "gpt_neox.layers.%zu.input_layernorm",
              [QINS_SLOT_MLP_NORM] = "gpt_neox.layers.%zu.post_attention_layernorm",
              [QINS_SLOT_QKV] = "gpt_neox.layers.%zu.attention.query_key_value",
              [QINS_SLOT_O] = "gpt_neox.layers.%zu.attention.dense",
              [QINS_SLOT_UP] = "gpt_neox.layers.%zu.mlp.dense_h_to_4h",
              [QINS_SLOT_DOWN] = "gpt_neox.layers.%zu.mlp.dense_4h_to_h"},
     .bias = {[QINS_SLOT_QKV] = QINS_BIAS_ATTENTION, [QINS_SLOT_O] = QINS_BIAS_ATTENTION, MLP_BIAS(QINS_BIAS_ALWAYS)},
     .attention_bias = true,
     .norm = QINS_NORM_LAYER,
     .qkv = QINS_QKV_BY_HEAD,
     .norm_eps_key = "layer_norm_eps",
     .default_norm_eps = 1e-5,
     .rope_theta_key = "rotary_emb_base",
     .rotary_fraction_key = "rotary_pct",
     .default_rotary_fraction = 0.25,
     .parallel_residual_key = "use_parallel_residual",
     .default_activation = "gelu"},
    {.model_type = "gpt2",
     .prefix = "transformer.",
     .slot = {[QINS_SLOT_EMBED] = "transformer.wte",
              [QINS_SLOT_POSITION] = "transformer.wpe",
              [QINS_SLOT_FINAL_NORM] = "transformer.ln_f",
              [QINS_SLOT_HEAD] = "lm_head",
              [QINS_SLOT_ATTN_NORM] = "transformer.h.%zu.ln_1",
              [QINS_SLOT_MLP_NORM] = "transformer.h.%zu.ln_2",
              [QINS_SLOT_QKV] = "transformer.h.%zu.attn.c_attn",
              [QINS_SLOT_O] = "transformer.h.%zu.attn.c_proj",
              [QINS_SLOT_UP] = "transformer.h.%zu.mlp.c_fc",
              [QINS_SLOT_DOWN] = "transformer.h.%zu.mlp.c_proj"},
     .bias = {[QINS_SLOT_QKV] = QINS_BIAS_ALWAYS, [QINS_SLOT_O] = QINS_BIAS_ALWAYS, MLP_BIAS(QINS_BIAS_ALWAYS)},
     .transposed_linears = true,
     .norm = QINS_NORM_LAYER,
     .hidden_size_key = "n_embd",
     .n_layers_key = "n_layer",
     .n_heads_key = "n_head",
     .max_position_key = "n_positions",
     .intermediate_size_key = "n_inner",
     .norm_eps_key = "layer_norm_epsilon",
     .default_norm_eps = 1e-5,
     .no_rope = true,
     .activation_key = "activation_function",
     .default_activation = "gelu_new",
     .default_tied = true,
     .fixed = {{"scale_attn_weights", "true"},
               {"scale_attn_by_inverse_layer_idx", "false"},
               {"add_cross_attention", "false"}}},
    {.model_type = "gemma",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, GATED_MLP},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION)},
     .norm = QINS_NORM_RMS_PLUS_ONE,
     .scaled_embedding = true,
     .default_activation = "gelu_pytorch_tanh",
     .gelu_is_tanh = true,
     .default_tied = true,
     .default_head_dim = 256,
     .fixed = {{"use_bidirectional_attention", "false"}}},
    {.model_type = "gemma2",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, SANDWICH_NORMS, SPLIT_ATTENTION, GATED_MLP},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION)},
     .norm = QINS_NORM_RMS_PLUS_ONE,
     .scaled_embedding = true,
     .activation_key = "hidden_activation",
     .default_activation = "gelu_pytorch_tanh",
     .default_tied = true,
     .default_head_dim = 256,
     .query_scalar = true,
     .caps = true,
     .default_attention_cap = 50.0,
     .default_logit_cap = 30.0,
     .own_layer_types = true,
     .window = QINS_WINDOW_ALTERNATE,
     .default_window = 4096,
     .default_window_pattern = 2,
     .fixed = {{"use_bidirectional_attention", "false"}}},
    {.model_type = "gemma3_text",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, SANDWICH_NORMS, SPLIT_ATTENTION, QK_NORMS, GATED_MLP},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION)},
     .norm = QINS_NORM_RMS_PLUS_ONE,
     .qk_norm = QINS_QK_NORM_HEAD,
     .scaled_embedding = true,
     .activation_key = "hidden_activation",
     .default_activation = "gelu_pytorch_tanh",
     .default_tied = true,
     .default_head_dim = 256,
     .query_scalar = true,
     .caps = true,
     .dual_rope = true,
     .default_rope_theta = 1000000.0,
     .own_layer_types = true,
     .window = QINS_WINDOW_ALTERNATE,
     .default_window = 4096,
     .default_window_pattern = 6,
     /* the reference implementation ignores a cap on attention scores here */
     .fixed = {{"use_bidirectional_attention", "false"}, {"attn_logit_softcapping", "null"}}},
    {.model_type = "olmo2",
     .prefix = "model.",
     .default_norm_eps = 1e-5,
     .slot = {EMBED_AND_HEAD, POST_NORMS, SPLIT_ATTENTION, QK_NORMS, GATED_MLP},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION)},
     .qk_norm = QINS_QK_NORM_FULL},
    {.model_type = "smollm3",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, GATED_MLP},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION), MLP_BIAS(QINS_BIAS_MLP)},
     .default_tied = true,
     .default_rope_theta = 2000000.0,
     .skips_rope_in_layers = true,
     .own_layer_types = true,
     .window = QINS_WINDOW_WITHOUT_ROPE,
     .window_switch = true},
    {.model_type = "mixtral",
     .prefix = "model.",
     .default_norm_eps = 1e-5,
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, [QINS_SLOT_ROUTER] = LAYER "block_sparse_moe.gate",
              [QINS_SLOT_EXPERT_GATE] = LAYER "block_sparse_moe.experts.%zu.w1",
              [QINS_SLOT_EXPERT_UP] = LAYER "block_sparse_moe.experts.%zu.w3",
              [QINS_SLOT_EXPERT_DOWN] = LAYER "block_sparse_moe.experts.%zu.w2"},
     .default_rope_theta = 1000000.0,
     .window = QINS_WINDOW_ALL,
     .n_experts_key = "num_local_experts",
     .expert_size_key = "intermediate_size",
     .normalize_experts = true},
    {.model_type = "qwen2_moe",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, GATED_MLP,
              EXPERTS, [QINS_SLOT_SHARED_ROUTER] = LAYER "mlp.shared_expert_gate",
              [QINS_SLOT_SHARED_GATE] = LAYER "mlp.shared_expert.gate_proj",
              [QINS_SLOT_SHARED_UP] = LAYER "mlp.shared_expert.up_proj",
              [QINS_SLOT_SHARED_DOWN] = LAYER "mlp.shared_expert.down_proj"},
     .bias = {QKV_BIAS(QINS_BIAS_QKV)},
     .qkv_bias = true,
     .n_experts_key = "num_experts",
     .expert_size_key = "moe_intermediate_size",
     .shared_expert_size_key = "shared_expert_intermediate_size",
     .norm_topk_key = true,
     /* which layers slide differs between versions of the reference implementation */
     .fixed = {{"use_sliding_window", "false"}}},
    {.model_type = "qwen3_moe",
     .prefix = "model.",
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, QK_NORMS, GATED_MLP, EXPERTS},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION)},
     .qk_norm = QINS_QK_NORM_HEAD,
     .window = QINS_WINDOW_ALL,
     .default_window = 4096,
     .window_switch = true,
     .n_experts_key = "num_experts",
     .expert_size_key = "moe_intermediate_size",
     .norm_topk_key = true},
    {.model_type = "olmoe",
     .prefix = "model.",
     .default_norm_eps = 1e-5,
     .slot = {EMBED_AND_HEAD, PRE_NORMS, SPLIT_ATTENTION, QK_NORMS, EXPERTS},
     .bias = {ATTENTION_BIAS(QINS_BIAS_ATTENTION)},
     .qk_norm = QINS_QK_NORM_FULL,
     .n_experts_key = "num_experts",
     .expert_size_key = "intermediate_size",
     .norm_topk_key = true,
     .fixed = {{"clip_qkv", "null"}}},
};

const qins_family *qins_family_at(size_t i) {
    return i < sizeof families / sizeof families[0] ? &families[i] : NULL;
}

const qins_family *qins_family_find(const char *model_type) {
    const qins_family *family;
    for (size_t i = 0; (family = qins_family_at(i)) != NULL; i++)
        if (strcmp(family->model_type, model_type) == 0) return family;
    return NULL;
}

void qins_family_list(char *text, size_t size) {
    size_t used = 0;
    const qins_family *family;
    for (size_t i = 0; (family = qins_family_at(i)) != NULL && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", family->model_type);
}

/* ---- names ---- */

static const char NUMBER_MARK[] = "%zu";

/* The pattern as it appears in this checkpoint. */
static const char *skip_prefix(const qins_family *family, const char *pattern) {
    size_t n = strlen(family->prefix);
    return strncmp(pattern, family->prefix, n) == 0 ? pattern + n : pattern;
}

bool qins_place_name(const qins_family *family, qins_place place, const char *suffix, bool with_prefix, char *name,
                     size_t size) {
    const char *pattern = family->slot[place.slot];
    if (pattern == NULL) return false;
    if (!with_prefix) pattern = skip_prefix(family, pattern);
    const size_t numbers[] = {place.layer, place.expert};
    qins_buffer b = {0};
    for (size_t i = 0; i < 2; i++) {
        const char *mark = strstr(pattern, NUMBER_MARK);
        if (mark == NULL) break;
        qins_buffer_printf(&b, "%.*s%zu", (int)(mark - pattern), pattern, numbers[i]);
        pattern = mark + sizeof NUMBER_MARK - 1;
    }
    qins_buffer_printf(&b, "%s%s", pattern, suffix);
    bool fits = !b.failed && b.size < size;
    if (fits) memcpy(name, b.data, b.size + 1);
    qins_buffer_free(&b);
    return fits;
}

/* Does name start with pattern, with numbers in place of the marks? *rest is what follows. */
static bool match_slot(const char *pattern, const char *name, size_t numbers[2], const char **rest) {
    numbers[0] = numbers[1] = 0;
    for (size_t i = 0;; i++) {
        const char *mark = i < 2 ? strstr(pattern, NUMBER_MARK) : NULL;
        size_t n = mark != NULL ? (size_t)(mark - pattern) : strlen(pattern);
        if (strncmp(pattern, name, n) != 0) return false;
        *rest = name += n;
        if (mark == NULL) return true;
        if (*name < '0' || *name > '9') return false;
        char *end;
        numbers[i] = strtoul(name, &end, 10);
        name = end;
        pattern = mark + sizeof NUMBER_MARK - 1;
    }
}

static qins_role weight_role(qins_slot slot) {
    switch (slot) {
    case QINS_SLOT_EMBED:
        return QINS_ROLE_EMBEDDING;
    case QINS_SLOT_HEAD:
        return QINS_ROLE_HEAD;
    case QINS_SLOT_FINAL_NORM:
    case QINS_SLOT_ATTN_NORM:
    case QINS_SLOT_ATTN_POST_NORM:
    case QINS_SLOT_MLP_NORM:
    case QINS_SLOT_MLP_POST_NORM:
    case QINS_SLOT_Q_NORM:
    case QINS_SLOT_K_NORM:
        return QINS_ROLE_NORM;
    /* small, and every token's path depends on them: never compressed */
    case QINS_SLOT_POSITION:
    case QINS_SLOT_ROUTER:
    case QINS_SLOT_SHARED_ROUTER:
        return QINS_ROLE_OTHER;
    default:
        return QINS_ROLE_LINEAR;
    }
}

qins_role qins_tensor_role(const qins_family *family, const char *name, qins_place *place) {
    for (int s = 0; s < QINS_SLOT_COUNT; s++) {
        const char *pattern = family->slot[s], *rest;
        size_t numbers[2];
        if (pattern == NULL || (!match_slot(pattern, name, numbers, &rest) &&
                                !match_slot(skip_prefix(family, pattern), name, numbers, &rest)))
            continue;
        bool weight = strcmp(rest, ".weight") == 0, bias = strcmp(rest, ".bias") == 0;
        if (!weight && !bias) continue;
        *place = (qins_place){(qins_slot)s, numbers[0], numbers[1]};
        qins_role role = weight_role((qins_slot)s);
        return bias && role != QINS_ROLE_NORM ? QINS_ROLE_BIAS : role;
    }
    *place = (qins_place){.slot = QINS_SLOT_COUNT};
    return QINS_ROLE_OTHER;
}

const char *qins_role_name(qins_role role) {
    static const char *const names[] = {"linear", "embedding", "head", "bias", "norm", "other"};
    return names[role];
}
