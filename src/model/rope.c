/* Rotary position embedding (Su et al., RoFormer, 2021), in the half-split form of the Hugging Face models, and the
 * ways to stretch it over longer contexts. SPDX-License-Identifier: MIT
 *
 * Frequencies and angles are computed in FP32, as the reference implementation does: at position 2,000 the rounding of
 * the angle is visible in the logits, and both sides should round alike.
 *
 * Two scalings depend on the length of the sequence. A KV cache holds keys that are rotated already, so the length that
 * counts is the one the session is made for, n_ctx: a session of n positions computes what the reference does in one
 * forward pass over n tokens.
 */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

static const double PI = 3.14159265358979323846;

/* theta^(-2i/d) */
static void plain_frequencies(double theta, size_t d, float *f) {
    for (size_t i = 0; i < d / 2; i++)
        f[i] = 1.0f / powf((float)theta, (float)(2 * i) / (float)d);
}

/* NTK-aware scaling: theta grows with the length so that the slowest pair is stretched by the excess over max_position.
 */
static void dynamic_frequencies(const qins_rope_params *p, size_t n_ctx, float *f) {
    double length = (double)qins_max_size(n_ctx, p->max_position), d = (double)p->rotary_dims;
    double stretch = p->factor * length / (double)p->max_position - (p->factor - 1.0);
    plain_frequencies(p->theta * pow(stretch, d / (d - 2.0)), p->rotary_dims, f);
}

/* Llama 3.1: wavelengths above original/low are stretched by factor, below original/high kept, between interpolated. */
static void llama3_frequencies(const qins_rope_params *p, float *f) {
    float original = (float)p->original_max_position, low = (float)p->low_freq_factor,
          high = (float)p->high_freq_factor, factor = (float)p->factor;
    plain_frequencies(p->theta, p->rotary_dims, f);
    for (size_t i = 0; i < p->rotary_dims / 2; i++) {
        float wavelength = (float)(2.0 * PI) / f[i];
        float smooth = (original / wavelength - low) / (high - low);
        if (wavelength > original / low)
            f[i] /= factor;
        else if (!(wavelength < original / high))
            f[i] = (1.0f - smooth) * f[i] / factor + smooth * f[i];
    }
}

/* The pair that turns `rotations` times over the original context. */
static double yarn_pair(const qins_rope_params *p, double rotations) {
    return (double)p->rotary_dims * log((double)p->original_max_position / (rotations * 2.0 * PI)) /
           (2.0 * log(p->theta));
}

/* 0.1 m ln(s) + 1 */
static double yarn_mscale(double scale, double m) {
    return scale <= 1.0 ? 1.0 : 0.1 * m * log(scale) + 1.0;
}

/* YaRN (Peng et al., 2023): pairs that turn often keep their frequency, slow ones are stretched, a ramp between. */
static void yarn_frequencies(const qins_rope_params *p, float *f, float *scale) {
    double factor = p->factor > 0 ? p->factor : (double)p->max_position / (double)p->original_max_position;
    double low = yarn_pair(p, p->beta_fast), high = yarn_pair(p, p->beta_slow);
    if (p->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, (double)p->rotary_dims - 1.0);
    if (low == high) high += 0.001;
    for (size_t i = 0; i < p->rotary_dims / 2; i++) {
        float power = powf((float)p->theta, (float)(2 * i) / (float)p->rotary_dims);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
        f[i] = 1.0f / ((float)factor * power) * (1.0f - keep) + 1.0f / power * keep;
    }
    double attention = p->attention_factor;
    if (attention == 0.0 && p->mscale != 0.0 && p->mscale_all_dim != 0.0)
        attention = yarn_mscale(factor, p->mscale) / yarn_mscale(factor, p->mscale_all_dim);
    *scale = (float)(attention != 0.0 ? attention : yarn_mscale(factor, 1.0));
}

