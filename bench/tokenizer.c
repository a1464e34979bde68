/* Speed of tokenizers. SPDX-License-Identifier: MIT
 *
 *     bench_tokenizer TEXT MODEL|TOKENIZER.json...
 *
 * One thread. Each tokenizer reads TEXT (repeated to a megabyte) a paragraph a call, as a prompt comes, and as one
 * string; both in MB/s of text, medians of ROUNDS, and so for turning the ids into text. A megabyte of one letter and
 * of spaces shows whether the time grows faster than the input. Ids are decoded and compared with the text: what this
 * tokenizer does not keep is said.
 */
#include "measure/stats.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 5, MEGABYTE = 1000000, MAX_PIECES = 1 << 20 };

typedef struct pieces {
    size_t start[MAX_PIECES + 1], n;
} pieces;

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fail(const char *what, const qins_error *err) {
    fprintf(stderr, "bench_tokenizer: %s%s%s\n", what, err != NULL ? ": " : "", err != NULL ? err->message : "");
    exit(1);
}

/* The file, repeated until it has a megabyte. */
static char *read_text(const char *path, size_t *n_bytes) {
    FILE *file = fopen(path, "rb");
    char *text = malloc(64 * (size_t)MEGABYTE);
    if (file == NULL || text == NULL) fail(path, NULL);
    size_t n = fread(text, 1, 32 * (size_t)MEGABYTE, file);
    fclose(file);
    if (n == 0) fail("the text is empty", NULL);
    for (size_t once = n; n < MEGABYTE; n += once)
        memcpy(text + n, text, once);
    *n_bytes = n;
    return text;
}

/* Cut at the ends of lines, into pieces of more than 400 bytes. */
static void cut_paragraphs(const char *text, size_t n_bytes, pieces *p) {
    p->n = 0;
    p->start[0] = 0;
    for (size_t i = 1; i < n_bytes && p->n + 1 < MAX_PIECES; i++)
        if (text[i - 1] == '\n' && text[i] != '\n' && i - p->start[p->n] > 400) p->start[++p->n] = i;
    p->start[++p->n] = n_bytes;
}

static double encode_all(const qins_tokenizer *t, const char *text, const pieces *p) {
    double begin = seconds();
    for (size_t i = 0; i < p->n; i++) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        qins_error err = {0};
        if (qins_tokenizer_encode(t, text + p->start[i], p->start[i + 1] - p->start[i], false, false, &ids, &n_ids,
                                  &err) != QINS_OK)
            fail("encode", &err);
        free(ids);
    }
    return seconds() - begin;
}

static double median_of_encode(const qins_tokenizer *t, const char *text, const pieces *p) {
    double times[ROUNDS];
    for (int r = 0; r < ROUNDS; r++)
        times[r] = encode_all(t, text, p);
    qins_sort(times, ROUNDS);
    return times[ROUNDS / 2];
}

static double median_of_decode(const qins_tokenizer *t, const char *text, size_t n_bytes, bool *same) {
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qins_error err = {0};
    if (qins_tokenizer_encode(t, text, n_bytes, false, false, &ids, &n_ids, &err) != QINS_OK) fail("encode", &err);
    double times[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        char *back = NULL;
        size_t n_back = 0;
        double begin = seconds();
        if (qins_tokenizer_decode(t, ids, n_ids, false, &back, &n_back, &err) != QINS_OK) fail("decode", &err);
        times[r] = seconds() - begin;
        *same = n_back == n_bytes && memcmp(back, text, n_bytes) == 0;
        free(back);
    }
    free(ids);
    qins_sort(times, ROUNDS);
    return times[ROUNDS / 2];
}

static void measure(const char *path, const qins_tokenizer *t, const char *text, size_t n_bytes, pieces *p) {
    double mb = (double)n_bytes / MEGABYTE;
    bool same;
    cut_paragraphs(text, n_bytes, p);
    double parts = mb / median_of_encode(t, text, p);
    *p = (pieces){.start = {0, n_bytes}, .n = 1};
    double whole = mb / median_of_encode(t, text, p);
    double decode = mb / median_of_decode(t, text, n_bytes, &same);
    char *run = malloc(MEGABYTE);
    if (run == NULL) fail("out of memory", NULL);
    *p = (pieces){.start = {0, MEGABYTE}, .n = 1};
    memset(run, 'a', MEGABYTE);
    double letters = 1 / median_of_encode(t, run, p);
    memset(run, ' ', MEGABYTE);
    double spaces = 1 / median_of_encode(t, run, p);
    free(run);
    printf("| %s | %.1f | %.1f | %.1f | %.1f | %.1f | %s |\n", path, parts, whole, letters, spaces, decode,
           same ? "yes" : "no");
    fflush(stdout);
}

static void measure_file(const char *path, const char *text, size_t n_bytes, pieces *p) {
    qins_error err = {0};
    size_t n = strlen(path);
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) {
        json_t *json = json_load_file(path, JSON_ALLOW_NUL, NULL);
        qins_tokenizer *t = NULL;
        if (json == NULL) fail(path, NULL);
        if (qins_tokenizer_new(json, path, &t, &err) != QINS_OK) fail(path, &err);
        measure(path, t, text, n_bytes, p);
        qins_tokenizer_free(t);
        json_decref(json);
        return;
    }
    qins_model *model = NULL;
    if (qins_model_open(path, NULL, &model, &err) != QINS_OK) fail(path, &err);
    measure(path, model->tokenizer, text, n_bytes, p);
    qins_model_close(model);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenizer TEXT MODEL|TOKENIZER.json...\n");
        return 1;
    }
    size_t n_bytes = 0;
    char *text = read_text(argv[1], &n_bytes);
    pieces *p = malloc(sizeof *p);
    if (p == NULL) fail("out of memory", NULL);
    printf("| MB/s a core | by paragraph | whole | one letter | spaces | decode | text comes back "
           "|\n|---|---|---|---|---|---|---|\n");
    for (int i = 2; i < argc; i++)
        measure_file(argv[i], text, n_bytes, p);
    free(p);
    free(text);
    return 0;
}
