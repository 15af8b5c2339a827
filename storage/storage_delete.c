/* storage_delete.c: deletes, from the request to what selections see.
 *
 *     prepare → queue → log → sync → apply: head (storage->hidden), late samples, and into storage->deletes,
 * the set that selections read blocks with → 204; the manifest has it (storage__deletes_save), so that the
 * log need not keep it → no block needs it any more: it leaves the set and the manifest
 *
 * A delete may meet millions of series, so it is applied in slices of them, and what was logged behind it is
 * applied in between. A sample of a series that no slice has come to is preceded by the delete of what the
 * series has (storage__deletes_reach): so each series has them in the order of the log.
 *
 * A delete covers a block if it was logged at or above the block's deleted_to. Cutting leaves out what is
 * hidden, at a position above all deletes that were applied before it began; those that come while it goes on
 * are above it, and cover the new block as they do all others.
 *
 * storage->deletes goes with storage->version: both are taken under version_mutex, so that a selection whose
 * version has a block that needs a delete has the delete. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/mutation.h"
#include "storage/storage_private.h"

#define DELETES_AT_ONCE 8u /* being applied: each is asked of each sample meanwhile */

/* ---- the set ---- */

/* Under version_mutex. */
static struct tombstone_set *set_unref(struct tombstone_set *set) {
    return set != NULL && --set->references == 0 ? set : NULL;
}

static void set_replace(struct storage *storage, struct tombstone_set *set) {
    pthread_mutex_lock(&storage->version_mutex);
    struct tombstone_set *dead = set_unref(storage->deletes);
    storage->deletes = set;
    pthread_mutex_unlock(&storage->version_mutex);
    tombstone_set_free(dead);
    metric_set(METRIC_deletes_pending, set == NULL ? 0 : set->count);
}

static struct tombstone_set *set_get(struct storage *storage) {
    pthread_mutex_lock(&storage->version_mutex);
    struct tombstone_set *set = storage->deletes;
    set->references++;
    pthread_mutex_unlock(&storage->version_mutex);
    return set;
}

void storage__deletes_put(struct storage *storage, struct tombstone_set *set) {
    pthread_mutex_lock(&storage->version_mutex);
    struct tombstone_set *dead = set_unref(set);
    pthread_mutex_unlock(&storage->version_mutex);
    tombstone_set_free(dead);
}

/* Two threads change the set: the storage thread adds, the maintaining one takes out. Whoever finds that it
 * changed meanwhile begins anew. */
static int set_change(struct storage *storage, bool (*keep)(void *context, const struct tombstone *tombstone),
                      void *context, struct tombstone *added) {
    for (;;) {
        struct tombstone_set *old = set_get(storage), *set;
        int status = tombstone_set_new(old, keep, context, added, &set);
        if (status < 0) {
            storage__deletes_put(storage, old);
            return status;
        }
        pthread_mutex_lock(&storage->version_mutex);
        bool same = storage->deletes == old;
        if (same) {
            storage->deletes = set;
            old->references--; /* the storage's; ours is left */
        }
        pthread_mutex_unlock(&storage->version_mutex);
        storage__deletes_put(storage, old);
        if (same) {
            metric_set(METRIC_deletes_pending, set->count);
            return STATUS_OK;
        }
        tombstone_set_free(set);
    }
}

int storage__deletes_open(struct storage *storage, struct error_detail *detail) {
    const struct manifest *manifest = &storage->manifest;
    struct tombstone_set *set = mem_zalloc(sizeof *set);
    int status = STATUS_OK;
    if (set == NULL)
        return STATUS_NO_MEMORY;
    set->references = 1;
    set_replace(storage, set);
    for (size_t i = 0; i < manifest->delete_count; i++) {
        const struct manifest_delete *one = &manifest->deletes[i];
        struct tombstone *tombstone;
        TRY(tombstone_new(slice_of(one->payload, one->payload_len), one->position, storage->options.compiler,
                          &tombstone));
        atomic_store(&tombstone->in_manifest, true);
        status = set_change(storage, NULL, NULL, tombstone);
        tombstone_unref(tombstone);
        TRY(status);
    }
out:
    return status < 0 ? error_set(detail, status, "a delete in %s/manifest can't be used: %s", storage->dir,
                                  status_message(status))
                      : status;
}

