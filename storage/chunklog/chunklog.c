/* chunklog.c: files of sealed chunks, extent by extent.
 *
 * A file's slot in `entries` is all that readers look at before they know that it is alive: its number and
 * its end. Both are checked as under a sequence lock: the number is 0 while they change, and a number is
 * never used twice. A reader that finds the end above the time it reads from knows that the file stays until
 * it has ended (chunklog_drop's promise), and only then looks inside. */
#include "storage/chunklog/chunklog.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "base/stable_array.h"

#define FILES_MAX        64
#define EXTENT_BYTES     (256u << 10)
#define EXTENT_NONE      UINT32_MAX
#define PAGE_BYTES       4096u
#define HEADER_BYTES     64
#define RECORD_BYTES     40
#define SYNC_EXTENTS     32 /* full extents that wait for a sync at most, when nothing else asks for one */
#define WRITE_EXTENTS    8  /* written by one chunklog_write */
#define FORMAT           1
#define TABLE_FILE_BYTES 40

static const char MAGIC[8] = "TIDCHUNK";

struct extent {
    uint8_t *data; /* NULL: lost, or nothing of it counts */
    atomic_uint_fast32_t used;
    atomic_uint_fast32_t mark; /* of it, when chunklog_mark was called last: the end of a page */
    uint32_t written;          /* up to here it is in the file; the maintaining thread's */
    uint32_t synced;
    uint32_t valid; /* of a restored one: what the table said; `used` is less if the file ends early */
    uint8_t partition;
    bool restored;      /* data is in the file's mapping */
    atomic_bool closed; /* nothing is appended any more */
    atomic_bool check;  /* the bytes may come from the disk */
};

struct file {
    uint32_t number;
    uint32_t salt;
    atomic_int_fast64_t begin_ms; /* the applying thread's; the other looks */
    int64_t end_ms;               /* the applying thread's; readers use that of entries[] */
    struct stable_array extents;
    atomic_uint_fast32_t extent_count;
    uint32_t open[CHUNKLOG_PARTITIONS]; /* extents appended to; EXTENT_NONE */

    /* the maintaining thread's */
    struct io_file *handle;
    struct slice mapped;     /* what was there at the start */
    uint32_t first_unmapped; /* extents below it are mapped over, or restored */
    uint64_t bytes;          /* of the file */
    struct file *next_dead;
};

struct entry {
    atomic_uint_fast32_t number; /* 0: free, or changing */
    atomic_int_fast64_t end_ms;
    _Atomic(struct file *) file;
};

struct chunklog {
    struct io *io;
    char *dir;
    struct rand rand;
    bool read_only;
    atomic_uint_fast32_t last_number; /* given to a file; the applying thread's, the other looks */
    struct entry entries[FILES_MAX];
    pthread_mutex_t dead_mutex; /* for a few instructions */
    struct file *dead;
    bool dir_changed; /* files were made that no sync of the directory has seen; the maintaining thread's */
    atomic_uint_fast64_t memory_bytes;
    atomic_uint_fast64_t file_bytes;
};

static struct extent *extent_at(struct file *file, uint32_t index) {
    return stable_array_at(&file->extents, index);
}

static uint32_t crc_of(uint32_t salt, uint64_t offset, const uint8_t *data, size_t len) {
    uint8_t place[8];
    store_u64(place, offset);
    return crc32c(crc32c(salt, place, sizeof place), data, len);
}

static size_t record_size(size_t bits_len) {
    return (RECORD_BYTES + bits_len + 7) & ~(size_t)7;
}

int chunklog_new(struct io *io, const char *dir, uint64_t seed, struct chunklog **out) {
    struct chunklog *log = mem_zalloc(sizeof *log);
    if (log == NULL)
        return STATUS_NO_MEMORY;
    log->io = io;
    log->dir = mem_strndup(dir, strlen(dir));
    if (log->dir == NULL) {
        mem_free(log);
        return STATUS_NO_MEMORY;
    }
    rand_init(&log->rand, seed ^ UINT64_C(0xc2b2ae3d27d4eb4f));
    pthread_mutex_init(&log->dead_mutex, NULL);
    *out = log;
    return STATUS_OK;
}

void chunklog_read_only(struct chunklog *log) {
    log->read_only = true;
}

static void file_free(struct chunklog *log, struct file *file) {
    if (file == NULL)
        return;
    uint32_t count = (uint32_t)atomic_load(&file->extent_count);
    for (uint32_t i = 0; i < count; i++) {
        struct extent *extent = extent_at(file, i);
        if (extent->restored)
            continue;
        if (!atomic_load(&extent->check))
            atomic_fetch_sub(&log->memory_bytes, atomic_load(&extent->used));
        mem_pages_free(extent->data, EXTENT_BYTES);
    }
    io_unmap(log->io, file->mapped);
    io_file_close(log->io, file->handle);
    atomic_fetch_sub(&log->file_bytes, file->bytes);
    stable_array_release(&file->extents);
    mem_free(file);
}

