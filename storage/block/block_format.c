/* block_format.c: the file `chunks` as bytes; docs/format/block.md has the tables.
 *
 * Every checksum begins with the file's salt, the piece's offset, its length and its kind: bytes of another
 * file, from another place, of another kind, or forged inside a label value, don't pass. */
#include "storage/block/block_format.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/mutation.h"

static const uint8_t header_magic[8] = {'T', 'D', 'L', 'T', 'B', 'L', 'K', '\n'};
static const uint8_t trailer_magic[8] = {'T', 'D', 'L', 'T', 'E', 'N', 'D', '\n'};
#define RUN_MAGIC UINT32_C(0x4e55520a) /* "\nRUN" */

enum piece_kind { PIECE_HEAD = 1, PIECE_TABLE, PIECE_CHUNK, PIECE_TRAILER };

static uint32_t piece_crc(const struct block__base *base, uint64_t offset, enum piece_kind kind,
                          const uint8_t *data, size_t len) {
    uint8_t seed[24];
    store_u64(seed, base->salt);
    store_u64(seed + 8, offset);
    store_u64(seed + 16, (uint64_t)kind << 32 | (uint32_t)len);
    return crc32c(crc32c(0, seed, sizeof seed), data, len);
}

static bool crc_matches(uint32_t crc, uint32_t stored) {
    return crc == stored || MUTATED(IGNORE_CRC);
}

/* ---- Header ------------------------------------------------------------------------------------------- */

void block__header_write(const struct block__base *base, uint8_t *out) {
    memset(out, 0, BLOCK__HEADER_BYTES);
    memcpy(out, header_magic, sizeof header_magic);
    store_u32(out + 8, BLOCK__VERSION);
    store_u32(out + 12, base->level);
    store_u64(out + 16, base->salt);
    store_u64(out + 24, base->id);
    store_u64(out + 32, (uint64_t)base->time_base_ms);
    store_u64(out + 40, base->position_base);
    store_u32(out + 60, crc32c(0, out, 60));
}

int block__header_read(const uint8_t *bytes, struct block__base *out) {
    if (memcmp(bytes, header_magic, sizeof header_magic) != 0 ||
        !crc_matches(crc32c(0, bytes, 60), load_u32(bytes + 60)))
        return STATUS_CORRUPT;
    if (load_u32(bytes + 8) != BLOCK__VERSION)
        return STATUS_NEWER_FORMAT;
    *out = (struct block__base){
        .salt = load_u64(bytes + 16),
        .id = load_u64(bytes + 24),
        .time_base_ms = (int64_t)load_u64(bytes + 32),
        .position_base = load_u64(bytes + 40),
        .level = load_u32(bytes + 12),
    };
    return STATUS_OK;
}

/* ---- Trailer ------------------------------------------------------------------------------------------ */

#define TRAILER_FIXED     ((size_t)16) /* magic, length, checksum */
#define TRAILER_SUMS      (TRAILER_FIXED + BLOCK__HEADER_BYTES)
#define TRAILER_SOURCES   (TRAILER_SUMS + 7 * 8 + 8)
#define TRAILER_BYTES_MAX (TRAILER_SOURCES + 8 * (size_t)BLOCK_SOURCES_MAX)

void block__trailer_append(struct buf *buf, const struct block__base *base, const struct block_meta *meta,
                           uint64_t offset) {
    ASSERT(offset % BLOCK__RUN_ALIGN == 0 && meta->source_count <= BLOCK_SOURCES_MAX);
    size_t len = TRAILER_SOURCES + 8 * meta->source_count;
    uint8_t *p = buf_reserve(buf, len);
    if (p == NULL)
        return;
    memcpy(p, trailer_magic, sizeof trailer_magic);
    store_u32(p + 8, (uint32_t)len);
    block__header_write(base, p + TRAILER_FIXED);
    uint64_t sums[7] = {meta->series_count,          meta->chunk_count,           meta->sample_count,
                        (uint64_t)meta->time_min_ms, (uint64_t)meta->time_max_ms, meta->position_min,
                        meta->position_max};
    for (size_t i = 0; i < 7; i++)
        store_u64(p + TRAILER_SUMS + 8 * i, sums[i]);
    store_u64(p + TRAILER_SUMS + 7 * 8, meta->source_count);
    for (size_t i = 0; i < meta->source_count; i++)
        store_u64(p + TRAILER_SOURCES + 8 * i, meta->sources[i]);
    store_u32(p + 12, piece_crc(base, offset, PIECE_TRAILER, p + TRAILER_FIXED, len - TRAILER_FIXED));
    buf->len += len;
}

