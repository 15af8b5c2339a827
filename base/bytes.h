/* bytes.h: little-endian loads and stores, varints (LEB128, as protobuf writes them), zigzag.
 * Source: https://protobuf.dev/programming-guides/encoding/ (varints, ZigZag). */
#ifndef TIDALITE_BASE_BYTES_H
#define TIDALITE_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "loads and stores assume a little-endian machine");

#define VARINT_BYTES_MAX 10

static inline uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load_u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load_u64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_u16(uint8_t *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}

static inline void store_u32(uint8_t *p, uint32_t v) {
    memcpy(p, &v, sizeof v);
}

static inline void store_u64(uint8_t *p, uint64_t v) {
    memcpy(p, &v, sizeof v);
}

/* memcmp(a, b, len) == 0, in place: for the few dozen bytes of a label. */
static inline bool bytes_equal(const uint8_t *a, const uint8_t *b, size_t len) {
    if (len < 8) {
        uint8_t differ = 0;
        for (size_t i = 0; i < len; i++)
            differ |= a[i] ^ b[i];
        return differ == 0;
    }
    uint64_t differ = load_u64(a + len - 8) ^ load_u64(b + len - 8);
    for (size_t i = 0; i + 8 < len; i += 8)
        differ |= load_u64(a + i) ^ load_u64(b + i);
    return differ == 0;
}

/* Doubles travel as their bits, so that NaN payloads and -0 survive. */
static inline uint64_t double_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static inline double bits_double(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint64_t zigzag(int64_t v) {
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

static inline int64_t unzigzag(uint64_t v) {
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

/* Writes `v` at `p`, which has room for VARINT_BYTES_MAX bytes; returns the position behind it. */
static inline uint8_t *varint_write(uint8_t *p, uint64_t v) {
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

static inline size_t varint_len(uint64_t v) {
    size_t bits = 64 - (size_t)__builtin_clzll(v | 1);
    return (bits + 6) / 7;
}

/* Reads a varint of at most ten bytes from [p, end) into *v; returns the position behind it, or NULL when it
 * runs past `end` or holds more than 64 bits. */
static inline const uint8_t *varint_read(const uint8_t *p, const uint8_t *end, uint64_t *v) {
    if (p < end && *p < 0x80) {
        *v = *p;
        return p + 1;
    }
    uint64_t value = 0;
    for (unsigned shift = 0; p < end && shift < 70; shift += 7) {
        uint8_t byte = *p++;
        if (shift == 63 && byte > 1)
            return NULL;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *v = value;
            return p;
        }
    }
    return NULL;
}

#endif
