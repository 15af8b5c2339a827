/* storage_select.c: matchers and a time range → series and their samples. A series
 * may be in the series table, in any number of blocks, or in both; it is one series here if its labels are
 * equal. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "base/metrics.h"
#include "storage/storage_private.h"

/* Where a series' samples are, besides the head: a series of a block. */
struct source {
    uint32_t block; /* index in the version */
    uint32_t ordinal;
};

struct item {
    uint32_t slot;  /* SLOT_NONE: not in the series table */
    uint32_t first; /* of its sources, when they are sorted */
    uint32_t count;
    bool has; /* has samples in the range, as far as is known */
    uint64_t id;
    struct slice labels; /* without a slot: canonical label bytes, in the selection's memory */
};

struct found {
    uint32_t item;
    struct source source;
};

struct storage_selection {
    struct storage *storage;
    unsigned pin; /* of the series table */
    struct storage_version *version;
    struct tombstone_set *deletes;
    struct block_hides *hides; /* of the version's blocks; NULL: nothing is hidden in any */
    struct item *items;
    size_t count;
    size_t capacity;
    struct found *founds; /* sources, by item and block */
    size_t found_count;
    size_t found_capacity;
    struct arena arena;
    struct damage_names damage;
};

/* ---- joining the series of blocks with those of the head ---- */

/* From 64 bits to an item: of ids, or of hashes of labels. Open addressing, doubled at half full. */
struct item_map {
    uint64_t *keys;
    uint32_t *items; /* + 1; 0: empty */
    size_t mask;
    size_t count;
};

