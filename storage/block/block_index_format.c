/* block_index_format.c: pages of texts, groups of series, the info record and index.sum, as bytes. */
#include "storage/block/block_index_format.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mutation.h"

const char *const block__table_names[BLOCK__INDEX_TABLES] = {"names",   "values", "postings",
                                                             "present", "series", "info"};

static void varint_append(struct buf *buf, uint64_t v) {
    uint8_t bytes[VARINT_BYTES_MAX];
    buf_append(buf, bytes, (size_t)(varint_write(bytes, v) - bytes));
}

/* ---- Info --------------------------------------------------------------------------------------------- */

#define INFO_NUMBERS 8
#define INFO_BYTES   (4 + 8 + 8 * INFO_NUMBERS + 4 * (BLOCK_SHARDS + 1))

void block__info_append(struct buf *buf, const struct block__index_info *info) {
    uint8_t bytes[INFO_BYTES];
    uint64_t numbers[INFO_NUMBERS] = {
        info->ordinal_count, info->series_count, info->chunk_count, info->label_count,
        info->name_count,    info->name_pages,   info->value_pages, info->pair_count,
    };
    store_u32(bytes, BLOCK__INDEX_VERSION);
    store_u64(bytes + 4, info->salt);
    for (size_t i = 0; i < INFO_NUMBERS; i++)
        store_u64(bytes + 12 + 8 * i, numbers[i]);
    for (size_t i = 0; i <= BLOCK_SHARDS; i++)
        store_u32(bytes + 12 + 8 * INFO_NUMBERS + 4 * i, info->shard_first[i]);
    buf_append(buf, bytes, sizeof bytes);
}

int block__info_read(struct slice bytes, struct block__index_info *out) {
    if (bytes.len < 4)
        return STATUS_CORRUPT;
    if (load_u32(bytes.data) != BLOCK__INDEX_VERSION)
        return STATUS_NEWER_FORMAT;
    if (bytes.len != INFO_BYTES)
        return STATUS_CORRUPT;
    uint64_t numbers[INFO_NUMBERS];
    for (size_t i = 0; i < INFO_NUMBERS; i++)
        numbers[i] = load_u64(bytes.data + 12 + 8 * i);
    if (numbers[0] > BLOCK__ORDINALS_MAX || numbers[1] > numbers[0] || numbers[4] > UINT32_MAX ||
        numbers[5] > UINT32_MAX || numbers[6] > UINT32_MAX || numbers[7] > UINT32_MAX)
        return STATUS_CORRUPT;
    struct block__index_info info = {
        .salt = load_u64(bytes.data + 4),
        .ordinal_count = (uint32_t)numbers[0],
        .series_count = numbers[1],
        .chunk_count = numbers[2],
        .label_count = numbers[3],
        .name_count = (uint32_t)numbers[4],
        .name_pages = (uint32_t)numbers[5],
        .value_pages = (uint32_t)numbers[6],
        .pair_count = (uint32_t)numbers[7],
    };
    for (size_t i = 0; i <= BLOCK_SHARDS; i++) {
        info.shard_first[i] = load_u32(bytes.data + 12 + 8 * INFO_NUMBERS + 4 * i);
        if (info.shard_first[i] > info.ordinal_count ||
            (i > 0 && info.shard_first[i] < info.shard_first[i - 1]))
            return STATUS_CORRUPT;
    }
    *out = info;
    return STATUS_OK;
}

/* ---- Pages of texts ----------------------------------------------------------------------------------- */

#define PAGE_HEAD_MAX ((size_t)10) /* first number, count */

void block__page_writer_init(struct block__page_writer *writer) {
    *writer = (struct block__page_writer){0};
    buf_init(&writer->entries);
    buf_init(&writer->last);
}

void block__page_writer_release(struct block__page_writer *writer) {
    buf_release(&writer->entries);
    buf_release(&writer->last);
}

