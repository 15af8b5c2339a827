#include "base/json_text.h"

#include "base/utf8.h"

/* What a byte needs: 0 nothing, 1 an escape, 2 only with JSON_HTML, 3 it is part of a longer code point. */
static int byte_class(uint8_t byte) {
    if (byte >= 0x80)
        return 3;
    if (byte < 0x20 || byte == '"' || byte == '\\')
        return 1;
    return byte == '<' || byte == '>' || byte == '&' ? 2 : 0;
}

static void escape_append(struct buf *out, uint8_t byte) {
    switch (byte) {
    case '"':
        buf_append_str(out, "\\\"");
        break;
    case '\\':
        buf_append_str(out, "\\\\");
        break;
    case '\n':
        buf_append_str(out, "\\n");
        break;
    case '\r':
        buf_append_str(out, "\\r");
        break;
    case '\t':
        buf_append_str(out, "\\t");
        break;
    default:
        buf_printf(out, "\\u%04x", byte);
    }
}

void json_string_append(struct buf *out, struct slice text, enum json_escape escape) {
    const uint8_t *p = text.data, *end = text.len == 0 ? text.data : text.data + text.len, *run = p;
    buf_append_byte(out, '"');
    while (p < end) {
        int class = byte_class(*p);
        if (class == 0 || (class == 2 && escape == JSON_PLAIN)) {
            p++;
            continue;
        }
        if (class == 3) {
            uint32_t code_point;
            size_t len = utf8_decode(p, end, &code_point);
            if (len != 0 && (escape == JSON_PLAIN || (code_point != 0x2028 && code_point != 0x2029))) {
                p += len;
                continue;
            }
            buf_append(out, run, (size_t)(p - run));
            if (len == 0)
                buf_append_str(out, "\\ufffd");
            else
                buf_printf(out, "\\u%04x", (unsigned)code_point);
            p += len == 0 ? 1 : len;
            run = p;
            continue;
        }
        buf_append(out, run, (size_t)(p - run));
        escape_append(out, *p++);
        run = p;
    }
    buf_append(out, run, (size_t)(p - run));
    buf_append_byte(out, '"');
}
