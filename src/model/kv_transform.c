/* SPDX-License-Identifier: MIT */
#include "model/kv_transform.h"

#include "base/dense.h"
#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DIMS = 256 };

size_t qins_kv_transform_values(const qins_hparams *h) {
    return h->head_dim > MAX_DIMS ? 0 : h->n_layers * h->n_kv_heads * h->head_dim * h->head_dim;
}

void qins_kv_transform_layer_name(size_t layer, char name[QINS_KV_TRANSFORM_LAYER_NAME]) {
    snprintf(name, QINS_KV_TRANSFORM_LAYER_NAME, QINS_KV_TRANSFORM_NAME ".%zu", layer);
}

/* ---- moments ---- */

qins_status qins_kv_moments_init(qins_kv_moments *m, const qins_hparams *h, qins_error *err) {
    *m = (qins_kv_moments){.n_heads = h->n_kv_heads, .dims = h->head_dim};
    size_t n = 2 * m->n_heads * m->dims * m->dims;
    m->sums = qins_alloc(n, sizeof *m->sums);
    return m->sums != NULL ? QINS_OK : qins_fail_memory(err, n * sizeof *m->sums, "second moments of keys");
}

void qins_kv_moments_clear(qins_kv_moments *m) {
    memset(m->sums, 0, 2 * m->n_heads * m->dims * m->dims * sizeof *m->sums);
}

void qins_kv_moments_free(qins_kv_moments *m) {
    free(m->sums);
    m->sums = NULL;
}

/* Subtracts from keys[n][dims] the mean of the page before the one each is in, as the cache does. */
static void subtract_means(float *keys, size_t n, size_t dims) {
    for (size_t page = (n - 1) / QINS_KV_PAGE; page > 0; page--) {
        size_t begin = page * QINS_KV_PAGE, end = qins_min_size(n, begin + QINS_KV_PAGE);
        size_t first = page == 1 ? QINS_KV_SINKS : begin - QINS_KV_PAGE;
        for (size_t d = 0; d < dims; d++) {
            float sum = 0;
            for (size_t t = first; t < begin; t++)
                sum += keys[t * dims + d];
            for (size_t t = begin; t < end; t++)
                keys[t * dims + d] -= sum / (float)(begin - first);
        }
    }
}

/* sum += of weights[t] x[t]^t x[t]; x is overwritten. */
static void add_products(float *x, const float *weights, size_t n, size_t dims, float *sum) {
    for (size_t t = 0; t < n; t++) {
        float root = sqrtf(weights[t]);
        for (size_t d = 0; d < dims; d++)
            x[t * dims + d] *= root;
    }
    qins_dense_tn_serial(dims, dims, n, 1.0f, x, dims, x, dims, 1.0f, sum, dims);
}

/* How much the error of a score changes the attention, p (1 - p), by key and by query. probabilities: [n][n], a query a
 * row, which sees no key after its own. The first keys are not coded. */
static void weigh(const float *probabilities, size_t n, float *by_key, float *by_query) {
    enum { LANES = 16 };
    memset(by_key, 0, n * sizeof *by_key);
    for (size_t q = 0; q < n; q++) {
        const float *row = probabilities + q * n;
        float sums[LANES] = {0}, sum = 0;
        size_t t = QINS_KV_SINKS;
        for (; t + LANES <= q + 1; t += LANES)
            for (size_t i = 0; i < LANES; i++) {
                float weight = row[t + i] * (1 - row[t + i]);
                by_key[t + i] += weight;
                sums[i] += weight;
            }
        for (; t <= q; t++) {
            float weight = row[t] * (1 - row[t]);
            by_key[t] += weight;
            sum += weight;
        }
        for (size_t i = 0; i < LANES; i++)
            sum += sums[i];
        by_query[q] = sum;
    }
}

