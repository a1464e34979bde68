/* config.json from the metadata of a GGUF file. SPDX-License-Identifier: MIT */
#include "format/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Metadata keys without the architecture in front, and where their values go. */
static const struct {
    const char *gguf, *hf;
    enum { INTEGER, NUMBER } kind;
    bool required;
} entries[] = {
    {"embedding_length", "hidden_size", INTEGER, true},
    {"block_count", "num_hidden_layers", INTEGER, true},
    {"attention.head_count", "num_attention_heads", INTEGER, true},
    {"attention.head_count_kv", "num_key_value_heads", INTEGER, false},
    {"context_length", "max_position_embeddings", INTEGER, true},
    {"feed_forward_length", "intermediate_size", INTEGER, false},
    {"attn_logit_softcapping", "attn_logit_softcapping", NUMBER, false},
    {"final_logit_softcapping", "final_logit_softcapping", NUMBER, false},
    {"rope.freq_base_swa", "rope_local_base_freq", NUMBER, false},
    {"expert_used_count", "num_experts_per_tok", INTEGER, false},
    {"expert_feed_forward_length", "moe_intermediate_size", INTEGER, false},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size", INTEGER, false},
};

static const struct {
    const char *gguf, *hf;
} token_ids[] = {
    {"tokenizer.ggml.bos_token_id", "bos_token_id"},
    {"tokenizer.ggml.eos_token_id", "eos_token_id"},
    {"tokenizer.ggml.padding_token_id", "pad_token_id"},
};

typedef struct builder {
    const qins_gguf *gguf;
    const qins_gguf_arch *arch;
    json_t *config;
    bool failed; /* out of memory */
    qins_error *err;
} builder;

static void put(builder *b, const char *key, json_t *value) {
    if (json_object_set_new(b->config, key, value) != 0) b->failed = true;
}

/* "llama.block_count"; valid until the next call on the same buffer. */
static const char *key_of(const builder *b, const char *suffix, char buffer[128]) {
    snprintf(buffer, 128, "%s.%s", b->arch->name, suffix);
    return buffer;
}

static const qins_gguf_value *find(const builder *b, const char *suffix) {
    char key[128];
    return qins_gguf_find(b->gguf, key_of(b, suffix, key));
}

static int64_t integer_or(const builder *b, const char *suffix, int64_t otherwise) {
    char key[128];
    int64_t value;
    return qins_gguf_get_integer(b->gguf, key_of(b, suffix, key), &value) ? value : otherwise;
}

static double number_or(const builder *b, const char *suffix, double otherwise) {
    char key[128];
    double value;
    return qins_gguf_get_number(b->gguf, key_of(b, suffix, key), &value) ? value : otherwise;
}

/* The shortest decimal that is the same FP32, so that 9.999999747378752e-06 becomes 1e-05 as it was. */
static json_t *shortest(double value) {
    if (!isfinite(value)) return json_null();
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtof(text, NULL) == (float)value) return json_real(strtod(text, NULL));
    }
    return json_real(value);
}

/* A single value, or an array of equal ones (some files give a value for each layer). */
static qins_status put_entry(builder *b, const char *suffix, const char *hf, bool is_integer) {
    const qins_gguf_value *v = find(b, suffix);
    if (v->kind == QINS_GGUF_STRING || v->count == 0)
        return qins_fail(b->err, QINS_ERR_FORMAT, "%s: metadata %s.%s is not a number", b->gguf->path, b->arch->name,
                         suffix);
    for (uint64_t i = 1; i < v->count; i++) {
        double x = qins_gguf_number(v, i), first = qins_gguf_number(v, 0);
        if (x < first || x > first)
            return qins_fail(b->err, QINS_ERR_UNSUPPORTED,
                             "%s: metadata %s.%s differs between layers, which is not supported", b->gguf->path,
                             b->arch->name, suffix);
    }
    put(b, hf, is_integer ? json_integer(qins_gguf_integer(v, 0)) : shortest(qins_gguf_number(v, 0)));
    return QINS_OK;
}

