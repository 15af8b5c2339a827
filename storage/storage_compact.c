/* storage_compact.c: blocks are merged in the background (storage_maintain.c says when).
 *
 *     IDLE → MERGE → OPEN → PUBLISH → IDLE
 *
 * What to merge says storage/compact, from the blocks of the current version. The inputs are held, so that
 * nothing closes them; a version is not, for cutting waits until old versions are gone. PUBLISH is one step
 * of the manifest that names the new block and its inputs no more, then a new version: a selection sees the
 * inputs or the new block, never both. It is repeated until it succeeds, and the inputs' files stay until
 * then, for a manifest that could not be synced may count or not. If retention has dropped an input meanwhile
 * the new block is thrown away.
 *
 * The new block takes the place of its last input among the others: its position, and its place in the
 * manifest, which decides among equal positions. Nothing that overlaps it was logged between its inputs
 * (compact_plan), so that place is right. */
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/compact/compact.h"
#include "storage/storage_private.h"

#define RETRY_MS_MAX 600000
/* Looked at again, though the manifest is the same: late data may have come to rest. */
#define PLAN_MS 60000

enum phase { PHASE_IDLE, PHASE_MERGE, PHASE_OPEN, PHASE_PUBLISH };

struct storage_compaction {
    enum phase phase;
    struct retry retry;
    uint64_t planned_generation; /* for which nothing was to be done */
    int64_t planned_at_ms;
    struct rand rand;

    /* the job */
    struct compact *compact;
    struct storage_block *inputs[COMPACT_INPUTS_MAX]; /* held */
    size_t input_count;
    struct block_hides hides[COMPACT_INPUTS_MAX]; /* what was deleted of them */
    uint64_t deleted_to;
    struct storage_block *added; /* NULL: nothing is left of the inputs */
    char *dir;
    uint64_t started_ns;
    struct compact_stats stats;
};

int storage__compaction_new(struct storage *storage) {
    struct storage_compaction *c = mem_zalloc(sizeof *c);
    if (c == NULL)
        return STATUS_NO_MEMORY;
    rand_init(&c->rand, storage->options.seed ^ UINT64_C(0xc0ffee7a11de1173));
    c->planned_generation = UINT64_MAX;
    storage->compaction = c;
    return STATUS_OK;
}

/* Ends the job. A block that waits to be published stays on the disk: a manifest that names it may count. The
 * next start sweeps it if not. */
static void job_release(struct storage *storage) {
    struct storage_compaction *c = storage->compaction;
    compact_close(c->compact);
    c->compact = NULL;
    if (c->added != NULL) {
        block_close(c->added->block);
        mem_free(c->added);
        c->added = NULL;
    }
    for (size_t i = 0; i < c->input_count; i++)
        storage__block_unref(storage, c->inputs[i]);
    for (size_t i = 0; i < COMPACT_INPUTS_MAX; i++)
        mem_free(c->hides[i].spans);
    memset(c->hides, 0, sizeof c->hides);
    c->input_count = 0;
    mem_free(c->dir);
    c->dir = NULL;
    c->phase = PHASE_IDLE;
}

void storage__compaction_free(struct storage *storage) {
    if (storage->compaction == NULL)
        return;
    job_release(storage);
    mem_free(storage->compaction);
    storage->compaction = NULL;
}

static void job_fail(struct storage *storage, int64_t now_ms, int status, const struct error_detail *detail) {
    struct storage_compaction *c = storage->compaction;
    if (status == STATUS_CORRUPT) /* which one is damaged is not always known: none, until the next start */
        for (size_t i = 0; i < c->input_count; i++)
            c->inputs[i]->held = true;
    retry_longer(&c->retry, now_ms, RETRY_MS_MAX);
    metric_add(METRIC_compaction_errors, 1);
    log_warn("blocks could not be merged",
             LOG_STR("error", detail->text[0] != '\0' ? detail->text : status_message(status)),
             LOG_I64("retry_ms", c->retry.delay_ms));
    job_release(storage);
}

/* ---- IDLE: what is to be merged? ---- */

static int lost_each(void *context, const struct block_damage *damage) {
    *(bool *)context |= damage->data_lost;
    return STATUS_OK;
}

static bool has_lost(struct block *block) {
    bool lost = false;
    if (block_damage_count(block) > 0)
        (void)block_damage_each(block, lost_each, &lost);
    return lost;
}

static bool is_busy(void *context, int64_t begin_ms, int64_t end_ms) {
    const struct storage *storage = context;
    return late_touches(storage->late, begin_ms, end_ms);
}

