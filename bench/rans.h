/* Entropy coding of byte symbols: 64 interleaved rANS coders that share one stream of 16-bit words.
 * SPDX-License-Identifier: MIT
 *
 * Order 0, static model: a symbol costs -log2(freq/4096) bits (J. Duda, arXiv:1311.2540; interleaving as in F. Giesen,
 * arXiv:1402.3392). 64 coders because a block of codes is 64 lanes (pack.c): coder l holds lane l, so that a decoded
 * block is one register that goes into the bit planes as it is. Measured beside zstd by bench_entropy and not used:
 * docs/entropy.md.
 */
#ifndef RANS_H
#define RANS_H

#include "codec/codec.h"

enum {
    RANS_LANES = 64,
    RANS_MODEL_BITS = 12,
    RANS_SLOTS = 1 << RANS_MODEL_BITS,
    RANS_SYMBOLS = 256,
    /* What a stream has besides its words: the coders' 64 states. */
    RANS_HEAD_BYTES = 4 * RANS_LANES
};

/* Frequencies add up to 4096; a symbol of frequency 0 cannot be coded. None is 4096: an entry of the decoder's table
 * has 12 bits for it. */
typedef struct rans_model {
    uint16_t freq[RANS_SYMBOLS];
} rans_model;

/* The model of a histogram whose symbols are below n_symbols (2..256): as cheap as 12 bits allow. */
void rans_fit(rans_model *model, const uint64_t *histogram, size_t n_symbols);
/* Bits of the symbols of a histogram under a model; infinite when one of them cannot be coded. */
double rans_cost(const rans_model *model, const uint64_t *histogram);

/* What decoders read: table[slot] = symbol << 24 | freq << 12 | slot - first slot of the symbol. False when the
 * frequencies are not those of a model. */
bool rans_table(const rans_model *model, uint32_t table[RANS_SLOTS]);

/* ---- encoding: back to front ---- */

typedef struct rans_encoder {
    uint32_t state[RANS_LANES];
    uint8_t *begin, *next; /* the stream grows downwards from the end of the buffer; [next, end) is finished */
} rans_encoder;

/* Room that n symbols take at most. */
static inline size_t rans_bound(size_t n) {
    return RANS_HEAD_BYTES + 2 * n;
}
void rans_encode_begin(rans_encoder *e, uint8_t *buffer, size_t size);
/* n_blocks blocks of 64 symbols, in front of what was encoded before. */
void rans_encode(rans_encoder *e, const rans_model *model, const uint8_t *symbols, size_t n_blocks);
/* Puts the states in front; the stream begins at e->next. */
void rans_encode_finish(rans_encoder *e);

/* ---- decoding ---- */

typedef struct rans_decoder {
    uint32_t state[RANS_LANES];
    const uint8_t *next, *end;
} rans_decoder;

/* False when the stream is too short. */
bool rans_decode_begin(rans_decoder *d, const uint8_t *stream, size_t size);
/* True when all words were used and every coder is back in its first state: damage is almost always seen here. */
bool rans_decode_end(const rans_decoder *d);

/* n_blocks blocks of 64 symbols into out; false when the stream ends early. Any stream and any valid table are safe. */
typedef bool (*rans_decode_fn)(rans_decoder *d, const uint32_t *table, size_t n_blocks, uint8_t *out);
/* The specification. */
bool rans_decode_scalar(rans_decoder *d, const uint32_t *table, size_t n_blocks, uint8_t *out);

#if defined(__x86_64__)
bool rans_decode_avx2(rans_decoder *d, const uint32_t *table, size_t n_blocks, uint8_t *out);
bool rans_decode_avx512(rans_decoder *d, const uint32_t *table, size_t n_blocks, uint8_t *out);
#endif

#endif
