/* The chat format of a model: its template, its tokens, its texts as ids. SPDX-License-Identifier: MIT */
#include "text/chat.h"

#include "model/model.h"
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ENDS = 16 };

struct qins_chat {
    const qins_model *model;
    qins_chat_style style;
    char *default_system; /* NULL for none */
    int32_t ends[MAX_ENDS];
    size_t n_ends;
};

/* A token of tokenizer_config.json: a string, or an object with the member "content". */
static const char *token_text(const json_t *config, const char *key) {
    const json_t *token = json_object_get(config, key);
    if (json_is_object(token)) token = json_object_get(token, "content");
    return json_is_string(token) ? json_string_value(token) : "";
}

/* The template, or the one that is called "default" of a list of them; NULL for none. */
static const char *template_text(const json_t *tokenizer_config) {
    const json_t *t = json_object_get(tokenizer_config, "chat_template");
    for (size_t i = 0; json_is_array(t) && i < json_array_size(t); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(t, i), "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(json_array_get(t, i), "template"));
    }
    return json_string_value(t);
}

static void add_end(qins_chat *c, int64_t id) {
    if (id < 0 || id > INT32_MAX || c->n_ends == MAX_ENDS || qins_chat_is_end(c, (int32_t)id)) return;
    c->ends[c->n_ends++] = (int32_t)id;
}

/* "eos_token_id": 2 or [2, 7] */
static void add_ends_of(qins_chat *c, const json_t *config) {
    const json_t *ids = json_object_get(config, "eos_token_id");
    if (json_is_integer(ids)) add_end(c, json_integer_value(ids));
    for (size_t i = 0; json_is_array(ids) && i < json_array_size(ids); i++)
        if (json_is_integer(json_array_get(ids, i))) add_end(c, json_integer_value(json_array_get(ids, i)));
}

static void find_ends(qins_chat *c) {
    const qins_checkpoint *checkpoint = c->model->weights->checkpoint;
    add_end(c, c->model->weights->hparams.eos_id);
    add_ends_of(c, checkpoint->config);
    add_ends_of(c, checkpoint->generation_config);
    if (c->style.format->end != NULL) add_end(c, qins_tokenizer_id(c->model->tokenizer, c->style.format->end));
    if (c->style.eos[0] != '\0') add_end(c, qins_tokenizer_id(c->model->tokenizer, c->style.eos));
}

