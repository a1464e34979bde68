/* Integer arithmetic on coded rows, 32 codes at a time. SPDX-License-Identifier: MIT
 *
 * An entry of the table is a whole number from -127 to 127 times a unit, so sums of products can be computed in
 * integers: queries (and weights times scales of rows) are rounded to 14 bits of the largest one and split in two parts
 * of 7 bits, whose products with bytes cannot overflow where instructions add two of them in 16 bits. 14 bits are finer
 * than F16.
 *
 * The including file has included attention_vector.h, and defines
 *   code_book                   what look_up needs in registers
 *   make_code_book(levels, offset)  from qins_kv_rows.levels, with offset added to each in 8 bits
 *   load_32(row, bits, i)       codes i .. i+31 of a row, i a multiple of 32, one a byte; upper bits may be anything.
 *                               May read QINS_KV_OVERREAD bytes behind the row
 *   look_up(book, bits, codes)  their levels
 *   add_products(sum, u, s)     sum + products of unsigned u[0], u[1] and signed s[0], s[1], four bytes each into a
 *                               word: u[0] s[0] 128 + u[1] s[1], the two kept apart or not
 *   products(sum)               the words
 */
#include <immintrin.h>

enum {
    BYTES = 32,             /* a register */
    PART_BITS = 7,          /* of a part */
    LARGEST = 8191,         /* of a query: parts from -64 to 64 */
    LARGEST_WEIGHT = 16383, /* parts from 0 to 127 */
    BLOCK = 64,             /* rows whose weights share a factor */
    LINE = 64,              /* bytes of a cache line */
    TO_L2 = 2,              /* of __builtin_prefetch */
    ROWS_AT_ONCE = 4,       /* bytes of a word */
    BLOCK_STEPS = BLOCK / ROWS_AT_ONCE,
    MOST_DIMS = 1024
};

typedef struct word_sums {
    __m256i high, low;
} word_sums;

INLINE code_book make_code_book(const int8_t *levels, int offset);
INLINE __m256i load_32(const uint8_t *row, int bits, size_t i);
INLINE __m256i look_up(const code_book *book, int bits, __m256i codes);
INLINE void add_products(word_sums *sum, const __m256i u[2], const __m256i s[2]);
INLINE __m256i products(const word_sums *sum);

INLINE __m256i flip_signs(__m256i bytes) {
    return _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
}

/* With a book of levels with 128 added, unsigned. 8 bits: the code is its own level: value = (code - 128 + 1/2) unit.
 */
INLINE __m256i load_unsigned(const code_book *book, const uint8_t *row, int bits, size_t i) {
    if (bits == 8) return _mm256_loadu_si256((const __m256i *)(const void *)(row + i));
    return look_up(book, bits, load_32(row, bits, i));
}

INLINE __m256i load_signed(const code_book *book, const uint8_t *row, int bits, size_t i) {
    if (bits == 8) return flip_signs(_mm256_loadu_si256((const __m256i *)(const void *)(row + i)));
    return look_up(book, bits, load_32(row, bits, i));
}

INLINE const uint8_t *row_at(const qins_kv_rows *rows, size_t i, size_t n_rows) {
    return rows->data + (i < n_rows ? i : n_rows - 1) * rows->row_bytes;
}

/* Rows that come later are fetched meanwhile, to the second cache: to the first one, fetching waits for earlier misses
 * (630 ns instead of 480 for a page of 64 positions of a head of 96, Zen 4). None of `data` need be there. */
INLINE void fetch(const uint8_t *data, size_t offset) {
    __builtin_prefetch((const void *)((uintptr_t)data + offset), 0, TO_L2);
}

INLINE void fetch_ahead(const qins_kv_rows *rows, const uint8_t *row) {
    for (size_t i = 0; i < rows->row_bytes; i += LINE)
        fetch(row, rows->ahead + i);
}

/* Numbers rounded to integers times factor, in two parts. */
typedef struct rounded {
    float factor;
    int32_t sum;
} rounded;

