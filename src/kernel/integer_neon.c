/* Registers of 16 bytes: NEON with the dot product of bytes (Armv8.2). SPDX-License-Identifier: MIT */
#include "kernel/integer.h"

#include <arm_neon.h>
#include <string.h>

typedef uint8x16_t vi;
typedef float32x4_t vf;

enum { V = 16, ROWS = 4, TOKENS_8 = 5, TOKENS_16 = 6 };
#define HALVES            1
#define BIASED            0
#define CURVED            0
#define REGISTER          "w"
#define QINS_INTEGER_NAME qins_integer_neon

static inline int32x4_t words_of(vi v) {
    return vreinterpretq_s32_u8(v);
}
static inline vi of_words(int32x4_t v) {
    return vreinterpretq_u8_s32(v);
}
static inline vi load(const void *p) {
    return vld1q_u8(p);
}
static inline void store(void *p, vi v) {
    vst1q_u8(p, v);
}
static inline vi zero(void) {
    return vdupq_n_u8(0);
}
static inline vi add(vi a, vi b) {
    return of_words(vaddq_s32(words_of(a), words_of(b)));
}
static inline vi combine(vi high, vi low) {
    return of_words(vaddq_s32(vshlq_n_s32(words_of(high), 8), words_of(low)));
}
static inline vi broadcast(int32_t v) {
    return of_words(vdupq_n_s32(v));
}
static inline vf load_f(const float *p) {
    return vld1q_f32(p);
}
static inline void store_f(float *p, vf v) {
    vst1q_f32(p, v);
}
static inline vf multiply_add(vf sum, vi integers, float unit) {
    return vfmaq_n_f32(sum, vcvtq_f32_s32(words_of(integers)), unit);
}
static inline void prefetch(const void *p) {
    __builtin_prefetch(p, 0, 2);
}
static inline vi dot_bytes(vi sum, vi w, const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return of_words(vdotq_s32(words_of(sum), vreinterpretq_s8_u8(w), vreinterpretq_s8_s32(vdupq_n_s32(four))));
}
static inline vi dot_words(vi sum, vi w, const int16_t *x) {
    int16x4_t four = vld1_s16(x);
    int16x8_t entries = vreinterpretq_s16_u8(w);
    return of_words(vaddq_s32(
        words_of(sum), vpaddq_s32(vmull_s16(vget_low_s16(entries), four), vmull_s16(vget_high_s16(entries), four))));
}
static inline vi pair_sum(vi a, vi b) {
    return of_words(vpaddq_s32(words_of(a), words_of(b)));
}

/* ---- codes ---- */

static inline __attribute__((always_inline)) vi shift_right(vi v, unsigned n) {
    return n == 0 ? v : vshlq_u8(v, vdupq_n_s8((int8_t) - (int)n));
}
static inline vi spread(const uint8_t *plane, unsigned block, unsigned part) {
    const uint8_t *p = plane + 8 * block + 2 * part;
    const vi bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    return vtstq_u8(vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1])), bit);
}
static inline __attribute__((always_inline)) vi codes(const uint8_t *tile, int bits, unsigned block, unsigned part) {
    unsigned first = V * part;
    if (bits == 8) return load(tile + 64 * block + first);
    vi code = zero();
    int next = 0;
    if (bits >= 4) {
        code = vandq_u8(shift_right(load(tile + 64 * (block / 2) + first), 4 * (block % 2)), vdupq_n_u8(0x0f));
        tile += 512;
        next = 4;
    }
    if (bits <= 3 || bits >= 6) {
        vi two = vandq_u8(shift_right(load(tile + 64 * (block / 4) + first), 2 * (block % 4)), vdupq_n_u8(3));
        code = vorrq_u8(code, next == 0 ? two : vshlq_n_u8(two, 4));
        tile += 256;
        next += 2;
    }
    if (bits % 2 == 1) code = vorrq_u8(code, vandq_u8(spread(tile, block, part), vdupq_n_u8((uint8_t)(1 << next))));
    return code;
}

/* ---- tables: 64 entries in four registers ---- */

