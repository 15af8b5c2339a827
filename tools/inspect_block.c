/* inspect_block.c: `tidalite inspect block PATH`: what a block says of itself, and whether that is true. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/label.h"
#include "storage/block/block.h"
#include "tools/inspect.h"

static int on_damage(void *context, const struct block_damage *damage) {
    (void)context;
    printf("damage: %s at offset %" PRIu64 ": %s; %s\n", damage->file, damage->offset, damage->what,
           damage->data_lost ? "samples are missing" : "nothing is missing");
    return STATUS_OK;
}

static int on_finding(void *context, const struct block_finding *finding) {
    ++*(uint64_t *)context;
    printf("finding: %s at offset %" PRIu64 ": %s\n", finding->file, finding->offset, finding->what);
    return STATUS_OK;
}

static void file_print(const char *name, const struct block_file_sum *sum) {
    printf("  %-10s %12" PRIu64 " bytes, crc32c %08" PRIx32 "\n", name, sum->bytes, sum->crc);
}

static void meta_print(const struct block *block) {
    const struct block_meta *meta = block_meta(block);
    uint64_t bytes = meta->chunks.bytes + meta->index.bytes + meta->index_sum.bytes;
    printf("block      %" PRIu64 ", level %" PRIu32 "\n", meta->id, meta->level);
    printf("time       %" PRId64 " to %" PRId64 " ms\n", meta->time_min_ms, meta->time_max_ms);
    printf("holds      %" PRIu64 " series, %" PRIu64 " chunks, %" PRIu64 " samples\n", meta->series_count,
           meta->chunk_count, meta->sample_count);
    if (meta->sample_count > 0 && bytes > 0)
        printf("density    %.2f bytes a sample, index included\n",
               (double)bytes / (double)meta->sample_count);
    printf("logged     %016" PRIx64 " to %016" PRIx64 "\n", meta->position_min, meta->position_max);
    printf("made of    ");
    for (size_t i = 0; i < meta->source_count; i++)
        printf("%sblock %" PRIu64, i > 0 ? ", " : "", meta->sources[i]);
    printf(meta->source_count == 0 ? "samples\n" : "\n");
    printf("files\n");
    file_print("chunks", &meta->chunks);
    file_print("index.mdb", &meta->index);
    file_print("index.sum", &meta->index_sum);
}

static int series_print(struct block *block, struct error_detail *detail) {
    struct block_cursor *cursor;
    struct block_series series;
    struct buf text;
    int status = block_cursor_open(block, 0, BLOCK_SHARDS - 1, &cursor);
    if (status < 0)
        return error_set(detail, status, "%s", status_message(status));
    buf_init(&text);
    while ((status = block_cursor_next(cursor, &series, detail)) == STATUS_OK) {
        buf_clear(&text);
        label_bytes_print(&text, series.labels);
        printf("series %" PRIu32 " id %" PRIu64 " %.*s\n", series.ordinal, series.id, (int)text.len,
               text.len == 0 ? "" : (const char *)text.data);
        for (size_t i = 0; i < series.chunk_count; i++)
            printf("  chunk at %" PRIu64 ", %" PRIu32 " bytes, %" PRId64 " to %" PRId64 " ms\n",
                   series.chunks[i].offset, series.chunks[i].bytes, series.chunks[i].time_min_ms,
                   series.chunks[i].time_max_ms);
    }
    buf_release(&text);
    block_cursor_close(cursor);
    return status < 0 ? status : STATUS_OK;
}

int inspect__block(struct io *io, const char *path, bool with_series, bool verify) {
    struct error_detail detail = {0};
    struct block *block = NULL;
    uint64_t findings = 0;
    int status = block_open(io, path, &detail, &block);
    if (status == STATUS_OK) {
        meta_print(block);
        if (with_series)
            status = series_print(block, &detail);
        if (status == STATUS_OK && verify)
            status = block_verify(block, on_finding, &findings, &detail);
        (void)block_damage_each(block, on_damage, NULL);
        if (status == STATUS_OK && findings + block_damage_count(block) > 0)
            status = STATUS_CORRUPT;
        else if (status == STATUS_OK && verify)
            printf("verified   every checksum and cross-reference is right\n");
    }
    if (status < 0 && detail.text[0] != '\0')
        fprintf(stderr, "tidalite: %s\n", detail.text);
    block_close(block);
    return status < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
