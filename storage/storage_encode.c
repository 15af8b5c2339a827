/* storage_encode.c: samples of one series → the chunks that a block gets. */
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "storage/storage_private.h"

#define CHUNK_BYTES 2048 /* a chunk made here ends when it grows past this */

void storage__encoder_clear(struct encoder *encoder) {
    buf_clear(&encoder->bits);
    encoder->count = 0;
}

void storage__encoder_release(struct encoder *encoder) {
    buf_release(&encoder->bits);
    mem_free(encoder->chunks);
    *encoder = (struct encoder){0};
}

int storage__encoder_copy(struct encoder *encoder, const struct block_chunk *chunk) {
    struct block_chunk *chunks =
        array_ensure(encoder->chunks, &encoder->capacity, encoder->count + 1, sizeof *chunks);
    if (chunks == NULL)
        return STATUS_NO_MEMORY;
    encoder->chunks = chunks;
    encoder->chunks[encoder->count++] = *chunk;
    return STATUS_OK;
}

static uint8_t *chunk_grow(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                           size_t *capacity) {
    (void)context;
    (void)used;
    size_t want = old_capacity * 2 > bytes ? old_capacity * 2 : bytes + 64;
    if (want > UINT16_MAX)
        want = UINT16_MAX;
    uint8_t *grown = mem_realloc(old, want);
    if (grown != NULL)
        *capacity = want;
    return grown;
}

/* The bits that are made here stand behind each other in encoder->bits, which moves as it grows: their place
 * is filled in at the end. */
static int chunk_end(struct encoder *encoder, struct chunk_open *open, int64_t first_ms, uint64_t position) {
    struct slice bits = chunk_bytes(open);
    buf_append(&encoder->bits, bits.data, bits.len);
    if (encoder->bits.failed)
        return STATUS_NO_MEMORY;
    const struct block_chunk chunk = {.time_min_ms = first_ms,
                                      .time_max_ms = open->time_ms,
                                      .info = open->info,
                                      .log_position = position,
                                      .bits = slice_of(NULL, bits.len)};
    memset(open->bytes, 0, open->capacity);
    *open = (struct chunk_open){.bytes = open->bytes, .capacity = open->capacity};
    return storage__encoder_copy(encoder, &chunk);
}

int storage__encoder_add(struct encoder *encoder, const struct sample_columns *columns, uint64_t position) {
    int status = STATUS_OK;
    struct chunk_open open = {0};
    int64_t first_ms = 0;
    for (size_t i = 0; i < columns->count; i++) {
        struct sample sample = {.time_ms = columns->times_ms[i]};
        memcpy(&sample.value_bits, &columns->values[i], sizeof sample.value_bits);
        if (chunk_is_empty(&open))
            first_ms = sample.time_ms;
        TRY(chunk_append(&open, sample, columns->has_starts ? columns->starts_ms[i] : START_NONE, chunk_grow,
                         NULL));
        if (chunk_is_full(&open) || open.bit_count / 8 >= CHUNK_BYTES)
            TRY(chunk_end(encoder, &open, first_ms, position));
    }
    if (!chunk_is_empty(&open))
        TRY(chunk_end(encoder, &open, first_ms, position));
out:
    mem_free(open.bytes);
    return status;
}

struct block_chunk *storage__encoder_chunks(struct encoder *encoder) {
    const uint8_t *made = encoder->bits.data;
    for (size_t i = 0; i < encoder->count; i++) {
        struct slice *bits = &encoder->chunks[i].bits;
        if (bits->data != NULL)
            continue;
        bits->data = made;
        made += bits->len;
    }
    return encoder->chunks;
}
