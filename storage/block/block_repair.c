/* block_repair.c: what can be made anew out of an open block: its index and meta.json. */
#include "base/alloc.h"
#include "base/crc32c.h"
#include "storage/block/block_index_build.h"
#include "storage/block/block_meta.h"
#include "storage/block/block_output.h"
#include "storage/block/block_private.h"

#define SUFFIX ".tmp"

static int index_write(struct block *block, struct buf *buf, struct block__index_output *index,
                       struct error_detail *detail) {
    int status = STATUS_OK;
    struct block__index_copy *copy = NULL;
    index->salt = block->base.salt;
    TRY(block__output_open(&index->output, block->io, block->dir, BLOCK__FILE_INDEX SUFFIX, true, detail));
    TRY(block__index_copy_start(block->index.env, detail, &copy));
    for (size_t got = BLOCK__WRITE_BYTES; got == BLOCK__WRITE_BYTES;) {
        uint8_t *slice = buf_reserve(buf, BLOCK__WRITE_BYTES);
        if (slice == NULL) {
            status = error_set(detail, STATUS_NO_MEMORY, "repairing a block: out of memory");
            goto out;
        }
        TRY(block__index_copy_read(copy, slice, BLOCK__WRITE_BYTES, &got, detail));
        buf->len = got;
        TRY(block__index_output_write(index, buf, detail));
    }
    TRY(block__output_sync(&index->output, detail));
out:
    block__index_copy_close(copy);
    return status;
}

static int rename_over(struct block *block, const char *from, const char *to, struct error_detail *detail) {
    char *path_from = block__path(block->dir, from), *path_to = block__path(block->dir, to);
    int status =
        path_from == NULL || path_to == NULL ? STATUS_NO_MEMORY : io_rename(block->io, path_from, path_to);
    if (status < 0)
        error_set(detail, status, "repairing %s: renaming %s: %s", block->dir, from, status_message(status));
    mem_free(path_from);
    mem_free(path_to);
    return status;
}

int block_repair(struct block *block, struct error_detail *detail) {
    int status = STATUS_OK;
    static const char *const names[] = {BLOCK__FILE_INDEX, BLOCK__FILE_SUM, BLOCK__FILE_META};
    static const char *const temporary[] = {BLOCK__FILE_INDEX SUFFIX, BLOCK__FILE_SUM SUFFIX,
                                            BLOCK__FILE_META SUFFIX};
    struct block__index_output index = {0};
    struct buf buf;
    buf_init(&buf);
    struct block_meta meta = block->meta; /* sources borrowed */
    if (!block->meta_read)
        meta.chunks =
            (struct block_file_sum){block->chunks.len, crc32c(0, block->chunks.data, block->chunks.len)};
    TRY(block_prepare(block, detail));
    TRY(index_write(block, &buf, &index, detail));
    meta.index = index.output.sum;
    block__index_sum_append(&buf, block->base.salt, index.crcs, index.page_count);
    TRY(block__output_file(block->io, block->dir, temporary[1], true, &buf, &meta.index_sum, detail));
    block__meta_print(&buf, &meta);
    TRY(block__output_file(block->io, block->dir, temporary[2], true, &buf, NULL, detail));
    /* Between two renames the index does not fit its checksums: then it is rebuilt at the next opening. */
    for (size_t i = 0; i < 3; i++)
        TRY(rename_over(block, temporary[i], names[i], detail));
    status = io_sync_dir(block->io, block->dir);
    if (status < 0)
        error_set(detail, status, "repairing %s: directory sync: %s", block->dir, status_message(status));
out:
    for (size_t i = 0; i < 3 && status < 0; i++) {
        char *path = block__path(block->dir, temporary[i]);
        if (path != NULL)
            (void)io_remove(block->io, path);
        mem_free(path);
    }
    block__index_output_close(&index);
    buf_release(&buf);
    return status;
}

int block_renew(struct io *io, const char *dir, struct error_detail *detail) {
    struct block *block;
    int status = block_open_later(io, dir, detail, &block);
    if (status < 0)
        return status;
    if (!block_index_rebuilt(block)) {
        block__index_close(&block->index); /* it was opened if nothing else says what is in the block */
        atomic_store_explicit(&block->index_ready, false, memory_order_relaxed);
        block->index_damaged = true;
    }
    status = block_repair(block, detail);
    block_close(block);
    return status;
}