void chunklog_free(struct chunklog *log) {
    if (log == NULL)
        return;
    for (size_t i = 0; i < FILES_MAX; i++)
        file_free(log, atomic_load(&log->entries[i].file));
    while (log->dead != NULL) {
        struct file *file = log->dead;
        log->dead = file->next_dead;
        file_free(log, file);
    }
    pthread_mutex_destroy(&log->dead_mutex);
    mem_free(log->dir);
    mem_free(log);
}

/* ---- files ---- */

static struct file *file_new(uint32_t number, uint32_t salt, int64_t begin_ms, int64_t end_ms) {
    struct file *file = mem_zalloc(sizeof *file);
    if (file == NULL)
        return NULL;
    file->number = number;
    file->salt = salt;
    atomic_init(&file->begin_ms, begin_ms);
    file->end_ms = end_ms;
    stable_array_init(&file->extents, sizeof(struct extent));
    for (size_t i = 0; i < CHUNKLOG_PARTITIONS; i++)
        file->open[i] = EXTENT_NONE;
    return file;
}

/* Never again, though the file be gone: records and series refer to it. */
static void number_note(struct chunklog *log, uint32_t number) {
    if (atomic_load_explicit(&log->last_number, memory_order_relaxed) < number)
        atomic_store(&log->last_number, number);
}

static void entry_set(struct chunklog *log, struct file *file) {
    struct entry *entry = &log->entries[file->number % FILES_MAX];
    ASSERT(atomic_load(&entry->file) == NULL);
    atomic_store(&entry->file, file);
    atomic_store(&entry->end_ms, file->end_ms);
    atomic_store(&entry->number, file->number);
    number_note(log, file->number);
}

/* The number of a new file: the next whose entry is free; 0: none is. */
static uint32_t number_next(const struct chunklog *log) {
    uint32_t last = (uint32_t)atomic_load_explicit(&log->last_number, memory_order_relaxed);
    for (uint32_t number = last + 1; number <= last + FILES_MAX; number++)
        if (number < UINT32_C(1) << (64 - CHUNK_REF_OFFSET_BITS) &&
            atomic_load(&log->entries[number % FILES_MAX].file) == NULL)
            return number;
    return 0;
}

/* The file for chunks of [begin, end) of time; NULL: no memory. */
static struct file *file_for(struct chunklog *log, int64_t begin_ms, int64_t end_ms, int64_t over_ms) {
    struct file *nearest = NULL;
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = atomic_load_explicit(&log->entries[i].file, memory_order_relaxed);
        if (file == NULL || atomic_load_explicit(&file->begin_ms, memory_order_relaxed) > begin_ms)
            continue;
        if (file->end_ms >= end_ms)
            return file;
        if (nearest == NULL || file->end_ms > nearest->end_ms)
            nearest = file;
    }
    uint32_t number = number_next(log);
    if (number == 0 && nearest != NULL) {
        /* Very many windows are open at once: this one shares a file, which lives as long as the longer. */
        nearest->end_ms = end_ms;
        atomic_store(&log->entries[nearest->number % FILES_MAX].end_ms, end_ms);
        return nearest;
    }
    bool old = end_ms <= over_ms;
    if (number == 0) /* as the one above, with what begins later */
        for (size_t i = 0; i < FILES_MAX; i++) {
            struct file *file = atomic_load_explicit(&log->entries[i].file, memory_order_relaxed);
            if (file != NULL && file->end_ms >= end_ms) {
                atomic_store_explicit(&file->begin_ms, begin_ms, memory_order_relaxed);
                return file;
            }
        }
    ASSERT(number != 0);
    struct file *file =
        file_new(number, (uint32_t)rand_u64(&log->rand), old ? INT64_MIN : begin_ms, old ? over_ms : end_ms);
    if (file != NULL)
        entry_set(log, file);
    return file;
}

static uint8_t *header_write(const struct file *file, uint8_t *p) {
    memset(p, 0, HEADER_BYTES);
    memcpy(p, MAGIC, sizeof MAGIC);
    store_u32(p + 8, FORMAT);
    store_u32(p + 12, file->number);
    store_u32(p + 16, file->salt);
    store_u64(p + 24, (uint64_t)atomic_load_explicit(&file->begin_ms, memory_order_relaxed));
    store_u64(p + 32, (uint64_t)file->end_ms);
    store_u32(p + 60, crc32c(0, p, 60));
    return p + HEADER_BYTES;
}

