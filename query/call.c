/* call.c: scalars, and the functions that change one series at a time. */
#include "query/eval.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "query/functions.h"
#include "query/regex.h"

bool operator_apply(enum token_kind op, double left, double right, double *out) {
    switch (op) {
    case TOKEN_ADD:
        *out = left + right;
        return true;
    case TOKEN_SUB:
        *out = left - right;
        return true;
    case TOKEN_MUL:
        *out = left * right;
        return true;
    case TOKEN_DIV:
        *out = left / right;
        return true;
    case TOKEN_MOD:
        *out = fmod(left, right);
        return true;
    case TOKEN_POW:
        *out = pow(left, right);
        return true;
    case TOKEN_ATAN2:
        *out = atan2(left, right);
        return true;
    default:
        break;
    }
    *out = left;
    switch (op) {
    case TOKEN_EQ:
        return left == right;
    case TOKEN_NE:
        return left != right;
    case TOKEN_LT:
        return left < right;
    case TOKEN_LE:
        return left <= right;
    case TOKEN_GT:
        return left > right;
    case TOKEN_GE:
        return left >= right;
    default:
        return false;
    }
}

/* ---- Scalars ------------------------------------------------------------------------------------------- */

int scalar_column(struct eval *eval, struct ast *ast, struct grid grid, double **out) {
    double *values = eval_alloc(eval, (grid.count + 1) * sizeof *values);
    if (values == NULL)
        return eval_no_room(eval);
    int status = scalar_eval(eval, ast, grid, values);
    if (status >= 0)
        *out = values;
    return status;
}