static qins_status unknown_format(const char *name, qins_error *err) {
    char list[256] = "";
    for (const qins_chat_format *f = qins_chat_formats; f->name != NULL; f++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", list[0] != '\0' ? ", " : "", f->name);
    return qins_fail(err, QINS_ERR_ARGUMENT, "unknown chat format '%.60s': expected one of %s", name, list);
}

qins_status qins_chat_new(const qins_model *model, const char *format, qins_chat **chat, qins_error *err) {
    const json_t *config = model->weights->checkpoint->tokenizer_config;
    const char *template = template_text(config);
    const qins_chat_format *chosen = format != NULL ? qins_chat_format_named(format) : NULL;
    *chat = NULL;
    if (format != NULL && chosen == NULL) return unknown_format(format, err);
    qins_chat *c = qins_alloc(1, sizeof *c);
    if (c == NULL) return qins_fail_memory(err, sizeof *c, "a chat format");
    c->model = model;
    c->style = qins_chat_style_of(template, chosen, token_text(config, "bos_token"), token_text(config, "eos_token"));
    if (c->style.default_system != NULL) {
        c->default_system = qins_format("%.*s", (int)c->style.default_system_bytes, c->style.default_system);
        if (c->default_system == NULL) {
            qins_chat_free(c);
            return qins_fail_memory(err, 0, "a system text");
        }
    }
    find_ends(c);
    *chat = c;
    return QINS_OK;
}

void qins_chat_free(qins_chat *chat) {
    if (chat == NULL) return;
    free(chat->default_system);
    free(chat);
}

void qins_chat_get_info(const qins_chat *c, qins_chat_info *info) {
    *info = (qins_chat_info){.format = c->style.format->name,
                             .has_template = template_text(c->model->weights->checkpoint->tokenizer_config) != NULL,
                             .is_own = c->style.is_own,
                             .default_system = c->default_system,
                             .stop_text = c->style.format->stop,
                             .system_in_user = c->style.format->system_in_user};
}

bool qins_chat_is_end(const qins_chat *c, int32_t id) {
    for (size_t i = 0; i < c->n_ends; i++)
        if (c->ends[i] == id) return true;
    return false;
}

qins_status qins_chat_render(const qins_chat *c, const qins_chat_message *messages, size_t n, bool continues,
                             char **text, size_t *n_bytes, qins_error *err) {
    qins_buffer out = {0}, parts = {0};
    qins_chat_write(&c->style, messages, n, continues, &out, &parts);
    qins_buffer_add(&out, "", 0);
    bool failed = out.failed || parts.failed;
    qins_buffer_free(&parts);
    *text = NULL;
    if (!failed && out.data == NULL) out.data = qins_alloc(1, 1);
    if (failed || out.data == NULL) {
        qins_buffer_free(&out);
        return qins_fail_memory(err, out.size, "a conversation");
    }
    *text = out.data;
    *n_bytes = out.size;
    return QINS_OK;
}

/* ---- ids ---- */

static qins_status add_ids(const qins_chat *c, const char *text, size_t n_bytes, bool parse_special, qins_ids *out,
                           qins_error *err) {
    int32_t *ids = NULL;
    size_t n = 0;
    qins_status status = qins_tokenizer_encode(c->model->tokenizer, text, n_bytes, false, parse_special, &ids, &n, err);
    int32_t *room = status == QINS_OK ? qins_ids_reserve(out, n) : NULL;
    if (status == QINS_OK && room == NULL) status = qins_fail_memory(err, n, "token ids");
    if (status == QINS_OK && n > 0) {
        memcpy(room, ids, n * sizeof *ids);
        out->size += n;
    }
    qins_free(ids);
    return status;
}

/* Whether the text of a message has something in it that would be read as a special token. */
static qins_status has_special(const qins_chat *c, const char *text, size_t n_bytes, bool *has, qins_error *err) {
    qins_ids plain = {0}, parsed = {0};
    qins_status status = add_ids(c, text, n_bytes, false, &plain, err);
    if (status == QINS_OK) status = add_ids(c, text, n_bytes, true, &parsed, err);
    *has = plain.size != parsed.size ||
           (plain.size > 0 && memcmp(plain.data, parsed.data, plain.size * sizeof *plain.data) != 0);
    free(plain.data);
    free(parsed.data);
    return status;
}

/* Where the template writes no BOS, the one that the tokenizer would put before any text. */
static qins_status add_bos(const qins_chat *c, const char *text, qins_ids *out, qins_error *err) {
    int64_t bos = c->model->weights->hparams.bos_id;
    if (c->style.bos[0] != '\0' && strncmp(text, c->style.bos, strlen(c->style.bos)) == 0) return QINS_OK;
    int32_t *ids = NULL;
    size_t n = 0;
    qins_status status = qins_tokenizer_encode(c->model->tokenizer, "", 0, true, false, &ids, &n, err);
    if (status == QINS_OK && n > 0 && ids[0] == bos) qins_ids_add(out, ids[0]);
    qins_free(ids);
    return status;
}

qins_status qins_chat_tokenize(const qins_chat *c, const qins_chat_message *messages, size_t n, bool continues,
                               int32_t **ids, size_t *n_ids, qins_error *err) {
    qins_buffer text = {0}, parts = {0};
    qins_ids out = {0};
    qins_chat_write(&c->style, messages, n, continues, &text, &parts);
    qins_status status = text.failed || parts.failed ? qins_fail_memory(err, text.size, "a conversation") : QINS_OK;
    const qins_chat_part *part = (const qins_chat_part *)(const void *)parts.data;
    size_t n_parts = parts.size / sizeof *part;
    bool apart = false; /* texts by themselves, for fear of what is in them */
    size_t at = 0;
    for (size_t i = 0; i < n_parts && status == QINS_OK && !apart; at += part[i++].n_bytes)
        if (!part[i].is_markup) status = has_special(c, text.data + at, part[i].n_bytes, &apart, err);
    if (status == QINS_OK && !continues) status = add_bos(c, text.data != NULL ? text.data : "", &out, err);
    at = 0;
    for (size_t i = 0; i < n_parts && status == QINS_OK && apart; at += part[i++].n_bytes)
        status = add_ids(c, text.data + at, part[i].n_bytes, part[i].is_markup, &out, err);
    if (status == QINS_OK && !apart && text.size > 0) status = add_ids(c, text.data, text.size, true, &out, err);
    if (status == QINS_OK && (out.failed || qins_ids_reserve(&out, 1) == NULL))
        status = qins_fail_memory(err, out.size, "token ids");
    qins_buffer_free(&text);
    qins_buffer_free(&parts);
    *ids = NULL;
    *n_ids = 0;
    if (status != QINS_OK) {
        free(out.data);
        return status;
    }
    *ids = out.data;
    *n_ids = out.size;
    return QINS_OK;
}
