/* Model families as rows of data. SPDX-License-Identifier: MIT
 *
 * A family says what its tensors are called and which variant of each step it uses; one forward pass (forward.c)
 * interprets it. docs/families.md lists them.
 */
#ifndef QINS_FAMILIES_H
#define QINS_FAMILIES_H

#include "base/base.h"
#include "kernel/elementwise.h"

#include <jansson.h>

/* Places in the network that hold parameters. Each may have a .weight and a .bias. */
typedef enum qins_slot {
    QINS_SLOT_EMBED,
    QINS_SLOT_POSITION, /* learned position embedding */
    QINS_SLOT_FINAL_NORM,
    QINS_SLOT_HEAD,
    QINS_SLOT_ATTN_NORM, /* from here on: one a layer */
    QINS_SLOT_ATTN_POST_NORM,
    QINS_SLOT_MLP_NORM,
    QINS_SLOT_MLP_POST_NORM,
    QINS_SLOT_Q_NORM,
    QINS_SLOT_K_NORM,
    QINS_SLOT_Q,
    QINS_SLOT_K,
    QINS_SLOT_V,
    QINS_SLOT_QKV,
    QINS_SLOT_O,
    QINS_SLOT_GATE,
    QINS_SLOT_UP,
    QINS_SLOT_GATE_UP, /* rows of gate, then rows of up */
    QINS_SLOT_DOWN,
    QINS_SLOT_ROUTER,
    QINS_SLOT_SHARED_ROUTER, /* one row: how much of the shared expert a token takes */
    QINS_SLOT_SHARED_GATE,
    QINS_SLOT_SHARED_UP,
    QINS_SLOT_SHARED_DOWN,
    QINS_SLOT_EXPERT_GATE, /* one an expert */
    QINS_SLOT_EXPERT_UP,
    QINS_SLOT_EXPERT_DOWN,
    QINS_SLOT_COUNT
} qins_slot;

typedef enum qins_role {
    QINS_ROLE_LINEAR,
    QINS_ROLE_EMBEDDING,
    QINS_ROLE_HEAD,
    QINS_ROLE_BIAS,
    QINS_ROLE_NORM,
    QINS_ROLE_OTHER
} qins_role;

typedef enum qins_norm_kind {
    QINS_NORM_RMS,          /* x / sqrt(mean(x^2) + eps) * w */
    QINS_NORM_RMS_PLUS_ONE, /* the same with 1 + w (gemma) */
    QINS_NORM_LAYER         /* (x - mean) / sqrt(var + eps) * w + b */
} qins_norm_kind;

/* Where q, k and v of a head lie among the rows of the projections. */
typedef enum qins_qkv_layout {
    QINS_QKV_IN_TURN, /* all of q, all of k, all of v: three projections or one fused */
    QINS_QKV_BY_HEAD  /* one fused; for each head its q, k and v rows (gpt_neox) */
} qins_qkv_layout;

typedef enum qins_qk_norm {
    QINS_QK_NORM_NONE,
    QINS_QK_NORM_HEAD, /* over each head */
    QINS_QK_NORM_FULL  /* over all heads of a token together */
} qins_qk_norm;

/* Which layers look back no further than sliding_window tokens. */
typedef enum qins_window_rule {
    QINS_WINDOW_NONE,
    QINS_WINDOW_ALL,
    QINS_WINDOW_UPPER,       /* from layer max_window_layers on */
    QINS_WINDOW_ALTERNATE,   /* all but every sliding_window_pattern-th */
    QINS_WINDOW_WITHOUT_ROPE /* those that have no rope */
} qins_window_rule;

/* Whether a slot has a bias. Those named after a config key follow it. */
typedef enum qins_bias_rule {
    QINS_BIAS_NONE,
    QINS_BIAS_ALWAYS,
    QINS_BIAS_ATTENTION, /* "attention_bias" */
    QINS_BIAS_MLP,       /* "mlp_bias" */
    QINS_BIAS_QKV        /* "qkv_bias" */
} qins_bias_rule;

/* A config key with the one value that is implemented, as JSON text. An absent key has that value. */
typedef struct qins_fixed_option {
    const char *key, *value;
} qins_fixed_option;

enum { QINS_MAX_FIXED_OPTIONS = 6 };

