/* SPDX-License-Identifier: MIT */
#include "conversation.h"
#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 256,      /* tokens of a message evaluated between two looks at the interrupt flag */
    ANSWER_SHARE = 4, /* a message is given up to 1/4 of the context for its answer before older turns go */
};

static qins_status fail(qins_error *err, qins_status code, const char *message) {
    err->code = code;
    snprintf(err->message, sizeof err->message, "%s", message);
    return code;
}

qins_status conversation_start(conversation *c, qins_error *err) {
    qins_model_info info;
    qins_model_get_info(c->model, &info);
    c->logits = malloc(info.vocab_size * sizeof *c->logits);
    return c->logits != NULL ? QINS_OK : fail(err, QINS_ERR_MEMORY, "out of memory");
}

void conversation_free(conversation *c) {
    free(c->logits);
    free(c->starts);
}

void conversation_reset(conversation *c) {
    qins_session_truncate(c->session, 0, NULL);
    c->n_turns = c->n_kept = 0;
}

static qins_status add_turn(conversation *c, size_t start, qins_error *err) {
    if (c->n_turns == c->turns_capacity) {
        size_t capacity = 2 * c->turns_capacity + 16;
        size_t *larger = realloc(c->starts, capacity * sizeof *larger);
        if (larger == NULL) return fail(err, QINS_ERR_MEMORY, "out of memory");
        c->starts = larger;
        c->turns_capacity = capacity;
    }
    c->starts[c->n_turns++] = start;
    return QINS_OK;
}

/* All that was loaded counts as one turn, but for BOS. */
qins_status conversation_load(conversation *c, const char *path, qins_error *err) {
    qins_model_info info;
    qins_model_get_info(c->model, &info);
    qins_status status = qins_sequence_load(c->session, 0, path, err);
    c->n_turns = c->n_kept = 0;
    if (status != QINS_OK || qins_session_position(c->session) == 0) return status;
    return add_turn(c, qins_sequence_tokens(c->session, 0)[0] == info.bos_id, err);
}

/* ---- room ---- */

/* Forgets positions [keep, keep + drop). Where positions cannot be moved (learned ones) the rest is evaluated again. */
static qins_status forget(conversation *c, size_t keep, size_t drop, qins_error *err) {
    qins_status status = qins_sequence_shift(c->session, 0, keep, drop, err);
    if (status != QINS_ERR_UNSUPPORTED) return status;
    size_t n = qins_session_position(c->session) - keep - drop;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (ids == NULL) return fail(err, QINS_ERR_MEMORY, "out of memory");
    memcpy(ids, qins_sequence_tokens(c->session, 0) + keep + drop, n * sizeof *ids);
    status = qins_session_truncate(c->session, keep, err);
    for (size_t done = 0; done < n && status == QINS_OK; done += CHUNK)
        status = qins_session_eval(c->session, ids + done, n - done < CHUNK ? n - done : CHUNK, NULL, 0, err);
    free(ids);
    return status;
}

/* Lets the oldest turns go until n more tokens fit, but not the last `spared` ones. Whether they fit then is for the
 * caller to see. */
static qins_status make_room(conversation *c, size_t n, size_t spared, qins_error *err) {
    size_t position = qins_session_position(c->session), first = c->n_kept, last = first, drop = 0;
    while (position - drop + n > c->n_ctx && last + spared < c->n_turns) {
        last++;
        drop = (last < c->n_turns ? c->starts[last] : position) - c->starts[first];
    }
    if (drop == 0) return QINS_OK;
    qins_status status = forget(c, c->starts[first], drop, err);
    if (status != QINS_OK) return status;
    for (size_t i = last; i < c->n_turns; i++)
        c->starts[first + i - last] = c->starts[i] - drop;
    c->n_turns -= last - first;
    c->forgotten += last - first;
    return QINS_OK;
}

/* ---- a message ---- */

/* Ids of a message and its surroundings. *n_before: those that belong to what came before, the end of the last answer
 * (which a first message has not), or BOS and the system message. */
