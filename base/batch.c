/* batch.c: the growing of sample columns. */
#include "base/batch.h"

#include "base/alloc.h"
#include "base/status.h"

#define COLUMNS_CAPACITY_MIN ((size_t)128)

int sample_columns_reserve(struct sample_columns *columns, size_t more) {
    if (more <= columns->capacity - columns->count)
        return STATUS_OK;
    if (more > SIZE_MAX / 32 - columns->count)
        return STATUS_NO_MEMORY;
    size_t capacity = columns->capacity * 2;
    if (capacity < columns->count + more)
        capacity = columns->count + more;
    if (capacity < COLUMNS_CAPACITY_MIN)
        capacity = COLUMNS_CAPACITY_MIN;
    /* capacity is raised only when all three have grown; a column that grew alone is merely larger than
     * needed */
    int64_t *times = mem_realloc(columns->times_ms, capacity * sizeof *times);
    if (times == NULL)
        return STATUS_NO_MEMORY;
    columns->times_ms = times;
    double *values = mem_realloc(columns->values, capacity * sizeof *values);
    if (values == NULL)
        return STATUS_NO_MEMORY;
    columns->values = values;
    int64_t *starts = mem_realloc(columns->starts_ms, capacity * sizeof *starts);
    if (starts == NULL)
        return STATUS_NO_MEMORY;
    columns->starts_ms = starts;
    columns->capacity = capacity;
    return STATUS_OK;
}

void sample_columns_release(struct sample_columns *columns) {
    mem_free(columns->times_ms);
    mem_free(columns->values);
    mem_free(columns->starts_ms);
    *columns = (struct sample_columns){0};
}
