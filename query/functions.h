/* functions.h: the table of functions.def, for the parser and the evaluator. */
#ifndef TIDALITE_QUERY_FUNCTIONS_H
#define TIDALITE_QUERY_FUNCTIONS_H

#include "base/slice.h"
#include "query/ast.h"

enum function_id {
#define FUNCTION(id, name, type, args, variadic, how) FUNCTION_##id,
#include "query/functions.def"
#undef FUNCTION
    FUNCTION_COUNT
};

enum function_how {
    FUNCTION_HOW_NONE,
    FUNCTION_HOW_RANGE,
    FUNCTION_HOW_MATH,
    FUNCTION_HOW_SCALAR,
    FUNCTION_HOW_VECTOR,
    FUNCTION_HOW_CLAMP,
    FUNCTION_HOW_ROUND,
    FUNCTION_HOW_DATE,
    FUNCTION_HOW_TIMESTAMP,
    FUNCTION_HOW_ABSENT,
    FUNCTION_HOW_ABSENT_OVER_TIME,
    FUNCTION_HOW_SORT,
    FUNCTION_HOW_SORT_BY_LABEL,
    FUNCTION_HOW_OF_HISTOGRAM, /* of a native histogram: floats have none */
    FUNCTION_HOW_INFO,
    FUNCTION_HOW_LABEL_REPLACE,
    FUNCTION_HOW_LABEL_JOIN,
    FUNCTION_HOW_HISTOGRAM
};

struct function {
    enum function_id id;
    const char *name;
    enum value_type type;
    const char *args; /* s, v, m, t */
    int variadic;
    enum function_how how;
};

/* NULL if there is no such function. Names are case-sensitive. */
const struct function *function_find(struct slice name);

/* The value type behind a letter of `args`. */
enum value_type function_arg_type(char letter);

#endif
