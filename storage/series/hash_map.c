/* hash_map.c: linear probing, deletion by moving back (Knuth, TAOCP 3, 6.4, algorithm R). */
#include "storage/series/hash_map.h"

#include "base/alloc.h"
#include "base/assert.h"

#define CELLS_MIN 16u

static struct hash_cell *cells_of(const struct hash_map *map) {
    return atomic_load_explicit(&map->cells, memory_order_relaxed);
}

static uint32_t capacity_of(const struct hash_map *map) {
    return atomic_load_explicit(&map->capacity, memory_order_relaxed);
}

static void cell_put(struct hash_cell *cells, uint32_t capacity, struct hash_cell cell) {
    uint32_t at = hash_map_home(cell.tag, capacity);
    while (cells[at].value != 0)
        at = at + 1 == capacity ? 0 : at + 1;
    cells[at] = cell;
}

int hash_map_reserve(struct hash_map *map, uint32_t more) {
    uint32_t capacity = capacity_of(map);
    uint64_t want = (uint64_t)map->count + more;
    if (want <= (uint64_t)capacity * 4 / 5)
        return STATUS_OK;
    uint64_t larger = capacity + (uint64_t)capacity / 4;
    if (larger < want + want / 4 + 1)
        larger = want + want / 4 + 1;
    if (larger < CELLS_MIN)
        larger = CELLS_MIN;
    if (larger > UINT32_MAX / 2)
        return STATUS_NO_MEMORY;
    struct hash_cell *cells = mem_zalloc(larger * sizeof *cells), *old = cells_of(map);
    if (cells == NULL)
        return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < capacity; i++)
        if (old[i].value != 0)
            cell_put(cells, (uint32_t)larger, old[i]);
    atomic_store_explicit(&map->cells, cells, memory_order_relaxed);
    atomic_store_explicit(&map->capacity, (uint32_t)larger, memory_order_relaxed);
    mem_free(old);
    return STATUS_OK;
}

void hash_map_add(struct hash_map *map, uint32_t tag, uint32_t number, uint32_t mark) {
    cell_put(cells_of(map), capacity_of(map), (struct hash_cell){tag, (number + 1) | mark});
    map->count++;
}

struct hash_cell *hash_map_cell(const struct hash_map *map, uint32_t tag, uint32_t number) {
    uint32_t at = UINT32_MAX;
    for (;;) {
        struct hash_cell *cell = hash_map_next(map, tag, &at);
        ASSERT(cell != NULL);
        if (hash_cell_number(cell) == number)
            return cell;
    }
}

void hash_map_remove(struct hash_map *map, uint32_t tag, uint32_t number) {
    struct hash_cell *cells = cells_of(map);
    uint32_t capacity = capacity_of(map);
    uint32_t hole = (uint32_t)(hash_map_cell(map, tag, number) - cells);
    for (uint32_t i = hole;;) {
        i = i + 1 == capacity ? 0 : i + 1;
        if (cells[i].value == 0)
            break;
        /* May the cell stand in the hole: is its home no further than that, going round? */
        uint32_t home = hash_map_home(cells[i].tag, capacity);
        uint32_t from_home = i >= home ? i - home : i + capacity - home;
        uint32_t from_hole = i >= hole ? i - hole : i + capacity - hole;
        if (from_home >= from_hole) {
            cells[hole] = cells[i];
            hole = i;
        }
    }
    cells[hole] = (struct hash_cell){0, 0};
    map->count--;
}

void hash_map_release(struct hash_map *map) {
    mem_free(cells_of(map));
    *map = (struct hash_map){.cells = NULL};
}
