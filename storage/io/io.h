/* io.h: everything durable goes through here, so that a test can watch, break or simulate the disk.
 *
 * Backends: io_uring (io_uring.c), plain system calls (io_syscall.c), and for tests a simulated disk
 * (io_sim.h). All calls but io_commit block until done and are for opening, replay, segment changes and
 * the like. io_commit is the write path: it starts "write these bytes, then make them durable" and reports by
 * a callback that runs inside io_poll. One `struct io` is used by one thread at a time, except that io_read,
 * io_map and io_unmap may be called from any thread.
 *
 * Errors are statuses: STATUS_IO, STATUS_NO_SPACE, STATUS_NOT_FOUND, STATUS_EXISTS, STATUS_NO_MEMORY.
 * `detail`, where taken, names the path and the system's own words. */
#ifndef TIDALITE_STORAGE_IO_H
#define TIDALITE_STORAGE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "base/status.h"

struct io;
struct io_file;

enum io_backend {
    IO_BACKEND_AUTO,  /* io_uring where the kernel allows it, else system calls */
    IO_BACKEND_URING, /* STATUS_IO if it is denied */
    IO_BACKEND_SYSCALL
};

/* Opens a backend. With AUTO a denied io_uring is logged at level warn with the reason. */
int io_open(enum io_backend backend, struct error_detail *detail, struct io **out);
void io_close(struct io *io);

/* "io_uring" or "syscall": for status pages and logs. */
const char *io_name(const struct io *io);

/* What really happens, operation by operation, for tests that prove orders: called by the backend when an
 * operation is handed to the kernel and when the kernel reports it done. */
enum io_event_kind { IO_EVENT_WRITE, IO_EVENT_SYNC, IO_EVENT_SYNC_DIR, IO_EVENT_RENAME, IO_EVENT_REMOVE };
enum io_event_phase { IO_EVENT_SUBMITTED, IO_EVENT_COMPLETED };
struct io_event {
    enum io_event_kind kind;
    enum io_event_phase phase;
    const char *path; /* borrowed for the call */
    uint64_t offset;  /* writes */
    uint64_t len;
    int64_t result; /* completed: as the kernel gave it (bytes, 0, -errno) */
    bool linked;    /* submitted: starts only after the write submitted just before it has wholly succeeded */
};
void io_trace_set(struct io *io, void (*trace)(void *context, const struct io_event *event), void *context);

/* Fault injection, for tests: the operation (read, write, sync, open, rename, …) that is `countdown` calls
 * away, and with `repeat` all behind it, fails with `error` (an errno) without reaching the disk; with
 * `short_bytes` > 0 a write transfers only that many bytes instead (as the kernel may). 0 turns it off. */
struct io_fault {
    uint64_t countdown;
    bool repeat;
    int error;
    size_t short_bytes;
};
void io_fault_set(struct io *io, struct io_fault fault);

/* Was the operation reached that the last io_fault_set counts down to? */
bool io_fault_fired(const struct io *io);

/* Files. Paths are NUL-terminated and relative to the working directory or absolute. */
enum io_open_flags {
    IO_OPEN_READ = 1,
    IO_OPEN_WRITE = 2,
    IO_OPEN_CREATE = 4, /* make it; with EXCLUSIVE it must not exist */
    IO_OPEN_EXCLUSIVE = 8,
    IO_OPEN_TRUNCATE = 16
};
int io_file_open(struct io *io, const char *path, unsigned flags, struct error_detail *detail,
                 struct io_file **out);
void io_file_close(struct io *io, struct io_file *file); /* NULL is fine */
int io_file_size(struct io *io, struct io_file *file, uint64_t *bytes_out);
const char *io_file_path(const struct io_file *file);

/* Reads up to `len` bytes at `offset`; *got_out < len only at the end of the file. */
int io_read(struct io *io, struct io_file *file, uint64_t offset, void *data, size_t len, size_t *got_out);