/* STATUS_CORRUPT: it can't be believed, and need not be: the table says it all. */
static int header_check(const struct file *file, const uint8_t *p, uint32_t *version_out) {
    if (memcmp(p, MAGIC, sizeof MAGIC) != 0 || load_u32(p + 60) != crc32c(0, p, 60))
        return STATUS_CORRUPT;
    *version_out = load_u32(p + 8);
    if (*version_out != FORMAT)
        return STATUS_NEWER_FORMAT;
    return load_u32(p + 12) == file->number && load_u32(p + 16) == file->salt ? STATUS_OK : STATUS_CORRUPT;
}

static int extent_new(struct file *file, unsigned partition, uint32_t *out) {
    uint32_t index = (uint32_t)atomic_load_explicit(&file->extent_count, memory_order_relaxed);
    if ((uint64_t)(index + 1) * EXTENT_BYTES >= UINT64_C(1) << CHUNK_REF_OFFSET_BITS)
        return STATUS_TOO_LARGE;
    int status = stable_array_ensure(&file->extents, index);
    if (status < 0)
        return status;
    uint8_t *data = mem_pages_alloc(EXTENT_BYTES);
    if (data == NULL)
        return STATUS_NO_MEMORY;
    struct extent *extent = extent_at(file, index);
    extent->data = data;
    extent->partition = (uint8_t)partition;
    if (index == 0) {
        header_write(file, data);
        atomic_store_explicit(&extent->used, HEADER_BYTES, memory_order_relaxed);
    }
    atomic_store_explicit(&file->extent_count, index + 1, memory_order_release);
    *out = index;
    return STATUS_OK;
}

/* ---- the applying thread ---- */

int chunklog_append(struct chunklog *log, int64_t window_begin_ms, int64_t window_end_ms, int64_t over_ms,
                    unsigned partition, const struct chunklog_chunk *chunk, chunk_ref *out) {
    ASSERT(partition < CHUNKLOG_PARTITIONS && chunk->bits.len <= UINT16_MAX);
    struct file *file = file_for(log, window_begin_ms, window_end_ms, over_ms);
    if (file == NULL)
        return STATUS_NO_MEMORY;
    size_t size = record_size(chunk->bits.len);
    uint32_t index = file->open[partition];
    struct extent *extent = index == EXTENT_NONE ? NULL : extent_at(file, index);
    uint32_t used = extent == NULL ? 0 : (uint32_t)atomic_load_explicit(&extent->used, memory_order_relaxed);
    if (extent == NULL || used + size > EXTENT_BYTES) {
        int status = extent_new(file, partition, &index);
        if (status < 0)
            return status;
        if (extent != NULL)
            atomic_store_explicit(&extent->closed, true, memory_order_release);
        file->open[partition] = index;
        extent = extent_at(file, index);
        used = (uint32_t)atomic_load_explicit(&extent->used, memory_order_relaxed);
        atomic_fetch_add_explicit(&log->memory_bytes, used, memory_order_relaxed); /* the file's header */
    }
    uint64_t offset = (uint64_t)index * EXTENT_BYTES + used;
    uint8_t *p = extent->data + used;
    store_u16(p + 4, (uint16_t)chunk->bits.len);
    p[6] = chunk->info.sample_count;
    p[7] = chunk->info.start_byte;
    store_u32(p + 8, chunk->slot);
    store_u32(p + 12, 0);
    store_u64(p + 16, chunk->previous);
    store_u64(p + 24, (uint64_t)chunk->time_min_ms);
    store_u64(p + 32, (uint64_t)chunk->time_max_ms);
    memcpy(p + RECORD_BYTES, chunk->bits.data, chunk->bits.len);
    memset(p + RECORD_BYTES + chunk->bits.len, 0, size - RECORD_BYTES - chunk->bits.len);
    store_u32(p, crc_of(file->salt, offset, p + 4, size - 4));
    atomic_store_explicit(&extent->used, used + size, memory_order_release);
    atomic_fetch_add_explicit(&log->memory_bytes, size, memory_order_relaxed);
    *out = (uint64_t)file->number << CHUNK_REF_OFFSET_BITS | offset;
    return STATUS_OK;
}

