/* Entropy coders on the code streams of qins directories: zstd beside ours. SPDX-License-Identifier: MIT
 *
 *     bench_entropy DIR...      qins directories, packed storage, or BF16 checkpoints (their exponents)
 *
 * Of an entropy-coded directory it prints how fast it opens. Of the others it takes the codes of the linears (up to 32
 * M), in the order of the byte plane, in chunks of 2^18 that are coded on their own with one model a tensor. Prints the
 * size in bits a code and the speed of decoding into bit planes, one thread, best of several passes.
 */
#include "codec/entropy.h"
#include "model/weights.h"
#include "rans.h"

#define ZSTD_STATIC_LINKING_ONLY /* literalCompressionMode */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

enum { CHUNK = 1 << 18, MAX_CODES = 32 << 20, PASSES = 5 };

typedef struct chunk {
    size_t first, n; /* codes */
    size_t tensor;
    uint8_t *data;
    size_t n_bytes;
} chunk;

typedef struct stream {
    uint8_t *codes, *planes, *out, *bytes;
    size_t n;
    int bits;
    chunk *chunks;
    size_t n_chunks;
    uint64_t (*histograms)[RANS_SYMBOLS]; /* by tensor */
    size_t n_tensors;
} stream;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *need(void *p) {
    if (p != NULL) return p;
    fprintf(stderr, "out of memory\n");
    exit(1);
}

static void unpack_tile(const uint8_t *tile, int bits, uint8_t *codes) {
    for (size_t row = 0; row < QINS_PANEL_ROWS; row++)
        for (size_t col = 0; col < QINS_TILE_COLS; col++)
            codes[64 * (col / 4) + 4 * row + col % 4] = (uint8_t)qins_unpack_code(tile, bits, row, col);
}

/* A byte a code into planes. */
static void pack_tile(const uint8_t *codes, int bits, uint8_t *tile) {
    uint8_t symbols[QINS_TILE_CODES];
    if (bits > 4) {
        qins_pack_symbols(codes, bits, tile);
        return;
    }
    for (size_t i = 0; i < QINS_TILE_CODES / 2; i++)
        symbols[i] = (uint8_t)(codes[i / 64 * 128 + i % 64] | codes[i / 64 * 128 + 64 + i % 64] << 4);
    qins_pack_symbols(symbols, bits, tile);
}

static void add_tensor(stream *s, const qins_encoded_tensor *t) {
    const uint8_t *tiles = t->parts[QINS_PART_CODES]->data;
    size_t n_tiles = qins_n_panels(t->n_rows) * qins_n_tiles(t->n_cols), bytes = qins_tile_bytes(s->bits);
    size_t first = s->n;
    if (t->n_rows % QINS_PANEL_ROWS != 0 || t->n_cols % QINS_TILE_COLS != 0) return; /* padding would count */
    for (size_t i = 0; i < n_tiles && s->n + QINS_TILE_CODES <= MAX_CODES; i++, s->n += QINS_TILE_CODES) {
        unpack_tile(tiles + i * bytes, s->bits, s->codes + s->n);
        memcpy(s->planes + s->n / QINS_TILE_CODES * bytes, tiles + i * bytes, bytes);
    }
    for (size_t i = first; i < s->n; i++)
        s->histograms[s->n_tensors][s->codes[i]]++;
    for (size_t i = first; i < s->n; i += CHUNK)
        s->chunks[s->n_chunks++] = (chunk){.first = i, .n = qins_min_size(CHUNK, s->n - i), .tensor = s->n_tensors};
    s->n_tensors++;
}

/* Exponents of a BF16 tensor as 8-bit codes. */
static void add_exponents(stream *s, const qins_tensor *t) {
    size_t first = s->n;
    for (size_t i = 0; i < t->n_values / QINS_TILE_CODES * QINS_TILE_CODES && s->n < MAX_CODES; i++) {
        uint8_t exponent = (uint8_t)(t->data[2 * i + 1] << 1 | t->data[2 * i] >> 7);
        s->planes[s->n] = exponent;
        s->codes[s->n++] = exponent;
    }
    for (size_t i = first; i < s->n; i++)
        s->histograms[s->n_tensors][s->codes[i]]++;
    for (size_t i = first; i < s->n; i += CHUNK)
        s->chunks[s->n_chunks++] = (chunk){.first = i, .n = qins_min_size(CHUNK, s->n - i), .tensor = s->n_tensors};
    s->n_tensors++;
}

static double entropy_bits(const stream *s) {
    double bits = 0;
    for (size_t t = 0; t < s->n_tensors; t++) {
        double total = 0;
        for (size_t c = 0; c < RANS_SYMBOLS; c++)
            total += (double)s->histograms[t][c];
        for (size_t c = 0; c < RANS_SYMBOLS; c++)
            if (s->histograms[t][c] > 0)
                bits -= (double)s->histograms[t][c] * log2((double)s->histograms[t][c] / total);
    }
    return bits;
}

