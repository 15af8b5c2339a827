/* clock.h: time is an argument. Code that needs the time takes a clock, so that a test or a simulation can
 * set it; only clock_system() reads the machine's. */
#ifndef TIDALITE_BASE_CLOCK_H
#define TIDALITE_BASE_CLOCK_H

#include <stdint.h>

struct clock {
    int64_t (*wall_ms)(void *context);       /* Unix time, milliseconds; may jump */
    uint64_t (*monotonic_ns)(void *context); /* never goes back; no epoch */
    void *context;
};

/* The machine's clock; valid for ever. */
const struct clock *clock_system(void);

static inline int64_t clock_wall_ms(const struct clock *clock) {
    return clock->wall_ms(clock->context);
}

static inline uint64_t clock_monotonic_ns(const struct clock *clock) {
    return clock->monotonic_ns(clock->context);
}

#endif
