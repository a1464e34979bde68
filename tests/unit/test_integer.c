/* Integer kernels against exact arithmetic on unpacked codes. SPDX-License-Identifier: MIT
 *
 * Needs nothing but src/kernel and src/codec/pack.c, so that a cross compiler can build it. With --bench: speed of
 * every level from the first-level cache. */
#include "kernel/kernel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_LEVELS = 16, MAX_COLS = 5 * QINS_SPAN_COLS, MAX_TOKENS = 21, PANELS = 2 };

static uint64_t random_state = 1;
static int failures;

static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

/* One matrix of PANELS panels and some vectors. */
typedef struct trial {
    int bits;
    bool curved;             /* the table is made of segments */
    size_t n_cols, n_tokens; /* n_cols as given, before padding */
    float entries[QINS_INTEGER_LEVELS];
    qins_integer_table table;
    uint8_t tiles[PANELS * (MAX_COLS / QINS_TILE_COLS) * QINS_TILE_CODES + 1];
    size_t panel_bytes, misalign;
    float x[MAX_TOKENS * MAX_COLS];
    qins_quantised quantised;
    _Alignas(64) uint8_t memory[MAX_TOKENS * MAX_COLS * 8 + 4096];
    double expected[MAX_TOKENS][PANELS * QINS_PANEL_ROWS], magnitude[MAX_TOKENS][PANELS * QINS_PANEL_ROWS];
} trial;

typedef enum fill { FILL_RANDOM, FILL_EXTREME, FILL_ALTERNATING, FILL_ONE_LARGE, FILLS } fill;

static float value_of(fill f, size_t i) {
    switch (f) {
    case FILL_EXTREME:
        return 1.0f;
    case FILL_ALTERNATING:
        return i % 2 == 0 ? 3.0f : -3.0f;
    case FILL_ONE_LARGE:
        return i % 97 == 5 ? -1000.0f : (float)random_u32() * 0x1p-32f;
    default:
        return (float)random_u32() * 0x1p-31f - 1.0f;
    }
}

static int random_in(int low, int high) {
    return low + (int)(random_u32() % (unsigned)(high - low + 1));
}

/* Segments with any slope, and bends and bases that keep entries within the limit; the last entry is the limit. */
static void make_curved(trial *t) {
    int length = 1 << (t->bits - 4), last = length - 1;
    for (int segment = 0; segment < QINS_SEGMENTS; segment++) {
        bool outermost = segment == QINS_SEGMENTS - 1;
        int slope = random_in(outermost ? 0 : -128, 127), bend = random_in(outermost ? 0 : -18, 18);
        int rise = slope * last + bend * qins_curve(t->bits, last);
        int room = QINS_INT16_ENTRY - abs(slope * last) - abs(bend * qins_curve(t->bits, last));
        int base = outermost ? QINS_INT16_ENTRY - rise : random_in(-room, room);
        for (int l = 0; l < length; l++)
            t->entries[segment * length + (segment < QINS_SEGMENTS / 2 ? last - l : l)] =
                (float)(base + slope * l + bend * qins_curve(t->bits, l));
    }
}

static void make_matrix(trial *t, qins_integer_kind kind, fill f) {
    static uint16_t codes[QINS_PANEL_ROWS * MAX_COLS];
    int limit = kind == QINS_INTEGER_16 ? QINS_INT16_ENTRY : QINS_INT8_ENTRY;
    unsigned codes_of_width = 1u << t->bits, levels = codes_of_width * (kind == QINS_INTEGER_TRELLIS ? 2 : 1);
    for (unsigned i = 0; i < levels; i++)
        t->entries[i] = (float)((int)(random_u32() % (unsigned)(2 * limit + 1)) - limit);
    t->entries[0] = (float)-limit;
    t->entries[levels - 1] = (float)limit;
    for (unsigned i = 0; kind == QINS_INTEGER_TRELLIS && t->bits == 7 && i < levels; i++)
        t->entries[i] = (float)((int)i - QINS_ENTRY_BIAS); /* the only table there is */
    if (t->curved) make_curved(t);
    if (kind == QINS_INTEGER_TRELLIS)
        qins_integer_table_make_trellis(&t->table, t->entries, t->bits);
    else
        qins_integer_table_make(&t->table, t->entries, t->bits);
    if (t->table.kind != kind || t->table.curved != t->curved) {
        printf("%d bits: a table was taken for another kind\n", t->bits);
        failures++;
    }
    t->panel_bytes = qins_n_tiles(t->n_cols) * qins_tile_bytes(t->bits);
    for (size_t p = 0; p < PANELS; p++) {
        for (size_t i = 0; i < QINS_PANEL_ROWS * t->n_cols; i++)
            codes[i] =
                (uint16_t)(f == FILL_EXTREME ? (p == 0 ? 0 : codes_of_width - 1) : random_u32() % codes_of_width);
        qins_pack_panel(codes, t->n_cols, QINS_PANEL_ROWS, t->n_cols, t->bits,
                        t->tiles + t->misalign + p * t->panel_bytes);
    }
}

