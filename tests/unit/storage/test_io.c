/* test_io.c: both backends: round trips, orders, short writes, broken chains, every operation failing once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/rand.h"
#include "storage/io/io.h"

#define EVENTS_MAX 256

struct fixture {
    struct io *io;
    char dir[64];
    struct io_event events[EVENTS_MAX];
    size_t event_count;
    int done_count;
    size_t done_after_events; /* events seen when `done` ran */
};

static void trace(void *context, const struct io_event *event) {
    struct fixture *fixture = context;
    assert_true(fixture->event_count < EVENTS_MAX);
    fixture->events[fixture->event_count++] = *event;
}

static void open_backend(struct fixture *fixture, enum io_backend backend) {
    memset(fixture, 0, sizeof *fixture);
    struct error_detail detail = {0};
    int status = io_open(backend, &detail, &fixture->io);
    if (status != STATUS_OK && backend == IO_BACKEND_URING) {
        print_message("io_uring denied here: %s\n", detail.text);
        skip();
    }
    assert_int_equal(status, STATUS_OK);
    const char *tmp = getenv("TMPDIR");
    snprintf(fixture->dir, sizeof fixture->dir, "%s/tidalite-io-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(fixture->dir));
    io_trace_set(fixture->io, trace, fixture);
}

static int remove_each(void *context, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return remove(path) == 0 ? 0 : -1;
}

static void close_backend(struct fixture *fixture) {
    io_fault_set(fixture->io, (struct io_fault){0});
    assert_int_equal(io_list_dir(fixture->io, fixture->dir, remove_each, fixture->dir), STATUS_OK);
    assert_int_equal(rmdir(fixture->dir), 0);
    io_close(fixture->io);
}

static const char *path_in(struct fixture *fixture, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fixture->dir, name);
    return path;
}

static struct io_file *file_make(struct fixture *fixture, const char *name) {
    struct io_file *file;
    assert_int_equal(io_file_open(fixture->io, path_in(fixture, name),
                                  IO_OPEN_READ | IO_OPEN_WRITE | IO_OPEN_CREATE, NULL, &file),
                     STATUS_OK);
    return file;
}

static void on_done(struct io_commit *commit) {
    struct fixture *fixture = commit->context;
    fixture->done_count++;
    fixture->done_after_events = fixture->event_count;
}

static int commit_and_wait(struct fixture *fixture, struct io_file *file, uint64_t offset,
                           const uint8_t *data, size_t len) {
    struct io_commit commit = {
        .file = file, .offset = offset, .data = data, .len = len, .done = on_done, .context = fixture};
    int before = fixture->done_count;
    io_commit(fixture->io, &commit);
    assert_int_equal(fixture->done_count, before); /* never inside io_commit */
    assert_int_equal(io_in_flight(fixture->io), 1);
    while (fixture->done_count == before)
        io_poll(fixture->io, -1);
    assert_int_equal(fixture->done_count, before + 1);
    assert_int_equal(io_in_flight(fixture->io), 0);
    return commit.status;
}

static void check_bytes(struct fixture *fixture, struct io_file *file, uint64_t offset, const uint8_t *data,
                        size_t len) {
    uint8_t *back = mem_alloc(len);
    assert_non_null(back);
    size_t got;
    assert_int_equal(io_read(fixture->io, file, offset, back, len, &got), STATUS_OK);
    assert_int_equal(got, len);
    assert_memory_equal(back, data, len);
    mem_free(back);
}

/* The promise, from the trace alone: before `done`, writes covered [offset, offset+len) without gap, and a
 * sync that was submitted after the last of them had completed (or linked behind it) completed with success.
 */
static void check_order(const struct fixture *fixture, uint64_t offset, size_t len) {
    uint64_t covered = 0;
    size_t last_write = 0, linked_sync = SIZE_MAX;
    for (size_t i = 0; i < fixture->done_after_events; i++) {
        const struct io_event *event = &fixture->events[i];
        if (event->kind == IO_EVENT_WRITE && event->phase == IO_EVENT_COMPLETED && event->result > 0) {
            assert_true(event->offset == offset + covered);
            covered += (uint64_t)event->result;
            last_write = i;
            /* a sync linked to this very write, if it transferred all it was asked for */
            linked_sync = SIZE_MAX;
            for (size_t j = i; j-- > 0;) {
                if (fixture->events[j].phase != IO_EVENT_SUBMITTED)
                    break;
                if (fixture->events[j].kind == IO_EVENT_SYNC && fixture->events[j].linked &&
                    (uint64_t)event->result == event->len)
                    linked_sync = j;
            }
        }
    }
    assert_int_equal(covered, len);
    bool proven = false;
    bool submitted_after = linked_sync != SIZE_MAX;
    for (size_t i = last_write + 1; i < fixture->done_after_events; i++) {
        const struct io_event *event = &fixture->events[i];
        if (event->kind != IO_EVENT_SYNC)
            continue;
        if (event->phase == IO_EVENT_SUBMITTED)
            submitted_after = true;
        else if (submitted_after && event->result == 0)
            proven = true;
    }
    assert_true(proven);
}

