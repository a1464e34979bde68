/* Codes of the trellis codec, 16 columns at a time; compiled once per instruction set. SPDX-License-Identifier: MIT
 *
 * Plain loops over lanes for the compiler to vectorise. The including file has qins_codec_simd.nearest as `nearest_of`,
 * which finds the entry of the sorted table nearest to each of n values.
 *
 * A ring of 16 rows is closed: Viterbi's algorithm runs once from each of the four states, to the same state, and the
 * cheapest of the four paths is taken, which is the least squared error there is.
 */
enum { TRELLIS_LANES = 16, STATES = 4, SUBSETS = 4, TABLE_PAD = 4 };

typedef struct trellis_work {
    float cost[QINS_PANEL_ROWS][SUBSETS][TRELLIS_LANES];    /* of the nearest position of a subset, by step */
    int32_t place[QINS_PANEL_ROWS][SUBSETS][TRELLIS_LANES]; /* that position */
    int32_t came[QINS_PANEL_ROWS][TRELLIS_LANES]; /* bit 4*start + state: the state before had its second bit set */
} trellis_work;

/* Nearest positions of each subset, and what they cost. */
static void trellis_costs(const float *table, size_t step, const float *u, const float *weight,
                          const uint16_t *nearest_position, trellis_work *w) {
    for (int subset = 0; subset < SUBSETS; subset++)
        for (size_t l = 0; l < TRELLIS_LANES; l++) {
            int32_t i = nearest_position[l], below = i - ((i - subset) & 3);
            float a = u[l] - table[below], b = u[l] - table[below + 4], square_a = a * a, square_b = b * b;
            w->place[step][subset][l] = square_b < square_a ? below + 4 : below;
            w->cost[step][subset][l] = weight[l] * (square_b < square_a ? square_b : square_a);
        }
}

/* From `start` around to it again. A state is the lowest bit of the row before, and of the one before that times 2. */
static void trellis_walk(int start, trellis_work *w, float *total) {
    float cost[STATES][TRELLIS_LANES], after[STATES][TRELLIS_LANES];
    for (int s = 0; s < STATES; s++)
        for (size_t l = 0; l < TRELLIS_LANES; l++)
            cost[s][l] = s == start ? 0 : INFINITY;
    for (size_t t = 0; t < QINS_PANEL_ROWS; t++) {
        for (int s = 0; s < STATES; s++) {
            int bit = s & 1, before = s >> 1, shift = STATES * start + s;
            for (size_t l = 0; l < TRELLIS_LANES; l++) {
                float a = cost[before][l] + w->cost[t][2 * bit + before][l];
                float b = cost[before + 2][l] + w->cost[t][2 * (bit ^ 1) + before][l];
                w->came[t][l] |= (int32_t)(b < a) << shift;
                after[s][l] = b < a ? b : a;
            }
        }
        memcpy(cost, after, sizeof cost);
    }
    memcpy(total, cost[start], sizeof cost[start]);
}

static void trellis_trace(const qins_codebook *book, const trellis_work *w, const int32_t *start, size_t ld, size_t n,
                          uint16_t *codes) {
    int32_t state[TRELLIS_LANES], code[TRELLIS_LANES];
    int bits = book->bits - 1;
    memcpy(state, start, sizeof state);
    for (size_t t = QINS_PANEL_ROWS; t-- > 0;) {
        size_t row = qins_ring_row(t);
        for (size_t l = 0; l < TRELLIS_LANES; l++) {
            int32_t s = state[l], second = w->came[t][l] >> (STATES * start[l] + s) & 1;
            int32_t even = (s ^ second) & 1 ? w->place[t][2][l] : w->place[t][0][l];
            int32_t odd = (s ^ second) & 1 ? w->place[t][3][l] : w->place[t][1][l];
            code[l] = (int32_t)qins_trellis_label((unsigned)(s >> 1 ? odd : even), bits, !book->sorted) ^ second;
            state[l] = s >> 1 | second << 1;
        }
        for (size_t l = 0; l < n; l++)
            codes[row * ld + l] = (uint16_t)code[l];
    }
}

/* Positions nearest to x in an ascending table. */
static void nearest_positions(const qins_codebook *book, const float *table, const float *x, uint16_t *position) {
    if (book->sorted) {
        nearest_of(book, x, TRELLIS_LANES, 1.0f, position);
        return;
    }
    float last = (float)(book->n_levels - 1);
    for (size_t l = 0; l < TRELLIS_LANES; l++) {
        float at = (x[l] - table[0]) / book->step + 0.5f;
        at = at > 0 ? at : 0;
        position[l] = (uint16_t)(int32_t)(at < last ? at : last);
    }
}

/* n <= TRELLIS_LANES columns. */
static void trellis_group(const qins_codebook *book, const float *padded, const float *u, const float *weight,
                          size_t ld, size_t n, uint16_t *codes) {
    trellis_work w;
    memset(w.came, 0, sizeof w.came);
    for (size_t t = 0; t < QINS_PANEL_ROWS; t++) {
        float x[TRELLIS_LANES] = {0}, weights[TRELLIS_LANES] = {0};
        uint16_t position[TRELLIS_LANES];
        size_t row = qins_ring_row(t);
        float limit = 64 * padded[TABLE_PAD + book->n_levels - 1]; /* far from the padding of the table */
        for (size_t l = 0; l < n; l++) {
            float v = u[row * ld + l];
            v = v > -limit ? v : -limit;
            x[l] = v < limit ? v : limit;
            weights[l] = weight[row * ld + l];
        }
        nearest_positions(book, padded + TABLE_PAD, x, position);
        trellis_costs(padded + TABLE_PAD, t, x, weights, position, &w);
    }
    float best[TRELLIS_LANES], total[TRELLIS_LANES];
    int32_t start[TRELLIS_LANES] = {0};
    for (int s = 0; s < STATES; s++) {
        trellis_walk(s, &w, total);
        for (size_t l = 0; l < TRELLIS_LANES; l++) {
            bool better = s == 0 || total[l] < best[l];
            best[l] = better ? total[l] : best[l];
            start[l] = better ? s : start[l];
        }
    }
    trellis_trace(book, &w, start, ld, n, codes);
}

static void trellis(const qins_codebook *book, const float *u, const float *weight, size_t ld, size_t n,
                    uint16_t *codes) {
    static const float far = 1e15f;
    float padded[QINS_MAX_TRELLIS_LEVELS + 2 * TABLE_PAD];
    for (size_t i = 0; i < TABLE_PAD; i++)
        padded[i] = padded[TABLE_PAD + book->n_levels + i] = far;
    if (book->sorted) {
        memcpy(padded + TABLE_PAD, book->table, book->n_levels * sizeof *padded);
    } else {
        float lowest = book->table[2 * qins_trellis_label(0, book->bits - 1, true)];
        for (size_t i = 0; i < book->n_levels; i++)
            padded[TABLE_PAD + i] = lowest + (float)i * book->step;
    }
    for (size_t l = 0; l < n; l += TRELLIS_LANES)
        trellis_group(book, padded, u + l, weight + l, ld, qins_min_size(TRELLIS_LANES, n - l), codes + l);
}
