/* qins chat: a conversation on a terminal, or with lines from a pipe. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "conversation.h"
#include "kv_bits.h"
#include "output.h"
#include "progress.h"
#include "sampling.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_CONTEXT = 4096 };

typedef struct chat_arguments {
    common_options common;
    const char *system, *format, *session;
    size_t max_tokens, ctx;
    sampling_arguments sampling;
    bool no_check;
    kv_bits kv;
} chat_arguments;

/* What goes on around a conversation. */
typedef struct chat_state {
    const chat_arguments *a;
    conversation talk;
    json_t *turns; /* with --json */
    char *text;    /* of the answer, with --json */
    size_t n_text, text_capacity;
    size_t prompt_tokens, answer_tokens;
    double prompt_seconds, answer_seconds;
    bool out_of_memory;
} chat_state;

/* ---- interrupts: one stops an answer, not the program ---- */

static volatile sig_atomic_t stop_asked;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    stop_asked = 1;
}

/* A read of standard input is not started again, so that it can be left. */
static void catch_stops(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

static bool answer_stopped(void *user) {
    const chat_state *s = user;
    return stop_asked != 0 || ferror(stdout) || s->out_of_memory;
}

/* ---- answers ---- */

static void write_answer(void *user, const char *text, size_t n_bytes) {
    chat_state *s = user;
    if (!s->a->common.json) {
        fwrite(text, 1, n_bytes, stdout);
        fflush(stdout);
        return;
    }
    if (s->n_text + n_bytes > s->text_capacity) {
        size_t capacity = 2 * (s->n_text + n_bytes) + 256;
        char *larger = realloc(s->text, capacity);
        if (larger == NULL) {
            s->out_of_memory = true;
            return;
        }
        s->text = larger;
        s->text_capacity = capacity;
    }
    memcpy(s->text + s->n_text, text, n_bytes);
    s->n_text += n_bytes;
}

static void note_turn(chat_state *s, const char *message, size_t n_bytes) {
    const conversation *c = &s->talk;
    s->prompt_tokens += c->prompt_tokens;
    s->answer_tokens += c->answer_tokens;
    s->prompt_seconds += c->prompt_seconds;
    s->answer_seconds += c->answer_seconds;
    if (s->a->common.json)
        json_array_append_new(s->turns,
                              json_pack("{s:o, s:o, s:I, s:I, s:I, s:s}", "user", json_text(message, n_bytes), "text",
                                        json_text(s->text != NULL ? s->text : "", s->n_text), "prompt_tokens",
                                        (json_int_t)c->prompt_tokens, "generated_tokens", (json_int_t)c->answer_tokens,
                                        "forgotten_turns", (json_int_t)c->forgotten, "stopped_by", c->stopped_by));
    else
        printf("\n");
    fflush(stdout);
    if (c->forgotten > 0)
        fprintf(stderr, "qins: the context is full: the oldest %zu message%s and answer%s were forgotten\n",
                c->forgotten, c->forgotten > 1 ? "s" : "", c->forgotten > 1 ? "s" : "");
    if (strcmp(c->stopped_by, "context") == 0)
        fprintf(stderr, "qins: the context of %zu tokens is full: the answer ends here (--ctx)\n", c->n_ctx);
    if (strcmp(c->stopped_by, "length") == 0)
        fprintf(stderr, "qins: the answer was cut at %zu tokens (--max-tokens)\n", c->max_tokens);
}

/* ---- lines ---- */

/* A line, and those after it while they end with a backslash, without the last line break. -1 at the end of the input,
 * -2 after an interrupt. */
static ssize_t read_message(char **message, size_t *capacity, bool is_terminal) {
    size_t n = 0;
    for (;;) {
        if (is_terminal) {
            fputs(n == 0 ? "> " : ". ", stderr);
            fflush(stderr);
        }
        char *line = NULL;
        size_t line_capacity = 0;
        errno = 0;
        ssize_t length = getline(&line, &line_capacity, stdin);
        if (length < 0) {
            bool was_interrupted = errno == EINTR;
            free(line);
            if (was_interrupted) clearerr(stdin);
            return was_interrupted ? -2 : n > 0 ? (ssize_t)n : -1;
        }
        if (length > 0 && line[length - 1] == '\n') line[--length] = '\0';
        bool goes_on = length > 0 && line[length - 1] == '\\';
        if (goes_on) line[length - 1] = '\n';
        if (n + (size_t)length + 1 > *capacity) {
            char *larger = realloc(*message, 2 * (n + (size_t)length) + 256);
            if (larger == NULL) {
                free(line);
                return -1;
            }
            *message = larger;
            *capacity = 2 * (n + (size_t)length) + 256;
        }
        memcpy(*message + n, line, (size_t)length + 1);
        n += (size_t)length;
        free(line);
        if (!goes_on) return (ssize_t)n;
    }
}

static void save(chat_state *s, const char *path) {
    qins_error err = {0};
    if (qins_session_position(s->talk.session) == 0)
        fprintf(stderr, "qins: there is nothing to save yet\n");
    else if (qins_sequence_save(s->talk.session, 0, path, &err) != QINS_OK)
        fprintf(stderr, "qins: %s\n", err.message);
    else
        fprintf(stderr, "qins: saved %zu tokens in '%s'\n", qins_session_position(s->talk.session), path);
}

/* Lines that begin with a slash. Returns false for /exit. */
static bool obey(chat_state *s, const char *line) {
    static const char *const names[] = {"/exit", "/reset", "/save", "/help", NULL};
    const char *argument = line + strcspn(line, " ");
    size_t n = (size_t)(argument - line);
    argument += strspn(argument, " ");
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) return false;
    if (strcmp(line, "/reset") == 0) {
        conversation_reset(&s->talk);
        fprintf(stderr, "qins: the conversation starts again\n");
    } else if (n == 5 && strncmp(line, "/save", n) == 0 && *argument != '\0') {
        save(s, argument);
    } else if (strcmp(line, "/help") == 0) {
        fprintf(stderr, "/exit, or Ctrl-D  leave\n/reset            start again, with the same system message\n"
                        "/save FILE        keep the conversation; --session FILE goes on with it\n"
                        "Ctrl-C            stop an answer\n\\ at the end of a line: the message goes on\n");
    } else {
        char word[32];
        snprintf(word, sizeof word, "%.*s", (int)(n < 31 ? n : 31), line);
        const char *meant = nearest_name(word, names);
        if (strcmp(word, "/save") == 0)
            fprintf(stderr, "qins: /save needs a file: /save FILE\n");
        else if (meant != NULL)
            fprintf(stderr, "qins: unknown command '%s' - did you mean '%s'?\n", word, meant);
        else
            fprintf(stderr,
                    "qins: unknown command '%s' (/help lists them; a blank before the slash makes it a message)\n",
                    word);
    }
    return true;
}

