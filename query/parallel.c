#include "query/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"

#define WORKERS_MAX       8
#define GROUPS            16 /* in the ring */
#define GROUP_SLOTS_MAX   64
#define SERIES_HELPED_MIN 64         /* for fewer a thread costs more than it does */
#define SLOTS_POINTS_MAX  (1u << 19) /* in columns that wait: every selector of a query has such */
#define ROOM_WAIT_NS      1000000    /* a helper without work for longer leaves its core to other queries */

struct helper {
    struct column_reader *reader;
    struct column_worker worker;
    pthread_t thread;
    bool has_thread; /* the caller's to know */
    bool has_left;   /* its thread, which is at its end */
};

/* Who fills the ring beside the caller. Groups are claimed in order, filled by whoever claimed them, and used
 * by the caller in order: [used, claimed) are in the ring. */
struct column_crew {
    pthread_mutex_t lock;  /* over everything here but `stops` */
    pthread_cond_t filled; /* a group was, and the caller waits */
    pthread_cond_t room;   /* the caller used some groups, or is done */
    size_t claimed;
    size_t used;
    bool is_filled[GROUPS];
    bool caller_waits;
    size_t waiting; /* helpers */
    atomic_bool stops;
    size_t helper_count;
    struct helper helpers[WORKERS_MAX - 1];
};

/* Helpers of all queries together: as many as there are cores beside the caller's. */
static _Atomic int helpers_busy;

