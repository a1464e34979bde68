/* Token ids from text and back: added tokens, then normalizer, pre-tokenizer and model. SPDX-License-Identifier: MIT */
#include "text/tokenizer.h"

#include "text/byte_level.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- building ---- */

static qins_status load_bpe(const qins_node *model, qins_tokenizer *t, qins_error *err) {
    qins_node vocab = qins_node_field(model, "vocab");
    qins_status status = qins_vocab_load(&vocab, &t->vocab, err);
    return status == QINS_OK ? qins_bpe_load(model, &t->vocab, &t->bpe, err) : status;
}

static qins_status load_model(const qins_node *model, qins_tokenizer *t, qins_error *err) {
    static const char *const types[] = {"BPE", "Unigram", NULL};
    size_t type = 0; /* old files have no type: those were BPE */
    qins_node field = qins_node_field(model, "type");
    qins_status status = qins_node_object(model, err);
    if (status == QINS_OK && field.json != NULL) status = qins_node_choice(&field, types, "model", &type, err);
    if (status != QINS_OK) return status;
    t->model = type == 0 ? QINS_MODEL_BPE : QINS_MODEL_UNIGRAM;
    return type == 0 ? load_bpe(model, t, err) : qins_unigram_load(model, &t->vocab, &t->unigram, err);
}

static qins_status check_template(const qins_node *where, const qins_tokenizer *t, qins_error *err) {
    for (size_t i = 0; i < t->template.items.size; i++) {
        int32_t id = t->template.items.data[i];
        size_t n;
        if (id == QINS_TEMPLATE_TEXT || qins_tokenizer_token(t, id, &n) != NULL) continue;
        return qins_node_fail(where, QINS_ERR_FORMAT, err, "no token has the id %ld", (long)id);
    }
    return QINS_OK;
}

static qins_status check_version(const qins_node *root, qins_error *err) {
    static const char *const versions[] = {"1.0", NULL};
    qins_node version = qins_node_field(root, "version");
    size_t choice;
    return version.json == NULL ? QINS_OK : qins_node_choice(&version, versions, "version", &choice, err);
}

static qins_status load(const qins_node *root, qins_tokenizer *t, qins_error *err) {
    qins_node normalizer = qins_node_field(root, "normalizer"), pretokenizer = qins_node_field(root, "pre_tokenizer");
    qins_node model = qins_node_field(root, "model"), added = qins_node_field(root, "added_tokens");
    qins_node template = qins_node_field(root, "post_processor"), decoder = qins_node_field(root, "decoder");
    qins_status status = qins_node_object(root, err);
    if (status == QINS_OK) status = check_version(root, err);
    if (status == QINS_OK) status = load_model(&model, t, err);
    if (status == QINS_OK) status = qins_normalizer_load(&normalizer, &t->normalizer, err);
    if (status == QINS_OK) status = qins_pretokenizer_load(&pretokenizer, &t->pretokenizer, err);
    if (status == QINS_OK) status = qins_added_tokens_load(&added, &t->vocab, &t->normalizer, &t->added, err);
    if (status == QINS_OK) status = qins_template_load(&template, &t->template, err);
    if (status == QINS_OK) status = check_template(&template, t, err);
    return status == QINS_OK ? qins_decoder_load(&decoder, &t->decoder, err) : status;
}

qins_status qins_tokenizer_new(const json_t *tokenizer_json, const char *name, qins_tokenizer **tokenizer,
                               qins_error *err) {
    *tokenizer = NULL;
    qins_tokenizer *t = qins_alloc(1, sizeof *t);
    if (t == NULL) return qins_fail_memory(err, sizeof *t, "a tokenizer");
    qins_node root = qins_node_root(tokenizer_json, name);
    qins_status status = load(&root, t, err);
    if (status == QINS_OK)
        *tokenizer = t;
    else
        qins_tokenizer_free(t);
    return status;
}

