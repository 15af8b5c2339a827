/* main.c: tidalite's command line, and the order in which the server comes up and goes down. */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/rand.h"
#include "client/client.h"
#include "query/query.h"
#include "server/config.h"
#include "server/listener.h"
#include "server/loop.h"
#include "server/self_scrape.h"
#include "server/server.h"
#include "tools/tools.h"

#define LOOPS_MAX_BY_DEFAULT 8
#define EXIT_USAGE           2

/* Everything `serve` owns, in the order in which it is made. */
struct program {
    struct config config;
    struct server server;
    struct listener listener;
    struct io *io;
    struct io *io_maintain;
    bool storage_running;
    struct self_scrape self_scrape;
    struct reload reload;
    struct job reload_job;
    atomic_bool reload_waits;
    uv_signal_t signals[3];
    struct mail drain_mail[256];
    bool stopping;
};

static size_t cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? (size_t)count : 1;
}

/* ---- Stopping -------------------------------------------------------------------------------------------
 */

static struct program *program_now; /* for the callbacks that libuv gives no context */

static void drain_run(struct mail *mail) {
    size_t index = (size_t)(mail - program_now->drain_mail);
    loop_drain(&program_now->server.loops[index], false);
}

/* First signal: no new connections, requests in flight are finished. The loops end by themselves then. A
 * second one ends the process at once, which loses nothing that was acknowledged. */
static void signal_handle(uv_signal_t *handle, int number) {
    struct program *program = handle->data;
    struct server *server = &program->server;
    if (program->stopping)
        _exit(EXIT_FAILURE);
    program->stopping = true;
    log_info("stopping", LOG_STR("signal", number == SIGINT ? "SIGINT" : "SIGTERM"));
    atomic_store(&server->ready, false);
    listener_stop(&program->listener);
    for (size_t i = 0; i < server->loop_count; i++) {
        program->drain_mail[i].run = drain_run;
        loop_post(&server->loops[i], &program->drain_mail[i]);
    }
}

static void reload_work(struct job *job) {
    struct program *program = CONTAINER_OF(job, struct program, reload_job);
    struct error_detail detail = {{0}};
    atomic_store(&program->reload_waits,
                 false); /* before the file is read: a later signal means another read */
    reload_run(&program->reload, &detail);
}

static void hangup_handle(uv_signal_t *handle, int number) {
    (void)number;
    struct program *program = handle->data;
    program->reload_job.run = reload_work;
    if (program->stopping || atomic_exchange(&program->reload_waits, true))
        return;
    if (workers_submit(&program->server.workers, &program->reload_job) < 0) {
        atomic_store(&program->reload_waits, false);
        log_error("configuration not read again: every worker is busy; send SIGHUP once more");
    }
}

/* The first loop has nothing left: close what else is open on it. */
static void first_loop_end(struct loop *loop) {
    (void)loop;
    self_scrape_close(&program_now->self_scrape);
    for (size_t i = 0; i < 3; i++)
        uv_close((uv_handle_t *)&program_now->signals[i], NULL);
}

/* ---- Coming up ------------------------------------------------------------------------------------------
 */

static int storage_start(struct program *program, struct error_detail *detail) {
    struct server *server = &program->server;
    int status = STATUS_OK;
    TRY(io_open(program->config.io, detail, &program->io));
    TRY(io_open(IO_BACKEND_SYSCALL, detail, &program->io_maintain)); /* in no hurry, and on another thread */
    struct storage_options options = {.dir = program->config.data_dir,
                                      .io = program->io,
                                      .io_maintain = program->io_maintain,
                                      .clock = server->clock,
                                      .limits = &program->config.limits,
                                      .seed = rand_seed_from_system(),
                                      .compiler = query_matcher_compiler()};
    TRY(storage_open(&options, detail, &server->storage));
    TRY(storage_thread_start(server->storage));
    program->storage_running = true;
    struct storage_status now;
    storage_status(server->storage, &now);
    log_info("storage open", LOG_STR("dir", program->config.data_dir), LOG_STR("io", now.io_name),
             LOG_U64("series", now.series), LOG_U64("samples", now.samples), LOG_U64("blocks", now.blocks),
             LOG_U64("replay_ms", now.replay_ms));
out:
    return status;
}

