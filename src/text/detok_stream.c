/* Text of token ids as they come, never half a character. SPDX-License-Identifier: MIT */
#include "text/byte_level.h"
#include "text/tokenizer.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

struct qins_detok {
    const qins_tokenizer *t;
    bool skip_special;
    bool is_byte_level;   /* tokens are bytes, and nothing else happens to them */
    bool has_byte_tokens; /* "<0xE2>" */
    bool holds_all;       /* the decoder looks at the end of the text: nothing is certain before it */
    qins_buffer bytes;    /* byte-level: bytes of an unfinished character */
    /* Otherwise: decode(context + held) without what decode(context) gives is the next part. The context is what came
     * out last, so that the decoder does not take `held` for the start of the text. */
    qins_ids context, held;
    qins_buffer out;
};

qins_status qins_detok_of(const qins_tokenizer *t, bool skip_special, qins_detok **stream, qins_error *err) {
    qins_detok *s = *stream = qins_alloc(1, sizeof *s);
    if (s == NULL) return qins_fail_memory(err, sizeof *s, "decoded text");
    s->t = t;
    s->skip_special = skip_special;
    s->is_byte_level = t->decoder.n_steps > 0 && t->decoder.steps[0].kind == QINS_DECODE_BYTE_LEVEL;
    for (size_t i = 0; i < t->decoder.n_steps; i++) {
        const qins_decoder_step *step = &t->decoder.steps[i];
        if (i > 0 && step->kind != QINS_DECODE_FUSE) s->is_byte_level = false;
        if (step->kind == QINS_DECODE_BYTE_FALLBACK) s->has_byte_tokens = true;
        if ((step->kind == QINS_DECODE_STRIP && step->stop > 0) || (step->kind == QINS_DECODE_BYTE_LEVEL && i > 0))
            s->holds_all = true;
    }
    if (t->decoder.n_steps > 1 && t->decoder.steps[0].kind == QINS_DECODE_BYTE_LEVEL && !s->is_byte_level)
        s->holds_all = true;
    return QINS_OK;
}

void qins_detok_free(qins_detok *s) {
    if (s == NULL) return;
    qins_buffer_free(&s->bytes);
    free(s->context.data);
    free(s->held.data);
    qins_buffer_free(&s->out);
    free(s);
}

/* ---- byte-level vocabularies ---- */

/* Moves what is certain from `bytes` to `out`; at the end that is everything. */
static void move_characters(qins_detok *s, bool at_end) {
    size_t i = 0, length;
    for (; i < s->bytes.size; i += length) {
        qins_utf8_state state = qins_utf8_scan(s->bytes.data + i, s->bytes.size - i, &length);
        if (state == QINS_UTF8_INCOMPLETE && !at_end) break;
        if (state == QINS_UTF8_VALID)
            qins_buffer_add(&s->out, s->bytes.data + i, length);
        else
            qins_buffer_add(&s->out, "\xEF\xBF\xBD", 3);
    }
    memmove(s->bytes.data, s->bytes.data + i, s->bytes.size - i);
    s->bytes.size -= i;
}

/* ---- other vocabularies ---- */

static int byte_of(const qins_detok *s, int32_t id) {
    size_t n;
    const char *token = s->has_byte_tokens ? qins_tokenizer_token(s->t, id, &n) : NULL;
    return token != NULL ? qins_byte_token(token, n) : -1;
}

/* Whether the byte tokens at the end of `held` are the beginning of a character. */
static bool ends_in_half_a_character(const qins_detok *s) {
    char bytes[4];
    size_t n = 0, length;
    while (n < sizeof bytes && n < s->held.size) {
        int byte = byte_of(s, s->held.data[s->held.size - 1 - n]);
        if (byte < 0) break;
        n++;
        memmove(bytes + 1, bytes, n - 1);
        bytes[0] = (char)byte;
    }
    for (size_t i = 0; i < n; i += length)
        if (qins_utf8_scan(bytes + i, n - i, &length) == QINS_UTF8_INCOMPLETE) return true;
    return false;
}

