/* Parameters of a model by name, whatever they are stored as. SPDX-License-Identifier: MIT */
#ifndef QINS_WEIGHTS_H
#define QINS_WEIGHTS_H

#include "format/checkpoint.h"
#include "kernel/matrix.h"
#include "model/families.h"
#include "model/qins_dir.h"

/* Config key of checkpoints whose conv1d matrices are [outputs][inputs] all the same, "out_in": GGUF. */
#define QINS_ORIENTATION_KEY "qins_linear_orientation"

/* One parameter in Hugging Face terms: a plain tensor or a matrix that is encoded, wholly or some of its rows. */
typedef struct qins_parameter {
    const char *name;
    qins_role role;
    qins_slot slot;
    size_t layer, expert;
    size_t n_dims;
    uint64_t shape[QINS_MAX_DIMS]; /* of a matrix: outputs, inputs */
    /* Hugging Face files hold this matrix as [inputs][outputs] (gpt2), and so do plain tensors that say transposed. */
    bool conv1d, transposed;
    uint64_t n_values;
    const qins_tensor *plain; /* one of the two is set */
    const qins_encoded_tensor *encoded;
} qins_parameter;

/* Signs of one width and seed, shared by every matrix of that width. */
typedef struct qins_rotation {
    uint64_t seed;
    size_t n_cols;
    float *signs;
} qins_rotation;

/* Key transform of the KV cache: F16 [layers][kv heads][head_dim][head_dim] (model/kv_transform.h). */
#define QINS_KV_TRANSFORM_NAME "qins.kv_transform"

typedef struct qins_weights {
    qins_checkpoint *checkpoint;
    qins_dir *dir; /* NULL for plain checkpoints */
    qins_hparams hparams;
    const qins_tensor *kv_transform; /* model/kv_transform.h; NULL for none */
    qins_parameter *parameters;      /* sorted by name; shared tables and parts are not among them */
    size_t n_parameters;
    bool float_arithmetic; /* matrices come without integer tables */
    qins_rotation *rotations;
    size_t n_rotations;
    qins_split_matrix *splits; /* of dir->tensors that are split, at their places; NULL when none is */
} qins_weights;

/* A checkpoint that lacks a tensor its config calls for, or has it in another shape, is refused. */
qins_status qins_weights_open(const char *path, bool no_check, qins_weights **weights, qins_error *err);
/* The same with progress, for large entropy-coded models. */
qins_status qins_weights_load(const char *path, bool no_check, const qins_load_progress *progress,
                              qins_weights **weights, qins_error *err);
/* Matrices taken from here on come without integer tables, so that products are computed in FP32. */
void qins_weights_multiply_in_float(qins_weights *weights);
void qins_weights_close(qins_weights *weights);
const qins_parameter *qins_weights_find(const qins_weights *weights, const char *name);
/* The check that qins_weights_open does (inventory.c). */
qins_status qins_weights_check(const qins_weights *weights, qins_error *err);
/* View of a matrix parameter; valid while weights are. */
qins_status qins_weights_matrix(const qins_weights *weights, const qins_parameter *parameter, qins_matrix *matrix,
                                qins_error *err);
/* Decoded copy of any parameter as n_values floats in the order of Hugging Face files; freed with free(). For vectors
 * and conv1d matrices. */
qins_status qins_weights_vector(const qins_weights *weights, const qins_parameter *parameter, float **values,
                                qins_error *err);

/* The parameter has been read for the last time: its pages leave the resident memory. */
void qins_parameter_release(const qins_parameter *parameter);

/* Shape in Hugging Face files. */
void qins_parameter_file_shape(const qins_parameter *parameter, uint64_t shape[QINS_MAX_DIMS]);

#endif