static qins_status tokenize(conversation *c, const char *text, size_t n_bytes, int32_t **ids, size_t *n,
                            size_t *n_before, qins_error *err) {
    qins_chat_info info;
    qins_chat_get_info(c->chat, &info);
    const qins_chat_message messages[] = {{QINS_CHAT_SYSTEM, c->system, c->system != NULL ? strlen(c->system) : 0},
                                          {QINS_CHAT_USER, text, n_bytes}};
    bool continues = qins_session_position(c->session) > 0;
    bool has_system = !continues && c->system != NULL;
    const qins_chat_message *first = messages + (has_system ? 0 : 1);
    int32_t *before = NULL;
    qins_status status = qins_chat_tokenize(c->chat, first, has_system ? 2 : 1, continues, ids, n, err);
    if (status == QINS_OK)
        status =
            qins_chat_tokenize(c->chat, first, has_system && !info.system_in_user, continues, &before, n_before, err);
    if (status == QINS_OK && (*n_before > *n || memcmp(before, *ids, *n_before * sizeof *before) != 0)) *n_before = 0;
    if (!continues) c->n_kept = has_system && info.system_in_user;
    qins_free(before);
    return status;
}

static qins_status eval_message(conversation *c, const int32_t *ids, size_t n, qins_error *err) {
    double start = now_seconds();
    for (size_t done = 0; done < n; done += CHUNK) {
        size_t part = n - done < CHUNK ? n - done : CHUNK;
        bool is_last = done + part == n;
        qins_status status = qins_session_eval(c->session, ids + done, part, is_last ? c->logits : NULL, is_last, err);
        if (status != QINS_OK) return status;
        if (!is_last && c->stopped(c->user)) return fail(err, QINS_ERR_CANCELLED, "interrupted");
    }
    c->prompt_tokens = n;
    c->prompt_seconds = now_seconds() - start;
    return QINS_OK;
}

/* ---- an answer ---- */

/* Text that is held back while it may become the stop text, and the bytes written before it. */
typedef struct outlet {
    conversation *c;
    const char *stop; /* NULL for none */
    char held[64];
    size_t n_held;
    bool begun; /* something other than white space came */
} outlet;

static void put(outlet *o, const char *text, size_t n) {
    if (!o->begun) {
        while (n > 0 && (*text == ' ' || *text == '\n'))
            text++, n--;
        o->begun = n > 0;
    }
    if (n > 0) o->c->write(o->c->user, text, n);
}

/* Bytes at the end of held[0..n) that the stop text begins with. */
static size_t stop_prefix(const outlet *o) {
    size_t n = o->n_held;
    while (strncmp(o->held + (o->n_held - n), o->stop, n) != 0)
        n--;
    return n;
}

