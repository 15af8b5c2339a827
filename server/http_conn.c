/* http_conn.c: the reading half of a connection.
 *
 * One request at a time: while one is at work, what arrives behind it is kept in `pending`, up to
 * the limit pipeline_bytes_max, then reading pauses until it is answered. So answers are in order, and a
 * client that pipelines without reading costs a bounded buffer. A request is answered in a later turn of the
 * loop than the one before it: a long pipeline does not starve the others.
 *
 * The head is collected as a whole (head_guard_feed bounds it), then parsed by llhttp in one call, so that
 * its slices point into one buffer. A body with Content-Length is read by the socket straight into the
 * exchange's buffer. */
#include "server/http_conn.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/api.h"

#define FRAMING_BYTES_MIN    ((uint64_t)64 << 10) /* of chunk framing that every body may have */
#define BODY_SMALL_BYTES_MAX ((uint64_t)64 << 10)
#define ARENA_PIECE_BYTES    ((size_t)4096)
#define LINGER_MS            2000
#define LINGER_BYTES_MAX     ((uint64_t)64 << 20)
#define KEPT_BYTES_MAX       ((size_t)256 << 10)
#define PATH_LOGGED_BYTES    256 /* the rest of a line has room, too, when all of it is escaped */
#define QUERY_LOGGED_BYTES   1024

/* state → the states that may follow */
#define MAY(state) (1u << CONNECTION_##state)
static const unsigned transitions[CONNECTION_STATE_COUNT] = {
    [CONNECTION_IDLE] = MAY(READ_HEAD) | MAY(REPLY) | MAY(CLOSED),
    [CONNECTION_READ_HEAD] = MAY(READ_BODY) | MAY(WORK) | MAY(REPLY) | MAY(CLOSED),
    [CONNECTION_READ_BODY] = MAY(WORK) | MAY(REPLY) | MAY(CLOSED),
    [CONNECTION_WORK] = MAY(REPLY) | MAY(CLOSED),
    [CONNECTION_REPLY] = MAY(IDLE) | MAY(LINGER) | MAY(CLOSED),
    [CONNECTION_LINGER] = MAY(CLOSED),
    [CONNECTION_CLOSED] = 0,
};

void connection_state_set(struct connection *connection, enum connection_state state) {
    ASSERT((transitions[connection->state] & (1u << state)) != 0);
    connection->state = state;
}

void connection_deadline_set(struct connection *connection, uint64_t after_ms) {
    connection->deadline_ns = clock_monotonic_ns(connection->loop->server->clock) + after_ms * 1000000;
}

static const struct limits *limits_of(const struct connection *connection) {
    return &connection->loop->server->config->limits;
}

/* ---- Ending ---------------------------------------------------------------------------------------------
 */

static void connection_free(struct connection *connection) {
    struct loop *loop = connection->loop;
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        loop->connections = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    exchange_reset(&connection->exchange);
    arena_release(&connection->exchange.arena);
    buf_release(&connection->exchange.body);
    buf_release(&connection->exchange.out);
    buf_release(&connection->exchange.headers);
    buf_release(&connection->head);
    buf_release(&connection->pending);
    buf_release(&connection->reply_head);
    buf_release(&connection->reply_zip);
    if (!connection->refused) {
        atomic_fetch_sub(&loop->server->connections, 1);
        metric_sub(METRIC_http_connections_open, 1);
    }
    mem_free(connection);
    loop_connection_removed(loop);
}

static void connection_maybe_free(struct connection *connection) {
    if (connection->handle_closed && !connection->working)
        connection_free(connection);
}

static void closed_handle(uv_handle_t *handle) {
    struct connection *connection = handle->data;
    connection->handle_closed = true;
    connection_maybe_free(connection);
}

void connection_close(struct connection *connection) {
    if (connection->state == CONNECTION_CLOSED)
        return;
    connection_state_set(connection, CONNECTION_CLOSED);
    atomic_store(&connection->exchange.gone, true);
    uv_close((uv_handle_t *)&connection->tcp, closed_handle);
}

