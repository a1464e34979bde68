/* Interleaved rANS: models, the encoder, the decoder that specifies the others. SPDX-License-Identifier: MIT
 *
 * A state x is in [2^16, 2^32). Decoding: slot = x mod 4096 names the symbol s; x = freq[s] * (x >> 12) + slot -
 * first[s]; when x < 2^16 the next word comes in from below. Lanes read in order 0..63, so the encoder, which runs
 * backwards, writes in order 63..0.
 */
#include "rans.h"

#include <string.h>

static const uint32_t LOWER_BOUND = 1u << 16;

/* ---- models ---- */

/* Bits that the symbols of count h cost less when their frequency grows from f to f + 1. */
static double gain(uint64_t h, uint16_t f) {
    return (double)h * log2((f + 1.0) / f);
}

/* Index of the symbol that profits most from one more, or suffers least from one less. */
static size_t best_step(const rans_model *model, const uint64_t *histogram, size_t n, bool grow) {
    size_t best = 0;
    double best_bits = grow ? -1.0 : INFINITY;
    for (size_t s = 0; s < n; s++) {
        uint16_t f = model->freq[s];
        if (f == 0 || (grow ? f == RANS_SLOTS - 1 : f == 1)) continue;
        double bits = gain(histogram[s], grow ? f : (uint16_t)(f - 1));
        if (grow ? bits > best_bits : bits < best_bits) {
            best_bits = bits;
            best = s;
        }
    }
    return best;
}

void rans_fit(rans_model *model, const uint64_t *histogram, size_t n_symbols) {
    memset(model, 0, sizeof *model);
    double total = 0;
    size_t used = 0, last = 0;
    for (size_t s = 0; s < n_symbols; s++) {
        total += (double)histogram[s];
        if (histogram[s] == 0) continue;
        used++;
        last = s;
    }
    /* One symbol alone would have frequency 4096: another gets 1. */
    if (used < 2) model->freq[last == 0 ? 1 : 0] = 1;
    if (used == 0) model->freq[0] = 1;
    long sum = used < 2 ? (used == 0 ? 2 : 1) : 0;
    for (size_t s = 0; s < n_symbols; s++) {
        if (histogram[s] == 0) continue;
        double share = round((double)histogram[s] / total * RANS_SLOTS);
        model->freq[s] = (uint16_t)fmin(fmax(share, 1), RANS_SLOTS - 1);
        sum += model->freq[s];
    }
    for (; sum < RANS_SLOTS; sum++)
        model->freq[best_step(model, histogram, n_symbols, true)]++;
    for (; sum > RANS_SLOTS; sum--)
        model->freq[best_step(model, histogram, n_symbols, false)]--;
}

double rans_cost(const rans_model *model, const uint64_t *histogram) {
    double bits = 0;
    for (size_t s = 0; s < RANS_SYMBOLS; s++)
        if (histogram[s] > 0) bits += (double)histogram[s] * (RANS_MODEL_BITS - log2(model->freq[s]));
    return bits;
}

bool rans_table(const rans_model *model, uint32_t table[RANS_SLOTS]) {
    uint32_t slot = 0;
    for (uint32_t s = 0; s < RANS_SYMBOLS; s++) {
        uint32_t f = model->freq[s];
        if (f >= RANS_SLOTS || f > RANS_SLOTS - slot) return false;
        for (uint32_t i = 0; i < f; i++)
            table[slot++] = s << 24 | f << 12 | i;
    }
    return slot == RANS_SLOTS;
}

/* ---- encoding ---- */

static void put_u16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static uint32_t get_u16(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8;
}

void rans_encode_begin(rans_encoder *e, uint8_t *buffer, size_t size) {
    e->begin = buffer;
    e->next = buffer + size;
    for (size_t l = 0; l < RANS_LANES; l++)
        e->state[l] = LOWER_BOUND;
}

void rans_encode(rans_encoder *e, const rans_model *model, const uint8_t *symbols, size_t n_blocks) {
    uint32_t first[RANS_SYMBOLS], at = 0;
    for (size_t s = 0; s < RANS_SYMBOLS; s++) {
        first[s] = at;
        at += model->freq[s];
    }
    for (size_t b = n_blocks; b-- > 0;)
        for (size_t l = RANS_LANES; l-- > 0;) {
            uint8_t s = symbols[b * RANS_LANES + l];
            uint32_t f = model->freq[s], x = e->state[l];
            /* The largest state that stays below 2^32 is freq * 2^20 - 1. */
            if (x >> 20 >= f) {
                e->next -= 2;
                put_u16(e->next, x);
                x >>= 16;
            }
            e->state[l] = ((x / f) << RANS_MODEL_BITS) + x % f + first[s];
        }
}

void rans_encode_finish(rans_encoder *e) {
    for (size_t l = RANS_LANES; l-- > 0;) {
        e->next -= 4;
        put_u16(e->next, e->state[l]);
        put_u16(e->next + 2, e->state[l] >> 16);
    }
}

/* ---- decoding ---- */

bool rans_decode_begin(rans_decoder *d, const uint8_t *stream, size_t size) {
    if (size < RANS_HEAD_BYTES) return false;
    for (size_t l = 0; l < RANS_LANES; l++)
        d->state[l] = get_u16(stream + 4 * l) | get_u16(stream + 4 * l + 2) << 16;
    d->next = stream + RANS_HEAD_BYTES;
    d->end = stream + size;
    return true;
}

bool rans_decode_end(const rans_decoder *d) {
    bool whole = d->next == d->end;
    for (size_t l = 0; l < RANS_LANES; l++)
        whole = whole && d->state[l] == LOWER_BOUND;
    return whole;
}

bool rans_decode_scalar(rans_decoder *d, const uint32_t *table, size_t n_blocks, uint8_t *out) {
    for (size_t b = 0; b < n_blocks; b++)
        for (size_t l = 0; l < RANS_LANES; l++) {
            uint32_t x = d->state[l], entry = table[x % RANS_SLOTS];
            x = (entry >> 12 & 0xfffu) * (x >> RANS_MODEL_BITS) + (entry & 0xfffu);
            if (x < LOWER_BOUND) {
                if (d->end - d->next < 2) return false;
                x = x << 16 | get_u16(d->next);
                d->next += 2;
            }
            d->state[l] = x;
            out[b * RANS_LANES + l] = (uint8_t)(entry >> 24);
        }
    return true;
}
