/* oracle.h: what protobuf-c makes of a write request, held against what proto_write_request_decode made of
 * it. */
#ifndef TIDALITE_TESTS_PROTO_ORACLE_H
#define TIDALITE_TESTS_PROTO_ORACLE_H

#include <stdbool.h>

#include "base/batch.h"
#include "base/slice.h"

/* NULL if both agree, else what they do not agree on (static text). `status` and, where it is STATUS_OK,
 * `batch` are our decoder's answer for `message`. Messages that protobuf-c is known to read differently
 * (oracle.c lists how) are not compared: then *compared is false. */
const char *oracle_judge(struct slice message, int status, const struct write_batch *batch, bool *compared);

#endif
