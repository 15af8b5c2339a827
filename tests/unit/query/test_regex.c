/* Patterns: anchoring, Go's spellings, literal sets against RE2 itself, captures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "base/status.h"
#include "query/regex.h"
#include "query/regex_re2.h"

#define BYTES_MAX (256u << 20)

static bool matches(const char *pattern, const char *value) {
    char error[REGEX_ERROR_BYTES] = "";
    struct regex *regex;
    if (regex_new(slice_str(pattern), BYTES_MAX, false, error, &regex) < 0)
        fail_msg("%s: %s", pattern, error);
    bool result = regex_pattern(regex)->match(regex_pattern(regex), slice_str(value));
    assert_ptr_equal(regex_of(regex_pattern(regex)), regex);
    regex_free(regex);
    return result;
}

static void anchored(void **state) {
    (void)state;
    assert_true(matches("a.c", "abc"));
    assert_false(matches("a.c", "xabc"));
    assert_false(matches("a.c", "abcx"));
    assert_true(matches("a.c", "a\nc"));
    assert_true(matches(".*", ""));
    assert_true(matches(".*", "a\nb"));
    assert_false(matches(".+", ""));
    assert_true(matches(".+", "\n"));
    assert_true(matches("", ""));
    assert_false(matches("", "a"));
    assert_true(matches("a|", ""));
    assert_false(matches("a|b", "ab"));
    assert_false(matches("x.*|b", "ab"));
    assert_true(matches("(?i)ABC", "aBc"));
    assert_true(matches("\\Qa.b\\E", "a.b"));
    assert_false(matches("\\Qa.b\\E", "axb"));
    assert_true(matches("ab*", "a"));
    assert_true(matches("ab?c", "ac"));
    assert_true(matches("ab{0}", "a"));
    assert_true(matches("\xc3\xa9*", ""));
    assert_true(matches("(?<name>a)(?P<other>b)", "ab"));
    assert_true(matches("[(?<x>]+", "?<x>("));
    assert_true(matches("\\(?<x", "<x"));
}

static void refused(void **state) {
    (void)state;
    static const char *const bad[] = {"(",     "a)",  "a)(b",    "[",    "*",      "a**",
                                      "(?=a)", "\\1", "a{1001}", "\xff", "(?<=a)b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char error[REGEX_ERROR_BYTES] = "";
        struct regex *regex;
        if (regex_new(slice_str(bad[i]), BYTES_MAX, false, error, &regex) != STATUS_BAD_QUERY)
            fail_msg("%s was accepted", bad[i]);
        assert_true(error[0] != 0);
    }
    char error[REGEX_ERROR_BYTES] = "";
    struct regex *regex;
    assert_int_equal(regex_new(slice_str("((a{100}){100}){100}"), 1 << 16, false, error, &regex),
                     STATUS_BAD_QUERY);
}

static void hints(void **state) {
    (void)state;
    struct regex *regex;
    char error[REGEX_ERROR_BYTES];
    assert_int_equal(regex_new(slice_str("(b|a\\.c|b)"), BYTES_MAX, false, error, &regex), STATUS_OK);
    const struct matcher_pattern *pattern = regex_pattern(regex);
    assert_int_equal(pattern->literal_count, 2);
    assert_true(slice_equal(pattern->literals[0], slice_str("a.c")));
    assert_true(slice_equal(pattern->literals[1], slice_str("b")));
    regex_free(regex);
    static const struct {
        const char *pattern, *prefix;
    } cases[] = {{"abc.*", "abc"}, {"abc*", "ab"},      {"abc+", "abc"}, {"a.*|b", ""},
                 {"(?i)a", ""},    {"a\xc3\xa9?", "a"}, {"^a", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(regex_new(slice_str(cases[i].pattern), BYTES_MAX, false, error, &regex), STATUS_OK);
        pattern = regex_pattern(regex);
        if (!slice_equal(pattern->prefix, slice_str(cases[i].prefix)))
            fail_msg("%s: prefix %.*s", cases[i].pattern, SLICE_ARGS(pattern->prefix));
        assert_int_equal(pattern->literal_count, 0);
        regex_free(regex);
    }
    assert_int_equal(regex_new(slice_str(".*"), BYTES_MAX, false, error, &regex), STATUS_OK);
    assert_true(regex_pattern(regex)->matches_all);
    regex_free(regex);
}

/* Our shortcuts (sets, prefixes) against the engine alone, on random patterns over a tiny alphabet. */
static void same_as_the_engine(void **state) {
    (void)state;
    static const char alphabet[] = "aab|.*+?()\\-";
    struct rand rand;
    rand_init(&rand, 11);
    size_t compared = 0;
    for (int round = 0; round < 20000; round++) {
        char text[16], wrapped[64], error[REGEX_ERROR_BYTES];
        size_t len = rand_below(&rand, 8);
        for (size_t i = 0; i < len; i++)
            text[i] = alphabet[rand_below(&rand, sizeof alphabet - 1)];
        text[len] = 0;
        struct regex *regex;
        bool out_of_memory;
        int wrapped_len = snprintf(wrapped, sizeof wrapped, "(?:%s)", text);
        void *bare = re2_new(text, len, BYTES_MAX, error, sizeof error, &out_of_memory);
        int status = regex_new(slice_str(text), BYTES_MAX, false, error, &regex);
        assert_int_equal(status < 0, bare == NULL);
        if (bare == NULL)
            continue;
        void *engine = re2_new(wrapped, (size_t)wrapped_len, BYTES_MAX, error, sizeof error, &out_of_memory);
        assert_non_null(engine);
        for (int k = 0; k < 20; k++) {
            char value[8];
            size_t value_len = rand_below(&rand, 5);
            for (size_t i = 0; i < value_len; i++)
                value[i] = "ab.|-"[rand_below(&rand, 5)];
            const struct matcher_pattern *pattern = regex_pattern(regex);
            bool ours = pattern->match(pattern, slice_of(value, value_len));
            if (ours != re2_match(engine, value, value_len))
                fail_msg("pattern %s, value %.*s: %d", text, (int)value_len, value, ours);
            compared++;
        }
        re2_free(engine);
        re2_free(bare);
        regex_free(regex);
    }
    assert_true(compared > 50000);
}

