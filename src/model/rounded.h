/* Matrices that calibration has rounded, on disk until compress writes them: what makes it resumable.
 * SPDX-License-Identifier: MIT
 *
 * The folder ".NAME.qins-resume" beside the output holds one file a finished layer and the hidden states after the last
 * one, each with a checksum and each put in place by a rename. A run that is killed leaves it behind; the next run of
 * the same command, recognised by a key, goes on from there. Everything else is thrown away.
 */
#ifndef QINS_ROUNDED_H
#define QINS_ROUNDED_H

#include "codec/codec.h"

typedef struct qins_rounded qins_rounded;

enum { QINS_ROUNDED_KEY = 33 }; /* hex digits and a NUL */

/* Opens the folder of an output path, empties it unless its key is the same, and locks it against other processes. */
qins_status qins_rounded_open(const char *out_path, const char key[QINS_ROUNDED_KEY], qins_rounded **rounded,
                              qins_error *err);
/* remove: the folder goes too; so does one without a finished layer. NULL is allowed. */
void qins_rounded_close(qins_rounded *rounded, bool remove);
/* Removes the folder of an output that nobody will go on with. */
void qins_rounded_remove(const char *out_path);

/* Layers that are finished. */
size_t qins_rounded_n_layers(const qins_rounded *rounded);
/* Hidden states after the last finished layer. */
qins_status qins_rounded_load_hidden(qins_rounded *rounded, float *hidden, size_t n, qins_error *err);

/* Throws the layers away, to begin with the first one again. */
qins_status qins_rounded_restart(qins_rounded *rounded, qins_error *err);

/* Small results that come before the layers: text, sensitivities. False when there is none of this name and size. */
bool qins_rounded_load(const qins_rounded *rounded, const char *name, void *data, size_t n);
qins_status qins_rounded_save(qins_rounded *rounded, const char *name, const void *data, size_t n, qins_error *err);

/* Appends a matrix to the layer in work. data: every part that info has. */
qins_status qins_rounded_put(qins_rounded *rounded, const char *name, const qins_part_info info[QINS_PART_COUNT],
                             const void *const data[QINS_PART_COUNT], const qins_encode_stats *stats, qins_error *err);
/* Finishes the layer in work; also one without matrices. */
qins_status qins_rounded_end_layer(qins_rounded *rounded, const float *hidden, size_t n, qins_error *err);

/* Hands the parts of a matrix to the sink. *found is false when it is not there. */
qins_status qins_rounded_get(const qins_rounded *rounded, const char *name, const qins_part_info info[QINS_PART_COUNT],
                             const qins_part_sink *sink, qins_encode_stats *stats, bool *found, qins_error *err);

#endif
