/* storage_snapshot.c: the head and the labels of its series, written down now and then, so that a start reads
 * only the log since.
 *
 * One job at a time, advanced by storage_maintain as a state machine:
 *
 *     IDLE → LABELS → SLICE → FINISH → PUBLISH → DROP → IDLE
 *
 * LABELS, SLICE and DROP look at what the storage thread owns, so it does them, a slice between two groups
 * (storage__snapshot_serve), into a buffer that the maintaining thread then writes. Series go on being
 * written meanwhile: each slice says at which log position it was taken, and a replay passes over what is
 * below it. `position`, where the replay begins, is that of the job's beginning: a series that is not in the
 * label part was made after it and is declared behind it.
 *
 * PUBLISH makes it count, by the manifest. Only then do log segments rely on the label part: they declare no
 * more what is in it (storage->labelled). It is kept in two copies, since it is all there is of those labels.
 *
 * A failure anywhere leaves the last snapshot as the newest; as the series table was told that the changes
 * were taken, the next one writes all labels anew. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/snapshot/frame_file.h"
#include "storage/snapshot/snapshot_format.h"
#include "storage/storage_private.h"

#define RETRY_MS_MAX   60000
#define LABELS_NUMBERS 256u              /* taken at once */
#define LABELS_BYTES   ((size_t)1 << 20) /* of a piece; numbers that were taken go above it */
#define LABELS_BYTES_SLACK                                                                                   \
    ((uint64_t)4 << 20)                    /* a label part is written anew when it is this much and twice as \
                                              large as it was at first */
#define STATE_BYTES_MAX ((size_t)32 << 20) /* of one slice; a series more may go above it */

enum phase { PHASE_IDLE, PHASE_LABELS, PHASE_SLICE, PHASE_FINISH, PHASE_PUBLISH, PHASE_DROP };

struct snapshot {
    atomic_int phase;  /* an enum phase; the maintaining thread's, the other looks */
    atomic_bool asked; /* the storage thread has something to do for us */
    bool begins;       /* what it does next is the job's first piece */
    bool pairs;        /* slots are taken, now their pairs */
    bool ended;        /* the phase's last piece is in `buf` */
    bool labels_all;   /* the label part is written anew */
    unsigned soon;     /* so many are due, for what there is was damaged */
    int status;        /* of what the storage thread did */
    struct retry retry;
    int64_t last_ms; /* when the newest was made, or the storage opened */
    uint64_t started_ns;

    wal_position position;
    int64_t cut_ms;
    uint64_t late_position;
    uint64_t samples_at; /* samples applied, log bytes written, when the job began */
    uint64_t log_bytes_at;
    uint64_t samples_done; /* the same of the newest snapshot */
    uint64_t log_bytes_done;
    struct window_position *windows;
    size_t window_count;
    uint32_t slot;
    uint32_t slot_end;
    uint32_t *taken; /* slots in the label part that have a series */
    size_t taken_count, taken_capacity;
    uint32_t numbers[LABELS_NUMBERS];
    struct buf buf;

    uint64_t number, labels_number;
    wal_position needed;         /* the log from here on, once the job's snapshot counts */
    bool spare;                  /* and whether there is one before it then */
    uint64_t labels_first_bytes; /* of the label part when it was written anew */
    struct frame_writer *writer, *labels;
};

int storage__snapshot_new(struct storage *storage) {
    struct snapshot *s = mem_zalloc(sizeof *s);
    if (s == NULL)
        return STATUS_NO_MEMORY;
    buf_init(&s->buf);
    s->last_ms = clock_wall_ms(storage->options.clock);
    storage->snapshot = s;
    return STATUS_OK;
}

static void job_release(struct snapshot *s) {
    frame_writer_close(s->writer);
    frame_writer_close(s->labels);
    s->writer = s->labels = NULL;
    mem_free(s->windows);
    mem_free(s->taken);
    s->windows = NULL;
    s->taken = NULL;
    s->taken_count = s->taken_capacity = 0;
    s->phase = PHASE_IDLE;
}

void storage__snapshot_free(struct storage *storage) {
    struct snapshot *s = storage->snapshot;
    if (s == NULL)
        return;
    job_release(s);
    buf_release(&s->buf);
    mem_free(s);
    storage->snapshot = NULL;
}