static int trailer_read(struct slice file, uint64_t offset, struct block__base *base_out,
                        struct block_meta *meta_out) {
    const uint8_t *p = file.data + offset;
    size_t len = file.len - offset;
    if (len < TRAILER_SOURCES || memcmp(p, trailer_magic, sizeof trailer_magic) != 0)
        return STATUS_NOT_FOUND;
    struct block__base base;
    int status = block__header_read(p + TRAILER_FIXED, &base);
    if (status == STATUS_NEWER_FORMAT)
        return status;
    if (status < 0 || load_u32(p + 8) != len)
        return STATUS_NOT_FOUND;
    if (!crc_matches(piece_crc(&base, offset, PIECE_TRAILER, p + TRAILER_FIXED, len - TRAILER_FIXED),
                     load_u32(p + 12)))
        return STATUS_NOT_FOUND;
    uint64_t sums[8];
    for (size_t i = 0; i < 8; i++)
        sums[i] = load_u64(p + TRAILER_SUMS + 8 * i);
    if (sums[7] > BLOCK_SOURCES_MAX || len != TRAILER_SOURCES + 8 * sums[7])
        return STATUS_NOT_FOUND;
    struct block_meta meta = {
        .id = base.id,
        .level = base.level,
        .salt = base.salt,
        .series_count = sums[0],
        .chunk_count = sums[1],
        .sample_count = sums[2],
        .time_min_ms = (int64_t)sums[3],
        .time_max_ms = (int64_t)sums[4],
        .position_min = sums[5],
        .position_max = sums[6],
        .time_base_ms = base.time_base_ms,
        .position_base = base.position_base,
        .source_count = (size_t)sums[7],
    };
    if (meta.source_count > 0) {
        meta.sources = mem_alloc(meta.source_count * sizeof *meta.sources);
        if (meta.sources == NULL)
            return STATUS_NO_MEMORY;
        for (size_t i = 0; i < meta.source_count; i++)
            meta.sources[i] = load_u64(p + TRAILER_SOURCES + 8 * i);
    }
    *base_out = base;
    *meta_out = meta;
    return STATUS_OK;
}

int block__trailer_find(struct slice file, const struct block__base *base, struct block__base *base_out,
                        struct block_meta *meta_out, uint64_t *offset_out) {
    if (file.len < BLOCK__HEADER_BYTES + TRAILER_SOURCES)
        return STATUS_NOT_FOUND;
    /* It begins at a multiple of 8 and reaches to the end: there are few places. */
    uint64_t last = (file.len - TRAILER_SOURCES) & ~(BLOCK__RUN_ALIGN - 1);
    for (uint64_t offset = last; offset >= BLOCK__HEADER_BYTES && file.len - offset <= TRAILER_BYTES_MAX;
         offset -= BLOCK__RUN_ALIGN) {
        struct block__base found;
        struct block_meta meta;
        int status = trailer_read(file, offset, &found, &meta);
        if (status == STATUS_NOT_FOUND)
            continue;
        if (status < 0)
            return status;
        if (base != NULL && base->salt != found.salt) {
            mem_free(meta.sources);
            continue;
        }
        *base_out = found;
        *meta_out = meta;
        *offset_out = offset;
        return STATUS_OK;
    }
    return STATUS_NOT_FOUND;
}

/* ---- Chunk records ------------------------------------------------------------------------------------ */

#define CHUNK_FIXED     ((size_t)6) /* checksum, sample count, start byte */
#define CHUNK_BYTES_MAX (CHUNK_FIXED + 3 * VARINT_BYTES_MAX + BLOCK_CHUNK_BITS_MAX)

static uint8_t *chunk_write(const struct block__base *base, uint64_t offset, const struct block_chunk *chunk,
                            uint8_t *out) {
    uint8_t *p = out + CHUNK_FIXED;
    out[4] = chunk->info.sample_count;
    out[5] = chunk->info.start_byte;
    p = varint_write(p, zigzag((int64_t)((uint64_t)chunk->time_min_ms - (uint64_t)base->time_base_ms)));
    p = varint_write(p, (uint64_t)chunk->time_max_ms - (uint64_t)chunk->time_min_ms);
    p = varint_write(p, zigzag((int64_t)(chunk->log_position - base->position_base)));
    memcpy(p, chunk->bits.data, chunk->bits.len);
    p += chunk->bits.len;
    store_u32(out, piece_crc(base, offset, PIECE_CHUNK, out + 4, (size_t)(p - out) - 4));
    return p;
}

