/* test_storage.c: the whole way of a sample on a real directory, both I/O backends: what is acknowledged is
 * visible and survives, what is refused is refused with Prometheus' words, the same request changes nothing,
 * nothing is acknowledged before its sync, and a log that fails comes back by itself. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/rand.h"
#include "tests/unit/storage/storage_fixture.h"

static void verdicts(enum io_backend backend) {
    struct fixture f;
    fixture_open(&f, backend);
    const int64_t t = f.now_ms;
    const uint64_t one = double_bits(1), two = double_bits(2);
    assert_int_equal(write_one(&f, 1, t, one).samples_stored, 1);
    assert_int_equal(write_one(&f, 1, t, one).samples_equal, 1);
    struct storage_write_result result = write_one(&f, 1, t, two);
    assert_int_equal(result.samples_refused, 1);
    assert_string_equal(result.reasons,
                        "duplicate sample for timestamp 1700000000000; overrides not allowed: "
                        "existing 1, new value 2 for series m{i=\"1\"}");
    assert_int_equal(write_one(&f, 1, t - 1, one).samples_stored, 1); /* late */
    result = write_one(&f, 1, t - (int64_t)f.limits.retention_ms - 1, one);
    assert_int_equal(result.samples_refused, 1);
    assert_string_equal(result.reasons, "out of bounds for series m{i=\"1\"}");
    result = write_one(&f, 1, t + 600001, one);
    assert_int_equal(result.samples_refused, 1);
    assert_string_equal(result.reasons,
                        "out of bounds: timestamp is too far in the future for series m{i=\"1\"}");
    assert_int_equal(write_one(&f, 1, t + 600000, STALE_NAN_BITS).samples_stored, 1);
    /* An older sample that is stored, bit for bit, is acknowledged; across sealed chunks too. */
    assert_int_equal(write_one(&f, 1, t, one).samples_equal, 1);
    const struct sample expected[] = {{t - 1, one}, {t, one}, {t + 600000, STALE_NAN_BITS}};
    series_expect(&f, 1, expected, 3);
    fixture_reopen(&f);
    series_expect(&f, 1, expected, 3);
    assert_int_equal(write_one(&f, 1, t, one).samples_equal, 1);
    assert_int_equal(write_one(&f, 1, t - 1, one).samples_equal, 1);
    assert_int_equal(write_one(&f, 1, t - 1, two).samples_refused, 1);
    assert_int_equal(write_one(&f, 1, t, two).samples_refused, 1);
    series_expect(&f, 1, expected, 3);
    fixture_close(&f);
}

static void test_verdicts_uring(void **state) {
    (void)state;
    verdicts(IO_BACKEND_AUTO);
}

static void test_verdicts_syscall(void **state) {
    (void)state;
    verdicts(IO_BACKEND_SYSCALL);
}

#define MODEL_SERIES  300
#define MODEL_SAMPLES 600

/* Random writes over several segments and restarts against plain arrays. */
static void model_run(enum io_backend backend, uint64_t seed) {
    struct fixture f;
    fixture_open(&f, backend);
    struct rand rand;
    rand_init(&rand, seed);
    static struct sample model[MODEL_SERIES][MODEL_SAMPLES];
    static size_t counts[MODEL_SERIES];
    memset(counts, 0, sizeof counts);
    static const uint64_t odd[] = {STALE_NAN_BITS,      NORMAL_NAN_BITS,     0x8000000000000000u,
                                   0x7ff0000000000000u, 0xfff8dead0000beefu, 1};
    for (int round = 0; round < 250; round++) {
        struct batch *b = batch_new();
        size_t stored = 0;
        f.now_ms += 15000;
        for (int series = 0; series < MODEL_SERIES; series++) {
            if (rand_below(&rand, 3) == 0 || counts[series] == MODEL_SAMPLES)
                continue;
            uint64_t bits = rand_below(&rand, 10) == 0 ? odd[rand_below(&rand, 6)]
                                                       : double_bits((double)rand_below(&rand, 100000) / 100);
            struct sample sample = {f.now_ms + (int64_t)rand_below(&rand, 1000), bits};
            batch_add(b, series, sample.time_ms, sample.value_bits);
            model[series][counts[series]++] = sample;
            stored++;
        }
        assert_int_equal(batch_write(&f, b).samples_stored, stored);
        if (rand_below(&rand, 40) == 0)
            fixture_reopen(&f);
    }
    fixture_reopen(&f);
    for (int series = 0; series < MODEL_SERIES; series++)
        series_expect(&f, series, model[series], counts[series]);

    /* Label lookups agree with what was written. */
    struct arena arena;
    arena_init(&arena, 0, 0);
    struct slice *texts;
    size_t count;
    bool truncated;
    assert_int_equal(
        storage_label_names(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &arena, &texts, &count, &truncated),
        STATUS_OK);
    assert_int_equal(count, 2);
    assert_true(slice_equal(texts[1], slice_str("i")));
    assert_int_equal(storage_label_values(f.storage, slice_str("i"), NULL, 0, INT64_MIN, INT64_MAX, 10,
                                          &arena, &texts, &count, &truncated),
                     STATUS_OK);
    assert_int_equal(count, 10);
    assert_true(truncated);
    assert_true(slice_equal(texts[2], slice_str("10")));
    assert_int_equal(storage_label_values(f.storage, slice_str("i"), NULL, 0, f.now_ms + 10000, INT64_MAX, 0,
                                          &arena, &texts, &count, &truncated),
                     STATUS_OK);
    assert_int_equal(count, 0);
    arena_release(&arena);
    fixture_close(&f);
}

