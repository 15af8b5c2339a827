/* test_head.c: the head against plain arrays: verdicts, windows, seals, reads while samples are applied. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/head/head.h"

#define SLOTS     40
#define SAMPLES   3000
#define WINDOW_MS INT64_C(7200000)

static struct sample model[SLOTS][SAMPLES];
static size_t counts[SLOTS];

/* A head and the chunk log it needs, in a directory of its own. */
static struct io *io;
static char dir[64];
static struct chunklog *chunklog;

static unsigned partition(void *context, uint32_t slot) {
    (void)context;
    return slot % CHUNKLOG_PARTITIONS;
}

static struct head *open_head_in(uint64_t open_bytes_max) {
    struct head *head;
    strcpy(dir, "/tmp/tidalite-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, NULL, &io), STATUS_OK);
    assert_int_equal(chunklog_new(io, dir, 1, &chunklog), STATUS_OK);
    const struct head_options options = {WINDOW_MS, chunklog, partition, NULL, open_bytes_max};
    assert_int_equal(head_new(&options, &head), STATUS_OK);
    return head;
}

static struct head *open_head(void) {
    return open_head_in(UINT64_C(1) << 40);
}

static int remove_each(void *context, const char *name) {
    (void)context;
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return io_remove(io, path);
}

static void close_head(struct head *head) {
    head_free(head);
    chunklog_free(chunklog);
    assert_int_equal(io_list_dir(io, dir, remove_each, NULL), STATUS_OK);
    assert_int_equal(rmdir(dir), 0);
    io_close(io);
}

static int read_head(struct head *head, uint32_t slot, int64_t min_ms, int64_t max_ms,
                     struct sample_columns *columns) {
    struct head_damage damage;
    int status = head_read(head, slot, min_ms, max_ms, columns, &damage);
    assert_true(status < 0 || damage.count == 0);
    return status;
}

static enum head_verdict apply(struct head *head, uint32_t slot, struct sample sample, uint64_t *existing) {
    enum head_verdict verdict;
    assert_int_equal(head_apply(head, slot, sample, START_NONE, INT64_MIN, &verdict, existing), STATUS_OK);
    return verdict;
}

static void model_run(struct head *head) {
    struct rand rand;
    uint64_t existing;
    rand_init(&rand, 3);
    memset(counts, 0, sizeof counts);
    for (int step = 0; step < 60000; step++) {
        uint32_t slot = (uint32_t)rand_below(&rand, SLOTS);
        struct sample *samples = model[slot];
        size_t count = counts[slot];
        if (count > 0 && rand_below(&rand, 4) == 0) {
            /* Something stored once more: as it was, changed, or between two others. */
            struct sample again = samples[rand_below(&rand, count)];
            switch (rand_below(&rand, 3)) {
            case 0:
                assert_int_equal(apply(head, slot, again, &existing), HEAD_EQUAL);
                break;
            case 1:
                again.value_bits ^= 1;
                assert_int_equal(apply(head, slot, again, &existing), HEAD_CONFLICT);
                assert_int_equal(existing, again.value_bits ^ 1);
                break;
            default:
                again.time_ms -= 1; /* times below are even */
                assert_int_equal(apply(head, slot, again, &existing), HEAD_LATE);
            }
            continue;
        }
        if (count == SAMPLES)
            continue;
        int64_t last = count == 0 ? -5 * WINDOW_MS : samples[count - 1].time_ms;
        int64_t gap = rand_below(&rand, 200) == 0 ? (int64_t)rand_below(&rand, 3 * WINDOW_MS) : 15000;
        struct sample next = {last + gap / 2 * 2 + 2, double_bits((double)rand_below(&rand, 1000))};
        assert_int_equal(apply(head, slot, next, &existing), HEAD_STORED);
        samples[counts[slot]++] = next;
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        size_t count = counts[slot];
        for (int round = 0; round < 20; round++) {
            size_t a = rand_below(&rand, count), b = a + rand_below(&rand, count - a);
            struct sample_columns columns = {0};
            assert_int_equal(read_head(head, slot, model[slot][a].time_ms, model[slot][b].time_ms, &columns),
                             STATUS_OK);
            assert_int_equal(columns.count, b - a + 1);
            for (size_t i = a; i <= b; i++) {
                assert_int_equal(columns.times_ms[i - a], model[slot][i].time_ms);
                assert_int_equal(double_bits(columns.values[i - a]), model[slot][i].value_bits);
            }
            sample_columns_release(&columns);
        }
        assert_true(head_overlaps(head, slot, model[slot][count - 1].time_ms, INT64_MAX));
        assert_false(head_overlaps(head, slot, model[slot][count - 1].time_ms + 1, INT64_MAX));
        assert_false(head_overlaps(head, slot, INT64_MIN, model[slot][0].time_ms - 1));
    }
    assert_false(head_overlaps(head, SLOTS, INT64_MIN, INT64_MAX));
}

static void test_model(void **state) {
    (void)state;
    struct head *head = open_head();
    model_run(head);
    close_head(head);
}

/* What sealed chunks take of memory is given back to the last byte, files' headers included. */
static void test_sealed_memory(void **state) {
    (void)state;
    struct head *head = open_head();
    struct error_detail detail = {0};
    uint64_t existing;
    bool more = true;
    for (int64_t window = 0; window < 3; window++)
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            assert_int_equal(apply(head, slot, (struct sample){window * WINDOW_MS, slot}, &existing),
                             HEAD_STORED);
    assert_true(chunklog_memory_bytes(chunklog) > (uint64_t)2 * SLOTS * 8);
    assert_int_equal(head_drop(head, 0, SLOTS, 2 * WINDOW_MS, 2 * WINDOW_MS), UINT32_MAX);
    chunklog_drop(chunklog, 2 * WINDOW_MS);
    while (more)
        assert_int_equal(chunklog_write(chunklog, &more, &detail), STATUS_OK);
    assert_int_equal(chunklog_memory_bytes(chunklog), 0);
    close_head(head);
}

/* With little memory for open chunks they are sealed early, and nothing else is different. */
static void test_open_chunk_memory(void **state) {
    (void)state;
    enum { SHARE_BYTES = 150 };
    uint64_t early = metric_get(METRIC_head_chunks_sealed_early);
    struct head *head = open_head_in(SLOTS * SHARE_BYTES);
    model_run(head);
    assert_true(metric_get(METRIC_head_chunks_sealed_early) > early + SLOTS);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        struct buf bytes;
        buf_init(&bytes);
        assert_true(head_state_write(head, slot, &bytes));
        struct slice rest = buf_slice(&bytes);
        struct head_state found;
        assert_int_equal(head_state_look(&rest, &found), STATUS_OK);
        assert_true(found.bits.len <= SHARE_BYTES + 16); /* the last sample may add more than most do */
        buf_release(&bytes);
    }
    close_head(head);
}