wal_position storage__snapshot_needed(const struct manifest *manifest) {
    return manifest->snapshot_count > 0 ? manifest->snapshots[manifest->snapshot_count - 1].position : 0;
}

void storage__snapshot_opened(struct storage *storage, const struct load *load) {
    struct snapshot *s = storage->snapshot;
    /* One copy less stands between what is left and the next damage. */
    s->labels_all = load->damaged;
    s->soon = load->damaged ? MANIFEST_SNAPSHOTS : 0;
    if (storage->manifest.snapshot_count > 0)
        s->labels_first_bytes = storage->manifest.snapshots[0].labels_bytes;
    storage->snapshot_position = storage__snapshot_needed(&storage->manifest);
    storage->snapshot_spare = storage->manifest.snapshot_count == MANIFEST_SNAPSHOTS;
    storage__snapshot_sweep(storage);
}

bool storage__snapshot_runs(const struct storage *storage) {
    return storage->snapshot->phase != PHASE_IDLE;
}

/* ---- paths ---- */

static char *path_of(const struct storage *storage, uint64_t number, const char *ending) {
    size_t bytes = strlen(storage->dir) + 48;
    char *path = mem_alloc(bytes);
    if (path != NULL)
        snprintf(path, bytes, "%s/head/%016" PRIx64 ".%s", storage->dir, number, ending);
    return path;
}

char *storage__snapshot_path(const struct storage *storage, uint64_t number) {
    return path_of(storage, number, "snapshot");
}

char *storage__labels_path(const struct storage *storage, uint64_t number, unsigned copy) {
    return path_of(storage, number, copy == 0 ? "labels" : "labels2");
}

static int sweep_each(void *context, const char *name) {
    struct storage *storage = context;
    char *end;
    uint64_t number = strtoull(name, &end, 16);
    bool labels = strcmp(end, ".labels") == 0 || strcmp(end, ".labels2") == 0;
    if (!labels && strcmp(end, ".snapshot") != 0)
        return STATUS_OK;
    for (size_t i = 0; i < storage->manifest.snapshot_count; i++) {
        const struct manifest_snapshot *snapshot = &storage->manifest.snapshots[i];
        if (number == (labels ? snapshot->labels_number : snapshot->number))
            return STATUS_OK;
    }
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/head/%s", storage->dir, name) < sizeof path)
        (void)io_remove(storage->options.io_maintain, path);
    return STATUS_OK;
}

void storage__snapshot_sweep(struct storage *storage) {
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/head", storage->dir) < sizeof path)
        (void)io_list_dir(storage->options.io_maintain, path, sweep_each, storage);
}

/* ---- the storage thread: LABELS ---- */

static void varint_put(struct buf *buf, uint64_t value) {
    uint8_t bytes[VARINT_BYTES_MAX];
    buf_append(buf, bytes, (size_t)(varint_write(bytes, value) - bytes));
}

static int taken_add(struct snapshot *s, uint32_t slot) {
    uint32_t *taken = array_ensure(s->taken, &s->taken_capacity, s->taken_count + 1, sizeof *taken);
    if (taken == NULL)
        return STATUS_NO_MEMORY;
    s->taken = taken;
    s->taken[s->taken_count++] = slot;
    return STATUS_OK;
}

static int begin(struct storage *storage) {
    struct snapshot *s = storage->snapshot;
    s->position = wal_durable(storage->wal);
    s->cut_ms = storage->apply_cut_ms;
    s->late_position = late_position_first(storage->late);
    if (s->late_position > s->position)
        s->late_position = s->position;
    s->samples_at = atomic_load_explicit(&storage->samples_applied, memory_order_relaxed);
    s->log_bytes_at = atomic_load_explicit(&storage->log_bytes, memory_order_relaxed);
    s->slot = 0;
    s->pairs = false;
    s->windows = mem_alloc((storage->window_count + 1) * sizeof *s->windows);
    if (s->windows == NULL)
        return STATUS_NO_MEMORY;
    s->window_count = storage->window_count;
    if (s->window_count > 0)
        memcpy(s->windows, storage->windows, s->window_count * sizeof *s->windows);
    return s->labels_all ? series_changed_all(storage->series) : STATUS_OK;
}