static size_t shared_len(const struct block__page_writer *writer, struct slice text) {
    size_t shared = 0;
    if (writer->count > 0)
        while (shared < text.len && shared < writer->last.len &&
               text.data[shared] == writer->last.data[shared])
            shared++;
    return shared;
}

bool block__page_full(const struct block__page_writer *writer, struct slice text, size_t with_bytes) {
    size_t shared = shared_len(writer, text), suffix = text.len - shared;
    return writer->count > 0 && PAGE_HEAD_MAX + writer->entries.len + varint_len(shared) +
                                        varint_len(suffix) + suffix + with_bytes >
                                    BLOCK__INDEX_VALUE_BYTES;
}

static void text_add(struct block__page_writer *writer, struct slice text) {
    size_t shared = shared_len(writer, text);
    varint_append(&writer->entries, shared);
    varint_append(&writer->entries, text.len - shared);
    buf_append(&writer->entries, text.data + shared, text.len - shared);
    buf_clear(&writer->last);
    buf_append(&writer->last, text.data, text.len);
    if (writer->last.failed)
        writer->entries.failed = true;
    writer->count++;
}

void block__page_add_name(struct block__page_writer *writer, struct slice text,
                          const struct block__name_entry *entry) {
    text_add(writer, text);
    varint_append(&writer->entries, entry->page_first);
    varint_append(&writer->entries, entry->page_count);
    varint_append(&writer->entries, entry->pair_first);
    varint_append(&writer->entries, entry->pair_count);
    varint_append(&writer->entries, entry->series_count);
    varint_append(&writer->entries, (uint64_t)entry->present);
}

void block__page_add_value(struct block__page_writer *writer, struct slice text,
                           const struct block__value_entry *entry) {
    ASSERT(entry->external == (entry->postings.len == 0));
    text_add(writer, text);
    varint_append(&writer->entries, entry->series_count);
    varint_append(&writer->entries, entry->postings.len);
    buf_append(&writer->entries, entry->postings.data, entry->postings.len);
}

void block__page_take(struct block__page_writer *writer, struct buf *out) {
    varint_append(out, writer->first);
    varint_append(out, writer->count);
    buf_append(out, writer->entries.data, writer->entries.len);
    if (writer->entries.failed)
        out->failed = true;
    writer->first += writer->count;
    writer->count = 0;
    buf_clear(&writer->entries);
    buf_clear(&writer->last);
}

/* A varint below 2^32. */
static const uint8_t *number_read(const uint8_t *p, const uint8_t *end, uint32_t *out) {
    uint64_t v;
    if (p == NULL || (p = varint_read(p, end, &v)) == NULL || v > UINT32_MAX)
        return NULL;
    *out = (uint32_t)v;
    return p;
}

int block__page_reader_start(struct block__page_reader *reader, struct slice page) {
    const uint8_t *end = page.data + page.len;
    uint32_t first, count;
    const uint8_t *p = number_read(number_read(page.data, end, &first), end, &count);
    if (p == NULL || count == 0 || count > (size_t)(end - p) || count > UINT32_MAX - first)
        return STATUS_CORRUPT;
    reader->p = p;
    reader->end = end;
    reader->number = first;
    reader->left = count;
    buf_clear(&reader->text);
    return STATUS_OK;
}

static int text_next(struct block__page_reader *reader, struct slice *text) {
    if (reader->left == 0)
        return reader->p == reader->end ? STATUS_END : STATUS_CORRUPT;
    uint32_t shared, suffix;
    const uint8_t *p = number_read(number_read(reader->p, reader->end, &shared), reader->end, &suffix);
    if (p == NULL || shared > reader->text.len)
        return STATUS_CORRUPT;
    if (suffix > (size_t)(reader->end - p) && !MUTATED(BELIEVE_BLOCK_LEN))
        return STATUS_CORRUPT;
    reader->text.len = shared;
    buf_append(&reader->text, p, suffix);
    if (reader->text.failed)
        return STATUS_NO_MEMORY;
    reader->p = p + suffix;
    reader->left--;
    reader->number++;
    *text = buf_slice(&reader->text);
    return STATUS_OK;
}

