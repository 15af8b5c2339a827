/* reload.h: reads the command line and the configuration file again while the server runs. Either all of it
 * is taken or, if something is wrong or would need a start, nothing. */
#ifndef TIDALITE_SERVER_RELOAD_H
#define TIDALITE_SERVER_RELOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "server/config.h"

struct server;

struct reload {
    struct server *server;
    int argc;
    char **argv;
    pthread_mutex_t lock;  /* one at a time */
    struct config **taken; /* all that server->config has pointed to since: requests may still read them */
    size_t taken_count;
    atomic_bool ok;            /* the last one */
    atomic_int_fast64_t ok_ms; /* when one was last taken; wall clock */
};

/* The start counts as the first. */
void reload_init(struct reload *reload, struct server *server, int argc, char **argv);
void reload_release(struct reload *reload);

/* STATUS_OK, or what is wrong with a line in `detail`; both are logged. Any thread; blocks on reading a file.
 */
int reload_run(struct reload *reload, struct error_detail *detail);

#endif
