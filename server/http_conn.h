/* http_conn.h: a client's connection: reads requests one after the other, hands each to its route, writes the
 * answers in order. Everything here runs on the connection's loop. */
#ifndef TIDALITE_SERVER_HTTP_CONN_H
#define TIDALITE_SERVER_HTTP_CONN_H

#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include <zlib.h>

#include "server/http.h"

/* What a connection is doing; http_conn.c has the table of what may follow what. */
enum connection_state {
    CONNECTION_IDLE, /* between requests: no byte of the next one is there */
    CONNECTION_READ_HEAD,
    CONNECTION_READ_BODY,
    CONNECTION_WORK,   /* a handler has the request */
    CONNECTION_REPLY,  /* an answer is being written */
    CONNECTION_LINGER, /* answered without reading the whole request: the rest is thrown away for a while,
                          since closing with unread bytes would reset the connection and lose the answer */
    CONNECTION_CLOSED, /* closing; freed when the handle is closed and no handler has the request */
    CONNECTION_STATE_COUNT
};

struct connection {
    struct loop *loop;
    struct connection *next;
    struct connection *previous;
    uv_tcp_t tcp;
    enum connection_state state;
    bool handle_closed;
    bool working;         /* a handler has the exchange; survives CLOSED */
    bool reading;         /* uv_read_start is on */
    bool end_seen;        /* the client sent its FIN */
    bool refused;         /* over the connection limit: gets a 503 and no more */
    uint64_t deadline_ns; /* 0: none */

    /* Reading. */
    llhttp_t parser;
    struct head_guard guard;
    struct buf head;    /* the head's bytes; the exchange's slices point here */
    struct buf pending; /* bytes behind the request at work */
    struct slice header_name;
    bool expects_continue;
    bool expects_other;
    unsigned host_count;
    bool complete; /* the parser saw the end of the request */
    bool in_body;
    bool body_too_large;
    uint64_t body_bytes_max;
    uint64_t body_left;      /* of a Content-Length body */
    uint64_t body_raw_bytes; /* of a chunked body, framing included */
    bool chunked;
    uint64_t lingered_bytes;
    bool keep_alive;
    bool http_1_0;

    struct exchange exchange;

    /* Writing. */
    uv_write_t write;
    bool write_busy;
    uint64_t reply_bytes; /* handed to the socket, head and all */
    size_t write_left;    /* when last looked at, to see progress */
    struct buf reply_head;
    struct buf reply_zip;
    char chunk_head[20];
    z_stream zip;
    bool zip_open;
    const char *zip_encoding; /* as in Content-Encoding */
    bool reply_chunked;
    bool reply_more; /* `more` has more to say */
    bool close_after;
};

/* Takes the connected socket `fd`. With `refused` it only says 503. */
void connection_open(struct loop *loop, int fd, bool refused);

/* All connections of the loop: enforces the time limits; with `force`, closes them. */
void connections_tick(struct loop *loop, uint64_t now_ns, bool force);
void connections_drain(struct loop *loop, bool at_once);

/* Private to http_conn.c and http_reply.c. */
void connection_state_set(struct connection *connection, enum connection_state state);
void connection_close(struct connection *connection);
void connection_reply_done(struct connection *connection); /* the answer is written */
void connection_deadline_set(struct connection *connection, uint64_t after_ms);
void exchange_reset(struct exchange *exchange); /* releases one request's memory, keeps small buffers */

#endif
