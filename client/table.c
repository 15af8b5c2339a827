/* table.c: series and values in columns. */
#include <math.h>
#include <stdio.h>

#include "client/show.h"

/* How many columns a text takes: code points (labels_print leaves no control characters). */
static size_t width_of(struct slice text) {
    size_t width = 0;
    for (size_t i = 0; i < text.len; i++)
        width += (text.data[i] & 0xc0) != 0x80;
    return width;
}

static void spaces(struct buf *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        buf_append_byte(out, ' ');
}

static void name_print(const struct answer_series *series, struct buf *out) {
    if (series->label_count == 0)
        buf_append_str(out, "{}");
    else
        labels_print(out, series->labels, series->label_count);
}

/* Text from the server on a terminal: no control characters but line ends. */
static void text_print(struct slice text, const struct terminal *terminal, struct buf *out) {
    for (size_t i = 0; i < text.len; i++) {
        bool control =
            (text.data[i] < 0x20 && text.data[i] != '\n' && text.data[i] != '\t') || text.data[i] == 0x7f;
        buf_append_byte(out, control && terminal->is_terminal ? '?' : text.data[i]);
    }
}

static void histograms_note(const struct answer_series *series, struct buf *out) {
    if (series->histogram_count > 0)
        buf_printf(out, "  (%zu native histograms: --format json shows them)", series->histogram_count);
}

/* Names as text, one behind the other; ends[i] is where name i ends. NULL: no memory. */
static size_t *names_print(const struct answer *answer, struct arena *arena, struct buf *names,
                           size_t *width_out) {
    size_t *ends = ARENA_ARRAY(arena, size_t, answer->series_count + 1), start = 0, width = 0;
    for (size_t i = 0; ends != NULL && i < answer->series_count; i++) {
        name_print(&answer->series[i], names);
        ends[i] = names->len;
        size_t one = names->failed ? 0 : width_of(slice_of(names->data + start, names->len - start));
        width = one > width ? one : width;
        start = names->len;
    }
    *width_out = width;
    return ends;
}

static void samples_print(const struct answer_series *series, struct buf *out) {
    char when[48];
    name_print(series, out);
    histograms_note(series, out);
    buf_append_byte(out, '\n');
    for (size_t i = 0; i < series->point_count; i++) {
        time_text_utc(series->points[i].time_ms, when);
        buf_printf(out, "  %-23s  ", when);
        buf_append(out, series->points[i].text.data, series->points[i].text.len);
        buf_append_byte(out, '\n');
    }
}

void show_table(const struct answer *answer, const struct terminal *terminal, struct buf *out) {
    struct arena arena;
    struct buf names;
    size_t width;
    if (answer->kind == ANSWER_SCALAR || answer->kind == ANSWER_STRING) {
        text_print(answer->series[0].points[0].text, terminal, out);
        buf_append_byte(out, '\n');
        return;
    }
    if (answer->kind == ANSWER_MATRIX) {
        for (size_t i = 0; i < answer->series_count; i++)
            samples_print(&answer->series[i], out);
        return;
    }
    buf_init(&names);
    arena_init(&arena, 0, 0);
    const size_t *ends = names_print(answer, &arena, &names, &width);
    out->failed = out->failed || ends == NULL || names.failed;
    for (size_t i = 0, start = 0; !out->failed && i < answer->series_count; start = ends[i++]) {
        const struct answer_series *series = &answer->series[i];
        struct slice name = slice_of(names.data + start, ends[i] - start);
        buf_append(out, name.data, name.len);
        spaces(out, width - width_of(name) + 2);
        if (series->point_count > 0)
            buf_append(out, series->points[0].text.data, series->points[0].text.len);
        histograms_note(series, out);
        buf_append_byte(out, '\n');
    }
    arena_release(&arena);
    buf_release(&names);
}

/* ---- Summary of a range
 * -----------------------------------------------------------------------------------------
 */

/* Least and greatest, NaN only if there is nothing else. */
static void bounds_of(const struct answer_series *series, const struct answer_point **low,
                      const struct answer_point **high) {
    *low = *high = &series->points[0];
    for (size_t i = 1; i < series->point_count; i++) {
        const struct answer_point *point = &series->points[i];
        if (point->value < (*low)->value || isnan((*low)->value))
            *low = point;
        if (point->value > (*high)->value || isnan((*high)->value))
            *high = point;
    }
}

/* Points, least, greatest, last. */
enum { COLUMN_COUNT = 4 };
static const char *const column_names[COLUMN_COUNT] = {"points", "min", "max", "last"};

/* `count_text` is where the number of points is printed. */
static void summary_cells(const struct answer_series *series, char count_text[24],
                          struct slice cells[COLUMN_COUNT]) {
    snprintf(count_text, 24, "%zu", series->point_count);
    memset(cells, 0, COLUMN_COUNT * sizeof *cells);
    cells[0] = slice_str(count_text);
    if (series->point_count == 0)
        return;
    const struct answer_point *low, *high;
    bounds_of(series, &low, &high);
    cells[1] = low->text;
    cells[2] = high->text;
    cells[3] = series->points[series->point_count - 1].text;
}

static void cells_print(struct buf *out, const struct slice cells[COLUMN_COUNT],
                        const size_t widths[COLUMN_COUNT]) {
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        spaces(out, 2 + widths[i] - cells[i].len);
        buf_append(out, cells[i].data, cells[i].len);
    }
}

void show_summary(const struct answer *answer, const struct terminal *terminal, bool marked, size_t rows_max,
                  struct buf *out) {
    struct arena arena;
    struct buf names;
    size_t width;
    if (answer->series_count == 0)
        return;
    buf_init(&names);
    arena_init(&arena, 0, 0);
    const size_t *ends = names_print(answer, &arena, &names, &width);
    out->failed = out->failed || ends == NULL || names.failed;
    width = width < 6 ? 6 : width;
    size_t rows = answer->series_count < rows_max ? answer->series_count : rows_max, widths[COLUMN_COUNT];
    struct slice cells[COLUMN_COUNT];
    char count_text[24];
    for (size_t k = 0; k < COLUMN_COUNT; k++)
        widths[k] = strlen(column_names[k]);
    for (size_t i = 0; i < rows; i++) {
        summary_cells(&answer->series[i], count_text, cells);
        for (size_t k = 0; k < COLUMN_COUNT; k++)
            widths[k] = cells[k].len > widths[k] ? cells[k].len : widths[k];
    }
    buf_printf(out, "%s%-*s", marked ? "  " : "", (int)width, "series");
    for (size_t k = 0; k < COLUMN_COUNT; k++)
        cells[k] = slice_str(column_names[k]);
    cells_print(out, cells, widths);
    buf_append_byte(out, '\n');
    for (size_t i = 0, start = 0; !out->failed && i < rows; start = ends[i++]) {
        struct slice name = slice_of(names.data + start, ends[i] - start);
        if (marked) {
            terminal_color(terminal, out, i);
            buf_append_str(out, terminal->utf8 ? "\u25cf" : (char[]){plot_sign(i), 0});
            terminal_plain(terminal, out);
            buf_append_byte(out, ' ');
        }
        buf_append(out, name.data, name.len);
        spaces(out, width - width_of(name));
        summary_cells(&answer->series[i], count_text, cells);
        cells_print(out, cells, widths);
        histograms_note(&answer->series[i], out);
        buf_append_byte(out, '\n');
    }
    if (answer->series_count > rows_max)
        buf_printf(out, "and %zu more series; topk() asks for fewer, --format csv shows all\n",
                   answer->series_count - rows_max);
    arena_release(&arena);
    buf_release(&names);
}
