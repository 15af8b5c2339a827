/* block_index_format.h: the values that stand in the index' tables, as bytes. docs/format/block.md has the
 * byte tables; block_index_format.c is their only reader and writer. For storage/block alone.
 *
 * Tables of index.mdb, all numbers in keys big-endian:
 *     names     page number u32                  → label names, sorted, front-coded: a page of them
 *     values    page number u32                  → values of one name, sorted, front-coded, with short
 * postings postings  pair u32, last ordinal u32       → longer postings, in pieces; pair UINT32_MAX: all
 * series present   name u32, last ordinal u32       → series that have the name, where no pair says it
 * cheaper series    last ordinal u32                 → a group of series: id, place, chunks info      "info"
 * → counts, shards Pieces, pages and groups are filled to BLOCK__INDEX_VALUE_BYTES, so that two of them fill
 * a page of LMDB. */
#ifndef TIDALITE_STORAGE_BLOCK_INDEX_FORMAT_H
#define TIDALITE_STORAGE_BLOCK_INDEX_FORMAT_H

#include "storage/block/block_format.h"
#include "storage/block/block_postings.h"

#define BLOCK__INDEX_VERSION     1
#define BLOCK__INDEX_PAGE_BYTES  ((size_t)4096)
#define BLOCK__INDEX_VALUE_BYTES ((size_t)2016)
#define BLOCK__POSTINGS_INLINE   ((size_t)256) /* postings that are longer stand in their own table */
#define BLOCK__PAIR_ALL          UINT32_MAX
#define BLOCK__INDEX_TABLES      6
#define BLOCK__INDEX_SUM_HEAD    ((size_t)40) /* of index.sum: in front of the checksums */

enum block__table {
    BLOCK__TABLE_NAMES,
    BLOCK__TABLE_VALUES,
    BLOCK__TABLE_POSTINGS,
    BLOCK__TABLE_PRESENT,
    BLOCK__TABLE_SERIES,
    BLOCK__TABLE_INFO
};
extern const char *const block__table_names[BLOCK__INDEX_TABLES];

struct block__index_info {
    uint64_t salt;          /* of the file `chunks` it belongs to */
    uint32_t ordinal_count; /* all ordinals are below */
    uint64_t series_count;
    uint64_t chunk_count;
    uint64_t label_count; /* of all series together */
    uint32_t name_count;
    uint32_t name_pages;
    uint32_t value_pages;
    uint32_t pair_count;
    uint32_t shard_first[BLOCK_SHARDS + 1]; /* the first ordinal at or behind the shard's beginning */
};

void block__info_append(struct buf *buf, const struct block__index_info *info);
/* STATUS_OK, STATUS_CORRUPT, STATUS_NEWER_FORMAT. */
int block__info_read(struct slice bytes, struct block__index_info *out);

/* ---- Keys --------------------------------------------------------------------------------------------- */

static inline void block__key_write(uint8_t *p, uint32_t number) {
    uint32_t swapped = __builtin_bswap32(number);
    memcpy(p, &swapped, sizeof swapped);
}

static inline uint32_t block__key_read(const uint8_t *p) {
    return __builtin_bswap32(load_u32(p));
}

/* ---- Pages of texts ----------------------------------------------------------------------------------- */

/* What stands with a label name. */
struct block__name_entry {
    uint32_t page_first; /* of the table values */
    uint32_t page_count;
    uint32_t pair_first;
    uint32_t pair_count;
    uint64_t series_count;
    enum { BLOCK__PRESENT_NONE, BLOCK__PRESENT_STORED, BLOCK__PRESENT_ALL } present;
};

/* What stands with a value. */
struct block__value_entry {
    uint32_t pair;
    uint64_t series_count;
    bool external; /* the postings are in the table postings */
    struct slice postings;
};

struct block__page_writer {
    uint32_t first; /* the first text's number */
    uint32_t count;
    struct buf entries;
    struct buf last; /* the last text */
};

void block__page_writer_init(struct block__page_writer *writer);
void block__page_writer_release(struct block__page_writer *writer);