static void roundtrip(enum io_backend backend) {
    struct fixture fixture;
    open_backend(&fixture, backend);
    assert_string_equal(io_name(fixture.io), backend == IO_BACKEND_URING ? "io_uring" : "syscall");
    struct io_file *file = file_make(&fixture, "a");
    assert_string_equal(io_file_path(file), path_in(&fixture, "a"));
    struct rand rand;
    rand_init(&rand, 7);
    size_t len = 3u << 20;
    uint8_t *data = mem_alloc(len);
    assert_non_null(data);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)rand_u64(&rand);
    assert_int_equal(commit_and_wait(&fixture, file, 4096, data, len), STATUS_OK);
    check_order(&fixture, 4096, len);
    check_bytes(&fixture, file, 4096, data, len);
    uint64_t size;
    assert_int_equal(io_file_size(fixture.io, file, &size), STATUS_OK);
    assert_int_equal(size, 4096 + len);

    assert_int_equal(io_write(fixture.io, file, 10, "tidal", 5), STATUS_OK);
    assert_int_equal(io_sync(fixture.io, file), STATUS_OK);
    struct slice map;
    assert_int_equal(io_map(fixture.io, file, 4096, 8192, &map), STATUS_OK);
    assert_memory_equal(map.data, data, 8192);
    io_unmap(fixture.io, map);
    assert_int_equal(io_map(fixture.io, file, 0, 0, &map), STATUS_OK);
    io_unmap(fixture.io, map);
    size_t got;
    uint8_t tail[16];
    assert_int_equal(io_read(fixture.io, file, size - 4, tail, sizeof tail, &got), STATUS_OK);
    assert_int_equal(got, 4);
    assert_int_equal(io_poll(fixture.io, 0), 0);
    assert_int_equal(io_poll(fixture.io, -1), 0); /* nothing in flight: nothing to wait for */
    io_file_close(fixture.io, file);
    io_file_close(fixture.io, NULL);
    mem_free(data);
    close_backend(&fixture);
}

/* Many at once, more than the ring holds; each done exactly once. */
static void many_commits(enum io_backend backend) {
    enum { COMMITS = 500 };
    static struct io_commit commits[COMMITS];
    static uint8_t data[COMMITS][64];
    struct fixture fixture;
    open_backend(&fixture, backend);
    io_trace_set(fixture.io, NULL, NULL);
    struct io_file *file = file_make(&fixture, "many");
    for (int i = 0; i < COMMITS; i++) {
        memset(data[i], i, sizeof data[i]);
        commits[i] = (struct io_commit){.file = file,
                                        .offset = (uint64_t)i * 64,
                                        .data = data[i],
                                        .len = 64,
                                        .done = on_done,
                                        .context = &fixture};
        io_commit(fixture.io, &commits[i]);
    }
    int ran = 0;
    while (io_in_flight(fixture.io) > 0)
        ran += io_poll(fixture.io, 100);
    assert_int_equal(ran, COMMITS);
    assert_int_equal(fixture.done_count, COMMITS);
    for (int i = 0; i < COMMITS; i++)
        assert_int_equal(commits[i].status, STATUS_OK);
    check_bytes(&fixture, file, 0, data[0], sizeof data);
    io_file_close(fixture.io, file);
    close_backend(&fixture);
}

/* Every possible short write of a small commit, once and again and again: all bytes arrive, and the sync that
 * counts comes after them. */
