/* rand.c: xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018). */
#include "base/rand.h"

#include <sys/random.h>

#include "base/assert.h"

static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void rand_init(struct rand *rand, uint64_t seed) {
    for (int i = 0; i < 4; i++)
        rand->state[i] = splitmix64(&seed);
}

static uint64_t rotate_left(uint64_t v, int by) {
    return (v << by) | (v >> (64 - by));
}

uint64_t rand_u64(struct rand *rand) {
    uint64_t *s = rand->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rand_below(struct rand *rand, uint64_t bound) {
    ASSERT(bound > 0);
    /* Numbers below `reject` would make small results likelier. */
    uint64_t reject = -bound % bound;
    uint64_t v;
    do {
        v = rand_u64(rand);
    } while (v < reject);
    return v % bound;
}

double rand_double(struct rand *rand) {
    return (double)(rand_u64(rand) >> 11) * 0x1p-53;
}

uint64_t rand_seed_from_system(void) {
    uint64_t seed;
    ASSERT(getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed);
    return seed;
}
