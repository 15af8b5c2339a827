/* test_snapshot.c: snapshots, their labels and the chunk log: restarts that read them, and damage in each of
 * their files. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "tests/unit/storage/storage_fixture.h"

#define SERIES  30
#define ROUNDS  400
#define STEP_MS 1000

static struct sample model[SERIES][ROUNDS];
static size_t count;

static void open_small(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL);
    storage_close(f->storage);
    f->limits.snapshot_samples_max = 2000;
    f->limits.snapshot_ms_max = 1u << 30;
    f->limits.retention_ms = 0;
    f->now_ms -= f->now_ms % (int64_t)f->limits.window_ms;
    fixture_open_storage(f);
    metrics_reset();
    count = 0;
}

/* Random values, so that chunks are long. */
static void write_rounds(struct fixture *f, struct rand *rand, size_t rounds) {
    for (; rounds > 0; rounds--, count++) {
        struct batch *b = batch_new();
        for (int series = 0; series < SERIES; series++) {
            struct sample sample = {f->now_ms, rand_u64(rand) >> 12};
            batch_add(b, series, sample.time_ms, sample.value_bits);
            model[series][count] = sample;
        }
        assert_int_equal(batch_write(f, b).samples_stored, SERIES);
        f->now_ms += STEP_MS;
        fixture_maintain(f);
    }
}

static void check(struct fixture *f) {
    for (int series = 0; series < SERIES; series++)
        series_expect(f, series, model[series], count);
}

/* The newest file in head/ with that ending. */
static void newest(const struct fixture *f, const char *ending, char *path, size_t bytes) {
    char dir_path[128], best[64] = "";
    snprintf(dir_path, sizeof dir_path, "%s/head", f->dir);
    DIR *dir = opendir(dir_path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        const char *dot = strchr(entry->d_name, '.');
        if (dot != NULL && strcmp(dot, ending) == 0 && strcmp(entry->d_name, best) > 0)
            snprintf(best, sizeof best, "%.60s", entry->d_name);
    }
    closedir(dir);
    assert_true(best[0] != '\0');
    snprintf(path, bytes, "%s/head/%s", f->dir, best);
}

static long size_of(const char *path) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fclose(file);
    return size;
}

static uint64_t damage(void) {
    return metric_get(METRIC_snapshot_damage) + metric_get(METRIC_chunklog_damage);
}

/* A start reads the log since the newest snapshot only, what is sent again is known, and slots stay. */
static void test_snapshot_restart(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 1);
    open_small(&f);
    for (int start = 0; start < 4; start++) {
        write_rounds(&f, &rand, 90);
        uint64_t snapshots = metric_get(METRIC_snapshots);
        assert_true(snapshots > 0);
        metrics_reset();
        fixture_reopen(&f);
        assert_true(metric_get(METRIC_wal_replay_samples) <= 2100);
        assert_int_equal(damage(), 0);
        check(&f);
        struct batch *b = batch_new();
        for (int series = 0; series < SERIES; series++)
            batch_add(b, series, model[series][count - 1].time_ms, model[series][count - 1].value_bits);
        assert_int_equal(batch_write(&f, b).samples_equal, SERIES);
        write_rounds(&f, &rand, 1);
    }
    assert_true(metric_get(METRIC_wal_segments) <= 4); /* the log is cut behind snapshots */
    fixture_close(&f);
}

/* The newest snapshot damaged at any of many places: the one before it and the log since have everything. */
static void test_snapshot_damaged(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    char path[256];
    rand_init(&rand, 2);
    open_small(&f);
    write_rounds(&f, &rand, 250);
    newest(&f, ".snapshot", path, sizeof path);
    long size = size_of(path);
    for (int round = 0; round < 12; round++) {
        storage_close(f.storage);
        size_t at = round == 0 ? 0 : (size_t)rand_below(&rand, (uint64_t)size);
        file_flip(path, at);
        metrics_reset();
        fixture_open_storage(&f);
        check(&f);
        storage_close(f.storage);
        file_flip(path, at);
        fixture_open_storage(&f);
        check(&f);
    }
    storage_close(f.storage);
    assert_int_equal(unlink(path), 0);
    metrics_reset();
    fixture_open_storage(&f);
    assert_true(damage() > 0);
    check(&f);
    fixture_close(&f);
}

/* Both damaged: what can be read of the newest, and the log since; it is told, and nothing is made up. */
static void test_snapshots_damaged(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    char path[256];
    rand_init(&rand, 5);
    open_small(&f);
    write_rounds(&f, &rand, 250);
    storage_close(f.storage);
    DIR *dir;
    snprintf(path, sizeof path, "%s/head", f.dir);
    assert_non_null(dir = opendir(path));
    unsigned flipped = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (strstr(entry->d_name, ".snapshot") != NULL) {
            snprintf(path, sizeof path, "%s/head/%.60s", f.dir, entry->d_name);
            file_flip(path, 100); /* in the first slice */
            flipped++;
        }
    closedir(dir);
    assert_int_equal(flipped, 2);
    metrics_reset();
    fixture_open_storage(&f);
    assert_true(damage() >= 2);
    size_t found = 0;
    for (int series = 0; series < SERIES; series++) {
        struct sample_columns columns = {0};
        series_read(&f, series, &columns);
        for (size_t i = 0; i < columns.count; i++) {
            size_t at = count - columns.count + i; /* the newest of them */
            assert_true(columns.times_ms[i] == model[series][at].time_ms);
            assert_int_equal(double_bits(columns.values[i]), model[series][at].value_bits);
        }
        found += columns.count;
        sample_columns_release(&columns);
    }
    assert_true(found > 0 && found < count * SERIES);
    write_rounds(&f, &rand, 1);
    fixture_close(&f);
}

