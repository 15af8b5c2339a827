#include "server/http_parse.h"

#include <string.h>
#include <strings.h>

#include "base/utf8.h"

/* ---- The head's guard -----------------------------------------------------------------------------------
 */

enum guard_state {
    GUARD_START,    /* before the method; empty lines are skipped, as RFC 9112 2.2 advises */
    GUARD_START_CR, /* behind a CR of such a line */
    GUARD_METHOD,
    GUARD_URL,
    GUARD_VERSION,
    GUARD_LINE_LF,    /* behind the CR of a line */
    GUARD_LINE_START, /* at the first byte of a header line */
    GUARD_LINE,
    GUARD_END_LF /* behind the CR of the empty line */
};

#define GUARD_OTHER_BYTES_MAX 1024 /* method, version, empty lines */

void head_guard_init(struct head_guard *guard) {
    *guard = (struct head_guard){.state = GUARD_START};
}

static bool is_control(uint8_t byte) {
    return (byte < 0x20 && byte != '\t') || byte == 0x7f;
}

/* One byte of the request line. */
static enum head_verdict guard_request_line(struct head_guard *guard, const struct limits *limits,
                                            uint8_t byte) {
    if (guard->state == GUARD_URL && byte != ' ' && byte != '\r') {
        if (is_control(byte) || byte == '\t')
            return byte == '\n' ? HEAD_BAD_LINE_END : HEAD_BAD_BYTE;
        return ++guard->url_bytes > limits->url_bytes_max ? HEAD_URL_TOO_LONG : HEAD_MORE;
    }
    if (++guard->other_bytes > GUARD_OTHER_BYTES_MAX)
        return HEAD_TOO_LONG;
    if (guard->state == GUARD_START && byte == '\r')
        guard->state = GUARD_START_CR;
    else if (guard->state == GUARD_START_CR)
        guard->state = GUARD_START;
    else if (byte == '\r')
        guard->state = GUARD_LINE_LF;
    else if (is_control(byte) || byte == '\t')
        return byte == '\n' ? HEAD_BAD_LINE_END : HEAD_BAD_BYTE;
    else if (guard->state == GUARD_START)
        guard->state = GUARD_METHOD;
    else if (byte == ' ')
        guard->state = guard->state == GUARD_METHOD ? GUARD_URL : GUARD_VERSION;
    return HEAD_MORE;
}

enum head_verdict head_guard_feed(struct head_guard *guard, const struct limits *limits, const uint8_t *data,
                                  size_t len, size_t *used_out) {
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = data[i];
        if ((guard->state == GUARD_START_CR || guard->state == GUARD_LINE_LF ||
             guard->state == GUARD_END_LF) &&
            byte != '\n')
            return HEAD_BAD_LINE_END;
        if (guard->state <= GUARD_VERSION) {
            enum head_verdict verdict = guard_request_line(guard, limits, byte);
            if (verdict != HEAD_MORE)
                return verdict;
            continue;
        }
        if (++guard->bytes > limits->header_bytes_max)
            return HEAD_TOO_LONG;
        switch (guard->state) {
        case GUARD_LINE_LF:
            guard->state = GUARD_LINE_START;
            break;
        case GUARD_END_LF:
            *used_out = i + 1;
            return HEAD_COMPLETE;
        case GUARD_LINE_START:
            if (byte == ' ' || byte == '\t')
                return HEAD_FOLDED;
            if (byte == '\r') {
                guard->state = GUARD_END_LF;
                break;
            }
            if (is_control(byte))
                return byte == '\n' ? HEAD_BAD_LINE_END : HEAD_BAD_BYTE;
            if (++guard->header_count > limits->header_count_max)
                return HEAD_TOO_MANY;
            guard->state = GUARD_LINE;
            break;
        default:
            if (byte == '\r')
                guard->state = GUARD_LINE_LF;
            else if (is_control(byte))
                return byte == '\n' ? HEAD_BAD_LINE_END : HEAD_BAD_BYTE;
        }
    }
    *used_out = len;
    return HEAD_MORE;
}

/* ---- Targets and parameters -----------------------------------------------------------------------------
 */

