/* Names and layouts of GGUF architectures, as tables. SPDX-License-Identifier: MIT
 *
 * From gguf-py's constants.py and tensor_mapping.py, and from what llama.cpp's conversion scripts do to the values.
 */
#include "format/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const qins_gguf_name llama_names[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {"blk.%.attn_norm", "model.layers.%.input_layernorm"},
    {"blk.%.attn_q", "model.layers.%.self_attn.q_proj"},
    {"blk.%.attn_k", "model.layers.%.self_attn.k_proj"},
    {"blk.%.attn_v", "model.layers.%.self_attn.v_proj"},
    {"blk.%.attn_output", "model.layers.%.self_attn.o_proj"},
    {"blk.%.ffn_norm", "model.layers.%.post_attention_layernorm"},
    {"blk.%.ffn_gate", "model.layers.%.mlp.gate_proj"},
    {"blk.%.ffn_up", "model.layers.%.mlp.up_proj"},
    {"blk.%.ffn_down", "model.layers.%.mlp.down_proj"},
    {0},
};

static const qins_gguf_name qk_norm_names[] = {
    {"blk.%.attn_q_norm", "model.layers.%.self_attn.q_norm"},
    {"blk.%.attn_k_norm", "model.layers.%.self_attn.k_norm"},
    {0},
};

static const qins_gguf_name mixtral_names[] = {
    {"blk.%.ffn_gate_inp", "model.layers.%.block_sparse_moe.gate"},
    {"blk.%.ffn_gate_exps", "model.layers.%.block_sparse_moe.experts.@.w1"},
    {"blk.%.ffn_up_exps", "model.layers.%.block_sparse_moe.experts.@.w3"},
    {"blk.%.ffn_down_exps", "model.layers.%.block_sparse_moe.experts.@.w2"},
    {0},
};

static const qins_gguf_name moe_names[] = {
    {"blk.%.ffn_gate_inp", "model.layers.%.mlp.gate"},
    {"blk.%.ffn_gate_exps", "model.layers.%.mlp.experts.@.gate_proj"},
    {"blk.%.ffn_up_exps", "model.layers.%.mlp.experts.@.up_proj"},
    {"blk.%.ffn_down_exps", "model.layers.%.mlp.experts.@.down_proj"},
    {"blk.%.ffn_gate_inp_shexp", "model.layers.%.mlp.shared_expert_gate"},
    {"blk.%.ffn_gate_shexp", "model.layers.%.mlp.shared_expert.gate_proj"},
    {"blk.%.ffn_up_shexp", "model.layers.%.mlp.shared_expert.up_proj"},
    {"blk.%.ffn_down_shexp", "model.layers.%.mlp.shared_expert.down_proj"},
    {0},
};

static const qins_gguf_name gptneox_names[] = {
    {"token_embd", "gpt_neox.embed_in"},
    {"output_norm", "gpt_neox.final_layer_norm"},
    {"output", "embed_out"},
    {"blk.%.attn_norm", "gpt_neox.layers.%.input_layernorm"},
    {"blk.%.attn_qkv", "gpt_neox.layers.%.attention.query_key_value"},
    {"blk.%.attn_output", "gpt_neox.layers.%.attention.dense"},
    {"blk.%.ffn_norm", "gpt_neox.layers.%.post_attention_layernorm"},
    {"blk.%.ffn_up", "gpt_neox.layers.%.mlp.dense_h_to_4h"},
    {"blk.%.ffn_down", "gpt_neox.layers.%.mlp.dense_4h_to_h"},
    {0},
};

/* Fused projections; what is not here has its llama name. */
static const qins_gguf_name phi3_names[] = {
    {"blk.%.attn_qkv", "model.layers.%.self_attn.qkv_proj"},
    {"blk.%.ffn_up", "model.layers.%.mlp.gate_up_proj"},
    {0},
};

static const qins_gguf_name phi2_names[] = {
    {"output_norm", "model.final_layernorm"},
    {"blk.%.attn_output", "model.layers.%.self_attn.dense"},
    {"blk.%.ffn_up", "model.layers.%.mlp.fc1"},
    {"blk.%.ffn_down", "model.layers.%.mlp.fc2"},
    {0},
};

