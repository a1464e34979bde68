/* Registers of 32 bytes: AVX2. SPDX-License-Identifier: MIT
 *
 * VNNI 1: AVX-VNNI multiplies bytes with the halves of the input. VNNI 0: entries are widened to words, which one
 * instruction multiplies with 16-bit inputs. */
#include "kernel/integer.h"

#include <immintrin.h>
#include <string.h>

typedef __m256i vi;
typedef __m256 vf;

enum { V = 32, ROWS = 8, TOKENS_8 = 3, TOKENS_16 = 5 };
#define HALVES   VNNI
#define BIASED   1
#define CURVED   1
#define REGISTER "x"

static inline vi load(const void *p) {
    return _mm256_loadu_si256(p);
}
static inline void store(void *p, vi v) {
    _mm256_storeu_si256(p, v);
}
static inline vi zero(void) {
    return _mm256_setzero_si256();
}
static inline vi add(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}
static inline vi broadcast(int32_t v) {
    return _mm256_set1_epi32(v);
}
static inline vf load_f(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void store_f(float *p, vf v) {
    _mm256_storeu_ps(p, v);
}
static inline vf multiply_add(vf sum, vi integers, float unit) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(integers), _mm256_set1_ps(unit), sum);
}
static inline void prefetch(const void *p) {
    _mm_prefetch(p, _MM_HINT_T1);
}
#if VNNI
static inline vi combine(vi high, vi low) {
    return _mm256_add_epi32(_mm256_slli_epi32(high, 8), low);
}
static inline vi dot_bytes(vi sum, vi w, const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_dpbusd_avx_epi32(sum, w, _mm256_set1_epi32(four));
}
#else
static inline void widen(vi w, vi wide[2]) {
    wide[0] = _mm256_unpacklo_epi8(w, _mm256_setzero_si256());
    wide[1] = _mm256_unpackhi_epi8(w, _mm256_setzero_si256());
}
#endif
static inline vi dot_words(vi sum, vi w, const int16_t *x) {
    int64_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(w, _mm256_set1_epi64x(four)));
}
static inline vi pair_sum(vi a, vi b) {
    return _mm256_hadd_epi32(a, b);
}

/* ---- codes ---- */

static inline __attribute__((always_inline)) vi shift_right(vi v, unsigned n) {
    return n == 0 ? v : _mm256_srli_epi32(v, (int)n);
}
/* Bytes of ones where the bit is set, of 32 bits. */
static inline vi spread(const uint8_t *plane, unsigned block, unsigned part) {
    int32_t mask;
    memcpy(&mask, plane + 8 * block + 4 * part, sizeof mask);
    const vi byte = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3,
                                     3, 3, 3, 3);
    const vi bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    vi bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(mask), byte);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
}
static inline vi bytes_of(int value) {
    return _mm256_set1_epi8((char)value);
}
static inline __attribute__((always_inline)) vi nibbles(const uint8_t *plane, unsigned block, unsigned part) {
    return _mm256_and_si256(shift_right(load(plane + 64 * (block / 2) + V * part), 4 * (block % 2)), bytes_of(0x0f));
}
/* Bit `from` of each byte at bit `to`; others are garbage. */
static inline __attribute__((always_inline)) vi move_bit(vi v, unsigned from, unsigned to) {
    return from > to ? _mm256_srli_epi32(v, (int)(from - to)) : from < to ? _mm256_slli_epi32(v, (int)(to - from)) : v;
}
/* The two bits of the block, moved to bit `to` of each byte; others are garbage. */
static inline __attribute__((always_inline)) vi pairs(const uint8_t *plane, unsigned block, unsigned part,
                                                      unsigned to) {
    return move_bit(load(plane + 64 * (block / 4) + V * part), 2 * (block % 4), to);
}
static inline __attribute__((always_inline)) vi codes(const uint8_t *tile, int bits, unsigned block, unsigned part) {
    if (bits == 8) return load(tile + 64 * block + V * part);
    vi code = zero();
    int next = 0;
    if (bits >= 4) {
        code = nibbles(tile, block, part);
        tile += 512;
        next = 4;
    }
    if (bits == 3 || bits >= 6) {
        vi two = _mm256_and_si256(pairs(tile, block, part, (unsigned)next), bytes_of(3 << next));
        code = next == 0 ? two : _mm256_or_si256(code, two);
        tile += 256;
        next += 2;
    }
    if (bits % 2 == 1) code = _mm256_or_si256(code, _mm256_and_si256(spread(tile, block, part), bytes_of(1 << next)));
    return code;
}

