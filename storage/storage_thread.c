/* storage_thread.c: the thin shell that runs storage_step on a thread of its own, and waits in between. All
 * that storage does happens in steps; this file is all that knows of real time passing. */
#include <errno.h>
#include <time.h>

#include "base/assert.h"
#include "storage/storage_private.h"

#define WAIT_MS          100 /* how often wal_tick runs when nothing happens */
#define MAINTAIN_WAIT_MS 20

void storage_wait(struct storage *storage, int timeout_ms) {
    if (io_in_flight(storage->options.io) > 0) {
        (void)io_poll(storage->options.io, timeout_ms);
        return;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&storage->queue_mutex);
    while (storage->queue.first == NULL && !storage->stopping && !storage->poked)
        if (pthread_cond_timedwait(&storage->queue_filled, &storage->queue_mutex, &until) == ETIMEDOUT)
            break;
    storage->poked = false;
    pthread_mutex_unlock(&storage->queue_mutex);
}

void storage__poke(struct storage *storage) {
    pthread_mutex_lock(&storage->queue_mutex);
    storage->poked = true;
    pthread_cond_signal(&storage->queue_filled);
    pthread_mutex_unlock(&storage->queue_mutex);
}

void storage__maintain_poke(struct storage *storage) {
    pthread_mutex_lock(&storage->queue_mutex);
    storage->maintain_poked = true;
    pthread_cond_signal(&storage->maintain_served);
    pthread_mutex_unlock(&storage->queue_mutex);
}

static void maintain_wait(struct storage *storage) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += MAINTAIN_WAIT_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&storage->queue_mutex);
    if (!storage->maintain_poked)
        (void)pthread_cond_timedwait(&storage->maintain_served, &storage->queue_mutex, &until);
    storage->maintain_poked = false;
    pthread_mutex_unlock(&storage->queue_mutex);
}

static bool is_stopping(struct storage *storage) {
    pthread_mutex_lock(&storage->queue_mutex);
    bool stopping = storage->stopping && storage->queue.first == NULL;
    pthread_mutex_unlock(&storage->queue_mutex);
    return stopping && storage->waiting.first == NULL && storage->group.first == NULL &&
           storage->deleting.first == NULL;
}

static void *thread_run(void *context) {
    struct storage *storage = context;
    while (!is_stopping(storage))
        if (!storage_step(storage, clock_wall_ms(storage->options.clock)))
            storage_wait(storage, WAIT_MS);
    return NULL;
}

static void *maintain_run(void *context) {
    struct storage *storage = context;
    while (!atomic_load(&storage->maintain_stopping))
        if (!storage_maintain(storage, clock_wall_ms(storage->options.clock)))
            maintain_wait(storage);
    return NULL;
}

int storage_thread_start(struct storage *storage) {
    ASSERT(!storage->thread_runs);
    storage->stopping = false;
    if (pthread_create(&storage->thread, NULL, thread_run, storage) != 0)
        return STATUS_NO_MEMORY;
    storage->thread_runs = true;
    atomic_store(&storage->maintain_stopping, false);
    if (pthread_create(&storage->maintain_thread, NULL, maintain_run, storage) != 0) {
        storage_thread_stop(storage);
        return STATUS_NO_MEMORY;
    }
    storage->maintain_thread_runs = true;
    return STATUS_OK;
}

void storage_thread_stop(struct storage *storage) {
    ASSERT(storage->thread_runs);
    if (storage->maintain_thread_runs) {
        atomic_store(&storage->maintain_stopping, true);
        pthread_join(storage->maintain_thread, NULL);
        storage->maintain_thread_runs = false;
    }
    pthread_mutex_lock(&storage->queue_mutex);
    storage->stopping = true;
    pthread_cond_signal(&storage->queue_filled);
    pthread_mutex_unlock(&storage->queue_mutex);
    pthread_join(storage->thread, NULL);
    storage->thread_runs = false;
}
