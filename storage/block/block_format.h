/* block_format.h: the file `chunks` as bytes: header, runs, chunk records, trailer. The byte tables are in
 * docs/format/block.md; block_format.c is their only reader and writer. For storage/block alone. */
#ifndef TIDALITE_STORAGE_BLOCK_FORMAT_H
#define TIDALITE_STORAGE_BLOCK_FORMAT_H

#include "storage/block/block.h"

#define BLOCK__VERSION      1
#define BLOCK__HEADER_BYTES ((size_t)64)
#define BLOCK__RUN_ALIGN    ((uint64_t)8)
#define BLOCK__RUN_FIXED    ((size_t)12) /* magic, checksum, length: before the body of a run's head */

/* What must be known to believe or decode anything else of the file. */
struct block__base {
    uint64_t salt;
    uint64_t id;
    int64_t time_base_ms;
    uint64_t position_base;
    uint32_t level;
};

/* BLOCK__HEADER_BYTES bytes. Reading: STATUS_OK, STATUS_CORRUPT, STATUS_NEWER_FORMAT. */
void block__header_write(const struct block__base *base, uint8_t *out);
int block__header_read(const uint8_t *bytes, struct block__base *out);

/* The trailer repeats the header and sums the block up. Appending needs where in the file it will stand. */
void block__trailer_append(struct buf *buf, const struct block__base *base, const struct block_meta *meta,
                           uint64_t offset);

/* Finds the trailer at the end of the file; with `base` (may be NULL) it must have that salt. *meta_out gets
 * new sources (mem_free) and no file sums. STATUS_NOT_FOUND, STATUS_NEWER_FORMAT, STATUS_NO_MEMORY. */
int block__trailer_find(struct slice file, const struct block__base *base, struct block__base *base_out,
                        struct block_meta *meta_out, uint64_t *offset_out);

/* One series' run: head, table of lengths, chunk records, zeros to a multiple of BLOCK__RUN_ALIGN. */
struct block__run {
    uint64_t offset;
    uint32_t ordinal;
    uint64_t id;
    uint32_t chunk_count;
    uint32_t head_bytes;  /* from `offset` to the table */
    uint32_t table_bytes; /* from there to the first chunk record */
    uint64_t data_bytes;  /* all chunk records */
    struct slice labels;
};

static inline uint64_t block__run_data(const struct block__run *run) {
    return run->offset + run->head_bytes + run->table_bytes;
}

static inline uint64_t block__run_end(const struct block__run *run) {
    return (block__run_data(run) + run->data_bytes + BLOCK__RUN_ALIGN - 1) & ~(BLOCK__RUN_ALIGN - 1);
}

/* Appends a run that will stand at `offset` of the file and fills in *run_out (labels borrowed) and one ref a
 * chunk. See buf.h for lack of memory. STATUS_TOO_LARGE if it does not fit the format. */
int block__run_append(struct buf *buf, const struct block__base *base, uint64_t offset, uint32_t ordinal,
                      uint64_t id, struct slice labels, const struct block_chunk *chunks, size_t count,
                      struct block__run *run_out, struct block_chunk_ref *refs_out);

/* The head of the run at `offset`, checked; its data lies inside the file. STATUS_OK or STATUS_CORRUPT. */
int block__run_read(struct slice file, const struct block__base *base, uint64_t offset,
                    struct block__run *out);

/* Are its labels well-formed, in the order of their names, none empty? The checksum says that they are what
 * was written; this is for those who build on them. */
bool block__run_labels_canonical(const struct block__run *run);

/* The first whole run head at or behind `offset`, below `end`: STATUS_OK or STATUS_NOT_FOUND. */
int block__run_find(struct slice file, const struct block__base *base, uint64_t offset, uint64_t end,
                    struct block__run *out);

/* The lengths of the run's chunk records, checked: run->chunk_count of them. STATUS_OK or STATUS_CORRUPT. */
int block__run_table(struct slice file, const struct block__base *base, const struct block__run *run,
                     uint32_t *lengths_out);

/* One chunk record of `bytes` bytes that stands at `offset` of the file: STATUS_OK or STATUS_CORRUPT. */
int block__chunk_read(const struct block__base *base, uint64_t offset, const uint8_t *record, size_t bytes,
                      struct block_chunk *out);

/* Is the padding behind the run zero? */
bool block__run_padding_zero(struct slice file, const struct block__run *run);

#endif
