/* bench_wal.c: what a commit costs: groups of 32 KiB into a log, one at a time, on both backends.
 *
 *     bench-wal [DIR [GROUPS [GROUP_KIB]]]     default: the current directory, 4000 groups, 32 KiB
 *
 * Prints per backend: microseconds a group (median, 99th percentile, mean), CPU microseconds a group (user
 * and system of the process, io_uring's workers included), how often the log went to a new segment, the
 * slowest such step, and how long opening, replaying and starting took afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rand.h"
#include "storage/io/io.h"
#include "storage/wal/wal.h"

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, status_message(status));
        exit(1);
    }
}

static double cpu_us(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static double now_us(void) {
    return (double)clock_monotonic_ns(clock_system()) / 1000;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void on_done(void *context, int status) {
    *(int *)context = status;
}

struct file_list {
    const char *dir;
};

static int remove_each(void *context, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", ((struct file_list *)context)->dir, name);
    unlink(path);
    return 0;
}

static int on_segment(void *context, uint32_t number) {
    (void)context;
    (void)number;
    return 0;
}

static int on_record(void *context, wal_position position, bool proven, enum wal_record_type type,
                     struct slice payload) {
    (void)position;
    (void)proven;
    (void)type;
    *(uint64_t *)context += payload.len;
    return 0;
}

static void run(enum io_backend backend, const char *parent, size_t groups, size_t group_bytes) {
    struct error_detail detail = {0};
    struct io *io;
    if (io_open(backend, &detail, &io) < 0) {
        printf("%s\n", detail.text);
        return;
    }
    char dir[4000];
    snprintf(dir, sizeof dir, "%s/bench-wal-XXXXXX", parent);
    if (mkdtemp(dir) == NULL)
        check(STATUS_IO, "making a directory");
    struct wal_options options = {.io = io, .dir = dir, .segment_bytes = 64u << 20, .seed = 1};
    uint64_t replayed = 0;
    struct wal_sink sink = {on_segment, on_record, &replayed, NULL};
    struct wal_replay_stats stats;
    struct wal *wal;
    check(wal_open(&options, &detail, &wal), "open");
    check(wal_replay(wal, 0, &sink, &detail, &stats), "replay");
    check(wal_start(wal, &detail), "start");
    uint8_t *payload = mem_alloc(group_bytes);
    double *us = mem_alloc(groups * sizeof *us);
    if (payload == NULL || us == NULL)
        check(STATUS_NO_MEMORY, "bench");
    struct rand rand;
    rand_init(&rand, 1);
    for (size_t i = 0; i < group_bytes; i++)
        payload[i] = (uint8_t)rand_u64(&rand);
    double cpu = cpu_us(), begin = now_us(), roll_us_max = 0, tick_us = 0, tick_us_max = 0;
    size_t rolls = 0;
    for (size_t i = 0; i < groups; i++) {
        double start = now_us();
        wal_tick(wal, (int64_t)(start / 1000));
        double took = now_us() - start;
        tick_us += took;
        if (took > tick_us_max)
            tick_us_max = took;
        start = now_us();
        wal_group_begin(wal);
        check(wal_group_append(wal, WAL_RECORD_SAMPLES, slice_of(payload, group_bytes)), "append");
        if (!wal_group_fits(wal)) {
            double roll = now_us();
            check(wal_roll(wal), "roll");
            roll = now_us() - roll;
            if (roll > roll_us_max)
                roll_us_max = roll;
            rolls++;
            wal_group_begin(wal);
            check(wal_group_append(wal, WAL_RECORD_SAMPLES, slice_of(payload, group_bytes)), "append");
        }
        int status = STATUS_END;
        wal_group_commit(wal, on_done, &status);
        while (status == STATUS_END)
            io_poll(io, -1);
        check(status, "commit");
        us[i] = now_us() - start;
    }
    double wall = now_us() - begin;
    cpu = cpu_us() - cpu;
    qsort(us, groups, sizeof *us, compare);
    double sum = 0;
    for (size_t i = 0; i < groups; i++)
        sum += us[i];
    printf("%-8s %zu groups of %zu bytes: p50 %.0f us, p99 %.0f us, mean %.0f us; CPU %.0f us a group; wall "
           "%.2f s\n",
           io_name(io), groups, group_bytes, us[groups / 2], us[groups * 99 / 100], sum / (double)groups,
           cpu / (double)groups, wall / 1e6);
    printf("%-8s %zu rolls, the slowest %.1f ms; pre-creating %.1f us a group, the slowest slice %.1f ms\n",
           io_name(io), rolls, roll_us_max / 1000, tick_us / (double)groups, tick_us_max / 1000);
    wal_close(wal);
    double opening = now_us();
    check(wal_open(&options, &detail, &wal), "open");
    check(wal_replay(wal, 0, &sink, &detail, &stats), "replay");
    double starting = now_us();
    check(wal_start(wal, &detail), "start");
    printf("%-8s reopened: %.1f MB replayed in %.1f ms, a new segment in %.1f ms\n", io_name(io),
           (double)replayed / 1e6, (starting - opening) / 1000, (now_us() - starting) / 1000);
    wal_close(wal);
    struct file_list list = {dir};
    io_list_dir(io, dir, remove_each, &list);
    rmdir(dir);
    mem_free(payload);
    mem_free(us);
    io_close(io);
}

int main(int argc, char **argv) {
    const char *dir = argc > 1 ? argv[1] : ".";
    size_t groups = argc > 2 ? strtoul(argv[2], NULL, 10) : 4000;
    size_t group_bytes = (argc > 3 ? strtoul(argv[3], NULL, 10) : 32) << 10;
    if (groups == 0 || group_bytes == 0) {
        fprintf(stderr, "usage: %s [DIR [GROUPS [GROUP_KIB]]]\n", argv[0]);
        return 2;
    }
    run(IO_BACKEND_SYSCALL, dir, groups, group_bytes);
    run(IO_BACKEND_URING, dir, groups, group_bytes);
    return 0;
}