/* Place in the table of a code; of the trellis as src/codec/trellis.c has it: the levels of steps t, and the lowest
 * bits of steps t - 1 and t - 2, rows in the order 0, 8, 1, 9, .. */
static unsigned place_of(const trial *t, const uint8_t *tile, size_t row, size_t col) {
    unsigned code = qins_unpack_code(tile, t->bits, row, col), bits[2];
    if (t->table.kind != QINS_INTEGER_TRELLIS) return code;
    size_t step = row % 8 * 2 + row / 8;
    for (size_t back = 1; back <= 2; back++) {
        size_t earlier = (step + 16 - back) % 16;
        bits[back - 1] = qins_unpack_code(tile, t->bits, earlier / 2 + earlier % 2 * 8, col) & 1u;
    }
    return 2 * (code ^ bits[1]) + bits[0];
}

static void make_expected(trial *t) {
    const qins_quantised *q = &t->quantised;
    memset(t->expected, 0, sizeof t->expected);
    memset(t->magnitude, 0, sizeof t->magnitude);
    for (size_t row = 0; row < PANELS * QINS_PANEL_ROWS; row++)
        for (size_t tile = 0; tile < q->n_cols / QINS_TILE_COLS; tile++) {
            const uint8_t *p =
                t->tiles + t->misalign + row / QINS_PANEL_ROWS * t->panel_bytes + tile * qins_tile_bytes(t->bits);
            int entries[QINS_TILE_COLS];
            for (size_t k = 0; k < QINS_TILE_COLS; k++)
                entries[k] = (int)t->entries[place_of(t, p, row % QINS_PANEL_ROWS, k)];
            for (size_t n = 0; n < t->n_tokens; n++) {
                double sum = 0, unit = (double)q->units[n * q->n_spans + tile * QINS_TILE_COLS / QINS_SPAN_COLS];
                for (size_t k = 0; k < QINS_TILE_COLS; k++)
                    sum += entries[k] * q->words[n * q->n_cols + tile * QINS_TILE_COLS + k];
                t->expected[n][row] += unit * sum;
                t->magnitude[n][row] += fabs(unit * sum);
            }
        }
}

static void compare(const trial *t, const char *level, const char *what, size_t n, size_t row, float got) {
    /* Integer sums are exact; a few roundings to FP32 remain. */
    if (fabs((double)got - t->expected[n][row]) <= 1e-6 * t->magnitude[n][row] + 1e-30) return;
    if (failures++ < 20)
        printf("%s, %s: %d bits, kind %d, %zu columns, token %zu of %zu, row %zu: %g, expected %g\n", level, what,
               t->bits, (int)t->table.kind, t->n_cols, n, t->n_tokens, row, (double)got, t->expected[n][row]);
}

static void check_level(const trial *t, const qins_cpu *cpu) {
    enum { LD = PANELS * QINS_PANEL_ROWS + 3 };
    static _Alignas(64) uint8_t decoded[PANELS * QINS_DECODED_PANEL];
    static float acc[MAX_TOKENS * LD];
    const qins_integer_kernels *k = cpu->integer;
    const uint8_t *tiles = t->tiles + t->misalign;
    for (size_t n = 0; n < t->n_tokens; n++)
        for (size_t p = 0; p < PANELS; p++) {
            float out[QINS_PANEL_ROWS];
            k->dot[t->bits][t->table.kind](tiles + p * t->panel_bytes, &t->table, &t->quantised, n, out);
            for (size_t r = 0; r < QINS_PANEL_ROWS; r++)
                compare(t, cpu->name, "dot", n, p * QINS_PANEL_ROWS + r, out[r]);
        }
    for (size_t n_panels = 1; n_panels <= PANELS; n_panels++)
        for (size_t first = 0; first < 2 && first < t->n_tokens; first++) {
            size_t n_cols = t->quantised.n_cols;
            memset(acc, 0, sizeof acc);
            for (size_t col = 0; col < n_cols; col += QINS_SPAN_COLS) {
                size_t n = qins_min_size(QINS_SPAN_COLS, n_cols - col);
                for (size_t p = 0; p < n_panels; p++)
                    k->decode[t->bits][t->table.kind](tiles + p * t->panel_bytes +
                                                          col / QINS_TILE_COLS * qins_tile_bytes(t->bits),
                                                      &t->table, n, decoded + p * QINS_DECODED_PANEL);
                k->multiply[t->table.kind](decoded, n_panels, n, &t->quantised, col, first, t->n_tokens - first, acc,
                                           LD);
            }
            for (size_t n = first; n < t->n_tokens; n++)
                for (size_t r = 0; r < n_panels * QINS_PANEL_ROWS; r++)
                    compare(t, cpu->name, "multiply", n, r, acc[(n - first) * LD + r]);
        }
}