/* scalar(v): the one element of a step, else NaN. */
static int scalar_of_vector(struct eval *eval, struct ast *ast, struct grid grid, double *values) {
    int status = STATUS_OK;
    struct eval_node *child;
    struct eval_series series;
    uint64_t *seen = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (seen == NULL)
        return eval_no_room(eval);
    TRY(node_build(eval, ast, grid, &child));
    for (size_t i = 0; i < grid.count; i++)
        values[i] = NAN;
    while ((status = node_next(child, &series)) == STATUS_OK) {
        for (BITS_EACH(i, series.present, grid.count)) {
            values[i] = bits_get(seen, i) ? NAN : series.values[i];
            bits_set(seen, i);
        }
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

static int scalar_call(struct eval *eval, struct ast *ast, struct grid grid, double *values) {
    int status = STATUS_OK;
    double value = 0;
    switch (ast->call.function->id) {
    case FUNCTION_TIME:
        for (size_t i = 0; i < grid.count; i++)
            values[i] = (double)grid_time(&grid, i) / 1000;
        return STATUS_OK;
    case FUNCTION_SCALAR:
        return scalar_of_vector(eval, ast->call.args[0], grid, values);
    case FUNCTION_PI:
        value = M_PI;
        break;
    case FUNCTION_START:
        value = (double)eval->request->start_ms / 1000;
        break;
    case FUNCTION_END:
        value = (double)eval->request->end_ms / 1000;
        break;
    case FUNCTION_RANGE:
        value = (double)(eval->request->end_ms - eval->request->start_ms) / 1000;
        break;
    case FUNCTION_STEP:
        value = eval->request->range ? (double)eval->request->step_ms / 1000 : 0;
        break;
    case FUNCTION_MIN_OF:
    case FUNCTION_MAX_OF: {
        double *right = NULL;
        bool want_max = ast->call.function->id == FUNCTION_MAX_OF;
        TRY(scalar_eval(eval, ast->call.args[0], grid, values));
        TRY(scalar_column(eval, ast->call.args[1], grid, &right));
        for (size_t i = 0; i < grid.count; i++) {
            if (isnan(values[i]) || isnan(right[i]))
                values[i] = NAN;
            else
                values[i] = want_max ? fmax(values[i], right[i]) : fmin(values[i], right[i]);
        }
        return STATUS_OK;
    }
    default: {
        char what[96];
        snprintf(what, sizeof what, "function \"%s\"", ast->call.function->name);
        return eval_unsupported(eval, what);
    }
    }
    for (size_t i = 0; i < grid.count; i++)
        values[i] = value;
out:
    return status;
}

int scalar_eval(struct eval *eval, struct ast *ast, struct grid grid, double *values) {
    int status = STATUS_OK;
    switch (ast->kind) {
    case AST_NUMBER:
        for (size_t i = 0; i < grid.count; i++)
            values[i] = ast->number;
        return STATUS_OK;
    case AST_PAREN:
        return scalar_eval(eval, ast->paren, grid, values);
    case AST_UNARY:
        TRY(scalar_eval(eval, ast->unary.expr, grid, values));
        for (size_t i = 0; ast->unary.op == TOKEN_SUB && i < grid.count; i++)
            values[i] = -values[i];
        return STATUS_OK;
    case AST_BINARY: {
        enum token_kind op = ast->binary.op;
        if (op == TOKEN_TRIM_UPPER || op == TOKEN_TRIM_LOWER)
            return eval_unsupported(eval, "trimming histograms");
        double *right = NULL;
        TRY(scalar_eval(eval, ast->binary.left, grid, values));
        TRY(scalar_column(eval, ast->binary.right, grid, &right));
        for (size_t i = 0; i < grid.count; i++) {
            double result;
            bool holds = operator_apply(op, values[i], right[i], &result);
            values[i] = op_is_comparison(op) ? (holds ? 1 : 0) : result;
        }
        return STATUS_OK;
    }
    case AST_CALL:
        return scalar_call(eval, ast, grid, values);
    default:
        return eval_fail(eval, "unexpected error: not a scalar");
    }
out:
    return status;
}

/* ---- One column after the other --------------------------------------------------------------------------
 */

enum map_kind {
    MAP_KEEP,
    MAP_MATH,
    MAP_NEGATE,
    MAP_CLAMP,
    MAP_ROUND,
    MAP_DATE,
    MAP_TIME,
    MAP_SCALAR_LEFT,
    MAP_SCALAR_RIGHT
};

struct map {
    struct eval_node base;
    struct eval_node *child;
    enum map_kind kind;
    enum function_id id;
    enum token_kind op;
    bool return_bool;
    bool drop_name;
    double (*math)(double);
    double *a, *b; /* scalar arguments at every step; NULL = absent */
};

static double math_sgn(double v) {
    return v < 0 ? -1 : v > 0 ? 1 : v;
}

static double math_deg(double v) {
    return v * 180 / M_PI;
}

static double math_rad(double v) {
    return v * M_PI / 180;
}

static double (*math_function(enum function_id id))(double) {
    switch (id) {
    case FUNCTION_ABS:
        return fabs;
    case FUNCTION_CEIL:
        return ceil;
    case FUNCTION_FLOOR:
        return floor;
    case FUNCTION_EXP:
        return exp;
    case FUNCTION_SQRT:
        return sqrt;
    case FUNCTION_LN:
        return log;
    case FUNCTION_LOG2:
        return log2;
    case FUNCTION_LOG10:
        return log10;
    case FUNCTION_SGN:
        return math_sgn;
    case FUNCTION_DEG:
        return math_deg;
    case FUNCTION_RAD:
        return math_rad;
    case FUNCTION_SIN:
        return sin;
    case FUNCTION_COS:
        return cos;
    case FUNCTION_TAN:
        return tan;
    case FUNCTION_ASIN:
        return asin;
    case FUNCTION_ACOS:
        return acos;
    case FUNCTION_ATAN:
        return atan;
    case FUNCTION_SINH:
        return sinh;
    case FUNCTION_COSH:
        return cosh;
    case FUNCTION_TANH:
        return tanh;
    case FUNCTION_ASINH:
        return asinh;
    case FUNCTION_ACOSH:
        return acosh;
    case FUNCTION_ATANH:
        return atanh;
    default:
        return NULL;
    }
}

static int64_t seconds_truncate(double v) {
    /* As Go on amd64: what does not fit becomes the smallest. */
    return v >= -9223372036854775808.0 && v < 9223372036854775808.0 ? (int64_t)v : INT64_MIN;
}

static double date_part(enum function_id id, double v) {
    time_t seconds = (time_t)seconds_truncate(v);
    struct tm tm;
    if (gmtime_r(&seconds, &tm) == NULL)
        return NAN;
    switch (id) {
    case FUNCTION_MINUTE:
        return tm.tm_min;
    case FUNCTION_HOUR:
        return tm.tm_hour;
    case FUNCTION_DAY_OF_WEEK:
        return tm.tm_wday;
    case FUNCTION_DAY_OF_MONTH:
        return tm.tm_mday;
    case FUNCTION_DAY_OF_YEAR:
        return tm.tm_yday + 1;
    case FUNCTION_MONTH:
        return tm.tm_mon + 1;
    case FUNCTION_YEAR:
        return (double)tm.tm_year + 1900;
    default: {
        static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
        long year = (long)tm.tm_year + 1900;
        bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        return days[tm.tm_mon] + (tm.tm_mon == 1 && leap);
    }
    }
}

static double clamp(const struct map *map, size_t i, double v, bool *keep) {
    double low = map->a != NULL ? map->a[i] : NAN, high = map->b != NULL ? map->b[i] : NAN;
    if (map->a != NULL && map->b != NULL && high < low)
        *keep = false;
    /* As Go's math.Max and math.Min: a NaN on either side wins. */
    if (map->a != NULL)
        v = isnan(v) || isnan(low) ? NAN : v < low ? low : v;
    if (map->b != NULL)
        v = isnan(v) || isnan(high) ? NAN : v > high ? high : v;
    return v;
}

static void map_column(const struct map *map, struct eval_series *series) {
    size_t count = map->base.grid.count;
    double *values = series->values;
    switch (map->kind) {
    case MAP_KEEP:
        break;
    case MAP_MATH:
        for (BITS_EACH(i, series->present, count))
            values[i] = map->math(values[i]);
        break;
    case MAP_NEGATE:
        for (BITS_EACH(i, series->present, count))
            values[i] = -values[i];
        break;
    case MAP_CLAMP:
        for (BITS_EACH(i, series->present, count)) {
            bool keep = true;
            values[i] = clamp(map, i, values[i], &keep);
            if (!keep)
                bits_clear(series->present, i);
        }
        break;
    case MAP_ROUND:
        for (BITS_EACH(i, series->present, count)) {
            double inverse = 1.0 / (map->a != NULL ? map->a[i] : 1);
            values[i] = floor(values[i] * inverse + 0.5) / inverse;
        }
        break;
    case MAP_DATE:
        for (BITS_EACH(i, series->present, count))
            values[i] = date_part(map->id, values[i]);
        break;
    case MAP_TIME:
        for (BITS_EACH(i, series->present, count))
            values[i] = (double)grid_time(&map->base.grid, i) / 1000;
        break;
    case MAP_SCALAR_LEFT:
    case MAP_SCALAR_RIGHT:
        for (BITS_EACH(i, series->present, count)) {
            double v = values[i], result;
            bool holds = map->kind == MAP_SCALAR_LEFT ? operator_apply(map->op, map->a[i], v, &result)
                                                      : operator_apply(map->op, v, map->a[i], &result);
            if (!op_is_comparison(map->op))
                values[i] = result;
            else if (map->return_bool)
                values[i] = holds ? 1 : 0;
            else if (!holds)
                bits_clear(series->present, i);
        }
        break;
    }
}

static int map_next(struct eval_node *node, struct eval_series *out) {
    struct map *map = (struct map *)node;
    int status = node_next(map->child, out);
    if (status != STATUS_OK)
        return status;
    map_column(map, out);
    if (map->drop_name)
        labels_drop_name(out);
    return STATUS_OK;
}

static int map_node(struct eval *eval, struct eval_node *child, enum map_kind kind, bool drop_name,
                    struct map **map_out, struct eval_node **out) {
    struct map *map = node_new(eval, sizeof *map, child->grid, map_next);
    if (map == NULL)
        return eval_no_room(eval);
    map->child = child;
    map->kind = kind;
    map->drop_name = drop_name;
    map->base.unique_nameless = child->unique_nameless;
    *map_out = map;
    *out = &map->base;
    if (drop_name && !child->unique_nameless) {
        int status = merge_node(eval, &map->base, false, NULL, out);
        if (status < 0)
            return status;
        (*out)->unique_nameless = true;
    }
    return STATUS_OK;
}

int unary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    struct eval_node *child;
    struct map *map;
    int status = node_build(eval, ast->unary.expr, grid, &child);
    if (status < 0 || ast->unary.op == TOKEN_ADD) {
        if (status >= 0)
            *out = child;
        return status;
    }
    return map_node(eval, child, MAP_NEGATE, true, &map, out);
}

/* vector op scalar; binary.c has two vectors. */
static int scalar_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    bool scalar_left = ast->binary.left->type == VALUE_SCALAR;
    struct eval_node *child;
    struct map *map;
    double *scalar = NULL;
    TRY(node_build(eval, scalar_left ? ast->binary.right : ast->binary.left, grid, &child));
    TRY(scalar_column(eval, scalar_left ? ast->binary.left : ast->binary.right, grid, &scalar));
    bool drop_name = !op_is_comparison(ast->binary.op) || ast->binary.return_bool;
    TRY(map_node(eval, child, scalar_left ? MAP_SCALAR_LEFT : MAP_SCALAR_RIGHT, drop_name, &map, out));
    map->op = ast->binary.op;
    map->return_bool = ast->binary.return_bool;
    map->a = scalar;
out:
    return status;
}

