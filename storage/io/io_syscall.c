/* io_syscall.c: commits by pwrite and fdatasync, done inside io_poll. Also what strace can watch. */
#include <errno.h>

#include "base/alloc.h"
#include "storage/io/io_private.h"

struct io_syscall {
    struct io io;
    struct io_commit *first; /* in the order of io_commit */
    struct io_commit **last;
};

static void syscall_close(struct io *io) {
    mem_free(io);
}

static void syscall_commit(struct io *io, struct io_commit *commit) {
    struct io_syscall *self = (struct io_syscall *)io;
    *self->last = commit;
    self->last = &commit->next;
}

static int syscall_poll(struct io *io, int timeout_ms) {
    (void)timeout_ms; /* nothing happens elsewhere that could be waited for */
    struct io_syscall *self = (struct io_syscall *)io;
    int ran = 0;
    struct io_commit *commit = self->first; /* those started by a `done` wait for the next call */
    self->first = NULL;
    self->last = &self->first;
    while (commit != NULL) {
        struct io_commit *next = commit->next;
        int result = io__write_all(io, commit->file, commit->offset, commit->data, commit->len);
        if (result == 0)
            result = io__sync_once(io, commit->file);
        io__commit_end(io, commit, result);
        ran++;
        commit = next;
    }
    return ran;
}

static const struct io_ops syscall_ops = {
    .name = "syscall",
    .close = syscall_close,
    IO__POSIX_OPS,
    .commit = syscall_commit,
    .poll = syscall_poll,
};

int io__syscall_open(struct io **out) {
    struct io_syscall *self = mem_zalloc(sizeof *self);
    if (self == NULL)
        return -ENOMEM;
    self->io.ops = &syscall_ops;
    self->last = &self->first;
    *out = &self->io;
    return 0;
}
