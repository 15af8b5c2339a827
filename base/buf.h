/* buf.h: bytes that grow. An append that fails for lack of memory sets `failed` and changes nothing else;
 * later appends do nothing, so a writer checks once, at the end. Not safe for concurrent use. */
#ifndef TIDALITE_BASE_BUF_H
#define TIDALITE_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct buf {
    uint8_t *data;
    size_t len;
    size_t capacity;
    bool failed;
};

void buf_init(struct buf *buf);
void buf_release(struct buf *buf);

/* Empties it and clears `failed`; keeps the memory. */
void buf_clear(struct buf *buf);

/* Room for `more` bytes behind len; returns where they start, or NULL on failure. The caller writes there
 * and adds to len. */
uint8_t *buf_reserve(struct buf *buf, size_t more);

void buf_append(struct buf *buf, const void *data, size_t len);
void buf_append_str(struct buf *buf, const char *text);
void buf_append_byte(struct buf *buf, uint8_t byte);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline struct slice buf_slice(const struct buf *buf) {
    return slice_of(buf->data, buf->len);
}

/* Hands the memory to the caller (free with mem_free) and leaves the buf empty. */
uint8_t *buf_detach(struct buf *buf);

#endif
