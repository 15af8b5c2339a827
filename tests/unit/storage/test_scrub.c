/* test_scrub.c: blocks are checked in the background: whole ones pass, rot is found and counted, a rotten
 * index is made anew, and never faster than was asked for. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "storage/block/block.h"
#include "tests/unit/storage/storage_fixture.h"

#define WINDOW_MS INT64_C(60000)

static void open_small(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL);
    storage_close(f->storage);
    f->limits.window_ms = (uint64_t)WINDOW_MS;
    f->limits.window_grace_ms = 5000;
    f->limits.retention_ms = 0;
    f->limits.scrub_bytes_per_s = 1 << 20;
    f->limits.scrub_pass_ms = 600000;
    f->now_ms -= f->now_ms % WINDOW_MS;
    fixture_open_storage(f);
    metrics_reset();
    for (int window = 0; window < 2; window++) {
        struct batch *b = batch_new();
        for (int series = 0; series < 50; series++)
            batch_add(b, series, f->now_ms, double_bits(series));
        assert_int_equal(batch_write(f, b).samples_stored, 50);
        f->now_ms += 2 * WINDOW_MS;
        fixture_maintain(f);
    }
    assert_int_equal(metric_get(METRIC_blocks_cut), 2);
}

/* As the clock goes on; returns after how long a pass ended. */
static int64_t pass_run(struct fixture *f) {
    uint64_t passes = metric_get(METRIC_scrub_passes);
    int64_t begin_ms = f->now_ms;
    while (metric_get(METRIC_scrub_passes) == passes) {
        assert_true(f->now_ms - begin_ms < 3600000);
        f->now_ms += 100;
        fixture_maintain(f);
    }
    return f->now_ms - begin_ms;
}

static char *block_file(const struct fixture *f, const char *name) {
    static char path[512];
    char dir[128];
    snprintf(dir, sizeof dir, "%s/blocks", f->dir);
    DIR *blocks = opendir(dir);
    assert_non_null(blocks);
    struct dirent *entry;
    do
        entry = readdir(blocks);
    while (entry != NULL && entry->d_name[0] == '.');
    assert_non_null(entry);
    snprintf(path, sizeof path, "%s/%s/%s", dir, entry->d_name, name);
    closedir(blocks);
    return path;
}

static struct buf file_read(const char *path) {
    struct buf bytes;
    buf_init(&bytes);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    for (int byte; (byte = fgetc(file)) != EOF;)
        buf_append_byte(&bytes, (uint8_t)byte);
    fclose(file);
    assert_false(bytes.failed);
    return bytes;
}

/* Where the text stands in the file for the last time. */
static size_t text_find(const char *path, const char *text) {
    struct buf bytes = file_read(path);
    size_t len = strlen(text);
    size_t found = SIZE_MAX;
    for (size_t i = 0; i + len <= bytes.len; i++)
        if (memcmp(bytes.data + i, text, len) == 0)
            found = i;
    buf_release(&bytes);
    assert_true(found != SIZE_MAX);
    return found;
}

static void test_whole(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    assert_int_equal(metric_get(METRIC_scrub_passes), 0);
    pass_run(&f);
    assert_int_equal(metric_get(METRIC_scrub_damage), 0);
    assert_true(metric_get(METRIC_scrub_bytes) > 0);
    assert_int_equal(metric_get(METRIC_scrub_time), f.now_ms / 1000);
    /* The next begins no sooner than it may; its steps are a second apart at this rate. */
    uint64_t bytes = metric_get(METRIC_scrub_bytes);
    int64_t took_ms = pass_run(&f);
    assert_true(took_ms > 590000);
    uint64_t slices = (metric_get(METRIC_scrub_bytes) - bytes) >> 20;
    assert_true(slices > 2 && (uint64_t)took_ms > slices * 1000);
    fixture_close(&f);
}

static void test_rot(void **state) {
    (void)state;
    struct fixture f;
    struct stat st;
    open_small(&f);
    pass_run(&f);
    char *path = block_file(&f, "chunks");
    assert_int_equal(stat(path, &st), 0);
    file_flip(path, (size_t)st.st_size / 2);
    pass_run(&f);
    assert_true(metric_get(METRIC_scrub_damage) > 0);
    /* It costs what it touches: nothing was made anew from damaged chunks. */
    fixture_reopen(&f);
    size_t missing = 0;
    for (int series = 0; series < 50; series++) {
        struct sample_columns columns;
        series_read(&f, series, &columns);
        missing += 2 - columns.count;
        sample_columns_release(&columns);
    }
    assert_int_equal(missing, 0); /* the series' head was hit: the index still has its labels */
    fixture_close(&f);
}