int block__chunk_read(const struct block__base *base, uint64_t offset, const uint8_t *record, size_t bytes,
                      struct block_chunk *out) {
    if (bytes < CHUNK_FIXED || bytes > CHUNK_BYTES_MAX ||
        !crc_matches(piece_crc(base, offset, PIECE_CHUNK, record + 4, bytes - 4), load_u32(record)))
        return STATUS_CORRUPT;
    const uint8_t *end = record + bytes;
    uint64_t time_min, span, position;
    const uint8_t *p = varint_read(record + CHUNK_FIXED, end, &time_min);
    if (p == NULL || (p = varint_read(p, end, &span)) == NULL || (p = varint_read(p, end, &position)) == NULL)
        return STATUS_CORRUPT;
    struct block_chunk chunk = {
        .info = {.sample_count = record[4], .start_byte = record[5]},
        .time_min_ms = (int64_t)((uint64_t)base->time_base_ms + (uint64_t)unzigzag(time_min)),
        .log_position = base->position_base + (uint64_t)unzigzag(position),
        .bits = slice_of(p, (size_t)(end - p)),
    };
    chunk.time_max_ms = (int64_t)((uint64_t)chunk.time_min_ms + span);
    if (chunk.time_max_ms < chunk.time_min_ms || chunk.info.sample_count == 0 ||
        chunk.info.sample_count > CHUNK_SAMPLES_MAX || chunk.bits.len == 0 ||
        chunk.bits.len > BLOCK_CHUNK_BITS_MAX)
        return STATUS_CORRUPT;
    *out = chunk;
    return STATUS_OK;
}

/* ---- Runs --------------------------------------------------------------------------------------------- */

int block__run_append(struct buf *buf, const struct block__base *base, uint64_t offset, uint32_t ordinal,
                      uint64_t id, struct slice labels, const struct block_chunk *chunks, size_t count,
                      struct block__run *run_out, struct block_chunk_ref *refs_out) {
    ASSERT(offset % BLOCK__RUN_ALIGN == 0 && count > 0);
    /* The records' lengths, as the table in front of them needs them. */
    uint64_t data_bytes = 0, table_bytes = 4;
    for (size_t i = 0; i < count; i++) {
        const struct block_chunk *chunk = &chunks[i];
        ASSERT(chunk->time_min_ms <= chunk->time_max_ms && chunk->info.sample_count > 0 &&
               chunk->info.sample_count <= CHUNK_SAMPLES_MAX && chunk->bits.len > 0 &&
               chunk->bits.len <= BLOCK_CHUNK_BITS_MAX);
        size_t bytes =
            CHUNK_FIXED +
            varint_len(zigzag((int64_t)((uint64_t)chunk->time_min_ms - (uint64_t)base->time_base_ms))) +
            varint_len((uint64_t)chunk->time_max_ms - (uint64_t)chunk->time_min_ms) +
            varint_len(zigzag((int64_t)(chunk->log_position - base->position_base))) + chunk->bits.len;
        refs_out[i] = (struct block_chunk_ref){
            .bytes = (uint32_t)bytes, .time_min_ms = chunk->time_min_ms, .time_max_ms = chunk->time_max_ms};
        data_bytes += bytes;
        table_bytes += varint_len(bytes);
    }
    uint64_t head_bytes = BLOCK__RUN_FIXED + varint_len(ordinal) + varint_len(id) + varint_len(count) +
                          varint_len(table_bytes) + varint_len(data_bytes) + varint_len(labels.len) +
                          labels.len;
    if (head_bytes + table_bytes + data_bytes > UINT32_MAX - BLOCK__RUN_ALIGN || count > UINT32_MAX)
        return STATUS_TOO_LARGE;
    struct block__run run = {
        .offset = offset,
        .ordinal = ordinal,
        .id = id,
        .chunk_count = (uint32_t)count,
        .head_bytes = (uint32_t)head_bytes,
        .table_bytes = (uint32_t)table_bytes,
        .data_bytes = data_bytes,
        .labels = labels,
    };
    size_t len = (size_t)(block__run_end(&run) - offset);
    uint8_t *start = buf_reserve(buf, len);
    if (start == NULL)
        return STATUS_NO_MEMORY;
    uint8_t *p = start;
    store_u32(p, RUN_MAGIC);
    store_u32(p + 8, (uint32_t)(head_bytes - BLOCK__RUN_FIXED));
    p = varint_write(p + BLOCK__RUN_FIXED, ordinal);
    p = varint_write(p, id);
    p = varint_write(p, count);
    p = varint_write(p, table_bytes);
    p = varint_write(p, data_bytes);
    p = varint_write(p, labels.len);
    memcpy(p, labels.data, labels.len);
    p += labels.len;
    ASSERT(p == start + head_bytes);
    store_u32(start + 4, piece_crc(base, offset, PIECE_HEAD, start + 8, head_bytes - 8));
    uint8_t *table = p;
    p += 4;
    for (size_t i = 0; i < count; i++)
        p = varint_write(p, refs_out[i].bytes);
    store_u32(table, piece_crc(base, offset + head_bytes, PIECE_TABLE, table + 4, table_bytes - 4));
    for (size_t i = 0; i < count; i++) {
        refs_out[i].offset = offset + (uint64_t)(p - start);
        p = chunk_write(base, refs_out[i].offset, &chunks[i], p);
    }
    ASSERT((uint64_t)(p - start) == head_bytes + table_bytes + data_bytes);
    memset(p, 0, (size_t)(start + len - p));
    buf->len += len;
    *run_out = run;
    return STATUS_OK;
}