/* Each of the three reasons for a snapshot alone. */
static void test_snapshot_due(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    rand_init(&rand, 6);
    for (int reason = 0; reason < 3; reason++) {
        open_small(&f);
        storage_close(f.storage);
        f.limits.snapshot_samples_max = reason == 0 ? 300 : UINT64_C(1) << 60;
        f.limits.snapshot_log_bytes_max = reason == 1 ? 40960 : UINT64_C(1) << 60;
        f.limits.snapshot_ms_max = reason == 2 ? 10000 : 1u << 30;
        fixture_open_storage(&f);
        write_rounds(&f, &rand, 8);
        assert_int_equal(metric_get(METRIC_snapshots), 0);
        write_rounds(&f, &rand, 8);
        assert_int_equal(metric_get(METRIC_snapshots), 1);
        fixture_close(&f);
    }
}

/* One copy of the labels damaged, or gone: the other has them. Both: what they name is lost, and told. */
static void test_snapshot_labels(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    char path[256], path2[256];
    rand_init(&rand, 3);
    open_small(&f);
    write_rounds(&f, &rand, 150);
    newest(&f, ".labels", path, sizeof path);
    newest(&f, ".labels2", path2, sizeof path2);
    storage_close(f.storage);
    file_flip(path, 30);
    metrics_reset();
    fixture_open_storage(&f);
    assert_true(damage() > 0);
    check(&f);
    storage_close(f.storage);
    assert_int_equal(unlink(path), 0);
    fixture_open_storage(&f);
    check(&f);
    /* They are written anew, twice, without waiting for samples. */
    fixture_maintain(&f);
    metrics_reset();
    fixture_reopen(&f);
    assert_int_equal(damage(), 0);
    check(&f);
    newest(&f, ".labels", path, sizeof path);
    newest(&f, ".labels2", path2, sizeof path2);
    storage_close(f.storage);
    file_flip(path, 30);
    file_flip(path2, 30);
    metrics_reset();
    fixture_open_storage(&f);
    assert_true(damage() > 0);
    fixture_close(&f);
}

/* A sealed chunk damaged: its series misses that one, others nothing, the answer names it. Once the window is
 * in a block there is nothing left that is damaged, and whoever asks for that time is still told. */
static void test_chunklog_damaged(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    char path[256];
    rand_init(&rand, 4);
    open_small(&f);
    write_rounds(&f, &rand, 399);
    newest(&f, ".chunks", path, sizeof path);
    storage_close(f.storage);
    file_flip(path, 45000); /* of the middle ones */
    metrics_reset();
    fixture_open_storage(&f);
    for (int cut = 0; cut < 2; cut++) {
        struct storage_selection *selection;
        assert_int_equal(storage_select(f.storage, NULL, 0, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
        assert_int_equal(selection_series_count(selection), SERIES);
        size_t hurt = 0;
        struct sample_columns columns = {0};
        for (size_t i = 0; i < SERIES; i++) {
            columns.count = 0;
            assert_int_equal(selection_read(selection, i, INT64_MIN, INT64_MAX, &columns), STATUS_OK);
            hurt += columns.count != count;
            size_t missing = 0;
            for (size_t j = 0; j < columns.count; j++) { /* a hole, and never another value */
                while (columns.times_ms[j] != model[0][j + missing].time_ms)
                    missing++;
                assert_true(j + missing < count);
            }
            assert_true(columns.count >= count - 120 && columns.times_ms[0] == model[0][0].time_ms);
        }
        assert_int_equal(hurt, 1);
        assert_true(selection_damaged(selection) > 0 && damage() > 0);
        char text[64];
        selection_damage_text(selection, text, sizeof text);
        assert_non_null(strstr(path, text));
        sample_columns_release(&columns);
        selection_close(selection);
        f.now_ms += (int64_t)(2 * f.limits.window_ms + f.limits.window_grace_ms);
        fixture_maintain(&f);
        assert_true(metric_get(METRIC_blocks_cut) > 0);
    }
    fixture_close(&f);
}

/* A snapshot that always is due does not put off cutting, nor a copy that somebody asked for. */
static void copied(void *context, int status, const char *name) {
    (void)name;
    *(int *)context = status;
}

static void test_snapshot_stream(void **state) {
    (void)state;
    struct fixture f;
    int status = 1;
    open_small(&f);
    write_one(&f, 1, f.now_ms, 1);
    fixture_maintain(&f);
    f.limits.snapshot_samples_max = 1;
    f.now_ms += (int64_t)(2 * f.limits.window_ms + f.limits.window_grace_ms);
    assert_int_equal(storage_copy(f.storage, STORAGE_COPY_ALL, copied, &status), STATUS_OK);
    while ((metric_get(METRIC_blocks_cut) == 0 || status == 1) && metric_get(METRIC_snapshots) < 100) {
        write_one(&f, 1, f.now_ms++, 1);
        (void)storage_maintain(f.storage, f.now_ms);
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(metric_get(METRIC_blocks_cut), 1);
    assert_in_range(metric_get(METRIC_snapshots), 1, 4);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot_restart),  cmocka_unit_test(test_snapshot_damaged),
        cmocka_unit_test(test_snapshots_damaged), cmocka_unit_test(test_snapshot_due),
        cmocka_unit_test(test_snapshot_labels),   cmocka_unit_test(test_chunklog_damaged),
        cmocka_unit_test(test_snapshot_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
