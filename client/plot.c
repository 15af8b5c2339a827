/* plot.c: lines in a terminal. The canvas is made of dots: two by four in a cell where there is Braille, one
 * otherwise. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "client/show.h"

#define ROWS 16

struct canvas {
    size_t columns, rows;  /* cells */
    size_t cell_x, cell_y; /* dots in one */
    uint8_t *dots;         /* per cell: Braille's bits */
    uint16_t *owner;       /* the series drawn last, + 1 */
    double low, high;
    int64_t start_ms, end_ms;
};

char plot_sign(size_t index) {
    static const char signs[] = "*+ox#@%&=~";
    return signs[index % (sizeof signs - 1)];
}

/* x and y in dots; y counts from the bottom. */
static void dot(struct canvas *canvas, long x, long y, size_t series) {
    static const uint8_t braille[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    long width = (long)(canvas->columns * canvas->cell_x), height = (long)(canvas->rows * canvas->cell_y);
    if (x < 0 || y < 0 || x >= width || y >= height)
        return;
    size_t down = (size_t)(height - 1 - y),
           cell = down / canvas->cell_y * canvas->columns + (size_t)x / canvas->cell_x;
    canvas->dots[cell] |= braille[down % canvas->cell_y][(size_t)x % canvas->cell_x];
    canvas->owner[cell] = (uint16_t)(series % UINT16_MAX + 1);
}

/* Bresenham. */
static void line(struct canvas *canvas, long x0, long y0, long x1, long y1, size_t series) {
    long dx = labs(x1 - x0), dy = -labs(y1 - y0), step_x = x0 < x1 ? 1 : -1, step_y = y0 < y1 ? 1 : -1,
         error = dx + dy;
    for (;;) {
        dot(canvas, x0, y0, series);
        if (x0 == x1 && y0 == y1)
            return;
        long twice = 2 * error;
        if (twice >= dy) {
            error += dy;
            x0 += step_x;
        }
        if (twice <= dx) {
            error += dx;
            y0 += step_y;
        }
    }
}

static long place(double share, size_t dots) {
    return lround(share * (double)(dots - 1));
}

static void series_draw(struct canvas *canvas, const struct answer_series *series, size_t index,
                        int64_t step_ms) {
    const struct answer_point *before = NULL;
    long x_before = 0, y_before = 0;
    double span_ms = (double)(canvas->end_ms - canvas->start_ms);
    for (size_t i = 0; i < series->point_count; i++) {
        const struct answer_point *point = &series->points[i];
        if (!isfinite(point->value)) {
            before = NULL;
            continue;
        }
        double share = span_ms > 0 ? (double)(point->time_ms - canvas->start_ms) / span_ms : 0;
        if (!(share >= 0 && share <= 1)) /* a server that answers beside the question */
            continue;
        long x = place(share, canvas->columns * canvas->cell_x);
        /* Halves, so that the distance of the largest doubles stays finite. */
        long y = place((point->value / 2 - canvas->low / 2) / (canvas->high / 2 - canvas->low / 2),
                       canvas->rows * canvas->cell_y);
        if (before != NULL && point->time_ms - before->time_ms <= step_ms)
            line(canvas, x_before, y_before, x, y, index);
        else
            dot(canvas, x, y, index);
        before = point;
        x_before = x;
        y_before = y;
    }
}

/* Least and greatest finite value, apart; false if there is none. */
static bool bounds_find(const struct answer *answer, double *low_out, double *high_out) {
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < answer->series_count; i++) {
        for (size_t k = 0; k < answer->series[i].point_count; k++) {
            double value = answer->series[i].points[k].value;
            if (isfinite(value)) {
                low = value < low ? value : low;
                high = value > high ? value : high;
            }
        }
    }
    if (low > high)
        return false;
    if (low == high) {
        double margin = fabs(low) > 0 ? fabs(low) / 10 : 1;
        low -= margin;
        high += margin;
    }
    if (!isfinite(low) || !isfinite(high) || !(high / 2 - low / 2 > 0))
        return false;
    *low_out = low;
    *high_out = high;
    return true;
}