static qins_status put_entries(builder *b) {
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        if (find(b, entries[i].gguf) != NULL) {
            qins_status status = put_entry(b, entries[i].gguf, entries[i].hf, entries[i].kind == INTEGER);
            if (status != QINS_OK) return status;
        } else if (entries[i].required) {
            return qins_fail(b->err, QINS_ERR_FORMAT, "%s: metadata %s.%s is missing", b->gguf->path, b->arch->name,
                             entries[i].gguf);
        }
    }
    if (find(b, "attention.head_count_kv") == NULL)
        put(b, "num_key_value_heads", json_incref(json_object_get(b->config, "num_attention_heads")));
    const char *experts = b->arch->experts_key != NULL ? b->arch->experts_key : "num_experts";
    if (find(b, "expert_count") == NULL || integer_or(b, "expert_count", 0) == 0) return QINS_OK;
    return put_entry(b, "expert_count", experts, true);
}

static qins_status put_norm(builder *b) {
    const char *suffix = b->arch->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    if (find(b, suffix) == NULL)
        return qins_fail(b->err, QINS_ERR_FORMAT, "%s: metadata %s.%s is missing", b->gguf->path, b->arch->name,
                         suffix);
    return put_entry(b, suffix, b->arch->norm_eps_key != NULL ? b->arch->norm_eps_key : "rms_norm_eps", false);
}

static json_int_t config_integer(const builder *b, const char *key) {
    return json_integer_value(json_object_get(b->config, key));
}

static qins_status put_head_dim(builder *b, int64_t *head_dim) {
    json_int_t hidden = config_integer(b, "hidden_size"), heads = config_integer(b, "num_attention_heads");
    if (hidden <= 0 || heads <= 0)
        return qins_fail(b->err, QINS_ERR_FORMAT, "%s: %" PRId64 " attention heads in a width of %" PRId64,
                         b->gguf->path, (int64_t)heads, (int64_t)hidden);
    *head_dim = integer_or(b, "attention.key_length", hidden / heads);
    int64_t value_dim = integer_or(b, "attention.value_length", *head_dim);
    if (*head_dim <= 0 || value_dim != *head_dim)
        return qins_fail(b->err, QINS_ERR_UNSUPPORTED,
                         "%s: keys of %" PRId64 " and values of %" PRId64 " a head are not supported", b->gguf->path,
                         *head_dim, value_dim);
    put(b, "head_dim", json_integer(*head_dim));
    return QINS_OK;
}

/* ---- rope ---- */

static const qins_tensor *find_tensor(const builder *b, const char *name) {
    for (size_t i = 0; i < b->gguf->tensors.n; i++) {
        if (strcmp(b->gguf->tensors.items[i].name, name) == 0) return &b->gguf->tensors.items[i];
    }
    return NULL;
}

enum { MAX_ROPE_FACTORS = 4096 };

/* The values of a tensor of factors, at most one a pair of rotary dimensions; NULL on failure. */
static float *read_factors(builder *b, const qins_tensor *t, qins_status *status) {
    float *factors = NULL;
    if (t->n_dims != 1 || t->n_values == 0 || t->n_values > MAX_ROPE_FACTORS || t->type != QINS_TYPE_F32)
        *status = qins_fail(b->err, QINS_ERR_FORMAT, "%s: tensor %s: expected a vector of at most %d F32",
                            b->gguf->path, t->name, MAX_ROPE_FACTORS);
    else if ((factors = qins_alloc((size_t)t->n_values, sizeof *factors)) == NULL)
        *status = qins_fail_memory(b->err, (size_t)t->n_values * sizeof *factors, "rope factors");
    else
        qins_tensor_row(t, 0, 0, (size_t)t->n_values, factors);
    return factors;
}

/* The divisor that the "llama3" rule gives to the frequency of pair i (of n): see transformers'
 * _compute_llama3_parameters. */
static double llama3_divisor(size_t i, size_t n, double theta, double factor, double original) {
    const double low = 1.0, high = 4.0; /* in every published model */
    double wavelength = 6.283185307179586 * pow(theta, (double)i / (double)n);
    if (wavelength < original / high) return 1.0;
    if (wavelength > original / low) return factor;
    double smooth = (original / wavelength - low) / (high - low);
    return 1.0 / ((1.0 - smooth) / factor + smooth);
}