/* ---- The request ----------------------------------------------------------------------------------------
 */

static void exchange_keep(struct buf *buf) {
    if (buf->capacity > KEPT_BYTES_MAX)
        buf_release(buf);
    else
        buf_clear(buf);
}

void exchange_reset(struct exchange *exchange) {
    if (exchange->release != NULL)
        exchange->release(exchange);
    exchange->release = NULL;
    exchange->more = NULL;
    exchange->context = NULL;
    exchange->route = NULL;
    exchange->code = 0;
    exchange->read_ns = 0;
    exchange->type = NULL;
    exchange->method = 0;
    exchange->path = exchange->route_path = slice_of(NULL, 0);
    exchange->query = exchange->segment = slice_of(NULL, 0);
    exchange->content_type = exchange->content_encoding = slice_of(NULL, 0);
    exchange->accept = exchange->accept_encoding = exchange->origin = slice_of(NULL, 0);
    exchange_keep(&exchange->body);
    exchange_keep(&exchange->headers);
    exchange_keep(&exchange->out);
    if (exchange->arena.bytes > KEPT_BYTES_MAX) {
        size_t bytes_max = exchange->arena.bytes_max;
        arena_release(&exchange->arena);
        arena_init(&exchange->arena, ARENA_PIECE_BYTES, bytes_max);
    } else {
        arena_reset(&exchange->arena);
    }
}

/* An answer of ours to a request that no handler has seen; closes the connection behind it. */
static void connection_refuse(struct connection *connection, int code, const char *text) {
    if (code != 408 && code != 413 && code != 503)
        metric_add(METRIC_http_bad_requests, 1);
    connection->close_after = true;
    connection->working = true;
    exchange_text(&connection->exchange, code, "%s", text);
    exchange_send(&connection->exchange);
}

static void request_dispatch(struct connection *connection) {
    struct exchange *exchange = &connection->exchange;
    connection_state_set(connection, CONNECTION_WORK);
    connection->deadline_ns = 0;
    connection->working = true;
    exchange->read_ns = clock_monotonic_ns(connection->loop->server->clock);
    if (connection->loop->draining)
        connection->close_after = true;
    api_dispatch(exchange);
}

/* Starts waiting for the next request; its first byte may be there already. */
static void request_prepare(struct connection *connection);

/* ---- llhttp's callbacks ---------------------------------------------------------------------------------
 */

static int url_take(llhttp_t *parser, const char *at, size_t len) {
    struct connection *connection = parser->data;
    struct exchange *exchange = &connection->exchange;
    struct slice prefix = slice_str(connection->loop->server->config->path_prefix);
    target_split(slice_of(at, len), &exchange->path, &exchange->query);
    exchange->route_path = slice_of(NULL, 0);
    if (slice_starts_with(exchange->path, prefix))
        exchange->route_path = slice_of(exchange->path.data + prefix.len, exchange->path.len - prefix.len);
    return 0;
}

static int header_name_take(llhttp_t *parser, const char *at, size_t len) {
    struct connection *connection = parser->data;
    if (connection->in_body)
        return -1; /* trailers: nobody sends them, and the guard has not seen them */
    connection->header_name = slice_of(at, len);
    return 0;
}

static int header_value_take(llhttp_t *parser, const char *at, size_t len) {
    struct connection *connection = parser->data;
    struct exchange *exchange = &connection->exchange;
    struct slice name = connection->header_name, value = slice_trim(slice_of(at, len));
    if (slice_equal_nocase(name, "content-type"))
        exchange->content_type = value;
    else if (slice_equal_nocase(name, "content-encoding"))
        exchange->content_encoding = value;
    else if (slice_equal_nocase(name, "accept"))
        exchange->accept = value;
    else if (slice_equal_nocase(name, "accept-encoding"))
        exchange->accept_encoding = value;
    else if (slice_equal_nocase(name, "origin"))
        exchange->origin = value;
    else if (slice_equal_nocase(name, "host"))
        connection->host_count++;
    else if (slice_equal_nocase(name, "expect")) {
        connection->expects_continue = slice_equal_nocase(value, "100-continue");
        connection->expects_other = !connection->expects_continue;
    }
    return 0;
}

