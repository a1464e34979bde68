/* W x + b for the tokens of a batch. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <string.h>

enum { ALIGNED_FLOATS = 16 };

size_t qins_prepared_row(size_t n_cols) {
    size_t rotated = qins_round_up(n_cols, ALIGNED_FLOATS);
    return rotated + qins_round_up(qins_quantised_bytes(1, n_cols) / sizeof(float), ALIGNED_FLOATS);
}

/* Rotates and quantises a token while it is in the cache. */
static void prepare_token(void *context, size_t t) {
    qins_input *in = context;
    size_t n_cols = in->n_cols;
    float *rotated = in->prepared + t * n_cols;
    if (in->rotation != NULL) qins_rotate_into(in->x + t * n_cols, n_cols, in->rotation, rotated);
    if (in->vectors.quantised)
        qins_get_elementwise()->quantise(&in->vectors.integers, t, in->vectors.x + t * n_cols, n_cols);
}

static void prepare(qins_input *in, const float *rotation, bool integers) {
    size_t n_cols = in->n_cols, n_floats = qins_round_up(in->n_tokens * n_cols, ALIGNED_FLOATS);
    qins_vectors *v = &in->vectors;
    *v = (qins_vectors){
        .x = rotation != NULL ? in->prepared : in->x, .ldx = n_cols, .n_cols = n_cols, .n_tokens = in->n_tokens};
    if (!in->floats_only) v->memory = in->prepared + n_floats;
    v->quantised = integers && v->memory != NULL;
    if (v->quantised) qins_quantised_place(&v->integers, v->n_tokens, n_cols, v->memory);
    in->rotation = rotation;
    in->ready = true;
    if (rotation != NULL || v->quantised) qins_parallel(in->n_tokens, 1, prepare_token, in);
}

/* One part of a matrix of two, its rows put where they belong. */
static void apply_part(const qins_matrix *part, bool encoded, const qins_row_split *rows, qins_input *in, float *y,
                       size_t ldy) {
    if (!in->ready || in->rotation != part->rotation) prepare(in, part->rotation, qins_takes_integers(part));
    qins_multiply(&(qins_product){part, NULL, in->rows, part->n_rows}, 1, &in->vectors);
    for (size_t t = 0; t < in->n_tokens; t++)
        for (size_t i = 0; i < rows->n_pieces; i++) {
            const qins_row_piece *piece = &rows->pieces[i];
            if (piece->encoded == encoded)
                memcpy(y + t * ldy + piece->begin, in->rows + t * part->n_rows + piece->at,
                       (piece->end - piece->begin) * sizeof *y);
        }
}

static void apply_split(const qins_affine_output *o, qins_input *in) {
    const qins_split_matrix *split = o->affine->weight.split;
    const float *bias = o->affine->bias;
    apply_part(&split->plain, false, split->rows, in, o->y, o->ldy);
    apply_part(&split->encoded, true, split->rows, in, o->y, o->ldy);
    for (size_t t = 0; bias != NULL && t < in->n_tokens; t++)
        for (size_t i = 0; i < o->affine->weight.n_rows; i++)
            o->y[t * o->ldy + i] += bias[i];
}

void qins_affine_apply(const qins_affine_output *outputs, size_t n, qins_input *in) {
    bool done[QINS_MAX_AFFINES] = {false};
    for (size_t i = 0; i < n; i++) {
        if (done[i] || !outputs[i].affine->present) continue;
        if (outputs[i].affine->weight.split != NULL) {
            apply_split(&outputs[i], in);
            continue;
        }
        const float *rotation = outputs[i].affine->weight.rotation;
        qins_product products[QINS_MAX_AFFINES];
        size_t n_products = 0;
        bool integers = false;
        for (size_t j = i; j < n; j++) {
            const qins_affine *a = outputs[j].affine;
            if (!a->present || a->weight.split != NULL || a->weight.rotation != rotation) continue;
            products[n_products++] = (qins_product){&a->weight, a->bias, outputs[j].y, outputs[j].ldy};
            integers = integers || qins_takes_integers(&a->weight);
            done[j] = true;
        }
        if (!in->ready || in->rotation != rotation) prepare(in, rotation, integers);
        qins_multiply(products, n_products, &in->vectors);
    }
}

bool qins_affine_apply_gated(const qins_affine *gate, const qins_affine *up, qins_activation activation, qins_input *in,
                             float *y, size_t ldy) {
    const qins_matrix *g = &gate->weight, *u = &up->weight;
    /* one token: reading two matrices in turn was 7 to 10 % slower than one after the other */
    if (in->n_tokens == 1 || !gate->present || !up->present || g->split != NULL || u->split != NULL ||
        g->rotation != u->rotation || g->n_rows != u->n_rows)
        return false;
    if (!in->ready || in->rotation != g->rotation)
        prepare(in, g->rotation, qins_takes_integers(g) || qins_takes_integers(u));
    qins_multiply_gated(&(qins_gated_product){g, u, gate->bias, up->bias, activation, y, ldy}, &in->vectors);
    return true;
}
