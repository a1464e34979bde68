/* The numbers of a model as GGUF metadata. SPDX-License-Identifier: MIT
 *
 * Written as llama.cpp's conversion scripts do. Whether that was enough is not argued but tried: the header is read
 * back with the reader of GGUF files, and what comes out must be the model again.
 */
#include "model/gguf_metadata.h"

#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    qins_gguf_writer *w;
    const qins_gguf_arch *arch;
    const qins_hparams *h;
    const char *path;
    qins_error *err;
} job;

typedef struct key {
    char text[128];
} key;

static key key_of(const job *j, const char *suffix) {
    key k;
    snprintf(k.text, sizeof k.text, "%s.%s", j->arch->name, suffix);
    return k;
}

static void put_size(const job *j, const char *suffix, size_t value) {
    qins_gguf_put_u32(j->w, key_of(j, suffix).text, value);
}

static void put_number(const job *j, const char *suffix, double value) {
    qins_gguf_put_f32(j->w, key_of(j, suffix).text, value);
}

static qins_status refuse(const job *j, const char *what) {
    return qins_fail(j->err, QINS_ERR_UNSUPPORTED, "%s: %s cannot be expressed in a GGUF file of architecture %s",
                     j->path, what, j->arch->name);
}

/* ---- rope ---- */

void qins_rope_factors_free(qins_rope_factors *factors) {
    for (int i = 0; i < 2; i++)
        free(factors->values[i]);
    *factors = (qins_rope_factors){0};
}

/* Frequencies for n_ctx positions; freed with qins_rope_free. */
static qins_status frequencies(const job *j, const qins_rope_params *p, size_t n_ctx, qins_rope *rope) {
    return qins_rope_init(rope, p, n_ctx, 1, j->err);
}

/* A tensor of what the frequencies are divided by: the list, or without one what follows from the scaling. */
static qins_status put_divisors(const job *j, const char *name, const qins_rope_params *p, const json_t *list,
                                float **values) {
    qins_rope_params plain = *p;
    plain.type = QINS_ROPE_DEFAULT;
    qins_rope a = {0}, b = {0};
    size_t n = p->rotary_dims / 2;
    qins_status status = frequencies(j, &plain, 1, &a);
    if (status == QINS_OK) status = frequencies(j, p, 1, &b);
    if (status == QINS_OK && (*values = qins_alloc(n, sizeof **values)) == NULL)
        status = qins_fail_memory(j->err, n * sizeof **values, "rope factors");
    for (size_t i = 0; status == QINS_OK && i < n; i++)
        (*values)[i] =
            list != NULL ? (float)json_number_value(json_array_get(list, i)) : a.frequencies[i] / b.frequencies[i];
    qins_rope_free(&a);
    qins_rope_free(&b);
    return status == QINS_OK ? qins_gguf_writer_add_f32(j->w, name, *values, n, j->err) : status;
}

/* The factor on cosines and sines, where it is not what readers compute themselves. */
static qins_status put_attention_factor(const job *j, const qins_rope_params *p, double own) {
    qins_rope rope = {0};
    qins_status status = frequencies(j, p, p->max_position, &rope);
    double factor = (double)rope.scale / own;
    if (status == QINS_OK && fabs(factor - 1.0) > 1e-6) put_number(j, "rope.scaling.attn_factor", factor);
    qins_rope_free(&rope);
    return status;
}

static void put_scaling(const job *j, const char *type) {
    qins_gguf_put_string(j->w, key_of(j, "rope.scaling.type").text, type, strlen(type));
}

static qins_status put_yarn(const job *j, const qins_rope_params *p) {
    double factor = p->factor > 0 ? p->factor : (double)p->max_position / (double)p->original_max_position;
    put_scaling(j, "yarn");
    put_number(j, "rope.scaling.factor", factor);
    put_size(j, "rope.scaling.original_context_length", p->original_max_position);
    if (fabs(p->beta_fast - 32.0) > 0) put_number(j, "rope.scaling.yarn_beta_fast", p->beta_fast);
    if (fabs(p->beta_slow - 1.0) > 0) put_number(j, "rope.scaling.yarn_beta_slow", p->beta_slow);
    return put_attention_factor(j, p, factor <= 1.0 ? 1.0 : 1.0 + 0.1 * log(factor));
}

