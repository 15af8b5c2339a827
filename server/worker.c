#include "server/worker.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/status.h"

int workers_init(struct workers *workers, size_t count_max, size_t queued_max) {
    ASSERT(count_max > 0);
    *workers = (struct workers){.count_max = count_max, .queued_max = queued_max};
    workers->threads = mem_zalloc(count_max * sizeof *workers->threads);
    if (workers->threads == NULL)
        return STATUS_NO_MEMORY;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->wake, NULL);
    workers->last = &workers->first;
    return STATUS_OK;
}

static void *worker_main(void *context) {
    struct workers *workers = context;
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (workers->first == NULL && !workers->stopping) {
            workers->idle++;
            pthread_cond_wait(&workers->wake, &workers->lock);
            workers->idle--;
        }
        struct job *job = workers->first;
        if (job == NULL)
            break;
        workers->first = job->next;
        if (workers->first == NULL)
            workers->last = &workers->first;
        workers->queued--;
        pthread_mutex_unlock(&workers->lock);
        job->run(job);
        pthread_mutex_lock(&workers->lock);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

int workers_submit(struct workers *workers, struct job *job) {
    int status = STATUS_OK;
    pthread_mutex_lock(&workers->lock);
    ASSERT(!workers->stopping);
    /* A job that an idle worker or a new thread takes at once does not wait. */
    size_t free_now = workers->idle + (workers->count_max - workers->count);
    if (workers->queued >= workers->queued_max + free_now) {
        status = STATUS_BUSY;
        goto out;
    }
    if (workers->queued >= workers->idle && workers->count < workers->count_max) {
        if (pthread_create(&workers->threads[workers->count], NULL, worker_main, workers) == 0) {
            workers->count++;
        } else if (workers->count == 0) {
            log_error("no thread for queries could be started");
            status = STATUS_BUSY;
            goto out;
        }
    }
    job->next = NULL;
    *workers->last = job;
    workers->last = &job->next;
    workers->queued++;
    pthread_cond_signal(&workers->wake);
out:
    pthread_mutex_unlock(&workers->lock);
    return status;
}

void workers_release(struct workers *workers) {
    if (workers->threads == NULL)
        return;
    pthread_mutex_lock(&workers->lock);
    workers->stopping = true;
    pthread_cond_broadcast(&workers->wake);
    pthread_mutex_unlock(&workers->lock);
    for (size_t i = 0; i < workers->count; i++)
        pthread_join(workers->threads[i], NULL);
    ASSERT(workers->first == NULL);
    pthread_cond_destroy(&workers->wake);
    pthread_mutex_destroy(&workers->lock);
    mem_free(workers->threads);
    workers->threads = NULL;
}
