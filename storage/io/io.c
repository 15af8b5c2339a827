/* io.c: the common part of all backends: choice, faults, traces, whole writes, statuses and their texts. */
#include "storage/io/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mutation.h"
#include "storage/io/io_private.h"

int io_open(enum io_backend backend, struct error_detail *detail, struct io **out) {
    struct io *io = NULL;
    int result = 0;
    if (backend != IO_BACKEND_SYSCALL) {
        result = io__uring_open(&io);
        if (result < 0 && backend == IO_BACKEND_URING) {
            return error_set(detail, STATUS_IO,
                             "io_uring is not available: %s (use --io=syscall, or allow io_uring_setup)",
                             strerror(-result));
        }
        if (result < 0)
            log_warn("io_uring is not available, using plain system calls",
                     LOG_STR("error", strerror(-result)));
    }
    if (io == NULL && (result = io__syscall_open(&io)) < 0)
        return error_set(detail, status_from_errno(-result), "input/output layer: %s", strerror(-result));
    *out = io;
    return STATUS_OK;
}

void io_close(struct io *io) {
    if (io == NULL)
        return;
    ASSERT(io->in_flight == 0);
    io->ops->close(io);
}

const char *io_name(const struct io *io) {
    return io->ops->name;
}

void io_trace_set(struct io *io, void (*trace)(void *context, const struct io_event *event), void *context) {
    io->trace = trace;
    io->trace_context = context;
}

void io_fault_set(struct io *io, struct io_fault fault) {
    io->fault = fault;
    atomic_store(&io->fault_fired, false);
    atomic_store(&io->fault_countdown, fault.countdown);
}

bool io_fault_fired(const struct io *io) {
    return atomic_load(&io->fault_fired);
}

int io__fault_take(struct io *io, size_t *len) {
    uint64_t countdown = atomic_load_explicit(&io->fault_countdown, memory_order_relaxed);
    do {
        if (countdown == 0)
            return 0;
        if (countdown == 1 && io->fault.repeat)
            break;
    } while (!atomic_compare_exchange_weak(&io->fault_countdown, &countdown, countdown - 1));
    if (countdown > 1)
        return 0;
    atomic_store(&io->fault_fired, true);
    if (len != NULL && io->fault.short_bytes > 0) {
        if (*len > io->fault.short_bytes)
            *len = io->fault.short_bytes;
        return 0;
    }
    return io->fault.error;
}

void io__trace(struct io *io, enum io_event_kind kind, enum io_event_phase phase, const char *path,
               uint64_t offset, uint64_t len, int64_t result) {
    if (io->trace == NULL)
        return;
    struct io_event event = {
        .kind = kind, .phase = phase, .path = path, .offset = offset, .len = len, .result = result};
    io->trace(io->trace_context, &event);
}

/* Says what failed, in the system's words, and gives the status. */
static int failed(const char *operation, const char *path, int64_t error) {
    log_warn("disk operation failed", LOG_STR("operation", operation), LOG_STR("path", path),
             LOG_STR("error", strerror((int)-error)));
    return status_from_errno((int)-error);
}

int64_t io__write_once(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len) {
    if (len > IO_TRANSFER_BYTES_MAX)
        len = IO_TRANSFER_BYTES_MAX;
    int error = io__fault_take(io, &len);
    io__trace(io, IO_EVENT_WRITE, IO_EVENT_SUBMITTED, file->path, offset, len, 0);
    int64_t result = error != 0 ? -error : io->ops->write(io, file, offset, data, len);
    io__trace(io, IO_EVENT_WRITE, IO_EVENT_COMPLETED, file->path, offset, len, result);
    return result;
}

int io__write_all(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len) {
    for (size_t written = 0; written < len;) {
        int64_t result =
            io__write_once(io, file, offset + written, (const uint8_t *)data + written, len - written);
        if (result < 0)
            return (int)result;
        if (result == 0)
            return -EIO; /* no progress: never loop on it */
        written += (size_t)result;
        if (MUTATED(ACCEPT_SHORT_WRITE))
            break;
    }
    return 0;
}

