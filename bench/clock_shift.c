/* clock_shift.c: preloaded (LD_PRELOAD) it moves the wall clock of a program by $CLOCK_SHIFT_S seconds, and
 * no other clock: what happens at the end of a window can be measured without waiting for it. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *out) {
    static long shift_s;
    static int known;
    long status = syscall(SYS_clock_gettime, clock, out);
    if (!known) {
        const char *text = getenv("CLOCK_SHIFT_S");
        shift_s = text == NULL ? 0 : strtol(text, NULL, 10);
        known = 1;
    }
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec += shift_s;
    return (int)status;
}
