/* block_writer.c: a new block, a slice of work a call.
 *
 * Runs go to `chunks` as they come, synced every SYNC_BYTES so that no sync has much to do; the index builder
 * gets the same series. Then, step by step: trailer; index built; index streamed out with a checksum a page;
 * index.sum; meta.json; the directory, and its entry in its parent. A crash anywhere leaves a directory that
 * nothing names. */
#include "base/alloc.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "storage/block/block_index_build.h"
#include "storage/block/block_meta.h"
#include "storage/block/block_private.h"

#define WRITE_BYTES ((size_t)1 << 20)
#define SYNC_BYTES  ((uint64_t)4 << 20)

enum phase { PHASE_ADDING, PHASE_INDEX, PHASE_COPY, PHASE_META, PHASE_DIR, PHASE_DONE };

/* A file that grows at its end. */
struct output {
    struct io_file *file;
    struct block_file_sum sum; /* bytes and checksum written so far */
    uint64_t unsynced;
};

struct block_writer {
    struct io *io;
    char *dir;
    bool made_dir;
    enum phase phase;
    struct block__base base;
    struct block_meta meta;
    struct output chunks, index;
    struct buf out; /* waits to be written to the file at hand */
    struct block_chunk_ref *refs;
    size_t refs_capacity;
    uint32_t ordinal; /* of the next series */
    struct buf last_labels;
    struct block__index_builder *builder;
    uint32_t *page_crcs;
    size_t page_count, page_capacity;
};

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "writing a block: out of memory");
}

static int failed(const struct block_writer *writer, int status, const char *what,
                  struct error_detail *detail) {
    return error_set(detail, status, "writing a block: %s in %s: %s", what, writer->dir,
                     status_message(status));
}

/* ---- Files -------------------------------------------------------------------------------------------- */

static int output_open(struct block_writer *writer, const char *name, struct output *output,
                       struct error_detail *detail) {
    char *path = block__path(writer->dir, name);
    if (path == NULL)
        return no_memory(detail);
    int status = io_file_open(writer->io, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE, detail,
                              &output->file);
    mem_free(path);
    return status;
}

static int output_sync(struct block_writer *writer, struct output *output, const char *name,
                       struct error_detail *detail) {
    int status = io_sync(writer->io, output->file);
    output->unsynced = 0;
    return status < 0 ? failed(writer, status, name, detail) : STATUS_OK;
}

/* Writes what waits in `out` to the end of the file. */
static int output_write(struct block_writer *writer, struct output *output, const char *name,
                        struct error_detail *detail) {
    if (writer->out.failed)
        return no_memory(detail);
    struct block_file_sum *sum = &output->sum;
    int status = io_write(writer->io, output->file, sum->bytes, writer->out.data, writer->out.len);
    if (status < 0)
        return failed(writer, status, name, detail);
    sum->bytes += writer->out.len;
    sum->crc = crc32c(sum->crc, writer->out.data, writer->out.len);
    output->unsynced += writer->out.len;
    if (writer->out.capacity > 4 * WRITE_BYTES)
        buf_release(&writer->out);
    buf_clear(&writer->out);
    return output->unsynced >= SYNC_BYTES ? output_sync(writer, output, name, detail) : STATUS_OK;
}

static void output_close(struct block_writer *writer, struct output *output) {
    io_file_close(writer->io, output->file);
    output->file = NULL;
}

/* A whole small file out of `out`, synced. */
static int file_write(struct block_writer *writer, const char *name, struct block_file_sum *sum_out,
                      struct error_detail *detail) {
    int status = STATUS_OK;
    struct output output = {0};
    TRY(output_open(writer, name, &output, detail));
    TRY(output_write(writer, &output, name, detail));
    TRY(output_sync(writer, &output, name, detail));
    if (sum_out != NULL)
        *sum_out = output.sum;
out:
    output_close(writer, &output);
    return status;
}

/* ---- Opening and adding ------------------------------------------------------------------------------- */

static int on_entry(void *context, const char *name) {
    (void)context;
    (void)name;
    return STATUS_EXISTS;
}

