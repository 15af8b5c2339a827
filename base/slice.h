/* slice.h: a borrowed run of bytes. A slice never owns; the function that takes or returns one says how
 * long its bytes live. */
#ifndef TIDALITE_BASE_SLICE_H
#define TIDALITE_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t len;
};

/* For printf's "%.*s": SLICE_ARGS(s) gives length and pointer. */
#define SLICE_ARGS(s) (int)(s).len, (const char *)(s).data

static inline struct slice slice_of(const void *data, size_t len) {
    return (struct slice){(const uint8_t *)data, len};
}

/* The bytes of a C string without its NUL; borrowed from it. */
static inline struct slice slice_str(const char *text) {
    return slice_of(text, strlen(text));
}

static inline bool slice_equal(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Byte order, shorter first among equals: the order in which Prometheus sorts label names and values. */
static inline int slice_compare(struct slice a, struct slice b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static inline bool slice_among(struct slice s, const struct slice *some, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (slice_equal(s, some[i]))
            return true;
    return false;
}

static inline bool slice_starts_with(struct slice s, struct slice prefix) {
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.data, prefix.data, prefix.len) == 0);
}

#endif
