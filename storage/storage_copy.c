/* storage_copy.c: copies of the data directory, for backups: `dir`/snapshots/<name>, which any storage opens.
 *
 *     IDLE → ROLL → LIST → COPY → FINISH → IDLE
 *
 * ROLL has the storage thread go on in a new segment of the log: all that was acknowledged before is in the
 * ones before it, which never change again. From LIST on the manifest stands still, since no other job runs.
 * What it names, the log up to the new segment, and the manifest itself, are the copy. Blocks are linked:
 * nothing writes to a file of a block (what is repaired takes its place by a rename). Label parts and the
 * chunk log grow in place, so the files of the head are copied, and those of the log, which the copy's own
 * start may cut. A copy of the blocks alone has of the log the header of its new segment.
 *
 * It is made as <name>.tmp and renamed once everything in it is durable: what a crash leaves is swept. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/storage_private.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define STEP_PIECES 4 /* copied by one step */
#define NAME_BYTES  64

enum phase { PHASE_IDLE, PHASE_ROLL, PHASE_LIST, PHASE_COPY, PHASE_FINISH };

/* Of a block; what else may lie beside them is what a repair left, and writes over. */
static const char *const block_files[] = {"chunks", "index.mdb", "index.sum", "meta.json"};

/* A file, by its path below the data directory. */
struct copied {
    char *path;
    bool link;
    bool empty; /* a segment of the log, of which the header alone counts */
};

struct copy {
    enum phase phase;
    atomic_bool asked; /* the storage thread has to begin a new segment */
    int status;        /* of that */
    uint32_t segment;  /* the new one */
    struct rand rand;
    struct storage_request *request;
    char name[NAME_BYTES];
    char *to; /* the directory, while it is not finished */
    struct copied *files;
    size_t file_count, file_capacity, file_at;
    char **dirs; /* below it, to be synced */
    size_t dir_count, dir_capacity;
    struct io_file *in, *out;
    uint64_t offset;
    uint8_t *piece;
};

int storage__copy_new(struct storage *storage) {
    storage->copy = mem_zalloc(sizeof *storage->copy);
    if (storage->copy == NULL)
        return STATUS_NO_MEMORY;
    rand_init(&storage->copy->rand, storage->options.seed ^ UINT64_C(0x85ebca77c2b2ae63));
    return STATUS_OK;
}

int storage_copy(struct storage *storage, enum storage_copy_kind kind,
                 void (*done)(void *context, int status, const char *name), void *context) {
    return storage__request_put(storage, &storage->copy_requests,
                                (struct storage_request){.context = context, .copied = done, .kind = kind});
}

/* ---- paths ---- */

static int sweep_each(void *context, const char *name) {
    struct storage *storage = context;
    size_t len = strlen(name);
    if (len <= 4 || strcmp(name + len - 4, ".tmp") != 0)
        return STATUS_OK;
    char *parent = storage__path_join(storage->dir, "snapshots");
    char *path = parent == NULL ? NULL : storage__path_join(parent, name);
    if (path != NULL)
        (void)io_remove_tree(storage->options.io_maintain, path);
    mem_free(parent);
    mem_free(path);
    return STATUS_OK;
}

void storage__copy_sweep(struct storage *storage) {
    char *path = storage__path_join(storage->dir, "snapshots");
    if (path != NULL)
        (void)io_list_dir(storage->options.io_maintain, path, sweep_each, storage);
    mem_free(path);
}

/* ---- the job ---- */

static void job_release(struct storage *storage) {
    struct copy *copy = storage->copy;
    struct io *io = storage->options.io_maintain;
    io_file_close(io, copy->in);
    io_file_close(io, copy->out);
    copy->in = copy->out = NULL;
    for (size_t i = 0; i < copy->file_count; i++)
        mem_free(copy->files[i].path);
    for (size_t i = 0; i < copy->dir_count; i++)
        mem_free(copy->dirs[i]);
    mem_free(copy->files);
    mem_free(copy->dirs);
    mem_free(copy->piece);
    mem_free(copy->to);
    copy->files = NULL;
    copy->dirs = NULL;
    copy->piece = NULL;
    copy->to = NULL;
    copy->file_count = copy->file_capacity = copy->file_at = copy->dir_count = copy->dir_capacity = 0;
    copy->phase = PHASE_IDLE;
}

