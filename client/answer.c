#include "client/answer.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "out of memory");
}

static int strange(struct error_detail *detail, const char *what) {
    return error_set(detail, STATUS_BAD_INPUT, "the answer is not one of Prometheus' API: %s; check --server",
                     what);
}

static int text_copy(struct answer *answer, const json_t *json, struct slice *out,
                     struct error_detail *detail) {
    if (!json_is_string(json))
        return strange(detail, "a string is missing");
    struct slice from = slice_of(json_string_value(json), json_string_length(json));
    *out = arena_copy(&answer->arena, from);
    return out->data == NULL && from.len > 0 ? no_memory(detail) : STATUS_OK;
}

static int label_order(const void *a, const void *b) {
    return slice_compare(((const struct label *)a)->name, ((const struct label *)b)->name);
}

static int labels_read(struct answer *answer, json_t *metric, struct answer_series *series,
                       struct error_detail *detail) {
    int status = STATUS_OK;
    const char *name;
    json_t *value;
    series->labels = ARENA_ARRAY(&answer->arena, struct label, json_object_size(metric) + 1);
    if (series->labels == NULL)
        return no_memory(detail);
    json_object_foreach(metric, name, value) {
        struct label *label = &series->labels[series->label_count];
        label->name = arena_copy(&answer->arena, slice_str(name));
        if (label->name.data == NULL && name[0] != 0)
            return no_memory(detail);
        TRY(text_copy(answer, value, &label->value, detail));
        series->label_count++;
    }
    qsort(series->labels, series->label_count, sizeof *series->labels, label_order);
out:
    return status;
}

/* [time, "value"] */
static int point_read(struct answer *answer, json_t *pair, struct answer_point *point,
                      struct error_detail *detail) {
    int status = STATUS_OK;
    json_t *time = json_array_get(pair, 0);
    if (!json_is_number(time))
        return strange(detail, "a time is missing");
    double ms = round(json_number_value(time) * 1000);
    if (!(fabs(ms) < 9e18))
        return strange(detail, "a time is out of range");
    point->time_ms = (int64_t)ms;
    TRY(text_copy(answer, json_array_get(pair, 1), &point->text, detail));
    point->value = strtod(json_string_value(json_array_get(pair, 1)), NULL);
out:
    return status;
}

static int series_read(struct answer *answer, json_t *item, struct answer_series *series,
                       struct error_detail *detail) {
    int status = STATUS_OK;
    json_t *values = json_object_get(item, "values"), *value = json_object_get(item, "value");
    series->histogram_count = json_array_size(json_object_get(item, "histograms")) +
                              (json_object_get(item, "histogram") != NULL ? 1 : 0);
    if (!json_is_object(json_object_get(item, "metric")))
        return strange(detail, "a series has no metric");
    TRY(labels_read(answer, json_object_get(item, "metric"), series, detail));
    size_t count = value != NULL ? 1 : json_array_size(values);
    series->points = ARENA_ARRAY(&answer->arena, struct answer_point, count + 1);
    if (series->points == NULL)
        return no_memory(detail);
    for (; series->point_count < count; series->point_count++)
        TRY(point_read(answer, value != NULL ? value : json_array_get(values, series->point_count),
                       &series->points[series->point_count], detail));
out:
    return status;
}

static int data_read(struct answer *answer, json_t *data, struct error_detail *detail) {
    static const char *const kinds[] = {"scalar", "string", "vector", "matrix"};
    int status = STATUS_OK;
    const char *kind = json_string_value(json_object_get(data, "resultType"));
    json_t *result = json_object_get(data, "result");
    size_t index = 0;
    while (kind != NULL && index < 4 && strcmp(kind, kinds[index]) != 0)
        index++;
    if (kind == NULL || index == 4 || !json_is_array(result))
        return strange(detail, "no result");
    answer->kind = (enum answer_kind)index;
    bool plain = answer->kind == ANSWER_SCALAR || answer->kind == ANSWER_STRING;
    size_t count = plain ? 1 : json_array_size(result);
    answer->series = ARENA_ARRAY(&answer->arena, struct answer_series, count + 1);
    if (answer->series == NULL)
        return no_memory(detail);
    if (plain) {
        answer->series[0].points = ARENA_NEW(&answer->arena, struct answer_point);
        if (answer->series[0].points == NULL)
            return no_memory(detail);
        answer->series[0].point_count = 1;
        TRY(point_read(answer, result, answer->series[0].points, detail));
        answer->series_count = 1;
        goto out;
    }
    for (; answer->series_count < count; answer->series_count++)
        TRY(series_read(answer, json_array_get(result, answer->series_count),
                        &answer->series[answer->series_count], detail));
out:
    return status;
}

static int notes_read(struct answer *answer, json_t *root, struct error_detail *detail) {
    int status = STATUS_OK;
    json_t *lists[] = {json_object_get(root, "warnings"), json_object_get(root, "infos")};
    answer->notes =
        ARENA_ARRAY(&answer->arena, struct slice, json_array_size(lists[0]) + json_array_size(lists[1]) + 1);
    if (answer->notes == NULL)
        return no_memory(detail);
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < json_array_size(lists[i]); k++) {
            TRY(text_copy(answer, json_array_get(lists[i], k), &answer->notes[answer->note_count], detail));
            answer->note_count++;
        }
    }
out:
    return status;
}

int answer_read(struct slice body, struct answer *out, struct error_detail *detail) {
    int status = STATUS_OK;
    struct answer answer = {0};
    json_error_t fault;
    json_set_alloc_funcs(mem_alloc, mem_free);
    arena_init(&answer.arena, 256 << 10, 0);
    json_t *root = json_loadb((const char *)body.data, body.len, JSON_ALLOW_NUL, &fault);
    const char *outcome = json_string_value(json_object_get(root, "status"));
    if (outcome == NULL) {
        status = strange(detail, root == NULL ? "not JSON" : "no status");
        goto out;
    }
    if (strcmp(outcome, "error") == 0) {
        TRY(text_copy(&answer, json_object_get(root, "errorType"), &answer.error_type, detail));
        TRY(text_copy(&answer, json_object_get(root, "error"), &answer.error, detail));
    } else {
        TRY(data_read(&answer, json_object_get(root, "data"), detail));
    }
    TRY(notes_read(&answer, root, detail));
    *out = answer;
out:
    json_decref(root);
    if (status < 0)
        arena_release(&answer.arena);
    return status;
}

void answer_release(struct answer *answer) {
    arena_release(&answer->arena);
}
