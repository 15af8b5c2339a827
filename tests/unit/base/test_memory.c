/* test_memory.c: what holds memory: allocation faults, arenas, bufs, columns, arrays that stay in place,
 * slabs, and the spin lock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/batch.h"
#include "base/buf.h"
#include "base/rand.h"
#include "base/slab.h"
#include "base/spin.h"
#include "base/stable_array.h"

static void test_faults(void **state) {
    (void)state;
    mem_fault_set(3, 0); /* the third alone */
    void *p[4];
    for (int i = 0; i < 4; i++) {
        p[i] = i % 2 == 0 ? mem_alloc(8) : mem_zalloc(8);
        assert_int_equal(p[i] == NULL, i == 2);
    }
    assert_int_equal(mem_fault_set(2, 1), 4); /* the second and all behind it */
    assert_non_null(p[2] = mem_alloc(0));
    assert_null(mem_realloc(p[0], 100));
    assert_null(mem_strndup("x", 1));
    assert_int_equal(mem_fault_set(0, 0), 3);
    char *copy = mem_strndup("abc", 2);
    assert_string_equal(copy, "ab");
    mem_free(copy);
    copy = mem_strndup(NULL, 0);
    assert_string_equal(copy, "");
    mem_free(copy);
    for (int i = 0; i < 4; i++)
        mem_free(p[i]);
}

/* Objects of many sizes do not overlap, are aligned, and live until the reset. */
static void test_arena_objects(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 1);
    struct arena arena;
    arena_init(&arena, 512, 0);
    for (int round = 0; round < 20; round++) {
        static uint8_t *objects[2000];
        static size_t lens[2000];
        for (size_t i = 0; i < 2000; i++) {
            lens[i] = rand_below(&rand, 20) == 0 ? rand_below(&rand, 5000) : rand_below(&rand, 40);
            switch (rand_below(&rand, 3)) {
            case 0:
                objects[i] = arena_alloc(&arena, lens[i]);
                assert_int_equal((uintptr_t)objects[i] % 16, 0);
                break;
            case 1:
                objects[i] = arena_zalloc(&arena, lens[i]);
                assert_int_equal((uintptr_t)objects[i] % 16, 0);
                for (size_t k = 0; k < lens[i]; k++)
                    assert_int_equal(objects[i][k], 0);
                break;
            default:
                objects[i] = arena_alloc_bytes(&arena, lens[i]);
            }
            assert_non_null(objects[i]);
            memset(objects[i], (int)(i % 251), lens[i]);
        }
        for (size_t i = 0; i < 2000; i++)
            for (size_t k = 0; k < lens[i]; k++)
                assert_int_equal(objects[i][k], i % 251);
        arena_reset(&arena);
    }
    size_t bytes = arena.bytes;
    assert_non_null(arena_alloc(&arena, 16)); /* from the piece that was kept */
    assert_int_equal(arena.bytes, bytes);
    arena_release(&arena);
    assert_int_equal(arena.bytes, 0);
}

static void test_arena_bounds(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, 64, 4096);
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 8));
    assert_null(arena_alloc(&arena, 5000));
    size_t got = 0;
    while (arena_alloc(&arena, 48) != NULL)
        got += 48;
    assert_in_range(got, 1024, 4096);
    assert_true(arena.bytes <= 4096);
    assert_null(
        arena_str(&arena, slice_str("no room for this, and it is longer than what is left of the last")));
    arena_reset(&arena);
    assert_string_equal(arena_str(&arena, slice_str("text")), "text");
    arena_release(&arena);

    arena_init(&arena, 0, 0);
    mem_fault_set(1, 1);
    assert_null(arena_zalloc(&arena, 1));
    assert_null(arena_printf(&arena, "%d", 1));
    assert_null(arena_copy(&arena, slice_str("a")).data);
    mem_fault_set(0, 0);
    struct slice copy = arena_copy(&arena, slice_str("abc"));
    assert_true(slice_equal(copy, slice_str("abc")));
    assert_string_equal(arena_str(&arena, slice_of(NULL, 0)), "");
    /* One piece over 1 MiB is not kept. */
    assert_non_null(arena_alloc(&arena, (size_t)2 << 20));
    arena_reset(&arena);
    assert_int_equal(arena.bytes, 0);
    arena_release(&arena);
}