int io__sync_once(struct io *io, struct io_file *file) {
    if (MUTATED(SKIP_SYNC))
        return 0;
    int error = io__fault_take(io, NULL);
    io__trace(io, IO_EVENT_SYNC, IO_EVENT_SUBMITTED, file->path, 0, 0, 0);
    int result = error != 0 ? -error : io->ops->sync(io, file);
    io__trace(io, IO_EVENT_SYNC, IO_EVENT_COMPLETED, file->path, 0, 0, result);
    return result;
}

/* ---- Files ------------------------------------------------------------------------------------------- */

static struct io_file *file_new(const char *path) {
    struct io_file *file = mem_zalloc(sizeof *file);
    if (file == NULL)
        return NULL;
    file->fd = -1;
    file->path = mem_strndup(path, strlen(path));
    if (file->path == NULL) {
        mem_free(file);
        return NULL;
    }
    return file;
}

static void file_free(struct io_file *file) {
    mem_free(file->path);
    mem_free(file);
}

int io_file_open(struct io *io, const char *path, unsigned flags, struct error_detail *detail,
                 struct io_file **out) {
    struct io_file *file = file_new(path);
    if (file == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "opening %s: out of memory", path);
    int error = io__fault_take(io, NULL);
    int result = error != 0 ? -error : io->ops->file_open(io, file, flags);
    if (result < 0) {
        file_free(file);
        return error_set(detail, status_from_errno(-result), "opening %s: %s", path, strerror(-result));
    }
    *out = file;
    return STATUS_OK;
}

void io_file_close(struct io *io, struct io_file *file) {
    if (file == NULL)
        return;
    io->ops->file_close(io, file);
    file_free(file);
}

int io_file_size(struct io *io, struct io_file *file, uint64_t *bytes_out) {
    int result = io->ops->file_size(io, file, bytes_out);
    return result < 0 ? failed("size", file->path, result) : STATUS_OK;
}

const char *io_file_path(const struct io_file *file) {
    return file->path;
}

int io_read(struct io *io, struct io_file *file, uint64_t offset, void *data, size_t len, size_t *got_out) {
    size_t got = 0;
    while (got < len) {
        size_t ask = len - got < IO_TRANSFER_BYTES_MAX ? len - got : IO_TRANSFER_BYTES_MAX;
        int error = io__fault_take(io, NULL);
        int64_t result =
            error != 0 ? -error : io->ops->read(io, file, offset + got, (uint8_t *)data + got, ask);
        if (result < 0)
            return failed("read", file->path, result);
        if (result == 0)
            break;
        got += (size_t)result;
    }
    *got_out = got;
    return STATUS_OK;
}

int io_write(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len) {
    int result = io__write_all(io, file, offset, data, len);
    return result < 0 ? failed("write", file->path, result) : STATUS_OK;
}

int io_sync(struct io *io, struct io_file *file) {
    int result = io__sync_once(io, file);
    return result < 0 ? failed("sync", file->path, result) : STATUS_OK;
}

int io_rename(struct io *io, const char *from, const char *to) {
    int error = io__fault_take(io, NULL);
    io__trace(io, IO_EVENT_RENAME, IO_EVENT_SUBMITTED, to, 0, 0, 0);
    int result = error != 0 ? -error : io->ops->rename(io, from, to);
    io__trace(io, IO_EVENT_RENAME, IO_EVENT_COMPLETED, to, 0, 0, result);
    return result < 0 ? failed("rename", to, result) : STATUS_OK;
}

int io_link(struct io *io, const char *from, const char *to) {
    int error = io__fault_take(io, NULL);
    int result = error != 0 ? -error : io->ops->link(io, from, to);
    return result < 0 ? status_from_errno(-result) : STATUS_OK; /* often not possible, which is no event */
}

int io_remove(struct io *io, const char *path) {
    int error = io__fault_take(io, NULL);
    io__trace(io, IO_EVENT_REMOVE, IO_EVENT_SUBMITTED, path, 0, 0, 0);
    int result = error != 0 ? -error : io->ops->remove(io, path);
    io__trace(io, IO_EVENT_REMOVE, IO_EVENT_COMPLETED, path, 0, 0, result);
    return result < 0 ? status_from_errno(-result) : STATUS_OK; /* often "not there", which is no event */
}