static void test_model_uring(void **state) {
    (void)state;
    model_run(IO_BACKEND_AUTO, 1);
}

static void test_model_syscall(void **state) {
    (void)state;
    model_run(IO_BACKEND_SYSCALL, 2);
}

/* Every done that says OK stands behind a sync that began after the last log write and succeeded; a twin of a
 * request in flight is no exception. */
struct recorder {
    int64_t writes_unsynced; /* handed to the kernel since the last sync that succeeded */
};

static void record(void *context, const struct io_event *event) {
    struct recorder *r = context;
    if (strstr(event->path, "/wal/") == NULL)
        return;
    if (event->kind == IO_EVENT_WRITE && event->phase == IO_EVENT_SUBMITTED)
        r->writes_unsynced++;
    if (event->kind == IO_EVENT_SYNC && event->phase == IO_EVENT_COMPLETED && event->result == 0)
        r->writes_unsynced = 0;
}

struct watched {
    struct recorder *recorder;
    unsigned done;
    unsigned early;
};

static void watched_done(void *context, struct storage_write *write) {
    struct watched *watched = context;
    watched->done++;
    if (storage_write_result(write)->status == STATUS_OK && watched->recorder->writes_unsynced > 0)
        watched->early++;
    storage_write_free(write);
}

static void order(enum io_backend backend) {
    struct fixture f;
    fixture_open(&f, backend);
    struct recorder recorder = {0};
    io_trace_set(f.io, record, &recorder);
    struct watched watched = {.recorder = &recorder};
    unsigned submitted = 0;
    for (int round = 0; round < 50; round++) {
        struct batch *b = batch_new();
        for (int i = 0; i < 100; i++)
            batch_add(b, i, f.now_ms + round, double_bits(round));
        /* Twice the same: submitted before and, after a step that puts the first in flight, again. */
        for (int twin = 0; twin < 2; twin++) {
            struct storage_write *write;
            struct error_detail detail = {0};
            assert_int_equal(storage_write_prepare(f.storage, &b->batch, &detail, &write), STATUS_OK);
            storage_write_submit(f.storage, write, watched_done, &watched);
            submitted++;
            /* The next group has been handed to the log when this returns, and is not answered yet. */
            if (twin == 0) {
                storage_step(f.storage, f.now_ms);
                assert_true(watched.done < submitted);
            }
        }
        assert_true(watched.done <= submitted - 1);
        batch_free(b);
        while (watched.done < submitted)
            if (!storage_step(f.storage, f.now_ms))
                storage_wait(f.storage, 10);
    }
    assert_int_equal(watched.early, 0);
    io_trace_set(f.io, NULL, NULL);
    fixture_close(&f);
}

static void test_order_uring(void **state) {
    (void)state;
    order(IO_BACKEND_AUTO);
}

static void test_order_syscall(void **state) {
    (void)state;
    order(IO_BACKEND_SYSCALL);
}

/* The disk fails: 503, reads go on, nothing acknowledged is lost, and it comes back by itself. */
static void failing_disk(enum io_backend backend, int error) {
    struct fixture f;
    fixture_open(&f, backend);
    const struct sample first = {f.now_ms, double_bits(1)};
    assert_int_equal(write_one(&f, 1, first.time_ms, first.value_bits).status, STATUS_OK);
    io_fault_set(f.io, (struct io_fault){.countdown = 1, .repeat = true, .error = error});
    for (int i = 0; i < 5; i++) {
        int status = write_one(&f, 1, f.now_ms + 1, double_bits(2)).status;
        assert_true(status == STATUS_IO || status == STATUS_NO_SPACE);
        series_expect(&f, 1, &first, 1);
        f.now_ms += 50;
    }
    io_fault_set(f.io, (struct io_fault){0});
    f.now_ms += 60000;
    int status = STATUS_IO;
    for (int i = 0; i < 100 && status != STATUS_OK; i++) {
        storage_step(f.storage, f.now_ms);
        status = write_one(&f, 1, first.time_ms + 1, double_bits(2)).status;
        f.now_ms += 1000;
    }
    assert_int_equal(status, STATUS_OK);
    const struct sample both[] = {first, {first.time_ms + 1, double_bits(2)}};
    series_expect(&f, 1, both, 2);
    fixture_reopen(&f);
    series_expect(&f, 1, both, 2);
    fixture_close(&f);
}

