/* print.c: a tree as PromQL. The rules are those of Prometheus' promql/parser/printer.go and prettier.go. */
#include "query/print.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/float_text.h"
#include "base/label.h"
#include "query/functions.h"
#include "query/parse.h"

#define LINE_BYTES_MAX 100

static void float_print(struct buf *out, double v, size_t (*print)(double v, char *out)) {
    char *text = (char *)buf_reserve(out, FLOAT_TEXT_BYTES_MAX);
    if (text != NULL)
        out->len += print(v, text);
}

/* Years and weeks only where nothing is left over: 90d is easier to read than 12w6d. */
static void duration_print(struct buf *out, int64_t ms) {
    static const struct {
        const char *unit;
        uint64_t ms;
        bool exact;
    } units[] = {{"y", 31536000000, true}, {"w", 604800000, true}, {"d", 86400000, false},
                 {"h", 3600000, false},    {"m", 60000, false},    {"s", 1000, false},
                 {"ms", 1, false}};
    uint64_t left = (uint64_t)ms;
    if (ms < 0) {
        buf_append_byte(out, '-');
        left = -left;
    }
    if (left == 0)
        buf_append_str(out, "0s");
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        uint64_t count = left / units[i].ms;
        if (count == 0 || (units[i].exact && left % units[i].ms != 0))
            continue;
        buf_printf(out, "%llu%s", (unsigned long long)count, units[i].unit);
        left -= count * units[i].ms;
    }
}

static void number_print(struct buf *out, const struct ast *ast) {
    if (ast->is_duration)
        duration_print(out, (int64_t)(ast->number * 1e9) / 1000000);
    else
        float_print(out, ast->number, float_text_fixed);
}

static void names_print(struct buf *out, const struct slice *labels, size_t count) {
    buf_append_byte(out, '(');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_append_str(out, ", ");
        if (label_name_is_legacy(labels[i], false))
            buf_append(out, labels[i].data, labels[i].len);
        else
            text_quote(out, labels[i]);
    }
    buf_append_byte(out, ')');
}

/* ---- Durations
 * --------------------------------------------------------------------------------------------------
 */

/* An expression inside brackets or behind offset. */
static void duration_expr_print(struct buf *out, const struct ast *ast) {
    double sign;
    const struct ast *plain = duration_literal(ast, &sign);
    if (plain != NULL) {
        if (sign < 0)
            buf_append_byte(out, '-');
        number_print(out, plain);
        return;
    }
    switch (ast->kind) {
    case AST_PAREN:
        while (ast->kind == AST_PAREN)
            ast = ast->paren;
        buf_append_byte(out, '(');
        duration_expr_print(out, ast);
        buf_append_byte(out, ')');
        break;
    case AST_UNARY:
        if (ast->unary.op == TOKEN_SUB)
            buf_append_byte(out, '-');
        duration_expr_print(out, ast->unary.expr);
        break;
    case AST_BINARY:
        duration_expr_print(out, ast->binary.left);
        buf_printf(out, " %s ", token_text(ast->binary.op));
        duration_expr_print(out, ast->binary.right);
        break;
    default: /* step(), range(), min_of, max_of */
        buf_printf(out, "%s(", ast->call.function->name);
        for (size_t i = 0; i < ast->call.arg_count; i++) {
            if (i > 0)
                buf_append_str(out, ", ");
            duration_expr_print(out, ast->call.args[i]);
        }
        buf_append_byte(out, ')');
        break;
    }
}

static void duration_or_expr_print(struct buf *out, int64_t ms, const struct ast *expr) {
    if (expr != NULL)
        duration_expr_print(out, expr);
    else
        duration_print(out, ms);
}

/* ---- Selectors
 * ----------------------------------------------------------------------------------------------------
 */

