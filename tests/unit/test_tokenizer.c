/* Byte-level BPE against the tokenizers package, and against damaged files. SPDX-License-Identifier: MIT */
#include "npy.h"
#include "tokenizer_testing.h"

#include "text/utf8.h"

#include <stdio.h>
#include <time.h>

#define TOY    QINS_SOURCE_DIR "/models/toy/tokenizer.json"
#define GOLDEN QINS_SOURCE_DIR "/tests/golden/text/"

typedef struct corpus {
    char *text;
    npy_array blocks, ids, offsets;
} corpus;

static corpus load_corpus(void) {
    corpus c = {0};
    size_t size;
    qins_error err = {0};
    if (qins_read_file(GOLDEN "corpus.txt", SIZE_MAX / 2, &c.text, &size, &err) != QINS_OK) fail_msg("%s", err.message);
    c.blocks = npy_load(GOLDEN "blocks.npy", "<i8");
    c.ids = npy_load(GOLDEN "toy_ids.npy", "<i4");
    c.offsets = npy_load(GOLDEN "toy_offsets.npy", "<i8");
    assert_int_equal(((const int64_t *)c.blocks.data)[c.blocks.n_values - 1], size);
    assert_true(c.blocks.n_values > 100);
    return c;
}

static void free_corpus(corpus *c) {
    free(c->text);
    npy_free(&c->blocks);
    npy_free(&c->ids);
    npy_free(&c->offsets);
}

static void ids_of_the_toy_equal_those_of_tokenizers_on_the_corpus(void **state) {
    (void)state;
    corpus c = load_corpus();
    qins_tokenizer *t = tokenizer_of_file(TOY);
    const int64_t *blocks = c.blocks.data, *offsets = c.offsets.data;
    for (size_t i = 0; i + 1 < c.blocks.n_values; i++) {
        id_list ids = encode_with(t, c.text + blocks[i], (size_t)(blocks[i + 1] - blocks[i]), false, true);
        assert_int_equal(ids.size, offsets[i + 1] - offsets[i]);
        assert_memory_equal(ids.data, (const int32_t *)c.ids.data + offsets[i], ids.size * sizeof *ids.data);
        free(ids.data);
    }
    qins_tokenizer_free(t);
    free_corpus(&c);
}

static void decoding_gives_the_corpus_back_with_invalid_bytes_replaced(void **state) {
    (void)state;
    corpus c = load_corpus();
    qins_tokenizer *t = tokenizer_of_file(TOY);
    const int64_t *blocks = c.blocks.data;
    for (size_t i = 0; i + 1 < c.blocks.n_values; i++) {
        size_t n = (size_t)(blocks[i + 1] - blocks[i]);
        id_list ids = encode_with(t, c.text + blocks[i], n, false, true);
        qins_buffer expected = {0};
        qins_buffer_add(&expected, "", 0);
        qins_utf8_repair(c.text + blocks[i], n, &expected);
        assert_decodes(t, ids.data, ids.size, false, expected.data, expected.size);
        qins_buffer_free(&expected);
        free(ids.data);
    }
    qins_tokenizer_free(t);
    free_corpus(&c);
}

/* What Python's bytes.decode("utf-8", "replace") gives, with ? for U+FFFD. */
static void each_maximal_invalid_part_becomes_one_replacement_character(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *repaired;
    } cases[] = {{"a\xFF"
                  "b",
                  "a?b"},
                 {"\x80\x80", "??"},
                 {"\xC0\xAF", "??"},           /* overlong */
                 {"\xE0\x80\x80", "???"},      /* overlong */
                 {"\xED\xA0\x80", "???"},      /* surrogate */
                 {"\xF4\x90\x80\x80", "????"}, /* above U+10FFFF */
                 {"\xE2\x82", "?"},            /* cut off at the end */
                 {"\xE2\x82z", "?z"},          /* cut off by another character */
                 {"\xF0\x9F\x98\xE2\x82\xAC", "?\xE2\x82\xAC"},
                 {"\xF0\x9F\x98\x80\x80", "\xF0\x9F\x98\x80?"},
                 {"\xC3\xC3\xA9", "?\xC3\xA9"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qins_buffer out = {0}, expected = {0};
        qins_utf8_repair(cases[i].bytes, strlen(cases[i].bytes), &out);
        for (const char *p = cases[i].repaired; *p != '\0'; p++)
            qins_buffer_add(&expected, *p == '?' ? "\xEF\xBF\xBD" : p, *p == '?' ? 3 : 1);
        assert_string_equal(out.data, expected.data);
        assert_false(qins_utf8_is_valid(cases[i].bytes, strlen(cases[i].bytes)));
        qins_buffer_free(&out);
        qins_buffer_free(&expected);
    }
}

