/* steps.h: what can happen in a world, one step at a time. A new ability of the storage adds a row in steps.c
 * and a rule in model.c. */
#ifndef TIDALITE_TESTS_SIM_STEPS_H
#define TIDALITE_TESTS_SIM_STEPS_H

#include "tests/sim/world.h"

/* Does one step, chosen by the world's random numbers. */
void step_run(struct world *world);

#endif