static size_t plan(struct storage *storage, size_t *chosen) {
    const struct storage_version *version = storage->version; /* only this thread changes it */
    const struct limits *limits = storage->options.limits;
    struct compact_block *blocks = mem_alloc((version->count + 1) * sizeof *blocks);
    if (blocks == NULL)
        return 0;
    for (size_t i = 0; i < version->count; i++) {
        const struct storage_block *block = version->blocks[i];
        blocks[i] = (struct compact_block){.id = block->info.id,
                                           .time_min_ms = block->info.time_min_ms,
                                           .time_max_ms = block->info.time_max_ms,
                                           .position = block->info.position,
                                           .bytes = block->info.bytes,
                                           .is_held = block->held || has_lost(block->block)};
    }
    struct compact_rules rules = {
        .window_ms = (int64_t)limits->window_ms,
        .range_ms_max = compact_range_max((int64_t)limits->window_ms, (int64_t)limits->retention_ms),
        .cut_ms = storage->manifest.cut_ms,
        .is_busy = is_busy,
        .context = storage};
    if (rules.range_ms_max > (int64_t)limits->block_range_ms_max)
        rules.range_ms_max = (int64_t)limits->block_range_ms_max;
    size_t count = compact_plan(blocks, version->count, &rules, chosen);
    mem_free(blocks);
    return count;
}

static size_t deleted_spans(void *context, uint32_t ordinal, const struct span **spans_out) {
    return storage__hides_of(context, ordinal, spans_out);
}

/* What deletes hide of the inputs as of now, and up to which position that goes for all of them. Later
 * deletes cover the inputs and the new block. */
static int deletes_look(struct storage *storage, struct compact_input *inputs, struct error_detail *detail) {
    struct storage_compaction *c = storage->compaction;
    struct tombstone_set *set;
    struct storage_version *version = storage__version_get(storage, &set);
    int status = STATUS_OK;
    c->deleted_to = set->count == 0 ? 0 : set->items[set->count - 1]->position + 1;
    for (size_t i = 0; i < c->input_count; i++) {
        TRY(storage__block_hides(c->inputs[i], set, NULL, 0, INT64_MIN, INT64_MAX, &c->hides[i], detail));
        inputs[i] = (struct compact_input){.block = c->inputs[i]->block};
        if (c->hides[i].count > 0) {
            inputs[i].deleted = deleted_spans;
            inputs[i].context = &c->hides[i];
        }
        if (c->inputs[i]->info.deleted_to > c->deleted_to)
            c->deleted_to = c->inputs[i]->info.deleted_to;
    }
out:
    storage__version_put(storage, version);
    storage__deletes_put(storage, set);
    return status;
}

static int job_start(struct storage *storage, const size_t *chosen, size_t count,
                     struct error_detail *detail) {
    struct storage_compaction *c = storage->compaction;
    struct compact_input inputs[COMPACT_INPUTS_MAX];
    int status = STATUS_OK;
    for (size_t i = 0; i < count; i++) {
        c->inputs[i] = storage->version->blocks[chosen[i]];
        storage__block_ref(storage, c->inputs[i]);
    }
    c->input_count = count;
    TRY(deletes_look(storage, inputs, detail));
    uint64_t id = storage->manifest.block_next++; /* never twice, whatever becomes of this attempt */
    c->dir = storage__block_dir(storage, id);
    TRY(c->dir == NULL ? STATUS_NO_MEMORY : STATUS_OK);
    struct compact_options options = {.io = storage->options.io_maintain,
                                      .dir = c->dir,
                                      .id = id,
                                      .salt = rand_u64(&c->rand),
                                      .inputs = inputs,
                                      .input_count = count};
    TRY(compact_open(&options, detail, &c->compact));
    c->started_ns = clock_monotonic_ns(storage->options.clock);
    c->phase = PHASE_MERGE;
out:
    return status;
}

/* True if there is a job now. */
static bool job_choose(struct storage *storage, int64_t now_ms, int *status_out,
                       struct error_detail *detail) {
    struct storage_compaction *c = storage->compaction;
    int64_t since_ms = now_ms - c->planned_at_ms;
    if (retry_waits(&c->retry, now_ms))
        return false;
    if (!storage__deletes_proven(storage))
        return false; /* what the next start may not find must not be left out of a block */
    if (c->planned_generation == storage->manifest.generation && since_ms >= 0 && since_ms < PLAN_MS)
        return false;
    size_t chosen[COMPACT_INPUTS_MAX], count = plan(storage, chosen);
    if (count == 0) {
        c->planned_generation = storage->manifest.generation;
        c->planned_at_ms = now_ms;
        return false;
    }
    c->planned_generation = UINT64_MAX;
    *status_out = job_start(storage, chosen, count, detail);
    return true;
}

/* ---- OPEN, PUBLISH ---- */

