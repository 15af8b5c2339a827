/* parallel.h: the series of a selection, read and made into columns, several at once on other cores.
 *
 * Series come out in the order of the selection, whoever made them. Helpers fill a ring of groups of series
 * ahead of the caller, who fills groups, too, when the one it needs is not there yet. They are taken only
 * while there are many series left and cores that no other query helps itself to, and leave when the caller
 * is slow to use what they made; without them the same code runs on the caller's thread, one series at a
 * time. */
#ifndef TIDALITE_QUERY_PARALLEL_H
#define TIDALITE_QUERY_PARALLEL_H

#include "query/eval.h"

/* What a thread has to itself. */
struct column_worker {
    struct sample_columns columns; /* the samples of the series in hand */
    double *scratch;               /* as many as samples, if the maker wants it */
    size_t scratch_count;
};

/* A series made into a column. */
struct column_slot {
    size_t index;        /* in the selection */
    size_t sample_count; /* read from storage */
    size_t queried;      /* looked at, all steps together */
    bool is_empty;       /* no sample at all, or nothing at any step */
    int status;          /* negative: it failed */
    double *values;
    uint64_t *present;
    uint32_t *looked; /* at each step; NULL: nobody asked */
    uint32_t *read;   /* samples read, at each step of the query; NULL likewise */
};

struct column_reader {
    struct eval *eval;
    const struct eval_node *node;        /* whose samples these are */
    struct storage_selection *selection; /* closed with the reader */
    struct placing placing;
    int64_t time_min_ms, time_max_ms;
    bool drop_stale;
    bool newest_only; /* `make` looks at the newest sample */
    bool alone;       /* `make` touches what is the caller's: no helpers */

    /* Any thread: from worker->columns (one sample at least) to slot->values and slot->present, both zeroed
     * bits. Failing, or stopped by eval_stop_status, it sets slot->status. */
    void (*make)(void *context, struct column_worker *worker, struct column_slot *slot);
    void *context;

    const struct slice *names; /* of the labels that are asked for; NULL: all */
    size_t name_count;

    size_t grid_count;
    size_t group;          /* groups handed to the caller, the last one maybe in part */
    size_t next, next_end; /* series of the selection in it not used yet */
    size_t group_slots;
    struct column_slot *slots;
    struct column_worker worker; /* the caller's */
    struct column_crew *crew;    /* NULL: alone */
};

/* Sets eval, the node, the selection and the times before; gets memory for columns of the grid. */
int column_reader_open(struct column_reader *reader, size_t grid_count);

/* Memory of a slot. */
int column_slot_make(struct eval *eval, size_t grid_count, struct column_slot *slot);

/* Makes a slot one without samples. */
void column_slot_clear(struct column_slot *slot, size_t grid_count);

/* The next series with anything at all: STATUS_OK with *slot_out, borrowed until the next call; STATUS_END;
 * or negative with the error filled. */
int column_reader_next(struct column_reader *reader, struct column_slot **slot_out);
void column_reader_close(struct column_reader *reader);

/* The labels of the series that column_reader_next gave, those that are asked for; returns how many. */
size_t column_labels(const struct column_reader *reader, const struct column_slot *slot, struct label *out);

#endif