static void test_buf_against_array(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 2);
    struct buf buf;
    buf_init(&buf);
    buf_append(&buf, NULL, 0);
    assert_non_null(buf_reserve(&buf, 0)); /* NULL would say that it failed */
    static char expected[200000];
    size_t len = 0;
    for (int i = 0; i < 3000; i++) {
        switch (rand_below(&rand, 5)) {
        case 0:
            buf_append_byte(&buf, (uint8_t)i);
            expected[len++] = (char)i;
            break;
        case 1:
            buf_append_str(&buf, "some text");
            len += (size_t)snprintf(expected + len, 16, "some text");
            break;
        case 2:
            buf_printf(&buf, "%d and %s", i, "more");
            len += (size_t)snprintf(expected + len, 40, "%d and %s", i, "more");
            break;
        case 3:
            memset(buf_reserve(&buf, 30), 'r', 30); /* a writer may use less than it asked for */
            buf.len += 20;
            memset(expected + len, 'r', 20);
            len += 20;
            break;
        default:
            buf_append(&buf, NULL, 0);
        }
    }
    assert_false(buf.failed);
    assert_true(slice_equal(buf_slice(&buf), slice_of(expected, len)));
    buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    buf_append_str(&buf, "kept");
    uint8_t *detached = buf_detach(&buf);
    assert_memory_equal(detached, "kept", 4);
    assert_null(buf.data);
    mem_free(detached);

    assert_null(buf_reserve(&buf, SIZE_MAX));
    assert_true(buf.failed);
    buf_append_str(&buf, "nothing");
    assert_int_equal(buf.len, 0);
    buf_clear(&buf);
    assert_false(buf.failed);
    mem_fault_set(1, 0);
    buf_printf(&buf, "%d", 1);
    mem_fault_set(0, 0);
    assert_true(buf.failed);
    buf_release(&buf);
}

/* Whichever of its three allocations fails, what is there stays and is freed. */
static void test_columns(void **state) {
    (void)state;
    struct sample_columns columns = {0};
    for (uint64_t fail = 1; fail <= 3; fail++) {
        mem_fault_set(fail, 0);
        assert_int_equal(sample_columns_reserve(&columns, columns.capacity + 1), STATUS_NO_MEMORY);
        mem_fault_set(0, 0);
    }
    size_t capacity = columns.capacity;
    for (size_t i = 0; i < 10000; i++) {
        if (columns.count == columns.capacity) {
            mem_fault_set(1 + i % 3, 0);
            assert_int_equal(sample_columns_reserve(&columns, 1), STATUS_NO_MEMORY);
            mem_fault_set(0, 0);
            assert_int_equal(columns.capacity, capacity);
            assert_int_equal(sample_columns_reserve(&columns, 1), STATUS_OK);
            capacity = columns.capacity;
        }
        columns.times_ms[i] = (int64_t)i;
        columns.values[i] = (double)i;
        columns.starts_ms[i] = -(int64_t)i;
        columns.count++;
    }
    for (size_t i = 0; i < 10000; i++)
        assert_true(columns.times_ms[i] == (int64_t)i && columns.values[i] == (double)i &&
                    columns.starts_ms[i] == -(int64_t)i);
    assert_int_equal(sample_columns_reserve(&columns, SIZE_MAX), STATUS_NO_MEMORY);
    assert_int_equal(sample_columns_reserve(&columns, SIZE_MAX / 16), STATUS_NO_MEMORY);
    assert_int_equal(columns.count, 10000);
    sample_columns_release(&columns);
    assert_null(columns.times_ms);
    assert_int_equal(columns.capacity, 0);
}

static void test_stable_array(void **state) {
    (void)state;
    struct stable_array *array = mem_alloc(sizeof *array);
    stable_array_init(array, 12);
    const uint32_t last = (uint32_t)STABLE_ARRAY_SEGMENTS << STABLE_ARRAY_SEGMENT_BITS;
    const uint32_t indexes[] = {0, 1, 16383, 16384, 100000, last - 1};
    uint8_t *places[6];
    static const uint8_t zeros[12];
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(stable_array_ensure(array, indexes[i]), STATUS_OK);
        places[i] = stable_array_at(array, indexes[i]);
        assert_memory_equal(places[i], zeros, 12);
        memset(places[i], (int)i + 1, 12);
    }
    for (size_t i = 0; i < 6; i++) {
        assert_ptr_equal(stable_array_at(array, indexes[i]), places[i]);
        for (size_t k = 0; k < 12; k++)
            assert_int_equal(places[i][k], i + 1);
    }
    assert_int_equal(stable_array_ensure(array, last), STATUS_TOO_LARGE);
    assert_int_equal(stable_array_ensure(array, UINT32_MAX), STATUS_TOO_LARGE);
    mem_fault_set(1, 0);
    assert_int_equal(stable_array_ensure(array, 50000), STATUS_NO_MEMORY);
    mem_fault_set(0, 0);
    assert_int_equal(stable_array_ensure(array, 50000), STATUS_OK);
    stable_array_release(array);
    mem_free(array);
}

