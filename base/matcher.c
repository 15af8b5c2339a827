/* matcher.c: one matcher against one value. */
#include "base/matcher.h"

bool matcher_match(const struct matcher *matcher, struct slice value) {
    switch (matcher->kind) {
    case MATCHER_EQUAL:
        return slice_equal(matcher->value, value);
    case MATCHER_NOT_EQUAL:
        return !slice_equal(matcher->value, value);
    case MATCHER_REGEX:
        return matcher->pattern->match(matcher->pattern, value);
    case MATCHER_NOT_REGEX:
        return !matcher->pattern->match(matcher->pattern, value);
    }
    return false;
}