static int map_grow(struct item_map *map) {
    size_t cells = map->keys == NULL ? 1024 : (map->mask + 1) * 2;
    uint64_t *keys = mem_alloc(cells * sizeof *keys);
    uint32_t *items = mem_zalloc(cells * sizeof *items);
    if (keys == NULL || items == NULL) {
        mem_free(keys);
        mem_free(items);
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; map->keys != NULL && i <= map->mask; i++) {
        if (map->items[i] == 0)
            continue;
        size_t at = (size_t)(map->keys[i] * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (cells - 1);
        while (items[at] != 0)
            at = (at + 1) & (cells - 1);
        keys[at] = map->keys[i];
        items[at] = map->items[i];
    }
    mem_free(map->keys);
    mem_free(map->items);
    map->keys = keys;
    map->items = items;
    map->mask = cells - 1;
    return STATUS_OK;
}

static int map_put(struct item_map *map, uint64_t key, uint32_t item) {
    if (map->keys == NULL || map->count * 2 > map->mask) {
        int status = map_grow(map);
        if (status < 0)
            return status;
    }
    size_t at = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & map->mask;
    while (map->items[at] != 0)
        at = (at + 1) & map->mask;
    map->keys[at] = key;
    map->items[at] = item + 1;
    map->count++;
    return STATUS_OK;
}

/* The next item under `key` from *at on (SIZE_MAX at first), or UINT32_MAX. */
static uint32_t map_next(const struct item_map *map, uint64_t key, size_t *at) {
    if (map->keys == NULL)
        return UINT32_MAX;
    *at = *at == SIZE_MAX ? (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & map->mask
                          : (*at + 1) & map->mask;
    for (; map->items[*at] != 0; *at = (*at + 1) & map->mask)
        if (map->keys[*at] == key)
            return map->items[*at] - 1;
    return UINT32_MAX;
}

static void map_release(struct item_map *map) {
    mem_free(map->keys);
    mem_free(map->items);
}

struct join {
    struct storage_selection *selection;
    struct item_map by_id;
    struct item_map by_labels; /* filled when the first id is not known */
    size_t labels_done;        /* items below this are in it */
    struct buf buf;
};

static int items_reserve(struct storage_selection *selection, size_t count) {
    struct item *items = array_ensure(selection->items, &selection->capacity, count, sizeof *items);
    if (items == NULL)
        return STATUS_NO_MEMORY;
    selection->items = items;
    return STATUS_OK;
}

static int item_add(struct storage_selection *selection, struct item item) {
    int status = items_reserve(selection, selection->count + 1);
    if (status == STATUS_OK)
        selection->items[selection->count++] = item;
    return status;
}

/* Label bytes of an item; those of a slot are put together in join->buf. */
static int item_labels(struct join *join, const struct item *item, struct slice *out) {
    if (item->slot == SLOT_NONE) {
        *out = item->labels;
        return STATUS_OK;
    }
    buf_clear(&join->buf);
    series_labels_append(join->selection->storage->series, item->slot, &join->buf);
    *out = buf_slice(&join->buf);
    return join->buf.failed ? STATUS_NO_MEMORY : STATUS_OK;
}

/* The item with these labels; made if there is none. Ids differ where a series was forgotten and came back.
 */
static int item_by_labels(struct join *join, struct slice labels, uint64_t id, uint32_t *out) {
    struct storage_selection *selection = join->selection;
    int status = STATUS_OK;
    struct slice other;
    for (; join->labels_done < selection->count; join->labels_done++) {
        TRY(item_labels(join, &selection->items[join->labels_done], &other));
        TRY(map_put(&join->by_labels, series_hash(selection->storage->series, other),
                    (uint32_t)join->labels_done));
    }
    uint64_t hash = series_hash(selection->storage->series, labels);
    uint32_t item;
    for (size_t at = SIZE_MAX; (item = map_next(&join->by_labels, hash, &at)) != UINT32_MAX;) {
        TRY(item_labels(join, &selection->items[item], &other));
        if (slice_equal(other, labels)) {
            *out = item;
            return STATUS_OK;
        }
    }
    struct slice copy = arena_copy(&selection->arena, labels);
    if (copy.data == NULL)
        return STATUS_NO_MEMORY;
    TRY(item_add(selection, (struct item){.slot = SLOT_NONE, .id = id, .labels = copy}));
    *out = (uint32_t)(selection->count - 1);
out:
    return status;
}

static int found_add(struct storage_selection *selection, uint32_t item, struct source source) {
    struct found *founds = array_ensure(selection->founds, &selection->found_capacity,
                                        selection->found_count + 1, sizeof *founds);
    if (founds == NULL)
        return STATUS_NO_MEMORY;
    selection->founds = founds;
    selection->founds[selection->found_count++] = (struct found){item, source};
    selection->items[item].has = true;
    selection->items[item].count++;
    return STATUS_OK;
}

static const char *block_name(const struct block *block) {
    const char *dir = block_dir(block), *slash = strrchr(dir, '/');
    return slash == NULL ? dir : slash + 1;
}

/* A series that can't be read for damage is told of and passed over. */
static bool is_damage(struct storage_selection *selection, const struct block *block, int status) {
    if (status != STATUS_CORRUPT)
        return false;
    metric_add(METRIC_block_damage, 1);
    storage__damage_name(&selection->damage, "block %s", block_name(block));
    return true;
}

/* What was lost of a block before, in the range, counts for each answer that touches it. */
struct damage_range {
    struct damage_names *damage;
    const struct block *block;
    int64_t time_min_ms;
    int64_t time_max_ms;
};

static int damage_each(void *context, const struct block_damage *damage) {
    struct damage_range *range = context;
    if (damage->data_lost && damage->time_min_ms <= range->time_max_ms &&
        damage->time_max_ms >= range->time_min_ms)
        storage__damage_name(range->damage, "block %s", block_name(range->block));
    return STATUS_OK;
}

static void block_lost_name(struct block *block, int64_t time_min_ms, int64_t time_max_ms,
                            struct damage_names *damage) {
    struct damage_range range = {damage, block, time_min_ms, time_max_ms};
    if (block_damage_count(block) > 0)
        (void)block_damage_each(block, damage_each, &range);
}

/* What deletes hide in the block, of what is asked for. */
static int hides_find(struct storage_selection *selection, uint32_t number, const struct matcher *matchers,
                      size_t matcher_count, int64_t time_min_ms, int64_t time_max_ms) {
    struct error_detail detail = {0};
    struct block_hides hides;
    int status = STATUS_OK;
    if (selection->deletes->count == 0)
        return STATUS_OK;
    TRY(storage__block_hides(selection->version->blocks[number], selection->deletes, matchers, matcher_count,
                             time_min_ms, time_max_ms, &hides, &detail));
    if (hides.count == 0)
        return STATUS_OK;
    if (selection->hides == NULL)
        selection->hides = mem_zalloc(selection->version->count * sizeof *selection->hides);
    if (selection->hides == NULL) {
        mem_free(hides.spans);
        return STATUS_NO_MEMORY;
    }
    selection->hides[number] = hides;
out:
    return status;
}

/* Does the series of a block have a sample in the range that is not hidden? Mostly the ends of its chunks
 * tell: there is a sample at each. */
static int block_series_visible(struct storage_selection *selection, uint32_t number,
                                const struct block_series *series, int64_t time_min_ms, int64_t time_max_ms,
                                bool *visible) {
    struct block *block = selection->version->blocks[number]->block;
    struct error_detail detail = {0};
    const struct span *spans;
    struct sample_columns columns = {0};
    size_t count =
        selection->hides == NULL ? 0 : storage__hides_of(&selection->hides[number], series->ordinal, &spans);
    int status = STATUS_OK;
    *visible = series->chunk_count > 0;
    if (count == 0)
        return STATUS_OK;
    *visible = false;
    for (size_t i = 0; i < series->chunk_count && !*visible; i++) {
        const struct block_chunk_ref *ref = &series->chunks[i];
        if (spans_cover(spans, count, ref->time_min_ms, ref->time_max_ms))
            continue;
        *visible = !spans_touch(spans, count, ref->time_min_ms, ref->time_max_ms) ||
                   (ref->time_min_ms >= time_min_ms && !spans_hold(spans, count, ref->time_min_ms)) ||
                   (ref->time_max_ms <= time_max_ms && !spans_hold(spans, count, ref->time_max_ms));
        if (*visible)
            break;
        struct block_chunk chunk;
        columns.count = 0;
        status = block_chunk_read(block, series->ordinal, ref, &chunk, &detail);
        if (status == STATUS_OK)
            status = chunk_decode(chunk.bits, chunk.info, time_min_ms, time_max_ms, &columns);
        if (is_damage(selection, block, status)) {
            status = STATUS_OK;
            continue;
        }
        TRY(status);
        spans_filter(spans, count, &columns, 0);
        *visible = columns.count > 0;
    }
out:
    sample_columns_release(&columns);
    return status;
}

static int block_join(struct join *join, uint32_t number, const struct matcher *matchers,
                      size_t matcher_count, int64_t time_min_ms, int64_t time_max_ms) {
    struct storage_selection *selection = join->selection;
    struct block *block = selection->version->blocks[number]->block;
    struct block_view *view = NULL;
    uint32_t *ordinals = NULL;
    size_t count = 0;
    struct error_detail detail = {0};
    block_lost_name(block, time_min_ms, time_max_ms, &selection->damage);
    int status =
        block_select(block, matchers, matcher_count, time_min_ms, time_max_ms, &ordinals, &count, &detail);
    if (is_damage(selection, block, status))
        return STATUS_OK;
    TRY(status);
    if (count > 0) {
        status = hides_find(selection, number, matchers, matcher_count, time_min_ms, time_max_ms);
        if (is_damage(selection, block, status)) {
            status = STATUS_OK; /* what can't be told apart from what was deleted is not shown */
            goto out;
        }
        TRY(status);
    }
    TRY(block_view_open(block, &view));
    for (size_t i = 0; i < count; i++) {
        struct block_series series;
        status = block_view_series(view, ordinals[i], time_min_ms, time_max_ms, &series, &detail);
        if (is_damage(selection, block, status))
            continue;
        TRY(status);
        bool visible;
        TRY(block_series_visible(selection, number, &series, time_min_ms, time_max_ms, &visible));
        if (!visible)
            continue;
        uint64_t id = series.id;
        size_t at = SIZE_MAX;
        uint32_t item = map_next(&join->by_id, id, &at);
        if (item == UINT32_MAX) {
            struct slice labels;
            status = block_view_labels(view, ordinals[i], &labels, &detail);
            if (is_damage(selection, block, status))
                continue;
            TRY(status);
            TRY(item_by_labels(join, labels, id, &item));
            TRY(map_put(&join->by_id, id, item));
        }
        TRY(found_add(selection, item, (struct source){number, ordinals[i]}));
    }
out:
    block_view_close(view);
    mem_free(ordinals);
    return status;
}

bool storage__version_overlaps(const struct storage_version *version, size_t number, int64_t time_min_ms,
                               int64_t time_max_ms) {
    const struct manifest_block *info = &version->blocks[number]->info;
    return info->time_min_ms <= time_max_ms && info->time_max_ms >= time_min_ms;
}

/* Items without samples go; sources are put in the order of items, those of one item by block. */
static int selection_finish(struct storage_selection *selection) {
    uint32_t at = 0;
    for (size_t i = 0; i < selection->count; i++) {
        selection->items[i].first = at;
        at += selection->items[i].count;
    }
    struct found *sorted = mem_alloc((selection->found_count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < selection->found_count; i++) /* blocks were joined in order */
        sorted[selection->items[selection->founds[i].item].first++] = selection->founds[i];
    mem_free(selection->founds);
    selection->founds = sorted;
    size_t kept = 0;
    for (size_t i = 0; i < selection->count; i++) {
        selection->items[i].first -= selection->items[i].count;
        if (selection->items[i].has)
            selection->items[kept++] = selection->items[i];
    }
    selection->count = kept;
    return STATUS_OK;
}

/* The head's chunks before version->cut_ms are in blocks, and are being freed. */
static int64_t head_min(const struct storage_version *version, int64_t time_min_ms) {
    return time_min_ms > version->cut_ms ? time_min_ms : version->cut_ms;
}

/* With something hidden in the range the samples have to be looked at. */
static bool head_has(struct storage *storage, uint32_t slot, int64_t time_min_ms, int64_t time_max_ms) {
    if (!head_overlaps(storage->head, slot, time_min_ms, time_max_ms))
        return false;
    if (!hidden_touches(storage->hidden, slot, time_min_ms, time_max_ms))
        return true;
    struct sample_columns columns = {0};
    struct head_damage damage;
    bool has =
        head_read(storage->head, slot, time_min_ms, time_max_ms, &columns, &damage) < 0 || damage.count > 0;
    if (!has) {
        hidden_filter(storage->hidden, slot, &columns, 0);
        has = columns.count > 0;
    }
    sample_columns_release(&columns);
    return has;
}

bool storage__slot_has(struct storage *storage, const struct storage_version *version, uint32_t slot,
                       int64_t time_min_ms, int64_t time_max_ms) {
    return head_has(storage, slot, head_min(version, time_min_ms), time_max_ms) ||
           late_overlaps(storage->late, slot, time_min_ms, time_max_ms);
}

static int selection_fill(struct storage_selection *selection, const struct matcher *matchers,
                          size_t matcher_count, int64_t time_min_ms, int64_t time_max_ms) {
    struct storage *storage = selection->storage;
    uint32_t *slots = NULL;
    size_t count;
    struct join join = {.selection = selection};
    buf_init(&join.buf);
    bool blocks = false;
    storage__losses_name(storage, time_min_ms, time_max_ms, &selection->damage);
    for (size_t i = 0; i < selection->version->count; i++)
        blocks |= storage__version_overlaps(selection->version, i, time_min_ms, time_max_ms);
    int status = STATUS_OK;
    TRY(series_match(storage->series, matchers, matcher_count, &slots, &count));
    TRY(items_reserve(selection, count + 1));
    for (size_t i = 0; i < count; i++) {
        bool has = storage__slot_has(storage, selection->version, slots[i], time_min_ms, time_max_ms);
        if (!has && !blocks)
            continue;
        uint64_t id = series_id(storage->series, slots[i]);
        TRY(item_add(selection, (struct item){.slot = slots[i], .id = id, .has = has}));
        if (blocks)
            TRY(map_put(&join.by_id, id, (uint32_t)(selection->count - 1)));
    }
    for (size_t i = 0; i < selection->version->count; i++)
        if (storage__version_overlaps(selection->version, i, time_min_ms, time_max_ms))
            TRY(block_join(&join, (uint32_t)i, matchers, matcher_count, time_min_ms, time_max_ms));
    if (blocks)
        TRY(selection_finish(selection));
out:
    map_release(&join.by_id);
    map_release(&join.by_labels);
    buf_release(&join.buf);
    mem_free(slots);
    return status;
}

int storage_select(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                   int64_t time_min_ms, int64_t time_max_ms, size_t series_max,
                   struct storage_selection **out) {
    struct storage_selection *selection = mem_zalloc(sizeof *selection);
    if (selection == NULL)
        return STATUS_NO_MEMORY;
    selection->storage = storage;
    selection->pin = series_pin(storage->series);
    selection->version = storage__version_get(storage, &selection->deletes);
    arena_init(&selection->arena, 0, 0);
    int status = selection_fill(selection, matchers, matcher_count, time_min_ms, time_max_ms);
    if (status == STATUS_OK && series_max != 0 && selection->count > series_max)
        status = STATUS_BUDGET;
    if (status < 0) {
        selection_close(selection);
        return status;
    }
    *out = selection;
    return STATUS_OK;
}

void selection_close(struct storage_selection *selection) {
    if (selection == NULL)
        return;
    for (size_t i = 0; selection->hides != NULL && i < selection->version->count; i++)
        mem_free(selection->hides[i].spans);
    mem_free(selection->hides);
    storage__deletes_put(selection->storage, selection->deletes);
    storage__version_put(selection->storage, selection->version);
    series_unpin(selection->storage->series, selection->pin);
    arena_release(&selection->arena);
    mem_free(selection->items);
    mem_free(selection->founds);
    mem_free(selection);
}

size_t selection_series_count(const struct storage_selection *selection) {
    return selection->count;
}

size_t selection_labels(const struct storage_selection *selection, size_t index, struct label *out) {
    ASSERT(index < selection->count);
    const struct item *item = &selection->items[index];
    if (item->slot != SLOT_NONE)
        return series_labels(selection->storage->series, item->slot, out, STORAGE_LABELS_MAX);
    size_t count = 0;
    for (struct slice rest = item->labels;
         count < STORAGE_LABELS_MAX && label_next(&rest, &out[count], NULL);)
        count++;
    return count;
}

size_t selection_labels_named(const struct storage_selection *selection, size_t index,
                              const struct slice *names, size_t name_count, struct label *out) {
    ASSERT(index < selection->count);
    const struct item *item = &selection->items[index];
    if (item->slot != SLOT_NONE)
        return series_labels_named(selection->storage->series, item->slot, names, name_count, out,
                                   STORAGE_LABELS_MAX);
    size_t count = 0;
    struct label label;
    for (struct slice rest = item->labels; count < STORAGE_LABELS_MAX && label_next(&rest, &label, NULL);)
        if (slice_among(label.name, names, name_count))
            out[count++] = label;
    return count;
}

struct slice selection_label(const struct storage_selection *selection, size_t index, struct slice name) {
    ASSERT(index < selection->count);
    const struct item *item = &selection->items[index];
    if (item->slot != SLOT_NONE)
        return series_label(selection->storage->series, item->slot, name);
    struct label label;
    for (struct slice rest = item->labels; label_next(&rest, &label, NULL);)
        if (slice_equal(label.name, name))
            return label.value;
    return (struct slice){NULL, 0};
}

uint64_t selection_series_id(const struct storage_selection *selection, size_t index) {
    ASSERT(index < selection->count);
    return selection->items[index].id;
}

uint64_t selection_damaged(const struct storage_selection *selection) {
    return atomic_load_explicit(&selection->damage.count, memory_order_relaxed);
}

void selection_damage_text(struct storage_selection *selection, char *out, size_t bytes) {
    storage__damage_text(&selection->damage, out, bytes);
}

void storage_damage_text(struct storage *storage, int64_t time_min_ms, int64_t time_max_ms, char *out,
                         size_t bytes) {
    struct damage_names damage = {0};
    struct storage_version *version = storage__version_get(storage, NULL);
    storage__losses_name(storage, time_min_ms, time_max_ms, &damage);
    for (size_t i = 0; i < version->count; i++)
        if (storage__version_overlaps(version, i, time_min_ms, time_max_ms))
            block_lost_name(version->blocks[i]->block, time_min_ms, time_max_ms, &damage);
    storage__version_put(storage, version);
    storage__damage_text(&damage, out, bytes);
}

/* ---- reading ---- */

/* Samples of one time are there once: of several the one that was logged first, whose piece was read first.
 */
struct merge_sample {
    int64_t time_ms;
    size_t at; /* index in the columns: smaller is earlier */
};

static int merge_order(const void *a, const void *b) {
    const struct merge_sample *x = a, *y = b;
    if (x->time_ms != y->time_ms)
        return x->time_ms < y->time_ms ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Puts what stands behind `from`, in pieces that overlap, into order. */
static int columns_order(struct sample_columns *columns, size_t from) {
    size_t count = columns->count - from, kept = 0;
    int status = STATUS_NO_MEMORY;
    struct merge_sample *order = mem_alloc(count * sizeof *order);
    double *values = mem_alloc(count * sizeof *values);
    int64_t *starts_ms = mem_alloc(count * sizeof *starts_ms);
    if (order == NULL || values == NULL || starts_ms == NULL)
        goto out;
    for (size_t i = 0; i < count; i++)
        order[i] = (struct merge_sample){columns->times_ms[from + i], i};
    qsort(order, count, sizeof *order, merge_order);
    memcpy(values, columns->values + from, count * sizeof *values);
    if (columns->has_starts)
        memcpy(starts_ms, columns->starts_ms + from, count * sizeof *starts_ms);
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && columns->times_ms[from + kept - 1] == order[i].time_ms)
            continue;
        columns->times_ms[from + kept] = order[i].time_ms;
        columns->values[from + kept] = values[order[i].at];
        if (columns->has_starts)
            columns->starts_ms[from + kept] = starts_ms[order[i].at];
        kept++;
    }
    columns->count = from + kept;
    status = STATUS_OK;
out:
    mem_free(order);
    mem_free(values);
    mem_free(starts_ms);
    return status;
}

/* Does what was read since `piece` begin behind what was read since `from`? */
static bool follows(const struct sample_columns *columns, size_t from, size_t piece) {
    return piece == from || piece == columns->count ||
           columns->times_ms[piece - 1] < columns->times_ms[piece];
}

static int source_read(struct storage_selection *selection, const struct source *source, int64_t time_min_ms,
                       int64_t time_max_ms, struct sample_columns *columns, size_t from, bool *ordered) {
    struct block *block = selection->version->blocks[source->block]->block;
    struct error_detail detail = {0};
    struct block_view *view;
    struct block_series series;
    const struct span *spans = NULL;
    size_t span_count = selection->hides == NULL
                            ? 0
                            : storage__hides_of(&selection->hides[source->block], source->ordinal, &spans);
    int status = block_view_open(block, &view);
    if (status < 0)
        return status;
    status = block_view_series(view, source->ordinal, time_min_ms, time_max_ms, &series, &detail);
    if (is_damage(selection, block, status)) {
        status = STATUS_OK;
        goto out;
    }
    TRY(status);
    for (size_t i = 0; i < series.chunk_count; i++) {
        struct block_chunk chunk;
        size_t piece = columns->count;
        if (spans_cover(spans, span_count, series.chunks[i].time_min_ms, series.chunks[i].time_max_ms))
            continue;
        status = block_chunk_read(block, source->ordinal, &series.chunks[i], &chunk, &detail);
        if (status == STATUS_OK)
            status = chunk_decode(chunk.bits, chunk.info, time_min_ms, time_max_ms, columns);
        if (is_damage(selection, block, status)) {
            status = STATUS_OK;
            continue;
        }
        TRY(status);
        spans_filter(spans, span_count, columns, piece);
        *ordered &= follows(columns, from, piece);
    }
out:
    block_view_close(view);
    return status;
}

int selection_read(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                   int64_t time_max_ms, struct sample_columns *columns) {
    ASSERT(index < selection->count);
    struct storage *storage = selection->storage;
    const struct item *item = &selection->items[index];
    size_t from = columns->count, piece;
    bool ordered = true;
    int status = STATUS_OK;
    for (uint32_t i = 0; i < item->count; i++)
        TRY(source_read(selection, &selection->founds[item->first + i].source, time_min_ms, time_max_ms,
                        columns, from, &ordered));
    if (item->slot != SLOT_NONE) {
        piece = columns->count;
        struct head_damage damage;
        TRY(head_read(storage->head, item->slot, head_min(selection->version, time_min_ms), time_max_ms,
                      columns, &damage));
        hidden_filter(storage->hidden, item->slot, columns, piece);
        if (damage.count > 0) {
            metric_add(METRIC_chunklog_damage, damage.count);
            storage__damage_name(&selection->damage, "head/%08" PRIx32 ".chunks", chunk_ref_file(damage.ref));
        }
        ordered &= follows(columns, from, piece);
        piece = columns->count;
        TRY(late_read(storage->late, item->slot, time_min_ms, time_max_ms, columns));
        ordered &= follows(columns, from, piece);
    }
    if (!ordered)
        TRY(columns_order(columns, from));
out:
    return status;
}

/* Mostly the open chunk remembers it. */
int selection_read_newest(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                          int64_t time_max_ms, struct sample_columns *columns) {
    ASSERT(index < selection->count);
    struct storage *storage = selection->storage;
    const struct item *item = &selection->items[index];
    struct sample newest;
    if (item->slot == SLOT_NONE || item->count > 0 ||
        !head_read_newest(storage->head, item->slot, head_min(selection->version, time_min_ms), time_max_ms,
                          &newest) ||
        hidden_holds(storage->hidden, item->slot, newest.time_ms) ||
        late_overlaps(storage->late, item->slot, newest.time_ms, time_max_ms))
        return selection_read(selection, index, time_min_ms, time_max_ms, columns);
    int status = sample_columns_reserve(columns, 1);
    if (status < 0)
        return status;
    columns->times_ms[columns->count] = newest.time_ms;
    memcpy(&columns->values[columns->count], &newest.value_bits, sizeof newest.value_bits);
    if (columns->has_starts)
        columns->starts_ms[columns->count] = START_NONE;
    columns->count++;
    return STATUS_OK;
}
