/* Entropy-coded tensors. SPDX-License-Identifier: MIT */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_c_literalCompressionMode; a parameter, no symbol */
#include "codec/entropy.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

const char *const qins_coded_form_name[QINS_CODED_FORM_COUNT] = {"bytes", "planes", "numbers"};

enum {
    CHUNK_VALUES = 1 << 18,     /* codes or numbers of a chunk: large beside Huffman tables, small beside a L2 cache */
    MAX_CHUNK_VALUES = 1 << 22, /* that a reader accepts */
    LENGTH_BYTES = 4,
    HASH_BYTES = 8,
    BIT_PLANE = 128 /* bytes in a tile */
};
/* Literals only: the fastest search there is looks for matches and skips nearly everything. */
static const int HUFFMAN_LEVEL = -131072;
static const int MATCH_LEVEL = 1;
/* A stream is coded when it shrinks at least to this share; less is not worth the time of decoding. */
static const double PAYS = 0.98;
/* Matches are taken where they save this much more: data that repeats, such as zeros. */
static const double MATCHES_PAY = 0.9;

bool qins_coded_plan(qins_coded_layout *l, qins_coded_form form, int width, unsigned rotate, uint64_t n_bytes,
                     uint64_t chunk_units) {
    *l = (qins_coded_layout){.form = form, .rotate = rotate, .n_streams = 1, .stream_bytes = {1}, .unit_bytes = 1};
    size_t values = 1; /* a unit */
    if (form == QINS_CODED_PLANES) {
        if (width < QINS_MIN_BITS || width > QINS_MAX_BITS) return false;
        l->bits = width;
        l->unit_bytes = qins_tile_bytes(width);
        values = QINS_TILE_CODES;
        l->stream_bytes[0] = qins_tile_symbols(width);
        if (width > 8) l->stream_bytes[l->n_streams++] = BIT_PLANE;
    } else if (form == QINS_CODED_NUMBERS) {
        if ((width != 2 && width != 4) || rotate >= 8 * (unsigned)width) return false;
        l->unit_bytes = l->n_streams = (size_t)width;
        for (size_t i = 0; i < l->n_streams; i++)
            l->stream_bytes[i] = 1;
    }
    if (chunk_units == 0) chunk_units = CHUNK_VALUES / values;
    if (chunk_units > MAX_CHUNK_VALUES / values || n_bytes == 0 || n_bytes % l->unit_bytes != 0 ||
        n_bytes > SIZE_MAX / 2)
        return false;
    l->n_units = (size_t)n_bytes / l->unit_bytes;
    l->chunk_units = (size_t)chunk_units;
    l->n_chunks = (l->n_units - 1) / l->chunk_units + 1;
    return true;
}

static size_t units_of(const qins_coded_layout *l, size_t chunk) {
    return qins_min_size(l->chunk_units, l->n_units - chunk * l->chunk_units);
}

/* ---- coders ---- */

struct qins_coder {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    uint8_t *streams, *frame; /* decoded streams of a chunk, one after another; a second try at a frame */
    size_t streams_size, frame_size;
};

qins_coder *qins_coder_new(void) {
    return qins_alloc(1, sizeof(qins_coder));
}

void qins_coder_free(qins_coder *c) {
    if (c == NULL) return;
    ZSTD_freeCCtx(c->compress);
    ZSTD_freeDCtx(c->decompress);
    free(c->streams);
    free(c->frame);
    free(c);
}

static bool grow(uint8_t **buffer, size_t *size, size_t need) {
    if (need <= *size) return true;
    free(*buffer);
    *buffer = malloc(need);
    *size = *buffer != NULL ? need : 0;
    return *buffer != NULL;
}

static size_t decoded_bytes(const qins_coded_layout *l) {
    size_t n = 0;
    for (size_t i = 0; i < l->n_streams; i++)
        n += l->stream_bytes[i];
    return n * qins_min_size(l->chunk_units, l->n_units);
}

/* ---- units <-> streams ---- */

static void split_numbers(const qins_coded_layout *l, const uint8_t *src, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        if (l->unit_bytes == 2) {
            uint16_t v;
            memcpy(&v, src + 2 * i, sizeof v);
            v = (uint16_t)(v << l->rotate | v >> (16 - l->rotate));
            out[i] = (uint8_t)v;
            out[n + i] = (uint8_t)(v >> 8);
        } else {
            uint32_t v;
            memcpy(&v, src + 4 * i, sizeof v);
            v = v << l->rotate | v >> ((32 - l->rotate) & 31);
            for (size_t s = 0; s < 4; s++)
                out[s * n + i] = (uint8_t)(v >> 8 * s);
        }
    }
}

