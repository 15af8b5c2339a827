/* test_full.c: a disk that is full, down to the last byte, on a simulated one: writes are refused in time,
 * what is there is read, deletes and retention work, and all goes on by itself when there is room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/io/io_sim.h"
#include "tests/unit/storage/storage_fixture.h"

#define WINDOW_MS INT64_C(60000)

static void maintain(struct fixture *f) {
    for (int idle = 0; idle < 3;) {
        bool worked = storage_maintain(f->storage, f->now_ms);
        worked |= storage_step(f->storage, f->now_ms);
        worked |= io_poll(f->io, 1) > 0;
        idle = worked ? 0 : idle + 1;
    }
}

static void open_sim(struct fixture *f) {
    memset(f, 0, sizeof *f);
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, -1);
    metrics_reset();
    f->now_ms = 1700000000000;
    f->now_ms -= f->now_ms % WINDOW_MS;
    limits_init(&f->limits);
    f->limits.window_ms = (uint64_t)WINDOW_MS;
    f->limits.window_grace_ms = 5000;
    f->limits.retention_ms = 0;
    f->limits.log_group_bytes_max = 24 << 10;
    f->limits.log_segment_bytes = 128 << 10;
    strcpy(f->dir, "db");
    assert_int_equal(io_sim_open(7, &f->io), STATUS_OK);
    f->io_maintain = f->io;
    fixture_open_storage(f);
    for (int window = 0; window < 4; window++) {
        struct batch *b = batch_new();
        for (int series = 0; series < 50; series++)
            batch_add(b, series, f->now_ms, double_bits(series));
        assert_int_equal(batch_write(f, b).status, STATUS_OK);
        f->now_ms += 2 * WINDOW_MS;
        maintain(f);
    }
    assert_int_equal(metric_get(METRIC_blocks_cut), 4);
}

static void close_sim(struct fixture *f) {
    storage_close(f->storage);
    io_close(f->io);
}

static uint64_t blocks(struct fixture *f) {
    struct storage_status status;
    storage_status(f->storage, &status);
    return status.blocks;
}

static void test_retention(void **state) {
    (void)state;
    struct fixture f;
    open_sim(&f);
    io_sim_capacity_set(f.io, io_sim_used_bytes(f.io));
    f.limits.retention_bytes = 1;
    for (int i = 0; i < 100 && blocks(&f) > 0; i++) {
        f.now_ms += 1000;
        maintain(&f);
    }
    assert_int_equal(blocks(&f), 0);
    assert_true(metric_get(METRIC_ballast_used) > 0);
    /* What it freed is enough to go on: the ballast comes back, and writes are taken. */
    f.limits.retention_bytes = 0;
    f.now_ms += 60000;
    maintain(&f);
    assert_int_equal(write_one(&f, 1, f.now_ms, 1).status, STATUS_OK);
    close_sim(&f);
}

static void on_done(void *context, struct storage_write *write) {
    *(int *)context = storage_write_result(write)->status;
    storage_write_free(write);
}

/* A delete fits into what the log has made ready, and is in the manifest with the ballast's room. */
static void test_delete(void **state) {
    (void)state;
    struct fixture f;
    open_sim(&f);
    io_sim_capacity_set(f.io, io_sim_used_bytes(f.io));
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str("7")};
    const struct delete_selector selector = {&matcher, 1};
    struct storage_write *write;
    struct error_detail detail = {0};
    int status = 1;
    assert_int_equal(storage_delete_prepare(f.storage, &selector, 1, INT64_MIN, INT64_MAX, &detail, &write),
                     STATUS_OK);
    storage_write_submit(f.storage, write, on_done, &status);
    while (status == 1)
        maintain(&f);
    assert_int_equal(status, STATUS_OK);
    series_expect(&f, 7, NULL, 0);
    for (int i = 0; i < 20; i++) {
        f.now_ms += 1000;
        maintain(&f);
    }
    assert_int_equal(metric_get(METRIC_ballast_used), 1);
    storage_close(f.storage);
    fixture_open_storage(&f); /* reads go on, after a start too */
    series_expect(&f, 7, NULL, 0);
    struct sample_columns columns;
    series_read(&f, 8, &columns);
    assert_int_equal(columns.count, 4);
    sample_columns_release(&columns);
    close_sim(&f);
}

/* Writes until the log has no room: refused, and nothing that was acknowledged is lost; then room again. */
static void test_writes(void **state) {
    (void)state;
    struct fixture f;
    open_sim(&f);
    io_sim_capacity_set(f.io, io_sim_used_bytes(f.io));
    int stored = 0, status = STATUS_OK;
    for (; stored < 10000 && status == STATUS_OK; stored++) {
        f.now_ms += 10;
        status = write_one(&f, 60, f.now_ms, (uint64_t)stored).status;
    }
    assert_true(status == STATUS_IO || status == STATUS_NO_SPACE);
    struct sample_columns columns;
    series_read(&f, 60, &columns);
    assert_int_equal(columns.count, stored - 1);
    sample_columns_release(&columns);
    io_sim_capacity_set(f.io, 0);
    for (int i = 0; i < 100 && status != STATUS_OK; i++) {
        f.now_ms += 100;
        maintain(&f);
        status = write_one(&f, 60, f.now_ms, 1).status;
    }
    assert_int_equal(status, STATUS_OK);
    series_read(&f, 60, &columns);
    assert_int_equal(columns.count, stored);
    sample_columns_release(&columns);
    close_sim(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retention),
        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
