/* storage_labels.c: label names, and values of a name, of all series or of those that matchers select.
 *
 * A label is told as soon as one series with it is found that has samples in the range; only where few series
 * are selected are their labels read one by one. A block that lies in the range as a whole tells by its index
 * alone, and so does one without matchers: there the range is as fine as the block. With deletes that blocks
 * are still read with, series have to be looked at. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/metrics.h"
#include "storage/storage_private.h"

/* Series are asked for their labels, instead of labels for their series, where they are fewer than one in so
 * many. */
#define FEW_SHARE 16

/* What a callback returns to end a walk: no error. */
#define WALK_ENOUGH STATUS_EXISTS

struct lookup {
    struct storage *storage;
    const struct storage_version *version;
    struct slice name; /* whose values; empty: names */
    const struct matcher *matchers;
    size_t matcher_count;
    bool own_only; /* the matchers ask for nothing but the label's own value */
    int64_t time_min_ms;
    int64_t time_max_ms;
    struct arena *arena;

    /* The head's series that satisfy the matchers. */
    uint32_t *slots;
    size_t slot_count;
    uint8_t *slot_bits; /* NULL: all */
    uint32_t slot_end;

    /* Found. Those in `cells`, by hash, are there once; others may be there again. */
    struct slice *texts;
    size_t count;
    size_t capacity;
    uint32_t *cells; /* index + 1 */
    size_t cell_mask;
    size_t cell_count;
};

/* ---- What was found -------------------------------------------------------------------------------------
 */

static int text_append(struct lookup *lookup, struct slice text) {
    struct slice *texts = array_ensure(lookup->texts, &lookup->capacity, lookup->count + 1, sizeof *texts);
    if (texts == NULL)
        return STATUS_NO_MEMORY;
    lookup->texts = texts;
    lookup->texts[lookup->count++] = text;
    return STATUS_OK;
}

static uint32_t *cell_find(const struct lookup *lookup, struct slice text) {
    size_t at = (size_t)series_hash(lookup->storage->series, text) & lookup->cell_mask;
    while (lookup->cells[at] != 0 && !slice_equal(lookup->texts[lookup->cells[at] - 1], text))
        at = (at + 1) & lookup->cell_mask;
    return &lookup->cells[at];
}

static int cells_grow(struct lookup *lookup) {
    size_t cells = lookup->cells == NULL ? 256 : (lookup->cell_mask + 1) * 2,
           old_count = lookup->cell_mask + 1;
    uint32_t *old = lookup->cells, *grown = mem_zalloc(cells * sizeof *grown);
    if (grown == NULL)
        return STATUS_NO_MEMORY;
    lookup->cells = grown;
    lookup->cell_mask = cells - 1;
    for (size_t i = 0; old != NULL && i < old_count; i++)
        if (old[i] != 0)
            *cell_find(lookup, lookup->texts[old[i] - 1]) = old[i];
    mem_free(old);
    return STATUS_OK;
}

/* Appends the text unless it was put before; with `copy`, a copy of it. */
static int text_put(struct lookup *lookup, struct slice text, bool copy) {
    if (lookup->cells == NULL || lookup->cell_count * 2 > lookup->cell_mask) {
        int status = cells_grow(lookup);
        if (status < 0)
            return status;
    }
    uint32_t *cell = cell_find(lookup, text);
    if (*cell != 0)
        return STATUS_OK;
    if (copy) {
        text = arena_copy(lookup->arena, text);
        if (text.data == NULL)
            return STATUS_NO_MEMORY;
    }
    int status = text_append(lookup, text);
    if (status == STATUS_OK) {
        *cell = (uint32_t)lookup->count;
        lookup->cell_count++;
    }
    return status;
}

