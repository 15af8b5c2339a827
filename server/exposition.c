#include "server/exposition.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define LINE_LABELS_MAX  32
#define NUMBER_BYTES_MAX 64

void exposition_init(struct exposition *exposition, struct arena *arena, int64_t time_ms,
                     const struct label *extra, size_t extra_count) {
    *exposition =
        (struct exposition){.arena = arena, .time_ms = time_ms, .extra = extra, .extra_count = extra_count};
}

static int series_reserve(struct exposition *exposition) {
    struct write_batch *batch = &exposition->batch;
    if (batch->series_count < exposition->series_capacity)
        return STATUS_OK;
    size_t capacity = exposition->series_capacity == 0 ? 128 : exposition->series_capacity * 2;
    struct batch_series *series = arena_alloc(exposition->arena, capacity * sizeof *series);
    struct sample *samples = arena_alloc(exposition->arena, capacity * sizeof *samples);
    if (series == NULL || samples == NULL)
        return STATUS_NO_MEMORY;
    if (batch->series_count > 0) {
        memcpy(series, batch->series, batch->series_count * sizeof *series);
        memcpy(samples, batch->samples, batch->sample_count * sizeof *samples);
    }
    batch->series = series;
    batch->samples = samples;
    exposition->series_capacity = capacity;
    return STATUS_OK;
}

int exposition_add(struct exposition *exposition, struct slice name, const struct label *labels,
                   size_t label_count, double value) {
    struct write_batch *batch = &exposition->batch;
    struct slice metric_name = slice_str(LABEL_NAME_METRIC);
    if (series_reserve(exposition) != STATUS_OK)
        return STATUS_NO_MEMORY;
    size_t bytes = label_bytes_len(metric_name, name);
    for (size_t i = 0; i < label_count; i++)
        bytes += label_bytes_len(labels[i].name, labels[i].value);
    for (size_t i = 0; i < exposition->extra_count; i++)
        bytes += label_bytes_len(exposition->extra[i].name, exposition->extra[i].value);
    uint8_t *data = arena_alloc_bytes(exposition->arena, bytes);
    if (data == NULL)
        return STATUS_NO_MEMORY;
    uint8_t *p = label_bytes_write(data, metric_name, name);
    for (size_t i = 0; i < label_count; i++)
        p = label_bytes_write(p, labels[i].name, labels[i].value);
    for (size_t i = 0; i < exposition->extra_count; i++)
        p = label_bytes_write(p, exposition->extra[i].name, exposition->extra[i].value);
    uint32_t index = (uint32_t)batch->sample_count;
    batch->series[batch->series_count++] = (struct batch_series){slice_of(data, bytes), index, 1};
    batch->samples[batch->sample_count++] =
        (struct sample){exposition->time_ms, isnan(value) ? NORMAL_NAN_BITS : double_bits(value)};
    return STATUS_OK;
}

/* ---- One line -------------------------------------------------------------------------------------------
 */

static bool is_name_byte(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':';
}

static void blanks_skip(struct slice *rest) {
    while (rest->len > 0 && (rest->data[0] == ' ' || rest->data[0] == '\t'))
        *rest = slice_of(rest->data + 1, rest->len - 1);
}

static bool byte_take(struct slice *rest, uint8_t byte) {
    if (rest->len == 0 || rest->data[0] != byte)
        return false;
    *rest = slice_of(rest->data + 1, rest->len - 1);
    return true;
}

static bool name_take(struct slice *rest, struct slice *name) {
    size_t len = 0;
    if (rest->len > 0 && rest->data[0] >= '0' && rest->data[0] <= '9')
        return false;
    while (len < rest->len && is_name_byte(rest->data[len]))
        len++;
    *name = slice_of(rest->data, len);
    *rest = slice_of(rest->data + len, rest->len - len);
    return len > 0;
}

/* "value" with \\, \" and \n; the result is in the arena. */
static int value_take(struct exposition *exposition, struct slice *rest, struct slice *value) {
    if (!byte_take(rest, '"'))
        return STATUS_BAD_INPUT;
    uint8_t *out = arena_alloc_bytes(exposition->arena, rest->len);
    size_t len = 0, i = 0;
    if (out == NULL)
        return STATUS_NO_MEMORY;
    for (; i < rest->len && rest->data[i] != '"'; i++) {
        uint8_t c = rest->data[i];
        if (c == '\\') {
            if (++i == rest->len)
                return STATUS_BAD_INPUT;
            c = rest->data[i] == 'n' ? '\n' : rest->data[i];
        }
        out[len++] = c;
    }
    if (i == rest->len)
        return STATUS_BAD_INPUT;
    *value = slice_of(out, len);
    *rest = slice_of(rest->data + i + 1, rest->len - i - 1);
    return STATUS_OK;
}

static int labels_take(struct exposition *exposition, struct slice *rest, struct label *labels,
                       size_t *count) {
    int status = STATUS_OK;
    if (!byte_take(rest, '{'))
        return STATUS_OK;
    blanks_skip(rest);
    while (!byte_take(rest, '}')) {
        if (*count == LINE_LABELS_MAX || !name_take(rest, &labels[*count].name) || !byte_take(rest, '='))
            return STATUS_BAD_INPUT;
        TRY(value_take(exposition, rest, &labels[*count].value));
        (*count)++;
        blanks_skip(rest);
        if (!byte_take(rest, ',') && (rest->len == 0 || rest->data[0] != '}'))
            return STATUS_BAD_INPUT;
        blanks_skip(rest);
    }
out:
    return status;
}

static int line_parse(struct exposition *exposition, struct slice line) {
    struct label labels[LINE_LABELS_MAX];
    struct slice name;
    size_t label_count = 0;
    char number[NUMBER_BYTES_MAX], *end;
    int status = STATUS_OK;
    if (!name_take(&line, &name))
        return STATUS_BAD_INPUT;
    TRY(labels_take(exposition, &line, labels, &label_count));
    blanks_skip(&line);
    size_t len = 0;
    while (len < line.len && line.data[len] != ' ' && len + 1 < sizeof number) {
        number[len] = (char)line.data[len];
        len++;
    }
    number[len] = 0;
    double value = strtod(number, &end);
    if (len == 0 || *end != 0)
        return STATUS_BAD_INPUT;
    TRY(exposition_add(exposition, name, labels, label_count, value));
out:
    return status;
}

int exposition_parse(struct exposition *exposition, struct slice text, struct error_detail *detail) {
    size_t number = 0;
    while (text.len > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t len = end == NULL ? text.len : (size_t)(end - text.data), used = end == NULL ? len : len + 1;
        struct slice line = slice_of(text.data, len);
        text = slice_of(text.data + used, text.len - used);
        number++;
        blanks_skip(&line);
        if (line.len == 0 || line.data[0] == '#')
            continue;
        int status = line_parse(exposition, line);
        if (status != STATUS_OK)
            return error_set(detail, status, "line %zu of the exposition: %.*s", number,
                             (int)(line.len < 100 ? line.len : 100), (const char *)line.data);
    }
    return STATUS_OK;
}