int io_remove_dir(struct io *io, const char *path) {
    int error = io__fault_take(io, NULL);
    io__trace(io, IO_EVENT_REMOVE, IO_EVENT_SUBMITTED, path, 0, 0, 0);
    int result = error != 0 ? -error : io->ops->remove_dir(io, path);
    io__trace(io, IO_EVENT_REMOVE, IO_EVENT_COMPLETED, path, 0, 0, result);
    return result < 0 ? status_from_errno(-result) : STATUS_OK;
}

int io_native_path(struct io *io, struct io_file *file, char *path, size_t bytes) {
    int result = 0;
    if (io->ops->native_path != NULL)
        result = io->ops->native_path(io, file, path, bytes);
    else if ((size_t)snprintf(path, bytes, "%s", file->path) >= bytes)
        return STATUS_TOO_LARGE;
    return result < 0 ? failed("native path", file->path, result) : STATUS_OK;
}

/* ---- Directories --------------------------------------------------------------------------------------- */

static int sync_dir(struct io *io, const char *path) {
    if (MUTATED(SKIP_DIR_SYNC))
        return 0;
    int error = io__fault_take(io, NULL);
    io__trace(io, IO_EVENT_SYNC_DIR, IO_EVENT_SUBMITTED, path, 0, 0, 0);
    int result = error != 0 ? -error : io->ops->sync_dir(io, path);
    io__trace(io, IO_EVENT_SYNC_DIR, IO_EVENT_COMPLETED, path, 0, 0, result);
    return result;
}

int io_sync_dir(struct io *io, const char *path) {
    int result = sync_dir(io, path);
    return result < 0 ? failed("directory sync", path, result) : STATUS_OK;
}

/* The directory that `path` stands in; mem_free it. */
static char *parent_of(const char *path) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    if (len == 0)
        return mem_strndup(".", 1);
    while (len > 1 && path[len - 1] == '/')
        len--;
    return mem_strndup(path, len);
}

int io_make_dir(struct io *io, const char *path, struct error_detail *detail) {
    int error = io__fault_take(io, NULL);
    int result = error != 0 ? -error : io->ops->make_dir(io, path);
    bool existed = result == -EEXIST;
    if (result < 0 && !existed)
        return error_set(detail, status_from_errno(-result), "making directory %s: %s", path,
                         strerror(-result));
    /* An existing one may have been made by a process that died before this. */
    char *parent = parent_of(path);
    if (parent == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "making directory %s: out of memory", path);
    result = sync_dir(io, parent);
    if (existed && (result == -EACCES || result == -EPERM))
        result = 0; /* the administrator's directory, in one we may not read */
    int status = STATUS_OK;
    if (result < 0)
        status = error_set(detail, status_from_errno(-result), "syncing directory %s: %s", parent,
                           strerror(-result));
    mem_free(parent);
    return status;
}

struct names {
    char **at;
    size_t count;
    size_t capacity;
};

static int names_add(void *context, const char *name) {
    struct names *names = context;
    if (names->count == names->capacity) {
        size_t capacity = names->capacity == 0 ? 64 : names->capacity * 2;
        char **at = mem_realloc(names->at, capacity * sizeof *at);
        if (at == NULL)
            return -ENOMEM;
        names->at = at;
        names->capacity = capacity;
    }
    char *copy = mem_strndup(name, strlen(name));
    if (copy == NULL)
        return -ENOMEM;
    names->at[names->count++] = copy;
    return 0;
}

static int names_compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int io_list_dir(struct io *io, const char *path, int (*each)(void *context, const char *name),
                void *context) {
    struct names names = {0};
    int error = io__fault_take(io, NULL);
    int result = error != 0 ? -error : io->ops->list_dir(io, path, names_add, &names);
    int status = result < 0 ? status_from_errno(-result) : STATUS_OK;
    if (names.count > 0)
        qsort(names.at, names.count, sizeof *names.at, names_compare);
    for (size_t i = 0; i < names.count; i++) {
        if (status >= 0) {
            int answer = each(context, names.at[i]);
            status = answer < 0 ? answer : STATUS_OK;
        }
        mem_free(names.at[i]);
    }
    mem_free(names.at);
    return status;
}

