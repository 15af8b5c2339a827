/* storage_clean.c: blocks are written anew without what deletes hide in them, one after the other; after that
 * no block needs those deletes, and they are forgotten.
 *
 *     IDLE → WRITE → FINISH → PUBLISH → IDLE, for each block that a delete covers
 *
 * It goes on when somebody asked (storage_deletes_clean), or when half of the deletes that may wait do, in
 * passes: each for the deletes that there are when it begins.
 * PUBLISH is one manifest step, in which the new block takes the place of the old one: same position, so that
 * it stands in the same place among those that have samples of the same time. A block in which nothing is
 * hidden is only marked. A block with damage is left alone: what can't be read now may be repaired. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/storage_private.h"

#define RETRY_MS     5000
#define WRITE_SERIES 64u

enum clean_phase { CLEAN_IDLE, CLEAN_WRITE, CLEAN_FINISH, CLEAN_PUBLISH };

struct clean {
    enum clean_phase phase;
    bool passing;                     /* some blocks may have been tried since the pass began */
    int pass_status;                  /* of the first block that could not be written anew */
    uint64_t pass_position;           /* for deletes below this */
    struct storage_request *requests; /* those from before the pass */
    struct retry retry;
    struct rand rand;
    struct encoder encoder;
    struct sample_columns columns;

    /* the block at hand */
    struct storage_block *source; /* referenced */
    uint64_t source_damage;
    uint64_t deleted_to;
    struct block_hides hides;
    struct block_cursor *cursor;
    struct block_writer *writer;
    struct storage_block *block; /* the new one; NULL: there is none */
    char *dir;
};

int storage_deletes_clean(struct storage *storage, void (*done)(void *context, int status), void *context) {
    return storage__request_put(storage, &storage->clean_requests,
                                (struct storage_request){.context = context, .cleaned = done});
}

static void requests_end(struct storage *storage, struct storage_request **list, int status) {
    for (struct storage_request *request; (request = storage__request_take(storage, list)) != NULL;)
        storage__request_end(request, status, NULL);
}

static void job_release(struct storage *storage) {
    struct clean *clean = storage->clean;
    block_cursor_close(clean->cursor);
    block_writer_close(clean->writer);
    if (clean->block != NULL) {
        /* one that waits to be published may be named by a manifest that counts */
        if (clean->block->block != NULL && (clean->phase != CLEAN_PUBLISH || clean->source->doomed))
            storage__block_remove(storage->options.io_maintain, clean->dir);
        block_close(clean->block->block);
        mem_free(clean->block);
    }
    if (clean->source != NULL)
        storage__block_unref(storage, clean->source);
    mem_free(clean->hides.spans);
    mem_free(clean->dir);
    clean->cursor = NULL;
    clean->writer = NULL;
    clean->block = NULL;
    clean->source = NULL;
    clean->hides = (struct block_hides){0};
    clean->dir = NULL;
    clean->phase = CLEAN_IDLE;
}

void storage__clean_close(struct storage *storage) {
    struct clean *clean = storage->clean;
    if (clean != NULL)
        requests_end(storage, &clean->requests, STATUS_STOPPING);
    requests_end(storage, &storage->clean_requests, STATUS_STOPPING);
    if (clean == NULL)
        return;
    job_release(storage);
    storage__encoder_release(&clean->encoder);
    sample_columns_release(&clean->columns);
    mem_free(clean);
    storage->clean = NULL;
}

/* ---- IDLE: which block ---- */

static bool asked(struct storage *storage) {
    struct clean *clean = storage->clean;
    pthread_mutex_lock(&storage->version_mutex);
    bool asks = storage->clean_requests != NULL;
    bool many = storage->deletes->count * 2 > storage->options.limits->deletes_max;
    pthread_mutex_unlock(&storage->version_mutex);
    return asks || (clean != NULL && clean->passing) || many;
}

/* By a delete below `end`. */
static bool is_covered(const struct manifest_block *block, const struct tombstone_set *set,
                       wal_position end) {
    for (size_t i = 0; i < set->count && set->items[i]->position < end; i++)
        if (set->items[i]->position >= block->deleted_to &&
            set->items[i]->span.min_ms <= block->time_max_ms &&
            set->items[i]->span.max_ms >= block->time_min_ms)
            return true;
    return false;
}

