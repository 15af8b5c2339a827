/* block_open.c: opening a block, what it says of itself, and the list of its damage.
 *
 * What is needed to believe a piece of `chunks` (the salt, the bases) stands in three places: its header, its
 * trailer, meta.json. Any one will do. Series are found by the index; if that fails its checksums, by a
 * rebuilt one. */
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/block/block_meta.h"
#include "storage/block/block_private.h"

#include <unistd.h>

/* ---- Paths -------------------------------------------------------------------------------------------- */

char *block__path(const char *dir, const char *name) {
    struct buf path;
    buf_init(&path);
    buf_printf(&path, "%s/%s", dir, name);
    buf_append_byte(&path, 0);
    if (path.failed) {
        buf_release(&path);
        return NULL;
    }
    return (char *)buf_detach(&path);
}

char *block__parent(const char *dir) {
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    while (len > 0 && dir[len - 1] != '/')
        len--;
    if (len == 0)
        return mem_strndup(".", 1);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    return mem_strndup(dir, len);
}

/* ---- Damage ------------------------------------------------------------------------------------------- */

void block__damage_add(struct block *block, struct block_damage damage) {
    pthread_mutex_lock(&block->damage_lock);
    bool known = false;
    for (size_t i = 0; i < block->damage_kept && !known; i++)
        known = block->damage[i].offset == damage.offset && strcmp(block->damage[i].file, damage.file) == 0 &&
                strcmp(block->damage[i].what, damage.what) == 0;
    if (!known) {
        block->damage_count++;
        if (block->damage_kept < BLOCK__DAMAGE_MAX)
            block->damage[block->damage_kept++] = damage;
    }
    pthread_mutex_unlock(&block->damage_lock);
    if (known)
        return;
    metric_add(METRIC_block_damage, 1); /* here, for what is found late too: by preparing, by any read */
    log_warn("damage in a block", LOG_STR("block", block->dir), LOG_STR("file", damage.file),
             LOG_U64("offset", damage.offset), LOG_STR("what", damage.what));
}

int block__chunks_damaged(struct block *block, struct block_damage damage, struct error_detail *detail) {
    damage.file = BLOCK__FILE_CHUNKS;
    block__damage_add(block, damage);
    return error_set(detail, STATUS_CORRUPT, "%s/%s at offset %llu: %s", block->dir, damage.file,
                     (unsigned long long)damage.offset, damage.what);
}

int block_damage_each(struct block *block, int (*each)(void *context, const struct block_damage *damage),
                      void *context) {
    for (size_t i = 0;; i++) {
        pthread_mutex_lock(&block->damage_lock);
        bool there = i < block->damage_kept;
        struct block_damage damage = there ? block->damage[i] : (struct block_damage){0};
        pthread_mutex_unlock(&block->damage_lock);
        if (!there)
            return STATUS_OK;
        int status = each(context, &damage);
        if (status < 0)
            return status;
    }
}

uint64_t block_damage_count(const struct block *block) {
    struct block *unlocked = (struct block *)(uintptr_t)block;
    pthread_mutex_lock(&unlocked->damage_lock);
    uint64_t count = block->damage_count;
    pthread_mutex_unlock(&unlocked->damage_lock);
    return count;
}

/* ---- Opening ------------------------------------------------------------------------------------------ */

static int no_memory(const char *dir, struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "opening block %s: out of memory", dir);
}

/* Of a file as a whole. */
static void file_damaged(struct block *block, const char *file, uint64_t offset, bool data_lost,
                         const char *what) {
    block__damage_add(block,
                      (struct block_damage){.file = file,
                                            .offset = offset,
                                            .ordinal = BLOCK_ORDINAL_NONE,
                                            .data_lost = data_lost,
                                            .time_min_ms = data_lost ? block->meta.time_min_ms : INT64_MIN,
                                            .time_max_ms = data_lost ? block->meta.time_max_ms : INT64_MAX,
                                            .what = what});
}

/* STATUS_OK: *out is what meta.json says. STATUS_CORRUPT, STATUS_NOT_FOUND: it can't be believed or is not
 * there. */
static int meta_read(struct block *block, struct block_meta *out, struct error_detail *detail) {
    struct buf text;
    struct error_detail inner = {0};
    uint64_t format = 0;
    buf_init(&text);
    int status = block__file_read(block, BLOCK__FILE_META, BLOCK__META_BYTES_MAX, &text, &inner);
    if (status == STATUS_OK)
        status = block__meta_parse(buf_slice(&text), out, &format);
    else if (status != STATUS_NO_MEMORY && status != STATUS_NOT_FOUND)
        status = STATUS_CORRUPT;
    buf_release(&text);
    if (status == STATUS_NEWER_FORMAT)
        return error_newer(detail, block->dir, BLOCK__FILE_META, format, BLOCK__META_FORMAT);
    return status == STATUS_NO_MEMORY ? no_memory(block->dir, detail) : status;
}

