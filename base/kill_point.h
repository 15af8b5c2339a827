/* kill_point.h: named points at which a test lets the process end as kill -9 ends it, to see what the next
 * start finds. Only builds with -DTIDALITE_KILL_POINTS=ON (the dev preset) have them; in every other build
 * they are nothing. There, two variables of the environment say what happens:
 *
 *     TIDALITE_KILL_AT=block_named:2         the process ends when it passes that point for the second time
 *     TIDALITE_LIMITS=window_ms=250,…        defaults of limits, those without a flag too
 *
 * tests/e2e/test_kill_points.py finds the names in the sources and goes through all of them. */
#ifndef TIDALITE_BASE_KILL_POINT_H
#define TIDALITE_BASE_KILL_POINT_H

#ifdef TIDALITE_KILL_POINTS

#include "base/limits.h"

#define KILL_POINT(name)          kill_point(name)
#define KILL_POINT_LIMITS(limits) kill_point_limits(limits)

/* Any thread. */
void kill_point(const char *name);

void kill_point_limits(struct limits *limits);

#else

#define KILL_POINT(name)          ((void)0)
#define KILL_POINT_LIMITS(limits) ((void)0)

#endif

#endif
