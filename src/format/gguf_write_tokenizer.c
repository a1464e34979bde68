/* GGUF metadata from tokenizer.json and its companions. SPDX-License-Identifier: MIT
 *
 * Two kinds can be expressed: byte-level BPE whose pre-tokenizer has a name (`gpt2`), and SentencePiece-like BPE with
 * byte fallback (`llama`), which gets a score for each token in place of merges. gguf_check_tokenizer.c tries whether
 * that was enough.
 */
#include "format/gguf_write_tokenizer.h"

#include "format/gguf_vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define KEY        "tokenizer.ggml."
#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

typedef struct job {
    const qins_tokenizer_source *source;
    qins_gguf_writer *w;
    const json_t *model, *added; /* of tokenizer.json */
    const char **tokens;         /* [n_tokens]; NULL = an id without a token */
    int32_t *types;
    float *scores;
    bool byte_level;
    qins_error *err;
} job;

static qins_status refuse(const job *j, const char *what) {
    return qins_fail(j->err, QINS_ERR_UNSUPPORTED, "%s: tokenizer.json: %s cannot be expressed in a GGUF file",
                     j->source->path, what);
}

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static bool is_type(const json_t *object, const char *type) {
    const char *name = text_of(object, "type");
    return name != NULL && strcmp(name, type) == 0;
}

/* ---- which kind ---- */

/* The same regular expression with the escapes \r, \n and \" written as the characters; a new reference. */
static json_t *canonical_regex(const char *regex) {
    qins_buffer b = {0};
    for (const char *p = regex; *p != '\0'; p++) {
        bool escape = *p == '\\' && p[1] != '\0';
        const char *plain = !escape ? NULL : p[1] == 'r' ? "\r" : p[1] == 'n' ? "\n" : p[1] == '"' ? "\"" : NULL;
        qins_buffer_add(&b, plain != NULL ? plain : p, escape && plain == NULL ? 2 : 1);
        p += escape;
    }
    json_t *text = json_stringn(b.data != NULL ? b.data : "", b.size);
    qins_buffer_free(&b);
    return text;
}

/* The same thing in one spelling: defaults filled in, what has no effect on ids left out, a sequence of one taken for
 * its member. Returns a new reference. */
static json_t *canonical(const json_t *step, const char *members) {
    if (step == NULL || json_is_null(step)) return json_null();
    json_t *copy = json_deep_copy(step), *list = json_object_get(copy, members);
    if (is_type(copy, "Sequence") && json_array_size(list) <= 1) {
        json_t *only = canonical(json_array_get(list, 0), members);
        json_decref(copy);
        return only;
    }
    size_t i;
    json_t *member;
    json_array_foreach(list, i, member) json_array_set_new(list, i, canonical(member, members));
    if (is_type(copy, "ByteLevel")) {
        json_object_del(copy, "trim_offsets");
        if (json_object_get(copy, "use_regex") == NULL) json_object_set_new(copy, "use_regex", json_true());
        if (json_object_get(copy, "add_prefix_space") == NULL)
            json_object_set_new(copy, "add_prefix_space", json_true());
    }
    json_t *pattern = json_object_get(copy, "pattern");
    const char *regex = text_of(pattern, "Regex");
    if (regex != NULL) json_object_set_new(pattern, "Regex", canonical_regex(regex));
    return copy;
}

