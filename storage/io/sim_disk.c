/* sim_disk.c: nodes, sectors and directory entries, and their fate when the power goes. */
#include "storage/io/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define FILE_ROOM_MIN (16 * SIM_PAGE_BYTES)

static void *must(void *p) {
    ASSERT(p != NULL);
    return p;
}

static char *name_copy(const char *name, size_t len) {
    char *copy = must(malloc(len + 1));
    memcpy(copy, name, len);
    copy[len] = '\0';
    return copy;
}

/* `times` out of `of`. */
static bool chance(struct sim_disk *disk, uint64_t times, uint64_t of) {
    return rand_below(&disk->rand, of) < times;
}

/* ---- nodes ---- */

static struct sim_node *node_new(struct sim_disk *disk, bool is_dir) {
    struct sim_node *node = must(calloc(1, sizeof *node));
    node->is_dir = is_dir;
    node->references = 1;
    node->entries.live = true;
    node->next = disk->nodes;
    if (disk->nodes != NULL)
        disk->nodes->previous = node;
    disk->nodes = node;
    return node;
}

static void node_unref(struct sim_disk *disk, struct sim_node *node);

static void node_ref(struct sim_node *node) {
    node->references++;
}

void sim_node_hold(struct sim_disk *disk, struct sim_node *node) {
    node_ref(node);
    if (node->holders++ == 0)
        disk->used_bytes += node->size;
}

void sim_node_let_go(struct sim_disk *disk, struct sim_node *node) {
    ASSERT(node->holders > 0);
    if (--node->holders == 0)
        disk->used_bytes -= node->size;
    node_unref(disk, node);
}

/* Live names hold their node, stable ones only keep it from being forgotten. */
static void entry_ref(struct sim_disk *disk, const struct sim_entries *entries, struct sim_node *node) {
    if (entries->live)
        sim_node_hold(disk, node);
    else
        node_ref(node);
}

static void entry_unref(struct sim_disk *disk, const struct sim_entries *entries, struct sim_node *node) {
    if (entries->live)
        sim_node_let_go(disk, node);
    else
        node_unref(disk, node);
}

static void entries_release(struct sim_disk *disk, struct sim_entries *entries) {
    for (size_t i = 0; i < entries->count; i++) {
        free(entries->at[i].name);
        entry_unref(disk, entries, entries->at[i].node);
    }
    free(entries->at);
    *entries = (struct sim_entries){.live = entries->live};
}

static void changes_release(struct sim_disk *disk, struct sim_node *node) {
    for (size_t i = 0; i < node->change_count; i++) {
        free(node->changes[i].from);
        free(node->changes[i].to);
        if (node->changes[i].node != NULL)
            node_unref(disk, node->changes[i].node);
    }
    node->change_count = 0;
}

static void node_unref(struct sim_disk *disk, struct sim_node *node) {
    ASSERT(node->references > 0);
    if (--node->references > 0)
        return;
    if (node->previous != NULL)
        node->previous->next = node->next;
    else
        disk->nodes = node->next;
    if (node->next != NULL)
        node->next->previous = node->previous;
    free(node->live);
    free(node->stable);
    free(node->sector_state);
    entries_release(disk, &node->entries);
    entries_release(disk, &node->stable_entries);
    changes_release(disk, node);
    free(node->changes);
    free(node);
}

void sim_disk_init(struct sim_disk *disk, uint64_t seed) {
    *disk = (struct sim_disk){0};
    rand_init(&disk->rand, seed);
    disk->root = node_new(disk, true);
}

void sim_disk_release(struct sim_disk *disk) {
    node_unref(disk, disk->root);
    ASSERT(disk->nodes == NULL && disk->used_bytes == 0);
}

/* ---- entries ---- */

static size_t entry_find(const struct sim_entries *entries, const char *name, size_t len) {
    for (size_t i = 0; i < entries->count; i++)
        if (strncmp(entries->at[i].name, name, len) == 0 && entries->at[i].name[len] == '\0')
            return i;
    return SIZE_MAX;
}