int block_writer_open(const struct block_writer_options *options, struct error_detail *detail,
                      struct block_writer **out) {
    int status = STATUS_OK;
    ASSERT(options->source_count <= BLOCK_SOURCES_MAX);
    struct block_writer *writer = mem_zalloc(sizeof *writer);
    if (writer == NULL)
        return no_memory(detail);
    writer->io = options->io;
    writer->base = (struct block__base){.salt = options->salt,
                                        .id = options->id,
                                        .level = options->level,
                                        .time_base_ms = options->time_base_ms,
                                        .position_base = options->position_base};
    writer->meta = (struct block_meta){
        .id = options->id, .level = options->level, .salt = options->salt, .position_min = UINT64_MAX};
    writer->meta.time_base_ms = options->time_base_ms;
    writer->meta.position_base = options->position_base;
    writer->meta.time_min_ms = INT64_MAX;
    writer->meta.time_max_ms = INT64_MIN;
    writer->dir = mem_strndup(options->dir, strlen(options->dir));
    if (options->source_count > 0) {
        writer->meta.sources = mem_alloc(options->source_count * sizeof *options->sources);
        if (writer->meta.sources != NULL)
            memcpy(writer->meta.sources, options->sources, options->source_count * sizeof *options->sources);
        writer->meta.source_count = options->source_count;
    }
    if (writer->dir == NULL || (options->source_count > 0 && writer->meta.sources == NULL)) {
        status = no_memory(detail);
        goto out;
    }
    TRY(io_make_dir(writer->io, writer->dir, detail));
    status = io_list_dir(writer->io, writer->dir, on_entry, NULL);
    if (status < 0) {
        error_set(detail, status, "writing a block: %s: %s", writer->dir,
                  status == STATUS_EXISTS ? "the directory is not empty" : status_message(status));
        goto out;
    }
    writer->made_dir = true;
    TRY(output_open(writer, BLOCK__FILE_CHUNKS, &writer->chunks, detail));
    uint8_t *header = buf_reserve(&writer->out, BLOCK__HEADER_BYTES);
    if (header == NULL) {
        status = no_memory(detail);
        goto out;
    }
    block__header_write(&writer->base, header);
    writer->out.len += BLOCK__HEADER_BYTES;
    TRY(block__index_builder_open(writer->io, writer->dir, options->salt, detail, &writer->builder));
out:
    if (status < 0)
        block_writer_close(writer);
    else
        *out = writer;
    return status;
}

static void meta_add(struct block_meta *meta, const struct block_chunk *chunk) {
    meta->chunk_count++;
    meta->sample_count += chunk->info.sample_count;
    if (chunk->time_min_ms < meta->time_min_ms)
        meta->time_min_ms = chunk->time_min_ms;
    if (chunk->time_max_ms > meta->time_max_ms)
        meta->time_max_ms = chunk->time_max_ms;
    if (chunk->log_position < meta->position_min)
        meta->position_min = chunk->log_position;
    if (chunk->log_position > meta->position_max)
        meta->position_max = chunk->log_position;
}

int block_writer_add(struct block_writer *writer, struct slice labels, uint64_t id,
                     const struct block_chunk *chunks, size_t count, struct error_detail *detail) {
    int status = STATUS_OK;
    ASSERT(writer->phase == PHASE_ADDING && count > 0);
    ASSERT(writer->ordinal == 0 || block_series_order(buf_slice(&writer->last_labels), labels) < 0);
    if (count > writer->refs_capacity) {
        size_t capacity = count > 2 * writer->refs_capacity ? count : 2 * writer->refs_capacity;
        struct block_chunk_ref *refs = mem_realloc(writer->refs, capacity * sizeof *refs);
        if (refs == NULL)
            return no_memory(detail);
        writer->refs = refs;
        writer->refs_capacity = capacity;
    }
    uint64_t offset = writer->chunks.sum.bytes + writer->out.len;
    struct block__run run;
    status = block__run_append(&writer->out, &writer->base, offset, writer->ordinal, id, labels, chunks,
                               count, &run, writer->refs);
    if (status < 0)
        return error_set(detail, status, "writing a block: one series: %s", status_message(status));
    for (size_t i = 0; i < count; i++) {
        ASSERT(i == 0 || chunks[i - 1].time_min_ms < chunks[i].time_min_ms ||
               (chunks[i - 1].time_min_ms == chunks[i].time_min_ms &&
                chunks[i - 1].log_position <= chunks[i].log_position));
        meta_add(&writer->meta, &chunks[i]);
    }
    TRY(block__index_builder_add(writer->builder, &run, writer->refs, count, detail));
    buf_clear(&writer->last_labels);
    buf_append(&writer->last_labels, labels.data, labels.len);
    if (writer->last_labels.failed)
        return no_memory(detail);
    writer->ordinal++;
    writer->meta.series_count++;
    if (writer->out.len >= WRITE_BYTES)
        TRY(output_write(writer, &writer->chunks, BLOCK__FILE_CHUNKS, detail));
out:
    return status;
}

/* ---- Finishing ---------------------------------------------------------------------------------------- */

static int chunks_end(struct block_writer *writer, struct error_detail *detail) {
    int status = STATUS_OK;
    struct block_meta *meta = &writer->meta;
    if (meta->chunk_count == 0)
        meta->time_min_ms = meta->time_max_ms = 0, meta->position_min = 0;
    block__trailer_append(&writer->out, &writer->base, meta, writer->chunks.sum.bytes + writer->out.len);
    TRY(output_write(writer, &writer->chunks, BLOCK__FILE_CHUNKS, detail));
    TRY(output_sync(writer, &writer->chunks, BLOCK__FILE_CHUNKS, detail));
    output_close(writer, &writer->chunks);
    meta->chunks = writer->chunks.sum;
    writer->phase = PHASE_INDEX;
out:
    return status;
}

