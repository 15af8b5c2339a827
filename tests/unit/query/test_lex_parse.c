/* What parses and what does not, with Prometheus' words and positions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "query/parse.h"

static struct limits limits;

static int parse(struct slice text, struct query_error *error) {
    struct arena arena;
    struct parse_result parsed;
    arena_init(&arena, 0, 0);
    *error = (struct query_error){0};
    int status = query_parse(text, &limits, &arena, error, &parsed);
    if (status >= 0)
        parse_regexes_release(&parsed.regexes);
    arena_release(&arena);
    return status;
}

static void accepts(void **state) {
    (void)state;
    static const char *const texts[] = {
        "1",
        "08 + 09.5 + 010 + 0x1F + 1_000 + .5 + 5. + 1e+3",
        "-2 ^ 2",
        "2 ^ -1",
        "- - - 1",
        "1 == bool 2",
        "inf + NaN + Inf",
        "\"a\\x41\\101\\u00e9\\U0001F600\\n\\\"\"",
        "`raw\nstring`",
        "foo",
        ":foo:bar:",
        "sum",
        "by",
        "offset",
        "start",
        "fill",
        "foo{}",
        "foo{a=\"b\",}",
        "foo { a != \"b\" , c =~ 'd.*' , e !~ `f` }",
        "{\"utf8.name\"}",
        "{\"utf8.name\", a=\"b\"}",
        "{\"quoted label\"=\"v\"}",
        "{__name__=~\"a|b\", __name__!=\"c\"}",
        "{sum=\"1\", by=\"2\", offset=\"3\"}",
        "foo[5m]",
        "foo[300]",
        "foo[1h30m] offset -5m",
        "foo[5m] @ 123.456 offset 1w",
        "foo offset 5m @ start()",
        "foo @ end() offset 0s",
        "foo[5m:1m]",
        "foo[5m:]",
        "rate(foo[5m:30s] offset 1m)",
        "sum(foo)[5m:1m] @ -3",
        "foo[2 * (1m + 30s)]",
        "foo[step()]",
        "foo[max_of(1m, range() / 2):min_of(5s, step())]",
        "foo offset (1m + 5s)",
        "foo offset step()",
        "foo[5m] anchored",
        "foo[5m] smoothed",
        "foo smoothed",
        "sum by (a, b,) (foo)",
        "sum(foo) by (a)",
        "SUM WITHOUT (a) (foo)",
        "sum by () (foo)",
        "sum by (\"quoted label\", by, on, bool, inf) (foo)",
        "topk(5, foo)",
        "count_values(\"l\", foo)",
        "quantile by (a) (0.9, foo)",
        "limitk(1, foo) + limit_ratio(-0.5, foo)",
        "a + on (x) group_left (y) b",
        "a / ignoring (x) group_right b",
        "a and on () b or c unless ignoring (d) e",
        "a > bool on (x) b",
        "a + fill(0) b",
        "a + on (x) fill_left(-1) fill_right(5m) b",
        "a </ b >/ c",
        "a atan2 b % c",
        "time() - 1h",
        "# comment\n foo # another\n + bar{ # and inside\n a=\"b\" }",
        "round(foo)",
        "round(foo, 5)",
        "label_join(foo, \"a\", \"b\")",
        "label_join(foo, \"a\", \"b\", \"c\", \"d\")",
        "hour()",
        "info(foo, {a=\"\"})",
        "histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))",
        "(((foo)))",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct query_error error;
        int status = parse(slice_str(texts[i]), &error);
        if (status < 0)
            fail_msg("%s: %s", texts[i], error.text);
    }
}

static void rejects(void **state) {
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "1:1: parse error: no expression found in input"},
        {"# only a comment", "1:1: parse error: no expression found in input"},
        {"1 +", "1:4: parse error: unexpected end of input"},
        {"*1", "1:1: parse error: unexpected <op:*>"},
        {"(1))", "1:5: parse error: unexpected right parenthesis ')'"},
        {"((1)", "1:5: parse error: unclosed left parenthesis"},
        {"(", "1:2: parse error: unclosed left parenthesis"},
        {"1 1", "1:3: parse error: unexpected number \"1\""},
        {"a !~ b", "1:3: parse error: unexpected character after '!': '~'"},
        {"a =~ b", "1:3: parse error: unexpected character after '=': '~'"},
        {"a = b", "1:3: parse error: unexpected \"=\""},
        {"1.5h", "1:1: parse error: bad number or duration syntax: \"1.5h\""},
        {"0b1", "1:1: parse error: bad number or duration syntax: \"0b1\""},
        {"1m1h", "1:1: parse error: not a valid duration string: \"1m1h\""},
        {"\"abc", "1:1: parse error: unterminated quoted string"},
        {"\"a\nb\"", "1:1: parse error: unterminated quoted string"},
        {"`abc", "1:1: parse error: unterminated raw string"},
        {"\"\\q\"", "1:1: parse error: unknown escape sequence U+0071"},
        {"\"\\ud800\"", "1:1: parse error: escape sequence is an invalid Unicode code point"},
        {"foo{", "1:5: parse error: unexpected end of input inside braces"},
        {"foo{a}", "1:6: parse error: unexpected \"}\" in label matching, expected label matching operator"},
        {"foo{a=b}", "1:7: parse error: unexpected identifier \"b\" in label matching, expected string"},
        {"foo{a=\"b\" c=\"d\"}",
         "1:11: parse error: unexpected identifier \"c\" in label matching, expected \",\" or \"}\""},
        {"foo{,}", "1:5: parse error: unexpected \",\" in label matching, expected identifier or \"}\""},
        {"foo{1}", "1:5: parse error: unexpected character inside braces: '1'"},
        {"foo{__name__=\"bar\"}", "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""},
        {"foo{\"bar\"}", "1:5: parse error: metric name must not be set twice: \"foo\" or \"bar\""},
        {"{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"},
        {"{a=\"\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"},
        {"{a=~\".*\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"},
        {"foo[5m", "1:7: parse error: unexpected end of input in duration expression"},
        {"foo[]",
         "1:5: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, "
         "step(), or range()"},
        {"foo[0s]", "1:5: parse error: duration must be greater than 0"},
        {"foo[-5m]", "1:5: parse error: duration must be greater than 0"},
        {"foo[5m:0]", "1:8: parse error: duration must be greater than 0"},
        {"(foo)[5m]", "1:6: parse error: ranges only allowed for vector selectors"},
        {"sum(foo)[5m]", "1:9: parse error: ranges only allowed for vector selectors"},
        {"foo offset 1m [5m]", "1:15: parse error: no offset modifiers allowed before range"},
        {"foo @ 1 [5m]", "1:9: parse error: no @ modifiers allowed before range"},
        {"foo offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times"},
        {"foo @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times"},
        {"foo @ inf", "1:7: parse error: timestamp out of bounds for @ modifier: inf"},
        {"1 offset 1m",
         "1:1: parse error: offset modifier must be preceded by an instant vector selector or range "
         "vector selector or a subquery"},
        {"foo offset",
         "1:11: parse error: unexpected end of input in offset, expected number, duration, step(), or "
         "range()"},
        {"sum by foo", "1:8: parse error: unexpected identifier \"foo\" in grouping opts, expected \"(\""},
        {"sum by (1) (foo)", "1:9: parse error: unexpected number \"1\" in grouping opts, expected label"},
        {"sum()", "1:1: parse error: no arguments for aggregate expression provided"},
        {"topk(foo)",
         "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1"},
        {"sum(1)", "1:5: parse error: expected type instant vector in aggregation expression, got scalar"},
        {"topk(foo, foo)",
         "1:6: parse error: expected type scalar in aggregation parameter, got instant vector"},
        {"nope(foo)", "1:1: parse error: unknown function with name \"nope\""},
        {"rate(foo)",
         "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector"},
        {"abs(foo[5m])",
         "1:5: parse error: expected type instant vector in call to function \"abs\", got range vector"},
        {"abs()", "1:1: parse error: expected 1 argument(s) in call to \"abs\", got 0"},
        {"round(a, 1, 2)", "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3"},
        {"label_join(a)",
         "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 1"},
        {"abs(foo,)", "1:8: parse error: trailing commas not allowed in function call args"},
        {"1 == 2", "1:3: parse error: comparisons between scalars must use BOOL modifier"},
        {"1 + bool 2", "1:3: parse error: bool modifier can only be used on comparison operators"},
        {"foo and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"},
        {"foo + on (a) 1", "1:1: parse error: vector matching only allowed between instant vectors"},
        {"a and on () group_left b", "1:1: parse error: no grouping allowed for \"and\" operation"},
        {"a + on (x) group_left (x) b",
         "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once"},
        {"a + group_left b", "1:5: parse error: unexpected <group_left>"},
        {"\"a\" + 1",
         "1:1: parse error: binary expression must contain only scalar and instant vector types"},
        {"-\"a\"", "1:1: parse error: unary expression only allowed on expressions of type scalar or instant "
                   "vector, got "
                   "\"string\""},
        {"1[5m:1m]", "1:1: parse error: subquery is only allowed on instant vector, got scalar instead"},
        {"a\n+ b\n+ )", "3:4: parse error: unexpected right parenthesis ')'"},
        {"\xc3\xa9", "1:1: parse error: unexpected character: '\xc3\xa9'"},
        {"a + \xff", "1:5: parse error: invalid UTF-8 rune"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct query_error error;
        int status = parse(slice_str(cases[i].text), &error);
        if (status != STATUS_BAD_QUERY || error.type != QUERY_ERROR_BAD_DATA)
            fail_msg("%s: status %d", cases[i].text, status);
        if (strcmp(error.text, cases[i].error) != 0)
            fail_msg("%s\n  gives    %s\n  expected %s", cases[i].text, error.text, cases[i].error);
    }
}

static void bad_regex_is_an_error(void **state) {
    (void)state;
    struct query_error error;
    assert_int_equal(parse(slice_str("{a=~\"(b\"}"), &error), STATUS_BAD_QUERY);
    assert_non_null(strstr(error.text, "1:2: parse error: error parsing regexp: missing closing ): `(b`"));
    assert_int_equal(parse(slice_str("{a=~\"b)(c\"}"), &error), STATUS_BAD_QUERY);
}

/* Bombs: text that is all depth, or all length. */
static void bombs(void **state) {
    (void)state;
    static const char *const units[] = {"(",    "-",          "a+", "sum(", "{",       "[",
                                        "a[1:", "((((a))))+", "\"", "1^",   "abs(abs("};
    size_t size = 1 << 20;
    char *text = mem_alloc(size + 1);
    assert_non_null(text);
    struct query_error error;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t len = strlen(units[i]);
        for (size_t k = 0; k < size; k++)
            text[k] = units[i][k % len];
        assert_int_equal(parse(slice_of(text, size), &error), STATUS_BAD_QUERY);
        assert_int_equal(parse(slice_of(text, 200000), &error), STATUS_BAD_QUERY);
        assert_int_equal(parse(slice_of(text, size + 1), &error), STATUS_BAD_QUERY);
        assert_non_null(strstr(error.text, "longer than 1048576 bytes"));
    }
    /* A chain that leans to the left as deep as the limit, and one more. */
    size_t at = 0;
    for (size_t i = 0; i + 1 < limits.query_nesting_max; i++, at += 2)
        memcpy(text + at, "1+", 2);
    memcpy(text + at, "1+1", 3);
    assert_int_equal(parse(slice_of(text, at + 1), &error), STATUS_OK);
    assert_int_equal(parse(slice_of(text, at + 3), &error), STATUS_BAD_QUERY);
    assert_non_null(strstr(error.text, "nested deeper than 1000 levels"));
    memset(text, '(', 100000);
    text[100000] = '1';
    memset(text + 100001, ')', 100000);
    assert_int_equal(parse(slice_of(text, 200001), &error), STATUS_BAD_QUERY);
    /* One megabyte that is well. */
    at = (size_t)snprintf(text, size, "{__name__=~\"first");
    for (size_t i = 0; at + 40 < size; i++)
        at += (size_t)snprintf(text + at, size - at, "|metric_%zu_total", i);
    at += (size_t)snprintf(text + at, size - at, "\"}");
    assert_int_equal(parse(slice_of(text, at), &error), STATUS_OK);
    mem_free(text);
}

