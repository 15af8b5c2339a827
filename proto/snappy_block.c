/* snappy_block.c: a snappy block → its bytes.
 *
 *     length   varint of at most 32 bits: how many bytes the elements make together
 *     element* low two bits of the first byte:
 *         00 literal   length - 1 in the upper six bits, or (60..63) in the 1..4 bytes that follow; then the
 * bytes 01 copy      length - 4 in three bits, offset in three bits and one byte 10 copy      length - 1 in
 * six bits, offset in two bytes 11 copy      length - 1 in six bits, offset in four bytes
 *
 * A block is valid if and only if its elements end with the block, every copy's offset is between 1 and the
 * number of bytes made before it, and the elements make exactly `length` bytes. The library decides that;
 * what is done by hand is to read the length before anything is allocated, and, once the library has said no,
 * to find where the block goes wrong, because the library does not tell. */
#include <snappy-c.h>

#include "base/mutation.h"
#include "proto/proto.h"
#include "proto/proto_private.h"

#define PREAMBLE_BYTES_MAX 5

/* No element makes more than 64 bytes out of three (a copy with a two-byte offset). */
#define EXPANSION_BYTES_OUT 64
#define EXPANSION_BYTES_IN  3

/* The length in front of the block; returns the bytes it takes, 0 if it is not valid. */
static size_t preamble_read(struct slice block, uint32_t *decoded_bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < block.len && i < PREAMBLE_BYTES_MAX; i++) {
        value |= (uint64_t)(block.data[i] & 0x7f) << (7 * i);
        if (block.data[i] < 0x80) {
            if (value > UINT32_MAX && !MUTATED(WRAP_SNAPPY_LEN))
                return 0;
            *decoded_bytes = (uint32_t)value;
            return i + 1;
        }
    }
    return 0;
}

static int preamble_check(struct slice block, size_t decoded_bytes_max, struct error_detail *detail,
                          size_t *preamble_bytes, size_t *decoded_bytes) {
    uint32_t declared;
    size_t preamble = preamble_read(block, &declared);
    if (preamble == 0)
        return error_set(detail, STATUS_BAD_SNAPPY, "snappy: byte 0: no valid length in front of the block");
    if (declared > decoded_bytes_max)
        return error_set(detail, STATUS_TOO_LARGE, "snappy: decoded size %u exceeds the limit of %zu bytes",
                         declared, decoded_bytes_max);
    size_t rest = block.len - preamble;
    if ((uint64_t)declared * EXPANSION_BYTES_IN > (uint64_t)rest * EXPANSION_BYTES_OUT)
        return error_set(detail, STATUS_BAD_SNAPPY,
                         "snappy: byte 0: %u bytes declared, more than the %zu bytes that follow can make",
                         declared, rest);
    *preamble_bytes = preamble;
    *decoded_bytes = declared;
    return STATUS_OK;
}

int proto_snappy_size(struct slice block, size_t decoded_bytes_max, struct error_detail *detail,
                      size_t *decoded_bytes) {
    size_t preamble_bytes;
    return preamble_check(block, decoded_bytes_max, detail, &preamble_bytes, decoded_bytes);
}

/* The little-endian number in `count` bytes at p. */
static uint32_t little_endian(const uint8_t *p, size_t count) {
    uint32_t value = 0;
    for (size_t i = 0; i < count; i++)
        value |= (uint32_t)p[i] << (8 * i);
    return value;
}

const char *snappy_fault_find(struct slice block, size_t *offset) {
    uint32_t declared;
    size_t at = preamble_read(block, &declared);
    *offset = 0;
    if (at == 0)
        return "no valid length in front of the block";
    uint64_t made = 0;
    while (at < block.len) {
        *offset = at;
        uint8_t tag = block.data[at++];
        size_t left = block.len - at;
        uint64_t length;
        if ((tag & 3) == 0) {
            length = (uint64_t)(tag >> 2) + 1;
            if (length > 60) {
                size_t extra = (size_t)(length - 60);
                if (extra > left)
                    return "a literal's length is cut off";
                /* 32 bits: 2^32 bytes are none to the library (1.1.9), so they are none here. */
                length = little_endian(block.data + at, extra) + 1u;
                at += extra;
                left -= extra;
            }
            if (length > left)
                return "a literal runs past the end of the block";
            at += (size_t)length;
        } else {
            static const size_t offset_bytes[] = {0, 1, 2, 4};
            size_t extra = offset_bytes[tag & 3];
            if (extra > left)
                return "a copy's offset is cut off";
            uint32_t distance = little_endian(block.data + at, extra);
            at += extra;
            length = (uint64_t)(tag >> 2) + 1;
            if ((tag & 3) == 1) {
                length = (uint64_t)((tag >> 2) & 7) + 4;
                distance |= (uint32_t)(tag >> 5) << 8;
            }
            if (distance == 0 || distance > made)
                return "a copy reaches before the start of the data";
        }
        made += length;
        if (made > declared)
            return "the data is longer than declared";
    }
    *offset = block.len;
    return made < declared ? "the data is shorter than declared" : NULL;
}

int proto_snappy_decode(struct slice block, size_t decoded_bytes_max, struct error_detail *detail,
                        struct buf *out) {
    buf_clear(out);
    size_t preamble_bytes, decoded_bytes;
    int status = preamble_check(block, decoded_bytes_max, detail, &preamble_bytes, &decoded_bytes);
    if (status < 0)
        return status;
    /* One byte more than asked for, so that an empty result has an address too. */
    uint8_t *to = buf_reserve(out, decoded_bytes + 1);
    if (to == NULL) {
        buf_clear(out);
        return error_set(detail, STATUS_NO_MEMORY, "snappy: no memory for %zu bytes", decoded_bytes);
    }
    size_t written = decoded_bytes;
    if (snappy_uncompress((const char *)block.data, block.len, (char *)to, &written) == SNAPPY_OK &&
        written == decoded_bytes) {
        out->len = decoded_bytes;
        return STATUS_OK;
    }
    size_t offset;
    const char *fault = snappy_fault_find(block, &offset);
    return error_set(detail, STATUS_BAD_SNAPPY, "snappy: byte %zu: %s", offset,
                     fault != NULL ? fault : "refused by the library");
}