typedef struct qins_family {
    const char *model_type; /* Hugging Face */
    /* Tensor name without ".weight"; the first "%zu" is the layer, the second the expert; NULL = the family has none */
    const char *slot[QINS_SLOT_COUNT];
    const char *prefix; /* of the base model's names; checkpoints saved without a head lack it */
    qins_bias_rule bias[QINS_SLOT_COUNT];
    qins_norm_kind norm;
    qins_qkv_layout qkv;
    qins_qk_norm qk_norm;
    bool transposed_linears;       /* linears of layers are stored [inputs][outputs] (Conv1D of gpt2) */
    bool scaled_embedding;         /* embedding * sqrt(hidden_size) */
    bool attention_bias, qkv_bias; /* what these config keys are when absent */

    /* names of config.json keys where they differ from the usual ones; both are accepted */
    const char *hidden_size_key, *n_layers_key, *n_heads_key, *max_position_key, *intermediate_size_key;
    const char *norm_eps_key;
    double default_norm_eps;
    const char *activation_key;
    const char *default_activation;
    bool gelu_is_tanh; /* "gelu" in the config means the tanh approximation */
    bool default_tied;
    size_t default_head_dim;           /* 0: hidden_size / heads */
    const char *parallel_residual_key; /* true when absent */
    bool parallel_residual;            /* without a key */

    /* positions */
    bool no_rope;
    bool dual_rope;             /* sliding layers have their own */
    const char *rope_theta_key; /* older configs; newer ones have rope_parameters */
    double default_rope_theta;
    const char *rotary_fraction_key; /* NULL: the whole head is rotated */
    double default_rotary_fraction;
    bool yarn_is_longrope;     /* old configs of phi3 */
    bool skips_rope_in_layers; /* no_rope_layers, no_rope_layer_interval */
    qins_window_rule window;
    bool window_switch;    /* windows only where use_sliding_window is true */
    bool own_layer_types;  /* layer_types says which layers slide; elsewhere it must agree with the rule */
    size_t default_window; /* when sliding_window is absent; null means none */
    size_t default_window_pattern;

    /* scores and logits */
    bool query_scalar;                               /* query_pre_attn_scalar^-0.5 in place of head_dim^-0.5 */
    bool caps;                                       /* attn_logit_softcapping, final_logit_softcapping */
    double default_attention_cap, default_logit_cap; /* when the keys are absent; null means none */

    /* mixture of experts */
    const char *n_experts_key;          /* NULL: dense */
    const char *expert_size_key;        /* intermediate size of an expert */
    const char *shared_expert_size_key; /* NULL: no shared expert */
    bool normalize_experts;             /* when there is no norm_topk_prob: chosen weights sum to one */
    bool norm_topk_key;                 /* there is */

    qins_fixed_option fixed[QINS_MAX_FIXED_OPTIONS];
} qins_family;

/* NULL when unknown. */
const qins_family *qins_family_find(const char *model_type);
/* Row i of the table, NULL past its end. */
const qins_family *qins_family_at(size_t i);
/* Writes "llama, mistral, ...", as much as fits. */
void qins_family_list(char *text, size_t size);

/* Where a tensor belongs. */
typedef struct qins_place {
    qins_slot slot; /* QINS_SLOT_COUNT when it has none */
    size_t layer, expert;
} qins_place;

/* Full tensor name of a place; false when the family lacks the slot or the name does not fit. suffix: ".weight" or
 * ".bias". with_prefix: as whole models are saved. */
bool qins_place_name(const qins_family *family, qins_place place, const char *suffix, bool with_prefix, char *name,
                     size_t size);
/* Role of a tensor, with or without the prefix. */
qins_role qins_tensor_role(const qins_family *family, const char *tensor_name, qins_place *place);
const char *qins_role_name(qins_role role);

/* ---- numbers of one model, from config.json ---- */

typedef enum qins_rope_type {
    QINS_ROPE_DEFAULT,
    QINS_ROPE_LINEAR,
    QINS_ROPE_DYNAMIC,
    QINS_ROPE_LLAMA3,
    QINS_ROPE_YARN,
    QINS_ROPE_LONGROPE
} qins_rope_type;

/* How rotary frequencies follow from the config (rope.c has the formulas). Zero means absent where 0 is no value. */
typedef struct qins_rope_params {
    qins_rope_type type;
    size_t rotary_dims;
    size_t max_position, original_max_position;
    double theta, factor;
    double attention_factor;                  /* yarn, longrope */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow, mscale, mscale_all_dim;
    bool truncate;                            /* yarn */
    const json_t *short_factor, *long_factor; /* longrope: rotary_dims/2 numbers each, owned by the config */
} qins_rope_params;

enum { QINS_MAX_LAYERS = 4096 };

/* What distinguishes one layer from the next. */
typedef enum qins_layer_flag {
    QINS_LAYER_SLIDING = 1, /* looks back sliding_window tokens */
    QINS_LAYER_NO_ROPE = 2,
    QINS_LAYER_EXPERTS = 4
} qins_layer_flag;

typedef struct qins_hparams {
    const qins_family *family;
    size_t n_layers, hidden_size, n_heads, n_kv_heads, head_dim, intermediate_size, vocab_size, max_position;
    float norm_eps;
    qins_rope_params rope[2]; /* of full and of sliding layers; the config outlives them */
    uint8_t layer_flags[QINS_MAX_LAYERS];
    size_t sliding_window;
    float attention_scale, attention_cap, logit_cap; /* caps: 0 = none */
    float embedding_scale;
    qins_activation activation;
    bool parallel_residual, tied_head;
    bool has_bias[QINS_SLOT_COUNT];
    size_t n_experts, n_experts_used, expert_size, shared_expert_size;
    bool normalize_experts;
    int64_t bos_id, eos_id;
} qins_hparams;

/* Refuses unknown model types and options that the forward pass does not implement, by name. The config must outlive
 * hparams. */
qins_status qins_hparams_read(const json_t *config, const char *path, qins_hparams *hparams, qins_error *err);

/* The rope part of it, for one kind of layer (hparams_rope.c). */
qins_status qins_rope_params_read(const json_t *config, const char *path, const qins_family *family, bool sliding,
                                  size_t head_dim, size_t max_position, qins_rope_params *rope, qins_error *err);

#endif
