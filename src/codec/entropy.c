/* Entropy-coded tensors. SPDX-License-Identifier: MIT */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_c_literalCompressionMode; a parameter, no symbol */
#include "codec/entropy.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

const char *const qins_coded_form_name[QINS_CODED_FORM_COUNT] = {"bytes", "planes", "numbers", "rows", "upper"};

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
        if (width < QINS_TRELLIS_MIN_BITS || width > QINS_MAX_BITS) return false;
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

bool qins_coded_plan_rows(qins_coded_layout *l, qins_coded_form form, int bits, uint64_t panel_tiles, uint64_t n_bytes,
                          uint64_t chunk_units) {
    const size_t most = MAX_CHUNK_VALUES / QINS_TILE_CODES;
    if (bits > 8 || (form == QINS_CODED_UPPER && bits != 5) || panel_tiles == 0 || panel_tiles > most) return false;
    if (chunk_units == 0) chunk_units = CHUNK_VALUES / QINS_TILE_CODES / panel_tiles * panel_tiles;
    if (chunk_units == 0) chunk_units = panel_tiles;
    if (!qins_coded_plan(l, QINS_CODED_PLANES, bits, 0, n_bytes, chunk_units) || chunk_units % panel_tiles != 0 ||
        l->n_units % panel_tiles != 0)
        return false;
    l->form = form;
    l->panel_tiles = (size_t)panel_tiles;
    l->n_panels = l->n_units / l->panel_tiles;
    l->n_streams = QINS_ROW_CLASSES;
    if (form == QINS_CODED_UPPER) {
        l->stream_bytes[0] = QINS_TILE_CODES / 2;
        l->stream_bytes[l->n_streams++] = BIT_PLANE;
    }
    return true;
}

static size_t units_of(const qins_coded_layout *l, size_t chunk) {
    return qins_min_size(l->chunk_units, l->n_units - chunk * l->chunk_units);
}

/* Symbols of one row in a tile. */
static size_t row_symbols(const qins_coded_layout *l) {
    return l->stream_bytes[0] / QINS_PANEL_ROWS;
}

