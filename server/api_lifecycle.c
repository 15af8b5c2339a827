/* api_lifecycle.c: /-/reload and /-/quit, behind --enable-lifecycle. */
#include <signal.h>
#include <unistd.h>

#include "server/api.h"

static bool lifecycle_enabled(struct exchange *exchange) {
    if (exchange->server->config->enable_lifecycle)
        return true;
    exchange_text(exchange, 403, "Lifecycle API is not enabled.");
    return false;
}

static void reload_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    struct error_detail detail = {{0}};
    if (reload_run(exchange->server->reload, &detail) == STATUS_OK)
        exchange->code = 200;
    else
        exchange_text(exchange, 500, "failed to reload config: %s", detail.text);
    exchange_post(exchange);
}

void api_reload(struct exchange *exchange) {
    if (lifecycle_enabled(exchange))
        api_work(exchange, reload_work);
    else
        exchange_send(exchange);
}

void api_quit(struct exchange *exchange) {
    bool enabled = lifecycle_enabled(exchange);
    if (enabled)
        exchange_text(exchange, 200, "Requesting termination... Goodbye!");
    exchange_send(exchange);
    if (enabled)
        kill(getpid(), SIGTERM);
}
