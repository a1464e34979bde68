/* Entries of long tables with AVX-512 VBMI. SPDX-License-Identifier: MIT
 *
 * The four bytes of an entry are looked up apart, 64 codes at a time (vpermb, vpermi2b), and put together by unpacking:
 * the codes are ordered before so that every 512-bit result is 16 entries that belong together.
 */
#include <immintrin.h>

/* Byte b of every entry, 64 entries a register. */
typedef struct byte_planes {
    __m512i bytes[4][QINS_MAX_LEVELS / 64];
} byte_planes;

/* Byte b of 32 entries, in the lower half. */
static inline __attribute__((always_inline)) __m512i byte_of(const float *table, __m512i index) {
    return _mm512_permutex2var_epi8(_mm512_loadu_si512(table), index, _mm512_loadu_si512(table + 16));
}

static inline __attribute__((always_inline)) void make_planes(const float *table, int bits, byte_planes *p) {
    __m512i index =
        _mm512_castsi256_si512(_mm256_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72,
                                                76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116, 120, 124));
    for (int b = 0; b < 4; b++, index = _mm512_add_epi8(index, _mm512_set1_epi8(1)))
        for (int r = 0; r < (bits > 6 ? 1 << (bits - 6) : 1); r++)
            p->bytes[b][r] = _mm512_inserti64x4(byte_of(table + 64 * r, index),
                                                _mm512_castsi512_si256(byte_of(table + 64 * r + 32, index)), 1);
}

/* Byte b of 64 entries; top: bit 8 of the codes. */
static inline __attribute__((always_inline)) __m512i look_up_plane(const __m512i *r, int bits, __m512i codes,
                                                                   __mmask64 top) {
    if (bits == 6) return _mm512_permutexvar_epi8(codes, r[0]);
    __m512i low = _mm512_permutex2var_epi8(r[0], codes, r[1]);
    if (bits == 7) return low;
    __mmask64 half = _mm512_movepi8_mask(codes);
    low = _mm512_mask_blend_epi8(half, low, _mm512_permutex2var_epi8(r[2], codes, r[3]));
    if (bits == 8) return low;
    __m512i high = _mm512_mask_blend_epi8(half, _mm512_permutex2var_epi8(r[4], codes, r[5]),
                                          _mm512_permutex2var_epi8(r[6], codes, r[7]));
    return _mm512_mask_blend_epi8(top, low, high);
}

/* Entries of the codes in bytes 16 l + 4 q + i as float 4 l + i of out + q * ld. */
static inline __attribute__((always_inline)) void look_up_64(const byte_planes *p, int bits, __m512i codes,
                                                             __mmask64 top, float *out, size_t ld) {
    __m512i b0 = look_up_plane(p->bytes[0], bits, codes, top), b1 = look_up_plane(p->bytes[1], bits, codes, top),
            b2 = look_up_plane(p->bytes[2], bits, codes, top), b3 = look_up_plane(p->bytes[3], bits, codes, top);
    __m512i low0 = _mm512_unpacklo_epi8(b0, b1), high0 = _mm512_unpackhi_epi8(b0, b1),
            low1 = _mm512_unpacklo_epi8(b2, b3), high1 = _mm512_unpackhi_epi8(b2, b3);
    _mm512_storeu_si512(out, _mm512_unpacklo_epi16(low0, low1));
    _mm512_storeu_si512(out + ld, _mm512_unpackhi_epi16(low0, low1));
    _mm512_storeu_si512(out + 2 * ld, _mm512_unpacklo_epi16(high0, high1));
    _mm512_storeu_si512(out + 3 * ld, _mm512_unpackhi_epi16(high0, high1));
}

static inline __attribute__((always_inline)) void decode_long(const uint8_t *tiles, int bits, const float *table,
                                                              size_t n_cols, float *out) {
    /* of four rows, four columns each: columns together */
    const __m512i by_column =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    byte_planes planes;
    make_planes(table, bits, &planes);
    for (size_t k = 0; k < n_cols; k += QINS_TILE_COLS, tiles += qins_tile_bytes(bits))
        for (unsigned block = 0; block < QINS_TILE_COLS / 4; block++) {
            __m512i codes = _mm512_shuffle_epi8((__m512i)block_codes(tiles, bits, block, 0), by_column);
            __mmask64 top = 0;
            if (bits == 9) {
                __m512i spread = _mm512_shuffle_epi8((__m512i)spread_bits(tiles + 1024 + 8 * block, 0), by_column);
                top = _mm512_test_epi8_mask(spread, spread);
            }
            look_up_64(&planes, bits, codes, top, out + (k + 4 * block) * QINS_PANEL_ROWS, QINS_PANEL_ROWS);
        }
}

/* out[i] = table[codes[i]] */
static inline void look_up_bytes(const uint8_t *codes, const float *table, size_t n, float *out) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    byte_planes planes;
    size_t i = 0;
    if (n >= 64) make_planes(table, 8, &planes);
    for (; i + 64 <= n; i += 64)
        look_up_64(&planes, 8, _mm512_permutexvar_epi32(order, _mm512_loadu_si512(codes + i)), 0, out + i, 16);
    for (; i < n; i++)
        out[i] = table[codes[i]];
}