int block__page_next_name(struct block__page_reader *reader, struct slice *text,
                          struct block__name_entry *out) {
    int status = text_next(reader, text);
    if (status != STATUS_OK)
        return status;
    struct block__name_entry entry;
    uint32_t present;
    const uint8_t *p = number_read(reader->p, reader->end, &entry.page_first);
    p = number_read(p, reader->end, &entry.page_count);
    p = number_read(p, reader->end, &entry.pair_first);
    p = number_read(p, reader->end, &entry.pair_count);
    if (p == NULL || (p = varint_read(p, reader->end, &entry.series_count)) == NULL ||
        (p = number_read(p, reader->end, &present)) == NULL || present > BLOCK__PRESENT_ALL)
        return STATUS_CORRUPT;
    if (entry.page_count == 0 || entry.page_count > UINT32_MAX - entry.page_first || entry.pair_count == 0 ||
        entry.pair_count > UINT32_MAX - entry.pair_first)
        return STATUS_CORRUPT;
    entry.present = present;
    reader->p = p;
    *out = entry;
    return STATUS_OK;
}

int block__page_next_value(struct block__page_reader *reader, struct slice *text,
                           struct block__value_entry *out) {
    struct block__value_entry entry = {.pair = reader->number};
    int status = text_next(reader, text);
    if (status != STATUS_OK)
        return status;
    uint32_t len;
    const uint8_t *p = varint_read(reader->p, reader->end, &entry.series_count);
    if (p == NULL || (p = number_read(p, reader->end, &len)) == NULL || len > (size_t)(reader->end - p))
        return STATUS_CORRUPT;
    entry.external = len == 0;
    entry.postings = slice_of(p, len);
    reader->p = p + len;
    *out = entry;
    return STATUS_OK;
}

int block__page_first(struct slice page, struct slice *text_out) {
    struct block__page_reader reader = {0};
    int status = block__page_reader_start(&reader, page);
    if (status < 0)
        return status;
    uint32_t shared, suffix;
    const uint8_t *p = number_read(number_read(reader.p, reader.end, &shared), reader.end, &suffix);
    if (p == NULL || shared != 0 || suffix > (size_t)(reader.end - p))
        return STATUS_CORRUPT;
    *text_out = slice_of(p, suffix);
    return STATUS_OK;
}

/* ---- Groups of series --------------------------------------------------------------------------------- */

void block__group_writer_init(struct block__group_writer *writer) {
    *writer = (struct block__group_writer){0};
    buf_init(&writer->entries);
    buf_init(&writer->entry);
}

void block__group_writer_release(struct block__group_writer *writer) {
    buf_release(&writer->entries);
    buf_release(&writer->entry);
}

static uint64_t span_of(const struct block_chunk_ref *ref) {
    return (uint64_t)ref->time_max_ms - (uint64_t)ref->time_min_ms;
}

void block__group_add(struct block__group_writer *writer, const struct block__run *run,
                      const struct block_chunk_ref *refs, size_t count) {
    if (writer->count == 0) {
        writer->first = run->ordinal;
        writer->base_offset = run->offset;
        writer->base_time_ms = count > 0 ? refs[0].time_min_ms : 0;
        writer->base_span = count > 0 ? span_of(&refs[0]) : 0;
        writer->base_gap = count > 1 ? (uint64_t)refs[1].time_min_ms - (uint64_t)refs[0].time_max_ms : 0;
    }
    ASSERT(run->ordinal == writer->first + writer->count && run->offset >= writer->base_offset);
    struct buf *entry = &writer->entry;
    buf_clear(entry);
    varint_append(entry, run->id);
    varint_append(entry, (run->offset - writer->base_offset) / BLOCK__RUN_ALIGN);
    varint_append(entry, block__run_data(run) - run->offset);
    varint_append(entry, count);
    uint64_t expected = (uint64_t)writer->base_time_ms;
    for (size_t i = 0; i < count; i++) {
        varint_append(entry, refs[i].bytes);
        varint_append(entry, zigzag((int64_t)((uint64_t)refs[i].time_min_ms - expected)));
        varint_append(entry, zigzag((int64_t)(span_of(&refs[i]) - writer->base_span)));
        expected = (uint64_t)refs[i].time_max_ms + writer->base_gap;
    }
    varint_append(&writer->entries, entry->len);
    buf_append(&writer->entries, entry->data, entry->len);
    if (entry->failed)
        writer->entries.failed = true;
    writer->count++;
}

