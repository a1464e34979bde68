/* A conversation in a session: turns go in, answers come out, the oldest go when it is full. SPDX-License-Identifier:
 * MIT
 */
#ifndef QINS_CLI_CONVERSATION_H
#define QINS_CLI_CONVERSATION_H

#include "qins.h"

typedef struct conversation {
    const qins_model *model;
    const qins_chat *chat;
    qins_session *session;
    qins_sampler *sampler;
    size_t n_ctx, max_tokens; /* of an answer */
    const char *system;       /* NULL: what the format says */
    /* The text of an answer as it comes, never empty. */
    void (*write)(void *user, const char *text, size_t n_bytes);
    /* Whether to stop here. */
    bool (*stopped)(void *user);
    void *user;

    float *logits;  /* [vocab] */
    size_t *starts; /* [n_turns]: positions where the turns begin; a turn is a message, its answer and what ends that */
    size_t n_turns, turns_capacity;
    size_t n_kept;                       /* turns that never go: 1 when the first one holds the system message */
    size_t prompt_tokens, answer_tokens; /* of the last turn */
    size_t forgotten;                    /* turns that went for it */
    double prompt_seconds, answer_seconds;
    const char *stopped_by; /* "end", "length", "context" or "interrupt" */
} conversation;

/* The fields above the blank line are the caller's. */
qins_status conversation_start(conversation *c, qins_error *err);
void conversation_free(conversation *c);
/* Evaluates a message of the user and writes the answer. A message that is refused (too long, interrupted) leaves the
 * conversation as it was, but for turns that went to make room for it. */
qins_status conversation_say(conversation *c, const char *text, size_t n_bytes, qins_error *err);
void conversation_reset(conversation *c);
qins_status conversation_load(conversation *c, const char *path, qins_error *err);

#endif
