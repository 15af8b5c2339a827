/* generate.h: random write requests for tests, seeds and benchmarks. */
#ifndef TIDALITE_TESTS_PROTO_GENERATE_H
#define TIDALITE_TESTS_PROTO_GENERATE_H

#include <stdint.h>

#include "base/buf.h"

enum spelling {
    SPELLING_PLAIN, /* as Prometheus writes: fields in order, minimal varints, defaults left out in samples
                       only */
    SPELLING_ODD    /* whatever else protobuf allows, every now and then */
};

/* Appends a valid WriteRequest to `out`. The same seed gives the same bytes. */
void write_request_generate(uint64_t seed, enum spelling spelling, struct buf *out);

/* Changes a few bytes of `message` at random: bits, bytes, runs moved, removed or doubled. */
void bytes_mutate(uint64_t seed, struct buf *message);

#endif
