/* storage_private.h: what the files of storage/ share: the storage itself, and who of its threads owns what
 * of it. */
#ifndef TIDALITE_STORAGE_PRIVATE_H
#define TIDALITE_STORAGE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/spin.h"
#include "storage/block/block.h"
#include "storage/chunklog/chunklog.h"
#include "storage/head/head.h"
#include "storage/late/late.h"
#include "storage/manifest/manifest.h"
#include "storage/retry.h"
#include "storage/series/series.h"
#include "storage/slot_bits.h"
#include "storage/storage.h"
#include "storage/tombstone/hidden.h"
#include "storage/tombstone/tombstone.h"
#include "storage/wal/wal.h"

#define SEGMENT_UNKNOWN UINT32_MAX

/* A request between prepare and free. */
struct storage_write {
    struct storage *storage;
    struct storage_write *next; /* in the queue or the group */
    void (*done)(void *context, struct storage_write *write);
    void *context;
    struct arena arena;
    unsigned pin;    /* of the series table, for the slots */
    uint32_t *slots; /* parallel to samples */
    struct sample *samples;
    int64_t *starts_ms; /* NULL if none */
    size_t count;
    size_t applied;              /* samples of them */
    struct tombstone *tombstone; /* of a delete, which has no samples; else NULL */
    struct delete_work *work;    /* of a delete that is being applied; else NULL */
    bool delete_counted;         /* in storage->deletes_queued */
    struct buf payload;          /* the samples, or the delete, as a log record; empty if there are none */
    size_t log_bytes;            /* at most this much in the log: the payload, and every series declared */
    uint64_t queued_ns;
    size_t reasons_len;
    unsigned reason_count;
    struct storage_write_result result;
};

struct write_list {
    struct storage_write *first;
    struct storage_write **end; /* where the next one is hooked in */
};

/* ---- Versions: which blocks there are (storage_version.c) ---- */

struct storage_block {
    struct block *block;
    struct manifest_block info;
    unsigned references;             /* by versions and storage__block_ref; under version_mutex */
    bool doomed;                     /* in no manifest any more: its files go when nobody looks at it */
    atomic_uint_fast64_t deleted_to; /* as info.deleted_to, which only the maintaining thread may look at */
    bool clean_failed;               /* the maintaining thread's: it could not be written anew */
    bool held;                       /* likewise: not to be merged until the next start */
    struct storage_block *next_dead;
};

/* What a selection sees: blocks, and from when on samples are in the head instead. Never changes. */
struct storage_version {
    unsigned references; /* under version_mutex; the current one has one of the storage's */
    int64_t cut_ms;      /* the head's chunks before this are in these blocks */
    size_t count;
    struct storage_block *blocks[]; /* by position, then as in the manifest: the first logged first */
};

/* The current one, referenced; give it back with put. With `deletes` not NULL the deletes that go with it
 * too, for storage__deletes_put. Any thread. */
struct storage_version *storage__version_get(struct storage *storage, struct tombstone_set **deletes);
void storage__version_put(struct storage *storage, struct storage_version *version);

/* May block `number` of the version have samples in the range; has the series in memory one there that is not
 * hidden? Any thread, pinned. */
bool storage__version_overlaps(const struct storage_version *version, size_t number, int64_t time_min_ms,
                               int64_t time_max_ms);
bool storage__slot_has(struct storage *storage, const struct storage_version *version, uint32_t slot,
                       int64_t time_min_ms, int64_t time_max_ms);

/* Keeps a block of a version that is held open beyond it. */
void storage__block_ref(struct storage *storage, struct storage_block *block);
void storage__block_unref(struct storage *storage, struct storage_block *block);

/* Makes the blocks of the current version less `removed` (block ids), plus `added` (or NULL), the current
 * one. Removed blocks are doomed. STATUS_NO_MEMORY: nothing changed. The maintaining thread. */
int storage__version_change(struct storage *storage, const uint64_t *removed, size_t removed_count,
                            struct storage_block *added, int64_t cut_ms);

/* Prepares one block that was opened and not looked at yet (block_prepare), the latest first. True if there
 * was one. The maintaining thread. */
bool storage__version_prepare(struct storage *storage);

/* Is there a selection older than the current version? Any thread. */
bool storage__version_old_in_use(struct storage *storage);

