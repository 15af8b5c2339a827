/* test_copy.c: copies of a data directory: another storage opens them and finds the same, and neither of the
 * two is changed by what the other does. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "tests/unit/storage/storage_fixture.h"

#define SERIES  20
#define STEP_MS 1000

static void open_small(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL);
    storage_close(f->storage);
    f->limits.snapshot_samples_max = 1500;
    f->limits.retention_ms = 0;
    f->limits.window_ms = 60000;
    f->limits.window_grace_ms = 1000;
    f->limits.late_ms_max = 5000;
    f->now_ms -= f->now_ms % (int64_t)f->limits.window_ms;
    fixture_open_storage(f);
    metrics_reset();
    char path[128];
    snprintf(path, sizeof path, "%s/snapshots", f->dir);
    assert_int_equal(mkdir(path, 0700), 0); /* so that there is something to look into */
}

static void write_rounds(struct fixture *f, struct rand *rand, size_t rounds) {
    for (; rounds > 0; rounds--) {
        struct batch *b = batch_new();
        for (int series = 0; series < SERIES; series++)
            batch_add(b, series, f->now_ms, rand_u64(rand) >> 12);
        assert_int_equal(batch_write(f, b).samples_stored, SERIES);
        f->now_ms += STEP_MS;
        fixture_maintain(f);
    }
}

/* Blocks, late blocks, a snapshot, a delete that blocks still need, samples that only the log has. */
static void fill(struct fixture *f, struct rand *rand) {
    write_rounds(f, rand, 200);
    for (int series = 0; series < SERIES; series += 3)
        (void)write_one(f, series, f->now_ms - 150 * STEP_MS - 500, 7);
    f->now_ms += 10000;
    fixture_maintain(f);
    write_rounds(f, rand, 30);
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str("4")};
    const struct delete_selector selector = {&matcher, 1};
    struct outcome outcome = {0};
    assert_int_equal(
        delete_submit(f, &selector, 1, f->now_ms - 180 * STEP_MS, f->now_ms - 20 * STEP_MS, &outcome),
        STATUS_OK);
    while (!outcome.done)
        storage_step(f->storage, f->now_ms);
    write_rounds(f, rand, 7);
    assert_true(metric_get(METRIC_blocks_cut) > 1 && metric_get(METRIC_blocks_late) > 0 &&
                metric_get(METRIC_snapshots) > 1);
}

/* All samples of all series. */
struct contents {
    struct sample_columns series[SERIES];
};

static void contents_read(struct fixture *f, struct contents *out) {
    memset(out, 0, sizeof *out);
    for (int i = 0; i < SERIES; i++)
        series_read(f, i, &out->series[i]);
}

static void contents_release(struct contents *contents) {
    for (int i = 0; i < SERIES; i++)
        sample_columns_release(&contents->series[i]);
}

static void contents_expect(struct fixture *f, const struct contents *want) {
    struct contents found;
    contents_read(f, &found);
    for (int i = 0; i < SERIES; i++) {
        const struct sample_columns *a = &found.series[i], *b = &want->series[i];
        assert_int_equal(a->count, b->count);
        assert_memory_equal(a->times_ms, b->times_ms, a->count * sizeof *a->times_ms);
        assert_memory_equal(a->values, b->values, a->count * sizeof *a->values);
    }
    contents_release(&found);
}

struct answer {
    bool done;
    int status;
    char name[64];
};

static void on_done(void *context, int status, const char *name) {
    struct answer *answer = context;
    assert_false(answer->done);
    *answer = (struct answer){.done = true, .status = status};
    assert_int_equal(status == STATUS_OK, name != NULL);
    snprintf(answer->name, sizeof answer->name, "%s", name == NULL ? "" : name);
}

static void copy_wait(struct fixture *f, const struct answer *answer) {
    for (int i = 0; i < 100000 && !answer->done; i++) {
        storage_maintain(f->storage, f->now_ms);
        storage_step(f->storage, f->now_ms);
    }
    assert_true(answer->done);
}

static struct answer copy(struct fixture *f) {
    struct answer answer = {0};
    assert_int_equal(storage_copy(f->storage, STORAGE_COPY_ALL, on_done, &answer), STATUS_OK);
    copy_wait(f, &answer);
    return answer;
}

