/* Post-processors of tokenizer.json: the tokens that go around a text. SPDX-License-Identifier: MIT */
#ifndef QINS_TEMPLATE_H
#define QINS_TEMPLATE_H

#include "text/json_node.h"
#include "text/vocab.h"

typedef struct qins_template {
    qins_ids items; /* token ids, and QINS_TEMPLATE_TEXT where the text goes */
    bool is_given;  /* by the file; otherwise the text alone */
} qins_template;

#define QINS_TEMPLATE_TEXT (-1)

/* `where` may be null: the text alone. */
qins_status qins_template_load(const qins_node *where, qins_template *template, qins_error *err);
void qins_template_free(qins_template *template);
/* Appends the ids of a text to *out; special tokens only where asked for. */
void qins_template_apply(const qins_template *template, const qins_ids *text, bool add_special, qins_ids *out);

#endif
