/* queries.h: which queries wait or run, so that they can be looked at and stopped, and which were slow.
 *
 * Any thread; a lock that is held for lists of at most query_concurrency_max + query_queue_max rows and never
 * while a query runs. */
#ifndef TIDALITE_SERVER_QUERIES_H
#define TIDALITE_SERVER_QUERIES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

/* Of a query's text this much is shown. */
#define QUERIES_TEXT_BYTES   ((size_t)2048)
#define QUERIES_CLIENT_BYTES 64

/* What is said of a query, waiting, running or done. */
struct query_note {
    uint64_t id; /* from 1, unique in this process */
    bool range;
    int64_t start_ms; /* an instant query: the time */
    int64_t end_ms;
    int64_t step_ms;
    int64_t received_ms; /* wall clock */
    uint64_t received_ns;
    char client[QUERIES_CLIENT_BYTES]; /* "127.0.0.1:50000" */
};

/* A query between queries_add and queries_remove; lives with whoever added it. */
struct query_entry {
    struct query_note note;
    struct slice text;
    bool running; /* false: waits for a worker */
    bool listed;
    atomic_bool *canceled; /* set to stop it */
    struct query_entry *next;
    struct query_entry **link;
};

/* A query that is over. */
struct query_slow {
    struct query_note note;
    uint64_t queue_ns; /* how long it waited */
    uint64_t duration_ns;
    uint64_t samples_read;
    uint64_t samples_peak;
    uint64_t series; /* of the result */
    size_t text_len;
    char text[QUERIES_TEXT_BYTES];
    char error[128]; /* "": it succeeded */
};

struct queries {
    pthread_mutex_t lock;
    struct query_entry *first; /* the newest */
    uint64_t id_last;
    struct query_slow *slow; /* a ring */
    size_t slow_max;
    uint64_t slow_count; /* ever */
};

/* STATUS_OK or STATUS_NO_MEMORY. `slow_max` slow ones are kept. */
int queries_init(struct queries *queries, size_t slow_max);
void queries_release(struct queries *queries);

/* Gives the entry its id and lists it; the caller has filled in the rest. */
void queries_add(struct queries *queries, struct query_entry *entry);
void queries_run(struct queries *queries, struct query_entry *entry);
void queries_remove(struct queries *queries, struct query_entry *entry); /* also if it is not listed */

/* Stops the query with this id; false if there is none. */
bool queries_cancel(struct queries *queries, uint64_t id);

/* Calls `each` for every listed query, the oldest last. It may not call back. */
void queries_each(struct queries *queries, void (*each)(void *context, const struct query_entry *entry),
                  void *context);

/* Keeps a copy; the oldest is forgotten. */
void queries_slow_add(struct queries *queries, const struct query_slow *slow);

/* The slow ones, the newest first. */
void queries_slow_each(struct queries *queries, void (*each)(void *context, const struct query_slow *slow),
                       void *context);

/* The first QUERIES_TEXT_BYTES of a text, without half a character at the end. */
struct slice queries_text_cut(struct slice text);

#endif
