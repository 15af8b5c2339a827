/* database.h: a database on a simulated disk that has some of everything, and what is true of it: every
 * sample that was sent, and which of them were deleted. */
#ifndef TIDALITE_TESTS_DATABASE_H
#define TIDALITE_TESTS_DATABASE_H

#include <stdio.h>

#include "storage/io/io.h"
#include "tests/unit/storage/storage_fixture.h"

#define DATABASE_DIR    "data"
#define DATABASE_SERIES 4

struct truth {
    struct sample sample;
    bool deleted;
};

struct database {
    struct fixture f;                      /* f.io is the disk */
    struct truth *truths[DATABASE_SERIES]; /* by time */
    size_t counts[DATABASE_SERIES];
    size_t capacities[DATABASE_SERIES];
    uint64_t visible; /* those that are not deleted */
    int64_t again_ms; /* in the middle of what the last delete hides of series DATABASE_AGAIN */
};

#define DATABASE_AGAIN 3

/* Writes a sample to each series, and one to a place that was deleted; the storage is db->f's. */
void database_write(struct database *db);
#define DATABASE_WRITTEN (DATABASE_SERIES + 1)

/* Two levels of blocks, a block of late samples, deletes that wait and one that hides in the head, two
 * snapshots, sealed chunks, late samples, two segments of the log. Closed. Ends the program if it is not so.
 */
void database_make(struct database *db);
void database_release(struct database *db);

/* What an open storage says, compared with what is true. */
struct verdict {
    uint64_t found;   /* samples that are true */
    uint64_t wrong;   /* never sent, of another value, out of order, of no series of ours */
    uint64_t deleted; /* that are back */
    uint64_t written; /* of database_write */
    uint64_t damaged; /* pieces that reading met */
    char text[256];   /* the first that is wrong */
};
void database_check(struct database *db, struct storage *storage, struct verdict *verdict);

#endif
