/* qins tokenize. SPDX-License-Identifier: MIT */
#include "commands.h"
#include "output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_arguments {
    common_options common;
    const char *file;
    bool special, add_special;
} tokenize_arguments;

static int print_ids_json(const int32_t *ids, size_t n_ids) {
    json_t *array = json_array();
    for (size_t i = 0; i < n_ids; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return print_json(json_pack("{s:o, s:I}", "ids", array, "n_ids", (json_int_t)n_ids));
}

/* "  1234 -> ' word'", one a line; line breaks and bytes of half characters are shown escaped. */
static qins_status print_pieces(const qins_model *model, const int32_t *ids, size_t n_ids, qins_error *err) {
    for (size_t i = 0; i < n_ids; i++) {
        char *piece = NULL;
        size_t n_bytes = 0;
        if (qins_detokenize(model, &ids[i], 1, false, &piece, &n_bytes, err) != QINS_OK) return err->code;
        bool whole = true;
        for (size_t j = 0, n; j < n_bytes && whole; j += n) {
            n = 1;
            char *repaired = utf8_repair(piece + j, n_bytes - j, &n);
            whole = repaired != NULL && n == n_bytes - j && memcmp(repaired, piece + j, n) == 0;
            free(repaired);
        }
        printf("%7d -> '", ids[i]);
        for (size_t j = 0; j < n_bytes; j++) {
            unsigned char c = (unsigned char)piece[j];
            if (c == '\n')
                printf("\\n");
            else if (c < 0x20 || c == 0x7f || (!whole && c >= 0x80))
                printf("\\x%02x", c);
            else
                putchar(c);
        }
        printf("'\n");
        qins_free(piece);
    }
    return QINS_OK;
}

static int tokenize_text(const tokenize_arguments *a, const char *model_path, const char *text, size_t n_bytes) {
    qins_error err = {0};
    qins_model *model = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int exit_status = EXIT_DONE;
    qins_status status = qins_model_open(model_path, NULL, &model, &err);
    if (status == QINS_OK) status = qins_tokenize(model, text, n_bytes, a->add_special, a->special, &ids, &n_ids, &err);
    if (status == QINS_OK && a->common.json) exit_status = print_ids_json(ids, n_ids);
    if (status == QINS_OK && !a->common.json) status = print_pieces(model, ids, n_ids, &err);
    if (status != QINS_OK) exit_status = report_failure(&a->common, &err);
    qins_free(ids);
    qins_model_close(model);
    return exit_status;
}

int command_tokenize(int argc, char **argv) {
    tokenize_arguments a = {0};
    const option options[] = {
        {.name = "file",
         .letter = 'f',
         .kind = OPTION_TEXT,
         .value = &a.file,
         .value_name = "FILE",
         .help = "take the text from FILE instead; '-' is standard input"},
        {.name = "special",
         .kind = OPTION_FLAG,
         .value = &a.special,
         .help = "read special tokens written in the text, such as <|endoftext|>, as such (default: as text)"},
        {.name = "add-special",
         .kind = OPTION_FLAG,
         .value = &a.add_special,
         .help = "add the tokens that the model begins or ends a text with"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", "[TEXT]", NULL};
    const command_syntax syntax = {
        "tokenize", names, "Prints the token ids of TEXT, or of a file, with the piece of each.", options, NULL};
    const char *given[2];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, given);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    if ((given[1] != NULL) == (a.file != NULL))
        return usage_error("'qins tokenize' needs either TEXT or --file FILE (see 'qins tokenize --help')");
    qins_set_threads(a.common.threads);
    if (a.file == NULL) return tokenize_text(&a, given[0], given[1], strlen(given[1]));
    char *text = NULL;
    size_t n_bytes = 0;
    qins_error err = {0};
    if (read_input(a.file, &text, &n_bytes, &err) != QINS_OK) return report_failure(&a.common, &err);
    int exit_status = tokenize_text(&a, given[0], text, n_bytes);
    free(text);
    return exit_status;
}
