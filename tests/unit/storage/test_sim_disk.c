/* test_sim_disk.c: the simulated disk keeps what was synced and loses the rest in every way it promises to.
 * The oracle is a list of what was written, byte by byte, and what any of them may be after the power went.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/rand.h"
#include "storage/io/io_sim.h"

#define FILE_BYTES 8192
#define SECTOR     512

static struct io *disk_new(uint64_t seed) {
    struct io *io;
    assert_int_equal(io_sim_open(seed, &io), STATUS_OK);
    return io;
}

static struct io_file *file_open(struct io *io, const char *path, unsigned flags) {
    struct io_file *file;
    assert_int_equal(io_file_open(io, path, IO_OPEN_READ | IO_OPEN_WRITE | flags, NULL, &file), STATUS_OK);
    return file;
}

static void power_cut(struct io *io) {
    io_sim_end_now(io, IO_SIM_POWER_CUT);
}

static size_t file_read(struct io *io, const char *path, uint8_t *out, size_t len) {
    struct io_file *file;
    int status = io_file_open(io, path, IO_OPEN_READ, NULL, &file);
    if (status == STATUS_NOT_FOUND)
        return SIZE_MAX;
    assert_int_equal(status, STATUS_OK);
    size_t got;
    assert_int_equal(io_read(io, file, 0, out, len, &got), STATUS_OK);
    io_file_close(io, file);
    return got;
}

static void bytes_random(struct rand *rand, uint8_t *out, size_t len) {
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)rand_u64(rand);
}

/* Synced bytes are there after any power cut; those that were not are old, new, or torn, sector by sector;
 * each of these happens, and so does every mixture that one file can show. */
static void test_sectors(void **state) {
    (void)state;
    unsigned kept = 0, dropped = 0, mixed = 0, garbage = 0, whole_new = 0, whole_old = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct io *io = disk_new(seed);
        struct rand rand;
        rand_init(&rand, seed);
        static uint8_t old[FILE_BYTES], new[FILE_BYTES], back[FILE_BYTES];
        bytes_random(&rand, old, sizeof old);
        memcpy(new, old, sizeof new);
        struct io_file *file = file_open(io, "f", IO_OPEN_CREATE);
        assert_int_equal(io_write(io, file, 0, old, sizeof old), STATUS_OK);
        assert_int_equal(io_sync(io, file), STATUS_OK);
        assert_int_equal(io_sync_dir(io, "."), STATUS_OK);
        size_t from = (size_t)rand_below(&rand, FILE_BYTES / 2),
               len = 1 + (size_t)rand_below(&rand, FILE_BYTES / 2);
        bytes_random(&rand, new + from, len);
        assert_int_equal(io_write(io, file, from, new + from, len), STATUS_OK);
        assert_int_equal(file_read(io, "f", back, sizeof back), FILE_BYTES);
        assert_memory_equal(back, new, sizeof back); /* the machine itself sees what it wrote */
        power_cut(io);
        io_file_close(io, file);
        io_sim_restart(io);
        assert_int_equal(file_read(io, "f", back, sizeof back), FILE_BYTES);
        unsigned news = 0, olds = 0, sectors = 0;
        for (size_t at = 0; at < FILE_BYTES; at += SECTOR) {
            bool touched = at + SECTOR > from && at < from + len;
            bool is_old = memcmp(back + at, old + at, SECTOR) == 0;
            bool is_new = memcmp(back + at, new + at, SECTOR) == 0;
            if (!touched) {
                assert_true(is_old);
                continue;
            }
            sectors++;
            news += is_new;
            olds += is_old;
            bool from_both = true;
            for (size_t i = at; i < at + SECTOR; i++)
                from_both &= back[i] == old[i] || back[i] == new[i];
            kept += is_new;
            dropped += is_old;
            mixed += !is_old && !is_new && from_both;
            garbage += !from_both;
        }
        whole_new += news == sectors;
        whole_old += olds == sectors;
        io_close(io);
    }
    assert_true(kept > 100 && dropped > 100 && mixed > 10 && garbage > 3 && whole_new > 20 && whole_old > 20);
}