/* Is there no room for one more text of this length and what stands with it? An empty page takes all. */
bool block__page_full(const struct block__page_writer *writer, struct slice text, size_t with_bytes);
void block__page_add_name(struct block__page_writer *writer, struct slice text,
                          const struct block__name_entry *entry);
void block__page_add_value(struct block__page_writer *writer, struct slice text,
                           const struct block__value_entry *entry);

/* Appends the page's bytes and empties it; its next text has the number behind its last. */
void block__page_take(struct block__page_writer *writer, struct buf *out);

struct block__page_reader {
    const uint8_t *p, *end;
    uint32_t number; /* of the next text */
    uint32_t left;
    struct buf text; /* the current text, put together */
};

/* buf_init(&reader->text) before the first, buf_release when done. STATUS_OK, STATUS_CORRUPT. */
int block__page_reader_start(struct block__page_reader *reader, struct slice page);

/* The next text and what stands with it, borrowed until the next call: STATUS_OK, STATUS_END, STATUS_CORRUPT,
 * STATUS_NO_MEMORY. */
int block__page_next_name(struct block__page_reader *reader, struct slice *text,
                          struct block__name_entry *out);
int block__page_next_value(struct block__page_reader *reader, struct slice *text,
                           struct block__value_entry *out);

/* The first text of the page, in place: STATUS_OK, STATUS_CORRUPT. */
int block__page_first(struct slice page, struct slice *text_out);

/* ---- Groups of series --------------------------------------------------------------------------------- */

struct block__series_entry {
    uint32_t ordinal;
    uint64_t id;
    uint64_t offset; /* of its run in the file `chunks` */
    uint64_t data;   /* of its first chunk record */
    uint32_t chunk_count;
    struct slice chunks; /* for block__chunks_reader */
};

struct block__group_writer {
    uint32_t first;
    uint32_t count;
    uint64_t base_offset; /* of its first series, and of that series' first two chunks: */
    int64_t base_time_ms;
    uint64_t base_span;
    uint64_t base_gap;
    struct buf entries;
    struct buf entry;
};

void block__group_writer_init(struct block__group_writer *writer);
void block__group_writer_release(struct block__group_writer *writer);

/* Adds the series with the next ordinal (any, to an empty group). */
void block__group_add(struct block__group_writer *writer, const struct block__run *run,
                      const struct block_chunk_ref *refs, size_t count);
void block__group_take(struct block__group_writer *writer, struct buf *out);

struct block__group_reader {
    const uint8_t *p, *end;
    uint32_t ordinal; /* of the next series */
    uint32_t left;
    uint64_t base_offset;
    int64_t base_time_ms;
    uint64_t base_span;
    uint64_t base_gap;
};

/* STATUS_OK, STATUS_CORRUPT. */
int block__group_start(struct block__group_reader *reader, struct slice group);

/* The next series: STATUS_OK, STATUS_END, STATUS_CORRUPT; skipping does not look inside. */
int block__group_next(struct block__group_reader *reader, struct block__series_entry *out);
int block__group_skip(struct block__group_reader *reader);

/* The places of a series' chunks that overlap the range, into `refs`, which has room for all of them. */
int block__chunks_read(const struct block__group_reader *group, const struct block__series_entry *series,
                       int64_t time_min_ms, int64_t time_max_ms, struct block_chunk_ref *refs,
                       size_t *count_out);

/* ---- index.sum ---------------------------------------------------------------------------------------- */

/* The checksum of one page of index.mdb. */
uint32_t block__index_page_crc(uint64_t salt, uint64_t page, const uint8_t *bytes);

/* The file's bytes. `crcs` has one entry a page. */
void block__index_sum_append(struct buf *buf, uint64_t salt, const uint32_t *crcs, uint64_t pages);

/* STATUS_OK, STATUS_CORRUPT, STATUS_NEWER_FORMAT. *crcs_out borrows from `bytes` (4 bytes a page). */
int block__index_sum_read(struct slice bytes, uint64_t *salt_out, uint64_t *pages_out,
                          const uint8_t **crcs_out);

#endif