/* The linears of Hugging Face's gpt2 are Conv1D, [in][out]; GGUF has them as [out][in], which we keep: the config says
 * so with "qins_linear_orientation": "out_in". */
static const qins_gguf_name gpt2_names[] = {
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.%.attn_norm", "transformer.h.%.ln_1"},
    {"blk.%.attn_qkv", "transformer.h.%.attn.c_attn"},
    {"blk.%.attn_output", "transformer.h.%.attn.c_proj"},
    {"blk.%.ffn_norm", "transformer.h.%.ln_2"},
    {"blk.%.ffn_up", "transformer.h.%.mlp.c_fc"},
    {"blk.%.ffn_down", "transformer.h.%.mlp.c_proj"},
    {0},
};

/* Norms before and after each half of the layer. */
static const qins_gguf_name gemma2_names[] = {
    {"blk.%.post_attention_norm", "model.layers.%.post_attention_layernorm"},
    {"blk.%.ffn_norm", "model.layers.%.pre_feedforward_layernorm"},
    {"blk.%.post_ffw_norm", "model.layers.%.post_feedforward_layernorm"},
    {0},
};

/* Norms only after each half. */
static const qins_gguf_name olmo2_names[] = {
    {"blk.%.post_attention_norm", "model.layers.%.post_attention_layernorm"},
    {"blk.%.post_ffw_norm", "model.layers.%.post_feedforward_layernorm"},
    {0},
};

/* Earlier name tables win over later ones. The files of Mistral, Ministral and Mixtral have the architecture llama;
 * qins_gguf_find_arch tells them apart. */
static const qins_gguf_arch archs[] = {
    {.name = "llama",
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .names = {llama_names},
     .rope_pairs = true,
     .rope_factors = true},
    {.name = "llama",
     .model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .names = {llama_names},
     .rope_pairs = true,
     .rope_factors = true},
    {.name = "llama",
     .model_type = "ministral",
     .class_name = "MinistralForCausalLM",
     .names = {llama_names},
     .rope_pairs = true,
     .rope_factors = true},
    {.name = "llama",
     .model_type = "mixtral",
     .class_name = "MixtralForCausalLM",
     .names = {mixtral_names, llama_names},
     .rope_pairs = true,
     .rope_factors = true,
     .experts_key = "num_local_experts"},
    {.name = "gptneox",
     .model_type = "gpt_neox",
     .class_name = "GPTNeoXForCausalLM",
     .names = {gptneox_names},
     .has_head = true,
     .qkv_by_part = true,
     .layer_norm = true,
     .norm_eps_key = "layer_norm_eps",
     .theta_key = "rotary_emb_base",
     .rotary_key = "rotary_pct",
     .activation = "gelu"},
    {.name = "qwen2", .model_type = "qwen2", .class_name = "Qwen2ForCausalLM", .names = {llama_names}},
    {.name = "qwen3", .model_type = "qwen3", .class_name = "Qwen3ForCausalLM", .names = {qk_norm_names, llama_names}},
    {.name = "qwen2moe",
     .model_type = "qwen2_moe",
     .class_name = "Qwen2MoeForCausalLM",
     .names = {moe_names, llama_names},
     .has_head = true,
     .constants = "{\"norm_topk_prob\": false, \"decoder_sparse_step\": 1}"},
    {.name = "qwen3moe",
     .model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .names = {moe_names, qk_norm_names, llama_names},
     .constants = "{\"norm_topk_prob\": true, \"decoder_sparse_step\": 1}"},
    {.name = "olmoe",
     .model_type = "olmoe",
     .class_name = "OlmoeForCausalLM",
     .names = {moe_names, qk_norm_names, llama_names},
     .has_head = true,
     .constants = "{\"norm_topk_prob\": false}"},
    {.name = "phi3",
     .model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .names = {phi3_names, llama_names},
     .rope_factors = true},
    {.name = "phi2",
     .model_type = "phi",
     .class_name = "PhiForCausalLM",
     .names = {phi2_names, llama_names},
     .has_head = true,
     .layer_norm = true,
     .norm_eps_key = "layer_norm_eps",
     .activation = "gelu_new",
     .constants = "{\"qk_layernorm\": false}"},
    {.name = "gpt2",
     .model_type = "gpt2",
     .class_name = "GPT2LMHeadModel",
     .names = {gpt2_names},
     .layer_norm = true,
     .norm_eps_key = "layer_norm_epsilon",
     .activation = "gelu_new",
     .constants = "{\"activation_function\": \"gelu_new\", \"qins_linear_orientation\": \"out_in\"}"},
    {.name = "gemma",
     .model_type = "gemma",
     .class_name = "GemmaForCausalLM",
     .names = {llama_names},
     .lacks_head = true,
     .norm_offset = true,
     .activation = "gelu_pytorch_tanh",
     .constants = "{\"hidden_activation\": \"gelu_pytorch_tanh\"}"},
    {.name = "gemma2",
     .model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .names = {gemma2_names, llama_names},
     .lacks_head = true,
     .norm_offset = true,
     .activation = "gelu_pytorch_tanh",
     .constants = "{\"hidden_activation\": \"gelu_pytorch_tanh\"}"},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .names = {gemma2_names, qk_norm_names, llama_names},
     .norm_offset = true,
     .activation = "gelu_pytorch_tanh",
     .constants = "{\"hidden_activation\": \"gelu_pytorch_tanh\", \"rope_local_base_freq\": 10000.0, "
                  "\"sliding_window_pattern\": 6}"},
    {.name = "olmo2",
     .model_type = "olmo2",
     .class_name = "Olmo2ForCausalLM",
     .names = {olmo2_names, qk_norm_names, llama_names},
     .has_head = true},
    {.name = "smollm3",
     .model_type = "smollm3",
     .class_name = "SmolLM3ForCausalLM",
     .names = {llama_names},
     .rope_pairs = true,
     .constants = "{\"no_rope_layer_interval\": 4}"},
};
static const char known_archs[] =
    "llama, gptneox, qwen2, qwen3, qwen2moe, qwen3moe, olmoe, phi3, phi2, gpt2, gemma, gemma2, gemma3, olmo2, smollm3";

