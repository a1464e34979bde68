/* What the AMX instructions that src/kernel/integer_tiles.h uses do, in C, from their descriptions in the Intel SDM
 * (volume 2, TILELOADD, TILESTORED, TILEZERO, TDPBSSD, TDPBSUD; volume 1, 18.3). SPDX-License-Identifier: MIT
 *
 * Misuse that would fault (#UD) on a CPU is counted in amx_model_faults. One thread.
 */
#ifndef AMX_MODEL_H
#define AMX_MODEL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { AMX_TILES = 8, AMX_MAX_ROWS = 16, AMX_MAX_BYTES = 64 };

typedef struct amx_model_tile {
    unsigned rows, colsb;
    uint8_t data[AMX_MAX_ROWS][AMX_MAX_BYTES];
} amx_model_tile;

static amx_model_tile amx_model_tiles[AMX_TILES];
static int amx_model_configured;
extern int amx_model_faults;

static void amx_model_loadconfig(const void *memory) {
    const uint8_t *bytes = memory;
    memset(amx_model_tiles, 0, sizeof amx_model_tiles);
    amx_model_configured = bytes[0] == 1;
    for (int i = 0; i < AMX_TILES; i++) {
        uint16_t colsb;
        memcpy(&colsb, bytes + 16 + 2 * i, sizeof colsb);
        amx_model_tiles[i].rows = bytes[48 + i];
        amx_model_tiles[i].colsb = colsb;
        if (bytes[48 + i] > AMX_MAX_ROWS || colsb > AMX_MAX_BYTES) amx_model_faults++;
    }
    for (int i = 1; i < 16; i++) /* start_row and reserved bytes */
        if (bytes[i] != 0) amx_model_faults++;
}

static void amx_model_release(void) {
    amx_model_configured = 0;
}

static amx_model_tile *amx_model_tile_of(int i) {
    if (!amx_model_configured || amx_model_tiles[i].rows == 0 || amx_model_tiles[i].colsb == 0) amx_model_faults++;
    return &amx_model_tiles[i];
}

static void amx_model_zero(int i) {
    amx_model_tile *t = amx_model_tile_of(i);
    memset(t->data, 0, sizeof t->data);
}

static void amx_model_load(int i, const void *base, size_t stride) {
    amx_model_tile *t = amx_model_tile_of(i);
    memset(t->data, 0, sizeof t->data);
    for (unsigned r = 0; r < t->rows; r++)
        memcpy(t->data[r], (const uint8_t *)base + r * stride, t->colsb);
}

static void amx_model_store(int i, void *base, size_t stride) {
    const amx_model_tile *t = amx_model_tile_of(i);
    for (unsigned r = 0; r < t->rows; r++)
        memcpy((uint8_t *)base + r * stride, t->data[r], t->colsb);
}

/* c[m][n] += sum over k and j < 4 of a[m][4k + j] * b[k][4n + j]; a is signed, b as told. Sums wrap. */
static void amx_model_dot(int ci, int ai, int bi, int b_signed) {
    amx_model_tile *c = amx_model_tile_of(ci);
    const amx_model_tile *a = amx_model_tile_of(ai), *b = amx_model_tile_of(bi);
    if (ci == ai || ci == bi || ai == bi || c->rows != a->rows || c->colsb != b->colsb || a->colsb != 4 * b->rows)
        amx_model_faults++;
    for (unsigned m = 0; m < c->rows; m++)
        for (unsigned n = 0; n < c->colsb / 4; n++) {
            uint32_t sum;
            memcpy(&sum, c->data[m] + 4 * n, sizeof sum);
            for (unsigned k = 0; k < a->colsb / 4; k++)
                for (unsigned j = 0; j < 4; j++) {
                    int left = (int8_t)a->data[m][4 * k + j], right = b->data[k][4 * n + j];
                    sum += (uint32_t)(left * (b_signed ? (int8_t)right : right));
                }
            memcpy(c->data[m] + 4 * n, &sum, sizeof sum);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbssd
#define _tile_loadconfig(memory)      amx_model_loadconfig(memory)
#define _tile_release()               amx_model_release()
#define _tile_zero(i)                 amx_model_zero(i)
#define _tile_loadd(i, base, stride)  amx_model_load(i, base, stride)
#define _tile_stored(i, base, stride) amx_model_store(i, base, stride)
#define _tile_dpbsud(c, a, b)         amx_model_dot(c, a, b, 0)
#define _tile_dpbssd(c, a, b)         amx_model_dot(c, a, b, 1)

#endif