static bool is_true(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

/* The name for this way to cut text, NULL when there is none. */
static const qins_pre_tokenizer *find_pre_tokenizer(const json_t *tokenizer, const json_t *model) {
    json_t *normalizer = canonical(json_object_get(tokenizer, "normalizer"), "normalizers");
    json_t *pieces = canonical(json_object_get(tokenizer, "pre_tokenizer"), "pretokenizers");
    bool nfc = is_type(normalizer, "NFC"), plain = nfc || json_is_null(normalizer);
    const qins_pre_tokenizer *row = NULL, *found = NULL;
    for (size_t i = 0; plain && found == NULL && (row = qins_pre_tokenizer_at(i)) != NULL; i++) {
        if (row->only_read || row->nfc != nfc || row->ignore_merges != is_true(model, "ignore_merges")) continue;
        json_t *parsed = json_loads(row->pieces, 0, NULL), *known = canonical(parsed, "pretokenizers");
        if (json_equal(known, pieces)) found = row;
        json_decref(parsed);
        json_decref(known);
    }
    json_decref(normalizer);
    json_decref(pieces);
    return found;
}

/* Is a step, or one of a sequence, of this type with this value under a key? */
static bool has_step(const json_t *step, const char *members, const char *type, const char *key, const char *value) {
    const json_t *list = json_object_get(step, members);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (has_step(json_array_get(list, i), members, type, key, value)) return true;
    const char *found = text_of(step, key);
    return is_type(step, type) && found != NULL && strcmp(found, value) == 0;
}

/* Spaces become U+2581, with one in front (*prefix) or without; nothing else happens to the text. */
static bool marks_spaces(const json_t *tokenizer, bool *prefix) {
    const json_t *normalizer = json_object_get(tokenizer, "normalizer"),
                 *pre = json_object_get(tokenizer, "pre_tokenizer");
    size_t n_steps = is_type(normalizer, "Sequence") ? json_array_size(json_object_get(normalizer, "normalizers"))
                                                     : (size_t)json_is_object(normalizer);
    if (is_type(pre, "Metaspace")) {
        const char *scheme = text_of(pre, "prepend_scheme");
        *prefix = scheme == NULL || strcmp(scheme, "never") != 0;
        return n_steps == 0 && json_is_false(json_object_get(pre, "split"));
    }
    *prefix = has_step(normalizer, "normalizers", "Prepend", "prepend", SPACE_MARK);
    bool replaces = has_step(normalizer, "normalizers", "Replace", "content", SPACE_MARK);
    /* gemma also cuts at spaces, which are no longer there by then */
    bool cuts_nothing =
        pre == NULL || json_is_null(pre) ||
        (is_type(pre, "Split") && replaces &&
         json_string_value(json_object_get(json_object_get(pre, "pattern"), "String")) != NULL &&
         strcmp(json_string_value(json_object_get(json_object_get(pre, "pattern"), "String")), " ") == 0);
    return replaces && cuts_nothing && n_steps == 1u + *prefix;
}

static bool is_empty(const json_t *value) {
    return value == NULL || json_is_null(value) || json_string_length(value) == 0;
}

static qins_status put_kind(job *j) {
    const json_t *t = j->source->tokenizer;
    const char *type = text_of(j->model, "type");
    char what[160];
    snprintf(what, sizeof what, "the model type \"%.64s\"", type != NULL ? type : "?");
    if (type == NULL || strcmp(type, "BPE") != 0) return refuse(j, what);
    if (!is_empty(json_object_get(j->model, "continuing_subword_prefix")) ||
        !is_empty(json_object_get(j->model, "end_of_word_suffix")))
        return refuse(j, "a subword prefix or suffix");
    bool prefix = false;
    const qins_pre_tokenizer *pre = find_pre_tokenizer(t, j->model);
    j->byte_level = pre != NULL;
    if (pre == NULL && !(is_true(j->model, "byte_fallback") && marks_spaces(t, &prefix)))
        return refuse(
            j, "this combination of \"normalizer\", \"pre_tokenizer\" and \"ignore_merges\", which has no name,");
    const char *kind = j->byte_level ? "gpt2" : "llama", *name = j->byte_level ? pre->name : "default";
    qins_gguf_put_string(j->w, KEY "model", kind, strlen(kind));
    qins_gguf_put_string(j->w, KEY "pre", name, strlen(name));
    if (!j->byte_level) qins_gguf_put_bool(j->w, KEY "add_space_prefix", prefix);
    return QINS_OK;
}

/* ---- the vocabulary ---- */

static qins_status set_token(job *j, const char *text, json_int_t id) {
    if (id >= 0 && (size_t)id < j->source->n_tokens) {
        j->tokens[id] = text;
        return QINS_OK;
    }
    return qins_fail(j->err, QINS_ERR_FORMAT,
                     "%s: tokenizer.json: token \"%.64s\" has id %" JSON_INTEGER_FORMAT
                     ", but the embedding has %zu rows",
                     j->source->path, text, id, j->source->n_tokens);
}

static bool is_byte_token(const char *text) {
    return strlen(text) == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>';
}

static qins_status collect_tokens(job *j) {
    const char *text;
    json_t *id;
    qins_status status = QINS_OK;
    json_object_foreach((json_t *)(uintptr_t)json_object_get(j->model, "vocab"), text, id) {
        if (status == QINS_OK) status = set_token(j, text, json_integer_value(id));
        if (status != QINS_OK) return status;
        bool byte = !j->byte_level && is_byte_token(text);
        j->types[json_integer_value(id)] = byte ? QINS_TOKEN_BYTE : QINS_TOKEN_NORMAL;
    }
    const char *unknown = text_of(j->model, "unk_token");
    for (size_t i = 0; i < json_array_size(j->added); i++) {
        const json_t *entry = json_array_get(j->added, i);
        const char *content = text_of(entry, "content");
        if (content == NULL || !json_is_integer(json_object_get(entry, "id")))
            return qins_fail(j->err, QINS_ERR_FORMAT, "%s: tokenizer.json: entry %zu of \"added_tokens\" is damaged",
                             j->source->path, i);
        json_int_t at = json_integer_value(json_object_get(entry, "id"));
        status = set_token(j, content, at);
        if (status != QINS_OK) return status;
        bool special = is_true(entry, "special");
        j->types[at] = special ? QINS_TOKEN_CONTROL : QINS_TOKEN_USER;
        if (special && !j->byte_level && unknown != NULL && strcmp(unknown, content) == 0)
            j->types[at] = QINS_TOKEN_UNKNOWN;
    }
    return QINS_OK;
}

bool qins_merge_pieces(const json_t *merge, const char *pieces[2], size_t n[2]) {
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        for (size_t i = 0; i < 2; i++) {
            pieces[i] = json_string_value(json_array_get(merge, i));
            n[i] = json_string_length(json_array_get(merge, i));
        }
        return pieces[0] != NULL && pieces[1] != NULL;
    }
    const char *text = json_string_value(merge), *space = text != NULL ? strchr(text, ' ') : NULL;
    if (space == NULL) return false;
    pieces[0] = text;
    n[0] = (size_t)(space - text);
    pieces[1] = space + 1;
    n[1] = strlen(space + 1);
    return true;
}

