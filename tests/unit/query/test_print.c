/* Trees as text and as JSON: against expectations worked out from Prometheus' rules, and round trips over its
 * own scripts and over generated expressions. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/rand.h"
#include "query/functions.h"
#include "query/parse.h"
#include "query/print.h"

static struct limits limits;

struct parsed {
    struct arena arena;
    struct parse_result result;
    struct query_error error;
};

static bool parsed_open(struct parsed *parsed, struct slice text) {
    *parsed = (struct parsed){0};
    arena_init(&parsed->arena, 0, 0);
    if (query_parse(text, &limits, &parsed->arena, &parsed->error, &parsed->result) >= 0)
        return true;
    arena_release(&parsed->arena);
    return false;
}

static void parsed_close(struct parsed *parsed) {
    parse_regexes_release(&parsed->result.regexes);
    arena_release(&parsed->arena);
}

/* ---- Are two trees the same but for what has no meaning?
 * -------------------------------------------------------- */

static bool same(const struct ast *a, const struct ast *b);

static bool same_number(double a, double b) {
    return double_bits(a) == double_bits(b) || (isnan(a) && isnan(b));
}

static bool same_slices(const struct slice *a, size_t a_count, const struct slice *b, size_t b_count) {
    bool equal = a_count == b_count;
    for (size_t i = 0; equal && i < a_count; i++)
        equal = slice_equal(a[i], b[i]);
    return equal;
}

static const struct ast *without_plus(const struct ast *ast) {
    while (ast->kind == AST_PAREN || (ast->kind == AST_UNARY && ast->unary.op == TOKEN_ADD))
        ast = ast->kind == AST_PAREN ? ast->paren : ast->unary.expr;
    return ast;
}

static bool same_duration(int64_t a_ms, const struct ast *a, int64_t b_ms, const struct ast *b) {
    if (a == NULL || b == NULL)
        return a == b && a_ms == b_ms;
    const struct ast *x = without_plus(a), *y = without_plus(b);
    double x_sign, y_sign;
    const struct ast *x_plain = duration_literal(x, &x_sign), *y_plain = duration_literal(y, &y_sign);
    if (x_plain != NULL && y_plain != NULL)
        return x_sign * x_plain->number == y_sign * y_plain->number;
    if (x->kind != y->kind)
        return false;
    switch (x->kind) {
    case AST_UNARY:
        return x->unary.op == y->unary.op && same_duration(0, x->unary.expr, 0, y->unary.expr);
    case AST_BINARY:
        return x->binary.op == y->binary.op && same_duration(0, x->binary.left, 0, y->binary.left) &&
               same_duration(0, x->binary.right, 0, y->binary.right);
    case AST_CALL:
        if (x->call.function != y->call.function || x->call.arg_count != y->call.arg_count)
            return false;
        for (size_t i = 0; i < x->call.arg_count; i++) {
            if (!same_duration(0, x->call.args[i], 0, y->call.args[i]))
                return false;
        }
        return true;
    default:
        return same(x, y);
    }
}

static bool same_shift(const struct ast_shift *a, const struct ast_shift *b) {
    return same_duration(a->offset_ms, a->offset_expr, b->offset_ms, b->offset_expr) && a->at == b->at &&
           (a->at != AT_TIME || a->at_ms == b->at_ms);
}

static bool same_selector(const struct ast *a, const struct ast *b) {
    size_t count = a->selector.matcher_count;
    bool used[64] = {false};
    if (count != b->selector.matcher_count || count > 64 || a->selector.anchored != b->selector.anchored ||
        a->selector.smoothed != b->selector.smoothed || !same_shift(&a->selector.shift, &b->selector.shift))
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct matcher *x = &a->selector.matchers[i];
        size_t k = 0;
        for (; k < count; k++) {
            const struct matcher *y = &b->selector.matchers[k];
            if (!used[k] && x->kind == y->kind && slice_equal(x->name, y->name) &&
                slice_equal(x->value, y->value))
                break;
        }
        if (k == count)
            return false;
        used[k] = true;
    }
    return true;
}

