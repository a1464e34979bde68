/* What attention_codes.h needs, with AVX2. SPDX-License-Identifier: MIT */
#include <immintrin.h>

/* 16 levels a register, in both lanes. */
typedef struct code_book {
    __m256i levels[4];
} code_book;

#include "kernel/attention_codes.h"

INLINE code_book make_code_book(const int8_t *levels, int offset) {
    code_book book;
    for (size_t i = 0; i < 4; i++)
        book.levels[i] = _mm256_add_epi8(
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(levels + 16 * i))),
            _mm256_set1_epi8((char)offset));
    return book;
}

/* Codes 0 .. 7 of each lane, which lie in its bytes from `first` on, as words. A code and its neighbours come in two
 * bytes; multiplying moves it to bit 8. */
INLINE __m256i spread_codes(__m256i bytes, int bits, int first) {
    int b = bits, f = first;
#define PAIR(j)  (char)(f + (j)*b / 8), (char)(f + (j)*b / 8 + 1)
#define MOVED(j) (short)(1 << (8 - (j)*b % 8))
    const __m256i pick = _mm256_setr_epi8(PAIR(0), PAIR(1), PAIR(2), PAIR(3), PAIR(4), PAIR(5), PAIR(6), PAIR(7),
                                          PAIR(0), PAIR(1), PAIR(2), PAIR(3), PAIR(4), PAIR(5), PAIR(6), PAIR(7));
    const __m256i factors =
        _mm256_setr_epi16(MOVED(0), MOVED(1), MOVED(2), MOVED(3), MOVED(4), MOVED(5), MOVED(6), MOVED(7), MOVED(0),
                          MOVED(1), MOVED(2), MOVED(3), MOVED(4), MOVED(5), MOVED(6), MOVED(7));
#undef PAIR
#undef MOVED
    return _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(bytes, pick), factors), 8);
}

INLINE __m256i load_32(const uint8_t *row, int bits, size_t i) {
    const uint8_t *p = row + i / 8 * (size_t)bits;
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (bits == 4) {
        __m256i words = _mm256_cvtepu8_epi16(low);
        return _mm256_and_si256(_mm256_or_si256(words, _mm256_slli_epi16(words, 4)), _mm256_set1_epi8(15));
    }
    __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * bits));
    __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    __m256i codes = _mm256_packus_epi16(spread_codes(bytes, bits, 0), spread_codes(bytes, bits, bits));
    return _mm256_and_si256(codes, _mm256_set1_epi8((char)((1 << bits) - 1)));
}

INLINE __m256i look_up(const code_book *book, int bits, __m256i codes) {
    __m256i x = _mm256_shuffle_epi8(book->levels[0], codes);
    if (bits <= 4) return x;
    __m256i bit_4 = _mm256_slli_epi16(codes, 3); /* to the top of its byte */
    x = _mm256_blendv_epi8(x, _mm256_shuffle_epi8(book->levels[1], codes), bit_4);
    if (bits == 5) return x;
    __m256i y = _mm256_blendv_epi8(_mm256_shuffle_epi8(book->levels[2], codes),
                                   _mm256_shuffle_epi8(book->levels[3], codes), bit_4);
    return _mm256_blendv_epi8(x, y, _mm256_slli_epi16(codes, 2));
}

INLINE __m256i keep_nibbles(__m256i x) {
    return _mm256_and_si256(x, _mm256_set1_epi8(15));
}

/* Sums of two products fit 16 bits: 2 * 255 * 64 and 2 * 127 * 128. */
INLINE void add_products(word_sums *sum, const __m256i u[2], const __m256i s[2]) {
    __m256i high = _mm256_madd_epi16(_mm256_maddubs_epi16(u[0], s[0]), _mm256_set1_epi16(1 << PART_BITS));
    __m256i low = _mm256_madd_epi16(_mm256_maddubs_epi16(u[1], s[1]), _mm256_set1_epi16(1));
    sum->low = _mm256_add_epi32(sum->low, _mm256_add_epi32(high, low));
}

INLINE __m256i products(const word_sums *sum) {
    return sum->low;
}
