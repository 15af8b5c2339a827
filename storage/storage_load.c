/* storage_load.c: the way back from a snapshot: labels → series table, the chunk log's files, open chunks and
 * late samples. What the log holds since is replayed on top of it (storage.c).
 *
 * Labels come from the newest label part, whichever snapshot is taken: it has all that older ones have, but
 * for series that are gone. A snapshot with damage is passed over for the one before it, which the log still
 * reaches back to; if both are damaged, what can be read of the newest is used, and the rest is missing and
 * told of. */
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/snapshot/frame_file.h"
#include "storage/snapshot/snapshot_format.h"
#include "storage/snapshot/snapshot_read.h"
#include "storage/storage_private.h"

/* What was lost of the head: until now, since the last cut. */
static void loss_note(struct storage *storage, const char *path) {
    const char *name = strstr(path, "head/");
    storage__loss_add(storage, storage->manifest.cut_ms, clock_wall_ms(storage->options.clock), "%s",
                      name == NULL ? path : name);
}

/* ---- labels ---- */

struct labels {
    struct slice *pairs;
    uint32_t pair_end;
    size_t pair_capacity;
    struct series_load_entry *series;
    uint32_t slot_end;
    size_t slot_capacity;
    struct arena numbers;
};

/* Room for element `number` of a table of which *end is behind the highest one; new ones are zero. NULL: out
 * of memory. */
static void *table_ensure(void *table, size_t *capacity, size_t element_bytes, uint32_t number,
                          uint32_t *end) {
    void *grown = array_ensure_zero(table, capacity, (size_t)number + 1, element_bytes);
    if (grown != NULL && number >= *end)
        *end = number + 1;
    return grown;
}

/* One frame of definitions. */
static int labels_read(struct labels *labels, struct slice payload) {
    struct snapshot_label one;
    int status;
    while ((status = snapshot_label_next(&payload, &labels->numbers, &one)) == STATUS_OK) {
        if (one.tag == LABELS_PAIR || one.tag == LABELS_PAIR_FREE) {
            struct slice *pairs = table_ensure(labels->pairs, &labels->pair_capacity, sizeof *pairs,
                                               one.number, &labels->pair_end);
            if (pairs == NULL)
                return STATUS_NO_MEMORY;
            labels->pairs = pairs;
            labels->pairs[one.number] = one.label;
        } else {
            struct series_load_entry *series = table_ensure(labels->series, &labels->slot_capacity,
                                                            sizeof *series, one.number, &labels->slot_end);
            if (series == NULL)
                return STATUS_NO_MEMORY;
            labels->series = series;
            labels->series[one.number] = (struct series_load_entry){one.id, one.pairs, one.pair_count};
        }
    }
    return status == STATUS_END ? STATUS_OK : status;
}

/* Series with a label that was lost can't be named: they are free. So are pairs without series: that such a
 * number is free, or its text has another one now, need not have been written. */
static int labels_tidy(struct labels *labels, uint64_t *lost_out) {
    uint64_t lost = 0;
    uint8_t *used = mem_zalloc(labels->pair_end + (size_t)1);
    if (used == NULL)
        return STATUS_NO_MEMORY;
    for (uint32_t slot = 0; slot < labels->slot_end; slot++) {
        struct series_load_entry *entry = &labels->series[slot];
        bool whole = true;
        for (uint32_t i = 0; i < entry->pair_count; i++)
            whole &= entry->pairs[i] < labels->pair_end && labels->pairs[entry->pairs[i]].len > 0;
        if (!whole) {
            *entry = (struct series_load_entry){0};
            lost++;
        }
        for (uint32_t i = 0; i < entry->pair_count; i++)
            used[entry->pairs[i]] = 1;
    }
    for (uint32_t i = 0; i < labels->pair_end; i++)
        if (used[i] == 0)
            labels->pairs[i] = (struct slice){NULL, 0};
    mem_free(used);
    *lost_out = lost;
    return STATUS_OK;
}

