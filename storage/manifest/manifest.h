/* manifest.h: the root of a data directory: one small file that names everything that counts besides the log.
 * What it does not name is garbage, and swept at start. Replaced as a whole: temporary file, sync, rename,
 * sync of the directory; so a change of it is one step, whatever happens. Byte table:
 * docs/format/manifest.md. */
#ifndef TIDALITE_STORAGE_MANIFEST_H
#define TIDALITE_STORAGE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "base/status.h"
#include "storage/io/io.h"

struct manifest_block {
    uint64_t id; /* its directory is blocks/<id, 16 hexadecimal digits> */
    uint32_t level;
    int64_t time_min_ms; /* of its samples, both included */
    int64_t time_max_ms;
    uint64_t position;   /* everything in it was logged below it */
    uint64_t deleted_to; /* deletes that were logged below it have nothing to hide here any more */
    uint64_t series_count;
    uint64_t sample_count;
    uint64_t bytes; /* of its files */
};

/* Samples with begin <= time < end that were logged below `position` are in blocks: a replay passes over
 * them. */
struct manifest_covered {
    int64_t begin_ms;
    int64_t end_ms;
    uint64_t position;
};

/* A snapshot of the head, and the label part that goes with it: head/<number, 16 hexadecimal
 * digits>.snapshot, head/<labels_number>.labels and .labels2. */
struct manifest_snapshot {
    uint64_t number;
    uint64_t bytes;    /* of the file, that count */
    uint64_t position; /* the log is read from here on */
    uint64_t labels_number;
    uint64_t labels_bytes; /* of either copy, that count */
};

#define MANIFEST_SNAPSHOTS 2 /* the newest, and the one before it in case that one is damaged */

/* A delete that may hide samples of blocks (storage/tombstone/tombstone.h). */
struct manifest_delete {
    uint64_t position; /* where it was logged: it hides what was logged below */
    uint8_t *payload;  /* the log record's; from mem_alloc, the manifest's own */
    size_t payload_len;
};

struct manifest {
    uint64_t generation; /* one more each time */
    uint64_t id_next;    /* series ids below may have been used */
    uint64_t block_next; /* the number of the next block, snapshot or label part; those below were used */
    int64_t cut_ms;      /* windows that end here or before have been cut into blocks; INT64_MIN: none */
    struct manifest_block *blocks;
    size_t block_count;
    struct manifest_covered *covered;
    size_t covered_count;
    struct manifest_snapshot snapshots[MANIFEST_SNAPSHOTS]; /* the newest first */
    size_t snapshot_count;
    struct manifest_delete *deletes; /* by position */
    size_t delete_count;
};

/* As of an empty directory. */
void manifest_init(struct manifest *manifest);
void manifest_release(struct manifest *manifest);
int manifest_copy(const struct manifest *from, struct manifest *out);

/* Appends; STATUS_NO_MEMORY. */
int manifest_block_add(struct manifest *manifest, const struct manifest_block *block);
int manifest_covered_add(struct manifest *manifest, const struct manifest_covered *covered);

/* Makes it the newest; the oldest of more than MANIFEST_SNAPSHOTS goes. */
void manifest_snapshot_add(struct manifest *manifest, const struct manifest_snapshot *snapshot);
/* Appends a delete with a copy of its payload; STATUS_NO_MEMORY. */
int manifest_delete_add(struct manifest *manifest, uint64_t position, struct slice payload);

/* Takes out all of them. */
void manifest_deletes_clear(struct manifest *manifest);

/* Takes out the block with that id, if it is there. */
void manifest_block_remove(struct manifest *manifest, uint64_t id);

/* Forgets what is covered below a position that the log does not reach back to any more, but for what a
 * snapshot may hold: late samples that are put back from it must not come back beside their block. */
void manifest_covered_prune(struct manifest *manifest, uint64_t position);

/* Is a sample of that time, logged in the group at `position`, in a block? */
bool manifest_covers(const struct manifest *manifest, int64_t time_ms, uint64_t position);

/* The highest log position that it speaks of. */
uint64_t manifest_position_max(const struct manifest *manifest);

/* Reads `dir`/manifest; blocks. STATUS_NOT_FOUND: there is none; STATUS_CORRUPT: both copies in it are
 * damaged; STATUS_NEWER_FORMAT, STATUS_IO, STATUS_NO_MEMORY. */
int manifest_load(struct io *io, const char *dir, struct error_detail *detail, struct manifest *out);

/* Looks at both copies: calls `each` with what is wrong and where; one whole copy is enough for
 * manifest_load. Errors as manifest_load's, but damage is none. */
int manifest_verify(struct io *io, const char *dir,
                    void (*each)(void *context, uint64_t offset, const char *what), void *context,
                    struct error_detail *detail);

/* Makes it the one that counts; blocks. After an error either the old or the new one counts. */
int manifest_store(struct io *io, const char *dir, const struct manifest *manifest,
                   struct error_detail *detail);

#endif