static int text_order(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* Sorts, drops repeats, cuts at the limit and copies to the caller's arena. */
static int texts_finish(struct lookup *lookup, size_t limit, struct slice **texts_out, size_t *count_out,
                        bool *truncated_out) {
    struct slice *found = lookup->texts;
    if (lookup->count > 0)
        qsort(found, lookup->count, sizeof *found, text_order);
    size_t unique = 0;
    for (size_t i = 0; i < lookup->count; i++)
        if (unique == 0 || !slice_equal(found[unique - 1], found[i]))
            found[unique++] = found[i];
    bool truncated = limit != 0 && unique > limit;
    size_t count = truncated ? limit : unique;
    struct slice *texts = ARENA_ARRAY(lookup->arena, struct slice, count);
    if (texts == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        texts[i] = arena_copy(lookup->arena, found[i]);
        if (texts[i].data == NULL)
            return STATUS_NO_MEMORY;
    }
    *texts_out = texts;
    *count_out = count;
    *truncated_out = truncated;
    return STATUS_OK;
}

/* ---- The head -------------------------------------------------------------------------------------------
 */

static bool slot_has(const struct lookup *lookup, uint32_t slot) {
    return storage__slot_has(lookup->storage, lookup->version, slot, lookup->time_min_ms,
                             lookup->time_max_ms);
}

static bool slot_selected(const struct lookup *lookup, uint32_t slot) {
    if (lookup->slot_bits != NULL &&
        (slot >= lookup->slot_end || (lookup->slot_bits[slot / 8] >> slot % 8 & 1) == 0))
        return false;
    return slot_has(lookup, slot);
}

static bool value_wanted(const struct lookup *lookup, struct slice value) {
    for (size_t i = 0; lookup->own_only && i < lookup->matcher_count; i++)
        if (!matcher_match(&lookup->matchers[i], value))
            return false;
    return true;
}

static int value_each(void *context, struct slice value, const uint32_t *slots, size_t slot_count) {
    struct lookup *lookup = context;
    if (!value_wanted(lookup, value))
        return SERIES_EACH_ENOUGH;
    for (size_t i = 0; i < slot_count; i++) {
        if (!slot_selected(lookup, slots[i]))
            continue;
        int status = text_append(lookup, value);
        return status < 0 ? status : SERIES_EACH_ENOUGH;
    }
    return STATUS_OK;
}

static int any_value_each(void *context, struct slice value, const uint32_t *slots, size_t slot_count) {
    const struct lookup *lookup = context;
    (void)value;
    for (size_t i = 0; i < slot_count; i++)
        if (slot_selected(lookup, slots[i]))
            return WALK_ENOUGH;
    return STATUS_OK;
}

static int name_each(void *context, struct slice name) {
    struct lookup *lookup = context;
    int status = series_each_value(lookup->storage->series, name, any_value_each, lookup);
    return status == WALK_ENOUGH ? text_append(lookup, name) : status;
}

/* Labels are asked for their series. */
static int labels_walk(struct lookup *lookup) {
    struct series_table *series = lookup->storage->series;
    return lookup->name.len > 0 ? series_each_value(series, lookup->name, value_each, lookup)
                                : series_each_name(series, name_each, lookup);
}

/* Series are asked for their labels. */
static int slots_walk(struct lookup *lookup) {
    struct series_table *series = lookup->storage->series;
    struct label labels[STORAGE_LABELS_MAX];
    int status = STATUS_OK;
    for (size_t i = 0; i < lookup->slot_count; i++) {
        if (!slot_has(lookup, lookup->slots[i]))
            continue;
        if (lookup->name.len > 0) {
            struct slice value = series_label(series, lookup->slots[i], lookup->name);
            if (value.len > 0)
                TRY(text_put(lookup, value, false));
            continue;
        }
        size_t count = series_labels(series, lookup->slots[i], labels, STORAGE_LABELS_MAX);
        for (size_t k = 0; k < count; k++)
            TRY(text_put(lookup, labels[k].name, false));
    }
out:
    return status;
}

static int head_lookup(struct lookup *lookup) {
    struct series_table *series = lookup->storage->series;
    int status = STATUS_OK;
    if (lookup->matcher_count == 0 || lookup->own_only)
        return labels_walk(lookup);
    TRY(series_match(series, lookup->matchers, lookup->matcher_count, &lookup->slots, &lookup->slot_count));
    lookup->slot_end = series_slot_end(series);
    if (lookup->slot_count * FEW_SHARE < lookup->slot_end)
        return slots_walk(lookup);
    lookup->slot_bits = mem_zalloc(lookup->slot_end / 8 + 1);
    if (lookup->slot_bits == NULL)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < lookup->slot_count; i++)
        lookup->slot_bits[lookup->slots[i] / 8] |= (uint8_t)(1u << lookup->slots[i] % 8);
    status = labels_walk(lookup);
out:
    return status;
}

/* ---- Blocks ---------------------------------------------------------------------------------------------
 */

static int block_text_each(void *context, struct slice text, uint64_t series_count) {
    struct lookup *lookup = context;
    (void)series_count;
    return lookup->name.len == 0 || value_wanted(lookup, text) ? text_put(lookup, text, true) : STATUS_OK;
}

/* By its index. */
static int block_index_lookup(struct lookup *lookup, struct block *block, struct error_detail *detail) {
    size_t count = lookup->own_only ? 0 : lookup->matcher_count;
    return lookup->name.len > 0
               ? block_label_values(block, lookup->name, lookup->matchers, count, block_text_each, lookup,
                                    detail)
               : block_label_names(block, lookup->matchers, count, block_text_each, lookup, detail);
}

static int block_series_lookup(struct lookup *lookup, struct block_view *view, uint32_t ordinal,
                               struct error_detail *detail) {
    struct block_series series;
    struct slice labels;
    struct label label;
    int status = block_view_series(view, ordinal, lookup->time_min_ms, lookup->time_max_ms, &series, detail);
    if (status < 0 || series.chunk_count == 0)
        return status;
    TRY(block_view_labels(view, ordinal, &labels, detail));
    while (label_next(&labels, &label, NULL)) {
        if (lookup->name.len == 0)
            TRY(text_put(lookup, label.name, true));
        else if (slice_equal(label.name, lookup->name))
            TRY(text_put(lookup, label.value, true));
    }
out:
    return status;
}

