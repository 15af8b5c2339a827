/* storage.h: keeps samples and finds them again.
 *
 * The way of a sample: storage_write_prepare (labels → series, log bytes; caller's thread) →
 * storage_write_submit (queue) → storage_step (group → log → sync → apply in log order → done; the storage
 * thread). Queries see what was applied, so durable samples only.
 *
 * Behind the log, storage_maintain turns windows of time that are over into blocks (storage/block/block.h),
 * and samples that came late for a window likewise; a selection sees head, late samples and blocks as one.
 *
 * Threads: prepare, submit, select and everything on a selection may be called from any thread at once;
 * storage_step, storage_wait, storage_close from one; storage_maintain from one. storage_thread_start makes
 * both. */
#ifndef TIDALITE_STORAGE_H
#define TIDALITE_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/batch.h"
#include "base/clock.h"
#include "base/label.h"
#include "base/limits.h"
#include "base/matcher.h"
#include "base/status.h"
#include "storage/io/io.h"

struct storage;

struct storage_options {
    const char *dir;        /* made if missing (one level); copied */
    struct io *io;          /* borrowed until storage_close */
    struct io *io_maintain; /* likewise, for storage_maintain; NULL: `io`, if one thread runs both */
    const struct clock *clock;
    const struct limits *limits; /* borrowed until storage_close */
    uint64_t seed;               /* keys hashes and salts; rand_seed_from_system() */
    /* For deletes with patterns, or NULL: then those are refused, and a directory that has one does not open.
     */
    const struct matcher_compiler *compiler;
};

/* Locks the directory, replays the log, and is ready to serve; blocks.
 * STATUS_LOCKED, STATUS_IO, STATUS_CORRUPT, STATUS_NEWER_FORMAT, STATUS_NO_MEMORY, with a line in `detail`.
 */
int storage_open(const struct storage_options *options, struct error_detail *detail, struct storage **out);

/* Commits what was submitted, calls every `done`, and frees everything; blocks. The storage thread must have
 * stopped, no selection may be open. */
void storage_close(struct storage *storage);

/* ---- Writing ---------------------------------------------------------------------------------------- */

struct storage_write;

#define STORAGE_REASONS_BYTES 1024

struct storage_write_result {
    int status;              /* STATUS_OK: all that is not refused is durable; else nothing is acknowledged */
    uint64_t samples_stored; /* new */
    uint64_t samples_equal;  /* stored before, bit for bit */
    uint64_t samples_refused; /* conflicting, older than retention, too far ahead: a reason for each kind in
                                 `reasons` */
    uint64_t series_dropped;  /* for the faults Prometheus drops silently in v1: no name, bad UTF-8, duplicate
                                 label */
    uint64_t series_refused;  /* over a limit of ours: in `reasons` */
    char reasons[STORAGE_REASONS_BYTES]; /* Prometheus' words, one line each, the first few; "" if nothing was
                                            refused */
};

/* Resolves the batch's series (making new ones), refuses what can be refused without the log, and encodes the
 * rest. The batch may be freed afterwards. Does not block.
 * STATUS_BUSY (write queue full), STATUS_TOO_LARGE (more than one log group can hold), STATUS_NO_MEMORY,
 * STATUS_STOPPING. */
int storage_write_prepare(struct storage *storage, const struct write_batch *batch,
                          struct error_detail *detail, struct storage_write **out);

/* Queues it; takes part in the next group. `done` is called exactly once, on the storage thread, after the
 * samples are durable and visible or have failed; it must be quick. A write with no samples is done after
 * those before it. */
void storage_write_submit(struct storage *storage, struct storage_write *write,
                          void (*done)(void *context, struct storage_write *write), void *context);

/* Valid from `done` on. */
const struct storage_write_result *storage_write_result(const struct storage_write *write);

/* After `done`, or instead of submit. */
void storage_write_free(struct storage_write *write);

/* ---- Deleting ------------------------------------------------------------------------------------------
 *
 * A delete hides, from its answer on and for ever, all samples in a range of time of the series that satisfy
 * a selector, that were logged before it. What is written later is seen, for the same series and times too.
 * It goes the way of a write: into the queue, the log, and then in the log's order to the samples in memory;
 * blocks are filtered as they are read, until they are written anew without the deleted samples. */

struct delete_selector {
    const struct matcher *matchers; /* a series satisfies all of them; at least one */
    size_t count;
};

