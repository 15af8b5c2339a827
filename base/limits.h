/* limits.h: every bound of the program in one struct, from limits.def. Each has a name, a default, a
 * documented answer when it is reached, and a metric or a status that shows it. */
#ifndef TIDALITE_BASE_LIMITS_H
#define TIDALITE_BASE_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

struct limits {
#define LIMIT(name, value, unit, flag, answer) uint64_t name;
#include "base/limits.def"
};

/* How many there are. */
enum {
#define LIMIT(name, value, unit, flag, answer) LIMIT_INDEX_##name,
#include "base/limits.def"
#undef LIMIT
    LIMIT_COUNT
};

/* Sets every limit to its default. */
void limits_init(struct limits *limits);

/* One row of the table, for --help, flag parsing, /api/v1/status/limits and the documentation test. */
struct limit_info {
    const char *name;
    uint64_t value_default;
    const char *unit;
    const char *flag; /* "" = not settable */
    const char *answer;
    uint64_t offset; /* of the field in struct limits */
    bool takes_zero; /* 0 is no bound; else it can't be set to that */
};

/* The table and its length. Static. */
const struct limit_info *limits_info(uint64_t *count_out);

#endif