static void test_failing_disk(void **state) {
    (void)state;
    failing_disk(IO_BACKEND_AUTO, EIO);
    failing_disk(IO_BACKEND_SYSCALL, EIO);
    failing_disk(IO_BACKEND_SYSCALL, ENOSPC);
}

/* From some operation on the disk has no room, while the storage opens: once all that is there has been read,
 * it serves it, refuses writes, and takes them again when there is room. */
static void test_starts_on_failing_disk(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL);
    const struct sample first = {f.now_ms, double_bits(1)};
    assert_int_equal(write_one(&f, 1, first.time_ms, first.value_bits).status, STATUS_OK);
    storage_close(f.storage);
    unsigned without_room = 0;
    for (uint64_t n = 1; n < 120; n++) {
        const struct storage_options options = {
            .dir = f.dir, .io = f.io, .clock = &fixture_clock, .limits = &f.limits, .seed = n};
        struct error_detail detail = {0};
        io_fault_set(f.io, (struct io_fault){.countdown = n, .repeat = true, .error = ENOSPC});
        int status = storage_open(&options, &detail, &f.storage);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_SPACE);
            continue;
        }
        struct storage_status now;
        storage_status(f.storage, &now);
        series_expect(&f, 1, &first, 1);
        if (!now.writable) {
            without_room++;
            assert_int_equal(write_one(&f, 2, f.now_ms, double_bits(2)).status, STATUS_IO);
            io_fault_set(f.io, (struct io_fault){0});
            for (int i = 0; i < 20 && !now.writable; i++) {
                storage_step(f.storage, f.now_ms += 100);
                storage_status(f.storage, &now);
            }
            assert_true(now.writable);
            series_expect(&f, 1, &first, 1);
        }
        io_fault_set(f.io, (struct io_fault){0});
        assert_int_equal(write_one(&f, 3, f.now_ms += 1000, double_bits(3)).status, STATUS_OK);
        storage_close(f.storage);
    }
    assert_true(without_room > 3);
    io_fault_set(f.io, (struct io_fault){0});
    fixture_open_storage(&f);
    series_expect(&f, 1, &first, 1);
    fixture_close(&f);
}

static void test_second_open_is_refused(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL);
    const struct storage_options options = {
        .dir = f.dir, .io = f.io, .clock = &fixture_clock, .limits = &f.limits, .seed = 42};
    struct error_detail detail = {0};
    struct storage *second;
    assert_int_equal(storage_open(&options, &detail, &second), STATUS_LOCKED);
    assert_non_null(strstr(detail.text, f.dir));
    fixture_close(&f);
}

/* The storage thread takes writes from several threads while others read. */
#define WRITERS       3
#define WRITER_ROUNDS 60

struct writer {
    struct fixture *fixture;
    int number;
    _Atomic unsigned done;
    bool failed;
};

static void writer_done(void *context, struct storage_write *write) {
    struct writer *writer = context;
    if (storage_write_result(write)->status != STATUS_OK)
        writer->failed = true;
    storage_write_free(write);
    writer->done++;
}

static void *writer_run(void *context) {
    struct writer *writer = context;
    for (unsigned round = 0; round < WRITER_ROUNDS; round++) {
        struct batch *b = batch_new();
        for (int i = 0; i < 50; i++)
            batch_add(b, writer->number * 1000 + i, 1700000000000 + (int64_t)round, double_bits(round));
        struct storage_write *write;
        struct error_detail detail = {0};
        if (storage_write_prepare(writer->fixture->storage, &b->batch, &detail, &write) < 0)
            return (void *)1;
        storage_write_submit(writer->fixture->storage, write, writer_done, writer);
        batch_free(b);
        while (writer->done <= round) {
            /* What is not acknowledged yet may or may not be seen; what is must be. */
            struct sample_columns columns;
            unsigned acknowledged = writer->done;
            series_read(writer->fixture, writer->number * 1000 + 7, &columns);
            if (columns.count < acknowledged)
                return (void *)1;
            sample_columns_release(&columns);
        }
    }
    return writer->failed ? (void *)1 : NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_AUTO);
    assert_int_equal(storage_thread_start(f.storage), STATUS_OK);
    struct writer writers[WRITERS] = {0};
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        writers[i].fixture = &f;
        writers[i].number = i;
        assert_int_equal(pthread_create(&threads[i], NULL, writer_run, &writers[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    storage_thread_stop(f.storage);
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_int_equal(status.series, WRITERS * 50);
    assert_int_equal(status.samples, WRITERS * 50 * WRITER_ROUNDS);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts_uring),
        cmocka_unit_test(test_verdicts_syscall),
        cmocka_unit_test(test_model_uring),
        cmocka_unit_test(test_model_syscall),
        cmocka_unit_test(test_order_uring),
        cmocka_unit_test(test_order_syscall),
        cmocka_unit_test(test_failing_disk),
        cmocka_unit_test(test_second_open_is_refused),
        cmocka_unit_test(test_starts_on_failing_disk),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