/* Five letters, "ab", "abc" and an added token; no pre-tokenizer. */
#define LETTERS                                                                                                        \
    "'vocab': {'a': 0, 'b': 1, 'c': 2, 'd': 3, ' ': 4, 'ab': 5, 'abc': 6, 'cd': 7}, 'dropout': null, "                 \
    "'unk_token': null"
#define STRING_MERGES "'merges': ['c d', 'a b', 'ab c']"
#define ADDED(extra)                                                                                                   \
    "'added_tokens': [{'id': 8, 'content': '<x>', 'special': true, 'single_word': false, 'lstrip': false, "            \
    "'rstrip': false, 'normalized': false}" extra "]"
#define SMALL "{" ADDED("") ", 'model': {'type': 'BPE', " LETTERS ", " STRING_MERGES "}}"

static void merges_go_by_rank_and_not_by_place(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text(SMALL);
    assert_ids(t, "abcd", "5 7"); /* "cd" has the lower rank, and takes the c from "abc" */
    assert_ids(t, "abcab", "6 5");
    assert_ids(t, "", "");
    qins_tokenizer_free(t);
}

static void merges_written_as_pairs_are_the_same_as_merges_written_as_strings(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text("{'model': {" LETTERS ", 'merges': [['c', 'd'], ['a', 'b'], ['ab', 'c']]}}");
    assert_ids(t, "abcdabc", "5 7 6");
    qins_tokenizer_free(t);
}

static void characters_outside_the_vocabulary_are_left_out_without_an_unknown_token(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text(SMALL);
    assert_ids(t, "axb", "5");
    qins_tokenizer_free(t);
}

static void ignore_merges_takes_a_word_of_the_vocabulary_whole(void **state) {
    (void)state;
    qins_tokenizer *t =
        tokenizer_of_text("{'model': {'vocab': {'a': 0, 'b': 1, 'ab': 2}, 'merges': [], 'ignore_merges': true}}");
    assert_ids(t, "ab", "2");
    assert_ids(t, "aba", "0 1 0");
    qins_tokenizer_free(t);
}

static void special_tokens_are_recognised_only_when_asked_for(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text(SMALL);
    assert_ids_with(t, "ab<x>c", false, true, "5 8 2");
    assert_ids_with(t, "ab<x>c", false, false, "6"); /* <, x and > are no letters here */
    assert_true(qins_tokenizer_is_special(t, 8));
    assert_false(qins_tokenizer_is_special(t, 5));
    assert_int_equal(qins_tokenizer_id(t, "<x>"), 8);
    assert_int_equal(qins_tokenizer_id(t, "abc"), 6);
    assert_int_equal(qins_tokenizer_id(t, "abd"), -1);
    assert_int_equal(qins_tokenizer_size(t), 9);
    static const int32_t ids[] = {5, 8, 2, 99, -1};
    assert_decodes(t, ids, 5, false, "ab <x> c", 8); /* no decoder: joined by spaces */
    assert_decodes(t, ids, 5, true, "ab c", 4);
    qins_tokenizer_free(t);
}

static void added_tokens_strip_spaces_and_ask_for_whole_words(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text("{" ADDED(
        ", {'id': 9, 'content': '[l]', 'special': false, 'single_word': false, 'lstrip': true, 'rstrip': "
        "false, 'normalized': false}, {'id': 10, 'content': '[r]', 'special': false, 'single_word': false, "
        "'lstrip': false, 'rstrip': true, 'normalized': false}, {'id': 11, 'content': 'da', 'special': "
        "false, 'single_word': true, 'lstrip': false, 'rstrip': false, 'normalized': false}") ", 'model': {" LETTERS
                                                                                              ", " STRING_MERGES "}}");
    assert_ids(t, "a  [l]  b", "0 9 4 4 1");
    assert_ids(t, "a  [r]  b", "0 4 4 10 1");
    assert_ids(t, "da dab da", "11 4 3 5 4 11");
    assert_ids(t, "a<x>da", "0 8 11"); /* a word of its own beside another added token */
    qins_tokenizer_free(t);
}