/* A name that is there gets the new node. */
static void entry_set(struct sim_disk *disk, struct sim_entries *entries, const char *name,
                      struct sim_node *node) {
    entry_ref(disk, entries, node);
    size_t at = entry_find(entries, name, strlen(name));
    if (at != SIZE_MAX) {
        struct sim_node *old = entries->at[at].node;
        entries->at[at].node = node;
        entry_unref(disk, entries, old);
        return;
    }
    if (entries->count == entries->capacity) {
        entries->capacity = entries->capacity == 0 ? 8 : entries->capacity * 2;
        entries->at = must(realloc(entries->at, entries->capacity * sizeof *entries->at));
    }
    entries->at[entries->count++] = (struct sim_entry){name_copy(name, strlen(name)), node};
}

static void entry_drop(struct sim_disk *disk, struct sim_entries *entries, const char *name) {
    size_t at = entry_find(entries, name, strlen(name));
    if (at == SIZE_MAX)
        return;
    struct sim_entry gone = entries->at[at];
    entries->count--;
    memmove(entries->at + at, entries->at + at + 1, (entries->count - at) * sizeof *entries->at);
    free(gone.name);
    entry_unref(disk, entries, gone.node);
}

static void entries_copy(struct sim_disk *disk, struct sim_entries *to, const struct sim_entries *from) {
    struct sim_entries copy = {.live = to->live};
    for (size_t i = 0; i < from->count; i++)
        entry_set(disk, &copy, from->at[i].name, from->at[i].node);
    entries_release(disk, to);
    *to = copy;
}

static void change_add(struct sim_node *dir, const char *from, const char *to, struct sim_node *node) {
    if (dir->change_count == dir->change_capacity) {
        dir->change_capacity = dir->change_capacity == 0 ? 8 : dir->change_capacity * 2;
        dir->changes = must(realloc(dir->changes, dir->change_capacity * sizeof *dir->changes));
    }
    if (node != NULL)
        node_ref(node);
    dir->changes[dir->change_count++] = (struct sim_change){
        .from = from == NULL ? NULL : name_copy(from, strlen(from)),
        .to = to == NULL ? NULL : name_copy(to, strlen(to)),
        .node = node,
    };
}

static void change_apply(struct sim_disk *disk, struct sim_entries *entries,
                         const struct sim_change *change) {
    if (change->from != NULL)
        entry_drop(disk, entries, change->from);
    if (change->to != NULL)
        entry_set(disk, entries, change->to, change->node);
}

/* ---- paths ---- */

static bool path_next(const char **path, const char **name, size_t *len) {
    for (;;) {
        while (**path == '/')
            (*path)++;
        *name = *path;
        *len = strcspn(*path, "/");
        *path += *len;
        if (*len == 0)
            return false;
        if (*len != 1 || **name != '.')
            return true;
    }
}

struct sim_node *sim_node_find(struct sim_disk *disk, const char *path) {
    struct sim_node *node = disk->root;
    const char *name;
    size_t len;
    while (path_next(&path, &name, &len)) {
        if (!node->is_dir)
            return NULL;
        size_t at = entry_find(&node->entries, name, len);
        if (at == SIZE_MAX)
            return NULL;
        node = node->entries.at[at].node;
    }
    return node;
}

/* The directory of the path's last name, and that name. */
static struct sim_node *parent_find(struct sim_disk *disk, const char *path, const char **name_out) {
    size_t end = strlen(path);
    ASSERT(end > 0 && path[end - 1] != '/');
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    *name_out = path + begin;
    char *dir = name_copy(path, begin);
    struct sim_node *parent = sim_node_find(disk, dir);
    free(dir);
    return parent != NULL && parent->is_dir ? parent : NULL;
}

int sim_create(struct sim_disk *disk, const char *path, bool is_dir, struct sim_node **out) {
    const char *name;
    struct sim_node *parent = parent_find(disk, path, &name);
    if (parent == NULL)
        return -ENOENT;
    if (entry_find(&parent->entries, name, strlen(name)) != SIZE_MAX)
        return -EEXIST;
    struct sim_node *node = node_new(disk, is_dir);
    entry_set(disk, &parent->entries, name, node);
    change_add(parent, NULL, name, node);
    node_unref(disk, node);
    *out = node;
    return 0;
}

int sim_rename(struct sim_disk *disk, const char *from, const char *to) {
    const char *from_name, *to_name;
    struct sim_node *parent = parent_find(disk, from, &from_name);
    if (parent == NULL)
        return -ENOENT;
    if (parent_find(disk, to, &to_name) != parent)
        return -EXDEV;
    size_t at = entry_find(&parent->entries, from_name, strlen(from_name));
    if (at == SIZE_MAX)
        return -ENOENT;
    struct sim_node *node = parent->entries.at[at].node;
    change_add(parent, from_name, to_name, node);
    change_apply(disk, &parent->entries, &parent->changes[parent->change_count - 1]);
    return 0;
}