void storage__deletes_close(struct storage *storage) {
    if (storage->deletes != NULL)
        set_replace(storage, NULL);
}

/* ---- prepare ---- */

void storage__delete_uncount(struct storage_write *write) {
    if (write->delete_counted)
        atomic_fetch_sub_explicit(&write->storage->deletes_queued, 1, memory_order_relaxed);
    write->delete_counted = false;
}

static int room_check(struct storage *storage, struct error_detail *detail) {
    uint64_t max = storage->options.limits->deletes_max;
    int status = storage__queue_check(storage, detail);
    if (status < 0)
        return status;
    struct tombstone_set *set = set_get(storage);
    uint64_t count = set->count + atomic_load_explicit(&storage->deletes_queued, memory_order_relaxed);
    storage__deletes_put(storage, set);
    if (count < max)
        return STATUS_OK;
    metric_add(METRIC_deletes_refused, 1);
    return error_set(detail, STATUS_BUSY,
                     "%llu deletes wait to be applied to blocks, the limit: POST "
                     "/api/v1/admin/tsdb/clean_tombstones, then send this one again",
                     (unsigned long long)count);
}

int storage_delete_prepare(struct storage *storage, const struct delete_selector *selectors, size_t count,
                           int64_t time_min_ms, int64_t time_max_ms, struct error_detail *detail,
                           struct storage_write **out) {
    ASSERT(count > 0);
    uint64_t bytes_max = storage->options.limits->delete_bytes_max;
    struct tombstone_selector *copies = NULL;
    struct storage_write *write = NULL;
    int status = room_check(storage, detail);
    if (status < 0)
        return status;
    copies = mem_alloc(count * sizeof *copies);
    write = mem_zalloc(sizeof *write);
    if (copies == NULL || write == NULL) {
        mem_free(copies);
        mem_free(write);
        return error_set(detail, STATUS_NO_MEMORY, "out of memory");
    }
    write->storage = storage;
    write->pin = series_pin(storage->series);
    arena_init(&write->arena, 4096, 0);
    for (size_t i = 0; i < count; i++)
        copies[i] = (struct tombstone_selector){(struct matcher *)(uintptr_t)selectors[i].matchers,
                                                selectors[i].count};
    tombstone_payload_write(&write->payload, copies, count, (struct span){time_min_ms, time_max_ms});
    mem_free(copies);
    if (write->payload.failed) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    if (write->payload.len > bytes_max) {
        status = error_set(detail, STATUS_TOO_LARGE, "the selectors take %zu bytes, the limit is %llu",
                           write->payload.len, (unsigned long long)bytes_max);
        goto out;
    }
    TRY(tombstone_new(buf_slice(&write->payload), 0, storage->options.compiler, &write->tombstone));
    write->log_bytes = write->payload.len;
    write->delete_counted = true;
    atomic_fetch_add_explicit(&storage->deletes_queued, 1, memory_order_relaxed);
    *out = write;
    return STATUS_OK;
out:
    storage_write_free(write);
    return error_set(detail, status, "%s", status_message(status));
}

/* ---- apply ---- */

static int slot_delete(struct storage *storage, uint32_t slot, struct span span, wal_position position) {
    int64_t last_ms;
    if (storage__is_loaded(storage, slot, position))
        return STATUS_OK; /* its state is from after the delete */
    (void)late_delete(storage->late, slot, span.min_ms, span.max_ms);
    if (!head_slot_last(storage->head, slot, &last_ms) || last_ms < span.min_ms)
        return STATUS_OK;
    if (last_ms < span.max_ms)
        span.max_ms = last_ms;
    return hidden_add(storage->hidden, slot, span);
}

struct delete_work {
    size_t selector;          /* whose series are walked */
    uint32_t from;            /* from this slot on */
    struct slot_bits reached; /* series that have it already, of those that there were when it began */
    size_t walk_count;
    struct series_walk *walks[]; /* by selector */
};

void storage__delete_work_free(struct delete_work *work) {
    if (work == NULL)
        return;
    for (size_t i = 0; i < work->walk_count; i++)
        series_walk_close(work->walks[i]);
    slot_bits_release(&work->reached);
    mem_free(work);
}

