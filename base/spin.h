/* spin.h: a one-byte lock for critical sections of a few dozen instructions that never block. */
#ifndef TIDALITE_BASE_SPIN_H
#define TIDALITE_BASE_SPIN_H

#include <sched.h>
#include <stdatomic.h>

struct spin {
    atomic_uchar held;
};

static inline void spin_lock(struct spin *spin) {
    for (unsigned tries = 0; atomic_exchange_explicit(&spin->held, 1, memory_order_acquire) != 0; tries++) {
        /* Whoever holds it may have been descheduled: on one core spinning would wait for nothing. */
        if (tries % 64 == 63)
            sched_yield();
    }
}

static inline void spin_unlock(struct spin *spin) {
    atomic_store_explicit(&spin->held, 0, memory_order_release);
}

#endif
