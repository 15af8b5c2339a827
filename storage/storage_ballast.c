/* storage_ballast.c: room on a disk that is full, for the one thing that can free some: a manifest that names
 * less. The file `ballast` has no meaning; it is removed when a manifest does not fit, and made again when
 * there is room. (The log has its own: the next segment, made in time and filled with zeros, which takes
 * writes and deletes for a while.) */
#include <stdio.h>

#include "base/log.h"
#include "base/metrics.h"
#include "storage/storage_private.h"

#define BALLAST_BYTES ((size_t)256 << 10)
#define RETRY_MS      10000

static bool path_make(const struct storage *storage, char *out, size_t bytes) {
    return (size_t)snprintf(out, bytes, "%s/ballast", storage->dir) < bytes;
}

int storage__manifest_store(struct storage *storage, const struct manifest *next,
                            struct error_detail *detail) {
    char path[4096];
    struct io *io = storage->options.io_maintain;
    int status = manifest_store(io, storage->dir, next, detail);
    if (status != STATUS_NO_SPACE || !path_make(storage, path, sizeof path))
        return status;
    storage->has_ballast = false;
    if (io_remove(io, path) != STATUS_OK)
        return status;
    metric_add(METRIC_ballast_used, 1);
    log_warn("the disk is full; its ballast makes room for a manifest", LOG_STR("file", path));
    return manifest_store(io, storage->dir, next, detail);
}

void storage__ballast_step(struct storage *storage, int64_t now_ms) {
    static const uint8_t zeros[BALLAST_BYTES];
    char path[4096];
    struct io *io = storage->options.io_maintain;
    struct io_file *file = NULL;
    int status = STATUS_OK;
    if (storage->has_ballast || !path_make(storage, path, sizeof path) ||
        retry_waits(&storage->ballast_retry, now_ms))
        return;
    retry_after(&storage->ballast_retry, now_ms, RETRY_MS);
    TRY(io_file_open(io, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_TRUNCATE, NULL, &file));
    TRY(io_write(io, file, 0, zeros, sizeof zeros));
    TRY(io_sync(io, file));
    storage->has_ballast = true;
out:
    io_file_close(io, file);
    if (status < 0)
        io_remove(io, path); /* half of it is of no use, and takes room */
}