/* Tensors that hold numbers of the config (gguf_config.c reads them) or nothing that is needed. */
static const char *const not_weights[] = {
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
};

/* Which of the models that share the architecture llama it is. */
static const char *llama_model_type(const qins_gguf *gguf) {
    int64_t n_experts = 0, window = 0;
    if (qins_gguf_get_integer(gguf, "llama.expert_count", &n_experts) && n_experts > 0) return "mixtral";
    if (!qins_gguf_get_integer(gguf, "llama.attention.sliding_window", &window) || window <= 0) return "llama";
    return qins_gguf_find(gguf, "llama.attention.sliding_window_pattern") != NULL ? "ministral" : "mistral";
}

qins_status qins_gguf_find_arch(const qins_gguf *gguf, const qins_gguf_arch **arch, qins_error *err) {
    qins_gguf_string name;
    if (!qins_gguf_get_string(gguf, "general.architecture", &name))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: metadata general.architecture is missing", gguf->path);
    const char *llama = llama_model_type(gguf);
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (strlen(archs[i].name) != name.n || memcmp(archs[i].name, name.data, name.n) != 0) continue;
        if (strcmp(archs[i].name, "llama") == 0 && strcmp(archs[i].model_type, llama) != 0) continue;
        *arch = &archs[i];
        return QINS_OK;
    }
    char shown[64] = {0};
    for (size_t i = 0; i < name.n && i < sizeof shown - 1; i++)
        shown[i] = name.data[i] >= 0x20 && name.data[i] < 0x7f ? name.data[i] : '?';
    return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: architecture \"%s\" is not supported; supported are %s",
                     gguf->path, shown, known_archs);
}

/* ---- translation of names ---- */

enum { N_NAME_TABLES = sizeof archs[0].names / sizeof archs[0].names[0] };

