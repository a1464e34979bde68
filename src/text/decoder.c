/* Decoders of tokenizer.json: token strings back to text. SPDX-License-Identifier: MIT */
#include "text/decoder.h"

#include "text/byte_level.h"
#include "text/pretokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 /* of Sequences in Sequences */, MAX_STRIP = 1 << 20 };

/* ---- reading ---- */

static qins_status load_replace(const qins_node *where, qins_decoder_step *step, qins_error *err) {
    qins_node pattern = qins_node_field(where, "pattern"), content = qins_node_field(where, "content");
    const char *s;
    qins_status status = qins_pattern_load(&pattern, &step->pattern, err);
    if (status == QINS_OK) status = qins_node_string(&content, &s, &step->content_length, err);
    if (status != QINS_OK) return status;
    step->content = qins_alloc(step->content_length, 1);
    if (step->content == NULL) return qins_fail_memory(err, step->content_length, "a decoder");
    if (step->content_length > 0) memcpy(step->content, s, step->content_length);
    return QINS_OK;
}

static qins_status load_strip(const qins_node *where, qins_decoder_step *step, qins_error *err) {
    qins_node content = qins_node_field(where, "content"), start = qins_node_field(where, "start");
    qins_node stop = qins_node_field(where, "stop");
    qins_status status = qins_node_char(&content, &step->c, err);
    if (status == QINS_OK) status = qins_node_index(&start, MAX_STRIP, &step->start, err);
    return status == QINS_OK ? qins_node_index(&stop, MAX_STRIP, &step->stop, err) : status;
}

static qins_status load_metaspace(const qins_node *where, qins_decoder_step *step, qins_error *err) {
    qins_node mark = qins_node_field(where, "replacement");
    size_t scheme = 0;
    qins_status status = qins_node_char(&mark, &step->c, err);
    if (status == QINS_OK) status = qins_prepend_scheme(where, &scheme, err);
    step->drops_first = scheme != 2;
    return status;
}

static const char *const kind_names[] = {"Sequence", "ByteLevel", "ByteFallback", "Fuse",
                                         "Strip",    "Replace",   "Metaspace",    NULL};
static const struct {
    qins_decoder_kind kind;
    qins_status (*load)(const qins_node *where, qins_decoder_step *step, qins_error *err);
} kinds[] = {{0, NULL}, /* Sequence */
             {QINS_DECODE_BYTE_LEVEL, NULL},
             {QINS_DECODE_BYTE_FALLBACK, NULL},
             {QINS_DECODE_FUSE, NULL},
             {QINS_DECODE_STRIP, load_strip},
             {QINS_DECODE_REPLACE, load_replace},
             {QINS_DECODE_METASPACE, load_metaspace}};

static qins_status load_step(const qins_node *where, qins_decoder *decoder, int depth, qins_error *err) {
    size_t kind = 0, n = 0;
    qins_status status = qins_node_object(where, err);
    qins_node type = qins_node_field(where, "type");
    if (status == QINS_OK) status = qins_node_choice(&type, kind_names, "decoder", &kind, err);
    if (status != QINS_OK) return status;
    if (kind == 0) {
        qins_node list = qins_node_field(where, "decoders");
        if (depth == MAX_DEPTH) return qins_node_fail(where, QINS_ERR_FORMAT, err, "Sequences are nested too deeply");
        status = qins_node_array(&list, &n, err);
        for (size_t i = 0; i < n && status == QINS_OK; i++) {
            qins_node item = qins_node_item(&list, i);
            status = load_step(&item, decoder, depth + 1, err);
        }
        return status;
    }
    if (decoder->n_steps == decoder->capacity) {
        size_t capacity = 2 * decoder->capacity + 4;
        qins_decoder_step *steps = realloc(decoder->steps, capacity * sizeof *steps);
        if (steps == NULL) return qins_fail_memory(err, capacity * sizeof *steps, "decoders");
        decoder->steps = steps;
        decoder->capacity = capacity;
    }
    qins_decoder_step *step = &decoder->steps[decoder->n_steps++];
    *step = (qins_decoder_step){.kind = kinds[kind].kind};
    return kinds[kind].load != NULL ? kinds[kind].load(where, step, err) : QINS_OK;
}

