/* block.h: a block: a directory of files that hold the chunks of many series, written once, never changed.
 *
 *     chunks      the truth: series by series, labels and chunks, a checksum on every piece
 *     index.mdb   which series have which labels, and where their chunks are; rebuilt from `chunks` if need
 * be index.sum   a checksum for each page of index.mdb meta.json   what the block is, for people and for
 * tools; everything in it but the sizes and checksums of the files also stands in `chunks`
 *
 * Byte tables, and the rules when what is believed: docs/format/block.md.
 *
 * Series stand in one order, block_series_order: by shard, then by canonical label bytes. An *ordinal* is a
 * series' place in that order, 0, 1, 2 …; after damage some may be missing. Times are Unix milliseconds, all
 * ranges closed: [time_min, time_max].
 *
 * Damage. A chunk or a series' labels whose checksum fails are STATUS_CORRUPT with file and offset in
 * `detail`, and are kept in the block's list of damage (block_damage_each), so that an answer can carry a
 * warning; everything else is served. A file of a newer format version is STATUS_NEWER_FORMAT.
 *
 * Threads. One thread at a time uses a writer, a view, a cursor or a verifier. An open block may be used by
 * any thread, by many at once. Nothing here takes a lock that is held across I/O, but for block_prepare.
 * Calls that read the block may block for page faults of mapped files; calls that do more I/O say so. */
#ifndef TIDALITE_STORAGE_BLOCK_H
#define TIDALITE_STORAGE_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/label.h"
#include "base/matcher.h"
#include "base/slice.h"
#include "base/status.h"
#include "storage/chunk/chunk.h"
#include "storage/io/io.h"

/* ---- Order -------------------------------------------------------------------------------------------- */

#define BLOCK_SHARDS 64

/* The shard of a metric name (the value of __name__): the top 6 bits of its CRC-32C. All series of a metric
 * are in one shard. */
unsigned block_shard(struct slice metric_name);

/* The same, of canonical label bytes. */
unsigned block_shard_of_labels(struct slice labels);

/* <0, 0, >0: the order of two series' canonical label bytes in a block: shard, then bytes, shorter first
 * among equals. 0 only for equal labels. */
int block_series_order(struct slice a, struct slice b);

/* ---- What a block says of itself ---------------------------------------------------------------------- */

#define BLOCK_SOURCES_MAX 1024

struct block_file_sum {
    uint64_t bytes;
    uint32_t crc; /* CRC-32C of the whole file */
};

struct block_meta {
    uint64_t id;
    uint32_t level; /* 1: cut from the head; compaction adds */
    uint64_t salt;
    int64_t time_min_ms; /* of all samples */
    int64_t time_max_ms;
    uint64_t series_count;
    uint64_t chunk_count;
    uint64_t sample_count;
    uint64_t position_min; /* log positions of all chunks */
    uint64_t position_max;
    int64_t time_base_ms; /* as given to the writer */
    uint64_t position_base;
    uint64_t *sources; /* ids of the blocks it was made of; mem_alloc'ed, owned by whoever owns the meta */
    size_t source_count;
    struct block_file_sum chunks, index, index_sum; /* all zero where meta.json is damaged */
};

/* ---- Chunks ------------------------------------------------------------------------------------------- */

/* A chunk with what must be known beside its bits. */
struct block_chunk {
    int64_t time_min_ms;
    int64_t time_max_ms;
    struct chunk_info info;
    uint64_t log_position; /* of the data; deletes hide only what is lower */
    struct slice bits;     /* for chunk_decode; 1 … BLOCK_CHUNK_BITS_MAX bytes */
};

#define BLOCK_CHUNK_BITS_MAX 65535

/* Where a chunk is, without reading it. */
struct block_chunk_ref {
    uint64_t offset; /* in the file `chunks` */
    uint32_t bytes;  /* what lies there: the bits and what stands beside them */
    int64_t time_min_ms;
    int64_t time_max_ms;
};

