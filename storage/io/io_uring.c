/* io_uring.c: commits as a linked chain of two requests, "write" then "fsync (data only)", on a small ring.
 *
 * A short write breaks the chain: the sync then ends with -ECANCELED, and even if it had run it would not
 * cover the missing bytes. So a chain's sync counts only if the chain's write transferred everything that was
 * left; otherwise the rest is written by a new chain with a sync of its own. A sync that failed is final: the
 * kernel may have dropped the dirty pages, and a later success would say nothing about them.
 *
 * A commit is always in exactly one place: in the kernel (state has a WAITS bit), on `ready` (its results are
 * there without the kernel: injected faults), or on `queued` (no room in the ring yet). */
#include <errno.h>
#include <liburing.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mutation.h"
#include "storage/io/io_private.h"

#define RING_ENTRIES 64

/* io_commit.state. Above these bits: how often in a row a chain had to be started anew without progress. */
#define WAITS_WRITE ((unsigned)1)
#define WAITS_SYNC  ((unsigned)2)
#define HAS_WRITE   ((unsigned)4)
#define RETRY_ONE   ((unsigned)8)
#define RETRY_MAX   ((unsigned)1000)

struct list {
    struct io_commit *first;
    struct io_commit **last;
};

struct io_uring_backend {
    struct io io;
    struct io_uring ring;
    struct list ready;
    struct list queued;
    unsigned outstanding; /* requests without a completion yet */
    bool submit_failed;   /* told once until it works again */
};

static void list_init(struct list *list) {
    list->first = NULL;
    list->last = &list->first;
}

static void list_add(struct list *list, struct io_commit *commit) {
    commit->next = NULL;
    *list->last = commit;
    list->last = &commit->next;
}

static struct io_commit *list_take_all(struct list *list) {
    struct io_commit *first = list->first;
    list_init(list);
    return first;
}

/* The low bit of user_data tells the sync from the write. */
_Static_assert(_Alignof(struct io_commit) >= 2, "user_data needs a spare bit");

static void sqe_tag(struct io_uring_sqe *sqe, struct io_commit *commit, unsigned bit) {
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)commit | (bit == WAITS_SYNC ? 1 : 0));
}

static void trace(struct io_uring_backend *self, struct io_commit *commit, unsigned bit,
                  enum io_event_phase phase, uint64_t len, int64_t result, bool linked) {
    if (self->io.trace == NULL)
        return;
    struct io_event event = {
        .kind = bit == WAITS_WRITE ? IO_EVENT_WRITE : IO_EVENT_SYNC,
        .phase = phase,
        .path = commit->file->path,
        .offset = bit == WAITS_WRITE ? commit->offset + commit->written : 0,
        .len = bit == WAITS_WRITE ? len : 0,
        .result = result,
        .linked = linked,
    };
    self->io.trace(self->io.trace_context, &event);
}

static void submit(struct io_uring_backend *self) {
    if (io_uring_sq_ready(&self->ring) == 0)
        return;
    int result = io_uring_submit(&self->ring);
    /* What the kernel did not take stays in the ring; every io_poll offers it again. */
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY && !self->submit_failed)
        log_error("io_uring does not take requests", LOG_I64("errno", -result));
    self->submit_failed = result < 0;
}

/* Hands what is left of the commit to the kernel. */
static void chain_start(struct io_uring_backend *self, struct io_commit *commit) {
    if (io_uring_sq_space_left(&self->ring) < 2) {
        list_add(&self->queued, commit);
        return;
    }
    commit->state &= ~(WAITS_WRITE | WAITS_SYNC | HAS_WRITE);
    commit->results[0] = commit->results[1] = -ECANCELED;
    size_t left = commit->len - commit->written;
    struct io_uring_sqe *write = NULL;
    if (left > 0) {
        commit->state |= HAS_WRITE;
        size_t len = left < IO_TRANSFER_BYTES_MAX ? left : IO_TRANSFER_BYTES_MAX;
        int error = io__fault_take(&self->io, &len);
        trace(self, commit, WAITS_WRITE, IO_EVENT_SUBMITTED, len, 0, false);
        if (error != 0) {
            commit->results[0] = -error;
            trace(self, commit, WAITS_WRITE, IO_EVENT_COMPLETED, len, -error, false);
            list_add(&self->ready, commit);
            return;
        }
        write = io_uring_get_sqe(&self->ring);
        ASSERT(write != NULL);
        io_uring_prep_write(write, commit->file->fd, commit->data + commit->written, (unsigned)len,
                            commit->offset + commit->written);
        sqe_tag(write, commit, WAITS_WRITE);
        commit->state |= WAITS_WRITE;
        self->outstanding++;
        if (len < left) { /* a broken chain, as after a short write; or one more piece of a very long write */
            submit(self);
            return;
        }
    }
    if (MUTATED(SKIP_SYNC)) {
        commit->results[1] = 0;
        submit(self);
        return;
    }
    int error = io__fault_take(&self->io, NULL);
    trace(self, commit, WAITS_SYNC, IO_EVENT_SUBMITTED, 0, 0, write != NULL);
    if (error != 0) {
        commit->results[1] = -error;
        if (write == NULL) {
            trace(self, commit, WAITS_SYNC, IO_EVENT_COMPLETED, 0, -error, false);
            list_add(&self->ready, commit);
        }
        submit(self);
        return;
    }
    struct io_uring_sqe *sync = io_uring_get_sqe(&self->ring);
    ASSERT(sync != NULL);
    io_uring_prep_fsync(sync, commit->file->fd, IORING_FSYNC_DATASYNC);
    sqe_tag(sync, commit, WAITS_SYNC);
    commit->state |= WAITS_SYNC;
    self->outstanding++;
    if (write != NULL)
        write->flags |= IOSQE_IO_LINK;
    submit(self);
}

