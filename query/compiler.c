/* compiler.c: RE2 for whoever keeps matchers as text (base/matcher.h). */
#include "query/query.h"
#include "query/regex.h"

static int pattern_compile(struct slice text, const struct matcher_pattern **out) {
    char error[REGEX_ERROR_BYTES];
    struct limits limits;
    struct regex *regex;
    limits_init(&limits);
    int status = regex_new(text, limits.regex_bytes_max, false, error, &regex);
    if (status < 0)
        return status == STATUS_NO_MEMORY ? status : STATUS_BAD_INPUT;
    *out = regex_pattern(regex);
    return STATUS_OK;
}

static void pattern_release(const struct matcher_pattern *pattern) {
    regex_free(regex_of(pattern));
}

const struct matcher_compiler *query_matcher_compiler(void) {
    static const struct matcher_compiler compiler = {pattern_compile, pattern_release};
    return &compiler;
}
