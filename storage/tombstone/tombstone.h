/* tombstone.h: deletes: what a delete says, its bytes in log and manifest, and the set of those that blocks
 * still need.
 *
 * A delete is {selectors, range of time, position in the log}. It hides what was logged below its position
 * and nothing else, so what is written later, of the same series and times too, is seen.
 *
 *     head    storage/tombstone/hidden.h: ranges of time by slot, taken when the delete is applied
 *     late    samples are taken out when it is applied
 *     blocks  a block says up to which position deletes have been applied to it (manifest_block.deleted_to);
 *             those above are looked at by whoever reads it, until it has been written anew */
#ifndef TIDALITE_STORAGE_TOMBSTONE_H
#define TIDALITE_STORAGE_TOMBSTONE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/batch.h"
#include "base/buf.h"
#include "base/matcher.h"
#include "base/slice.h"
#include "base/status.h"

/* Times from min to max, both included. */
struct span {
    int64_t min_ms;
    int64_t max_ms;
};

/* Series that satisfy all of some matchers. */
struct tombstone_selector {
    struct matcher *matchers;
    size_t count;
};

/* Appends the payload of a DELETE record (docs/format/log.md); failure shows in buf->failed. At least one
 * selector, each with at least one matcher. */
void tombstone_payload_write(struct buf *buf, const struct tombstone_selector *selectors, size_t count,
                             struct span span);

struct tombstone {
    atomic_uint references;
    uint64_t position; /* of the log group that it is in, alone */
    struct span span;
    struct slice payload;
    struct tombstone_selector *selectors;
    size_t selector_count;
    const struct matcher_compiler *compiler;
    atomic_bool in_manifest; /* the log need not keep it */
};

/* Reads a payload, which is copied, and compiles its patterns; one reference. STATUS_CORRUPT: not a payload;
 * STATUS_UNSUPPORTED: it has a pattern, and `compiler` is NULL; STATUS_BAD_INPUT: a pattern does not compile;
 * STATUS_NO_MEMORY. */
int tombstone_new(struct slice payload, uint64_t position, const struct matcher_compiler *compiler,
                  struct tombstone **out);
struct tombstone *tombstone_ref(struct tombstone *tombstone);
void tombstone_unref(struct tombstone *tombstone); /* NULL is fine */

/* ---- Sets --------------------------------------------------------------------------------------------- */

/* Some of them, by position; never changes. `references` is for the holder (storage: under its
 * version_mutex). */
struct tombstone_set {
    unsigned references;
    size_t count;
    struct tombstone *items[];
};

/* Those of `from` (may be NULL) that `keep` wants (NULL: all), and `added` (may be NULL) unless one of its
 * position is there. Takes references of its own. STATUS_NO_MEMORY. */
int tombstone_set_new(const struct tombstone_set *from,
                      bool (*keep)(void *context, const struct tombstone *tombstone), void *context,
                      struct tombstone *added, struct tombstone_set **out);
void tombstone_set_free(struct tombstone_set *set); /* NULL is fine */

/* ---- Spans -------------------------------------------------------------------------------------------- */

/* Adds one to sorted spans that neither overlap nor touch; there is room for one more. Returns the count. */
size_t spans_add(struct span *spans, size_t count, struct span span);

/* Is the time in one of them? */
bool spans_hold(const struct span *spans, size_t count, int64_t time_ms);

/* Is the whole of [min, max] in one of them? */
bool spans_cover(const struct span *spans, size_t count, int64_t min_ms, int64_t max_ms);

/* Does any of them touch [min, max]? */
bool spans_touch(const struct span *spans, size_t count, int64_t min_ms, int64_t max_ms);

/* Takes the samples behind `from` that are in one of them out of the columns. */
void spans_filter(const struct span *spans, size_t count, struct sample_columns *columns, size_t from);

#endif
