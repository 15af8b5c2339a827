/* limits.c: defaults and the table of limits. */
#include "base/limits.h"

#include <stddef.h>

#include "base/kill_point.h"

void limits_init(struct limits *limits) {
#define LIMIT(name, value, unit, flag, answer) limits->name = (value);
#include "base/limits.def"
#undef LIMIT
    KILL_POINT_LIMITS(limits);
}

static const struct limit_info table[] = {
#define LIMIT(name, value, unit, flag, answer)                                                               \
    {#name, (value), (unit), (flag), (answer), offsetof(struct limits, name)},
#include "base/limits.def"
#undef LIMIT
};

const struct limit_info *limits_info(uint64_t *count_out) {
    *count_out = sizeof table / sizeof table[0];
    return table;
}