static qins_status put_longrope(const job *j, const qins_rope_params *p, qins_rope_factors *factors) {
    put_scaling(j, "longrope");
    put_size(j, "rope.scaling.original_context_length", p->original_max_position);
    qins_status status = put_divisors(j, "rope_factors_long.weight", p, p->long_factor, &factors->values[0]);
    if (status == QINS_OK)
        status = put_divisors(j, "rope_factors_short.weight", p, p->short_factor, &factors->values[1]);
    return status == QINS_OK ? put_attention_factor(j, p, 1.0) : status;
}

static qins_status put_rope(const job *j, qins_rope_factors *factors) {
    const qins_rope_params *p = &j->h->rope[0];
    if (j->h->family->no_rope) return QINS_OK;
    put_size(j, "rope.dimension_count", p->rotary_dims);
    put_number(j, "rope.freq_base", p->theta);
    if (j->h->family->dual_rope) put_number(j, "rope.freq_base_swa", j->h->rope[1].theta);
    switch (p->type) {
    case QINS_ROPE_DEFAULT:
        return QINS_OK;
    case QINS_ROPE_LINEAR:
        put_scaling(j, "linear");
        put_number(j, "rope.scaling.factor", p->factor);
        return QINS_OK;
    case QINS_ROPE_DYNAMIC:
        return refuse(j, "rope scaling \"dynamic\"");
    case QINS_ROPE_LLAMA3:
        if (!j->arch->rope_factors) return refuse(j, "rope scaling \"llama3\"");
        return put_divisors(j, "rope_freqs.weight", p, NULL, &factors->values[0]);
    case QINS_ROPE_YARN:
        return put_yarn(j, p);
    case QINS_ROPE_LONGROPE:
        if (!j->arch->rope_factors) return refuse(j, "rope scaling \"longrope\"");
        return put_longrope(j, p, factors);
    }
    return refuse(j, "this rope scaling");
}

/* ---- the rest ---- */

static size_t count_layers(const qins_hparams *h, qins_layer_flag flag) {
    size_t n = 0;
    for (size_t l = 0; l < h->n_layers; l++)
        n += (h->layer_flags[l] & flag) != 0;
    return n;
}

/* The pattern is left out where every layer slides, unless readers assume another. */
static void put_windows(const job *j) {
    const qins_hparams *h = j->h;
    size_t n_sliding = count_layers(h, QINS_LAYER_SLIDING);
    if (n_sliding == 0) return;
    put_size(j, "attention.sliding_window", h->sliding_window);
    if (n_sliding == h->n_layers && !h->family->window_switch && h->family->window != QINS_WINDOW_ALTERNATE) return;
    uint8_t slides[QINS_MAX_LAYERS];
    for (size_t l = 0; l < h->n_layers; l++)
        slides[l] = (h->layer_flags[l] & QINS_LAYER_SLIDING) != 0;
    qins_gguf_put_array(j->w, key_of(j, "attention.sliding_window_pattern").text, QINS_GGUF_BOOL, h->n_layers, slides,
                        h->n_layers);
}

static void put_experts(const job *j) {
    const qins_hparams *h = j->h;
    if (h->n_experts == 0) return;
    put_size(j, "expert_count", h->n_experts);
    put_size(j, "expert_used_count", h->n_experts_used);
    if (strcmp(h->family->expert_size_key, "intermediate_size") != 0)
        put_size(j, "expert_feed_forward_length", h->expert_size);
    if (h->shared_expert_size > 0) put_size(j, "expert_shared_feed_forward_length", h->shared_expert_size);
}

