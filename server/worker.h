/* worker.h: threads for what may block or take long: queries and everything that reads storage. The loops
 * hand jobs over and get them back as mail (loop.h). */
#ifndef TIDALITE_SERVER_WORKER_H
#define TIDALITE_SERVER_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct job {
    struct job *next;
    void (*run)(struct job *job); /* on a worker; the job may be freed or reused inside */
};

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *first;
    struct job **last;
    size_t queued;
    size_t queued_max;
    size_t idle;
    size_t count;
    size_t count_max;
    bool stopping;
    pthread_t *threads; /* count_max of them */
};

/* Threads are made as they are needed, at most `count_max`. STATUS_OK or STATUS_NO_MEMORY. */
int workers_init(struct workers *workers, size_t count_max, size_t queued_max);

/* Finishes what is queued, then ends the threads; blocks. */
void workers_release(struct workers *workers);

/* From any thread. STATUS_OK: `job->run` will be called; STATUS_BUSY: the queue is full. */
int workers_submit(struct workers *workers, struct job *job);

#endif