static int work_new(struct storage *storage, const struct tombstone *tombstone, struct delete_work **out) {
    struct delete_work *work = mem_zalloc(sizeof *work + tombstone->selector_count * sizeof work->walks[0]);
    int status = STATUS_OK;
    if (work == NULL)
        return STATUS_NO_MEMORY;
    TRY(slot_bits_ensure(&work->reached, series_slot_end(storage->series)));
    for (; work->walk_count < tombstone->selector_count; work->walk_count++) {
        const struct tombstone_selector *selector = &tombstone->selectors[work->walk_count];
        TRY(series_walk_open(storage->series, selector->matchers, selector->count,
                             &work->walks[work->walk_count]));
    }
    *out = work;
    return STATUS_OK;
out:
    storage__delete_work_free(work);
    return status;
}

/* STATUS_END: there are no more. After STATUS_NO_MEMORY the same once more. */
static int work_step(struct storage *storage, const struct tombstone *tombstone, struct delete_work *work) {
    uint32_t slots[SERIES_WALK_MAX], from = work->from;
    size_t max = storage->options.limits->delete_slice_series;
    bool more;
    if (work->selector == work->walk_count)
        return STATUS_END;
    size_t count = series_walk_next(work->walks[work->selector], &from, slots,
                                    max < SERIES_WALK_MAX ? max : SERIES_WALK_MAX, &more);
    for (size_t i = 0; i < count; i++) {
        /* One that was made since then has nothing that was logged before. */
        if (slots[i] / 8 >= work->reached.capacity || slot_bits_has(&work->reached, slots[i]))
            continue;
        int status = slot_delete(storage, slots[i], tombstone->span, tombstone->position);
        if (status < 0)
            return status;
        slot_bits_add(&work->reached, slots[i]);
    }
    work->from = more ? from : 0;
    work->selector += !more;
    return work->selector == work->walk_count ? STATUS_END : STATUS_OK;
}

static int work_reach(struct storage *storage, const struct tombstone *tombstone, struct delete_work *work,
                      uint32_t slot) {
    int status = STATUS_OK;
    if (slot / 8 >= work->reached.capacity || slot_bits_has(&work->reached, slot))
        return STATUS_OK;
    for (size_t i = 0; i < work->walk_count; i++)
        if (series_walk_meets(work->walks[i], slot)) {
            TRY(slot_delete(storage, slot, tombstone->span, tombstone->position));
            break;
        }
    slot_bits_add(&work->reached, slot);
out:
    return status;
}

static int applied(struct storage *storage, struct tombstone *tombstone) {
    int status = set_change(storage, NULL, NULL, tombstone);
    if (status == STATUS_OK)
        metric_add(METRIC_deletes, 1);
    return status;
}

int storage__delete_apply(struct storage *storage, struct tombstone *tombstone) {
    struct delete_work *work = NULL;
    int status = STATUS_OK;
    unsigned pin = series_pin(storage->series);
    TRY(work_new(storage, tombstone, &work));
    while (status != STATUS_END)
        TRY(work_step(storage, tombstone, work));
    status = applied(storage, tombstone);
out:
    storage__delete_work_free(work);
    series_unpin(storage->series, pin);
    return status;
}

int storage__delete_begin(struct storage *storage, struct storage_write *write) {
    return work_new(storage, write->tombstone, &write->work); /* the write is pinned */
}

int storage__delete_step(struct storage *storage) {
    struct storage_write *write = storage->deleting.first;
    int status = work_step(storage, write->tombstone, write->work);
    if (status == STATUS_END && (status = applied(storage, write->tombstone)) == STATUS_OK)
        status = STATUS_END;
    return status;
}

int storage__deletes_reach(struct storage *storage, uint32_t slot) {
    int status = STATUS_OK;
    for (struct storage_write *write = storage->deleting.first; write != NULL && !MUTATED(DELETE_UNREACHED);
         write = write->next)
        TRY(work_reach(storage, write->tombstone, write->work, slot));
out:
    return status;
}

bool storage__delete_waits(const struct storage *storage) {
    return storage->deleting.first != NULL &&
           (storage->deleting_count >= DELETES_AT_ONCE || storage__maintain_asks(storage) ||
            storage__snapshot_asks(storage) || storage__copy_asks(storage));
}

/* ---- the manifest ---- */