static void the_longest_added_token_wins(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text("{" ADDED(
        ", {'id': 9, 'content': '<x><x>', 'special': false, 'single_word': false, "
        "'lstrip': false, 'rstrip': false, 'normalized': false}") ", 'model': {" LETTERS ", " STRING_MERGES "}}");
    assert_ids(t, "<x><x><x>", "9 8");
    qins_tokenizer_free(t);
}

static void templates_put_tokens_around_the_text(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text("{" ADDED(
        "") ", 'model': {" LETTERS ", " STRING_MERGES "}, 'post_processor': {'type': 'Sequence', 'processors': "
            "[{'type': 'ByteLevel'}, {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': 'S', "
            "'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}}, {'SpecialToken': {'id': 'S', "
            "'type_id': 0}}], 'pair': [], 'special_tokens': {'S': {'id': 'S', 'ids': [8, 3], 'tokens': "
            "['<x>', 'd']}}}]}}");
    assert_ids_with(t, "ab", true, true, "8 3 5 8 3");
    assert_ids_with(t, "ab", false, true, "5");
    assert_ids_with(t, "", true, true, "8 3 8 3");
    qins_tokenizer_free(t);
}

static void assert_next(qins_detok *stream, int32_t id, const char *expected) {
    const char *part;
    size_t n;
    qins_error err = {0};
    if (id >= 0)
        assert_int_equal(qins_detok_push(stream, id, &part, &n, &err), QINS_OK);
    else
        assert_int_equal(qins_detok_finish(stream, &part, &n, &err), QINS_OK);
    assert_string_equal(part, expected);
    assert_int_equal(n, strlen(expected));
}

static void a_stream_holds_the_bytes_of_a_character_back_until_it_is_whole(void **state) {
    (void)state;
    /* byte-level characters of E2 82 AC (the euro sign) and FF, and two letters */
    qins_tokenizer *t =
        tokenizer_of_text("{'model': {'vocab': {'a': 0, 'b': 1, '\xC3\xA2': 2, '\xC4\xA4': 3, "
                          "'\xC2\xAC': 4, '\xC3\xBF': 5}, 'merges': []}, 'decoder': {'type': 'ByteLevel'}}");
    qins_detok *stream;
    assert_int_equal(qins_detok_of(t, false, &stream, NULL), QINS_OK);
    assert_next(stream, 0, "a");
    assert_next(stream, 2, "");
    assert_next(stream, 3, "");
    assert_next(stream, 4, "\xE2\x82\xAC");
    assert_next(stream, 99, ""); /* no such token */
    assert_next(stream, 2, "");
    assert_next(stream, 1,
                "\xEF\xBF\xBD"
                "b"); /* the character is broken off */
    assert_next(stream, 5, "\xEF\xBF\xBD");
    assert_next(stream, 2, "");
    assert_next(stream, -1, "\xEF\xBF\xBD");
    qins_detok_free(stream);
    qins_tokenizer_free(t);
}

static void a_stream_takes_the_space_off_the_first_token_only(void **state) {
    (void)state;
    qins_tokenizer *t = tokenizer_of_text(
        "{'model': {'vocab': {'\xE2\x96\x81"
        "a': 0, '<0xE2>': 1, '<0x82>': 2, '<0xAC>': 3}, 'merges': []}, 'decoder': "
        "{'type': 'Sequence', 'decoders': [{'type': 'Replace', 'pattern': {'String': '\xE2\x96\x81'}, 'content': ' '}, "
        "{'type': 'ByteFallback'}, {'type': 'Fuse'}, {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}]}}");
    qins_detok *stream;
    assert_int_equal(qins_detok_of(t, false, &stream, NULL), QINS_OK);
    assert_next(stream, 0, "a");
    assert_next(stream, 0, " a");
    assert_next(stream, 1, "");
    assert_next(stream, 2, "");
    assert_next(stream, 3, "\xE2\x82\xAC");
    assert_next(stream, 0, " a");
    assert_next(stream, 1, "");
    assert_next(stream, -1, "\xEF\xBF\xBD");
    qins_detok_free(stream);
    qins_tokenizer_free(t);
}