static int headers_complete(llhttp_t *parser) {
    struct connection *connection = parser->data;
    connection->in_body = true;
    connection->chunked = (parser->flags & F_CHUNKED) != 0;
    connection->body_left = connection->chunked ? 0 : parser->content_length;
    connection->keep_alive = llhttp_should_keep_alive(parser) != 0;
    connection->http_1_0 = parser->http_major == 1 && parser->http_minor == 0;
    parser->upgrade = 0; /* we speak one protocol; what follows is the next request */
    return 0;
}

static int body_take(llhttp_t *parser, const char *at, size_t len) {
    struct connection *connection = parser->data;
    struct buf *body = &connection->exchange.body;
    if (len > connection->body_bytes_max - body->len) {
        connection->body_too_large = true;
        return -1;
    }
    if ((const uint8_t *)at == body->data + body->len)
        body->len += len; /* the socket wrote it in place */
    else
        buf_append(body, at, len);
    return body->failed ? -1 : 0;
}

static int message_complete(llhttp_t *parser) {
    struct connection *connection = parser->data;
    connection->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t parser_settings = {
    .on_url = url_take,
    .on_header_field = header_name_take,
    .on_header_value = header_value_take,
    .on_headers_complete = headers_complete,
    .on_body = body_take,
    .on_message_complete = message_complete,
};

static unsigned method_of(uint8_t method) {
    switch (method) {
    case HTTP_GET:
        return METHOD_GET;
    case HTTP_HEAD:
        return METHOD_HEAD;
    case HTTP_POST:
        return METHOD_POST;
    case HTTP_PUT:
        return METHOD_PUT;
    case HTTP_OPTIONS:
        return METHOD_OPTIONS;
    default:
        return METHOD_OTHER;
    }
}

/* ---- Head and body --------------------------------------------------------------------------------------
 */

static uint64_t body_bytes_max(const struct connection *connection, unsigned method) {
    const struct route *route;
    struct slice segment;
    if (route_find(connection->exchange.route_path, method, &route, &segment) != ROUTE_FOUND)
        return BODY_SMALL_BYTES_MAX;
    switch (route->body) {
    case BODY_WRITE:
        return limits_of(connection)->body_bytes_max;
    case BODY_FORM:
        return limits_of(connection)->form_bytes_max;
    case BODY_SMALL:
        break;
    }
    return BODY_SMALL_BYTES_MAX;
}

static void body_refuse_large(struct connection *connection) {
    struct exchange *exchange = &connection->exchange;
    char text[128];
    snprintf(text, sizeof text, "request body exceeds the %llu bytes limit",
             (unsigned long long)connection->body_bytes_max);
    if (exchange->method == METHOD_POST && slice_equal(exchange->route_path, slice_str("/api/v1/write")))
        metric_add(METRIC_write_requests_large, 1);
    connection_refuse(connection, 413, text);
}

/* The head is in connection->head; true if reading goes on. */
static bool head_parse(struct connection *connection) {
    struct exchange *exchange = &connection->exchange;
    enum llhttp_errno error =
        llhttp_execute(&connection->parser, (const char *)connection->head.data, connection->head.len);
    if (error != HPE_OK && error != HPE_PAUSED) {
        char text[256];
        const char *reason = llhttp_get_error_reason(&connection->parser);
        snprintf(text, sizeof text, "malformed HTTP request: %s",
                 reason != NULL ? reason : llhttp_errno_name(error));
        connection_refuse(connection, 400, text);
        return false;
    }
    exchange->method = method_of(connection->parser.method);
    if (!connection->in_body) {
        connection_refuse(connection, 400, "malformed HTTP request: the head ends too early");
        return false;
    }
    if (connection->parser.http_major != 1 || connection->parser.http_minor > 1) {
        connection_refuse(connection, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
        return false;
    }
    if (connection->host_count > 1 || (connection->host_count == 0 && !connection->http_1_0)) {
        connection_refuse(connection, 400, "malformed HTTP request: one Host header is needed");
        return false;
    }
    if (connection->expects_other) {
        connection_refuse(connection, 417, "only \"Expect: 100-continue\" is understood");
        return false;
    }
    connection->body_bytes_max = body_bytes_max(connection, exchange->method);
    if (connection->body_left > connection->body_bytes_max) {
        body_refuse_large(connection);
        return false;
    }
    if (connection->complete)
        return true;
    connection_state_set(connection, CONNECTION_READ_BODY);
    if (connection->body_left > 0 && buf_reserve(&exchange->body, (size_t)connection->body_left) == NULL) {
        connection_refuse(connection, 503, "out of memory for the request's body");
        return false;
    }
    if (connection->expects_continue && !connection->http_1_0) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)go_on, sizeof go_on - 1);
        if (uv_try_write((uv_stream_t *)&connection->tcp, &buffer, 1) != (int)buffer.len) {
            /* A socket that cannot take 25 bytes when nothing else was sent is broken. */
            connection_close(connection);
            return false;
        }
    }
    return true;
}