/* A piece of about LABELS_BYTES. */
static int labels_take(struct storage *storage) {
    struct snapshot *s = storage->snapshot;
    struct series_table *table = storage->series;
    int status = STATUS_OK;
    while (!s->pairs && s->buf.len < LABELS_BYTES) {
        size_t count = series_changed_slots(table, s->numbers, LABELS_NUMBERS);
        for (size_t i = 0; i < count; i++) {
            uint32_t pair_count, slot = s->numbers[i];
            const uint32_t *pairs = series_pairs(table, slot, &pair_count);
            varint_put(&s->buf, pairs == NULL ? LABELS_SLOT_FREE : LABELS_SLOT);
            varint_put(&s->buf, slot);
            if (pairs == NULL)
                continue;
            TRY(taken_add(s, slot));
            varint_put(&s->buf, series_id(table, slot));
            varint_put(&s->buf, pair_count);
            for (uint32_t j = 0; j < pair_count; j++)
                varint_put(&s->buf, pairs[j]);
        }
        s->pairs = count == 0;
    }
    while (s->pairs && !s->ended && s->buf.len < LABELS_BYTES) {
        size_t count = series_changed_pairs(table, s->numbers, LABELS_NUMBERS);
        for (size_t i = 0; i < count; i++) {
            struct slice label = series_pair(table, s->numbers[i]);
            varint_put(&s->buf, label.len == 0 ? LABELS_PAIR_FREE : LABELS_PAIR);
            varint_put(&s->buf, s->numbers[i]);
            if (label.len == 0)
                continue;
            varint_put(&s->buf, label.len);
            buf_append(&s->buf, label.data, label.len);
        }
        s->ended = count == 0;
        s->slot_end = series_slot_end(table);
    }
    if (s->buf.failed)
        status = STATUS_NO_MEMORY;
out:
    return status;
}

/* ---- the storage thread: SLICE ---- */

static int late_put(void *context, const struct sample_columns *columns) {
    struct buf *buf = context;
    for (size_t i = 0; i < columns->count; i++) {
        uint8_t bytes[SNAPSHOT_LATE_BYTES];
        store_u64(bytes, (uint64_t)columns->times_ms[i]);
        memcpy(bytes + 8, &columns->values[i], 8);
        store_u64(bytes + 16, columns->has_starts ? (uint64_t)columns->starts_ms[i] : (uint64_t)START_NONE);
        buf_append(buf, bytes, sizeof bytes);
    }
    return STATUS_OK;
}

static int span_put(void *context, struct span span) {
    uint8_t bytes[SNAPSHOT_SPAN_BYTES];
    store_u64(bytes, (uint64_t)span.min_ms);
    store_u64(bytes + 8, (uint64_t)span.max_ms);
    buf_append(context, bytes, sizeof bytes);
    return STATUS_OK;
}

/* A list has its length before it; one without elements leaves nothing. */
static size_t list_begin(struct buf *buf) {
    static const uint8_t zero[4];
    size_t at = buf->len;
    buf_append(buf, zero, sizeof zero);
    return at;
}

static bool list_end(struct buf *buf, size_t at, size_t element_bytes) {
    if (buf->failed)
        return false;
    size_t count = (buf->len - at - 4) / element_bytes;
    store_u32(buf->data + at, (uint32_t)count); /* a frame holds no more */
    if (count == 0)
        buf->len = at;
    return count > 0;
}

static int series_put(struct storage *storage, uint32_t slot) {
    struct buf *buf = &storage->snapshot->buf;
    size_t at = buf->len;
    uint8_t head[SNAPSHOT_SERIES_HEAD];
    unsigned flags = 0;
    store_u32(head, slot);
    store_u64(head + 4, series_id(storage->series, slot));
    buf_append(buf, head, sizeof head);
    if (head_state_write(storage->head, slot, buf))
        flags |= SNAPSHOT_HAS_HEAD;
    size_t list_at = list_begin(buf);
    if (late_count(storage->late) > 0) {
        int status = late_each(storage->late, slot, late_put, buf);
        if (status < 0)
            return status;
    }
    if (list_end(buf, list_at, SNAPSHOT_LATE_BYTES))
        flags |= SNAPSHOT_HAS_LATE;
    list_at = list_begin(buf);
    (void)hidden_slot_each(storage->hidden, slot, span_put, buf);
    if (list_end(buf, list_at, SNAPSHOT_SPAN_BYTES))
        flags |= SNAPSHOT_HAS_HIDDEN;
    if (buf->failed)
        return STATUS_NO_MEMORY;
    buf->data[at + 12] = (uint8_t)flags;
    if (flags == 0)
        buf->len = at;
    return STATUS_OK;
}