int vector_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);

int binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    if (ast->binary.op == TOKEN_TRIM_UPPER || ast->binary.op == TOKEN_TRIM_LOWER)
        return eval_unsupported(eval, "trimming histograms");
    if (ast->binary.left->type == VALUE_VECTOR && ast->binary.right->type == VALUE_VECTOR)
        return vector_binary_node(eval, ast, grid, out);
    return scalar_binary_node(eval, ast, grid, out);
}

/* ---- One series without labels: vector(s), absent(v)
 * --------------------------------------------------------- */

struct single {
    struct eval_node base;
    struct eval_node *absent_of; /* NULL: values are there already */
    bool done;
    struct label *labels;
    size_t label_count;
    double *values;
    uint64_t *present;
};

static int single_next(struct eval_node *node, struct eval_series *out) {
    struct single *single = (struct single *)node;
    if (single->done)
        return STATUS_END;
    single->done = true;
    size_t count = node->grid.count;
    bits_fill(single->present, count);
    if (single->absent_of != NULL) {
        int status;
        struct eval_series series;
        while ((status = node_next(single->absent_of, &series)) == STATUS_OK) {
            for (size_t i = 0; i < bits_words(count); i++)
                single->present[i] &= ~series.present[i];
        }
        if (status < 0)
            return status;
        for (size_t i = 0; i < count; i++)
            single->values[i] = 1;
    }
    if (!bits_any(single->present, count))
        return STATUS_END;
    *out = (struct eval_series){single->labels, single->label_count, single->values, single->present};
    return STATUS_OK;
}

