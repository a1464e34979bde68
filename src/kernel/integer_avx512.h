/* Registers of 64 bytes: AVX-512 with VNNI. SPDX-License-Identifier: MIT
 *
 * VBMI 1: codes are looked up in 64 or 128 bytes at once, and index bits above those of the width are ignored, as the
 * table is repeated. VBMI 0: 16 bytes at a time, chosen by the upper bits. */
#include "kernel/integer.h"

#include <immintrin.h>
#include <string.h>

typedef __m512i vi;
typedef __m512 vf;

enum { V = 64, ROWS = 16 };
#define HALVES   1
#define BIASED   1
#define CURVED   !VBMI
#define REGISTER "v"
enum { TOKENS_8 = 6, TOKENS_16 = 8 };

static inline vi load(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline void store(void *p, vi v) {
    _mm512_storeu_si512(p, v);
}
static inline vi zero(void) {
    return _mm512_setzero_si512();
}
static inline vi add(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}
static inline vi combine(vi high, vi low) {
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
}
static inline vi broadcast(int32_t v) {
    return _mm512_set1_epi32(v);
}
static inline vf load_f(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void store_f(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}
static inline vf multiply_add(vf sum, vi integers, float unit) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(integers), _mm512_set1_ps(unit), sum);
}
static inline void prefetch(const void *p) {
    _mm_prefetch(p, _MM_HINT_T1);
}
static inline vi dot_bytes(vi sum, vi w, const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(four));
}
static inline vi dot_words(vi sum, vi w, const int16_t *x) {
    int64_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_dpwssd_epi32(sum, w, _mm512_set1_epi64(four));
}
static inline vi pair_sum(vi a, vi b) {
    __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}

/* ---- codes: bits above those of the width are garbage ---- */

enum { SELECT = 0xca }; /* truth table of mask ? a : b, mask first */

static inline vi choose_bits(int mask, vi a, vi b) {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)mask), a, b, SELECT);
}
static inline vi nibbles(const uint8_t *plane, unsigned block) {
    vi two = load(plane + 64 * (block / 2));
    return block % 2 == 0 ? two : _mm512_srli_epi32(two, 4);
}
/* Bit `from` of each byte at bit `to`; others are garbage. */
static inline __attribute__((always_inline)) vi move_bit(vi v, unsigned from, unsigned to) {
    return from > to ? _mm512_srli_epi32(v, from - to) : from < to ? _mm512_slli_epi32(v, to - from) : v;
}
/* The two bits of the block, moved to bit `to` of each byte; others are garbage. */
static inline __attribute__((always_inline)) vi pairs(const uint8_t *plane, unsigned block, unsigned to) {
    return move_bit(load(plane + 64 * (block / 4)), 2 * (block % 4), to);
}
#if VBMI
static const uint8_t lane_numbers[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                         16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                         32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                         48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
#endif
/* The bit of the block at bit `to` of each byte; others are garbage. */
static inline __attribute__((always_inline)) vi spread(const uint8_t *plane, unsigned block, int to) {
    uint64_t mask;
    memcpy(&mask, plane + 8 * block, sizeof mask);
#if VBMI
    /* Byte l is the eight bits from bit l - to on, of the mask taken as a circle: half the work of a mask register. */
    return _mm512_multishift_epi64_epi8(_mm512_sub_epi8(load(lane_numbers), _mm512_set1_epi8((char)to)),
                                        _mm512_set1_epi64((long long)mask));
#else
    (void)to;
    return _mm512_movm_epi8(mask);
#endif
}
static inline __attribute__((always_inline)) vi codes(const uint8_t *tile, int bits, unsigned block) {
    switch (bits) {
    case 3:
        return choose_bits(0x03, pairs(tile, block, 0), spread(tile + 256, block, 2));
    case 4:
        return nibbles(tile, block);
    case 5:
        return choose_bits(0x0f, nibbles(tile, block), spread(tile + 512, block, 4));
    case 6:
        return choose_bits(0x0f, nibbles(tile, block), pairs(tile + 512, block, 4));
    case 7:
        return choose_bits(0x3f, choose_bits(0x0f, nibbles(tile, block), pairs(tile + 512, block, 4)),
                           spread(tile + 768, block, 6));
    default:
        return load(tile + 64 * block);
    }
}

/* ---- tables ---- */

/* 16 bytes in every 128 bits. */
static inline vi sixteen(const void *bytes) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
}

#if VBMI
/* Entries are repeated (integer.h), so that the bits above are ignored; 256 entries in four registers. */
typedef struct bytes_table {
    vi r[4];
} bytes_table;

