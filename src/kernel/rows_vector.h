/* Matrices stored row by row, in the vector extensions of gcc and clang: the part of vector.h that reads rows as files
 * hold them. SPDX-License-Identifier: MIT
 */
static inline __attribute__((always_inline)) vf load_number(const uint8_t *p, qins_number number) {
    if (number == QINS_NUMBER_F16) return load_f16(p);
    return number == QINS_NUMBER_BF16 ? load_bf16(p) : (vf)load_u(p);
}

static inline __attribute__((always_inline)) float dot_row(const uint8_t *w, qins_number number, const float *x,
                                                           size_t n) {
    enum { SUMS = 4, AHEAD = 8192 }; /* bytes to prefetch ahead: see PREFETCH_BYTES of integer_vector.h */
    const size_t bytes = number == QINS_NUMBER_F32 ? 4 : 2;
    vf sum[SUMS] = {{0}};
    size_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES) {
        for (size_t line = 0; line < SUMS * LANES * bytes; line += 64)
            __builtin_prefetch(w + i * bytes + AHEAD + line, 0, 2);
        for (size_t j = 0; j < SUMS; j++)
            sum[j] += load_number(w + (i + j * LANES) * bytes, number) * load_f(x + i + j * LANES);
    }
    for (; i + LANES <= n; i += LANES)
        sum[0] += load_number(w + i * bytes, number) * load_f(x + i);
    if (i < n) {
        uint8_t rest[4 * LANES] = {0};
        float factors[LANES] = {0};
        memcpy(rest, w + i * bytes, (n - i) * bytes);
        memcpy(factors, x + i, (n - i) * sizeof *x);
        sum[1] += load_number(rest, number) * load_f(factors);
    }
    return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

static float dot_f32(const void *w, const float *x, size_t n) {
    return dot_row(w, QINS_NUMBER_F32, x, n);
}
static float dot_f16(const void *w, const float *x, size_t n) {
    return dot_row(w, QINS_NUMBER_F16, x, n);
}
static float dot_bf16(const void *w, const float *x, size_t n) {
    return dot_row(w, QINS_NUMBER_BF16, x, n);
}

/* ---- panels ---- */

static inline __attribute__((always_inline)) size_t bytes_of(qins_number number) {
    return number == QINS_NUMBER_F32 ? 4 : 2;
}

/* n numbers, the other lanes zero. */
static inline vf load_some_numbers(const uint8_t *p, qins_number number, size_t n) {
    uint8_t some[4 * LANES] = {0};
    memcpy(some, p, n * bytes_of(number));
    return load_number(some, number);
}

/* LANES columns of LANES rows; n_rows and n_cols of them are there. */
static inline __attribute__((always_inline)) void turn_block(const uint8_t *rows, size_t stride, qins_number number,
                                                             size_t n_rows, size_t n_cols, float *out) {
    vf v[LANES];
    for (size_t r = 0; r < LANES; r++)
        v[r] = r >= n_rows       ? (vf){0}
               : n_cols == LANES ? load_number(rows + r * stride, number)
                                 : load_some_numbers(rows + r * stride, number, n_cols);
    transpose(v);
    for (size_t k = 0; k < n_cols; k++)
        store_f(out + k * QINS_PANEL_ROWS, v[k]);
}

static inline __attribute__((always_inline)) void turn_rows(const uint8_t *rows, size_t stride, qins_number number,
                                                            size_t n_rows, size_t n, float *out) {
    for (size_t part = 0; part < PARTS; part++, out += LANES, rows += LANES * stride) {
        size_t here = n_rows > part * LANES ? qins_min_size(LANES, n_rows - part * LANES) : 0, k = 0;
        for (; here == LANES && k + LANES <= n; k += LANES)
            turn_block(rows + k * bytes_of(number), stride, number, LANES, LANES, out + k * QINS_PANEL_ROWS);
        for (; k < n; k += LANES)
            turn_block(rows + k * bytes_of(number), stride, number, here, qins_min_size(LANES, n - k),
                       out + k * QINS_PANEL_ROWS);
    }
}

static void panel_f32(const void *rows, size_t stride, size_t n_rows, size_t n, float *out) {
    turn_rows(rows, stride, QINS_NUMBER_F32, n_rows, n, out);
}
static void panel_f16(const void *rows, size_t stride, size_t n_rows, size_t n, float *out) {
    turn_rows(rows, stride, QINS_NUMBER_F16, n_rows, n, out);
}
static void panel_bf16(const void *rows, size_t stride, size_t n_rows, size_t n, float *out) {
    turn_rows(rows, stride, QINS_NUMBER_BF16, n_rows, n, out);
}

static void scale_panel(const float *scales, size_t n_cols, float *panel) {
    vf s[PARTS];
    for (size_t p = 0; p < PARTS; p++)
        s[p] = load_f(scales + p * LANES);
    for (size_t k = 0; k < n_cols; k++, panel += QINS_PANEL_ROWS)
        for (size_t p = 0; p < PARTS; p++)
            store_f(panel + p * LANES, load_f(panel + p * LANES) * s[p]);
}

/* ---- the original storages ---- */

/* The magnitudes lie in out: by the signs. */
static void signed_entries(const uint8_t *codes, const int8_t *signs, const float *table, size_t n, float *out) {
    look_up_bytes(codes, table, n, out);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store_f(out + i, load_f(out + i) * load_i8(signs + i));
    for (; i < n; i++)
        out[i] *= (float)signs[i];
}

static void rational(const float *z, float alpha, size_t n, float *out) {
    const vu none = {0};
    for (size_t i = 0; i < n; i += LANES) {
        size_t here = qins_min_size(LANES, n - i);
        float some[LANES];
        vf v = here == LANES ? load_f(z + i) : load_some_numbers((const uint8_t *)(z + i), QINS_NUMBER_F32, here);
        vu sign = (vu)v & (none + 0x80000000u);
        vf a = (vf)((vu)v & (none + 0x7fffffffu));
        vf w = (vf)(((vu)((1.0f - a) / (alpha * a)) & (none + 0x7fffffffu)) | sign);
        store_f(here == LANES ? out + i : some, w);
        if (here < LANES) memcpy(out + i, some, here * sizeof *out);
    }
}
