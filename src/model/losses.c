/* SPDX-License-Identifier: MIT */
#include "model/losses.h"

#include "base/dense.h"

#include <stdlib.h>
#include <string.h>

qins_status qins_losses_new(const qins_plan *plan, size_t hidden_values, qins_losses *l, qins_error *err) {
    *l = (qins_losses){.items = plan->items, .n_items = plan->n_items, .n_hidden = hidden_values};
    l->first_row = qins_alloc(plan->n_items, sizeof *l->first_row);
    if (l->first_row == NULL) return qins_fail_memory(err, plan->n_items * sizeof *l->first_row, "losses");
    for (size_t i = 0; i < plan->n_items; i++) {
        const qins_plan_item *item = &plan->items[i];
        l->first_row[i] = l->n_rows;
        if (item->encode && item->parameter->role == QINS_ROLE_LINEAR) l->n_rows += (size_t)item->parameter->shape[0];
    }
    l->kl = qins_alloc(plan->n_items, sizeof *l->kl);
    l->found = qins_alloc(plan->n_items, sizeof *l->found);
    l->squared_gradient = qins_alloc(l->n_rows, sizeof *l->squared_gradient);
    l->hidden = qins_alloc_aligned(qins_max_size(hidden_values, 1), sizeof *l->hidden);
    if (l->kl != NULL && l->found != NULL && l->squared_gradient != NULL && l->hidden != NULL) return QINS_OK;
    qins_losses_free(l);
    return qins_fail_memory(err, hidden_values * sizeof(float), "losses");
}

void qins_losses_free(qins_losses *l) {
    free(l->first_row);
    free(l->kl);
    free(l->found);
    free(l->squared_gradient);
    free(l->hidden);
    *l = (qins_losses){0};
}

qins_status qins_losses_of_errors(const qins_losses *l, const qins_plan_item *item, const float *e,
                                  const float *moments, size_t n_tokens, double *kl, qins_error *err) {
    enum { ROWS = 256 };
    size_t n_rows = qins_plan_encoded_rows(item), n_cols = (size_t)item->parameter->shape[1];
    const double *weights = l->squared_gradient + l->first_row[item - l->items];
    float *full = qins_alloc_aligned(n_cols * n_cols, sizeof *full),
          *he = qins_alloc_aligned(ROWS * n_cols, sizeof *he);
    *kl = 0;
    if (full == NULL || he == NULL) {
        free(full);
        free(he);
        return qins_fail_memory(err, n_cols * n_cols * sizeof *full, "second moments of inputs");
    }
    for (size_t i = 0; i < n_cols; i++)
        for (size_t k = 0; k < n_cols; k++)
            full[i * n_cols + k] = i <= k ? moments[i * n_cols + k] : moments[k * n_cols + i];
    for (size_t first = 0; first < n_rows; first += ROWS) {
        size_t n = qins_min_size(ROWS, n_rows - first);
        const float *errors = e + first * n_cols;
        qins_dense_nn(n, n_cols, n_cols, 1.0f, errors, n_cols, full, n_cols, 0.0f, he, n_cols);
        for (size_t r = 0; r < n; r++) {
            double sum = 0;
            for (size_t k = 0; k < n_cols; k++)
                sum += (double)errors[r * n_cols + k] * (double)he[r * n_cols + k];
            size_t row = first + r;
            if (item->split.n_pieces > 0) row = qins_row_split_row(&item->split, true, row);
            *kl += 0.5 * weights[row] * sum / (double)n_tokens;
        }
    }
    free(full);
    free(he);
    return QINS_OK;
}

/* KL(p || q) of two rows of logits. */
static double divergence(const float *p, const float *q, size_t n) {
    float most_p = -INFINITY, most_q = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        most_p = fmaxf(most_p, p[i]);
        most_q = fmaxf(most_q, q[i]);
    }
    double sum_p = 0, sum_q = 0, mean = 0;
    enum { PIECE = 256 }; /* summed in single precision */
    for (size_t first = 0; first < n; first += PIECE) {
        float part_p = 0, part_q = 0, part = 0;
        for (size_t i = first; i < qins_min_size(n, first + PIECE); i++) {
            float weight = expf(p[i] - most_p);
            part_p += weight;
            part_q += expf(q[i] - most_q);
            part += weight * ((p[i] - most_p) - (q[i] - most_q));
        }
        sum_p += (double)part_p;
        sum_q += (double)part_q;
        mean += (double)part;
    }
    return mean / sum_p - log(sum_p) + log(sum_q);
}

qins_status qins_losses_measure(const qins_model *m, const float *reference, const float *hidden, size_t n_tokens,
                                double *kl, qins_error *err) {
    enum { CHUNK = 128 };
    const qins_hparams *h = &m->weights->hparams;
    size_t width = h->hidden_size, vocab = h->vocab_size;
    float *w = qins_alloc_aligned(vocab * width, sizeof *w), *x = qins_alloc_aligned(2 * CHUNK * width, sizeof *x);
    float *logits = qins_alloc_aligned(2 * CHUNK * vocab, sizeof *logits);
    qins_status status = QINS_OK;
    double sum = 0;
    int blas_threads = qins_dense_begin();
    if (w == NULL || x == NULL || logits == NULL) status = qins_fail_memory(err, vocab * width * sizeof *w, "the head");
    if (status == QINS_OK) qins_matrix_decode_rows(&m->head.weight, 0, vocab, w);
    for (size_t t = 0; t < n_tokens && status == QINS_OK; t += CHUNK) {
        size_t n = qins_min_size(CHUNK, n_tokens - t);
        qins_apply_norm(h, &m->final_norm, width, reference + t * width, width, n, x, width);
        qins_apply_norm(h, &m->final_norm, width, hidden + t * width, width, n, x + n * width, width);
        qins_dense_nt(2 * n, vocab, width, 1.0f, x, width, w, width, 0.0f, logits, vocab);
#pragma omp parallel for schedule(static) reduction(+ : sum)
        for (size_t i = 0; i < n; i++) {
            float *p = logits + i * vocab, *q = logits + (n + i) * vocab;
            for (size_t v = 0; m->head.bias != NULL && v < vocab; v++) {
                p[v] += m->head.bias[v];
                q[v] += m->head.bias[v];
            }
            if (h->logit_cap > 0) qins_soft_cap(h->logit_cap, p, vocab);
            if (h->logit_cap > 0) qins_soft_cap(h->logit_cap, q, vocab);
            sum += divergence(p, q, vocab);
        }
    }
    qins_dense_end(blas_threads);
    *kl = n_tokens > 0 ? sum / (double)n_tokens : 0;
    free(w);
    free(x);
    free(logits);
    return status;
}