wal_position storage__deletes_needed(const struct storage *constant) {
    struct storage *storage = (struct storage *)(uintptr_t)constant; /* its lock, and a count */
    wal_position needed = UINT64_MAX;
    struct tombstone_set *set = set_get(storage);
    for (size_t i = 0; i < set->count; i++)
        if (!atomic_load(&set->items[i]->in_manifest) && set->items[i]->position < needed)
            needed = set->items[i]->position;
    storage__deletes_put(storage, set);
    return needed;
}

bool storage__deletes_proven(struct storage *storage) {
    return !atomic_load_explicit(&storage->deletes_unproven, memory_order_acquire);
}

static bool covers(const struct tombstone *tombstone, const struct manifest_block *block) {
    return tombstone->position >= block->deleted_to && tombstone->span.min_ms <= block->time_max_ms &&
           tombstone->span.max_ms >= block->time_min_ms;
}

/* Does any block need it? Damaged ones that are not served do too: they may be repaired. */
static bool is_needed(void *context, const struct tombstone *tombstone) {
    const struct manifest *manifest = context;
    for (size_t i = 0; i < manifest->block_count; i++)
        if (covers(tombstone, &manifest->blocks[i]))
            return true;
    return false;
}

static bool manifest_has_same(const struct manifest *manifest, const struct tombstone_set *set) {
    if (manifest->delete_count != set->count)
        return false;
    for (size_t i = 0; i < set->count; i++)
        if (manifest->deletes[i].position != set->items[i]->position)
            return false;
    return true;
}

static int set_put_into(const struct tombstone_set *set, struct manifest *manifest) {
    int status = STATUS_OK;
    manifest_deletes_clear(manifest);
    for (size_t i = 0; i < set->count; i++)
        TRY(manifest_delete_add(manifest, set->items[i]->position, set->items[i]->payload));
out:
    return status;
}

int storage__deletes_put_into(struct storage *storage, struct manifest *manifest) {
    struct tombstone_set *set = set_get(storage);
    int status = set_put_into(set, manifest);
    storage__deletes_put(storage, set);
    return status;
}

bool storage__deletes_save(struct storage *storage, int64_t now_ms) {
    struct manifest *manifest = &storage->manifest;
    struct tombstone_set *set = NULL, *all = NULL;
    struct manifest next = {0};
    struct error_detail detail = {0};
    int status = STATUS_OK;
    bool did = false;
    if (!storage__deletes_proven(storage) || retry_waits(&storage->deletes_retry, now_ms))
        return false;
    all = set_get(storage);
    if (all->count == 0 && manifest->delete_count == 0)
        goto out;
    TRY(tombstone_set_new(all, is_needed, manifest, NULL, &set));
    if (!manifest_has_same(manifest, set)) {
        TRY(manifest_copy(manifest, &next));
        next.generation++;
        TRY(set_put_into(set, &next));
        TRY(storage__manifest_store(storage, &next, &detail));
        manifest_release(manifest);
        *manifest = next;
        next = (struct manifest){0};
        KILL_POINT("deletes_stored");
        for (size_t i = 0; i < set->count; i++)
            atomic_store(&set->items[i]->in_manifest, true);
        did = true;
    }
    if (set->count < all->count) {
        /* What is added meanwhile is kept if a block needs it; no block is made meanwhile. */
        TRY(set_change(storage, is_needed, manifest, NULL));
        did = true;
    }
out:
    if (status < 0) {
        manifest_release(&next);
        retry_after(&storage->deletes_retry, now_ms, RETRY_MS_MIN);
        metric_add(METRIC_maintain_errors, 1);
        log_warn("deletes could not be put into the manifest; trying again",
                 LOG_STR("error", detail.text[0] != '\0' ? detail.text : status_message(status)));
    }
    tombstone_set_free(set);
    storage__deletes_put(storage, all);
    return did;
}

/* ---- blocks ---- */

struct hide {
    uint32_t ordinal;
    struct span span;
};

struct hides_build {
    struct hide *hides;
    size_t count;
    size_t capacity;
    struct matcher *matchers; /* the delete's and the question's */
};

static int hide_order(const void *a, const void *b) {
    const struct hide *x = a, *y = b;
    if (x->ordinal != y->ordinal)
        return x->ordinal < y->ordinal ? -1 : 1;
    return (x->span.min_ms > y->span.min_ms) - (x->span.min_ms < y->span.min_ms);
}