static int page_crc_add(struct block_writer *writer, const uint8_t *page, struct error_detail *detail) {
    if (writer->page_count == writer->page_capacity) {
        size_t capacity = writer->page_capacity == 0 ? 1024 : 2 * writer->page_capacity;
        uint32_t *crcs = mem_realloc(writer->page_crcs, capacity * sizeof *crcs);
        if (crcs == NULL)
            return no_memory(detail);
        writer->page_crcs = crcs;
        writer->page_capacity = capacity;
    }
    writer->page_crcs[writer->page_count] =
        block__index_page_crc(writer->base.salt, writer->page_count, page);
    writer->page_count++;
    return STATUS_OK;
}

/* One slice of the index from the copying thread to the file. */
static int index_copy(struct block_writer *writer, struct error_detail *detail) {
    int status = STATUS_OK;
    if (writer->index.file == NULL)
        TRY(output_open(writer, BLOCK__FILE_INDEX, &writer->index, detail));
    uint8_t *slice = buf_reserve(&writer->out, WRITE_BYTES);
    if (slice == NULL)
        return no_memory(detail);
    size_t got;
    TRY(block__index_builder_read(writer->builder, slice, WRITE_BYTES, &got, detail));
    if (got % BLOCK__INDEX_PAGE_BYTES != 0)
        return failed(writer, STATUS_IO, "the copy of the index ends inside a page", detail);
    for (size_t at = 0; at < got; at += BLOCK__INDEX_PAGE_BYTES)
        TRY(page_crc_add(writer, slice + at, detail));
    writer->out.len = got;
    TRY(output_write(writer, &writer->index, BLOCK__FILE_INDEX, detail));
    if (got == WRITE_BYTES)
        return STATUS_OK;
    TRY(output_sync(writer, &writer->index, BLOCK__FILE_INDEX, detail));
    output_close(writer, &writer->index);
    writer->meta.index = writer->index.sum;
    block__index_builder_close(writer->builder);
    writer->builder = NULL;
    writer->phase = PHASE_META;
out:
    return status;
}

static int meta_write(struct block_writer *writer, struct error_detail *detail) {
    int status = STATUS_OK;
    block__index_sum_append(&writer->out, writer->base.salt, writer->page_crcs, writer->page_count);
    TRY(file_write(writer, BLOCK__FILE_SUM, &writer->meta.index_sum, detail));
    block__meta_print(&writer->out, &writer->meta);
    TRY(file_write(writer, BLOCK__FILE_META, NULL, detail));
    writer->phase = PHASE_DIR;
out:
    return status;
}

static int dir_sync(struct block_writer *writer, struct error_detail *detail) {
    int status = io_sync_dir(writer->io, writer->dir);
    if (status < 0)
        return failed(writer, status, "directory sync", detail);
    char *parent = block__parent(writer->dir);
    if (parent == NULL)
        return no_memory(detail);
    status = io_sync_dir(writer->io, parent);
    mem_free(parent);
    if (status < 0)
        return failed(writer, status, "directory sync", detail);
    writer->phase = PHASE_DONE;
    return STATUS_END;
}

int block_writer_step(struct block_writer *writer, struct error_detail *detail) {
    int status = STATUS_OK;
    switch (writer->phase) {
    case PHASE_ADDING:
        return chunks_end(writer, detail);
    case PHASE_INDEX:
        TRY(block__index_builder_step(writer->builder, detail));
        if (status == STATUS_END)
            writer->phase = PHASE_COPY;
        return STATUS_OK;
    case PHASE_COPY:
        return index_copy(writer, detail);
    case PHASE_META:
        return meta_write(writer, detail);
    case PHASE_DIR:
        return dir_sync(writer, detail);
    case PHASE_DONE:
        return STATUS_END;
    }
out:
    return status;
}

const struct block_meta *block_writer_meta(const struct block_writer *writer) {
    return &writer->meta;
}

uint64_t block_writer_memory_bytes(const struct block_writer *writer) {
    return sizeof *writer + writer->out.capacity + writer->last_labels.capacity +
           writer->refs_capacity * sizeof *writer->refs + writer->page_capacity * sizeof *writer->page_crcs +
           (writer->builder == NULL ? 0 : block__index_builder_memory_bytes(writer->builder));
}

uint64_t block_writer_chunk_bytes(const struct block_writer *writer) {
    return writer->phase == PHASE_ADDING ? writer->chunks.sum.bytes + writer->out.len
                                         : writer->meta.chunks.bytes;
}

void block_writer_close(struct block_writer *writer) {
    if (writer == NULL)
        return;
    output_close(writer, &writer->chunks);
    output_close(writer, &writer->index);
    block__index_builder_close(writer->builder);
    if (writer->made_dir && writer->phase != PHASE_DONE) {
        static const char *const names[] = {BLOCK__FILE_CHUNKS, BLOCK__FILE_INDEX, BLOCK__FILE_SUM,
                                            BLOCK__FILE_META};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            char *path = block__path(writer->dir, names[i]);
            if (path != NULL)
                (void)io_remove(writer->io, path);
            mem_free(path);
        }
    }
    mem_free(writer->dir);
    mem_free(writer->meta.sources);
    mem_free(writer->refs);
    mem_free(writer->page_crcs);
    buf_release(&writer->out);
    buf_release(&writer->last_labels);
    mem_free(writer);
}