/* A file that grew without a sync has its old size, its new one, or one between; what is behind the bytes
 * that made it reads as zeros. */
static void test_sizes(void **state) {
    (void)state;
    unsigned same = 0, grown = 0, between = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct io *io = disk_new(seed);
        static uint8_t ones[FILE_BYTES], back[FILE_BYTES];
        memset(ones, 1, sizeof ones);
        struct io_file *file = file_open(io, "f", IO_OPEN_CREATE);
        assert_int_equal(io_write(io, file, 0, ones, 1000), STATUS_OK);
        assert_int_equal(io_sync(io, file), STATUS_OK);
        assert_int_equal(io_sync_dir(io, "."), STATUS_OK);
        assert_int_equal(io_write(io, file, 1000, ones, 3000), STATUS_OK);
        power_cut(io);
        io_file_close(io, file);
        io_sim_restart(io);
        size_t got = file_read(io, "f", back, sizeof back);
        assert_true(got >= 1000 && got <= 4000);
        assert_memory_equal(back, ones, 1000 - 1000 % SECTOR);
        same += got == 1000;
        grown += got == 4000;
        between += got > 1000 && got < 4000;
        io_close(io);
    }
    assert_true(same > 20 && grown > 20 && between > 20);
}

/* New names, renames and removals are lost until their directory is synced, and never after. */
static void test_names(void **state) {
    (void)state;
    unsigned created = 0, lost = 0, renamed = 0, not_renamed = 0, removed = 0, not_removed = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct io *io = disk_new(seed);
        uint8_t back[16];
        assert_int_equal(io_make_dir(io, "d", NULL), STATUS_OK);
        static const char *const synced[] = {"d/a", "d/gone", "d/stays"};
        for (size_t i = 0; i < 3; i++) {
            struct io_file *file = file_open(io, synced[i], IO_OPEN_CREATE);
            assert_int_equal(io_write(io, file, 0, synced[i], 3), STATUS_OK);
            assert_int_equal(io_sync(io, file), STATUS_OK);
            io_file_close(io, file);
        }
        assert_int_equal(io_sync_dir(io, "d"), STATUS_OK);
        struct io_file *file = file_open(io, "d/new", IO_OPEN_CREATE);
        assert_int_equal(io_write(io, file, 0, "new", 3), STATUS_OK);
        assert_int_equal(io_sync(io, file), STATUS_OK); /* the file, not its name */
        io_file_close(io, file);
        assert_int_equal(io_rename(io, "d/a", "d/b"), STATUS_OK);
        assert_int_equal(io_remove(io, "d/gone"), STATUS_OK);
        bool with_sync = seed % 4 == 0;
        if (with_sync)
            assert_int_equal(io_sync_dir(io, "d"), STATUS_OK);
        power_cut(io);
        io_sim_restart(io);
        bool has_new = file_read(io, "d/new", back, 3) == 3, has_gone = file_read(io, "d/gone", back, 3) == 3;
        bool has_a = file_read(io, "d/a", back, 3) == 3, has_b = file_read(io, "d/b", back, 3) == 3;
        assert_int_equal(file_read(io, "d/stays", back, 3), 3);
        assert_true(has_a != has_b); /* a rename is whole or not at all */
        if (with_sync)
            assert_true(has_new && has_b && !has_gone);
        created += !with_sync && has_new;
        lost += !has_new;
        renamed += !with_sync && has_b;
        not_renamed += has_a;
        removed += !with_sync && !has_gone;
        not_removed += has_gone;
        io_close(io);
    }
    assert_true(created > 10 && lost > 10 && renamed > 10 && not_renamed > 10 && removed > 10 &&
                not_removed > 10);
}

