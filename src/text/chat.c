/* Chat formats: recognising one by its template, and writing a conversation in it. SPDX-License-Identifier: MIT
 *
 * Templates are Jinja programs. Nearly all of those in use write one of a few formats, which differ in the strings
 * around the texts; these strings stand in the template, and tell which format it is.
 */
#include "text/chat.h"

#include <string.h>

const qins_chat_format qins_chat_formats[] = {
    {.name = "chatml",
     .system = "<|im_start|>system\n{text}<|im_end|>\n",
     .user = "<|im_start|>user\n{text}<|im_end|>\n",
     .assistant = "<|im_start|>assistant\n{text}<|im_end|>\n",
     .answer = "<|im_start|>assistant\n",
     .end = "<|im_end|>"},
    {.name = "phi-4",
     .system = "<|im_start|>system<|im_sep|>{text}<|im_end|>",
     .user = "<|im_start|>user<|im_sep|>{text}<|im_end|>",
     .assistant = "<|im_start|>assistant<|im_sep|>{text}<|im_end|>",
     .answer = "<|im_start|>assistant<|im_sep|>",
     .end = "<|im_end|>"},
    {.name = "llama-3",
     .system = "<|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>",
     .user = "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
     .assistant = "<|start_header_id|>assistant<|end_header_id|>\n\n{text}<|eot_id|>",
     .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .end = "<|eot_id|>",
     .trims = true},
    {.name = "llama-2",
     .system = "<<SYS>>\n{text}\n<</SYS>>\n\n",
     .user = "{bos}[INST] {text} [/INST]",
     .assistant = " {text} {eos}",
     .answer = "",
     .system_in_user = true,
     .trims = true},
    {.name = "mistral-v0",
     .system = "{text}\n\n",
     .user = "[INST] {text} [/INST]",
     .assistant = "{text}{eos}",
     .answer = "",
     .system_in_user = true},
    {.name = "mistral-v1",
     .system = "{text}\n\n",
     .user = " [INST] {text} [/INST]",
     .assistant = " {text}{eos}",
     .answer = "",
     .system_in_user = true},
    {.name = "mistral-v3",
     .system = "{text}\n\n",
     .user = "[INST] {text}[/INST]",
     .assistant = " {text}{eos}",
     .answer = "",
     .system_in_user = true},
    {.name = "mistral-v3-tekken",
     .system = "{text}\n\n",
     .user = "[INST]{text}[/INST]",
     .assistant = "{text}{eos}",
     .answer = "",
     .system_in_user = true},
    {.name = "mistral-v7",
     .system = "[SYSTEM_PROMPT]{text}[/SYSTEM_PROMPT]",
     .user = "[INST]{text}[/INST]",
     .assistant = "{text}{eos}",
     .answer = ""},
    {.name = "phi-3",
     .system = "<|system|>\n{text}<|end|>\n",
     .user = "<|user|>\n{text}<|end|>\n",
     .assistant = "<|assistant|>\n{text}<|end|>\n",
     .answer = "<|assistant|>\n",
     .end = "<|end|>"},
    {.name = "zephyr",
     .system = "<|system|>\n{text}{eos}\n",
     .user = "<|user|>\n{text}{eos}\n",
     .assistant = "<|assistant|>\n{text}{eos}\n",
     .answer = "<|assistant|>\n"},
    {.name = "gemma",
     .system = "{text}\n\n",
     .user = "<start_of_turn>user\n{text}<end_of_turn>\n",
     .assistant = "<start_of_turn>model\n{text}<end_of_turn>\n",
     .answer = "<start_of_turn>model\n",
     .end = "<end_of_turn>",
     .system_in_user = true,
     .trims = true},
    {.name = "plain",
     .system = "{text}\n\n",
     .user = "User: {text}\n",
     .assistant = "Assistant: {text}\n",
     .answer = "Assistant:",
     .stop = "\nUser:",
     .trims = true},
    {.name = NULL},
};

const qins_chat_format *qins_chat_format_named(const char *name) {
    for (const qins_chat_format *f = qins_chat_formats; f->name != NULL; f++)
        if (strcmp(f->name, name) == 0) return f;
    return NULL;
}

/* The first row whose strings are all in the template and whose `lacks` is not. */
static const struct {
    const char *has, *has_too, *lacks, *name;
} signs[] = {
    {"<|im_start|>", "<|im_sep|>", NULL, "phi-4"},
    {"<|im_start|>", "<|im_end|>", "<end_of_utterance>", "chatml"},
    {"<|start_header_id|>", "<|end_header_id|>", NULL, "llama-3"},
    {"<start_of_turn>", "<end_of_turn>", NULL, "gemma"},
    {"[INST]", "[SYSTEM_PROMPT]", NULL, "mistral-v7"},
    {"[INST]", "<<SYS>>", NULL, "llama-2"},
    /* The published templates of Mistral with and without tools: the quotes tell where the spaces go. */
    {"[INST]", "' [INST] '", NULL, "mistral-v1"},
    {"[INST]", "[AVAILABLE_TOOLS]", "\"[INST]\"", "mistral-v3"},
    {"\"[INST]\"", "[AVAILABLE_TOOLS]", NULL, "mistral-v3-tekken"},
    {"'[INST] '", "' [/INST]'", NULL, "mistral-v0"},
    {"<|assistant|>", "<|end|>", NULL, "phi-3"},
    {"<|user|>", "message['content'] + eos_token", NULL, "zephyr"},
};

