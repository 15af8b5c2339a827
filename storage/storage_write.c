/* storage_write.c: the way of a sample: prepare → queue → group → log → sync → apply → done.
 *
 * The rule everything hangs on: a write is applied, and its `done` called with STATUS_OK, only by group_end
 * with the status of a commit whose sync succeeded (docs/durability.md, D1, D2). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "base/float_text.h"
#include "base/kill_point.h"
#include "base/metrics.h"
#include "base/mutation.h"
#include "storage/storage_private.h"
#include "storage/wal/wal_record.h"

#define REASON_LINES_MAX      5
#define DECLARATION_BYTES_MAX 24 /* slot, id and length beside the labels */
#define TEXT_OLD              "out of bounds"
#define TEXT_FUTURE           "out of bounds: timestamp is too far in the future"

/* ---- lists ---- */

static void list_append(struct write_list *list, struct storage_write *write) {
    write->next = NULL;
    *list->end = write;
    list->end = &write->next;
}

static struct storage_write *list_take(struct write_list *list) {
    struct storage_write *write = list->first;
    if (write != NULL) {
        list->first = write->next;
        if (list->first == NULL)
            list->end = &list->first;
        write->next = NULL;
    }
    return write;
}

static void list_move(struct write_list *to, struct write_list *from) {
    struct storage_write *write;
    while ((write = list_take(from)) != NULL)
        list_append(to, write);
}

/* ---- reasons ---- */

static void reason_line(struct storage_write *write, struct slice labels, const char *what) {
    if (write->reason_count >= REASON_LINES_MAX)
        return;
    struct buf line;
    buf_init(&line);
    buf_printf(&line, "%s for series ", what);
    label_bytes_print(&line, labels);
    size_t room = sizeof write->result.reasons - write->reasons_len;
    if (!line.failed && line.len + 2 <= room) {
        write->reason_count++;
        if (write->reasons_len > 0)
            write->result.reasons[write->reasons_len++] = '\n';
        memcpy(write->result.reasons + write->reasons_len, line.data, line.len);
        write->reasons_len += line.len;
        write->result.reasons[write->reasons_len] = '\0';
    } else if (write->reasons_len == 0) {
        /* Labels too long to show: the words alone. */
        write->reason_count++;
        int len = snprintf(write->result.reasons, sizeof write->result.reasons, "%s", what);
        write->reasons_len = (size_t)len < sizeof write->result.reasons ? (size_t)len : 0;
    }
    buf_release(&line);
}

void storage__reason_add(struct storage_write *write, uint32_t slot, const char *what) {
    struct buf labels;
    buf_init(&labels);
    series_labels_append(write->storage->series, slot, &labels);
    reason_line(write, buf_slice(&labels), what);
    buf_release(&labels);
}

/* ---- prepare ---- */

static enum metric_id fault_metric(enum label_fault fault) {
    switch (fault) {
    case LABEL_FAULT_EMPTY_NAME:
        return METRIC_series_dropped_empty_name;
    case LABEL_FAULT_DUPLICATE_NAME:
        return METRIC_series_dropped_duplicate;
    case LABEL_FAULT_INVALID_UTF8:
        return METRIC_series_dropped_utf8;
    case LABEL_FAULT_TOO_MANY:
        return METRIC_series_dropped_many;
    case LABEL_FAULT_NAME_TOO_LONG:
        return METRIC_series_dropped_name_long;
    case LABEL_FAULT_VALUE_TOO_LONG:
        return METRIC_series_dropped_value_long;
    default:
        return METRIC_series_dropped_no_name;
    }
}

/* What Prometheus drops silently is dropped silently; what is over a limit of ours is refused with a reason.
 */
static void series_fault(struct storage_write *write, struct slice labels, enum label_fault fault,
                         const struct limits *limits) {
    char what[128];
    metric_add(fault_metric(fault), 1);
    switch (fault) {
    case LABEL_FAULT_TOO_MANY:
        snprintf(what, sizeof what, "more than %llu labels",
                 (unsigned long long)limits->labels_per_series_max);
        break;
    case LABEL_FAULT_NAME_TOO_LONG:
        snprintf(what, sizeof what, "label name longer than %llu bytes",
                 (unsigned long long)limits->label_name_bytes_max);
        break;
    case LABEL_FAULT_VALUE_TOO_LONG:
        snprintf(what, sizeof what, "label value longer than %llu bytes",
                 (unsigned long long)limits->label_value_bytes_max);
        break;
    default:
        write->result.series_dropped++;
        return;
    }
    write->result.series_refused++;
    reason_line(write, labels, what);
}