/* A killed process loses nothing that it wrote. */
static void test_kill(void **state) {
    (void)state;
    struct io *io = disk_new(1);
    struct io_file *file = file_open(io, "f", IO_OPEN_CREATE);
    assert_int_equal(io_write(io, file, 0, "written", 7), STATUS_OK);
    io_sim_end_now(io, IO_SIM_KILL);
    assert_int_equal(io_write(io, file, 0, "WRITTEN", 7), STATUS_IO); /* nothing goes any more */
    struct io_file *other;
    assert_int_equal(io_file_open(io, "g", IO_OPEN_WRITE | IO_OPEN_CREATE, NULL, &other), STATUS_IO);
    io_file_close(io, file);
    io_sim_restart(io);
    uint8_t back[8];
    assert_int_equal(file_read(io, "f", back, sizeof back), 7);
    assert_memory_equal(back, "written", 7);
    assert_int_equal(file_read(io, "g", back, sizeof back), SIZE_MAX);
    io_close(io);
}

/* After a failed sync a later one may succeed and still not have written what the first one could not. */
static void test_failed_sync(void **state) {
    (void)state;
    unsigned lost = 0, written = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct io *io = disk_new(seed);
        struct io_file *file = file_open(io, "f", IO_OPEN_CREATE);
        static uint8_t zeros[SECTOR], ones[SECTOR], back[SECTOR];
        memset(ones, 1, sizeof ones);
        assert_int_equal(io_write(io, file, 0, zeros, sizeof zeros), STATUS_OK);
        assert_int_equal(io_sync(io, file), STATUS_OK);
        assert_int_equal(io_sync_dir(io, "."), STATUS_OK);
        assert_int_equal(io_write(io, file, 0, ones, sizeof ones), STATUS_OK);
        io_sim_faults_set(io, &(struct io_sim_faults){.sync_error = 1000});
        assert_int_equal(io_sync(io, file), STATUS_IO);
        io_sim_faults_set(io, &(struct io_sim_faults){0});
        assert_int_equal(io_sync(io, file), STATUS_OK);
        power_cut(io);
        io_file_close(io, file);
        io_sim_restart(io);
        assert_int_equal(file_read(io, "f", back, sizeof back), SECTOR);
        lost += memcmp(back, zeros, SECTOR) == 0;
        written += memcmp(back, ones, SECTOR) == 0;
        io_close(io);
    }
    assert_int_equal(lost + written, 100);
    assert_true(lost > 10 && written > 10);
}

/* Full at any byte: a write is cut there, the next says so; what is overwritten needs no room, and removing
 * makes some. */
static void test_full(void **state) {
    (void)state;
    for (uint64_t room = 1; room < 40; room++) {
        struct io *io = disk_new(room);
        struct io_file *file = file_open(io, "f", IO_OPEN_CREATE);
        uint8_t bytes[64] = {0};
        io_sim_capacity_set(io, room);
        assert_int_equal(io_write(io, file, 0, bytes, 40), STATUS_NO_SPACE);
        uint64_t size;
        assert_int_equal(io_file_size(io, file, &size), STATUS_OK);
        assert_int_equal(size, room);
        assert_int_equal(io_sim_used_bytes(io), room);
        assert_int_equal(io_write(io, file, 0, bytes, room), STATUS_OK);
        struct io_file *other = file_open(io, "g", IO_OPEN_CREATE);
        assert_int_equal(io_write(io, other, 0, bytes, 1), STATUS_NO_SPACE);
        io_file_close(io, file);
        assert_int_equal(io_remove(io, "f"), STATUS_OK);
        assert_int_equal(io_write(io, other, 0, bytes, 1), STATUS_OK);
        io_file_close(io, other);
        io_close(io);
    }
}

/* Commits end late and in any order, in virtual time; a map is a copy; a lock is held by one. */
static unsigned finished[8], finished_count;

static void on_done(struct io_commit *commit) {
    assert_int_equal(commit->status, STATUS_OK);
    finished[finished_count++] = *(unsigned *)commit->context;
}