/* Makes one of at least one selector; submit it as a write, whose result's status says how it went. The
 * matchers are copied. STATUS_BUSY: too many wait to be applied to blocks (deletes_max); STATUS_TOO_LARGE
 * (delete_bytes_max); STATUS_UNSUPPORTED (patterns, and no compiler); STATUS_BAD_INPUT (one does not
 * compile); STATUS_NO_MEMORY. */
int storage_delete_prepare(struct storage *storage, const struct delete_selector *selectors, size_t count,
                           int64_t time_min_ms, int64_t time_max_ms, struct error_detail *detail,
                           struct storage_write **out);

/* Writes the blocks that hold deleted samples anew, without them. `done` is called once, on the maintaining
 * thread: with STATUS_OK when no block holds any of what was deleted before this call, or with the error
 * that one of them gave. Does not block. STATUS_NO_MEMORY: it is not called. */
int storage_deletes_clean(struct storage *storage, void (*done)(void *context, int status), void *context);

/* ---- Copies ------------------------------------------------------------------------------------------- */

/* Makes `dir`/snapshots/<name>: a data directory of its own with all that was acknowledged before this call,
 * which any storage_open opens. Blocks are linked where the file system can, the rest is copied. `done` is
 * called once, on the maintaining thread: with STATUS_OK and the name once all of it is durable, or with the
 * error, and then nothing is left of it; STATUS_IO with a log that can't be written, too. Samples are
 * accepted meanwhile; cuts and merges wait. Does not block. STATUS_NO_MEMORY: it is not called. */
enum storage_copy_kind {
    STORAGE_COPY_ALL,
    STORAGE_COPY_BLOCKS /* what is not in blocks yet is left out */
};
int storage_copy(struct storage *storage, enum storage_copy_kind kind,
                 void (*done)(void *context, int status, const char *name), void *context);

/* ---- Steps -------------------------------------------------------------------------------------------- */

/* Does what can be done now without waiting: ends the group in flight if it completed, applies, starts the
 * next. Returns true if anything happened. */
bool storage_step(struct storage *storage, int64_t now_ms);

/* Waits until storage_step has something to do, at most timeout_ms. */
void storage_wait(struct storage *storage, int timeout_ms);

/* Does a slice of what goes on behind the log: cutting windows into blocks, writing late samples to blocks,
 * retention; some milliseconds, with blocking I/O. Returns true if there may be more to do at once. One
 * thread calls it, another than that of storage_step or the same. */
bool storage_maintain(struct storage *storage, int64_t now_ms);

/* Runs step and wait, and storage_maintain, on threads of their own until stopped; stop finishes what was
 * submitted. */
int storage_thread_start(struct storage *storage);
void storage_thread_stop(struct storage *storage);

/* ---- Reading ------------------------------------------------------------------------------------------ */

struct storage_selection;

/* The series that satisfy all matchers and may have samples in [time_min_ms, time_max_ms], unordered but
 * stable (order of creation). Matchers are used during the call only. Close with selection_close; until then
 * everything it lends stays valid. STATUS_NO_MEMORY; STATUS_BUDGET if more than series_max match (0 = no
 * bound). */
int storage_select(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                   int64_t time_min_ms, int64_t time_max_ms, size_t series_max,
                   struct storage_selection **out);
void selection_close(struct storage_selection *selection);

size_t selection_series_count(const struct storage_selection *selection);

/* The labels of series `index` in name order, into `out` with room for STORAGE_LABELS_MAX; returns how many.
 * The slices are borrowed until selection_close. */
#define STORAGE_LABELS_MAX 256
size_t selection_labels(const struct storage_selection *selection, size_t index, struct label *out);

/* Of the labels of series `index` those with one of these names, likewise. */
size_t selection_labels_named(const struct storage_selection *selection, size_t index,
                              const struct slice *names, size_t name_count, struct label *out);

/* The value of one label; empty if absent. Borrowed likewise. */
struct slice selection_label(const struct storage_selection *selection, size_t index, struct slice name);

/* How many pieces could not be read for damage so far, or were lost before: samples may be missing in what
 * was read. */
uint64_t selection_damaged(const struct storage_selection *selection);

/* The damaged pieces' names: blocks, and files by their path in the data directory; a few of them at most.
 * Empty while selection_damaged is 0. Any thread. */
void selection_damage_text(struct storage_selection *selection, char *out, size_t bytes);

/* The series' 64-bit id: unique for ever in a data directory. */
uint64_t selection_series_id(const struct storage_selection *selection, size_t index);

