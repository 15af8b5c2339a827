/* window.h: windows over a series' samples, as functions over ranges see them. Shared by window*.c.
 *
 * Most functions come in two forms. One reads a window sample by sample, as Prometheus does. The other is for
 * ranges much longer than the step, where each sample stands in many windows: it carries over from window to
 * window what stays the same, and gives the same result. */
#ifndef TIDALITE_QUERY_WINDOW_H
#define TIDALITE_QUERY_WINDOW_H

#include "query/eval.h"

/* Windows that are handed out together. */
#define WINDOW_BATCH 8

/* What a worker keeps for a function, in 8-byte words for each sample of the series and in all. */
#define WINDOW_SCRATCH_WORDS 3
#define WINDOW_SCRATCH_EXTRA 4

struct span {
    size_t low, high;
};

/* How far a window's samples are from its edges, and what an increase is multiplied by to reach them. */
struct window_edges {
    size_t count;
    int64_t start_ms, sampled_ms;
    double to_start, to_end, sampled; /* seconds; to the edges no further than is extrapolated */
    double factor;
};

/* The samples [low, high) of a series, those in (start_ms, end_ms]. Lives for the whole series. */
struct window {
    struct eval *eval;
    const struct ast *call;
    const int64_t *times_ms;
    const double *values;
    size_t count; /* of the series */
    size_t low, high;
    int64_t start_ms, end_ms;
    double range_s;
    int64_t eval_ms; /* the step, whatever offset and @ */
    double a, b;     /* scalar arguments at the step */
    void *scratch;   /* see WINDOW_SCRATCH_WORDS */
    bool overlaps;   /* each sample stands in many windows */
    bool is_extended, smoothed;
    int status; /* negative: the function failed */

    size_t seen;                            /* samples that the function has taken in */
    size_t first, last;                     /* rate, min, max: what is used of the list in scratch */
    size_t events, events_low, events_high; /* changes, resets: how many among [low, high) */
    size_t sorted_low, sorted_high;         /* quantile: what stands sorted in scratch */

    struct window_edges edges; /* rate: of the window before */

    /* Sums. */
    enum { SUMS_UNKNOWN, SUMS_NONE, SUMS_KEPT, SUMS_EXACT } sums;
    double sums_error; /* bound of that of a difference */
    size_t level_from; /* all samples [level_from, seen) are equal */
    size_t even_from;  /* all gaps between samples [even_from, seen) are the same */
    /* Regressions: the last times, if they were even: sums of x and of its square. */
    int64_t x_first_ms, x_gap_ms;
    size_t x_count;
    double x_sum, xx_sum;
};

/* One value from a window of at least one sample; false: none. */
typedef bool (*window_fn)(struct window *window, double *out);

/* A value for each of up to WINDOW_BATCH windows, all with samples. */
typedef void (*windows_fn)(struct window *window, const struct span *spans, size_t count, double *out);

/* window_sums.c */
bool window_sum(struct window *window, double *out);
bool window_deriv(struct window *window, double *out);
bool window_predict(struct window *window, double *out);
void windows_avg(struct window *window, const struct span *spans, size_t count, double *out);
void windows_stdvar(struct window *window, const struct span *spans, size_t count, double *out);
void windows_stddev(struct window *window, const struct span *spans, size_t count, double *out);

/* window_order.c */
bool window_max(struct window *window, double *out);
bool window_min(struct window *window, double *out);
bool window_ts_max(struct window *window, double *out);
bool window_ts_min(struct window *window, double *out);
bool window_quantile(struct window *window, double *out);
bool window_mad(struct window *window, double *out);

#endif
