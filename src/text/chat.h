/* How chat models write a conversation: one row of data a format. SPDX-License-Identifier: MIT */
#ifndef QINS_CHAT_H
#define QINS_CHAT_H

#include "base/base.h"

/* In the strings {text} stands for a message's text, {bos} and {eos} for the model's tokens. */
typedef struct qins_chat_format {
    const char *name;
    const char *system; /* a turn, or, with system_in_user, what comes before the text of the first user's message */
    const char *user, *assistant;
    const char *answer;         /* opens the answer that is asked for */
    const char *end;            /* token that ends an answer besides the model's eos; NULL for none */
    const char *stop;           /* text that ends an answer where no token does; NULL for none */
    bool system_in_user, trims; /* trims: white space around texts is left out */
} qins_chat_format;

/* NULL-terminated by name. The last one is "plain", for models without a format. */
extern const qins_chat_format qins_chat_formats[];

const qins_chat_format *qins_chat_format_named(const char *name); /* NULL when there is none */
typedef struct qins_chat_style {
    const qins_chat_format *format;
    bool is_own;           /* told by the template */
    bool begins_with_bos;  /* the template writes it */
    const char *bos, *eos; /* their texts, "" where the model has none */
    /* What the template says where a conversation has no system message; NULL for nothing. Not NUL-terminated. */
    const char *default_system;
    size_t default_system_bytes;
} qins_chat_style;

/* The style of a template (NULL for none), or `format` in its place where that is not NULL. Points into the template.
 */
qins_chat_style qins_chat_style_of(const char *template, const qins_chat_format *format, const char *bos,
                                   const char *eos);

/* A stretch of a rendered conversation. */
typedef struct qins_chat_part {
    size_t n_bytes;
    bool is_markup; /* of the format; otherwise the text of a message */
} qins_chat_part;

/* Appends the conversation to *text and what it is made of to *parts (elements of qins_chat_part). continues: it goes
 * on after an answer, whose end comes first. After a user's message the answer is opened. */
void qins_chat_write(const qins_chat_style *style, const qins_chat_message *messages, size_t n, bool continues,
                     qins_buffer *text, qins_buffer *parts);

#endif
