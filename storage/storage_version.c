/* storage_version.c: the set of blocks as one immutable version after the other.
 *
 * A selection holds the version that was current when it began; a new one is made for each change. A block is
 * closed when the last version that has it is gone, by the maintaining thread, since closing and removing
 * take I/O.
 *
 * version_mutex is held for a few instructions and never with another lock. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/storage_private.h"

struct storage_version *storage__version_get(struct storage *storage, struct tombstone_set **deletes) {
    pthread_mutex_lock(&storage->version_mutex);
    struct storage_version *version = storage->version;
    version->references++;
    if (deletes != NULL) {
        *deletes = storage->deletes;
        storage->deletes->references++;
    }
    pthread_mutex_unlock(&storage->version_mutex);
    return version;
}

/* Under the mutex. */
static void block_unref(struct storage *storage, struct storage_block *block) {
    ASSERT(block->references > 0);
    if (--block->references > 0)
        return;
    block->next_dead = storage->dead;
    storage->dead = block;
}

void storage__block_ref(struct storage *storage, struct storage_block *block) {
    pthread_mutex_lock(&storage->version_mutex);
    block->references++;
    pthread_mutex_unlock(&storage->version_mutex);
}

void storage__block_unref(struct storage *storage, struct storage_block *block) {
    pthread_mutex_lock(&storage->version_mutex);
    block_unref(storage, block);
    pthread_mutex_unlock(&storage->version_mutex);
}

/* Under the mutex. */
static void version_unref(struct storage *storage, struct storage_version *version) {
    ASSERT(version->references > 0);
    if (--version->references > 0)
        return;
    for (size_t i = 0; i < version->count; i++)
        block_unref(storage, version->blocks[i]);
    storage->versions_live--;
    mem_free(version);
}

void storage__version_put(struct storage *storage, struct storage_version *version) {
    pthread_mutex_lock(&storage->version_mutex);
    version_unref(storage, version);
    pthread_mutex_unlock(&storage->version_mutex);
}

bool storage__version_prepare(struct storage *storage) {
    const struct storage_version *version = storage->version; /* only this thread changes it */
    struct storage_block *latest = NULL;
    struct error_detail detail = {0};
    for (size_t i = 0; i < version->count; i++) {
        struct storage_block *block = version->blocks[i];
        if (!block_is_prepared(block->block) &&
            (latest == NULL || block->info.time_max_ms > latest->info.time_max_ms))
            latest = block;
    }
    /* Without memory it is tried again at the next turn. */
    return latest != NULL && block_prepare(latest->block, &detail) == STATUS_OK;
}

static bool is_among(uint64_t id, const uint64_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static void metrics_update(const struct storage_version *version) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->count; i++)
        bytes += version->blocks[i]->info.bytes;
    metric_set(METRIC_blocks, version->count);
    metric_set(METRIC_block_bytes, bytes);
}

int storage__version_change(struct storage *storage, const uint64_t *removed, size_t removed_count,
                            struct storage_block *added, int64_t cut_ms) {
    const struct storage_version *old = storage->version; /* only this thread changes it */
    size_t room = (old == NULL ? 0 : old->count) + 1;
    struct storage_version *version = mem_zalloc(sizeof *version + room * sizeof version->blocks[0]);
    if (version == NULL)
        return STATUS_NO_MEMORY;
    version->references = 1;
    version->cut_ms = cut_ms;
    /* What takes the place of others stands where the last of them stood, before blocks of the same position
     * that came later. */
    struct storage_block *place = NULL;
    for (size_t i = 0; old != NULL && added != NULL && i < old->count; i++)
        if (is_among(old->blocks[i]->info.id, removed, removed_count) &&
            old->blocks[i]->info.position == added->info.position)
            place = old->blocks[i];
    for (size_t i = 0; old != NULL && i < old->count; i++) {
        if (old->blocks[i] == place)
            version->blocks[version->count++] = added;
        if (!is_among(old->blocks[i]->info.id, removed, removed_count))
            version->blocks[version->count++] = old->blocks[i];
    }
    if (added != NULL && place == NULL) {
        size_t at = version->count++;
        for (; at > 0 && version->blocks[at - 1]->info.position > added->info.position; at--)
            version->blocks[at] = version->blocks[at - 1];
        version->blocks[at] = added;
    }
    pthread_mutex_lock(&storage->version_mutex);
    for (size_t i = 0; i < version->count; i++)
        version->blocks[i]->references++;
    for (size_t i = 0; old != NULL && i < old->count; i++)
        if (is_among(old->blocks[i]->info.id, removed, removed_count))
            old->blocks[i]->doomed = true;
    struct storage_version *before = storage->version;
    storage->version = version;
    storage->versions_live++;
    if (before != NULL)
        version_unref(storage, before);
    pthread_mutex_unlock(&storage->version_mutex);
    metrics_update(version);
    return STATUS_OK;
}

bool storage__version_old_in_use(struct storage *storage) {
    pthread_mutex_lock(&storage->version_mutex);
    bool in_use = storage->versions_live > 1;
    pthread_mutex_unlock(&storage->version_mutex);
    return in_use;
}

/* ---- directories ---- */

char *storage__block_dir(const struct storage *storage, uint64_t id) {
    size_t bytes = strlen(storage->dir) + 32;
    char *path = mem_alloc(bytes);
    if (path != NULL)
        snprintf(path, bytes, "%s/blocks/%016llx", storage->dir, (unsigned long long)id);
    return path;
}

struct removal {
    struct io *io;
    const char *dir;
};

