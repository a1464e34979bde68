/* Integer arithmetic on rows of 4-bit codes, 64 codes at a time. SPDX-License-Identifier: MIT
 *
 * A byte is two codes, so no code has to be moved to a byte of its own: the lower nibbles are looked up as they lie,
 * the upper ones after one shift. A register holds CHUNK codes (16 bytes) of two rows, or of eight rows once bytes of
 * four of them are interleaved. Included by attention_codes.h; besides that the including file defines
 *   keep_nibbles(x)   with the upper nibble of each byte cleared, if look_up needs that
 */

enum {
    CHUNK = 32,                   /* codes of a row in one half of a register */
    ROWS_TOGETHER = 8,            /* of a step */
    PAIRS = ROWS_TOGETHER / 2,    /* of rows, one in each half of a register */
    STEPS = BLOCK / ROWS_TOGETHER /* of a block */
};

INLINE __m256i keep_nibbles(__m256i x);

INLINE __m256i lower_levels(const code_book *book, __m256i x) {
    return look_up(book, 4, keep_nibbles(x));
}

INLINE __m256i upper_levels(const code_book *book, __m256i x) {
    return look_up(book, 4, keep_nibbles(_mm256_srli_epi16(x, 4)));
}

INLINE __m256i load_halves(const uint8_t *low, const uint8_t *high) {
    __m128i a = _mm_loadu_si128((const __m128i *)(const void *)low);
    __m128i b = _mm_loadu_si128((const __m128i *)(const void *)high);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

/* Rows first .. first+7; those behind the last are the last. */
INLINE void point_to_rows(const qins_kv_rows *rows, size_t first, size_t n_rows, const uint8_t *row[ROWS_TOGETHER]) {
    const uint8_t *start = rows->data + first * rows->row_bytes;
    size_t here = n_rows - first < ROWS_TOGETHER ? n_rows - first : ROWS_TOGETHER;
    for (size_t r = 0; r < ROWS_TOGETHER; r++)
        row[r] = start + (r < here ? r : here - 1) * rows->row_bytes;
}

INLINE void fetch_after(const qins_kv_rows *rows, const uint8_t *first) {
    for (size_t i = 0; i < ROWS_TOGETHER * rows->row_bytes; i += LINE)
        fetch(first, rows->ahead + i);
}

/* ---- scores ---- */

/* One part of a query, a CHUNK a step: bytes at even places in both halves of a register, then those at odd places. */
INLINE void spread_part(const uint8_t *part, size_t dims, __m256i *out) {
    for (size_t d = 0; d < dims; d += CHUNK) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(part + d));
        __m256i even = _mm256_and_si256(x, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(x, 8);
        __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi16(even, odd), 0xd8);
        *out++ = _mm256_permute4x64_epi64(both, 0x44);
        *out++ = _mm256_permute4x64_epi64(both, 0xee);
    }
}

