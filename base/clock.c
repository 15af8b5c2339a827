/* clock.c: the machine's clock. */
#include "base/clock.h"

#include <stddef.h>
#include <time.h>

static int64_t system_wall_ms(void *context) {
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t system_monotonic_ns(void *context) {
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const struct clock *clock_system(void) {
    static const struct clock system_clock = {system_wall_ms, system_monotonic_ns, NULL};
    return &system_clock;
}
