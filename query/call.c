/* call.c: which node evaluates a call. */
#include "query/eval.h"

#include <stdio.h>

#include "query/functions.h"

int call_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out) {
    char what[96];
    switch (call->call.function->how) {
    case FUNCTION_HOW_RANGE:
        return range_node(eval, call, grid, out);
    case FUNCTION_HOW_MATH:
    case FUNCTION_HOW_CLAMP:
    case FUNCTION_HOW_ROUND:
    case FUNCTION_HOW_DATE:
    case FUNCTION_HOW_TIMESTAMP:
    case FUNCTION_HOW_OF_HISTOGRAM:
        return map_function_node(eval, call, grid, out);
    case FUNCTION_HOW_VECTOR:
        return vector_of_scalar_node(eval, call->call.args[0], grid, out);
    case FUNCTION_HOW_ABSENT:
    case FUNCTION_HOW_ABSENT_OVER_TIME:
        return absent_node(eval, call, grid, out);
    case FUNCTION_HOW_SORT:
    case FUNCTION_HOW_SORT_BY_LABEL:
        return sort_node(eval, call, grid, out);
    case FUNCTION_HOW_LABEL_REPLACE:
    case FUNCTION_HOW_LABEL_JOIN:
        return relabel_node(eval, call, grid, out);
    case FUNCTION_HOW_HISTOGRAM:
        return histogram_node(eval, call, grid, out);
    case FUNCTION_HOW_INFO:
        return info_node(eval, call, grid, out);
    case FUNCTION_HOW_SCALAR:
    case FUNCTION_HOW_NONE:
        break;
    }
    snprintf(what, sizeof what, "function \"%s\"", call->call.function->name);
    return eval_unsupported(eval, what);
}