static int chunks_map(struct block *block, bool has_meta, struct error_detail *detail) {
    struct error_detail inner = {0};
    uint64_t bytes;
    char *path = block__path(block->dir, BLOCK__FILE_CHUNKS);
    if (path == NULL)
        return no_memory(block->dir, detail);
    int status = io_file_open(block->io, path, IO_OPEN_READ, &inner, &block->chunks_file);
    mem_free(path);
    if (status == STATUS_NOT_FOUND)
        return has_meta ? error_set(detail, STATUS_CORRUPT, "%s/%s is missing: the block's data is lost",
                                    block->dir, BLOCK__FILE_CHUNKS)
                        : error_set(detail, STATUS_NOT_FOUND, "%s is not a block: it has no file \"%s\"",
                                    block->dir, BLOCK__FILE_CHUNKS);
    if (status >= 0 && (status = io_file_size(block->io, block->chunks_file, &bytes)) >= 0 && bytes > 0)
        status = io_map(block->io, block->chunks_file, 0, (size_t)bytes, &block->chunks);
    if (status < 0)
        return error_set(detail, status, "opening block %s: %s", block->dir,
                         inner.text[0] != '\0' ? inner.text : status_message(status));
    return STATUS_OK;
}

/* Finds the base and the meta of the block in what can be believed of header, trailer and meta.json. */
static int base_find(struct block *block, bool has_meta, struct block_meta *meta,
                     struct error_detail *detail) {
    int status = STATUS_OK;
    struct block__base trailer_base;
    struct block_meta trailer = {0};
    uint64_t trailer_at = 0;
    int header = STATUS_CORRUPT;
    if (block->chunks.len >= BLOCK__HEADER_BYTES)
        header = block__header_read(block->chunks.data, &block->base);
    struct slice file = block->chunks;
    if (has_meta && meta->chunks.bytes < file.len) /* something was appended */
        file.len = (size_t)meta->chunks.bytes;
    int found = block__trailer_find(file, header == STATUS_OK ? &block->base : NULL, &trailer_base, &trailer,
                                    &trailer_at);
    if (found == STATUS_NO_MEMORY)
        return no_memory(block->dir, detail);
    if (header == STATUS_NEWER_FORMAT || found == STATUS_NEWER_FORMAT) {
        status =
            error_newer(detail, block->dir, BLOCK__FILE_CHUNKS,
                        header == STATUS_NEWER_FORMAT ? load_u32(block->chunks.data + 8) : 0, BLOCK__VERSION);
        goto out;
    }
    if (header < 0 && found == STATUS_OK)
        block->base = trailer_base;
    else if (header < 0 && has_meta)
        block->base = (struct block__base){.salt = meta->salt,
                                           .id = meta->id,
                                           .time_base_ms = meta->time_base_ms,
                                           .position_base = meta->position_base,
                                           .level = meta->level};
    else if (header < 0) {
        status = error_set(detail, STATUS_CORRUPT,
                           "%s: nothing can be believed: header and trailer of \"%s\" are damaged, and %s",
                           block->dir, BLOCK__FILE_CHUNKS, BLOCK__FILE_META);
        goto out;
    }
    block->meta_read = has_meta && meta->salt == block->base.salt;
    block->trailer_found = found == STATUS_OK;
    block->runs_end = found == STATUS_OK ? trailer_at : file.len;
    if (block->meta_read) {
        block->meta = *meta;
        meta->sources = NULL;
    } else if (found == STATUS_OK) {
        block->meta = trailer;
        trailer.sources = NULL;
    } else { /* what is open here is counted by a scan of the runs */
        block->meta = (struct block_meta){.id = block->base.id,
                                          .level = block->base.level,
                                          .salt = block->base.salt,
                                          .time_base_ms = block->base.time_base_ms,
                                          .position_base = block->base.position_base,
                                          .time_min_ms = INT64_MIN,
                                          .time_max_ms = INT64_MAX};
    }
    if (header < 0)
        file_damaged(block, BLOCK__FILE_CHUNKS, 0, false, "header: wrong checksum");
    bool whole = !block->meta_read || block->meta.chunks.bytes == block->chunks.len;
    if (found < 0 && block->meta_read && block->meta.chunks.bytes > block->chunks.len)
        file_damaged(block, BLOCK__FILE_CHUNKS, block->chunks.len, true, "chunks: the file ends early");
    else if (found < 0)
        file_damaged(block, BLOCK__FILE_CHUNKS, block->chunks.len, !block->meta_read, "trailer: not found");
    else if (!whole)
        file_damaged(block, BLOCK__FILE_CHUNKS, block->chunks.len, false,
                     "chunks: not of the size it was written");
out:
    mem_free(trailer.sources);
    return status;
}

