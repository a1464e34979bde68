/* Normalisation and activation. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <math.h>
#include <string.h>

void qins_apply_norm_row(const qins_hparams *h, const qins_norm *norm, size_t n, const float *x, float *out) {
    if (norm->weight == NULL)
        memmove(out, x, n * sizeof *x);
    else if (h->family->norm == QINS_NORM_LAYER)
        qins_get_elementwise()->norm_layer(x, n, h->norm_eps, norm->weight, norm->bias, out);
    else /* the one of 1 + w was added when the weights were loaded */
        qins_get_elementwise()->norm_rms(x, n, h->norm_eps, norm->weight, out);
}

typedef struct norm_job {
    const qins_hparams *h;
    const qins_norm *norm;
    size_t width, ldx, ldo;
    const float *x;
    float *out;
} norm_job;

static void norm_row(void *context, size_t r) {
    const norm_job *j = context;
    qins_apply_norm_row(j->h, j->norm, j->width, j->x + r * j->ldx, j->out + r * j->ldo);
}

void qins_apply_norm(const qins_hparams *h, const qins_norm *norm, size_t width, const float *x, size_t ldx,
                     size_t n_rows, float *out, size_t ldo) {
    norm_job job = {h, norm, width, ldx, ldo, x, out};
    qins_parallel(n_rows, 1, norm_row, &job);
}

/* Values that a thread takes at once: enough to be worth waking it. */
enum { ACTIVATE_PIECE = 4096, GATE_PIECE = 2048 };

typedef struct activate_job {
    qins_activation activation;
    float *x;
    size_t n;
} activate_job;

static void activate_piece(void *context, size_t i) {
    const activate_job *j = context;
    size_t first = i * ACTIVATE_PIECE;
    qins_get_elementwise()->activate(j->activation, j->x + first, qins_min_size(ACTIVATE_PIECE, j->n - first));
}

void qins_activate(qins_activation activation, float *x, size_t n) {
    activate_job job = {activation, x, n};
    qins_parallel((n + ACTIVATE_PIECE - 1) / ACTIVATE_PIECE, 1, activate_piece, &job);
}

typedef struct gate_job {
    qins_activation activation;
    const float *gate_up;
    size_t width, pieces;
    float *out;
} gate_job;

static void gate_piece(void *context, size_t i) {
    const gate_job *j = context;
    size_t t = i / j->pieces, first = i % j->pieces * GATE_PIECE, n = qins_min_size(GATE_PIECE, j->width - first);
    const float *gate = j->gate_up + t * 2 * j->width + first;
    qins_get_elementwise()->gate(j->activation, gate, gate + j->width, n, j->out + t * j->width + first);
}

void qins_activate_gated(qins_activation activation, const float *gate_up, size_t width, size_t n_tokens, float *out) {
    gate_job job = {activation, gate_up, width, (width + GATE_PIECE - 1) / GATE_PIECE, out};
    qins_parallel(n_tokens * job.pieces, 1, gate_piece, &job);
}

void qins_soft_cap(float cap, float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}
