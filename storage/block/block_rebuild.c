/* block_rebuild.c: an index out of `chunks` alone.
 *
 * Runs are read one after the other; behind a damaged head the next whole one is looked for. Every chunk is
 * checked, for its times are known from its record only. A damaged chunk stays in the index, at the widest
 * times it can have, so that whoever asks for those is told; a damaged table of lengths costs the chunks of
 * its series. */
#include "base/alloc.h"
#include "storage/block/block_index_build.h"
#include "storage/block/block_private.h"

struct rebuild {
    struct block *block;
    struct block__index_builder *builder;
    struct error_detail *detail;
    struct block_meta seen; /* what the chunks say */
    struct block_chunk_ref *refs;
    uint32_t *lengths;
    size_t capacity;
};

static void lost(struct rebuild *rebuild, uint64_t offset, uint64_t bytes, uint32_t ordinal,
                 int64_t time_min_ms, const char *what) {
    struct block_damage damage = {.offset = offset,
                                  .bytes = bytes,
                                  .ordinal = ordinal,
                                  .data_lost = true,
                                  .time_min_ms = time_min_ms,
                                  .time_max_ms = rebuild->block->meta.time_max_ms,
                                  .what = what};
    (void)block__chunks_damaged(rebuild->block, damage, NULL);
}

static int room(struct rebuild *rebuild, size_t count) {
    if (count <= rebuild->capacity)
        return STATUS_OK;
    struct block_chunk_ref *refs = mem_realloc(rebuild->refs, count * sizeof *refs);
    if (refs != NULL)
        rebuild->refs = refs;
    uint32_t *lengths = mem_realloc(rebuild->lengths, count * sizeof *lengths);
    if (lengths != NULL)
        rebuild->lengths = lengths;
    if (refs == NULL || lengths == NULL)
        return error_set(rebuild->detail, STATUS_NO_MEMORY, "rebuilding an index: out of memory");
    rebuild->capacity = count;
    return STATUS_OK;
}

static void seen_add(struct block_meta *seen, const struct block_chunk *chunk) {
    seen->sample_count += chunk->info.sample_count;
    if (seen->chunk_count == 0) {
        seen->time_min_ms = chunk->time_min_ms;
        seen->time_max_ms = chunk->time_max_ms;
        seen->position_min = seen->position_max = chunk->log_position;
    }
    seen->chunk_count++;
    if (chunk->time_min_ms < seen->time_min_ms)
        seen->time_min_ms = chunk->time_min_ms;
    if (chunk->time_max_ms > seen->time_max_ms)
        seen->time_max_ms = chunk->time_max_ms;
    if (chunk->log_position < seen->position_min)
        seen->position_min = chunk->log_position;
    if (chunk->log_position > seen->position_max)
        seen->position_max = chunk->log_position;
}

static int run_add(struct rebuild *rebuild, const struct block__run *run) {
    struct block *block = rebuild->block;
    int status = room(rebuild, run->chunk_count);
    if (status < 0)
        return status;
    uint32_t count = run->chunk_count;
    if (block__run_table(block->chunks, &block->base, run, rebuild->lengths) < 0) {
        lost(rebuild, run->offset + run->head_bytes, run->table_bytes, run->ordinal, block->meta.time_min_ms,
             "table of chunks: wrong checksum");
        count = 0;
    }
    uint64_t offset = block__run_data(run);
    int64_t time_min_ms =
        block->meta.time_min_ms; /* a damaged chunk does not begin before the one in front of it */
    for (uint32_t i = 0; i < count; i++) {
        struct block_chunk chunk;
        struct block_chunk_ref *ref = &rebuild->refs[i];
        *ref = (struct block_chunk_ref){.offset = offset, .bytes = rebuild->lengths[i]};
        if (block__chunk_read(&block->base, offset, block->chunks.data + offset, ref->bytes, &chunk) < 0) {
            lost(rebuild, offset, ref->bytes, run->ordinal, time_min_ms, "chunk: wrong checksum");
            ref->time_min_ms = time_min_ms;
            ref->time_max_ms = block->meta.time_max_ms;
        } else {
            ref->time_min_ms = time_min_ms = chunk.time_min_ms;
            ref->time_max_ms = chunk.time_max_ms;
            seen_add(&rebuild->seen, &chunk);
        }
        offset += ref->bytes;
    }
    rebuild->seen.series_count++;
    return block__index_builder_add(rebuild->builder, run, rebuild->refs, count, rebuild->detail);
}

static int runs_read(struct rebuild *rebuild) {
    int status = STATUS_OK;
    struct block *block = rebuild->block;
    uint64_t offset = BLOCK__HEADER_BYTES;
    int64_t last = -1; /* ordinal */
    while (offset < block->runs_end) {
        struct block__run run;
        if (block__run_read(block->chunks, &block->base, offset, &run) < 0 ||
            !block__run_labels_canonical(&run) || (int64_t)run.ordinal <= last ||
            block__run_end(&run) > block->chunks.len) {
            uint64_t from = offset;
            int found;
            do {
                found = block__run_find(block->chunks, &block->base, from + BLOCK__RUN_ALIGN, block->runs_end,
                                        &run);
                from = run.offset;
            } while (found == STATUS_OK && (int64_t)run.ordinal <= last);
            uint64_t end = found == STATUS_OK ? run.offset : block->runs_end;
            uint32_t ordinal = last + 1 < BLOCK__ORDINALS_MAX ? (uint32_t)(last + 1) : BLOCK_ORDINAL_NONE;
            lost(rebuild, offset, end - offset, ordinal, block->meta.time_min_ms, "series: wrong checksum");
            if (found < 0)
                break;
        }
        TRY(run_add(rebuild, &run));
        last = run.ordinal;
        offset = block__run_end(&run);
    }
out:
    return status;
}

int block__index_rebuild(struct block *block, struct error_detail *detail) {
    int status = STATUS_OK;
    struct rebuild rebuild = {.block = block, .detail = detail};
    TRY(block__index_builder_open(block->io, block->dir, block->base.salt, detail, &rebuild.builder));
    TRY(runs_read(&rebuild));
    while ((status = block__index_builder_step(rebuild.builder, detail)) == STATUS_OK)
        ;
    if (status < 0)
        goto out;
    block->index.fd = block__index_builder_detach(rebuild.builder);
    char path[BLOCK__NATIVE_PATH_BYTES];
    block__scratch_path(block->index.fd, path);
    TRY(block__index_open_path(&block->index, path, 0, detail));
    if (!block->meta_read && !block->trailer_found) {
        block->meta.time_min_ms = rebuild.seen.time_min_ms;
        block->meta.time_max_ms = rebuild.seen.time_max_ms;
        block->meta.position_min = rebuild.seen.position_min;
        block->meta.position_max = rebuild.seen.position_max;
        block->meta.series_count = rebuild.seen.series_count;
        block->meta.chunk_count = rebuild.seen.chunk_count;
        block->meta.sample_count = rebuild.seen.sample_count;
    }
out:
    block__index_builder_close(rebuild.builder);
    mem_free(rebuild.refs);
    mem_free(rebuild.lengths);
    return status;
}
