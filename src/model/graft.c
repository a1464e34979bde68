/* A model with a part of another. SPDX-License-Identifier: MIT */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

qins_status qins_model_graft(const qins_model *base, const qins_model *donor, size_t layer, qins_model **out,
                             qins_error *err) {
    *out = NULL;
    size_t n_layers = base->weights->hparams.n_layers;
    if (layer > n_layers || donor->weights->hparams.n_layers != n_layers)
        return qins_fail(err, QINS_ERR_ARGUMENT, "layer %zu of %zu", layer, n_layers);
    qins_model *m = qins_alloc(1, sizeof *m);
    qins_layer *layers = qins_alloc(n_layers, sizeof *layers);
    if (m == NULL || layers == NULL) {
        free(m);
        free(layers);
        return qins_fail_memory(err, n_layers * sizeof *layers, "layers");
    }
    *m = *base;
    memcpy(layers, base->layers, n_layers * sizeof *layers);
    m->layers = layers;
    if (layer < n_layers) {
        layers[layer] = donor->layers[layer];
    } else {
        m->embed = donor->embed;
        m->positions = donor->positions;
        m->head = donor->head;
        m->final_norm = donor->final_norm;
    }
    *out = m;
    return QINS_OK;
}

void qins_model_ungraft(qins_model *m) {
    if (m == NULL) return;
    free(m->layers);
    free(m);
}
