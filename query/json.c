/* json.c: results as Prometheus prints them, in slices. */
#include "base/float_text.h"
#include "base/json_text.h"
#include "query/eval.h"
#include "query/result.h"

enum { STAGE_START, STAGE_SERIES, STAGE_POINTS, STAGE_END, STAGE_DONE };

static void json_labels(struct buf *out, const struct result_series *series) {
    buf_append_str(out, "{\"metric\":{");
    for (size_t i = 0; i < series->label_count; i++) {
        if (i > 0)
            buf_append_byte(out, ',');
        json_string_append(out, series->labels[i].name, JSON_PLAIN);
        buf_append_byte(out, ':');
        json_string_append(out, series->labels[i].value, JSON_PLAIN);
    }
    buf_append_str(out, "},");
}

#define TIME_BYTES  24 /* of a time's text: copied whole */
#define POINT_BYTES (TIME_BYTES + FLOAT_JSON_BYTES_MAX + 8)

/* [time,"value"] at p, which has POINT_BYTES; returns its end. */
static char *point_place(char *p, const char time_text[TIME_BYTES], size_t time_len, double value) {
    *p++ = '[';
    memcpy(p, time_text, TIME_BYTES);
    p += time_len;
    *p++ = ',';
    *p++ = '"';
    p += float_text_json(value, p);
    *p++ = '"';
    *p++ = ']';
    return p;
}

static void json_point_at(struct buf *out, int64_t time_ms, double value) {
    char text[TIME_BYTES], *p = (char *)buf_reserve(out, POINT_BYTES);
    if (p == NULL)
        return;
    size_t len = time_text_json(time_ms, text);
    out->len += (size_t)(point_place(p, text, len, value) - p);
}

/* Times outside vectors and matrices are ordinary JSON numbers of seconds. */
static void json_plain_time(struct buf *out, int64_t time_ms) {
    char *text = (char *)buf_reserve(out, FLOAT_TEXT_BYTES_MAX);
    if (text != NULL)
        out->len += float_text_json((double)time_ms / 1000, text);
}

static void json_start(const struct query_result *result, struct buf *out) {
    static const char *const names[] = {"scalar", "string", "vector", "matrix"};
    buf_printf(out, "{\"resultType\":\"%s\",\"result\":[", names[result->type]);
    if (result->type == QUERY_VALUE_SCALAR || result->type == QUERY_VALUE_STRING) {
        json_plain_time(out, result->start_ms);
        buf_append_byte(out, ',');
    }
    if (result->type == QUERY_VALUE_SCALAR) {
        char text[FLOAT_TEXT_BYTES_MAX];
        buf_append_byte(out, '"');
        buf_append(out, text, float_text_fixed(result->scalar, text));
        buf_append_byte(out, '"');
    } else if (result->type == QUERY_VALUE_STRING) {
        json_string_append(out, result->string, JSON_HTML);
    }
}

#define POINTS_AT_ONCE 64

/* Points from cursor->point on, as many as fit; the cursor holds the step (or the index, with times of their
 * own). */
static void json_points(const struct query_result *result, const struct result_series *series,
                        struct query_json_cursor *cursor, size_t len_max, struct buf *out) {
    if (series->present == NULL) {
        for (; cursor->point < series->count && out->len < len_max && !out->failed; cursor->point++) {
            if (cursor->point > 0)
                buf_append_byte(out, ',');
            json_point_at(out, series->times_ms[cursor->point], series->values[cursor->point]);
        }
        if (cursor->point < series->count && !out->failed)
            return;
    } else {
        size_t steps = result->steps, step = bits_next(series->present, cursor->point, steps);
        /* Which of the packed values that is. */
        size_t index = step == 0 ? 0 : bits_count(series->present, step & ~(size_t)63);
        if ((step & 63) != 0)
            index +=
                (size_t)__builtin_popcountll(series->present[step >> 6] & ((UINT64_C(1) << (step & 63)) - 1));
        for (; step < steps && out->len < len_max && !out->failed; cursor->point = step) {
            /* Room for a batch of points at once. */
            char *start = (char *)buf_reserve(out, POINTS_AT_ONCE * POINT_BYTES), *p = start;
            if (start == NULL)
                return;
            for (size_t n = 0; n < POINTS_AT_ONCE && step < steps; n++, index++) {
                if (index > 0)
                    *p++ = ',';
                p = point_place(p, result->time_texts[step], result->time_lens[step], series->values[index]);
                step = bits_next(series->present, step + 1, steps);
            }
            out->len += (size_t)(p - start);
        }
        if (step < steps && !out->failed)
            return;
    }
    buf_append_str(out, "]}");
    cursor->series++;
    cursor->point = 0;
    cursor->stage = STAGE_SERIES;
}

bool query_result_json(const struct query_result *result, struct query_json_cursor *cursor, size_t bytes,
                       struct buf *out) {
    size_t len_max = out->len + (bytes > 0 ? bytes : 1);
    while (cursor->stage != STAGE_DONE && out->len < len_max && !out->failed) {
        const struct result_series *series = &result->series[cursor->series];
        switch (cursor->stage) {
        case STAGE_START:
            json_start(result, out);
            cursor->stage = STAGE_SERIES;
            break;
        case STAGE_SERIES:
            if (cursor->series == result->series_count) {
                cursor->stage = STAGE_END;
                break;
            }
            if (cursor->series > 0)
                buf_append_byte(out, ',');
            json_labels(out, series);
            if (result->type == QUERY_VALUE_VECTOR) {
                buf_append_str(out, "\"value\":");
                json_point_at(out, result->start_ms, series->values[0]);
                buf_append_byte(out, '}');
                cursor->series++;
            } else {
                buf_append_str(out, "\"values\":[");
                cursor->stage = STAGE_POINTS;
            }
            break;
        case STAGE_POINTS:
            json_points(result, series, cursor, len_max, out);
            break;
        default:
            buf_append_str(out, "]}");
            cursor->stage = STAGE_DONE;
            break;
        }
    }
    return cursor->stage != STAGE_DONE && !out->failed;
}