static void print_line(const stream *s, const char *name, double bytes, double seconds) {
    printf("  %-20s %8.4f bits  %8.0f M codes/s  %6.2f GB/s of codes\n", name, 8 * bytes / (double)s->n,
           (double)s->n / seconds * 1e-6, (double)s->n * s->bits / 8 / seconds * 1e-9);
}

/* Huffman codes of literals and as few matches as the library lets one ask for. */
enum { HUFFMAN_ONLY = -131072 };

static void run_zstd(stream *s, int level) {
    ZSTD_CCtx *c = need(ZSTD_createCCtx());
    ZSTD_DCtx *d = need(ZSTD_createDCtx());
    double bytes = 0, best = INFINITY;
    for (size_t i = 0; i < s->n_chunks; i++) {
        chunk *k = &s->chunks[i];
        k->data = need(malloc(ZSTD_compressBound(k->n)));
        ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
        if (level == HUFFMAN_ONLY) ZSTD_CCtx_setParameter(c, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman);
        k->n_bytes = ZSTD_compress2(c, k->data, ZSTD_compressBound(k->n), s->codes + k->first, k->n);
        if (ZSTD_isError(k->n_bytes)) exit(1);
        bytes += (double)k->n_bytes;
    }
    for (int pass = 0; pass < PASSES; pass++) {
        double start = now();
        for (size_t i = 0; i < s->n_chunks; i++) {
            const chunk *k = &s->chunks[i];
            if (ZSTD_isError(ZSTD_decompressDCtx(d, s->bytes, CHUNK, k->data, k->n_bytes))) exit(1);
            for (size_t t = 0; t < k->n; t += QINS_TILE_CODES)
                pack_tile(s->bytes + t, s->bits, s->out + t / 8 * (size_t)s->bits);
        }
        best = fmin(best, now() - start);
    }
    char name[64];
    snprintf(name, sizeof name, level == HUFFMAN_ONLY ? "zstd Huffman" : "zstd %d", level);
    print_line(s, name, bytes, best);
    for (size_t i = 0; i < s->n_chunks; i++)
        free(s->chunks[i].data);
    ZSTD_freeCCtx(c);
    ZSTD_freeDCtx(d);
}

/* As files hold them: src/codec/entropy.c. */
static void run_stored(const stream *s) {
    qins_coded_layout layout;
    qins_coder *coder = need(qins_coder_new());
    size_t n_planes = s->n / 8 * (size_t)s->bits, at = 0;
    if (!qins_coded_plan(&layout, QINS_CODED_PLANES, s->bits, 0, n_planes, 0)) exit(1);
    qins_chunk_record *records = need(calloc(layout.n_chunks, sizeof *records));
    uint8_t *blob = need(malloc(layout.n_chunks * qins_coded_bound(&layout) + qins_coded_index_bytes(&layout)));
    uint8_t *planes = need(malloc(n_planes));
    for (size_t i = 0, n; i < layout.n_chunks; i++, at += n)
        if (!qins_coded_encode(coder, &layout, s->planes, i, blob + at, &n, &records[i])) exit(1);
    qins_coded_write_index(&layout, records, blob + at);
    at += qins_coded_index_bytes(&layout);
    qins_coded coded;
    if (qins_coded_open(&coded, &layout, blob, at, NULL) != QINS_OK) exit(1);
    double best = INFINITY;
    for (int pass = 0; pass < PASSES; pass++) {
        double start = now();
        for (size_t i = 0; i < layout.n_chunks; i++)
            if (!qins_coded_decode(coder, &coded, i, planes)) exit(1);
        best = fmin(best, now() - start);
    }
    print_line(s, "as stored, checked", (double)at, best);
    qins_coded_close(&coded);
    qins_coder_free(coder);
    free(records);
    free(blob);
    free(planes);
}

typedef struct decoder {
    const char *name;
    rans_decode_fn decode;
} decoder;

static size_t list_decoders(decoder *list) {
    size_t n = 0;
    list[n++] = (decoder){"scalar", rans_decode_scalar};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        list[n++] = (decoder){"AVX2", rans_decode_avx2};
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        list[n++] = (decoder){"AVX-512", rans_decode_avx512};
#endif
    return n;
}

static void decode_chunk(const stream *s, const chunk *k, const uint32_t *table, const decoder *kernels) {
    _Alignas(64) uint8_t codes[QINS_TILE_CODES];
    rans_decoder d;
    bool ok = rans_decode_begin(&d, k->data, k->n_bytes);
    for (size_t i = 0; i < k->n && ok; i += QINS_TILE_CODES) {
        ok = kernels->decode(&d, table, QINS_TILE_CODES / RANS_LANES, codes);
        pack_tile(codes, s->bits, s->out + i / 8 * (size_t)s->bits);
    }
    size_t bytes = k->n / 8 * (size_t)s->bits;
    if (ok && rans_decode_end(&d) && memcmp(s->out, s->planes + k->first / 8 * (size_t)s->bits, bytes) == 0) return;
    fprintf(stderr, "%s decodes wrongly\n", kernels->name);
    exit(1);
}

