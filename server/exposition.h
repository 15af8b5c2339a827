/* exposition.h: Prometheus' text exposition → a write_batch, for the self scrape. */
#ifndef TIDALITE_SERVER_EXPOSITION_H
#define TIDALITE_SERVER_EXPOSITION_H

#include <stdint.h>

#include "base/arena.h"
#include "base/batch.h"
#include "base/label.h"
#include "base/slice.h"
#include "base/status.h"

/* Appends one series with one sample, all taken at `time_ms`. */
struct exposition {
    struct arena *arena; /* holds everything of the batch */
    struct write_batch batch;
    size_t series_capacity;
    int64_t time_ms;
    const struct label *extra; /* added to every series, as a scrape adds job and instance */
    size_t extra_count;
};

/* The extra labels are borrowed as long as the exposition is used. */
void exposition_init(struct exposition *exposition, struct arena *arena, int64_t time_ms,
                     const struct label *extra, size_t extra_count);

/* One series by hand. STATUS_OK or STATUS_NO_MEMORY. */
int exposition_add(struct exposition *exposition, struct slice name, const struct label *labels,
                   size_t label_count, double value);

/* All sample lines of `text`; comments and empty lines are skipped, time stamps ignored. STATUS_BAD_INPUT
 * with the line's number, STATUS_NO_MEMORY; what stood before the bad line is in the batch. */
int exposition_parse(struct exposition *exposition, struct slice text, struct error_detail *detail);

#endif
