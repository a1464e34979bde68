/* Qins directories: a damaged model.safetensors beside the rest of the directory. SPDX-License-Identifier: MIT
 *
 * The seed is made here, by compressing the tiny model: "PATH/tiny_model@log_seed" names the model and one of the ways
 * below. With checksums, every changed byte must be refused; without them, nothing worse than wrong weights may happen.
 */
#include "fuzz.h"

#include "kernel/matrix.h"
#include "model/weights.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    qins_encode_options options;
    int embed_bits;
    qins_packing pack;
} ways[] = {
    {"gauss", {.codec = QINS_CODEC_GAUSS, .bits = 4, .rotate = QINS_ON, .scale = QINS_SCALE_ROW}, 8, QINS_PACK_NONE},
    {"group",
     {.codec = QINS_CODEC_UNIFORM, .bits = 5, .rotate = QINS_OFF, .scale = QINS_SCALE_GROUP, .group_size = 16},
     6,
     QINS_PACK_NONE},
    {"log_seed",
     {.codec = QINS_CODEC_LOG, .bits = 8, .storage = QINS_STORAGE_SEED, .rotate = QINS_OFF, .scale = QINS_SCALE_TENSOR},
     0,
     QINS_PACK_NONE},
    {"rational_f32",
     {.codec = QINS_CODEC_RATIONAL,
      .bits = 8,
      .storage = QINS_STORAGE_F32,
      .rotate = QINS_OFF,
      .scale = QINS_SCALE_TENSOR},
     0,
     QINS_PACK_NONE},
    {"trellis",
     {.codec = QINS_CODEC_TRELLIS, .bits = 3, .rotate = QINS_ON, .scale = QINS_SCALE_ROW},
     4,
     QINS_PACK_NONE},
    {"packed",
     {.codec = QINS_CODEC_UNIFORM_TRELLIS, .bits = 7, .rotate = QINS_ON, .scale = QINS_SCALE_ROW},
     8,
     QINS_PACK_ENTROPY},
};

static char scratch[] = "/tmp/qins-fuzz-XXXXXX"; /* holds the directory "m" */
static char *directory, *weights_path;
static char *seed;
static size_t seed_size;

/* ---- making the seed ---- */

static void clean_up(void) {
    DIR *d = directory != NULL ? opendir(directory) : NULL;
    for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        char *path = e->d_name[0] != '.' ? qins_format("%s/%s", directory, e->d_name) : NULL;
        if (path != NULL) unlink(path);
        free(path);
    }
    if (d != NULL) closedir(d);
    if (directory != NULL) rmdir(directory);
    rmdir(scratch);
    free(directory);
    free(weights_path);
    free(seed);
}

static bool compress_model(const char *model, const char *way) {
    qins_error err = {0};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (strcmp(way, ways[i].name) != 0) continue;
        qins_compress_options o;
        qins_compress_result result;
        qins_compress_defaults(&o);
        o.linear = ways[i].options;
        o.embed_bits = ways[i].embed_bits;
        o.pack = ways[i].pack;
        if (qins_compress(model, directory, &o, &result, &err) == QINS_OK) return true;
    }
    fprintf(stderr, "cannot compress %s as %s: %s\n", model, way, err.message);
    return false;
}

uint8_t *fuzz_make_seed(const char *argument, size_t *size) {
    const char *at = strrchr(argument, '@');
    char *model = qins_format("%.*s", (int)(at != NULL ? at - argument : 0), argument);
    if (at == NULL || model == NULL || mkdtemp(scratch) == NULL) return NULL;
    atexit(clean_up);
    directory = qins_format("%s/m", scratch);
    weights_path = qins_format("%s/m/%s", scratch, QINS_WEIGHTS_NAME);
    bool good =
        compress_model(model, at + 1) && qins_read_file(weights_path, SIZE_MAX / 2, &seed, &seed_size, NULL) == QINS_OK;
    free(model);
    uint8_t *copy = good ? malloc(seed_size) : NULL;
    if (copy != NULL) memcpy(copy, seed, seed_size);
    *size = seed_size;
    return copy;
}

/* ---- one input ---- */

static bool write_input(const uint8_t *data, size_t size) {
    FILE *f = fopen(weights_path, "wb");
    bool good = f != NULL && fwrite(data, 1, size, f) == size;
    return f != NULL && fclose(f) == 0 && good;
}

static void read_matrix(const qins_weights *w, const qins_parameter *p) {
    qins_error err = {0};
    qins_matrix m;
    if (qins_weights_matrix(w, p, &m, &err) != QINS_OK) return;
    float *row = malloc(m.n_cols * sizeof *row), *x = calloc(m.n_cols, sizeof *x), *y = malloc(m.n_rows * sizeof *y);
    void *memory = qins_alloc_aligned(qins_quantised_bytes(1, m.n_cols), 1);
    if (row != NULL && x != NULL && y != NULL && memory != NULL) {
        qins_matrix_decode_rows(&m, 0, 1, row);
        qins_matrix_decode_rows(&m, m.n_rows - 1, 1, row);
        qins_product product = {.matrix = &m, .y = y, .ldy = m.n_rows};
        qins_vectors vectors = {.x = x, .ldx = m.n_cols, .n_cols = m.n_cols, .n_tokens = 1};
        qins_multiply(&product, 1, &vectors); /* in FP32 */
        vectors.memory = memory;
        qins_multiply(&product, 1, &vectors); /* in integers where the table is */
    }
    free(memory);
    free(row);
    free(x);
    free(y);
}

static void read_parameters(const qins_weights *w) {
    for (size_t i = 0; i < w->n_parameters; i++) {
        const qins_parameter *p = &w->parameters[i];
        float *values = NULL;
        if (p->n_dims == 2)
            read_matrix(w, p);
        else if (qins_weights_vector(w, p, &values, NULL) == QINS_OK)
            free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qins_weights *w = NULL;
    if (weights_path == NULL || !write_input(data, size)) return -1;
    if (qins_weights_open(directory, true, &w, NULL) == QINS_OK) {
        read_parameters(w);
        qins_weights_close(w);
    }
    bool changed = size != seed_size || memcmp(data, seed, size) != 0;
    qins_error err = {0};
    qins_status status = qins_weights_open(directory, false, &w, &err);
    if (status == QINS_OK) {
        qins_weights_close(w);
        if (changed) {
            fprintf(stderr, "a changed file passed its checksums\n");
            abort();
        }
    }
    return status == QINS_OK ? 0 : -1;
}
