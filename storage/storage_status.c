/* storage_status.c: what the storage tells of itself. */
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "storage/storage_private.h"

void storage_status(struct storage *storage, struct storage_status *out) {
    struct series_memory series;
    struct head_memory head;
    series_memory(storage->series, &series);
    head_memory(storage->head, &head);
    *out = (struct storage_status){
        .io_name = io_name(storage->options.io),
        .writable = metric_get(METRIC_wal_writable) != 0,
        .series = series_count(storage->series),
        .samples = atomic_load(&storage->samples_applied),
        .log_segments = metric_get(METRIC_wal_segments),
        .log_bytes = metric_get(METRIC_wal_disk_bytes),
        .replay_ms = storage->replay_ms,
        .memory_series_bytes = series.total,
        .memory_chunk_bytes = head.series_bytes + head.chunk_bytes,
        .memory_late_bytes = late_memory_bytes(storage->late),
    };
    metric_set(METRIC_late_bytes, out->memory_late_bytes);
    metric_set(METRIC_chunklog_memory_bytes, chunklog_memory_bytes(storage->chunklog));
    metric_set(METRIC_chunklog_file_bytes, chunklog_file_bytes(storage->chunklog));
    head_range(storage->head, &out->time_min_ms, &out->time_max_ms);
    struct storage_version *version = storage__version_get(storage, NULL);
    out->blocks = version->count;
    for (size_t i = 0; i < version->count; i++) {
        const struct manifest_block *info = &version->blocks[i]->info;
        out->block_bytes += info->bytes;
        if (info->time_min_ms < out->time_min_ms)
            out->time_min_ms = info->time_min_ms;
        if (info->time_max_ms > out->time_max_ms)
            out->time_max_ms = info->time_max_ms;
    }
    storage__version_put(storage, version);
}

static int info_compare(const void *a, const void *b) {
    const struct storage_block_info *left = a, *right = b;
    if (left->time_min_ms != right->time_min_ms)
        return left->time_min_ms < right->time_min_ms ? -1 : 1;
    return left->id < right->id ? -1 : left->id > right->id;
}

static int info_fill(struct storage_block *block, const struct tombstone_set *deletes, struct arena *arena,
                     struct storage_block_info *out) {
    const struct block_meta *meta = block_meta(block->block);
    uint64_t *sources = ARENA_ARRAY(arena, uint64_t, meta->source_count + 1);
    if (sources == NULL)
        return STATUS_NO_MEMORY;
    if (meta->source_count > 0)
        memcpy(sources, meta->sources, meta->source_count * sizeof *sources);
    *out = (struct storage_block_info){.id = block->info.id,
                                       .level = block->info.level,
                                       .time_min_ms = block->info.time_min_ms,
                                       .time_max_ms = block->info.time_max_ms,
                                       .series = block->info.series_count,
                                       .chunks = meta->chunk_count,
                                       .samples = block->info.sample_count,
                                       .bytes = block->info.bytes,
                                       .sources = sources,
                                       .source_count = meta->source_count};
    for (size_t i = 0; deletes != NULL && i < deletes->count; i++)
        out->deletes += deletes->items[i]->position >= atomic_load(&block->deleted_to) &&
                        deletes->items[i]->span.max_ms >= out->time_min_ms &&
                        deletes->items[i]->span.min_ms <= out->time_max_ms;
    return STATUS_OK;
}

int storage_blocks(struct storage *storage, struct arena *arena, struct storage_block_info **out,
                   size_t *count_out) {
    int status = STATUS_OK;
    struct tombstone_set *deletes;
    struct storage_version *version = storage__version_get(storage, &deletes);
    struct storage_block_info *infos = ARENA_ARRAY(arena, struct storage_block_info, version->count + 1);
    TRY(infos == NULL ? STATUS_NO_MEMORY : STATUS_OK);
    for (size_t i = 0; i < version->count; i++)
        TRY(info_fill(version->blocks[i], deletes, arena, &infos[i]));
    qsort(infos, version->count, sizeof *infos, info_compare);
    *out = infos;
    *count_out = version->count;
out:
    storage__deletes_put(storage, deletes);
    storage__version_put(storage, version);
    return status;
}

void storage_memory(struct storage *storage, struct storage_memory *out) {
    struct series_memory series;
    struct head_memory head;
    series_memory(storage->series, &series);
    head_memory(storage->head, &head);
    const struct {
        const char *structure;
        enum metric_id metric;
        uint64_t bytes;
    } rows[STORAGE_MEMORY_ROWS] = {
        {"series", METRIC_memory_series, series.entries},
        {"pair_lists", METRIC_memory_pair_lists, series.pair_lists},
        {"series_hash", METRIC_memory_series_hash, series.series_hash},
        {"pairs", METRIC_memory_pairs, series.pairs},
        {"label_bytes", METRIC_memory_label_bytes, series.label_bytes},
        {"pair_hash", METRIC_memory_pair_hash, series.pair_hash},
        {"postings", METRIC_memory_postings, series.postings},
        {"head_series", METRIC_memory_head_series, head.series_bytes},
        {"open_chunks", METRIC_memory_open_chunks, head.chunk_bytes},
        {"sealed_chunks", METRIC_memory_sealed_chunks, chunklog_memory_bytes(storage->chunklog)},
        {"late_samples", METRIC_memory_late, late_memory_bytes(storage->late)},
    };
    *out = (struct storage_memory){.series = series_count(storage->series)};
    for (size_t i = 0; i < STORAGE_MEMORY_ROWS; i++) {
        metric_set(rows[i].metric, rows[i].bytes);
        out->rows[i].structure = rows[i].structure;
        out->rows[i].bytes = rows[i].bytes;
        out->total += rows[i].bytes;
    }
}

static int counts_copy(const struct series_stat *stats, size_t count, struct arena *arena,
                       struct storage_counts *out) {
    struct storage_count *rows = ARENA_ARRAY(arena, struct storage_count, count + 1);
    if (rows == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        rows[i] = (struct storage_count){stats[i].name, stats[i].value, stats[i].count};
    *out = (struct storage_counts){rows, count};
    return STATUS_OK;
}

int storage_cardinality(struct storage *storage, size_t limit, struct arena *arena,
                        struct storage_cardinality *out) {
    int status = STATUS_OK;
    struct series_stats stats;
    struct head_memory head;
    TRY(series_stats(storage->series, limit, arena, &stats));
    head_memory(storage->head, &head);
    struct storage_cardinality result = {
        .series = stats.series, .pairs = stats.pairs, .chunks = head.open_chunks};
    TRY(counts_copy(stats.by_metric, stats.by_metric_count, arena, &result.by_metric));
    TRY(counts_copy(stats.by_name, stats.by_name_count, arena, &result.by_name));
    TRY(counts_copy(stats.by_name_bytes, stats.by_name_bytes_count, arena, &result.by_name_bytes));
    TRY(counts_copy(stats.by_pair, stats.by_pair_count, arena, &result.by_pair));
    *out = result;
out:
    return status;
}