void target_split(struct slice target, struct slice *path, struct slice *query) {
    if (slice_starts_with(target, slice_str("http://")) || slice_starts_with(target, slice_str("https://"))) {
        const uint8_t *authority = memchr(target.data, ':', target.len);
        authority += 3;
        size_t rest = target.len - (size_t)(authority - target.data);
        const uint8_t *slash = memchr(authority, '/', rest);
        target = slash == NULL ? slice_str("/") : slice_of(slash, target.len - (size_t)(slash - target.data));
    }
    const uint8_t *mark = target.len == 0 ? NULL : memchr(target.data, '?', target.len);
    if (mark == NULL) {
        *path = target;
        *query = slice_of(NULL, 0);
        return;
    }
    *path = slice_of(target.data, (size_t)(mark - target.data));
    *query = slice_of(mark + 1, target.len - path->len - 1);
}

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int percent_decode(struct slice text, bool plus, struct arena *arena, struct error_detail *detail,
                   struct slice *out) {
    size_t i = 0;
    while (i < text.len && text.data[i] != '%' && !(plus && text.data[i] == '+'))
        i++;
    if (i == text.len) {
        *out = text;
        return STATUS_OK;
    }
    uint8_t *decoded = arena_alloc_bytes(arena, text.len);
    if (decoded == NULL)
        return STATUS_NO_MEMORY;
    size_t len = 0;
    for (i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_value(text.data[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.data[i + 2]) : -1;
            if (high < 0 || low < 0) {
                size_t shown = text.len - i < 3 ? text.len - i : 3;
                return error_set(detail, STATUS_BAD_INPUT, "invalid URL escape \"%.*s\"", (int)shown,
                                 (const char *)text.data + i);
            }
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        decoded[len++] = c;
    }
    *out = slice_of(decoded, len);
    return STATUS_OK;
}

static int params_push(struct params *params, struct param param, struct arena *arena,
                       struct error_detail *detail) {
    if (params->count == PARAMS_COUNT_MAX)
        return error_set(detail, STATUS_BAD_INPUT, "more than %d parameters", PARAMS_COUNT_MAX);
    if (params->count == params->capacity) {
        size_t capacity = params->capacity == 0 ? 8 : params->capacity * 2;
        struct param *items = arena_alloc(arena, capacity * sizeof *items);
        if (items == NULL)
            return STATUS_NO_MEMORY;
        if (params->count > 0)
            memcpy(items, params->items, params->count * sizeof *items);
        params->items = items;
        params->capacity = capacity;
    }
    params->items[params->count++] = param;
    return STATUS_OK;
}

int params_parse(struct slice text, struct arena *arena, struct error_detail *detail, struct params *params) {
    int status = STATUS_OK;
    while (text.len > 0) {
        const uint8_t *end = memchr(text.data, '&', text.len);
        size_t len = end == NULL ? text.len : (size_t)(end - text.data);
        struct slice pair = slice_of(text.data, len);
        size_t used = end == NULL ? len : len + 1;
        text = slice_of(text.data + used, text.len - used);
        if (pair.len == 0)
            continue;
        const uint8_t *mark = memchr(pair.data, '=', pair.len);
        size_t name_len = mark == NULL ? pair.len : (size_t)(mark - pair.data);
        struct slice value = mark == NULL ? slice_of(NULL, 0) : slice_of(mark + 1, pair.len - name_len - 1);
        struct param param;
        TRY(percent_decode(slice_of(pair.data, name_len), true, arena, detail, &param.name));
        TRY(percent_decode(value, true, arena, detail, &param.value));
        TRY(params_push(params, param, arena, detail));
    }
out:
    return status;
}

struct slice params_get(const struct params *params, const char *name) {
    struct slice wanted = slice_str(name);
    for (size_t i = 0; i < params->count; i++)
        if (slice_equal(params->items[i].name, wanted))
            return params->items[i].value;
    return slice_of(NULL, 0);
}

bool integer_parse(struct slice text, int64_t *out, bool *range_out) {
    size_t i = 0;
    bool negative = false;
    uint64_t value = 0;
    *range_out = false;
    if (i < text.len && (text.data[i] == '-' || text.data[i] == '+'))
        negative = text.data[i++] == '-';
    if (i == text.len)
        return false;
    for (; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            *range_out = false;
            return false;
        }
        if (value > (uint64_t)INT64_MAX / 10)
            *range_out = true;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
        if (value > (uint64_t)INT64_MAX)
            *range_out = true;
        if (*range_out)
            value = 0;
    }
    if (*range_out)
        return false;
    *out = negative ? -(int64_t)value : (int64_t)value;
    return true;
}