static int cores_count(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static bool helper_take(void) {
    int free = cores_count() - 1, busy = atomic_load(&helpers_busy);
    while (busy < free)
        if (atomic_compare_exchange_weak(&helpers_busy, &busy, busy + 1))
            return true;
    return false;
}

int column_slot_make(struct eval *eval, size_t grid_count, struct column_slot *slot) {
    slot->values = eval_alloc(eval, (grid_count + 1) * sizeof *slot->values);
    slot->present = eval_alloc(eval, (bits_words(grid_count) + 1) * sizeof *slot->present);
    if (slot->values == NULL || slot->present == NULL)
        return eval_no_room(eval);
    if (eval->samples_at_step != NULL) {
        slot->looked = eval_alloc(eval, (grid_count + 1) * sizeof *slot->looked);
        slot->read = eval_alloc(eval, (eval->step_count + 1) * sizeof *slot->read);
        if (slot->looked == NULL || slot->read == NULL)
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
    return STATUS_OK;
}

static int crew_make(struct column_reader *reader, size_t helper_count) {
    struct column_crew *crew = mem_zalloc(sizeof *crew);
    if (crew == NULL)
        return eval_no_room(reader->eval);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->filled, NULL);
    pthread_cond_init(&crew->room, &attributes);
    pthread_condattr_destroy(&attributes);
    crew->helper_count = helper_count;
    reader->crew = crew;
    return STATUS_OK;
}

int column_reader_open(struct column_reader *reader, size_t grid_count) {
    size_t series = selection_series_count(reader->selection);
    size_t cores = (size_t)cores_count(), slots = 1;
    reader->grid_count = grid_count;
    reader->group_slots = 1;
    if (!reader->alone && series >= SERIES_HELPED_MIN && cores > 1) {
        reader->group_slots = GROUP_SLOTS_MAX;
        while (reader->group_slots > 1 && reader->group_slots * GROUPS * grid_count > SLOTS_POINTS_MAX)
            reader->group_slots /= 2;
        while (reader->group_slots > 1 && reader->group_slots * GROUPS > series)
            reader->group_slots /= 2;
        slots = reader->group_slots * GROUPS;
        int status = crew_make(reader, cores < WORKERS_MAX ? cores - 1 : WORKERS_MAX - 1);
        if (status < 0)
            return status;
    }
    return columns_make(reader, slots);
}

static void samples_place(const struct column_reader *reader, const struct sample_columns *columns,
                          uint32_t *read) {
    memset(read, 0, reader->eval->step_count * sizeof *read);
    for (size_t i = 0; i < columns->count; i++)
        read[placing_step(reader->eval, &reader->placing, columns->times_ms[i])]++;
}

static void slot_fill(struct column_reader *reader, struct column_worker *worker, struct column_slot *slot) {
    struct sample_columns *columns = &worker->columns;
    columns->count = 0;
    column_slot_clear(slot, reader->grid_count);
    slot->status = (reader->newest_only ? selection_read_newest : selection_read)(
        reader->selection, slot->index, reader->time_min_ms, reader->time_max_ms, columns);
    slot->sample_count = columns->count;
    if (slot->status < 0)
        return;
    if (slot->read != NULL)
        samples_place(reader, columns, slot->read);
    if (reader->drop_stale)
        stale_drop(columns);
    if (columns->count == 0)
        return;
    reader->make(reader->context, worker, slot);
    slot->is_empty = !bits_any(slot->present, reader->grid_count);
}

static size_t group_end(const struct column_reader *reader, size_t group) {
    size_t end = (group + 1) * reader->group_slots, series = selection_series_count(reader->selection);
    return end < series ? end : series;
}

static struct column_slot *group_slots(const struct column_reader *reader, size_t group) {
    return &reader->slots[reader->crew == NULL ? 0 : group % GROUPS * reader->group_slots];
}

static void group_fill(struct column_reader *reader, struct column_worker *worker, size_t group) {
    struct column_slot *slot = group_slots(reader, group);
    size_t end = group_end(reader, group);
    for (size_t i = group * reader->group_slots; i < end; i++, slot++) {
        slot->index = i;
        slot->status = (i & 15) == 0 ? eval_stop_status(reader->eval) : STATUS_OK;
        if (reader->crew != NULL && atomic_load_explicit(&reader->crew->stops, memory_order_relaxed))
            return;
        if (slot->status >= 0)
            slot_fill(reader, worker, slot);
    }
}

/* ---- The crew: all under its lock, which is left while a group is filled ---------------------------------
 */

static bool crew_is_all_claimed(const struct column_reader *reader) {
    return reader->crew->claimed * reader->group_slots >= selection_series_count(reader->selection);
}

static bool crew_can_claim(const struct column_reader *reader) {
    return reader->crew->claimed - reader->crew->used < GROUPS && !crew_is_all_claimed(reader);
}

static void crew_fill_one(struct column_reader *reader, struct column_worker *worker) {
    struct column_crew *crew = reader->crew;
    size_t group = crew->claimed++;
    pthread_mutex_unlock(&crew->lock);
    group_fill(reader, worker, group);
    pthread_mutex_lock(&crew->lock);
    crew->is_filled[group % GROUPS] = true;
}

/* False: there was none for long. */
static bool helper_waits_room(struct column_crew *crew) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ROOM_WAIT_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    crew->waiting++;
    int error = pthread_cond_timedwait(&crew->room, &crew->lock, &until);
    crew->waiting--;
    return error == 0;
}