static bool same_binary(const struct ast *a, const struct ast *b) {
    const struct ast_matching *x = &a->binary.matching, *y = &b->binary.matching;
    if (a->type == VALUE_SCALAR) /* on () between numbers means nothing */
        return a->binary.op == b->binary.op && a->binary.return_bool == b->binary.return_bool &&
               same(a->binary.left, b->binary.left) && same(a->binary.right, b->binary.right);
    return a->binary.op == b->binary.op && a->binary.return_bool == b->binary.return_bool && x->on == y->on &&
           x->card == y->card && same_slices(x->labels, x->label_count, y->labels, y->label_count) &&
           same_slices(x->include, x->include_count, y->include, y->include_count) &&
           x->has_fill_left == y->has_fill_left && x->has_fill_right == y->has_fill_right &&
           same_number(x->fill_left, y->fill_left) && same_number(x->fill_right, y->fill_right) &&
           same(a->binary.left, b->binary.left) && same(a->binary.right, b->binary.right);
}

static bool same(const struct ast *a, const struct ast *b) {
    /* As in Prometheus, infinity is printed with a sign, which in front of a power is an operator. */
    while (a->kind == AST_UNARY && a->unary.op == TOKEN_ADD)
        a = a->unary.expr;
    while (b->kind == AST_UNARY && b->unary.op == TOKEN_ADD)
        b = b->unary.expr;
    if (a->kind != b->kind || a->type != b->type)
        return false;
    switch (a->kind) {
    case AST_NUMBER:
        return same_number(a->number, b->number) && a->is_duration == b->is_duration;
    case AST_STRING:
        return slice_equal(a->string, b->string);
    case AST_SELECTOR:
        return same_selector(a, b);
    case AST_MATRIX:
    case AST_SUBQUERY:
        return same_duration(a->range.range_ms, a->range.range_expr, b->range.range_ms,
                             b->range.range_expr) &&
               a->range.has_step == b->range.has_step &&
               same_duration(a->range.step_ms, a->range.step_expr, b->range.step_ms, b->range.step_expr) &&
               same_shift(&a->range.shift, &b->range.shift) && a->range.anchored == b->range.anchored &&
               a->range.smoothed == b->range.smoothed && same(a->range.expr, b->range.expr);
    case AST_UNARY:
        return a->unary.op == b->unary.op && same(a->unary.expr, b->unary.expr);
    case AST_BINARY:
        return same_binary(a, b);
    case AST_AGGREGATE:
        return a->aggregate.op == b->aggregate.op && a->aggregate.without == b->aggregate.without &&
               same_slices(a->aggregate.labels, a->aggregate.label_count, b->aggregate.labels,
                           b->aggregate.label_count) &&
               (a->aggregate.param == NULL) == (b->aggregate.param == NULL) &&
               (a->aggregate.param == NULL || same(a->aggregate.param, b->aggregate.param)) &&
               same(a->aggregate.expr, b->aggregate.expr);
    case AST_CALL:
        if (a->call.function != b->call.function || a->call.arg_count != b->call.arg_count)
            return false;
        for (size_t i = 0; i < a->call.arg_count; i++) {
            if (!same(a->call.args[i], b->call.args[i]))
                return false;
        }
        return true;
    case AST_PAREN:
        return same(a->paren, b->paren);
    }
    return false;
}

/* Prints, in one line and in several, parses that, compares. False if the text itself does not parse. */
static bool round_trip(struct slice text) {
    struct parsed first, again;
    if (!parsed_open(&first, text))
        return false;
    for (int pretty = 0; pretty < 2; pretty++) {
        struct buf out, twice;
        buf_init(&out);
        buf_init(&twice);
        if (pretty)
            assert_true(ast_print_pretty(first.result.root, 64 << 20, &out));
        else
            ast_print(first.result.root, &out);
        assert_false(out.failed);
        if (!parsed_open(&again, buf_slice(&out)))
            fail_msg("%.*s\n  printed as\n%.*s\n  which gives %s", SLICE_ARGS(text),
                     SLICE_ARGS(buf_slice(&out)), again.error.text);
        if (!same(first.result.root, again.result.root))
            fail_msg("%.*s\n  printed as\n%.*s\n  is another tree", SLICE_ARGS(text),
                     SLICE_ARGS(buf_slice(&out)));
        ast_print(again.result.root, &twice);
        bool has_inf = memmem(out.data, out.len, "+Inf ^", 6) != NULL;
        if (!pretty && !has_inf && !slice_equal(buf_slice(&out), buf_slice(&twice)))
            fail_msg("%.*s\n  then\n%.*s", SLICE_ARGS(buf_slice(&out)), SLICE_ARGS(buf_slice(&twice)));
        parsed_close(&again);
        buf_release(&out);
        buf_release(&twice);
    }
    parsed_close(&first);
    return true;
}

