/* world.h: one simulated machine: a disk, a storage on it, the model of what it must hold, and the checks
 * that compare the two. sim.c decides what happens to it, steps.c does it. */
#ifndef TIDALITE_TESTS_SIM_WORLD_H
#define TIDALITE_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/rand.h"
#include "storage/io/io_sim.h"
#include "storage/storage.h"
#include "tests/sim/model.h"

#define WORLD_SERIES_MAX    200
#define WORLD_IN_FLIGHT_MAX 12

/* What may happen in a world; each world draws some of it (and --only can restrict it). */
enum world_fault {
    FAULT_POWER = 1,    /* power cuts; without it the process is only killed */
    FAULT_SHORT = 2,    /* short writes */
    FAULT_ERROR = 4,    /* operations that fail */
    FAULT_ROT = 8,      /* flipped bits */
    FAULT_FULL = 16,    /* a full disk */
    FAULT_STALE = 32,   /* old blocks in files that grew */
    FAULT_CLOCK = 64,   /* the wall clock jumps */
    FAULT_MEMORY = 128, /* allocations that fail */
    FAULT_ALL = 255
};

#define WORLD_DIR "db"

struct world_copy {
    bool asked;             /* and not answered */
    struct model_base base; /* what it must hold, if it is asked for */
    struct model_base answered;
    char path[96];        /* of the last one that was answered */
    unsigned checks_left; /* of it */
};

struct world {
    uint64_t seed;
    unsigned faults; /* of enum world_fault */
    struct io *io;
    struct clock clock;
    int64_t clock_jump_ms;
    struct limits limits;
    struct storage *storage; /* NULL: the process is down */
    struct model model;
    uint32_t series_count;
    int64_t scrape_ms; /* the time stamp that the next scrape has */
    unsigned in_flight;
    unsigned cleans; /* asked for and not answered */
    struct world_copy copy;
    bool manifest_rot;
    bool armed;             /* a test made something fail: any operating error will do */
    struct buf labels;      /* of the request under way; with room, so that making one never allocates */
    uint64_t damage_before; /* reported, before the last start */
    uint64_t torn_before;   /* metric wal_replay_torn when opening began */
    bool calm_open;         /* the last start met no faults */
    struct io_sim_faults disk_faults;
    struct rand rand; /* of the step under way */

    /* the log as the trace of operations shows it */
    struct extent writing; /* since the last sync */
    struct extent written; /* what the last sync of a segment covered */
    uint64_t next_bytes;   /* of the next segment, header and what it carries, when it was synced */
    bool settled;          /* the comparison after the start is done */
    struct extent carried; /* what the first segment of this start was born with */

    /* progress, for messages and sums */
    unsigned round, step;
    uint64_t acknowledged, failed, survived_ends, checks, lost_to_rot, opens, rots, cuts, lates, deletes,
        cleaned, merges, snapshots, copies;
    FILE *trace;        /* NULL: none */
    uint64_t trace_sum; /* of all lines */
};

/* Says what is wrong and where, and ends the process with 1. */
_Noreturn void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One line of what happens: into the sum, and the file if there is one. */
void world_note(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

void world_init(struct world *world, uint64_t seed, unsigned faults, FILE *trace);
void world_release(struct world *world);

/* The numbers of the step `step` of `round` begin here, whatever came before. */
void world_step_begin(struct world *world, unsigned round, unsigned step);

int64_t world_now_ms(struct world *world);

/* Opens the storage, through failures and further ends if `calm` is false, until it is open; then everything
 * is compared. Fails the world if it does not open on a calm disk. */
void world_open(struct world *world, bool calm);

/* One attempt: the status of storage_open. Then, if it is open, the comparison, as world_open does it. */
int world_open_once(struct world *world);
void world_settle(struct world *world);

/* Closes the storage; everything that was sent must be answered by then. */
void world_close(struct world *world);

/* Ends the process and lets what survives of the machine come back; the storage is closed. */
void world_end(struct world *world, enum io_sim_end end);

/* An operation may have ended the machine. True if so; then world_end was done. */
bool world_ended(struct world *world);

/* An orderly stop and start. */
void world_restart(struct world *world);

/* A request of these samples (taken over); prepared, submitted, and known to the model. False if it was
 * refused for lack of memory. */
bool world_send(struct world *world, struct sent_sample *samples, size_t count);

/* A delete, likewise; false if it was refused, for lack of memory or because too many wait. */
bool world_delete(struct world *world, struct model_delete what);

/* Asks for blocks to be written anew without what was deleted. */
void world_clean(struct world *world);

/* Asks for a copy of the data directory, unless one is under way or to be compared yet (world_copy.c). And
 * compares the last one that was answered, if that is due: after its answer, and after an end of the machine.
 */
void world_copy_ask(struct world *world);
void world_copy_check(struct world *world, bool after_end);
void world_copy_release(struct world *world);

/* All that a storage has, by number of the series. */
struct found_series *world_read(struct world *world, struct storage *storage);
void world_read_release(struct world *world, struct found_series *found);

/* Runs the storage for this much virtual time, in small steps; ends early if the machine ends. */
void world_run(struct world *world, uint64_t ns);

/* Runs until nothing is in flight. */
void world_drain(struct world *world);

/* Every fault off: a write is acknowledged within 30 s of virtual time. */
void world_check_alive(struct world *world);

/* All series in all time against the model; one series in a range. */
void world_check_all(struct world *world);
void world_check_series(struct world *world, uint32_t series, int64_t time_min_ms, int64_t time_max_ms);
void world_check_labels(struct world *world);

#endif