static void *helper_run(void *argument) {
    struct helper *helper = argument;
    struct column_reader *reader = helper->reader;
    struct column_crew *crew = reader->crew;
    pthread_mutex_lock(&crew->lock);
    while (!atomic_load(&crew->stops) && !crew_is_all_claimed(reader)) {
        if (crew_can_claim(reader)) {
            crew_fill_one(reader, &helper->worker);
            if (crew->caller_waits)
                pthread_cond_signal(&crew->filled);
        } else if (!helper_waits_room(crew) && !crew_can_claim(reader)) {
            break;
        }
    }
    helper->has_left = true;
    atomic_fetch_sub(&helpers_busy, 1);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

/* As many as there are free cores, while there is enough to do for them. */
static void helpers_start(struct column_reader *reader) {
    struct column_crew *crew = reader->crew;
    size_t left = selection_series_count(reader->selection) - crew->used * reader->group_slots;
    for (size_t i = 0; i < crew->helper_count && left >= SERIES_HELPED_MIN; i++) {
        struct helper *helper = &crew->helpers[i];
        if (helper->has_thread && !helper->has_left)
            continue;
        if (!helper_take())
            return;
        if (helper->has_thread)
            pthread_join(helper->thread, NULL);
        helper->reader = reader;
        helper->has_left = false;
        helper->has_thread = pthread_create(&helper->thread, NULL, helper_run, helper) == 0;
        if (!helper->has_thread) {
            atomic_fetch_sub(&helpers_busy, 1);
            return;
        }
    }
}

/* Gives back the group before, and has the next one filled. */
static void crew_group_next(struct column_reader *reader) {
    struct column_crew *crew = reader->crew;
    pthread_mutex_lock(&crew->lock);
    if (reader->group > crew->used) {
        crew->is_filled[crew->used % GROUPS] = false;
        crew->used++;
    }
    if (crew->waiting > 0 && crew->claimed - crew->used <= GROUPS / 2)
        pthread_cond_broadcast(&crew->room);
    if (!crew->is_filled[crew->used % GROUPS])
        helpers_start(reader);
    while (!crew->is_filled[crew->used % GROUPS]) {
        if (crew_can_claim(reader)) {
            crew_fill_one(reader, &reader->worker);
        } else {
            crew->caller_waits = true;
            pthread_cond_wait(&crew->filled, &crew->lock);
            crew->caller_waits = false;
        }
    }
    pthread_mutex_unlock(&crew->lock);
}

static void worker_release(struct column_worker *worker) {
    sample_columns_release(&worker->columns);
    mem_free(worker->scratch);
    *worker = (struct column_worker){0};
}

static void crew_release(struct column_crew *crew) {
    if (crew == NULL)
        return;
    pthread_mutex_lock(&crew->lock);
    atomic_store(&crew->stops, true);
    pthread_cond_broadcast(&crew->room);
    pthread_mutex_unlock(&crew->lock);
    for (size_t i = 0; i < crew->helper_count; i++) {
        if (crew->helpers[i].has_thread)
            pthread_join(crew->helpers[i].thread, NULL);
        worker_release(&crew->helpers[i].worker);
    }
    pthread_cond_destroy(&crew->filled);
    pthread_cond_destroy(&crew->room);
    pthread_mutex_destroy(&crew->lock);
    mem_free(crew);
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
        if (reader->next == reader->next_end) {
            if (reader->next == selection_series_count(reader->selection))
                return STATUS_END;
            if (reader->crew != NULL)
                crew_group_next(reader);
            else
                group_fill(reader, &reader->worker, reader->group);
            reader->next_end = group_end(reader, reader->group++);
            eval_damage_note(eval, reader->selection);
        }
        struct column_slot *slot =
            group_slots(reader, reader->group - 1) + reader->next++ % reader->group_slots;
        int status = slot->status;
        if (status < 0) /* the maker may have said why */
            return eval->error->type != QUERY_ERROR_NONE ? status : slot_fail(reader, status);
        eval->samples_read += slot->sample_count;
        for (size_t i = 0; slot->read != NULL && i < eval->step_count; i++)
            eval->read_at_step[i] += slot->read[i];
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

size_t column_labels(const struct column_reader *reader, const struct column_slot *slot, struct label *out) {
    return reader->names == NULL ? selection_labels(reader->selection, slot->index, out)
                                 : selection_labels_named(reader->selection, slot->index, reader->names,
                                                          reader->name_count, out);
}

void column_reader_close(struct column_reader *reader) {
    crew_release(reader->crew);
    reader->crew = NULL;
    worker_release(&reader->worker);
    if (reader->selection != NULL)
        selection_close(reader->selection);
    reader->selection = NULL;
}