void qins_kv_moments_add(qins_kv_moments *m, const qins_sequence_attention *a, const qins_hparams *h,
                         const qins_layer *layer, const float *qkv) {
    qins_qkv_view view = qins_qkv_view_of(h);
    const qins_rope *rope = qins_sequence_rope(a, h, layer);
    size_t n = a->n, dims = m->dims, group = h->n_heads / h->n_kv_heads;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t head = 0; head < m->n_heads; head++) {
        float *scores = a->scratch + (size_t)qins_thread_index() * a->stride, *q = scores + n * n, *k = q + n * dims,
              *weights = k + n * dims, *sums = m->sums + 2 * head * dims * dims;
        for (size_t g = head * group; g < (head + 1) * group; g++) {
            qins_sequence_head(h, &layer->q_norm, rope, qkv + view.q_offset + g * view.head_stride, view.row, n, q);
            qins_sequence_head(h, &layer->k_norm, rope, qkv + view.k_offset + head * view.head_stride, view.row, n, k);
            qins_dense_nt_serial(n, n, dims, h->attention_scale, q, dims, k, dims, 0.0f, scores, n);
            qins_sequence_softmax(a, h, layer, scores);
            weigh(scores, n, weights, weights + n);
            subtract_means(k, n, dims);
            add_products(k, weights, n, dims, sums);
            add_products(q, weights + n, n, dims, sums + dims * dims);
        }
    }
}

/* ---- the geometric mean ---- */

/* out := V diag(values^power) V^t, eigenvectors in the rows of v */
static void power_of(size_t n, const double *v, const double *values, double power, double *out) {
    memset(out, 0, n * n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        double factor = pow(values[i], power);
        for (size_t r = 0; r < n; r++)
            for (size_t c = 0; c < n; c++)
                out[r * n + c] += factor * v[i * n + r] * v[i * n + c];
    }
}

static void multiply(size_t n, const double *a, const double *b, double *out) {
    memset(out, 0, n * n * sizeof *out);
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < n; i++)
            for (size_t c = 0; c < n; c++)
                out[r * n + c] += a[r * n + i] * b[i * n + c];
}

/* x := its square root; x is symmetric and positive definite but for rounding. */
static bool take_root(size_t n, double *x, double *vectors, double *values) {
    memcpy(vectors, x, n * n * sizeof *x);
    if (!qins_dense_eigen(n, vectors, values)) return false;
    for (size_t i = 0; i < n; i++)
        values[i] = fmax(values[i], 1e-12 * values[n - 1]);
    power_of(n, vectors, values, 0.5, x);
    return true;
}

static double trace(size_t n, const double *x) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i * n + i];
    return sum;
}

/* out := x as a matrix of trace n, with a little of the identity: directions that hardly occur in the text may occur in
 * another one. False when x is zero or not finite. */
static bool normalise(size_t n, const float *x, double *out) {
    const double damping = 1e-3;
    double size = 0;
    for (size_t i = 0; i < n; i++)
        size += (double)x[i * n + i] / (double)n;
    if (!(size > 1e-30) || !isfinite(size)) return false;
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < n; c++)
            out[r * n + c] = 0.5 * (double)(x[r * n + c] + x[c * n + r]) / size + (r == c ? damping : 0);
    return true;
}

