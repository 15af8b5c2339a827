/* show.h: answers as text for people and for spreadsheets. All append to `out`. */
#ifndef TIDALITE_CLIENT_SHOW_H
#define TIDALITE_CLIENT_SHOW_H

#include "base/buf.h"
#include "client/answer.h"
#include "client/terminal.h"

/* One line a series; a range vector's samples below their series. */
void show_table(const struct answer *answer, const struct terminal *terminal, struct buf *out);

/* One line a series of a range query, with points, least, greatest and last value; at most `rows_max`, then
 * how many are left. `marked`: with the plot's colours or signs. */
void show_summary(const struct answer *answer, const struct terminal *terminal, bool marked, size_t rows_max,
                  struct buf *out);

/* RFC 4180: time, value, then a column a label name, the metric's name first. Times are Unix seconds. */
void show_csv(const struct answer *answer, struct buf *out);

/* The series of a range query as lines over [start_ms, end_ms]; points further apart than step_ms are not
 * joined. Braille dots where the terminal knows UTF-8, otherwise a sign a series. Nothing if no value is
 * finite. */
void show_plot(const struct answer *answer, const struct terminal *terminal, int64_t start_ms, int64_t end_ms,
               int64_t step_ms, struct buf *out);

/* The sign of series `index` where there are no colours. */
char plot_sign(size_t index);

#endif