static bool head_feed(struct connection *connection, struct slice *data) {
    size_t used = 0;
    if (connection->state == CONNECTION_IDLE) {
        connection_state_set(connection, CONNECTION_READ_HEAD);
        connection_deadline_set(connection, limits_of(connection)->request_read_ms_max);
    }
    switch (head_guard_feed(&connection->guard, limits_of(connection), data->data, data->len, &used)) {
    case HEAD_MORE:
        buf_append(&connection->head, data->data, data->len);
        *data = slice_of(NULL, 0);
        return true;
    case HEAD_COMPLETE:
        buf_append(&connection->head, data->data, used);
        *data = slice_of(data->data + used, data->len - used);
        if (connection->head.failed) {
            connection_close(connection);
            return false;
        }
        return head_parse(connection);
    case HEAD_BAD_LINE_END:
        connection_refuse(connection, 400, "malformed HTTP request: a header line must end with CR LF");
        return false;
    case HEAD_FOLDED:
        connection_refuse(connection, 400, "malformed HTTP request: folded header lines are not accepted");
        return false;
    case HEAD_BAD_BYTE:
        connection_refuse(connection, 400, "malformed HTTP request: a control byte in the head");
        return false;
    case HEAD_TOO_LONG:
        connection_refuse(connection, 431, "the request's header lines are too long");
        return false;
    case HEAD_TOO_MANY:
        connection_refuse(connection, 431, "the request has too many header lines");
        return false;
    case HEAD_URL_TOO_LONG:
        connection_refuse(connection, 414, "the request's URL is too long; send it as a POST form");
        return false;
    }
    return false;
}

static bool body_feed(struct connection *connection, struct slice *data) {
    size_t len = data->len;
    if (connection->chunked) {
        /* Framing has no bound of its own: chunks of one byte are legal, megabytes of chunk extensions are
         * not wanted. */
        connection->body_raw_bytes += len;
        if (connection->body_raw_bytes > connection->body_bytes_max * 8 + FRAMING_BYTES_MIN) {
            connection_refuse(connection, 400, "malformed HTTP request: too much chunk framing");
            return false;
        }
    } else if (len > connection->body_left) {
        len = (size_t)connection->body_left;
    }
    enum llhttp_errno error = llhttp_execute(&connection->parser, (const char *)data->data, len);
    if (error == HPE_PAUSED) {
        const char *stop = llhttp_get_error_pos(&connection->parser);
        len = (size_t)((const uint8_t *)stop - data->data);
        ASSERT(len <= data->len);
    } else if (connection->body_too_large) {
        body_refuse_large(connection);
        return false;
    } else if (error != HPE_OK) {
        if (connection->exchange.body.failed)
            connection_refuse(connection, 503, "out of memory for the request's body");
        else
            connection_refuse(connection, 400, "malformed HTTP request: bad chunked body");
        return false;
    }
    if (!connection->chunked)
        connection->body_left -= len;
    *data = slice_of(data->data + len, data->len - len);
    return true;
}

