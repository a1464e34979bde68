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
    _mm_prefetch(p, _MM_HINT_T0);
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
/* The two bits of the block, moved to bit `to` of each byte; others are garbage. */
static inline __attribute__((always_inline)) vi pairs(const uint8_t *plane, unsigned block, unsigned to) {
    vi four = load(plane + 64 * (block / 4));
    unsigned from = 2 * (block % 4);
    if (from > to) return _mm512_srli_epi32(four, from - to);
    return from < to ? _mm512_slli_epi32(four, to - from) : four;
}
/* Bytes of ones where the bit is set. */
static inline vi spread(const uint8_t *plane, unsigned block) {
    uint64_t mask;
    memcpy(&mask, plane + 8 * block, sizeof mask);
    return _mm512_movm_epi8(mask);
}
static inline __attribute__((always_inline)) vi codes(const uint8_t *tile, int bits, unsigned block) {
    switch (bits) {
    case 3:
        return choose_bits(0x03, pairs(tile, block, 0), spread(tile + 256, block));
    case 4:
        return nibbles(tile, block);
    case 5:
        return choose_bits(0x0f, nibbles(tile, block), spread(tile + 512, block));
    case 6:
        return choose_bits(0x0f, nibbles(tile, block), pairs(tile + 512, block, 4));
    case 7:
        return choose_bits(0x3f, choose_bits(0x0f, nibbles(tile, block), pairs(tile + 512, block, 4)),
                           spread(tile + 768, block));
    default:
        return load(tile + 64 * block);
    }
}

/* ---- tables ---- */

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
        t.r[i] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(entries + 16 * i)));
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

typedef bytes_table table_8;
typedef struct table_16 {
    bytes_table low, high;
} table_16;

static inline __attribute__((always_inline)) table_8 load_table_8(const qins_integer_table *t, int bits) {
    return load_bytes(t->low, bits);
}
static inline __attribute__((always_inline)) table_16 load_table_16(const qins_integer_table *t, int bits) {
    return (table_16){load_bytes(t->low, bits), load_bytes(t->high, bits)};
}
static inline __attribute__((always_inline)) vi look_up_8(const table_8 *t, const uint8_t *tile, int bits,
                                                          unsigned block, unsigned part) {
    (void)part;
    return look_up(t, bits, codes(tile, bits, block));
}
static inline __attribute__((always_inline)) void look_up_16(const table_16 *t, const uint8_t *tile, int bits,
                                                             unsigned block, unsigned part, vi w[2]) {
    (void)part;
    vi index = codes(tile, bits, block);
    vi low = look_up(&t->low, bits, index), high = look_up(&t->high, bits, index);
    w[0] = _mm512_unpacklo_epi8(low, high);
    w[1] = _mm512_unpackhi_epi8(low, high);
}

#include "kernel/integer_vector.h"