static bool follows_llama3(const float *factors, size_t n, double theta, double factor, double original) {
    for (size_t i = 0; i < n; i++) {
        double expected = llama3_divisor(i, n, theta, factor, original);
        if (!(fabs((double)factors[i] - expected) <= 1e-4 * expected)) return false;
    }
    return true;
}

/* llama files keep the result of the llama3 rule as a tensor; its parameters are found again by trying. */
static qins_status put_llama3(builder *b, const qins_tensor *t, double theta) {
    qins_status status = QINS_OK;
    float *factors = read_factors(b, t, &status);
    if (factors == NULL) return status;
    double factor = 1.0;
    for (size_t i = 0; i < t->n_values; i++)
        factor = fmax(factor, (double)factors[i]);
    int original = 1, found = 0;
    for (; original <= 1 << 20 && found == 0; original *= 2)
        found = follows_llama3(factors, (size_t)t->n_values, theta, factor, original) ? original : 0;
    free(factors);
    if (found == 0)
        return qins_fail(b->err, QINS_ERR_UNSUPPORTED,
                         "%s: tensor %s does not follow the llama3 rule; other rope factors are not supported",
                         b->gguf->path, t->name);
    if (factor > 1.0)
        put(b, "rope_scaling",
            json_pack("{s:s, s:o, s:f, s:f, s:i}", "rope_type", "llama3", "factor", shortest(factor), "low_freq_factor",
                      1.0, "high_freq_factor", 4.0, "original_max_position_embeddings", found));
    return QINS_OK;
}

static void put_optional(builder *b, json_t *object, const char *suffix, const char *hf) {
    const qins_gguf_value *v = find(b, suffix);
    if (v != NULL && !v->is_array && v->kind != QINS_GGUF_STRING)
        json_object_set_new(object, hf, shortest(qins_gguf_number(v, 0)));
}

static qins_status put_longrope(builder *b, const qins_tensor *long_tensor) {
    const qins_tensor *short_tensor = find_tensor(b, "rope_factors_short.weight");
    int64_t original = integer_or(b, "rope.scaling.original_context_length", 0);
    if (short_tensor == NULL || original <= 0)
        return qins_fail(b->err, QINS_ERR_FORMAT,
                         "%s: rope_factors_long without rope_factors_short or %s.rope.scaling.original_context_length",
                         b->gguf->path, b->arch->name);
    json_t *lists[2] = {json_array(), json_array()};
    const qins_tensor *tensors[2] = {long_tensor, short_tensor};
    qins_status status = QINS_OK;
    for (size_t i = 0; i < 2 && status == QINS_OK; i++) {
        float *factors = read_factors(b, tensors[i], &status);
        for (size_t k = 0; factors != NULL && k < tensors[i]->n_values; k++)
            json_array_append_new(lists[i], shortest((double)factors[k]));
        free(factors);
    }
    put(b, "original_max_position_embeddings", json_integer(original));
    json_t *scaling = json_pack("{s:s, s:s, s:o, s:o}", "type", "longrope", "rope_type", "longrope", "long_factor",
                                lists[0], "short_factor", lists[1]);
    put_optional(b, scaling, "rope.scaling.attn_factor", "attention_factor");
    put(b, "rope_scaling", scaling);
    return status;
}