qins_status qins_decoder_load(const qins_node *where, qins_decoder *decoder, qins_error *err) {
    *decoder = (qins_decoder){0};
    if (qins_node_is_null(where)) return QINS_OK;
    qins_status status = load_step(where, decoder, 0, err);
    decoder->exists = true;
    if (status != QINS_OK) qins_decoder_free(decoder);
    return status;
}

void qins_decoder_free(qins_decoder *decoder) {
    for (size_t i = 0; i < decoder->n_steps; i++) {
        qins_pattern_free(&decoder->steps[i].pattern);
        free(decoder->steps[i].content);
    }
    free(decoder->steps);
    *decoder = (qins_decoder){0};
}

/* ---- lists of strings ---- */

void qins_strings_end(qins_strings *s) {
    if (s->size == s->capacity) {
        size_t capacity = qins_max_size(64, 2 * s->capacity), n_bytes;
        size_t *end = qins_mul_size(capacity, sizeof *end, &n_bytes) ? realloc(s->end, n_bytes) : NULL;
        if (end == NULL) {
            s->failed = true;
            return;
        }
        s->end = end;
        s->capacity = capacity;
    }
    s->end[s->size++] = s->text.size;
}

void qins_strings_free(qins_strings *s) {
    qins_buffer_free(&s->text);
    free(s->end);
    *s = (qins_strings){0};
}

static const char *string_at(const qins_strings *s, size_t i, size_t *n) {
    size_t start = i > 0 ? s->end[i - 1] : 0;
    *n = s->end[i] - start;
    return s->text.data + start;
}

/* ---- running ---- */

static void decode_byte_level(const qins_strings *in, qins_strings *out, qins_buffer *bytes) {
    bytes->size = 0;
    for (size_t i = 0; i < in->size; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        qins_chars_to_bytes(token, n, bytes);
    }
    qins_utf8_repair(bytes->data, bytes->size, &out->text);
    qins_strings_end(out);
}