bool boolean_parse(struct slice text, bool *out) {
    static const char *const texts[] = {"0", "f", "F", "false", "False", "FALSE",
                                        "1", "t", "T", "true",  "True",  "TRUE"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (slice_equal(text, slice_str(texts[i]))) {
            *out = i >= sizeof texts / sizeof texts[0] / 2;
            return true;
        }
    }
    return false;
}

/* ---- Header values --------------------------------------------------------------------------------------
 */

struct slice slice_trim(struct slice text) {
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = slice_of(text.data + 1, text.len - 1);
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
        text.len--;
    return text;
}

bool slice_equal_nocase(struct slice text, const char *other) {
    return text.len == strlen(other) &&
           (text.len == 0 || strncasecmp((const char *)text.data, other, text.len) == 0);
}

/* Takes the next part of `rest` up to `separator`, trimmed. */
static bool part_next(struct slice *rest, uint8_t separator, struct slice *part) {
    if (rest->len == 0)
        return false;
    const uint8_t *end = memchr(rest->data, separator, rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
    *part = slice_trim(slice_of(rest->data, len));
    size_t used = end == NULL ? len : len + 1;
    *rest = slice_of(rest->data + used, rest->len - used);
    return true;
}

static bool quality_is_zero(struct slice parameters) {
    struct slice part;
    while (part_next(&parameters, ';', &part)) {
        if (part.len < 3 || (part.data[0] != 'q' && part.data[0] != 'Q') || part.data[1] != '=')
            continue;
        for (size_t i = 2; i < part.len; i++)
            if (part.data[i] != '0' && part.data[i] != '.')
                return false;
        return true;
    }
    return false;
}

bool header_offers(struct slice value, const char *token) {
    struct slice part, name;
    while (part_next(&value, ',', &part)) {
        struct slice rest = part;
        if (part_next(&rest, ';', &name) && slice_equal_nocase(name, token))
            return !quality_is_zero(rest);
    }
    return false;
}

bool media_type_is(struct slice value, const char *type) {
    struct slice part;
    return part_next(&value, ';', &part) && slice_equal_nocase(part, type);
}

struct slice media_type_param(struct slice value, const char *name) {
    struct slice part;
    if (!part_next(&value, ';', &part))
        return slice_of(NULL, 0);
    while (part_next(&value, ';', &part)) {
        struct slice key, rest = part;
        if (!part_next(&rest, '=', &key) || !slice_equal_nocase(key, name))
            continue;
        rest = slice_trim(rest);
        if (rest.len >= 2 && rest.data[0] == '"' && rest.data[rest.len - 1] == '"')
            rest = slice_of(rest.data + 1, rest.len - 2);
        return rest;
    }
    return slice_of(NULL, 0);
}

bool header_param_is(struct slice value, const char *name, const char *wanted) {
    struct slice part;
    while (part_next(&value, ',', &part))
        if (slice_equal_nocase(media_type_param(part, name), wanted))
            return true;
    return false;
}

/* ---- Label names in URLs --------------------------------------------------------------------------------
 */

#define UNESCAPE_HEX_MAX 6 /* digits of the largest code point, 10ffff */

struct slice label_name_unescape(struct slice name, struct arena *arena) {
    if (!slice_starts_with(name, slice_str("U__")))
        return name;
    uint8_t *out = arena_alloc_bytes(arena, name.len);
    if (out == NULL)
        return slice_of(NULL, 0);
    size_t len = 0, i = 3;
    while (i < name.len) {
        if (name.data[i] != '_') {
            out[len++] = name.data[i++];
            continue;
        }
        if (++i < name.len && name.data[i] == '_') {
            out[len++] = '_';
            i++;
            continue;
        }
        uint32_t code_point = 0;
        size_t digits = 0;
        for (; i < name.len && name.data[i] != '_'; i++, digits++) {
            int value = hex_value(name.data[i]);
            if (value < 0 || digits == UNESCAPE_HEX_MAX)
                return name;
            code_point = code_point << 4 | (uint32_t)value;
        }
        if (i == name.len || digits == 0 || code_point > 0x10ffff ||
            (code_point >= 0xd800 && code_point < 0xe000))
            return name;
        i++;
        /* Two underscores and the digits are never shorter than the code point's bytes. */
        uint8_t bytes[4];
        size_t width = utf8_encode(bytes, code_point);
        memcpy(out + len, bytes, width);
        len += width;
    }
    return slice_of(out, len);
}