int block__run_read(struct slice file, const struct block__base *base, uint64_t offset,
                    struct block__run *out) {
    if (offset % BLOCK__RUN_ALIGN != 0 || offset > file.len || file.len - offset < BLOCK__RUN_FIXED)
        return STATUS_CORRUPT;
    const uint8_t *start = file.data + offset;
    size_t left = (size_t)(file.len - offset);
    uint32_t body = load_u32(start + 8);
    if (load_u32(start) != RUN_MAGIC || body > left - BLOCK__RUN_FIXED)
        return STATUS_CORRUPT;
    size_t head_bytes = BLOCK__RUN_FIXED + body;
    if (!crc_matches(piece_crc(base, offset, PIECE_HEAD, start + 8, head_bytes - 8), load_u32(start + 4)))
        return STATUS_CORRUPT;
    const uint8_t *p = start + BLOCK__RUN_FIXED, *end = start + head_bytes;
    uint64_t fields[6]; /* ordinal, id, chunk count, table bytes, data bytes, label bytes */
    for (size_t i = 0; i < 6; i++)
        if ((p = varint_read(p, end, &fields[i])) == NULL)
            return STATUS_CORRUPT;
    if (MUTATED(BELIEVE_BLOCK_LEN))
        end = p + fields[5];
    if (fields[0] >= BLOCK_ORDINAL_NONE || fields[5] != (uint64_t)(end - p) || fields[2] > UINT32_MAX ||
        fields[3] < 4 || fields[3] > left - head_bytes || fields[4] > left - head_bytes - fields[3] ||
        fields[2] > fields[3] - 4) /* a chunk's length takes a byte at least */
        return STATUS_CORRUPT;
    *out = (struct block__run){
        .offset = offset,
        .ordinal = (uint32_t)fields[0],
        .id = fields[1],
        .chunk_count = (uint32_t)fields[2],
        .head_bytes = (uint32_t)head_bytes,
        .table_bytes = (uint32_t)fields[3],
        .data_bytes = fields[4],
        .labels = slice_of(p, (size_t)fields[5]),
    };
    return STATUS_OK;
}

bool block__run_labels_canonical(const struct block__run *run) {
    struct slice before = {NULL, 0}, rest = run->labels;
    struct label label;
    for (; label_next(&rest, &label, NULL); before = label.name)
        if (label.value.len == 0 || slice_compare(before, label.name) >= 0)
            return false;
    return rest.len == 0;
}

int block__run_find(struct slice file, const struct block__base *base, uint64_t offset, uint64_t end,
                    struct block__run *out) {
    offset = (offset + BLOCK__RUN_ALIGN - 1) & ~(BLOCK__RUN_ALIGN - 1);
    for (; offset < end && end - offset >= BLOCK__RUN_FIXED; offset += BLOCK__RUN_ALIGN)
        if (load_u32(file.data + offset) == RUN_MAGIC &&
            block__run_read(file, base, offset, out) == STATUS_OK && block__run_labels_canonical(out))
            return STATUS_OK;
    return STATUS_NOT_FOUND;
}

int block__run_table(struct slice file, const struct block__base *base, const struct block__run *run,
                     uint32_t *lengths_out) {
    uint64_t offset = run->offset + run->head_bytes;
    const uint8_t *table = file.data + offset;
    if (!crc_matches(piece_crc(base, offset, PIECE_TABLE, table + 4, run->table_bytes - 4), load_u32(table)))
        return STATUS_CORRUPT;
    const uint8_t *p = table + 4, *end = table + run->table_bytes;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < run->chunk_count; i++) {
        uint64_t length;
        if ((p = varint_read(p, end, &length)) == NULL || length > run->data_bytes - sum)
            return STATUS_CORRUPT;
        sum += length;
        lengths_out[i] = (uint32_t)length;
    }
    return p == end && sum == run->data_bytes ? STATUS_OK : STATUS_CORRUPT;
}

bool block__run_padding_zero(struct slice file, const struct block__run *run) {
    uint64_t end = block__run_end(run);
    for (uint64_t at = block__run_data(run) + run->data_bytes; at < end; at++)
        if (at >= file.len || file.data[at] != 0)
            return false;
    return true;
}