static qins_status put_merges(job *j) {
    const json_t *merges = json_object_get(j->model, "merges");
    qins_buffer strings = {0}, one = {0};
    qins_status status = QINS_OK;
    for (size_t i = 0; i < json_array_size(merges) && status == QINS_OK; i++) {
        const char *pieces[2];
        size_t n[2];
        if (!qins_merge_pieces(json_array_get(merges, i), pieces, n) || memchr(pieces[0], ' ', n[0]) != NULL)
            status = refuse(j, "a merge of pieces with spaces in them");
        one.size = 0;
        if (status == QINS_OK) qins_buffer_printf(&one, "%.*s %.*s", (int)n[0], pieces[0], (int)n[1], pieces[1]);
        qins_gguf_add_string(&strings, one.data, one.size);
    }
    if (status == QINS_OK && (strings.failed || one.failed)) status = qins_fail_memory(j->err, strings.size, "merges");
    if (status == QINS_OK)
        qins_gguf_put_array(j->w, KEY "merges", QINS_GGUF_STRING, json_array_size(merges), strings.data, strings.size);
    qins_buffer_free(&strings);
    qins_buffer_free(&one);
    return status;
}

/* The id of the token that each merge makes, -1 for none. */
static qins_status made_by_merges(job *j, const json_t *merges, int32_t **ids) {
    const json_t *vocab = json_object_get(j->model, "vocab");
    qins_buffer token = {0};
    size_t n_merges = json_array_size(merges);
    *ids = qins_alloc(n_merges, sizeof **ids);
    for (size_t i = 0; *ids != NULL && i < n_merges; i++) {
        const char *pieces[2];
        size_t n[2];
        (*ids)[i] = -1;
        if (!qins_merge_pieces(json_array_get(merges, i), pieces, n)) continue; /* the comparison afterwards finds it */
        token.size = 0;
        qins_buffer_add(&token, pieces[0], n[0]);
        qins_buffer_add(&token, pieces[1], n[1]);
        const json_t *id = token.failed ? NULL : json_object_getn(vocab, token.data, token.size);
        if (id != NULL) (*ids)[i] = (int32_t)json_integer_value(id);
    }
    bool failed = token.failed || *ids == NULL;
    qins_buffer_free(&token);
    return failed ? qins_fail_memory(j->err, n_merges * sizeof **ids, "scores") : QINS_OK;
}