static int labels_load(struct storage *storage, struct error_detail *detail, bool *damaged_out) {
    const struct manifest_snapshot *newest = &storage->manifest.snapshots[0];
    int status = STATUS_OK;
    struct labels labels = {0};
    struct frame_reader reader = {.io = storage->options.io};
    char *path = storage__labels_path(storage, newest->labels_number, 0);
    char *path2 = storage__labels_path(storage, newest->labels_number, 1);
    arena_init(&labels.numbers, 0, 0);
    if (path == NULL || path2 == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    status = frame_reader_open(storage->options.io, path, path2, newest->labels_number, newest->labels_bytes,
                               detail, &reader);
    if (status == STATUS_NOT_FOUND)
        loss_note(storage, path);
    TRY(status);
    for (;;) {
        uint32_t kind;
        struct slice payload;
        TRY(frame_reader_next(&reader, &kind, &payload));
        if (status == STATUS_END)
            break;
        if (kind != SNAPSHOT_FRAME_LABELS)
            continue;
        status = labels_read(&labels, payload);
        reader.damaged += status == STATUS_CORRUPT;
        if (status != STATUS_CORRUPT)
            TRY(status);
    }
    status = STATUS_OK;
    uint64_t lost;
    TRY(labels_tidy(&labels, &lost));
    *damaged_out = reader.damaged > 0 || reader.repaired > 0;
    if (*damaged_out) {
        metric_add(METRIC_snapshot_damage, reader.damaged + reader.repaired);
        log_error("labels of series are damaged", LOG_STR("file", path),
                  LOG_U64("taken_from_the_copy", reader.repaired), LOG_U64("lost", reader.damaged),
                  LOG_U64("series_lost", lost));
    }
    if (lost > 0)
        loss_note(storage, path);
    const struct series_load load = {.pairs = labels.pairs,
                                     .pair_end = labels.pair_end,
                                     .series = labels.series,
                                     .slot_end = labels.slot_end,
                                     /* whoever runs it all on one thread wants the same run twice */
                                     .threads = storage->options.io == storage->options.io_maintain ? 1 : 2};
    TRY(series_load(storage->series, &load, detail));
    TRY(slot_bits_ensure(&storage->labelled, labels.slot_end));
    for (uint32_t slot = 0; slot < labels.slot_end; slot++)
        if (labels.series[slot].pair_count > 0)
            slot_bits_add(&storage->labelled, slot);
out:
    frame_reader_close(&reader);
    arena_release(&labels.numbers);
    mem_free(labels.pairs);
    mem_free(labels.series);
    mem_free(path);
    mem_free(path2);
    return status;
}

/* ---- the snapshot ---- */

static int late_restore(struct storage *storage, const struct snapshot_series *series, wal_position taken_at,
                        uint64_t position) {
    for (uint32_t i = 0; i < series->late_count; i++) {
        int64_t start_ms;
        struct sample sample = snapshot_late_at(series, i, &start_ms);
        if (manifest_covers(&storage->manifest, sample.time_ms, taken_at - 1))
            continue; /* written to a block since */
        int status = storage__late_restore(storage, series->slot, sample, start_ms, position);
        if (status < 0)
            return status;
    }
    return STATUS_OK;
}

static int hidden_restore(struct storage *storage, const struct snapshot_series *series) {
    for (uint32_t i = 0; i < series->hidden_count; i++) {
        struct span span;
        snapshot_hidden_at(series, i, &span.min_ms, &span.max_ms);
        if (span.min_ms > span.max_ms)
            return STATUS_CORRUPT;
        if (span.max_ms < storage->manifest.cut_ms)
            continue; /* in a block, without it */
        int status = hidden_add(storage->hidden, series->slot, span);
        if (status < 0)
            return status;
    }
    return STATUS_OK;
}

bool storage__is_loaded(const struct storage *storage, uint32_t slot, wal_position position) {
    const struct load *loaded = storage->loaded;
    return loaded != NULL && slot < loaded->slot_end && position < loaded->taken_at[slot] &&
           slot_bits_has(&storage->labelled, slot);
}

static int slice_restore(struct storage *storage, struct slice payload, uint64_t late_position,
                         struct load *load) {
    int status = STATUS_OK;
    struct snapshot_slice slice;
    TRY(snapshot_slice_read(payload, &slice));
    if (slice.end > load->slot_end)
        return STATUS_CORRUPT;
    for (;;) {
        struct snapshot_series series;
        TRY(snapshot_series_next(&slice, &series));
        if (status == STATUS_END)
            break;
        /* A slot that has another series now, or none that can be named: its state is passed over. */
        if (series.slot < slice.first || series.slot >= slice.end ||
            !slot_bits_has(&storage->labelled, series.slot) ||
            series_id(storage->series, series.slot) != series.id)
            continue;
        if (series.head.len > 0)
            TRY(head_state_read(storage->head, series.slot, storage->manifest.cut_ms, &series.head));
        TRY(late_restore(storage, &series, slice.position, late_position));
        TRY(hidden_restore(storage, &series));
    }
    status = STATUS_OK;
    for (uint32_t slot = slice.first; slot < slice.end; slot++)
        load->taken_at[slot] = slice.position;
    if (slice.position > load->reached)
        load->reached = slice.position;
out:
    return status;
}

struct found {
    struct slice end;
    struct slice chunklog;
    bool has_end, has_chunklog;
    uint64_t damaged;
};

/* The frames that the others depend on stand at the end. */
static int frames_look(struct frame_reader *reader, struct found *out) {
    struct found found = {0};
    uint32_t kind;
    struct slice payload;
    int status = STATUS_OK;
    while ((status = frame_reader_next(reader, &kind, &payload)) == STATUS_OK) {
        if (kind == SNAPSHOT_FRAME_END) {
            found.end = payload;
            found.has_end = true;
        } else if (kind == SNAPSHOT_FRAME_CHUNKLOG) {
            found.chunklog = payload;
            found.has_chunklog = true;
        }
    }
    if (status < 0)
        return status;
    found.damaged = reader->damaged;
    reader->offset = 0;
    *out = found;
    return STATUS_OK;
}

static int end_restore(struct storage *storage, struct slice payload, uint64_t *late_position,
                       struct load *load) {
    struct snapshot_end end;
    int status = snapshot_end_read(payload, &end);
    if (status < 0)
        return status;
    load->position = end.position;
    load->slot_end = end.slot_end;
    *late_position = end.late_position;
    if (end.cut_ms > storage->apply_cut_ms)
        storage->apply_cut_ms = end.cut_ms;
    series_id_next_set(storage->series, end.id_next);
    load->taken_at = mem_zalloc((load->slot_end + (size_t)1) * sizeof *load->taken_at);
    storage->windows = mem_alloc((end.window_count + (size_t)1) * sizeof *storage->windows);
    if (load->taken_at == NULL || storage->windows == NULL)
        return STATUS_NO_MEMORY;
    storage->window_capacity = end.window_count;
    for (uint32_t i = 0; i < end.window_count; i++) {
        struct window_position window;
        snapshot_window_at(&end, i, &window.begin_ms, &window.position);
        if (window.begin_ms >= storage->manifest.cut_ms)
            storage->windows[storage->window_count++] = window;
    }
    return STATUS_OK;
}

/* STATUS_CORRUPT before anything was changed: another one may be tried. With `whatever` damage is borne. */
static int snapshot_load(struct storage *storage, const struct manifest_snapshot *snapshot, bool whatever,
                         struct error_detail *detail, struct load *load) {
    int status = STATUS_OK;
    struct frame_reader reader = {.io = storage->options.io};
    struct found found = {0};
    uint64_t late_position = 0;
    char *path = storage__snapshot_path(storage, snapshot->number);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    status = frame_reader_open(storage->options.io, path, NULL, snapshot->number, snapshot->bytes, detail,
                               &reader);
    if (status == STATUS_NOT_FOUND) {
        metric_add(METRIC_snapshot_damage, 1);
        log_error("a snapshot is missing", LOG_STR("file", path));
        status = STATUS_CORRUPT;
    }
    TRY(status);
    TRY(frames_look(&reader, &found));
    if (found.damaged > 0 || !found.has_end || !found.has_chunklog) {
        metric_add(METRIC_snapshot_damage, found.damaged + 1);
        log_error("a snapshot is damaged", LOG_STR("file", path), LOG_U64("pieces", found.damaged),
                  LOG_STR("then", whatever ? "what can be read is used; samples may be missing"
                                           : "the one before it is used"));
        status = STATUS_CORRUPT;
        if (whatever)
            loss_note(storage, path);
        if (!whatever || !found.has_end)
            goto out;
    }
    TRY(end_restore(storage, found.end, &late_position, load));
    if (found.has_chunklog)
        TRY(chunklog_restore(storage->chunklog, found.chunklog, storage->manifest.cut_ms, detail));
    for (;;) {
        uint32_t kind;
        struct slice payload;
        TRY(frame_reader_next(&reader, &kind, &payload));
        if (status == STATUS_END)
            break;
        if (kind == SNAPSHOT_FRAME_SLICE)
            TRY(slice_restore(storage, payload, late_position, load));
    }
    status = STATUS_OK;
out:
    frame_reader_close(&reader);
    mem_free(path);
    return status;
}

int storage__load(struct storage *storage, struct error_detail *detail, struct load *out) {
    int status = STATUS_OK;
    struct load load = {0};
    const struct manifest *manifest = &storage->manifest;
    if (manifest->snapshot_count == 0) {
        *out = load;
        return STATUS_OK;
    }
    status = labels_load(storage, detail, &load.damaged);
    if (status == STATUS_NOT_FOUND) {
        log_error("the labels of the series are missing: what only the head holds is lost",
                  LOG_STR("error", detail->text));
        metric_add(METRIC_snapshot_damage, 1);
        detail->text[0] = '\0';
        load.damaged = true;
        *out = load; /* the log may still declare what it holds */
        return STATUS_OK;
    }
    TRY(status);
    status = STATUS_CORRUPT;
    for (size_t i = 0; i < manifest->snapshot_count && status == STATUS_CORRUPT && load.taken_at == NULL;
         i++) {
        load.damaged |= i > 0;
        status = snapshot_load(storage, &manifest->snapshots[i], false, detail, &load);
    }
    load.damaged |= status == STATUS_CORRUPT;
    if (status == STATUS_CORRUPT && load.taken_at == NULL) {
        detail->text[0] = '\0';
        status = snapshot_load(storage, &manifest->snapshots[0], true, detail, &load);
        if (status == STATUS_CORRUPT && load.taken_at == NULL) {
            /* Not even its end: the log since, with the labels. */
            detail->text[0] = '\0';
            load.position = manifest->snapshots[manifest->snapshot_count - 1].position;
            status = STATUS_OK;
        }
    }
    TRY(status);
    *out = load;
out:
    if (status < 0)
        mem_free(load.taken_at);
    return status;
}