/* Late samples wait in memory until they are in a block. When that falls behind, who sends more of them has
 * to wait, and nobody else. */
static int late_check(const struct storage *storage, const struct storage_write *write,
                      struct error_detail *detail) {
    int64_t cut_ms = storage->apply_cut_ms;
    uint64_t held = late_memory_bytes(storage->late);
    if (held < storage->options.limits->late_held_bytes_max)
        return STATUS_OK;
    for (size_t i = 0; i < write->count; i++) {
        int64_t time_ms = write->samples[i].time_ms;
        if (time_ms < cut_ms || head_is_late(storage->head, write->slots[i], time_ms)) {
            metric_add(METRIC_writes_refused_late, 1);
            return error_set(detail, STATUS_BUSY,
                             "late samples hold %llu bytes of memory, their limit: send again later",
                             (unsigned long long)held);
        }
    }
    return STATUS_OK;
}

/* Takes over the samples of one series that are inside retention and not too far ahead. */
static void samples_take(struct storage_write *write, const struct write_batch *batch,
                         const struct batch_series *series, uint32_t slot, int64_t time_min_ms,
                         int64_t time_max_ms) {
    for (uint32_t i = 0; i < series->sample_count; i++) {
        uint32_t at = series->sample_first + i;
        bool future = batch->samples[at].time_ms > time_max_ms;
        if (future || batch->samples[at].time_ms < time_min_ms) {
            write->result.samples_refused++;
            metric_add(future ? METRIC_samples_refused_future : METRIC_samples_refused_old, 1);
            reason_line(write, series->labels, future ? TEXT_FUTURE : TEXT_OLD);
            continue;
        }
        write->slots[write->count] = slot;
        write->samples[write->count] = batch->samples[at];
        if (write->starts_ms != NULL)
            write->starts_ms[write->count] = batch->starts_ms[at];
        write->count++;
    }
}

/* The oldest time that is kept: of the clock, or of the newest sample if that is older, so that a clock that
 * jumps ahead refuses nothing. */
static int64_t time_min(const struct storage *storage, int64_t now_ms) {
    int64_t oldest_ms, newest_ms, retention_ms = (int64_t)storage->options.limits->retention_ms;
    head_range(storage->head, &oldest_ms, &newest_ms);
    if (oldest_ms <= newest_ms && newest_ms < now_ms)
        now_ms = newest_ms;
    return retention_ms == 0 || now_ms < INT64_MIN + retention_ms ? INT64_MIN : now_ms - retention_ms;
}

/* Finds or makes the batch's series, a block at a time so that the table's cells are on their way when they
 * are needed. */
static int batch_resolve(struct storage *storage, const struct write_batch *batch,
                         struct storage_write *write) {
    int status = STATUS_OK;
    struct arena scratch;
    arena_init(&scratch, 0, 0);
    int64_t now_ms = clock_wall_ms(storage->options.clock);
    int64_t time_min_ms = time_min(storage, now_ms);
    int64_t time_max_ms = now_ms + (int64_t)storage->options.limits->future_ms_max;
    for (size_t begin = 0; begin < batch->series_count; begin += SERIES_FIND_MANY) {
        size_t end =
            begin + SERIES_FIND_MANY < batch->series_count ? begin + SERIES_FIND_MANY : batch->series_count;
        struct slice labels[SERIES_FIND_MANY];
        uint32_t slots[SERIES_FIND_MANY];
        for (size_t i = begin; i < end; i++)
            labels[i - begin] = batch->series[i].labels;
        series_find_many(storage->series, labels, end - begin, slots);
        for (size_t i = begin; i < end; i++) {
            const struct batch_series *series = &batch->series[i];
            if (series->sample_count == 0)
                continue;
            uint32_t slot = slots[i - begin];
            if (slot == SLOT_NONE) {
                enum label_fault fault;
                arena_reset(&scratch);
                TRY(series_ensure(storage->series, series->labels, 0, &scratch, &fault, &slot));
                if (fault != LABEL_FAULT_NONE) {
                    series_fault(write, series->labels, fault, storage->options.limits);
                    continue;
                }
            }
            write->log_bytes += series->labels.len + DECLARATION_BYTES_MAX;
            samples_take(write, batch, series, slot, time_min_ms, time_max_ms);
        }
    }
    metric_set(METRIC_head_series, series_count(storage->series));
out:
    arena_release(&scratch);
    return status;
}

