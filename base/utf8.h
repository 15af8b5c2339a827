/* utf8.h: is this valid UTF-8? (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.) */
#ifndef TIDALITE_BASE_UTF8_H
#define TIDALITE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

bool utf8_valid(struct slice s);

/* Decodes the code point at p (p < end) into *code_point and returns its length in bytes; 0 when the bytes
 * there are not valid UTF-8. */
size_t utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *code_point);

/* Writes the code point (valid, not a surrogate) at p, which has room for 4 bytes; returns the length. */
size_t utf8_encode(uint8_t *p, uint32_t code_point);

#endif
