/* block_writer.c: a new block, a slice of work a call.
 *
 * Runs go to `chunks` as they come, synced every SYNC_BYTES so that no sync has much to do; the index builder
 * gets the same series. Then, step by step: trailer; index built; index streamed out with a checksum a page;
 * index.sum; meta.json; the directory, and its entry in its parent. A crash anywhere leaves a directory that
 * nothing names. */
#include "base/alloc.h"
#include "base/assert.h"
#include "storage/block/block_index_build.h"
#include "storage/block/block_meta.h"
#include "storage/block/block_output.h"
#include "storage/block/block_private.h"

enum phase { PHASE_ADDING, PHASE_INDEX, PHASE_COPY, PHASE_META, PHASE_DIR, PHASE_DONE };

struct block_writer {
    struct io *io;
    char *dir;
    bool made_dir;
    enum phase phase;
    struct block__base base;
    struct block_meta meta;
    bool broken; /* a call has failed: nothing but closing is left */
    struct block__output chunks;
    struct block__index_output index;
    struct buf out; /* waits to be written to the file at hand */
    struct block_chunk_ref *refs;
    size_t refs_capacity;
    uint32_t ordinal; /* of the next series */
    struct buf last_labels;
    struct block__index_builder *builder;
};

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "writing a block: out of memory");
}

static int failed(const struct block_writer *writer, int status, const char *what,
                  struct error_detail *detail) {
    return error_set(detail, status, "writing a block: %s in %s: %s", what, writer->dir,
                     status_message(status));
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
    TRY(block__output_open(&writer->chunks, writer->io, writer->dir, BLOCK__FILE_CHUNKS, false, detail));
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

static int add(struct block_writer *writer, struct slice labels, uint64_t id,
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
    if (writer->out.len >= BLOCK__WRITE_BYTES)
        TRY(block__output_write(&writer->chunks, &writer->out, detail));
out:
    return status;
}

int block_writer_add(struct block_writer *writer, struct slice labels, uint64_t id,
                     const struct block_chunk *chunks, size_t count, struct error_detail *detail) {
    ASSERT(!writer->broken);
    int status = add(writer, labels, id, chunks, count, detail);
    writer->broken = status < 0;
    return status;
}

/* ---- Finishing ---------------------------------------------------------------------------------------- */

static int chunks_end(struct block_writer *writer, struct error_detail *detail) {
    int status = STATUS_OK;
    struct block_meta *meta = &writer->meta;
    if (meta->chunk_count == 0) {
        meta->time_min_ms = meta->time_max_ms = 0;
        meta->position_min = 0;
    }
    block__trailer_append(&writer->out, &writer->base, meta, writer->chunks.sum.bytes + writer->out.len);
    TRY(block__output_write(&writer->chunks, &writer->out, detail));
    TRY(block__output_sync(&writer->chunks, detail));
    meta->chunks = writer->chunks.sum;
    block__output_close(&writer->chunks);
    writer->phase = PHASE_INDEX;
out:
    return status;
}

/* One slice of the index from the copying thread to the file. */
static int index_copy(struct block_writer *writer, struct error_detail *detail) {
    int status = STATUS_OK;
    struct block__output *output = &writer->index.output;
    if (output->file == NULL) {
        writer->index.salt = writer->base.salt;
        TRY(block__output_open(output, writer->io, writer->dir, BLOCK__FILE_INDEX, false, detail));
    }
    uint8_t *slice = buf_reserve(&writer->out, BLOCK__WRITE_BYTES);
    if (slice == NULL)
        return no_memory(detail);
    size_t got;
    TRY(block__index_builder_read(writer->builder, slice, BLOCK__WRITE_BYTES, &got, detail));
    writer->out.len = got;
    TRY(block__index_output_write(&writer->index, &writer->out, detail));
    if (got == BLOCK__WRITE_BYTES)
        return STATUS_OK;
    TRY(block__output_sync(output, detail));
    writer->meta.index = output->sum;
    block__output_close(output);
    block__index_builder_close(writer->builder);
    writer->builder = NULL;
    writer->phase = PHASE_META;
out:
    return status;
}

static int meta_write(struct block_writer *writer, struct error_detail *detail) {
    int status = STATUS_OK;
    block__index_sum_append(&writer->out, writer->base.salt, writer->index.crcs, writer->index.page_count);
    TRY(block__output_file(writer->io, writer->dir, BLOCK__FILE_SUM, false, &writer->out,
                           &writer->meta.index_sum, detail));
    block__meta_print(&writer->out, &writer->meta);
    TRY(block__output_file(writer->io, writer->dir, BLOCK__FILE_META, false, &writer->out, NULL, detail));
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

static int step(struct block_writer *writer, struct error_detail *detail) {
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

int block_writer_step(struct block_writer *writer, struct error_detail *detail) {
    ASSERT(!writer->broken);
    int status = step(writer, detail);
    writer->broken = status < 0;
    return status;
}

const struct block_meta *block_writer_meta(const struct block_writer *writer) {
    return &writer->meta;
}

uint64_t block_writer_memory_bytes(const struct block_writer *writer) {
    return sizeof *writer + writer->out.capacity + writer->last_labels.capacity +
           writer->refs_capacity * sizeof *writer->refs +
           writer->index.capacity * sizeof *writer->index.crcs +
           (writer->builder == NULL ? 0 : block__index_builder_memory_bytes(writer->builder));
}

uint64_t block_writer_chunk_bytes(const struct block_writer *writer) {
    return writer->phase == PHASE_ADDING ? writer->chunks.sum.bytes + writer->out.len
                                         : writer->meta.chunks.bytes;
}

void block_writer_close(struct block_writer *writer) {
    if (writer == NULL)
        return;
    block__output_close(&writer->chunks);
    block__index_output_close(&writer->index);
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
        (void)io_remove_dir(writer->io, writer->dir);
    }
    mem_free(writer->dir);
    mem_free(writer->meta.sources);
    mem_free(writer->refs);
    buf_release(&writer->out);
    buf_release(&writer->last_labels);
    mem_free(writer);
}