static void any_allocation_may_fail(void **state) {
    (void)state;
    static const char text[] =
        "sum by (a, b) (rate(x{c=~\"d.*\", e!~\"f|g\"}[5m])) / on (a) group_left (h) {\"y\"}";
    struct query_error error;
    for (uint64_t n = 1;; n++) {
        mem_fault_set(n, 0);
        int status = parse(slice_str(text), &error);
        uint64_t calls = mem_fault_set(0, 0);
        if (status >= 0) {
            assert_true(n > 1 && calls < n);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_int_equal(error.type, QUERY_ERROR_INTERNAL);
    }
}

static void selectors(void **state) {
    (void)state;
    struct arena arena;
    struct query_error error = {0};
    struct query_selector selector;
    arena_init(&arena, 0, 0);
    assert_int_equal(
        query_selector_parse(slice_str(" up{job=~\"a|b\", x!=\"\"} "), &limits, &arena, &error, &selector),
        STATUS_OK);
    assert_int_equal(selector.count, 3);
    assert_true(matcher_match(&selector.matchers[0], slice_str("b")));
    assert_false(matcher_match(&selector.matchers[0], slice_str("bb")));
    assert_int_equal(selector.matchers[2].kind, MATCHER_EQUAL);
    assert_true(slice_equal(selector.matchers[2].name, slice_str("__name__")));
    assert_false(selector.empty_ok);
    query_selector_release(&selector);
    static const char *const empty[] = {"{}", "{a=~\".*\"}", "{a=\"\",b!=\"c\"}"};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        assert_int_equal(query_selector_parse(slice_str(empty[i]), &limits, &arena, &error, &selector),
                         STATUS_OK);
        assert_true(selector.empty_ok);
        query_selector_release(&selector);
    }
    static const struct {
        const char *text, *error;
    } bad[] = {{"up[5m]", "1:3: parse error: unexpected \"[\""},
               {"", "1:1: parse error: unexpected end of input"},
               {"1", "1:1: parse error: unexpected number \"1\""},
               {"rate(up)", "1:5: parse error: unexpected \"(\""}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(query_selector_parse(slice_str(bad[i].text), &limits, &arena, &error, &selector),
                         STATUS_BAD_QUERY);
        assert_string_equal(error.text, bad[i].error);
    }
    arena_release(&arena);
}

