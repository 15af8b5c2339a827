/* io_sim.c: handles, chances, virtual time and the moment of the end over sim_disk.c. */
#include "storage/io/io_sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "storage/io/io_private.h"
#include "storage/io/sim_disk.h"

#define OPERATION_NS_MAX 20000   /* of one that blocks */
#define COMMIT_NS_MAX    2000000 /* of a commit */

struct flight {
    struct io_commit *commit;
    uint64_t due_ns;
};

#define FLIGHTS_MAX 64

struct io_sim {
    struct io io;
    struct sim_disk disk;
    struct io_sim_faults faults;
    uint64_t now_ns;
    uint64_t operations;
    bool ended;
    enum io_sim_end end;
    uint64_t end_countdown;
    unsigned handles;
    unsigned maps;
    struct flight flights[FLIGHTS_MAX];
    size_t flight_count;
    char rot_path[256];
};

static struct io_sim *sim_of(struct io *io) {
    return (struct io_sim *)io;
}

static bool chance(struct io_sim *sim, unsigned of_1000) {
    return of_1000 > 0 && rand_below(&sim->disk.rand, 1000) < of_1000;
}

/* ---- the end ---- */

/* What the kernel had in hand: a write may have reached its memory, and its sync may have been done though
 * nobody was told. */
static void flights_abandon(struct io_sim *sim) {
    for (size_t i = 0; i < sim->flight_count; i++) {
        const struct io_commit *commit = sim->flights[i].commit;
        struct sim_node *node = commit->file->backend;
        uint64_t done = rand_below(&sim->disk.rand, 4);
        if (done == 0)
            continue;
        size_t len = done == 1 ? (size_t)rand_below(&sim->disk.rand, commit->len + 1) : commit->len;
        if (sim_file_write(&sim->disk, node, commit->offset, commit->data, len) == (int64_t)commit->len &&
            done == 3)
            sim_file_sync(node);
        sim->flights[i].due_ns = sim->now_ns;
    }
}

void io_sim_end_now(struct io *io, enum io_sim_end end) {
    struct io_sim *sim = sim_of(io);
    ASSERT(!sim->ended);
    flights_abandon(sim);
    sim->ended = true;
    sim->end = end;
    sim->end_countdown = 0;
}

void io_sim_end_after(struct io *io, enum io_sim_end end, uint64_t operations) {
    struct io_sim *sim = sim_of(io);
    sim->end = end;
    sim->end_countdown = operations;
}

bool io_sim_ended(const struct io *io) {
    return ((const struct io_sim *)io)->ended;
}

void io_sim_restart(struct io *io) {
    struct io_sim *sim = sim_of(io);
    ASSERT(sim->ended && sim->handles == 0 && sim->maps == 0 && sim->flight_count == 0);
    if (sim->end == IO_SIM_POWER_CUT)
        sim_disk_power_cut(&sim->disk);
    else
        for (struct sim_node *node = sim->disk.nodes; node != NULL; node = node->next)
            node->locked = false;
    sim->ended = false;
}

/* ---- one operation ---- */

enum verdict {
    GO,      /* do it */
    FAIL,    /* EIO, nothing done */
    LAST,    /* do it, then end: nobody is told */
    LAST_NOT /* end without having done it */
};

static enum verdict operation_begin(struct io_sim *sim, unsigned error_chance) {
    if (sim->ended)
        return FAIL;
    sim->operations++;
    sim->now_ns += rand_below(&sim->disk.rand, OPERATION_NS_MAX);
    if (sim->end_countdown > 0 && --sim->end_countdown == 0)
        return rand_below(&sim->disk.rand, 2) ? LAST : LAST_NOT;
    return chance(sim, error_chance) ? FAIL : GO;
}

/* For operations that are done or not, nothing between: true if `result` of doing it is to be told. */
static bool operation_end(struct io_sim *sim, enum verdict verdict) {
    if (verdict == LAST || verdict == LAST_NOT)
        io_sim_end_now(&sim->io, sim->end);
    return verdict == GO;
}

#define OPERATION(sim, error_chance, call)                                                                   \
    do {                                                                                                     \
        enum verdict verdict_ = operation_begin((sim), (error_chance));                                      \
        int result_ = verdict_ == GO || verdict_ == LAST ? (call) : 0;                                       \
        return operation_end((sim), verdict_) ? result_ : -EIO;                                              \
    } while (0)

