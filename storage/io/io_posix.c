/* io_posix.c: the blocking operations, as system calls; shared by the io_uring and the syscall backend. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/io/io_private.h"

#define RETRY_EINTR(result, call)                                                                            \
    do {                                                                                                     \
        (result) = (call);                                                                                   \
    } while ((result) < 0 && errno == EINTR)

int io__posix_file_open(struct io *io, struct io_file *file, unsigned flags) {
    (void)io;
    int mode = O_CLOEXEC;
    if (flags & IO_OPEN_WRITE)
        mode |= flags & IO_OPEN_READ ? O_RDWR : O_WRONLY;
    else
        mode |= O_RDONLY;
    if (flags & IO_OPEN_CREATE)
        mode |= O_CREAT;
    if (flags & IO_OPEN_EXCLUSIVE)
        mode |= O_EXCL;
    if (flags & IO_OPEN_TRUNCATE)
        mode |= O_TRUNC;
    int fd;
    RETRY_EINTR(fd, open(file->path, mode, 0644));
    if (fd < 0)
        return -errno;
    file->fd = fd;
    return 0;
}

void io__posix_file_close(struct io *io, struct io_file *file) {
    (void)io;
    close(file->fd); /* what had to be durable was synced: an error here tells nothing new */
}

int io__posix_file_size(struct io *io, struct io_file *file, uint64_t *bytes_out) {
    (void)io;
    struct stat stat;
    if (fstat(file->fd, &stat) != 0)
        return -errno;
    *bytes_out = (uint64_t)stat.st_size;
    return 0;
}

int64_t io__posix_read(struct io *io, struct io_file *file, uint64_t offset, void *data, size_t len) {
    (void)io;
    ssize_t got;
    RETRY_EINTR(got, pread(file->fd, data, len, (off_t)offset));
    return got < 0 ? -errno : got;
}

int64_t io__posix_write(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len) {
    (void)io;
    ssize_t put;
    RETRY_EINTR(put, pwrite(file->fd, data, len, (off_t)offset));
    return put < 0 ? -errno : put;
}

int io__posix_sync(struct io *io, struct io_file *file) {
    (void)io;
    int result;
    RETRY_EINTR(result, fdatasync(file->fd));
    return result < 0 ? -errno : 0;
}

int io__posix_rename(struct io *io, const char *from, const char *to) {
    (void)io;
    return rename(from, to) != 0 ? -errno : 0;
}

int io__posix_link(struct io *io, const char *from, const char *to) {
    (void)io;
    return link(from, to) != 0 ? -errno : 0;
}

int io__posix_remove(struct io *io, const char *path) {
    (void)io;
    return unlink(path) != 0 ? -errno : 0;
}

int io__posix_remove_dir(struct io *io, const char *path) {
    (void)io;
    return rmdir(path) != 0 ? -errno : 0;
}

int io__posix_make_dir(struct io *io, const char *path) {
    (void)io;
    if (mkdir(path, 0755) == 0)
        return 0;
    int error = errno;
    struct stat stat_now;
    if (error == EEXIST && stat(path, &stat_now) == 0 && !S_ISDIR(stat_now.st_mode))
        return -ENOTDIR;
    return -error;
}

int io__posix_sync_dir(struct io *io, const char *path) {
    (void)io;
    int fd;
    RETRY_EINTR(fd, open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0)
        return -errno;
    int result;
    RETRY_EINTR(result, fsync(fd));
    int error = result < 0 ? errno : 0;
    close(fd);
    return -error;
}

int io__posix_list_dir(struct io *io, const char *path, int (*each)(void *context, const char *name),
                       void *context) {
    (void)io;
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -errno;
    int result = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if ((result = each(context, entry->d_name)) < 0)
            break;
    }
    closedir(dir);
    return result;
}

int io__posix_map(struct io *io, struct io_file *file, uint64_t offset, size_t len, const uint8_t **out) {
    (void)io;
    void *at = mmap(NULL, len, PROT_READ, MAP_SHARED, file->fd, (off_t)offset);
    if (at == MAP_FAILED)
        return -errno;
    *out = at;
    return 0;
}

void io__posix_unmap(struct io *io, const uint8_t *data, size_t len) {
    (void)io;
    munmap((void *)(uintptr_t)data, len);
}

int io__posix_map_over(struct io *io, struct io_file *file, uint64_t offset, size_t len, void *at) {
    (void)io;
    void *mapped = mmap(at, len, PROT_READ, MAP_SHARED | MAP_FIXED, file->fd, (off_t)offset);
    return mapped == MAP_FAILED ? -errno : 0;
}

void io__posix_map_unneed(struct io *io, const uint8_t *data, size_t len) {
    (void)io;
    (void)madvise((void *)(uintptr_t)data, len, MADV_DONTNEED); /* of a file: it is read again */
}

int io__posix_lock(struct io *io, struct io_file *file, char *holder, size_t holder_bytes) {
    (void)io;
    int fd;
    RETRY_EINTR(fd, open(file->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (fd < 0)
        return -errno;
    int result;
    RETRY_EINTR(result, flock(fd, LOCK_EX | LOCK_NB));
    if (result != 0) {
        int error = errno;
        ssize_t got = pread(fd, holder, holder_bytes - 1, 0);
        holder[got < 0 ? 0 : got] = '\0';
        close(fd);
        return -error;
    }
    /* The pid is for people. flock is the lock: a full disk must not keep the server from starting. */
    char pid[32];
    int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)len, 0) != len)
        (void)!ftruncate(fd, 0);
    file->fd = fd;
    return 0;
}

void io__posix_unlock(struct io *io, struct io_file *file) {
    (void)io;
    (void)!ftruncate(file->fd, 0); /* the next holder's rival must not be told our pid */
    close(file->fd);
}