/* Closes blocks that nobody looks at any more, and removes the files of the doomed ones. The maintaining
 * thread. */
void storage__version_sweep(struct storage *storage);

/* "<dir>/blocks/<id>"; mem_free it. */
char *storage__block_dir(const struct storage *storage, uint64_t id);

/* Removes a block's directory with all that is in it, as far as that goes. */
void storage__block_remove(struct io *io, const char *dir);

/* Opens what the manifest names, removes what it does not, and makes the first version. Blocks. */
int storage__version_open(struct storage *storage, struct error_detail *detail);
void storage__version_close(struct storage *storage);

/* ---- Deletes (storage_delete.c) ---- */

int storage__deletes_open(struct storage *storage, struct error_detail *detail); /* the manifest's */
void storage__deletes_close(struct storage *storage);
void storage__deletes_put(struct storage *storage, struct tombstone_set *set);

void storage__delete_uncount(struct storage_write *write);

/* Applies one, logged at tombstone->position, to head and late samples, and adds it to those that blocks are
 * read with. Can be repeated after STATUS_NO_MEMORY. For replay. */
int storage__delete_apply(struct storage *storage, struct tombstone *tombstone);

/* The same in slices between groups, of which any number may be applied meanwhile: `deleting` has those that
 * have begun, in the order of the log. While there are any nothing is cut, no slice of a snapshot is taken
 * and no series retires. The storage thread. */
struct delete_work;

/* After its group's sync: STATUS_NO_MEMORY, or it is to be put into `deleting`. */
int storage__delete_begin(struct storage *storage, struct storage_write *write);

/* A slice of the first one. STATUS_END: it is done; STATUS_NO_MEMORY: again, later. */
int storage__delete_step(struct storage *storage);
void storage__delete_work_free(struct delete_work *work); /* NULL is fine */

/* Before a sample is applied to the slot: what is there is deleted now, if one of `deleting` will. Can be
 * repeated after STATUS_NO_MEMORY. */
int storage__deletes_reach(struct storage *storage, uint32_t slot);

/* Does a delete that comes now have to wait: for those before it, or for who waits until there is none? */
bool storage__delete_waits(const struct storage *storage);

/* The log must keep what is at or above this: deletes that no manifest has yet. The storage thread. */
wal_position storage__deletes_needed(const struct storage *storage);

/* Whether all deletes that were applied are durable: not so after a start that found one in the log's last
 * group, and could not write yet. */
bool storage__deletes_proven(struct storage *storage);

/* Makes the manifest have the deletes that are needed and not those that hide nothing any more. True if it
 * did anything. The maintaining thread, when no job is under way. */
bool storage__deletes_save(struct storage *storage, int64_t now_ms);

/* Makes the deletes of a manifest those that blocks are read with now. STATUS_NO_MEMORY. Any thread. */
int storage__deletes_put_into(struct storage *storage, struct manifest *manifest);

/* What deletes hide in one block: spans by ordinal; those of one ordinal neither overlap nor touch, and are
 * sorted. */
struct block_hides {
    struct span *spans; /* from mem_alloc, and the ordinals behind them */
    uint32_t *ordinals;
    size_t count;
};

/* Of the series that satisfy the matchers too (count 0: all), in [min, max]: what deletes of the set hide
 * that have not been applied to the block. Free hides_out->spans with mem_free. Errors as block_select's. */
int storage__block_hides(struct storage_block *block, const struct tombstone_set *set,
                         const struct matcher *matchers, size_t matcher_count, int64_t time_min_ms,
                         int64_t time_max_ms, struct block_hides *hides_out, struct error_detail *detail);

/* Those of one ordinal; returns how many. */
size_t storage__hides_of(const struct block_hides *hides, uint32_t ordinal, const struct span **spans_out);

/* ---- Who waits for the maintaining thread (storage_request.c) ---- */

struct storage_request {
    struct storage_request *next;
    void *context;
    void (*cleaned)(void *context, int status); /* one of the two */
    void (*copied)(void *context, int status, const char *name);
    enum storage_copy_kind kind; /* of that */
};

/* Puts a copy of it at the end of the list. Any thread. STATUS_NO_MEMORY. */
int storage__request_put(struct storage *storage, struct storage_request **list,
                         struct storage_request request);

/* Takes the first; NULL: there is none. Free it by storage__request_end, which answers. The maintaining
 * thread. */