void storage__copy_close(struct storage *storage) {
    struct copy *copy = storage->copy;
    for (struct storage_request *request;
         (request = storage__request_take(storage, &storage->copy_requests)) != NULL;)
        storage__request_end(request, STATUS_STOPPING, NULL);
    if (copy == NULL)
        return;
    if (copy->to != NULL)
        (void)io_remove_tree(storage->options.io_maintain, copy->to);
    job_release(storage);
    if (copy->request != NULL)
        storage__request_end(copy->request, STATUS_STOPPING, NULL);
    mem_free(copy);
    storage->copy = NULL;
}

bool storage__copy_runs(const struct storage *storage) {
    return storage->copy->phase != PHASE_IDLE;
}

static void job_end(struct storage *storage, int status, const char *what) {
    struct copy *copy = storage->copy;
    struct storage_request *request = copy->request;
    if (status < 0) {
        log_warn("the data directory could not be copied", LOG_STR("name", copy->name),
                 LOG_STR("error", what));
        if (copy->to != NULL)
            (void)io_remove_tree(storage->options.io_maintain, copy->to);
    } else {
        log_info("the data directory was copied", LOG_STR("name", copy->name));
    }
    metric_add(status < 0 ? METRIC_copy_failures : METRIC_copies, 1);
    job_release(storage);
    copy->request = NULL;
    storage__request_end(request, status, status < 0 ? NULL : copy->name);
}

bool storage__copy_asks(const struct storage *storage) {
    return atomic_load_explicit(&storage->copy->asked, memory_order_acquire);
}

bool storage__copy_serve(struct storage *storage) {
    struct copy *copy = storage->copy;
    if (!storage__copy_asks(storage))
        return false;
    /* What was not proven of the last log is only in memory while the log can't be written. */
    copy->status = wal_state(storage->wal) == WAL_READY ? wal_roll(storage->wal) : STATUS_IO;
    copy->segment = wal_segment(storage->wal);
    atomic_store_explicit(&copy->asked, false, memory_order_release);
    storage__maintain_poke(storage);
    return true;
}

static void start(struct storage *storage, int64_t now_ms) {
    struct copy *copy = storage->copy;
    struct tm parts;
    char date[32];
    time_t seconds = (time_t)(now_ms / 1000);
    gmtime_r(&seconds, &parts);
    strftime(date, sizeof date, "%Y%m%dT%H%M%SZ", &parts);
    snprintf(copy->name, sizeof copy->name, "%s-%016llx", date, (unsigned long long)rand_u64(&copy->rand));
    copy->phase = PHASE_ROLL;
    atomic_store_explicit(&copy->asked, true, memory_order_release);
    storage__poke(storage);
}

/* ---- LIST ---- */

static int dir_add(struct storage *storage, const char *name, struct error_detail *detail) {
    struct copy *copy = storage->copy;
    char **dirs = array_ensure(copy->dirs, &copy->dir_capacity, copy->dir_count + 1, sizeof *dirs);
    if (dirs == NULL)
        return STATUS_NO_MEMORY;
    copy->dirs = dirs;
    char *path = storage__path_join(copy->to, name);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    copy->dirs[copy->dir_count++] = path;
    return io_make_dir(storage->options.io_maintain, path, detail);
}

struct listing {
    struct storage *storage;
    const char *dir;
    bool link;
    bool empty;
};

static int file_add(struct listing *listing, const char *name) {
    struct copy *copy = listing->storage->copy;
    struct copied *files =
        array_ensure(copy->files, &copy->file_capacity, copy->file_count + 1, sizeof *files);
    if (files == NULL)
        return STATUS_NO_MEMORY;
    copy->files = files;
    char *path = storage__path_join(listing->dir, name);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    copy->files[copy->file_count++] = (struct copied){path, listing->link, listing->empty};
    return STATUS_OK;
}

