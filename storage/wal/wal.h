/* wal.h: the log. What is in it and synced is never lost; everything else can be rebuilt from it.
 *
 * Byte tables, the rule when a frame is valid, and what a torn tail is: docs/format/log.md. In short: a
 * directory of numbered segment files, pre-created and zero-filled; a segment is a run of fixed-size frames,
 * each with a CRC-32C seeded by the segment's salt and the frame's offset; records flow over frames; a
 * *group* is a run of whole frames written and synced at once, and says which position was durable before it.
 *
 * One group is built and in flight at a time. All calls are made by one thread. Calls that block say so. */
#ifndef TIDALITE_STORAGE_WAL_H
#define TIDALITE_STORAGE_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "storage/io/io.h"

struct wal;

/* A position in the log: segment number << 32 | byte offset. Ordered as the log is. */
typedef uint64_t wal_position;

#define WAL_HEADER_BYTES 8192 /* of a segment, before its groups */

struct wal_options {
    struct io *io;          /* borrowed until wal_close */
    const char *dir;        /* exists; copied */
    uint64_t segment_bytes; /* a multiple of the frame size; for new segments */
    uint64_t seed;          /* for salts; from rand_seed_from_system(), or a test's */
    bool read_only;         /* wal_replay writes nothing at all, and wal_start is never called */
};

enum wal_record_type {
    WAL_RECORD_SERIES = 1, /* declares series for this segment: wal_record.h */
    WAL_RECORD_SAMPLES = 2,
    WAL_RECORD_DELETE = 3 /* storage/tombstone/tombstone.h; alone in its group */
};

/* Opens the directory and looks at its segments' headers; blocks. Writes nothing. A damaged header is no
 * error here: wal_replay counts it. STATUS_NEWER_FORMAT, STATUS_IO, STATUS_NOT_FOUND, STATUS_NO_MEMORY, with
 * `detail`. */
int wal_open(const struct wal_options *options, struct error_detail *detail, struct wal **out);

/* Closes files; a group in flight must have ended. */
void wal_close(struct wal *wal);

/* The log went as far as that, as others know. If it does not any more, wal_replay tells of damage; no
 * segment gets a number again that was in use then. Before wal_replay. */
void wal_reached(struct wal *wal, wal_position position);

/* What replay calls. A negative return stops the replay and is returned by it. */
struct wal_sink {
    /* A segment begins: declarations of earlier ones no longer count. */
    int (*segment)(void *context, uint32_t number);
    /* One whole record, in log order; `position` is where its group begins. `payload` is borrowed for the
     * call. `proven` is false for the last group if nothing shows that it was synced: see wal_start. */
    int (*record)(void *context, wal_position position, bool proven, enum wal_record_type type,
                  struct slice payload);
    void *context;
    /* Damage below the durable position, as it is found: `frames` frames of 4096 bytes from `offset` on, all
     * that is known of a segment that is lost as a whole. May be NULL. */
    void (*damage)(void *context, uint32_t segment, uint64_t offset, uint64_t frames, const char *what);
};

struct wal_replay_stats {
    uint64_t segments;
    uint64_t groups;
    uint64_t records;
    uint64_t bytes;      /* payload */
    uint64_t torn_tails; /* incomplete groups behind the durable position, cut */
    uint64_t torn_bytes;
    uint64_t corrupt_frames; /* damaged frames below the durable position, skipped */
    uint64_t cut_frames;     /* that the last segment's file is short of: what was there is not known */
};

/* Reads the log from `from` on (the end of a group that was durable; 0: all of it) through `sink`; blocks.
 * Damage below the durable position is skipped frame by frame, logged and counted; a torn tail is cut,
 * counted, and its bytes are kept aside in `torn-<segment>-<offset>`. No segment is written to. */
int wal_replay(struct wal *wal, wal_position from, const struct wal_sink *sink, struct error_detail *detail,
               struct wal_replay_stats *stats_out);

/* Makes the first segment for writing (never one that exists); blocks. Call once, after wal_replay.
 *
 * The records of an unproven group must be carried over: append them (wal_group_begin, wal_group_append)
 * before this call. The new segment comes into being with them in it, by one rename; from then on it says
 * that the old copy does not count, whose sync may have failed and which must not be written to again: it may
 * also have been acknowledged, and a write that is torn would destroy it.
 *
 * On error the log is WAL_FAILED as after a failed commit, and what was appended is kept for the next
 * attempt: the caller may close it, or go on and let wal_tick try again. */
int wal_start(struct wal *wal, struct error_detail *detail);

/* Builds the next group. Nothing is written before wal_group_commit.
 *   wal_group_begin → wal_group_append… → wal_group_fits? → wal_group_commit
 *                                              └ no: wal_roll → wal_group_begin again
 * append copies `payload` straight into frames; STATUS_NO_MEMORY, and STATUS_TOO_LARGE for what no segment
 * can hold (4 GiB), leave the group as it was. begin and append need WAL_READY, or that wal_start is yet to
 * come: after a failure, wait for wal_tick. begin also drops a group that was built and not committed. */
void wal_group_begin(struct wal *wal);
int wal_group_append(struct wal *wal, enum wal_record_type type, struct slice payload);

/* Where the group being built will begin; what a replay calls its position. */
wal_position wal_group_position(const struct wal *wal);

/* Bytes of the group's frames so far, and whether they fit behind what the segment holds already. */
size_t wal_group_bytes(const struct wal *wal);
bool wal_group_fits(const struct wal *wal);

/* Closes the current segment and goes on in the next (pre-created if wal_tick had time, else made now:
 * blocks). On error the log has failed as after a failed commit. */
int wal_roll(struct wal *wal);

/* The segment that the group being built goes to. Changes by wal_roll and by recovery: series must be
 * declared again. */
uint32_t wal_segment(const struct wal *wal);

/* Writes and syncs the group; `done` is called inside io_poll with STATUS_OK once it is durable, or with the
 * error: then nothing of the group counts, the segment ends at the last durable position, and the log has
 * failed. */
void wal_group_commit(struct wal *wal, void (*done)(void *context, int status), void *context);

enum wal_state {
    WAL_READY,      /* a group may be built and committed */
    WAL_COMMITTING, /* one is in flight */
    WAL_FAILED      /* waiting to try a new segment */
};
enum wal_state wal_state(const struct wal *wal);

/* The end of the last durable group. */
wal_position wal_durable(const struct wal *wal);

/* Background steps, to be called between two groups and now and then when idle; does nothing while one is in
 * flight. `now_ms` is only compared with that of other calls. Pre-creates and zero-fills the next segment a
 * slice at a time (only while no group is in flight it may block for a slice), and after a failure tries,
 * with doubling delays from 100 ms to 5 s, to go on in a new segment. */
void wal_tick(struct wal *wal, int64_t now_ms);

/* Removes the segments that lie wholly below `position`, oldest first, each made durable before the next, so
 * that no crash leaves a hole; blocks. The current segment stays. What could not be removed is tried again
 * next time. */
void wal_drop_before(struct wal *wal, wal_position position);

/* Where the log begins: positions below it are gone. */
wal_position wal_begin(const struct wal *wal);

/* Segment files on disk, and their bytes. */
uint32_t wal_segment_count(const struct wal *wal);
uint64_t wal_disk_bytes(const struct wal *wal);

#endif