/* ---- Writing ------------------------------------------------------------------------------------------
 *
 *     block_writer_open → block_writer_add… (in order) → block_writer_step… until STATUS_END →
 * block_writer_meta anywhere: block_writer_close, which removes what is not finished
 *
 * Straight into the final directory: a block counts when something else (the manifest) names it, and what is
 * not named is garbage. After STATUS_END all files, the directory and its entry in its parent are durable.
 *
 * Every call does a bounded slice of work, some milliseconds (measured: docs/format/block.md), and may block
 * for its writes and syncs. Memory: below 20 MiB whatever the number of series, beside the series being
 * added. What does not fit goes to scratch files that have no name and vanish with the writer. */

struct block_writer;

struct block_writer_options {
    struct io *io;   /* borrowed until close */
    const char *dir; /* made here; an empty directory of that name is fine; copied */
    uint64_t id;
    uint32_t level;
    uint64_t salt;        /* random: rand_seed_from_system(), or a test's */
    int64_t time_base_ms; /* the nearer the chunks' times and positions are to these, the fewer bytes they */
    uint64_t position_base;  /* take: the beginning of the window, the lowest position if known, else 0 */
    const uint64_t *sources; /* copied; at most BLOCK_SOURCES_MAX */
    size_t source_count;
};

/* STATUS_EXISTS if the directory holds anything; STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY, with `detail`.
 */
int block_writer_open(const struct block_writer_options *options, struct error_detail *detail,
                      struct block_writer **out);

/* Adds a series with its chunks (at least one), sorted by (time_min, log position). Series come in
 * block_series_order, each once; `labels` are canonical label bytes. Copies everything before it returns.
 * After an error the writer can only be closed. STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY,
 * STATUS_TOO_LARGE (more than 2^32 - 128 series, or 4 GiB of one). */
int block_writer_add(struct block_writer *writer, struct slice labels, uint64_t id,
                     const struct block_chunk *chunks, size_t count, struct error_detail *detail);

/* Finishes, a slice a call: STATUS_OK as long as there is more to do, STATUS_END when the block is whole and
 * durable, or an error as above. The first call ends the adding. */
int block_writer_step(struct block_writer *writer, struct error_detail *detail);

/* What was written; complete after STATUS_END, counts and times so far before. Borrowed until close. */
const struct block_meta *block_writer_meta(const struct block_writer *writer);

/* Bytes of memory it holds now, and bytes written to `chunks` so far. */
uint64_t block_writer_memory_bytes(const struct block_writer *writer);
uint64_t block_writer_chunk_bytes(const struct block_writer *writer);

/* Ends it; NULL is fine. A block that is not finished is removed as far as possible (errors are ignored: it
 * is garbage to whoever sweeps). */
void block_writer_close(struct block_writer *writer);

/* ---- Opening ------------------------------------------------------------------------------------------ */

struct block;

/* Opens the block in `dir` (copied). Reads and checks the whole index (60 bytes a series or so); if it is
 * missing or damaged, rebuilds it in scratch space from `chunks`, which reads all of that. Blocks. Writes
 * nothing to `dir`.
 *
 * STATUS_NOT_FOUND: no such directory, or nothing of a block in it; STATUS_NEWER_FORMAT; STATUS_CORRUPT:
 * there is no `chunks`, or nothing in it can be believed; STATUS_IO, STATUS_NO_MEMORY. `io` is borrowed until
 * block_close: opening, repairing, verifying and closing use it as their own, all other calls only what any
 * thread may use of it. */
int block_open(struct io *io, const char *dir, struct error_detail *detail, struct block **out);

/* The same without a look at the index, but that it is of no newer version: some reads of a few KiB, so that
 * a program with many blocks starts at once. The first call that needs the index prepares it (and every other
 * that comes meanwhile waits for that, the one lock here that is held across I/O); a background thread should
 * do it before. Damage of the index is listed from then on. A block without meta.json and trailer is read as
 * a whole here: nothing else says what is in it. */
