/* io_sim.h: the simulated disk as a backend of storage/io: everything that can go wrong with a disk, from a
 * seed, in virtual time.
 *
 * The disk (sim_disk.h) outlives the program on it: the test opens a storage on it, cuts the power (or kills
 * the process), closes the storage, which by then gets an error from every operation, turns the machine on
 * again, and opens the next storage on what is left.
 *
 * The same seed and the same calls give the same faults, the same times and the same bytes. For tests only;
 * nothing here is durable. */
#ifndef TIDALITE_STORAGE_IO_SIM_H
#define TIDALITE_STORAGE_IO_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/io/io.h"

/* Chances are out of 1000, an operation. Zeroed: nothing fails. */
struct io_sim_faults {
    unsigned short_write; /* transfers less than it was asked to, as a kernel may */
    unsigned write_error; /* EIO, after a part was transferred or not */
    unsigned sync_error;  /* EIO; what was dirty may be written, dirty still, or lost */
    unsigned read_error;  /* EIO */
    unsigned other_error; /* EIO from opening, renaming, removing, directories */
    bool stale_blocks;    /* after a power cut, files that grew may show old blocks of other files */
};

/* An empty disk. `*out` is closed by io_close, when every file is closed and nothing is mapped. */
int io_sim_open(uint64_t seed, struct io **out);

/* A disk of its own with what is on `from` now, all of it durable. */
int io_sim_copy(const struct io *from, uint64_t seed, struct io **out);

/* Starts the random numbers anew: so that what one step of a test meets does not depend on how many random
 * numbers the steps before it used. */
void io_sim_seed(struct io *io, uint64_t seed);

void io_sim_faults_set(struct io *io, const struct io_sim_faults *faults);

/* No file may grow past this many bytes in all; 0: no bound. */
void io_sim_capacity_set(struct io *io, uint64_t bytes);
uint64_t io_sim_used_bytes(const struct io *io);

/* How a machine ends: KILL loses the process alone, what was written is in the kernel's memory; POWER_CUT
 * loses what was not synced. */
enum io_sim_end { IO_SIM_KILL, IO_SIM_POWER_CUT };

/* Now, or inside the `operations`-th operation from now on (0: takes that back). From then on every operation
 * fails with EIO and changes nothing, and commits in flight end with it. */
void io_sim_end_now(struct io *io, enum io_sim_end end);
void io_sim_end_after(struct io *io, enum io_sim_end end, uint64_t operations);
bool io_sim_ended(const struct io *io);

/* On again. Every file is closed, nothing is in flight. */
void io_sim_restart(struct io *io);

/* Flips one bit of one byte at rest in a file below `dir` that has any; false if there is none. The path is
 * borrowed until the next call. Files whose name `spare` says true to are left alone; NULL: none is. */
struct io_sim_rot {
    const char *path;
    uint64_t offset;
};
bool io_sim_rot(struct io *io, const char *dir,
                bool (*spare)(void *context, const char *path, uint64_t offset), void *context,
                struct io_sim_rot *out);

/* Virtual time: nanoseconds since the disk was made. Operations take some; io_poll that waits goes on to the
 * next completion. */
uint64_t io_sim_now_ns(const struct io *io);
void io_sim_advance_ns(struct io *io, uint64_t ns);

/* Operations so far: what a sweep counts. */
uint64_t io_sim_operations(const struct io *io);

/* A number that tells two disks apart: of all names and bytes, live and stable. */
uint64_t io_sim_fingerprint(const struct io *io);

#endif