struct tree {
    struct io *io;
    const char *path;
};

static int tree_each(void *context, const char *name) {
    const struct tree *tree = context;
    size_t bytes = strlen(tree->path) + strlen(name) + 2;
    char *path = mem_alloc(bytes);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    snprintf(path, bytes, "%s/%s", tree->path, name);
    int status = io_remove(tree->io, path);
    if (status < 0)
        status = io_remove_tree(tree->io, path);
    mem_free(path);
    return status;
}

int io_remove_tree(struct io *io, const char *path) {
    struct tree tree = {io, path};
    int status = io_list_dir(io, path, tree_each, &tree);
    return status < 0 ? status : io_remove_dir(io, path);
}

/* ---- Maps and locks --------------------------------------------------------------------------------------
 */

int io_map(struct io *io, struct io_file *file, uint64_t offset, size_t len, struct slice *out) {
    ASSERT(offset % 4096 == 0);
    const uint8_t *data = NULL;
    if (len > 0) {
        int error = io__fault_take(io, NULL);
        int result = error != 0 ? -error : io->ops->map(io, file, offset, len, &data);
        if (result < 0)
            return failed("map", file->path, result);
    }
    *out = slice_of(data, len);
    return STATUS_OK;
}

void io_unmap(struct io *io, struct slice mapped) {
    if (mapped.len > 0)
        io->ops->unmap(io, mapped.data, mapped.len);
}

int io_map_over(struct io *io, struct io_file *file, uint64_t offset, size_t len, void *at) {
    ASSERT(offset % 4096 == 0 && len % 4096 == 0 && (uintptr_t)at % 4096 == 0);
    int error = io__fault_take(io, NULL);
    int result = error != 0                  ? -error
                 : io->ops->map_over == NULL ? 0
                                             : io->ops->map_over(io, file, offset, len, at);
    return result < 0 ? failed("map", file->path, result) : STATUS_OK;
}

void io_map_unneed(struct io *io, const void *data, size_t len) {
    ASSERT((uintptr_t)data % 4096 == 0);
    if (len > 0 && io->ops->map_unneed != NULL)
        io->ops->map_unneed(io, data, len);
}

int io_lock(struct io *io, const char *path, struct error_detail *detail, struct io_file **out) {
    struct io_file *file = file_new(path);
    if (file == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "locking %s: out of memory", path);
    char holder[32] = "";
    int error = io__fault_take(io, NULL);
    int result = error != 0 ? -error : io->ops->lock(io, file, holder, sizeof holder);
    if (result == 0) {
        *out = file;
        return STATUS_OK;
    }
    file_free(file);
    if (result != -EWOULDBLOCK)
        return error_set(detail, status_from_errno(-result), "locking %s: %s", path, strerror(-result));
    size_t digits = strspn(holder, "0123456789");
    if (digits == 0)
        return error_set(detail, STATUS_LOCKED, "%s is in use by another process", path);
    return error_set(detail, STATUS_LOCKED, "%s is in use by another process (pid %.*s)", path, (int)digits,
                     holder);
}

void io_unlock(struct io *io, struct io_file *lock) {
    if (lock == NULL)
        return;
    io->ops->unlock(io, lock);
    file_free(lock);
}

/* ---- Commits ---------------------------------------------------------------------------------------------
 */

void io_commit(struct io *io, struct io_commit *commit) {
    commit->written = 0;
    commit->state = 0;
    commit->next = NULL;
    commit->status = STATUS_IO; /* until proven otherwise */
    io->in_flight++;
    io->ops->commit(io, commit);
}

void io__commit_end(struct io *io, struct io_commit *commit, int error) {
    ASSERT(io->in_flight > 0);
    io->in_flight--;
    commit->status = error < 0 ? failed("commit", commit->file->path, error) : STATUS_OK;
    commit->done(commit); /* may start the next, or free this one */
}

int io_poll(struct io *io, int timeout_ms) {
    return io->ops->poll(io, timeout_ms);
}

unsigned io_in_flight(const struct io *io) {
    return io->in_flight;
}
