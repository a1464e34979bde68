/* What attention_codes.h needs, with AVX-512 VBMI and VNNI. SPDX-License-Identifier: MIT */
#include <immintrin.h>

/* 64 levels. */
typedef struct code_book {
    __m256i low, high;
} code_book;

#include "kernel/attention_codes.h"

INLINE code_book make_code_book(const int8_t *levels, int offset) {
    __m256i added = _mm256_set1_epi8((char)offset);
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)levels);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(levels + 32));
    return (code_book){_mm256_add_epi8(low, added), _mm256_add_epi8(high, added)};
}

/* 8 codes of b bits are b bytes: one permutation brings them to a word of 64 bits, another instruction takes 8 bits
 * from any place of it. */
INLINE __m256i load_32(const uint8_t *row, int bits, size_t i) {
    char b = (char)bits;
#define EIGHT(k)                                                                                                       \
    (char)((k)*b), (char)((k)*b + 1), (char)((k)*b + 2), (char)((k)*b + 3), (char)((k)*b + 4), (char)((k)*b + 5),      \
        (char)((k)*b + 6), (char)((k)*b + 7)
    const __m256i pick = _mm256_setr_epi8(EIGHT(0), EIGHT(1), EIGHT(2), EIGHT(3));
#undef EIGHT
    const __m256i place = _mm256_set1_epi64x((long long)(0x0706050403020100ull * (unsigned)bits));
    __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)(row + i / 8 * (size_t)bits));
    return _mm256_multishift_epi64_epi8(place, _mm256_permutexvar_epi8(pick, bytes));
}

/* Permutations use no more bits of an index than they need; shorter tables are repeated. */
INLINE __m256i look_up(const code_book *book, int bits, __m256i codes) {
    if (bits <= 5) return _mm256_permutexvar_epi8(codes, book->low);
    return _mm256_permutex2var_epi8(book->low, codes, book->high);
}

INLINE __m256i keep_nibbles(__m256i x) {
    return x;
}

INLINE void add_products(word_sums *sum, const __m256i u[2], const __m256i s[2]) {
    sum->high = _mm256_dpbusd_epi32(sum->high, u[0], s[0]);
    sum->low = _mm256_dpbusd_epi32(sum->low, u[1], s[1]);
}

INLINE __m256i products(const word_sums *sum) {
    return _mm256_add_epi32(_mm256_slli_epi32(sum->high, PART_BITS), sum->low);
}