/* Messages until the end of the input. */
static qins_status converse(chat_state *s, qins_error *err) {
    bool is_terminal = isatty(STDIN_FILENO) == 1;
    char *message = NULL;
    size_t capacity = 0;
    qins_status status = QINS_OK;
    int idle_stops = 0; /* interrupts with no answer to stop: the second one leaves */
    while (status == QINS_OK && idle_stops < 2) {
        stop_asked = 0;
        ssize_t n = read_message(&message, &capacity, is_terminal);
        if (n == -1) break;
        if (n == -2) {
            fprintf(stderr, "\nqins: /exit, Ctrl-D or Ctrl-C once more to leave\n");
            idle_stops++;
            continue;
        }
        idle_stops = 0;
        if (strspn(message, " \t\n") == (size_t)n) continue;
        if (message[0] == '/') {
            if (!obey(s, message)) break;
            continue;
        }
        stop_asked = 0;
        s->n_text = 0;
        status = conversation_say(&s->talk, message, (size_t)n, err);
        if (status == QINS_OK) {
            note_turn(s, message, (size_t)n);
            if (ferror(stdout)) break;
        } else if (status == QINS_ERR_CANCELLED || (status == QINS_ERR_ARGUMENT && is_terminal)) {
            fprintf(stderr, "\nqins: %s\n", err->message);
            status = QINS_OK;
        }
        if (s->out_of_memory) {
            err->code = status = QINS_ERR_MEMORY;
            snprintf(err->message, sizeof err->message, "out of memory");
        }
    }
    if (is_terminal) fputc('\n', stderr);
    free(message);
    return status;
}

/* ---- start and end ---- */

static void introduce(const chat_arguments *a, const qins_chat_info *chat) {
    if (a->format == NULL && !chat->is_own)
        fprintf(stderr,
                "qins: %s: the conversation is written as 'User: ... Assistant: ...', which the model may not know "
                "(--template NAME chooses another format)\n",
                chat->has_template ? "the model's chat template is none of those known here"
                                   : "the model has no chat template");
    else if (isatty(STDIN_FILENO) == 1)
        fprintf(stderr, "qins: chat format %s%s; /help lists commands\n", chat->format,
                a->system == NULL && chat->default_system != NULL ? ", with the template's system message" : "");
}

static int print_chat(const chat_arguments *a, chat_state *s, const qins_chat_info *chat) {
    double prompt_tps = s->prompt_seconds > 0 ? (double)s->prompt_tokens / s->prompt_seconds : 0;
    double answer_tps = s->answer_seconds > 0 ? (double)s->answer_tokens / s->answer_seconds : 0;
    if (a->common.json)
        return print_json(json_pack(
            "{s:s, s:O, s:I, s:I, s:I, s:o, s:o, s:I}", "format", chat->format, "turns", s->turns, "prompt_tokens",
            (json_int_t)s->prompt_tokens, "generated_tokens", (json_int_t)s->answer_tokens, "kv_bytes",
            (json_int_t)qins_session_kv_bytes(s->talk.session), "prefill_tps", json_number(prompt_tps), "decode_tps",
            json_number(answer_tps), "seed", (json_int_t)a->sampling.seed));
    fprintf(stderr, "prompts %zu tokens at %.1f/s, answers %zu at %.1f/s (seed %" PRIu64 ")\n", s->prompt_tokens,
            prompt_tps, s->answer_tokens, answer_tps, a->sampling.seed);
    return EXIT_DONE;
}

