/* fault.h: reruns a body with its 1st, 2nd, 3rd … allocation, or operation of the disk, failing, until a run
 * in which nothing failed because there were no more.
 *
 *     FAULT_SWEEP(&sweep) {
 *         … set up, without faults …
 *         fault_arm(&sweep, io);
 *         … the calls in question …
 *         fault_disarm(&sweep, io);
 *         … what must hold, whether it failed or not …
 *     }
 *
 * Libraries that allocate by themselves are exempt; docs/testing.md lists them. */
#ifndef TIDALITE_TESTS_LIB_FAULT_H
#define TIDALITE_TESTS_LIB_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/io/io.h"

enum fault_kind {
    FAULT_KIND_ALLOCATION,
    FAULT_KIND_IO_ERROR,    /* EIO */
    FAULT_KIND_IO_NO_SPACE, /* ENOSPC */
    FAULT_KIND_IO_SHORT,    /* a write transfers less */
    FAULT_KIND_COUNT
};

struct fault_sweep {
    enum fault_kind kind;
    bool repeat; /* all behind the n-th fail too, until fault_disarm */
    uint64_t at; /* the n of this run */
    bool fired;  /* in this run, or the one before */
    uint64_t runs;
};

const char *fault_kind_name(enum fault_kind kind);

bool fault_next(struct fault_sweep *sweep);
#define FAULT_SWEEP(sweep) while (fault_next(sweep))

void fault_arm(struct fault_sweep *sweep, struct io *io);

/* The counting ends; sweep->fired says whether the fault was met. */
void fault_disarm(struct fault_sweep *sweep, struct io *io);

#endif
