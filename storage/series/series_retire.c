/* series_retire.c: pins, and how series that fell silent leave.
 *
 *     MARK → (pins) → UNLINK → (pins) → FREE → MARK
 *
 * MARK clears the mark in the table's cell of a silent series; every lookup sets it. A writer that looked the
 * series up before holds a pin since then, so once the pins of that time are gone its samples are applied.
 * What is silent still, with its mark still clear, is looked up by nobody who has not finished: UNLINK takes
 * it out of the table, under the stripe's lock, and out of the postings, under the index lock held for both,
 * so that a series of the same labels is made after that only. Readers may have found the slot in the
 * postings before: FREE waits for their pins.
 *
 * Pins are counted by epoch, of which the present one and the one before can have any. A phase ends the
 * present epoch and waits until the count of the other one is zero. */
#include "base/assert.h"
#include "base/metrics.h"
#include "storage/series/series_private.h"

#define UNLINK_HELD 64u /* series taken out under one hold of the index lock */

/* ---- pins ---- */

unsigned series_pin(struct series_table *table) {
    for (;;) {
        uint64_t epoch = atomic_load(&table->epoch);
        unsigned pin = (unsigned)(epoch & 1);
        atomic_fetch_add(&table->pins[pin], 1);
        /* If the epoch ended in between, whoever ended it may not have seen the pin. */
        if (atomic_load(&table->epoch) == epoch)
            return pin;
        atomic_fetch_sub(&table->pins[pin], 1);
    }
}

void series_unpin(struct series_table *table, unsigned pin) {
    uint64_t before = atomic_fetch_sub(&table->pins[pin], 1);
    ASSERT(before > 0);
}

static void epoch_end(struct series_table *table) {
    atomic_fetch_add(&table->epoch, 1);
}

static bool epoch_is_over(struct series_table *table) {
    return atomic_load(&table->pins[(atomic_load(&table->epoch) + 1) & 1]) == 0;
}

/* ---- phases ---- */

static void phase_begin(struct retire *retire, enum retire_phase phase) {
    retire->phase = phase;
    retire->slot = 0;
}

/* Under the stripe's lock. */
static struct hash_cell *cell_of(struct series_table *table, uint64_t hash, uint32_t slot) {
    return hash_map_cell(&stripe_of(table, hash)->map, hash_tag(hash), slot);
}

static void slot_mark(struct series_table *table, uint32_t slot) {
    /* Without memory it stays, until the next pass. */
    if (number_set_reserve(&table->retire.slots, &table->sets, slot) < 0)
        return;
    uint64_t hash = series__slot_hash(table, slot);
    struct stripe *stripe = stripe_of(table, hash);
    spin_lock(&stripe->lock);
    cell_of(table, hash, slot)->value &= ~HASH_CELL_MARK;
    spin_unlock(&stripe->lock);
    number_set_add(&table->retire.slots, slot);
}

static void mark(struct series_table *table, const struct series_retire_sink *sink, uint32_t slots) {
    struct retire *retire = &table->retire;
    uint32_t numbers[UNLINK_HELD];
    while (slots > 0) {
        uint32_t max = slots < UNLINK_HELD ? slots : UNLINK_HELD;
        pthread_rwlock_rdlock(&table->index_lock);
        size_t count = number_set_list(&table->live, retire->slot, numbers, max);
        pthread_rwlock_unlock(&table->index_lock);
        if (count > 0)
            retire->slot = numbers[count - 1] + 1;
        size_t silent = 0;
        for (size_t i = 0; i < count; i++)
            if (sink->is_silent(sink->context, numbers[i]))
                numbers[silent++] = numbers[i];
        if (silent > 0) {
            pthread_rwlock_wrlock(&table->index_lock); /* the sets' memory is the table's */
            for (size_t i = 0; i < silent; i++)
                slot_mark(table, numbers[i]);
            pthread_rwlock_unlock(&table->index_lock);
        }
        if (count < max) {
            phase_begin(retire, RETIRE_MARK_WAIT);
            epoch_end(table);
            return;
        }
        slots -= max;
    }
}

/* Takes a marked series out, unless somebody looked it up. Under the index lock in write mode. */
static bool slot_unlink(struct series_table *table, uint32_t slot, uint64_t hash) {
    bool told = number_set_has(&table->changed_slots, slot);
    if (!told && number_set_reserve(&table->changed_slots, &table->sets, slot) < 0)
        return false;
    struct stripe *stripe = stripe_of(table, hash);
    spin_lock(&stripe->lock);
    bool wanted = (cell_of(table, hash, slot)->value & HASH_CELL_MARK) != 0;
    if (!wanted)
        hash_map_remove(&stripe->map, hash_tag(hash), slot);
    spin_unlock(&stripe->lock);
    if (wanted)
        return false;
    const uint32_t *pairs = entry_at(table, slot)->pairs;
    for (uint32_t i = 1; i <= pairs[0]; i++) {
        struct pair *pair = pair_at(table, pairs[i]);
        number_set_remove(&pair->postings, &table->sets, slot);
        if (pair->postings.count == 0)
            series__pair_unlink(table, pairs[i]);
    }
    number_set_remove(&table->live, &table->sets, slot);
    if (!told)
        number_set_add(&table->changed_slots, slot);
    atomic_fetch_sub_explicit(&table->series_count, 1, memory_order_relaxed);
    table->retired++;
    return true;
}