/* LongRoPE (Ding et al., 2024): a searched divisor a pair, one list up to the original context, one beyond. */
static void longrope_frequencies(const qins_rope_params *p, size_t n_ctx, float *f, float *scale) {
    const json_t *divisors = n_ctx > p->original_max_position ? p->long_factor : p->short_factor;
    for (size_t i = 0; i < p->rotary_dims / 2; i++)
        f[i] = 1.0f / ((float)json_number_value(json_array_get(divisors, i)) *
                       powf((float)p->theta, (float)(2 * i) / (float)p->rotary_dims));
    double original = (double)p->original_max_position;
    double factor = p->factor > 0 ? p->factor : (double)p->max_position / original;
    double attention = p->attention_factor;
    if (attention == 0.0) attention = factor <= 1.0 ? 1.0 : sqrt(1.0 + log(factor) / log(original));
    *scale = (float)attention;
}

static void compute_frequencies(const qins_rope_params *p, size_t n_ctx, float *f, float *scale) {
    *scale = 1.0f;
    switch (p->type) {
    case QINS_ROPE_DEFAULT:
        plain_frequencies(p->theta, p->rotary_dims, f);
        break;
    case QINS_ROPE_LINEAR:
        plain_frequencies(p->theta, p->rotary_dims, f);
        for (size_t i = 0; i < p->rotary_dims / 2; i++)
            f[i] /= (float)p->factor;
        break;
    case QINS_ROPE_DYNAMIC:
        dynamic_frequencies(p, n_ctx, f);
        break;
    case QINS_ROPE_LLAMA3:
        llama3_frequencies(p, f);
        break;
    case QINS_ROPE_YARN:
        yarn_frequencies(p, f, scale);
        break;
    case QINS_ROPE_LONGROPE:
        longrope_frequencies(p, n_ctx, f, scale);
        break;
    }
}

qins_status qins_rope_init(qins_rope *rope, const qins_rope_params *p, size_t n_ctx, size_t batch, qins_error *err) {
    *rope = (qins_rope){.n_pairs = p->rotary_dims / 2};
    rope->frequencies = qins_alloc(rope->n_pairs, sizeof(float));
    rope->cosines = qins_alloc(batch * rope->n_pairs, sizeof(float));
    rope->sines = qins_alloc(batch * rope->n_pairs, sizeof(float));
    if (rope->frequencies == NULL || rope->cosines == NULL || rope->sines == NULL)
        return qins_fail_memory(err, 2 * batch * rope->n_pairs * sizeof(float), "rotary angles");
    compute_frequencies(p, n_ctx, rope->frequencies, &rope->scale);
    return QINS_OK;
}

void qins_rope_free(qins_rope *rope) {
    free(rope->frequencies);
    free(rope->cosines);
    free(rope->sines);
    *rope = (qins_rope){0};
}

typedef struct angles_job {
    qins_rope *rope;
    size_t first, position;
} angles_job;

static void set_angles(void *context, size_t t) {
    const angles_job *j = context;
    qins_rope *rope = j->rope;
    for (size_t i = 0, n = rope->n_pairs; i < n; i++) {
        float angle = (float)(j->position + t) * rope->frequencies[i];
        rope->cosines[(j->first + t) * n + i] = cosf(angle) * rope->scale;
        rope->sines[(j->first + t) * n + i] = sinf(angle) * rope->scale;
    }
}

void qins_rope_set_positions(qins_rope *rope, size_t first, size_t position, size_t n_tokens) {
    angles_job job = {rope, first, position};
    qins_parallel(n_tokens, 1, set_angles, &job);
}

void qins_rope_apply(const qins_rope *rope, size_t t, float *head) {
    size_t n = rope->n_pairs;
    const float *c = rope->cosines + t * n, *s = rope->sines + t * n;
    for (size_t i = 0; i < n; i++) {
        float a = head[i], b = head[i + n];
        head[i] = a * c[i] - b * s[i];
        head[i + n] = b * c[i] + a * s[i];
    }
}

void qins_rope_turn_back(const qins_rope *rope, size_t distance, float *head) {
    size_t n = rope->n_pairs;
    for (size_t i = 0; i < n; i++) {
        float angle = (float)distance * rope->frequencies[i], c = cosf(angle), s = sinf(angle);
        float a = head[i], b = head[i + n];
        head[i] = a * c + b * s;
        head[i + n] = b * c - a * s;
    }
}