static int remove_each(void *context, const char *name) {
    const struct removal *removal = context;
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", removal->dir, name) < sizeof path)
        io_remove(removal->io, path);
    KILL_POINT("block_half_removed");
    return STATUS_OK;
}

void storage__block_remove(struct io *io, const char *dir) {
    struct removal removal = {io, dir};
    if (io_list_dir(io, dir, remove_each, &removal) == STATUS_OK)
        io_remove_dir(io, dir);
}

void storage__version_sweep(struct storage *storage) {
    for (;;) {
        pthread_mutex_lock(&storage->version_mutex);
        struct storage_block *block = storage->dead;
        if (block != NULL)
            storage->dead = block->next_dead;
        pthread_mutex_unlock(&storage->version_mutex);
        if (block == NULL)
            return;
        char *dir = block->doomed ? storage__block_dir(storage, block->info.id) : NULL;
        block_close(block->block);
        KILL_POINT("block_closed");
        if (dir != NULL)
            storage__block_remove(storage->options.io_maintain, dir);
        KILL_POINT("block_removed");
        mem_free(dir);
        mem_free(block);
    }
}

/* ---- opening ---- */

struct sweep {
    struct storage *storage;
    const char *dir;
};

static int sweep_each(void *context, const char *name) {
    struct sweep *sweep = context;
    for (size_t i = 0; i < sweep->storage->manifest.block_count; i++) {
        char known[32];
        snprintf(known, sizeof known, "%016llx", (unsigned long long)sweep->storage->manifest.blocks[i].id);
        if (strcmp(known, name) == 0)
            return STATUS_OK;
    }
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", sweep->dir, name) < sizeof path)
        storage__block_remove(sweep->storage->options.io, path);
    return STATUS_OK;
}

static int count_each(void *context, const char *name) {
    (void)name;
    ++*(size_t *)context;
    return STATUS_OK;
}

/* The manifest; a new one if the directory is new. */
static int manifest_open(struct storage *storage, const char *blocks_dir, struct error_detail *detail) {
    struct io *io = storage->options.io;
    int status = manifest_load(io, storage->dir, detail, &storage->manifest);
    if (status != STATUS_NOT_FOUND)
        return status;
    size_t blocks = 0;
    status = io_list_dir(io, blocks_dir, count_each, &blocks);
    if (status < 0)
        return error_set(detail, status, "reading %s: %s", blocks_dir, status_message(status));
    if (blocks > 0)
        return error_set(detail, STATUS_CORRUPT,
                         "%s/manifest is missing, and there are blocks: nothing says which of "
                         "them count",
                         storage->dir);
    manifest_init(&storage->manifest);
    return manifest_store(io, storage->dir, &storage->manifest, detail);
}

static int damage_log(void *context, const struct block_damage *damage) {
    log_error("a block is damaged", LOG_STR("dir", block_dir(context)), LOG_STR("file", damage->file),
              LOG_U64("offset", damage->offset), LOG_STR("what", damage->what),
              LOG_STR("samples", damage->data_lost ? "may be missing" : "all there"));
    return STATUS_OK;
}

static int blocks_open(struct storage *storage, struct error_detail *detail) {
    for (size_t i = 0; i < storage->manifest.block_count; i++) {
        const struct manifest_block *info = &storage->manifest.blocks[i];
        struct storage_block *block = mem_zalloc(sizeof *block);
        char *dir = storage__block_dir(storage, info->id);
        struct error_detail inner = {0};
        int status = block == NULL || dir == NULL
                         ? STATUS_NO_MEMORY
                         : block_open_later(storage->options.io_maintain, dir, &inner, &block->block);
        mem_free(dir);
        if (status == STATUS_CORRUPT || status == STATUS_NOT_FOUND) {
            /* The others are served; its directory stays as it is, for people. */
            log_error("a block can't be read; its samples are missing", LOG_STR("error", inner.text));
            metric_add(METRIC_blocks_damaged, 1);
            mem_free(block);
            continue;
        }
        if (status == STATUS_OK) {
            block->info = *info;
            atomic_init(&block->deleted_to, info->deleted_to);
            (void)block_damage_each(block->block, damage_log, block->block);
            status = storage__version_change(storage, NULL, 0, block, storage->manifest.cut_ms);
            if (status < 0)
                block_close(block->block);
        }
        if (status < 0) {
            mem_free(block);
            return error_set(detail, status, "%s",
                             inner.text[0] != '\0' ? inner.text : status_message(status));
        }
    }
    return STATUS_OK;
}

int storage__version_open(struct storage *storage, struct error_detail *detail) {
    int status = STATUS_OK;
    char path[4096];
    struct io *io = storage->options.io;
    if ((size_t)snprintf(path, sizeof path, "%s/blocks", storage->dir) >= sizeof path - 32)
        return error_set(detail, STATUS_TOO_LARGE, "%s: the path is too long", storage->dir);
    TRY(io_make_dir(io, path, detail));
    TRY(manifest_open(storage, path, detail));
    struct sweep sweep = {storage, path};
    TRY(io_list_dir(io, path, sweep_each, &sweep));
    TRY(storage__version_change(storage, NULL, 0, NULL, storage->manifest.cut_ms));
    TRY(blocks_open(storage, detail));
out:
    return status < 0
               ? error_set(detail, status, "opening the blocks in %s: %s", path, status_message(status))
               : status;
}

void storage__version_close(struct storage *storage) {
    if (storage->version != NULL) {
        ASSERT(storage->versions_live == 1 && storage->version->references == 1); /* no selection is open */
        storage__version_put(storage, storage->version);
    }
    storage__version_sweep(storage);
    manifest_release(&storage->manifest);
}
