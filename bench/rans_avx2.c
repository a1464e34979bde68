/* Entropy decoding with AVX2: eight registers hold the states of the 64 coders. SPDX-License-Identifier: MIT */
#include <immintrin.h>

#include "rans.h"

/* One step of 8 coders: the symbols, a 32-bit number each. Reads 16 bytes at *next. */
static inline __m256i step(__m256i *state, const uint32_t *table, const uint8_t **next) {
    const __m256i low12 = _mm256_set1_epi32(0xfff), zero = _mm256_setzero_si256();
    __m256i x = *state;
    __m256i entry = _mm256_i32gather_epi32((const int *)(const void *)table, _mm256_and_si256(x, low12), 4);
    __m256i freq = _mm256_and_si256(_mm256_srli_epi32(entry, 12), low12);
    x = _mm256_add_epi32(_mm256_mullo_epi32(freq, _mm256_srli_epi32(x, RANS_MODEL_BITS)),
                         _mm256_and_si256(entry, low12));
    __m256i need = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), zero);
    unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(need));
    /* Lane l takes word number popcount(mask below l): deposit 0, 1, 2 .. into the bytes of the lanes that need one. */
    uint64_t lanes = _pdep_u64(mask, 0x0101010101010101u) * 0xff;
    __m256i from = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)_pdep_u64(0x0706050403020100u, lanes)));
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)*next));
    words = _mm256_permutevar8x32_epi32(words, from);
    __m256i refilled = _mm256_or_si256(_mm256_slli_epi32(x, 16), words);
    *state = _mm256_blendv_epi8(x, refilled, need);
    *next += 2 * _mm_popcnt_u32(mask);
    return _mm256_srli_epi32(entry, 24);
}

/* Four registers of eight 32-bit numbers below 256 into 32 bytes. */
static inline void store_bytes(const __m256i s[4], uint8_t *out) {
    __m256i a = _mm256_packs_epi32(s[0], s[1]), b = _mm256_packs_epi32(s[2], s[3]);
    __m256i bytes = _mm256_packus_epi16(a, b); /* 4-byte pieces 0 2 4 6 | 1 3 5 7 */
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)out, bytes);
}

bool rans_decode_avx2(rans_decoder *d, const uint32_t *table, size_t n_blocks, uint8_t *out) {
    enum { REGISTERS = 8, BLOCK_READS = 2 * RANS_LANES };
    __m256i x[REGISTERS], symbols[4];
    for (size_t i = 0; i < REGISTERS; i++)
        x[i] = _mm256_loadu_si256((const __m256i *)(const void *)(d->state + 8 * i));
    const uint8_t *next = d->next;
    size_t b = 0;
    for (; b < n_blocks && d->end - next >= BLOCK_READS; b++, out += RANS_LANES)
        for (size_t half = 0; half < 2; half++) {
            for (size_t i = 0; i < 4; i++)
                symbols[i] = step(&x[4 * half + i], table, &next);
            store_bytes(symbols, out + 32 * half);
        }
    for (size_t i = 0; i < REGISTERS; i++)
        _mm256_storeu_si256((__m256i *)(void *)(d->state + 8 * i), x[i]);
    d->next = next;
    return rans_decode_scalar(d, table, n_blocks - b, out);
}