/* Does name match pattern, % being a number of at most six digits? Writes its digits to *number. */
static bool match(const char *pattern, const char *name, size_t n_name, char number[8]) {
    const char *mark = strchr(pattern, '%');
    size_t head = mark == NULL ? strlen(pattern) : (size_t)(mark - pattern);
    number[0] = '\0';
    if (n_name < head || memcmp(pattern, name, head) != 0) return false;
    if (mark == NULL) return n_name == head;
    size_t digits = 0;
    while (head + digits < n_name && name[head + digits] >= '0' && name[head + digits] <= '9')
        digits++;
    size_t tail = strlen(mark + 1);
    if (digits == 0 || digits > 6 || (digits > 1 && name[head] == '0')) return false;
    if (n_name != head + digits + tail || memcmp(name + head + digits, mark + 1, tail) != 0) return false;
    memcpy(number, name + head, digits);
    number[digits] = '\0';
    return true;
}

/* Writes hf with % and @ replaced, then suffix. False when it does not fit. */
static bool expand(const char *hf, const char *layer, size_t expert, const char *suffix, char *out, size_t size) {
    size_t n = 0;
    for (const char *p = hf; *p != '\0' && n < size; p++) {
        int added = *p == '%'   ? snprintf(out + n, size - n, "%s", layer)
                    : *p == '@' ? snprintf(out + n, size - n, "%zu", expert)
                                : snprintf(out + n, size - n, "%c", *p);
        n += (size_t)added;
    }
    if (n < size) n += (size_t)snprintf(out + n, size - n, "%s", suffix);
    return n < size;
}

static const qins_gguf_name *find_name(const qins_gguf_arch *arch, const char *name, size_t n_name, char layer[8]) {
    for (size_t t = 0; t < N_NAME_TABLES && arch->names[t] != NULL; t++) {
        for (const qins_gguf_name *row = arch->names[t]; row->gguf != NULL; row++) {
            if (match(row->gguf, name, n_name, layer)) return row;
        }
    }
    return NULL;
}

const qins_gguf_arch *qins_gguf_arch_of(const char *model_type) {
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
        if (strcmp(archs[i].model_type, model_type) == 0) return &archs[i];
    return NULL;
}

const qins_gguf_name *qins_gguf_name_of(const qins_gguf_arch *arch, const char *hf, size_t layer, size_t expert,
                                        char *name, size_t size) {
    char number[24], candidate[192];
    snprintf(number, sizeof number, "%zu", layer);
    for (size_t t = 0; t < N_NAME_TABLES && arch->names[t] != NULL; t++) {
        for (const qins_gguf_name *row = arch->names[t]; row->gguf != NULL; row++) {
            if (!expand(row->hf, number, expert, "", candidate, sizeof candidate) || strcmp(candidate, hf) != 0)
                continue;
            return expand(row->gguf, number, 0, "", name, size) ? row : NULL;
        }
    }
    return NULL;
}

static size_t config_size(const json_t *config, const char *key) {
    json_int_t n = json_integer_value(json_object_get(config, key));
    return n > 0 ? (size_t)n : 0;
}

bool qins_gguf_is_kind(const qins_gguf_name *row, const char *kind) {
    const char *dot = strrchr(row->gguf, '.');
    return dot != NULL && strcmp(dot + 1, kind) == 0;
}

/* How the rows of a tensor differ from Hugging Face's. */
static qins_status set_layout(const qins_gguf_arch *arch, const json_t *config, const char *path,
                              const qins_gguf_name *row, qins_tensor *tensor, const char *name, qins_error *err) {
    size_t n_heads = config_size(config, "num_attention_heads");
    bool is_q = qins_gguf_is_kind(row, "attn_q"), is_k = qins_gguf_is_kind(row, "attn_k");
    if (arch->norm_offset && strstr(row->gguf, "norm") != NULL) tensor->offset = -1.0f;
    if (arch->rope_pairs && (is_q || is_k)) {
        size_t heads = is_q ? n_heads : config_size(config, "num_key_value_heads");
        if (heads == 0 || tensor->n_dims == 0 || tensor->shape[0] % (2 * heads) != 0)
            return qins_fail(err, QINS_ERR_FORMAT,
                             "%s: tensor %s: %" PRIu64 " rows cannot be divided in %zu heads of even size", path, name,
                             tensor->n_dims > 0 ? tensor->shape[0] : 1, heads);
        tensor->rope_pairs = (size_t)(tensor->shape[0] / heads);
    }
    if (arch->qkv_by_part && qins_gguf_is_kind(row, "attn_qkv")) {
        if (n_heads == 0 || tensor->n_dims == 0 || tensor->shape[0] % (3 * n_heads) != 0)
            return qins_fail(err, QINS_ERR_FORMAT,
                             "%s: tensor %s: %" PRIu64 " rows are not q, k and v of %zu heads each", path, name,
                             tensor->n_dims > 0 ? tensor->shape[0] : 1, n_heads);
        tensor->qkv_heads = n_heads;
    }
    if (!qins_tensor_is_verbatim(tensor) && tensor->n_dims <= 1 && qins_types[tensor->type].block_values > 1)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: tensor %s: a vector of type %s is not supported here", path,
                         name, qins_types[tensor->type].name);
    return QINS_OK;
}

