/* block_index_copy.c: LMDB's compacting copy as a stream of bytes. mdb_env_copyfd2 pushes; a thread runs it
 * into a pipe, and whoever reads the other end decides when and how much. What is read does not depend on how
 * the threads take turns. */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "storage/block/block_index_build.h"

struct block__index_copy {
    pthread_t thread;
    MDB_env *env;
    int read_fd, write_fd;
    int result; /* of the copy; set when the thread has ended */
    bool ended; /* and is joined */
};

int block__lmdb_status(int result) {
    switch (result) {
    case MDB_SUCCESS:
        return STATUS_OK;
    case MDB_NOTFOUND:
        return STATUS_NOT_FOUND;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return STATUS_CORRUPT;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
        return STATUS_TOO_LARGE;
    default:
        return result > 0 ? status_from_errno(result) : STATUS_IO;
    }
}

static void *copy_run(void *context) {
    struct block__index_copy *copy = context;
    copy->result = mdb_env_copyfd2(copy->env, copy->write_fd, MDB_CP_COMPACT);
    close(copy->write_fd);
    return NULL;
}

int block__index_copy_start(void *env, struct error_detail *detail, struct block__index_copy **out) {
    struct block__index_copy *copy = mem_zalloc(sizeof *copy);
    if (copy == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "copying the index: out of memory");
    copy->env = env;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        int error = errno;
        mem_free(copy);
        return error_set(detail, status_from_errno(error), "copying the index: pipe: %s", strerror(error));
    }
    (void)!fcntl(fds[1], F_SETPIPE_SZ, 1 << 18); /* fewer turns; the default does as well */
    copy->read_fd = fds[0];
    copy->write_fd = fds[1];
    /* An early close of the pipe must be an error of write, not a signal. The thread, and the one that LMDB
     * starts in it, inherit the mask. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int result = pthread_create(&copy->thread, NULL, copy_run, copy);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (result != 0) {
        close(fds[0]);
        close(fds[1]);
        mem_free(copy);
        return error_set(detail, STATUS_NO_MEMORY, "copying the index: no thread: %s", strerror(result));
    }
    *out = copy;
    return STATUS_OK;
}

int block__index_copy_read(struct block__index_copy *copy, uint8_t *data, size_t len, size_t *got_out,
                           struct error_detail *detail) {
    size_t got = 0;
    while (got < len) {
        ssize_t more = read(copy->read_fd, data + got, len - got);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0)
            return error_set(detail, status_from_errno(errno), "copying the index: %s", strerror(errno));
        if (more == 0)
            break;
        got += (size_t)more;
    }
    if (got < len && !copy->ended) {
        pthread_join(copy->thread, NULL);
        copy->ended = true;
    }
    if (copy->ended && copy->result != 0)
        return error_set(detail, block__lmdb_status(copy->result), "copying the index: %s",
                         mdb_strerror(copy->result));
    *got_out = got;
    return STATUS_OK;
}

void block__index_copy_close(struct block__index_copy *copy) {
    if (copy == NULL)
        return;
    close(copy->read_fd);
    if (!copy->ended)
        pthread_join(copy->thread, NULL);
    mem_free(copy);
}
