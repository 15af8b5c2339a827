#include "server/loop.h"

#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "server/http_conn.h"

#define TICK_MS                250
#define DRAIN_NS               UINT64_C(20000000000) /* how long clients get to finish their requests */
#define DECODED_KEPT_BYTES_MAX ((size_t)4 << 20)

static void wake_handle(uv_async_t *wake) {
    struct loop *loop = wake->data;
    pthread_mutex_lock(&loop->lock);
    struct mail *mail = loop->mail_first;
    loop->mail_first = NULL;
    loop->mail_last = &loop->mail_first;
    pthread_mutex_unlock(&loop->lock);
    while (mail != NULL) {
        struct mail *next = mail->next;
        mail->run(mail);
        mail = next;
    }
    loop_check_end(loop);
}

static void tick_handle(uv_timer_t *tick) {
    struct loop *loop = tick->data;
    uint64_t now_ns = clock_monotonic_ns(loop->server->clock);
    bool late = loop->draining && now_ns >= loop->drain_deadline_ns;
    connections_tick(loop, now_ns, late);
    if (loop->decoded.capacity > DECODED_KEPT_BYTES_MAX && loop->decoded.len == 0)
        buf_release(&loop->decoded);
    loop_check_end(loop);
}

int loop_init(struct loop *loop, struct server *server) {
    memset(loop, 0, sizeof *loop);
    loop->server = server;
    loop->read_bytes = mem_alloc(LOOP_READ_BYTES);
    if (loop->read_bytes == NULL)
        return STATUS_NO_MEMORY;
    if (uv_loop_init(&loop->uv) != 0) {
        mem_free(loop->read_bytes);
        loop->read_bytes = NULL;
        return STATUS_IO;
    }
    ASSERT(uv_async_init(&loop->uv, &loop->wake, wake_handle) == 0);
    ASSERT(uv_timer_init(&loop->uv, &loop->tick) == 0);
    loop->wake.data = loop;
    loop->tick.data = loop;
    pthread_mutex_init(&loop->lock, NULL);
    loop->mail_last = &loop->mail_first;
    loop->date_s = INT64_MIN;
    arena_init(&loop->arena, 256u << 10, 0);
    return STATUS_OK;
}

void loop_release(struct loop *loop) {
    if (loop->read_bytes == NULL)
        return;
    ASSERT(loop->connections == NULL && loop->mail_first == NULL);
    if (!loop->ended) { /* never ran */
        uv_close((uv_handle_t *)&loop->wake, NULL);
        uv_close((uv_handle_t *)&loop->tick, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
    ASSERT(uv_loop_close(&loop->uv) == 0);
    pthread_mutex_destroy(&loop->lock);
    arena_release(&loop->arena);
    buf_release(&loop->decoded);
    mem_free(loop->read_bytes);
    loop->read_bytes = NULL;
}

void loop_run(struct loop *loop) {
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    ASSERT(loop->ended);
}

static void *thread_main(void *context) {
    loop_run(context);
    return NULL;
}

int loop_thread_start(struct loop *loop) {
    int error = pthread_create(&loop->thread, NULL, thread_main, loop);
    if (error != 0)
        return status_from_errno(error);
    loop->has_thread = true;
    return STATUS_OK;
}

void loop_thread_join(struct loop *loop) {
    if (loop->has_thread)
        pthread_join(loop->thread, NULL);
    loop->has_thread = false;
}

void loop_post(struct loop *loop, struct mail *mail) {
    pthread_mutex_lock(&loop->lock);
    mail->next = NULL;
    *loop->mail_last = mail;
    loop->mail_last = &mail->next;
    /* Inside the lock: when the loop has taken the mail, the poster is done with the loop's handle, so that
     * the mail may be the one that closes it. */
    uv_async_send(&loop->wake);
    pthread_mutex_unlock(&loop->lock);
}

void loop_drain(struct loop *loop, bool at_once) {
    uint64_t now_ns = clock_monotonic_ns(loop->server->clock);
    if (!loop->draining)
        loop->drain_deadline_ns = now_ns + DRAIN_NS;
    if (at_once)
        loop->drain_deadline_ns = now_ns;
    loop->draining = true;
    connections_drain(loop, at_once);
    loop_check_end(loop);
}

void loop_check_end(struct loop *loop) {
    if (!loop->draining || loop->ended || loop->connections != NULL || loop->pending != 0)
        return;
    pthread_mutex_lock(&loop->lock);
    bool empty = loop->mail_first == NULL;
    pthread_mutex_unlock(&loop->lock);
    if (!empty)
        return; /* its own wake-up comes here again */
    loop->ended = true;
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->tick, NULL);
    if (loop->on_end != NULL)
        loop->on_end(loop);
}

void loop_connection_added(struct loop *loop) {
    if (!uv_is_active((uv_handle_t *)&loop->tick))
        uv_timer_start(&loop->tick, tick_handle, TICK_MS, TICK_MS);
}

void loop_connection_removed(struct loop *loop) {
    atomic_fetch_sub(&loop->load, 1);
    if (loop->connections == NULL && !loop->ended)
        uv_timer_stop(&loop->tick);
    loop_check_end(loop);
}

const char *loop_date(struct loop *loop) {
    int64_t now_s = clock_wall_ms(loop->server->clock) / 1000;
    if (now_s != loop->date_s) {
        struct tm parts;
        time_t seconds = (time_t)now_s;
        gmtime_r(&seconds, &parts);
        strftime(loop->date, sizeof loop->date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        loop->date_s = now_s;
    }
    return loop->date;
}
