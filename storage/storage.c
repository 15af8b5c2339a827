/* storage.c: opening (lock, replay), closing, status. Writing is in storage_write.c, reading in
 * storage_select.c. */
#include "storage/storage.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/storage_private.h"
#include "storage/wal/wal_record.h"

/* Slots of the log → slots in memory: by the segment's own declarations, else by the label part that the
 * manifest names, whose slots keep their numbers. */
struct replay {
    struct storage *storage;
    uint32_t *map; /* SLOT_NONE where nothing is declared */
    size_t map_len;
    struct arena scratch;
    uint64_t orphans; /* samples of a series whose declaration was lost */
    uint64_t samples;

    /* Samples that nothing proves to be durable, to be carried over to the new segment: */
    struct buf carried_slots;   /* uint32_t */
    struct buf carried_samples; /* struct sample */
    struct buf carried_starts;  /* int64_t */
    bool carried_has_starts;
    struct buf carried_deletes; /* struct carried_delete */
};

struct carried_delete {
    struct tombstone *tombstone;
    size_t samples_before;
};

static int replay_segment(void *context, uint32_t number) {
    (void)number;
    struct replay *replay = context;
    for (uint32_t i = 0; i < replay->map_len; i++)
        replay->map[i] = SLOT_NONE;
    return STATUS_OK;
}

static int replay_map(struct replay *replay, uint32_t log_slot, uint32_t slot) {
    size_t before = replay->map_len;
    uint32_t *map = array_ensure(replay->map, &replay->map_len, (size_t)log_slot + 1, sizeof *map);
    if (map == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = before; i < replay->map_len; i++)
        map[i] = SLOT_NONE;
    replay->map = map;
    map[log_slot] = slot;
    return STATUS_OK;
}

/* What the segment declared; else the label part's series, which kept its slot. */
static uint32_t replay_slot(const struct replay *replay, uint32_t log_slot) {
    if (log_slot < replay->map_len && replay->map[log_slot] != SLOT_NONE)
        return replay->map[log_slot];
    return slot_bits_has(&replay->storage->labelled, log_slot) ? log_slot : SLOT_NONE;
}

static int replay_series(struct replay *replay, struct slice payload) {
    struct wal_series_reader reader;
    int status = STATUS_OK;
    TRY(wal_series_reader_init(&reader, payload));
    for (;;) {
        uint32_t log_slot, slot;
        uint64_t id;
        struct slice labels;
        TRY(wal_series_reader_next(&reader, &log_slot, &id, &labels));
        if (status == STATUS_END)
            return STATUS_OK;
        if (slot_bits_has(&replay->storage->labelled, log_slot) &&
            series_id(replay->storage->series, log_slot) == id) {
            TRY(replay_map(replay, log_slot, log_slot)); /* the label part has it */
            continue;
        }
        enum label_fault fault;
        arena_reset(&replay->scratch);
        TRY(series_ensure(replay->storage->series, labels, id, &replay->scratch, &fault, &slot));
        if (fault == LABEL_FAULT_NONE)
            TRY(replay_map(replay, log_slot, slot));
    }
out:
    return status;
}

static void replay_carry(struct replay *replay, uint32_t slot, struct sample sample, int64_t start_ms) {
    buf_append(&replay->carried_slots, &slot, sizeof slot);
    buf_append(&replay->carried_samples, &sample, sizeof sample);
    buf_append(&replay->carried_starts, &start_ms, sizeof start_ms);
    replay->carried_has_starts |= start_ms != START_NONE;
}

#define REPLAY_SAMPLES 256 /* applied together */

/* The next samples that are neither in the snapshot nor in a block; STATUS_END with the last of them. */
static int replay_read(struct replay *replay, struct wal_samples_reader *reader, wal_position position,
                       uint32_t *slots, struct sample *samples, int64_t *starts_ms, size_t *count_out) {
    size_t count = 0;
    int status = STATUS_OK;
    while (count < REPLAY_SAMPLES) {
        uint32_t log_slot;
        TRY(wal_samples_reader_next(reader, &log_slot, &samples[count], &starts_ms[count]));
        if (status == STATUS_END)
            break;
        uint32_t slot = replay_slot(replay, log_slot);
        if (slot == log_slot && storage__is_loaded(replay->storage, slot, position))
            continue; /* the snapshot has it */
        if (manifest_covers(&replay->storage->manifest, samples[count].time_ms, position))
            continue; /* it is in a block */
        if (slot == SLOT_NONE) {
            replay->orphans++;
            continue;
        }
        slots[count++] = slot;
    }
out:
    *count_out = count;
    return status;
}