#define SPIN_ROUNDS 200000

static struct {
    struct spin lock;
    uint64_t a, b; /* always equal outside the lock */
} shared;

static void *spin_work(void *arg) {
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        spin_lock(&shared.lock);
        if (shared.a != shared.b)
            *(int *)arg = 1;
        shared.a++;
        shared.b++;
        spin_unlock(&shared.lock);
    }
    return NULL;
}

static void test_spin(void **state) {
    (void)state;
    pthread_t threads[4];
    int torn[4] = {0};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, spin_work, &torn[i]), 0);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(torn[i], 0);
    }
    assert_int_equal(shared.a, 4 * SPIN_ROUNDS);
    assert_int_equal(shared.b, 4 * SPIN_ROUNDS);
}

static void test_slab(void **state) {
    (void)state;
    struct slab slab;
    struct rand rand;
    rand_init(&rand, 9);
    slab_init(&slab, 16);
    static struct {
        uint8_t *p;
        size_t bytes;
    } pieces[500];
    memset(pieces, 0, sizeof pieces);
    for (int step = 0; step < 50000; step++) {
        size_t at = rand_below(&rand, 500);
        if (pieces[at].p != NULL) {
            for (size_t i = 0; i < pieces[at].bytes; i++)
                assert_int_equal(pieces[at].p[i], (uint8_t)at); /* nobody else was given these bytes */
            slab_free(&slab, pieces[at].p, pieces[at].bytes);
        }
        pieces[at].bytes = 1 + rand_below(&rand, rand_below(&rand, 10) == 0 ? 5000 : 600);
        pieces[at].p = slab_alloc(&slab, pieces[at].bytes);
        assert_non_null(pieces[at].p);
        memset(pieces[at].p, (int)(uint8_t)at, pieces[at].bytes);
    }
    for (size_t at = 0; at < 500; at++)
        slab_free(&slab, pieces[at].p, pieces[at].bytes);
    assert_int_equal(slab.bytes, 0);
    slab_release(&slab);
}

/* All pieces grow in step, as open chunks do: what smaller ones took serves the larger ones, and in the end
 * the system. */
static void test_slab_in_step(void **state) {
    (void)state;
    enum { PIECES = 20000, GROWN_BYTES = 480 };
    struct slab slab;
    slab_init(&slab, 16);
    static void *pieces[PIECES];
    uint64_t small = 0;
    for (size_t bytes = 32; bytes <= GROWN_BYTES; bytes += 16) {
        for (size_t i = 0; i < PIECES; i++) {
            void *grown = slab_alloc(&slab, bytes);
            assert_non_null(grown);
            slab_free(&slab, pieces[i], bytes - 16);
            pieces[i] = grown;
        }
        if (bytes == 32)
            small = slab_memory_bytes(&slab);
        assert_int_equal(slab.bytes, PIECES * bytes);
        /* Spare pages and, with sanitizers, red zones included. */
        assert_true(slab_memory_bytes(&slab) < slab.bytes * 8 / 5 + (2 << 20));
    }
    uint64_t grown = slab_memory_bytes(&slab);
    assert_true(grown > 9 * small);
    for (size_t i = 0; i < PIECES; i++)
        slab_free(&slab, pieces[i], GROWN_BYTES);
    assert_int_equal(slab.bytes, 0);
    assert_true(slab_memory_bytes(&slab) < grown / 4);
    slab_release(&slab);
}

/* Without memory nothing changes, and later there is some. */
static void test_slab_no_memory(void **state) {
    (void)state;
    struct slab slab;
    slab_init(&slab, 8);
    for (uint64_t countdown = 1; countdown <= 2; countdown++) { /* the region, its pages */
        mem_fault_set(countdown, 0);
        assert_null(slab_alloc(&slab, 40));
        mem_fault_set(0, 0);
        assert_int_equal(slab.bytes, 0);
        assert_int_equal(slab_memory_bytes(&slab), 0);
    }
    mem_fault_set(1, 0);
    assert_null(slab_alloc(&slab, 4000));
    mem_fault_set(0, 0);
    void *p = slab_alloc(&slab, 40);
    assert_non_null(p);
    slab_free(&slab, p, 40);
    slab_release(&slab);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults),       cmocka_unit_test(test_arena_objects),
        cmocka_unit_test(test_arena_bounds), cmocka_unit_test(test_buf_against_array),
        cmocka_unit_test(test_columns),      cmocka_unit_test(test_stable_array),
        cmocka_unit_test(test_spin),         cmocka_unit_test(test_slab),
        cmocka_unit_test(test_slab_in_step), cmocka_unit_test(test_slab_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
