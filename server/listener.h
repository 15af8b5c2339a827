/* listener.h: the one listening socket, and which loop gets a connection. */
#ifndef TIDALITE_SERVER_LISTENER_H
#define TIDALITE_SERVER_LISTENER_H

#include "base/status.h"
#include "server/loop.h"

struct listener {
    struct server *server;
    int fd; /* -1: none */
    bool polling;
    uv_poll_t poll;
    uv_timer_t retry; /* accepting pauses when the process is out of descriptors */
};

/* Binds to "HOST:PORT" ("[::1]:9201", ":9201" for all addresses, port 0 for a free one) without accepting
 * yet, and writes the bound address to server->address. STATUS_BAD_INPUT, STATUS_IO, with a line in `detail`.
 */
int listener_bind(struct listener *listener, struct server *server, const char *address,
                  struct error_detail *detail);

/* Accepts on the server's first loop; before it runs. */
int listener_start(struct listener *listener, struct error_detail *detail);

/* Stops accepting; on the first loop. */
void listener_stop(struct listener *listener);
void listener_release(struct listener *listener);

#endif