/* The context that was asked for, or 4,096 tokens, or what the model was trained for. */
static size_t choose_context(const chat_arguments *a, const qins_model_info *info) {
    if (a->ctx > 0) {
        if (info->max_position > 0 && a->ctx > info->max_position)
            fprintf(stderr,
                    "qins: %zu tokens of context, but the model was trained for %zu: expect nonsense after that\n",
                    a->ctx, info->max_position);
        return a->ctx;
    }
    return info->max_position > 0 && info->max_position < DEFAULT_CONTEXT ? info->max_position : DEFAULT_CONTEXT;
}

static qins_status open_session_file(chat_state *s, const char *path, qins_error *err) {
    if (path == NULL || access(path, F_OK) != 0) return QINS_OK;
    qins_status status = conversation_load(&s->talk, path, err);
    if (status == QINS_OK)
        fprintf(stderr, "qins: going on with the %zu tokens of '%s'\n", qins_session_position(s->talk.session), path);
    return status;
}

static int chat_with(const chat_arguments *a, const char *model_path) {
    qins_error err = {0};
    qins_model *model = NULL;
    qins_chat *chat = NULL;
    qins_session *session = NULL;
    qins_sampler *sampler = NULL;
    qins_model_info info = {0};
    qins_chat_info chat_info = {0};
    chat_state s = {.a = a, .turns = json_array()};
    int exit_status = EXIT_FAILED;
    const qins_sampling sampling = sampling_of(&a->sampling);
    qins_session_options options = {.key_bits = a->kv.keys, .value_bits = a->kv.values};
    qins_status status = open_model(model_path, a->no_check, &model, &err);
    if (status == QINS_OK) status = qins_chat_new(model, a->format, &chat, &err);
    if (status == QINS_OK) {
        qins_model_get_info(model, &info);
        qins_chat_get_info(chat, &chat_info);
        introduce(a, &chat_info);
        options.n_ctx = choose_context(a, &info);
        status = qins_session_new_with(model, &options, &session, &err);
    }
    if (status == QINS_OK) status = qins_sampler_new(&sampling, info.vocab_size, &sampler, &err);
    s.talk = (conversation){.model = model,
                            .chat = chat,
                            .session = session,
                            .sampler = sampler,
                            .n_ctx = options.n_ctx,
                            .max_tokens = a->max_tokens > 0 ? a->max_tokens : SIZE_MAX,
                            .system = a->system,
                            .write = write_answer,
                            .stopped = answer_stopped,
                            .user = &s};
    if (status == QINS_OK) status = conversation_start(&s.talk, &err);
    if (status == QINS_OK) status = open_session_file(&s, a->session, &err);
    catch_stops();
    if (status == QINS_OK) status = converse(&s, &err);
    if (status == QINS_OK && a->session != NULL && qins_session_position(session) > 0) save(&s, a->session);
    if (status == QINS_OK)
        exit_status = print_chat(a, &s, &chat_info);
    else
        report_failure(&a->common, &err);
    json_decref(s.turns);
    free(s.text);
    conversation_free(&s.talk);
    qins_sampler_free(sampler);
    qins_session_free(session);
    qins_chat_free(chat);
    qins_model_close(model);
    return exit_status;
}

int command_chat(int argc, char **argv) {
    chat_arguments a = {.max_tokens = 512, .sampling = sampling_defaults()};
    const option options[] = {
        {.name = "system",
         .kind = OPTION_TEXT,
         .value = &a.system,
         .value_name = "TEXT",
         .help = "system message (default: what the model's template says)"},
        {.name = "max-tokens",
         .letter = 'n',
         .kind = OPTION_SIZE,
         .value = &a.max_tokens,
         .value_name = "N",
         .help = "tokens of an answer at most; 0: as the context allows (default 512)"},
        SAMPLING_OPTIONS(a.sampling),
        {.name = "ctx",
         .letter = 'c',
         .kind = OPTION_SIZE,
         .value = &a.ctx,
         .value_name = "N",
         .help = "context length (default: 4096, or less when the model was trained for less)"},
        KV_BITS_OPTION(a.kv, ""),
        {.name = "template",
         .kind = OPTION_TEXT,
         .value = &a.format,
         .value_name = "NAME",
         .help = "chat format in place of the model's: chatml, llama-3, llama-2, mistral-v3, phi-3, gemma, zephyr, "
                 "plain ..."},
        {.name = "session",
         .kind = OPTION_TEXT,
         .value = &a.session,
         .value_name = "FILE",
         .help = "go on with the conversation in FILE, if it is there, and keep it there at the end"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", NULL};
    const command_syntax syntax = {
        "chat", names,
        "Talks with a model in the chat format of its own template. A line of standard input is a message; answers go "
        "to standard output. Only what is new is evaluated; when the context is full, the oldest turns are forgotten.",
        options,
        "Commands: /exit, /reset, /save FILE, /help. Ctrl-C stops an answer. A backslash\n"
        "at the end of a line: the message goes on."};
    const char *path[1];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, path);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    qins_set_threads(a.common.threads);
    return chat_with(&a, path[0]);
}