/* By its series: those with chunks in the range. */
static int block_lookup(struct lookup *lookup, struct block *block, struct error_detail *detail) {
    struct block_view *view = NULL;
    uint32_t *ordinals = NULL;
    size_t count;
    int status = STATUS_OK;
    TRY(block_select(block, lookup->matchers, lookup->matcher_count, lookup->time_min_ms, lookup->time_max_ms,
                     &ordinals, &count, detail));
    TRY(block_view_open(block, &view));
    for (size_t i = 0; i < count; i++) {
        status = block_series_lookup(lookup, view, ordinals[i], detail);
        if (status == STATUS_CORRUPT) {
            metric_add(METRIC_block_damage, 1);
            status = STATUS_OK;
        }
        TRY(status);
    }
out:
    block_view_close(view);
    mem_free(ordinals);
    return status;
}

static int blocks_lookup(struct lookup *lookup) {
    for (size_t i = 0; i < lookup->version->count; i++) {
        struct error_detail detail = {0};
        struct block *block = lookup->version->blocks[i]->block;
        const struct manifest_block *info = &lookup->version->blocks[i]->info;
        if (!storage__version_overlaps(lookup->version, i, lookup->time_min_ms, lookup->time_max_ms))
            continue;
        bool by_index =
            lookup->matcher_count == 0 || lookup->own_only ||
            (info->time_min_ms >= lookup->time_min_ms && info->time_max_ms <= lookup->time_max_ms);
        int status =
            by_index ? block_index_lookup(lookup, block, &detail) : block_lookup(lookup, block, &detail);
        if (status == STATUS_CORRUPT)
            metric_add(METRIC_block_damage, 1);
        else if (status < 0)
            return status;
    }
    return STATUS_OK;
}

/* ---- Where something is hidden in blocks ----------------------------------------------------------------
 */

static int selection_lookup(struct lookup *lookup, struct storage_selection **selection_out) {
    struct label labels[STORAGE_LABELS_MAX];
    struct storage_selection *selection;
    int status = storage_select(lookup->storage, lookup->matchers, lookup->matcher_count, lookup->time_min_ms,
                                lookup->time_max_ms, 0, &selection);
    if (status < 0)
        return status;
    *selection_out = selection; /* it lends the texts */
    for (size_t i = 0; i < selection_series_count(selection); i++) {
        if (lookup->name.len > 0) {
            struct slice value = selection_label(selection, i, lookup->name);
            if (value.len > 0)
                TRY(text_put(lookup, value, false));
            continue;
        }
        size_t count = selection_labels(selection, i, labels);
        for (size_t k = 0; k < count; k++)
            TRY(text_put(lookup, labels[k].name, false));
    }
out:
    return status;
}

static int lookup_run(struct lookup *lookup, size_t limit, struct slice **texts_out, size_t *count_out,
                      bool *truncated_out) {
    struct tombstone_set *deletes;
    struct storage_selection *selection = NULL;
    struct storage_version *version = storage__version_get(lookup->storage, &deletes);
    bool hides = deletes->count > 0;
    unsigned pin = series_pin(lookup->storage->series);
    int status = STATUS_OK;
    storage__deletes_put(lookup->storage, deletes);
    lookup->version = version;
    if (hides) {
        TRY(selection_lookup(lookup, &selection));
    } else {
        TRY(head_lookup(lookup));
        TRY(blocks_lookup(lookup));
    }
    TRY(texts_finish(lookup, limit, texts_out, count_out, truncated_out));
out:
    selection_close(selection);
    storage__version_put(lookup->storage, version);
    series_unpin(lookup->storage->series, pin);
    mem_free(lookup->slots);
    mem_free(lookup->slot_bits);
    mem_free(lookup->texts);
    mem_free(lookup->cells);
    return status;
}

int storage_label_names(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                        int64_t time_min_ms, int64_t time_max_ms, size_t limit, struct arena *arena,
                        struct slice **names_out, size_t *count_out, bool *truncated_out) {
    struct lookup lookup = {.storage = storage,
                            .matchers = matchers,
                            .matcher_count = matcher_count,
                            .time_min_ms = time_min_ms,
                            .time_max_ms = time_max_ms,
                            .arena = arena};
    return lookup_run(&lookup, limit, names_out, count_out, truncated_out);
}

int storage_label_values(struct storage *storage, struct slice name, const struct matcher *matchers,
                         size_t matcher_count, int64_t time_min_ms, int64_t time_max_ms, size_t limit,
                         struct arena *arena, struct slice **values_out, size_t *count_out,
                         bool *truncated_out) {
    struct lookup lookup = {.storage = storage,
                            .name = name,
                            .matchers = matchers,
                            .matcher_count = matcher_count,
                            .own_only = matcher_count > 0,
                            .time_min_ms = time_min_ms,
                            .time_max_ms = time_max_ms,
                            .arena = arena};
    for (size_t i = 0; i < matcher_count; i++)
        lookup.own_only = lookup.own_only && slice_equal(matchers[i].name, name);
    return lookup_run(&lookup, limit, values_out, count_out, truncated_out);
}