void chunklog_mark(struct chunklog *log) {
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = atomic_load_explicit(&log->entries[i].file, memory_order_relaxed);
        for (size_t partition = 0; file != NULL && partition < CHUNKLOG_PARTITIONS; partition++) {
            if (file->open[partition] == EXTENT_NONE)
                continue;
            struct extent *extent = extent_at(file, file->open[partition]);
            uint32_t used = (uint32_t)atomic_load_explicit(&extent->used, memory_order_relaxed);
            uint32_t mark = (used + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1); /* zeros, so far */
            atomic_fetch_add_explicit(&log->memory_bytes, mark - used, memory_order_relaxed);
            atomic_store_explicit(&extent->used, mark, memory_order_release);
            atomic_store_explicit(&extent->mark, mark, memory_order_release);
        }
    }
}

void chunklog_drop(struct chunklog *log, int64_t end_ms) {
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct entry *entry = &log->entries[i];
        struct file *file = atomic_load_explicit(&entry->file, memory_order_relaxed);
        if (file == NULL || file->end_ms > end_ms)
            continue;
        atomic_store(&entry->number, 0);
        pthread_mutex_lock(&log->dead_mutex);
        atomic_store(&entry->file, NULL);
        file->next_dead = log->dead;
        log->dead = file;
        pthread_mutex_unlock(&log->dead_mutex);
    }
}

/* ---- any thread ---- */

/* The file, if it is alive for who reads from `from_ms` on. */
static struct file *file_alive(struct chunklog *log, uint32_t number, int64_t from_ms) {
    struct entry *entry = &log->entries[number % FILES_MAX];
    if (number == 0 || atomic_load(&entry->number) != number)
        return NULL;
    struct file *file = atomic_load(&entry->file);
    int64_t end_ms = atomic_load(&entry->end_ms);
    return atomic_load(&entry->number) == number && end_ms > from_ms ? file : NULL;
}

/* The record at `offset` of an extent that holds `used` bytes; `check`: whatever stands there. */
static int record_at(const struct file *file, const struct extent *extent, uint64_t offset, uint32_t used,
                     bool check, struct chunklog_chunk *out, size_t *size_out) {
    uint32_t at = (uint32_t)(offset % EXTENT_BYTES);
    if (extent->data == NULL || at % 8 != 0 || at > used || used - at < RECORD_BYTES)
        return STATUS_CORRUPT;
    const uint8_t *p = extent->data + at;
    size_t bits_len = load_u16(p + 4), size = record_size(bits_len);
    if (size > used - at)
        return STATUS_CORRUPT;
    if ((check || atomic_load_explicit(&extent->check, memory_order_acquire)) &&
        load_u32(p) != crc_of(file->salt, offset, p + 4, size - 4))
        return STATUS_CORRUPT;
    *out = (struct chunklog_chunk){.previous = load_u64(p + 16),
                                   .slot = load_u32(p + 8),
                                   .time_min_ms = (int64_t)load_u64(p + 24),
                                   .time_max_ms = (int64_t)load_u64(p + 32),
                                   .info = {.sample_count = p[6], .start_byte = p[7]},
                                   .bits = slice_of(p + RECORD_BYTES, bits_len)};
    *size_out = size;
    return STATUS_OK;
}

int chunklog_read(struct chunklog *log, chunk_ref ref, uint32_t slot, int64_t from_ms,
                  struct chunklog_chunk *out) {
    if (ref == 0)
        return STATUS_END;
    struct file *file = file_alive(log, chunk_ref_file(ref), from_ms);
    if (file == NULL)
        return STATUS_END;
    uint64_t offset = chunk_ref_offset(ref);
    uint32_t index = (uint32_t)(offset / EXTENT_BYTES);
    if (index >= atomic_load_explicit(&file->extent_count, memory_order_acquire))
        return STATUS_CORRUPT;
    struct extent *extent = extent_at(file, index);
    struct chunklog_chunk chunk;
    size_t size;
    uint32_t used = (uint32_t)atomic_load_explicit(&extent->used, memory_order_acquire);
    int status = record_at(file, extent, offset, used, false, &chunk, &size);
    if (status < 0 || chunk.slot != slot)
        return STATUS_CORRUPT;
    if (chunk.time_max_ms < from_ms)
        return STATUS_END;
    *out = chunk;
    return STATUS_OK;
}

/* In one extent: a record begins at a multiple of 8 and names its slot, so few places need their checksum
 * computed. */
static void extent_find(struct file *file, uint32_t index, uint32_t slot, int64_t from_ms, int64_t before_ms,
                        struct chunklog_chunk *best, bool *found) {
    const struct extent *extent = extent_at(file, index);
    uint32_t used = (uint32_t)atomic_load_explicit(&extent->used, memory_order_acquire);
    for (uint32_t at = 0; extent->data != NULL && at + RECORD_BYTES <= used; at += 8) {
        struct chunklog_chunk chunk;
        size_t size;
        if (load_u32(extent->data + at + 8) == slot &&
            record_at(file, extent, (uint64_t)index * EXTENT_BYTES + at, used, true, &chunk, &size) ==
                STATUS_OK &&
            chunk.time_max_ms >= from_ms && chunk.time_max_ms < before_ms &&
            (!*found || chunk.time_max_ms > best->time_max_ms)) {
            *best = chunk;
            *found = true;
        }
    }
}