static int open_written(struct storage *storage, struct error_detail *detail) {
    struct storage_compaction *c = storage->compaction;
    const struct block_meta *meta = compact_meta(c->compact);
    int status = STATUS_OK;
    c->stats = *compact_stats(c->compact);
    struct storage_block *added = meta->series_count == 0 ? NULL : mem_zalloc(sizeof *added);
    if (added == NULL && meta->series_count > 0) {
        storage__block_remove(storage->options.io_maintain, c->dir);
        return error_set(detail, STATUS_NO_MEMORY, "out of memory");
    }
    if (added != NULL) {
        added->info = (struct manifest_block){
            .id = meta->id,
            .level = meta->level,
            .time_min_ms = meta->time_min_ms,
            .time_max_ms = meta->time_max_ms,
            .series_count = meta->series_count,
            .sample_count = meta->sample_count,
            .bytes = c->stats.bytes_written,
            .deleted_to = c->deleted_to,
        };
        atomic_init(&added->deleted_to, c->deleted_to);
        added->info.position = c->inputs[c->input_count - 1]->info.position; /* the highest */
    }
    compact_close(c->compact); /* from here on it is not the merge that removes it */
    c->compact = NULL;
    if (added != NULL) {
        status = block_open(storage->options.io_maintain, c->dir, detail, &added->block);
        if (status < 0) {
            mem_free(added);
            storage__block_remove(storage->options.io_maintain, c->dir);
            return status;
        }
    }
    c->added = added;
    c->phase = PHASE_PUBLISH;
    KILL_POINT("merge_written");
    return STATUS_OK;
}

static bool is_named(const struct manifest *manifest, uint64_t id) {
    for (size_t i = 0; i < manifest->block_count; i++)
        if (manifest->blocks[i].id == id)
            return true;
    return false;
}

static void published(struct storage *storage) {
    struct storage_compaction *c = storage->compaction;
    const struct compact_stats *stats = &c->stats;
    uint64_t bytes = 0;
    for (size_t i = 0; i < c->input_count; i++)
        bytes += c->inputs[i]->info.bytes;
    metric_add(METRIC_compactions, 1);
    metric_add(METRIC_blocks_merged, c->input_count);
    metric_add(METRIC_block_written_compaction, stats->bytes_written);
    metric_add(METRIC_samples_merged_conflict, stats->samples_conflict);
    metric_observe_ns(METRIC_compaction_seconds, clock_monotonic_ns(storage->options.clock) - c->started_ns);
    log_info("blocks merged", LOG_U64("blocks", c->input_count),
             LOG_U64("id", c->added == NULL ? 0 : c->added->info.id), LOG_U64("bytes_before", bytes),
             LOG_U64("bytes", stats->bytes_written), LOG_U64("samples", stats->samples_out),
             LOG_U64("duplicates", stats->samples_duplicate), LOG_U64("conflicts", stats->samples_conflict),
             LOG_U64("deleted", stats->samples_deleted));
    c->added = NULL; /* the version's */
    retry_done(&c->retry);
    job_release(storage);
}

/* STATUS_END: an input is gone, and so is the job. */
static int publish(struct storage *storage, struct error_detail *detail) {
    struct storage_compaction *c = storage->compaction;
    uint64_t ids[COMPACT_INPUTS_MAX];
    struct manifest next;
    for (size_t i = 0; i < c->input_count; i++) {
        ids[i] = c->inputs[i]->info.id;
        if (is_named(&storage->manifest, ids[i]))
            continue;
        /* A later manifest was written without naming the new block. */
        if (c->added != NULL)
            storage__block_remove(storage->options.io_maintain, c->dir);
        job_release(storage);
        return STATUS_END;
    }
    int status = manifest_copy(&storage->manifest, &next);
    if (status < 0)
        return status;
    next.generation++;
    /* The new block stands where its last input stood: those behind it in the manifest may have the same
     * position, and were logged later. */
    for (size_t i = 0; i + (c->added != NULL) < c->input_count; i++)
        manifest_block_remove(&next, ids[i]);
    for (size_t i = 0; i < next.block_count && c->added != NULL; i++)
        if (next.blocks[i].id == ids[c->input_count - 1])
            next.blocks[i] = c->added->info;
    TRY(storage__manifest_store(storage, &next, detail));
    KILL_POINT("merge_stored");
    TRY(storage__version_change(storage, ids, c->input_count, c->added, storage->version->cut_ms));
    manifest_release(&storage->manifest);
    storage->manifest = next;
    published(storage);
    return STATUS_OK;
out:
    manifest_release(&next);
    return status;
}

/* ---- one step ---- */

bool storage__compact_runs(const struct storage *storage) {
    return storage->compaction->phase != PHASE_IDLE;
}

bool storage__compact(struct storage *storage, int64_t now_ms) {
    struct storage_compaction *c = storage->compaction;
    struct error_detail detail = {0};
    int status = STATUS_OK;
    switch (c->phase) {
    case PHASE_IDLE:
        if (!job_choose(storage, now_ms, &status, &detail))
            return false;
        break;
    case PHASE_MERGE:
        status = compact_step(c->compact, NULL, &detail);
        KILL_POINT("merge_half");
        if (status == STATUS_END)
            c->phase = PHASE_OPEN;
        break;
    case PHASE_OPEN:
        status = open_written(storage, &detail);
        break;
    case PHASE_PUBLISH:
        if (retry_waits(&c->retry, now_ms))
            return false;
        if (publish(storage, &detail) >= 0)
            return true;
        retry_after(&c->retry, now_ms, RETRY_MS_MIN);
        metric_add(METRIC_compaction_errors, 1);
        log_warn("the manifest could not be written; trying again", LOG_STR("error", detail.text));
        return false;
    }
    if (status < 0)
        job_fail(storage, now_ms, status, &detail);
    return true;
}
