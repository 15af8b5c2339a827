/* block_native.c: files that LMDB opens for itself. */
#include "storage/block/block_native.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

void block__scratch_path(int fd, char path[BLOCK__NATIVE_PATH_BYTES]) {
    snprintf(path, BLOCK__NATIVE_PATH_BYTES, "/proc/self/fd/%d", fd);
}

int block__scratch_open(struct io *io, const char *dir, int *fd_out, char path[BLOCK__NATIVE_PATH_BYTES],
                        struct error_detail *detail) {
    (void)io;
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && errno != ENOSPC && errno != EDQUOT) /* read-only, or a file system that can't */
        fd = memfd_create("tidalite-block", MFD_CLOEXEC);
    if (fd < 0)
        return error_set(detail, status_from_errno(errno), "scratch file in %s: %s", dir, strerror(errno));
    block__scratch_path(fd, path);
    *fd_out = fd;
    return STATUS_OK;
}

int block__native_path(struct io *io, struct io_file *file, char path[BLOCK__NATIVE_PATH_BYTES],
                       struct error_detail *detail) {
    int status = io_native_path(io, file, path, BLOCK__NATIVE_PATH_BYTES);
    return status < 0 ? error_set(detail, status, "%s: %s", io_file_path(file), status_message(status))
                      : status;
}