static void seconds_stay_few(const char *what, clock_t start) {
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 20)
        fail_msg("%s took %.0f s", what, seconds); /* a quadratic method takes hours; sanitizers are slow */
}

static void a_megabyte_of_one_character_takes_no_quadratic_time(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    static const char *const units[] = {"a", " ", "\n", "7", "!", "\xC3\xA9", "\xF0\x9F\x98\x80", "\xCC\x81\xCC\xA3"};
    qins_tokenizer *t = tokenizer_of_file(TOY);
    char *text = malloc(N);
    assert_non_null(text);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t length = strlen(units[u]), n = N / length * length;
        for (size_t i = 0; i < n; i++)
            text[i] = units[u][i % length];
        clock_t start = clock();
        id_list ids = encode_with(t, text, n, false, true);
        assert_decodes(t, ids.data, ids.size, false, text, n);
        free(ids.data);
        seconds_stay_few(units[u], start);
    }
    free(text);
    qins_tokenizer_free(t);
}

static void malformed_files_are_refused_with_the_place(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[]", "(top level): expected an object, found an array"},
        {"{}", "model: expected an object, found nothing"},
        {"{'model': {'type': 3}}", "model.type: expected a string, found an integer"},
        {"{'version': 1}", "version: expected a string, found an integer"},
        {"{'model': {}}", "model.vocab: expected an object, found nothing"},
        {"{'model': {'vocab': {'a': 'b'}}}", "model.vocab.a: expected an integer, found a string"},
        {"{'model': {'vocab': {'a': -1}}}", "model.vocab.a: expected an integer from 0 to 16777215, found -1"},
        {"{'model': {'vocab': {'a': 99999999}}}", "from 0 to 16777215, found 99999999"},
        {"{'model': {'vocab': {'a': 0, 'b': 0}}}", "have the same id 0"},
        {"{'model': {'vocab': {'a': 0}}}", "model.merges: expected an array, found nothing"},
        {"{'model': {'vocab': {'a': 0}, 'merges': [7]}}", "model.merges[0]: expected a string or an array"},
        {"{'model': {'vocab': {'a': 0}, 'merges': ['a']}}", "model.merges[0]: expected two tokens"},
        {"{'model': {'vocab': {'a': 0}, 'merges': [['a']]}}", "model.merges[0]: expected two strings, found 1"},
        {"{'model': {'vocab': {'a': 0}, 'merges': ['a b']}}", "merge token \"b\" is not in the vocabulary"},
        {"{'model': {'vocab': {'a': 0}, 'merges': ['a a']}}", "merge token \"aa\" is not in the vocabulary"},
        {"{'model': {'vocab': {'a': 0}, 'merges': [], 'byte_fallback': 1}}", "model.byte_fallback: expected true or"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'added_tokens': {}}", "added_tokens: expected an array"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'added_tokens': [{'id': 1, 'content': 'x'}]}",
         "added_tokens[0].special: expected true or false, found nothing"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'added_tokens': [{'id': 1, 'content': 'a', 'special': true, "
         "'single_word': false, 'lstrip': false, 'rstrip': false, 'normalized': false}]}",
         "\"a\" has id 1 here and 0 in the vocabulary"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'added_tokens': [{'id': 0, 'content': 'b', 'special': true, "
         "'single_word': false, 'lstrip': false, 'rstrip': false, 'normalized': false}]}",
         "\"b\" has id 0, which is that of \"a\""},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'pre_tokenizer': 'x'}", "pre_tokenizer: expected an object"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'pre_tokenizer': {'type': 'Sequence'}}",
         "pre_tokenizer.pretokenizers: expected an array"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': "
         "[{'type': 'Split', 'behavior': 'Isolated', 'invert': false, 'pattern': {'Regex': '(a'}}]}}",
         "pre_tokenizer.pretokenizers[0].pattern.Regex: regular expression: a group has no )"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'post_processor': {'type': 'TemplateProcessing', 'single': "
         "[{'SpecialToken': {'id': 'S'}}], 'special_tokens': {'S': {'ids': [5]}}}}",
         "post_processor: no token has the id 5"},
        {"{'model': {'type': 'Unigram'}}", "model.vocab: expected an array, found nothing"},
        {"{'model': {'type': 'Unigram', 'vocab': [['a']]}}", "model.vocab[0]: expected a token and its score, found 1"},
        {"{'model': {'type': 'Unigram', 'vocab': [['a', 'b']]}}",
         "model.vocab[0][1]: expected a number, found a string"},
        {"{'model': {'type': 'Unigram', 'vocab': [['a', 0]], 'unk_id': 1}}", "model.unk_id: no token has the id 1"},
        {"{'model': {'vocab': {'a': 0}, 'merges': []}, 'decoder': {'type': 'Strip', 'content': 'ab', 'start': 0, "
         "'stop': 0}}",
         "decoder.content: expected one character, found \"ab\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].text, QINS_ERR_FORMAT, cases[i].message);
}

static void what_is_not_implemented_is_refused_by_name(void **state) {
    (void)state;
#define MODEL "'model': {'vocab': {'a': 0}, 'merges': []}"
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{'version': '2.0'}", "version \"2.0\""},
        {"{'model': {'type': 'WordPiece'}}", "model \"WordPiece\""},
        {"{'model': {'type': 'WordLevel'}}", "model \"WordLevel\""},
        {"{'model': {'vocab': {'a': 0}, 'merges': [], 'dropout': 0.1}}", "model.dropout: random merges (0.1)"},
        {"{'model': {'vocab': {'a': 0}, 'merges': [], 'end_of_word_suffix': '</w>'}}", "end_of_word_suffix: \"</w>\""},
        {"{" MODEL ", 'normalizer': {'type': 'BertNormalizer'}}", "normalizer \"BertNormalizer\""},
        {"{" MODEL ", 'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'Precompiled'}]}}",
         "normalizer.normalizers[0].type: normalizer \"Precompiled\""},
        {"{" MODEL ", 'normalizer': {'type': 'StripAccents'}}", "normalizer \"StripAccents\""},
        {"{" MODEL ", 'pre_tokenizer': {'type': 'BertPreTokenizer'}}", "pre-tokenizer \"BertPreTokenizer\""},
        {"{" MODEL ", 'decoder': {'type': 'WordPiece'}}", "decoder \"WordPiece\""},
        {"{" MODEL ", 'post_processor': {'type': 'Other'}}", "post-processor \"Other\""},
        {"{" MODEL ", 'pre_tokenizer': {'type': 'Split', 'behavior': 'Isolated', 'invert': false, 'pattern': {'Regex': "
         "'(a)\\\\1'}}}",
         "regular expression: \\1 is not supported"},
        {"{" MODEL ", 'pre_tokenizer': {'type': 'Split', 'behavior': 'Isolated', 'invert': false, 'pattern': {'Regex': "
         "'[\\\\w&&[^a]]'}}}",
         "regular expression: && in a class"},
        {"{" MODEL ", 'pre_tokenizer': {'type': 'Split', 'behavior': 'Isolated', 'invert': false, 'pattern': {'Regex': "
         "'\\\\p{Alnum}'}}}",
         "property \\p{Alnum} is not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].text, QINS_ERR_UNSUPPORTED, cases[i].message);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_the_toy_equal_those_of_tokenizers_on_the_corpus),
        cmocka_unit_test(decoding_gives_the_corpus_back_with_invalid_bytes_replaced),
        cmocka_unit_test(each_maximal_invalid_part_becomes_one_replacement_character),
        cmocka_unit_test(merges_go_by_rank_and_not_by_place),
        cmocka_unit_test(merges_written_as_pairs_are_the_same_as_merges_written_as_strings),
        cmocka_unit_test(characters_outside_the_vocabulary_are_left_out_without_an_unknown_token),
        cmocka_unit_test(ignore_merges_takes_a_word_of_the_vocabulary_whole),
        cmocka_unit_test(special_tokens_are_recognised_only_when_asked_for),
        cmocka_unit_test(added_tokens_strip_spaces_and_ask_for_whole_words),
        cmocka_unit_test(the_longest_added_token_wins),
        cmocka_unit_test(templates_put_tokens_around_the_text),
        cmocka_unit_test(a_stream_holds_the_bytes_of_a_character_back_until_it_is_whole),
        cmocka_unit_test(a_stream_takes_the_space_off_the_first_token_only),
        cmocka_unit_test(a_megabyte_of_one_character_takes_no_quadratic_time),
        cmocka_unit_test(malformed_files_are_refused_with_the_place),
        cmocka_unit_test(what_is_not_implemented_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