/* Decoded bytes of every stream of a chunk. */
static void stream_sizes(const qins_coded_layout *l, size_t chunk, size_t size[QINS_CODED_STREAMS]) {
    size_t n = units_of(l, chunk);
    bool rows = qins_coded_has_rows(l->form);
    for (size_t i = 0; i < l->n_streams; i++)
        size[i] = rows && i < QINS_ROW_CLASSES ? 0 : n * l->stream_bytes[i];
    if (!rows) return;
    const uint8_t *row_class = l->row_class + chunk * l->chunk_units / l->panel_tiles * QINS_PANEL_ROWS;
    for (size_t r = 0; r < n / l->panel_tiles * QINS_PANEL_ROWS; r++)
        size[row_class[r]] += l->panel_tiles * row_symbols(l);
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
    size_t n = 0; /* of form rows, all symbols are in stream_bytes[0] */
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

enum { LINE = 64, ROW_LANES = LINE / QINS_PANEL_ROWS }; /* a line of symbols holds four of each row */

/* Lines of symbols of n panels, from the streams of their rows' classes. */
static void join_rows(const qins_coded_layout *l, const uint8_t *const *in, const uint8_t *row_class, size_t n_panels,
                      uint8_t *dst) {
    const uint8_t *at[QINS_ROW_CLASSES];
    uint8_t symbols[QINS_TILE_CODES];
    size_t n_symbols = l->stream_bytes[0];
    const uint8_t *low = l->form == QINS_CODED_UPPER ? in[QINS_ROW_CLASSES] : NULL;
    memcpy(at, in, sizeof at);
    for (size_t p = 0; p < n_panels; p++, row_class += QINS_PANEL_ROWS)
        for (size_t t = 0; t < l->panel_tiles; t++, dst += l->unit_bytes) {
            for (size_t line = 0; line < n_symbols; line += LINE)
                for (size_t r = 0; r < QINS_PANEL_ROWS; r++) {
                    memcpy(symbols + line + ROW_LANES * r, at[row_class[r]], ROW_LANES);
                    at[row_class[r]] += ROW_LANES;
                }
            if (low == NULL) {
                qins_pack_symbols(symbols, l->bits, dst);
            } else {
                qins_pack_upper(symbols, low, dst);
                low += BIT_PLANE;
            }
        }
}

static void split_rows(const qins_coded_layout *l, const uint8_t *src, const uint8_t *row_class, size_t n_panels,
                       uint8_t *const *out) {
    uint8_t *at[QINS_ROW_CLASSES], symbols[QINS_TILE_CODES];
    size_t n_symbols = l->stream_bytes[0];
    uint8_t *low = l->form == QINS_CODED_UPPER ? out[QINS_ROW_CLASSES] : NULL;
    memcpy(at, out, sizeof at);
    for (size_t p = 0; p < n_panels; p++, row_class += QINS_PANEL_ROWS)
        for (size_t t = 0; t < l->panel_tiles; t++, src += l->unit_bytes) {
            if (low == NULL) {
                qins_unpack_symbols(src, l->bits, symbols);
            } else {
                qins_unpack_upper(src, symbols, low);
                low += BIT_PLANE;
            }
            for (size_t line = 0; line < n_symbols; line += LINE)
                for (size_t r = 0; r < QINS_PANEL_ROWS; r++) {
                    memcpy(at[row_class[r]], symbols + line + ROW_LANES * r, ROW_LANES);
                    at[row_class[r]] += ROW_LANES;
                }
        }
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
    if (qins_coded_has_rows(l->form)) bytes = QINS_ROW_CLASSES * ZSTD_compressBound(0); /* however symbols are spread */
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
    size_t n = units_of(l, chunk), at = 0, sizes[QINS_CODED_STREAMS];
    const uint8_t *src = tensor + chunk * l->chunk_units * l->unit_bytes;
    stream_sizes(l, chunk, sizes);
    if (qins_coded_has_rows(l->form)) {
        uint8_t *streams[QINS_CODED_STREAMS];
        size_t first = chunk * l->chunk_units / l->panel_tiles, begin = 0;
        for (size_t i = 0; i < l->n_streams; begin += sizes[i++])
            streams[i] = coder->streams + begin;
        split_rows(l, src, l->row_class + first * QINS_PANEL_ROWS, n / l->panel_tiles, streams);
    } else {
        split(l, src, n, coder->streams);
    }
    *record = (qins_chunk_record){.hash = XXH3_64bits(src, n * l->unit_bytes)};
    const uint8_t *stream = coder->streams;
    for (size_t i = 0; i < l->n_streams; i++) {
        size_t size = sizes[i] > 0 ? code_stream(coder, stream, sizes[i], out + at) : 0;
        if (size == 0 && sizes[i] > 0) return false;
        record->length[i] = (uint32_t)size;
        at += size;
        stream += sizes[i];
    }
    *n_bytes = at;
    return true;
}

static size_t record_bytes(const qins_coded_layout *l) {
    return l->n_streams * LENGTH_BYTES + HASH_BYTES;
}

/* Classes of the rows of a panel, two bits each. */
enum { CLASS_BITS = 2, PANEL_CLASS_BYTES = QINS_PANEL_ROWS * CLASS_BITS / 8, ROWS_A_BYTE = 8 / CLASS_BITS };

size_t qins_coded_index_bytes(const qins_coded_layout *l) {
    return l->n_chunks * record_bytes(l) + l->n_panels * PANEL_CLASS_BYTES;
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
    for (size_t i = 0; i < l->n_panels * PANEL_CLASS_BYTES; i++) {
        out[i] = 0;
        for (size_t r = 0; r < ROWS_A_BYTE; r++)
            out[i] |= (uint8_t)(l->row_class[i * ROWS_A_BYTE + r] << CLASS_BITS * r);
    }
}

/* ---- reading ---- */

static bool read_index(qins_coded *c, uint64_t data_bytes) {
    const qins_coded_layout *l = &c->layout;
    const uint8_t *p = c->data + data_bytes, *classes = p + l->n_chunks * record_bytes(l);
    for (size_t r = 0; r < l->n_panels * QINS_PANEL_ROWS; r++)
        c->row_class[r] = classes[r / ROWS_A_BYTE] >> CLASS_BITS * (r % ROWS_A_BYTE) & (QINS_ROW_CLASSES - 1);
    for (size_t k = 0; k < l->n_chunks; k++) {
        uint64_t length = 0;
        size_t sizes[QINS_CODED_STREAMS];
        stream_sizes(l, k, sizes);
        for (size_t i = 0; i < l->n_streams; i++, p += LENGTH_BYTES) {
            c->records[k].length[i] = (uint32_t)get_number(p, LENGTH_BYTES);
            if (c->records[k].length[i] > sizes[i]) return false;
            length += c->records[k].length[i];
        }
        c->records[k].hash = get_number(p, HASH_BYTES);
        p += HASH_BYTES;
        c->begin[k + 1] = c->begin[k] + length; /* at most 5 * 2^32 a chunk: cannot overflow before the check below */
        if (c->begin[k + 1] > data_bytes) return false;
    }
    return c->begin[l->n_chunks] == data_bytes;
}

qins_status qins_coded_open(qins_coded *c, const qins_coded_layout *layout, const uint8_t *blob, uint64_t n_bytes,
                            qins_error *err) {
    *c = (qins_coded){.layout = *layout, .data = blob};
    if (layout->n_chunks > n_bytes / record_bytes(layout) || qins_coded_index_bytes(layout) > n_bytes)
        return qins_fail(err, QINS_ERR_FORMAT, "expected an index of %zu chunks, found %llu bytes in all",
                         layout->n_chunks, (unsigned long long)n_bytes);
    c->begin = qins_alloc(layout->n_chunks + 1, sizeof *c->begin);
    c->records = qins_alloc(layout->n_chunks, sizeof *c->records);
    c->row_class = qins_alloc(qins_max_size(layout->n_panels, 1), QINS_PANEL_ROWS);
    c->layout.row_class = c->row_class;
    if (c->begin == NULL || c->records == NULL || c->row_class == NULL) {
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
    free(c->row_class);
    *c = (qins_coded){0};
}

bool qins_coded_decode(qins_coder *coder, const qins_coded *c, size_t chunk, uint8_t *tensor) {
    const qins_coded_layout *l = &c->layout;
    if (coder->decompress == NULL) coder->decompress = ZSTD_createDCtx();
    if (coder->decompress == NULL || !grow(&coder->streams, &coder->streams_size, decoded_bytes(l))) return false;
    size_t n = units_of(l, chunk), sizes[QINS_CODED_STREAMS];
    const uint8_t *src = c->data + c->begin[chunk], *streams[QINS_CODED_STREAMS];
    stream_sizes(l, chunk, sizes);
    uint8_t *dst = tensor + chunk * l->chunk_units * l->unit_bytes;
    uint8_t *room = is_direct(l) ? dst : coder->streams;
    for (size_t i = 0; i < l->n_streams; i++) {
        size_t length = c->records[chunk].length[i], bytes = sizes[i];
        streams[i] = src;
        if (length < bytes) {
            if (ZSTD_decompressDCtx(coder->decompress, room, bytes, src, length) != bytes) return false;
            streams[i] = room;
            room += bytes;
        }
        src += length;
    }
    if (qins_coded_has_rows(l->form))
        join_rows(l, streams, l->row_class + chunk * l->chunk_units / l->panel_tiles * QINS_PANEL_ROWS,
                  n / l->panel_tiles, dst);
    else
        join(l, streams, n, dst);
    return XXH3_64bits(dst, n * l->unit_bytes) == c->records[chunk].hash;
}
