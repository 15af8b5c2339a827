/* http_reply.c: the writing half of a connection.
 *
 * An answer goes out in pieces: one write to the socket is under way at a time, and the next piece is made
 * when the one before it is written, so a slow reader holds one piece in memory and never a whole result. An
 * answer that is complete from the start has a Content-Length; one with `more` is chunked (for HTTP/1.0:
 * ended by closing). */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/http_conn.h"

#define ZIP_BYTES_MIN ((size_t)1024) /* smaller answers are not worth compressing */
#define ZIP_LEVEL     1
#define ZIP_WINDOW    15 /* zlib's largest */
#define ZIP_GZIP      16 /* added to it: gzip's header in place of zlib's */

static const char *reason_phrase(int code) {
    switch (code) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 400:
        return "Bad Request";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 406:
        return "Not Acceptable";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 415:
        return "Unsupported Media Type";
    case 417:
        return "Expectation Failed";
    case 422:
        return "Unprocessable Content";
    case 431:
        return "Request Header Fields Too Large";
    case 499:
        return "Client Closed Request";
    case 500:
        return "Internal Server Error";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    case 507:
        return "Insufficient Storage";
    default:
        return "Unknown";
    }
}

static void reply_end(struct connection *connection) {
    if (connection->zip_open)
        deflateEnd(&connection->zip);
    connection->zip_open = false;
    connection_reply_done(connection);
}

/* Compresses what is in `out` behind what is in reply_zip; the last piece ends the stream. */
static bool zip_feed(struct connection *connection, bool last) {
    struct buf *out = &connection->exchange.out, *zipped = &connection->reply_zip;
    z_stream *zip = &connection->zip;
    buf_clear(zipped);
    zip->next_in = out->data;
    zip->avail_in = (uInt)out->len;
    int result;
    do {
        size_t room = (size_t)deflateBound(zip, zip->avail_in) + 64;
        uint8_t *at = buf_reserve(zipped, room);
        if (at == NULL)
            return false;
        zip->next_out = at;
        zip->avail_out = (uInt)room;
        result = deflate(zip, last ? Z_FINISH : Z_SYNC_FLUSH);
        zipped->len += room - zip->avail_out;
    } while (result == Z_OK && zip->avail_out == 0);
    return result == (last ? Z_STREAM_END : Z_OK) || (result == Z_BUF_ERROR && zip->avail_in == 0 && !last);
}

static void write_next(struct connection *connection);

static void write_handle(uv_write_t *write, int status) {
    struct connection *connection = write->data;
    if (status < 0 && connection->state != CONNECTION_CLOSED)
        connection_close(connection);
    if (connection->state == CONNECTION_CLOSED) {
        reply_end(connection);
        return;
    }
    connection_deadline_set(connection, connection->loop->server->config->limits.response_write_ms_max);
    if (connection->reply_more)
        write_next(connection);
    else
        reply_end(connection);
}

static void write_start(struct connection *connection, const uv_buf_t *buffers, unsigned count) {
    connection->write.data = connection;
    for (unsigned i = 0; i < count; i++)
        connection->reply_bytes += buffers[i].len;
    int error = uv_write(&connection->write, (uv_stream_t *)&connection->tcp, buffers, count, write_handle);
    connection->write_left = uv_stream_get_write_queue_size((uv_stream_t *)&connection->tcp);
    if (error != 0) {
        connection_close(connection);
        reply_end(connection);
    }
}

/* Writes `payload` as the next chunk (or plainly), the head before it if it is still there, and the end
 * behind the last one. */
static void write_piece(struct connection *connection, struct slice payload) {
    static const char chunk_end[] = "\r\n", last_chunk[] = "0\r\n\r\n";
    uv_buf_t buffers[5];
    unsigned count = 0;
    bool chunked = connection->reply_chunked;
    if (connection->reply_head.len > 0)
        buffers[count++] =
            uv_buf_init((char *)connection->reply_head.data, (unsigned)connection->reply_head.len);
    if (payload.len > 0) {
        if (chunked) {
            int len = snprintf(connection->chunk_head, sizeof connection->chunk_head, "%zx\r\n", payload.len);
            buffers[count++] = uv_buf_init(connection->chunk_head, (unsigned)len);
        }
        buffers[count++] = uv_buf_init((char *)(uintptr_t)payload.data, (unsigned)payload.len);
        if (chunked)
            buffers[count++] = uv_buf_init((char *)(uintptr_t)chunk_end, 2);
    }
    if (chunked && !connection->reply_more)
        buffers[count++] = uv_buf_init((char *)(uintptr_t)last_chunk, 5);
    write_start(connection, buffers, count);
}

/* A long answer that breaks off: the client must see that it is not whole, so the connection just ends. */
static void write_break(struct connection *connection, const char *why) {
    log_error("an answer broke off", LOG_STR("reason", why));
    connection_close(connection);
    reply_end(connection);
}

static void write_next(struct connection *connection) {
    struct exchange *exchange = &connection->exchange;
    buf_clear(&connection->reply_head);
    buf_clear(&exchange->out);
    connection->reply_more = exchange->more(exchange, &exchange->out);
    if (exchange->out.failed) {
        write_break(connection, "out of memory");
        return;
    }
    if (connection->zip_open && !zip_feed(connection, !connection->reply_more)) {
        write_break(connection, "compression failed");
        return;
    }
    write_piece(connection, buf_slice(connection->zip_open ? &connection->reply_zip : &exchange->out));
}

