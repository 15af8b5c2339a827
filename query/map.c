/* map.c: functions and operators that change one series at a time. */
#include <time.h>

#include "query/eval.h"
#include "query/functions.h"

enum map_kind {
    MAP_KEEP,
    MAP_NOTHING, /* functions of native histograms say nothing of floats */
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
    const struct ast *binary;
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

/* The calendar repeats every 400 years, a whole number of weeks: 2001 to 2400 stand for all. Go counts from a
 * year far enough back for every second that an int64 can name, in an uint64; the very first ones lie before
 * it and wrap around. */
#define CYCLE_S      (146097ull * 86400)
#define ZERO_YEAR    (-292277022399)
#define ZERO_UNIX_S  9223372028715321600ull /* before 1970 */
#define CYCLE_UNIX_S 978307200              /* 2001 */

static double date_part(enum function_id id, double v) {
    uint64_t since_zero_s = (uint64_t)seconds_truncate(v) + ZERO_UNIX_S;
    time_t seconds = (time_t)(since_zero_s % CYCLE_S) + CYCLE_UNIX_S;
    struct tm tm;
    gmtime_r(&seconds, &tm); /* cannot fail on these years */
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
        return (double)(ZERO_YEAR + (int64_t)(since_zero_s / CYCLE_S) * 400 + tm.tm_year - 101);
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
    if (map->b != NULL)
        v = value_min(high, v);
    if (map->a != NULL)
        v = value_max(low, v);
    return v;
}

static void map_column(const struct map *map, struct eval_series *series) {
    size_t count = map->base.grid.count;
    double *values = series->values;
    switch (map->kind) {
    case MAP_KEEP:
        break;
    case MAP_NOTHING:
        memset(series->present, 0, bits_words(count) * 8);
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
            double v = values[i], result = 0;
            bool holds = map->kind == MAP_SCALAR_LEFT ? operator_apply(map->op, map->a[i], v, &result)
                                                      : operator_apply(map->op, v, map->a[i], &result);
            if (op_is_comparison(map->op))
                result = v; /* what passes a filter is the vector's value */
            if (map->op == TOKEN_TRIM_LOWER || map->op == TOKEN_TRIM_UPPER)
                annotate_types(map->base.eval, map->binary);
            if (map->return_bool)
                values[i] = holds ? 1 : 0;
            else if (holds)
                values[i] = result;
            else
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
        series_drop_name(node->eval, out);
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
    if (drop_name && !child->unique_nameless && !eval->delayed_names) {
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
int scalar_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    bool scalar_left = ast->binary.left->type == VALUE_SCALAR;
    struct eval_node *child;
    struct map *map;
    double *scalar = NULL;
    TRY(node_build(eval, scalar_left ? ast->binary.right : ast->binary.left, grid, &child));
    TRY(scalar_column(eval, scalar_left ? ast->binary.left : ast->binary.right, grid, &scalar));
    enum token_kind op = ast->binary.op;
    bool is_trim = op == TOKEN_TRIM_LOWER || op == TOKEN_TRIM_UPPER;
    bool drop_name = (!op_is_comparison(op) && !is_trim) || ast->binary.return_bool;
    TRY(map_node(eval, child, scalar_left ? MAP_SCALAR_LEFT : MAP_SCALAR_RIGHT, drop_name, &map, out));
    map->binary = ast;
    map->op = op;
    map->return_bool = ast->binary.return_bool;
    map->a = scalar;
out:
    return status;
}

int map_function_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    int status = STATUS_OK;
    const struct function *function = call->call.function;
    struct ast **args = call->call.args;
    struct eval_node *child;
    struct map *map;
    if (function->how == FUNCTION_HOW_DATE && call->call.arg_count == 0) {
        TRY(vector_of_time_node(eval, grid, &child));
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
    case FUNCTION_HOW_OF_HISTOGRAM:
        TRY(map_node(eval, child, MAP_NOTHING, true, &map, out));
        break;
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
