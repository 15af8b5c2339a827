/* server.h: what all of the server shares. One per process; made by main.c, read-only but for the atomics
 * once the loops run. A reload changes where `config` points; what it pointed to before stays. */
#ifndef TIDALITE_SERVER_SERVER_H
#define TIDALITE_SERVER_SERVER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "server/config.h"
#include "server/queries.h"
#include "server/reload.h"
#include "server/worker.h"
#include "storage/storage.h"

struct loop;

struct server {
    const struct config *_Atomic config;
    struct reload *reload;
    const struct clock *clock;
    struct storage *storage;
    struct workers workers;
    struct queries queries;
    struct loop *loops;
    size_t loop_count;
    int64_t started_ms;
    char address[128];         /* as bound: "127.0.0.1:9201" */
    atomic_size_t connections; /* open, over all loops */
    atomic_bool ready;         /* false again while stopping */
};

#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