int chunklog_find(struct chunklog *log, unsigned partition, uint32_t slot, int64_t from_ms, int64_t before_ms,
                  struct chunklog_chunk *out) {
    struct chunklog_chunk best;
    bool found = false;
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = file_alive(log, (uint32_t)atomic_load(&log->entries[i].number), from_ms);
        uint32_t count =
            file == NULL ? 0 : (uint32_t)atomic_load_explicit(&file->extent_count, memory_order_acquire);
        for (uint32_t index = 0; index < count; index++)
            if (extent_at(file, index)->partition == partition)
                extent_find(file, index, slot, from_ms, before_ms, &best, &found);
    }
    if (!found)
        return STATUS_END;
    *out = best;
    return STATUS_OK;
}

uint64_t chunklog_memory_bytes(const struct chunklog *log) {
    return atomic_load_explicit(&log->memory_bytes, memory_order_relaxed);
}

uint64_t chunklog_file_bytes(const struct chunklog *log) {
    return atomic_load_explicit(&log->file_bytes, memory_order_relaxed);
}

/* ---- the maintaining thread ---- */

static char *path_of(const struct chunklog *log, uint32_t number) {
    size_t bytes = strlen(log->dir) + 24;
    char *path = mem_alloc(bytes);
    if (path != NULL)
        snprintf(path, bytes, "%s/%08" PRIx32 ".chunks", log->dir, number);
    return path;
}

static int file_open(struct chunklog *log, struct file *file, struct error_detail *detail) {
    if (file->handle != NULL)
        return STATUS_OK;
    char *path = path_of(log, file->number);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    int status = io_file_open(log->io, path, IO_OPEN_READ | IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_TRUNCATE,
                              detail, &file->handle);
    mem_free(path);
    log->dir_changed |= status == STATUS_OK;
    return status;
}

static int extent_write(struct chunklog *log, struct file *file, uint32_t index,
                        struct error_detail *detail) {
    struct extent *extent = extent_at(file, index);
    /* A file that shall be mapped has all of the extent. */
    uint32_t end = atomic_load_explicit(&extent->closed, memory_order_acquire)
                       ? EXTENT_BYTES
                       : (uint32_t)atomic_load_explicit(&extent->mark, memory_order_acquire);
    if (extent->written >= end)
        return STATUS_OK;
    int status = file_open(log, file, detail);
    if (status < 0)
        return status;
    uint64_t offset = (uint64_t)index * EXTENT_BYTES;
    status = io_write(log->io, file->handle, offset + extent->written, extent->data + extent->written,
                      end - extent->written);
    if (status < 0)
        return error_set(detail, status, "writing %s: %s", io_file_path(file->handle),
                         status_message(status));
    metric_add(METRIC_chunklog_written_bytes, end - extent->written);
    extent->written = end;
    if (offset + end > file->bytes) {
        atomic_fetch_add(&log->file_bytes, offset + end - file->bytes);
        file->bytes = offset + end;
    }
    return STATUS_OK;
}

/* Makes what was written durable, and gives back the memory of what is full. */
static int file_sync(struct chunklog *log, struct file *file, struct error_detail *detail) {
    if (file->handle == NULL)
        return STATUS_OK;
    uint32_t count = (uint32_t)atomic_load_explicit(&file->extent_count, memory_order_acquire);
    bool needed = false;
    for (uint32_t i = file->first_unmapped; i < count && !needed; i++)
        needed = extent_at(file, i)->written > extent_at(file, i)->synced;
    int status = needed ? io_sync(log->io, file->handle) : STATUS_OK;
    for (uint32_t i = file->first_unmapped; needed && i < count; i++) {
        struct extent *extent = extent_at(file, i);
        /* After a failure nothing is known of what was written since the last success: once more. */
        if (status < 0)
            extent->written = extent->synced;
        else
            extent->synced = extent->written;
    }
    if (status < 0)
        return error_set(detail, status, "syncing %s: %s", io_file_path(file->handle),
                         status_message(status));
    for (uint32_t i = file->first_unmapped; i < count; i++) {
        struct extent *extent = extent_at(file, i);
        if (!extent->restored && extent->synced == EXTENT_BYTES && !atomic_load(&extent->check)) {
            status =
                io_map_over(log->io, file->handle, (uint64_t)i * EXTENT_BYTES, EXTENT_BYTES, extent->data);
            if (status < 0) /* the memory stays what it is */
                return error_set(detail, status, "mapping %s: %s", io_file_path(file->handle),
                                 status_message(status));
            atomic_store_explicit(&extent->check, true, memory_order_release);
            atomic_fetch_sub(&log->memory_bytes, atomic_load(&extent->used));
        }
    }
    while (file->first_unmapped < count && (extent_at(file, file->first_unmapped)->restored ||
                                            atomic_load(&extent_at(file, file->first_unmapped)->check)))
        file->first_unmapped++;
    return STATUS_OK;
}

