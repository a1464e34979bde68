/* qins logits: the raw numbers, for tests and oracles. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "kv_bits.h"
#include "npy.h"
#include "output.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Positions evaluated at once: bounds the logits held in memory, long enough to amortise a pass over the weights. */
enum { CHUNK_POSITIONS = 32 };

typedef struct logits_arguments {
    common_options common;
    const char *ids, *ids_file, *out;
    bool no_check;
    kv_bits kv;
} logits_arguments;

/* Ids separated by commas or white space. NULL with *bad set to the offending text, or out of memory with *bad NULL. */
static int32_t *parse_ids(const char *text, size_t *n_ids, const char **bad) {
    static const char separators[] = ", \t\r\n[]";
    int32_t *ids = malloc((strlen(text) / 2 + 1) * sizeof *ids);
    *n_ids = 0;
    *bad = NULL;
    if (ids == NULL) return NULL;
    for (text += strspn(text, separators); *text != '\0'; text += strspn(text, separators)) {
        char number[24];
        uint64_t id = 0;
        size_t length = strcspn(text, separators);
        snprintf(number, sizeof number, "%.*s", (int)(length < sizeof number ? length : sizeof number - 1), text);
        if (!parse_u64(number, &id) || id > INT32_MAX) {
            *bad = text;
            free(ids);
            return NULL;
        }
        ids[(*n_ids)++] = (int32_t)id;
        text += length;
    }
    return ids;
}

static qins_status write_logits(qins_session *session, const int32_t *ids, size_t n_ids, size_t vocab_size,
                                npy_writer *w, progress_bar *bar, qins_error *err) {
    float *logits = malloc(CHUNK_POSITIONS * vocab_size * sizeof *logits);
    qins_status status = logits != NULL ? QINS_OK : QINS_ERR_MEMORY;
    if (logits == NULL) snprintf(err->message, sizeof err->message, "out of memory for logits");
    for (size_t done = 0; done < n_ids && status == QINS_OK; done += CHUNK_POSITIONS) {
        size_t n = n_ids - done < CHUNK_POSITIONS ? n_ids - done : CHUNK_POSITIONS;
        status = qins_session_eval(session, ids + done, n, logits, n, err);
        if (status == QINS_OK) status = npy_write(w, logits, n * vocab_size, err);
        if (status == QINS_OK && progress_update(bar, "evaluating", done + n, n_ids) != 0) status = QINS_ERR_CANCELLED;
    }
    free(logits);
    return status;
}

static int logits_of_ids(const logits_arguments *a, const char *model_path, const int32_t *ids, size_t n_ids) {
    qins_error err = {0};
    qins_model *model = NULL;
    qins_session *session = NULL;
    qins_model_info info = {0};
    npy_writer w = {0};
    progress_bar bar;
    progress_start(&bar);
    catch_interrupts();
    qins_status status = open_model(model_path, a->no_check, &model, &err);
    if (status == QINS_OK) qins_model_get_info(model, &info);
    const qins_session_options session_options = {.n_ctx = n_ids, .key_bits = a->kv.keys, .value_bits = a->kv.values};
    if (status == QINS_OK) status = qins_session_new_with(model, &session_options, &session, &err);
    if (status == QINS_OK) status = npy_begin(&w, a->out, n_ids, info.vocab_size, &err);
    if (status == QINS_OK) status = write_logits(session, ids, n_ids, info.vocab_size, &w, &bar, &err);
    if (status == QINS_OK) status = npy_commit(&w, &err);
    npy_abort(&w);
    qins_session_free(session);
    qins_model_close(model);
    progress_end(&bar);
    if (status == QINS_ERR_CANCELLED)
        return report_failure_text(&a->common, status, "interrupted: nothing was written to %s", a->out);
    if (status != QINS_OK) return report_failure(&a->common, &err);
    if (a->common.json)
        return print_json(json_pack("{s:[I, I], s:o}", "shape", (json_int_t)n_ids, (json_int_t)info.vocab_size, "out",
                                    json_text(a->out, strlen(a->out))));
    printf("wrote %s: float32 [%zu, %zu]\n", a->out, n_ids, info.vocab_size);
    return EXIT_DONE;
}

int command_logits(int argc, char **argv) {
    logits_arguments a = {0};
    const option options[] = {
        {.name = "ids", .kind = OPTION_TEXT, .value = &a.ids, .value_name = "I,J,K", .help = "token ids"},
        {.name = "ids-file",
         .kind = OPTION_TEXT,
         .value = &a.ids_file,
         .value_name = "FILE",
         .help = "token ids from FILE, separated by commas or white space; '-' is standard input"},
        {.name = "out",
         .letter = 'o',
         .kind = OPTION_TEXT,
         .value = &a.out,
         .value_name = "F.npy",
         .help = "file to write: float32 of shape [ids, vocabulary]"},
        KV_BITS_OPTION(a.kv, ""),
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", NULL};
    const command_syntax syntax = {"logits", names,
                                   "Evaluates token ids from an empty context and writes the logits of every position.",
                                   options, NULL};
    const char *path[1];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, path);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    if ((a.ids != NULL) == (a.ids_file != NULL))
        return usage_error("'qins logits' needs either --ids I,J,K or --ids-file FILE");
    if (a.out == NULL) return usage_error("'qins logits' needs --out F.npy");
    qins_set_threads(a.common.threads);

    char *file_text = NULL;
    size_t n_bytes = 0, n_ids = 0;
    const char *bad = NULL;
    qins_error err = {0};
    if (a.ids_file != NULL && read_input(a.ids_file, &file_text, &n_bytes, &err) != QINS_OK)
        return report_failure(&a.common, &err);
    int32_t *ids = parse_ids(file_text != NULL ? file_text : a.ids, &n_ids, &bad);
    int exit_status;
    if (bad != NULL)
        exit_status = usage_error("not a token id: '%.20s'", bad);
    else if (ids == NULL)
        exit_status = report_failure_text(&a.common, QINS_ERR_MEMORY, "out of memory for token ids");
    else if (n_ids == 0)
        exit_status = usage_error("'qins logits' needs at least one token id");
    else
        exit_status = logits_of_ids(&a, path[0], ids, n_ids);
    free(ids);
    free(file_text);
    return exit_status;
}