/* The first block that a delete covers and that was not tried in this pass. */
static struct storage_block *block_choose(struct storage_version *version, const struct tombstone_set *set,
                                          wal_position end) {
    for (size_t i = 0; i < version->count; i++)
        if (!version->blocks[i]->clean_failed && is_covered(&version->blocks[i]->info, set, end))
            return version->blocks[i];
    return NULL;
}

static int lost_each(void *context, const struct block_damage *damage) {
    *(bool *)context |= damage->data_lost;
    return STATUS_OK;
}

static int block_begin(struct storage *storage, const struct tombstone_set *set,
                       struct error_detail *detail) {
    struct clean *clean = storage->clean;
    int status = STATUS_OK;
    struct block *source = clean->source->block;
    bool lost = false;
    clean->source_damage = block_damage_count(source);
    (void)block_damage_each(source, lost_each, &lost);
    if (lost)
        return error_set(detail, STATUS_CORRUPT, "%s is damaged", block_dir(source));
    TRY(storage__block_hides(clean->source, set, NULL, 0, INT64_MIN, INT64_MAX, &clean->hides, detail));
    clean->deleted_to = set->items[set->count - 1]->position + 1;
    if (clean->hides.count == 0) {
        clean->phase = CLEAN_PUBLISH;
        return STATUS_OK;
    }
    uint64_t id = storage->manifest.block_next++; /* never twice, whatever becomes of this attempt */
    clean->block = mem_zalloc(sizeof *clean->block);
    clean->dir = storage__block_dir(storage, id);
    TRY(clean->block == NULL || clean->dir == NULL ? STATUS_NO_MEMORY : STATUS_OK);
    const struct block_meta *meta = block_meta(source);
    const struct block_writer_options options = {
        .io = storage->options.io_maintain,
        .dir = clean->dir,
        .id = id,
        .level = clean->source->info.level,
        .salt = rand_u64(&clean->rand),
        .time_base_ms = meta->time_base_ms,
        .position_base = meta->position_base,
        .sources = &clean->source->info.id,
        .source_count = 1,
    };
    TRY(block_writer_open(&options, detail, &clean->writer));
    TRY(block_cursor_open(source, 0, BLOCK_SHARDS - 1, &clean->cursor));
    clean->phase = CLEAN_WRITE;
out:
    return status;
}

/* ---- WRITE ---- */

static int chunk_order(const void *a, const void *b) {
    const struct block_chunk *x = a, *y = b;
    if (x->time_min_ms != y->time_min_ms)
        return x->time_min_ms < y->time_min_ms ? -1 : 1;
    return (x->log_position > y->log_position) - (x->log_position < y->log_position);
}

static int series_write(struct clean *clean, const struct block_series *series, struct error_detail *detail) {
    struct encoder *encoder = &clean->encoder;
    const struct span *spans;
    size_t span_count = storage__hides_of(&clean->hides, series->ordinal, &spans);
    int status = STATUS_OK;
    storage__encoder_clear(encoder);
    for (size_t i = 0; i < series->chunk_count; i++) {
        const struct block_chunk_ref *ref = &series->chunks[i];
        struct block_chunk chunk;
        if (spans_cover(spans, span_count, ref->time_min_ms, ref->time_max_ms))
            continue;
        TRY(block_chunk_read(clean->source->block, series->ordinal, ref, &chunk, detail));
        if (!spans_touch(spans, span_count, ref->time_min_ms, ref->time_max_ms)) {
            TRY(storage__encoder_copy(encoder, &chunk));
            continue;
        }
        clean->columns.count = 0;
        clean->columns.has_starts = 0;
        TRY(chunk_decode(chunk.bits, chunk.info, INT64_MIN, INT64_MAX, &clean->columns));
        spans_filter(spans, span_count, &clean->columns, 0);
        TRY(storage__encoder_add(encoder, &clean->columns, chunk.log_position));
    }
    if (encoder->count == 0)
        return STATUS_OK;
    /* Chunks that overlap may have lost their beginnings. */
    struct block_chunk *chunks = storage__encoder_chunks(encoder);
    qsort(chunks, encoder->count, sizeof *chunks, chunk_order);
    TRY(block_writer_add(clean->writer, series->labels, series->id, chunks, encoder->count, detail));
out:
    return status;
}

