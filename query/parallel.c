#include "query/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/alloc.h"

#define WORKERS_MAX       8
#define SLOTS_PER_WORKER  64
#define SERIES_HELPED_MIN 64 /* for fewer a thread costs more than it does */
#define SLOTS_HELPED_MIN  8
#define SLOTS_POINTS_MAX  (1u << 19) /* in columns that wait: every selector of a query has such */

/* Helpers of all queries together: as many as there are cores beside the caller's. */
static _Atomic int helpers_busy;

static int cores_count(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static int helpers_take(int want) {
    int free = cores_count() - 1, busy = atomic_load(&helpers_busy);
    for (;;) {
        int take = free - busy < want ? free - busy : want;
        if (take <= 0)
            return 0;
        if (atomic_compare_exchange_weak(&helpers_busy, &busy, busy + take))
            return take;
    }
}

int column_slot_make(struct eval *eval, size_t grid_count, struct column_slot *slot) {
    slot->values = eval_alloc(eval, (grid_count + 1) * sizeof *slot->values);
    slot->present = eval_alloc(eval, (bits_words(grid_count) + 1) * sizeof *slot->present);
    if (slot->values == NULL || slot->present == NULL)
        return eval_no_room(eval);
    if (eval->samples_at_step != NULL) {
        slot->looked = eval_alloc(eval, (grid_count + 1) * sizeof *slot->looked);
        if (slot->looked == NULL)
            return eval_no_room(eval);
    }
    return STATUS_OK;
}

void column_slot_clear(struct column_slot *slot, size_t grid_count) {
    slot->status = STATUS_OK;
    slot->queried = 0;
    slot->is_empty = true;
    memset(slot->present, 0, bits_words(grid_count) * sizeof *slot->present);
    if (slot->looked != NULL)
        memset(slot->looked, 0, grid_count * sizeof *slot->looked);
}

static int columns_make(struct column_reader *reader, size_t slot_count) {
    reader->slots = eval_alloc(reader->eval, slot_count * sizeof *reader->slots);
    if (reader->slots == NULL)
        return eval_no_room(reader->eval);
    for (size_t i = 0; i < slot_count; i++) {
        int status = column_slot_make(reader->eval, reader->grid_count, &reader->slots[i]);
        if (status < 0)
            return status;
    }
    reader->slot_count = slot_count;
    return STATUS_OK;
}

int column_reader_open(struct column_reader *reader, size_t grid_count) {
    size_t series = selection_series_count(reader->selection), workers = 1;
    reader->grid_count = grid_count;
    if (!reader->alone && series >= SERIES_HELPED_MIN)
        workers = (size_t)cores_count() < WORKERS_MAX ? (size_t)cores_count() : WORKERS_MAX;
    reader->workers = mem_zalloc(workers * sizeof *reader->workers);
    if (reader->workers == NULL)
        return eval_no_room(reader->eval);
    reader->worker_count = workers;
    size_t slots = workers == 1 ? 1 : workers * SLOTS_PER_WORKER;
    while (slots > 1 && slots * grid_count > SLOTS_POINTS_MAX)
        slots /= 2;
    return columns_make(reader, slots);
}

static void slot_fill(struct column_reader *reader, struct column_worker *worker, struct column_slot *slot) {
    struct sample_columns *columns = &worker->columns;
    columns->count = 0;
    column_slot_clear(slot, reader->grid_count);
    slot->status =
        selection_read(reader->selection, slot->index, reader->time_min_ms, reader->time_max_ms, columns);
    slot->sample_count = columns->count;
    if (slot->status < 0)
        return;
    if (reader->drop_stale)
        stale_drop(columns);
    if (columns->count == 0)
        return;
    reader->make(reader->context, worker, slot);
    slot->is_empty = !bits_any(slot->present, reader->grid_count);
}

struct help {
    struct column_reader *reader;
    struct column_worker *worker;
    pthread_t thread;
};

static void *help_run(void *argument) {
    struct help *help = argument;
    struct column_reader *reader = help->reader;
    size_t at;
    while ((at = atomic_fetch_add(&reader->claimed, 1)) < reader->slot_used) {
        struct column_slot *slot = &reader->slots[at];
        slot->status = (at & 15) == 0 ? eval_stop_status(reader->eval) : STATUS_OK;
        if (slot->status >= 0)
            slot_fill(reader, help->worker, slot);
    }
    return NULL;
}

/* The next few series, all at once. */
static void slots_fill(struct column_reader *reader) {
    size_t left = selection_series_count(reader->selection) - reader->next;
    reader->slot_used = left < reader->slot_count ? left : reader->slot_count;
    reader->slot_at = 0;
    for (size_t i = 0; i < reader->slot_used; i++)
        reader->slots[i].index = reader->next++;
    atomic_store(&reader->claimed, 0);
    struct help helps[WORKERS_MAX];
    int started = 0, taken = 0;
    if (reader->slot_used >= SLOTS_HELPED_MIN)
        taken = helpers_take((int)reader->worker_count - 1);
    for (int i = 0; i < taken; i++) {
        struct help *help = &helps[started];
        *help = (struct help){.reader = reader, .worker = &reader->workers[started + 1]};
        if (pthread_create(&help->thread, NULL, help_run, help) == 0)
            started++;
    }
    help_run(&(struct help){.reader = reader, .worker = &reader->workers[0]});
    for (int i = 0; i < started; i++)
        pthread_join(helps[i].thread, NULL);
    if (taken > 0)
        atomic_fetch_sub(&helpers_busy, taken);
}

static int slot_fail(struct column_reader *reader, int status) {
    struct eval *eval = reader->eval;
    if (status == STATUS_CANCELLED || status == STATUS_TIMEOUT)
        return eval_stop(eval, status);
    if (status == STATUS_NO_MEMORY)
        return eval_no_room(eval);
    eval->error->type = QUERY_ERROR_INTERNAL;
    snprintf(eval->error->text, sizeof eval->error->text, "reading samples: %s", status_message(status));
    return status;
}

int column_reader_next(struct column_reader *reader, struct column_slot **slot_out) {
    struct eval *eval = reader->eval;
    for (;;) {
        if (reader->slot_at == reader->slot_used) {
            if (reader->next == selection_series_count(reader->selection))
                return STATUS_END;
            slots_fill(reader);
            eval_damage_note(eval, reader->selection);
        }
        struct column_slot *slot = &reader->slots[reader->slot_at++];
        int status = slot->status;
        if (status < 0) /* the maker may have said why */
            return eval->error->type != QUERY_ERROR_NONE ? status : slot_fail(reader, status);
        eval->samples_read += slot->sample_count;
        eval_samples_queried(reader->node, slot->queried, slot->looked);
        status = eval_samples_check(eval, slot->sample_count);
        if (status < 0)
            return status;
        if (!slot->is_empty) {
            *slot_out = slot;
            return STATUS_OK;
        }
        status = eval_tick(eval);
        if (status < 0)
            return status;
    }
}

void column_reader_close(struct column_reader *reader) {
    for (size_t i = 0; i < reader->worker_count; i++) {
        sample_columns_release(&reader->workers[i].columns);
        mem_free(reader->workers[i].scratch);
    }
    mem_free(reader->workers);
    reader->workers = NULL;
    reader->worker_count = 0;
    if (reader->selection != NULL)
        selection_close(reader->selection);
    reader->selection = NULL;
}