/* Takes bytes while requests are being read; what is left over goes to `pending`. */
static void connection_feed(struct connection *connection, struct slice data) {
    while (data.len > 0 && connection->state <= CONNECTION_READ_BODY) {
        bool go_on = connection->state == CONNECTION_READ_BODY ? body_feed(connection, &data)
                                                               : head_feed(connection, &data);
        if (!go_on)
            break;
        if (connection->complete)
            request_dispatch(connection);
    }
    if (data.len > 0 && (connection->state == CONNECTION_WORK || connection->state == CONNECTION_REPLY) &&
        !connection->close_after)
        buf_append(&connection->pending, data.data, data.len);
    if (connection->pending.failed)
        connection_close(connection);
}

/* ---- The socket -----------------------------------------------------------------------------------------
 */

static void alloc_handle(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    (void)suggested;
    struct connection *connection = handle->data;
    struct buf *body = &connection->exchange.body;
    if (connection->state == CONNECTION_READ_BODY && !connection->chunked) {
        /* Reserved when the head was read; no more than the body, so that the next request's bytes stay out.
         */
        ASSERT(body->capacity - body->len >= connection->body_left);
        *out = uv_buf_init((char *)body->data + body->len, (unsigned)connection->body_left);
        return;
    }
    *out = uv_buf_init((char *)connection->loop->read_bytes, LOOP_READ_BYTES);
}

static void reading_set(struct connection *connection, bool on);

static void read_handle(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer) {
    struct connection *connection = stream->data;
    if (got == 0 || connection->state == CONNECTION_CLOSED)
        return;
    if (got < 0) {
        connection->end_seen = true;
        reading_set(connection, false);
        /* Behind a FIN an answer may still be read, behind an error not. A query nobody waits for is stopped
         * in both cases: whoever hangs up sends a FIN first. */
        atomic_store(&connection->exchange.gone, true);
        bool answer = connection->state == CONNECTION_WORK || connection->state == CONNECTION_REPLY;
        if (got != UV_EOF || !answer)
            connection_close(connection);
        return;
    }
    if (connection->state == CONNECTION_LINGER) {
        connection->lingered_bytes += (uint64_t)got;
        if (connection->lingered_bytes > LINGER_BYTES_MAX)
            connection_close(connection);
        return;
    }
    connection_feed(connection, slice_of(buffer->base, (size_t)got));
    if (connection->state != CONNECTION_CLOSED &&
        connection->pending.len > limits_of(connection)->pipeline_bytes_max)
        reading_set(connection, false);
}

static void reading_set(struct connection *connection, bool on) {
    if (on == connection->reading || (on && connection->end_seen))
        return;
    connection->reading = on;
    if (!on)
        uv_read_stop((uv_stream_t *)&connection->tcp);
    else if (uv_read_start((uv_stream_t *)&connection->tcp, alloc_handle, read_handle) != 0)
        connection_close(connection);
}

static void request_prepare(struct connection *connection) {
    llhttp_init(&connection->parser, HTTP_REQUEST, &parser_settings);
    connection->parser.data = connection;
    head_guard_init(&connection->guard);
    exchange_keep(&connection->head);
    connection->expects_continue = connection->expects_other = false;
    connection->host_count = 0;
    connection->complete = connection->in_body = connection->chunked = false;
    connection->body_too_large = false;
    connection->body_raw_bytes = connection->body_left = 0;
    connection->exchange.arena.bytes_max = (size_t)limits_of(connection)->query_bytes_max;
    connection_deadline_set(connection, limits_of(connection)->idle_ms_max);
}