static void test_commits_maps_locks(void **state) {
    (void)state;
    unsigned out_of_order = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct io *io = disk_new(seed);
        struct io_file *file = file_open(io, "f", IO_OPEN_CREATE);
        static const uint8_t byte[1] = {7};
        struct io_commit commits[8];
        unsigned numbers[8];
        finished_count = 0;
        for (unsigned i = 0; i < 8; i++) {
            numbers[i] = i;
            commits[i] = (struct io_commit){
                .file = file, .offset = i, .data = byte, .len = 1, .done = on_done, .context = &numbers[i]};
            io_commit(io, &commits[i]);
        }
        assert_int_equal(io_poll(io, 0), 0); /* nothing ends at once */
        uint64_t began_ns = io_sim_now_ns(io);
        while (io_in_flight(io) > 0)
            assert_true(io_poll(io, -1) > 0);
        assert_true(io_sim_now_ns(io) > began_ns);
        assert_int_equal(finished_count, 8);
        for (unsigned i = 1; i < 8; i++)
            out_of_order += finished[i] < finished[i - 1];

        struct slice mapped;
        assert_int_equal(io_map(io, file, 0, 8, &mapped), STATUS_OK);
        assert_int_equal(io_write(io, file, 0, "x", 1), STATUS_OK);
        assert_int_equal(mapped.data[0], 7);
        io_unmap(io, mapped);

        struct io_file *lock, *second;
        assert_int_equal(io_lock(io, "lock", NULL, &lock), STATUS_OK);
        assert_int_equal(io_lock(io, "lock", NULL, &second), STATUS_LOCKED);
        io_unlock(io, lock);
        assert_int_equal(io_lock(io, "lock", NULL, &second), STATUS_OK);
        io_unlock(io, second);
        io_file_close(io, file);
        io_close(io);
    }
    assert_true(out_of_order > 50);
}

/* The same seed and calls: the same faults, times and bytes. */
static uint64_t scenario(uint64_t seed) {
    struct io *io = disk_new(seed);
    io_sim_faults_set(io, &(struct io_sim_faults){.short_write = 200, .write_error = 50, .sync_error = 100});
    struct rand rand;
    rand_init(&rand, 1);
    struct io_file *file = file_open(io, "f", IO_OPEN_CREATE);
    uint64_t sum = 0;
    for (int i = 0; i < 200; i++) {
        uint8_t bytes[3000];
        bytes_random(&rand, bytes, sizeof bytes);
        sum = sum * 31 + (uint64_t)io_write(io, file, rand_below(&rand, 100000), bytes, sizeof bytes);
        if (i % 7 == 0)
            sum = sum * 31 + (uint64_t)io_sync(io, file);
    }
    power_cut(io);
    io_file_close(io, file);
    io_sim_restart(io);
    sum = sum * 31 + io_sim_fingerprint(io) + io_sim_now_ns(io);
    io_close(io);
    return sum;
}

static void test_deterministic(void **state) {
    (void)state;
    uint64_t first = scenario(1);
    assert_true(first == scenario(1));
    assert_true(first != scenario(2));
}

/* Rot changes one bit of what is at rest, below the directory that it is asked for. */
static void test_rot(void **state) {
    (void)state;
    struct io *io = disk_new(1);
    assert_int_equal(io_make_dir(io, "d", NULL), STATUS_OK);
    static uint8_t zeros[4096], back[4096];
    static const char *const paths[] = {"f", "d/f"};
    for (size_t i = 0; i < 2; i++) {
        struct io_file *file = file_open(io, paths[i], IO_OPEN_CREATE);
        assert_int_equal(io_write(io, file, 0, zeros, sizeof zeros), STATUS_OK);
        assert_int_equal(io_sync(io, file), STATUS_OK);
        io_file_close(io, file);
    }
    assert_int_equal(io_sync_dir(io, "d"), STATUS_OK);
    struct io_sim_rot rot;
    assert_true(io_sim_rot(io, "d", NULL, NULL, &rot));
    assert_string_equal(rot.path, "d/f");
    assert_int_equal(file_read(io, "f", back, sizeof back), 4096);
    assert_memory_equal(back, zeros, sizeof back);
    assert_int_equal(file_read(io, "d/f", back, sizeof back), 4096);
    assert_int_equal(__builtin_popcount(back[rot.offset]), 1);
    back[rot.offset] = 0;
    assert_memory_equal(back, zeros, sizeof back);
    io_close(io);
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, -1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sectors),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_failed_sync),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_commits_maps_locks),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_rot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
