/* chunklog.h: sealed chunks of the head: out of memory, in a file for each window of time.
 *
 * A sealed chunk is appended as a *record*: checksummed, with the reference of the record before it of the
 * same series, so that a series needs to remember its newest record only. Records are gathered in *extents*
 * of 256 KiB, each with records of one partition of the series, so that a window can be read partition by
 * partition, each once. A full extent is written, synced and then mapped over its own memory: addresses never
 * change, and readers need no lock. Byte table: docs/format/chunklog.md.
 *
 * The files count for nothing until a snapshot names them with their valid lengths (chunklog_describe); until
 * then the log holds the samples.
 *
 * Threads: one appends and drops (the applying thread), one writes (the maintaining thread), any reads. */
#ifndef TIDALITE_STORAGE_CHUNKLOG_H
#define TIDALITE_STORAGE_CHUNKLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "storage/chunk/chunk.h"
#include "storage/io/io.h"

struct chunklog;

#define CHUNKLOG_PARTITIONS 16

/* Where a record stands: file number << 40 | offset. 0: nowhere. */
typedef uint64_t chunk_ref;
#define CHUNK_REF_OFFSET_BITS 40

static inline uint32_t chunk_ref_file(chunk_ref ref) {
    return (uint32_t)(ref >> CHUNK_REF_OFFSET_BITS);
}

static inline uint64_t chunk_ref_offset(chunk_ref ref) {
    return ref & ((UINT64_C(1) << CHUNK_REF_OFFSET_BITS) - 1);
}

struct chunklog_chunk {
    chunk_ref previous; /* the series' record before it */
    uint32_t slot;
    int64_t time_min_ms;
    int64_t time_max_ms;
    struct chunk_info info;
    struct slice bits;
};

/* `io` is the maintaining thread's, borrowed until close; `dir` exists and is copied. `seed` is for salts. */
int chunklog_new(struct io *io, const char *dir, uint64_t seed, struct chunklog **out);

/* For who only looks, perhaps while another process writes: files are opened for reading, and nothing is
 * appended. Before chunklog_restore. */
void chunklog_read_only(struct chunklog *log);

/* Frees all memory; files stay. */
void chunklog_free(struct chunklog *log);

/* ---- the applying thread ---- */

/* Appends; `chunk->bits` are copied. The file is the one that holds [begin, end) of time, the chunk's window;
 * a new one holds just that, or all time before `over_ms` if the window is over by then (windows of long ago
 * share a file). STATUS_NO_MEMORY leaves all as it was. */
int chunklog_append(struct chunklog *log, int64_t window_begin_ms, int64_t window_end_ms, int64_t over_ms,
                    unsigned partition, const struct chunklog_chunk *chunk, chunk_ref *out);

/* What was appended until now is what the next chunklog_describe tells of. What comes behind it begins in a
 * page of its own: a page that is durable is never written again, for a write that is torn would damage it.
 */
void chunklog_mark(struct chunklog *log);

/* The files of windows that end at `end_ms` or before go: no reader asks for times before `end_ms` any more
 * (chunklog_read's from_ms). The maintaining thread removes them. */
void chunklog_drop(struct chunklog *log, int64_t end_ms);

/* ---- any thread ---- */

/* The record at `ref`, if it ends at `from_ms` or later. Its bits are borrowed until a chunklog_drop of its
 * window. STATUS_END: nothing at `ref` or before it does; STATUS_CORRUPT: it is damaged, and what is before
 * it can't be found. */
int chunklog_read(struct chunklog *log, chunk_ref ref, uint32_t slot, int64_t from_ms,
                  struct chunklog_chunk *out);

/* For a chain that damage broke: the newest record of the slot, of all there are in its partition, that ends
 * before `before_ms`, and at `from_ms` or later; STATUS_END: there is none. Reads through the partition. A
 * former series of the slot has none behind the last chunklog_drop: `from_ms` must not be before that. */
int chunklog_find(struct chunklog *log, unsigned partition, uint32_t slot, int64_t from_ms, int64_t before_ms,
                  struct chunklog_chunk *out);

/* Bytes of memory that hold what is in no file yet, and bytes of the files. */
uint64_t chunklog_memory_bytes(const struct chunklog *log);
uint64_t chunklog_file_bytes(const struct chunklog *log);

/* ---- the maintaining thread; both block ---- */

/* A slice of writing full extents, and of removing dropped files. *more_out: call again soon. After an error
 * nothing is lost and it is tried again by the next call. */
int chunklog_write(struct chunklog *log, bool *more_out, struct error_detail *detail);

/* Writes and syncs all that was appended until the last chunklog_mark, and appends to `table` what a restart
 * needs to find it again. */
int chunklog_describe(struct chunklog *log, struct buf *table, struct error_detail *detail);

/* What the partition holds of windows that end at `end_ms` or before was read, and is not needed for a while:
 * the process gives up the pages that are in files. */
void chunklog_unneed(struct chunklog *log, unsigned partition, int64_t end_ms);

/* ---- opening ---- */

/* Makes the files of a table known again: what their extents held then can be read, and nothing is appended
 * to those. Files of times before `cut_ms` are passed over. A file that is missing or too short costs what it
 * held: its records are STATUS_CORRUPT, told in the log. STATUS_CORRUPT: the table itself can't be read;
 * STATUS_NEWER_FORMAT: a file is of a format that only a later version knows. */
int chunklog_restore(struct chunklog *log, struct slice table, int64_t cut_ms, struct error_detail *detail);

/* Removes the files that are not known. */
int chunklog_sweep(struct chunklog *log);

/* What is known of a file: of its extents, `valid_bytes` count. `path` is borrowed for the call. */
struct chunklog_file {
    const char *path;
    uint32_t number;
    int64_t begin_ms; /* of its window; INT64_MIN: from long ago on */
    int64_t end_ms;
    uint32_t extents;
    uint64_t valid_bytes;
    uint64_t bytes; /* of the file on disk */
};

/* Each file, by number. Any thread, while nothing is appended or dropped. */
int chunklog_files_each(struct chunklog *log, int (*each)(void *context, const struct chunklog_file *file),
                        void *context);

/* Checks the header of each file that was restored, and every record of every extent that was restored or
 * written: calls `each` for the damaged ones. Any thread, while nothing is dropped. */
int chunklog_verify(struct chunklog *log,
                    int (*each)(void *context, const char *path, uint64_t offset, const char *what),
                    void *context);

#endif
