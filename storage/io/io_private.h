/* io_private.h: what the files of storage/io share. A backend is a table of operations below; io.c puts
 * faults, traces, loops over short writes, statuses and error texts on top of it.
 *
 * All operations return 0 (or a count) or -errno, as the kernel does. */
#ifndef TIDALITE_STORAGE_IO_PRIVATE_H
#define TIDALITE_STORAGE_IO_PRIVATE_H

#include <stdatomic.h>

#include "storage/io/io.h"

/* No single read or write asks for more: the kernel transfers at most 2 GiB less a page, io_uring counts in
 * 32 bits. */
#define IO_TRANSFER_BYTES_MAX ((size_t)1 << 30)

struct io_file {
    char *path;
    int fd;        /* of backends with a kernel under them */
    void *backend; /* of others */
};

struct io_ops {
    const char *name;
    void (*close)(struct io *io); /* frees `io` */

    int (*file_open)(struct io *io, struct io_file *file, unsigned flags); /* file->path is set */
    void (*file_close)(struct io *io, struct io_file *file);
    int (*file_size)(struct io *io, struct io_file *file, uint64_t *bytes_out);
    int64_t (*read)(struct io *io, struct io_file *file, uint64_t offset, void *data, size_t len);
    int64_t (*write)(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len);
    int (*sync)(struct io *io, struct io_file *file);
    int (*rename)(struct io *io, const char *from, const char *to);
    int (*link)(struct io *io, const char *from, const char *to);
    int (*remove)(struct io *io, const char *path);
    int (*remove_dir)(struct io *io, const char *path);
    /* NULL: the file's own path. */
    int (*native_path)(struct io *io, struct io_file *file, char *path, size_t bytes);
    int (*make_dir)(struct io *io, const char *path);
    int (*sync_dir)(struct io *io, const char *path);
    /* Calls `each` in any order; a negative return stops and is returned. */
    int (*list_dir)(struct io *io, const char *path, int (*each)(void *context, const char *name),
                    void *context);
    int (*map)(struct io *io, struct io_file *file, uint64_t offset, size_t len, const uint8_t **out);
    void (*unmap)(struct io *io, const uint8_t *data, size_t len);
    /* NULL: the pages stay. */
    int (*map_over)(struct io *io, struct io_file *file, uint64_t offset, size_t len, void *at);
    void (*map_unneed)(struct io *io, const uint8_t *data, size_t len); /* NULL: the pages stay */

    /* Opens, locks and fills in the lock file; -EWOULDBLOCK if another has it, then with its words in holder.
     */
    int (*lock)(struct io *io, struct io_file *file, char *holder, size_t holder_bytes);
    void (*unlock)(struct io *io, struct io_file *file);

    void (*commit)(struct io *io, struct io_commit *commit);
    int (*poll)(struct io *io, int timeout_ms);
};

/* The head of every backend's own struct. */
struct io {
    const struct io_ops *ops;
    unsigned in_flight; /* commits */

    void (*trace)(void *context, const struct io_event *event);
    void *trace_context;

    struct io_fault fault;            /* countdown: in fault_countdown */
    _Atomic uint64_t fault_countdown; /* reads come from any thread */
    _Atomic bool fault_fired;
};

/* Counts one operation. Returns the errno it must fail with, or 0; for a write (len not NULL) it may cut
 * *len. */
int io__fault_take(struct io *io, size_t *len);

void io__trace(struct io *io, enum io_event_kind kind, enum io_event_phase phase, const char *path,
               uint64_t offset, uint64_t len, int64_t result);

/* One write or sync with fault and trace: what the kernel says. */
int64_t io__write_once(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len);
int io__sync_once(struct io *io, struct io_file *file);

/* Writes all, finishing short writes; 0 or -errno. */
int io__write_all(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len);

/* Ends a commit with 0 or -errno: logs a failure, counts it out, calls `done`. */
void io__commit_end(struct io *io, struct io_commit *commit, int error);

/* The operations that both kernel backends share (io_posix.c). */
int io__posix_file_open(struct io *io, struct io_file *file, unsigned flags);
void io__posix_file_close(struct io *io, struct io_file *file);
int io__posix_file_size(struct io *io, struct io_file *file, uint64_t *bytes_out);
int64_t io__posix_read(struct io *io, struct io_file *file, uint64_t offset, void *data, size_t len);
int64_t io__posix_write(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len);
int io__posix_sync(struct io *io, struct io_file *file);
int io__posix_rename(struct io *io, const char *from, const char *to);
int io__posix_link(struct io *io, const char *from, const char *to);
int io__posix_remove(struct io *io, const char *path);
int io__posix_remove_dir(struct io *io, const char *path);
int io__posix_make_dir(struct io *io, const char *path);
int io__posix_sync_dir(struct io *io, const char *path);
int io__posix_list_dir(struct io *io, const char *path, int (*each)(void *context, const char *name),
                       void *context);
int io__posix_map(struct io *io, struct io_file *file, uint64_t offset, size_t len, const uint8_t **out);
void io__posix_unmap(struct io *io, const uint8_t *data, size_t len);
int io__posix_map_over(struct io *io, struct io_file *file, uint64_t offset, size_t len, void *at);
void io__posix_map_unneed(struct io *io, const uint8_t *data, size_t len);
int io__posix_lock(struct io *io, struct io_file *file, char *holder, size_t holder_bytes);
void io__posix_unlock(struct io *io, struct io_file *file);

#define IO__POSIX_OPS                                                                                        \
    .file_open = io__posix_file_open, .file_close = io__posix_file_close, .file_size = io__posix_file_size,  \
    .read = io__posix_read, .write = io__posix_write, .sync = io__posix_sync, .rename = io__posix_rename,    \
    .link = io__posix_link, .remove = io__posix_remove, .remove_dir = io__posix_remove_dir,                  \
    .make_dir = io__posix_make_dir, .sync_dir = io__posix_sync_dir, .list_dir = io__posix_list_dir,          \
    .map = io__posix_map, .unmap = io__posix_unmap, .map_over = io__posix_map_over,                          \
    .map_unneed = io__posix_map_unneed, .lock = io__posix_lock, .unlock = io__posix_unlock

/* The backends: 0 or -errno. */
int io__uring_open(struct io **out);
int io__syscall_open(struct io **out);

#endif
