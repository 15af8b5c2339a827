/* chunk_state.c: an open chunk as bytes and back: docs/format/snapshot.md. */
#include <string.h>

#include "base/bytes.h"
#include "storage/chunk/chunk.h"

#define FIXED_BYTES 30
#define START_BYTES 8 /* what the appender remembers of starts, at the end of the chunk's buffer */

void chunk_state_write(const struct chunk_open *chunk, struct buf *out) {
    uint8_t fixed[FIXED_BYTES];
    store_u64(fixed, (uint64_t)chunk->time_ms);
    store_u64(fixed + 8, (uint64_t)chunk->delta_ms);
    store_u64(fixed + 16, chunk->baseline_bits);
    store_u16(fixed + 24, chunk->bit_count);
    fixed[26] = chunk->leading;
    fixed[27] = chunk->trailing;
    fixed[28] = chunk->info.sample_count;
    fixed[29] = chunk->info.start_byte;
    buf_append(out, fixed, sizeof fixed);
    struct slice bytes = chunk_bytes(chunk);
    buf_append(out, bytes.data, bytes.len);
    if (chunk->info.start_byte != 0)
        buf_append(out, chunk->bytes + chunk->capacity - START_BYTES, START_BYTES);
}

/* What stands at the front; *len_out: bytes of bits, *starts_out: bytes of what is remembered of starts. */
static int state_look(struct slice bytes, struct chunk_open *chunk, size_t *len_out, size_t *starts_out) {
    if (bytes.len < FIXED_BYTES)
        return STATUS_CORRUPT;
    const uint8_t *p = bytes.data;
    *chunk = (struct chunk_open){.time_ms = (int64_t)load_u64(p),
                                 .delta_ms = (int64_t)load_u64(p + 8),
                                 .baseline_bits = load_u64(p + 16),
                                 .bit_count = load_u16(p + 24),
                                 .leading = p[26],
                                 .trailing = p[27],
                                 .info = {.sample_count = p[28], .start_byte = p[29]}};
    *len_out = ((size_t)chunk->bit_count + 7) / 8;
    *starts_out = chunk->info.start_byte != 0 ? START_BYTES : 0;
    if (chunk->info.sample_count == 0 || chunk->info.sample_count > CHUNK_SAMPLES_MAX || *len_out == 0 ||
        bytes.len - FIXED_BYTES < *len_out + *starts_out)
        return STATUS_CORRUPT;
    return STATUS_OK;
}

int chunk_state_look(struct slice *bytes, struct chunk_open *out, struct slice *bits) {
    struct chunk_open chunk;
    size_t len, starts;
    int status = state_look(*bytes, &chunk, &len, &starts);
    if (status < 0)
        return status;
    const uint8_t *p = bytes->data + FIXED_BYTES;
    *bytes = slice_of(p + len + starts, bytes->len - FIXED_BYTES - len - starts);
    *bits = slice_of(p, len);
    *out = chunk;
    return STATUS_OK;
}

int chunk_state_read(struct slice *bytes, chunk_grow_fn grow, void *grow_context, struct chunk_open *out) {
    struct chunk_open chunk;
    size_t len, starts, capacity;
    int status = state_look(*bytes, &chunk, &len, &starts);
    if (status < 0)
        return status;
    const uint8_t *p = bytes->data + FIXED_BYTES;
    chunk.bytes = grow(grow_context, NULL, 0, 0, len + starts, &capacity);
    if (chunk.bytes == NULL)
        return STATUS_NO_MEMORY;
    chunk.capacity = (uint16_t)capacity;
    memcpy(chunk.bytes, p, len);
    memset(chunk.bytes + len, 0, capacity - len);
    if (starts > 0)
        memcpy(chunk.bytes + capacity - START_BYTES, p + len, START_BYTES);
    *bytes = slice_of(p + len + starts, bytes->len - FIXED_BYTES - len - starts);
    *out = chunk;
    return STATUS_OK;
}
