/* storage_select.c: matchers and a time range → series and their samples; label names and values. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "storage/storage_private.h"

struct storage_selection {
    struct storage *storage;
    uint32_t *slots;
    size_t count;
};

int storage_select(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                   int64_t time_min_ms, int64_t time_max_ms, size_t series_max,
                   struct storage_selection **out) {
    struct storage_selection *selection = mem_zalloc(sizeof *selection);
    if (selection == NULL)
        return STATUS_NO_MEMORY;
    selection->storage = storage;
    size_t count;
    int status = series_match(storage->series, matchers, matcher_count, &selection->slots, &count);
    if (status < 0) {
        mem_free(selection);
        return status;
    }
    for (size_t i = 0; i < count; i++)
        if (head_overlaps(storage->head, selection->slots[i], time_min_ms, time_max_ms))
            selection->slots[selection->count++] = selection->slots[i];
    if (series_max != 0 && selection->count > series_max) {
        selection_close(selection);
        return STATUS_BUDGET;
    }
    *out = selection;
    return STATUS_OK;
}

void selection_close(struct storage_selection *selection) {
    if (selection == NULL)
        return;
    mem_free(selection->slots);
    mem_free(selection);
}

size_t selection_series_count(const struct storage_selection *selection) {
    return selection->count;
}

size_t selection_labels(const struct storage_selection *selection, size_t index, struct label *out) {
    ASSERT(index < selection->count);
    return series_labels(selection->storage->series, selection->slots[index], out, STORAGE_LABELS_MAX);
}

struct slice selection_label(const struct storage_selection *selection, size_t index, struct slice name) {
    ASSERT(index < selection->count);
    return series_label(selection->storage->series, selection->slots[index], name);
}

uint64_t selection_series_id(const struct storage_selection *selection, size_t index) {
    ASSERT(index < selection->count);
    return series_id(selection->storage->series, selection->slots[index]);
}

int selection_read(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                   int64_t time_max_ms, struct sample_columns *columns) {
    ASSERT(index < selection->count);
    return head_read(selection->storage->head, selection->slots[index], time_min_ms, time_max_ms, columns);
}

/* ---- label names and values ---- */

struct text_list {
    struct slice *texts;
    size_t count;
    size_t capacity;
};

static int text_append(struct text_list *list, struct slice text) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        struct slice *texts = mem_realloc(list->texts, capacity * sizeof *texts);
        if (texts == NULL)
            return STATUS_NO_MEMORY;
        list->texts = texts;
        list->capacity = capacity;
    }
    list->texts[list->count++] = text;
    return STATUS_OK;
}

static int text_order(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* Sorts, drops repeats, cuts at the limit and copies to the caller's arena. Frees the list. */
static int list_finish(struct text_list *list, int status, size_t limit, struct arena *arena,
                       struct slice **texts_out, size_t *count_out, bool *truncated_out) {
    if (status < 0)
        goto out;
    if (list->count > 0)
        qsort(list->texts, list->count, sizeof *list->texts, text_order);
    size_t unique = 0;
    for (size_t i = 0; i < list->count; i++)
        if (unique == 0 || !slice_equal(list->texts[unique - 1], list->texts[i]))
            list->texts[unique++] = list->texts[i];
    bool truncated = limit != 0 && unique > limit;
    size_t count = truncated ? limit : unique;
    struct slice *texts = ARENA_ARRAY(arena, struct slice, count);
    if (texts == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        texts[i] = arena_copy(arena, list->texts[i]);
        if (texts[i].data == NULL) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
    }
    *texts_out = texts;
    *count_out = count;
    *truncated_out = truncated;
out:
    mem_free(list->texts);
    return status;
}

/* The names on the selected series. Series share names, so each is asked for among those found already. */
static int names_of_selection(struct storage_selection *selection, struct text_list *list) {
    int status = STATUS_OK;
    struct label labels[STORAGE_LABELS_MAX];
    for (size_t i = 0; i < selection->count; i++) {
        size_t count = selection_labels(selection, i, labels);
        for (size_t k = 0; k < count; k++) {
            size_t at = 0;
            while (at < list->count && !slice_equal(list->texts[at], labels[k].name))
                at++;
            if (at == list->count)
                TRY(text_append(list, labels[k].name));
        }
    }
out:
    return status;
}

int storage_label_names(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                        int64_t time_min_ms, int64_t time_max_ms, size_t limit, struct arena *arena,
                        struct slice **names_out, size_t *count_out, bool *truncated_out) {
    struct text_list list = {0};
    struct storage_selection *selection;
    int status = storage_select(storage, matchers, matcher_count, time_min_ms, time_max_ms, 0, &selection);
    if (status == STATUS_OK) {
        status = names_of_selection(selection, &list);
        selection_close(selection);
    }
    return list_finish(&list, status, limit, arena, names_out, count_out, truncated_out);
}

/* Without matchers the name's own values are walked; one live series in the range is enough for a value. */
struct value_walk {
    struct storage *storage;
    struct text_list *list;
    int64_t time_min_ms;
    int64_t time_max_ms;
};

static int value_each(void *context, struct slice value, const uint32_t *slots, size_t slot_count) {
    struct value_walk *walk = context;
    for (size_t i = 0; i < slot_count; i++)
        if (head_overlaps(walk->storage->head, slots[i], walk->time_min_ms, walk->time_max_ms))
            return text_append(walk->list, value);
    return STATUS_OK;
}

int storage_label_values(struct storage *storage, struct slice name, const struct matcher *matchers,
                         size_t matcher_count, int64_t time_min_ms, int64_t time_max_ms, size_t limit,
                         struct arena *arena, struct slice **values_out, size_t *count_out,
                         bool *truncated_out) {
    int status = STATUS_OK;
    struct text_list list = {0};
    if (matcher_count == 0) {
        struct value_walk walk = {storage, &list, time_min_ms, time_max_ms};
        status = series_each_value(storage->series, name, value_each, &walk);
        return list_finish(&list, status, limit, arena, values_out, count_out, truncated_out);
    }
    struct storage_selection *selection;
    status = storage_select(storage, matchers, matcher_count, time_min_ms, time_max_ms, 0, &selection);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < selection->count && status == STATUS_OK; i++) {
            struct slice value = selection_label(selection, i, name);
            if (value.len > 0)
                status = text_append(&list, value);
        }
        selection_close(selection);
    }
    return list_finish(&list, status, limit, arena, values_out, count_out, truncated_out);
}