/* NULL when it is none of ours. */
static const qins_chat_format *recognise(const char *template) {
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (strstr(template, signs[i].has) != NULL && strstr(template, signs[i].has_too) != NULL &&
            (signs[i].lacks == NULL || strstr(template, signs[i].lacks) == NULL))
            return qins_chat_format_named(signs[i].name);
    return NULL;
}

/* A literal between the opening of a system turn and its end, the line break written as such or as \n. */
static const char *default_system(const char *template, size_t *n_bytes) {
    static const char opening[] = "<|im_start|>system";
    for (const char *s = template; (s = strstr(s, opening)) != NULL;) {
        s += sizeof opening - 1;
        if (*s != '\n' && strncmp(s, "\\n", 2) != 0) continue;
        s += *s == '\n' ? 1 : 2;
        size_t n = strcspn(s, "'\"{}\\<");
        if (n == 0 || strncmp(s + n, "<|im_end|>", 10) != 0) continue;
        *n_bytes = n;
        return s;
    }
    return NULL;
}

qins_chat_style qins_chat_style_of(const char *template, const qins_chat_format *format, const char *bos,
                                   const char *eos) {
    const qins_chat_format *own = template != NULL ? recognise(template) : NULL;
    const qins_chat_format *chosen = format != NULL ? format : own;
    qins_chat_style style = {.format = chosen != NULL ? chosen : qins_chat_format_named("plain"),
                             .is_own = own != NULL && own == chosen,
                             .bos = bos,
                             .eos = eos};
    if (style.is_own) {
        style.begins_with_bos = strstr(template, "bos_token") != NULL;
        style.default_system = default_system(template, &style.default_system_bytes);
    }
    return style;
}

/* ---- writing ---- */

typedef struct writer {
    const qins_chat_style *style;
    qins_buffer *text, *parts;
} writer;

static void write_part(writer *w, const char *s, size_t n, bool is_markup) {
    if (n == 0) return;
    const qins_chat_part part = {n, is_markup};
    qins_buffer_add(w->text, s, n);
    qins_buffer_add(w->parts, &part, sizeof part);
}

/* Markup from..to with the model's tokens in the place of {bos} and {eos}. */
static void write_markup(writer *w, const char *from, const char *to) {
    enum { NAME_BYTES = 5 }; /* "{bos}" */
    for (const char *s = from; s < to;) {
        const char *next = memchr(s, '{', (size_t)(to - s));
        if (next == NULL) next = to;
        write_part(w, s, (size_t)(next - s), true);
        if (next == to) return;
        const char *token = strncmp(next, "{bos}", NAME_BYTES) == 0 ? w->style->bos : w->style->eos;
        write_part(w, token, strlen(token), true);
        s = next + NAME_BYTES;
    }
}

static const char text_mark[] = "{text}";

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void write_text(writer *w, const qins_chat_message *message) {
    const char *s = message->text;
    size_t n = message->n_bytes;
    if (w->style->format->trims) {
        while (n > 0 && is_space(s[n - 1]))
            n--;
        while (n > 0 && is_space(*s))
            s++, n--;
    }
    write_part(w, s, n, false);
}

/* A turn; `before`, where there is one, is written in `before_pattern` in front of its text. */
static void write_turn(writer *w, const char *pattern, const qins_chat_message *message, const char *before_pattern,
                       const qins_chat_message *before) {
    const char *mark = strstr(pattern, text_mark), *rest = mark + sizeof text_mark - 1;
    write_markup(w, pattern, mark);
    if (before != NULL) write_turn(w, before_pattern, before, NULL, NULL);
    write_text(w, message);
    write_markup(w, rest, rest + strlen(rest));
}

/* What follows an answer; its space is left out, since models end their answers without it. */
static void write_end_of_answer(writer *w) {
    const char *end = strstr(w->style->format->assistant, text_mark) + sizeof text_mark - 1;
    end += strspn(end, " ");
    write_markup(w, end, end + strlen(end));
}

/* BOS, and the system message where there is one that has a turn of its own. */
static void write_beginning(writer *w, bool has_system) {
    const qins_chat_style *s = w->style;
    if (s->begins_with_bos && strncmp(s->format->user, "{bos}", 5) != 0) write_part(w, s->bos, strlen(s->bos), true);
    if (has_system || s->default_system == NULL) return;
    const qins_chat_message system = {QINS_CHAT_SYSTEM, s->default_system, s->default_system_bytes};
    write_turn(w, s->format->system, &system, NULL, NULL);
}

void qins_chat_write(const qins_chat_style *style, const qins_chat_message *messages, size_t n, bool continues,
                     qins_buffer *text, qins_buffer *parts) {
    const qins_chat_format *f = style->format;
    writer w = {style, text, parts};
    const qins_chat_message *system = NULL; /* waits for the user's message that it goes into */
    if (continues)
        write_end_of_answer(&w);
    else
        write_beginning(&w, n > 0 && messages[0].role == QINS_CHAT_SYSTEM);
    for (size_t i = 0; i < n; i++) {
        if (messages[i].role == QINS_CHAT_SYSTEM && f->system_in_user) {
            system = &messages[i];
        } else if (messages[i].role == QINS_CHAT_SYSTEM) {
            write_turn(&w, f->system, &messages[i], NULL, NULL);
        } else if (messages[i].role == QINS_CHAT_USER) {
            write_turn(&w, f->user, &messages[i], f->system, system);
            system = NULL;
        } else {
            write_turn(&w, f->assistant, &messages[i], NULL, NULL);
        }
    }
    if (n > 0 && messages[n - 1].role == QINS_CHAT_USER) write_markup(&w, f->answer, f->answer + strlen(f->answer));
}
