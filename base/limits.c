/* limits.c: defaults and the table of limits. */
#include "base/limits.h"

#include <stddef.h>

#include "base/kill_point.h"

void limits_init(struct limits *limits) {
#define LIMIT(name, value, unit, flag, answer) limits->name = (value);
#include "base/limits.def"
    KILL_POINT_LIMITS(limits);
}

static const struct limit_info table[] = {
#define ROW(name, value, unit, flag, answer, zero)                                                           \
    {#name, (value), (unit), (flag), (answer), offsetof(struct limits, name), (zero)},
#define LIMIT(name, value, unit, flag, answer)         ROW(name, value, unit, flag, answer, false)
#define LIMIT_OR_NONE(name, value, unit, flag, answer) ROW(name, value, unit, flag, answer, true)
#include "base/limits.def"
};

const struct limit_info *limits_info(uint64_t *count_out) {
    *count_out = sizeof table / sizeof table[0];
    return table;
}
