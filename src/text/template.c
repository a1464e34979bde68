/* Post-processors of tokenizer.json: the tokens that go around a text. SPDX-License-Identifier: MIT */
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 /* of Sequences in Sequences */, MAX_ITEMS = 4096 };

/* {"Sequence": {"id": "A"}} */
static qins_status add_sequence(const qins_node *sequence, qins_template *template, qins_error *err) {
    qins_node id = qins_node_field(sequence, "id");
    const char *s;
    size_t n;
    qins_status status = qins_node_string(&id, &s, &n, err);
    if (status != QINS_OK) return status;
    if (strcmp(s, "A") != 0)
        return qins_node_fail(&id, QINS_ERR_FORMAT, err,
                              "expected \"A\" in the template of a single text, found \"%.20s\"", s);
    qins_ids_add(&template->items, QINS_TEMPLATE_TEXT);
    return QINS_OK;
}

/* {"SpecialToken": {"id": "<s>"}}, with its ids in special_tokens["<s>"]["ids"]. */
static qins_status add_special(const qins_node *special, const qins_node *special_tokens, qins_template *template,
                               qins_error *err) {
    qins_node name = qins_node_field(special, "id");
    const char *s;
    size_t n;
    qins_status status = qins_node_string(&name, &s, &n, err);
    if (status != QINS_OK) return status;
    qins_node token = qins_node_field(special_tokens, s);
    if (token.json == NULL) return qins_node_fail(&name, QINS_ERR_FORMAT, err, "\"%.80s\" is not in special_tokens", s);
    qins_node ids = qins_node_field(&token, "ids");
    status = qins_node_array(&ids, &n, err);
    for (size_t i = 0; i < n && status == QINS_OK; i++) {
        uint32_t id = 0;
        qins_node item = qins_node_item(&ids, i);
        status = qins_node_index(&item, QINS_MAX_TOKEN_ID, &id, err);
        if (status == QINS_OK && template->items.size > MAX_ITEMS)
            status = qins_node_fail(&ids, QINS_ERR_FORMAT, err, "too many special tokens");
        if (status == QINS_OK) qins_ids_add(&template->items, (int32_t)id);
    }
    return status;
}

static qins_status load_template(const qins_node *where, qins_template *template, qins_error *err) {
    qins_node single = qins_node_field(where, "single"), special_tokens = qins_node_field(where, "special_tokens");
    size_t n = 0;
    qins_status status = qins_node_array(&single, &n, err);
    if (status == QINS_OK) status = qins_node_object(&special_tokens, err);
    if (status == QINS_OK && n > MAX_ITEMS) status = qins_node_fail(&single, QINS_ERR_FORMAT, err, "too many items");
    for (size_t i = 0; i < n && status == QINS_OK; i++) {
        qins_node item = qins_node_item(&single, i);
        qins_node sequence = qins_node_field(&item, "Sequence"), special = qins_node_field(&item, "SpecialToken");
        if (sequence.json != NULL)
            status = add_sequence(&sequence, template, err);
        else if (special.json != NULL)
            status = add_special(&special, &special_tokens, template, err);
        else
            status = qins_node_fail(&item, QINS_ERR_FORMAT, err, "expected a Sequence or a SpecialToken");
    }
    return status;
}

/* ["</s>", 2] */
static qins_status pair_id(const qins_node *where, const char *key, uint32_t *id, qins_error *err) {
    qins_node pair = qins_node_field(where, key);
    size_t n = 0;
    qins_status status = qins_node_array(&pair, &n, err);
    if (status != QINS_OK) return status;
    if (n != 2) return qins_node_fail(&pair, QINS_ERR_FORMAT, err, "expected a token and its id, found %zu values", n);
    qins_node item = qins_node_item(&pair, 1);
    return qins_node_index(&item, QINS_MAX_TOKEN_ID, id, err);
}

/* RobertaProcessing and BertProcessing: cls, text, sep. */
static qins_status load_cls_sep(const qins_node *where, qins_template *template, qins_error *err) {
    uint32_t cls = 0, sep = 0;
    qins_status status = pair_id(where, "cls", &cls, err);
    if (status == QINS_OK) status = pair_id(where, "sep", &sep, err);
    if (status != QINS_OK) return status;
    qins_ids_add(&template->items, (int32_t)cls);
    qins_ids_add(&template->items, QINS_TEMPLATE_TEXT);
    qins_ids_add(&template->items, (int32_t)sep);
    return QINS_OK;
}

static qins_status load_one(const qins_node *where, qins_template *template, int depth, qins_error *err) {
    static const char *const names[] = {"ByteLevel",         "Sequence",       "TemplateProcessing",
                                        "RobertaProcessing", "BertProcessing", NULL};
    enum { BYTE_LEVEL, SEQUENCE, TEMPLATE };
    size_t kind = 0, n = 0;
    qins_node type = qins_node_field(where, "type");
    qins_status status = qins_node_object(where, err);
    if (status == QINS_OK) status = qins_node_choice(&type, names, "post-processor", &kind, err);
    if (status != QINS_OK || kind == BYTE_LEVEL) return status; /* ByteLevel is about offsets only */
    if (kind == SEQUENCE) {
        if (depth == MAX_DEPTH) return qins_node_fail(where, QINS_ERR_FORMAT, err, "Sequences are nested too deeply");
        qins_node list = qins_node_field(where, "processors");
        status = qins_node_array(&list, &n, err);
        for (size_t i = 0; i < n && status == QINS_OK; i++) {
            qins_node item = qins_node_item(&list, i);
            status = load_one(&item, template, depth + 1, err);
        }
        return status;
    }
    if (template->is_given)
        return qins_node_fail(where, QINS_ERR_UNSUPPORTED, err, "a template around a template is not supported");
    template->is_given = true;
    return kind == TEMPLATE ? load_template(where, template, err) : load_cls_sep(where, template, err);
}

qins_status qins_template_load(const qins_node *where, qins_template *template, qins_error *err) {
    *template = (qins_template){0};
    qins_status status = qins_node_is_null(where) ? QINS_OK : load_one(where, template, 0, err);
    if (status == QINS_OK && !template->is_given) qins_ids_add(&template->items, QINS_TEMPLATE_TEXT);
    if (status == QINS_OK && template->items.failed) status = qins_fail_memory(err, 64, "a template");
    if (status != QINS_OK) qins_template_free(template);
    return status;
}

void qins_template_free(qins_template *template) {
    free(template->items.data);
    *template = (qins_template){0};
}

void qins_template_apply(const qins_template *template, const qins_ids *text, bool add_special, qins_ids *out) {
    for (size_t i = 0; i < template->items.size; i++) {
        int32_t item = template->items.data[i];
        if (item != QINS_TEMPLATE_TEXT) {
            if (add_special) qins_ids_add(out, item);
            continue;
        }
        int32_t *ids = qins_ids_reserve(out, text->size);
        if (ids == NULL) return;
        if (text->size > 0) memcpy(ids, text->data, text->size * sizeof *ids);
        out->size += text->size;
    }
}