/* rope.scaling.*: linear and yarn. */
static qins_status put_scaling(builder *b) {
    char key[128];
    qins_gguf_string type = {"none", 4};
    double factor = number_or(b, "rope.scaling.factor", number_or(b, "rope.scale_linear", 1.0));
    if (!qins_gguf_get_string(b->gguf, key_of(b, "rope.scaling.type", key), &type) && factor > 1.0)
        type = (qins_gguf_string){"linear", 6};
    if ((type.n == 4 && memcmp(type.data, "none", 4) == 0) || (type.n == 8 && memcmp(type.data, "longrope", 8) == 0))
        return QINS_OK;
    bool is_yarn = type.n == 4 && memcmp(type.data, "yarn", 4) == 0;
    if (!is_yarn && !(type.n == 6 && memcmp(type.data, "linear", 6) == 0))
        return qins_fail(b->err, QINS_ERR_UNSUPPORTED, "%s: metadata %s: this kind of rope scaling is not supported",
                         b->gguf->path, key);
    if (!(factor > 0.0) || !isfinite(factor))
        return qins_fail(b->err, QINS_ERR_FORMAT, "%s: metadata %s.rope.scaling.factor is not positive", b->gguf->path,
                         b->arch->name);
    json_t *scaling = json_pack("{s:s, s:o}", "rope_type", is_yarn ? "yarn" : "linear", "factor", shortest(factor));
    if (is_yarn) {
        int64_t original = integer_or(b, "rope.scaling.original_context_length", 0);
        if (original > 0) json_object_set_new(scaling, "original_max_position_embeddings", json_integer(original));
        put_optional(b, scaling, "rope.scaling.yarn_beta_fast", "beta_fast");
        put_optional(b, scaling, "rope.scaling.yarn_beta_slow", "beta_slow");
        put_optional(b, scaling, "rope.scaling.yarn_attn_factor", "attention_factor");
        if (find(b, "rope.scaling.attn_factor") != NULL) /* beside YaRN's own */
            json_object_set_new(scaling, "attention_factor",
                                json_real(number_or(b, "rope.scaling.attn_factor", 1.0) * (1.0 + 0.1 * log(factor))));
    }
    put(b, "rope_scaling", scaling);
    return QINS_OK;
}

static qins_status put_rope(builder *b, int64_t head_dim) {
    const char *theta_key = b->arch->theta_key != NULL ? b->arch->theta_key : "rope_theta";
    double theta = number_or(b, "rope.freq_base", 10000.0);
    put(b, theta_key, shortest(theta));
    int64_t rotary = integer_or(b, "rope.dimension_count", head_dim);
    if (rotary < 0 || rotary > head_dim)
        return qins_fail(b->err, QINS_ERR_FORMAT,
                         "%s: metadata %s.rope.dimension_count is %" PRId64 ", more than a head's %" PRId64,
                         b->gguf->path, b->arch->name, rotary, head_dim);
    if (rotary != head_dim || b->arch->rotary_key != NULL)
        put(b, b->arch->rotary_key != NULL ? b->arch->rotary_key : "partial_rotary_factor",
            json_real((double)rotary / (double)head_dim));
    const qins_tensor *factors = find_tensor(b, "rope_freqs.weight");
    const qins_tensor *long_factors = find_tensor(b, "rope_factors_long.weight");
    if (factors != NULL) return put_llama3(b, factors, theta);
    if (long_factors != NULL) return put_longrope(b, long_factors);
    return put_scaling(b);
}

/* ---- what tensors say ---- */

static qins_status put_from_tensors(builder *b) {
    const qins_tensor *embedding = find_tensor(b, "token_embd.weight");
    if (embedding == NULL || embedding->n_dims != 2)
        return qins_fail(b->err, QINS_ERR_FORMAT, "%s: tensor token_embd.weight is missing or not a matrix",
                         b->gguf->path);
    put(b, "vocab_size", json_integer((json_int_t)embedding->shape[0]));
    put(b, "tie_word_embeddings", json_boolean(find_tensor(b, "output.weight") == NULL));
    put(b, "torch_dtype",
        json_string(embedding->type == QINS_TYPE_BF16  ? "bfloat16"
                    : embedding->type == QINS_TYPE_F16 ? "float16"
                                                       : "float32"));
    if (strcmp(b->arch->name, "llama") == 0) {
        put(b, "attention_bias", json_boolean(find_tensor(b, "blk.0.attn_q.bias") != NULL));
        put(b, "mlp_bias", json_boolean(find_tensor(b, "blk.0.ffn_up.bias") != NULL));
    }
    return QINS_OK;
}

/* ---- sliding windows ---- */

/* A window of 0 is none. The pattern says which layers have it: as a number n, all but every n-th; as a list, one by
 * one. Without a pattern it is the family's. */