/* As selection_read, for who needs the newest sample alone: may leave out those before it. */
int selection_read_newest(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                          int64_t time_max_ms, struct sample_columns *columns);

/* Decodes the samples of series `index` in [time_min_ms, time_max_ms] behind columns->count, ascending.
 * Different series may be read from different threads at once. STATUS_NO_MEMORY, STATUS_CORRUPT. */
int selection_read(struct storage_selection *selection, size_t index, int64_t time_min_ms,
                   int64_t time_max_ms, struct sample_columns *columns);

/* Label names, or the values of one label, of the series that satisfy the matchers (matcher_count 0: all) and
 * may have samples in the range: sorted by bytes, unique, copied to `arena`. `limit` 0 = none; *truncated_out
 * tells if it cut. */
int storage_label_names(struct storage *storage, const struct matcher *matchers, size_t matcher_count,
                        int64_t time_min_ms, int64_t time_max_ms, size_t limit, struct arena *arena,
                        struct slice **names_out, size_t *count_out, bool *truncated_out);
int storage_label_values(struct storage *storage, struct slice name, const struct matcher *matchers,
                         size_t matcher_count, int64_t time_min_ms, int64_t time_max_ms, size_t limit,
                         struct arena *arena, struct slice **values_out, size_t *count_out,
                         bool *truncated_out);

/* The names of files, as selection_damage_text gives them, that were damaged and had samples in the range:
 * for answers without a selection. "" if there are none. Any thread. */
void storage_damage_text(struct storage *storage, int64_t time_min_ms, int64_t time_max_ms, char *out,
                         size_t bytes);

/* ---- Status ------------------------------------------------------------------------------------------- */

struct storage_status {
    const char *io_name;
    bool writable; /* false while the log recovers from an error */
    uint64_t series;
    uint64_t samples;    /* applied since start, replay included */
    int64_t time_min_ms; /* of all samples; INT64_MAX, INT64_MIN when there are none */
    int64_t time_max_ms;
    uint64_t log_segments;
    uint64_t log_bytes;
    uint64_t replay_ms;           /* how long opening took to read the log */
    uint64_t memory_series_bytes; /* table, structs, labels, postings */
    uint64_t memory_chunk_bytes;
    uint64_t memory_late_bytes;
    uint64_t blocks;
    uint64_t block_bytes;
};
void storage_status(struct storage *storage, struct storage_status *out);

/* A block: what its meta and the manifest say. */
struct storage_block_info {
    uint64_t id;
    uint32_t level;
    int64_t time_min_ms; /* of its samples, both included */
    int64_t time_max_ms;
    uint64_t series;
    uint64_t chunks;
    uint64_t samples;
    uint64_t bytes;
    uint64_t deletes;        /* that may hide something in it */
    const uint64_t *sources; /* ids of the blocks it was made of, which are gone; none: of samples */
    size_t source_count;
};

/* The blocks that are open, by time and id; in `arena`. STATUS_NO_MEMORY. Any thread. */
int storage_blocks(struct storage *storage, struct arena *arena, struct storage_block_info **out,
                   size_t *count_out);

/* Bytes of memory by structure, the names being static; sets the gauges tidalite_memory_bytes too. Any
 * thread. */
#define STORAGE_MEMORY_ROWS 11
struct storage_memory {
    struct {
        const char *structure;
        uint64_t bytes;
    } rows[STORAGE_MEMORY_ROWS];
    uint64_t total;
    uint64_t series; /* what most of it is for */
};
void storage_memory(struct storage *storage, struct storage_memory *out);

/* What series there are in memory: how many, and of which metric, label and pair the most. Each list has at
 * most `limit` rows, descending; all is in `arena`. Counted in slices without stopping writers, so that what
 * comes or goes meanwhile may count or not. STATUS_NO_MEMORY. Any thread. */
struct storage_count {
    struct slice name;
    struct slice value; /* of by_pair only */
    uint64_t count;
};
struct storage_counts {
    const struct storage_count *rows;
    size_t count;
};
struct storage_cardinality {
    uint64_t series;
    uint64_t pairs;
    uint64_t chunks;                     /* open ones */
    struct storage_counts by_metric;     /* series of a metric name */
    struct storage_counts by_name;       /* values of a label */
    struct storage_counts by_name_bytes; /* bytes of a label's pairs in all series, each counted for itself */
    struct storage_counts by_pair;       /* series of a pair */
};
int storage_cardinality(struct storage *storage, size_t limit, struct arena *arena,
                        struct storage_cardinality *out);

#endif