/* n is a multiple of LANES. Where one of x is not a number, neither is the factor. */
INLINE rounded round_parts(const float *x, size_t n, float most, uint8_t *high, uint8_t *low) {
    vf largest = {0}, check = {0};
    for (size_t i = 0; i < n; i += LANES) {
        vf v = load_f(x + i), size = (vf)((vi)v & 0x7fffffff);
        largest = select_f(size > largest, size, largest);
        check += v * 0.0f;
    }
    float top = max_lanes(largest), inverse = top > 1e-30f && top < INFINITY ? most / top : 0.0f;
    vi sum = {0};
    for (size_t i = 0; i < n; i += LANES) {
        /* adding 1.5 * 2^23 rounds to nearest even */
        vi whole = ((vi)(load_f(x + i) * inverse + 12582912.0f) & 0x7fffff) - 0x400000;
        vi upper = (whole + (most > LARGEST ? 0 : 1 << (PART_BITS - 1))) >> PART_BITS;
        sum += whole;
        store_bytes(high + i, (vu)upper & 255u);
        store_bytes(low + i, (vu)(whole - (upper << PART_BITS)) & 255u);
    }
    /* exact: 1,024 numbers below 2^14 */
    int32_t total = (int32_t)sum_lanes(__builtin_convertvector(sum, vf));
    return (rounded){.factor = top / most + sum_lanes(check), .sum = total};
}

/* The sums of the words of each of four registers. */
INLINE __m128i add_across(const __m256i t[ROWS_AT_ONCE]) {
    __m256i a = _mm256_hadd_epi32(t[0], t[1]), b = _mm256_hadd_epi32(t[2], t[3]), c = _mm256_hadd_epi32(a, b);
    return _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
}

INLINE void row_scales(const uint16_t *scales, size_t n, float *out) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(scales + i))));
    for (; i < n; i++)
        out[i] = qins_half_to_float(scales[i]);
}