static int replay_samples(struct replay *replay, wal_position position, bool proven, struct slice payload) {
    uint32_t slots[REPLAY_SAMPLES];
    struct sample samples[REPLAY_SAMPLES];
    int64_t starts_ms[REPLAY_SAMPLES];
    struct wal_samples_reader reader;
    int status = STATUS_OK;
    TRY(wal_samples_reader_init(&reader, payload));
    while (status != STATUS_END) {
        size_t count, applied = 0;
        int read = replay_read(replay, &reader, position, slots, samples, starts_ms, &count);
        for (size_t i = 0; i < count && !proven; i++)
            replay_carry(replay, slots[i], samples[i], starts_ms[i]);
        TRY(storage__apply(replay->storage, NULL, slots, samples, starts_ms, count, position, &applied));
        replay->samples += count;
        status = read;
        TRY(status);
    }
    status = STATUS_OK;
out:
    return status;
}

static int replay_delete(struct replay *replay, wal_position position, bool proven, struct slice payload) {
    struct tombstone *tombstone;
    struct storage *storage = replay->storage;
    int status = tombstone_new(payload, position, storage->options.compiler, &tombstone);
    if (status < 0)
        return status;
    if (!proven) {
        const struct carried_delete carried = {tombstone,
                                               replay->carried_samples.len / sizeof(struct sample)};
        buf_append(&replay->carried_deletes, &carried, sizeof carried);
        TRY(replay->carried_deletes.failed ? STATUS_NO_MEMORY : STATUS_OK);
        (void)tombstone_ref(tombstone);
        atomic_store(&storage->deletes_unproven, true);
    }
    TRY(storage__delete_apply(storage, tombstone));
out:
    tombstone_unref(tombstone);
    return status;
}

static int replay_record(void *context, wal_position position, bool proven, enum wal_record_type type,
                         struct slice payload) {
    struct replay *replay = context;
    int status = type == WAL_RECORD_SERIES    ? replay_series(replay, payload)
                 : type == WAL_RECORD_SAMPLES ? replay_samples(replay, position, proven, payload)
                                              : replay_delete(replay, position, proven, payload);
    if (status == STATUS_CORRUPT) {
        /* The frames' checksums held, so this is no rot of the disk; what can be read of the rest is worth
         * more than a refusal to start. */
        log_error("log record cannot be read, skipped", LOG_U64("segment", position >> 32),
                  LOG_U64("offset", position & UINT32_MAX));
        metric_add(METRIC_wal_replay_corrupt_frames, 1);
        return STATUS_OK;
    }
    return status;
}

/* A piece of what is carried over: samples [from, to). */
static int carry_samples(struct replay *replay, size_t from, size_t to, struct storage_write **next) {
    if (from == to)
        return STATUS_OK;
    struct storage_write *write = (*next)++;
    write->slots = (uint32_t *)(void *)replay->carried_slots.data + from;
    write->samples = (struct sample *)(void *)replay->carried_samples.data + from;
    write->starts_ms =
        replay->carried_has_starts ? (int64_t *)(void *)replay->carried_starts.data + from : NULL;
    write->count = to - from;
    wal_record_samples_write(&write->payload, write->slots, write->samples, write->starts_ms, write->count);
    return write->payload.failed ? STATUS_NO_MEMORY : STATUS_OK;
}

/* Gives the log what it has to carry over, in the order it had; series are declared anew with it. */
static int carry(struct storage *storage, struct replay *replay) {
    const struct carried_delete *deletes =
        (const struct carried_delete *)(void *)replay->carried_deletes.data;
    size_t delete_count = replay->carried_deletes.len / sizeof *deletes, done = 0;
    size_t count = replay->carried_samples.len / sizeof(struct sample);
    int status = STATUS_OK;
    if (replay->carried_slots.failed || replay->carried_samples.failed || replay->carried_starts.failed)
        return STATUS_NO_MEMORY;
    if (count == 0 && delete_count == 0)
        return STATUS_OK;
    struct storage_write *writes = mem_zalloc((2 * delete_count + 1) * sizeof *writes), *next = writes;
    if (writes == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < delete_count; i++) {
        TRY(carry_samples(replay, done, deletes[i].samples_before, &next));
        done = deletes[i].samples_before;
        struct slice payload = deletes[i].tombstone->payload;
        next->tombstone = deletes[i].tombstone;
        buf_append(&next->payload, payload.data, payload.len);
        TRY(next++->payload.failed ? STATUS_NO_MEMORY : STATUS_OK);
    }
    TRY(carry_samples(replay, done, count, &next));
    for (struct storage_write *write = writes; write + 1 < next; write++)
        write->next = write + 1;
    TRY(storage__group_carry(storage, writes));
out:
    for (struct storage_write *write = writes; write < writes + 2 * delete_count + 1; write++)
        buf_release(&write->payload);
    mem_free(writes);
    return status;
}