static inline __attribute__((always_inline)) bytes_table load_bytes(const uint8_t *entries, int bits) {
    bytes_table t;
    for (unsigned i = 0; i < (bits <= 6 ? 1u : 1u << (bits - 6)); i++)
        t.r[i] = load(entries + 64 * i);
    return t;
}
static inline __attribute__((always_inline)) vi look_up(const bytes_table *t, int bits, vi index) {
    /* vpshufb, which needs the bits above cleared, is faster than vpermb and that together (Zen 4) */
    if (bits == 4) return _mm512_shuffle_epi8(t->r[0], _mm512_and_si512(index, _mm512_set1_epi8(0x0f)));
    if (bits <= 6) return _mm512_permutexvar_epi8(index, t->r[0]);
    vi low = _mm512_permutex2var_epi8(t->r[0], index, t->r[1]);
    if (bits == 7) return low;
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, _mm512_permutex2var_epi8(t->r[2], index, t->r[3]));
}
#else
typedef struct bytes_table {
    vi r[16]; /* 16 entries each, in every 128 bits */
} bytes_table;

static inline __attribute__((always_inline)) bytes_table load_bytes(const uint8_t *entries, int bits) {
    bytes_table t;
    for (unsigned i = 0; i < (bits <= 4 ? 1u : 1u << (bits - 4)); i++)
        t.r[i] = sixteen(entries + 16 * i);
    return t;
}
static inline __attribute__((always_inline)) vi look_up(const bytes_table *t, int bits, vi index) {
    vi low_bits = _mm512_and_si512(index, _mm512_set1_epi8(0x0f)), found[16];
    int n = bits <= 4 ? 1 : 1 << (bits - 4);
    UNROLL(16)
    for (int i = 0; i < n; i++)
        found[i] = _mm512_shuffle_epi8(t->r[i], low_bits);
    UNROLL(4)
    for (int bit = 4; bit < bits; bit++) {
        __mmask64 upper = _mm512_test_epi8_mask(index, _mm512_set1_epi8((char)(1 << bit)));
        UNROLL(8)
        for (int i = 0; i < n >> (bit - 3); i++)
            found[i] = _mm512_mask_blend_epi8(upper, found[2 * i], found[2 * i + 1]);
    }
    return found[0];
}
#endif

/* ---- trellis: lowest bits of the rows before in the ring (codec.h), by moving rows of a whole plane ---- */

static inline vi row_before(vi rows) {
    const vi from = _mm512_setr_epi32(15, 8, 9, 10, 11, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_permutexvar_epi32(from, rows);
}
static inline vi row_before_that(vi rows) {
    const vi from = _mm512_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14);
    return _mm512_permutexvar_epi32(from, rows);
}
/* Index into a table of bits + 1: the code with its lowest bit changed, and on top the bit of the row before. Of 7 bits
 * the entry. */
static inline __attribute__((always_inline)) vi trellis_index(const uint8_t *tile, int bits, unsigned block) {
    enum { XOR_AND = 0x78 }; /* truth table of a ^ (b & c), a first */
    bool pair = bits <= 3;
    unsigned from = pair ? 2 * (block % 4) : 4 * (block % 2);
    vi plane = load(tile + 64 * (block / (pair ? 4 : 2)));
    vi changed =
        _mm512_ternarylogic_epi32(plane, row_before_that(plane), _mm512_set1_epi8(pair ? 0x55 : 0x11), XOR_AND);
    vi low = move_bit(changed, from, 0), top = move_bit(row_before(plane), from, (unsigned)bits);
    switch (bits) {
    case 2:
        return choose_bits(0x03, low, top);
    case 3:
        return choose_bits(0x03, low, choose_bits(0x04, spread(tile + 256, block, 2), top));
    case 4:
        return choose_bits(0x0f, low, top);
    case 5:
        return choose_bits(0x0f, low, choose_bits(0x10, spread(tile + 512, block, 4), top));
    case 6:
        return choose_bits(0x0f, low, choose_bits(0x30, pairs(tile + 512, block, 4), top));
    default: /* the entry itself: the place in a table of equal steps */
        return choose_bits(0x01, move_bit(row_before(plane), from, 0),
                           choose_bits(0x1e, move_bit(changed, from, 1),
                                       choose_bits(0x60, pairs(tile + 512, block, 5), spread(tile + 768, block, 7))));
    }
}

/* 3 bits: the upper ones are added under a mask. Bits moved by vpmultishiftqb and looked up by vpermb are faster from
 * cache (24.9 GB/s of codes, 22.5 so) and slower from memory (11.5, 17.9; one thread of Zen 4). */