/* Moves it to a directory of its own and opens it. */
static void copy_open(const struct fixture *f, const char *name, struct fixture *out) {
    char from[256];
    snprintf(from, sizeof from, "%s/snapshots/%s", f->dir, name);
    *out = (struct fixture){.limits = f->limits, .now_ms = f->now_ms};
    snprintf(out->dir, sizeof out->dir, "/tmp/tidalite-test-XXXXXX");
    assert_non_null(mkdtemp(out->dir));
    assert_int_equal(rename(from, out->dir), 0);
    struct error_detail detail = {0};
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, &detail, &out->io), STATUS_OK);
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, &detail, &out->io_maintain), STATUS_OK);
    metrics_reset();
    fixture_open_storage(out);
    assert_int_equal(metric_get(METRIC_wal_replay_corrupt_frames) + metric_get(METRIC_wal_replay_torn) +
                         metric_get(METRIC_blocks_damaged) + metric_get(METRIC_block_damage) +
                         metric_get(METRIC_snapshot_damage) + metric_get(METRIC_chunklog_damage),
                     0);
}

static bool linked(const struct fixture *f) {
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/blocks", f->dir);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    bool found = false;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char file[600];
        snprintf(file, sizeof file, "%s/%s/chunks", path, entry->d_name);
        found |= stat(file, &st) == 0 && st.st_nlink == 2;
    }
    closedir(dir);
    return found;
}

static void test_copy(void **state) {
    (void)state;
    struct fixture f, second;
    struct rand rand;
    struct contents then, later;
    rand_init(&rand, 1);
    open_small(&f);
    fill(&f, &rand);
    contents_read(&f, &then);
    struct answer answer = copy(&f);
    assert_int_equal(answer.status, STATUS_OK);
    assert_int_equal(fixture_entries(&f, "snapshots"), 1);
    contents_expect(&f, &then);
    assert_true(linked(&f));
    /* The first goes on: windows are cut, blocks merged, cleaned and removed, the log and the chunk log cut.
     */
    write_rounds(&f, &rand, 400);

    contents_read(&f, &later);
    copy_open(&f, answer.name, &second);
    contents_expect(&second, &then);
    /* And the copy. */
    write_rounds(&second, &rand, 400);
    fixture_reopen(&second);
    fixture_close(&second);
    fixture_reopen(&f);
    contents_expect(&f, &later);
    contents_release(&then);
    contents_release(&later);
    fixture_close(&f);
}

/* Samples keep coming, and a snapshot of the head falls due, while the copy is made: it has what was
 * acknowledged before, and the snapshot waits. */
static void test_copy_under_load(void **state) {
    (void)state;
    struct rand rand;
    for (uint64_t seed = 10; seed < 18; seed++) {
        struct fixture f, second;
        struct contents then, found;
        struct answer answer = {0};
        rand_init(&rand, seed);
        open_small(&f);
        f.limits.snapshot_samples_max = 100 + 20 * (seed - 10);
        fixture_reopen(&f);
        fill(&f, &rand);
        contents_read(&f, &then);
        uint64_t snapshots = metric_get(METRIC_snapshots);
        assert_int_equal(storage_copy(f.storage, STORAGE_COPY_ALL, on_done, &answer), STATUS_OK);
        for (int i = 0; i < 10000 && !answer.done; i++) {
            storage_maintain(f.storage, f.now_ms);
            storage_step(f.storage, f.now_ms);
            struct batch *b = batch_new();
            for (int series = 0; series < SERIES; series++)
                batch_add(b, series, f.now_ms + i, rand_u64(&rand) >> 12);
            assert_int_equal(batch_write(&f, b).status, STATUS_OK);
        }
        assert_true(answer.done && answer.status == STATUS_OK);
        uint64_t before = metric_get(METRIC_snapshots);
        fixture_maintain(&f);
        assert_true(metric_get(METRIC_snapshots) > before && before <= snapshots + 1);
        copy_open(&f, answer.name, &second);
        contents_read(&second, &found);
        for (int i = 0; i < SERIES; i++) {
            const struct sample_columns *a = &found.series[i], *b = &then.series[i];
            assert_true(a->count >= b->count);
            assert_memory_equal(a->times_ms, b->times_ms, b->count * sizeof *b->times_ms);
            assert_memory_equal(a->values, b->values, b->count * sizeof *b->values);
        }
        contents_release(&found);
        contents_release(&then);
        fixture_close(&second);
        fixture_close(&f);
    }
}