static void put_sizes(const job *j) {
    const qins_hparams *h = j->h;
    put_size(j, "context_length", h->max_position);
    put_size(j, "embedding_length", h->hidden_size);
    put_size(j, "block_count", h->n_layers);
    put_size(j, "feed_forward_length", h->intermediate_size);
    put_size(j, "attention.head_count", h->n_heads);
    put_size(j, "attention.head_count_kv", h->n_kv_heads);
    put_size(j, "vocab_size", h->vocab_size);
    if (h->head_dim * h->n_heads != h->hidden_size) {
        put_size(j, "attention.key_length", h->head_dim);
        put_size(j, "attention.value_length", h->head_dim);
    }
    bool layer = j->arch->layer_norm;
    put_number(j, layer ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", (double)h->norm_eps);
    if (h->family->parallel_residual_key != NULL)
        qins_gguf_put_bool(j->w, key_of(j, "use_parallel_residual").text, h->parallel_residual);
    if (h->attention_cap > 0) put_number(j, "attn_logit_softcapping", (double)h->attention_cap);
    if (h->logit_cap > 0) put_number(j, "final_logit_softcapping", (double)h->logit_cap);
}

qins_status qins_gguf_put_hparams(qins_gguf_writer *w, const qins_gguf_arch *arch, const qins_hparams *h,
                                  const char *path, qins_rope_factors *factors, qins_error *err) {
    const job j = {w, arch, h, path, err};
    if (arch->lacks_head && !h->tied_head) return refuse(&j, "a head apart from the embedding (tie_word_embeddings)");
    put_sizes(&j);
    put_windows(&j);
    put_experts(&j);
    return put_rope(&j, factors);
}

/* ---- the comparison afterwards ---- */

static qins_status differ(const job *j, const char *what, double model, double read) {
    return qins_fail(
        j->err, QINS_ERR_UNSUPPORTED,
        "%s: %s cannot be expressed in a GGUF file of architecture %s: the model has %.9g, a reader of the "
        "file would take %.9g",
        j->path, what, j->arch->name, model, read);
}

/* The values in question are copies or FP32 roundings of each other. */
static bool is_close(double a, double b) {
    return fabs(a - b) <= 1e-6 * fmax(fabs(a), fabs(b));
}

static qins_status check_rope(const job *j, const qins_rope_params *p, const qins_rope_params *q, const char *what) {
    const size_t lengths[] = {1, p->original_max_position + 1, p->max_position + 1};
    qins_status status = QINS_OK;
    if (j->h->family->no_rope) return QINS_OK;
    if (p->rotary_dims != q->rotary_dims) return differ(j, what, (double)p->rotary_dims, (double)q->rotary_dims);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0] && status == QINS_OK; i++) {
        qins_rope a = {0}, b = {0};
        status = frequencies(j, p, lengths[i], &a);
        if (status == QINS_OK) status = frequencies(j, q, lengths[i], &b);
        if (status == QINS_OK && !is_close((double)a.scale, (double)b.scale))
            status = differ(j, "the attention factor of the rope scaling", (double)a.scale, (double)b.scale);
        for (size_t k = 0; k < a.n_pairs && status == QINS_OK; k++)
            if (!is_close((double)a.frequencies[k], (double)b.frequencies[k]))
                status = differ(j, what, (double)a.frequencies[k], (double)b.frequencies[k]);
        qins_rope_free(&a);
        qins_rope_free(&b);
    }
    return status;
}

static qins_status check_layers(const job *j, const qins_hparams *read) {
    static const struct {
        qins_layer_flag flag;
        const char *what;
    } flags[] = {{QINS_LAYER_SLIDING, "which layers have a sliding window"},
                 {QINS_LAYER_NO_ROPE, "which layers have no rope"},
                 {QINS_LAYER_EXPERTS, "which layers have experts"}};
    for (size_t l = 0; l < j->h->n_layers; l++)
        for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++)
            if (((j->h->layer_flags[l] ^ read->layer_flags[l]) & flags[f].flag) != 0) return refuse(j, flags[f].what);
    return QINS_OK;
}

