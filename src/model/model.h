/* The model in memory, a session, and the steps of the forward pass. SPDX-License-Identifier: MIT */
#ifndef QINS_MODEL_H
#define QINS_MODEL_H

#include "kernel/matrix.h"
#include "model/attention.h"
#include "model/weights.h"
#include "text/tokenizer.h"

typedef struct qins_affine {
    bool present;
    qins_matrix weight;
    float *bias; /* owned, NULL without one */
} qins_affine;

typedef struct qins_norm {
    float *weight, *bias; /* owned; bias NULL without one */
} qins_norm;

typedef struct qins_expert {
    qins_affine gate, up, down;
} qins_expert;

/* What a family or a layer lacks is not present, and the forward pass steps over it. */
typedef struct qins_layer {
    uint8_t flags; /* qins_layer_flag */
    qins_norm attn_norm, attn_post_norm, mlp_norm, mlp_post_norm, q_norm, k_norm;
    qins_affine q, k, v, qkv, o;
    qins_affine gate, up, gate_up, down;
    qins_affine router, shared_router;
    qins_expert shared;
    qins_expert *experts; /* n_experts of them, NULL in dense layers */
} qins_layer;

struct qins_model {
    qins_weights *weights;
    qins_tokenizer *tokenizer;
    qins_matrix embed;
    qins_affine head;      /* views the embedding when tied */
    qins_affine positions; /* learned positions, [max_position][hidden] */
    qins_norm final_norm;
    qins_layer *layers;
    char codec[32];
    uint64_t bytes_per_token;
    struct qins_kv_transform *kv_transform; /* NULL without one */
    bool has_splits;                        /* matrices of which only some rows are encoded */
};

/* Where q, k and v of a head lie in a row of the projections' output. */
typedef struct qins_qkv_view {
    size_t row; /* floats a token */
    size_t q_offset, k_offset, v_offset;
    size_t head_stride; /* from one head to the next */
} qins_qkv_view;

qins_qkv_view qins_qkv_view_of(const qins_hparams *h);

/* ---- forward.c, for measurements ---- */

/* Looks into the forward pass of a session. */
typedef struct qins_probe {
    /* > 0: start with this layer, from input[n_ctx][hidden] = the hidden states before it, instead of the embeddings */
    size_t first_layer;
    const float *input;
    /* x[n][hidden]: hidden states of the tokens in work after `layer`; NULL for none */
    void (*output)(void *user, size_t layer, const float *x, size_t n);
    void *user;
} qins_probe;

/* What the probe points to must outlive the session. */
void qins_session_set_probe(qins_session *session, const qins_probe *probe);

/* The base with one layer of the donor, or with its embedding and head (layer == n_layers). Borrows both, which must
 * have the same shapes. Released by qins_model_ungraft, which takes NULL. */
qins_status qins_model_graft(const qins_model *base, const qins_model *donor, size_t layer, qins_model **grafted,
                             qins_error *err);
void qins_model_ungraft(qins_model *grafted);

/* ---- rope.c ---- */

/* Rotary embedding of a session: frequencies, and the angles of the tokens in work. */
typedef struct qins_rope {
    size_t n_pairs;
    float scale;            /* of cosines and sines: the attention factor of yarn and longrope */
    float *frequencies;     /* [n_pairs] radians a position */
    float *cosines, *sines; /* [batch][n_pairs] */
} qins_rope;

/* Frequencies of params for sequences of up to n_ctx positions. */
qins_status qins_rope_init(qins_rope *rope, const qins_rope_params *params, size_t n_ctx, size_t batch,
                           qins_error *err);
void qins_rope_free(qins_rope *rope);
/* Angles of tokens first .. first+n-1 of the batch, at positions position .. position+n-1. */
void qins_rope_set_positions(qins_rope *rope, size_t first, size_t position, size_t n_tokens);
/* Turns a rotated head back by the angles of `distance` positions. */
void qins_rope_turn_back(const qins_rope *rope, size_t distance, float *head);
/* Rotates the first 2*n_pairs values of a head, pairs (i, i + n_pairs), by the angles of token t. */
void qins_rope_apply(const qins_rope *rope, size_t t, float *head);

/* ---- attention.c ---- */