static void dead_remove(struct chunklog *log) {
    for (;;) {
        pthread_mutex_lock(&log->dead_mutex);
        struct file *file = log->dead;
        if (file != NULL)
            log->dead = file->next_dead;
        pthread_mutex_unlock(&log->dead_mutex);
        if (file == NULL)
            return;
        char *path = path_of(log, file->number);
        file_free(log, file);
        if (path != NULL) /* what stays is garbage, and swept by the next start */
            (void)io_remove(log->io, path);
        mem_free(path);
        KILL_POINT("chunklog_removed");
    }
}

int chunklog_write(struct chunklog *log, bool *more_out, struct error_detail *detail) {
    int status = STATUS_OK;
    unsigned written = 0;
    *more_out = false;
    dead_remove(log);
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = atomic_load(&log->entries[i].file);
        if (file == NULL)
            continue;
        uint32_t count = (uint32_t)atomic_load_explicit(&file->extent_count, memory_order_acquire);
        unsigned waiting = 0;
        for (uint32_t at = file->first_unmapped; at < count; at++) {
            struct extent *extent = extent_at(file, at);
            if (!atomic_load(&extent->closed) || extent->restored || atomic_load(&extent->check))
                continue;
            if (extent->written < EXTENT_BYTES) {
                if (written == WRITE_EXTENTS) {
                    *more_out = true;
                    return STATUS_OK;
                }
                TRY(extent_write(log, file, at, detail));
                written++;
            }
            waiting++;
        }
        if (waiting >= SYNC_EXTENTS)
            TRY(file_sync(log, file, detail));
    }
out:
    return status;
}

static void table_file_write(struct buf *table, uint32_t number, uint32_t salt, int64_t begin_ms,
                             int64_t end_ms, uint32_t extent_count) {
    uint8_t head[TABLE_FILE_BYTES] = {0};
    store_u32(head, number);
    store_u32(head + 4, salt);
    store_u64(head + 8, (uint64_t)begin_ms);
    store_u64(head + 16, (uint64_t)end_ms);
    store_u32(head + 24, extent_count);
    buf_append(table, head, sizeof head);
}

int chunklog_describe(struct chunklog *log, struct buf *table, struct error_detail *detail) {
    int status = STATUS_OK;
    uint32_t last = (uint32_t)atomic_load(&log->last_number);
    if (last != 0) /* it may be dropped, and series refer to it: told as a file without anything, long over */
        table_file_write(table, last, 0, INT64_MIN, INT64_MIN, 0);
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = atomic_load(&log->entries[i].file);
        if (file == NULL)
            continue;
        uint32_t count = (uint32_t)atomic_load_explicit(&file->extent_count, memory_order_acquire);
        if (count == 0)
            continue;
        table_file_write(table, file->number, file->salt,
                         atomic_load_explicit(&file->begin_ms, memory_order_relaxed),
                         atomic_load(&log->entries[i].end_ms), count);
        for (uint32_t at = 0; at < count; at++) {
            struct extent *extent = extent_at(file, at);
            if (!extent->restored && !atomic_load(&extent->check))
                TRY(extent_write(log, file, at, detail));
            uint32_t used = (uint32_t)atomic_load(&extent->used);
            if (extent->restored)
                used = extent->valid;
            else if (!atomic_load(&extent->closed)) /* now: written was its mark then */
                used = extent->written;
            else if (!atomic_load(&extent->check) && used > extent->written)
                used = extent->written; /* closed in between */
            uint8_t entry[8];
            store_u32(entry, used);
            store_u32(entry + 4, extent->partition);
            buf_append(table, entry, sizeof entry);
        }
        TRY(file_sync(log, file, detail));
        KILL_POINT("chunklog_written");
    }
    if (log->dir_changed)
        TRY(io_sync_dir(log->io, log->dir));
    log->dir_changed = false;
    if (table->failed)
        status = STATUS_NO_MEMORY;
out:
    return status;
}

