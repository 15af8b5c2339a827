/* regex.h: RE2 with a C face. Patterns are fully anchored, and a dot matches a newline: ^(?s:…)$, as in
 * Prometheus.
 *
 * A pattern that is only literals ("a|b|c", "(a|b)", with escaped punctuation) never reaches RE2: it becomes
 * a sorted set, so that the alternations of tens of thousands of names that dashboards write cost neither
 * memory nor time. */
#ifndef TIDALITE_QUERY_REGEX_H
#define TIDALITE_QUERY_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/matcher.h"
#include "base/slice.h"

#ifdef __cplusplus
extern "C" {
#endif

struct regex;

#define REGEX_ERROR_BYTES 256

/* Compiles a copy of `text`. `bytes_max` bounds what RE2 may take; `captures`: regex_expand will be used.
 * STATUS_BAD_QUERY with a line in `error` (REGEX_ERROR_BYTES), or STATUS_NO_MEMORY. */
int regex_new(struct slice text, size_t bytes_max, bool captures, char *error, struct regex **out);
void regex_free(struct regex *regex);

/* Lives as long as the regex. */
const struct matcher_pattern *regex_pattern(const struct regex *regex);

/* The other way: the regex behind a pattern that regex_pattern gave. */
struct regex *regex_of(const struct matcher_pattern *pattern);

/* If `value` matches, appends `replacement` with $1, $name, ${name}, $$ filled in as Go's Expand does, and
 * returns true. */
bool regex_expand(const struct regex *regex, struct slice value, struct slice replacement, struct buf *out);

#ifdef __cplusplus
}
#endif

#endif