/* SentencePiece merges the pair whose result scores best: a token's score is minus the rank of its merges. Tokens whose
 * merges are interleaved have the same. */
static void rank_tokens(job *j, const int32_t *made, size_t n_merges, size_t *last) {
    float rank = 0;
    size_t end = 0;
    for (size_t i = 0; i < n_merges; i++)
        if (made[i] >= 0) last[made[i]] = i;
    for (size_t i = 0; i < n_merges; i++) {
        if (i >= end) rank += 1;
        if (made[i] < 0) continue;
        end = qins_max_size(end, last[made[i]] + 1);
        j->scores[made[i]] = -rank;
    }
}

static qins_status put_scores(job *j) {
    const json_t *merges = json_object_get(j->model, "merges");
    size_t n = j->source->n_tokens, *last = qins_alloc(n, sizeof *last);
    int32_t *made = NULL;
    qins_status status =
        last != NULL ? made_by_merges(j, merges, &made) : qins_fail_memory(j->err, n * sizeof *last, "scores");
    if (status == QINS_OK) {
        rank_tokens(j, made, json_array_size(merges), last);
        for (size_t i = 0; i < n; i++)
            if (j->types[i] != QINS_TOKEN_NORMAL) j->scores[i] = 0.0f;
        qins_gguf_put_array(j->w, KEY "scores", QINS_GGUF_F32, n, j->scores, n * sizeof *j->scores);
    }
    free(made);
    free(last);
    return status;
}

static qins_status put_tokens(job *j) {
    qins_buffer strings = {0};
    size_t n = j->source->n_tokens;
    for (size_t i = 0; i < n; i++) {
        char filler[32];
        snprintf(filler, sizeof filler, "[PAD%zu]", i); /* as llama.cpp's conversion names ids without a token */
        const char *text = j->tokens[i] != NULL ? j->tokens[i] : filler;
        if (j->tokens[i] == NULL) j->types[i] = QINS_TOKEN_UNUSED;
        qins_gguf_add_string(&strings, text, strlen(text));
    }
    qins_status status = strings.failed ? qins_fail_memory(j->err, strings.size, "tokens") : QINS_OK;
    if (status == QINS_OK) {
        qins_gguf_put_array(j->w, KEY "tokens", QINS_GGUF_STRING, n, strings.data, strings.size);
        qins_gguf_put_array(j->w, KEY "token_type", QINS_GGUF_I32, n, j->types, n * sizeof *j->types);
    }
    qins_buffer_free(&strings);
    return status;
}