/* Anything at all must end in a tree or in an error, never elsewhere. */
static void random_text(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "a",    "sum", "(",       ")",          "{",     "}",      "[",      "]",    "1",       "5m", ",",
        "=",    "=~",  "\"b\"",   " ",          "by",    "on",     "offset", "@",    "-",       "+",  "^",
        "==",   ":",   "'",       "\\",         "#",     "\n",     "rate",   "bool", "or",      "e",  "0x",
        "\xff", "le",  "start()", "group_left", "fill(", "step()", ".",      "_",    "smoothed"};
    struct rand rand;
    rand_init(&rand, 7);
    for (int round = 0; round < 30000; round++) {
        char text[256];
        size_t len = 0, parts = rand_below(&rand, 24);
        for (size_t i = 0; i < parts; i++) {
            const char *piece = pieces[rand_below(&rand, sizeof pieces / sizeof pieces[0])];
            memcpy(text + len, piece, strlen(piece));
            len += strlen(piece);
        }
        struct query_error error;
        int status = parse(slice_of(text, len), &error);
        assert_true(status == STATUS_OK || (status == STATUS_BAD_QUERY && error.text[0] != 0));
    }
}

int main(void) {
    limits_init(&limits);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts),     cmocka_unit_test(rejects),
        cmocka_unit_test(bombs),       cmocka_unit_test(bad_regex_is_an_error),
        cmocka_unit_test(selectors),   cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(random_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