/* Writes all of it, finishing short writes; not durable before io_sync. */
int io_write(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len);

/* The file's data, and the size needed to read it, are on stable storage when this returns STATUS_OK
 * (fdatasync). After an error nothing may be assumed about any byte written since the last success, even if a
 * later sync succeeds. */
int io_sync(struct io *io, struct io_file *file);

int io_rename(struct io *io, const char *from, const char *to);

/* A second name for the file, which must be on the same file system; STATUS_IO where there is no such thing
 * (a simulated disk, some file systems): then it is to be copied. */
int io_link(struct io *io, const char *from, const char *to);
int io_remove(struct io *io, const char *path);
int io_remove_dir(struct io *io, const char *path); /* an empty one */

/* A directory with all that is in it; what comes behind an error stays. */
int io_remove_tree(struct io *io, const char *path);

/* Makes the directory (one level; an existing one is fine) and its entry in its parent durable. */
int io_make_dir(struct io *io, const char *path, struct error_detail *detail);

/* Makes creations, renames and removals inside `path` durable. */
int io_sync_dir(struct io *io, const char *path);

/* Calls `each` with every name in the directory but "." and "..", in byte order. A negative return of `each`
 * stops and is returned. */
int io_list_dir(struct io *io, const char *path, int (*each)(void *context, const char *name), void *context);

/* Maps [offset, offset+len) read-only; `offset` is a multiple of 4096. The bytes are valid until io_unmap of
 * the same slice. */
int io_map(struct io *io, struct io_file *file, uint64_t offset, size_t len, struct slice *out);
void io_unmap(struct io *io, struct slice mapped);

/* Puts [offset, offset+len) of the file in the place of the pages at `at`, which came from mem_pages_alloc
 * and hold the same bytes: whoever reads them sees no difference, but they cost no memory of their own any
 * more. `offset` and `len` are multiples of 4096. A simulated disk leaves them as they are. */
int io_map_over(struct io *io, struct io_file *file, uint64_t offset, size_t len, void *at);

/* What is mapped at `data` (by io_map or io_map_over) is not needed for a while: the process gives its pages
 * up, and whoever reads them gets them from the file's cache or the disk again. Any thread. */
void io_map_unneed(struct io *io, const void *data, size_t len);

/* A path by which the kernel knows the open file's bytes, for a library that opens files by itself; valid
 * while the file is open. On a simulated disk that is a copy of it as it is now. STATUS_TOO_LARGE: longer
 * than `bytes`. */
int io_native_path(struct io *io, struct io_file *file, char *path, size_t bytes);

/* Takes an exclusive lock on the file at `path` (made if missing), held until io_unlock or the end of the
 * process. STATUS_LOCKED if another process has it; `detail` says which (its pid, if known). */
int io_lock(struct io *io, const char *path, struct error_detail *detail, struct io_file **out);
void io_unlock(struct io *io, struct io_file *lock);

/* A write that must become durable: filled by the caller, owned by the backend from io_commit until `done` is
 * called, and the bytes at `data` untouched as long. */
struct io_commit {
    struct io_file *file;
    uint64_t offset;
    const uint8_t *data;
    size_t len;
    void (*done)(struct io_commit *commit); /* called inside io_poll, once */
    void *context;
    int status; /* for `done`: STATUS_OK only if every byte was written and a sync that began afterwards
                   succeeded */

    /* the backend's: */
    size_t written;
    int64_t results[2];
    unsigned state;
    struct io_commit *next;
};

/* Starts it. Never calls `done` itself. A short or cancelled member of a linked chain is finished and synced
 * again by the backend; a failed sync is final. */
void io_commit(struct io *io, struct io_commit *commit);

/* Runs completions that are there; with none, and any in flight, waits for one up to timeout_ms (0: does not
 * wait; negative: without bound). Returns how many ran. */
int io_poll(struct io *io, int timeout_ms);

/* How many commits are in flight. */
unsigned io_in_flight(const struct io *io);

#endif
