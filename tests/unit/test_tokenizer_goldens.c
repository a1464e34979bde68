/* Small tokenizers of every kind against the tokenizers package: tools/make_tokenizer_goldens.py. Set
 * QINS_TOKENIZER_GOLDENS to compare with another folder of its making. SPDX-License-Identifier: MIT */
#include "tokenizer_testing.h"

#include <dirent.h>
#include <time.h>

typedef struct golden {
    char name[128];
    json_t *inputs, *ids, *special, *plain, *text, *skipped;
    json_t *expected; /* owns the five above */
    qins_tokenizer *tokenizer;
} golden;

static const char *folder(void) {
    const char *other = getenv("QINS_TOKENIZER_GOLDENS");
    return other != NULL ? other : QINS_SOURCE_DIR "/tests/golden/tokenizers";
}

static json_t *load(const char *name, const char *suffix) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s", folder(), name, suffix);
    return json_of_file(path);
}

static golden load_golden(const char *name) {
    golden g = {.inputs = load("inputs", ".json"), .expected = load(name, ".expected.json")};
    snprintf(g.name, sizeof g.name, "%s", name);
    json_t *json = load(name, ".tokenizer.json");
    g.tokenizer = tokenizer_of(json);
    json_decref(json);
    g.ids = json_object_get(g.expected, "ids");
    g.special = json_object_get(g.expected, "special");
    g.plain = json_object_get(g.expected, "plain");
    g.text = json_object_get(g.expected, "text");
    g.skipped = json_object_get(g.expected, "skipped");
    assert_true(json_array_size(g.inputs) > 100 && json_array_size(g.ids) == json_array_size(g.inputs));
    assert_true(json_array_size(g.special) > 0 && json_array_size(g.skipped) == json_array_size(g.special));
    return g;
}

static void free_golden(golden *g) {
    qins_tokenizer_free(g->tokenizer);
    json_decref(g->inputs);
    json_decref(g->expected);
}

/* Calls check for each tokenizer of the folder; the test fails when there are fewer than there are kinds. */
static void for_each_golden(void (*check)(const golden *g)) {
    static const char suffix[] = ".tokenizer.json";
    size_t n_found = 0;
    DIR *dir = opendir(folder());
    if (dir == NULL) fail_msg("%s: cannot be read", folder());
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        size_t n = strlen(entry->d_name);
        if (n <= sizeof suffix || strcmp(entry->d_name + n - (sizeof suffix - 1), suffix) != 0) continue;
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(n - (sizeof suffix - 1)), entry->d_name);
        golden g = load_golden(name);
        check(&g);
        free_golden(&g);
        n_found++;
    }
    closedir(dir);
    assert_true(n_found >= 20);
}

static const json_t *or_else(const json_t *list, size_t i, const json_t *same) {
    const json_t *item = json_array_get(list, i);
    return json_is_null(item) ? same : item;
}

static id_list list_of(const json_t *json) {
    id_list ids = {.size = json_array_size(json)};
    ids.data = malloc((ids.size + 1) * sizeof *ids.data);
    assert_non_null(ids.data);
    for (size_t i = 0; i < ids.size; i++)
        ids.data[i] = (int32_t)json_integer_value(json_array_get(json, i));
    return ids;
}

static void assert_encodes(const golden *g, size_t input, bool add_special, bool parse_special,
                           const json_t *expected) {
    const json_t *text = json_array_get(g->inputs, input);
    id_list want = list_of(expected);
    id_list got =
        encode_with(g->tokenizer, json_string_value(text), json_string_length(text), add_special, parse_special);
    size_t same = 0;
    while (same < got.size && same < want.size && got.data[same] == want.data[same])
        same++;
    if (same < got.size || same < want.size)
        fail_msg("%s: input %zu \"%.200s\" (special tokens: add %d, parse %d): %zu ids, expected %zu; the first to "
                 "differ is %zu",
                 g->name, input, json_string_value(text), add_special, parse_special, got.size, want.size, same);
    free(want.data);
    free(got.data);
}

static void check_ids(const golden *g) {
    for (size_t i = 0; i < json_array_size(g->inputs); i++) {
        const json_t *ids = json_array_get(g->ids, i);
        assert_encodes(g, i, false, true, ids);
        assert_encodes(g, i, false, false, or_else(g->plain, i, ids));
        if (i < json_array_size(g->special)) assert_encodes(g, i, true, true, or_else(g->special, i, ids));
    }
}