static int write_slice(struct clean *clean, struct error_detail *detail) {
    int status = STATUS_OK;
    for (uint32_t i = 0; i < WRITE_SERIES; i++) {
        struct block_series series;
        TRY(block_cursor_next(clean->cursor, &series, detail));
        if (status == STATUS_END) {
            clean->phase = CLEAN_FINISH;
            return STATUS_OK;
        }
        TRY(series_write(clean, &series, detail));
        KILL_POINT("clean_half");
    }
out:
    return status;
}

/* ---- FINISH, PUBLISH ---- */

static int finish(struct storage *storage, struct error_detail *detail) {
    struct clean *clean = storage->clean;
    uint64_t damage = block_damage_count(clean->source->block);
    if (damage != clean->source_damage)
        return error_set(detail, STATUS_CORRUPT, "%s is damaged", block_dir(clean->source->block));
    const struct block_meta *meta = block_writer_meta(clean->writer);
    if (meta->series_count == 0) { /* all of it was deleted */
        mem_free(clean->block);
        clean->block = NULL;
        block_writer_close(clean->writer);
        clean->writer = NULL;
        clean->phase = CLEAN_PUBLISH;
        return STATUS_OK;
    }
    int status = block_writer_step(clean->writer, detail);
    if (status != STATUS_END)
        return status;
    clean->block->info = clean->source->info;
    clean->block->info.id = meta->id;
    clean->block->info.time_min_ms = meta->time_min_ms;
    clean->block->info.time_max_ms = meta->time_max_ms;
    clean->block->info.series_count = meta->series_count;
    clean->block->info.sample_count = meta->sample_count;
    clean->block->info.bytes = meta->chunks.bytes + meta->index.bytes + meta->index_sum.bytes;
    clean->block->info.deleted_to = clean->deleted_to;
    atomic_init(&clean->block->deleted_to, clean->deleted_to);
    block_writer_close(clean->writer);
    clean->writer = NULL;
    status = block_open(storage->options.io_maintain, clean->dir, detail, &clean->block->block);
    if (status < 0) {
        storage__block_remove(storage->options.io_maintain, clean->dir);
        return status;
    }
    clean->phase = CLEAN_PUBLISH;
    KILL_POINT("clean_written");
    return STATUS_OK;
}

static int publish(struct storage *storage, struct error_detail *detail) {
    struct clean *clean = storage->clean;
    struct storage_block *source = clean->source;
    bool marks = clean->hides.count == 0;
    struct manifest next;
    if (source->doomed) { /* retention was faster */
        job_release(storage);
        return STATUS_OK;
    }
    int status = manifest_copy(&storage->manifest, &next);
    if (status < 0)
        return status;
    next.generation++;
    for (size_t i = 0; i < next.block_count; i++) {
        if (next.blocks[i].id != source->info.id)
            continue;
        if (marks)
            next.blocks[i].deleted_to = clean->deleted_to;
        else if (clean->block != NULL)
            next.blocks[i] = clean->block->info;
    }
    if (!marks && clean->block == NULL)
        manifest_block_remove(&next, source->info.id);
    TRY(storage__manifest_store(storage, &next, detail));
    KILL_POINT("clean_stored");
    if (!marks)
        TRY(storage__version_change(storage, &source->info.id, 1, clean->block, storage->version->cut_ms));
    manifest_release(&storage->manifest);
    storage->manifest = next;
    if (marks) {
        source->info.deleted_to = clean->deleted_to;
        atomic_store_explicit(&source->deleted_to, clean->deleted_to, memory_order_relaxed);
    } else {
        metric_add(METRIC_blocks_cleaned, 1);
        log_info("block written anew without what was deleted", LOG_U64("old", source->info.id),
                 LOG_U64("new", clean->block == NULL ? 0 : clean->block->info.id),
                 LOG_U64("samples_old", source->info.sample_count),
                 LOG_U64("samples_new", clean->block == NULL ? 0 : clean->block->info.sample_count));
    }
    clean->block = NULL; /* the version's */
    job_release(storage);
    return STATUS_OK;
out:
    manifest_release(&next);
    return status;
}

/* ---- one step ---- */

static bool version_has(const struct storage_version *version, uint64_t id) {
    for (size_t i = 0; i < version->count; i++)
        if (version->blocks[i]->info.id == id)
            return true;
    return false;
}

