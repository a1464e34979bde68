/* Names of codecs, storages and scales, as on the command line and in files. SPDX-License-Identifier: MIT */
#include "codec/codec.h"

#include <string.h>

static const char *const codec_names[] = {"none",    "log",    "rational", "gauss",
                                          "uniform", "sparse", "trellis",  "uniform_trellis"};
static const char *const storage_names[] = {"packed", "seed", "f32"};
static const char *const scale_names[] = {"row", "tensor", "group"};

#define COUNT(a) (int)(sizeof(a) / sizeof(a)[0])

static const char *name_of(const char *const *names, int n, int i) {
    return i >= 0 && i < n ? names[i] : "?";
}

static int index_of(const char *const *names, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

const char *qins_codec_name(qins_codec codec) {
    return name_of(codec_names, COUNT(codec_names), (int)codec);
}
const char *qins_storage_name(qins_storage storage) {
    return name_of(storage_names, COUNT(storage_names), (int)storage);
}
const char *qins_scale_name(qins_scale_kind scale) {
    return name_of(scale_names, COUNT(scale_names), (int)scale);
}
int qins_codec_from_name(const char *name) {
    return index_of(codec_names, COUNT(codec_names), name);
}
int qins_storage_from_name(const char *name) {
    return index_of(storage_names, COUNT(storage_names), name);
}
int qins_scale_from_name(const char *name) {
    return index_of(scale_names, COUNT(scale_names), name);
}

void qins_encode_defaults(qins_encode_options *options) {
    *options = (qins_encode_options){.codec = QINS_CODEC_GAUSS,
                                     .bits = 4,
                                     .storage = QINS_STORAGE_PACKED,
                                     .rotate = QINS_AUTO,
                                     .rotation_seed = 1,
                                     .scale = QINS_SCALE_AUTO};
}