static void short_writes(enum io_backend backend) {
    uint8_t data[200];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    for (int repeat = 0; repeat < 2; repeat++) {
        for (size_t bytes = repeat ? 30 : 1; bytes < sizeof data; bytes += repeat ? 17 : 1) {
            struct fixture fixture;
            open_backend(&fixture, backend);
            struct io_file *file = file_make(&fixture, "short");
            io_fault_set(fixture.io,
                         (struct io_fault){.countdown = 1, .repeat = repeat, .short_bytes = bytes});
            assert_int_equal(commit_and_wait(&fixture, file, 50, data, sizeof data), STATUS_OK);
            check_order(&fixture, 50, sizeof data);
            io_fault_set(fixture.io, (struct io_fault){0});
            check_bytes(&fixture, file, 50, data, sizeof data);
            io_fault_set(fixture.io,
                         (struct io_fault){.countdown = 1, .repeat = repeat, .short_bytes = bytes});
            assert_int_equal(io_write(fixture.io, file, 1000, data, sizeof data), STATUS_OK);
            io_fault_set(fixture.io, (struct io_fault){0});
            check_bytes(&fixture, file, 1000, data, sizeof data);
            io_file_close(fixture.io, file);
            close_backend(&fixture);
        }
    }
}

/* A real short write by the kernel: a file size limit in the middle of the commit. The first chain transfers
 * what fits, its sync is cancelled; the second fails. Run in a child, because the limit can't be raised
 * again. */
static void file_size_limit(enum io_backend backend) {
    struct fixture fixture;
    open_backend(&fixture, backend);
    io_close(fixture.io);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit limit = {6000, 6000};
        signal(SIGXFSZ, SIG_IGN);
        static uint8_t data[8192];
        if (io_open(backend, NULL, &fixture.io) != STATUS_OK || setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(1);
        log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, 2);
        fixture.event_count = 0;
        io_trace_set(fixture.io, trace, &fixture);
        struct io_file *file = file_make(&fixture, "limit");
        struct io_commit commit = {
            .file = file, .data = data, .len = sizeof data, .done = on_done, .context = &fixture};
        io_commit(fixture.io, &commit);
        while (fixture.done_count == 0)
            io_poll(fixture.io, -1);
        bool short_seen = false;
        for (size_t i = 0; i < fixture.event_count; i++)
            short_seen |= fixture.events[i].kind == IO_EVENT_WRITE &&
                          fixture.events[i].phase == IO_EVENT_COMPLETED && fixture.events[i].result == 6000;
        int code = commit.status == STATUS_OK ? 2 : !short_seen ? 3 : 0;
        io_file_close(fixture.io, file);
        io_close(fixture.io);
        _exit(code);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
    assert_int_equal(io_open(backend, NULL, &fixture.io), STATUS_OK);
    close_backend(&fixture);
}

/* One scripted life of two files; every operation of it fails once, with each error. Nothing is believed that
 * failed, nothing leaks, and without a fault it succeeds. */
static int life(struct fixture *fixture) {
    struct io *io = fixture->io;
    struct io_file *file = NULL, *lock = NULL;
    static const uint8_t data[] = "rock laid down by tides";
    char from[512], to[512], dir[512];
    snprintf(from, sizeof from, "%s/from", fixture->dir);
    snprintf(to, sizeof to, "%s/to", fixture->dir);
    snprintf(dir, sizeof dir, "%s/dir", fixture->dir);
    struct error_detail detail = {0};
    int status;
    TRY(io_make_dir(io, dir, &detail));
    TRY(io_make_dir(io, dir, &detail)); /* again: fine */
    char lock_path[512];
    snprintf(lock_path, sizeof lock_path, "%s/lock", fixture->dir);
    TRY(io_lock(io, lock_path, &detail, &lock));
    TRY(io_file_open(io, from, IO_OPEN_READ | IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_TRUNCATE, &detail,
                     &file));
    TRY(io_write(io, file, 0, data, sizeof data));
    TRY(io_sync(io, file));
    TRY(commit_and_wait(fixture, file, sizeof data, data, sizeof data));
    TRY(io_rename(io, from, to));
    TRY(io_sync_dir(io, fixture->dir));
    uint8_t back[2 * sizeof data];
    size_t got;
    TRY(io_read(io, file, 0, back, sizeof back, &got));
    if (got != sizeof back || memcmp(back, data, sizeof data) != 0 ||
        memcmp(back + sizeof data, data, sizeof data) != 0)
        status = STATUS_CORRUPT;
    TRY(io_remove(io, to));
out:
    io_file_close(io, file);
    io_unlock(io, lock);
    return status;
}