/* Is there a block that needs deletes and can't be opened? */
static bool unopened_covered(const struct storage *storage, const struct storage_version *version,
                             const struct tombstone_set *set, wal_position end) {
    for (size_t i = 0; i < storage->manifest.block_count; i++)
        if (!version_has(version, storage->manifest.blocks[i].id) &&
            is_covered(&storage->manifest.blocks[i], set, end))
            return true;
    return false;
}

/* A pass is for the deletes and the requests that there are when it begins, so that it ends however many
 * more come. */
static void pass_begin(struct storage *storage, const struct storage_version *version,
                       const struct tombstone_set *set) {
    struct clean *clean = storage->clean;
    for (size_t i = 0; i < version->count; i++)
        version->blocks[i]->clean_failed = false;
    clean->pass_position = set->count == 0 ? 0 : set->items[set->count - 1]->position + 1;
    clean->pass_status = STATUS_OK;
    clean->passing = true;
}

static int choose(struct storage *storage, int64_t now_ms, struct error_detail *detail) {
    struct clean *clean = storage->clean;
    struct tombstone_set *set;
    if (!clean->passing && clean->requests == NULL) { /* before the deletes: they were there first */
        pthread_mutex_lock(&storage->version_mutex);
        clean->requests = storage->clean_requests;
        storage->clean_requests = NULL;
        pthread_mutex_unlock(&storage->version_mutex);
    }
    struct storage_version *version = storage__version_get(storage, &set);
    int status = STATUS_OK;
    if (!clean->passing)
        pass_begin(storage, version, set);
    clean->source = block_choose(version, set, clean->pass_position);
    if (clean->source == NULL) {
        if (clean->pass_status == STATUS_OK && unopened_covered(storage, version, set, clean->pass_position))
            clean->pass_status = STATUS_CORRUPT;
        clean->passing = false;
        if (clean->pass_status < 0)
            retry_after(&clean->retry, now_ms, RETRY_MS);
        requests_end(storage, &clean->requests, clean->pass_status);
    } else {
        storage__block_ref(storage, clean->source);
        status = block_begin(storage, set, detail);
    }
    storage__version_put(storage, version);
    storage__deletes_put(storage, set);
    return status;
}

static void block_fail(struct storage *storage, int status, const struct error_detail *detail) {
    struct clean *clean = storage->clean;
    log_warn("a block could not be written anew without what was deleted",
             LOG_STR("error", detail->text[0] != '\0' ? detail->text : status_message(status)));
    metric_add(METRIC_maintain_errors, 1);
    clean->source->clean_failed = true;
    if (clean->pass_status == STATUS_OK)
        clean->pass_status = status;
    job_release(storage);
}

bool storage__clean_runs(const struct storage *storage) {
    return storage->clean != NULL && storage->clean->source != NULL;
}

bool storage__clean_step(struct storage *storage, int64_t now_ms) {
    struct error_detail detail = {0};
    int status = STATUS_OK;
    if (!asked(storage))
        return false;
    struct clean *clean = storage->clean;
    if (clean == NULL) {
        clean = mem_zalloc(sizeof *clean);
        if (clean == NULL)
            return false;
        rand_init(&clean->rand, storage->options.seed ^ UINT64_C(0xd1b54a32d192ed03));
        storage->clean = clean;
    }
    if (retry_waits(&clean->retry, now_ms))
        return false;
    switch (clean->phase) {
    case CLEAN_IDLE:
        status = choose(storage, now_ms, &detail);
        if (clean->source == NULL)
            return false; /* all is done, or waits for the manifest */
        break;
    case CLEAN_WRITE:
        status = write_slice(clean, &detail);
        break;
    case CLEAN_FINISH:
        status = finish(storage, &detail);
        break;
    case CLEAN_PUBLISH:
        /* Whether a failed store counts or not: it is repeated until it succeeds. */
        if (publish(storage, &detail) < 0) {
            retry_after(&clean->retry, now_ms, RETRY_MS);
            metric_add(METRIC_maintain_errors, 1);
            log_warn("the manifest could not be written; trying again", LOG_STR("error", detail.text));
        }
        return true;
    }
    if (status < 0)
        block_fail(storage, status, &detail);
    return true;
}
