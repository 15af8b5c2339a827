/* utf8.c: UTF-8 by the table of RFC 3629, section 4. */
#include "base/utf8.h"

#include "base/bytes.h"

size_t utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *code_point) {
    uint8_t first = *p;
    if (first < 0x80) {
        *code_point = first;
        return 1;
    }
    size_t len;
    uint32_t low; /* the smallest code point of this length: below it the form is overlong */
    uint32_t code;
    if (first >= 0xc2 && first <= 0xdf) {
        len = 2, low = 0x80, code = first & 0x1f;
    } else if (first >= 0xe0 && first <= 0xef) {
        len = 3, low = 0x800, code = first & 0x0f;
    } else if (first >= 0xf0 && first <= 0xf4) {
        len = 4, low = 0x10000, code = first & 0x07;
    } else {
        return 0;
    }
    if ((size_t)(end - p) < len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < low || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    *code_point = code;
    return len;
}

bool utf8_valid(struct slice s) {
    if (s.len == 0)
        return true;
    const uint8_t *p = s.data;
    const uint8_t *end = p + s.len;
    while (p < end) {
        while (end - p >= 8 && (load_u64(p) & 0x8080808080808080u) == 0)
            p += 8;
        if (p == end)
            break;
        uint32_t code_point;
        size_t len = utf8_decode(p, end, &code_point);
        if (len == 0)
            return false;
        p += len;
    }
    return true;
}

size_t utf8_encode(uint8_t *p, uint32_t code_point) {
    if (code_point < 0x80) {
        p[0] = (uint8_t)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        p[0] = (uint8_t)(0xc0 | code_point >> 6);
        p[1] = (uint8_t)(0x80 | (code_point & 0x3f));
        return 2;
    }
    if (code_point < 0x10000) {
        p[0] = (uint8_t)(0xe0 | code_point >> 12);
        p[1] = (uint8_t)(0x80 | (code_point >> 6 & 0x3f));
        p[2] = (uint8_t)(0x80 | (code_point & 0x3f));
        return 3;
    }
    p[0] = (uint8_t)(0xf0 | code_point >> 18);
    p[1] = (uint8_t)(0x80 | (code_point >> 12 & 0x3f));
    p[2] = (uint8_t)(0x80 | (code_point >> 6 & 0x3f));
    p[3] = (uint8_t)(0x80 | (code_point & 0x3f));
    return 4;
}