void block__group_take(struct block__group_writer *writer, struct buf *out) {
    varint_append(out, writer->first);
    varint_append(out, writer->count);
    varint_append(out, writer->base_offset / BLOCK__RUN_ALIGN);
    varint_append(out, zigzag(writer->base_time_ms));
    varint_append(out, writer->base_span);
    varint_append(out, writer->base_gap);
    buf_append(out, writer->entries.data, writer->entries.len);
    if (writer->entries.failed)
        out->failed = true;
    writer->count = 0;
    buf_clear(&writer->entries);
}

int block__group_start(struct block__group_reader *reader, struct slice group) {
    const uint8_t *end = group.data + group.len;
    uint32_t first, count;
    uint64_t numbers[4];
    const uint8_t *p = number_read(number_read(group.data, end, &first), end, &count);
    for (size_t i = 0; i < 4 && p != NULL; i++)
        p = varint_read(p, end, &numbers[i]);
    if (p == NULL || count == 0 || count > (size_t)(end - p) || first > BLOCK__ORDINALS_MAX - count ||
        numbers[0] > INT64_MAX / BLOCK__RUN_ALIGN)
        return STATUS_CORRUPT;
    *reader = (struct block__group_reader){
        .p = p,
        .end = end,
        .ordinal = first,
        .left = count,
        .base_offset = numbers[0] * BLOCK__RUN_ALIGN,
        .base_time_ms = unzigzag(numbers[1]),
        .base_span = numbers[2],
        .base_gap = numbers[3],
    };
    return STATUS_OK;
}

static int entry_take(struct block__group_reader *reader, struct slice *out) {
    if (reader->left == 0)
        return reader->p == reader->end ? STATUS_END : STATUS_CORRUPT;
    uint32_t len;
    const uint8_t *p = number_read(reader->p, reader->end, &len);
    if (p == NULL || len > (size_t)(reader->end - p))
        return STATUS_CORRUPT;
    *out = slice_of(p, len);
    reader->p = p + len;
    reader->left--;
    reader->ordinal++;
    return STATUS_OK;
}

int block__group_skip(struct block__group_reader *reader) {
    struct slice entry;
    return entry_take(reader, &entry);
}

int block__group_next(struct block__group_reader *reader, struct block__series_entry *out) {
    struct slice entry;
    uint32_t ordinal = reader->ordinal;
    int status = entry_take(reader, &entry);
    if (status != STATUS_OK)
        return status;
    const uint8_t *p = entry.data, *end = p + entry.len;
    uint64_t id, offset;
    uint32_t data, count;
    if ((p = varint_read(p, end, &id)) == NULL || (p = varint_read(p, end, &offset)) == NULL)
        return STATUS_CORRUPT;
    p = number_read(number_read(p, end, &data), end, &count);
    if (p == NULL || offset > (INT64_MAX - reader->base_offset) / BLOCK__RUN_ALIGN ||
        count > (size_t)(end - p) / 3)
        return STATUS_CORRUPT;
    *out = (struct block__series_entry){
        .ordinal = ordinal,
        .id = id,
        .offset = reader->base_offset + offset * BLOCK__RUN_ALIGN,
        .data = reader->base_offset + offset * BLOCK__RUN_ALIGN + data,
        .chunk_count = count,
        .chunks = slice_of(p, (size_t)(end - p)),
    };
    return STATUS_OK;
}