int qins_byte_token(const char *token, size_t n) {
    if (n != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char d = token[i];
        int digit = d >= '0' && d <= '9'                     ? d - '0'
                    : (d | 0x20) >= 'a' && (d | 0x20) <= 'f' ? (d | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* A run of bytes is text when it is valid as a whole, and otherwise one U+FFFD for each byte. */
static void end_bytes(qins_buffer *bytes, qins_strings *out) {
    if (bytes->size == 0) return;
    if (qins_utf8_is_valid(bytes->data, bytes->size)) {
        qins_buffer_add(&out->text, bytes->data, bytes->size);
        qins_strings_end(out);
    } else {
        for (size_t i = 0; i < bytes->size; i++) {
            qins_buffer_add(&out->text, "\xEF\xBF\xBD", 3);
            qins_strings_end(out);
        }
    }
    bytes->size = 0;
}

static void decode_byte_fallback(const qins_strings *in, qins_strings *out, qins_buffer *bytes) {
    bytes->size = 0;
    for (size_t i = 0; i < in->size; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        int byte = qins_byte_token(token, n);
        if (byte >= 0) {
            char c = (char)byte;
            qins_buffer_add(bytes, &c, 1);
            continue;
        }
        end_bytes(bytes, out);
        qins_buffer_add(&out->text, token, n);
        qins_strings_end(out);
    }
    end_bytes(bytes, out);
}

static void strip(const qins_decoder_step *step, const char *token, size_t n, qins_buffer *out) {
    char c[4];
    size_t length = qins_utf8_encode(step->c, c), start = 0, end = n;
    for (uint32_t i = 0; i < step->start && n - start >= length && memcmp(token + start, c, length) == 0; i++)
        start += length;
    for (uint32_t i = 0; i < step->stop && end - start >= length && memcmp(token + end - length, c, length) == 0; i++)
        end -= length;
    qins_buffer_add(out, token + start, end - start);
}

static void metaspace(const qins_decoder_step *step, const char *token, size_t n, bool first, qins_buffer *out) {
    char mark[4];
    size_t length = qins_utf8_encode(step->c, mark);
    for (size_t i = 0; i < n;) {
        const char *at = memmem(token + i, n - i, mark, length);
        size_t stop = at != NULL ? (size_t)(at - token) : n;
        qins_buffer_add(out, token + i, stop - i);
        if (at != NULL && !(first && step->drops_first)) qins_buffer_add(out, " ", 1);
        i = stop + (at != NULL ? length : 0);
    }
}

static qins_status replace(const qins_decoder_step *step, struct pcre2_real_match_data_8 *scratch, const char *token,
                           size_t n, qins_buffer *out, qins_error *err) {
    qins_matches m;
    qins_matches_begin(&m, &step->pattern, scratch, token, n);
    size_t copied = 0, start, end;
    for (bool found = n > 0; found;) {
        qins_status status = qins_matches_next(&m, &start, &end, &found, err);
        if (status != QINS_OK) return status;
        if (!found) break;
        qins_buffer_add(out, token + copied, start - copied);
        qins_buffer_add(out, step->content, step->content_length);
        copied = end;
    }
    qins_buffer_add(out, token + copied, n - copied);
    return QINS_OK;
}

static qins_status decode_each(const qins_decoder_step *step, struct pcre2_real_match_data_8 *scratch,
                               const qins_strings *in, qins_strings *out, qins_error *err) {
    for (size_t i = 0; i < in->size; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        qins_status status = QINS_OK;
        if (step->kind == QINS_DECODE_STRIP)
            strip(step, token, n, &out->text);
        else if (step->kind == QINS_DECODE_METASPACE)
            metaspace(step, token, n, i == 0, &out->text);
        else
            status = replace(step, scratch, token, n, &out->text, err);
        if (status != QINS_OK) return status;
        qins_strings_end(out);
    }
    return QINS_OK;
}

static void join_with_spaces(const qins_strings *in, qins_strings *out) {
    for (size_t i = 0; i < in->size; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        if (i > 0) qins_buffer_add(&out->text, " ", 1);
        qins_buffer_add(&out->text, token, n);
    }
    qins_strings_end(out);
}

static void swap(qins_strings *a, qins_strings *b) {
    qins_strings old = *a;
    *a = *b;
    *b = old;
}

static void clear(qins_strings *s) {
    s->size = s->text.size = 0;
    qins_buffer_add(&s->text, "", 0);
}

qins_status qins_decode(const qins_decoder *decoder, qins_strings *tokens, qins_strings *spare, qins_error *err) {
    qins_buffer bytes = {0};
    struct pcre2_real_match_data_8 *scratch = qins_match_scratch_new();
    qins_buffer_add(&bytes, "", 0);
    qins_status status = scratch != NULL ? QINS_OK : qins_fail_memory(err, 64, "decoded text");
    if (status == QINS_OK && !decoder->exists) {
        clear(spare);
        join_with_spaces(tokens, spare);
        if (spare->failed || spare->text.failed) status = qins_fail_memory(err, tokens->text.size, "decoded text");
        swap(tokens, spare);
    }
    for (size_t i = 0; i < decoder->n_steps && status == QINS_OK; i++) {
        const qins_decoder_step *step = &decoder->steps[i];
        clear(spare);
        if (step->kind == QINS_DECODE_BYTE_LEVEL) {
            decode_byte_level(tokens, spare, &bytes);
        } else if (step->kind == QINS_DECODE_BYTE_FALLBACK) {
            decode_byte_fallback(tokens, spare, &bytes);
        } else if (step->kind == QINS_DECODE_FUSE) {
            qins_buffer_add(&spare->text, tokens->text.data, tokens->text.size);
            qins_strings_end(spare);
        } else {
            status = decode_each(step, scratch, tokens, spare, err);
        }
        if (status == QINS_OK && (spare->failed || spare->text.failed || bytes.failed))
            status = qins_fail_memory(err, tokens->text.size, "decoded text");
        swap(tokens, spare);
    }
    qins_match_scratch_free(scratch);
    qins_buffer_free(&bytes);
    return status;
}
