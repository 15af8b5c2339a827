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
#include "base/bytes.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/snapshot/frame_file.h"
#include "storage/snapshot/snapshot_format.h"
#include "storage/storage_private.h"

#define NUMBER_MAX (1u << 30) /* a slot or pair above it is no number of ours */

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
    size_t before = *capacity;
    uint8_t *grown = array_ensure(table, capacity, (size_t)number + 1, element_bytes);
    if (grown == NULL)
        return NULL;
    memset(grown + before * element_bytes, 0, (*capacity - before) * element_bytes);
    if (number >= *end)
        *end = number + 1;
    return grown;
}

static const uint8_t *numbers_read(const uint8_t *p, const uint8_t *end, uint32_t *numbers, uint64_t count) {
    for (uint64_t i = 0; i < count && p != NULL; i++) {
        uint64_t number;
        p = varint_read(p, end, &number);
        if (p == NULL || number > NUMBER_MAX)
            return NULL;
        numbers[i] = (uint32_t)number;
    }
    return p;
}

/* One frame of definitions. */
static int labels_read(struct labels *labels, struct slice payload) {
    const uint8_t *p = payload.data, *end = p + payload.len;
    while (p < end) {
        uint64_t tag, number, count, id;
        if ((p = varint_read(p, end, &tag)) == NULL || (p = varint_read(p, end, &number)) == NULL ||
            number > NUMBER_MAX)
            return STATUS_CORRUPT;
        struct slice *pairs;
        struct series_load_entry *series;
        switch (tag) {
        case LABELS_PAIR:
        case LABELS_PAIR_FREE:
            pairs = table_ensure(labels->pairs, &labels->pair_capacity, sizeof *pairs, (uint32_t)number,
                                 &labels->pair_end);
            if (pairs == NULL)
                return STATUS_NO_MEMORY;
            labels->pairs = pairs;
            labels->pairs[number] = (struct slice){NULL, 0};
            if (tag == LABELS_PAIR_FREE)
                break;
            if ((p = varint_read(p, end, &count)) == NULL || count > (size_t)(end - p))
                return STATUS_CORRUPT;
            labels->pairs[number] = slice_of(p, (size_t)count);
            p += count;
            break;
        case LABELS_SLOT:
        case LABELS_SLOT_FREE:
            series = table_ensure(labels->series, &labels->slot_capacity, sizeof *series, (uint32_t)number,
                                  &labels->slot_end);
            if (series == NULL)
                return STATUS_NO_MEMORY;
            labels->series = series;
            labels->series[number] = (struct series_load_entry){0};
            if (tag == LABELS_SLOT_FREE)
                break;
            if ((p = varint_read(p, end, &id)) == NULL || (p = varint_read(p, end, &count)) == NULL ||
                count == 0 || count > (size_t)(end - p))
                return STATUS_CORRUPT;
            uint32_t *numbers = arena_alloc(&labels->numbers, count * sizeof *numbers);
            if (numbers == NULL)
                return STATUS_NO_MEMORY;
            if ((p = numbers_read(p, end, numbers, count)) == NULL)
                return STATUS_CORRUPT;
            labels->series[number] = (struct series_load_entry){id, numbers, (uint32_t)count};
            break;
        default:
            return STATUS_CORRUPT;
        }
    }
    return STATUS_OK;
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
    TRY(frame_reader_open(storage->options.io, path, path2, newest->labels_number, newest->labels_bytes,
                          detail, &reader));
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

static int late_restore(struct storage *storage, uint32_t slot, wal_position taken_at, uint64_t position,
                        const uint8_t *p, uint32_t count) {
    for (uint32_t i = 0; i < count; i++, p += SNAPSHOT_LATE_BYTES) {
        struct sample sample = {(int64_t)load_u64(p), load_u64(p + 8)};
        if (manifest_covers(&storage->manifest, sample.time_ms, taken_at - 1))
            continue; /* written to a block since */
        int status = storage__late_restore(storage, slot, sample, (int64_t)load_u64(p + 16), position);
        if (status < 0)
            return status;
    }
    return STATUS_OK;
}

static int hidden_restore(struct storage *storage, uint32_t slot, const uint8_t *p, uint32_t count) {
    for (uint32_t i = 0; i < count; i++, p += SNAPSHOT_SPAN_BYTES) {
        struct span span = {(int64_t)load_u64(p), (int64_t)load_u64(p + 8)};
        if (span.min_ms > span.max_ms)
            return STATUS_CORRUPT;
        if (span.max_ms < storage->manifest.cut_ms)
            continue; /* in a block, without it */
        int status = hidden_add(storage->hidden, slot, span);
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

/* A list's elements from the front of *bytes. */
static int list_take(struct slice *bytes, size_t element_bytes, const uint8_t **elements, uint32_t *count) {
    if (bytes->len < 4 || load_u32(bytes->data) > (bytes->len - 4) / element_bytes)
        return STATUS_CORRUPT;
    *count = load_u32(bytes->data);
    *elements = bytes->data + 4;
    size_t len = 4 + *count * element_bytes;
    *bytes = slice_of(bytes->data + len, bytes->len - len);
    return STATUS_OK;
}

static int slice_restore(struct storage *storage, struct slice payload, uint64_t late_position,
                         struct load *load) {
    int status = STATUS_OK;
    if (payload.len < SNAPSHOT_SLICE_HEAD)
        return STATUS_CORRUPT;
    wal_position taken_at = load_u64(payload.data);
    uint32_t first = load_u32(payload.data + 8), end = load_u32(payload.data + 12);
    if (first > end || end > load->slot_end)
        return STATUS_CORRUPT;
    struct slice rest = slice_of(payload.data + SNAPSHOT_SLICE_HEAD, payload.len - SNAPSHOT_SLICE_HEAD);
    while (rest.len > 0) {
        if (rest.len < SNAPSHOT_SERIES_HEAD) {
            status = STATUS_CORRUPT;
            goto out;
        }
        uint32_t slot = load_u32(rest.data);
        uint64_t id = load_u64(rest.data + 4);
        unsigned flags = rest.data[12];
        rest = slice_of(rest.data + SNAPSHOT_SERIES_HEAD, rest.len - SNAPSHOT_SERIES_HEAD);
        /* A slot that has another series now, or none that can be named: its state is read and passed over.
         */
        bool known = slot >= first && slot < end && slot_bits_has(&storage->labelled, slot) &&
                     series_id(storage->series, slot) == id;
        if ((flags & SNAPSHOT_HAS_HEAD) != 0)
            TRY(known ? head_state_read(storage->head, slot, storage->manifest.cut_ms, &rest)
                      : head_state_skip(&rest));
        const uint8_t *elements;
        uint32_t count;
        if ((flags & SNAPSHOT_HAS_LATE) != 0) {
            TRY(list_take(&rest, SNAPSHOT_LATE_BYTES, &elements, &count));
            if (known)
                TRY(late_restore(storage, slot, taken_at, late_position, elements, count));
        }
        if ((flags & SNAPSHOT_HAS_HIDDEN) != 0) {
            TRY(list_take(&rest, SNAPSHOT_SPAN_BYTES, &elements, &count));
            if (known)
                TRY(hidden_restore(storage, slot, elements, count));
        }
    }
    for (uint32_t slot = first; slot < end; slot++)
        load->taken_at[slot] = taken_at;
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

static int end_restore(struct storage *storage, struct slice end, uint64_t *late_position,
                       struct load *load) {
    if (end.len < SNAPSHOT_END_BYTES)
        return STATUS_CORRUPT;
    const uint8_t *p = end.data;
    uint32_t windows = load_u32(p + 36);
    load->position = load_u64(p);
    load->slot_end = load_u32(p + 32);
    *late_position = load_u64(p + 16);
    if (windows > (end.len - SNAPSHOT_END_BYTES) / SNAPSHOT_WINDOW_BYTES || load->slot_end > NUMBER_MAX)
        return STATUS_CORRUPT;
    int64_t cut_ms = (int64_t)load_u64(p + 8);
    if (cut_ms > storage->apply_cut_ms)
        storage->apply_cut_ms = cut_ms;
    series_id_next_set(storage->series, load_u64(p + 24));
    load->taken_at = mem_zalloc((load->slot_end + (size_t)1) * sizeof *load->taken_at);
    storage->windows = mem_alloc((windows + (size_t)1) * sizeof *storage->windows);
    if (load->taken_at == NULL || storage->windows == NULL)
        return STATUS_NO_MEMORY;
    storage->window_capacity = windows;
    p += SNAPSHOT_END_BYTES;
    for (uint32_t i = 0; i < windows; i++, p += SNAPSHOT_WINDOW_BYTES) {
        struct window_position window = {(int64_t)load_u64(p), load_u64(p + 8)};
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