static void fault_sweep(enum io_backend backend) {
    static const int errors[] = {EIO, ENOSPC, ENOMEM};
    static const int statuses[] = {STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY};
    for (size_t e = 0; e < 3; e++) {
        bool succeeded = false;
        uint64_t countdown = 1;
        for (; !succeeded; countdown++) {
            struct fixture fixture;
            open_backend(&fixture, backend);
            io_fault_set(fixture.io, (struct io_fault){.countdown = countdown, .error = errors[e]});
            int status = life(&fixture);
            succeeded = status == STATUS_OK;
            if (!succeeded)
                assert_int_equal(status, statuses[e]);
            close_backend(&fixture);
            assert_true(countdown < 100);
        }
        assert_true(countdown > 14); /* it did sweep */
    }
}

/* A failed sync is final: it is not tried again behind the caller's back. */
static void failed_sync(enum io_backend backend) {
    struct fixture fixture;
    open_backend(&fixture, backend);
    struct io_file *file = file_make(&fixture, "sync");
    static const uint8_t data[100] = {1};
    io_fault_set(fixture.io, (struct io_fault){.countdown = 2, .error = EIO});
    assert_int_equal(commit_and_wait(&fixture, file, 0, data, sizeof data), STATUS_IO);
    int syncs = 0;
    for (size_t i = 0; i < fixture.event_count; i++)
        syncs += fixture.events[i].kind == IO_EVENT_SYNC && fixture.events[i].phase == IO_EVENT_SUBMITTED;
    assert_int_equal(syncs, 1);
    /* a cancelled one never ran: it is submitted again */
    io_fault_set(fixture.io, (struct io_fault){.countdown = 2, .error = ECANCELED});
    int status = commit_and_wait(&fixture, file, 0, data, sizeof data);
    assert_int_equal(status, backend == IO_BACKEND_URING ? STATUS_OK : STATUS_IO);
    /* and one that is cancelled for ever fails in the end */
    io_trace_set(fixture.io, NULL, NULL);
    io_fault_set(fixture.io, (struct io_fault){.countdown = 2, .repeat = true, .error = ECANCELED});
    assert_int_equal(commit_and_wait(&fixture, file, 0, data, sizeof data), STATUS_IO);
    io_file_close(fixture.io, file);
    close_backend(&fixture);
}

static void both(void (*test)(enum io_backend backend)) {
    test(IO_BACKEND_SYSCALL);
    test(IO_BACKEND_URING);
}

static void test_roundtrip(void **state) {
    (void)state;
    both(roundtrip);
}
static void test_many_commits(void **state) {
    (void)state;
    both(many_commits);
}
static void test_short_writes(void **state) {
    (void)state;
    both(short_writes);
}
static void test_file_size_limit(void **state) {
    (void)state;
    both(file_size_limit);
}
static void test_fault_sweep(void **state) {
    (void)state;
    both(fault_sweep);
}
static void test_failed_sync(void **state) {
    (void)state;
    both(failed_sync);
}

static int name_collect(void *context, const char *name) {
    strcat(context, name);
    strcat(context, " ");
    return strcmp(name, "stop") == 0 ? STATUS_CANCELLED : 0;
}

static void test_directories(void **state) {
    (void)state;
    struct fixture fixture;
    open_backend(&fixture, IO_BACKEND_SYSCALL);
    static const char *const made[] = {"b", "A", "a", "10", "9"};
    for (size_t i = 0; i < 5; i++)
        io_file_close(fixture.io, file_make(&fixture, made[i]));
    char names[256] = "";
    assert_int_equal(io_list_dir(fixture.io, fixture.dir, name_collect, names), STATUS_OK);
    assert_string_equal(names, "10 9 A a b ");
    io_file_close(fixture.io, file_make(&fixture, "stop"));
    io_file_close(fixture.io, file_make(&fixture, "zz"));
    names[0] = '\0';
    assert_int_equal(io_list_dir(fixture.io, fixture.dir, name_collect, names), STATUS_CANCELLED);
    assert_string_equal(names, "10 9 A a b stop ");
    assert_int_equal(io_list_dir(fixture.io, path_in(&fixture, "none"), name_collect, names),
                     STATUS_NOT_FOUND);
    assert_int_equal(io_remove(fixture.io, path_in(&fixture, "none")), STATUS_NOT_FOUND);
    struct error_detail detail = {0};
    assert_true(io_make_dir(fixture.io, path_in(&fixture, "a"), &detail) < 0); /* a file is in the way */
    assert_non_null(strstr(detail.text, "/a"));
    struct io_file *file;
    assert_int_equal(io_file_open(fixture.io, path_in(&fixture, "a"),
                                  IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE, NULL, &file),
                     STATUS_EXISTS);
    detail = (struct error_detail){0};
    assert_int_equal(io_file_open(fixture.io, path_in(&fixture, "none"), IO_OPEN_READ, &detail, &file),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(detail.text, "No such file"));
    /* a new directory is durable in its parent, whichever way its path is written */
    static const char *const ways[] = {"d", "e/", "f///"};
    for (size_t i = 0; i < 3; i++) {
        fixture.event_count = 0;
        assert_int_equal(io_make_dir(fixture.io, path_in(&fixture, ways[i]), NULL), STATUS_OK);
        assert_int_equal(fixture.event_count, 2);
        assert_int_equal(fixture.events[1].kind, IO_EVENT_SYNC_DIR);
        assert_int_equal(fixture.events[1].result, 0);
    }
    close_backend(&fixture);
}

