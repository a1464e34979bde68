/* Entropy-coded tensors from memory: the index, then every chunk. SPDX-License-Identifier: MIT
 *
 * The seed is made here; its first byte says which of the layouts below the rest is. A million mutations under ASan:
 *     cmake --preset asan && cmake --build --preset asan --target mutate_entropy
 *     OMP_NUM_THREADS=1 QINS_FUZZ_RUNS=1000000 build/asan/tests/fuzz/mutate_entropy planes5 1
 */
#include "fuzz.h"

#include "codec/entropy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    qins_coded_form form;
    int width;
    unsigned rotate;
    uint64_t n_bytes, chunk;
} layouts[] = {
    {"planes3", QINS_CODED_PLANES, 3, 0, 3 * 384, 2},  {"planes4", QINS_CODED_PLANES, 4, 0, 3 * 512, 2},
    {"planes5", QINS_CODED_PLANES, 5, 0, 3 * 640, 2},  {"planes9", QINS_CODED_PLANES, 9, 0, 3 * 1152, 2},
    {"bf16", QINS_CODED_NUMBERS, 2, 1, 2 * 1000, 600}, {"f32", QINS_CODED_NUMBERS, 4, 1, 4 * 700, 300},
    {"bytes", QINS_CODED_BYTES, 1, 0, 2000, 900},      {"rows3", QINS_CODED_ROWS, 3, 0, 4 * 384, 2},
    {"rows5", QINS_CODED_ROWS, 5, 0, 4 * 640, 2},      {"upper5", QINS_CODED_UPPER, 5, 0, 4 * 640, 2},
};
enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0], MAX_TENSOR = 4096 };

static bool plan(size_t i, qins_coded_layout *l) {
    if (i < N_LAYOUTS && qins_coded_has_rows(layouts[i].form)) /* four panels of one tile */
        return qins_coded_plan_rows(l, layouts[i].form, layouts[i].width, 1, layouts[i].n_bytes, layouts[i].chunk);
    return i < N_LAYOUTS && qins_coded_plan(l, layouts[i].form, layouts[i].width, layouts[i].rotate, layouts[i].n_bytes,
                                            layouts[i].chunk);
}

uint8_t *fuzz_make_seed(const char *argument, size_t *size) {
    qins_coded_layout l;
    size_t i = 0;
    if (strrchr(argument, '/') != NULL) argument = strrchr(argument, '/') + 1; /* ctest gives it a folder */
    while (i < N_LAYOUTS && strcmp(layouts[i].name, argument) != 0)
        i++;
    uint8_t tensor[MAX_TENSOR];
    uint64_t x = 1;
    for (size_t k = 0; k < sizeof tensor; k++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        tensor[k] = (uint8_t)(x >> 62 == 0 ? x >> 56 : x >> 61); /* compressible, not trivially */
    }
    qins_coder *coder = qins_coder_new();
    if (coder == NULL || !plan(i, &l)) return NULL;
    uint8_t row_class[4 * QINS_PANEL_ROWS];
    for (size_t k = 0; k < sizeof row_class; k++)
        row_class[k] = k % QINS_ROW_CLASSES;
    l.row_class = row_class;
    qins_chunk_record records[8];
    uint8_t *blob = malloc(1 + l.n_chunks * qins_coded_bound(&l) + qins_coded_index_bytes(&l));
    if (blob == NULL) return NULL;
    size_t at = 1, n = 0;
    blob[0] = (uint8_t)i;
    for (size_t c = 0; c < l.n_chunks; c++, at += n)
        if (!qins_coded_encode(coder, &l, tensor, c, blob + at, &n, &records[c])) return NULL;
    qins_coded_write_index(&l, records, blob + at);
    qins_coder_free(coder);
    *size = at + qins_coded_index_bytes(&l);
    return blob;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static qins_coder *coder; /* kept: making one takes longer than decoding */
    if (coder == NULL) coder = qins_coder_new();
    qins_coded_layout l;
    qins_coded coded;
    if (coder == NULL || size == 0 || !plan(data[0], &l) ||
        qins_coded_open(&coded, &l, data + 1, size - 1, NULL) != QINS_OK)
        return -1;
    uint8_t *tensor = malloc((size_t)layouts[data[0]].n_bytes); /* exact, so that a sanitizer sees a byte too many */
    bool ok = tensor != NULL;
    for (size_t i = 0; i < l.n_chunks && tensor != NULL; i++)
        ok = qins_coded_decode(coder, &coded, i, tensor) && ok;
    free(tensor);
    qins_coded_close(&coded);
    return ok ? 0 : -1;
}