static qins_status compare(const job *j, const qins_hparams *read) {
    const qins_hparams *h = j->h;
    bool slides = count_layers(h, QINS_LAYER_SLIDING) > 0;
    if (h->activation != read->activation) return refuse(j, "this activation function");
    const struct {
        const char *what;
        double model, read;
    } values[] = {{"hidden_size", (double)h->hidden_size, (double)read->hidden_size},
                  {"num_hidden_layers", (double)h->n_layers, (double)read->n_layers},
                  {"num_attention_heads", (double)h->n_heads, (double)read->n_heads},
                  {"num_key_value_heads", (double)h->n_kv_heads, (double)read->n_kv_heads},
                  {"head_dim", (double)h->head_dim, (double)read->head_dim},
                  {"intermediate_size", (double)h->intermediate_size, (double)read->intermediate_size},
                  {"vocab_size", (double)h->vocab_size, (double)read->vocab_size},
                  {"max_position_embeddings", (double)h->max_position, (double)read->max_position},
                  {"the epsilon of norms", (double)h->norm_eps, (double)read->norm_eps},
                  {"the parallel residual", h->parallel_residual, read->parallel_residual},
                  {"tie_word_embeddings", h->tied_head && !j->arch->has_head, read->tied_head},
                  {"sliding_window", slides ? (double)h->sliding_window : 0, slides ? (double)read->sliding_window : 0},
                  {"attn_logit_softcapping", (double)h->attention_cap, (double)read->attention_cap},
                  {"final_logit_softcapping", (double)h->logit_cap, (double)read->logit_cap},
                  {"the scale of embeddings", (double)h->embedding_scale, (double)read->embedding_scale},
                  {"the number of experts", (double)h->n_experts, (double)read->n_experts},
                  {"num_experts_per_tok", (double)h->n_experts_used, (double)read->n_experts_used},
                  {"the size of experts", (double)h->expert_size, (double)read->expert_size},
                  {"the size of the shared expert", (double)h->shared_expert_size, (double)read->shared_expert_size},
                  {"norm_topk_prob", h->normalize_experts, read->normalize_experts},
                  {"the attention scale", h->family->query_scalar ? 0.0 : (double)h->attention_scale,
                   h->family->query_scalar ? 0.0 : (double)read->attention_scale}};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        if (!is_close(values[i].model, values[i].read))
            return differ(j, values[i].what, values[i].model, values[i].read);
    for (int s = 0; s < QINS_SLOT_COUNT; s++)
        if (h->has_bias[s] != read->has_bias[s]) {
            char name[128] = "", what[160];
            (void)qins_place_name(h->family, (qins_place){.slot = (qins_slot)s}, ".bias", true, name, sizeof name);
            snprintf(what, sizeof what, "%s biases such as %s", h->has_bias[s] ? "having" : "lacking", name);
            return refuse(j, what);
        }
    qins_status status = check_layers(j, read);
    if (status == QINS_OK) status = check_rope(j, &h->rope[0], &read->rope[0], "this rope");
    if (status == QINS_OK && slides) status = check_rope(j, &h->rope[1], &read->rope[1], "the rope of sliding layers");
    return status;
}

qins_status qins_gguf_check_hparams(const qins_gguf *written, const qins_gguf_arch *arch, const qins_hparams *h,
                                    const char *path, double *query_factor, qins_error *err) {
    const job j = {NULL, arch, h, path, err};
    const qins_gguf_arch *found = NULL;
    json_t *config = NULL;
    qins_hparams *read = qins_alloc(1, sizeof *read);
    qins_status status = read != NULL ? QINS_OK : qins_fail_memory(err, sizeof *read, "a config");
    if (status == QINS_OK) status = qins_gguf_find_arch(written, &found, err);
    if (status == QINS_OK) status = qins_gguf_config(written, found, &config, err);
    if (status == QINS_OK) status = qins_hparams_read(config, path, read, err);
    if (status == QINS_OK) status = compare(&j, read);
    if (status == QINS_OK) *query_factor = (double)h->attention_scale / (double)read->attention_scale;
    json_decref(config); /* rope factors point into it */
    free(read);
    return status;
}