/* ---- files ---- */

static int file_open(struct io_sim *sim, struct io_file *file, unsigned flags) {
    struct sim_node *node = sim_node_find(&sim->disk, file->path);
    if (node != NULL && (flags & IO_OPEN_CREATE) && (flags & IO_OPEN_EXCLUSIVE))
        return -EEXIST;
    if (node == NULL) {
        if (!(flags & IO_OPEN_CREATE))
            return -ENOENT;
        int result = sim_create(&sim->disk, file->path, false, &node);
        if (result < 0)
            return result;
    }
    if (node->is_dir)
        return -EISDIR;
    if (flags & IO_OPEN_TRUNCATE)
        sim_file_truncate(&sim->disk, node);
    file->backend = node;
    return 0;
}

/* Holds the node while the handle is open: taken at once, so that an end inside the operation counts too. */
static int handle_take(struct io_sim *sim, struct io_file *file, int result) {
    if (result == 0) {
        sim_node_hold(&sim->disk, file->backend);
        sim->handles++;
    }
    return result;
}

static int sim_op_file_open(struct io *io, struct io_file *file, unsigned flags) {
    struct io_sim *sim = sim_of(io);
    enum verdict verdict = operation_begin(sim, sim->faults.other_error);
    int result = verdict == GO || verdict == LAST ? file_open(sim, file, flags) : 0;
    return operation_end(sim, verdict) ? handle_take(sim, file, result) : -EIO;
}

static void handle_drop(struct io_sim *sim, struct io_file *file) {
    ASSERT(sim->handles > 0);
    sim->handles--;
    for (size_t i = 0; i < sim->flight_count; i++)
        ASSERT(sim->flights[i].commit->file != file); /* closed under a commit */
    sim_node_let_go(&sim->disk, file->backend);
}

static void sim_op_file_close(struct io *io, struct io_file *file) {
    if (file->fd >= 0)
        close(file->fd);
    handle_drop(sim_of(io), file);
}

/* A copy in memory that the kernel knows: file->fd, until the file is closed. */
static int sim_op_native_path(struct io *io, struct io_file *file, char *path, size_t bytes) {
    struct io_sim *sim = sim_of(io);
    const struct sim_node *node = file->backend;
    enum verdict verdict = operation_begin(sim, sim->faults.read_error);
    if (!operation_end(sim, verdict))
        return -EIO;
    if (file->fd >= 0)
        close(file->fd);
    file->fd = memfd_create("tidalite-sim", MFD_CLOEXEC);
    ASSERT(file->fd >= 0 &&
           (node->size == 0 || write(file->fd, node->live, node->size) == (ssize_t)node->size));
    snprintf(path, bytes, "/proc/self/fd/%d", file->fd);
    return 0;
}

static int sim_op_file_size(struct io *io, struct io_file *file, uint64_t *bytes_out) {
    if (sim_of(io)->ended)
        return -EIO;
    *bytes_out = ((struct sim_node *)file->backend)->size;
    return 0;
}

static int64_t sim_op_read(struct io *io, struct io_file *file, uint64_t offset, void *data, size_t len) {
    struct io_sim *sim = sim_of(io);
    enum verdict verdict = operation_begin(sim, sim->faults.read_error);
    if (!operation_end(sim, verdict))
        return -EIO;
    sim_file_background(&sim->disk, file->backend);
    return sim_file_read(file->backend, offset, data, len);
}

static int64_t sim_op_write(struct io *io, struct io_file *file, uint64_t offset, const void *data,
                            size_t len) {
    struct io_sim *sim = sim_of(io);
    struct sim_node *node = file->backend;
    enum verdict verdict = operation_begin(sim, sim->faults.write_error);
    if (verdict == FAIL && sim->ended)
        return -EIO;
    bool part = verdict != GO || (len > 1 && chance(sim, sim->faults.short_write));
    size_t asked = part ? (size_t)rand_below(&sim->disk.rand, len + (verdict != GO)) : len;
    if (part && verdict == GO && asked == 0)
        asked = 1; /* a kernel that writes nothing says why */
    int64_t result = asked == 0 && len > 0 ? 0 : sim_file_write(&sim->disk, node, offset, data, asked);
    sim_file_background(&sim->disk, node);
    if (operation_end(sim, verdict))
        return result;
    return -EIO;
}