/* The quantised integers must be within the limits that the kernels rely on, and as near to x as 16 bits allow: half a
 * unit, and what the FP32 product with the inverse rounds. */
static void check_inputs(const trial *t) {
    const qins_quantised *q = &t->quantised;
    for (size_t n = 0; n < t->n_tokens; n++)
        for (size_t k = 0; k < q->n_cols; k++) {
            int word = q->words[n * q->n_cols + k], sum = 0;
            const int8_t *high =
                q->halves + 2 * n * q->n_cols + k / QINS_TILE_COLS * 2 * QINS_TILE_COLS + k % QINS_TILE_COLS;
            for (size_t j = k / QINS_TILE_COLS * QINS_TILE_COLS, end = j + QINS_TILE_COLS; j < end; j++)
                sum += abs(q->words[n * q->n_cols + j]);
            double unit = (double)q->units[n * q->n_spans + k / QINS_SPAN_COLS];
            double x = k < t->n_cols ? (double)t->x[n * t->n_cols + k] : 0;
            bool good = word == 256 * high[0] + high[QINS_TILE_COLS] && abs(word) <= QINS_INPUT_MAX &&
                        sum <= QINS_INPUT_TILE_SUM && fabs(unit * word - x) <= 0.505 * unit;
            if (!good && failures++ < 20) printf("input %g became %d units of %g, tile sum %d\n", x, word, unit, sum);
        }
}

static void run_trial(trial *t, qins_integer_kind kind, fill matrix, fill inputs) {
    const qins_cpu *cpus[MAX_LEVELS];
    size_t n_cpus = qins_all_cpus(cpus, MAX_LEVELS);
    make_matrix(t, kind, matrix);
    qins_quantised_place(&t->quantised, t->n_tokens, t->n_cols, t->memory);
    for (size_t i = 0; i < t->n_tokens * t->n_cols; i++)
        t->x[i] = value_of(inputs, i);
    for (size_t n = 0; n < t->n_tokens; n++)
        qins_quantise(&t->quantised, n, t->x + n * t->n_cols, t->n_cols);
    check_inputs(t);
    make_expected(t);
    for (size_t i = 0; i < n_cpus; i++)
        if (cpus[i]->integer != NULL) check_level(t, cpus[i]);
}

