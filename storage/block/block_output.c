/* block_output.c: files on their way to the disk. */
#include "storage/block/block_output.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "storage/block/block_private.h"

#define SYNC_BYTES ((uint64_t)4 << 20)

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "writing a block: out of memory");
}

int block__output_open(struct block__output *output, struct io *io, const char *dir, const char *name,
                       bool replace, struct error_detail *detail) {
    *output = (struct block__output){.io = io, .path = block__path(dir, name)};
    if (output->path == NULL)
        return no_memory(detail);
    unsigned flags = IO_OPEN_WRITE | IO_OPEN_CREATE | (replace ? IO_OPEN_TRUNCATE : IO_OPEN_EXCLUSIVE);
    int status = io_file_open(io, output->path, flags, detail, &output->file);
    if (status < 0)
        block__output_close(output);
    return status;
}

void block__output_close(struct block__output *output) {
    if (output->io != NULL)
        io_file_close(output->io, output->file);
    output->file = NULL;
    mem_free(output->path);
    output->path = NULL;
}

int block__output_sync(struct block__output *output, struct error_detail *detail) {
    int status = io_sync(output->io, output->file);
    output->unsynced = 0;
    return status < 0 ? error_set(detail, status, "syncing %s: %s", output->path, status_message(status))
                      : STATUS_OK;
}

int block__output_write(struct block__output *output, struct buf *buf, struct error_detail *detail) {
    if (buf->failed)
        return no_memory(detail);
    struct block_file_sum *sum = &output->sum;
    int status = io_write(output->io, output->file, sum->bytes, buf->data, buf->len);
    if (status < 0)
        return error_set(detail, status, "writing %s: %s", output->path, status_message(status));
    sum->bytes += buf->len;
    sum->crc = crc32c(sum->crc, buf->data, buf->len);
    output->unsynced += buf->len;
    if (buf->capacity > 4 * BLOCK__WRITE_BYTES)
        buf_release(buf);
    buf_clear(buf);
    return output->unsynced >= SYNC_BYTES ? block__output_sync(output, detail) : STATUS_OK;
}

int block__output_file(struct io *io, const char *dir, const char *name, bool replace, struct buf *buf,
                       struct block_file_sum *sum_out, struct error_detail *detail) {
    int status = STATUS_OK;
    struct block__output output = {0};
    TRY(block__output_open(&output, io, dir, name, replace, detail));
    TRY(block__output_write(&output, buf, detail));
    TRY(block__output_sync(&output, detail));
    if (sum_out != NULL)
        *sum_out = output.sum;
out:
    block__output_close(&output);
    return status;
}

int block__index_output_write(struct block__index_output *index, struct buf *buf,
                              struct error_detail *detail) {
    if (buf->failed)
        return no_memory(detail);
    if (buf->len % BLOCK__INDEX_PAGE_BYTES != 0)
        return error_set(detail, STATUS_IO, "writing %s: the copy ends inside a page", index->output.path);
    size_t pages = buf->len / BLOCK__INDEX_PAGE_BYTES;
    if (index->page_count + pages > index->capacity) {
        size_t capacity = 2 * (index->page_count + pages);
        uint32_t *crcs = mem_realloc(index->crcs, capacity * sizeof *crcs);
        if (crcs == NULL)
            return no_memory(detail);
        index->crcs = crcs;
        index->capacity = capacity;
    }
    for (size_t i = 0; i < pages; i++, index->page_count++)
        index->crcs[index->page_count] =
            block__index_page_crc(index->salt, index->page_count, buf->data + i * BLOCK__INDEX_PAGE_BYTES);
    return block__output_write(&index->output, buf, detail);
}

void block__index_output_close(struct block__index_output *index) {
    block__output_close(&index->output);
    mem_free(index->crcs);
    index->crcs = NULL;
    index->page_count = index->capacity = 0;
}