static int sim_op_sync(struct io *io, struct io_file *file) {
    struct io_sim *sim = sim_of(io);
    struct sim_node *node = file->backend;
    enum verdict verdict = operation_begin(sim, sim->faults.sync_error);
    if (verdict == GO || verdict == LAST)
        sim_file_sync(node);
    else if (verdict == FAIL && !sim->ended)
        sim_file_sync_fail(&sim->disk, node);
    return operation_end(sim, verdict) ? 0 : -EIO;
}

/* ---- names ---- */

static int sim_op_rename(struct io *io, const char *from, const char *to) {
    struct io_sim *sim = sim_of(io);
    OPERATION(sim, sim->faults.other_error, sim_rename(&sim->disk, from, to));
}

static int sim_op_link(struct io *io, const char *from, const char *to) {
    (void)from;
    (void)to;
    return (void)io, -EOPNOTSUPP;
}

static int sim_op_remove(struct io *io, const char *path) {
    struct io_sim *sim = sim_of(io);
    OPERATION(sim, sim->faults.other_error, sim_remove(&sim->disk, path, false));
}

static int sim_op_remove_dir(struct io *io, const char *path) {
    struct io_sim *sim = sim_of(io);
    OPERATION(sim, sim->faults.other_error, sim_remove(&sim->disk, path, true));
}

static int dir_make(struct io_sim *sim, const char *path) {
    struct sim_node *node = sim_node_find(&sim->disk, path);
    if (node != NULL)
        return node->is_dir ? -EEXIST : -ENOTDIR;
    return sim_create(&sim->disk, path, true, &node);
}

static int sim_op_make_dir(struct io *io, const char *path) {
    struct io_sim *sim = sim_of(io);
    OPERATION(sim, sim->faults.other_error, dir_make(sim, path));
}

static int dir_sync(struct io_sim *sim, const char *path) {
    struct sim_node *node = sim_node_find(&sim->disk, path);
    if (node == NULL || !node->is_dir)
        return node == NULL ? -ENOENT : -ENOTDIR;
    sim_dir_sync(&sim->disk, node);
    return 0;
}

static int sim_op_sync_dir(struct io *io, const char *path) {
    struct io_sim *sim = sim_of(io);
    OPERATION(sim, sim->faults.other_error, dir_sync(sim, path));
}

static int sim_op_list_dir(struct io *io, const char *path, int (*each)(void *context, const char *name),
                           void *context) {
    struct io_sim *sim = sim_of(io);
    enum verdict verdict = operation_begin(sim, sim->faults.other_error);
    if (!operation_end(sim, verdict))
        return -EIO;
    const struct sim_node *node = sim_node_find(&sim->disk, path);
    if (node == NULL || !node->is_dir)
        return node == NULL ? -ENOENT : -ENOTDIR;
    int result = 0;
    for (size_t i = 0; i < node->entries.count && result >= 0; i++)
        result = each(context, node->entries.at[i].name);
    return result;
}

/* ---- maps and locks ---- */

/* A copy: what is written later does not show in it, and reading behind its end is found by sanitizers. */
static int sim_op_map(struct io *io, struct io_file *file, uint64_t offset, size_t len, const uint8_t **out) {
    struct io_sim *sim = sim_of(io);
    enum verdict verdict = operation_begin(sim, sim->faults.read_error);
    if (!operation_end(sim, verdict))
        return -EIO;
    /* At a page, as any mapping; and what is behind the end of the file costs nothing. */
    uint8_t *copy = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT(copy != MAP_FAILED);
    sim_file_read(file->backend, offset, copy, len);
    sim->maps++;
    *out = copy;
    return 0;
}

static void sim_op_unmap(struct io *io, const uint8_t *data, size_t len) {
    ASSERT(sim_of(io)->maps > 0);
    sim_of(io)->maps--;
    ASSERT(munmap((void *)(uintptr_t)data, len) == 0);
}