int block_open_later(struct io *io, const char *dir, struct error_detail *detail, struct block **out);

/* Checks the index, or rebuilds it, unless that is done. Errors as block_open's; after one it is tried again
 * at the next call. Blocks. Any thread. */
int block_prepare(struct block *block, struct error_detail *detail);
bool block_is_prepared(const struct block *block);

/* No view, cursor, verifier or read of it may be open. NULL is fine. */
void block_close(struct block *block);

/* Borrowed until block_close. */
const struct block_meta *block_meta(const struct block *block);
const char *block_dir(const struct block *block);

/* The index was missing or damaged, and what is used is a rebuilt one in scratch space: block_repair makes it
 * last. */
bool block_index_rebuilt(const struct block *block);

/* Writes the index (index.mdb, index.sum) and meta.json anew, each as a temporary file, synced, then renamed
 * over the old one; then syncs the directory. `chunks` is not touched. For a block with a damaged index or
 * meta; blocks. The open block goes on as it is. */
int block_repair(struct block *block, struct error_detail *detail);

/* The same for the block in a directory, which may be open, with an index made of `chunks`, whatever the one
 * on disk says: it may have rotted under the open block, which maps it, or have good checksums and say other
 * things than `chunks` does. Errors as block_open's; blocks. */
int block_renew(struct io *io, const char *dir, struct error_detail *detail);

/* How many ordinals there are: all series' ordinals are below. The block is prepared. */
uint32_t block_ordinal_count(const struct block *block);

/* ---- Damage ------------------------------------------------------------------------------------------- */

#define BLOCK_ORDINAL_NONE UINT32_MAX

struct block_damage {
    const char *file; /* "chunks", "index.mdb", "index.sum", "meta.json": a static string */
    uint64_t offset;
    uint64_t bytes;      /* as far as is known, else 0 */
    uint32_t ordinal;    /* the series whose piece it is, or BLOCK_ORDINAL_NONE: any */
    bool data_lost;      /* samples in [time_min, time_max] may be missing in answers; false: all is served */
    int64_t time_min_ms; /* as near as is known */
    int64_t time_max_ms;
    const char *what; /* a static string: "chunk: wrong checksum" */
};

/* Calls `each` for every piece of damage that was found so far, by opening or by reading, in the order found;
 * a negative return stops and is returned. At most 1000 are kept; block_damage_count counts all. `each` must
 * not read the block. */
int block_damage_each(struct block *block, int (*each)(void *context, const struct block_damage *damage),
                      void *context);
uint64_t block_damage_count(const struct block *block);

/* ---- Which series ------------------------------------------------------------------------------------- */

/* Ordinals of the series that satisfy all matchers, ascending, in an array from mem_alloc that the caller
 * frees; none if the block has no sample in [time_min_ms, time_max_ms]. Whether a series has chunks in the
 * range is seen by block_view_series. Semantics of series_match (storage/series): a missing label is the
 * empty value. STATUS_NO_MEMORY; STATUS_CORRUPT if the index contradicts itself. */
int block_select(struct block *block, const struct matcher *matchers, size_t count, int64_t time_min_ms,
                 int64_t time_max_ms, uint32_t **ordinals_out, size_t *count_out,
                 struct error_detail *detail);

/* Calls `each` for every label name, or every value of a name, that a series satisfying all matchers has, in
 * byte order; `series_count` says how many of *all* series of the block have it. The slices are borrowed for
 * the call. A negative return stops and is returned. Errors as block_select. */
int block_label_names(struct block *block, const struct matcher *matchers, size_t count,
                      int (*each)(void *context, struct slice name, uint64_t series_count), void *context,
                      struct error_detail *detail);
int block_label_values(struct block *block, struct slice name, const struct matcher *matchers, size_t count,
                       int (*each)(void *context, struct slice value, uint64_t series_count), void *context,
                       struct error_detail *detail);

/* ---- Series and chunks -------------------------------------------------------------------------------- */