void qins_tokenizer_free(qins_tokenizer *t) {
    if (t == NULL) return;
    qins_added_tokens_free(&t->added);
    qins_normalizer_free(&t->normalizer);
    qins_pretokenizer_free(&t->pretokenizer);
    qins_template_free(&t->template);
    qins_decoder_free(&t->decoder);
    qins_bpe_free(&t->bpe);
    qins_unigram_free(&t->unigram);
    qins_vocab_free(&t->vocab);
    free(t);
}

size_t qins_tokenizer_size(const qins_tokenizer *t) {
    return qins_max_size(t->vocab.n_ids, t->added.n_ids);
}

int32_t qins_tokenizer_id(const qins_tokenizer *t, const char *token) {
    size_t n = strlen(token);
    for (size_t i = 0; i < t->added.n_tokens; i++)
        if (t->added.tokens[i].length == n && memcmp(t->added.tokens[i].content, token, n) == 0)
            return t->added.tokens[i].id;
    return qins_vocab_find(&t->vocab, token, n);
}

bool qins_tokenizer_is_special(const qins_tokenizer *t, int32_t id) {
    const qins_added_token *token = qins_added_token_by_id(&t->added, id);
    return token != NULL && token->special;
}

const char *qins_tokenizer_token(const qins_tokenizer *t, int32_t id, size_t *n) {
    const qins_added_token *added = qins_added_token_by_id(&t->added, id);
    if (added == NULL) return id < 0 ? NULL : qins_vocab_token(&t->vocab, (uint32_t)id, n);
    bool other = added->normalized_content != NULL;
    *n = other ? added->normalized_length : added->length;
    return other ? added->normalized_content : added->content;
}

/* ---- encoding ---- */

/* Memory of one call. */
typedef struct encoder {
    const qins_tokenizer *t;
    bool parse_special;
    struct pcre2_real_match_data_8 *scratch;
    qins_buffer normalized, spare;
    qins_pieces pieces;
    qins_bpe_scratch bpe;
    qins_unigram_scratch unigram;
    qins_buffer chars;
    qins_ids ids;
    qins_error *err;
} encoder;

static qins_status encode_piece(encoder *e, const char *piece, size_t n_bytes) {
    const qins_tokenizer *t = e->t;
    bool is_bytes = t->pretokenizer.gives_bytes;
    if (t->model == QINS_MODEL_BPE) return qins_bpe_encode(&t->bpe, &e->bpe, piece, n_bytes, is_bytes, &e->ids, e->err);
    if (is_bytes) {
        e->chars.size = 0;
        qins_bytes_to_chars(piece, n_bytes, &e->chars);
        if (e->chars.failed) return qins_fail_memory(e->err, 2 * n_bytes, "a long word");
        piece = e->chars.data;
        n_bytes = e->chars.size;
    }
    return qins_unigram_encode(&t->unigram, &e->unigram, piece, n_bytes, &e->ids, e->err);
}

/* Normalized text between added tokens. */
static qins_status encode_text(encoder *e, const char *text, size_t n_bytes, bool at_start) {
    qins_status status = qins_pretokenize(&e->t->pretokenizer, e->scratch, text, n_bytes, at_start, &e->pieces, e->err);
    for (size_t i = 0; i < e->pieces.size && status == QINS_OK; i++) {
        const qins_piece *p = &e->pieces.data[i];
        status = encode_piece(e, e->pieces.text + p->start, p->end - p->start);
    }
    return status;
}

