/* clock_shift.c: preloaded (LD_PRELOAD) it moves the wall clock of a program by $CLOCK_SHIFT_S seconds and
 * lets it run $CLOCK_RATE times as fast (1) from the start of the program on; no other clock changes. What
 * happens at the end of a window, or in many hours, can be measured without waiting for it. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int64_t shift_ns, started_ns;
static long rate = 1;

static int64_t real_ns(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void settings_read(void) {
    const char *shift = getenv("CLOCK_SHIFT_S"), *speed = getenv("CLOCK_RATE");
    started_ns = real_ns();
    if (shift != NULL)
        shift_ns = strtol(shift, NULL, 10) * NS_PER_S;
    if (speed != NULL)
        rate = strtol(speed, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
        return (int)syscall(SYS_clock_gettime, clock, out);
    pthread_once(&once, settings_read);
    int64_t now_ns = started_ns + shift_ns + (real_ns() - started_ns) * rate;
    *out = (struct timespec){.tv_sec = now_ns / NS_PER_S, .tv_nsec = now_ns % NS_PER_S};
    return 0;
}
