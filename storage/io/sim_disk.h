/* sim_disk.h: a disk and the kernel's memory above it, as plain data: what a program sees while the machine
 * runs, and what is left of it when the power goes. No time, no chances of failing, no handles: io_sim.c adds
 * those.
 *
 * A file has two contents: *live* is what reads see, *stable* what is on the platter. Each 512-byte sector
 * whose live bytes are not on the platter yet is dirty. A power cut decides for each dirty sector by itself
 * whether it made it: kept, dropped, or torn (a part of the new bytes, or garbage). The size behaves
 * likewise. A directory has live entries and stable ones, and between the two a list of changes that its sync
 * has not made durable; a power cut keeps a prefix of them or any subset.
 *
 * All randomness comes from `rand`, so the same calls leave the same disk. Memory that runs out ends the
 * program: this is a test's disk, not the product. One thread at a time.
 *
 * Sources: SQLite's crash VFS (test6.c) for the fate of sectors, TigerBeetle's testing/storage.zig for the
 * faults; "Can Applications Recover from fsync Failures?" (Rebello et al., ATC 2020) for what a failed sync
 * leaves behind. */
#ifndef TIDALITE_STORAGE_SIM_DISK_H
#define TIDALITE_STORAGE_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rand.h"

#define SIM_SECTOR_BYTES ((size_t)512)
#define SIM_PAGE_BYTES   ((size_t)4096)

struct sim_entry {
    char *name;
    struct sim_node *node; /* counted */
};

struct sim_entries {
    struct sim_entry *at;
    size_t count;
    size_t capacity;
    bool live;
};

/* A change of a directory that its sync has not made durable. */
struct sim_change {
    char *from; /* the name that goes; NULL: none */
    char *to;   /* the name that comes; NULL: none */
    struct sim_node *node;
};

struct sim_node {
    struct sim_node *previous, *next; /* all nodes of the disk */
    unsigned references;
    bool is_dir;
    bool locked;
    bool seen;        /* by the power cut under way: a file may have two names */
    unsigned holders; /* live names and open handles: its bytes take room while there is one */

    /* a file */
    uint8_t *live;
    uint8_t *stable;       /* as long as `live`; zero where nothing was ever written back */
    uint8_t *sector_state; /* enum sim_sector, one a sector of `room` */
    size_t room;           /* bytes at live and stable, a multiple of the sector */
    uint64_t size;
    uint64_t stable_size;
    bool has_lost;

    /* a directory */
    struct sim_entries entries;
    struct sim_entries stable_entries;
    struct sim_change *changes;
    size_t change_count;
    size_t change_capacity;
};

enum sim_sector {
    SIM_CLEAN,
    SIM_DIRTY,
    SIM_LOST /* a sync failed: the kernel calls it clean, the platter has the old bytes */
};

struct sim_disk {
    struct rand rand;
    struct sim_node *nodes;
    struct sim_node *root;
    uint64_t used_bytes;     /* sizes of all files that have a name or are open */
    uint64_t capacity_bytes; /* 0: no bound */
    bool stale_blocks;       /* space that was grown into may show old blocks of other files after a cut */
};

void sim_disk_init(struct sim_disk *disk, uint64_t seed);
void sim_disk_release(struct sim_disk *disk); /* every handle was given back */

/* Makes `to` a disk with what programs see on `from`, all of it durable. */
void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from, uint64_t seed);

/* Paths have '/' between names; empty names and "." are passed over. NULL: there is none. */
struct sim_node *sim_node_find(struct sim_disk *disk, const char *path);

/* An open handle. */
void sim_node_hold(struct sim_disk *disk, struct sim_node *node);
void sim_node_let_go(struct sim_disk *disk, struct sim_node *node);

/* 0 or -errno, as the system calls that they stand for. */
int sim_create(struct sim_disk *disk, const char *path, bool is_dir, struct sim_node **out);
int sim_rename(struct sim_disk *disk, const char *from, const char *to); /* within a directory */
int sim_remove(struct sim_disk *disk, const char *path, bool is_dir);

/* Bytes written, fewer where the disk is full, or -ENOSPC. */
int64_t sim_file_write(struct sim_disk *disk, struct sim_node *node, uint64_t offset, const void *data,
                       size_t len);
int64_t sim_file_read(struct sim_node *node, uint64_t offset, void *data, size_t len);
void sim_file_truncate(struct sim_disk *disk, struct sim_node *node);
void sim_file_sync(struct sim_node *node);

/* A sync that fails: each dirty sector is written, stays dirty, or is lost: called clean and not written. */
void sim_file_sync_fail(struct sim_disk *disk, struct sim_node *node);

/* What the kernel does by itself at any time: writes some dirty sectors, forgets clean pages (lost sectors
 * then show the platter's old bytes). */
void sim_file_background(struct sim_disk *disk, struct sim_node *node);

void sim_dir_sync(struct sim_disk *disk, struct sim_node *node);

/* The power goes and comes back: live and stable become what made it. */
void sim_disk_power_cut(struct sim_disk *disk);

#endif
