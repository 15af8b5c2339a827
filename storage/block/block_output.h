/* block_output.h: files of a block on their way to the disk: grown at the end, summed up, synced bit by bit.
 * For storage/block alone. */
#ifndef TIDALITE_STORAGE_BLOCK_OUTPUT_H
#define TIDALITE_STORAGE_BLOCK_OUTPUT_H

#include "storage/block/block.h"

#define BLOCK__WRITE_BYTES ((size_t)1 << 20) /* at once */

struct block__output {
    struct io *io;
    char *path;
    struct io_file *file;      /* NULL: not open */
    struct block_file_sum sum; /* of what was written so far */
    uint64_t unsynced;
};

/* Makes the file. It must not exist, unless `replace`: then it is emptied. */
int block__output_open(struct block__output *output, struct io *io, const char *dir, const char *name,
                       bool replace, struct error_detail *detail);

/* Writes what stands in `buf` to the end, and empties it. Syncs every few MiB, so that no sync has much to
 * do. */
int block__output_write(struct block__output *output, struct buf *buf, struct error_detail *detail);
int block__output_sync(struct block__output *output, struct error_detail *detail);
void block__output_close(struct block__output *output); /* fine if it is not open */

/* A whole small file, synced. */
int block__output_file(struct io *io, const char *dir, const char *name, bool replace, struct buf *buf,
                       struct block_file_sum *sum_out, struct error_detail *detail);

/* index.mdb, and the checksums of its pages for index.sum. */
struct block__index_output {
    struct block__output output;
    uint64_t salt;
    uint32_t *crcs;
    size_t page_count;
    size_t capacity;
};

/* Writes whole pages; as block__output_write. */
int block__index_output_write(struct block__index_output *index, struct buf *buf,
                              struct error_detail *detail);
void block__index_output_close(struct block__index_output *index);

#endif