/* Text between added tokens that are looked for before normalization: normalize, look for the others. */
static qins_status encode_segment(encoder *e, const char *text, size_t n_bytes, bool at_start) {
    if (e->t->normalizer.n_steps > 0) {
        qins_status status = qins_normalize_text(&e->t->normalizer, e->scratch, text, n_bytes, &e->normalized,
                                                 &e->spare, &at_start, e->err);
        if (status != QINS_OK) return status;
        text = e->normalized.data;
        n_bytes = e->normalized.size;
    }
    qins_added_search search;
    qins_added_span span;
    qins_added_search_begin(&search, &e->t->added, e->scratch, text, n_bytes, true, e->parse_special);
    while (qins_added_search_next(&search, &span)) {
        if (span.token != NULL) {
            qins_ids_add(&e->ids, span.token->id);
            continue;
        }
        qins_status status = encode_text(e, text + span.start, span.end - span.start, at_start && span.start == 0);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

static qins_status encode_all(encoder *e, const char *text, size_t n_bytes) {
    qins_added_search search;
    qins_added_span span;
    qins_added_search_begin(&search, &e->t->added, e->scratch, text, n_bytes, false, e->parse_special);
    while (qins_added_search_next(&search, &span)) {
        if (span.token != NULL) {
            qins_ids_add(&e->ids, span.token->id);
            continue;
        }
        qins_status status = encode_segment(e, text + span.start, span.end - span.start, span.start == 0);
        if (status != QINS_OK) return status;
    }
    return QINS_OK;
}

qins_status qins_tokenizer_encode(const qins_tokenizer *t, const char *text, size_t n_bytes, bool add_special,
                                  bool parse_special, int32_t **ids, size_t *n_ids, qins_error *err) {
    *ids = NULL;
    *n_ids = 0;
    encoder e = {.t = t, .parse_special = parse_special, .scratch = qins_match_scratch_new(), .err = err};
    qins_buffer repaired = {0};
    qins_ids out = {0};
    qins_status status = QINS_OK;
    if (!qins_utf8_is_valid(text, n_bytes)) {
        qins_utf8_repair(text, n_bytes, &repaired);
        text = repaired.data;
        n_bytes = repaired.size;
    }
    if (repaired.failed || e.scratch == NULL) status = qins_fail_memory(err, n_bytes, "a text to tokenize");
    if (status == QINS_OK) status = encode_all(&e, text, n_bytes);
    if (status == QINS_OK) qins_template_apply(&t->template, &e.ids, add_special, &out);
    if (status == QINS_OK && (e.ids.failed || out.failed || qins_ids_reserve(&out, 1) == NULL))
        status = qins_fail_memory(err, e.ids.size * sizeof *out.data, "token ids");
    if (status == QINS_OK) {
        *ids = out.data;
        *n_ids = out.size;
    } else {
        free(out.data);
    }
    qins_match_scratch_free(e.scratch);
    qins_buffer_free(&e.normalized);
    qins_buffer_free(&e.spare);
    qins_pieces_free(&e.pieces);
    qins_bpe_scratch_free(&e.bpe);
    qins_unigram_scratch_free(&e.unigram);
    qins_buffer_free(&e.chars);
    free(e.ids.data);
    qins_buffer_free(&repaired);
    return status;
}

/* ---- decoding ---- */

qins_status qins_tokenizer_decode(const qins_tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special,
                                  char **text, size_t *n_bytes, qins_error *err) {
    *text = NULL;
    *n_bytes = 0;
    qins_strings tokens = {0}, spare = {0};
    for (size_t i = 0; i < n_ids; i++) {
        const qins_added_token *added = qins_added_token_by_id(&t->added, ids[i]);
        size_t n = 0;
        const char *token = qins_tokenizer_token(t, ids[i], &n);
        if (token == NULL || (skip_special && added != NULL && added->skipped)) continue;
        qins_buffer_add(&tokens.text, token, n);
        qins_strings_end(&tokens);
    }
    qins_status status = QINS_OK;
    if (tokens.failed || tokens.text.failed) status = qins_fail_memory(err, n_ids, "decoded text");
    if (status == QINS_OK) status = qins_decode(&t->decoder, &tokens, &spare, err);
    if (status == QINS_OK) {
        qins_buffer_add(&tokens.text, "", 0);
        if (tokens.text.failed) status = qins_fail_memory(err, n_ids, "decoded text");
    }
    if (status == QINS_OK) {
        *text = tokens.text.data;
        *n_bytes = tokens.text.size;
        tokens.text = (qins_buffer){0};
    }
    qins_strings_free(&tokens);
    qins_strings_free(&spare);
    return status;
}