static int file_each(void *context, const char *name) {
    return file_add(context, name);
}

/* The segments before the one that is written now. */
static int segment_each(void *context, const char *name) {
    struct listing *listing = context;
    char *end;
    unsigned long number = strtoul(name, &end, 16);
    bool ours = end == name + 8 && strcmp(end, ".log") == 0 && number < listing->storage->copy->segment;
    return ours ? file_add(listing, name) : STATUS_OK;
}

static int dir_list(struct storage *storage, const char *name, int (*each)(void *context, const char *name),
                    struct error_detail *detail) {
    struct listing listing = {.storage = storage, .dir = name};
    char *path = storage__path_join(storage->dir, name);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    int status = dir_add(storage, name, detail);
    if (status == STATUS_OK)
        status = io_list_dir(storage->options.io_maintain, path, each, &listing);
    mem_free(path);
    return status;
}

/* The one that is written now, without what is in it: it says how far the log has come. */
static int segment_list(struct storage *storage, struct error_detail *detail) {
    struct listing listing = {.storage = storage, .dir = "wal", .empty = true};
    char name[16];
    int status = dir_add(storage, "wal", detail);
    snprintf(name, sizeof name, "%08" PRIx32 ".log", storage->copy->segment);
    return status < 0 ? status : file_add(&listing, name);
}

