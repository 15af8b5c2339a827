/* check.h: is a result what a script expects? NULL, or what is wrong. Texts live in the arena. */
#ifndef TIDALITE_PROMQLTEST_CHECK_H
#define TIDALITE_PROMQLTEST_CHECK_H

#include "query/query.h"
#include "tests/promqltest/script.h"

const char *check_failure(const struct script_eval *eval, const char *error, struct arena *arena);
const char *check_result(const struct script_eval *eval, const struct query_result *result,
                         struct arena *arena);

/* The query also runs as a range around the instant: its point at `time_ms` has to be what the instant query
 * answers, and its series have to be sorted. `compare` false: only sorted. */
const char *check_middle(const struct script_eval *eval, const struct query_result *result, int64_t time_ms,
                         bool compare, struct arena *arena);

#endif