static int single_node(struct eval *eval, struct grid grid, struct single **out) {
    struct single *single = node_new(eval, sizeof *single, grid, single_next);
    if (single == NULL)
        return eval_no_room(eval);
    single->base.unique_nameless = true;
    single->values = eval_alloc(eval, (grid.count + 1) * sizeof(double));
    single->present = eval_alloc(eval, (bits_words(grid.count) + 1) * 8);
    if (single->values == NULL || single->present == NULL)
        return eval_no_room(eval);
    *out = single;
    return STATUS_OK;
}

static int vector_of_scalar(struct eval *eval, struct ast *scalar, struct grid grid, struct eval_node **out) {
    struct single *single;
    int status = single_node(eval, grid, &single);
    if (status >= 0)
        status = scalar_eval(eval, scalar, grid, single->values);
    if (status >= 0)
        *out = &single->base;
    return status;
}

static int vector_of_time(struct eval *eval, struct grid grid, struct eval_node **out) {
    struct single *single;
    int status = single_node(eval, grid, &single);
    if (status < 0)
        return status;
    for (size_t i = 0; i < grid.count; i++)
        single->values[i] = (double)grid_time(&grid, i) / 1000;
    *out = &single->base;
    return STATUS_OK;
}

/* absent() says what it can about what is missing: the labels of the selector's = matchers, each asked for
 * once. */
