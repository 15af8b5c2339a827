#include "tests/unit/query/fake_storage.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/assert.h"

struct fake_series {
    struct label labels[STORAGE_LABELS_MAX];
    size_t label_count;
    int64_t *times_ms;
    double *values;
    size_t count, capacity;
};

struct storage {
    struct fake_series **series;
    size_t count;
    uint64_t damaged;
};

struct storage_selection {
    struct storage *storage;
    size_t *indices;
    size_t count;
};

struct storage *fake_storage_new(void) {
    struct storage *storage = mem_zalloc(sizeof *storage);
    ASSERT(storage != NULL);
    return storage;
}

void fake_storage_clear(struct storage *storage) {
    for (size_t i = 0; i < storage->count; i++) {
        struct fake_series *series = storage->series[i];
        for (size_t k = 0; k < series->label_count; k++) {
            mem_free((void *)(uintptr_t)series->labels[k].name.data);
            mem_free((void *)(uintptr_t)series->labels[k].value.data);
        }
        mem_free(series->times_ms);
        mem_free(series->values);
        mem_free(series);
    }
    mem_free(storage->series);
    storage->series = NULL;
    storage->count = 0;
}

void fake_storage_damage(struct storage *storage, uint64_t pieces) {
    storage->damaged = pieces;
}

void fake_storage_free(struct storage *storage) {
    fake_storage_clear(storage);
    mem_free(storage);
}

static int label_order(const void *a, const void *b) {
    return slice_compare(((const struct label *)a)->name, ((const struct label *)b)->name);
}

static struct slice text_copy(struct slice s) {
    char *copy = mem_strndup(s.data == NULL ? "" : (const char *)s.data, s.len);
    ASSERT(copy != NULL);
    return slice_of(copy, s.len);
}

size_t fake_storage_series(struct storage *storage, const struct label *labels, size_t count) {
    struct label sorted[STORAGE_LABELS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (labels[i].value.len > 0)
            sorted[n++] = labels[i];
    }
    if (n > 0)
        qsort(sorted, n, sizeof sorted[0], label_order);
    for (size_t i = 0; i < storage->count; i++) {
        struct fake_series *series = storage->series[i];
        bool equal = series->label_count == n;
        for (size_t k = 0; equal && k < n; k++)
            equal = slice_equal(series->labels[k].name, sorted[k].name) &&
                    slice_equal(series->labels[k].value, sorted[k].value);
        if (equal)
            return i;
    }
    struct fake_series *series = mem_zalloc(sizeof *series);
    ASSERT(series != NULL);
    for (size_t k = 0; k < n; k++)
        series->labels[k] = (struct label){text_copy(sorted[k].name), text_copy(sorted[k].value)};
    series->label_count = n;
    if ((storage->count & (storage->count - 1)) == 0) {
        storage->series = mem_realloc(storage->series, (storage->count == 0 ? 1 : storage->count * 2) *
                                                           sizeof(struct fake_series *));
        ASSERT(storage->series != NULL);
    }
    storage->series[storage->count] = series;
    return storage->count++;
}

void fake_storage_add(struct storage *storage, size_t index, int64_t time_ms, double value) {
    struct fake_series *series = storage->series[index];
    if (series->count == series->capacity) {
        series->capacity = series->capacity == 0 ? 16 : series->capacity * 2;
        series->times_ms = mem_realloc(series->times_ms, series->capacity * sizeof(int64_t));
        series->values = mem_realloc(series->values, series->capacity * sizeof(double));
        ASSERT(series->times_ms != NULL && series->values != NULL);
    }
    ASSERT(series->count == 0 || series->times_ms[series->count - 1] < time_ms);
    series->times_ms[series->count] = time_ms;
    series->values[series->count++] = value;
}

void fake_storage_empty(struct storage *storage, size_t series) {
    storage->series[series]->count = 0;
}

int storage_select(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                   int64_t time_min_ms, int64_t time_max_ms, size_t series_max,
                   struct storage_selection **out) {
    struct storage_selection *selection = mem_zalloc(sizeof *selection);
    if (selection == NULL)
        return STATUS_NO_MEMORY;
    selection->storage = storage;
    selection->indices = mem_alloc((storage->count + 1) * sizeof(size_t));
    if (selection->indices == NULL) {
        mem_free(selection);
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < storage->count; i++) {
        const struct fake_series *series = storage->series[i];
        bool matches = true, has_samples = false;
        for (size_t m = 0; matches && m < matcher_count; m++) {
            struct slice value = {0};
            for (size_t k = 0; k < series->label_count; k++) {
                if (slice_equal(series->labels[k].name, matchers[m].name))
                    value = series->labels[k].value;
            }
            matches = matcher_match(&matchers[m], value);
        }
        for (size_t k = 0; matches && k < series->count; k++)
            has_samples =
                has_samples || (series->times_ms[k] >= time_min_ms && series->times_ms[k] <= time_max_ms);
        if (matches && has_samples)
            selection->indices[selection->count++] = i;
    }
    if (series_max > 0 && selection->count > series_max) {
        selection_close(selection);
        return STATUS_BUDGET;
    }
    *out = selection;
    return STATUS_OK;
}

void selection_close(struct storage_selection *selection) {
    mem_free(selection->indices);
    mem_free(selection);
}

size_t selection_series_count(const struct storage_selection *selection) {
    return selection->count;
}

static const struct fake_series *series_at(const struct storage_selection *selection, size_t index) {
    ASSERT(index < selection->count);
    return selection->storage->series[selection->indices[index]];
}

size_t selection_labels(const struct storage_selection *selection, size_t index, struct label *out) {
    const struct fake_series *series = series_at(selection, index);
    if (series->label_count > 0)
        memcpy(out, series->labels, series->label_count * sizeof *out);
    return series->label_count;
}

size_t selection_labels_named(const struct storage_selection *selection, size_t index,
                              const struct slice *names, size_t name_count, struct label *out) {
    const struct fake_series *series = series_at(selection, index);
    size_t count = 0;
    for (size_t k = 0; k < series->label_count; k++)
        if (slice_among(series->labels[k].name, names, name_count))
            out[count++] = series->labels[k];
    return count;
}

struct slice selection_label(const struct storage_selection *selection, size_t index, struct slice name) {
    const struct fake_series *series = series_at(selection, index);
    for (size_t k = 0; k < series->label_count; k++) {
        if (slice_equal(series->labels[k].name, name))
            return series->labels[k].value;
    }
    return slice_of(NULL, 0);
}

uint64_t selection_damaged(const struct storage_selection *selection) {
    return selection->storage->damaged;
}

void selection_damage_text(struct storage_selection *selection, char *out, size_t bytes) {
    snprintf(out, bytes, "%s", selection->storage->damaged > 0 ? "block 7" : "");
}

uint64_t selection_series_id(const struct storage_selection *selection, size_t index) {
    return selection->indices[index];
}

int selection_read(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                   int64_t time_max_ms, struct sample_columns *columns) {
    const struct fake_series *series = series_at(selection, index);
    if (sample_columns_reserve(columns, series->count) < 0)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < series->count; i++) {
        if (series->times_ms[i] < time_min_ms || series->times_ms[i] > time_max_ms)
            continue;
        columns->times_ms[columns->count] = series->times_ms[i];
        columns->values[columns->count++] = series->values[i];
    }
    return STATUS_OK;
}

int selection_read_newest(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                          int64_t time_max_ms, struct sample_columns *columns) {
    return selection_read(selection, index, time_min_ms, time_max_ms, columns);
}
