#include "server/reload.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/server.h"

static void success_note(struct reload *reload) {
    int64_t now_ms = clock_wall_ms(reload->server->clock);
    atomic_store(&reload->ok, true);
    atomic_store(&reload->ok_ms, now_ms);
    metric_set(METRIC_config_reload_ok, 1);
    metric_set(METRIC_config_reload_time, (uint64_t)(now_ms / 1000));
}

void reload_init(struct reload *reload, struct server *server, int argc, char **argv) {
    *reload = (struct reload){.server = server, .argc = argc, .argv = argv};
    pthread_mutex_init(&reload->lock, NULL);
    success_note(reload);
}

void reload_release(struct reload *reload) {
    if (reload->server == NULL)
        return;
    for (size_t i = 0; i < reload->taken_count; i++) {
        config_release(reload->taken[i]);
        mem_free(reload->taken[i]);
    }
    mem_free(reload->taken);
    pthread_mutex_destroy(&reload->lock);
}

static int config_take(struct reload *reload, struct config *next) {
    struct config **grown = mem_realloc(reload->taken, (reload->taken_count + 1) * sizeof *grown);
    if (grown == NULL)
        return STATUS_NO_MEMORY;
    reload->taken = grown;
    reload->taken[reload->taken_count++] = next;
    log_setup(next->log_level, next->log_format, STDERR_FILENO);
    reload->server->config = next;
    return STATUS_OK;
}

static int reload_locked(struct reload *reload, struct error_detail *detail, bool *changed) {
    enum config_action action;
    bool taken = false;
    int status = STATUS_OK;
    struct config *next = mem_zalloc(sizeof *next);
    if (next == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "out of memory");
    TRY(config_parse(reload->argc, reload->argv, next, &action, detail));
    TRY(config_change_check(reload->server->config, next, detail, changed));
    if (*changed) {
        status = config_take(reload, next);
        taken = status == STATUS_OK;
    }
out:
    if (!taken) {
        config_release(next);
        mem_free(next);
    }
    return status;
}

int reload_run(struct reload *reload, struct error_detail *detail) {
    bool changed = false;
    pthread_mutex_lock(&reload->lock);
    int status = reload_locked(reload, detail, &changed);
    if (status == STATUS_OK) {
        success_note(reload);
        log_info("configuration read again", LOG_STR("changed", changed ? "yes" : "no"));
    } else {
        atomic_store(&reload->ok, false);
        metric_set(METRIC_config_reload_ok, 0);
        log_error("configuration not taken", LOG_STR("reason", detail->text));
    }
    pthread_mutex_unlock(&reload->lock);
    return status;
}