static int test(void) {
    static trial t;
    int n = 0;
    for (int bits = QINS_TRELLIS_MIN_BITS; bits <= QINS_INTEGER_MAX_BITS; bits++)
        for (int kind = bits < QINS_MIN_BITS ? QINS_INTEGER_TRELLIS : QINS_INTEGER_8;
             kind < (bits <= QINS_UNIFORM_TRELLIS_MAX_BITS ? QINS_INTEGER_KINDS : QINS_INTEGER_TRELLIS); kind++)
            for (int i = 0; i < 16; i++, n++) {
                t.bits = bits;
                t.misalign = (size_t)i % 2;
                t.n_cols = i == 0 ? MAX_COLS : 1 + random_u32() % MAX_COLS;
                t.n_tokens = i == 1 ? MAX_TOKENS : 1 + random_u32() % 6;
                t.curved = kind == QINS_INTEGER_16 && bits >= 7 && i % 4 > 1;
                fill matrix = i < 4 ? FILL_EXTREME : FILL_RANDOM;
                run_trial(&t, (qins_integer_kind)kind, matrix, (fill)(i % FILLS));
            }
    const qins_cpu *cpus[MAX_LEVELS];
    size_t n_cpus = qins_all_cpus(cpus, MAX_LEVELS);
    printf("%d matrices, levels:", n);
    for (size_t i = 0; i < n_cpus; i++)
        if (cpus[i]->integer != NULL) printf(" %s", cpus[i]->name);
    printf("; %d failures\n", failures);
    return failures > 0;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Cycles of the time stamp counter where there is one, else nanoseconds. */
static double ticks(void) {
#if defined(__x86_64__)
    return (double)__builtin_ia32_rdtsc();
#else
    return seconds() * 1e9;
#endif
}

/* The fastest of many short runs: one that nothing interrupted, also on a busy machine. */
typedef struct timing {
    double ticks, seconds; /* of one run */
} timing;

#define FASTEST(result, work)                                                                                          \
    timing result = {INFINITY, INFINITY};                                                                              \
    for (int run = 0; run < RUNS; run++) {                                                                             \
        double start = ticks(), begin = seconds();                                                                     \
        for (int i = 0; i < repeat; i++) {                                                                             \
            work;                                                                                                      \
        }                                                                                                              \
        result.ticks = fmin(result.ticks, ticks() - start);                                                            \
        result.seconds = fmin(result.seconds, seconds() - begin);                                                      \
    }

static void bench_level(trial *t, const qins_cpu *cpu, qins_integer_kind kind) {
    enum { MULTIPLY_TOKENS = 18, RUNS = 200 };
    static _Alignas(64) uint8_t decoded[PANELS * QINS_DECODED_PANEL];
    static float acc[MAX_TOKENS * PANELS * QINS_PANEL_ROWS];
    const qins_integer_kernels *k = cpu->integer;
    int repeat = cpu->integer == &qins_integer_scalar ? 1 : 20;
    float out[QINS_PANEL_ROWS];
    double weights = (double)t->n_cols * QINS_PANEL_ROWS * repeat;
    double span = (double)QINS_SPAN_COLS * PANELS * QINS_PANEL_ROWS * repeat;
    FASTEST(dot, k->dot[t->bits][kind](t->tiles, &t->table, &t->quantised, 0, out))
    FASTEST(decode, for (size_t p = 0; p < PANELS; p++)
                        k->decode[t->bits][kind](t->tiles, &t->table, QINS_SPAN_COLS, decoded + p * QINS_DECODED_PANEL))
    FASTEST(multiply, k->multiply[kind](decoded, PANELS, QINS_SPAN_COLS, &t->quantised, 0, 0, MULTIPLY_TOKENS, acc,
                                        PANELS * QINS_PANEL_ROWS))
    printf("%-11s %d bits, %s: one vector %6.4f (%5.1f GB/s of codes), decode %6.4f, multiply %6.4f a token "
           "(%5.1f GMAC/s)\n",
           cpu->name, t->bits,
           kind == QINS_INTEGER_8         ? "int8  "
           : kind == QINS_INTEGER_TRELLIS ? "trellis"
           : t->curved                    ? "curved"
                                          : "int16 ",
           dot.ticks / weights, (double)t->panel_bytes * repeat / dot.seconds * 1e-9, decode.ticks / span,
           multiply.ticks / span / MULTIPLY_TOKENS, span * MULTIPLY_TOKENS / multiply.seconds * 1e-9);
}

static void bench_width(trial *t, const qins_cpu *cpu, int bits, qins_integer_kind kind, bool curved) {
    t->bits = bits;
    t->curved = curved;
    t->n_cols = MAX_COLS;
    t->n_tokens = MAX_TOKENS;
    make_matrix(t, kind, FILL_RANDOM);
    qins_quantised_place(&t->quantised, t->n_tokens, t->n_cols, t->memory);
    for (size_t n = 0; n < t->n_tokens; n++)
        qins_quantise(&t->quantised, n, t->x, t->n_cols);
    bench_level(t, cpu, kind);
}

static void bench(void) {
    static trial t;
    const qins_cpu *cpus[MAX_LEVELS];
    size_t n_cpus = qins_all_cpus(cpus, MAX_LEVELS);
    printf("cycles of the time stamp counter (or ns) a weight, from cache\n");
    for (size_t i = 0; i < n_cpus; i++)
        for (int bits = QINS_TRELLIS_MIN_BITS; bits <= QINS_INTEGER_MAX_BITS && cpus[i]->integer != NULL; bits++) {
            if (bits >= QINS_MIN_BITS)
                bench_width(&t, cpus[i], bits, bits <= 6 ? QINS_INTEGER_8 : QINS_INTEGER_16, false);
            if (bits >= 7) bench_width(&t, cpus[i], bits, QINS_INTEGER_16, true);
            if (bits <= QINS_UNIFORM_TRELLIS_MAX_BITS) bench_width(&t, cpus[i], bits, QINS_INTEGER_TRELLIS, false);
        }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench();
        return 0;
    }
    return test();
}