static void at_print(struct buf *out, const struct ast_shift *shift) {
    uint64_t ms = (uint64_t)shift->at_ms;
    if (shift->at == AT_START)
        buf_append_str(out, " @ start()");
    else if (shift->at == AT_END)
        buf_append_str(out, " @ end()");
    else if (shift->at == AT_TIME) {
        if (shift->at_ms < 0)
            ms = -ms;
        buf_printf(out, " @ %s%llu.%03llu", shift->at_ms < 0 ? "-" : "", (unsigned long long)(ms / 1000),
                   (unsigned long long)(ms % 1000));
    }
}

static void offset_print(struct buf *out, const struct ast_shift *shift) {
    if (shift->offset_expr == NULL && shift->offset_ms == 0)
        return;
    buf_append_str(out, " offset ");
    duration_or_expr_print(out, shift->offset_ms, shift->offset_expr);
}

static void extension_print(struct buf *out, bool anchored, bool smoothed) {
    if (anchored || smoothed)
        buf_append_str(out, anchored ? " anchored" : " smoothed");
}

static int slice_order(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

static bool is_name_matcher(const struct ast *ast, const struct matcher *matcher) {
    return !ast->selector.name_quoted && ast->selector.name.len > 0 && matcher->kind == MATCHER_EQUAL &&
           slice_equal(matcher->name, slice_str(LABEL_NAME_METRIC)) &&
           slice_equal(matcher->value, ast->selector.name);
}

static void matcher_print(struct buf *out, const struct matcher *matcher) {
    static const char *const operators[] = {[MATCHER_EQUAL] = "=",
                                            [MATCHER_NOT_EQUAL] = "!=",
                                            [MATCHER_REGEX] = "=~",
                                            [MATCHER_NOT_REGEX] = "!~"};
    if (label_name_is_legacy(matcher->name, false))
        buf_append(out, matcher->name.data, matcher->name.len);
    else
        text_quote(out, matcher->name);
    buf_append_str(out, operators[matcher->kind]);
    text_quote(out, matcher->value);
}

/* The matchers that are not the name's, as sorted text. */
static void matchers_print(struct buf *out, const struct ast *ast) {
    size_t count = 0, room = ast->selector.matcher_count;
    struct slice *texts = mem_alloc((room + 1) * sizeof *texts);
    size_t *ends = mem_alloc((room + 1) * sizeof *ends);
    struct buf text;
    buf_init(&text);
    if (texts == NULL || ends == NULL)
        text.failed = true;
    for (size_t i = 0; i < room && !text.failed; i++) {
        if (is_name_matcher(ast, &ast->selector.matchers[i]))
            continue;
        matcher_print(&text, &ast->selector.matchers[i]);
        ends[count++] = text.len;
    }
    if (text.failed) {
        out->failed = true;
    } else if (count > 0) {
        for (size_t i = 0, start = 0; i < count; start = ends[i++])
            texts[i] = slice_of(text.data + start, ends[i] - start);
        qsort(texts, count, sizeof *texts, slice_order);
        for (size_t i = 0; i < count; i++) {
            buf_append_byte(out, i == 0 ? '{' : ',');
            buf_append(out, texts[i].data, texts[i].len);
        }
        buf_append_byte(out, '}');
    }
    buf_release(&text);
    mem_free(texts);
    mem_free(ends);
}

/* Name and matchers, without what stands behind them. */
static void selector_print(struct buf *out, const struct ast *ast) {
    if (!ast->selector.name_quoted)
        buf_append(out, ast->selector.name.data, ast->selector.name.len);
    matchers_print(out, ast);
}

static void matrix_print(struct buf *out, const struct ast *ast) {
    const struct ast *selector = ast->range.expr;
    selector_print(out, selector);
    buf_append_byte(out, '[');
    duration_or_expr_print(out, ast->range.range_ms, ast->range.range_expr);
    buf_append_byte(out, ']');
    extension_print(out, ast->range.anchored, ast->range.smoothed);
    at_print(out, &selector->selector.shift);
    offset_print(out, &selector->selector.shift);
}

static void subquery_suffix_print(struct buf *out, const struct ast *ast) {
    buf_append_byte(out, '[');
    duration_or_expr_print(out, ast->range.range_ms, ast->range.range_expr);
    buf_append_byte(out, ':');
    if (ast->range.has_step)
        duration_or_expr_print(out, ast->range.step_ms, ast->range.step_expr);
    buf_append_byte(out, ']');
    at_print(out, &ast->range.shift);
    offset_print(out, &ast->range.shift);
}

/* ---- Expressions
 * ---------------------------------------------------------------------------------------------------
 */

static void aggregate_head_print(struct buf *out, const struct ast *ast) {
    buf_append_str(out, token_text(ast->aggregate.op));
    if (!ast->aggregate.without && ast->aggregate.label_count == 0)
        return;
    buf_append_str(out, ast->aggregate.without ? " without " : " by ");
    names_print(out, ast->aggregate.labels, ast->aggregate.label_count);
    buf_append_byte(out, ' ');
}

static void operator_print(struct buf *out, const struct ast *ast) {
    const struct ast_matching *matching = &ast->binary.matching;
    buf_append_str(out, token_text(ast->binary.op));
    if (ast->binary.return_bool)
        buf_append_str(out, " bool");
    if (ast->binary.left->type != VALUE_VECTOR || ast->binary.right->type != VALUE_VECTOR)
        return;
    bool grouped = matching->card == CARD_MANY_TO_ONE || matching->card == CARD_ONE_TO_MANY;
    if (matching->label_count > 0 || matching->on || grouped) {
        buf_append_str(out, matching->on ? " on " : " ignoring ");
        names_print(out, matching->labels, matching->label_count);
    }
    if (grouped) {
        buf_append_str(out, matching->card == CARD_MANY_TO_ONE ? " group_left " : " group_right ");
        names_print(out, matching->include, matching->include_count);
    }
    const struct {
        bool has;
        const char *word;
        double value;
    } fills[] = {{matching->fill_both, "", matching->fill_left},
                 {matching->has_fill_left && !matching->fill_both, "_left", matching->fill_left},
                 {matching->has_fill_right && !matching->fill_both, "_right", matching->fill_right}};
    for (size_t i = 0; i < 3; i++) {
        if (!fills[i].has)
            continue;
        buf_printf(out, " fill%s (", fills[i].word);
        float_print(out, fills[i].value, float_text_go);
        buf_append_byte(out, ')');
    }
}

void ast_print(struct ast *ast, struct buf *out) {
    size_t start = out->len;
    switch (ast->kind) {
    case AST_NUMBER:
        number_print(out, ast);
        break;
    case AST_STRING:
        text_quote(out, ast->string);
        break;
    case AST_SELECTOR:
        selector_print(out, ast);
        at_print(out, &ast->selector.shift);
        extension_print(out, ast->selector.anchored, ast->selector.smoothed);
        offset_print(out, &ast->selector.shift);
        break;
    case AST_MATRIX:
        matrix_print(out, ast);
        break;
    case AST_SUBQUERY:
        ast_print(ast->range.expr, out);
        subquery_suffix_print(out, ast);
        break;
    case AST_UNARY:
        buf_append_str(out, token_text(ast->unary.op));
        ast_print(ast->unary.expr, out);
        break;
    case AST_BINARY:
        ast_print(ast->binary.left, out);
        buf_append_byte(out, ' ');
        operator_print(out, ast);
        buf_append_byte(out, ' ');
        ast_print(ast->binary.right, out);
        break;
    case AST_AGGREGATE:
        aggregate_head_print(out, ast);
        buf_append_byte(out, '(');
        if (ast->aggregate.param != NULL) {
            ast_print(ast->aggregate.param, out);
            buf_append_str(out, ", ");
        }
        ast_print(ast->aggregate.expr, out);
        buf_append_byte(out, ')');
        break;
    case AST_CALL:
        buf_append_str(out, ast->call.function->name);
        buf_append_byte(out, '(');
        for (size_t i = 0; i < ast->call.arg_count; i++) {
            if (i > 0)
                buf_append_str(out, ", ");
            ast_print(ast->call.args[i], out);
        }
        buf_append_byte(out, ')');
        break;
    case AST_PAREN:
        buf_append_byte(out, '(');
        ast_print(ast->paren, out);
        buf_append_byte(out, ')');
        break;
    }
    ast->print_len = out->len - start;
}

/* ---- In lines
 * --------------------------------------------------------------------------------------------------------
 */

struct pretty {
    struct buf *out;
    size_t len_max;
};

static void indent(struct pretty *pretty, size_t level) {
    for (size_t i = 0; i < level; i++)
        buf_append_str(pretty->out, "  ");
}

static void line_end(struct pretty *pretty, const char *before, size_t level) {
    buf_append_str(pretty->out, before);
    buf_append_byte(pretty->out, '\n');
    indent(pretty, level);
}

static void pretty_print(struct pretty *pretty, struct ast *ast, size_t level) {
    struct buf *out = pretty->out;
    if (out->len > pretty->len_max)
        return;
    if (ast->print_len <= LINE_BYTES_MAX || ast->kind == AST_SELECTOR || ast->kind == AST_MATRIX ||
        ast->kind == AST_NUMBER || ast->kind == AST_STRING) {
        if (ast->kind != AST_SUBQUERY) /* as Prometheus: a short subquery stands at the margin */
            indent(pretty, level);
        ast_print(ast, out);
        return;
    }
    switch (ast->kind) {
    case AST_SUBQUERY:
        pretty_print(pretty, ast->range.expr, level);
        subquery_suffix_print(out, ast);
        break;
    case AST_UNARY: {
        /* The sign stands where the operand's first line was indented. */
        indent(pretty, level);
        buf_append_str(out, token_text(ast->unary.op));
        size_t start = out->len, spaces = 0;
        pretty_print(pretty, ast->unary.expr, level);
        while (start + spaces < out->len && out->data[start + spaces] == ' ')
            spaces++;
        if (spaces > 0) {
            memmove(out->data + start, out->data + start + spaces, out->len - start - spaces);
            out->len -= spaces;
        }
        break;
    }
    case AST_BINARY:
        pretty_print(pretty, ast->binary.left, level + 1);
        line_end(pretty, "", level);
        operator_print(out, ast);
        line_end(pretty, "", 0);
        pretty_print(pretty, ast->binary.right, level + 1);
        break;
    case AST_AGGREGATE:
        indent(pretty, level);
        aggregate_head_print(out, ast);
        line_end(pretty, "(", 0);
        if (ast->aggregate.param != NULL) {
            pretty_print(pretty, ast->aggregate.param, level + 1);
            line_end(pretty, ",", 0);
        }
        pretty_print(pretty, ast->aggregate.expr, level + 1);
        line_end(pretty, "", level);
        buf_append_byte(out, ')');
        break;
    case AST_CALL:
        indent(pretty, level);
        buf_append_str(out, ast->call.function->name);
        line_end(pretty, "(", 0);
        for (size_t i = 0; i < ast->call.arg_count; i++) {
            if (i > 0)
                line_end(pretty, ",", 0);
            pretty_print(pretty, ast->call.args[i], level + 1);
        }
        line_end(pretty, "", level);
        buf_append_byte(out, ')');
        break;
    default: /* parentheses */
        indent(pretty, level);
        line_end(pretty, "(", 0);
        pretty_print(pretty, ast->paren, level + 1);
        line_end(pretty, "", level);
        buf_append_byte(out, ')');
        break;
    }
}

bool ast_print_pretty(struct ast *ast, size_t bytes_max, struct buf *out) {
    struct buf line;
    buf_init(&line);
    ast_print(ast, &line); /* for print_len */
    bool failed = line.failed;
    buf_release(&line);
    if (failed) {
        out->failed = true;
        return true;
    }
    struct pretty pretty = {out, out->len + bytes_max};
    pretty_print(&pretty, ast, 0);
    return out->len <= pretty.len_max;
}