struct storage_request *storage__request_take(struct storage *storage, struct storage_request **list);
void storage__request_end(struct storage_request *request, int status, const char *name);

/* ---- Writing blocks anew without what was deleted (storage_clean.c) ---- */

struct clean;

/* A slice of it, if somebody asked. The maintaining thread, when no job is under way. True if there may be
 * more to do at once. */
bool storage__clean_step(struct storage *storage, int64_t now_ms);
bool storage__clean_runs(const struct storage *storage); /* has it begun a block? */
void storage__clean_close(struct storage *storage);

/* dir/name; the caller's (mem_free). NULL: out of memory. */
char *storage__path_join(const char *dir, const char *name);

/* ---- copies (storage_copy.c) ---- */

/* The maintaining thread, while no other job is under way. While it has a job (storage__copy_runs) nothing
 * else may change the manifest or remove what it names. */
bool storage__copy_step(struct storage *storage, int64_t now_ms);
bool storage__copy_runs(const struct storage *storage);
/* The storage thread, between two groups: what was asked for. */
bool storage__copy_serve(struct storage *storage);
bool storage__copy_asks(const struct storage *storage);
/* Removes what a copy that was not finished left. */
void storage__copy_sweep(struct storage *storage);
int storage__copy_new(struct storage *storage);
void storage__copy_close(struct storage *storage);

/* ---- Room for a manifest on a full disk (storage_ballast.c) ---- */

/* manifest_store, which on a full disk takes the ballast's room. The maintaining thread. */
int storage__manifest_store(struct storage *storage, const struct manifest *next,
                            struct error_detail *detail);

/* Makes the ballast if it is missing, now and then. The maintaining thread. */
void storage__ballast_step(struct storage *storage, int64_t now_ms);

/* ---- Reading all blocks now and then, to find damage (storage_scrub.c) ---- */

struct scrub;

/* A slice of it, if it is time: it never is in a hurry. The maintaining thread. */
void storage__scrub_step(struct storage *storage, int64_t now_ms);
void storage__scrub_close(struct storage *storage);

/* ---- Chunks of samples (storage_encode.c) ---- */

/* One series' chunks, to be given to a block writer. Zero it first. */
struct encoder {
    struct block_chunk *chunks;
    size_t count;
    size_t capacity;
    struct buf bits; /* of those that were made here */
};

void storage__encoder_clear(struct encoder *encoder);
void storage__encoder_release(struct encoder *encoder);

/* Appends a chunk as it is (its bits are borrowed), or chunks made of the columns. STATUS_NO_MEMORY. */
int storage__encoder_copy(struct encoder *encoder, const struct block_chunk *chunk);
int storage__encoder_add(struct encoder *encoder, const struct sample_columns *columns, uint64_t position);

/* All of them; call it once, at the end. Borrowed until the next call. */
struct block_chunk *storage__encoder_chunks(struct encoder *encoder);

/* ---- Maintenance: cutting, late windows, retention (storage_maintain.c) ---- */

struct maintain;

int storage__maintain_new(struct storage *storage);
void storage__maintain_free(struct storage *storage);

/* What the storage thread does for it between two groups: a step of beginning or of dropping. True if it did.
 */
bool storage__maintain_serve(struct storage *storage);
bool storage__maintain_asks(const struct storage *storage); /* is there anything to serve? */

/* ---- Snapshots (storage_snapshot.c, storage_load.c) ---- */

struct snapshot;

int storage__snapshot_new(struct storage *storage);
void storage__snapshot_free(struct storage *storage);

/* A slice of it, if one is due or under way. True if there may be more to do at once. The maintaining thread.
 */
bool storage__snapshot_step(struct storage *storage, int64_t now_ms);

/* Is one under way? Any thread. */
bool storage__snapshot_runs(const struct storage *storage);

/* What the storage thread does for it between two groups. True if it did. */
bool storage__snapshot_serve(struct storage *storage);
bool storage__snapshot_asks(const struct storage *storage);

/* Files; mem_free them. */
char *storage__snapshot_path(const struct storage *storage, uint64_t number);
char *storage__labels_path(const struct storage *storage, uint64_t number, unsigned copy);

/* Removes the files of snapshots that the manifest does not name. */
void storage__snapshot_sweep(struct storage *storage);

