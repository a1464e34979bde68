/* Entropy decoding with AVX-512 (F, BW, DQ, VL): four registers hold the states of the 64 coders.
 * SPDX-License-Identifier: MIT */
#include <immintrin.h>

#include "rans.h"

/* One step of 16 coders. Reads 32 bytes at *next. */
static inline __m512i step(__m512i x, const uint32_t *table, const uint8_t **next, uint8_t *out) {
    const __m512i low12 = _mm512_set1_epi32(0xfff);
    __m512i entry = _mm512_i32gather_epi32(_mm512_and_si512(x, low12), table, 4);
    __m512i freq = _mm512_and_si512(_mm512_srli_epi32(entry, 12), low12);
    x = _mm512_add_epi32(_mm512_mullo_epi32(freq, _mm512_srli_epi32(x, RANS_MODEL_BITS)),
                         _mm512_and_si512(entry, low12));
    __mmask16 need = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(1 << 16));
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)*next));
    words = _mm512_maskz_expand_epi32(need, words);
    x = _mm512_or_si512(_mm512_mask_slli_epi32(x, need, x, 16), words);
    *next += 2 * _mm_popcnt_u32(need);
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(_mm512_srli_epi32(entry, 24)));
    return x;
}

bool rans_decode_avx512(rans_decoder *d, const uint32_t *table, size_t n_blocks, uint8_t *out) {
    enum { BLOCK_READS = 2 * RANS_LANES }; /* bytes that a block reads at most, at or past `next` */
    __m512i x0 = _mm512_loadu_si512(d->state), x1 = _mm512_loadu_si512(d->state + 16);
    __m512i x2 = _mm512_loadu_si512(d->state + 32), x3 = _mm512_loadu_si512(d->state + 48);
    const uint8_t *next = d->next;
    size_t b = 0;
    for (; b < n_blocks && d->end - next >= BLOCK_READS; b++, out += RANS_LANES) {
        x0 = step(x0, table, &next, out);
        x1 = step(x1, table, &next, out + 16);
        x2 = step(x2, table, &next, out + 32);
        x3 = step(x3, table, &next, out + 48);
    }
    _mm512_storeu_si512(d->state, x0);
    _mm512_storeu_si512(d->state + 16, x1);
    _mm512_storeu_si512(d->state + 32, x2);
    _mm512_storeu_si512(d->state + 48, x3);
    d->next = next;
    return rans_decode_scalar(d, table, n_blocks - b, out);
}
