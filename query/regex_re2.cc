#include "query/regex_re2.h"

#include <re2/re2.h>

#include <cstdio>
#include <new>
#include <string>

// The same faults in the words of Go's package regexp, which Prometheus shows; RE2's own where Go has none.
static const char *go_words(RE2::ErrorCode code) {
    switch (code) {
    case RE2::ErrorBadEscape:
        return "invalid escape sequence";
    case RE2::ErrorBadCharClass:
        return "invalid character class";
    case RE2::ErrorBadCharRange:
        return "invalid character class range";
    case RE2::ErrorMissingBracket:
        return "missing closing ]";
    case RE2::ErrorMissingParen:
        return "missing closing )";
    case RE2::ErrorUnexpectedParen:
        return "unexpected )";
    case RE2::ErrorTrailingBackslash:
        return "trailing backslash at end of expression";
    case RE2::ErrorRepeatArgument:
        return "missing argument to repetition operator";
    case RE2::ErrorRepeatSize:
        return "invalid repeat count";
    case RE2::ErrorRepeatOp:
        return "invalid nested repetition operator";
    case RE2::ErrorBadPerlOp:
        return "invalid or unsupported Perl syntax";
    case RE2::ErrorBadUTF8:
        return "invalid UTF-8";
    case RE2::ErrorBadNamedCapture:
        return "invalid named capture";
    default:
        return nullptr;
    }
}

void *re2_new(const char *text, size_t len, size_t bytes_max, char *error, size_t error_bytes,
              bool *out_of_memory) {
    *out_of_memory = false;
    try {
        RE2::Options options;
        options.set_log_errors(false);
        options.set_never_nl(false);
        options.set_dot_nl(true);
        options.set_max_mem(bytes_max > 0x7fffffff ? 0x7fffffff : static_cast<int64_t>(bytes_max));
        RE2 *re = new RE2(re2::StringPiece(text, len), options);
        if (re->ok())
            return re;
        const char *words = go_words(re->error_code());
        if (words != nullptr)
            snprintf(error, error_bytes, "error parsing regexp: %s: `%s`", words, re->error_arg().c_str());
        else
            snprintf(error, error_bytes, "error parsing regexp: %s", re->error().c_str());
        delete re;
    } catch (const std::bad_alloc &) {
        *out_of_memory = true;
        snprintf(error, error_bytes, "out of memory");
    } catch (...) {
        snprintf(error, error_bytes, "error parsing regexp: the pattern can't be compiled");
    }
    return nullptr;
}

void re2_free(void *re) {
    delete static_cast<RE2 *>(re);
}

bool re2_match(const void *re, const char *value, size_t len) {
    try {
        return RE2::FullMatch(re2::StringPiece(value, len), *static_cast<const RE2 *>(re));
    } catch (...) {
        return false;
    }
}

size_t re2_groups(const void *opaque, const char *value, size_t len, long *starts, long *ends) {
    const RE2 *re = static_cast<const RE2 *>(opaque);
    try {
        re2::StringPiece groups[RE2_GROUPS_MAX];
        int count = re->NumberOfCapturingGroups() + 1;
        if (count > RE2_GROUPS_MAX)
            count = RE2_GROUPS_MAX;
        if (!re->Match(re2::StringPiece(value, len), 0, len, RE2::ANCHOR_BOTH, groups, count))
            return 0;
        for (int i = 0; i < count; i++) {
            bool in = groups[i].data() != nullptr;
            starts[i] = in ? groups[i].data() - value : -1;
            ends[i] = in ? starts[i] + static_cast<long>(groups[i].size()) : -1;
        }
        return static_cast<size_t>(count);
    } catch (...) {
        return 0;
    }
}

int re2_group_by_name(const void *opaque, const char *name, size_t len) {
    const RE2 *re = static_cast<const RE2 *>(opaque);
    try {
        auto found = re->NamedCapturingGroups().find(std::string(name, len));
        return found == re->NamedCapturingGroups().end() ? -1 : found->second;
    } catch (...) {
        return -1;
    }
}