/* A slice of slots, fewer if they hold very much. Each begins at a multiple of SNAPSHOT_SLICE_SLOTS or goes
 * on where one of its slots broke off, so that a replay finds a slot's slice by what the slices say. */
static int slice_take(struct storage *storage) {
    struct snapshot *s = storage->snapshot;
    int status = STATUS_OK;
    uint8_t head[SNAPSHOT_SLICE_HEAD] = {0};
    store_u64(head, wal_durable(storage->wal));
    store_u32(head + 8, s->slot);
    buf_append(&s->buf, head, sizeof head);
    uint32_t end = (s->slot / SNAPSHOT_SLICE_SLOTS + 1) * SNAPSHOT_SLICE_SLOTS;
    for (; s->slot < s->slot_end && s->slot < end && s->buf.len < STATE_BYTES_MAX; s->slot++) {
        uint32_t pair_count;
        if (series_pairs(storage->series, s->slot, &pair_count) != NULL)
            TRY(series_put(storage, s->slot));
    }
    if (s->buf.failed) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    store_u32(s->buf.data + 12, s->slot);
    s->ended = s->slot == s->slot_end;
    if (s->ended)
        chunklog_mark(storage->chunklog);
out:
    return status;
}

/* ---- the storage thread: DROP ---- */

static void drop(struct storage *storage) {
    struct snapshot *s = storage->snapshot;
    /* Without memory a series is declared once more. */
    if (slot_bits_ensure(&storage->labelled, s->slot_end) == STATUS_OK)
        for (size_t i = 0; i < s->taken_count; i++)
            slot_bits_add(&storage->labelled, s->taken[i]);
    storage->snapshot_position = s->needed;
    storage->snapshot_spare = s->spare;
    storage__slots_unlabelled(storage);
    wal_drop_before(storage->wal, storage__log_needed(storage));
    KILL_POINT("snapshot_log_dropped");
}

bool storage__snapshot_asks(const struct storage *storage) {
    return atomic_load_explicit(&storage->snapshot->asked, memory_order_acquire);
}

bool storage__snapshot_serve(struct storage *storage) {
    struct snapshot *s = storage->snapshot;
    if (!storage__snapshot_asks(storage))
        return false;
    s->status = STATUS_OK;
    buf_clear(&s->buf);
    if (s->begins)
        s->status = begin(storage);
    s->begins = false;
    if (s->status == STATUS_OK && s->phase == PHASE_LABELS)
        s->status = labels_take(storage);
    else if (s->status == STATUS_OK && s->phase == PHASE_SLICE)
        s->status = slice_take(storage);
    else if (s->phase == PHASE_DROP)
        drop(storage);
    atomic_store_explicit(&s->asked, false, memory_order_release);
    storage__maintain_poke(storage);
    return true;
}

/* ---- the maintaining thread ---- */

static void ask(struct storage *storage, enum phase phase) {
    struct snapshot *s = storage->snapshot;
    s->phase = phase;
    s->ended = false;
    atomic_store_explicit(&s->asked, true, memory_order_release);
    storage__poke(storage);
}

static bool is_due(const struct storage *storage, int64_t now_ms) {
    const struct snapshot *s = storage->snapshot;
    const struct limits *limits = storage->options.limits;
    uint64_t samples =
        atomic_load_explicit(&storage->samples_applied, memory_order_relaxed) - s->samples_done;
    uint64_t bytes = atomic_load_explicit(&storage->log_bytes, memory_order_relaxed) - s->log_bytes_done;
    /* Without a log that can be written, what the last one held and nothing proves is not carried over yet: a
     * snapshot must not make it durable that the next start may find or not. */
    if (!atomic_load_explicit(&storage->log_started, memory_order_acquire) || retry_waits(&s->retry, now_ms))
        return false;
    if (samples == 0 && bytes == 0)
        return s->soon > 0;
    return s->soon > 0 || samples >= limits->snapshot_samples_max ||
           bytes >= limits->snapshot_log_bytes_max ||
           now_ms - s->last_ms >= (int64_t)limits->snapshot_ms_max || now_ms < s->last_ms;
}