/* The log from here on is needed to go on from the oldest snapshot that is named; 0: there is none yet. */
wal_position storage__snapshot_needed(const struct manifest *manifest);

/* What a start got from a snapshot: where the replay begins, and what it passes over. */
struct load {
    wal_position position; /* 0: no snapshot */
    uint64_t *taken_at;    /* by slot: what was logged below it is in the snapshot */
    uint32_t slot_end;
    wal_position reached; /* the highest of these */
    bool damaged;         /* something of it was: another one shall take its place soon */
};

/* After storage__load: what comes next builds on it, or takes its place if it was damaged. */
void storage__snapshot_opened(struct storage *storage, const struct load *load);

/* Is what was logged at `position` for the slot in the snapshot that the log is replayed on? */
bool storage__is_loaded(const struct storage *storage, uint32_t slot, wal_position position);

/* Fills the empty storage from the newest snapshot that can be read; blocks. mem_free(out->taken_at). */
int storage__load(struct storage *storage, struct error_detail *detail, struct load *out);

/* ---- Merging blocks (storage_compact.c); the maintaining thread ---- */

struct storage_compaction;

int storage__compaction_new(struct storage *storage);
void storage__compaction_free(struct storage *storage);

/* A slice of it. True if there was something to do. */
bool storage__compact(struct storage *storage, int64_t now_ms);
bool storage__compact_runs(const struct storage *storage); /* has it begun a merge? */

/* Series that fell silent leave (storage_retire.c): a slice of it, if a pass is due. True if it did
 * something. The storage thread, between two groups. */
bool storage__retire_serve(struct storage *storage);

/* A log segment begins: slots of series that left may be used again, if that is safe. And: a snapshot without
 * them counts. The storage thread. */
void storage__slots_release(struct storage *storage, uint32_t segment);
void storage__slots_unlabelled(struct storage *storage);

/* The lowest log position that is still needed. The storage thread. */
wal_position storage__log_needed(const struct storage *storage);

/* ---- */

/* Where in the log the oldest sample of a window of the head stands. */
struct window_position {
    int64_t begin_ms;
    wal_position position;
};

/* ---- damage (storage_damage.c) ---- */

/* What an answer can't have, for its warning. Zero: nothing. */
struct damage_names {
    atomic_uint_fast64_t count;
    struct spin lock;
    char text[192];
};