void chunklog_unneed(struct chunklog *log, unsigned partition, int64_t end_ms) {
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = atomic_load(&log->entries[i].file);
        if (file == NULL || atomic_load(&log->entries[i].end_ms) > end_ms)
            continue;
        uint32_t count = (uint32_t)atomic_load_explicit(&file->extent_count, memory_order_acquire);
        for (uint32_t at = 0; at < count; at++) {
            const struct extent *extent = extent_at(file, at);
            if (extent->partition != partition || extent->data == NULL)
                continue;
            if (extent->restored) /* no further than the file goes */
                io_map_unneed(log->io, extent->data,
                              (uint32_t)atomic_load(&extent->used) & ~(PAGE_BYTES - 1));
            else if (atomic_load(&extent->check))
                io_map_unneed(log->io, extent->data, EXTENT_BYTES);
        }
    }
}

/* ---- opening ---- */

/* Maps the file; what is missing of it costs what it held. */
static int file_restore(struct chunklog *log, struct file *file, struct error_detail *detail) {
    int status = STATUS_OK;
    struct error_detail inner = {0};
    uint64_t bytes = 0;
    uint32_t count = (uint32_t)atomic_load(&file->extent_count);
    char *path = path_of(log, file->number);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    status = io_file_open(log->io, path, log->read_only ? IO_OPEN_READ : IO_OPEN_READ | IO_OPEN_WRITE, &inner,
                          &file->handle);
    if (status == STATUS_OK)
        status = io_file_size(log->io, file->handle, &bytes);
    if (status == STATUS_OK && bytes > 0)
        status = io_map(log->io, file->handle, 0, (size_t)bytes, &file->mapped);
    if (status == STATUS_NOT_FOUND)
        status = STATUS_OK;
    TRY(status);
    file->bytes = bytes;
    atomic_fetch_add(&log->file_bytes, bytes);
    uint32_t version;
    if (bytes >= HEADER_BYTES && header_check(file, file->mapped.data, &version) == STATUS_NEWER_FORMAT) {
        status = error_newer(detail, NULL, path, version, FORMAT);
        goto out;
    }
    uint64_t lost = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct extent *extent = extent_at(file, i);
        uint64_t offset = (uint64_t)i * EXTENT_BYTES;
        uint64_t there = bytes <= offset ? 0 : bytes - offset;
        if (there > 0)
            extent->data = (uint8_t *)(uintptr_t)(file->mapped.data + offset);
        if (there < extent->valid) {
            atomic_store(&extent->used, there);
            lost += extent->valid - there;
        }
    }
    if (lost > 0) {
        log_error("a file of sealed chunks is missing or too short; samples are missing",
                  LOG_STR("file", path), LOG_U64("bytes_lost", lost));
        metric_add(METRIC_chunklog_damage, 1);
    }
out:
    if (status < 0)
        error_set(detail, status, "opening %s: %s", path,
                  inner.text[0] != '\0' ? inner.text : status_message(status));
    mem_free(path);
    return status;
}

int chunklog_restore(struct chunklog *log, struct slice table, int64_t cut_ms, struct error_detail *detail) {
    int status = STATUS_OK;
    const uint8_t *p = table.data, *end = p + table.len;
    while (p < end) {
        if ((size_t)(end - p) < TABLE_FILE_BYTES)
            return error_set(detail, STATUS_CORRUPT, "the table of sealed chunks ends early");
        uint32_t number = load_u32(p), count = load_u32(p + 24);
        struct file *file = NULL;
        if (number == 0 || number >> (64 - CHUNK_REF_OFFSET_BITS) != 0 ||
            count > (size_t)(end - p - TABLE_FILE_BYTES) / 8 ||
            atomic_load(&log->entries[number % FILES_MAX].file) != NULL)
            return error_set(detail, STATUS_CORRUPT, "the table of sealed chunks can't be read");
        number_note(log, number);
        if ((int64_t)load_u64(p + 16) <= cut_ms) {
            p += TABLE_FILE_BYTES + (size_t)count * 8;
            continue;
        }
        file = file_new(number, load_u32(p + 4), (int64_t)load_u64(p + 8), (int64_t)load_u64(p + 16));
        if (file == NULL)
            return STATUS_NO_MEMORY;
        entry_set(log, file); /* freed with the log whatever happens */
        p += TABLE_FILE_BYTES;
        for (uint32_t i = 0; i < count; i++, p += 8) {
            TRY(stable_array_ensure(&file->extents, i));
            struct extent *extent = extent_at(file, i);
            if (load_u32(p) > EXTENT_BYTES || load_u32(p + 4) >= CHUNKLOG_PARTITIONS)
                return error_set(detail, STATUS_CORRUPT, "the table of sealed chunks can't be read");
            extent->valid = load_u32(p);
            atomic_store(&extent->used, extent->valid);
            extent->partition = (uint8_t)load_u32(p + 4);
            extent->restored = true;
            atomic_store(&extent->closed, true);
            atomic_store(&extent->check, true);
            atomic_store(&file->extent_count, i + 1);
        }
        TRY(file_restore(log, file, detail));
    }
out:
    return status;
}

