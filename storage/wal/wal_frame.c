/* wal_frame.c: segment headers and frames as bytes; docs/format/log.md has the tables. */
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/mutation.h"
#include "storage/wal/wal_private.h"

static const uint8_t magic[8] = {'T', 'D', 'L', 'T', 'W', 'A', 'L', '\n'};

#define HEADER_CRC_AT (WAL_FRAME_BYTES - 4)

void wal__header_write(const struct wal__header *header, uint8_t *out) {
    memset(out, 0, WAL_DATA_OFFSET);
    memcpy(out, magic, sizeof magic);
    store_u32(out + 8, WAL_VERSION);
    store_u32(out + 12, WAL_FRAME_BYTES);
    store_u32(out + 16, header->number);
    store_u64(out + 24, header->segment_bytes);
    store_u64(out + 32, header->salt);
    store_u64(out + 40, header->previous_end);
    store_u32(out + HEADER_CRC_AT, crc32c(0, out, HEADER_CRC_AT));
    memcpy(out + WAL_FRAME_BYTES, out, WAL_FRAME_BYTES);
}

int wal__header_read(const uint8_t *frame, struct wal__header *out) {
    if (memcmp(frame, magic, sizeof magic) != 0)
        return STATUS_CORRUPT;
    if (crc32c(0, frame, HEADER_CRC_AT) != load_u32(frame + HEADER_CRC_AT) && !MUTATED(IGNORE_CRC))
        return STATUS_CORRUPT;
    if (load_u32(frame + 8) != WAL_VERSION || load_u32(frame + 12) != WAL_FRAME_BYTES)
        return STATUS_NEWER_FORMAT;
    struct wal__header header = {
        .number = load_u32(frame + 16),
        .segment_bytes = load_u64(frame + 24),
        .salt = load_u64(frame + 32),
        .previous_end = load_u64(frame + 40),
    };
    if (header.segment_bytes % WAL_FRAME_BYTES != 0 || header.segment_bytes < WAL_DATA_OFFSET ||
        header.segment_bytes > WAL_SEGMENT_BYTES_MAX)
        return STATUS_CORRUPT;
    if (header.previous_end != 0 && (wal__position_segment(header.previous_end) >= header.number ||
                                     wal__position_offset(header.previous_end) <= WAL_DATA_OFFSET ||
                                     header.previous_end % WAL_FRAME_BYTES != 0))
        return STATUS_CORRUPT;
    *out = header;
    return STATUS_OK;
}

/* The salt keeps a frame forged inside a label value, or left by an older use of the disk block, from
 * passing; the position one that was written to the wrong place. */
static uint32_t frame_crc(const uint8_t *bytes, const struct wal__header *header, uint64_t offset) {
    uint8_t seed[16];
    store_u64(seed, header->salt);
    store_u64(seed + 8, wal__position(header->number, offset));
    return crc32c(crc32c(0, seed, sizeof seed), bytes + 4, WAL_FRAME_BYTES - 4);
}

void wal__frame_seal(const struct wal__frame *frame, const struct wal__header *header, uint64_t offset,
                     uint8_t *out) {
    ASSERT(frame->payload_len > 0 && frame->payload_len <= WAL_FRAME_PAYLOAD);
    store_u16(out + 4, frame->payload_len);
    store_u16(out + 6, frame->first_record);
    store_u32(out + 8, frame->group);
    store_u32(out + 12, frame->index);
    store_u32(out + 16, frame->count);
    store_u32(out + 20, 0);
    store_u64(out + 24, frame->durable);
    memset(out + WAL_FRAME_HEAD + frame->payload_len, 0, WAL_FRAME_PAYLOAD - frame->payload_len);
    store_u32(out, frame_crc(out, header, offset));
    EXPENSIVE_ASSERT(wal__frame_read(out, header, offset, &(struct wal__frame){0}));
}

bool wal__frame_read(const uint8_t *bytes, const struct wal__header *header, uint64_t offset,
                     struct wal__frame *out) {
    struct wal__frame frame = {
        .payload_len = load_u16(bytes + 4),
        .first_record = load_u16(bytes + 6),
        .group = load_u32(bytes + 8),
        .index = load_u32(bytes + 12),
        .count = load_u32(bytes + 16),
        .durable = load_u64(bytes + 24),
    };
    if (frame.payload_len == 0 || frame.payload_len > WAL_FRAME_PAYLOAD || frame.index >= frame.count ||
        load_u32(bytes + 20) != 0)
        return false;
    if (frame.index + 1 < frame.count && frame.payload_len != WAL_FRAME_PAYLOAD)
        return false;
    if (frame.first_record != WAL_NO_RECORD && frame.first_record >= frame.payload_len)
        return false;
    if (frame.index == 0 && frame.first_record != 0)
        return false;
    uint64_t before = (uint64_t)frame.index * WAL_FRAME_BYTES;
    if (before > offset - WAL_DATA_OFFSET)
        return false;
    uint64_t start = offset - before;
    if (start + (uint64_t)frame.count * WAL_FRAME_BYTES > header->segment_bytes)
        return false;
    if (frame.durable > wal__position(header->number, start) || frame.durable % WAL_FRAME_BYTES != 0)
        return false;
    if (frame_crc(bytes, header, offset) != load_u32(bytes) && !MUTATED(IGNORE_CRC))
        return false;
    *out = frame;
    return true;
}

bool wal__bytes_zero(const uint8_t *bytes, size_t len) {
    uint64_t any = 0;
    for (size_t i = 0; i < len; i += 64) {
        size_t end = len - i < 64 ? len : i + 64;
        for (size_t j = i; j < end; j += 8)
            any |= load_u64(bytes + j);
        if (any != 0)
            return false;
    }
    return true;
}