static int start(struct storage *storage, struct error_detail *detail) {
    struct snapshot *s = storage->snapshot;
    int status = STATUS_OK;
    char *path = NULL, *labels_path = NULL, *labels2_path = NULL;
    struct io *io = storage->options.io_maintain;
    const struct manifest_snapshot *last =
        storage->manifest.snapshot_count > 0 ? &storage->manifest.snapshots[0] : NULL;
    s->started_ns = clock_monotonic_ns(storage->options.clock);
    s->number = storage->manifest.block_next++; /* never twice, whatever becomes of this attempt */
    if (last == NULL || last->labels_bytes > 2 * s->labels_first_bytes + LABELS_BYTES_SLACK)
        s->labels_all = true;
    uint64_t labels_offset = s->labels_all ? 0 : last->labels_bytes;
    s->labels_number = s->labels_all ? storage->manifest.block_next++ : last->labels_number;
    path = storage__snapshot_path(storage, s->number);
    labels_path = storage__labels_path(storage, s->labels_number, 0);
    labels2_path = storage__labels_path(storage, s->labels_number, 1);
    if (path == NULL || labels_path == NULL || labels2_path == NULL) {
        status = error_set(detail, STATUS_NO_MEMORY, "out of memory");
        goto out;
    }
    TRY(frame_writer_open(io, path, NULL, s->number, 0, detail, &s->writer));
    TRY(frame_writer_open(io, labels_path, labels2_path, s->labels_number, labels_offset, detail,
                          &s->labels));
    s->begins = true;
    KILL_POINT("snapshot_begun");
    ask(storage, PHASE_LABELS);
out:
    mem_free(path);
    mem_free(labels_path);
    mem_free(labels2_path);
    return status;
}

static int finish(struct storage *storage, struct error_detail *detail) {
    struct snapshot *s = storage->snapshot;
    int status = STATUS_OK;
    char dir[4096];
    buf_clear(&s->buf);
    TRY(chunklog_describe(storage->chunklog, &s->buf, detail));
    TRY(frame_writer_append(s->writer, SNAPSHOT_FRAME_CHUNKLOG, buf_slice(&s->buf), detail));
    buf_clear(&s->buf);
    uint8_t end[SNAPSHOT_END_BYTES];
    store_u64(end, s->position);
    store_u64(end + 8, (uint64_t)s->cut_ms);
    store_u64(end + 16, s->late_position);
    store_u64(end + 24, series_id_next(storage->series));
    store_u32(end + 32, s->slot_end);
    store_u32(end + 36, (uint32_t)s->window_count);
    buf_append(&s->buf, end, sizeof end);
    for (size_t i = 0; i < s->window_count; i++) {
        uint8_t window[SNAPSHOT_WINDOW_BYTES];
        store_u64(window, (uint64_t)s->windows[i].begin_ms);
        store_u64(window + 8, s->windows[i].position);
        buf_append(&s->buf, window, sizeof window);
    }
    if (s->buf.failed) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    TRY(frame_writer_append(s->writer, SNAPSHOT_FRAME_END, buf_slice(&s->buf), detail));
    TRY(frame_writer_sync(s->writer, detail));
    TRY(frame_writer_sync(s->labels, detail));
    if ((size_t)snprintf(dir, sizeof dir, "%s/head", storage->dir) >= sizeof dir) {
        status = STATUS_TOO_LARGE;
        goto out;
    }
    TRY(io_sync_dir(storage->options.io_maintain, dir));
    s->phase = PHASE_PUBLISH;
    KILL_POINT("snapshot_written");
out:
    return status;
}