qins_status qins_kv_transform_of(size_t n, const float *keys, const float *queries, double *t, qins_error *err) {
    double *memory = qins_alloc(6 * n * n + n, sizeof *memory);
    if (memory == NULL) return qins_fail_memory(err, 6 * n * n * sizeof *memory, "a key transform");
    double *a = memory, *b = a + n * n, *root = b + n * n, *inverse_root = root + n * n, *work = inverse_root + n * n,
           *vectors = work + n * n, *values = vectors + n * n;
    bool good = normalise(n, keys, a) && normalise(n, queries, b);
    if (good) {
        memcpy(vectors, a, n * n * sizeof *a);
        good = qins_dense_eigen(n, vectors, values) && values[0] > 0;
    }
    if (good) {
        power_of(n, vectors, values, 0.5, root);
        power_of(n, vectors, values, -0.5, inverse_root);
        multiply(n, root, b, work);
        multiply(n, work, root, t);
        good = take_root(n, t, vectors, values); /* (A^1/2 B A^1/2)^1/2 */
    }
    if (good) {
        multiply(n, inverse_root, t, work);
        multiply(n, work, inverse_root, t); /* G */
        multiply(n, a, t, work);
        double factor = trace(n, a) / trace(n, work); /* keys keep their size */
        for (size_t i = 0; i < n * n; i++)
            t[i] *= factor;
        good = isfinite(factor) && take_root(n, t, vectors, values);
    }
    for (size_t i = 0; i < n * n && !good; i++) /* nothing to learn from: keys stay as they are */
        t[i] = i % (n + 1) == 0 ? 1 : 0;
    free(memory);
    return QINS_OK;
}

qins_status qins_kv_moments_transform(const qins_kv_moments *m, uint16_t *halves, qins_error *err) {
    size_t n = m->dims * m->dims;
    double *t = qins_alloc(n, sizeof *t);
    if (t == NULL) return qins_fail_memory(err, n * sizeof *t, "a key transform");
    qins_status status = QINS_OK;
    for (size_t head = 0; head < m->n_heads && status == QINS_OK; head++) {
        const float *keys = m->sums + 2 * head * n;
        status = qins_kv_transform_of(m->dims, keys, keys + n, t, err);
        for (size_t i = 0; i < n; i++)
            halves[head * n + i] = qins_float_to_half((float)t[i]);
    }
    free(t);
    return status;
}

/* ---- a model's ---- */

/* Both forms of one head's matrix. False when it has no inverse. */
static bool unpack_head(size_t n, const uint16_t *halves, double *work, float *keys, float *queries) {
    for (size_t i = 0; i < n * n; i++) {
        keys[i] = qins_half_to_float(halves[i]);
        work[i] = (double)keys[i];
        if (!isfinite(keys[i])) return false;
    }
    if (!qins_dense_invert(n, work)) return false;
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < n; c++) {
            queries[c * n + r] = (float)work[r * n + c];
            if (!isfinite(queries[c * n + r])) return false;
        }
    return true;
}

qins_status qins_kv_transform_load(const qins_weights *w, qins_kv_transform **out, qins_error *err) {
    *out = NULL;
    if (w->kv_transform == NULL) return QINS_OK;
    const qins_tensor *t = w->kv_transform;
    size_t d = w->hparams.head_dim, n_heads = w->hparams.n_layers * w->hparams.n_kv_heads, n = d * d;
    qins_kv_transform *k = qins_alloc(1, sizeof *k);
    double *work = qins_alloc(n, sizeof *work);
    uint16_t *halves = qins_alloc(n, sizeof *halves);
    if (k != NULL) {
        k->keys = qins_alloc(n_heads * n, sizeof *k->keys);
        k->queries = qins_alloc(n_heads * n, sizeof *k->queries);
    }
    qins_status status = QINS_OK;
    if (k == NULL || work == NULL || halves == NULL || k->keys == NULL || k->queries == NULL)
        status = qins_fail_memory(err, 2 * n_heads * n * sizeof(float), "the key transform");
    for (size_t head = 0; head < n_heads && status == QINS_OK; head++) {
        memcpy(halves, t->data + head * n * sizeof *halves, n * sizeof *halves);
        if (!unpack_head(d, halves, work, k->keys + head * n, k->queries + head * n))
            status = qins_fail(err, QINS_ERR_FORMAT, "%s: tensor %s: matrix %zu has no inverse", w->checkpoint->path,
                               t->name, head);
    }
    free(work);
    free(halves);
    if (status == QINS_OK)
        *out = k;
    else
        qins_kv_transform_free(k);
    return status;
}

void qins_kv_transform_free(qins_kv_transform *k) {
    if (k == NULL) return;
    free(k->keys);
    free(k->queries);
    free(k);
}
