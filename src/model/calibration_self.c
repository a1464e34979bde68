/* Text that the model writes itself, to be calibrated with. SPDX-License-Identifier: MIT
 *
 * LLM-QAT (Liu et al. 2023) showed that samples of a model can stand in for the text it was trained on. One opening
 * makes for one kind of text, so there are several: the beginning of a text, common words and marks of prose, lists,
 * dialogue, code and mathematics, and single tokens drawn from the whole vocabulary.
 */
#include "model/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES_AT_A_TIME = 64 };

static const char *const openings[] = {
    "The ",  "In ",   "I ",  "It was ", "A ",    "\"",     "#include <",    "# ",   "1. ",   "How ",
    "On ",   "def ",  "He ", "We ",     "- ",    "When ",  "import ",       "She ", "This ", "= ",
    "What ", "Once ", "(",   "If ",     "From ", "There ", "According to ", "You "};
enum { N_OPENINGS = sizeof openings / sizeof openings[0], MAX_OPENING = 8 };

static uint64_t next_bits(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static double next_unit(uint64_t *state) {
    return (double)(next_bits(state) >> 11) * 0x1p-53;
}

/* One token of softmax(logits). */
static int32_t draw(const float *logits, size_t n, double unit) {
    float largest = -INFINITY;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, logits[i]);
    float sum = 0;
    double total = 0, so_far = 0;
    for (size_t i = 0; i < n; i++) {
        sum += expf(logits[i] - largest);
        if (i % 256 != 255 && i + 1 < n) continue;
        total += (double)sum;
        sum = 0;
    }
    for (size_t i = 0; i < n; i++) {
        so_far += (double)expf(logits[i] - largest);
        if (so_far > unit * total) return (int32_t)i;
    }
    return (int32_t)(n - 1);
}

/* How sequence i begins: ids[0..result). */
static size_t begin(const qins_model *m, size_t i, uint64_t *random, int32_t *ids) {
    const qins_hparams *h = &m->weights->hparams;
    int32_t *opening = NULL;
    size_t n = 0, n_opening = 0;
    bool has_bos = h->bos_id >= 0 && (uint64_t)h->bos_id < h->vocab_size;
    if (i % 4 == 0 && has_bos) {
        ids[n++] = (int32_t)h->bos_id;
        return n;
    }
    if (i % 4 == 2) {
        ids[n++] = (int32_t)(next_bits(random) % h->vocab_size);
        return n;
    }
    const char *text = openings[(i / 2) % N_OPENINGS];
    size_t length = strlen(text);
    if (length > 1 && text[length - 1] == ' ') length--; /* the model puts the space before the next word */
    if (qins_tokenize(m, text, length, false, false, &opening, &n_opening, NULL) == QINS_OK)
        for (size_t k = 0; k < n_opening && n < MAX_OPENING; k++)
            if (opening[k] >= 0 && (size_t)opening[k] < h->vocab_size) ids[n++] = opening[k];
    qins_free(opening);
    if (n == 0) ids[n++] = (int32_t)(next_bits(random) % h->vocab_size);
    return n;
}

typedef struct writer {
    const qins_model *model;
    qins_session *session;
    qins_batch_token *batch;
    float *logits; /* [SEQUENCES_AT_A_TIME][vocab] */
    size_t *lengths;
    qins_progress progress;
    void *progress_user;
    uint64_t tokens_done, tokens_total;
} writer;

/* Writes n sequences of `window` tokens side by side. */
static qins_status write_sequences(writer *w, size_t first, size_t n, size_t window, int32_t *ids, qins_error *err) {
    size_t vocab = w->model->weights->hparams.vocab_size, n_batch = 0;
    uint64_t random[SEQUENCES_AT_A_TIME];
    for (size_t i = 0; i < n; i++) {
        random[i] = first + i + 1;
        next_bits(&random[i]);
        qins_status status = qins_sequence_truncate(w->session, i, 0, err);
        if (status != QINS_OK) return status;
        w->lengths[i] = qins_min_size(begin(w->model, first + i, &random[i], ids + i * window), window);
        for (size_t k = 0; k < w->lengths[i]; k++)
            w->batch[n_batch++] = (qins_batch_token){ids[i * window + k], (uint32_t)i, k + 1 == w->lengths[i]};
    }
    for (bool more = true; more;) {
        qins_status status = qins_session_eval_batch(w->session, w->batch, n_batch, w->logits, err);
        if (status != QINS_OK) return status;
        size_t rows[SEQUENCES_AT_A_TIME], n_rows = 0;
        for (size_t i = 0; i < n; i++)
            if (w->lengths[i] < window) rows[n_rows++] = i;
                /* A logits row for each token of the batch that asked: sequences that are full asked for none. */
#pragma omp parallel for schedule(dynamic, 1)
        for (size_t r = 0; r < n_rows; r++) {
            size_t i = rows[r];
            ids[i * window + w->lengths[i]] = draw(w->logits + r * vocab, vocab, next_unit(&random[i]));
        }
        n_batch = 0;
        more = false;
        for (size_t r = 0; r < n_rows; r++) {
            size_t i = rows[r];
            int32_t id = ids[i * window + w->lengths[i]++];
            if (w->lengths[i] < window) {
                w->batch[n_batch++] = (qins_batch_token){id, (uint32_t)i, true};
                more = true;
            }
        }
        w->tokens_done += n_rows;
        if (qins_report(w->progress, w->progress_user, "write text", qins_min_size(w->tokens_done, w->tokens_total),
                        w->tokens_total))
            return qins_fail(err, QINS_ERR_CANCELLED, "cancelled");
    }
    return QINS_OK;
}

qins_status qins_calibration_write(const qins_model *model, size_t n_tokens, qins_progress progress,
                                   void *progress_user, qins_calibration_text *text, qins_error *err) {
    const qins_hparams *h = &model->weights->hparams;
    size_t window = qins_min_size(qins_min_size(QINS_CALIBRATION_WINDOW, h->max_position), n_tokens);
    size_t n = qins_max_size(1, n_tokens / window), at_a_time = qins_min_size(n, SEQUENCES_AT_A_TIME);
    *text = (qins_calibration_text){qins_alloc(n * window, sizeof *text->ids), n, window, 0};
    writer w = {.model = model,
                .batch = qins_alloc(at_a_time * MAX_OPENING, sizeof *w.batch),
                .logits = qins_alloc_aligned(at_a_time * h->vocab_size, sizeof *w.logits),
                .lengths = qins_alloc(at_a_time, sizeof *w.lengths),
                .progress = progress,
                .progress_user = progress_user,
                .tokens_total = n * window};
    qins_status status = QINS_OK;
    if (text->ids == NULL || w.batch == NULL || w.logits == NULL || w.lengths == NULL)
        status = qins_fail_memory(err, at_a_time * h->vocab_size * sizeof *w.logits, "calibration text");
    const qins_session_options options = {.n_ctx = window, .n_sequences = at_a_time};
    if (status == QINS_OK) status = qins_session_new_with(model, &options, &w.session, err);
    for (size_t i = 0; i < n && status == QINS_OK; i += at_a_time)
        status = write_sequences(&w, i, qins_min_size(at_a_time, n - i), window, text->ids + i * window, err);
    qins_session_free(w.session);
    free(w.batch);
    free(w.logits);
    free(w.lengths);
    return status;
}
