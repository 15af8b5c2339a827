#include "query/regex.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/status.h"
#include "base/utf8.h"
#include "query/regex_re2.h"

struct regex {
    struct matcher_pattern pattern;
    void *re; /* NULL for a literal set and for what needs no engine */
    struct slice *literals;
    uint8_t *bytes; /* of the literals, or of the prefix */
    enum { REGEX_ENGINE, REGEX_LITERALS, REGEX_ALL, REGEX_NOT_EMPTY } kind;
};

static bool is_meta(uint8_t c) {
    return c != 0 && strchr("\\.+*?()|[]{}^$", c) != NULL;
}

static bool is_punctuation(uint8_t c) {
    return c > 32 && c < 127 && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z') && c != '_';
}

static int compare_literals(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

static bool match_literals(const struct matcher_pattern *pattern, struct slice value) {
    size_t low = 0, high = pattern->literal_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_compare(pattern->literals[middle], value);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static bool match_all(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    (void)value;
    return true;
}

static bool match_not_empty(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    return value.len > 0;
}

static bool match_engine(const struct matcher_pattern *pattern, struct slice value) {
    if (!slice_starts_with(value, pattern->prefix))
        return false;
    const struct regex *regex = pattern->context;
    return re2_match(regex->re, value.data == NULL ? "" : (const char *)value.data, value.len);
}

/* Takes a pattern of literals apart. Returns false if it is more than that. */
static bool literals_find(struct regex *regex, struct slice text, int *status_out) {
    if (text.len >= 2 && text.data[0] == '(' && text.data[text.len - 1] == ')' && text.data[1] != '?')
        text = slice_of(text.data + 1, text.len - 2);
    size_t count = 1;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '\\') {
            if (i + 1 >= text.len || !is_punctuation(text.data[i + 1]))
                return false;
            i++;
        } else if (c == '|') {
            count++;
        } else if (is_meta(c)) {
            return false;
        }
    }
    regex->literals = mem_alloc(sizeof(struct slice) * count);
    regex->bytes = mem_alloc(text.len + 1);
    if (regex->literals == NULL || regex->bytes == NULL) {
        *status_out = STATUS_NO_MEMORY;
        return true;
    }
    uint8_t *to = regex->bytes, *start = to;
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '|') {
            regex->literals[n++] = slice_of(start, (size_t)(to - start));
            start = to;
        } else {
            *to++ = c == '\\' ? text.data[++i] : c;
        }
    }
    regex->literals[n++] = slice_of(start, (size_t)(to - start));
    qsort(regex->literals, n, sizeof(struct slice), compare_literals);
    size_t unique = 0;
    for (size_t i = 0; i < n; i++) {
        if (unique == 0 || !slice_equal(regex->literals[i], regex->literals[unique - 1]))
            regex->literals[unique++] = regex->literals[i];
    }
    regex->kind = REGEX_LITERALS;
    regex->pattern.match = match_literals;
    regex->pattern.literals = regex->literals;
    regex->pattern.literal_count = unique;
    return true;
}

/* Bytes every match must begin with: those before the first metacharacter, less the last code point if it is
 * quantified. */
static size_t prefix_len(struct slice text) {
    if (text.len > 0 && memchr(text.data, '|', text.len) != NULL)
        return 0;
    size_t len = 0;
    while (len < text.len && !is_meta(text.data[len]))
        len++;
    if (len < text.len && strchr("*?{", text.data[len]) != NULL && len > 0) {
        do
            len--;
        while (len > 0 && (text.data[len] & 0xc0) == 0x80);
    }
    return len;
}

/* ^(?s:text)$ with Go's (?<name> written as RE2 20220601 wants it, (?P<name>. */
static int pattern_wrap(struct slice text, struct buf *out) {
    buf_append_str(out, "^(?s:");
    bool in_class = false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        buf_append_byte(out, c);
        if (c == '\\' && i + 1 < text.len) {
            buf_append_byte(out, text.data[++i]);
            /* \Q…\E is literal. */
            if (text.data[i] == 'Q' && !in_class) {
                while (i + 1 < text.len) {
                    buf_append_byte(out, text.data[++i]);
                    if (text.data[i] == 'E' && text.data[i - 1] == '\\')
                        break;
                }
            }
        } else if (in_class) {
            in_class = c != ']';
        } else if (c == '[') {
            in_class = true;
            /* A ] right behind [ or [^ stands for itself. */
            if (i + 1 < text.len && text.data[i + 1] == '^')
                buf_append_byte(out, text.data[++i]);
            if (i + 1 < text.len && text.data[i + 1] == ']')
                buf_append_byte(out, text.data[++i]);
        } else if (c == '(' && i + 3 < text.len && text.data[i + 1] == '?' && text.data[i + 2] == '<' &&
                   text.data[i + 3] != '=' && text.data[i + 3] != '!') {
            buf_append_str(out, "?P");
            i++;
        }
    }
    buf_append_str(out, ")$");
    return out->failed ? STATUS_NO_MEMORY : STATUS_OK;
}

