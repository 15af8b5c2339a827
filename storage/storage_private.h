/* storage_private.h: what storage.c, storage_write.c, storage_select.c and storage_thread.c share. */
#ifndef TIDALITE_STORAGE_PRIVATE_H
#define TIDALITE_STORAGE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "storage/head/head.h"
#include "storage/series/series.h"
#include "storage/storage.h"
#include "storage/wal/wal.h"

#define SEGMENT_UNKNOWN UINT32_MAX

/* A request between prepare and free. */
struct storage_write {
    struct storage *storage;
    struct storage_write *next; /* in the queue or the group */
    void (*done)(void *context, struct storage_write *write);
    void *context;
    struct arena arena;
    uint32_t *slots; /* parallel to samples */
    struct sample *samples;
    int64_t *starts_ms; /* NULL if none */
    size_t count;
    size_t applied;     /* samples of them */
    struct buf payload; /* the samples as a log record; empty if count is 0 */
    size_t log_bytes;   /* at most this much in the log: the payload, and every series declared */
    uint64_t queued_ns;
    size_t reasons_len;
    unsigned reason_count;
    struct storage_write_result result;
};

struct write_list {
    struct storage_write *first;
    struct storage_write **end; /* where the next one is hooked in */
};

struct storage {
    struct storage_options options;
    char *dir;
    struct io_file *lock;
    struct series_table *series;
    struct head *head;
    struct wal *wal;

    /* The queue: any thread puts in, the storage thread takes all. */
    pthread_mutex_t queue_mutex;
    pthread_cond_t queue_filled;
    struct write_list queue;
    bool stopping; /* the thread shall end once the queue is empty */
    atomic_uint_fast64_t queue_bytes;

    /* The storage thread's: */
    struct write_list waiting; /* taken off the queue, not in a group yet */
    struct write_list group;   /* in flight */
    bool group_ended;
    int group_status;
    bool applying; /* the group is durable, and there was no memory to apply all of it */
    uint64_t group_started_ns;
    uint8_t *declared; /* bit by slot: declared in declared_segment */
    size_t declared_slots;
    uint32_t declared_segment; /* SEGMENT_UNKNOWN: nothing counts as declared */
    struct buf scratch;

    atomic_uint_fast64_t samples_applied;
    uint64_t replay_ms;
    struct wal_replay_stats replay;
    pthread_t thread;
    bool thread_runs;
};

/* Steps and waits until nothing that was submitted is left. */
void storage__finish(struct storage *storage);

/* Adds a line of Prometheus' words to the write's reasons: "<what> for series {…}". At most a few lines. */
void storage__reason_add(struct storage_write *write, uint32_t slot, const char *what);

/* Puts the samples of a write that is applied already into the log's first group, before wal_start: what the
 * last start's log held and nothing proves to be durable. */
int storage__group_carry(struct storage *storage, const struct storage_write *write);

/* Applies one sample of a write, or of the replay (write == NULL), and counts the verdict. */
int storage__apply(struct storage *storage, struct storage_write *write, uint32_t slot, struct sample sample,
                   int64_t start_ms);

#endif