static const char *method_name(unsigned method) {
    static const struct {
        unsigned method;
        const char *name;
    } names[] = {{METHOD_GET, "GET"},
                 {METHOD_HEAD, "HEAD"},
                 {METHOD_POST, "POST"},
                 {METHOD_PUT, "PUT"},
                 {METHOD_OPTIONS, "OPTIONS"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].method == method)
            return names[i].name;
    return "other";
}

/* 499: the client left before the answer was written. */
static void request_log(struct connection *connection) {
    const struct exchange *exchange = &connection->exchange;
    char client[64], path[PATH_LOGGED_BYTES + 1], query[QUERY_LOGGED_BYTES + 1];
    bool left = connection->state == CONNECTION_CLOSED;
    uint64_t now_ns = clock_monotonic_ns(connection->loop->server->clock);
    exchange_client(exchange, client, sizeof client);
    snprintf(path, sizeof path, "%.*s", SLICE_ARGS(exchange->path));
    snprintf(query, sizeof query, "%.*s", SLICE_ARGS(exchange->query));
    log_info("request", LOG_STR("client", client), LOG_STR("method", method_name(exchange->method)),
             LOG_STR("path", path), LOG_STR("query", query), LOG_I64("code", left ? 499 : exchange->code),
             LOG_DOUBLE("duration_s", exchange->read_ns > 0 ? (double)(now_ns - exchange->read_ns) / 1e9 : 0),
             LOG_U64("request_bytes", exchange->body.len), LOG_U64("reply_bytes", connection->reply_bytes));
}

void connection_reply_done(struct connection *connection) {
    connection->working = false;
    if (connection->loop->server->config->request_log)
        request_log(connection);
    connection->reply_bytes = 0;
    exchange_reset(&connection->exchange);
    if (connection->state == CONNECTION_CLOSED) {
        connection_maybe_free(connection);
        return;
    }
    metric_add(METRIC_http_requests, 1);
    if (connection->close_after || connection->loop->draining) {
        if (connection->complete && connection->pending.len == 0) {
            connection_close(connection);
            return;
        }
        connection_state_set(connection, CONNECTION_LINGER);
        connection_deadline_set(connection, LINGER_MS);
        buf_release(&connection->pending);
        uv_os_fd_t fd;
        if (connection->end_seen || uv_fileno((uv_handle_t *)&connection->tcp, &fd) != 0 ||
            shutdown(fd, SHUT_WR) != 0)
            connection_close(connection);
        else
            reading_set(connection, true);
        return;
    }
    connection_state_set(connection, CONNECTION_IDLE);
    atomic_store(&connection->exchange.gone, connection->end_seen);
    request_prepare(connection);
    if (connection->pending.len > 0) {
        /* Feeding may put the rest back. */
        struct buf pending = connection->pending;
        buf_init(&connection->pending);
        connection_feed(connection, buf_slice(&pending));
        buf_release(&pending);
        if (connection->state == CONNECTION_CLOSED)
            return;
    }
    if (connection->end_seen && connection->state <= CONNECTION_READ_BODY)
        connection_close(connection);
    else if (connection->pending.len <= limits_of(connection)->pipeline_bytes_max)
        reading_set(connection, true);
}

