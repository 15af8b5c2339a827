/* label.c: label bytes: reading, writing, making canonical, printing. */
#include "base/label.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/status.h"
#include "base/utf8.h"

enum { TAG_LABEL = 0x0a, TAG_NAME = 0x0a, TAG_VALUE = 0x12 };

const char *label_fault_name(enum label_fault fault) {
    static const char *const names[LABEL_FAULT_COUNT] = {
        [LABEL_FAULT_NONE] = "none",
        [LABEL_FAULT_NO_METRIC_NAME] = "no_metric_name",
        [LABEL_FAULT_EMPTY_NAME] = "empty_label_name",
        [LABEL_FAULT_DUPLICATE_NAME] = "duplicate_label",
        [LABEL_FAULT_INVALID_UTF8] = "invalid_utf8",
        [LABEL_FAULT_TOO_MANY] = "too_many_labels",
        [LABEL_FAULT_NAME_TOO_LONG] = "label_name_too_long",
        [LABEL_FAULT_VALUE_TOO_LONG] = "label_value_too_long",
    };
    return names[fault];
}

static size_t inner_len(struct slice name, struct slice value) {
    return 2 + varint_len(name.len) + name.len + varint_len(value.len) + value.len;
}

size_t label_bytes_len(struct slice name, struct slice value) {
    size_t inner = inner_len(name, value);
    return 1 + varint_len(inner) + inner;
}

uint8_t *label_bytes_write(uint8_t *p, struct slice name, struct slice value) {
    *p++ = TAG_LABEL;
    p = varint_write(p, inner_len(name, value));
    *p++ = TAG_NAME;
    p = varint_write(p, name.len);
    if (name.len > 0)
        memcpy(p, name.data, name.len);
    p += name.len;
    *p++ = TAG_VALUE;
    p = varint_write(p, value.len);
    if (value.len > 0)
        memcpy(p, value.data, value.len);
    return p + value.len;
}

void label_bytes_append(struct buf *buf, struct slice name, struct slice value) {
    size_t len = label_bytes_len(name, value);
    uint8_t *p = buf_reserve(buf, len);
    if (p == NULL)
        return;
    label_bytes_write(p, name, value);
    buf->len += len;
}

/* A minimal varint that is the length of what follows inside [p, end). */
static const uint8_t *length_read(const uint8_t *p, const uint8_t *end, size_t *len) {
    if (p < end && *p < 0x80) {
        *len = *p++;
    } else {
        uint64_t v;
        const uint8_t *behind = varint_read(p, end, &v);
        if (behind == NULL || (size_t)(behind - p) != varint_len(v))
            return NULL;
        *len = (size_t)v;
        p = behind;
    }
    return *len <= (size_t)(end - p) ? p : NULL;
}

bool label_next(struct slice *rest, struct label *label, struct slice *whole) {
    if (rest->len == 0)
        return false;
    const uint8_t *p = rest->data;
    const uint8_t *end = p + rest->len;
    size_t len;
    if (*p != TAG_LABEL || (p = length_read(p + 1, end, &len)) == NULL)
        return false;
    const uint8_t *label_end = p + len;
    struct slice name, value;
    if (p == label_end || *p != TAG_NAME || (p = length_read(p + 1, label_end, &name.len)) == NULL)
        return false;
    name.data = p;
    p += name.len;
    if (p == label_end || *p != TAG_VALUE || (p = length_read(p + 1, label_end, &value.len)) == NULL)
        return false;
    value.data = p;
    if (p + value.len != label_end)
        return false;
    label->name = name;
    label->value = value;
    if (whole != NULL)
        *whole = slice_of(rest->data, (size_t)(label_end - rest->data));
    *rest = slice_of(label_end, (size_t)(end - label_end));
    return true;
}

bool label_bytes_well_formed(struct slice labels) {
    struct label label;
    while (label_next(&labels, &label, NULL))
        ;
    return labels.len == 0;
}

struct slice label_bytes_get(struct slice labels, struct slice name) {
    struct label label;
    while (label_next(&labels, &label, NULL))
        if (slice_equal(label.name, name))
            return label.value;
    return (struct slice){NULL, 0};
}

static int label_order(const void *a, const void *b) {
    return slice_compare(((const struct label *)a)->name, ((const struct label *)b)->name);
}

static enum label_fault label_check(const struct label *label, const struct label_limits *limits) {
    if (label->name.len == 0)
        return LABEL_FAULT_EMPTY_NAME;
    if (label->name.len > limits->name_bytes_max)
        return LABEL_FAULT_NAME_TOO_LONG;
    if (label->value.len > limits->value_bytes_max)
        return LABEL_FAULT_VALUE_TOO_LONG;
    if (!utf8_valid(label->name) || !utf8_valid(label->value))
        return LABEL_FAULT_INVALID_UTF8;
    return LABEL_FAULT_NONE;
}