static int list(struct storage *storage, struct error_detail *detail) {
    struct copy *copy = storage->copy;
    struct io *io = storage->options.io_maintain;
    int status = STATUS_OK;
    char *parent = storage__path_join(storage->dir, "snapshots");
    char name[NAME_BYTES + 4];
    if (parent == NULL)
        return STATUS_NO_MEMORY;
    snprintf(name, sizeof name, "%s.tmp", copy->name);
    copy->to = storage__path_join(parent, name);
    copy->piece = mem_alloc(PIECE_BYTES);
    if (copy->to == NULL || copy->piece == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    TRY(io_make_dir(io, parent, detail));
    TRY(io_make_dir(io, copy->to, detail));
    if (copy->request->kind == STORAGE_COPY_ALL) {
        TRY(dir_list(storage, "head", file_each, detail));
        TRY(dir_list(storage, "wal", segment_each, detail));
    } else {
        TRY(segment_list(storage, detail));
    }
    TRY(dir_add(storage, "blocks", detail));
    for (size_t i = 0; i < storage->manifest.block_count; i++) {
        char block[32];
        snprintf(block, sizeof block, "blocks/%016llx", (unsigned long long)storage->manifest.blocks[i].id);
        TRY(dir_add(storage, block, detail));
        struct listing listing = {.storage = storage, .dir = block, .link = true};
        for (size_t k = 0; k < sizeof block_files / sizeof block_files[0]; k++)
            TRY(file_add(&listing, block_files[k]));
    }
out:
    mem_free(parent);
    return status;
}

/* ---- COPY ---- */

static int file_begin(struct storage *storage, const struct copied *file, struct error_detail *detail) {
    struct copy *copy = storage->copy;
    struct io *io = storage->options.io_maintain;
    char *from = storage__path_join(storage->dir, file->path), *to = storage__path_join(copy->to, file->path);
    int status = STATUS_OK;
    if (from == NULL || to == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    if (file->link && io_link(io, from, to) == STATUS_OK) {
        copy->file_at++;
        goto out;
    }
    status = io_file_open(io, from, IO_OPEN_READ, detail, &copy->in);
    if (status == STATUS_NOT_FOUND && file->link) { /* the block is damaged, and so is the copy's */
        *detail = (struct error_detail){0};
        copy->file_at++;
        status = STATUS_OK;
        goto out;
    }
    TRY(status);
    TRY(io_file_open(io, to, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_TRUNCATE, detail, &copy->out));
    copy->offset = 0;
out:
    mem_free(from);
    mem_free(to);
    return status;
}

static int piece_copy(struct storage *storage) {
    struct copy *copy = storage->copy;
    struct io *io = storage->options.io_maintain;
    size_t got;
    int status = io_read(io, copy->in, copy->offset, copy->piece, PIECE_BYTES, &got);
    if (status < 0)
        return status;
    if (copy->files[copy->file_at].empty) {
        size_t header = copy->offset == 0 ? WAL_HEADER_BYTES : 0;
        memset(copy->piece + header, 0, PIECE_BYTES - header);
    }
    if (got > 0)
        TRY(io_write(io, copy->out, copy->offset, copy->piece, got));
    copy->offset += got;
    if (got == PIECE_BYTES)
        return STATUS_OK;
    TRY(io_sync(io, copy->out));
    io_file_close(io, copy->in);
    io_file_close(io, copy->out);
    copy->in = copy->out = NULL;
    copy->file_at++;
out:
    return status;
}

static int copy_some(struct storage *storage, struct error_detail *detail) {
    struct copy *copy = storage->copy;
    int status = STATUS_OK;
    for (unsigned i = 0; i < STEP_PIECES && copy->file_at < copy->file_count; i++)
        if (copy->in == NULL)
            TRY(file_begin(storage, &copy->files[copy->file_at], detail));
        else
            TRY(piece_copy(storage));
out:
    return status;
}

static int finish(struct storage *storage, struct error_detail *detail) {
    struct copy *copy = storage->copy;
    struct io *io = storage->options.io_maintain;
    int status = STATUS_OK;
    struct manifest manifest = {0};
    char *parent = storage__path_join(storage->dir, "snapshots"), *to = NULL;
    if (parent == NULL || (to = storage__path_join(parent, copy->name)) == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    TRY(manifest_copy(&storage->manifest, &manifest));
    if (copy->request->kind == STORAGE_COPY_BLOCKS) { /* the log does not have the deletes */
        manifest.snapshot_count = 0;
        TRY(storage__deletes_put_into(storage, &manifest));
    }
    TRY(manifest_store(io, copy->to, &manifest, detail));
    for (size_t i = copy->dir_count; i-- > 0;)
        TRY(io_sync_dir(io, copy->dirs[i]));
    TRY(io_sync_dir(io, copy->to));
    TRY(io_rename(io, copy->to, to));
    status = io_sync_dir(io, parent);
    if (status < 0) /* what is removed piece by piece must not have that name */
        (void)io_rename(io, to, copy->to);
out:
    manifest_release(&manifest);
    mem_free(parent);
    mem_free(to);
    return status;
}

/* ---- one step ---- */

bool storage__copy_step(struct storage *storage, int64_t now_ms) {
    struct copy *copy = storage->copy;
    struct error_detail detail = {0};
    int status = STATUS_OK;
    if (atomic_load_explicit(&copy->asked, memory_order_acquire))
        return false; /* the storage thread is at it */
    switch (copy->phase) {
    case PHASE_IDLE:
        if ((copy->request = storage__request_take(storage, &storage->copy_requests)) == NULL)
            return false;
        start(storage, now_ms);
        return true;
    case PHASE_ROLL:
        if ((status = copy->status) == STATUS_OK)
            copy->phase = PHASE_LIST;
        else
            error_set(&detail, status, "the log can't be written");
        break;
    case PHASE_LIST:
        if ((status = list(storage, &detail)) == STATUS_OK)
            copy->phase = PHASE_COPY;
        break;
    case PHASE_COPY:
        if ((status = copy_some(storage, &detail)) == STATUS_OK && copy->file_at == copy->file_count)
            copy->phase = PHASE_FINISH;
        break;
    case PHASE_FINISH:
        if ((status = finish(storage, &detail)) == STATUS_OK)
            job_end(storage, STATUS_OK, "");
        break;
    }
    if (status < 0)
        job_end(storage, status, detail.text[0] != '\0' ? detail.text : status_message(status));
    return true;
}
