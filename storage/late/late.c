/* late.c: see late.h. */
#include "storage/late/late.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"

#define TAIL_MAX ((uint32_t)64)
#define RUNS_MAX 32 /* 64 · 2^31 samples */

struct late_sample {
    int64_t time_ms;
    uint64_t value_bits;
    int64_t start_ms;
};

struct run {
    struct late_sample *samples; /* ascending */
    uint32_t count;
};

struct late_series {
    uint32_t slot;
    uint32_t tail_capacity;
    struct run tail; /* takes new samples; at TAIL_MAX it becomes a run */
    uint32_t run_count;
    struct run *runs; /* each at least twice as long as the next */
};

struct late_window {
    struct late *late;
    struct late_range range;
    uint64_t position_first;
    int64_t since_ms;
    uint64_t sample_count;
    uint64_t bytes;
    bool sealed;
    struct late_series *series;
    uint32_t series_count;
    uint32_t series_capacity;
    uint32_t *map; /* open addressing: slot → index + 1 */
    uint32_t map_mask;
};

struct late {
    pthread_mutex_t mutex; /* everything below; held for one sample, or for copying one series */
    struct late_window **windows;
    size_t window_count;
    size_t window_capacity;
    int64_t now_ms;
};

int late_new(struct late **out) {
    struct late *late = mem_zalloc(sizeof *late);
    if (late == NULL)
        return STATUS_NO_MEMORY;
    pthread_mutex_init(&late->mutex, NULL);
    *out = late;
    return STATUS_OK;
}

static void window_free(struct late_window *window) {
    for (uint32_t i = 0; i < window->series_count; i++) {
        for (uint32_t j = 0; j < window->series[i].run_count; j++)
            mem_free(window->series[i].runs[j].samples);
        mem_free(window->series[i].runs);
        mem_free(window->series[i].tail.samples);
    }
    mem_free(window->series);
    mem_free(window->map);
    mem_free(window);
}

void late_free(struct late *late) {
    if (late == NULL)
        return;
    for (size_t i = 0; i < late->window_count; i++)
        window_free(late->windows[i]);
    mem_free(late->windows);
    pthread_mutex_destroy(&late->mutex);
    mem_free(late);
}

/* ---- runs ---- */