/* Cutting: the chunks before the end of a window hold just the samples before it; when they are dropped the
 * rest stays, and what is older than the cut is late from then on, whatever the series has. */
static void test_cut(void **state) {
    (void)state;
    struct head *head;
    uint64_t existing;
    head = open_head();
    struct rand rand;
    rand_init(&rand, 5);
    size_t total = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        counts[slot] = 0;
        int64_t time_ms = (int64_t)rand_below(&rand, 2 * WINDOW_MS);
        while (counts[slot] < 900 && time_ms < 4 * WINDOW_MS) {
            struct sample sample = {time_ms, rand_u64(&rand)};
            assert_int_equal(apply(head, slot, sample, &existing), HEAD_STORED);
            model[slot][counts[slot]++] = sample;
            total++;
            time_ms += 1 + (int64_t)rand_below(&rand, slot % 4 == 0 ? 10000000 : 30000);
        }
    }
    struct head_memory memory, later;
    head_memory(head, &memory);
    const int64_t end_ms = 2 * WINDOW_MS;
    struct head_chunk *chunks = NULL;
    size_t capacity = 0, before_total = 0;
    struct buf open_bits;
    buf_init(&open_bits);
    for (uint32_t slot = 0; slot <= SLOTS; slot++) {
        size_t count = 0, before = 0;
        struct head_damage damage;
        assert_int_equal(
            head_chunks(head, slot, INT64_MIN, end_ms, &chunks, &count, &capacity, &open_bits, &damage),
            STATUS_OK);
        assert_int_equal(damage.count, 0);
        struct sample_columns columns = {0};
        for (size_t i = 0; i < count; i++) {
            size_t from = columns.count;
            assert_int_equal(chunk_decode(chunks[i].bits, chunks[i].info, INT64_MIN, INT64_MAX, &columns),
                             STATUS_OK);
            assert_true(columns.times_ms[from] == chunks[i].time_min_ms);
            assert_true(columns.times_ms[columns.count - 1] == chunks[i].time_max_ms);
        }
        while (slot < SLOTS && before < counts[slot] && model[slot][before].time_ms < end_ms)
            before++;
        assert_int_equal(columns.count, before);
        for (size_t i = 0; i < before; i++) {
            assert_true(columns.times_ms[i] == model[slot][i].time_ms);
            assert_int_equal(double_bits(columns.values[i]), model[slot][i].value_bits);
        }
        before_total += before;
        sample_columns_release(&columns);
    }
    assert_true(before_total > 1000 && before_total < total);
    for (uint32_t slot = 0; slot != UINT32_MAX;)
        slot = head_drop(head, slot, 7, end_ms, end_ms);
    chunklog_drop(chunklog, end_ms);
    int64_t oldest_ms, newest_ms, left_ms = INT64_MAX;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        size_t before = 0;
        while (before < counts[slot] && model[slot][before].time_ms < end_ms)
            before++;
        struct sample_columns columns = {0};
        assert_int_equal(read_head(head, slot, end_ms, INT64_MAX, &columns), STATUS_OK);
        assert_int_equal(columns.count, counts[slot] - before);
        for (size_t i = 0; i < columns.count; i++)
            assert_true(columns.times_ms[i] == model[slot][before + i].time_ms);
        if (columns.count > 0 && columns.times_ms[0] < left_ms)
            left_ms = columns.times_ms[0];
        sample_columns_release(&columns);
        enum head_verdict verdict;
        assert_int_equal(
            head_apply(head, slot, (struct sample){end_ms - 1, 7}, START_NONE, end_ms, &verdict, &existing),
            STATUS_OK);
        assert_int_equal(verdict, HEAD_LATE);
    }
    head_range(head, &oldest_ms, &newest_ms);
    assert_true(oldest_ms == end_ms && oldest_ms <= left_ms);
    head_memory(head, &later);
    assert_true(later.chunk_bytes <= memory.chunk_bytes);
    mem_free(chunks);
    buf_release(&open_bits);
    close_head(head);
}