/* n queries, at most QUERIES; n and bits are constants after inlining. */
INLINE void score_codes_of(const qins_kv_rows *rows, int bits, size_t n_rows, size_t dims, const float *queries,
                           size_t n, float *scores, size_t ld) {
    _Alignas(64) uint8_t parts[QUERIES][2][MOST_DIMS + BYTES];
    rounded of[QUERIES];
    for (size_t q = 0; q < n; q++) {
        of[q] = round_parts(queries + q * dims, dims, LARGEST, parts[q][0], parts[q][1]);
        of[q].factor *= rows->unit;
        memset(parts[q][0] + dims, 0, BYTES);
        memset(parts[q][1] + dims, 0, BYTES);
    }
    const code_book book = make_code_book(rows->levels, -128);
    for (size_t i = 0; i < n_rows; i += ROWS_AT_ONCE) {
        __m256i sums[QUERIES][ROWS_AT_ONCE];
        for (size_t r = 0; r < ROWS_AT_ONCE; r++) {
            const uint8_t *row = row_at(rows, i + r, n_rows);
            fetch_ahead(rows, row);
            word_sums sum[QUERIES] = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
            for (size_t q = 1; q < n; q++)
                sum[q] = (word_sums){_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (size_t d = 0; d < dims; d += BYTES) {
                __m256i x = load_unsigned(&book, row, bits, d);
                for (size_t q = 0; q < n; q++)
                    add_products(
                        &sum[q], (const __m256i[]){x, x},
                        (const __m256i[]){_mm256_load_si256((const __m256i *)(const void *)(parts[q][0] + d)),
                                          _mm256_load_si256((const __m256i *)(const void *)(parts[q][1] + d))});
            }
            for (size_t q = 0; q < n; q++)
                sums[q][r] = products(&sum[q]);
        }
        size_t here = n_rows - i < ROWS_AT_ONCE ? n_rows - i : ROWS_AT_ONCE;
        float factors[ROWS_AT_ONCE] = {0};
        row_scales(rows->scales + i, here, factors);
        __m128 scales = _mm_loadu_ps(factors);
        for (size_t q = 0; q < n; q++) {
            __m128i whole = _mm_sub_epi32(add_across(sums[q]), _mm_set1_epi32(of[q].sum * 128));
            __m128 product = _mm_cvtepi32_ps(whole);
            if (bits == 8) product = _mm_add_ps(product, _mm_set1_ps(0.5f * (float)of[q].sum));
            product = _mm_mul_ps(_mm_mul_ps(product, scales), _mm_set1_ps(of[q].factor));
            if (here == ROWS_AT_ONCE) {
                _mm_storeu_ps(scores + q * ld + i, product);
                continue;
            }
            float each[ROWS_AT_ONCE];
            _mm_storeu_ps(each, product);
            memcpy(scores + q * ld + i, each, here * sizeof *each);
        }
    }
}

/* Levels of four rows, the four of one column side by side in a word. Register m has columns 4m .. 4m+3 of the lower
 * half of the columns in its lower lane, of the upper half in its upper one. */
INLINE void interleave(const __m256i x[ROWS_AT_ONCE], __m256i out[ROWS_AT_ONCE]) {
    __m256i low_ab = _mm256_unpacklo_epi8(x[0], x[1]), high_ab = _mm256_unpackhi_epi8(x[0], x[1]);
    __m256i low_cd = _mm256_unpacklo_epi8(x[2], x[3]), high_cd = _mm256_unpackhi_epi8(x[2], x[3]);
    out[0] = _mm256_unpacklo_epi16(low_ab, low_cd);
    out[1] = _mm256_unpackhi_epi16(low_ab, low_cd);
    out[2] = _mm256_unpacklo_epi16(high_ab, high_cd);
    out[3] = _mm256_unpackhi_epi16(high_ab, high_cd);
}

/* out[0..7] += factor * (words + half) */
INLINE void add_words(float *out, __m256i words, float factor, float half) {
    __m256 sum = _mm256_add_ps(_mm256_cvtepi32_ps(words), _mm256_set1_ps(half));
    _mm256_storeu_ps(out, _mm256_fmadd_ps(sum, _mm256_set1_ps(factor), _mm256_loadu_ps(out)));
}

/* Weights of one query for the rows of a block. */
typedef struct block_weights {
    _Alignas(64) uint8_t high[BLOCK], low[BLOCK];
    float factor, half;
} block_weights;

INLINE void add_block(const block_weights *w, const __m256i levels[BLOCK_STEPS][ROWS_AT_ONCE], size_t n_steps,
                      size_t n_columns, float *out) {
    word_sums sum[ROWS_AT_ONCE];
    __m256i words[ROWS_AT_ONCE];
    for (size_t m = 0; m < ROWS_AT_ONCE; m++)
        sum[m] = (word_sums){_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t step = 0; step < n_steps; step++) {
        int32_t high, low;
        memcpy(&high, w->high + ROWS_AT_ONCE * step, sizeof high);
        memcpy(&low, w->low + ROWS_AT_ONCE * step, sizeof low);
        const __m256i weights[2] = {_mm256_set1_epi32(high), _mm256_set1_epi32(low)};
        for (size_t m = 0; m < ROWS_AT_ONCE; m++)
            add_products(&sum[m], weights, (const __m256i[]){levels[step][m], levels[step][m]});
    }
    for (size_t m = 0; m < ROWS_AT_ONCE; m++)
        words[m] = products(&sum[m]);
    add_words(out, _mm256_permute2x128_si256(words[0], words[1], 0x20), w->factor, w->half);
    add_words(out + 8, _mm256_permute2x128_si256(words[2], words[3], 0x20), w->factor, w->half);
    if (n_columns == BYTES / 2) return;
    add_words(out + 16, _mm256_permute2x128_si256(words[0], words[1], 0x31), w->factor, w->half);
    add_words(out + 24, _mm256_permute2x128_si256(words[2], words[3], 0x31), w->factor, w->half);
}

INLINE block_weights weights_of_block(const qins_kv_rows *rows, int bits, size_t n_rows, const float *weights,
                                      const float *scales) {
    block_weights w;
    float scaled[BLOCK] = {0};
    for (size_t i = 0; i < n_rows; i++)
        scaled[i] = weights[i] * scales[i];
    rounded r = round_parts(scaled, BLOCK, LARGEST_WEIGHT, w.high, w.low);
    w.factor = r.factor * rows->unit;
    w.half = bits == 8 ? 0.5f * (float)r.sum : 0.0f;
    return w;
}

/* Rows first .. first + n_rows - 1, a block at most. */
INLINE void accumulate_block(const qins_kv_rows *rows, int bits, size_t first, size_t n_rows, size_t dims,
                             const block_weights *of, size_t n, float *out) {
    const code_book book = make_code_book(rows->levels, 0);
    size_t n_steps = (n_rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    for (size_t d = 0; d < dims; d += BYTES) {
        __m256i levels[BLOCK_STEPS][ROWS_AT_ONCE];
        for (size_t step = 0; step < n_steps; step++) {
            const uint8_t *row[ROWS_AT_ONCE];
            for (size_t r = 0; r < ROWS_AT_ONCE; r++)
                row[r] = row_at(rows, first + ROWS_AT_ONCE * step + r, first + n_rows);
            for (size_t r = 0; r < ROWS_AT_ONCE && d == 0; r++)
                fetch_ahead(rows, row[r]);
            const __m256i x[ROWS_AT_ONCE] = {load_signed(&book, row[0], bits, d), load_signed(&book, row[1], bits, d),
                                             load_signed(&book, row[2], bits, d), load_signed(&book, row[3], bits, d)};
            interleave(x, levels[step]);
        }
        for (size_t q = 0; q < n; q++)
            add_block(&of[q], levels, n_steps, dims - d < BYTES ? BYTES / 2 : BYTES, out + q * dims + d);
    }
}

#include "kernel/attention_nibbles.h"

/* ---- all widths ---- */

INLINE void score_some(const qins_kv_rows *rows, int bits, size_t n_rows, size_t dims, const float *queries, size_t n,
                       float *scores, size_t ld) {
    if (bits == 4)
        score_nibbles_of(rows, n_rows, dims, queries, n, scores, ld);
    else
        score_codes_of(rows, bits, n_rows, dims, queries, n, scores, ld);
}

INLINE void score_codes(const qins_kv_rows *rows, int bits, size_t n_rows, size_t dims, const float *queries,
                        size_t n_queries, float *scores, size_t ld) {
    for (size_t q = 0; q < n_queries; q += QUERIES) {
        const float *from = queries + q * dims;
        float *to = scores + q * ld;
        switch (n_queries - q) {
        case 1:
            score_some(rows, bits, n_rows, dims, from, 1, to, ld);
            break;
        case 2:
            score_some(rows, bits, n_rows, dims, from, 2, to, ld);
            break;
        case 3:
            score_some(rows, bits, n_rows, dims, from, 3, to, ld);
            break;
        default:
            score_some(rows, bits, n_rows, dims, from, QUERIES, to, ld);
        }
    }
}

INLINE void accumulate_codes(const qins_kv_rows *rows, int bits, size_t n_rows, size_t dims, const float *weights,
                             size_t ld, size_t n_queries, float *out) {
    for (size_t first = 0; first < n_rows; first += BLOCK) {
        size_t here = n_rows - first < BLOCK ? n_rows - first : BLOCK;
        float scales[BLOCK];
        row_scales(rows->scales + first, here, scales);
        for (size_t q = 0; q < n_queries; q += QUERIES) {
            size_t n = n_queries - q < QUERIES ? n_queries - q : QUERIES;
            block_weights of[QUERIES];
            for (size_t i = 0; i < n; i++)
                of[i] = weights_of_block(rows, bits, here, weights + (q + i) * ld + first, scales);
            if (bits != 4)
                accumulate_block(rows, bits, first, here, dims, of, n, out + q * dims);
            else if (n == 1)
                accumulate_nibbles(rows, first, here, dims, of, 1, out + q * dims);
            else
                accumulate_nibbles(rows, first, here, dims, of, n, out + q * dims);
        }
    }
}