/* Adds the matrices of a stack [n_experts][rows][cols] one by one. */
static qins_status add_experts(const qins_gguf_name *row, const char *layer, const char *suffix, const char *path,
                               const qins_tensor *stack, const json_t *config, qins_tensor_list *out, qins_error *err) {
    size_t n_experts = config_size(config, "num_experts");
    if (n_experts == 0) n_experts = config_size(config, "num_local_experts");
    if (stack->n_dims != 3 || stack->shape[0] != n_experts || n_experts == 0)
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: expected a stack of %zu matrices, one an expert", path,
                         stack->name, n_experts);
    qins_tensor one = *stack;
    one.n_dims = 2;
    one.shape[0] = stack->shape[1];
    one.shape[1] = stack->shape[2];
    one.n_values /= n_experts;
    one.n_bytes /= n_experts;
    for (size_t e = 0; e < n_experts; e++) {
        char name[192];
        if (!expand(row->hf, layer, e, suffix, name, sizeof name))
            return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: its name is too long", path, stack->name);
        one.data = stack->data + e * one.n_bytes;
        qins_status status = qins_tensor_list_add(out, &one, name, strlen(name), path, err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

static bool is_no_weight(const char *name) {
    for (size_t i = 0; i < sizeof not_weights / sizeof not_weights[0]; i++) {
        if (strcmp(name, not_weights[i]) == 0) return true;
    }
    size_t n = strlen(name);
    static const char inverse_frequencies[] = ".attn_rot_embd.weight"; /* of very old files; computed instead */
    size_t m = sizeof inverse_frequencies - 1;
    return n > m && strcmp(name + n - m, inverse_frequencies) == 0;
}

static qins_status translate_one(const qins_gguf_arch *arch, const json_t *config, const char *path,
                                 const qins_tensor *tensor, qins_tensor_list *out, qins_error *err) {
    const char *name = tensor->name, *suffix = strrchr(name, '.');
    if (is_no_weight(name)) return QINS_OK;
    bool known = suffix != NULL && (strcmp(suffix, ".weight") == 0 || strcmp(suffix, ".bias") == 0);
    char layer[8], hf[192];
    const qins_gguf_name *row = known ? find_name(arch, name, (size_t)(suffix - name), layer) : NULL;
    if (row == NULL)
        return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: tensor %.128s is not known for the architecture %s", path,
                         name, arch->name);
    if (strchr(row->hf, '@') != NULL) return add_experts(row, layer, suffix, path, tensor, config, out, err);
    qins_tensor copy = *tensor;
    if (qins_gguf_is_kind(row, "ffn_gate_inp_shexp") && copy.n_dims == 1) { /* a vector here, one row there */
        copy.n_dims = 2;
        copy.shape[1] = copy.shape[0];
        copy.shape[0] = 1;
    }
    qins_status status = set_layout(arch, config, path, row, &copy, name, err);
    if (status != QINS_OK) return status;
    if (!expand(row->hf, layer, 0, suffix, hf, sizeof hf))
        return qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %.128s: its name is too long", path, name);
    return qins_tensor_list_add(out, &copy, hf, strlen(hf), path, err);
}

qins_status qins_gguf_translate(const qins_gguf_arch *arch, const json_t *config, const char *path,
                                const qins_tensor_list *in, qins_tensor_list *out, qins_error *err) {
    for (size_t i = 0; i < in->n; i++) {
        qins_status status = translate_one(arch, config, path, &in->items[i], out, err);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}
