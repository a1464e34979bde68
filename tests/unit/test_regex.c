/* Tokenizers' regular expressions mean what they mean in Oniguruma. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "text/pattern.h"

/* The matches of a pattern, as "0-2 3-4"; every expectation here was checked with tokenizers' Split. */
static void assert_matches(const char *regex, const char *text, const char *expected) {
    qins_node where = qins_node_root(NULL, "test");
    qins_pattern p;
    qins_error err = {0};
    if (qins_pattern_regex(&where, regex, strlen(regex), &p, &err) != QINS_OK) fail_msg("%s: %s", regex, err.message);
    struct pcre2_real_match_data_8 *scratch = qins_match_scratch_new();
    qins_matches m;
    qins_buffer found = {0};
    qins_buffer_add(&found, "", 0);
    qins_matches_begin(&m, &p, scratch, text, strlen(text));
    size_t start, end;
    for (bool more = true; more;) {
        assert_int_equal(qins_matches_next(&m, &start, &end, &more, &err), QINS_OK);
        if (more) qins_buffer_printf(&found, "%s%zu-%zu", found.size > 0 ? " " : "", start, end);
    }
    if (strcmp(found.data, expected) != 0) fail_msg("%s: expected %s, found %s", regex, expected, found.data);
    qins_buffer_free(&found);
    qins_match_scratch_free(scratch);
    qins_pattern_free(&p);
}

static void assert_refused(const char *regex, qins_status status, const char *message) {
    qins_node where = qins_node_root(NULL, "test");
    qins_pattern p;
    qins_error err = {0};
    assert_int_equal(qins_pattern_regex(&where, regex, strlen(regex), &p, &err), status);
    assert_contains(err.message, message);
    qins_pattern_free(&p);
}

static void a_possessive_interval_is_a_repeated_one(void **state) {
    (void)state;
    assert_matches("\\d{1,3}+", "1234567", "0-7"); /* as in Ruby; in Perl it would be three digits */
    assert_matches("a{2}?", "aaa", "0-2 3-3");     /* optional, not lazy */
    assert_matches("a{,2}b", "aaab", "1-4");
    assert_matches("a{x", "a{x", "0-3"); /* a literal brace */
}

static void lines_end_as_in_oniguruma(void **state) {
    (void)state;
    assert_matches("\\s+$", " \n\n", "0-3");
    assert_matches("a$", "a\na", "0-1 2-3");
    assert_matches("^a", "a\na", "0-1 2-3");
    assert_matches("\\Aa", "a\na", "0-1");
    assert_matches("a\\Z", "a\na\n", "2-3");
    assert_matches(".", "a\nb", "0-1 2-3");
    assert_matches("(?m:.)", "a\nb", "0-1 1-2 2-3");
}

static void spaces_and_words_are_those_of_oniguruma(void **state) {
    (void)state;
    assert_matches("\\s", "\xE1\xA0\x8E\xC2\x85\x1C\xE2\x80\xA8", "3-5 6-9"); /* U+180E and U+001C are none */
    assert_matches("\\w", "\xC2\xBD_-a", "0-2 2-3 4-5");                      /* one half is a word character */
    assert_matches("[\\w]", "\xC2\xBD_-a", "2-3 4-5");                        /* but not in a class */
    assert_matches("\\b", "ab c", "0-0 2-2 3-3 4-4");
    assert_matches("(?i:'s)", "'S '\xC5\xBF", "0-2 3-6"); /* the long s is an s */
}

/* PCRE2 10.42 finds nothing here when it may turn repeats into possessive ones. */
static void adjacent_negated_properties_give_back(void **state) {
    (void)state;
    assert_matches("\\P{N}*\\P{L}", "a\n", "0-2");
}

static void empty_matches_are_found_between_others(void **state) {
    (void)state;
    assert_matches("x*", "axxb", "0-0 1-3 4-4");
    assert_matches("", "ab", "0-0 1-1 2-2");
}

static void constructs_without_a_counterpart_are_refused_by_name(void **state) {
    (void)state;
    assert_refused("(a)\\1", QINS_ERR_UNSUPPORTED, "\\1 is not supported");
    assert_refused("(?<x>a)", QINS_ERR_UNSUPPORTED, "this kind of group");
    assert_refused("[a&&b]", QINS_ERR_UNSUPPORTED, "&& in a class");
    assert_refused("[[:alpha:]]", QINS_ERR_UNSUPPORTED, "a POSIX class");
    assert_refused("[a[b]]", QINS_ERR_UNSUPPORTED, "a class in a class");
    assert_refused("\\h", QINS_ERR_UNSUPPORTED, "\\h is not supported");
    assert_refused("\\p{Emoji}", QINS_ERR_UNSUPPORTED, "property \\p{Emoji}");
    assert_refused("(?i:\\p{Lu})", QINS_ERR_UNSUPPORTED, "a case of letters");
    assert_refused("(?i:ss)", QINS_ERR_UNSUPPORTED, "where case is ignored");
    assert_refused("(*FAIL)", QINS_ERR_UNSUPPORTED, "(*");
    assert_refused("a**", QINS_ERR_UNSUPPORTED, "a repeat of a repeat");
    assert_refused("+", QINS_ERR_UNSUPPORTED, "a repeat with nothing to repeat");
    assert_refused("(a", QINS_ERR_FORMAT, "a group has no )");
    assert_refused("a)", QINS_ERR_FORMAT, "a ) without a (");
    assert_refused("[a", QINS_ERR_FORMAT, "a class has no ]");
    assert_refused("a\\", QINS_ERR_FORMAT, "ends with a backslash");
    assert_refused("\\x{110000}", QINS_ERR_FORMAT, "expected a hexadecimal character number");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_possessive_interval_is_a_repeated_one),
        cmocka_unit_test(lines_end_as_in_oniguruma),
        cmocka_unit_test(spaces_and_words_are_those_of_oniguruma),
        cmocka_unit_test(adjacent_negated_properties_give_back),
        cmocka_unit_test(empty_matches_are_found_between_others),
        cmocka_unit_test(constructs_without_a_counterpart_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
