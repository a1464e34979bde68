/* Chat formats against what transformers makes of the models' templates. SPDX-License-Identifier: MIT */
#include "testing.h"
#include "text/chat.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 8 };

static const char *text_of(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    return s != NULL ? s : "";
}

static size_t messages_of(const json_t *list, qins_chat_message *messages) {
    size_t n = json_array_size(list);
    assert_true(n <= MAX_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(list, i);
        const char *role = text_of(m, "role"), *text = text_of(m, "content");
        messages[i] = (qins_chat_message){strcmp(role, "system") == 0 ? QINS_CHAT_SYSTEM
                                          : strcmp(role, "user") == 0 ? QINS_CHAT_USER
                                                                      : QINS_CHAT_ASSISTANT,
                                          text, strlen(text)};
    }
    return n;
}

/* Parts cover the text, and those that are not markup are the texts of messages. */
static void write_all(const qins_chat_style *style, const qins_chat_message *messages, size_t n, bool continues,
                      qins_buffer *out) {
    qins_buffer parts = {0};
    size_t before = out->size, covered = 0;
    qins_chat_write(style, messages, n, continues, out, &parts);
    for (size_t i = 0; i < parts.size / sizeof(qins_chat_part); i++) {
        qins_chat_part part;
        memcpy(&part, parts.data + i * sizeof part, sizeof part);
        covered += part.n_bytes;
    }
    assert_int_equal(covered, out->size - before);
    qins_buffer_free(&parts);
}

static json_t *load_goldens(void) {
    json_error_t error;
    json_t *goldens = json_load_file(QINS_SOURCE_DIR "/tests/golden/chat/conversations.json", 0, &error);
    if (goldens == NULL) fail_msg("%s", error.text);
    return goldens;
}

static void every_template_is_recognised_and_rendered(void **state) {
    (void)state;
    json_t *goldens = load_goldens(), *models = json_object_get(goldens, "models");
    assert_true(json_array_size(models) >= 16);
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *model = json_array_get(models, i), *cases = json_object_get(model, "cases");
        qins_chat_style style =
            qins_chat_style_of(text_of(model, "template"), NULL, text_of(model, "bos"), text_of(model, "eos"));
        assert_string_equal(style.format->name, text_of(model, "format"));
        assert_true(style.is_own);
        for (size_t k = 0; k < json_array_size(cases); k++) {
            qins_chat_message messages[MAX_MESSAGES];
            size_t n = messages_of(json_object_get(json_array_get(cases, k), "messages"), messages);
            qins_buffer text = {0};
            write_all(&style, messages, n, false, &text);
            if (strcmp(text.data, text_of(json_array_get(cases, k), "text")) != 0)
                fail_msg("%s, case %zu: %s", text_of(model, "model"), k, text.data);
            qins_buffer_free(&text);
        }
    }
    json_decref(goldens);
}

/* First message, answer of the model, second message: together the conversation as a whole, where the answer is what
 * the format puts between its opening and its end. */
static void a_conversation_may_be_written_in_pieces(void **state) {
    (void)state;
    static const qins_chat_message messages[] = {{QINS_CHAT_SYSTEM, "Be brief.", 9},
                                                 {QINS_CHAT_USER, "One?", 4},
                                                 {QINS_CHAT_ASSISTANT, "Two.", 4},
                                                 {QINS_CHAT_USER, "Three?", 6}};
    for (const qins_chat_format *f = qins_chat_formats; f->name != NULL; f++) {
        qins_chat_style style = qins_chat_style_of(NULL, f, "<s>", "</s>");
        qins_buffer whole = {0}, pieces = {0};
        write_all(&style, messages, 4, false, &whole);
        write_all(&style, messages, 2, false, &pieces);
        const char *before = f->assistant + strlen(f->answer); /* of the text: a space or nothing */
        qins_buffer_add(&pieces, before, (size_t)(strstr(before, "{text}") - before));
        qins_buffer_add(&pieces, "Two.", 4);
        if (strncmp(strstr(f->assistant, "{text}") + 6, " ", 1) == 0) qins_buffer_add(&pieces, " ", 1);
        write_all(&style, messages + 3, 1, true, &pieces);
        assert_string_equal(pieces.data, whole.data);
        qins_buffer_free(&whole);
        qins_buffer_free(&pieces);
    }
}

static void unknown_templates_are_not_guessed(void **state) {
    (void)state;
    static const char *const unknown[] = {
        "",       "{{ messages }}", "{% for m in messages %}### Instruction:\n{{ m.content }}{% endfor %}",
        "[INST]", "<|im_start|>",   "<|user|>{{ x }}<|assistant|>"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        qins_chat_style style = qins_chat_style_of(unknown[i], NULL, "", "");
        assert_string_equal(style.format->name, "plain");
        assert_false(style.is_own);
    }
    assert_null(qins_chat_format_named("jinja"));
    assert_string_equal(qins_chat_style_of(NULL, NULL, "", "").format->name, "plain");
}

/* A default system message is a literal of the template, never a part of its program. */
static void default_system_messages_are_literals(void **state) {
    (void)state;
    static const char known[] = "<|im_start|>system\\nBe good.<|im_end|>";
    qins_chat_style style = qins_chat_style_of(known, NULL, "", "");
    assert_int_equal(style.default_system_bytes, 8);
    assert_memory_equal(style.default_system, "Be good.", 8);
    static const char *const none[] = {"<|im_start|>system\\n' + message <|im_end|>", "<|im_start|>system<|im_end|>",
                                       "<|im_start|>system\\n{{ x }}<|im_end|>", "<|im_end|><|im_start|>system\\nBe"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_null(qins_chat_style_of(none[i], NULL, "", "").default_system);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_template_is_recognised_and_rendered),
        cmocka_unit_test(a_conversation_may_be_written_in_pieces),
        cmocka_unit_test(unknown_templates_are_not_guessed),
        cmocka_unit_test(default_system_messages_are_literals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