/* ---- special tokens ---- */

static json_int_t id_of_token(const job *j, const char *text) {
    for (size_t i = 0; text != NULL && i < j->source->n_tokens; i++)
        if (j->tokens[i] != NULL && strcmp(j->tokens[i], text) == 0) return (json_int_t)i;
    return -1;
}

/* From config.json ("bos_token_id") or else tokenizer_config.json ("bos_token"); -1 when neither says. */
static json_int_t special_id(const job *j, const char *id_key, const char *token_key) {
    const json_t *id = json_object_get(j->source->config, id_key);
    if (json_is_array(id)) id = json_array_get(id, 0);
    if (json_is_integer(id)) return json_integer_value(id);
    const json_t *token = json_object_get(j->source->tokenizer_config, token_key);
    return id_of_token(j, json_is_object(token) ? text_of(token, "content") : json_string_value(token));
}

static void put_id(job *j, const char *key, json_int_t id) {
    if (id >= 0 && (size_t)id < j->source->n_tokens) qins_gguf_put_u32(j->w, key, (uint64_t)id);
}

/* Tokens that end a text besides eos go to the two other keys there are. */
static qins_status put_ends(job *j, json_int_t eos) {
    static const char *const keys[] = {KEY "eot_token_id", KEY "eom_token_id"};
    const json_t *lists[] = {json_object_get(j->source->config, "eos_token_id"),
                             json_object_get(j->source->generation_config, "eos_token_id")};
    json_int_t seen[3] = {eos};
    size_t n_seen = 1;
    for (size_t l = 0; l < 2; l++) {
        size_t n = json_is_array(lists[l]) ? json_array_size(lists[l]) : (size_t)json_is_integer(lists[l]);
        for (size_t i = 0; i < n; i++) {
            json_int_t id = json_integer_value(json_is_array(lists[l]) ? json_array_get(lists[l], i) : lists[l]);
            bool is_new = id >= 0;
            for (size_t k = 0; k < n_seen; k++)
                is_new = is_new && seen[k] != id;
            if (!is_new) continue;
            if (n_seen == 3)
                return qins_fail(j->err, QINS_ERR_UNSUPPORTED,
                                 "%s: more than three ids in \"eos_token_id\" cannot be expressed in a GGUF file",
                                 j->source->path);
            put_id(j, keys[n_seen - 1], id);
            seen[n_seen++] = id;
        }
    }
    return QINS_OK;
}

/* The template of a TemplateProcessing in front of which ("bos") or behind which ("eos") a special token stands. */
static qins_status read_template(job *j, const json_t *post, const char *special[2]) {
    if (is_type(post, "Sequence")) {
        const json_t *list = json_object_get(post, "processors");
        qins_status status = QINS_OK;
        for (size_t i = 0; i < json_array_size(list) && status == QINS_OK; i++)
            status = read_template(j, json_array_get(list, i), special);
        return status;
    }
    if (post == NULL || json_is_null(post) || is_type(post, "ByteLevel")) return QINS_OK;
    const json_t *single = json_object_get(post, "single");
    size_t n = json_array_size(single), at = 0;
    if (!is_type(post, "TemplateProcessing")) return refuse(j, "this \"post_processor\"");
    while (at < n && json_object_get(json_array_get(single, at), "Sequence") == NULL)
        at++;
    if (at > 1 || at >= n || n - at > 2) return refuse(j, "a template of more than BOS, text and EOS");
    if (at == 1) special[0] = text_of(json_object_get(json_array_get(single, 0), "SpecialToken"), "id");
    if (n - at == 2) special[1] = text_of(json_object_get(json_array_get(single, at + 1), "SpecialToken"), "id");
    return QINS_OK;
}