/* Appends decode(context + held) without the text of the context. */
static qins_status decode_held(qins_detok *s, qins_error *err) {
    char *before = NULL, *text = NULL;
    size_t n_before = 0, n = 0, n_context = s->context.size;
    int32_t *end = qins_ids_reserve(&s->context, s->held.size);
    if (end == NULL) return qins_fail_memory(err, s->held.size, "decoded text");
    memcpy(end, s->held.data, s->held.size * sizeof *end);
    qins_status status = qins_tokenizer_decode(s->t, s->context.data, n_context, false, &before, &n_before, err);
    if (status == QINS_OK)
        status = qins_tokenizer_decode(s->t, s->context.data, n_context + s->held.size, false, &text, &n, err);
    if (status == QINS_OK && (n < n_before || memcmp(text, before, n_before) != 0)) {
        /* stray bytes made the context's own bytes invalid, too late to take those back */
        free(text);
        text = NULL;
        n_before = 0;
        status = qins_tokenizer_decode(s->t, s->held.data, s->held.size, false, &text, &n, err);
    }
    if (status == QINS_OK) qins_buffer_add(&s->out, text + n_before, n - n_before);
    free(before);
    free(text);
    return status;
}

/* The last token that is no byte makes the next context; bytes do only when there is nothing else. */
static qins_status renew_context(qins_detok *s, qins_error *err) {
    size_t last = s->held.size;
    while (last > 0 && byte_of(s, s->held.data[last - 1]) >= 0)
        last--;
    if (last > 0) {
        s->context.size = 0;
        qins_ids_add(&s->context, s->held.data[last - 1]);
    } else if (s->context.size == 0 || byte_of(s, s->context.data[0]) >= 0) {
        s->context.size = 0;
        for (size_t i = 0; i < s->held.size; i++)
            qins_ids_add(&s->context, s->held.data[i]);
    }
    s->held.size = 0;
    return s->context.failed ? qins_fail_memory(err, 64, "decoded text") : QINS_OK;
}

static qins_status emit_held(qins_detok *s, qins_error *err) {
    qins_status status = decode_held(s, err);
    return status == QINS_OK ? renew_context(s, err) : status;
}

/* ---- both ---- */

static qins_status give(qins_detok *s, qins_status status, const char **text, size_t *n_bytes, qins_error *err) {
    if (status != QINS_OK) return status;
    if (s->out.failed || s->bytes.failed || s->held.failed) return qins_fail_memory(err, s->out.size, "decoded text");
    *text = s->out.data;
    *n_bytes = s->out.size;
    return QINS_OK;
}

static void begin(qins_detok *s) {
    s->out.size = 0;
    qins_buffer_add(&s->out, "", 0);
}

qins_status qins_detok_push(qins_detok *s, int32_t id, const char **text, size_t *n_bytes, qins_error *err) {
    size_t n;
    const char *token = qins_tokenizer_token(s->t, id, &n);
    const qins_added_token *added = qins_added_token_by_id(&s->t->added, id);
    begin(s);
    if (token == NULL || (s->skip_special && added != NULL && added->skipped))
        return give(s, QINS_OK, text, n_bytes, err);
    if (s->is_byte_level) {
        qins_chars_to_bytes(token, n, &s->bytes);
        if (!s->bytes.failed && s->bytes.size > 0) move_characters(s, false);
        return give(s, QINS_OK, text, n_bytes, err);
    }
    qins_ids_add(&s->held, id);
    bool waits = s->holds_all || s->held.failed || (byte_of(s, id) >= 0 && ends_in_half_a_character(s));
    return give(s, waits ? QINS_OK : emit_held(s, err), text, n_bytes, err);
}

qins_status qins_detok_finish(qins_detok *s, const char **text, size_t *n_bytes, qins_error *err) {
    qins_status status = QINS_OK;
    begin(s);
    if (s->is_byte_level && s->bytes.size > 0)
        move_characters(s, true);
    else if (s->held.size > 0)
        status = emit_held(s, err);
    return give(s, status, text, n_bytes, err);
}