static void carried_release(struct replay *replay) {
    const struct carried_delete *deletes =
        (const struct carried_delete *)(void *)replay->carried_deletes.data;
    for (size_t i = 0; i < replay->carried_deletes.len / sizeof *deletes; i++)
        tombstone_unref(deletes[i].tombstone);
    buf_release(&replay->carried_deletes);
    buf_release(&replay->carried_slots);
    buf_release(&replay->carried_samples);
    buf_release(&replay->carried_starts);
}

/* Begins to write. A disk that has no room, or fails, must not keep what is there from being read: then the
 * log is as after a failed commit, and tries again. */
static int start_log(struct storage *storage) {
    KILL_POINT("log_replayed");
    int status = wal_start(storage->wal, NULL);
    /* What was carried over is declared in the new segment. */
    storage->declared_segment = status == STATUS_OK ? wal_segment(storage->wal) : SEGMENT_UNKNOWN;
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

static int replay_log(struct storage *storage, const struct load *load, struct error_detail *detail) {
    struct replay replay = {.storage = storage};
    arena_init(&replay.scratch, 0, 0);
    const struct wal_sink sink = {replay_segment, replay_record, &replay, NULL};
    uint64_t begin_ns = clock_monotonic_ns(storage->options.clock);
    storage->loaded = load;
    int status = wal_replay(storage->wal, load->position, &sink, detail, &storage->replay);
    storage->loaded = NULL;
    storage->replay_ms = (clock_monotonic_ns(storage->options.clock) - begin_ns) / 1000000;
    if (status == STATUS_OK)
        status = carry(storage, &replay);
    carried_release(&replay);
    arena_release(&replay.scratch);
    mem_free(replay.map);
    if (status < 0)
        return error_set(detail, status, "replaying the log in %s/wal: %s", storage->dir,
                         status_message(status));
    metric_add(METRIC_wal_replay_samples, replay.samples);
    if (replay.orphans > 0)
        log_error("samples without a declared series skipped: their declaration was damaged",
                  LOG_U64("samples", replay.orphans));
    if (storage->replay.corrupt_frames > 0 || replay.orphans > 0)
        storage__loss_add(storage, storage->manifest.cut_ms, clock_wall_ms(storage->options.clock), "wal");
    log_info("log replayed", LOG_U64("segments", storage->replay.segments),
             LOG_U64("samples", replay.samples), LOG_U64("series", series_count(storage->series)),
             LOG_U64("torn_tails", storage->replay.torn_tails),
             LOG_U64("corrupt_frames", storage->replay.corrupt_frames), LOG_U64("ms", storage->replay_ms));
    return STATUS_OK;
}

char *storage__path_join(const char *dir, const char *name) {
    size_t len = strlen(dir) + strlen(name) + 2;
    char *path = mem_alloc(len);
    if (path != NULL)
        snprintf(path, len, "%s/%s", dir, name);
    return path;
}

/* Series of one shard of a block stand together in the chunk log, so that cutting reads each part of it once.
 */
static unsigned partition(void *context, uint32_t slot) {
    struct storage *storage = context;
    struct slice name = series_label(storage->series, slot, slice_str("__name__"));
    return block_shard(name) * CHUNKLOG_PARTITIONS / BLOCK_SHARDS;
}

int storage_open(const struct storage_options *options, struct error_detail *detail, struct storage **out) {
    int status = STATUS_OK;
    struct load load = {0};
    char *lock_path = NULL, *wal_path = NULL, *head_path = NULL;
    struct storage *storage = mem_zalloc(sizeof *storage);
    if (storage == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "out of memory");
    storage->options = *options;
    storage->queue.end = &storage->queue.first;
    storage->waiting.end = &storage->waiting.first;
    storage->group.end = &storage->group.first;
    storage->deleting.end = &storage->deleting.first;
    storage->declared_segment = storage->slots_segment = SEGMENT_UNKNOWN;
    if (storage->options.io_maintain == NULL)
        storage->options.io_maintain = options->io;
    pthread_mutex_init(&storage->version_mutex, NULL);
    pthread_mutex_init(&storage->queue_mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&storage->queue_filled, &monotonic);
    pthread_cond_init(&storage->maintain_served, &monotonic);
    pthread_condattr_destroy(&monotonic);

    const struct limits *limits = options->limits;
    const struct label_limits label_limits = {.name_bytes_max = limits->label_name_bytes_max,
                                              .value_bytes_max = limits->label_value_bytes_max,
                                              .count_max = limits->labels_per_series_max};
    if (limits->labels_per_series_max > STORAGE_LABELS_MAX ||
        limits->log_segment_bytes < 2 * limits->log_group_bytes_max) {
        status =
            error_set(detail, STATUS_BAD_INPUT,
                      "limits do not fit together: at most %d labels a series, and a log segment holds at "
                      "least two groups of %llu bytes",
                      STORAGE_LABELS_MAX, (unsigned long long)limits->log_group_bytes_max);
        goto out;
    }
    storage->dir = mem_strndup(options->dir, strlen(options->dir));
    lock_path = storage__path_join(options->dir, "lock");
    wal_path = storage__path_join(options->dir, "wal");
    head_path = storage__path_join(options->dir, "head");
    if (storage->dir == NULL || lock_path == NULL || wal_path == NULL || head_path == NULL) {
        status = error_set(detail, STATUS_NO_MEMORY, "out of memory");
        goto out;
    }
    TRY(io_make_dir(options->io, storage->dir, detail));
    TRY(io_lock(options->io, lock_path, detail, &storage->lock));
    TRY(io_make_dir(options->io, wal_path, detail));
    TRY(io_sync_dir(options->io, storage->dir));
    TRY(series_table_new(options->seed, &label_limits, limits->series_max, &storage->series));
    TRY(io_make_dir(options->io, head_path, detail));
    TRY(chunklog_new(storage->options.io_maintain, head_path, options->seed, &storage->chunklog));
    const struct head_options head_options = {.window_ms = (int64_t)limits->window_ms,
                                              .chunklog = storage->chunklog,
                                              .partition = partition,
                                              .context = storage,
                                              .open_bytes_max = limits->open_chunk_bytes_max};
    TRY(head_new(&head_options, &storage->head));
    TRY(late_new(&storage->late));
    TRY(hidden_new(&storage->hidden));
    TRY(storage__version_open(storage, detail));
    TRY(storage__deletes_open(storage, detail));
    TRY(storage__maintain_new(storage));
    TRY(storage__snapshot_new(storage));
    TRY(storage__copy_new(storage));
    TRY(storage__compaction_new(storage));
    series_id_next_set(storage->series, storage->manifest.id_next);
    storage->apply_cut_ms = storage->dropped_ms = storage->manifest.cut_ms;
    late_now(storage->late, clock_wall_ms(options->clock));
    const struct wal_options wal_options = {.io = options->io,
                                            .dir = wal_path,
                                            .segment_bytes = limits->log_segment_bytes,
                                            .seed = options->seed};
    TRY(wal_open(&wal_options, detail, &storage->wal));
    head_over(storage->head, storage__over_ms(storage, clock_wall_ms(options->clock)));
    TRY(storage__load(storage, detail, &load));
    TRY(chunklog_sweep(storage->chunklog));
    storage__snapshot_opened(storage, &load);
    storage__copy_sweep(storage);
    wal_reached(storage->wal, load.reached);
    wal_reached(storage->wal, manifest_position_max(&storage->manifest));
    TRY(replay_log(storage, &load, detail));
    TRY(start_log(storage));
    storage->retire_due = true; /* what the log has of them may be in blocks */
    *out = storage;
    storage = NULL;
out:
    mem_free(load.taken_at);
    mem_free(lock_path);
    mem_free(wal_path);
    mem_free(head_path);
    if (storage != NULL)
        storage_close(storage);
    if (status < 0)
        error_set(detail, status, "opening %s: %s", options->dir, status_message(status));
    return status;
}

void storage_close(struct storage *storage) {
    if (storage == NULL)
        return;
    ASSERT(!storage->thread_runs && !storage->maintain_thread_runs);
    if (storage->wal != NULL) {
        /* What was submitted is finished; a log that fails answers its writes with the error. */
        storage__finish(storage);
        wal_close(storage->wal);
    }
    storage__scrub_close(storage);
    storage__clean_close(storage);
    storage__copy_close(storage);
    storage__maintain_free(storage);
    storage__snapshot_free(storage);
    slot_bits_release(&storage->labelled);
    storage__compaction_free(storage);
    storage__version_close(storage);
    storage__deletes_close(storage);
    hidden_free(storage->hidden);
    late_free(storage->late);
    head_free(storage->head);
    chunklog_free(storage->chunklog);
    mem_free(storage->windows);
    series_table_free(storage->series);
    if (storage->lock != NULL)
        io_unlock(storage->options.io, storage->lock);
    buf_release(&storage->scratch);
    slot_bits_release(&storage->declared);
    mem_free(storage->dir);
    pthread_mutex_destroy(&storage->version_mutex);
    pthread_mutex_destroy(&storage->queue_mutex);
    pthread_cond_destroy(&storage->queue_filled);
    pthread_cond_destroy(&storage->maintain_served);
    mem_free(storage);
}