/* The sums of the words of each half of four registers, lower half first. */
INLINE __m256i add_halves_across(const __m256i t[PAIRS]) {
    __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(t[0], t[1]), _mm256_hadd_epi32(t[2], t[3]));
    return _mm256_permutevar8x32_epi32(sums, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* n queries, at most QUERIES; n is a constant after inlining. */
INLINE void score_nibbles_of(const qins_kv_rows *rows, size_t n_rows, size_t dims, const float *queries, size_t n,
                             float *scores, size_t ld) {
    __m256i parts[QUERIES][2][2 * MOST_DIMS / CHUNK];
    rounded of[QUERIES];
    for (size_t q = 0; q < n; q++) {
        uint8_t high[MOST_DIMS + BYTES], low[MOST_DIMS + BYTES];
        of[q] = round_parts(queries + q * dims, dims, LARGEST, high, low);
        of[q].factor *= rows->unit;
        memset(high + dims, 0, BYTES);
        memset(low + dims, 0, BYTES);
        spread_part(high, dims, parts[q][0]);
        spread_part(low, dims, parts[q][1]);
    }
    const code_book book = make_code_book(rows->levels, -128);
    for (size_t i = 0; i < n_rows; i += ROWS_TOGETHER) {
        const uint8_t *row[ROWS_TOGETHER];
        __m256i sums[QUERIES][PAIRS];
        point_to_rows(rows, i, n_rows, row);
        fetch_after(rows, row[0]);
#pragma GCC unroll 4
        for (size_t p = 0; p < PAIRS; p++) {
            word_sums sum[QUERIES] = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
            for (size_t q = 1; q < n; q++)
                sum[q] = (word_sums){_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (size_t d = 0, at = 0; d < dims; d += CHUNK, at += 2) {
                __m256i x = load_halves(row[2 * p] + d / 2, row[2 * p + 1] + d / 2);
                __m256i even = lower_levels(&book, x), odd = upper_levels(&book, x);
                for (size_t q = 0; q < n; q++) {
                    const __m256i *high = parts[q][0] + at, *low = parts[q][1] + at;
                    add_products(&sum[q], (const __m256i[]){even, even}, (const __m256i[]){high[0], low[0]});
                    add_products(&sum[q], (const __m256i[]){odd, odd}, (const __m256i[]){high[1], low[1]});
                }
            }
            for (size_t q = 0; q < n; q++)
                sums[q][p] = products(&sum[q]);
        }
        size_t here = n_rows - i < ROWS_TOGETHER ? n_rows - i : ROWS_TOGETHER;
        float scales[ROWS_TOGETHER] = {0};
        row_scales(rows->scales + i, here, scales);
        for (size_t q = 0; q < n; q++) {
            __m256i whole = _mm256_sub_epi32(add_halves_across(sums[q]), _mm256_set1_epi32(of[q].sum * 128));
            __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_loadu_ps(scales));
            float each[ROWS_TOGETHER];
            _mm256_storeu_ps(each, _mm256_mul_ps(product, _mm256_set1_ps(of[q].factor)));
            memcpy(scores + q * ld + i, each, here * sizeof *each);
        }
    }
}

/* ---- values ---- */

/* Levels of a CHUNK of columns of eight rows, those of one column and four rows side by side in a word. The lower half
 * of a register has the first four rows. out[m] has columns 8m, 8m+2, 8m+4, 8m+6, out[4+m] the odd ones. */
INLINE void interleave_nibbles(const code_book *book, const uint8_t *const row[ROWS_TOGETHER], size_t byte,
                               __m256i out[2 * ROWS_AT_ONCE]) {
    __m256i x[ROWS_AT_ONCE], y[ROWS_AT_ONCE];
    for (size_t r = 0; r < ROWS_AT_ONCE; r++)
        x[r] = load_halves(row[r] + byte, row[r + ROWS_AT_ONCE] + byte);
    interleave(x, y);
    for (size_t m = 0; m < ROWS_AT_ONCE; m++) {
        out[m] = lower_levels(book, y[m]);
        out[ROWS_AT_ONCE + m] = upper_levels(book, y[m]);
    }
}

/* Four bytes of weights for each half of a register. */
INLINE __m256i spread_weights(const uint8_t *weights, size_t step) {
    int64_t eight;
    memcpy(&eight, weights + ROWS_TOGETHER * step, sizeof eight);
    __m256i words = _mm256_castsi128_si256(_mm_cvtsi64_si128(eight));
    return _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

INLINE void add_step(const block_weights *w, size_t step, const __m256i levels[2 * ROWS_AT_ONCE],
                     word_sums sum[2 * ROWS_AT_ONCE]) {
    const __m256i weights[2] = {spread_weights(w->high, step), spread_weights(w->low, step)};
#pragma GCC unroll 8
    for (size_t m = 0; m < 2 * ROWS_AT_ONCE; m++)
        add_products(&sum[m], weights, (const __m256i[]){levels[m], levels[m]});
}

/* out[0 .. n_columns-1] += what was summed for a CHUNK of columns */
INLINE void add_sums(const block_weights *w, const word_sums sum[2 * ROWS_AT_ONCE], size_t n_columns, float *out) {
    for (size_t m = 0; m < ROWS_AT_ONCE && 8 * m < n_columns; m++) {
        __m256i even = products(&sum[m]), odd = products(&sum[ROWS_AT_ONCE + m]);
        __m256i first = _mm256_unpacklo_epi32(even, odd), last = _mm256_unpackhi_epi32(even, odd);
        __m256i lower = _mm256_permute2x128_si256(first, last, 0x20);
        __m256i upper = _mm256_permute2x128_si256(first, last, 0x31);
        add_words(out + 8 * m, _mm256_add_epi32(lower, upper), w->factor, 0.0f);
    }
}

INLINE void clear_sums(word_sums sum[2 * ROWS_AT_ONCE]) {
    for (size_t m = 0; m < 2 * ROWS_AT_ONCE; m++)
        sum[m] = (word_sums){_mm256_setzero_si256(), _mm256_setzero_si256()};
}

/* A block of rows and n queries. One query has its products added as levels are looked up; for more the levels wait in
 * memory, as their sums would not all fit in registers. */
INLINE void accumulate_nibbles(const qins_kv_rows *rows, size_t first, size_t n_rows, size_t dims,
                               const block_weights *of, size_t n, float *out) {
    const code_book book = make_code_book(rows->levels, 0);
    const uint8_t *row[STEPS][ROWS_TOGETHER];
    size_t n_steps = (n_rows + ROWS_TOGETHER - 1) / ROWS_TOGETHER;
    for (size_t step = 0; step < n_steps; step++)
        point_to_rows(rows, first + ROWS_TOGETHER * step, first + n_rows, row[step]);
    for (size_t d = 0; d < dims; d += CHUNK) {
        __m256i levels[STEPS][2 * ROWS_AT_ONCE];
        word_sums sum[2 * ROWS_AT_ONCE];
        clear_sums(sum);
        for (size_t step = 0; step < n_steps; step++) {
            if (d == 0) fetch_after(rows, row[step][0]);
            interleave_nibbles(&book, row[step], d / 2, levels[step]);
            if (n == 1) add_step(&of[0], step, levels[step], sum);
        }
        for (size_t q = 0; q < n; q++) {
            if (n > 1) {
                clear_sums(sum);
                for (size_t step = 0; step < n_steps; step++)
                    add_step(&of[q], step, levels[step], sum);
            }
            add_sums(&of[q], sum, dims - d, out + q * dims + d);
        }
    }
}