/* ---- tables ---- */

/* Up to 6 bits, 7 for the trellis: 16 entries a register, twice. */
typedef struct bytes_table {
    vi r[8];
} bytes_table;

static inline vi sixteen(const void *bytes) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
}
static inline __attribute__((always_inline)) bytes_table load_bytes(const uint8_t *entries, int bits) {
    bytes_table t = {{zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()}};
    for (unsigned i = 0; i < (bits <= 4 ? 1u : 1u << (bits - 4)); i++)
        t.r[i] = sixteen(entries + 16 * i);
    return t;
}
/* Codes of up to 6 bits to bytes of a table. The upper bits of 5 and 6 choose between lookups by the lower four: blends
 * choose by the sign of a byte, so bits are moved there and never put together into a code. */
static inline __attribute__((always_inline)) vi look_up(const bytes_table *t, const uint8_t *tile, int bits,
                                                        unsigned block, unsigned part) {
    if (bits <= 4) return _mm256_shuffle_epi8(t->r[0], codes(tile, bits, block, part));
    vi index = nibbles(tile, block, part), low = _mm256_shuffle_epi8(t->r[0], index);
    vi bit4 = bits == 5 ? spread(tile + 512, block, part) : pairs(tile + 512, block, part, 7);
    low = _mm256_blendv_epi8(low, _mm256_shuffle_epi8(t->r[1], index), bit4);
    if (bits == 5) return low;
    vi high = _mm256_blendv_epi8(_mm256_shuffle_epi8(t->r[2], index), _mm256_shuffle_epi8(t->r[3], index), bit4);
    return _mm256_blendv_epi8(low, high, pairs(tile + 512, block, part, 6));
}

/* Of curved tables, 16 entries, twice. */
typedef struct curve_table {
    vi base_low, base_high, slope, bend, curve;
} curve_table;

static inline __attribute__((always_inline)) curve_table load_curve(const qins_integer_table *t, int bits) {
    uint8_t curve[16]; /* at 7 bits l is looked up by 2 l */
    for (int i = 0; i < 16; i++)
        curve[i] = (uint8_t)qins_curve(bits, bits == 8 ? i : i / 2);
    return (curve_table){sixteen(t->base_low), sixteen(t->base_high), sixteen(t->slope), sixteen(t->bend),
                         sixteen(curve)};
}
static inline __attribute__((always_inline)) void look_up_curved(const curve_table *t, int bits, vi code, vi w[2]) {
    if (bits == 7) code = _mm256_add_epi8(code, code); /* the sign to the top */
    vi negative = _mm256_cmpgt_epi8(code, bytes_of(-1));
    vi segment = _mm256_and_si256(_mm256_srli_epi32(code, 4), bytes_of(0x0f));
    vi l = _mm256_and_si256(_mm256_xor_si256(code, negative), bytes_of(bits == 8 ? 0x0f : 0x0e));
    vi curve = _mm256_shuffle_epi8(t->curve, l);
    if (bits == 7) l = _mm256_srli_epi32(l, 1);
    vi slope = _mm256_shuffle_epi8(t->slope, segment), bend = _mm256_shuffle_epi8(t->bend, segment);
    vi low = _mm256_shuffle_epi8(t->base_low, segment), high = _mm256_shuffle_epi8(t->base_high, segment);
    w[0] = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_unpacklo_epi8(l, curve), _mm256_unpacklo_epi8(slope, bend)),
                            _mm256_unpacklo_epi8(low, high));
    w[1] = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_unpackhi_epi8(l, curve), _mm256_unpackhi_epi8(slope, bend)),
                            _mm256_unpackhi_epi8(low, high));
}

typedef struct table_8 {
    bytes_table low;
    const uint8_t *entries;
} table_8;
typedef struct table_16 {
    bytes_table low, high;
    curve_table curve;
    uint16_t words[QINS_INTEGER_LEVELS];
} table_16;

