/* rand.h: seeded pseudo-random numbers (xoshiro256**, Blackman and Vigna 2018, seeded by splitmix64), for
 * tests, salts and jitter; not for secrets. The same seed gives the same numbers everywhere. */
#ifndef TIDALITE_BASE_RAND_H
#define TIDALITE_BASE_RAND_H

#include <stdint.h>

struct rand {
    uint64_t state[4];
};

void rand_init(struct rand *rand, uint64_t seed);
uint64_t rand_u64(struct rand *rand);

/* Uniform in [0, bound); bound > 0. */
uint64_t rand_below(struct rand *rand, uint64_t bound);

/* Uniform in [0, 1), 53 bits. */
double rand_double(struct rand *rand);

/* 64 bits from the operating system (getrandom); aborts if it has none. */
uint64_t rand_seed_from_system(void);

#endif
