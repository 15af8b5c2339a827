#include "query/functions.h"

#include <string.h>

#include "query/query.h"

static const struct function table[] = {
#define FUNCTION(id, name, type, args, variadic, how)                                                        \
    {FUNCTION_##id, name, VALUE_##type, args, variadic, FUNCTION_HOW_##how},
#include "query/functions.def"
#undef FUNCTION
};

const struct function *function_find(struct slice name) {
    for (size_t i = 0; i < FUNCTION_COUNT; i++) {
        if (slice_equal(slice_str(table[i].name), name))
            return &table[i];
    }
    return NULL;
}

const struct query_function *query_functions(size_t *count_out) {
    static const struct query_function list[] = {
#define FUNCTION(id, name, type, args, variadic, how) {name, FUNCTION_HOW_##how != FUNCTION_HOW_NONE},
#include "query/functions.def"
#undef FUNCTION
    };
    *count_out = sizeof list / sizeof list[0];
    return list;
}

enum value_type function_arg_type(char letter) {
    switch (letter) {
    case 's':
        return VALUE_SCALAR;
    case 'v':
        return VALUE_VECTOR;
    case 'm':
        return VALUE_MATRIX;
    default:
        return VALUE_STRING;
    }
}
