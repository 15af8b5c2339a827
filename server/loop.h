/* loop.h: the libuv loops. Each has a thread, its connections, and a mailbox through which other threads
 * (storage's, the workers, the loop that accepts) hand it work.
 *
 * Connections live and die on their loop; only mail crosses threads. */
#ifndef TIDALITE_SERVER_LOOP_H
#define TIDALITE_SERVER_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/arena.h"
#include "base/buf.h"
#include "server/server.h"

#define LOOP_READ_BYTES 65536

struct mail {
    struct mail *next;
    void (*run)(struct mail *mail); /* on the loop; the mail may be freed or reused inside */
};

struct connection;

struct loop {
    struct server *server;
    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t tick; /* runs while there are connections: time limits */
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock; /* guards mail */
    struct mail *mail_first;
    struct mail **mail_last;

    struct connection *connections; /* open, or closed with a request still at work */
    atomic_size_t load;             /* how many; read by the accepting loop */
    size_t pending;                 /* other things that must end before the loop can: self scrapes */
    bool draining;
    bool ended;
    uint64_t drain_deadline_ns;
    void (*on_end)(struct loop *loop); /* closes what else is open on the loop; may be NULL */

    /* Scratch of whatever runs on the loop just now. */
    uint8_t *read_bytes;
    struct buf decoded;
    struct arena arena;
    char date[40]; /* the Date header's value */
    int64_t date_s;
};

/* STATUS_OK, STATUS_NO_MEMORY, STATUS_IO. */
int loop_init(struct loop *loop, struct server *server);
void loop_release(struct loop *loop); /* after it has ended */

/* Runs the loop until it has drained: here, or on a thread of its own to be joined. */
void loop_run(struct loop *loop);
int loop_thread_start(struct loop *loop);
void loop_thread_join(struct loop *loop);

/* From any thread, while the loop has something pending or has not begun to drain. */
void loop_post(struct loop *loop, struct mail *mail);

/* On the loop: takes no new requests, finishes those in flight, then ends. At once: does not wait for
 * clients. */
void loop_drain(struct loop *loop, bool at_once);

/* On the loop: ends it if it is draining and nothing is left. */
void loop_check_end(struct loop *loop);

/* On the loop: a connection came or went. */
void loop_connection_added(struct loop *loop);
void loop_connection_removed(struct loop *loop);

/* The Date header for now. */
const char *loop_date(struct loop *loop);

#endif