static void join_2(const qins_coded_layout *l, const uint8_t *const *in, size_t n, uint8_t *out) {
    const uint8_t *low = in[0], *high = in[1];
    const unsigned rotate = l->rotate;
    for (size_t i = 0; i < n; i++) {
        uint16_t v = (uint16_t)(low[i] | high[i] << 8);
        v = (uint16_t)(v >> rotate | (uint32_t)v << (16 - rotate));
        memcpy(out + 2 * i, &v, sizeof v);
    }
}

static void join_4(const qins_coded_layout *l, const uint8_t *const *in, size_t n, uint8_t *out) {
    const uint8_t *a = in[0], *b = in[1], *c = in[2], *d = in[3];
    const unsigned rotate = l->rotate;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = a[i] | (uint32_t)b[i] << 8 | (uint32_t)c[i] << 16 | (uint32_t)d[i] << 24;
        v = v >> rotate | v << ((32 - rotate) & 31);
        memcpy(out + 4 * i, &v, sizeof v);
    }
}

/* The one stream is the tensor as it is. */
static bool is_direct(const qins_coded_layout *l) {
    return l->form == QINS_CODED_BYTES || (l->form == QINS_CODED_PLANES && l->bits == 4);
}

static void split(const qins_coded_layout *l, const uint8_t *src, size_t n, uint8_t *out) {
    if (l->form == QINS_CODED_NUMBERS) {
        split_numbers(l, src, n, out);
    } else if (is_direct(l)) {
        memcpy(out, src, n * l->unit_bytes);
    } else {
        for (size_t i = 0; i < n; i++) {
            const uint8_t *tile = src + i * l->unit_bytes;
            qins_unpack_symbols(tile, l->bits, out + i * l->stream_bytes[0]);
            if (l->n_streams > 1) memcpy(out + n * QINS_TILE_CODES + i * BIT_PLANE, tile + QINS_TILE_CODES, BIT_PLANE);
        }
    }
}

static void join(const qins_coded_layout *l, const uint8_t *const *in, size_t n, uint8_t *dst) {
    if (l->form == QINS_CODED_NUMBERS) {
        if (l->unit_bytes == 2)
            join_2(l, in, n, dst);
        else
            join_4(l, in, n, dst);
    } else if (is_direct(l)) {
        if (in[0] != dst) memcpy(dst, in[0], n * l->unit_bytes);
    } else {
        for (size_t i = 0; i < n; i++) {
            uint8_t *tile = dst + i * l->unit_bytes;
            qins_pack_symbols(in[0] + i * l->stream_bytes[0], l->bits, tile);
            if (l->n_streams > 1) memcpy(tile + QINS_TILE_CODES, in[1] + i * BIT_PLANE, BIT_PLANE);
        }
    }
}

/* ---- writing ---- */

size_t qins_coded_bound(const qins_coded_layout *l) {
    size_t n = qins_min_size(l->chunk_units, l->n_units), bytes = 0;
    for (size_t i = 0; i < l->n_streams; i++)
        bytes += ZSTD_compressBound(n * l->stream_bytes[i]);
    return bytes;
}

/* A frame of src at a level; 0 when it fails. */
static size_t frame(ZSTD_CCtx *c, int level, const uint8_t *src, size_t n, uint8_t *out, size_t room) {
    bool ok = !ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level)) &&
              !ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman));
    size_t size = ok ? ZSTD_compress2(c, out, room, src, n) : 0;
    return ZSTD_isError(size) ? 0 : size;
}

/* Stored bytes of a stream; 0 when out of memory. */
static size_t code_stream(qins_coder *coder, const uint8_t *src, size_t n, uint8_t *out) {
    size_t room = ZSTD_compressBound(n);
    if (!grow(&coder->frame, &coder->frame_size, room)) return 0;
    size_t huffman = frame(coder->compress, HUFFMAN_LEVEL, src, n, out, room);
    size_t matches = frame(coder->compress, MATCH_LEVEL, src, n, coder->frame, room);
    if (huffman == 0 || matches == 0) return 0;
    if ((double)matches < MATCHES_PAY * (double)huffman) {
        memcpy(out, coder->frame, matches);
        huffman = matches;
    }
    if ((double)huffman < PAYS * (double)n) return huffman;
    memcpy(out, src, n);
    return n;
}

bool qins_coded_encode(qins_coder *coder, const qins_coded_layout *l, const uint8_t *tensor, size_t chunk, uint8_t *out,
                       size_t *n_bytes, qins_chunk_record *record) {
    if (coder->compress == NULL) coder->compress = ZSTD_createCCtx();
    if (coder->compress == NULL || !grow(&coder->streams, &coder->streams_size, decoded_bytes(l))) return false;
    size_t n = units_of(l, chunk), at = 0;
    const uint8_t *src = tensor + chunk * l->chunk_units * l->unit_bytes;
    split(l, src, n, coder->streams);
    *record = (qins_chunk_record){.hash = XXH3_64bits(src, n * l->unit_bytes)};
    const uint8_t *stream = coder->streams;
    for (size_t i = 0; i < l->n_streams; i++) {
        size_t size = code_stream(coder, stream, n * l->stream_bytes[i], out + at);
        if (size == 0) return false;
        record->length[i] = (uint32_t)size;
        at += size;
        stream += n * l->stream_bytes[i];
    }
    *n_bytes = at;
    return true;
}