static inline __attribute__((always_inline)) vi look_up_3(const bytes_table *t, const uint8_t *tile, unsigned block) {
    uint64_t mask;
    memcpy(&mask, tile + 256 + 8 * block, sizeof mask);
    vi two = _mm512_and_si512(pairs(tile, block, 0), _mm512_set1_epi8(3));
    return _mm512_shuffle_epi8(t->r[0], _mm512_mask_add_epi8(two, mask, two, _mm512_set1_epi8(4)));
}

typedef bytes_table table_8;

/* Of curved tables, 16 entries in every 128 bits. */
typedef struct curve_table {
    vi base_low, base_high, slope, bend, curve;
} curve_table;
typedef struct table_16 {
    bytes_table low, high;
    curve_table curve;
} table_16;

static inline __attribute__((always_inline)) curve_table load_curve(const qins_integer_table *t, int bits) {
    uint8_t curve[16]; /* at 7 bits l is looked up by 2 l */
    for (int i = 0; i < 16; i++)
        curve[i] = (uint8_t)qins_curve(bits, bits == 8 ? i : i / 2);
    return (curve_table){sixteen(t->base_low), sixteen(t->base_high), sixteen(t->slope), sixteen(t->bend),
                         sixteen(curve)};
}
static inline __attribute__((always_inline)) void look_up_curved(const curve_table *t, int bits, vi code, vi w[2]) {
    enum { AND_NOT_XOR = 0x82 };                       /* truth table of ~(a ^ b) & c, a first */
    if (bits == 7) code = _mm512_add_epi8(code, code); /* the sign to the top */
    vi nibble = _mm512_set1_epi8(0x0f), positive = _mm512_movm_epi8(_mm512_movepi8_mask(code));
    vi segment = _mm512_and_si512(_mm512_srli_epi32(code, 4), nibble);
    vi l = _mm512_ternarylogic_epi32(code, positive, bits == 8 ? nibble : _mm512_set1_epi8(0x0e), AND_NOT_XOR);
    vi curve = _mm512_shuffle_epi8(t->curve, l);
    if (bits == 7) l = _mm512_srli_epi32(l, 1);
    vi slope = _mm512_shuffle_epi8(t->slope, segment), bend = _mm512_shuffle_epi8(t->bend, segment);
    vi low = _mm512_shuffle_epi8(t->base_low, segment), high = _mm512_shuffle_epi8(t->base_high, segment);
    w[0] = _mm512_add_epi16(_mm512_maddubs_epi16(_mm512_unpacklo_epi8(l, curve), _mm512_unpacklo_epi8(slope, bend)),
                            _mm512_unpacklo_epi8(low, high));
    w[1] = _mm512_add_epi16(_mm512_maddubs_epi16(_mm512_unpackhi_epi8(l, curve), _mm512_unpackhi_epi8(slope, bend)),
                            _mm512_unpackhi_epi8(low, high));
}

static inline __attribute__((always_inline)) table_8 load_table_8(const qins_integer_table *t, int bits) {
    return load_bytes(t->low, bits);
}
static inline __attribute__((always_inline)) table_16 load_table_16(const qins_integer_table *t, int bits,
                                                                    bool curved) {
    table_16 table;
    if (curved) {
        table.curve = load_curve(t, bits);
    } else {
        table.low = load_bytes(t->low, bits);
        table.high = load_bytes(t->high, bits);
    }
    return table;
}
static inline __attribute__((always_inline)) vi look_up_8(const table_8 *t, const uint8_t *tile, int bits,
                                                          unsigned block, unsigned part) {
    (void)part;
    if (bits == 3) return look_up_3(t, tile, block);
    return look_up(t, bits, codes(tile, bits, block));
}
static inline __attribute__((always_inline)) vi look_up_trellis(const table_8 *t, const uint8_t *tile, int bits,
                                                                unsigned block, unsigned part) {
    (void)part;
    vi index = trellis_index(tile, bits, block);
    return bits == 7 ? index : look_up(t, bits + 1, index);
}
static inline __attribute__((always_inline)) void look_up_16(const table_16 *t, const uint8_t *tile, int bits,
                                                             bool curved, unsigned block, unsigned part, vi w[2]) {
    (void)part;
    vi index = codes(tile, bits, block);
    if (curved) {
        look_up_curved(&t->curve, bits, index, w);
        return;
    }
    vi low = look_up(&t->low, bits, index), high = look_up(&t->high, bits, index);
    w[0] = _mm512_unpacklo_epi8(low, high);
    w[1] = _mm512_unpackhi_epi8(low, high);
}

#include "kernel/integer_vector.h"
