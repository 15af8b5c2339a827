/* block_labels.c: label names, and values of a name, of all series or of those that matchers select.
 *
 * Without matchers it is a walk over the index. With matchers, the selected series are a set, and a value is
 * told if its postings touch the set; where few series are selected and the label has many values, the labels
 * of those series are gathered and sorted instead. */
#include <stdlib.h>

#include "base/alloc.h"
#include "storage/block/block_private.h"

#define CANDIDATE_COST 8

struct telling {
    struct block__reading *reading;
    const struct block__set *set; /* NULL: all series */
    int (*each)(void *context, struct slice text, uint64_t series_count);
    void *context;
    bool touched; /* while looking for one value of a name */
};

static int no_memory(struct block__reading *reading) {
    return error_set(reading->detail, STATUS_NO_MEMORY, "listing labels: out of memory");
}

/* Does any ordinal of the walk stand in the set? */
static int walk_touches(struct block__walk *walk, const struct block__set *set, bool *out) {
    int status;
    struct block__run_of_ordinals run;
    *out = false;
    while ((status = block__walk_next(walk, &run)) == STATUS_OK) {
        if (run.first >= set->end)
            return STATUS_OK;
        if (block__set_touches(set, run)) {
            *out = true;
            return STATUS_OK;
        }
    }
    return status < 0 ? status : STATUS_OK;
}

static int value_touches(struct telling *telling, const struct block__value_entry *entry, bool *out) {
    struct block__walk walk;
    int status = block__walk_value(telling->reading, entry, telling->set->first, &walk);
    return status < 0 ? status : walk_touches(&walk, telling->set, out);
}

/* ---- Names -------------------------------------------------------------------------------------------- */

static int name_value(void *context, struct slice value, const struct block__value_entry *entry) {
    struct telling *telling = context;
    (void)value;
    int status = value_touches(telling, entry, &telling->touched);
    return status < 0 ? status : telling->touched ? STATUS_END : STATUS_OK;
}

static int name_each(void *context, struct slice name, uint32_t number,
                     const struct block__name_entry *entry) {
    struct telling *telling = context;
    int status = STATUS_OK;
    bool touched = true;
    if (telling->set != NULL && entry->present == BLOCK__PRESENT_STORED) {
        struct block__walk walk;
        TRY(block__walk_table(telling->reading, BLOCK__TABLE_PRESENT, number, telling->set->first, &walk));
        TRY(walk_touches(&walk, telling->set, &touched));
    } else if (telling->set != NULL && entry->present == BLOCK__PRESENT_NONE) {
        telling->touched = false;
        TRY(block__reading_values(telling->reading, entry, (struct slice){NULL, 0}, name_value, telling));
        touched = telling->touched;
    }
    if (touched)
        TRY(telling->each(telling->context, name, entry->series_count));
out:
    return status;
}

int block_label_names(struct block *block, const struct matcher *matchers, size_t count,
                      int (*each)(void *context, struct slice name, uint64_t series_count), void *context,
                      struct error_detail *detail) {
    int status = STATUS_OK;
    struct block__set set = {0};
    struct block__reading reading;
    struct telling telling = {.reading = &reading, .each = each, .context = context};
    TRY(block__reading_begin(block, detail, &reading));
    if (count > 0) {
        TRY(block__select_set(&reading, matchers, count, &set));
        telling.set = &set;
    }
    if (count == 0 || set.end > set.first)
        TRY(block__reading_names(&reading, name_each, &telling));
out:
    block__set_release(&set);
    block__reading_end(&reading);
    return status;
}

/* ---- Values ------------------------------------------------------------------------------------------- */

static int value_each(void *context, struct slice value, const struct block__value_entry *entry) {
    struct telling *telling = context;
    bool touched = true;
    if (telling->set != NULL) {
        int status = value_touches(telling, entry, &touched);
        if (status < 0)
            return status;
    }
    return touched ? telling->each(telling->context, value, entry->series_count) : STATUS_OK;
}

static int value_order(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* Of few series: their labels, sorted. */
static int values_gather(struct block__reading *reading, const struct block__name_entry *entry,
                         struct slice name, const struct block__set *set, struct telling *telling) {
    int status = STATUS_OK;
    struct block_view *view = NULL;
    struct arena arena;
    size_t count = 0, capacity = (size_t)block__set_count(set);
    arena_init(&arena, 0, 0);
    struct slice *values = mem_alloc(capacity * sizeof *values);
    if (values == NULL || block_view_open(reading->block, &view) < 0) {
        status = no_memory(reading);
        goto out;
    }
    struct block__run_of_ordinals run = {0};
    while (block__set_next(set, run.first + run.length, &run) == STATUS_OK) {
        for (uint32_t ordinal = run.first; ordinal < run.first + run.length; ordinal++) {
            struct slice labels;
            TRY(block_view_labels(view, ordinal, &labels, reading->detail));
            struct slice value = label_bytes_get(labels, name);
            if (value.len == 0)
                continue;
            values[count] = arena_copy(&arena, value);
            if (values[count++].data == NULL) {
                status = no_memory(reading);
                goto out;
            }
        }
    }
    if (count > 0)
        qsort(values, count, sizeof *values, value_order);
    for (size_t i = 0; i < count; i++) {
        struct block__value_entry found;
        if (i > 0 && slice_equal(values[i - 1], values[i]))
            continue;
        status = block__reading_value(reading, entry, values[i], &found);
        if (status == STATUS_NOT_FOUND)
            status = block__reading_corrupt(reading, BLOCK__TABLE_VALUES);
        if (status < 0)
            goto out;
        TRY(telling->each(telling->context, values[i], found.series_count));
    }
out:
    block_view_close(view);
    arena_release(&arena);
    mem_free(values);
    return status;
}

int block_label_values(struct block *block, struct slice name, const struct matcher *matchers, size_t count,
                       int (*each)(void *context, struct slice value, uint64_t series_count), void *context,
                       struct error_detail *detail) {
    int status = STATUS_OK;
    struct block__set set = {0};
    struct block__reading reading;
    struct block__name_entry entry;
    uint32_t number;
    struct telling telling = {.reading = &reading, .each = each, .context = context};
    TRY(block__reading_begin(block, detail, &reading));
    status = block__reading_name(&reading, name, &entry, &number);
    if (status == STATUS_NOT_FOUND) {
        status = STATUS_OK;
        goto out;
    }
    if (status < 0)
        goto out;
    if (count > 0) {
        TRY(block__select_set(&reading, matchers, count, &set));
        if (set.end == set.first)
            goto out;
        telling.set = &set;
        if (block__set_count(&set) * CANDIDATE_COST < entry.pair_count) {
            status = values_gather(&reading, &entry, name, &set, &telling);
            goto out;
        }
    }
    TRY(block__reading_values(&reading, &entry, (struct slice){NULL, 0}, value_each, &telling));
out:
    block__set_release(&set);
    block__reading_end(&reading);
    return status;
}
