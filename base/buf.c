/* buf.c: growable bytes. */
#include "base/buf.h"

#include <stdio.h>

#include "base/alloc.h"

#define BUF_CAPACITY_MIN ((size_t)256)

void buf_init(struct buf *buf) {
    *buf = (struct buf){0};
}

void buf_release(struct buf *buf) {
    mem_free(buf->data);
    *buf = (struct buf){0};
}

void buf_clear(struct buf *buf) {
    buf->len = 0;
    buf->failed = false;
}

uint8_t *buf_reserve(struct buf *buf, size_t more) {
    if (buf->failed)
        return NULL;
    /* The first call makes the memory even for 0 bytes: NULL is the answer to failure only. */
    if (buf->data == NULL || more > buf->capacity - buf->len) {
        if (more > SIZE_MAX / 2 - buf->len) {
            buf->failed = true;
            return NULL;
        }
        size_t capacity = buf->capacity * 2;
        if (capacity < buf->len + more)
            capacity = buf->len + more;
        if (capacity < BUF_CAPACITY_MIN)
            capacity = BUF_CAPACITY_MIN;
        uint8_t *data = mem_realloc(buf->data, capacity);
        if (data == NULL) {
            buf->failed = true;
            return NULL;
        }
        buf->data = data;
        buf->capacity = capacity;
    }
    return buf->data + buf->len;
}

void buf_append(struct buf *buf, const void *data, size_t len) {
    uint8_t *at = buf_reserve(buf, len);
    if (at == NULL || len == 0)
        return;
    memcpy(at, data, len);
    buf->len += len;
}

void buf_append_str(struct buf *buf, const char *text) {
    buf_append(buf, text, strlen(text));
}

void buf_append_byte(struct buf *buf, uint8_t byte) {
    uint8_t *at = buf_reserve(buf, 1);
    if (at == NULL)
        return;
    *at = byte;
    buf->len++;
}

void buf_printf(struct buf *buf, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    uint8_t *at = len < 0 ? NULL : buf_reserve(buf, (size_t)len + 1);
    if (at == NULL) {
        buf->failed = true;
        return;
    }
    va_start(arguments, format);
    vsnprintf((char *)at, (size_t)len + 1, format, arguments);
    va_end(arguments);
    buf->len += (size_t)len;
}

uint8_t *buf_detach(struct buf *buf) {
    uint8_t *data = buf->data;
    *buf = (struct buf){0};
    return data;
}