int storage__queue_check(const struct storage *storage, struct error_detail *detail) {
    uint64_t queued = atomic_load_explicit(&storage->queue_bytes, memory_order_relaxed);
    if (queued < storage->options.limits->write_queue_bytes_max)
        return STATUS_OK;
    return error_set(detail, STATUS_BUSY, "the write queue holds %llu bytes, its limit: send again later",
                     (unsigned long long)queued);
}

int storage_write_prepare(struct storage *storage, const struct write_batch *batch,
                          struct error_detail *detail, struct storage_write **out) {
    const struct limits *limits = storage->options.limits;
    int status = storage__queue_check(storage, detail);
    if (status < 0)
        return status;
    struct storage_write *write = mem_zalloc(sizeof *write);
    if (write == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "out of memory");
    write->storage = storage;
    write->pin = series_pin(storage->series);
    arena_init(&write->arena, 4096, 0);
    size_t count = batch->sample_count;
    if (count > 0) {
        write->slots = arena_alloc(&write->arena, count * sizeof *write->slots);
        write->samples = arena_alloc(&write->arena, count * sizeof *write->samples);
        if (batch->starts_ms != NULL)
            write->starts_ms = arena_alloc(&write->arena, count * sizeof *write->starts_ms);
        if (write->slots == NULL || write->samples == NULL ||
            (batch->starts_ms != NULL && write->starts_ms == NULL)) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
        TRY(batch_resolve(storage, batch, write));
        TRY(late_check(storage, write, detail));
    }
    if (write->count > 0) {
        wal_record_samples_write(&write->payload, write->slots, write->samples, write->starts_ms,
                                 write->count);
        if (write->payload.failed) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
        write->log_bytes += write->payload.len;
        if (write->log_bytes > limits->log_segment_bytes / 8 * 7)
            status = error_set(
                detail, STATUS_TOO_LARGE,
                "the request takes %zu bytes in the log, a segment holds %llu: send smaller batches",
                write->log_bytes, (unsigned long long)limits->log_segment_bytes);
    }
out:
    if (status < 0) {
        storage_write_free(write);
        if (status == STATUS_BUSY)
            error_set(detail, status, "the limit of %llu series is reached",
                      (unsigned long long)limits->series_max);
        return error_set(detail, status, "%s", status_message(status));
    }
    *out = write;
    return status;
}

void storage_write_free(struct storage_write *write) {
    if (write == NULL)
        return;
    storage__delete_uncount(write);
    storage__delete_work_free(write->work);
    tombstone_unref(write->tombstone);
    series_unpin(write->storage->series, write->pin);
    buf_release(&write->payload);
    arena_release(&write->arena);
    mem_free(write);
}

const struct storage_write_result *storage_write_result(const struct storage_write *write) {
    return &write->result;
}

/* ---- submit ---- */

/* The deliberate fault of MUTATION_ACK_UNSYNCED_TWIN: is the same request waiting for its sync already? */
static bool queue_has_twin(const struct storage *storage, const struct storage_write *write) {
    const struct write_list *lists[] = {&storage->queue, &storage->waiting, &storage->group};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        for (const struct storage_write *other = lists[i]->first; other != NULL; other = other->next)
            if (slice_equal(buf_slice(&other->payload), buf_slice(&write->payload)))
                return true;
    return false;
}

void storage_write_submit(struct storage *storage, struct storage_write *write,
                          void (*done)(void *context, struct storage_write *write), void *context) {
    write->done = done;
    write->context = context;
    write->queued_ns = clock_monotonic_ns(storage->options.clock);
    atomic_fetch_add_explicit(&storage->queue_bytes, write->log_bytes, memory_order_relaxed);
    pthread_mutex_lock(&storage->queue_mutex);
    if (MUTATED(ACK_UNSYNCED_TWIN) && queue_has_twin(storage, write)) {
        pthread_mutex_unlock(&storage->queue_mutex);
        atomic_fetch_sub_explicit(&storage->queue_bytes, write->log_bytes, memory_order_relaxed);
        write->result.samples_equal = write->count;
        done(context, write);
        return;
    }
    bool was_empty = storage->queue.first == NULL;
    list_append(&storage->queue, write);
    if (was_empty)
        pthread_cond_signal(&storage->queue_filled);
    pthread_mutex_unlock(&storage->queue_mutex);
}