/* gzip wherever it is offered: "deflate" is read as a zlib stream by some and without zlib's header by
 * others. NULL: neither is offered, or it is not worth it. */
static const char *zip_encoding(const struct exchange *exchange) {
    if ((exchange->out.len < ZIP_BYTES_MIN && exchange->more == NULL) || exchange->method == METHOD_HEAD ||
        exchange->code == 204)
        return NULL;
    if (header_offers(exchange->accept_encoding, "gzip"))
        return "gzip";
    return header_offers(exchange->accept_encoding, "deflate") ? "deflate" : NULL;
}

static void zip_begin(struct connection *connection) {
    const char *encoding = zip_encoding(&connection->exchange);
    if (encoding == NULL)
        return;
    int window = ZIP_WINDOW + (strcmp(encoding, "gzip") == 0 ? ZIP_GZIP : 0);
    memset(&connection->zip, 0, sizeof connection->zip);
    connection->zip_encoding = encoding;
    connection->zip_open =
        deflateInit2(&connection->zip, ZIP_LEVEL, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY) == Z_OK;
    if (connection->zip_open && !zip_feed(connection, !connection->reply_more)) {
        deflateEnd(&connection->zip);
        connection->zip_open = false;
    }
}

static void reply_head_make(struct connection *connection, bool has_body, size_t len) {
    struct exchange *exchange = &connection->exchange;
    struct buf *head = &connection->reply_head;
    buf_printf(head, "HTTP/1.1 %d %s\r\nDate: %s\r\n", exchange->code, reason_phrase(exchange->code),
               loop_date(connection->loop));
    if (exchange->type != NULL && exchange->code != 204)
        buf_printf(head, "Content-Type: %s\r\n", exchange->type);
    if (connection->zip_open)
        buf_printf(head, "Content-Encoding: %s\r\n", connection->zip_encoding);
    if (connection->zip_open || exchange->accept_encoding.len > 0)
        buf_append_str(head, "Vary: Accept-Encoding\r\n");
    if (connection->reply_chunked)
        buf_append_str(head, "Transfer-Encoding: chunked\r\n");
    else if (has_body)
        buf_printf(head, "Content-Length: %zu\r\n", len);
    if (connection->close_after)
        buf_append_str(head, "Connection: close\r\n");
    else if (connection->http_1_0)
        buf_append_str(head, "Connection: keep-alive\r\n");
    buf_append(head, exchange->headers.data, exchange->headers.len);
    buf_append_str(head, "\r\n");
}

static void reply_begin(struct connection *connection) {
    struct exchange *exchange = &connection->exchange;
    connection_state_set(connection, CONNECTION_REPLY);
    connection_deadline_set(connection, connection->loop->server->config->limits.response_write_ms_max);
    if ((connection->complete && !connection->keep_alive) || connection->loop->draining)
        connection->close_after = true;
    if (exchange->out.failed || exchange->headers.failed) {
        exchange->more = NULL;
        buf_clear(&exchange->headers);
        exchange_text(exchange, 503, "out of memory for the answer");
    }

    connection->reply_more = exchange->more != NULL && exchange->method != METHOD_HEAD;
    connection->reply_chunked = connection->reply_more && !connection->http_1_0;
    if (connection->reply_more && connection->http_1_0)
        connection->close_after = true;
    zip_begin(connection);
    struct slice payload = buf_slice(connection->zip_open ? &connection->reply_zip : &exchange->out);
    buf_clear(&connection->reply_head);
    reply_head_make(connection, exchange->code != 204 && !(exchange->more != NULL), payload.len);
    if (connection->reply_head.failed) {
        connection_close(connection);
        reply_end(connection);
        return;
    }
    if (exchange->method == METHOD_HEAD || exchange->code == 204)
        payload.len = 0;
    write_piece(connection, payload);
}

void exchange_send(struct exchange *exchange) {
    struct connection *connection = CONTAINER_OF(exchange, struct connection, exchange);
    ASSERT(connection->working);
    if (connection->state == CONNECTION_CLOSED)
        reply_end(connection);
    else
        reply_begin(connection);
}

static void post_handle(struct mail *mail) {
    exchange_send(CONTAINER_OF(mail, struct exchange, mail));
}

void exchange_post(struct exchange *exchange) {
    exchange->mail.run = post_handle;
    loop_post(exchange->loop, &exchange->mail);
}

void exchange_header(struct exchange *exchange, const char *name, const char *value) {
    buf_printf(&exchange->headers, "%s: %s\r\n", name, value);
}

void exchange_text(struct exchange *exchange, int code, const char *format, ...) {
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (len < 0)
        len = 0;
    if ((size_t)len >= sizeof text)
        len = sizeof text - 1;
    exchange->code = code;
    exchange->type = "text/plain; charset=utf-8";
    buf_clear(&exchange->out);
    buf_append(&exchange->out, text, (size_t)len);
    buf_append_byte(&exchange->out, '\n');
}