static int publish(struct storage *storage, int64_t now_ms, struct error_detail *detail) {
    struct snapshot *s = storage->snapshot;
    struct manifest next;
    int status = manifest_copy(&storage->manifest, &next);
    if (status < 0)
        return status;
    const struct manifest_snapshot entry = {.number = s->number,
                                            .bytes = frame_writer_bytes(s->writer),
                                            .position = s->position,
                                            .labels_number = s->labels_number,
                                            .labels_bytes = frame_writer_bytes(s->labels)};
    next.generation++;
    next.id_next = series_id_next(storage->series);
    manifest_snapshot_add(&next, &entry);
    TRY(storage__manifest_store(storage, &next, detail));
    KILL_POINT("snapshot_stored");
    manifest_release(&storage->manifest);
    storage->manifest = next;
    if (s->labels_all)
        s->labels_first_bytes = entry.labels_bytes;
    s->labels_all = false;
    if (s->soon > 0)
        s->soon--;
    s->samples_done = s->samples_at;
    s->log_bytes_done = s->log_bytes_at;
    s->last_ms = now_ms;
    retry_done(&s->retry);
    s->needed = storage__snapshot_needed(&next);
    s->spare = next.snapshot_count == MANIFEST_SNAPSHOTS;
    metric_add(METRIC_snapshots, 1);
    metric_add(METRIC_snapshot_written_bytes, entry.bytes);
    metric_set(METRIC_snapshot_bytes, entry.bytes);
    metric_set(METRIC_snapshot_label_bytes, entry.labels_bytes);
    metric_observe_ns(METRIC_snapshot_seconds, clock_monotonic_ns(storage->options.clock) - s->started_ns);
    ask(storage, PHASE_DROP);
    return STATUS_OK;
out:
    manifest_release(&next);
    return status;
}

static void job_fail(struct storage *storage, int64_t now_ms, const struct error_detail *detail) {
    struct snapshot *s = storage->snapshot;
    retry_longer(&s->retry, now_ms, RETRY_MS_MAX);
    s->labels_all = true;
    metric_add(METRIC_maintain_errors, 1);
    log_warn("a snapshot could not be written; trying again", LOG_STR("error", detail->text),
             LOG_I64("retry_ms", s->retry.delay_ms));
    job_release(s);
    storage__snapshot_sweep(storage);
}

/* Writes what the storage thread put into the buffer, and asks for more. */
static int piece_write(struct storage *storage, struct error_detail *detail) {
    struct snapshot *s = storage->snapshot;
    if (s->status < 0)
        return s->status;
    bool labels = s->phase == PHASE_LABELS, ended = s->ended;
    if (s->buf.len > 0) {
        int status = frame_writer_append(labels ? s->labels : s->writer,
                                         labels ? SNAPSHOT_FRAME_LABELS : SNAPSHOT_FRAME_SLICE,
                                         buf_slice(&s->buf), detail);
        if (status < 0)
            return status;
    }
    KILL_POINT("snapshot_half");
    if (ended && !labels)
        s->phase = PHASE_FINISH;
    else
        ask(storage, labels && !ended ? PHASE_LABELS : PHASE_SLICE);
    return STATUS_OK;
}

bool storage__snapshot_step(struct storage *storage, int64_t now_ms) {
    struct snapshot *s = storage->snapshot;
    struct error_detail detail = {0};
    int status = STATUS_OK;
    if (atomic_load_explicit(&s->asked, memory_order_acquire))
        return false; /* the storage thread is at it */
    switch ((enum phase)s->phase) {
    case PHASE_IDLE:
        if (!is_due(storage, now_ms))
            return false;
        status = start(storage, &detail);
        break;
    case PHASE_LABELS:
    case PHASE_SLICE:
        status = piece_write(storage, &detail);
        break;
    case PHASE_FINISH:
        status = finish(storage, &detail);
        break;
    case PHASE_PUBLISH:
        /* The log before the snapshot is not read again: a delete there that blocks need is in the manifest.
         */
        if (storage__deletes_needed(storage) < s->position)
            return storage__deletes_save(storage, now_ms);
        /* Repeated until it succeeds: a manifest that could not be synced may count or not. */
        if (retry_waits(&s->retry, now_ms))
            return false;
        if (publish(storage, now_ms, &detail) < 0) {
            retry_after(&s->retry, now_ms, RETRY_MS_MIN);
            metric_add(METRIC_maintain_errors, 1);
            log_warn("the manifest could not be written; trying again", LOG_STR("error", detail.text));
            return false;
        }
        return true;
    case PHASE_DROP:
        job_release(s);
        storage__snapshot_sweep(storage);
        KILL_POINT("snapshot_swept");
        return true;
    }
    if (status < 0) {
        error_set(&detail, status, "%s", status_message(status));
        job_fail(storage, now_ms, &detail);
    }
    return true;
}
