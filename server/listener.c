/* listener.c: one listener, and accepted sockets handed to the least loaded loop. SO_REUSEPORT would let a
 * second server take the same port unnoticed, and would tie a sender's single connection to one loop by
 * chance. */
#include "server/listener.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/http_conn.h"

#define BACKLOG          1024
#define ACCEPTS_PER_TURN 64
#define RETRY_MS         100
#define REFUSED_AT_ONCE  64 /* connections over the limit that get an answer; more are just closed */
#define HOST_BYTES       256

/* ---- Binding --------------------------------------------------------------------------------------------
 */

static int address_split(const char *address, char *host, char *port, size_t bytes,
                         struct error_detail *detail) {
    const char *colon = strrchr(address, ':');
    size_t host_len = colon == NULL ? 0 : (size_t)(colon - address);
    if (colon == NULL || colon[1] == 0 || host_len >= bytes || strlen(colon + 1) >= bytes)
        return error_set(detail, STATUS_BAD_INPUT, "--listen \"%s\" is not HOST:PORT, as in 127.0.0.1:9201",
                         address);
    if (host_len >= 2 && address[0] == '[' && address[host_len - 1] == ']') {
        address++;
        host_len -= 2;
    } else if (memchr(address, ':', host_len) != NULL) {
        return error_set(detail, STATUS_BAD_INPUT, "--listen \"%s\": write an IPv6 address as [::1]:9201",
                         address);
    }
    memcpy(host, address, host_len);
    host[host_len] = 0;
    snprintf(port, bytes, "%s", colon + 1);
    return STATUS_OK;
}

static void address_name(struct listener *listener) {
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    char host[HOST_BYTES], port[32];
    char *out = listener->server->address;
    size_t bytes = sizeof listener->server->address;
    if (getsockname(listener->fd, (struct sockaddr *)&bound, &len) != 0 ||
        getnameinfo((struct sockaddr *)&bound, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(out, bytes, "%s", listener->server->config->listen);
    else
        snprintf(out, bytes, bound.ss_family == AF_INET6 ? "[%.100s]:%s" : "%.100s:%s", host, port);
}

static int socket_bind(struct listener *listener, const struct addrinfo *info) {
    int on = 1;
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, info->ai_protocol);
    if (fd < 0)
        return errno;
    /* Restarting on a port whose old connections linger in TIME_WAIT; a live listener still excludes us. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int error = errno;
        close(fd);
        return error;
    }
    listener->fd = fd;
    return 0;
}

int listener_bind(struct listener *listener, struct server *server, const char *address,
                  struct error_detail *detail) {
    char host[HOST_BYTES], port[HOST_BYTES];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE},
                    *infos;
    int status = STATUS_OK;
    *listener = (struct listener){.server = server, .fd = -1};
    TRY(address_split(address, host, port, sizeof host, detail));
    int error = getaddrinfo(host[0] == 0 ? NULL : host, port, &hints, &infos);
    if (error != 0)
        return error_set(detail, STATUS_BAD_INPUT, "--listen \"%s\": %s", address, gai_strerror(error));
    error = EADDRNOTAVAIL;
    for (const struct addrinfo *info = infos; info != NULL && error != 0; info = info->ai_next)
        error = socket_bind(listener, info);
    freeaddrinfo(infos);
    if (error == EADDRINUSE)
        return error_set(
            detail, STATUS_IO,
            "cannot listen on %s: the port is in use; stop what uses it or choose another with --listen",
            address);
    if (error != 0)
        return error_set(detail, STATUS_IO, "cannot listen on %s: %s; choose another with --listen", address,
                         strerror(error));
    address_name(listener);
out:
    return status;
}

/* ---- Accepting ------------------------------------------------------------------------------------------
 */

/* An accepted socket on its way to its loop. */
struct handover {
    struct mail mail;
    struct loop *loop;
    int fd;
    bool refused;
};

static void handover_run(struct mail *mail) {
    struct handover *handover = CONTAINER_OF(mail, struct handover, mail);
    connection_open(handover->loop, handover->fd, handover->refused);
    mem_free(handover);
}

static struct loop *least_loaded(struct server *server) {
    struct loop *best = &server->loops[0];
    size_t best_load = atomic_load(&best->load);
    for (size_t i = 1; i < server->loop_count; i++) {
        size_t load = atomic_load(&server->loops[i].load);
        if (load < best_load) {
            best = &server->loops[i];
            best_load = load;
        }
    }
    return best;
}

static void socket_hand_over(struct listener *listener, int fd) {
    struct server *server = listener->server;
    size_t open = atomic_fetch_add(&server->connections, 1),
           open_max = server->config->limits.connections_max;
    bool refused = open >= open_max;
    metric_add(refused ? METRIC_http_connections_refused : METRIC_http_connections, 1);
    struct handover *handover = NULL;
    size_t load = 0;
    for (size_t i = 0; refused && i < server->loop_count; i++)
        load += atomic_load(&server->loops[i].load);
    if (!refused || load < open_max + REFUSED_AT_ONCE)
        handover = mem_alloc(sizeof *handover);
    if (refused || handover == NULL)
        atomic_fetch_sub(&server->connections, 1);
    if (handover == NULL) {
        close(fd);
        return;
    }
    *handover = (struct handover){
        .mail = {.run = handover_run}, .loop = least_loaded(server), .fd = fd, .refused = refused};
    atomic_fetch_add(&handover->loop->load, 1);
    loop_post(handover->loop, &handover->mail);
}

static void poll_handle(uv_poll_t *poll, int status, int events);

static void retry_handle(uv_timer_t *retry) {
    struct listener *listener = retry->data;
    uv_poll_start(&listener->poll, UV_READABLE, poll_handle);
}

static void poll_handle(uv_poll_t *poll, int status, int events) {
    struct listener *listener = poll->data;
    (void)events;
    if (status < 0)
        return;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            socket_hand_over(listener, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN) {
            /* Out of descriptors or memory: the socket stays readable, so asking again at once would spin. */
            log_warn("cannot accept connections", LOG_STR("reason", strerror(errno)));
            uv_poll_stop(&listener->poll);
            uv_timer_start(&listener->retry, retry_handle, RETRY_MS, 0);
        }
        return;
    }
}

int listener_start(struct listener *listener, struct error_detail *detail) {
    uv_loop_t *uv = &listener->server->loops[0].uv;
    if (uv_poll_init(uv, &listener->poll, listener->fd) != 0)
        return error_set(detail, STATUS_IO, "cannot watch the listening socket");
    ASSERT(uv_timer_init(uv, &listener->retry) == 0);
    listener->poll.data = listener;
    listener->retry.data = listener;
    listener->polling = true;
    ASSERT(uv_poll_start(&listener->poll, UV_READABLE, poll_handle) == 0);
    return STATUS_OK;
}

void listener_stop(struct listener *listener) {
    if (!listener->polling)
        return;
    listener->polling = false;
    uv_close((uv_handle_t *)&listener->poll, NULL);
    uv_close((uv_handle_t *)&listener->retry, NULL);
    close(listener->fd);
    listener->fd = -1;
}

void listener_release(struct listener *listener) {
    if (listener->fd >= 0)
        close(listener->fd);
    listener->fd = -1;
}
