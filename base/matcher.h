/* matcher.h: what a selector asks of one label. The regular-expression library lives in query/; storage gets
 * a pattern as a function, with hints that let it skip values. */
#ifndef TIDALITE_BASE_MATCHER_H
#define TIDALITE_BASE_MATCHER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

enum matcher_kind {
    MATCHER_EQUAL,     /* = */
    MATCHER_NOT_EQUAL, /* != */
    MATCHER_REGEX,     /* =~ */
    MATCHER_NOT_REGEX  /* !~ */
};

/* A compiled, fully anchored pattern. Immutable; `match` may be called from any thread at once. */
struct matcher_pattern {
    bool (*match)(const struct matcher_pattern *pattern, struct slice value);
    void *context;

    /* Hints, all optional: */
    const struct slice *literals; /* with literal_count > 0: exactly these values match (sorted, unique) */
    size_t literal_count;
    struct slice prefix; /* every match starts with it; empty = nothing known */
    bool matches_all;    /* as `.*`: every value matches, the empty one too */
};

struct matcher {
    enum matcher_kind kind;
    struct slice name;
    struct slice value;                    /* as written; for the regex kinds the pattern's text */
    const struct matcher_pattern *pattern; /* for the regex kinds, else NULL; borrowed */
};

/* Makes patterns of text, for matchers that were kept as text: the library that does it lives above whoever
 * needs it. `compile`: STATUS_BAD_INPUT or STATUS_NO_MEMORY; give the pattern back with `release`. Any
 * thread. */
struct matcher_compiler {
    int (*compile)(struct slice text, const struct matcher_pattern **out);
    void (*release)(const struct matcher_pattern *pattern);
};

/* Does the label value satisfy the matcher? A missing label is the empty value. */
bool matcher_match(const struct matcher *matcher, struct slice value);

#endif
