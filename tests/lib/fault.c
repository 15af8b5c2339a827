/* fault.c: see fault.h. */
#include "tests/lib/fault.h"

#include <errno.h>

#include "base/alloc.h"

const char *fault_kind_name(enum fault_kind kind) {
    static const char *const names[] = {"allocation fails", "operation fails", "no space", "short write"};
    return names[kind];
}

bool fault_next(struct fault_sweep *sweep) {
    if (sweep->at > 0 && !sweep->fired)
        return false;
    sweep->at++;
    sweep->runs++;
    sweep->fired = false;
    return true;
}

void fault_arm(struct fault_sweep *sweep, struct io *io) {
    switch (sweep->kind) {
    case FAULT_KIND_ALLOCATION:
        mem_fault_set(sweep->at, sweep->repeat);
        break;
    case FAULT_KIND_IO_SHORT:
        io_fault_set(io, (struct io_fault){.countdown = sweep->at,
                                           .repeat = sweep->repeat,
                                           .short_bytes = 1 + (size_t)(sweep->at * 37 % 5000)});
        break;
    default:
        io_fault_set(io, (struct io_fault){.countdown = sweep->at,
                                           .repeat = sweep->repeat,
                                           .error = sweep->kind == FAULT_KIND_IO_NO_SPACE ? ENOSPC : EIO});
    }
}

void fault_disarm(struct fault_sweep *sweep, struct io *io) {
    if (sweep->kind == FAULT_KIND_ALLOCATION) {
        sweep->fired = mem_fault_set(0, 0) >= sweep->at;
        return;
    }
    sweep->fired = io_fault_fired(io);
    io_fault_set(io, (struct io_fault){0});
}