/* Normalises queries and keys where the family does, stores k and v of the runs' tokens in the cache, which has room
 * for them, then out[t][head] = softmax(cap(q K^T * scale)) V over the positions of the token's sequence that the layer
 * sees. rope NULL: none. qkv is overwritten. */
void qins_attend(qins_attention *a, const qins_hparams *h, const qins_layer *layer, const qins_kv_cache *cache,
                 size_t layer_index, const qins_rope *rope, const qins_token_run *runs, size_t n_runs, float *qkv,
                 float *out);

/* ---- layer_ops.c ---- */

/* n values; out may be x. Copies when the norm is absent. */
void qins_apply_norm_row(const qins_hparams *h, const qins_norm *norm, size_t n, const float *x, float *out);
/* The same for n_rows rows of `width` values, in parallel. */
void qins_apply_norm(const qins_hparams *h, const qins_norm *norm, size_t width, const float *x, size_t ldx,
                     size_t n_rows, float *out, size_t ldo);
void qins_activate(qins_activation activation, float *x, size_t n);
/* out[t][i] = act(gate) * up, from rows of width gates followed by width ups. */
void qins_activate_gated(qins_activation activation, const float *gate_up, size_t width, size_t n_tokens, float *out);
/* x := cap * tanh(x / cap) */
void qins_soft_cap(float cap, float *x, size_t n);

/* ---- affine.c ---- */

/* Inputs of a batch, rotated and quantised at most once for all matrices that read them. */
typedef struct qins_input {
    const float *x; /* [n_tokens][n_cols] */
    size_t n_cols, n_tokens;
    float *prepared;       /* scratch: n_tokens * qins_prepared_row(n_cols) floats, 64-byte aligned */
    bool floats_only;      /* `prepared` has room for n_tokens * n_cols floats only, and the arithmetic is FP32 */
    float *rows;           /* scratch [n_tokens][rows of a part] for matrices of two parts */
    const float *rotation; /* signs that `vectors` were rotated with */
    bool ready;            /* `vectors` were made */
    qins_vectors vectors;
} qins_input;

/* Floats of scratch a token; a row of more columns is never shorter. */
size_t qins_prepared_row(size_t n_cols);

/* y[t*ldy + i] = (W x)[i] + b[i] */
typedef struct qins_affine_output {
    const qins_affine *affine; /* skipped when not present */
    float *y;
    size_t ldy;
} qins_affine_output;

enum { QINS_MAX_AFFINES = 4 };
/* Up to QINS_MAX_AFFINES matrices on the same inputs, together where they share a rotation. */
void qins_affine_apply(const qins_affine_output *outputs, size_t n, qins_input *in);
/* y := act(gate in) * (up in) in one loop; false, and nothing done, where the two cannot go together. */
bool qins_affine_apply_gated(const qins_affine *gate, const qins_affine *up, qins_activation activation, qins_input *in,
                             float *y, size_t ldy);
/* One of them. */
static inline void qins_affine_apply_one(const qins_affine *a, qins_input *in, float *y, size_t ldy) {
    qins_affine_apply(&(qins_affine_output){a, y, ldy}, 1, in);
}

/* ---- experts.c ---- */

typedef struct qins_expert_scratch {
    float *logits;                               /* [batch][n_experts] */
    float *weights;                              /* [batch][n_experts_used] */
    size_t *chosen;                              /* the same shape */
    size_t *tokens;                              /* [batch]: those of the expert in work */
    float *token_weights;                        /* [batch]: theirs */
    float *x, *prepared, *gate_up, *inner, *out; /* their activations */
} qins_expert_scratch;

qins_status qins_expert_scratch_init(qins_expert_scratch *s, const qins_hparams *h, size_t batch, qins_error *err);
void qins_expert_scratch_free(qins_expert_scratch *s);
/* Scores of experts in logits[n_experts] -> the n_experts_used chosen ones, best first (the lower index on ties), and
 * their weights. Overwrites logits. */
void qins_choose_experts(const qins_hparams *h, float *logits, size_t *chosen, float *weights);
/* delta := sum of the chosen experts' outputs by weight, plus the shared expert where there is one. */
void qins_experts(const qins_hparams *h, const qins_layer *layer, const float *x, size_t n_tokens, float *prepared,
                  qins_expert_scratch *s, float *delta);

#endif