static void unlink_slice(struct series_table *table, const struct series_retire_sink *sink, uint32_t slots) {
    struct retire *retire = &table->retire;
    uint32_t numbers[UNLINK_HELD];
    uint64_t hashes[UNLINK_HELD];
    bool gone[UNLINK_HELD];
    for (uint32_t done = 0; done < slots; done += UNLINK_HELD) {
        size_t count = number_set_list(&retire->slots, retire->slot, numbers, UNLINK_HELD);
        for (size_t i = 0; i < count; i++) {
            gone[i] = sink->is_silent(sink->context, numbers[i]);
            if (gone[i])
                hashes[i] = series__slot_hash(table, numbers[i]);
        }
        pthread_rwlock_wrlock(&table->index_lock);
        for (size_t i = 0; i < count; i++) {
            gone[i] = gone[i] && slot_unlink(table, numbers[i], hashes[i]);
            if (!gone[i])
                number_set_remove(&retire->slots, &table->sets, numbers[i]);
        }
        pthread_rwlock_unlock(&table->index_lock);
        for (size_t i = 0; i < count; i++)
            if (gone[i]) {
                metric_add(METRIC_head_series_retired, 1);
                if (sink->retired != NULL)
                    sink->retired(sink->context, numbers[i]);
            }
        if (count < UNLINK_HELD) {
            phase_begin(retire, RETIRE_UNLINK_WAIT);
            epoch_end(table);
            return;
        }
        retire->slot = numbers[count - 1] + 1;
    }
}

/* True when the pass is over. */
static bool free_slice(struct series_table *table, uint32_t max) {
    struct retire *retire = &table->retire;
    uint32_t numbers[UNLINK_HELD];
    bool over = false;
    pthread_rwlock_wrlock(&table->index_lock);
    size_t count = number_set_list(&retire->slots, retire->slot, numbers, UNLINK_HELD);
    for (size_t i = 0; i < count; i++) {
        struct series_entry *entry = entry_at(table, numbers[i]);
        slab_free(&table->lists, entry->pairs, (entry->pairs[0] + (size_t)1) * sizeof *entry->pairs);
        *entry = (struct series_entry){.id = table->slot_held};
        if (table->slot_held == NUMBER_NONE)
            table->slot_held_last = numbers[i];
        table->slot_held = numbers[i];
    }
    if (count > 0) {
        retire->slot = numbers[count - 1] + 1;
    } else if (!series__dead_free(table, max)) {
        number_set_release(&retire->slots, &table->sets);
        phase_begin(retire, RETIRE_MARK);
        over = true;
    }
    pthread_rwlock_unlock(&table->index_lock);
    return over;
}

void series_slots_release(struct series_table *table) {
    pthread_rwlock_wrlock(&table->index_lock);
    if (table->slot_held != NUMBER_NONE) {
        entry_at(table, table->slot_held_last)->id = table->slot_free;
        table->slot_free = table->slot_held;
        table->slot_held = NUMBER_NONE;
    }
    pthread_rwlock_unlock(&table->index_lock);
}

enum series_retire_state series_retire_step(struct series_table *table, const struct series_retire_sink *sink,
                                            uint32_t slots) {
    struct retire *retire = &table->retire;
    uint32_t fewer = slots / 4 > UNLINK_HELD ? slots / 4 : UNLINK_HELD;
    switch (retire->phase) {
    case RETIRE_MARK:
        mark(table, sink, slots);
        break;
    case RETIRE_MARK_WAIT:
        if (!epoch_is_over(table))
            return SERIES_RETIRE_WAITS;
        phase_begin(retire, RETIRE_UNLINK);
        break;
    case RETIRE_UNLINK:
        unlink_slice(table, sink, fewer);
        break;
    case RETIRE_UNLINK_WAIT:
        if (!epoch_is_over(table))
            return SERIES_RETIRE_WAITS;
        phase_begin(retire, RETIRE_FREE);
        break;
    case RETIRE_FREE:
        for (uint32_t done = 0; done < fewer; done += UNLINK_HELD)
            if (free_slice(table, UNLINK_HELD))
                return SERIES_RETIRE_DONE;
        break;
    }
    return SERIES_RETIRE_MORE;
}