static void run_rans(stream *s) {
    rans_model *models = need(calloc(s->n_tensors, sizeof *models));
    double bytes = 0;
    for (size_t t = 0; t < s->n_tensors; t++) {
        rans_fit(&models[t], s->histograms[t], RANS_SYMBOLS);
        bytes += 2.0 * (double)(1 << s->bits);
    }
    for (size_t i = 0; i < s->n_chunks; i++) {
        chunk *k = &s->chunks[i];
        uint8_t *buffer = need(malloc(rans_bound(k->n)));
        rans_encoder e;
        rans_encode_begin(&e, buffer, rans_bound(k->n));
        rans_encode(&e, &models[k->tensor], s->codes + k->first, k->n / RANS_LANES);
        rans_encode_finish(&e);
        k->n_bytes = (size_t)(buffer + rans_bound(k->n) - e.next);
        k->data = need(malloc(k->n_bytes));
        memcpy(k->data, e.next, k->n_bytes);
        free(buffer);
        bytes += (double)k->n_bytes;
    }
    decoder decoders[3];
    size_t n = list_decoders(decoders);
    for (size_t i = 0; i < n; i++) {
        double best = INFINITY;
        static uint32_t table[RANS_SLOTS];
        for (int pass = 0; pass < PASSES; pass++) {
            double start = now();
            for (size_t c = 0; c < s->n_chunks; c++) {
                rans_table(&models[s->chunks[c].tensor], table);
                decode_chunk(s, &s->chunks[c], table, &decoders[i]);
            }
            best = fmin(best, now() - start);
        }
        char name[64];
        snprintf(name, sizeof name, "rANS, %s", decoders[i].name);
        print_line(s, name, bytes, best);
    }
    for (size_t i = 0; i < s->n_chunks; i++)
        free(s->chunks[i].data);
    free(models);
}

/* Opening an entropy-coded directory: from pages that are in memory to a model that can run. */
static void time_loading(const char *path) {
    for (int threads = 1; threads <= 2; threads++) {
        double best = INFINITY, bytes = 0;
        qins_set_threads(threads);
        for (int pass = 0; pass < PASSES; pass++) {
            qins_weights *w = NULL;
            double start = now();
            if (qins_weights_open(path, false, &w, NULL) != QINS_OK) return;
            best = fmin(best, now() - start);
            bytes = (double)w->dir->decoded_bytes;
            qins_weights_close(w);
        }
        printf("  opened with %d thread%s, checksums compared: %.3f s, %.2f GB/s of memory\n", threads,
               threads > 1 ? "s" : "", best, bytes / best * 1e-9);
    }
}

static int run(const char *path) {
    qins_weights *w = NULL;
    qins_error err = {0};
    if (qins_weights_open(path, false, &w, &err) != QINS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (w->dir != NULL && w->dir->decoded != NULL) {
        printf("%s: entropy-coded, %.1f MB in memory\n", path, (double)w->dir->decoded_bytes * 1e-6);
        qins_weights_close(w);
        time_loading(path);
        return 0;
    }
    stream s = {.codes = need(malloc(MAX_CODES)),
                .planes = need(malloc(MAX_CODES)),
                .out = need(malloc(CHUNK)),
                .bytes = need(malloc(CHUNK))};
    s.chunks = need(calloc(w->n_parameters + MAX_CODES / CHUNK + 1, sizeof *s.chunks));
    s.histograms = need(calloc(w->n_parameters, sizeof *s.histograms));
    const char *codec = "";
    for (size_t i = 0; i < w->n_parameters; i++) {
        const qins_parameter *p = &w->parameters[i];
        if (p->plain != NULL && p->plain->type == QINS_TYPE_BF16 && p->n_dims == 2) {
            s.bits = 8;
            codec = "exponents of BF16";
            add_exponents(&s, p->plain);
        }
        if (p->encoded == NULL || p->role != QINS_ROLE_LINEAR || p->encoded->options.storage != QINS_STORAGE_PACKED ||
            p->encoded->options.bits > 8 || (s.bits != 0 && p->encoded->options.bits != s.bits))
            continue;
        s.bits = p->encoded->options.bits;
        codec = qins_codec_name(p->encoded->options.codec);
        add_tensor(&s, p->encoded);
    }
    printf("%s: %s, %d bits, %.1f M codes, entropy %.4f bits\n", path, codec, s.bits, (double)s.n * 1e-6,
           entropy_bits(&s) / (double)s.n);
    if (s.n > 0) {
        static const int levels[] = {1, 3, 9, HUFFMAN_ONLY};
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
            run_zstd(&s, levels[i]);
        run_stored(&s);
        run_rans(&s);
    }
    free(s.codes);
    free(s.planes);
    free(s.out);
    free(s.bytes);
    free(s.chunks);
    free(s.histograms);
    qins_weights_close(w);
    return 0;
}

int main(int argc, char **argv) {
    int status = argc < 2;
    for (int i = 1; i < argc; i++)
        status |= run(argv[i]);
    return status;
}