static int index_find(struct block *block, struct error_detail *detail) {
    struct block_damage damage = {0};
    int status = STATUS_OK;
    if (!block->index_damaged) {
        status = block__index_open(block, &damage, detail);
        if (status != STATUS_CORRUPT)
            return status;
        block__damage_add(block, damage);
    }
    status = block__index_rebuild(block, detail);
    block->index_rebuilt = status == STATUS_OK;
    return status;
}

bool block_is_prepared(const struct block *block) {
    return atomic_load_explicit(&block->index_ready, memory_order_acquire);
}

int block_prepare(struct block *block, struct error_detail *detail) {
    if (block_is_prepared(block))
        return STATUS_OK;
    int status = STATUS_OK;
    pthread_mutex_lock(&block->index_lock);
    if (!block_is_prepared(block))
        status = index_find(block, detail);
    if (status == STATUS_OK)
        atomic_store_explicit(&block->index_ready, true, memory_order_release);
    pthread_mutex_unlock(&block->index_lock);
    return status;
}

int block_open(struct io *io, const char *dir, struct error_detail *detail, struct block **out) {
    struct block *block;
    int status = block_open_later(io, dir, detail, &block);
    if (status < 0)
        return status;
    status = block_prepare(block, detail);
    if (status < 0)
        block_close(block);
    else
        *out = block;
    return status;
}

int block_open_later(struct io *io, const char *dir, struct error_detail *detail, struct block **out) {
    int status = STATUS_OK;
    struct block_meta meta = {0};
    struct block *block = mem_zalloc(sizeof *block);
    if (block == NULL)
        return no_memory(dir, detail);
    block->io = io;
    block->index.fd = -1;
    pthread_mutex_init(&block->damage_lock, NULL);
    pthread_mutex_init(&block->index_lock, NULL);
    block->dir = mem_strndup(dir, strlen(dir));
    block->damage = mem_alloc(BLOCK__DAMAGE_MAX * sizeof *block->damage);
    if (block->dir == NULL || block->damage == NULL) {
        status = no_memory(dir, detail);
        goto out;
    }
    status = meta_read(block, &meta, detail);
    if (status < 0 && status != STATUS_CORRUPT && status != STATUS_NOT_FOUND)
        goto out;
    bool has_meta = status == STATUS_OK, missing = status == STATUS_NOT_FOUND;
    TRY(chunks_map(block, has_meta, detail));
    TRY(base_find(block, has_meta, &meta, detail));
    if (!block->meta_read)
        file_damaged(block, BLOCK__FILE_META, 0, false,
                     has_meta  ? "meta: of another block"
                     : missing ? "meta: the file is missing"
                               : "meta: damaged");
    TRY(block__index_files_open(block, detail));
    if (!block->meta_read &&
        !block->trailer_found) /* what is said of the block comes from reading all of it */
        TRY(block_prepare(block, detail));
out:
    mem_free(meta.sources);
    if (status < 0)
        block_close(block);
    else
        *out = block;
    return status;
}

void block_close(struct block *block) {
    if (block == NULL)
        return;
    block__index_close(&block->index);
    block__index_files_close(block);
    if (block->index.fd >= 0)
        close(block->index.fd);
    io_unmap(block->io, block->chunks);
    io_file_close(block->io, block->chunks_file);
    pthread_mutex_destroy(&block->damage_lock);
    pthread_mutex_destroy(&block->index_lock);
    mem_free(block->damage);
    mem_free(block->meta.sources);
    mem_free(block->dir);
    mem_free(block);
}

const struct block_meta *block_meta(const struct block *block) {
    return &block->meta;
}

const char *block_dir(const struct block *block) {
    return block->dir;
}

bool block_index_rebuilt(const struct block *block) {
    return block_is_prepared(block) && block->index_rebuilt;
}

uint32_t block_ordinal_count(const struct block *block) {
    ASSERT(block_is_prepared(block));
    return block->index.info.ordinal_count;
}

struct io_file *block_chunks_file(const struct block *block) {
    return block->chunks_file;
}
