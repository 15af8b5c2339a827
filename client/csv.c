/* csv.c: a row a sample (RFC 4180, line ends as on Unix). */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/float_text.h"
#include "client/show.h"

static void field_print(struct buf *out, struct slice text) {
    bool quote = false;
    for (size_t i = 0; i < text.len && !quote; i++)
        quote = text.data[i] == '"' || text.data[i] == ',' || text.data[i] == '\n' || text.data[i] == '\r';
    if (!quote) {
        buf_append(out, text.data, text.len);
        return;
    }
    buf_append_byte(out, '"');
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '"')
            buf_append_byte(out, '"');
        buf_append_byte(out, text.data[i]);
    }
    buf_append_byte(out, '"');
}

/* The metric's name first, then in byte order. */
static int name_order(const void *a, const void *b) {
    const struct slice *left = a, *right = b;
    struct slice metric = slice_str(LABEL_NAME_METRIC);
    bool left_first = slice_equal(*left, metric), right_first = slice_equal(*right, metric);
    return left_first != right_first ? (left_first ? -1 : 1) : slice_compare(*left, *right);
}

/* Every label name once. NULL: no memory. */
static struct slice *columns_find(const struct answer *answer, size_t *count_out) {
    size_t total = 0, count = 0;
    for (size_t i = 0; i < answer->series_count; i++)
        total += answer->series[i].label_count;
    struct slice *names = mem_alloc((total + 1) * sizeof *names);
    if (names == NULL)
        return NULL;
    total = 0;
    for (size_t i = 0; i < answer->series_count; i++) {
        for (size_t k = 0; k < answer->series[i].label_count; k++)
            names[total++] = answer->series[i].labels[k].name;
    }
    qsort(names, total, sizeof *names, name_order);
    for (size_t i = 0; i < total; i++) {
        if (count == 0 || !slice_equal(names[count - 1], names[i]))
            names[count++] = names[i];
    }
    *count_out = count;
    return names;
}

static void row_print(struct buf *out, const struct answer_point *point, struct slice labels) {
    char time[24];
    buf_append(out, time, time_text_json(point->time_ms, time));
    buf_append_byte(out, ',');
    field_print(out, point->text);
    buf_append(out, labels.data, labels.len);
    buf_append_byte(out, '\n');
}

void show_csv(const struct answer *answer, struct buf *out) {
    size_t count;
    struct slice *names = columns_find(answer, &count);
    struct buf labels;
    if (names == NULL) {
        out->failed = true;
        return;
    }
    buf_append_str(out, "time,value");
    for (size_t i = 0; i < count; i++) {
        buf_append_byte(out, ',');
        field_print(out, names[i]);
    }
    buf_append_byte(out, '\n');
    buf_init(&labels);
    for (size_t i = 0; i < answer->series_count; i++) {
        const struct answer_series *series = &answer->series[i];
        buf_clear(&labels);
        for (size_t k = 0; k < count; k++) {
            buf_append_byte(&labels, ',');
            for (size_t n = 0; n < series->label_count; n++) {
                if (slice_equal(series->labels[n].name, names[k]))
                    field_print(&labels, series->labels[n].value);
            }
        }
        for (size_t k = 0; k < series->point_count; k++)
            row_print(out, &series->points[k], buf_slice(&labels));
        out->failed = out->failed || labels.failed;
    }
    buf_release(&labels);
    mem_free(names);
}
