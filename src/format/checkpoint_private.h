/* What the parts of src/format share. SPDX-License-Identifier: MIT */
#ifndef QINS_CHECKPOINT_PRIVATE_H
#define QINS_CHECKPOINT_PRIVATE_H

#include "format/checkpoint.h"

/* Growing list of tensors; owns their names. */
typedef struct qins_tensor_list {
    qins_tensor *items;
    size_t n, capacity;
} qins_tensor_list;

/* Copies *tensor and name[0..n_name). Refuses names that are empty or hold control characters. */
qins_status qins_tensor_list_add(qins_tensor_list *list, const qins_tensor *tensor, const char *name, size_t n_name,
                                 const char *path, qins_error *err);
void qins_tensor_list_free(qins_tensor_list *list);

/* Sets n_values from shape, and n_bytes from type and shape. Fails on overflow and on rows that are no whole number of
 * blocks. name and path are for the message. */
qins_status qins_tensor_measure(qins_tensor *tensor, const char *name, const char *path, qins_error *err);

struct qins_checkpoint_private {
    qins_map *maps; /* one for each of checkpoint->files, same order */
    size_t n_maps;
    struct qins_gguf *gguf; /* parsed header of the first file; NULL for safetensors */
};

/* Maps one more file and lists it in checkpoint->files. *map is valid until the next call. */
qins_status qins_checkpoint_map(qins_checkpoint *checkpoint, const char *path, const qins_map **map, qins_error *err);
/* Takes over the tensors: sorts them by name, refuses duplicates, adds up tensor_bytes of each file. */
qins_status qins_checkpoint_set_tensors(qins_checkpoint *checkpoint, qins_tensor_list *list, qins_error *err);

/* A JSON file that must hold an object. Text files of a model are at most QINS_MAX_TEXT_FILE bytes. */
enum { QINS_MAX_TEXT_FILE = 256 << 20 };
qins_status qins_read_json(const char *path, json_t **object, qins_error *err);

/* Fill in an empty checkpoint. */
qins_status qins_model_dir_open(const char *path, qins_checkpoint *checkpoint, qins_error *err);
qins_status qins_gguf_open(const char *path, qins_checkpoint *checkpoint, qins_error *err);

#endif