void connection_open(struct loop *loop, int fd, bool refused) {
    struct connection *connection = mem_zalloc(sizeof *connection);
    if (connection == NULL) {
        close(fd);
        atomic_fetch_sub(&loop->load, 1);
        if (!refused)
            atomic_fetch_sub(&loop->server->connections, 1);
        return;
    }
    connection->loop = loop;
    connection->refused = refused;
    connection->exchange.server = loop->server;
    connection->exchange.loop = loop;
    atomic_init(&connection->exchange.gone, false);
    arena_init(&connection->exchange.arena, ARENA_PIECE_BYTES,
               (size_t)limits_of(connection)->query_bytes_max);
    connection->next = loop->connections;
    if (loop->connections != NULL)
        loop->connections->previous = connection;
    loop->connections = connection;
    loop_connection_added(loop);
    if (!refused)
        metric_add(METRIC_http_connections_open, 1);
    ASSERT(uv_tcp_init(&loop->uv, &connection->tcp) == 0);
    connection->tcp.data = connection;
    if (uv_tcp_open(&connection->tcp, fd) != 0) {
        close(fd);
        connection_close(connection);
        return;
    }
    uv_tcp_nodelay(&connection->tcp, 1);
    request_prepare(connection);
    if (refused) {
        char seconds[24];
        snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)limits_of(connection)->retry_after_s);
        exchange_header(&connection->exchange, "Retry-After", seconds);
        connection->close_after = true;
        connection->working = true;
        exchange_text(&connection->exchange, 503, "too many connections (--max-connections)");
        exchange_send(&connection->exchange);
        return;
    }
    if (loop->draining)
        connection_close(connection);
    else
        reading_set(connection, true);
}

void exchange_client(const struct exchange *exchange, char *out, size_t bytes) {
    const struct connection *connection = CONTAINER_OF(exchange, struct connection, exchange);
    struct sockaddr_storage peer;
    int len = (int)sizeof peer;
    char host[INET6_ADDRSTRLEN];
    out[0] = 0;
    if (uv_tcp_getpeername(&connection->tcp, (struct sockaddr *)&peer, &len) != 0)
        return;
    if (peer.ss_family == AF_INET && uv_ip4_name((struct sockaddr_in *)&peer, host, sizeof host) == 0)
        snprintf(out, bytes, "%s:%u", host, (unsigned)ntohs(((struct sockaddr_in *)&peer)->sin_port));
    else if (peer.ss_family == AF_INET6 && uv_ip6_name((struct sockaddr_in6 *)&peer, host, sizeof host) == 0)
        snprintf(out, bytes, "[%s]:%u", host, (unsigned)ntohs(((struct sockaddr_in6 *)&peer)->sin6_port));
}

/* ---- Time -----------------------------------------------------------------------------------------------
 */

static void connection_expired(struct connection *connection) {
    switch (connection->state) {
    case CONNECTION_READ_HEAD:
    case CONNECTION_READ_BODY:
        metric_add(METRIC_http_timeouts, 1);
        connection_refuse(connection, 408, "the request took too long to arrive (--read-timeout)");
        break;
    case CONNECTION_REPLY:
        metric_add(METRIC_http_timeouts, 1);
        connection_close(connection);
        break;
    default:
        connection_close(connection);
    }
}

void connections_tick(struct loop *loop, uint64_t now_ns, bool force) {
    for (struct connection *connection = loop->connections, *next; connection != NULL; connection = next) {
        next = connection->next;
        if (connection->state == CONNECTION_CLOSED)
            continue;
        if (force) {
            connection_close(connection);
            continue;
        }
        if (connection->state == CONNECTION_REPLY) {
            size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&connection->tcp);
            if (left != connection->write_left)
                connection_deadline_set(connection, limits_of(connection)->response_write_ms_max);
            connection->write_left = left;
        }
        if (connection->deadline_ns != 0 && now_ns >= connection->deadline_ns)
            connection_expired(connection);
    }
}

/* Has the client sent something that we have not read yet? Then it may count on an answer. */
static bool bytes_wait(struct connection *connection) {
    uv_os_fd_t fd;
    uint8_t byte;
    return uv_fileno((uv_handle_t *)&connection->tcp, &fd) == 0 &&
           recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

void connections_drain(struct loop *loop, bool at_once) {
    for (struct connection *connection = loop->connections, *next; connection != NULL; connection = next) {
        next = connection->next;
        if (at_once || (connection->state == CONNECTION_IDLE && !bytes_wait(connection)))
            connection_close(connection);
        else
            connection->close_after = true;
    }
}