static inline __attribute__((always_inline)) table_8 load_table_8(const qins_integer_table *t, int bits) {
    table_8 table = {.entries = t->low};
    if (bits <= 7) table.low = load_bytes(t->low, bits);
    return table;
}
static inline __attribute__((always_inline)) table_16 load_table_16(const qins_integer_table *t, int bits,
                                                                    bool curved) {
    table_16 table;
    if (curved) {
        table.curve = load_curve(t, bits);
    } else if (bits <= 6) {
        table.low = load_bytes(t->low, bits);
        table.high = load_bytes(t->high, bits);
    } else {
        for (unsigned i = 0; i < 1u << bits; i++)
            table.words[i] = (uint16_t)(t->low[i] | t->high[i] << 8);
    }
    return table;
}
static inline __attribute__((always_inline)) vi look_up_8(const table_8 *t, const uint8_t *tile, int bits,
                                                          unsigned block, unsigned part) {
    if (bits <= 6) return look_up(&t->low, tile, bits, block, part);
    uint8_t bytes[V];
    store(bytes, codes(tile, bits, block, part));
    for (unsigned i = 0; i < V; i++)
        bytes[i] = t->entries[bytes[i]];
    return load(bytes);
}
/* Trellis: the row before that in the ring (codec.h) is the row before within a part, cyclically; the row before lies
 * in the other part. */
static inline vi rotate_rows(vi rows) {
    return _mm256_permutevar8x32_epi32(rows, _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6));
}
static inline __attribute__((always_inline)) vi look_up_trellis(const table_8 *table, const uint8_t *tile, int bits,
                                                                unsigned block, unsigned part) {
    const bytes_table *t = &table->low;
    bool pair = bits <= 3;
    unsigned from = pair ? 2 * (block % 4) : 4 * (block % 2);
    const uint8_t *plane = tile + 64 * (block / (pair ? 4 : 2));
    vi own = load(plane + V * part), other = load(plane + V * (1 - part)),
       before = part == 1 ? other : rotate_rows(other);
    vi changed = _mm256_xor_si256(own, _mm256_and_si256(rotate_rows(own), bytes_of(pair ? 0x55 : 0x11)));
    if (bits == 7) { /* the entry itself: the place in a table of equal steps */
        vi entry = _mm256_or_si256(_mm256_and_si256(move_bit(before, from, 0), bytes_of(0x01)),
                                   _mm256_and_si256(move_bit(changed, from, 1), bytes_of(0x1e)));
        entry = _mm256_or_si256(entry, _mm256_and_si256(pairs(tile + 512, block, part, 5), bytes_of(0x60)));
        return _mm256_or_si256(entry, _mm256_and_si256(spread(tile + 768, block, part), bytes_of(0x80)));
    }
    vi index = _mm256_and_si256(move_bit(changed, from, 0), bytes_of(pair ? 0x03 : 0x0f));
    if (bits == 2)
        return _mm256_shuffle_epi8(t->r[0],
                                   _mm256_or_si256(index, _mm256_and_si256(move_bit(before, from, 2), bytes_of(0x04))));
    if (bits == 3) {
        index = _mm256_or_si256(index, _mm256_and_si256(spread(tile + 256, block, part), bytes_of(0x04)));
        index = _mm256_or_si256(index, _mm256_and_si256(move_bit(before, from, 3), bytes_of(0x08)));
        return _mm256_shuffle_epi8(t->r[0], index);
    }
    /* Blends choose by the top bit of a byte: the code's upper bits, then the row before. */
    vi top = move_bit(before, from, 7), found[8];
    int n = 1 << (bits - 3);
    UNROLL(8)
    for (int i = 0; i < n; i++)
        found[i] = _mm256_shuffle_epi8(t->r[i], index);
    UNROLL(4)
    for (int bit = 4; bit <= bits; bit++) {
        vi upper = bit == bits ? top
                   : bits == 5 ? spread(tile + 512, block, part)
                               : pairs(tile + 512, block, part, bit == 4 ? 7 : 6);
        n /= 2;
        UNROLL(4)
        for (int i = 0; i < n; i++)
            found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], upper);
    }
    return found[0];
}
static inline __attribute__((always_inline)) void look_up_16(const table_16 *t, const uint8_t *tile, int bits,
                                                             bool curved, unsigned block, unsigned part, vi w[2]) {
    if (curved) {
        look_up_curved(&t->curve, bits, codes(tile, bits, block, part), w);
        return;
    }
    if (bits <= 6) {
        vi low = look_up(&t->low, tile, bits, block, part), high = look_up(&t->high, tile, bits, block, part);
        w[0] = _mm256_unpacklo_epi8(low, high);
        w[1] = _mm256_unpackhi_epi8(low, high);
        return;
    }
    uint8_t code[V];
    uint16_t words[V];
    store(code, codes(tile, bits, block, part));
    UNROLL(32)
    for (unsigned i = 0; i < V; i++) /* w[0] holds bytes 0..7 and 16..23 */
        words[(i / 8 % 2) * 16 + i / 16 * 8 + i % 8] = t->words[code[i]];
    w[0] = load(words);
    w[1] = load(words + 16);
}

#include "kernel/integer_vector.h"
