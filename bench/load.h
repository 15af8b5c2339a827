/* load.h: the standard load (docs/performance.md): what its series are called, what values they have, and the
 * remote-write requests that carry them. A function of the seed: the same each time. */
#ifndef TIDALITE_BENCH_LOAD_H
#define TIDALITE_BENCH_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct load_series;

struct load {
    uint64_t series;
    uint64_t batch; /* series a request, at most */
    double churn;   /* share of the series replaced by new ones each round */
    int64_t start_ms;
    uint64_t step_ms; /* between rounds */
    uint64_t seed;

    /* load_open's: */
    struct load_series *states;
    uint8_t *raw;
    char *packed;
    size_t packed_max;
};

/* The fields above are set. Ends the program without memory. */
void load_open(struct load *load);
void load_close(struct load *load);

/* The body (snappy) of the request for series [first, first + count) of a round, borrowed until the next
 * call; rounds are asked for one after the other. *raw_len_out: before compression. */
struct slice load_body(struct load *load, uint64_t round, uint64_t first, uint64_t count,
                       size_t *raw_len_out);

#endif