static qins_status put_windows(builder *b) {
    const qins_gguf_value *window = find(b, "attention.sliding_window");
    const qins_gguf_value *pattern = find(b, "attention.sliding_window_pattern");
    if (window == NULL) return QINS_OK;
    qins_status status = put_entry(b, "attention.sliding_window", "sliding_window", true);
    if (status != QINS_OK) return status;
    if (config_integer(b, "sliding_window") == 0) put(b, "sliding_window", json_null());
    if (pattern == NULL || config_integer(b, "sliding_window") == 0) return QINS_OK;
    if (!pattern->is_array) return put_entry(b, "attention.sliding_window_pattern", "sliding_window_pattern", true);
    if (pattern->kind == QINS_GGUF_STRING || (int64_t)pattern->count != config_integer(b, "num_hidden_layers"))
        return qins_fail(
            b->err, QINS_ERR_FORMAT,
            "%s: metadata %s.attention.sliding_window_pattern: expected one number for each of the %" PRId64
            " layers, found %" PRIu64,
            b->gguf->path, b->arch->name, (int64_t)config_integer(b, "num_hidden_layers"), pattern->count);
    json_t *types = json_array();
    for (uint64_t i = 0; i < pattern->count; i++) {
        bool slides = qins_gguf_integer(pattern, i) != 0;
        json_array_append_new(types, json_string(slides ? "sliding_attention" : "full_attention"));
    }
    put(b, "layer_types", types);
    put(b, "use_sliding_window", json_true()); /* of the families that have such a switch */
    return QINS_OK;
}

/* ---- single architectures ---- */

/* Scale of the attention logits of gemma2 and gemma3: not stored; the largest models have their own (llama.cpp tells
 * them by their number of layers). */
static void put_gemma_scale(builder *b, int64_t head_dim) {
    static const struct {
        const char *arch;
        json_int_t n_layers;
    } largest[] = {{"gemma2", 46}, {"gemma3", 62}};
    json_int_t scalar = head_dim;
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(b->arch->name, largest[i].arch) == 0 &&
            config_integer(b, "num_hidden_layers") == largest[i].n_layers)
            scalar = config_integer(b, "hidden_size") / config_integer(b, "num_attention_heads");
    }
    if (strcmp(b->arch->name, "gemma2") == 0 || strcmp(b->arch->name, "gemma3") == 0)
        put(b, "query_pre_attn_scalar", json_integer(scalar));
}

static void put_token_ids(builder *b) {
    for (size_t i = 0; i < sizeof token_ids / sizeof token_ids[0]; i++) {
        int64_t id;
        if (qins_gguf_get_integer(b->gguf, token_ids[i].gguf, &id)) put(b, token_ids[i].hf, json_integer(id));
    }
}

static qins_status fill(builder *b) {
    json_t *constants = b->arch->constants != NULL ? json_loads(b->arch->constants, 0, NULL) : NULL;
    if (constants != NULL) json_object_update(b->config, constants);
    json_decref(constants);
    put(b, "model_type", json_string(b->arch->model_type));
    put(b, "architectures", json_pack("[s]", b->arch->class_name));
    put(b, "hidden_act", json_string(b->arch->activation != NULL ? b->arch->activation : "silu"));
    bool parallel;
    char key[128];
    if (qins_gguf_get_bool(b->gguf, key_of(b, "use_parallel_residual", key), &parallel))
        put(b, "use_parallel_residual", json_boolean(parallel));
    put_token_ids(b);
    int64_t head_dim = 0;
    qins_status status = put_entries(b);
    if (status == QINS_OK) status = put_windows(b);
    if (status == QINS_OK) status = put_norm(b);
    if (status == QINS_OK) status = put_head_dim(b, &head_dim);
    if (status == QINS_OK) status = put_rope(b, head_dim);
    if (status == QINS_OK) status = put_from_tensors(b);
    if (status == QINS_OK) put_gemma_scale(b, head_dim);
    if (status == QINS_OK && b->failed) status = qins_fail_memory(b->err, 0, "a config");
    return status;
}

qins_status qins_gguf_config(const qins_gguf *gguf, const qins_gguf_arch *arch, json_t **config, qins_error *err) {
    builder b = {.gguf = gguf, .arch = arch, .config = json_object(), .err = err};
    *config = NULL;
    if (b.config == NULL) return qins_fail_memory(err, 0, "a config");
    qins_status status = fill(&b);
    if (status != QINS_OK)
        json_decref(b.config);
    else
        *config = b.config;
    return status;
}