static void test_edges_of_time(void **state) {
    (void)state;
    struct head *head;
    uint64_t existing;
    head = open_head();
    const int64_t times[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX};
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(apply(head, 0, (struct sample){times[i], i}, &existing), HEAD_STORED);
    struct sample_columns columns = {0};
    assert_int_equal(read_head(head, 0, INT64_MIN, INT64_MAX, &columns), STATUS_OK);
    assert_int_equal(columns.count, 7);
    for (size_t i = 0; i < 7; i++)
        assert_true(columns.times_ms[i] == times[i]);
    sample_columns_release(&columns);
    close_head(head);
}

static void test_no_memory(void **state) {
    (void)state;
    bool clean = false;
    for (uint64_t fail = 1; !clean; fail++) {
        struct head *head;
        uint64_t existing;
        enum head_verdict verdict;
        head = open_head();
        mem_fault_set(fail, 0);
        size_t stored = 0;
        for (int64_t i = 0; i < 700; i++) {
            int status = head_apply(head, 0, (struct sample){i * 15000, double_bits(0.1 * (double)i)},
                                    START_NONE, INT64_MIN, &verdict, &existing);
            if (status == STATUS_OK)
                stored++;
            else
                assert_int_equal(status, STATUS_NO_MEMORY);
        }
        clean = mem_fault_set(0, 0) < fail;
        struct sample_columns columns = {0};
        assert_int_equal(read_head(head, 0, 0, INT64_MAX, &columns), STATUS_OK);
        assert_int_equal(columns.count, stored);
        assert_true(stored >= 699);
        sample_columns_release(&columns);
        close_head(head);
    }
}

