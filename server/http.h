/* http.h: one request and its answer, as handlers see them.
 *
 * A handler runs on the connection's loop with the whole request there. It fills the answer and calls
 * exchange_send, at once or later on the loop; work on another thread comes back with exchange_post, which
 * sends from the loop. From the start of the handler to exchange_send the exchange stays, also when the
 * client leaves meanwhile: `gone` becomes true, the answer goes nowhere, and everything is released all the
 * same. */
#ifndef TIDALITE_SERVER_HTTP_H
#define TIDALITE_SERVER_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/slice.h"
#include "server/http_parse.h"
#include "server/loop.h"
#include "server/routes.h"
#include "server/worker.h"

/* About how much JSON is made, and written, at a time. */
#define REPLY_SLICE_BYTES ((size_t)128 << 10)

struct exchange {
    struct server *server;
    struct loop *loop;

    /* The request; slices are borrowed until exchange_send has released the exchange. */
    unsigned method;
    struct slice path;
    struct slice route_path; /* behind --path-prefix; empty where the path has not that prefix */
    struct slice query;
    struct slice segment; /* what stands for '*' in the route's path, encoded */
    struct slice content_type;
    struct slice content_encoding;
    struct slice accept;
    struct slice accept_encoding;
    struct slice origin;
    struct buf body;
    const struct route *route;
    uint64_t read_ns;   /* when its last byte was there */
    struct arena arena; /* lives as long as the exchange */
    atomic_bool gone; /* the client left, nobody reads the answer; or the query was canceled: stop working */

    /* The answer. */
    int code;
    const char *type;   /* Content-Type; a static string */
    struct buf headers; /* further header lines, each with CRLF */
    struct buf out;     /* the body, or its first part if `more` is set */
    bool (*more)(struct exchange *exchange, struct buf *out); /* on the loop: appends about REPLY_SLICE_BYTES;
                                                                 true while there is still more */
    void (*release)(struct exchange *exchange); /* on the loop: frees what `context` holds; may be NULL */
    void *context;

    struct mail mail;
    struct job job;
};

/* On the loop: sends the answer and, when it is written or the client is gone, releases the exchange. */
void exchange_send(struct exchange *exchange);

/* From any thread: exchange_send on the exchange's loop. */
void exchange_post(struct exchange *exchange);

/* The client's address, "127.0.0.1:50000"; on the loop. "" if the system does not know. */
void exchange_client(const struct exchange *exchange, char *out, size_t bytes);

/* Adds a header line. */
void exchange_header(struct exchange *exchange, const char *name, const char *value);

/* Fills in a short answer, replacing what is there: text/plain with a newline added. */
void exchange_text(struct exchange *exchange, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