static void test_lock(void **state) {
    (void)state;
    struct fixture fixture;
    open_backend(&fixture, IO_BACKEND_SYSCALL);
    const char *path = path_in(&fixture, "lock");
    struct io_file *lock, *second;
    struct error_detail detail = {0};
    assert_int_equal(io_lock(fixture.io, path, &detail, &lock), STATUS_OK);
    assert_int_equal(io_lock(fixture.io, path, &detail, &second), STATUS_LOCKED);
    char pid[32];
    snprintf(pid, sizeof pid, "(pid %ld)", (long)getpid());
    assert_non_null(strstr(detail.text, pid));
    assert_non_null(strstr(detail.text, path));
    io_unlock(fixture.io, lock);
    assert_int_equal(io_lock(fixture.io, path, &detail, &lock), STATUS_OK);
    io_unlock(fixture.io, lock);
    close_backend(&fixture);
}

static int lines_count(const char *path, const char *needle) {
    FILE *file = fopen(path, "r");
    char line[1024];
    int count = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        count += strstr(line, needle) != NULL;
    if (file != NULL)
        fclose(file);
    return count;
}

/* As in a container whose seccomp profile denies io_uring. */
static void test_uring_denied(void **state) {
    (void)state;
    char path[] = "/tmp/tidalite-io-log-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* the call's number */
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {sizeof code / sizeof code[0], code};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
            _exit(1);
        log_setup(LOG_WARN, LOG_FORMAT_LOGFMT, fd);
        struct io *io;
        struct error_detail detail = {0};
        if (io_open(IO_BACKEND_URING, &detail, &io) != STATUS_IO ||
            strstr(detail.text, "--io=syscall") == NULL)
            _exit(2);
        if (io_open(IO_BACKEND_AUTO, &detail, &io) != STATUS_OK || strcmp(io_name(io), "syscall") != 0)
            _exit(3);
        io_close(io);
        _exit(0);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
    assert_int_equal(lines_count(path, "level=warn"), 1);
    close(fd);
    unlink(path);
}

/* Allocation failures of opening. */
static void test_no_memory(void **state) {
    (void)state;
    for (int backend = IO_BACKEND_AUTO; backend <= IO_BACKEND_SYSCALL; backend++) {
        for (uint64_t n = 1; n < 20; n++) {
            struct fixture fixture = {0};
            mem_fault_set(n, 0);
            int status = io_open((enum io_backend)backend, NULL, &fixture.io);
            struct io_file *file = NULL;
            if (status == STATUS_OK)
                status = io_file_open(fixture.io, "/dev/null", IO_OPEN_READ, NULL, &file);
            mem_fault_set(0, 0);
            if (file != NULL)
                io_file_close(fixture.io, file);
            io_close(fixture.io);
            if (status == STATUS_OK && n > 4)
                break;
        }
    }
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roundtrip),    cmocka_unit_test(test_many_commits),
        cmocka_unit_test(test_short_writes), cmocka_unit_test(test_file_size_limit),
        cmocka_unit_test(test_fault_sweep),  cmocka_unit_test(test_failed_sync),
        cmocka_unit_test(test_directories),  cmocka_unit_test(test_lock),
        cmocka_unit_test(test_uring_denied), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