static size_t record_bytes(const qins_coded_layout *l) {
    return l->n_streams * LENGTH_BYTES + HASH_BYTES;
}

size_t qins_coded_index_bytes(const qins_coded_layout *l) {
    return l->n_chunks * record_bytes(l);
}

static void put_number(uint8_t *p, uint64_t v, size_t n) {
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_number(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

void qins_coded_write_index(const qins_coded_layout *l, const qins_chunk_record *records, uint8_t *out) {
    for (size_t c = 0; c < l->n_chunks; c++) {
        for (size_t i = 0; i < l->n_streams; i++, out += LENGTH_BYTES)
            put_number(out, records[c].length[i], LENGTH_BYTES);
        put_number(out, records[c].hash, HASH_BYTES);
        out += HASH_BYTES;
    }
}

/* ---- reading ---- */

static bool read_index(qins_coded *c, uint64_t data_bytes) {
    const qins_coded_layout *l = &c->layout;
    const uint8_t *p = c->data + data_bytes;
    for (size_t k = 0; k < l->n_chunks; k++) {
        uint64_t length = 0;
        for (size_t i = 0; i < l->n_streams; i++, p += LENGTH_BYTES) {
            c->records[k].length[i] = (uint32_t)get_number(p, LENGTH_BYTES);
            if (c->records[k].length[i] > units_of(l, k) * l->stream_bytes[i]) return false;
            length += c->records[k].length[i];
        }
        c->records[k].hash = get_number(p, HASH_BYTES);
        p += HASH_BYTES;
        c->begin[k + 1] = c->begin[k] + length; /* at most 4 * 2^32 a chunk: cannot overflow before the check below */
        if (c->begin[k + 1] > data_bytes) return false;
    }
    return c->begin[l->n_chunks] == data_bytes;
}

qins_status qins_coded_open(qins_coded *c, const qins_coded_layout *layout, const uint8_t *blob, uint64_t n_bytes,
                            qins_error *err) {
    *c = (qins_coded){.layout = *layout, .data = blob};
    if (layout->n_chunks > n_bytes / record_bytes(layout))
        return qins_fail(err, QINS_ERR_FORMAT, "expected an index of %zu chunks, found %llu bytes in all",
                         layout->n_chunks, (unsigned long long)n_bytes);
    c->begin = qins_alloc(layout->n_chunks + 1, sizeof *c->begin);
    c->records = qins_alloc(layout->n_chunks, sizeof *c->records);
    if (c->begin == NULL || c->records == NULL) {
        qins_coded_close(c);
        return qins_fail_memory(err, layout->n_chunks * sizeof *c->records, "an index of chunks");
    }
    if (read_index(c, n_bytes - qins_coded_index_bytes(layout))) return QINS_OK;
    qins_coded_close(c);
    return qins_fail(err, QINS_ERR_FORMAT, "the lengths in its index do not add up to its %llu bytes",
                     (unsigned long long)n_bytes);
}

void qins_coded_close(qins_coded *c) {
    free(c->begin);
    free(c->records);
    *c = (qins_coded){0};
}

bool qins_coded_decode(qins_coder *coder, const qins_coded *c, size_t chunk, uint8_t *tensor) {
    const qins_coded_layout *l = &c->layout;
    if (coder->decompress == NULL) coder->decompress = ZSTD_createDCtx();
    if (coder->decompress == NULL || !grow(&coder->streams, &coder->streams_size, decoded_bytes(l))) return false;
    size_t n = units_of(l, chunk);
    const uint8_t *src = c->data + c->begin[chunk], *streams[QINS_CODED_STREAMS];
    uint8_t *dst = tensor + chunk * l->chunk_units * l->unit_bytes;
    uint8_t *room = is_direct(l) ? dst : coder->streams;
    for (size_t i = 0; i < l->n_streams; i++) {
        size_t length = c->records[chunk].length[i], bytes = n * l->stream_bytes[i];
        streams[i] = src;
        if (length < bytes) {
            if (ZSTD_decompressDCtx(coder->decompress, room, bytes, src, length) != bytes) return false;
            streams[i] = room;
            room += bytes;
        }
        src += length;
    }
    join(l, streams, n, dst);
    return XXH3_64bits(dst, n * l->unit_bytes) == c->records[chunk].hash;
}