static int sim_op_lock(struct io *io, struct io_file *file, char *holder, size_t holder_bytes) {
    struct io_sim *sim = sim_of(io);
    enum verdict verdict = operation_begin(sim, sim->faults.other_error);
    int result = verdict == GO || verdict == LAST ? file_open(sim, file, IO_OPEN_WRITE | IO_OPEN_CREATE) : 0;
    if (!operation_end(sim, verdict))
        return -EIO;
    if (result < 0)
        return result;
    struct sim_node *node = file->backend;
    if (node->locked) {
        snprintf(holder, holder_bytes, "1");
        return -EWOULDBLOCK;
    }
    node->locked = true;
    return handle_take(sim, file, 0);
}

static void sim_op_unlock(struct io *io, struct io_file *file) {
    ((struct sim_node *)file->backend)->locked = false;
    handle_drop(sim_of(io), file);
}

/* ---- commits ---- */

static void sim_op_commit(struct io *io, struct io_commit *commit) {
    struct io_sim *sim = sim_of(io);
    ASSERT(sim->flight_count < FLIGHTS_MAX);
    sim->flights[sim->flight_count++] =
        (struct flight){commit, sim->now_ns + 1 + rand_below(&sim->disk.rand, COMMIT_NS_MAX)};
}

/* The commit that is due first; SIZE_MAX if none is by then. */
static size_t flight_due(const struct io_sim *sim, uint64_t until_ns) {
    size_t due = SIZE_MAX;
    for (size_t i = 0; i < sim->flight_count; i++)
        if (sim->flights[i].due_ns <= until_ns &&
            (due == SIZE_MAX || sim->flights[i].due_ns < sim->flights[due].due_ns))
            due = i;
    return due;
}

static int sim_op_poll(struct io *io, int timeout_ms) {
    struct io_sim *sim = sim_of(io);
    uint64_t until_ns = timeout_ms < 0 ? UINT64_MAX : sim->now_ns + (uint64_t)timeout_ms * 1000000;
    int ran = 0;
    for (;;) {
        size_t due = flight_due(sim, sim->ended ? UINT64_MAX : ran > 0 ? sim->now_ns : until_ns);
        if (due == SIZE_MAX)
            break;
        struct flight flight = sim->flights[due];
        sim->flights[due] = sim->flights[--sim->flight_count];
        if (flight.due_ns > sim->now_ns)
            sim->now_ns = flight.due_ns;
        struct io_commit *commit = flight.commit;
        int result =
            sim->ended ? -EIO : io__write_all(io, commit->file, commit->offset, commit->data, commit->len);
        if (result == 0)
            result = io__sync_once(io, commit->file);
        io__commit_end(io, commit, result);
        ran++;
    }
    if (ran == 0 && timeout_ms > 0 && !sim->ended)
        sim->now_ns = until_ns;
    return ran;
}

/* ---- the backend ---- */

static void sim_op_close(struct io *io) {
    struct io_sim *sim = sim_of(io);
    ASSERT(sim->handles == 0 && sim->maps == 0);
    sim_disk_release(&sim->disk);
    free(sim);
}

static const struct io_ops sim_ops = {
    .name = "simulated",
    .close = sim_op_close,
    .file_open = sim_op_file_open,
    .file_close = sim_op_file_close,
    .file_size = sim_op_file_size,
    .read = sim_op_read,
    .write = sim_op_write,
    .sync = sim_op_sync,
    .rename = sim_op_rename,
    .link = sim_op_link,
    .remove = sim_op_remove,
    .remove_dir = sim_op_remove_dir,
    .native_path = sim_op_native_path,
    .make_dir = sim_op_make_dir,
    .sync_dir = sim_op_sync_dir,
    .list_dir = sim_op_list_dir,
    .map = sim_op_map,
    .unmap = sim_op_unmap,
    .lock = sim_op_lock,
    .unlock = sim_op_unlock,
    .commit = sim_op_commit,
    .poll = sim_op_poll,
};

int io_sim_open(uint64_t seed, struct io **out) {
    struct io_sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL)
        return STATUS_NO_MEMORY;
    sim->io.ops = &sim_ops;
    sim_disk_init(&sim->disk, seed);
    *out = &sim->io;
    return STATUS_OK;
}

int io_sim_copy(const struct io *from, uint64_t seed, struct io **out) {
    struct io_sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL)
        return STATUS_NO_MEMORY;
    sim->io.ops = &sim_ops;
    sim_disk_copy(&sim->disk, &((const struct io_sim *)from)->disk, seed);
    *out = &sim->io;
    return STATUS_OK;
}