static void row_print(const struct canvas *canvas, const struct terminal *terminal, size_t row,
                      struct buf *out) {
    uint16_t color = 0;
    size_t end = canvas->columns;
    while (end > 0 && canvas->dots[row * canvas->columns + end - 1] == 0)
        end--;
    for (size_t x = 0; x < end; x++) {
        size_t cell = row * canvas->columns + x;
        uint8_t bits = canvas->dots[cell];
        if (bits != 0 && canvas->owner[cell] != color) {
            color = canvas->owner[cell];
            terminal_color(terminal, out, color - 1u);
        }
        if (bits == 0) {
            buf_append_byte(out, ' ');
        } else if (terminal->utf8) { /* U+2800 + bits */
            const uint8_t text[3] = {0xe2, (uint8_t)(0xa0 | bits >> 6), (uint8_t)(0x80 | (bits & 0x3f))};
            buf_append(out, text, 3);
        } else {
            buf_append_byte(out, (uint8_t)plot_sign(canvas->owner[cell] - 1u));
        }
    }
    if (color != 0)
        terminal_plain(terminal, out);
    buf_append_byte(out, '\n');
}

static void times_print(const struct canvas *canvas, size_t margin, struct buf *out) {
    char first[48], last[48];
    time_text_utc(canvas->start_ms, first);
    time_text_utc(canvas->end_ms, last);
    const char *end = last;
    if (strncmp(first, last, 10) == 0 && strlen(last) > 11)
        end = last + 11; /* the same day */
    size_t used = strlen(first) + strlen(end) + 4, room = canvas->columns;
    buf_printf(out, "%*s%s%*s%s UTC\n", (int)margin, "", first, room > used ? (int)(room - used) : 1, "",
               end);
}

void show_plot(const struct answer *answer, const struct terminal *terminal, int64_t start_ms, int64_t end_ms,
               int64_t step_ms, struct buf *out) {
    struct canvas canvas = {.rows = ROWS, .cell_x = 1, .cell_y = 1, .start_ms = start_ms, .end_ms = end_ms};
    char texts[3][40];
    size_t margin = 0;
    if (!bounds_find(answer, &canvas.low, &canvas.high))
        return;
    if (terminal->utf8) {
        canvas.cell_x = 2;
        canvas.cell_y = 4;
    }
    const double marks[3] = {canvas.high, canvas.low / 2 + canvas.high / 2, canvas.low};
    for (size_t i = 0; i < 3; i++) {
        size_t len = (size_t)snprintf(texts[i], sizeof texts[i], "%.6g", marks[i]);
        margin = len > margin ? len : margin;
    }
    canvas.columns = terminal->columns > margin + 12 ? terminal->columns - margin - 2 : 10;
    canvas.dots = mem_zalloc(canvas.rows * canvas.columns);
    canvas.owner = mem_zalloc(canvas.rows * canvas.columns * sizeof *canvas.owner);
    if (canvas.dots == NULL || canvas.owner == NULL)
        out->failed = true;
    for (size_t i = 0; !out->failed && i < answer->series_count; i++)
        series_draw(&canvas, &answer->series[i], i, step_ms);
    for (size_t row = 0; !out->failed && row < canvas.rows; row++) {
        const char *label = row == 0                 ? texts[0]
                            : row == canvas.rows / 2 ? texts[1]
                            : row == canvas.rows - 1 ? texts[2]
                                                     : "";
        buf_printf(out, "%*s %s", (int)margin, label, terminal->utf8 ? "\u2502" : "|");
        row_print(&canvas, terminal, row, out);
    }
    times_print(&canvas, margin + 2, out);
    mem_free(canvas.dots);
    mem_free(canvas.owner);
}