static bool worth_retrying(int64_t result) {
    return result == -ECANCELED || result == -EINTR || result == -EAGAIN;
}

/* Both results are there. Ends the commit (true) or starts another chain. */
static bool chain_end(struct io_uring_backend *self, struct io_commit *commit) {
    if (commit->state & HAS_WRITE) {
        int64_t result = commit->results[0];
        if (result < 0 && !worth_retrying(result)) {
            io__commit_end(&self->io, commit, (int)result);
            return true;
        }
        if (result == 0) {
            io__commit_end(&self->io, commit, -EIO);
            return true;
        }
        if (result > 0) {
            ASSERT((uint64_t)result <= commit->len - commit->written);
            commit->written += (size_t)result;
            commit->state &= RETRY_ONE - 1;
        }
        if (MUTATED(ACCEPT_SHORT_WRITE) && result > 0) {
            io__commit_end(&self->io, commit, 0);
            return true;
        }
    }
    if (commit->written == commit->len && !worth_retrying(commit->results[1])) {
        io__commit_end(&self->io, commit, (int)commit->results[1]);
        return true;
    }
    commit->state += RETRY_ONE;
    if (commit->state / RETRY_ONE > RETRY_MAX) {
        io__commit_end(&self->io, commit, -EIO);
        return true;
    }
    chain_start(self, commit);
    return false;
}

static int run_ready(struct io_uring_backend *self) {
    int ran = 0;
    struct io_commit *commit = list_take_all(&self->ready);
    while (commit != NULL) {
        struct io_commit *next = commit->next;
        ran += chain_end(self, commit);
        commit = next;
    }
    return ran;
}

static int run_completions(struct io_uring_backend *self) {
    int ran = 0;
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&self->ring, &cqe) == 0) {
        uint64_t tag = io_uring_cqe_get_data64(cqe);
        int64_t result = cqe->res;
        io_uring_cqe_seen(&self->ring, cqe);
        struct io_commit *commit = (struct io_commit *)(uintptr_t)(tag & ~(uint64_t)1);
        unsigned bit = tag & 1 ? WAITS_SYNC : WAITS_WRITE;
        ASSERT(commit->state & bit);
        commit->state &= ~bit;
        self->outstanding--;
        commit->results[bit == WAITS_SYNC] = result;
        trace(self, commit, bit, IO_EVENT_COMPLETED, commit->len - commit->written, result, false);
        if ((commit->state & (WAITS_WRITE | WAITS_SYNC)) == 0)
            ran += chain_end(self, commit);
    }
    return ran;
}

static void start_queued(struct io_uring_backend *self) {
    struct io_commit *commit = list_take_all(&self->queued);
    while (commit != NULL) {
        struct io_commit *next = commit->next;
        chain_start(self, commit);
        commit = next;
    }
}

static int uring_poll(struct io *io, int timeout_ms) {
    struct io_uring_backend *self = (struct io_uring_backend *)io;
    for (;;) {
        submit(self);
        int ran = run_ready(self) + run_completions(self);
        start_queued(self);
        if (ran > 0 || io->in_flight == 0 || timeout_ms == 0)
            return ran;
        if (self->ready.first != NULL)
            continue;
        /* A lone commit needs both members of its chain: one wake-up instead of two. Among several, a wake-up
         * may end none; then the wait starts again. */
        unsigned wanted = io->in_flight == 1 && self->outstanding == 2 ? 2 : 1;
        struct __kernel_timespec timeout = {.tv_sec = timeout_ms / 1000,
                                            .tv_nsec = (long long)(timeout_ms % 1000) * 1000000};
        struct io_uring_cqe *cqe;
        int result = io_uring_wait_cqes(&self->ring, &cqe, wanted, timeout_ms < 0 ? NULL : &timeout, NULL);
        if (result < 0 && timeout_ms > 0)
            return run_completions(self); /* -ETIME, or a signal: the caller looks around */
    }
}

static void uring_close(struct io *io) {
    struct io_uring_backend *self = (struct io_uring_backend *)io;
    io_uring_queue_exit(&self->ring);
    mem_free(self);
}

static void uring_commit(struct io *io, struct io_commit *commit) {
    chain_start((struct io_uring_backend *)io, commit);
}

static const struct io_ops uring_ops = {
    .name = "io_uring",
    .close = uring_close,
    IO__POSIX_OPS,
    .commit = uring_commit,
    .poll = uring_poll,
};

int io__uring_open(struct io **out) {
    struct io_uring_backend *self = mem_zalloc(sizeof *self);
    if (self == NULL)
        return -ENOMEM;
    int result = io_uring_queue_init(RING_ENTRIES, &self->ring, 0);
    if (result < 0) {
        mem_free(self);
        return result;
    }
    /* IORING_OP_WRITE came with Linux 5.6, and waiting with a timeout must not take a request of its own. */
    struct io_uring_probe *probe = io_uring_get_probe_ring(&self->ring);
    bool usable = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
                  io_uring_opcode_supported(probe, IORING_OP_FSYNC) &&
                  (self->ring.features & IORING_FEAT_EXT_ARG) != 0;
    io_uring_free_probe(probe);
    if (!usable) {
        io_uring_queue_exit(&self->ring);
        mem_free(self);
        return -ENOSYS;
    }
    self->io.ops = &uring_ops;
    list_init(&self->ready);
    list_init(&self->queued);
    *out = &self->io;
    return 0;
}