/* The first index with a time at or behind `time_ms`. */
static uint32_t run_find(const struct run *run, int64_t time_ms) {
    uint32_t low = 0, high = run->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (run->samples[middle].time_ms < time_ms)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct late_sample *run_lookup(const struct run *run, int64_t time_ms) {
    uint32_t at = run_find(run, time_ms);
    return at < run->count && run->samples[at].time_ms == time_ms ? &run->samples[at] : NULL;
}

static const struct late_sample *series_lookup(const struct late_series *series, int64_t time_ms) {
    const struct late_sample *found = run_lookup(&series->tail, time_ms);
    for (uint32_t i = 0; i < series->run_count && found == NULL; i++)
        found = run_lookup(&series->runs[i], time_ms);
    return found;
}

/* Times are unique among all runs of a series. */
static int runs_merge(struct run *a, struct run *b, struct run *out) {
    struct late_sample *merged = mem_alloc((a->count + b->count) * sizeof *merged);
    if (merged == NULL)
        return STATUS_NO_MEMORY;
    uint32_t i = 0, j = 0, k = 0;
    while (i < a->count && j < b->count)
        merged[k++] = a->samples[i].time_ms < b->samples[j].time_ms ? a->samples[i++] : b->samples[j++];
    while (i < a->count)
        merged[k++] = a->samples[i++];
    while (j < b->count)
        merged[k++] = b->samples[j++];
    mem_free(a->samples);
    mem_free(b->samples);
    *out = (struct run){merged, k};
    return STATUS_OK;
}

/* The full tail becomes a run, and equal ones are merged. Without memory nothing is lost: runs stay apart,
 * and if the tail cannot become one STATUS_NO_MEMORY comes before anything changed. */
static int tail_turn(struct late_window *window, struct late_series *series) {
    if (series->run_count == RUNS_MAX)
        return STATUS_TOO_LARGE;
    if (series->runs == NULL) {
        series->runs = mem_alloc(RUNS_MAX * sizeof *series->runs);
        if (series->runs == NULL)
            return STATUS_NO_MEMORY;
        window->bytes += RUNS_MAX * sizeof *series->runs;
    }
    struct late_sample *tail = mem_alloc(TAIL_MAX * sizeof *tail);
    if (tail == NULL)
        return STATUS_NO_MEMORY;
    series->runs[series->run_count++] = series->tail;
    series->tail = (struct run){tail, 0};
    series->tail_capacity = TAIL_MAX;
    window->bytes += TAIL_MAX * sizeof *tail;
    while (series->run_count >= 2 &&
           series->runs[series->run_count - 2].count < 2 * series->runs[series->run_count - 1].count) {
        struct run *a = &series->runs[series->run_count - 2];
        if (runs_merge(a, a + 1, a) < 0)
            break;
        series->run_count--;
    }
    return STATUS_OK;
}

static int tail_grow(struct late_window *window, struct late_series *series) {
    uint32_t capacity = series->tail_capacity == 0 ? 4 : series->tail_capacity * 2;
    struct late_sample *samples = mem_realloc(series->tail.samples, capacity * sizeof *samples);
    if (samples == NULL)
        return STATUS_NO_MEMORY;
    window->bytes += (capacity - series->tail_capacity) * sizeof *samples;
    series->tail.samples = samples;
    series->tail_capacity = capacity;
    return STATUS_OK;
}

static int series_insert(struct late_window *window, struct late_series *series, struct late_sample sample) {
    int status = STATUS_OK;
    if (series->tail.count == TAIL_MAX)
        status = tail_turn(window, series);
    else if (series->tail.count == series->tail_capacity)
        status = tail_grow(window, series);
    if (status < 0)
        return status;
    uint32_t at = run_find(&series->tail, sample.time_ms);
    memmove(series->tail.samples + at + 1, series->tail.samples + at,
            (series->tail.count - at) * sizeof *series->tail.samples);
    series->tail.samples[at] = sample;
    series->tail.count++;
    window->sample_count++;
    return STATUS_OK;
}

/* ---- the map of a window ---- */

static uint32_t slot_hash(uint32_t slot) {
    return slot * UINT32_C(2654435761) >> 7;
}

static struct late_series *series_find(const struct late_window *window, uint32_t slot) {
    if (window->map == NULL)
        return NULL;
    for (uint32_t at = slot_hash(slot) & window->map_mask; window->map[at] != 0;
         at = (at + 1) & window->map_mask)
        if (window->series[window->map[at] - 1].slot == slot)
            return &window->series[window->map[at] - 1];
    return NULL;
}

static void map_put(uint32_t *map, uint32_t mask, uint32_t slot, uint32_t index) {
    uint32_t at = slot_hash(slot) & mask;
    while (map[at] != 0)
        at = (at + 1) & mask;
    map[at] = index + 1;
}

static int series_make(struct late_window *window, uint32_t slot, struct late_series **out) {
    if (window->series_count == window->series_capacity) {
        uint32_t capacity = window->series_capacity == 0 ? 16 : window->series_capacity * 2;
        uint32_t *map = mem_zalloc((size_t)capacity * 2 * sizeof *map);
        if (map == NULL)
            return STATUS_NO_MEMORY;
        struct late_series *series = mem_realloc(window->series, capacity * sizeof *series);
        if (series == NULL) {
            mem_free(map);
            return STATUS_NO_MEMORY;
        }
        window->series = series;
        for (uint32_t i = 0; i < window->series_count; i++)
            map_put(map, capacity * 2 - 1, series[i].slot, i);
        mem_free(window->map);
        window->bytes += (capacity - window->series_capacity) * (sizeof *series + 2 * sizeof *map);
        window->map = map;
        window->map_mask = capacity * 2 - 1;
        window->series_capacity = capacity;
    }
    uint32_t index = window->series_count++;
    window->series[index] = (struct late_series){.slot = slot};
    map_put(window->map, window->map_mask, slot, index);
    *out = &window->series[index];
    return STATUS_OK;
}

/* ---- adding ---- */

static bool range_holds(const struct late_range *range, int64_t time_ms) {
    return time_ms >= range->begin_ms && time_ms < range->end_ms;
}

static int window_make(struct late *late, struct late_range range, struct late_range range_small,
                       struct late_window **out) {
    for (size_t i = 0; i < late->window_count; i++) {
        const struct late_window *other = late->windows[i];
        if (!other->sealed && other->range.begin_ms < range.end_ms && range.begin_ms < other->range.end_ms)
            range = range_small;
    }
    struct late_window **windows =
        array_ensure(late->windows, &late->window_capacity, late->window_count + 1, sizeof *windows);
    if (windows == NULL)
        return STATUS_NO_MEMORY;
    late->windows = windows;
    struct late_window *window = mem_zalloc(sizeof *window);
    if (window == NULL)
        return STATUS_NO_MEMORY;
    window->late = late;
    window->range = range;
    window->position_first = UINT64_MAX;
    window->since_ms = late->now_ms;
    window->bytes = sizeof *window;
    late->windows[late->window_count++] = window;
    *out = window;
    return STATUS_OK;
}

static int add(struct late *late, uint32_t slot, struct late_sample sample, uint64_t position,
               struct late_range range, struct late_range range_small, enum late_verdict *verdict,
               uint64_t *existing_bits) {
    struct late_window *open = NULL;
    for (size_t i = 0; i < late->window_count; i++) {
        struct late_window *window = late->windows[i];
        if (!range_holds(&window->range, sample.time_ms))
            continue;
        if (!window->sealed)
            open = window;
        const struct late_series *series = series_find(window, slot);
        const struct late_sample *found = series == NULL ? NULL : series_lookup(series, sample.time_ms);
        if (found != NULL) {
            *existing_bits = found->value_bits;
            *verdict = found->value_bits == sample.value_bits ? LATE_EQUAL : LATE_CONFLICT;
            return STATUS_OK;
        }
    }
    int status = STATUS_OK;
    if (open == NULL)
        TRY(window_make(late, range, range_small, &open));
    ASSERT(range_holds(&open->range, sample.time_ms));
    struct late_series *series = series_find(open, slot);
    if (series == NULL)
        TRY(series_make(open, slot, &series));
    TRY(series_insert(open, series, sample));
    if (position < open->position_first)
        open->position_first = position;
    *verdict = LATE_STORED;
out:
    return status;
}

int late_add(struct late *late, uint32_t slot, struct sample sample, int64_t start_ms, uint64_t position,
             struct late_range range, struct late_range range_small, enum late_verdict *verdict,
             uint64_t *existing_bits) {
    pthread_mutex_lock(&late->mutex);
    int status = add(late, slot, (struct late_sample){sample.time_ms, sample.value_bits, start_ms}, position,
                     range, range_small, verdict, existing_bits);
    pthread_mutex_unlock(&late->mutex);
    return status;
}

static uint32_t run_delete(struct run *run, int64_t time_min_ms, int64_t time_max_ms) {
    uint32_t from = run_find(run, time_min_ms), to = from;
    while (to < run->count && run->samples[to].time_ms <= time_max_ms)
        to++;
    if (to > from)
        memmove(run->samples + from, run->samples + to, (run->count - to) * sizeof *run->samples);
    run->count -= to - from;
    return to - from;
}

uint64_t late_delete(struct late *late, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms) {
    uint64_t deleted = 0;
    pthread_mutex_lock(&late->mutex);
    for (size_t i = 0; i < late->window_count; i++) {
        struct late_window *window = late->windows[i];
        struct late_series *series = series_find(window, slot);
        if (series == NULL || window->range.begin_ms > time_max_ms || window->range.end_ms <= time_min_ms)
            continue;
        uint64_t gone = run_delete(&series->tail, time_min_ms, time_max_ms);
        for (uint32_t j = 0; j < series->run_count; j++)
            gone += run_delete(&series->runs[j], time_min_ms, time_max_ms);
        window->sample_count -= gone;
        deleted += gone;
    }
    pthread_mutex_unlock(&late->mutex);
    return deleted;
}

/* ---- reading ---- */

static int run_append(const struct run *run, int64_t time_min_ms, int64_t time_max_ms,
                      struct sample_columns *columns) {
    uint32_t from = run_find(run, time_min_ms), to = from;
    while (to < run->count && run->samples[to].time_ms <= time_max_ms)
        to++;
    int status = sample_columns_reserve(columns, to - from);
    if (status < 0)
        return status;
    for (uint32_t i = from; i < to; i++) {
        size_t at = columns->count++;
        columns->times_ms[at] = run->samples[i].time_ms;
        memcpy(&columns->values[at], &run->samples[i].value_bits, sizeof columns->values[at]);
        columns->starts_ms[at] = run->samples[i].start_ms;
        if (run->samples[i].start_ms != START_NONE && !columns->has_starts) {
            memset(columns->starts_ms, 0, at * sizeof *columns->starts_ms);
            columns->has_starts = 1;
        }
    }
    return STATUS_OK;
}

/* Sorts what stands behind `from`: a few ascending runs, so by merging neighbours. Times are unique. */
int late_columns_sort(struct sample_columns *columns, size_t from) {
    size_t count = columns->count - from, at = 1;
    while (at < count && columns->times_ms[from + at - 1] < columns->times_ms[from + at])
        at++;
    if (at >= count)
        return STATUS_OK;
    struct late_sample *samples = mem_alloc(2 * count * sizeof *samples), *other;
    if (samples == NULL)
        return STATUS_NO_MEMORY;
    other = samples + count;
    for (size_t i = 0; i < count; i++) {
        samples[i].time_ms = columns->times_ms[from + i];
        memcpy(&samples[i].value_bits, &columns->values[from + i], sizeof samples[i].value_bits);
        samples[i].start_ms = columns->has_starts ? columns->starts_ms[from + i] : START_NONE;
    }
    struct late_sample *in = samples, *out = other;
    for (bool again = true; again;) {
        again = false;
        for (size_t a = 0; a < count;) {
            size_t b = a + 1;
            while (b < count && in[b - 1].time_ms < in[b].time_ms)
                b++;
            size_t c = b < count ? b + 1 : b;
            while (c < count && in[c - 1].time_ms < in[c].time_ms)
                c++;
            size_t i = a, j = b, k = a;
            while (i < b && j < c)
                out[k++] = in[i].time_ms < in[j].time_ms ? in[i++] : in[j++];
            while (i < b)
                out[k++] = in[i++];
            while (j < c)
                out[k++] = in[j++];
            again |= a > 0 || c < count;
            a = c;
        }
        struct late_sample *swap = in;
        in = out;
        out = swap;
    }
    for (size_t i = 0; i < count; i++) {
        columns->times_ms[from + i] = in[i].time_ms;
        memcpy(&columns->values[from + i], &in[i].value_bits, sizeof in[i].value_bits);
        columns->starts_ms[from + i] = in[i].start_ms;
    }
    mem_free(samples);
    return STATUS_OK;
}

static int window_read(const struct late_window *window, uint32_t slot, int64_t time_min_ms,
                       int64_t time_max_ms, struct sample_columns *columns) {
    int status = STATUS_OK;
    const struct late_series *series = series_find(window, slot);
    if (series == NULL)
        return STATUS_OK;
    for (uint32_t i = 0; i < series->run_count; i++)
        TRY(run_append(&series->runs[i], time_min_ms, time_max_ms, columns));
    TRY(run_append(&series->tail, time_min_ms, time_max_ms, columns));
out:
    return status;
}

int late_read(struct late *late, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
              struct sample_columns *columns) {
    int status = STATUS_OK;
    size_t from = columns->count;
    pthread_mutex_lock(&late->mutex);
    for (size_t i = 0; i < late->window_count; i++) {
        const struct late_window *window = late->windows[i];
        if (window->range.begin_ms <= time_max_ms && window->range.end_ms > time_min_ms)
            TRY(window_read(window, slot, time_min_ms, time_max_ms, columns));
    }
out:
    pthread_mutex_unlock(&late->mutex);
    return status < 0 ? status : late_columns_sort(columns, from);
}

int late_each(struct late *late, uint32_t slot,
              int (*each)(void *context, const struct sample_columns *columns), void *context) {
    int status = STATUS_OK;
    struct sample_columns columns = {0};
    /* Windows come and go, and get samples, by the calling thread alone. */
    for (size_t i = 0; i < late->window_count; i++) {
        columns.count = 0;
        columns.has_starts = 0;
        TRY(window_read(late->windows[i], slot, INT64_MIN, INT64_MAX, &columns));
        TRY(late_columns_sort(&columns, 0));
        if (columns.count > 0)
            TRY(each(context, &columns));
    }
out:
    sample_columns_release(&columns);
    return status;
}

static bool run_overlaps(const struct run *run, int64_t time_min_ms, int64_t time_max_ms) {
    uint32_t at = run_find(run, time_min_ms);
    return at < run->count && run->samples[at].time_ms <= time_max_ms;
}

bool late_overlaps(struct late *late, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms) {
    bool overlaps = false;
    pthread_mutex_lock(&late->mutex);
    for (size_t i = 0; i < late->window_count && !overlaps; i++) {
        const struct late_series *series = series_find(late->windows[i], slot);
        if (series == NULL)
            continue;
        overlaps = run_overlaps(&series->tail, time_min_ms, time_max_ms);
        for (uint32_t j = 0; j < series->run_count && !overlaps; j++)
            overlaps = run_overlaps(&series->runs[j], time_min_ms, time_max_ms);
    }
    pthread_mutex_unlock(&late->mutex);
    return overlaps;
}

/* ---- windows ---- */

void late_now(struct late *late, int64_t now_ms) {
    late->now_ms = now_ms;
}

size_t late_count(const struct late *late) {
    return late->window_count;
}

struct late_window *late_at(struct late *late, size_t index) {
    ASSERT(index < late->window_count);
    return late->windows[index];
}

void late_info(const struct late_window *window, struct late_info *out) {
    *out = (struct late_info){window->range,        window->position_first, window->since_ms,
                              window->sample_count, window->bytes,          window->sealed};
}

bool late_pick(struct late *late, int64_t end_ms, int64_t since_ms, uint64_t bytes_max,
               struct late_info *out) {
    const struct late_window *oldest = NULL, *largest = NULL, *picked = NULL;
    uint64_t bytes = 0;
    pthread_mutex_lock(&late->mutex);
    for (size_t i = 0; i < late->window_count; i++) {
        const struct late_window *window = late->windows[i];
        bytes += window->bytes;
        if (window->sealed || window->range.end_ms > end_ms)
            continue;
        if (oldest == NULL || window->since_ms < oldest->since_ms)
            oldest = window;
        if (largest == NULL || window->bytes > largest->bytes)
            largest = window;
    }
    if (oldest != NULL && oldest->since_ms < since_ms)
        picked = oldest;
    else if (bytes > bytes_max)
        picked = largest;
    if (picked != NULL)
        late_info(picked, out);
    pthread_mutex_unlock(&late->mutex);
    return picked != NULL;
}

void late_seal(struct late_window *window) {
    pthread_mutex_lock(&window->late->mutex);
    window->sealed = true;
    pthread_mutex_unlock(&window->late->mutex);
}

void late_unseal(struct late_window *window) {
    pthread_mutex_lock(&window->late->mutex);
    window->sealed = false;
    pthread_mutex_unlock(&window->late->mutex);
}

void late_drop(struct late *late, struct late_window *window) {
    pthread_mutex_lock(&late->mutex);
    size_t at = 0;
    while (late->windows[at] != window)
        at++;
    late->window_count--;
    memmove(late->windows + at, late->windows + at + 1, (late->window_count - at) * sizeof *late->windows);
    pthread_mutex_unlock(&late->mutex);
    window_free(window);
}

static int slot_order(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int late_window_slots(struct late_window *window, uint32_t **slots_out, size_t *count_out) {
    pthread_mutex_lock(&window->late->mutex);
    uint32_t count = window->series_count;
    uint32_t *slots = mem_alloc(count * sizeof *slots);
    for (uint32_t i = 0; i < count && slots != NULL; i++)
        slots[i] = window->series[i].slot;
    pthread_mutex_unlock(&window->late->mutex);
    if (slots == NULL)
        return STATUS_NO_MEMORY;
    if (count > 0)
        qsort(slots, count, sizeof *slots, slot_order);
    *slots_out = slots;
    *count_out = count;
    return STATUS_OK;
}

int late_window_read(struct late_window *window, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms,
                     struct sample_columns *columns) {
    size_t from = columns->count;
    pthread_mutex_lock(&window->late->mutex);
    int status = window_read(window, slot, time_min_ms, time_max_ms, columns);
    pthread_mutex_unlock(&window->late->mutex);
    return status < 0 ? status : late_columns_sort(columns, from);
}

uint64_t late_position_first(const struct late *late) {
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < late->window_count; i++)
        if (late->windows[i]->position_first < first)
            first = late->windows[i]->position_first;
    return first;
}

uint64_t late_memory_bytes(const struct late *late) {
    uint64_t bytes = 0;
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&late->mutex;
    pthread_mutex_lock(mutex);
    for (size_t i = 0; i < late->window_count; i++)
        bytes += late->windows[i]->bytes;
    pthread_mutex_unlock(mutex);
    return bytes;
}

bool late_touches(const struct late *late, int64_t begin_ms, int64_t end_ms) {
    bool touches = false;
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&late->mutex;
    pthread_mutex_lock(mutex);
    for (size_t i = 0; i < late->window_count && !touches; i++)
        touches = late->windows[i]->range.begin_ms < end_ms && late->windows[i]->range.end_ms > begin_ms;
    pthread_mutex_unlock(mutex);
    return touches;
}