typedef struct bytes_table {
    uint8x16x4_t r[4];
} bytes_table;

static inline __attribute__((always_inline)) bytes_table load_bytes(const uint8_t *entries, int bits, uint8_t flip) {
    uint8_t flipped[QINS_INTEGER_LEVELS];
    bytes_table t;
    for (unsigned i = 0; i < QINS_INTEGER_LEVELS; i++)
        flipped[i] = entries[i] ^ flip;
    for (unsigned i = 0; i < (bits <= 6 ? 1u : 1u << (bits - 6)); i++)
        for (unsigned j = 0; j < 4; j++)
            t.r[i].val[j] = vld1q_u8(flipped + 64 * i + 16 * j);
    return t;
}
static inline __attribute__((always_inline)) vi look_up(const bytes_table *t, int bits, vi index) {
    if (bits <= 4) return vqtbl1q_u8(t->r[0].val[0], index);
    vi found = vqtbl4q_u8(t->r[0], index); /* 0 for indices outside */
    for (unsigned i = 1; i < (bits <= 6 ? 1u : 1u << (bits - 6)); i++)
        found = vqtbx4q_u8(found, t->r[i], vsubq_u8(index, vdupq_n_u8((uint8_t)(64 * i))));
    return found;
}

typedef bytes_table table_8;
typedef struct table_16 {
    bytes_table low, high;
} table_16;

/* Entries as signed bytes. */
static inline __attribute__((always_inline)) table_8 load_table_8(const qins_integer_table *t, int bits) {
    return load_bytes(t->low, bits, QINS_ENTRY_BIAS);
}
static inline __attribute__((always_inline)) table_16 load_table_16(const qins_integer_table *t, int bits,
                                                                    bool curved) {
    (void)curved;
    return (table_16){load_bytes(t->low, bits, 0), load_bytes(t->high, bits, 0)};
}
static inline __attribute__((always_inline)) vi look_up_8(const table_8 *t, const uint8_t *tile, int bits,
                                                          unsigned block, unsigned part) {
    return look_up(t, bits, codes(tile, bits, block, part));
}
/* Trellis: parts 0 and 1 are one half of the ring (codec.h), 2 and 3 the other. The row before that is the row before
 * within the half, cyclically; the row before lies in the other half. */
static inline __attribute__((always_inline)) vi rotate_half(const uint8_t *plane, unsigned part) {
    return vextq_u8(load(plane + V * (part ^ 1)), load(plane + V * part), 12);
}
static inline __attribute__((always_inline)) vi look_up_trellis(const table_8 *t, const uint8_t *tile, int bits,
                                                                unsigned block, unsigned part) {
    unsigned per_plane = bits <= 3 ? 4 : 2, from = 8 / per_plane * (block % per_plane);
    const uint8_t *plane = tile + 64 * (block / per_plane);
    vi before = part >= 2 ? load(plane + V * (part - 2)) : rotate_half(plane, part + 2), one = vdupq_n_u8(1);
    vi changed = vandq_u8(shift_right(rotate_half(plane, part), from), one);
    vi code = veorq_u8(codes(tile, bits, block, part), changed), last = vandq_u8(shift_right(before, from), one);
    if (bits == 7) /* the entry itself: the place in a table of equal steps, as a signed byte */
        return veorq_u8(vorrq_u8(vshlq_n_u8(code, 1), last), vdupq_n_u8(QINS_ENTRY_BIAS));
    return look_up(t, bits + 1, vorrq_u8(code, vshlq_u8(last, vdupq_n_s8((int8_t)bits))));
}
static inline __attribute__((always_inline)) void look_up_16(const table_16 *t, const uint8_t *tile, int bits,
                                                             bool curved, unsigned block, unsigned part, vi w[2]) {
    (void)curved;
    vi index = codes(tile, bits, block, part);
    vi low = look_up(&t->low, bits, index), high = look_up(&t->high, bits, index);
    w[0] = vzip1q_u8(low, high);
    w[1] = vzip2q_u8(low, high);
}

#include "kernel/integer_vector.h"