int regex_new(struct slice text, size_t bytes_max, bool captures, char *error, struct regex **out) {
    int status = STATUS_OK;
    struct buf wrapped;
    buf_init(&wrapped);
    struct regex *regex = mem_zalloc(sizeof *regex);
    if (regex == NULL)
        return STATUS_NO_MEMORY;
    regex->pattern.context = regex;
    if (!utf8_valid(text)) {
        snprintf(error, REGEX_ERROR_BYTES, "error parsing regexp: invalid UTF-8");
        status = STATUS_BAD_QUERY;
        goto out;
    }
    if (!captures && slice_equal(text, slice_str(".*"))) {
        regex->kind = REGEX_ALL;
        regex->pattern.match = match_all;
        regex->pattern.matches_all = true;
    } else if (!captures && slice_equal(text, slice_str(".+"))) {
        regex->kind = REGEX_NOT_EMPTY;
        regex->pattern.match = match_not_empty;
    } else if (captures || !literals_find(regex, text, &status)) {
        TRY(pattern_wrap(text, &wrapped));
        bool out_of_memory = false;
        /* The pattern may close our group: a(b)c){2}(?:x would. RE2 alone must accept it too. */
        regex->re = re2_new((const char *)wrapped.data + 5, wrapped.len - 7, bytes_max, error,
                            REGEX_ERROR_BYTES, &out_of_memory);
        if (regex->re != NULL) {
            re2_free(regex->re);
            regex->re = re2_new((const char *)wrapped.data, wrapped.len, bytes_max, error, REGEX_ERROR_BYTES,
                                &out_of_memory);
        }
        if (regex->re == NULL) {
            status = out_of_memory ? STATUS_NO_MEMORY : STATUS_BAD_QUERY;
            goto out;
        }
        size_t prefix = prefix_len(text);
        if (prefix > 0) {
            regex->bytes = mem_alloc(prefix);
            if (regex->bytes == NULL) {
                status = STATUS_NO_MEMORY;
                goto out;
            }
            memcpy(regex->bytes, text.data, prefix);
            regex->pattern.prefix = slice_of(regex->bytes, prefix);
        }
        regex->pattern.match = match_engine;
    }
    if (status >= 0)
        *out = regex;
out:
    buf_release(&wrapped);
    if (status < 0)
        regex_free(regex);
    return status;
}

void regex_free(struct regex *regex) {
    if (regex == NULL)
        return;
    if (regex->re != NULL)
        re2_free(regex->re);
    mem_free(regex->literals);
    mem_free(regex->bytes);
    mem_free(regex);
}

const struct matcher_pattern *regex_pattern(const struct regex *regex) {
    return &regex->pattern;
}

struct regex *regex_of(const struct matcher_pattern *pattern) {
    return pattern->context;
}

static bool is_word(uint8_t c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
}

bool regex_expand(const struct regex *regex, struct slice value, struct slice replacement, struct buf *out) {
    long starts[RE2_GROUPS_MAX], ends[RE2_GROUPS_MAX];
    const char *text = value.data == NULL ? "" : (const char *)value.data;
    size_t groups = re2_groups(regex->re, text, value.len, starts, ends);
    if (groups == 0)
        return false;
    size_t i = 0;
    while (i < replacement.len) {
        uint8_t c = replacement.data[i];
        if (c != '$') {
            buf_append_byte(out, c);
            i++;
            continue;
        }
        if (i + 1 < replacement.len && replacement.data[i + 1] == '$') {
            buf_append_byte(out, '$');
            i += 2;
            continue;
        }
        size_t start = i + 1;
        bool brace = start < replacement.len && replacement.data[start] == '{';
        if (brace)
            start++;
        size_t end = start;
        while (end < replacement.len && is_word(replacement.data[end]))
            end++;
        if (end == start || (brace && (end >= replacement.len || replacement.data[end] != '}'))) {
            buf_append_byte(out, '$'); /* malformed: stays as written */
            i++;
            continue;
        }
        long number = 0;
        for (size_t k = start; k < end; k++) {
            uint8_t digit = replacement.data[k];
            if (digit < '0' || digit > '9' || number > 100000) {
                number = -1;
                break;
            }
            number = number * 10 + (digit - '0');
        }
        if (end - start > 1 && replacement.data[start] == '0')
            number = -1;
        if (number < 0)
            number = re2_group_by_name(regex->re, (const char *)replacement.data + start, end - start);
        if (number >= 0 && (size_t)number < groups && starts[number] >= 0)
            buf_append(out, text + starts[number], (size_t)(ends[number] - starts[number]));
        i = end + (brace ? 1 : 0);
    }
    return true;
}