static const json_t *decoded(const golden *g, size_t input) {
    return or_else(g->text, input, json_array_get(g->inputs, input));
}

static void assert_decodes_to(const golden *g, const json_t *ids, bool skip_special, const json_t *expected) {
    id_list list = list_of(ids);
    assert_decodes(g->tokenizer, list.data, list.size, skip_special, json_string_value(expected),
                   json_string_length(expected));
    free(list.data);
}

static void check_text(const golden *g) {
    for (size_t i = 0; i < json_array_size(g->inputs); i++) {
        const json_t *ids = json_array_get(g->ids, i);
        assert_decodes_to(g, ids, false, decoded(g, i));
        if (i < json_array_size(g->skipped))
            assert_decodes_to(g, or_else(g->special, i, ids), true, or_else(g->skipped, i, decoded(g, i)));
    }
}

/* Invalid runs of byte tokens are the exception that tokenizer.h speaks of: they become U+FFFD as a whole. */
static bool has_invalid_bytes(const golden *g, size_t input) {
    static const char replacement[] = "\xEF\xBF\xBD";
    return strstr(json_string_value(decoded(g, input)), replacement) != NULL &&
           strstr(json_string_value(json_array_get(g->inputs, input)), replacement) == NULL;
}

static void check_stream(const golden *g) {
    size_t n_checked = 0;
    for (size_t i = 0; i < json_array_size(g->inputs); i++) {
        if (has_invalid_bytes(g, i)) continue;
        n_checked++;
        id_list ids = list_of(json_array_get(g->ids, i));
        const json_t *expected = decoded(g, i);
        size_t done = 0, n = 0;
        const char *part = "";
        qins_detok *stream;
        qins_error err = {0};
        assert_int_equal(qins_detok_of(g->tokenizer, false, &stream, &err), QINS_OK);
        for (size_t k = 0; k <= ids.size; k++) {
            if (k < ids.size)
                assert_int_equal(qins_detok_push(stream, ids.data[k], &part, &n, &err), QINS_OK);
            else
                assert_int_equal(qins_detok_finish(stream, &part, &n, &err), QINS_OK);
            if (n > json_string_length(expected) - done || memcmp(part, json_string_value(expected) + done, n) != 0)
                fail_msg("%s: input %zu: part %zu is \"%s\", expected \"%.40s\"", g->name, i, k, part,
                         json_string_value(expected) + done);
            assert_true(done + n == json_string_length(expected) ||
                        ((unsigned char)json_string_value(expected)[done + n] & 0xC0) != 0x80);
            done += n;
        }
        assert_int_equal(done, json_string_length(expected));
        qins_detok_free(stream);
        free(ids.data);
    }
    assert_true(n_checked > 100);
}

/* Sanitizers and busy machines are slow; a quadratic method would take hours. */
enum { MAX_SECONDS = 15 };

static void check_long_runs(const golden *g) {
    enum { N = 1 << 18 };
    static const char *const units[] = {
        "a", " ", "\n", "7", "!", "ab ", "\xE2\x96\x81", "\xF0\x9F\x98\x80", "\xCC\x81\xCC\xA3"};
    char *text = malloc(N);
    assert_non_null(text);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t length = strlen(units[u]), n = N / length * length;
        for (size_t i = 0; i < n; i++)
            text[i] = units[u][i % length];
        clock_t start = clock();
        id_list ids = encode_with(g->tokenizer, text, n, false, true);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (seconds > MAX_SECONDS) fail_msg("%s: 256 KiB of \"%s\" took %.0f s", g->name, units[u], seconds);
        free(ids.data);
    }
    free(text);
}

static void long_runs_of_one_character_take_no_kind_quadratic_time(void **state) {
    (void)state;
    for_each_golden(check_long_runs);
}

static void ids_of_every_kind_equal_those_of_tokenizers(void **state) {
    (void)state;
    for_each_golden(check_ids);
}

static void decoded_text_of_every_kind_equals_that_of_tokenizers(void **state) {
    (void)state;
    for_each_golden(check_text);
}

static void text_of_a_stream_of_ids_is_that_of_all_ids_and_never_ends_in_half_a_character(void **state) {
    (void)state;
    for_each_golden(check_stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_every_kind_equal_those_of_tokenizers),
        cmocka_unit_test(decoded_text_of_every_kind_equals_that_of_tokenizers),
        cmocka_unit_test(long_runs_of_one_character_take_no_kind_quadratic_time),
        cmocka_unit_test(text_of_a_stream_of_ids_is_that_of_all_ids_and_never_ends_in_half_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
