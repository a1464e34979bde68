/* Writing GGUF files: blocks, metadata, tokenizers. SPDX-License-Identifier: MIT */
#include "tokenizer_testing.h"

#include "format/gguf_write_tokenizer.h"

#include <unistd.h>

#define GOLDEN QINS_SOURCE_DIR "/tests/golden/"

static qins_gguf_writer *new_writer(const char *arch) {
    qins_error err = {0};
    qins_gguf_writer *w = NULL;
    assert_int_equal(qins_gguf_writer_new(&w, &err), QINS_OK);
    qins_gguf_put_string(w, "general.architecture", arch, strlen(arch));
    return w;
}

static qins_gguf *view_of(const qins_gguf_writer *w) {
    qins_error err = {0};
    qins_gguf *g = NULL;
    if (qins_gguf_writer_view(w, "written.gguf", &g, &err) != QINS_OK) fail_msg("%s", err.message);
    return g;
}

/* ---- blocks ---- */

static const qins_tensor *tensor_named(const qins_gguf *g, const char *name) {
    for (size_t i = 0; i < g->tensors.n; i++)
        if (strcmp(g->tensors.items[i].name, name) == 0) return &g->tensors.items[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

/* types.gguf holds the same weights as F32 and as the gguf package quantizes them; a row is tiny, a block zero. */
static void q8_0_blocks_are_bit_exact_with_the_gguf_package(void **state) {
    (void)state;
    qins_error err = {0};
    qins_map map;
    qins_gguf *g = NULL;
    assert_int_equal(qins_map_open(GOLDEN "gguf/types.gguf", &map, &err), QINS_OK);
    assert_int_equal(qins_gguf_parse(map.data, map.size, map.path, &g, &err), QINS_OK);
    const qins_tensor *floats = tensor_named(g, "f32"), *blocks = tensor_named(g, "q8_0");
    size_t n = (size_t)floats->n_values;
    float *values = malloc(n * sizeof *values);
    uint8_t *bytes = malloc((size_t)blocks->n_bytes);
    assert_true(values != NULL && bytes != NULL);
    memcpy(values, floats->data, n * sizeof *values);
    qins_quantize_q8_0(values, n, bytes);
    assert_memory_equal(bytes, blocks->data, (size_t)blocks->n_bytes);
    free(values);
    free(bytes);
    qins_gguf_free(g);
    qins_map_close(&map);
}

static void q8_0_rounds_halves_away_from_zero(void **state) {
    (void)state;
    float values[32] = {127.0f, 0.5f, -0.5f, 1.5f, -2.5f, 0.49f};
    uint8_t block[34];
    qins_quantize_q8_0(values, 32, block);
    const int8_t expected[6] = {127, 1, -1, 2, -3, 0};
    assert_memory_equal(block + 2, expected, sizeof expected);
}

/* ---- files ---- */

static void what_is_written_parses_to_the_same(void **state) {
    (void)state;
    char path[] = "/tmp/qins-gguf-write-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    qins_error err = {0};
    qins_gguf_writer *w = new_writer("test");
    qins_gguf_put_u32(w, "test.number", 7);
    qins_gguf_put_f32(w, "test.real", 0.25);
    qins_gguf_put_bool(w, "test.flag", true);
    const float vector[3] = {1, 2, 3};
    const uint64_t shape[2] = {2, 32};
    assert_int_equal(qins_gguf_writer_add_f32(w, "v", vector, 3, &err), QINS_OK);
    assert_int_equal(qins_gguf_writer_add(w, "m", QINS_TYPE_Q8_0, 2, shape, &err), QINS_OK);
    qins_outfile *out = NULL;
    assert_int_equal(qins_outfile_begin(path, false, &out, &err), QINS_ERR_EXISTS);
    assert_int_equal(qins_outfile_begin(path, true, &out, &err), QINS_OK);
    uint8_t blocks[2 * 34];
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (uint8_t)i;
    assert_int_equal(qins_gguf_writer_begin(w, qins_outfile_writer(out), &err), QINS_OK);
    assert_int_equal(qins_gguf_writer_put(w, vector, sizeof vector, &err), QINS_OK);
    assert_int_equal(qins_gguf_writer_put(w, blocks, 34, &err), QINS_OK);
    assert_int_equal(qins_gguf_writer_finish(w, &err), QINS_ERR_ARGUMENT); /* half of m is missing */
    assert_int_equal(qins_gguf_writer_put(w, blocks + 34, 35, &err), QINS_ERR_ARGUMENT);
    assert_int_equal(qins_gguf_writer_put(w, blocks + 34, 34, &err), QINS_OK);
    assert_int_equal(qins_gguf_writer_finish(w, &err), QINS_OK);
    assert_int_equal(qins_outfile_commit(out, &err), QINS_OK);
    qins_map map;
    qins_gguf *g = NULL;
    assert_int_equal(qins_map_open(path, &map, &err), QINS_OK);
    if (qins_gguf_parse(map.data, map.size, path, &g, &err) != QINS_OK) fail_msg("%s", err.message);
    int64_t number;
    double real;
    bool flag;
    assert_true(qins_gguf_get_integer(g, "test.number", &number) && number == 7);
    assert_true(qins_gguf_get_number(g, "test.real", &real) && real == 0.25);
    assert_true(qins_gguf_get_bool(g, "test.flag", &flag) && flag);
    assert_int_equal(g->tensors.n, 2);
    assert_memory_equal(tensor_named(g, "v")->data, vector, sizeof vector);
    assert_memory_equal(tensor_named(g, "m")->data, blocks, sizeof blocks);
    assert_int_equal(tensor_named(g, "m")->shape[0], 2);
    qins_gguf_free(g);
    qins_map_close(&map);
    qins_gguf_writer_free(w);
    unlink(path);
}

static void an_aborted_file_leaves_nothing_behind(void **state) {
    (void)state;
    char folder[] = "/tmp/qins-outfile-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/f", folder);
    qins_error err = {0};
    qins_outfile *out = NULL;
    assert_int_equal(qins_outfile_begin(path, false, &out, &err), QINS_OK);
    qins_writer_put(qins_outfile_writer(out), "half", 4);
    qins_outfile_abort(out);
    assert_int_equal(rmdir(folder), 0); /* empty */
}

/* ---- tokenizers ---- */

/* Bytes of every kind: the corpus of the tokenizer goldens. */
static char *read_corpus(size_t *n) {
    char *text = NULL;
    qins_error err = {0};
    if (qins_read_file(GOLDEN "text/corpus.txt", SIZE_MAX / 2, &text, n, &err) != QINS_OK) fail_msg("%s", err.message);
    return text;
}

static size_t vocabulary_size(const json_t *tokenizer) {
    qins_tokenizer *t = tokenizer_of(tokenizer);
    size_t n = qins_tokenizer_size(t);
    qins_tokenizer_free(t);
    return n;
}

static qins_status put_and_check(const json_t *tokenizer, const char *arch, json_t **read, qins_error *err) {
    json_t *config = json_object();
    const qins_tokenizer_source source = {.path = "model",
                                          .tokenizer = tokenizer,
                                          .config = config,
                                          .n_tokens = vocabulary_size(tokenizer) + 3}; /* padded, as many are */
    qins_gguf_writer *w = new_writer(arch);
    qins_status status = qins_gguf_put_tokenizer(w, &source, err);
    if (status == QINS_OK) {
        qins_gguf *g = view_of(w);
        status = qins_gguf_check_tokenizer(g, &source, err);
        if (status == QINS_OK && read != NULL) status = qins_gguf_tokenizer(g, read, err);
        qins_gguf_free(g);
    }
    qins_gguf_writer_free(w);
    json_decref(config);
    return status;
}

static void assert_same_ids(const json_t *a, const json_t *b, const char *name) {
    qins_tokenizer *x = tokenizer_of(a), *y = tokenizer_of(b);
    size_t n;
    char *text = read_corpus(&n);
    id_list p = encode_with(x, text, n, true, true), q = encode_with(y, text, n, true, true);
    if (p.size != q.size || memcmp(p.data, q.data, p.size * sizeof *p.data) != 0) fail_msg("%s: ids differ", name);
    free(p.data);
    free(q.data);
    free(text);
    qins_tokenizer_free(x);
    qins_tokenizer_free(y);
}

static json_t *golden_tokenizer(const char *name) {
    char path[512];
    snprintf(path, sizeof path, GOLDEN "tokenizers/%s.tokenizer.json", name);
    return json_of_file(path);
}

static void byte_level_tokenizers_give_the_same_ids_when_read_back(void **state) {
    (void)state;
    static const char *const names[] = {"llama3", "qwen2", "smollm", "neox", "deepseek_v3", "o200k"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *tokenizer = golden_tokenizer(names[i]), *read = NULL;
        qins_error err = {0};
        if (put_and_check(tokenizer, "llama", &read, &err) != QINS_OK) fail_msg("%s: %s", names[i], err.message);
        assert_same_ids(tokenizer, read, names[i]);
        json_decref(tokenizer);
        json_decref(read);
    }
}

static void sentencepiece_tokenizers_give_the_same_ids_when_read_back(void **state) {
    (void)state;
    qins_error err = {0};
    qins_map map;
    qins_gguf *g = NULL;
    json_t *tokenizer = NULL, *read = NULL;
    assert_int_equal(qins_map_open(GOLDEN "gguf/spm.gguf", &map, &err), QINS_OK);
    assert_int_equal(qins_gguf_parse(map.data, map.size, map.path, &g, &err), QINS_OK);
    assert_int_equal(qins_gguf_tokenizer(g, &tokenizer, &err), QINS_OK);
    if (put_and_check(tokenizer, "llama", &read, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_same_ids(tokenizer, read, "spm");
    /* Another order of merges is another tokenizer. */
    json_t *merges = json_object_get(json_object_get(tokenizer, "model"), "merges");
    json_t *first = json_incref(json_array_get(merges, 0));
    json_array_remove(merges, 0);
    assert_int_equal(put_and_check(tokenizer, "llama", NULL, &err), QINS_ERR_UNSUPPORTED);
    assert_contains(err.message, "do not follow from a score");
    json_decref(first);
    json_decref(tokenizer);
    json_decref(read);
    qins_gguf_free(g);
    qins_map_close(&map);
}

static void tokenizers_without_a_name_in_gguf_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *message;
    } cases[] = {{"unigram", "model type \"Unigram\""},
                 {"gpt2", "pre_tokenizer"}, /* a space in front of the text */
                 {"falcon", "pre_tokenizer"},
                 {"normalized", "normalizer"},
                 {"llama2", "\"single_word\" of the added token"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *tokenizer = golden_tokenizer(cases[i].name);
        qins_error err = {0};
        if (put_and_check(tokenizer, "llama", NULL, &err) != QINS_ERR_UNSUPPORTED) fail_msg("%s", cases[i].name);
        assert_contains(err.message, cases[i].message);
        json_decref(tokenizer);
    }
}

static void flags_of_added_tokens_that_gguf_lacks_are_refused(void **state) {
    (void)state;
    json_t *tokenizer = golden_tokenizer("smollm");
    qins_error err = {0};
    json_object_set_new(json_array_get(json_object_get(tokenizer, "added_tokens"), 1), "lstrip", json_true());
    assert_int_equal(put_and_check(tokenizer, "llama", NULL, &err), QINS_ERR_UNSUPPORTED);
    assert_contains(err.message, "\"lstrip\" of the added token \"<|im_start|>\"");
    json_decref(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_0_blocks_are_bit_exact_with_the_gguf_package),
        cmocka_unit_test(q8_0_rounds_halves_away_from_zero),
        cmocka_unit_test(what_is_written_parses_to_the_same),
        cmocka_unit_test(an_aborted_file_leaves_nothing_behind),
        cmocka_unit_test(byte_level_tokenizers_give_the_same_ids_when_read_back),
        cmocka_unit_test(sentencepiece_tokenizers_give_the_same_ids_when_read_back),
        cmocka_unit_test(tokenizers_without_a_name_in_gguf_are_refused),
        cmocka_unit_test(flags_of_added_tokens_that_gguf_lacks_are_refused),
    };
    return cmocka_run_group_tests_name("gguf_write", tests, NULL, NULL);
}