/* One thread's way to look at series; cheap to open (below 1 µs) and quickest in ascending order. */
struct block_view;

struct block_series {
    uint32_t ordinal;
    uint64_t id;
    struct slice labels;                  /* canonical label bytes */
    const struct block_chunk_ref *chunks; /* sorted by (time_min, log position) */
    size_t chunk_count;
};

int block_view_open(struct block *block, struct block_view **out);
void block_view_close(struct block_view *view); /* NULL is fine */

/* The series' id and those of its chunks that overlap [time_min_ms, time_max_ms]; `labels` stays empty. Does
 * not touch the file `chunks`. `*out` borrows from the view until its next call. STATUS_NOT_FOUND: no such
 * ordinal; STATUS_NO_MEMORY, STATUS_CORRUPT. */
int block_view_series(struct block_view *view, uint32_t ordinal, int64_t time_min_ms, int64_t time_max_ms,
                      struct block_series *out, struct error_detail *detail);

/* Its labels, checked. Where `chunks` is damaged there, they are put together from the index, and the damage
 * is listed. Borrowed until the next call for labels on this view. Errors as block_view_series. */
int block_view_labels(struct block_view *view, uint32_t ordinal, struct slice *labels_out,
                      struct error_detail *detail);

/* The chunk, its checksum verified each time it is read; `bits` are borrowed until block_close.
 * STATUS_CORRUPT as told above; `ordinal` is for the damage list (BLOCK_ORDINAL_NONE if not at hand). Any
 * thread. */
int block_chunk_read(struct block *block, uint32_t ordinal, const struct block_chunk_ref *ref,
                     struct block_chunk *out, struct error_detail *detail);

/* The same of bytes that the caller has read from the file himself (cold data, in batches): ref->bytes bytes
 * at `data`, from which `out->bits` borrows. */
int block_chunk_check(struct block *block, uint32_t ordinal, const struct block_chunk_ref *ref,
                      const uint8_t *data, struct block_chunk *out, struct error_detail *detail);

/* The open file `chunks`, for such reads; borrowed until block_close. */
struct io_file *block_chunks_file(const struct block *block);

/* ---- All series, in order ----------------------------------------------------------------------------- */

struct block_cursor;

/* Over the series of shards [shard_first, shard_last] (0, BLOCK_SHARDS - 1: all). */
int block_cursor_open(struct block *block, unsigned shard_first, unsigned shard_last,
                      struct block_cursor **out);
void block_cursor_close(struct block_cursor *cursor); /* NULL is fine */

/* The next series, with labels and all its chunks: STATUS_OK; STATUS_END behind the last. Borrowed until the
 * next call. A series that is lost to damage is stepped over (and listed). */
int block_cursor_next(struct block_cursor *cursor, struct block_series *out, struct error_detail *detail);

/* ---- Verifying ---------------------------------------------------------------------------------------- */

struct block_finding {
    const char *file; /* as block_damage.file; a static string */
    uint64_t offset;
    const char *what; /* a static string */
};

struct block_verifier;

/* Checks every checksum of every file, and that chunks, index and meta.json say the same: every series of
 * `chunks` is in the index with exactly its labels and chunks, and nothing else is; chunks decode, to samples
 * inside the times they claim. `each` is called for every finding, those of block_open first; a negative
 * return stops the step and is returned by it.
 *
 * Step: STATUS_OK as long as there is more to do, STATUS_END when done; each reads 1 MiB or so. *done_out, if
 * not NULL, is the part done of 1000. block_verify runs all steps. Blocks. */
int block_verifier_open(struct block *block, int (*each)(void *context, const struct block_finding *finding),
                        void *context, struct block_verifier **out);
int block_verifier_step(struct block_verifier *verifier, unsigned *done_out, struct error_detail *detail);
void block_verifier_close(struct block_verifier *verifier); /* NULL is fine */
int block_verify(struct block *block, int (*each)(void *context, const struct block_finding *finding),
                 void *context, struct error_detail *detail);

#endif