static int absent_labels(struct eval *eval, struct ast *arg, struct single *single) {
    arg = ast_unparen(arg);
    if (arg->kind == AST_MATRIX)
        arg = arg->range.expr;
    if (arg->kind != AST_SELECTOR)
        return STATUS_OK;
    size_t count = arg->selector.matcher_count;
    single->labels = eval_alloc(eval, (count + 1) * sizeof *single->labels);
    if (single->labels == NULL)
        return eval_no_room(eval);
    for (size_t i = 0; i < count; i++) {
        const struct matcher *matcher = &arg->selector.matchers[i];
        bool alone = matcher->kind == MATCHER_EQUAL && !slice_equal(matcher->name, NAME_LABEL);
        for (size_t k = 0; alone && k < count; k++)
            alone = k == i || !slice_equal(matcher->name, arg->selector.matchers[k].name);
        if (alone)
            labels_set(single->labels, &single->label_count, matcher->name, matcher->value);
    }
    return STATUS_OK;
}

static int absent_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct single *single;
    TRY(single_node(eval, grid, &single));
    if (call->call.function->how == FUNCTION_HOW_ABSENT)
        TRY(node_build(eval, call->call.args[0], grid, &single->absent_of));
    else
        TRY(range_node(eval, call, grid, &single->absent_of));
    TRY(absent_labels(eval, call->call.args[0], single));
    *out = &single->base;
out:
    return status;
}

/* ---- sort
 * --------------------------------------------------------------------------------------------------- */

struct sort {
    struct eval_node base;
    struct eval_node *child;
    bool descending;
    bool is_read;
    struct kept_series *series;
    size_t count, at;
    uint64_t present;
};

static int sort_order(const void *left, const void *right, bool descending) {
    double a = ((const struct kept_series *)left)->column.values[0];
    double b = ((const struct kept_series *)right)->column.values[0];
    if (isnan(a) || isnan(b))
        return (isnan(a) ? 1 : 0) - (isnan(b) ? 1 : 0); /* NaN last, both ways */
    int order = (a > b) - (a < b);
    return descending ? -order : order;
}

static int sort_ascending(const void *left, const void *right) {
    return sort_order(left, right, false);
}

static int sort_descending(const void *left, const void *right) {
    return sort_order(left, right, true);
}

static int sort_read(struct sort *sort) {
    int status;
    struct eval_series series;
    while ((status = node_next(sort->child, &series)) == STATUS_OK) {
        if (!bits_any(series.present, sort->base.grid.count))
            continue;
        struct kept_series *grown = eval_push(sort->base.eval, sort->series, sort->count, sizeof *grown);
        if (grown == NULL)
            return eval_no_room(sort->base.eval);
        sort->series = grown;
        TRY(series_keep(sort->base.eval, &sort->base.grid, &series, &sort->series[sort->count]));
        sort->count++;
    }
    if (status == STATUS_END)
        status = STATUS_OK;
    if (sort->count > 0)
        qsort(sort->series, sort->count, sizeof *sort->series,
              sort->descending ? sort_descending : sort_ascending);
out:
    return status;
}

static int sort_next(struct eval_node *node, struct eval_series *out) {
    struct sort *sort = (struct sort *)node;
    if (!sort->is_read) {
        int status = sort_read(sort);
        if (status < 0)
            return status;
        sort->is_read = true;
    }
    if (sort->at == sort->count)
        return STATUS_END;
    struct kept_series *kept = &sort->series[sort->at++];
    sort->present = 1;
    *out = (struct eval_series){kept->labels, kept->label_count, kept->column.values, &sort->present};
    return STATUS_OK;
}