/* Whatever operation fails, nothing is left of the copy, the storage goes on, and the next one is whole. */
static void test_copy_fails(void **state) {
    (void)state;
    static const int errors[] = {EIO, ENOSPC};
    struct fixture f, second;
    struct rand rand;
    struct contents then;
    rand_init(&rand, 2);
    open_small(&f);
    fill(&f, &rand);
    contents_read(&f, &then);
    for (size_t e = 0; e < 2; e++) {
        size_t failed = 0;
        metrics_reset();
        for (uint64_t n = 1;; n += 1 + n / 12) { /* each of the first, then some of many alike */
            io_fault_set(f.io_maintain, (struct io_fault){.countdown = n, .error = errors[e]});
            struct answer answer = copy(&f);
            bool fired = io_fault_fired(f.io_maintain);
            io_fault_set(f.io_maintain, (struct io_fault){0});
            failed += answer.status < 0;
            if (answer.status == STATUS_OK) { /* a link that failed is a copy */
                char path[256];
                snprintf(path, sizeof path, "%s/snapshots/%s", f.dir, answer.name);
                if (!fired) {
                    assert_int_equal(metric_get(METRIC_copy_failures), failed);
                    assert_true(metric_get(METRIC_copies) > 0);
                    copy_open(&f, answer.name, &second);
                    contents_expect(&second, &then);
                    fixture_close(&second);
                    break;
                }
                snprintf(path, sizeof path, "rm -rf %s/snapshots/%s", f.dir, answer.name);
                assert_int_equal(system(path), 0);
            }
            assert_int_equal(fixture_entries(&f, "snapshots"), 0);
        }
        assert_true(failed > 10);
    }
    contents_expect(&f, &then);
    write_rounds(&f, &rand, 1);
    contents_release(&then);
    fixture_close(&f);
}

/* Without the head: what is in blocks, less what was deleted, also by deletes that the log alone has. */
static void test_copy_blocks(void **state) {
    (void)state;
    struct fixture f, second;
    struct rand rand;
    struct contents want;
    rand_init(&rand, 5);
    open_small(&f);
    fill(&f, &rand);
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str("7")};
    const struct delete_selector selector = {&matcher, 1};
    struct outcome outcome = {0};
    int64_t cut_ms = f.now_ms - f.now_ms % (int64_t)f.limits.window_ms;
    struct answer answer = {0};
    assert_int_equal(storage_copy(f.storage, STORAGE_COPY_BLOCKS, on_done, &answer), STATUS_OK);
    assert_true(storage_maintain(f.storage, f.now_ms)); /* begins: the manifest changes no more */
    assert_int_equal(delete_submit(&f, &selector, 1, INT64_MIN, INT64_MAX, &outcome), STATUS_OK);
    while (!outcome.done)
        storage_step(f.storage, f.now_ms);
    copy_wait(&f, &answer);
    assert_int_equal(answer.status, STATUS_OK);
    contents_read(&f, &want);
    size_t left_out = 0, kept = 0;
    for (int i = 0; i < SERIES; i++) {
        struct sample_columns *columns = &want.series[i];
        for (; columns->count > 0 && columns->times_ms[columns->count - 1] >= cut_ms; columns->count--)
            left_out++;
        kept += columns->count;
    }
    assert_true(left_out > 0 && kept > 1000);
    copy_open(&f, answer.name, &second);
    contents_expect(&second, &want);
    assert_int_equal(fixture_entries(&second, "head"), 0);
    /* It goes on as any other: what was deleted and comes again is new. */
    for (int round = 0; round < 2; round++) {
        series_expect(&second, 7, NULL, 0);
        fixture_reopen(&second);
    }
    assert_int_equal(write_one(&second, 7, cut_ms - 1000, 5).samples_stored, 1);
    fixture_reopen(&second);
    series_expect(&second, 7, (struct sample[]){{cut_ms - 1000, 5}}, 1);
    fixture_close(&second);
    contents_release(&want);
    fixture_close(&f);
}

/* What a crash left of one is swept, what is whole stays; who waits for one when the storage closes is told.
 */
static void test_copy_left(void **state) {
    (void)state;
    struct fixture f;
    struct rand rand;
    struct answer answer = {0};
    char path[256];
    rand_init(&rand, 3);
    open_small(&f);
    fill(&f, &rand);
    assert_int_equal(copy(&f).status, STATUS_OK);
    snprintf(path, sizeof path,
             "mkdir -p %s/snapshots/half.tmp/blocks/0000000000000001 && "
             "touch %s/snapshots/half.tmp/blocks/0000000000000001/chunks",
             f.dir, f.dir);
    assert_int_equal(system(path), 0);
    assert_int_equal(storage_copy(f.storage, STORAGE_COPY_ALL, on_done, &answer), STATUS_OK);
    for (int i = 0; i < 3; i++)
        storage_maintain(f.storage, f.now_ms), storage_step(f.storage, f.now_ms);
    assert_false(answer.done);
    assert_int_equal(fixture_entries(&f, "snapshots"), 3);
    storage_close(f.storage);
    assert_true(answer.done && answer.status == STATUS_STOPPING);
    assert_int_equal(fixture_entries(&f, "snapshots"), 2);
    fixture_open_storage(&f);
    assert_int_equal(fixture_entries(&f, "snapshots"), 1);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy),        cmocka_unit_test(test_copy_under_load),
        cmocka_unit_test(test_copy_fails),  cmocka_unit_test(test_copy_left),
        cmocka_unit_test(test_copy_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