/* Sorts; spans of one ordinal that overlap or touch become one. */
static int hides_finish(struct hides_build *build, struct block_hides *out) {
    *out = (struct block_hides){0};
    if (build->count == 0)
        return STATUS_OK;
    out->spans = mem_alloc(build->count * (sizeof *out->spans + sizeof *out->ordinals));
    if (out->spans == NULL)
        return STATUS_NO_MEMORY;
    out->ordinals = (uint32_t *)(out->spans + build->count);
    qsort(build->hides, build->count, sizeof *build->hides, hide_order);
    for (size_t i = 0; i < build->count; i++) {
        const struct hide *one = &build->hides[i];
        size_t last = out->count - 1;
        if (out->count == 0 || out->ordinals[last] != one->ordinal ||
            (out->spans[last].max_ms != INT64_MAX && out->spans[last].max_ms + 1 < one->span.min_ms)) {
            out->ordinals[out->count] = one->ordinal;
            out->spans[out->count++] = one->span;
        } else if (one->span.max_ms > out->spans[last].max_ms) {
            out->spans[last].max_ms = one->span.max_ms;
        }
    }
    return STATUS_OK;
}

static int hides_add(struct hides_build *build, const uint32_t *ordinals, size_t count, struct span span) {
    if (build->count + count > build->capacity) {
        size_t capacity = (build->count + count) * 2;
        struct hide *hides = mem_realloc(build->hides, capacity * sizeof *hides);
        if (hides == NULL)
            return STATUS_NO_MEMORY;
        build->hides = hides;
        build->capacity = capacity;
    }
    for (size_t i = 0; i < count; i++)
        build->hides[build->count++] = (struct hide){ordinals[i], span};
    return STATUS_OK;
}

static int selector_hides(struct storage_block *block, const struct tombstone *tombstone,
                          const struct tombstone_selector *selector, const struct matcher *matchers,
                          size_t matcher_count, struct span span, struct hides_build *build,
                          struct error_detail *detail) {
    uint32_t *ordinals = NULL;
    size_t count;
    size_t total = selector->count + matcher_count;
    struct matcher *both = mem_realloc(build->matchers, total * sizeof *both);
    if (both == NULL)
        return STATUS_NO_MEMORY;
    build->matchers = both;
    memcpy(both, selector->matchers, selector->count * sizeof *both);
    if (matcher_count > 0)
        memcpy(both + selector->count, matchers, matcher_count * sizeof *both);
    int status = STATUS_OK;
    TRY(block_select(block->block, both, total, span.min_ms, span.max_ms, &ordinals, &count, detail));
    TRY(hides_add(build, ordinals, count, tombstone->span));
out:
    mem_free(ordinals);
    return status;
}

int storage__block_hides(struct storage_block *block, const struct tombstone_set *set,
                         const struct matcher *matchers, size_t matcher_count, int64_t time_min_ms,
                         int64_t time_max_ms, struct block_hides *hides_out, struct error_detail *detail) {
    struct hides_build build = {0};
    int status = STATUS_OK;
    uint64_t deleted_to = atomic_load_explicit(&block->deleted_to, memory_order_relaxed);
    for (size_t i = 0; i < set->count; i++) {
        const struct tombstone *tombstone = set->items[i];
        struct span span = tombstone->span;
        if (span.min_ms < time_min_ms)
            span.min_ms = time_min_ms;
        if (span.max_ms > time_max_ms)
            span.max_ms = time_max_ms;
        if ((tombstone->position < deleted_to && !MUTATED(DELETE_LATER)) || span.min_ms > span.max_ms)
            continue;
        for (size_t j = 0; j < tombstone->selector_count; j++)
            TRY(selector_hides(block, tombstone, &tombstone->selectors[j], matchers, matcher_count, span,
                               &build, detail));
    }
    TRY(hides_finish(&build, hides_out));
out:
    mem_free(build.matchers);
    mem_free(build.hides);
    return status;
}

size_t storage__hides_of(const struct block_hides *hides, uint32_t ordinal, const struct span **spans_out) {
    size_t low = 0, high = hides->count, end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (hides->ordinals[middle] < ordinal)
            low = middle + 1;
        else
            high = middle;
    }
    for (end = low; end < hides->count && hides->ordinals[end] == ordinal; end++)
        ;
    *spans_out = hides->spans + low;
    return end - low;
}