static void test_index(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    file_flip(block_file(&f, "index.sum"), 44);
    pass_run(&f);
    uint64_t found = metric_get(METRIC_scrub_damage);
    assert_true(found > 0);
    uint64_t told = metric_get(METRIC_block_damage);
    fixture_reopen(&f); /* it was made anew */
    assert_int_equal(metric_get(METRIC_block_damage), told);
    pass_run(&f);
    assert_int_equal(metric_get(METRIC_scrub_damage), found);
    for (int series = 0; series < 50; series++) {
        struct sample_columns columns;
        series_read(&f, series, &columns);
        assert_int_equal(columns.count, 2);
        sample_columns_release(&columns);
    }
    fixture_close(&f);
}

/* A pass finds something, and after the next start all is there, and no pass finds anything any more. */
static void index_expect_renewed(struct fixture *f) {
    pass_run(f);
    uint64_t found = metric_get(METRIC_scrub_damage);
    assert_true(found > 0);
    fixture_reopen(f);
    const struct matcher matcher = {
        .kind = MATCHER_EQUAL, .name = slice_str("__name__"), .value = slice_str("m")};
    struct storage_selection *selection;
    assert_int_equal(storage_select(f->storage, &matcher, 1, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    assert_int_equal(selection_series_count(selection), 50);
    struct sample_columns columns = {0};
    for (size_t i = 0; i < 50; i++) {
        columns.count = 0;
        assert_int_equal(selection_read(selection, i, INT64_MIN, INT64_MAX, &columns), STATUS_OK);
        assert_int_equal(columns.count, 2);
    }
    sample_columns_release(&columns);
    selection_close(selection);
    assert_int_equal(metric_get(METRIC_block_damage), 0);
    pass_run(f);
    assert_int_equal(metric_get(METRIC_scrub_damage), found);
}

/* The index itself rots under the open block, which maps it: what is made anew comes from `chunks`. */
static void test_index_page(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    char *path = block_file(&f, "index.mdb");
    file_flip(path, text_find(path, "__name__"));
    index_expect_renewed(&f);
    fixture_close(&f);
}

/* An index with good checksums that says other things than `chunks` does. */
static void test_index_lies(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    storage_close(f.storage);
    char *path = block_file(&f, "index.mdb"), *dir = mem_strndup(path, strlen(path) - strlen("/index.mdb"));
    struct block *block;
    assert_int_equal(block_open(f.io, dir, NULL, &block), STATUS_OK);
    file_flip(path, text_find(path, "__name__"));
    assert_int_equal(block_repair(block, NULL), STATUS_OK);
    block_close(block);
    mem_free(dir);
    fixture_open_storage(&f);
    index_expect_renewed(&f);
    fixture_close(&f);
}

/* With damage in `chunks` too, the index may be all that still knows some labels: it stays as it is. */
static void test_index_stays(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    char *path = block_file(&f, "chunks");
    file_flip(path, text_find(path, "__name__"));
    path = block_file(&f, "index.sum");
    file_flip(path, 44);
    struct buf before = file_read(path);
    pass_run(&f);
    assert_true(metric_get(METRIC_scrub_damage) > 1);
    struct buf after = file_read(path);
    assert_true(slice_equal(buf_slice(&before), buf_slice(&after)));
    buf_release(&before);
    buf_release(&after);
    fixture_close(&f);
}

/* A block that goes while it is being checked, a clock that goes back, a stop in the middle. */
static void test_interrupted(void **state) {
    (void)state;
    struct fixture f;
    open_small(&f);
    while (metric_get(METRIC_scrub_bytes) == 0) {
        f.now_ms += 1000;
        fixture_maintain(&f);
    }
    f.limits.retention_bytes = 1; /* both blocks go */
    fixture_maintain(&f);
    struct storage_status status;
    storage_status(f.storage, &status);
    assert_int_equal(status.blocks, 0);
    f.limits.retention_bytes = 0;
    pass_run(&f);
    assert_int_equal(metric_get(METRIC_scrub_damage), 0);
    f.now_ms -= 86400000;
    for (int i = 0; i < 100; i++) {
        f.now_ms += 1000;
        fixture_maintain(&f);
    }
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),       cmocka_unit_test(test_rot),
        cmocka_unit_test(test_index),       cmocka_unit_test(test_index_page),
        cmocka_unit_test(test_index_lies),  cmocka_unit_test(test_index_stays),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