static int loops_start(struct program *program, struct error_detail *detail) {
    struct server *server = &program->server;
    size_t cpus = cpu_count();
    size_t count = program->config.loops;
    int status = STATUS_OK;
    if (count == 0)
        count = cpus < LOOPS_MAX_BY_DEFAULT ? cpus : LOOPS_MAX_BY_DEFAULT;
    server->loops = mem_zalloc(count * sizeof *server->loops);
    if (server->loops == NULL)
        return STATUS_NO_MEMORY;
    for (; server->loop_count < count; server->loop_count++)
        TRY(loop_init(&server->loops[server->loop_count], server));
    uint64_t workers = program->config.limits.query_concurrency_max;
    if (workers > 2 * cpus)
        workers = 2 * cpus;
    TRY(queries_init(&server->queries, (size_t)program->config.limits.query_slow_rows_max));
    TRY(workers_init(&server->workers, (size_t)workers, (size_t)program->config.limits.query_queue_max));
    TRY(listener_start(&program->listener, detail));
    server->loops[0].on_end = first_loop_end;
    static const int numbers[3] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < 3; i++) {
        ASSERT(uv_signal_init(&server->loops[0].uv, &program->signals[i]) == 0);
        program->signals[i].data = program;
        ASSERT(uv_signal_start(&program->signals[i], numbers[i] == SIGHUP ? hangup_handle : signal_handle,
                               numbers[i]) == 0);
    }
    if (program->config.self_scrape_ms > 0)
        self_scrape_open(&program->self_scrape, &server->loops[0], program->config.self_scrape_ms);
    for (size_t i = 1; i < count; i++) {
        status = loop_thread_start(&server->loops[i]);
        /* Loops without a thread would swallow connections; a machine this short of threads cannot serve. */
        if (status < 0) {
            log_error("cannot start a thread for a loop; choose fewer with --loops");
            _exit(1);
        }
    }
out:
    return status;
}

static void program_release(struct program *program) {
    struct server *server = &program->server;
    workers_release(&server->workers);
    if (program->storage_running)
        storage_thread_stop(server->storage);
    if (server->storage != NULL)
        storage_close(server->storage);
    if (program->io != NULL)
        io_close(program->io);
    if (program->io_maintain != NULL)
        io_close(program->io_maintain);
    for (size_t i = 0; i < server->loop_count; i++)
        loop_release(&server->loops[i]);
    self_scrape_release(&program->self_scrape);
    queries_release(&server->queries);
    mem_free(server->loops);
    listener_release(&program->listener);
    reload_release(&program->reload);
}

static int serve(struct program *program, int argc, char **argv) {
    struct server *server = &program->server;
    struct error_detail detail = {{0}};
    int status = STATUS_OK;
    log_setup(program->config.log_level, program->config.log_format, STDERR_FILENO);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* until there is a loop that takes it */
    program_now = program;
    server->config = &program->config;
    server->clock = clock_system();
    reload_init(&program->reload, server, argc, argv);
    server->reload = &program->reload;
    server->started_ms = clock_wall_ms(server->clock);
    program->listener.fd = -1;
    TRY(listener_bind(&program->listener, server, program->config.listen, &detail));
    TRY(storage_start(program, &detail));
    atomic_store(&server->ready, true);
    TRY(loops_start(program, &detail));
    log_info("listening", LOG_STR("address", server->address), LOG_U64("loops", server->loop_count),
             LOG_STR("version", TIDALITE_VERSION));

    loop_run(&server->loops[0]);
    for (size_t i = 1; i < server->loop_count; i++)
        loop_thread_join(&server->loops[i]);
out:
    program_release(program);
    if (status < 0) {
        fprintf(stderr, "tidalite: %s\n", detail.text[0] != 0 ? detail.text : status_message(status));
        return EXIT_FAILURE;
    }
    log_info("stopped");
    return EXIT_SUCCESS;
}

/* ---- Command line ---------------------------------------------------------------------------------------
 */

static int print(void (*fill)(struct buf *out)) {
    struct buf text;
    buf_init(&text);
    fill(&text);
    bool ok = !text.failed && fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0;
    buf_release(&text);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void version_print(struct buf *out) {
    buf_append_str(out, "tidalite " TIDALITE_VERSION "\n");
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "query") == 0)
        return client_query(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "verify") == 0)
        return tools_verify(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "inspect") == 0)
        return tools_inspect(argc - 1, argv + 1);
    enum config_action action;
    struct error_detail detail = {{0}};
    struct program *program = mem_zalloc(sizeof *program);
    int code = EXIT_FAILURE;
    if (program == NULL) {
        fprintf(stderr, "tidalite: out of memory\n");
        return EXIT_FAILURE;
    }
    if (config_parse(argc, argv, &program->config, &action, &detail) < 0) {
        fprintf(stderr, "tidalite: %s\n", detail.text);
        mem_free(program);
        return EXIT_USAGE;
    }
    switch (action) {
    case CONFIG_SERVE:
        code = serve(program, argc, argv);
        break;
    case CONFIG_HELP:
        code = print(config_help_print);
        break;
    case CONFIG_SERVE_HELP:
        code = print(config_serve_help_print);
        break;
    case CONFIG_VERSION:
        code = print(version_print);
        break;
    }
    config_release(&program->config);
    mem_free(program);
    return code;
}