/* A file of the chunk log that a restart does not find named, since its window is in a block: a series still
 * refers to it, and its number must not be given to another. */
static void test_restart(void **state) {
    (void)state;
    enum { COUNT = 4 };
    struct head *head = open_head(), *second;
    struct buf states, table;
    struct error_detail detail = {0};
    uint64_t existing;
    buf_init(&states);
    buf_init(&table);
    for (int64_t window = 0; window < 2; window++)
        for (int64_t i = 0; i < COUNT; i++)
            assert_int_equal(apply(head, 0, (struct sample){window * WINDOW_MS + i, (uint64_t)i}, &existing),
                             HEAD_STORED);
    assert_int_equal(head_drop(head, 0, 1, WINDOW_MS, WINDOW_MS), UINT32_MAX);
    chunklog_drop(chunklog, WINDOW_MS);
    chunklog_mark(chunklog);
    assert_true(head_state_write(head, 0, &states));
    assert_int_equal(chunklog_describe(chunklog, &table, &detail), STATUS_OK);
    head_free(head);
    chunklog_free(chunklog);

    assert_int_equal(chunklog_new(io, dir, 2, &chunklog), STATUS_OK);
    const struct head_options options = {WINDOW_MS, chunklog, partition, NULL, UINT64_C(1) << 40};
    assert_int_equal(head_new(&options, &second), STATUS_OK);
    assert_int_equal(chunklog_restore(chunklog, buf_slice(&table), WINDOW_MS, &detail), STATUS_OK);
    struct slice rest = buf_slice(&states);
    assert_int_equal(head_state_read(second, 0, WINDOW_MS, &rest), STATUS_OK);
    struct head_memory memory;
    head_memory(second, &memory);
    assert_int_equal(memory.open_chunks, 1);
    for (int64_t i = 0; i < COUNT; i++)
        assert_int_equal(apply(second, 0, (struct sample){2 * WINDOW_MS + i, (uint64_t)i}, &existing),
                         HEAD_STORED);
    struct sample_columns columns = {0};
    assert_int_equal(read_head(second, 0, WINDOW_MS, INT64_MAX, &columns), STATUS_OK);
    assert_int_equal(columns.count, 2 * COUNT);
    for (int64_t i = 0; i < 2 * COUNT; i++)
        assert_int_equal(columns.times_ms[i], (1 + i / COUNT) * WINDOW_MS + i % COUNT);
    sample_columns_release(&columns);
    buf_release(&states);
    buf_release(&table);
    close_head(second);
}

/* Readers see a prefix of what is applied, at least as long as what was announced before they began. */
struct reading {
    struct head *head;
    _Atomic int64_t applied;
    atomic_bool stop;
    bool failed;
};

static void *reader_run(void *context) {
    struct reading *reading = context;
    while (!atomic_load(&reading->stop)) {
        int64_t announced = atomic_load(&reading->applied);
        struct sample_columns columns = {0};
        if (read_head(reading->head, 5, INT64_MIN, INT64_MAX, &columns) < 0 ||
            (int64_t)columns.count < announced)
            reading->failed = true;
        for (size_t i = 0; i < columns.count; i++)
            if (columns.times_ms[i] != (int64_t)i * 1000 || columns.values[i] != (double)i * 0.5)
                reading->failed = true;
        sample_columns_release(&columns);
    }
    return NULL;
}

static void test_readers(void **state) {
    (void)state;
    static struct reading reading;
    reading.head = open_head();
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader_run, &reading), 0);
    uint64_t existing;
    for (int64_t i = 0; i < 5000; i++) {
        enum head_verdict verdict;
        head_apply(reading.head, 5, (struct sample){i * 1000, double_bits((double)i * 0.5)}, START_NONE,
                   INT64_MIN, &verdict, &existing);
        atomic_store(&reading.applied, i + 1);
    }
    atomic_store(&reading.stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_false(reading.failed);
    close_head(reading.head);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),         cmocka_unit_test(test_open_chunk_memory),
        cmocka_unit_test(test_sealed_memory), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_edges_of_time), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_restart),       cmocka_unit_test(test_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