int sim_remove(struct sim_disk *disk, const char *path, bool is_dir) {
    const char *name;
    struct sim_node *parent = parent_find(disk, path, &name);
    struct sim_node *node = parent == NULL ? NULL : sim_node_find(disk, path);
    if (node == NULL)
        return -ENOENT;
    if (node->is_dir != is_dir)
        return is_dir ? -ENOTDIR : -EISDIR;
    if (is_dir && node->entries.count > 0)
        return -ENOTEMPTY;
    change_add(parent, name, NULL, NULL);
    entry_drop(disk, &parent->entries, name);
    return 0;
}

void sim_dir_sync(struct sim_disk *disk, struct sim_node *node) {
    entries_copy(disk, &node->stable_entries, &node->entries);
    changes_release(disk, node);
}

/* ---- files ---- */

static size_t sector_count(uint64_t bytes) {
    return (size_t)((bytes + SIM_SECTOR_BYTES - 1) / SIM_SECTOR_BYTES);
}

static void file_room(struct sim_node *node, uint64_t bytes) {
    if (bytes <= node->room)
        return;
    size_t room = node->room == 0 ? FILE_ROOM_MIN : node->room;
    while (room < bytes)
        room *= 2;
    node->live = must(realloc(node->live, room));
    node->stable = must(realloc(node->stable, room));
    node->sector_state = must(realloc(node->sector_state, room / SIM_SECTOR_BYTES));
    memset(node->live + node->room, 0, room - node->room);
    memset(node->stable + node->room, 0, room - node->room);
    memset(node->sector_state + node->room / SIM_SECTOR_BYTES, SIM_CLEAN,
           (room - node->room) / SIM_SECTOR_BYTES);
    node->room = room;
}

static void file_resize(struct sim_disk *disk, struct sim_node *node, uint64_t size) {
    if (node->holders > 0)
        disk->used_bytes += size - node->size;
    node->size = size;
}

static void children_copy(struct sim_disk *disk, struct sim_node *to, const struct sim_node *from) {
    for (size_t i = 0; i < from->entries.count; i++) {
        const struct sim_entry *entry = &from->entries.at[i];
        struct sim_node *node = node_new(disk, entry->node->is_dir);
        if (node->is_dir) {
            children_copy(disk, node, entry->node);
        } else if (entry->node->size > 0) {
            file_room(node, entry->node->size);
            memcpy(node->live, entry->node->live, (size_t)entry->node->size);
            memcpy(node->stable, entry->node->live, (size_t)entry->node->size);
            node->size = node->stable_size = entry->node->size;
        }
        entry_set(disk, &to->entries, entry->name, node);
        entry_set(disk, &to->stable_entries, entry->name, node);
        node_unref(disk, node);
    }
}

void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from, uint64_t seed) {
    sim_disk_init(to, seed);
    children_copy(to, to->root, from->root);
}

int64_t sim_file_write(struct sim_disk *disk, struct sim_node *node, uint64_t offset, const void *data,
                       size_t len) {
    uint64_t end = offset + len;
    if (end > node->size && disk->capacity_bytes != 0) {
        uint64_t room = disk->capacity_bytes > disk->used_bytes ? disk->capacity_bytes - disk->used_bytes : 0;
        if (end - node->size > room)
            end = node->size + room;
        if (end <= offset)
            return -ENOSPC;
        len = (size_t)(end - offset);
    }
    file_room(node, end);
    memcpy(node->live + offset, data, len);
    if (len > 0)
        memset(node->sector_state + offset / SIM_SECTOR_BYTES, SIM_DIRTY,
               sector_count(end) - (size_t)(offset / SIM_SECTOR_BYTES));
    if (end > node->size)
        file_resize(disk, node, end);
    return (int64_t)len;
}

int64_t sim_file_read(struct sim_node *node, uint64_t offset, void *data, size_t len) {
    if (offset >= node->size)
        return 0;
    if (len > node->size - offset)
        len = (size_t)(node->size - offset);
    memcpy(data, node->live + offset, len);
    return (int64_t)len;
}