void io_sim_seed(struct io *io, uint64_t seed) {
    rand_init(&sim_of(io)->disk.rand, seed);
}

void io_sim_faults_set(struct io *io, const struct io_sim_faults *faults) {
    sim_of(io)->faults = *faults;
    sim_of(io)->disk.stale_blocks = faults->stale_blocks;
}

void io_sim_capacity_set(struct io *io, uint64_t bytes) {
    sim_of(io)->disk.capacity_bytes = bytes;
}

uint64_t io_sim_used_bytes(const struct io *io) {
    return ((const struct io_sim *)io)->disk.used_bytes;
}

uint64_t io_sim_now_ns(const struct io *io) {
    return ((const struct io_sim *)io)->now_ns;
}

void io_sim_advance_ns(struct io *io, uint64_t ns) {
    sim_of(io)->now_ns += ns;
}

uint64_t io_sim_operations(const struct io *io) {
    return ((const struct io_sim *)io)->operations;
}

/* ---- rot ---- */

struct rot {
    struct io_sim *sim;
    bool (*spare)(void *context, const char *path, uint64_t offset);
    void *context;
    uint64_t seen; /* files that could have been chosen */
    struct sim_node *node;
    uint64_t offset;
};

static void rot_choose(struct rot *rot, struct sim_node *dir, const char *path) {
    for (size_t i = 0; i < dir->stable_entries.count; i++) {
        struct sim_node *node = dir->stable_entries.at[i].node;
        char child[sizeof rot->sim->rot_path];
        snprintf(child, sizeof child, "%s/%s", path, dir->stable_entries.at[i].name);
        if (node->is_dir) {
            rot_choose(rot, node, child);
            continue;
        }
        if (node->stable_size == 0)
            continue;
        uint64_t offset = rand_below(&rot->sim->disk.rand, node->stable_size);
        if (rot->spare != NULL && rot->spare(rot->context, child, offset))
            continue;
        if (rand_below(&rot->sim->disk.rand, ++rot->seen) == 0) {
            rot->node = node;
            rot->offset = offset;
            snprintf(rot->sim->rot_path, sizeof rot->sim->rot_path, "%s", child);
        }
    }
}

bool io_sim_rot(struct io *io, const char *dir,
                bool (*spare)(void *context, const char *path, uint64_t offset), void *context,
                struct io_sim_rot *out) {
    struct io_sim *sim = sim_of(io);
    struct rot rot = {.sim = sim, .spare = spare, .context = context};
    struct sim_node *node = sim_node_find(&sim->disk, dir);
    if (node != NULL && node->is_dir)
        rot_choose(&rot, node, dir);
    if (rot.node == NULL)
        return false;
    uint8_t bit = (uint8_t)(1u << rand_below(&sim->disk.rand, 8));
    rot.node->stable[rot.offset] ^= bit;
    if (rot.node->sector_state[rot.offset / SIM_SECTOR_BYTES] != SIM_DIRTY)
        rot.node->live[rot.offset] = rot.node->stable[rot.offset];
    *out = (struct io_sim_rot){sim->rot_path, rot.offset};
    return true;
}

/* ---- fingerprint ---- */

static uint64_t entries_fingerprint(const struct sim_entries *entries);

static uint64_t node_fingerprint(const struct sim_node *node) {
    if (node->is_dir)
        return entries_fingerprint(&node->entries) * 31 + entries_fingerprint(&node->stable_entries);
    uint64_t sum = node->size * 31 + node->stable_size;
    if (node->room > 0) {
        sum = sum << 1 ^ crc32c(0, node->live, node->room);
        sum = sum * 31 + crc32c(0, node->stable, node->room);
        sum = sum * 31 + crc32c(0, node->sector_state, node->room / SIM_SECTOR_BYTES);
    }
    return sum;
}

static uint64_t entries_fingerprint(const struct sim_entries *entries) {
    uint64_t sum = entries->count;
    for (size_t i = 0; i < entries->count; i++) {
        sum = sum * 31 + crc32c(0, entries->at[i].name, strlen(entries->at[i].name));
        sum = sum * 31 + node_fingerprint(entries->at[i].node);
    }
    return sum;
}

uint64_t io_sim_fingerprint(const struct io *io) {
    return node_fingerprint(((const struct io_sim *)io)->disk.root);
}