static int sort_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    struct eval_node *child;
    int status = node_build(eval, call->call.args[0], grid, &child);
    if (status < 0)
        return status;
    if (eval->request->range)
        annotate(eval, false, call->start,
                 "PromQL warning: sort is ineffective for range queries since results are always ordered by "
                 "labels");
    if (grid.count != 1) {
        *out = child;
        return STATUS_OK;
    }
    struct sort *sort = node_new(eval, sizeof *sort, grid, sort_next);
    if (sort == NULL)
        return eval_no_room(eval);
    sort->child = child;
    sort->descending = call->call.function->id == FUNCTION_SORT_DESC;
    sort->base.unique_nameless = child->unique_nameless;
    *out = &sort->base;
    return STATUS_OK;
}

/* ---- Labels from labels
 * ------------------------------------------------------------------------------------- */

struct relabel {
    struct eval_node base;
    struct eval_node *child;
    struct ast *call;
    struct regex *regex; /* label_replace */
    struct buf text;
    struct label *labels;
};

static int relabel_next(struct eval_node *node, struct eval_series *out) {
    struct relabel *relabel = (struct relabel *)node;
    struct ast **args = relabel->call->call.args;
    struct eval_series series;
    int status = node_next(relabel->child, &series);
    if (status != STATUS_OK)
        return status;
    struct buf *text = &relabel->text;
    buf_clear(text);
    if (series.label_count > 0)
        memcpy(relabel->labels, series.labels, series.label_count * sizeof *series.labels);
    bool change = true;
    if (relabel->regex != NULL) {
        struct slice source = labels_get(series.labels, series.label_count, ast_unparen(args[3])->string);
        change = regex_expand(relabel->regex, source, ast_unparen(args[2])->string, text);
    } else {
        struct slice separator = ast_unparen(args[2])->string;
        for (size_t i = 3; i < relabel->call->call.arg_count; i++) {
            struct slice source = labels_get(series.labels, series.label_count, ast_unparen(args[i])->string);
            if (i > 3)
                buf_append(text, separator.data, separator.len);
            buf_append(text, source.data, source.len);
        }
    }
    if (change) {
        struct slice value = arena_copy(&node->eval->arena, buf_slice(text));
        if (text->failed || (value.data == NULL && text->len > 0))
            return eval_no_room(node->eval);
        labels_set(relabel->labels, &series.label_count, ast_unparen(args[1])->string, value);
    }
    series.labels = relabel->labels;
    *out = series;
    return STATUS_OK;
}

static void relabel_release(struct eval_node *node) {
    struct relabel *relabel = (struct relabel *)node;
    regex_free(relabel->regex);
    buf_release(&relabel->text);
}

static int relabel_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    struct ast **args = call->call.args;
    bool is_replace = call->call.function->how == FUNCTION_HOW_LABEL_REPLACE;
    struct slice to = ast_unparen(args[1])->string;
    struct relabel *relabel = node_new(eval, sizeof *relabel, grid, relabel_next);
    if (relabel == NULL)
        return eval_no_room(eval);
    buf_init(&relabel->text);
    relabel->base.release = relabel_release;
    relabel->call = call;
    relabel->labels = eval_alloc(eval, (STORAGE_LABELS_MAX + 2) * sizeof(struct label));
    if (relabel->labels == NULL)
        return eval_no_room(eval);
    if (is_replace) {
        struct slice text = ast_unparen(args[4])->string;
        char error[REGEX_ERROR_BYTES];
        status = regex_new(text, eval->limits->regex_bytes_max, true, error, &relabel->regex);
        if (status == STATUS_NO_MEMORY)
            return eval_no_room(eval);
        if (status < 0)
            return eval_fail(eval, "invalid regular expression in label_replace(): %.*s", SLICE_ARGS(text));
    }
    if (to.len == 0 || !utf8_valid(to)) {
        char name[256] = "";
        size_t len = to.len < 200 ? to.len : 200;
        while (len > 0 && !utf8_valid(slice_of(to.data, len)))
            len--;
        memcpy(name, len > 0 ? (const char *)to.data : "", len);
        return eval_fail(eval, "invalid destination label name in %s(): %s", call->call.function->name, name);
    }
    for (size_t i = 3; !is_replace && i < call->call.arg_count; i++) {
        struct slice source = ast_unparen(args[i])->string;
        if (source.len == 0 || !utf8_valid(source))
            return eval_fail(eval, "invalid source label name in label_join()");
    }
    TRY(node_build(eval, args[0], grid, &relabel->child));
    TRY(merge_node(eval, &relabel->base, false, NULL, out));