/* True when the stop text is complete: it is not written. */
static bool outlet_add(outlet *o, const char *text, size_t n) {
    if (o->stop == NULL) {
        put(o, text, n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        o->held[o->n_held++] = text[i];
        size_t kept = stop_prefix(o);
        put(o, o->held, o->n_held - kept);
        memmove(o->held, o->held + o->n_held - kept, kept);
        o->n_held = kept;
        if (kept == strlen(o->stop)) return true;
    }
    return false;
}

/* Takes the stop text, which the model wrote, out of the session, with the rest of the token that it begins in. */
static qins_status drop_stop(conversation *c, const char *stop, qins_error *err) {
    size_t end = qins_session_position(c->session), first = end - c->answer_tokens, cut = SIZE_MAX;
    for (size_t n = c->answer_tokens;; n--) {
        char *text = NULL;
        size_t n_bytes = 0;
        qins_status status =
            qins_detokenize(c->model, qins_sequence_tokens(c->session, 0) + first, n, true, &text, &n_bytes, err);
        if (status != QINS_OK) return status;
        const char *found = strstr(text, stop);
        if (cut == SIZE_MAX) cut = found != NULL ? (size_t)(found - text) : 0;
        qins_free(text);
        if (n == 0 || n_bytes <= cut) return qins_session_truncate(c->session, first + n, err);
    }
}

static qins_status start_text(const conversation *c, qins_detok **detok, qins_error *err) {
    const char *text;
    size_t n_bytes, n = qins_session_position(c->session);
    const int32_t *ids = qins_sequence_tokens(c->session, 0);
    qins_status status = qins_detok_new(c->model, true, detok, err);
    for (size_t i = n > CHUNK ? n - CHUNK : 0; i < n && status == QINS_OK; i++)
        status = qins_detok_push(*detok, ids[i], &text, &n_bytes, err);
    return status;
}

static qins_status answer(conversation *c, qins_detok *detok, qins_error *err) {
    qins_chat_info info;
    qins_chat_get_info(c->chat, &info);
    outlet o = {.c = c, .stop = info.stop_text};
    const char *text = "";
    size_t n_bytes = 0;
    c->stopped_by = "length";
    while (c->answer_tokens < c->max_tokens) {
        if (c->stopped(c->user)) {
            c->stopped_by = "interrupt";
            break;
        }
        int32_t id = qins_sample(c->sampler, c->logits);
        if (isnan(c->logits[id]))
            return fail(err, QINS_ERR_FORMAT,
                        "the model computes no numbers (NaN) from this text: its weights are damaged");
        if (qins_chat_is_end(c->chat, id)) {
            c->stopped_by = "end";
            break;
        }
        qins_status status = make_room(c, 1, 1, err);
        if (status != QINS_OK) return status;
        if (qins_session_position(c->session) == c->n_ctx) {
            c->stopped_by = "context";
            break;
        }
        status = qins_detok_push(detok, id, &text, &n_bytes, err);
        if (status == QINS_OK) status = qins_session_eval(c->session, &id, 1, c->logits, 1, err);
        if (status != QINS_OK) return status;
        c->answer_tokens++;
        if (outlet_add(&o, text, n_bytes)) {
            c->stopped_by = "end";
            return drop_stop(c, o.stop, err);
        }
    }
    qins_status status = qins_detok_finish(detok, &text, &n_bytes, err);
    if (status == QINS_OK) outlet_add(&o, text, n_bytes);
    if (o.stop != NULL) put(&o, o.held, o.n_held);
    return status;
}

/* Evaluates the ids of a message, of which n_before belong to what came before, and opens its turn. */
static qins_status open_turn(conversation *c, const int32_t *ids, size_t n, size_t n_before, qins_error *err) {
    bool continues = qins_session_position(c->session) > 0;
    size_t room = c->max_tokens < c->n_ctx / ANSWER_SHARE ? c->max_tokens : c->n_ctx / ANSWER_SHARE;
    qins_status status = make_room(c, n + room, 0, err);
    if (status != QINS_OK) return status;
    if (continues && c->n_turns == 0) { /* the answer that would be ended is gone */
        ids += n_before;
        n -= n_before;
        n_before = 0;
    }
    size_t position = qins_session_position(c->session);
    if (n == 0) return fail(err, QINS_ERR_ARGUMENT, "the message has no tokens");
    if (n >= c->n_ctx - position) {
        snprintf(err->message, sizeof err->message,
                 "the message has %zu tokens, and %zu of the context are free: raise --ctx", n, c->n_ctx - position);
        return err->code = QINS_ERR_ARGUMENT;
    }
    status = eval_message(c, ids, n, err);
    if (status == QINS_OK) status = add_turn(c, position + n_before, err);
    if (status != QINS_OK) qins_session_truncate(c->session, position, NULL);
    return status;
}

qins_status conversation_say(conversation *c, const char *text, size_t n_bytes, qins_error *err) {
    int32_t *ids = NULL;
    size_t n = 0, n_before = 0;
    qins_detok *detok = NULL;
    c->prompt_tokens = c->answer_tokens = c->forgotten = 0;
    c->prompt_seconds = c->answer_seconds = 0;
    qins_status status = tokenize(c, text, n_bytes, &ids, &n, &n_before, err);
    if (status == QINS_OK) status = open_turn(c, ids, n, n_before, err);
    qins_free(ids);
    if (status == QINS_OK) status = start_text(c, &detok, err);
    double started = now_seconds();
    if (status == QINS_OK) status = answer(c, detok, err);
    c->answer_seconds = now_seconds() - started;
    qins_detok_free(detok);
    return status;
}