/* Counts, and adds the name unless it is there already. Any thread. */
void storage__damage_name(struct damage_names *damage, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void storage__damage_text(struct damage_names *damage, char *out, size_t bytes);

#define LOSSES_MAX 32

/* Samples that are gone for good since this start: told to whoever asks for their time. */
struct storage_loss {
    int64_t time_min_ms;
    int64_t time_max_ms;
    char name[64]; /* of the file that was damaged */
};

/* Any thread. */
void storage__loss_add(struct storage *storage, int64_t time_min_ms, int64_t time_max_ms, const char *format,
                       ...) __attribute__((format(printf, 4, 5)));
void storage__losses_name(struct storage *storage, int64_t time_min_ms, int64_t time_max_ms,
                          struct damage_names *damage);

struct storage {
    struct storage_options options;
    char *dir;
    struct io_file *lock;
    struct series_table *series;
    struct chunklog *chunklog;
    struct head *head;
    struct late *late;
    struct hidden *hidden; /* what deletes hide in the head */
    struct wal *wal;

    pthread_mutex_t version_mutex; /* for a few instructions */
    struct storage_version *version;
    unsigned versions_live;
    struct storage_block *dead;    /* to be closed */
    struct tombstone_set *deletes; /* those that blocks are read with; goes with `version` */
    struct storage_request *clean_requests;
    struct storage_request *copy_requests;
    struct storage_loss losses[LOSSES_MAX];
    atomic_size_t loss_count;
    atomic_uint_fast64_t deletes_queued; /* prepared and not ended */
    atomic_bool deletes_unproven;

    /* The maintaining thread's: */
    struct manifest manifest;
    struct maintain *maintain;
    struct snapshot *snapshot;
    const struct load *loaded; /* while the log is replayed on top of a snapshot */
    struct storage_compaction *compaction;
    struct clean *clean;
    struct copy *copy;
    struct scrub *scrub;
    bool has_ballast;
    struct retry ballast_retry;
    struct retry deletes_retry;

    /* The queue: any thread puts in, the storage thread takes all. */
    pthread_mutex_t queue_mutex;
    pthread_cond_t queue_filled;
    pthread_cond_t maintain_served; /* the storage thread did what the maintaining thread asked for */
    bool poked;                     /* the storage thread is asked for something besides the queue */
    bool maintain_poked;
    struct write_list queue;
    bool stopping; /* the thread shall end once the queue is empty */
    atomic_uint_fast64_t queue_bytes;

    /* The storage thread's: */
    struct write_list waiting; /* taken off the queue, not in a group yet */
    struct write_list group;   /* in flight */
    wal_position group_position;
    bool group_ended;
    int group_status;
    bool applying;              /* the group is durable, and there was no memory to apply all of it */
    struct write_list deleting; /* durable deletes that are not applied to all series yet */
    size_t deleting_count;
    bool deleting_starved; /* there was no memory for the last slice */
    uint64_t group_started_ns;
    uint32_t slots_segment;    /* where slots of retired series were made free last */
    int64_t dropped_ms;        /* what was before this in the head is gone, what is behind it is there */
    bool retire_due;           /* since something was dropped */
    uint32_t slots_retired;    /* since slots were released last */
    bool slots_unlabelled;     /* the label part says of all of them that they are free */
    struct slot_bits declared; /* in declared_segment */
    uint32_t declared_segment; /* SEGMENT_UNKNOWN: nothing counts as declared */
    struct slot_bits
        labelled; /* in the label part that the manifest names: log segments declare them no more */
    /* The oldest snapshot's: the log is needed from here on; 0: there is none. */
    wal_position snapshot_position;
    bool snapshot_spare; /* there are two: if one is damaged, the other has what the log before it had */
    struct buf scratch;
    _Atomic int64_t apply_cut_ms;    /* samples before this go to late windows; loops look at it */
    struct window_position *windows; /* of the head, behind apply_cut_ms */
    size_t window_count;
    size_t window_capacity;
    struct late_range window_noted; /* the one that was looked for last */

    atomic_uint_fast64_t samples_applied;
    atomic_bool log_started;        /* once it could be written: nothing is left that is to be carried over */
    atomic_uint_fast64_t log_bytes; /* written since the start */
    uint64_t replay_ms;
    struct wal_replay_stats replay;
    pthread_t thread;
    bool thread_runs;
    pthread_t maintain_thread;
    bool maintain_thread_runs;
    atomic_bool maintain_stopping;
};

/* Wakes the storage thread, if it waits: there is something to serve. And the maintaining thread: it is
 * served. Any thread. */
void storage__poke(struct storage *storage);
void storage__maintain_poke(struct storage *storage);

/* Steps and waits until nothing that was submitted is left. */
void storage__finish(struct storage *storage);

/* Adds a line of Prometheus' words to the write's reasons: "<what> for series {…}". At most a few lines. */
void storage__reason_add(struct storage_write *write, uint32_t slot, const char *what);

/* Puts the contents of writes that are applied already into the log's first group, before wal_start: what the
 * last start's log held and nothing proves to be durable. */
int storage__group_carry(struct storage *storage, const struct storage_write *first);

/* The same words as a write's, for a full queue. */
int storage__queue_check(const struct storage *storage, struct error_detail *detail);

/* Applies the samples from *applied on, of a write or of the replay (write == NULL), that were logged in the
 * group at `position`, and counts the verdicts; *applied moves along. `starts_ms` may be NULL.
 * STATUS_NO_MEMORY: the sample at *applied is not, and all is as if it had never come. */
int storage__apply(struct storage *storage, struct storage_write *write, const uint32_t *slots,
                   const struct sample *samples, const int64_t *starts_ms, size_t count,
                   wal_position position, size_t *applied);

/* Puts a late sample of a snapshot back, logged at `position` or later. */
int storage__late_restore(struct storage *storage, uint32_t slot, struct sample sample, int64_t start_ms,
                          wal_position position);

/* The window of that length that holds the time. */
struct late_range storage__window_of(int64_t time_ms, int64_t window_ms);

/* Where the last window ends that is over, with time for latecomers. */
int64_t storage__over_ms(const struct storage *storage, int64_t now_ms);

/* The window that a block of samples of that age has: the older, the longer. */
struct late_range storage__range_for(const struct storage *storage, int64_t time_ms, int64_t now_ms);

#endif