/* ---- apply ---- */

/* Notes where the oldest sample of a head's window stands in the log. */
static int window_note(struct storage *storage, int64_t time_ms, wal_position position) {
    if (time_ms >= storage->window_noted.begin_ms && time_ms < storage->window_noted.end_ms)
        return STATUS_OK;
    struct late_range window = storage__window_of(time_ms, (int64_t)storage->options.limits->window_ms);
    int64_t begin_ms = window.begin_ms;
    storage->window_noted = window;
    for (size_t i = storage->window_count; i-- > 0;)
        if (storage->windows[i].begin_ms == begin_ms)
            return STATUS_OK;
    struct window_position *windows =
        array_ensure(storage->windows, &storage->window_capacity, storage->window_count + 1, sizeof *windows);
    if (windows == NULL) {
        storage->window_noted = (struct late_range){0, 0};
        return STATUS_NO_MEMORY;
    }
    storage->windows = windows;
    storage->windows[storage->window_count++] = (struct window_position){begin_ms, position};
    return STATUS_OK;
}

static int late_apply(struct storage *storage, uint32_t slot, struct sample sample, int64_t start_ms,
                      wal_position position, enum head_verdict *verdict, uint64_t *existing_bits) {
    enum late_verdict late;
    struct late_range small = storage__window_of(sample.time_ms, (int64_t)storage->options.limits->window_ms);
    /* No late window spans what is in blocks and what is not: a block covers each whole. */
    struct late_range range = small;
    if (sample.time_ms < storage->dropped_ms)
        range = storage__range_for(storage, sample.time_ms, storage->dropped_ms);
    if (range.end_ms > storage->dropped_ms)
        range = small;
    int status =
        late_add(storage->late, slot, sample, start_ms, position, range, small, &late, existing_bits);
    if (status < 0)
        return status;
    *verdict = late == LATE_STORED ? HEAD_STORED : late == LATE_EQUAL ? HEAD_EQUAL : HEAD_CONFLICT;
    if (late == LATE_CONFLICT && sample.time_ms < storage->apply_cut_ms) {
        /* Which of the two came first is in a block, perhaps: this one may be the repetition, and a
         * repetition is always acknowledged. Answers show the first one either way. */
        metric_add(METRIC_samples_refused_conflict, 1);
        *verdict = HEAD_EQUAL;
    }
    if (late == LATE_STORED)
        metric_add(METRIC_samples_late, 1);
    return STATUS_OK;
}

int storage__late_restore(struct storage *storage, uint32_t slot, struct sample sample, int64_t start_ms,
                          wal_position position) {
    enum head_verdict verdict;
    uint64_t existing_bits;
    return late_apply(storage, slot, sample, start_ms, position, &verdict, &existing_bits);
}