void sim_file_truncate(struct sim_disk *disk, struct sim_node *node) {
    size_t sectors = sector_count(node->size);
    if (sectors > 0) {
        memset(node->live, 0, sectors * SIM_SECTOR_BYTES);
        memset(node->sector_state, SIM_DIRTY, sectors);
    }
    file_resize(disk, node, 0);
}

static void sector_write_back(struct sim_node *node, size_t sector) {
    memcpy(node->stable + sector * SIM_SECTOR_BYTES, node->live + sector * SIM_SECTOR_BYTES,
           SIM_SECTOR_BYTES);
    node->sector_state[sector] = SIM_CLEAN;
}

void sim_file_sync(struct sim_node *node) {
    for (size_t i = 0; i < node->room / SIM_SECTOR_BYTES; i++)
        if (node->sector_state[i] == SIM_DIRTY)
            sector_write_back(node, i);
    node->stable_size = node->size;
}

void sim_file_sync_fail(struct sim_disk *disk, struct sim_node *node) {
    uint64_t written = rand_below(&disk->rand, 4), lost = rand_below(&disk->rand, 4);
    for (size_t i = 0; i < node->room / SIM_SECTOR_BYTES; i++) {
        if (node->sector_state[i] != SIM_DIRTY)
            continue;
        if (chance(disk, written, 4)) {
            sector_write_back(node, i);
        } else if (chance(disk, lost, 3)) {
            node->sector_state[i] = SIM_LOST;
            node->has_lost = true;
        }
    }
}

void sim_file_background(struct sim_disk *disk, struct sim_node *node) {
    if (node->has_lost && chance(disk, 1, 4)) {
        for (size_t i = 0; i < node->room / SIM_SECTOR_BYTES; i++)
            if (node->sector_state[i] == SIM_LOST) {
                memcpy(node->live + i * SIM_SECTOR_BYTES, node->stable + i * SIM_SECTOR_BYTES,
                       SIM_SECTOR_BYTES);
                node->sector_state[i] = SIM_CLEAN;
            }
        node->has_lost = false;
    }
    if (node->room > 0 && chance(disk, 1, 8)) {
        size_t sectors = node->room / SIM_SECTOR_BYTES;
        size_t from = (size_t)rand_below(&disk->rand, sectors),
               count = 1 + (size_t)rand_below(&disk->rand, 64);
        for (size_t i = from; i < sectors && i < from + count; i++)
            if (node->sector_state[i] == SIM_DIRTY)
                sector_write_back(node, i);
    }
}

/* ---- the power cut ---- */

/* How a file's dirty sectors fare together. Extremes are as likely as mixtures: many bugs need all but one.
 */
enum fate { FATE_NONE, FATE_ALL, FATE_EACH, FATE_PREFIX, FATE_ALL_BUT_ONE, FATE_ONE, FATE_COUNT };

/* The new bytes got there in part, or the sector holds garbage; `stable` has the old bytes. */
static void sector_tear(struct sim_disk *disk, struct sim_node *node, size_t sector) {
    uint8_t *stable = node->stable + sector * SIM_SECTOR_BYTES;
    const uint8_t *live = node->live + sector * SIM_SECTOR_BYTES;
    size_t cut = 1 + (size_t)rand_below(&disk->rand, SIM_SECTOR_BYTES - 1);
    switch (rand_below(&disk->rand, 5)) {
    case 0: /* garbage */
        for (size_t i = 0; i < SIM_SECTOR_BYTES; i++)
            stable[i] = (uint8_t)rand_u64(&disk->rand);
        break;
    case 1:
    case 2:
        memcpy(stable, live, cut);
        break;
    default:
        memcpy(stable + cut, live + cut, SIM_SECTOR_BYTES - cut);
    }
}