static int sweep_each(void *context, const char *name) {
    struct chunklog *log = context;
    char *end;
    unsigned long number = strtoul(name, &end, 16);
    if (strcmp(end, ".chunks") != 0 || number == 0 || number > UINT32_MAX)
        return STATUS_OK; /* none of ours */
    const struct file *file = atomic_load(&log->entries[number % FILES_MAX].file);
    if (file != NULL && file->number == number)
        return STATUS_OK;
    char *path = path_of(log, (uint32_t)number);
    if (path == NULL)
        return STATUS_NO_MEMORY;
    (void)io_remove(log->io, path);
    mem_free(path);
    return STATUS_OK;
}

int chunklog_sweep(struct chunklog *log) {
    return io_list_dir(log->io, log->dir, sweep_each, log);
}

int chunklog_files_each(struct chunklog *log, int (*each)(void *context, const struct chunklog_file *file),
                        void *context) {
    uint32_t last = (uint32_t)atomic_load(&log->last_number);
    for (uint32_t number = last > FILES_MAX ? last - FILES_MAX : 0; number <= last; number++) {
        struct file *file = atomic_load(&log->entries[number % FILES_MAX].file);
        if (file == NULL || file->number != number)
            continue;
        char *path = path_of(log, number);
        if (path == NULL)
            return STATUS_NO_MEMORY;
        struct chunklog_file out = {.path = path,
                                    .number = number,
                                    .begin_ms = atomic_load(&file->begin_ms),
                                    .end_ms = file->end_ms,
                                    .extents = (uint32_t)atomic_load(&file->extent_count),
                                    .bytes = file->bytes};
        for (uint32_t i = 0; i < out.extents; i++) {
            const struct extent *extent = extent_at(file, i);
            out.valid_bytes += extent->restored ? extent->valid : atomic_load(&extent->used);
        }
        int status = each(context, &out);
        mem_free(path);
        if (status < 0)
            return status;
    }
    return STATUS_OK;
}

struct verify {
    int (*each)(void *context, const char *path, uint64_t offset, const char *what);
    void *context;
    const char *path;
};

/* A damaged record's length can't be believed: the next one is where a checksum is right. */
static int extent_verify(const struct verify *verify, struct file *file, uint32_t index) {
    struct extent *extent = extent_at(file, index);
    uint32_t used = (uint32_t)atomic_load_explicit(&extent->used, memory_order_acquire);
    uint64_t base = (uint64_t)index * EXTENT_BYTES;
    bool lost = false;
    for (uint32_t from = index == 0 ? HEADER_BYTES : 0; from < used;) {
        struct chunklog_chunk chunk;
        size_t size = 8;
        if (used - from < 8)
            break;
        if (!lost && load_u64(extent->data + from) == 0) { /* the rest of a page that a mark left */
            from = (from / PAGE_BYTES + 1) * PAGE_BYTES;
            continue;
        }
        bool whole = record_at(file, extent, base + from, used, true, &chunk, &size) == STATUS_OK;
        if (!whole && !lost) {
            int status = verify->each(verify->context, verify->path, base + from, "record: wrong checksum");
            if (status < 0)
                return status;
        }
        lost = !whole;
        from += (uint32_t)size;
    }
    if (extent->restored && used < extent->valid)
        return verify->each(verify->context, verify->path, base + used, "the file ends early, or is missing");
    return STATUS_OK;
}

int chunklog_verify(struct chunklog *log,
                    int (*each)(void *context, const char *path, uint64_t offset, const char *what),
                    void *context) {
    int status = STATUS_OK;
    for (size_t i = 0; i < FILES_MAX && status >= 0; i++) {
        struct file *file = atomic_load(&log->entries[i].file);
        if (file == NULL)
            continue;
        char *path = path_of(log, file->number);
        if (path == NULL)
            return STATUS_NO_MEMORY;
        const struct verify verify = {each, context, path};
        uint32_t version, count = (uint32_t)atomic_load_explicit(&file->extent_count, memory_order_acquire);
        if (file->mapped.len >= HEADER_BYTES && header_check(file, file->mapped.data, &version) < 0)
            status = each(context, path, 0, "header: wrong checksum");
        for (uint32_t at = 0; at < count && status >= 0; at++)
            status = extent_verify(&verify, file, at);
        mem_free(path);
    }
    return status < 0 ? status : STATUS_OK;
}