static int sample_apply(struct storage *storage, struct storage_write *write, uint32_t slot,
                        struct sample sample, int64_t start_ms, wal_position position) {
    enum head_verdict verdict;
    uint64_t existing_bits = 0;
    int status = STATUS_OK;
    if (storage->deleting.first != NULL)
        TRY(storage__deletes_reach(storage, slot));
    if (sample.time_ms >= storage->apply_cut_ms)
        TRY(window_note(storage, sample.time_ms, position));
    TRY(head_apply(storage->head, slot, sample, start_ms, storage->apply_cut_ms, &verdict, &existing_bits));
    if ((verdict == HEAD_EQUAL || verdict == HEAD_CONFLICT) &&
        hidden_holds(storage->hidden, slot, sample.time_ms))
        verdict = HEAD_LATE; /* what is there was deleted */
    if (verdict == HEAD_LATE)
        TRY(late_apply(storage, slot, sample, start_ms, position, &verdict, &existing_bits));
    if (verdict == HEAD_STORED) {
        /* nobody else adds */
        atomic_store_explicit(&storage->samples_applied,
                              atomic_load_explicit(&storage->samples_applied, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        if (write != NULL)
            write->result.samples_stored++;
        return STATUS_OK;
    }
    if (write == NULL)
        return STATUS_OK;
    if (verdict == HEAD_EQUAL) {
        write->result.samples_equal++;
        return STATUS_OK;
    }
    write->result.samples_refused++;
    metric_add(METRIC_samples_refused_conflict, 1);
    double existing, given;
    memcpy(&existing, &existing_bits, sizeof existing);
    memcpy(&given, &sample.value_bits, sizeof given);
    char existing_text[FLOAT_TEXT_BYTES_MAX + 1], given_text[FLOAT_TEXT_BYTES_MAX + 1];
    existing_text[float_text_go(existing, existing_text)] = '\0';
    given_text[float_text_go(given, given_text)] = '\0';
    char what[2 * FLOAT_TEXT_BYTES_MAX + 128];
    snprintf(what, sizeof what,
             "duplicate sample for timestamp %lld; overrides not allowed: existing %s, new value %s",
             (long long)sample.time_ms, existing_text, given_text);
    storage__reason_add(write, slot, what);
out:
    return status;
}

#define SERIES_AHEAD 12 /* samples; the series are fetched by then, */
#define CHUNKS_AHEAD 6  /* and the ends of their chunks */

int storage__apply(struct storage *storage, struct storage_write *write, const uint32_t *slots,
                   const struct sample *samples, const int64_t *starts_ms, size_t count,
                   wal_position position, size_t *applied) {
    for (size_t i = *applied; i < count; i++) {
        if (i + SERIES_AHEAD < count)
            head_prefetch(storage->head, slots[i + SERIES_AHEAD]);
        if (i + CHUNKS_AHEAD < count)
            head_prefetch_chunk(storage->head, slots[i + CHUNKS_AHEAD]);
        int status = sample_apply(storage, write, slots[i], samples[i],
                                  starts_ms == NULL ? START_NONE : starts_ms[i], position);
        if (status < 0)
            return status;
        *applied = i + 1;
    }
    return STATUS_OK;
}

/* Goes on where it stopped; a delete only begins. STATUS_NO_MEMORY is the only failure: a chunk of our own
 * that does not decode is a mistake of our own. */
static int write_apply(struct storage *storage, struct storage_write *write) {
    if (write->tombstone != NULL) {
        write->tombstone->position = storage->group_position;
        KILL_POINT("delete_logged");
        return storage__delete_begin(storage, write);
    }
    int status = storage__apply(storage, write, write->slots, write->samples, write->starts_ms, write->count,
                                storage->group_position, &write->applied);
    ASSERT(status == STATUS_OK || status == STATUS_NO_MEMORY);
    return status;
}

static void write_end(struct storage *storage, struct storage_write *write, int status) {
    write->result.status = status;
    storage__delete_uncount(write);
    if (status == STATUS_OK) {
        metric_add(METRIC_samples_stored, write->result.samples_stored);
        metric_add(METRIC_samples_duplicate, write->result.samples_equal);
    }
    atomic_fetch_sub_explicit(&storage->queue_bytes, write->log_bytes, memory_order_relaxed);
    write->done(write->context, write);
}

/* Answers the group's writes with one status. */
static void group_end(struct storage *storage, int status) {
    struct storage_write *write;
    while ((write = list_take(&storage->group)) != NULL)
        write_end(storage, write, status);
}

static void deleting_add(struct storage *storage, struct storage_write *write) {
    list_append(&storage->deleting, write);
    metric_set(METRIC_deletes_applying, ++storage->deleting_count);
}

static void deleting_end(struct storage *storage, int status) {
    struct storage_write *write = list_take(&storage->deleting);
    metric_set(METRIC_deletes_applying, --storage->deleting_count);
    storage__delete_work_free(write->work);
    write->work = NULL;
    KILL_POINT("delete_applied");
    write_end(storage, write, status);
}

/* A slice. True if there may be more to do at once. */
static bool deleting_step(struct storage *storage) {
    if (storage->deleting.first == NULL)
        return false;
    int status = storage__delete_step(storage);
    ASSERT(status >= 0 || status == STATUS_NO_MEMORY);
    if (status == STATUS_END)
        deleting_end(storage, STATUS_OK);
    storage->deleting_starved = status < 0;
    return status >= 0;
}

/* The group is durable: its writes are applied and answered, in log order. Without memory the rest waits for
 * the next step, and the log with it: what is in the log and not in the head would be judged otherwise by a
 * replay.
 */
static void group_apply(struct storage *storage) {
    storage->applying = true;
    KILL_POINT("group_logged");
    while (storage->group.first != NULL) {
        if (!MUTATED(APPLY_BEFORE_SYNC) && write_apply(storage, storage->group.first) < 0)
            return;
        struct storage_write *write = list_take(&storage->group);
        if (write->work != NULL)
            deleting_add(storage, write);
        else
            write_end(storage, write, STATUS_OK);
    }
    storage->applying = false;
}

static void group_committed(void *context, int status) {
    struct storage *storage = context;
    storage->group_ended = true;
    storage->group_status = status;
}

/* ---- the next group ---- */

/* Which slots the segment has declared; a new segment begins with those that need not be. */
static int declared_prepare(struct storage *storage, uint32_t segment) {
    int status = slot_bits_ensure(&storage->declared, series_slot_end(storage->series));
    if (status < 0)
        return status;
    if (segment != storage->declared_segment) {
        slot_bits_assign(&storage->declared,
                         &storage->labelled); /* what the label part has need not be said */
        storage->declared_segment = segment;
    }
    return STATUS_OK;
}

/* Declares what the write uses for the first time in this segment, then its samples. */
static int group_add(struct storage *storage, const struct storage_write *write) {
    int status = STATUS_OK;
    struct buf *scratch = &storage->scratch;
    struct buf labels;
    buf_init(&labels);
    size_t count = 0;
    for (size_t i = 0; i < write->count; i++) {
        uint32_t slot = write->slots[i];
        if (!slot_bits_has(&storage->declared, slot)) {
            slot_bits_add(&storage->declared, slot);
            count++;
            buf_append(&labels, &slot, sizeof slot);
        }
    }
    if (labels.failed) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    if (count > 0) {
        buf_clear(scratch);
        wal_record_series_begin(scratch, count);
        struct buf one;
        buf_init(&one);
        for (size_t i = 0; i < count && !one.failed; i++) {
            uint32_t slot;
            memcpy(&slot, labels.data + i * sizeof slot, sizeof slot);
            buf_clear(&one);
            series_labels_append(storage->series, slot, &one);
            wal_record_series_write(scratch, slot, series_id(storage->series, slot), buf_slice(&one));
        }
        bool failed = scratch->failed || one.failed;
        buf_release(&one);
        if (failed) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
        TRY(wal_group_append(storage->wal, WAL_RECORD_SERIES, buf_slice(scratch)));
    }
    TRY(wal_group_append(storage->wal, write->tombstone != NULL ? WAL_RECORD_DELETE : WAL_RECORD_SAMPLES,
                         buf_slice(&write->payload)));
out:
    buf_release(&labels);
    return status;
}

/* Builds the log group of these writes. Any failure leaves declarations unknown, so they are forgotten. */
static int group_build(struct storage *storage, const struct storage_write *first) {
    int status = STATUS_OK;
    TRY(declared_prepare(storage, wal_segment(storage->wal)));
    wal_group_begin(storage->wal);
    for (const struct storage_write *write = first; write != NULL; write = write->next)
        if (write->payload.len > 0)
            TRY(group_add(storage, write));
out:
    return status;
}

int storage__group_carry(struct storage *storage, const struct storage_write *first) {
    return group_build(storage, first);
}

static void group_fail(struct storage *storage, int status) {
    storage->declared_segment = SEGMENT_UNKNOWN;
    group_end(storage, status);
}

/* May it go into the group that is being gathered? A delete is alone in its group: groups have positions, and
 * what is below that of a delete is deleted. */
static bool group_takes(const struct storage *storage, size_t bytes, const struct storage_write *write) {
    if (storage->group.first == NULL)
        return true;
    return write->tombstone == NULL && storage->group.first->tombstone == NULL &&
           (bytes == 0 || bytes + write->log_bytes <= storage->options.limits->log_group_bytes_max);
}

/* Takes writes that wait, up to the group's bound, and hands them to the log. */
static void group_start(struct storage *storage) {
    size_t bytes = 0;
    bool any = false;
    while (storage->waiting.first != NULL && group_takes(storage, bytes, storage->waiting.first)) {
        struct storage_write *write = list_take(&storage->waiting);
        bytes += write->log_bytes;
        any = any || write->payload.len > 0;
        list_append(&storage->group, write);
    }
    if (!any) {
        group_apply(storage);
        return;
    }
    storage__slots_release(storage, wal_segment(storage->wal));
    int status = group_build(storage, storage->group.first);
    if (status == STATUS_OK && !wal_group_fits(storage->wal)) {
        status = wal_roll(storage->wal);
        storage__slots_release(storage, wal_segment(storage->wal));
        if (status == STATUS_OK)
            status = group_build(storage, storage->group.first);
        if (status == STATUS_OK && !wal_group_fits(storage->wal))
            status = STATUS_TOO_LARGE;
    }
    if (status < 0) {
        group_fail(storage, status);
        return;
    }
    storage->group_position = wal_group_position(storage->wal);
    storage->group_started_ns = clock_monotonic_ns(storage->options.clock);
    if (MUTATED(APPLY_BEFORE_SYNC))
        for (struct storage_write *write = storage->group.first; write != NULL; write = write->next)
            (void)write_apply(storage, write);
    atomic_fetch_add_explicit(&storage->log_bytes, wal_group_bytes(storage->wal), memory_order_relaxed);
    wal_group_commit(storage->wal, group_committed, storage);
    if (MUTATED(ACK_BEFORE_SYNC))
        group_apply(storage);
}

/* ---- steps ---- */

bool storage_step(struct storage *storage, int64_t now_ms) {
    late_now(storage->late, now_ms);
    head_over(storage->head, storage__over_ms(storage, now_ms));
    bool worked = io_poll(storage->options.io, 0) > 0;
    if (storage->group_ended) {
        storage->group_ended = false;
        worked = true;
        metric_observe_ns(METRIC_wal_commit_seconds,
                          clock_monotonic_ns(storage->options.clock) - storage->group_started_ns);
        if (storage->group_status == STATUS_OK)
            group_apply(storage);
        else
            group_fail(storage, storage->group_status);
    } else if (storage->applying) {
        group_apply(storage);
        worked = !storage->applying;
    }
    worked |= deleting_step(storage);
    if (storage->group.first == NULL && storage->deleting.first == NULL &&
        wal_state(storage->wal) != WAL_COMMITTING)
        worked |= storage__maintain_serve(storage) || storage__snapshot_serve(storage) ||
                  storage__copy_serve(storage) || storage__retire_serve(storage);
    pthread_mutex_lock(&storage->queue_mutex);
    list_move(&storage->waiting, &storage->queue);
    pthread_mutex_unlock(&storage->queue_mutex);
    metric_set(METRIC_write_queue_bytes, atomic_load_explicit(&storage->queue_bytes, memory_order_relaxed));

    if (wal_state(storage->wal) != WAL_COMMITTING)
        wal_tick(storage->wal, now_ms);
    if (wal_state(storage->wal) == WAL_READY)
        atomic_store_explicit(&storage->deletes_unproven, false, memory_order_release);
    switch (wal_state(storage->wal)) {
    case WAL_READY:
        atomic_store_explicit(&storage->log_started, true, memory_order_release);
        if (storage->waiting.first != NULL && storage->group.first == NULL &&
            (storage->waiting.first->tombstone == NULL || !storage__delete_waits(storage))) {
            group_start(storage);
            worked = true;
        }
        break;
    case WAL_FAILED:
        /* Nothing waits for a log that may be gone for long: the sender keeps the data and tries again. */
        if (storage->waiting.first != NULL) {
            list_move(&storage->group, &storage->waiting);
            group_fail(storage, STATUS_IO);
            worked = true;
        }
        break;
    case WAL_COMMITTING:
        break;
    }
    return worked;
}

void storage__finish(struct storage *storage) {
    while (storage->queue.first != NULL || storage->waiting.first != NULL || storage->group.first != NULL ||
           storage->deleting.first != NULL) {
        storage_step(storage, clock_wall_ms(storage->options.clock));
        if (storage->applying) {
            /* No memory, and no time to wait for it. The group is durable and the next start finds it, but
             * its senders can't be told; nothing may go into the log behind it. */
            list_move(&storage->group, &storage->waiting);
            list_move(&storage->group, &storage->queue);
            group_end(storage, STATUS_NO_MEMORY);
            storage->applying = false;
        }
        while (storage->deleting_starved && storage->deleting.first != NULL)
            deleting_end(storage, STATUS_NO_MEMORY); /* likewise */
        if (storage->group.first != NULL && storage->deleting.first == NULL)
            storage_wait(storage, 100);
    }
}