static void sectors_decide(struct sim_disk *disk, struct sim_node *node) {
    size_t sectors = node->room / SIM_SECTOR_BYTES, dirty = 0;
    for (size_t i = 0; i < sectors; i++)
        dirty += node->sector_state[i] == SIM_DIRTY;
    if (dirty == 0)
        return;
    enum fate fate = (enum fate)rand_below(&disk->rand, FATE_COUNT);
    size_t special = (size_t)rand_below(&disk->rand, dirty), number = 0;
    uint64_t kept_of_8 = 1 + rand_below(&disk->rand, 7);
    bool tears = chance(disk, 1, 2);
    for (size_t i = 0; i < sectors; i++) {
        if (node->sector_state[i] != SIM_DIRTY)
            continue;
        bool keep = false, border = false;
        switch (fate) {
        case FATE_ALL:
            keep = true;
            break;
        case FATE_EACH:
            keep = chance(disk, kept_of_8, 8);
            border = chance(disk, 1, 8);
            break;
        case FATE_PREFIX:
            keep = number < special;
            border = number == special;
            break;
        case FATE_ALL_BUT_ONE:
            keep = number != special;
            border = number == special;
            break;
        case FATE_ONE:
            keep = number == special;
            border = number == special;
            break;
        default:
            break;
        }
        number++;
        if (border && tears)
            sector_tear(disk, node, i);
        else if (keep)
            sector_write_back(node, i);
    }
}

static uint64_t size_decide(struct sim_disk *disk, const struct sim_node *node) {
    uint64_t low = node->size < node->stable_size ? node->size : node->stable_size;
    uint64_t high = node->size < node->stable_size ? node->stable_size : node->size;
    switch (rand_below(&disk->rand, 3)) {
    case 0:
        return node->size;
    case 1:
        return node->stable_size;
    default:
        return low + rand_below(&disk->rand, high - low + 1);
    }
}

/* A page of some other file's, as a recycled disk block would show it. */
static void page_stale(struct sim_disk *disk, uint8_t *page) {
    struct sim_node *donor = NULL;
    uint64_t seen = 0;
    for (struct sim_node *node = disk->nodes; node != NULL; node = node->next)
        if (!node->is_dir && node->room > 0 && chance(disk, 1, ++seen))
            donor = node;
    if (donor == NULL)
        return;
    const uint8_t *from =
        donor->stable + rand_below(&disk->rand, donor->room / SIM_PAGE_BYTES) * SIM_PAGE_BYTES;
    if (from != page)
        memcpy(page, from, SIM_PAGE_BYTES);
}

static void file_power_cut(struct sim_disk *disk, struct sim_node *node) {
    uint64_t size = size_decide(disk, node), old_size = node->stable_size;
    sectors_decide(disk, node);
    if (disk->stale_blocks && size > old_size && chance(disk, 1, 2))
        for (size_t page = (size_t)((old_size + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES);
             (page + 1) * SIM_PAGE_BYTES <= size; page++) {
            bool written = false;
            for (size_t i = 0; i < SIM_PAGE_BYTES / SIM_SECTOR_BYTES; i++)
                written |= node->sector_state[page * (SIM_PAGE_BYTES / SIM_SECTOR_BYTES) + i] == SIM_CLEAN;
            if (!written && chance(disk, 1, 2))
                page_stale(disk, node->stable + page * SIM_PAGE_BYTES);
        }
    if (size < node->room)
        memset(node->stable + size, 0, node->room - (size_t)size);
    if (node->room > 0) {
        memcpy(node->live, node->stable, node->room);
        memset(node->sector_state, SIM_CLEAN, node->room / SIM_SECTOR_BYTES);
    }
    node->has_lost = false;
    file_resize(disk, node, size);
    node->stable_size = size;
}

static void node_power_cut(struct sim_disk *disk, struct sim_node *node) {
    if (node->seen)
        return;
    node->seen = true;
    node->locked = false;
    if (!node->is_dir) {
        file_power_cut(disk, node);
        return;
    }
    /* A journal keeps a prefix of the changes; nothing promises more than that any of them may be lost. */
    bool prefix = chance(disk, 1, 2);
    size_t kept = (size_t)rand_below(&disk->rand, node->change_count + 1);
    for (size_t i = 0; i < node->change_count; i++)
        if (prefix ? i < kept : chance(disk, 1, 2))
            change_apply(disk, &node->stable_entries, &node->changes[i]);
    entries_copy(disk, &node->entries, &node->stable_entries);
    changes_release(disk, node);
    for (size_t i = 0; i < node->entries.count; i++)
        node_power_cut(disk, node->entries.at[i].node);
}

void sim_disk_power_cut(struct sim_disk *disk) {
    for (struct sim_node *node = disk->nodes; node != NULL; node = node->next)
        node->seen = false;
    node_power_cut(disk, disk->root);
}