/* ---- Expectations
 * ----------------------------------------------------------------------------------------------- */

static void prints(const char *text, const char *want) {
    struct parsed parsed;
    struct buf out;
    buf_init(&out);
    if (!parsed_open(&parsed, slice_str(text)))
        fail_msg("%s: %s", text, parsed.error.text);
    ast_print(parsed.result.root, &out);
    if (!slice_equal(buf_slice(&out), slice_str(want)))
        fail_msg("%s\n  prints   %.*s\n  expected %s", text, SLICE_ARGS(buf_slice(&out)), want);
    buf_release(&out);
    parsed_close(&parsed);
    assert_true(round_trip(slice_str(text)));
}

static void one_line(void **state) {
    (void)state;
    static const char *const as_is[] = {
        "topk(5, a:b:c{job=\"s\"})",
        "count_values(\"value\", a)",
        "up > bool 0",
        "a offset 1m",
        "a offset -7m",
        "a{c=\"d\"}[5m] offset 1m",
        "a[1h:5m] offset 1m",
        "{__name__=\"a\"}",
        "a{b!=\"c\"}[1m]",
        "a{b=~\"c\"}[1m]",
        "a{b!~\"c\"}[1m]",
        "a @ start()",
        "a @ end()",
        "a[1m] @ start()",
        "a[5m:] @ end()",
        "-a",
        "+a",
        "(-1) ^ 2",
        "1 - -1",
        "a and b",
        "a or b unless c",
        "sum without () (a)",
        "time()",
        "rate(a[5m])",
        "a atan2 b",
        "a </ 5",
        "foo[5m] anchored",
        "foo[5m] smoothed @ 1.000 offset 1m",
        "foo @ 1.000 smoothed offset 1m",
        "foo[2 * 1h]",
        "foo[-5m + 35m]",
        "foo[step()]",
        "foo[5m:step() + 1]",
        "foo offset (5m / 2)",
        "foo offset step()",
        "foo offset -(step() * 2)",
        "foo[max_of(step(), 5m + 3m)]",
        "a + fill (0) b",
        "a + fill_left (1) fill_right (2) b",
        "a + on (b) group_left (c) fill_right (-1.5e+06) d",
        "sum by (\"a.b\", c) (d)",
        "{\"a.b\"=\"c\"}",
        "5m + 1",
    };
    for (size_t i = 0; i < sizeof as_is / sizeof as_is[0]; i++)
        prints(as_is[i], as_is[i]);
    static const char *const pairs[][2] = {
        {"sum by() (a)", "sum(a)"},
        {"sum(a) by(b,c)", "sum by (b, c) (a)"},
        {"sum without(instance) (a)", "sum without (instance) (a)"},
        {"a - on() c", "a - on () c"},
        {"a - on(b) group_left c", "a - on (b) group_left () c"},
        {"a - ignoring() c", "a - c"},
        {"a - ignoring() group_right c", "a - ignoring () group_right () c"},
        {"1 + on() 2", "1 + 2"},
        {"a @ 10", "a @ 10.000"},
        {"a[1m] @ -1.5", "a[1m] @ -1.500"},
        {"a offset 0s", "a"},
        {"a{z=\"1\",b=\"2\",b!=\"1\"}", "a{b!=\"1\",b=\"2\",z=\"1\"}"},
        {"{\"a.b\", c=\"d\"}", "{__name__=\"a.b\",c=\"d\"}"},
        {"{\"foo\"}", "{__name__=\"foo\"}"},
        {"a{b='\\n\"'}", "a{b=\"\\n\\\"\"}"},
        {"`\\d`", "\"\\\\d\""},
        {"1e3", "1000"},
        {"1e-7", "0.0000001"},
        {"0x1F", "31"},
        {"Inf", "+Inf"},
        {"-nan", "NaN"},
        {"a[90m]", "a[1h30m]"},
        {"a[14d]", "a[2w]"},
        {"a[15d]", "a[15d]"},
        {"a[365d]", "a[1y]"},
        {"a[1y1d]", "a[366d]"},
        {"a[300]", "a[5m]"},
        {"a[0.5]", "a[500ms]"},
        {"a[(5m)]", "a[5m]"},
        {"a offset 1.5", "a offset 1s500ms"},
        {"a[((5m + 1m))]", "a[(5m + 1m)]"},
        {"a[+step()]", "a[step()]"},
        {"a + fill(1e6) b", "a + fill (1e+06) b"},
        {"-1", "-1"},
        {"- -1", "1"},
        {"-5m", "-5m"},
        {"SUM(a) BY (b)", "sum by (b) (a)"},
        {"a AND b", "a and b"},
        {"# comment\na # another\n", "a"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        prints(pairs[i][0], pairs[i][1]);
}

static void formats(const char *text, const char *want) {
    struct query_error error;
    struct buf out;
    buf_init(&out);
    if (query_format(slice_str(text), &limits, &error, &out) < 0)
        fail_msg("%s: %s", text, error.text);
    if (!slice_equal(buf_slice(&out), slice_str(want)))
        fail_msg("%s\n  is\n%.*s\n  expected\n%s", text, SLICE_ARGS(buf_slice(&out)), want);
    buf_release(&out);
}

#define LONG  "a_rather_long_name_of_a_metric_that_fills_most_of_a_line_all_by_itself_total"
#define LONG2 LONG "{instance=\"x\",job=\"abcdefghijkl\"}" /* 110 bytes */

static void lines(void **state) {
    (void)state;
    formats("sum  (a)", "sum(a)");
    /* 100 bytes stay on one line, 101 do not. */
    formats("abs(" LONG "{a=\"0123456789012\"})", "abs(" LONG "{a=\"0123456789012\"})");
    formats("abs(" LONG "{a=\"01234567890123\"})", "abs(\n  " LONG "{a=\"01234567890123\"}\n)");
    formats(LONG2, LONG2);
    formats("sum by (a, b) (" LONG2 ")", "sum by (a, b) (\n  " LONG2 "\n)");
    formats("topk(5, " LONG2 ")", "topk(\n  5,\n  " LONG2 "\n)");
    formats(LONG " + on (a) group_left () " LONG " * 2",
            "  " LONG "\n+ on (a) group_left ()\n  " LONG " * 2");
    formats(LONG2 " + 1 > bool 2", "    " LONG2 "\n  +\n    1\n> bool\n  2");
    formats("(" LONG2 ")", "(\n  " LONG2 "\n)");
    formats("-(" LONG2 ")", "-(\n  " LONG2 "\n)");
    formats("-" LONG2 " ^ 2", "-" LONG2 "\n^\n  2");
    formats("round(" LONG2 ", 5)", "round(\n  " LONG2 ",\n  5\n)");
    formats("max_over_time(rate(" LONG2 "[1m])[5m:1m] @ start() offset 1m)",
            "max_over_time(\n  rate(\n    " LONG2 "[1m]\n  )[5m:1m] @ start() offset 1m\n)");
    /* Prometheus forgets to indent a short subquery. */
    formats("quantile_over_time(scalar(" LONG2 "), a[5m:1m])",
            "quantile_over_time(\n  scalar(\n    " LONG2 "\n  ),\na[5m:1m]\n)");
}

static void tree(const char *text, const char *want) {
    struct query_error error;
    struct buf out;
    buf_init(&out);
    if (query_tree_json(slice_str(text), &limits, &error, &out) < 0)
        fail_msg("%s: %s", text, error.text);
    if (!slice_equal(buf_slice(&out), slice_str(want)))
        fail_msg("%s\n  is       %.*s\n  expected %s", text, SLICE_ARGS(buf_slice(&out)), want);
    buf_release(&out);
}

#define ONE     "{\"duration\":false,\"type\":\"numberLiteral\",\"val\":\"1\"}"
#define SHIFTS  "\"offset\":0,\"offsetExpr\":null"
#define NO_AT   "\"startOrEnd\":null,\"timestamp\":null"
#define NAME(n) "{\"name\":\"__name__\",\"type\":\"=\",\"value\":\"" n "\"}"
#define METRIC_A                                                                                             \
    "{\"anchored\":false,\"matchers\":[" NAME("a") "],\"name\":\"a\"," SHIFTS ",\"smoothed\":false," NO_AT   \
                                                   ",\"type\":\"vectorSelector\"}"

static void trees(void **state) {
    (void)state;
    tree("1", ONE);
    tree("5m", "{\"duration\":true,\"type\":\"numberLiteral\",\"val\":\"300\"}");
    tree("\"<\"", "{\"type\":\"stringLiteral\",\"val\":\"\\u003c\"}");
    tree("a", METRIC_A);
    tree("(-a)",
         "{\"expr\":{\"expr\":" METRIC_A ",\"op\":\"-\",\"type\":\"unaryExpr\"},\"type\":\"parenExpr\"}");
    tree("a{b=~\"c\"} @ 1.5 offset -2s",
         "{\"anchored\":false,\"matchers\":[{\"name\":\"b\",\"type\":\"=~\",\"value\":\"c\"}," NAME(
             "a") "],\"name\":\"a\",\"offset\":-2000,\"offsetExpr\":null,\"smoothed\":false,\"startOrEnd\":"
                  "null,"
                  "\"timestamp\":1500,\"type\":\"vectorSelector\"}");
    tree("{b=\"c\",\"x.y\",d=\"e\"}",
         "{\"anchored\":false,\"matchers\":[{\"name\":\"b\",\"type\":\"=\",\"value\":\"c\"}," NAME(
             "x.y") ",{\"name\":\"d\",\"type\":\"=\",\"value\":\"e\"}],\"name\":\"\"," SHIFTS
                    ",\"smoothed\":false," NO_AT ",\"type\":\"vectorSelector\"}");
    tree("a[5m] anchored",
         "{\"anchored\":true,\"matchers\":[" NAME(
             "a") "],\"name\":\"a\"," SHIFTS ",\"range\":300000,\"rangeExpr\":null,\"smoothed\":false," NO_AT
                  ",\"type\":\"matrixSelector\"}");
    tree("a[5m:1 + step()] @ end()",
         "{\"expr\":" METRIC_A "," SHIFTS
         ",\"range\":300000,\"rangeExpr\":null,\"startOrEnd\":\"end\",\"step\":0,\"stepExpr\":{\"lhs\":" ONE
         ",\"op\":\"+\",\"rhs\":{\"lhs\":null,\"op\":\"step\",\"rhs\":null,\"type\":\"durationExpr\","
         "\"wrapped\":false},"
         "\"type\":\"durationExpr\",\"wrapped\":false},\"timestamp\":null,\"type\":\"subquery\"}");
    tree("1 > bool 1", "{\"bool\":true,\"lhs\":" ONE ",\"matching\":null,\"op\":\"\\u003e\",\"rhs\":" ONE
                       ",\"type\":\"binaryExpr\"}");
    tree(
        "a * on (x) group_left (y) fill_right (2) a",
        "{\"bool\":false,\"lhs\":" METRIC_A
        ",\"matching\":{\"card\":\"many-to-one\",\"fillValues\":{\"lhs\":null,\"rhs\":2},\"include\":[\"y\"],"
        "\"labels\":[\"x\"],\"on\":true},\"op\":\"*\",\"rhs\":" METRIC_A ",\"type\":\"binaryExpr\"}");
    tree("a or a",
         "{\"bool\":false,\"lhs\":" METRIC_A
         ",\"matching\":{\"card\":\"many-to-many\",\"fillValues\":{\"lhs\":null,\"rhs\":null},\"include\":[],"
         "\"labels\":[],\"on\":false},\"op\":\"or\",\"rhs\":" METRIC_A ",\"type\":\"binaryExpr\"}");
    tree("topk by (x) (1, a)", "{\"expr\":" METRIC_A ",\"grouping\":[\"x\"],\"op\":\"topk\",\"param\":" ONE
                               ",\"type\":\"aggregation\",\"without\":false}");
    tree("sum(a)",
         "{\"expr\":" METRIC_A
         ",\"grouping\":[],\"op\":\"sum\",\"param\":null,\"type\":\"aggregation\",\"without\":false}");
    tree("round(a)",
         "{\"args\":[" METRIC_A
         "],\"func\":{\"argTypes\":[\"vector\",\"scalar\"],\"name\":\"round\",\"returnType\":\"vector\","
         "\"variadic\":1},\"type\":\"call\"}");
}

/* Deep nesting is mostly indentation; the bound holds. */
static void bounded(void **state) {
    (void)state;
    struct query_error error;
    struct buf text, out;
    buf_init(&text);
    buf_init(&out);
    for (int i = 0; i < 400; i++)
        buf_append_str(&text, "(");
    buf_append_str(&text, LONG " + " LONG);
    for (int i = 0; i < 400; i++)
        buf_append_str(&text, " + " LONG ")");
    assert_int_equal(query_format(buf_slice(&text), &limits, &error, &out), STATUS_OK);
    size_t whole = out.len;
    assert_true(whole > 10 * text.len);
    struct buf cut;
    buf_init(&cut);
    struct parsed parsed;
    assert_true(parsed_open(&parsed, buf_slice(&text)));
    assert_true(ast_print_pretty(parsed.result.root, whole, &cut));
    buf_clear(&cut);
    assert_false(ast_print_pretty(parsed.result.root, whole - 1, &cut));
    parsed_close(&parsed);
    buf_release(&cut);
    buf_release(&text);
    buf_release(&out);
}

/* ---- Round trips
 * --------------------------------------------------------------------------------------------------- */

/* The expression of an `eval` line: behind "at TIME" or "step TIME". */
static const char *expression_of(const char *line) {
    while (*line == ' ' || *line == '\t')
        line++;
    if (strncmp(line, "eval", 4) != 0)
        return NULL;
    const char *range = strstr(line, " range "), *at = strstr(line, " at ");
    const char *word = range != NULL && (at == NULL || range < at) ? strstr(line, " step ") : at;
    if (word == NULL)
        return NULL;
    word = strchr(word + 1, ' ');
    word = word == NULL ? NULL : strchr(word + 1, ' ');
    return word == NULL ? NULL : word + 1;
}

static void scripts(void **state) {
    (void)state;
    const char *dir = getenv("TIDALITE_PROMQLTEST_DIR");
    if (dir == NULL)
        dir = PROMQLTEST_DIR;
    DIR *listing = opendir(dir);
    if (listing == NULL) {
        const char *ci = getenv("CI");
        if (ci != NULL && strcmp(ci, "true") == 0)
            fail_msg("%s is not there", dir);
        skip();
    }
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        char path[4096];
        static char line[65536];
        const char *dot = strrchr(entry->d_name, '.');
        if (dot == NULL || strcmp(dot, ".test") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        while (fgets(line, sizeof line, file) != NULL) {
            const char *expression = expression_of(line);
            if (expression == NULL)
                continue;
            if (!round_trip(slice_of(expression, strcspn(expression, "\n"))))
                fail_msg("%s: does not parse: %s", entry->d_name, expression);
            count++;
        }
        fclose(file);
    }
    closedir(listing);
    print_message("%zu expressions\n", count);
    assert_true(count > 800);
}

static struct rand random_source;

static size_t pick(size_t count) {
    return (size_t)rand_below(&random_source, count);
}

#define PICK(...)                                                                                            \
    ((const char *const[]){                                                                                  \
        __VA_ARGS__}[pick(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))])

static void make_duration(struct buf *out, int depth) {
    switch (depth <= 0 ? pick(3) : pick(9)) {
    case 0:
        buf_append_str(out, PICK("5m", "1h30m", "90s", "1w", "2y", "400d", "1500ms", "30s"));
        break;
    case 1:
        buf_append_str(out, PICK("300", "1.5", "60", "0x10", "7e2"));
        break;
    case 2:
        buf_append_str(out, PICK("step()", "range()"));
        break;
    case 3:
        buf_append_str(out, PICK("-", "+"));
        make_duration(out, depth - 1);
        break;
    case 4:
        buf_append_byte(out, '(');
        make_duration(out, depth - 1);
        buf_append_byte(out, ')');
        break;
    case 5:
        buf_printf(out, "%s(", PICK("min_of", "max_of"));
        make_duration(out, depth - 1);
        buf_append_byte(out, ',');
        make_duration(out, depth - 1);
        buf_append_byte(out, ')');
        break;
    default:
        make_duration(out, depth - 1);
        buf_append_str(out, PICK("+", " - ", "*", "/", " % ", "^"));
        make_duration(out, depth - 1);
        break;
    }
}

static void make_shift(struct buf *out) {
    bool offset_first = pick(2);
    for (int i = 0; i < 2; i++) {
        if ((i == 0) == offset_first) {
            if (pick(3) == 0)
                buf_printf(out, " offset %s",
                           PICK("5m", "-1h", "0s", "60", "step()", "(5m * 2)", "-range()", "-(1 + step())"));
        } else if (pick(4) == 0) {
            buf_printf(out, " @ %s", PICK("start()", "end()", "10", "-1.25", "1700000000.123", "1e3"));
        }
    }
}

static void make_selector(struct buf *out) {
    size_t count = pick(4);
    if (pick(4) > 0)
        buf_append_str(out, PICK("up", "a:b", "sum", "offset", "node_cpu_seconds_total"));
    else if (pick(2))
        buf_printf(out, "{%s", PICK("\"utf8.name\"", "\"with space\"", "__name__=~\"a.*\"", "\"\xc3\xa4\""));
    else
        buf_append_str(out, "{x=\"y\"");
    bool open = out->len > 0 && (out->data[out->len - 1] == '"');
    if (open && count == 0) {
        buf_append_byte(out, '}');
    } else if (open || count > 0) {
        buf_append_byte(out, open ? ',' : '{');
        for (size_t i = 0; i < count; i++)
            buf_printf(out, "%s%s%s,", PICK("job", "instance", "\"a.b\"", "sum", "__type__"),
                       PICK("=", "!=", "=~", "!~"),
                       PICK("\"x\"", "'y\\''", "`z\\d+`", "\"\"", "\"\\n\\x01\\u00e9\"", "\".*\""));
        buf_append_byte(out, '}');
    }
}

static void make_labels(struct buf *out) {
    buf_append_str(out, PICK("()", "(a)", "(a, b)", "(\"x.y\", job)", "(sum, by)", "(job,)"));
}

static void make_scalar(struct buf *out, int depth);

static void make_vector(struct buf *out, int depth) {
    switch (depth <= 0 ? 0 : pick(11)) {
    case 0:
        make_selector(out);
        if (pick(8) == 0)
            buf_append_str(out, " smoothed");
        make_shift(out);
        break;
    case 1:
    case 2:
        buf_printf(out, "%s(", PICK("rate", "max_over_time", "delta", "absent_over_time"));
        if (pick(2) || depth < 2) {
            make_selector(out);
            buf_append_byte(out, '[');
            make_duration(out, (int)pick(3));
            buf_append_byte(out, ']');
            buf_append_str(out, PICK("", "", "", " anchored", " smoothed"));
        } else {
            bool paren = pick(2);
            buf_append_str(out, paren ? "(" : "abs(");
            make_vector(out, depth - 2);
            buf_append_str(out, ")[");
            make_duration(out, (int)pick(3));
            buf_append_byte(out, ':');
            if (pick(2))
                make_duration(out, (int)pick(2));
            buf_append_byte(out, ']');
        }
        make_shift(out);
        buf_append_byte(out, ')');
        break;
    case 3:
    case 4: {
        bool before = pick(2), clause = pick(3) > 0, param = pick(3) == 0;
        buf_append_str(out, param ? PICK("topk", "quantile", "limit_ratio")
                                  : PICK("sum", "AVG", "stddev", "group"));
        if (clause && before) {
            buf_append_str(out, PICK(" by ", " without", " BY "));
            make_labels(out);
        }
        buf_append_byte(out, '(');
        if (param) {
            make_scalar(out, depth - 1);
            buf_append_str(out, ", ");
        }
        make_vector(out, depth - 1);
        buf_append_byte(out, ')');
        if (clause && !before) {
            buf_append_str(out, PICK(" by ", " without"));
            make_labels(out);
        }
        break;
    }
    case 5:
    case 6: {
        make_vector(out, depth - 1);
        bool comparison = pick(3) == 0;
        buf_append_str(out, comparison
                                ? PICK(" == ", " > ", "<=", " != ")
                                : PICK(" + ", "-", " * ", " / ", "%", " ^ ", " atan2 ", " </ ", " >/ "));
        if (comparison && pick(2))
            buf_append_str(out, " bool ");
        if (pick(2)) {
            buf_append_str(out, PICK(" on ", " ignoring"));
            buf_append_str(out, PICK("()", "(a)", "(\"x.y\", b)"));
            if (pick(2)) {
                buf_append_str(out, PICK(" group_left ", " group_right"));
                buf_append_str(out, PICK("", "()", "(c)", "(c, \"d.e\")"));
            }
        }
        if (pick(4) == 0)
            buf_append_str(out, PICK(" fill (0) ", " fill_left(1e9)", " fill_right (-5m) ",
                                     " fill_right(NaN) fill_left(0.001) "));
        buf_append_byte(out, ' ');
        make_vector(out, depth - 1);
        break;
    }
    case 7:
        make_vector(out, depth - 1);
        buf_printf(out, "%s%s", PICK(" and ", " or ", " UNLESS "), PICK("", "on (a) ", "ignoring () "));
        make_vector(out, depth - 1);
        break;
    case 8:
        buf_append_byte(out, '(');
        make_vector(out, depth - 1);
        buf_append_byte(out, ')');
        break;
    case 9:
        buf_append_str(out, PICK("-", "+", "- -"));
        make_vector(out, depth - 1);
        break;
    default:
        buf_append_str(out, "label_replace(");
        make_vector(out, depth - 1);
        buf_printf(out, ", \"a\", %s, \"b\", `(.*)`)", PICK("\"$1\"", "'x\\ty'", "`\"`", "\"\\xff\\u2028\""));
        break;
    }
}

static void make_scalar(struct buf *out, int depth) {
    switch (depth <= 0 ? pick(2) : pick(6)) {
    case 0:
    case 1:
        buf_append_str(out, PICK("1", "0.5", "1e10", "Inf", "NaN", "5m", "1h30m", "0x1f", "-3", "time()",
                                 "123456789.25"));
        break;
    case 2:
        make_scalar(out, depth - 1);
        buf_append_str(out, PICK(" + ", "-", "*", " ^ ", " > bool ", " != bool "));
        make_scalar(out, depth - 1);
        break;
    case 3:
        buf_append_byte(out, '(');
        make_scalar(out, depth - 1);
        buf_append_byte(out, ')');
        break;
    case 4:
        buf_append_str(out, PICK("-", "+"));
        make_scalar(out, depth - 1);
        break;
    default:
        buf_append_str(out, "scalar(");
        make_vector(out, depth - 1);
        buf_append_byte(out, ')');
        break;
    }
}

static void generated(void **state) {
    (void)state;
    size_t parsed = 0;
    const size_t rounds = 20000;
    rand_init(&random_source, 1);
    for (size_t i = 0; i < rounds; i++) {
        struct buf text;
        buf_init(&text);
        if (pick(10) == 0)
            make_scalar(&text, 4);
        else
            make_vector(&text, (int)pick(6));
        assert_false(text.failed);
        parsed += round_trip(buf_slice(&text));
        buf_release(&text);
    }
    print_message("%zu of %zu texts parse\n", parsed, rounds);
    assert_true(parsed > rounds / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_line), cmocka_unit_test(lines),
                                       cmocka_unit_test(trees),    cmocka_unit_test(bounded),
                                       cmocka_unit_test(scripts),  cmocka_unit_test(generated)};
    limits_init(&limits);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