out:
    return status;
}

/* ---- Which node is it? ------------------------------------------------------------------------------------
 */

static int math_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    const struct function *function = call->call.function;
    struct ast **args = call->call.args;
    struct eval_node *child;
    struct map *map;
    if (function->how == FUNCTION_HOW_DATE && call->call.arg_count == 0) {
        TRY(vector_of_time(eval, grid, &child));
    } else {
        struct ast *inner = ast_unparen(args[0]);
        if (function->how == FUNCTION_HOW_TIMESTAMP && inner->kind == AST_SELECTOR) {
            TRY(selector_node(eval, inner, grid, true, &child));
            TRY(map_node(eval, child, MAP_KEEP, true, &map, out));
            return STATUS_OK;
        }
        TRY(node_build(eval, args[0], grid, &child));
    }
    switch (function->how) {
    case FUNCTION_HOW_MATH:
        TRY(map_node(eval, child, MAP_MATH, true, &map, out));
        map->math = math_function(function->id);
        break;
    case FUNCTION_HOW_CLAMP:
        TRY(map_node(eval, child, MAP_CLAMP, true, &map, out));
        if (function->id != FUNCTION_CLAMP_MAX)
            TRY(scalar_column(eval, args[1], grid, &map->a));
        if (function->id != FUNCTION_CLAMP_MIN)
            TRY(scalar_column(eval, args[function->id == FUNCTION_CLAMP ? 2 : 1], grid, &map->b));
        break;
    case FUNCTION_HOW_ROUND:
        TRY(map_node(eval, child, MAP_ROUND, true, &map, out));
        if (call->call.arg_count > 1)
            TRY(scalar_column(eval, args[1], grid, &map->a));
        break;
    case FUNCTION_HOW_DATE:
        TRY(map_node(eval, child, MAP_DATE, true, &map, out));
        map->id = function->id;
        break;
    default:
        TRY(map_node(eval, child, MAP_TIME, true, &map, out));
        break;
    }
out:
    return status;
}

int call_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    char what[96];
    switch (call->call.function->how) {
    case FUNCTION_HOW_MATH:
    case FUNCTION_HOW_CLAMP:
    case FUNCTION_HOW_ROUND:
    case FUNCTION_HOW_DATE:
    case FUNCTION_HOW_TIMESTAMP:
        return math_node(eval, call, grid, out);
    case FUNCTION_HOW_VECTOR:
        return vector_of_scalar(eval, call->call.args[0], grid, out);
    case FUNCTION_HOW_ABSENT:
    case FUNCTION_HOW_ABSENT_OVER_TIME:
        return absent_node(eval, call, grid, out);
    case FUNCTION_HOW_SORT:
        return sort_node(eval, call, grid, out);
    case FUNCTION_HOW_LABEL_REPLACE:
    case FUNCTION_HOW_LABEL_JOIN:
        return relabel_node(eval, call, grid, out);
    case FUNCTION_HOW_HISTOGRAM_QUANTILE:
        return histogram_quantile_node(eval, call, grid, out);
    default:
        snprintf(what, sizeof what, "function \"%s\"", call->call.function->name);
        return eval_unsupported(eval, what);
    }
}