static void large_alternation(void **state) {
    (void)state;
    struct buf text;
    buf_init(&text);
    for (int i = 0; i < 40000; i++)
        buf_printf(&text, "%snode_cpu_seconds_total_of_something_%d", i == 0 ? "" : "|", i);
    struct regex *regex;
    char error[REGEX_ERROR_BYTES];
    assert_int_equal(regex_new(buf_slice(&text), 1 << 20, false, error, &regex), STATUS_OK);
    const struct matcher_pattern *pattern = regex_pattern(regex);
    assert_int_equal(pattern->literal_count, 40000);
    assert_true(pattern->match(pattern, slice_str("node_cpu_seconds_total_of_something_39999")));
    assert_false(pattern->match(pattern, slice_str("node_cpu_seconds_total_of_something_40000")));
    regex_free(regex);
    buf_release(&text);
}

static void expands(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *value, *replacement, *result; /* NULL: no match */
    } cases[] = {
        {"(.*)-(.*)", "a-b", "$2-$1", "b-a"},
        {"(?P<x>.*)", "v", "<${x}$x$$1>", "<vv$1>"},
        {"(.*)", "v", "$1x", ""},
        {"(.*)", "v", "${1}x", "vx"},
        {"(.*)", "v", "$", "$"},
        {"(.*)", "v", "${1", "${1"},
        {"a(b)?c", "ac", "[$1]", "[]"},
        {"a", "b", "c", NULL},
        {"(?<go>.+)", "v", "$go", "v"},
        {".*", "", "x", "x"},
        {"(.*)", "v", "$7", ""},
        {"(.*)", "v", "$0$01", "v"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct regex *regex;
        char error[REGEX_ERROR_BYTES];
        struct buf out;
        buf_init(&out);
        assert_int_equal(regex_new(slice_str(cases[i].pattern), BYTES_MAX, true, error, &regex), STATUS_OK);
        bool matched = regex_expand(regex, slice_str(cases[i].value), slice_str(cases[i].replacement), &out);
        assert_int_equal(matched, cases[i].result != NULL);
        if (matched && !slice_equal(buf_slice(&out), slice_str(cases[i].result)))
            fail_msg("%s on %s: %.*s", cases[i].replacement, cases[i].pattern, (int)out.len,
                     (char *)out.data);
        buf_release(&out);
        regex_free(regex);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anchored),           cmocka_unit_test(refused),           cmocka_unit_test(hints),
        cmocka_unit_test(same_as_the_engine), cmocka_unit_test(large_alternation), cmocka_unit_test(expands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
