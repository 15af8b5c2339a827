/* proto_private.h: what proto/ and its tests share and nobody else sees. */
#ifndef TIDALITE_PROTO_PRIVATE_H
#define TIDALITE_PROTO_PRIVATE_H

#include <stddef.h>

#include "base/slice.h"

/* Walks a snappy block without decoding it. Returns what is wrong with it (a static string) and where in
 * *offset, or NULL if nothing is. Looks at the elements' headers only. */
const char *snappy_fault_find(struct slice block, size_t *offset);

#endif