int block__chunks_read(const struct block__group_reader *group, const struct block__series_entry *series,
                       int64_t time_min_ms, int64_t time_max_ms, struct block_chunk_ref *refs,
                       size_t *count_out) {
    const uint8_t *p = series->chunks.data, *end = p + series->chunks.len;
    uint64_t offset = series->data, expected = (uint64_t)group->base_time_ms;
    size_t count = 0;
    for (uint32_t i = 0; i < series->chunk_count; i++) {
        uint32_t bytes;
        uint64_t gap, span;
        p = number_read(p, end, &bytes);
        if (p == NULL || (p = varint_read(p, end, &gap)) == NULL || (p = varint_read(p, end, &span)) == NULL)
            return STATUS_CORRUPT;
        uint64_t time_min = expected + (uint64_t)unzigzag(gap);
        uint64_t time_max = time_min + group->base_span + (uint64_t)unzigzag(span);
        if ((int64_t)time_max < (int64_t)time_min)
            return STATUS_CORRUPT;
        if ((int64_t)time_min <= time_max_ms && (int64_t)time_max >= time_min_ms)
            refs[count++] = (struct block_chunk_ref){.offset = offset,
                                                     .bytes = bytes,
                                                     .time_min_ms = (int64_t)time_min,
                                                     .time_max_ms = (int64_t)time_max};
        offset += bytes;
        expected = time_max + group->base_gap;
    }
    if (p != end)
        return STATUS_CORRUPT;
    *count_out = count;
    return STATUS_OK;
}

/* ---- index.sum ---------------------------------------------------------------------------------------- */

static const uint8_t sum_magic[8] = {'T', 'D', 'L', 'T', 'S', 'U', 'M', '\n'};

uint32_t block__index_page_crc(uint64_t salt, uint64_t page, const uint8_t *bytes) {
    uint8_t seed[16];
    store_u64(seed, salt);
    store_u64(seed + 8, page);
    return crc32c(crc32c(0, seed, sizeof seed), bytes, BLOCK__INDEX_PAGE_BYTES);
}

void block__index_sum_append(struct buf *buf, uint64_t salt, const uint32_t *crcs, uint64_t pages) {
    uint8_t head[BLOCK__INDEX_SUM_HEAD] = {0};
    memcpy(head, sum_magic, sizeof sum_magic);
    store_u32(head + 8, BLOCK__INDEX_VERSION);
    store_u32(head + 12, BLOCK__INDEX_PAGE_BYTES);
    store_u64(head + 16, salt);
    store_u64(head + 24, pages);
    store_u32(head + 32, crc32c(crc32c(0, head, 32), crcs, pages * sizeof *crcs));
    buf_append(buf, head, sizeof head);
    buf_append(buf, crcs, pages * sizeof *crcs);
}

int block__index_sum_read(struct slice bytes, uint64_t *salt_out, uint64_t *pages_out,
                          const uint8_t **crcs_out) {
    if (bytes.len < BLOCK__INDEX_SUM_HEAD || memcmp(bytes.data, sum_magic, sizeof sum_magic) != 0)
        return STATUS_CORRUPT;
    uint32_t crc = crc32c(crc32c(0, bytes.data, 32), bytes.data + BLOCK__INDEX_SUM_HEAD,
                          bytes.len - BLOCK__INDEX_SUM_HEAD);
    if (crc != load_u32(bytes.data + 32) || load_u32(bytes.data + 36) != 0)
        return STATUS_CORRUPT;
    if (load_u32(bytes.data + 8) != BLOCK__INDEX_VERSION ||
        load_u32(bytes.data + 12) != BLOCK__INDEX_PAGE_BYTES)
        return STATUS_NEWER_FORMAT;
    uint64_t pages = load_u64(bytes.data + 24);
    if (pages != (bytes.len - BLOCK__INDEX_SUM_HEAD) / 4 || (bytes.len - BLOCK__INDEX_SUM_HEAD) % 4 != 0)
        return STATUS_CORRUPT;
    *salt_out = load_u64(bytes.data + 16);
    *pages_out = pages;
    *crcs_out = bytes.data + BLOCK__INDEX_SUM_HEAD;
    return STATUS_OK;
}