int label_bytes_canonicalise(struct slice labels, const struct label_limits *limits, struct arena *arena,
                             enum label_fault *fault_out, struct slice *canonical) {
    size_t count = 0;
    struct label label;
    for (struct slice rest = labels; label_next(&rest, &label, NULL);)
        count++;
    struct label *kept = ARENA_ARRAY(arena, struct label, count);
    if (kept == NULL)
        return STATUS_NO_MEMORY;

    /* A label without a value is one that is not there (Prometheus strips it); its name may repeat another's
     * and still be no duplicate. */
    size_t kept_count = 0;
    bool in_order = true;
    enum label_fault fault = LABEL_FAULT_NONE;
    for (struct slice rest = labels; label_next(&rest, &label, NULL);) {
        enum label_fault found = label_check(&label, limits);
        if (found != LABEL_FAULT_NONE && fault == LABEL_FAULT_NONE)
            fault = found;
        if (label.value.len == 0)
            continue;
        in_order = in_order && (kept_count == 0 || slice_compare(kept[kept_count - 1].name, label.name) < 0);
        kept[kept_count++] = label;
    }
    if (fault == LABEL_FAULT_NONE && kept_count > limits->count_max)
        fault = LABEL_FAULT_TOO_MANY;
    if (!in_order)
        qsort(kept, kept_count, sizeof *kept, label_order);
    bool named = false;
    for (size_t i = 0; i < kept_count; i++) {
        named = named || slice_equal(kept[i].name, slice_str(LABEL_NAME_METRIC));
        if (fault == LABEL_FAULT_NONE && i > 0 && slice_equal(kept[i - 1].name, kept[i].name))
            fault = LABEL_FAULT_DUPLICATE_NAME;
    }
    if (fault == LABEL_FAULT_NONE && !named)
        fault = LABEL_FAULT_NO_METRIC_NAME;
    *fault_out = fault;
    if (fault != LABEL_FAULT_NONE)
        return STATUS_OK;

    if (in_order && kept_count == count) {
        *canonical = labels;
        return STATUS_OK;
    }
    uint8_t *bytes = arena_alloc_bytes(arena, labels.len);
    if (bytes == NULL)
        return STATUS_NO_MEMORY;
    uint8_t *p = bytes;
    for (size_t i = 0; i < kept_count; i++)
        p = label_bytes_write(p, kept[i].name, kept[i].value);
    *canonical = slice_of(bytes, (size_t)(p - bytes));
    return STATUS_OK;
}

bool label_name_is_legacy(struct slice name, bool metric) {
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (metric && c == ':');
        if (!letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return name.len > 0;
}

/* Control characters and the like, which Go's %q spells as escapes. Of the code points beyond ASCII only
 * those that no font shows are covered: C1 controls, separators, surrogate-free specials, unassigned
 * noncharacters. */
static bool code_point_is_printable(uint32_t c) {
    if (c < 0x20 || c == 0x7f)
        return false;
    if (c < 0x7f)
        return true;
    if (c < 0xa1 || c == 0xad)
        return false;
    if ((c >= 0x2000 && c <= 0x200f) || (c >= 0x2028 && c <= 0x202f) || (c >= 0x205f && c <= 0x206f))
        return false;
    if (c == 0x1680 || c == 0x3000 || c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) ||
        (c >= 0xe000 && c <= 0xf8ff) || (c & 0xfffe) == 0xfffe || c >= 0xe0000)
        return false;
    return true;
}

void text_quote(struct buf *buf, struct slice s) {
    buf_append_byte(buf, '"');
    const uint8_t *p = s.data;
    const uint8_t *end = s.len > 0 ? p + s.len : p;
    while (p < end) {
        uint32_t c;
        size_t len = utf8_decode(p, end, &c);
        if (len == 0) {
            buf_printf(buf, "\\x%02x", *p++);
            continue;
        }
        switch (c) {
        case '"':
            buf_append_str(buf, "\\\"");
            break;
        case '\\':
            buf_append_str(buf, "\\\\");
            break;
        case '\a':
            buf_append_str(buf, "\\a");
            break;
        case '\b':
            buf_append_str(buf, "\\b");
            break;
        case '\f':
            buf_append_str(buf, "\\f");
            break;
        case '\n':
            buf_append_str(buf, "\\n");
            break;
        case '\r':
            buf_append_str(buf, "\\r");
            break;
        case '\t':
            buf_append_str(buf, "\\t");
            break;
        case '\v':
            buf_append_str(buf, "\\v");
            break;
        default:
            if (code_point_is_printable(c))
                buf_append(buf, p, len);
            else if (c < 0x80)
                buf_printf(buf, "\\x%02x", c);
            else if (c < 0x10000)
                buf_printf(buf, "\\u%04x", c);
            else
                buf_printf(buf, "\\U%08x", c);
        }
        p += len;
    }
    buf_append_byte(buf, '"');
}

void label_print(struct buf *buf, const struct label *label) {
    if (label_name_is_legacy(label->name, false))
        buf_append(buf, label->name.data, label->name.len);
    else
        text_quote(buf, label->name);
    buf_append_byte(buf, '=');
    text_quote(buf, label->value);
}

void labels_print(struct buf *buf, const struct label *labels, size_t count) {
    const struct slice metric = slice_str(LABEL_NAME_METRIC);
    bool braces = false;
    struct slice quoted_name = {NULL, 0};
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(labels[i].name, metric)) {
            if (label_name_is_legacy(labels[i].value, true))
                buf_append(buf, labels[i].value.data, labels[i].value.len);
            else
                quoted_name = labels[i].value;
        } else {
            braces = true;
        }
    }
    if (!braces && quoted_name.len == 0 && count > 0)
        return;
    buf_append_byte(buf, '{');
    bool first = true;
    if (quoted_name.len > 0) {
        text_quote(buf, quoted_name);
        first = false;
    }
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(labels[i].name, metric))
            continue;
        if (!first)
            buf_append_str(buf, ", ");
        first = false;
        label_print(buf, &labels[i]);
    }
    buf_append_byte(buf, '}');
}

void label_bytes_print(struct buf *buf, struct slice bytes) {
    size_t count = 0;
    struct label label;
    for (struct slice rest = bytes; label_next(&rest, &label, NULL);)
        count++;
    struct arena arena;
    arena_init(&arena, 0, 0);
    struct label *labels = ARENA_ARRAY(&arena, struct label, count);
    if (labels == NULL) {
        buf->failed = true;
    } else {
        size_t i = 0;
        for (struct slice rest = bytes; i < count && label_next(&rest, &labels[i], NULL);)
            i++;
        labels_print(buf, labels, count);
    }
    arena_release(&arena);
}