static qins_status put_specials(job *j) {
    const char *special[2] = {NULL, NULL};
    qins_status status = read_template(j, json_object_get(j->source->tokenizer, "post_processor"), special);
    if (status != QINS_OK) return status;
    json_int_t bos = special_id(j, "bos_token_id", "bos_token"), eos = special_id(j, "eos_token_id", "eos_token");
    if (special[0] != NULL) bos = id_of_token(j, special[0]);
    if (special[1] != NULL && eos < 0) eos = id_of_token(j, special[1]);
    if (special[1] != NULL && id_of_token(j, special[1]) != eos)
        return refuse(j, "a template that ends with another token than \"eos_token_id\"");
    put_id(j, KEY "bos_token_id", bos);
    put_id(j, KEY "eos_token_id", eos);
    put_id(j, KEY "padding_token_id", special_id(j, "pad_token_id", "pad_token"));
    put_id(j, KEY "unknown_token_id", id_of_token(j, text_of(j->model, "unk_token")));
    qins_gguf_put_bool(j->w, KEY "add_bos_token", special[0] != NULL);
    qins_gguf_put_bool(j->w, KEY "add_eos_token", special[1] != NULL);
    return put_ends(j, eos);
}

/* A template may be a list of named ones: the default one counts. */
static void put_chat_template(job *j) {
    const json_t *t = json_object_get(j->source->tokenizer_config, "chat_template");
    const char *text = j->source->chat_template != NULL ? j->source->chat_template : json_string_value(t);
    for (size_t i = 0; text == NULL && i < json_array_size(t); i++) {
        const char *name = text_of(json_array_get(t, i), "name");
        if (name != NULL && strcmp(name, "default") == 0) text = text_of(json_array_get(t, i), "template");
    }
    if (text != NULL) qins_gguf_put_string(j->w, "tokenizer.chat_template", text, strlen(text));
}

qins_status qins_gguf_put_tokenizer(qins_gguf_writer *w, const qins_tokenizer_source *source, qins_error *err) {
    job j = {.source = source,
             .w = w,
             .model = json_object_get(source->tokenizer, "model"),
             .added = json_object_get(source->tokenizer, "added_tokens"),
             .tokens = qins_alloc(source->n_tokens, sizeof *j.tokens),
             .types = qins_alloc(source->n_tokens, sizeof *j.types),
             .scores = qins_alloc(source->n_tokens, sizeof *j.scores),
             .err = err};
    qins_status status = QINS_OK;
    if (j.tokens == NULL || j.types == NULL || j.scores == NULL)
        status = qins_fail_memory(err, source->n_tokens * sizeof *j.tokens, "a vocabulary");
    if (status == QINS_OK) status = put_kind(&j);
    if (status == QINS_OK) status = collect_tokens(&j);
    if (status == QINS_OK) status = put_tokens(&j);
    if (status == QINS_OK) status = j.byte_level ? put_merges(&j) : put_scores(&j);
    if (status == QINS_OK) status = put_specials(&j);
    if (status == QINS_OK) put_chat_template(&j);
    free(j.tokens);
    free(j.types);
    free(j.scores);
    return status;
}

static bool starts_with(qins_gguf_string s, const char *prefix) {
    return s.n >= strlen(prefix) && memcmp(s.data, prefix, strlen(prefix)) == 0;
}

void qins_gguf_copy_metadata(qins_gguf_writer *w, const qins_checkpoint *checkpoint) {
    static const char *const own[] = {"general.architecture", "general.file_type", "general.quantization_version",
                                      "general.alignment"};
    const qins_gguf *g = checkpoint->private_data->gguf;
    for (size_t i = 0; i < g->n_values; i++) {
        const qins_gguf_value *v = &g->values[i];
        bool copied = starts_with(v->key, "tokenizer.") || starts_with(v->key, "general.");
        for (size_t k = 0; k < sizeof own / sizeof own[0]; k++)
            copied = copied && !(v->key.n == strlen(own[k]) && starts_with(v->key, own[k]));
        if (copied) qins_gguf_put_value(w, v);
    }
}
