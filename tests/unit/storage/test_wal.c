/* test_wal.c: the log against a naive list of what was given to it: round trips, restarts, every cut and
 * every flipped byte of a small log, every operation failing, the order of what reaches the disk. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "storage/io/io.h"
#include "storage/wal/wal.h"

#define FRAME   4096u
#define PAYLOAD 4064u
#define DATA    8192u

/* ---- The naive list
 * ---------------------------------------------------------------------------------------- */

struct entry {
    uint8_t *data;
    size_t len;
    enum wal_record_type type;
    bool acknowledged;
    wal_position group;
    size_t frame_first, frame_last; /* in the group */
};

struct fixture {
    struct io *io;
    char dir[64];
    struct wal *wal;
    uint64_t segment_bytes;
    uint64_t seed;
    struct entry *entries;
    size_t entry_count;
    size_t entry_capacity;
    size_t group_first;    /* entry */
    size_t group_payload;  /* bytes, records' heads included */
    wal_position group_at; /* where the group in flight begins */
    int done_count;
    int done_status;
    struct rand rand;
    size_t tail[64]; /* entries that the last replay delivered as not proven */
    size_t tail_count;
};

static void fixture_open(struct fixture *f, enum io_backend backend, uint64_t segment_bytes) {
    memset(f, 0, sizeof *f);
    if (io_open(backend, NULL, &f->io) != STATUS_OK)
        skip();
    f->segment_bytes = segment_bytes;
    f->seed = 42;
    rand_init(&f->rand, 1);
    /* The sweeps replay tens of thousands of times: in memory where there is such a file system. */
    const char *tmp = getenv("TMPDIR");
    if (tmp == NULL)
        tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(f->dir, sizeof f->dir, "%s/tidalite-wal-XXXXXX", tmp);
    assert_non_null(mkdtemp(f->dir));
}

static int remove_each(void *context, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return remove(path) == 0 ? 0 : STATUS_IO;
}

static void fixture_close(struct fixture *f) {
    io_fault_set(f->io, (struct io_fault){0});
    wal_close(f->wal);
    assert_int_equal(io_list_dir(f->io, f->dir, remove_each, f->dir), STATUS_OK);
    assert_int_equal(rmdir(f->dir), 0);
    io_close(f->io);
    for (size_t i = 0; i < f->entry_count; i++)
        mem_free(f->entries[i].data);
    mem_free(f->entries);
}

static int open_wal(struct fixture *f, struct error_detail *detail) {
    struct wal_options options = {
        .io = f->io, .dir = f->dir, .segment_bytes = f->segment_bytes, .seed = f->seed++};
    return wal_open(&options, detail, &f->wal);
}

static void append(struct fixture *f, size_t len) {
    if (f->entry_count == f->entry_capacity) {
        f->entry_capacity = f->entry_capacity == 0 ? 64 : f->entry_capacity * 2;
        f->entries = mem_realloc(f->entries, f->entry_capacity * sizeof *f->entries);
        assert_non_null(f->entries);
    }
    struct entry entry = {.data = mem_alloc(len), .len = len};
    assert_non_null(entry.data);
    entry.type = rand_below(&f->rand, 2) ? WAL_RECORD_SAMPLES : WAL_RECORD_SERIES;
    uint64_t bits = rand_u64(&f->rand);
    for (size_t i = 0; i < len; i++) {
        bits = bits * 6364136223846793005u + 1;
        entry.data[i] = (uint8_t)(bits >> 56);
    }
    assert_int_equal(wal_group_append(f->wal, entry.type, slice_of(entry.data, len)), STATUS_OK);
    size_t bytes = 1 + varint_len(len) + len;
    entry.frame_first = f->group_payload / PAYLOAD;
    entry.frame_last = (f->group_payload + bytes - 1) / PAYLOAD;
    f->group_payload += bytes;
    f->entries[f->entry_count++] = entry;
    assert_int_equal(wal_group_bytes(f->wal), (f->group_payload + PAYLOAD - 1) / PAYLOAD * FRAME);
}

static void group_begin(struct fixture *f) {
    wal_group_begin(f->wal);
    f->group_first = f->entry_count;
    f->group_payload = 0;
}

static void on_done(void *context, int status) {
    struct fixture *f = context;
    f->done_count++;
    f->done_status = status;
    assert_int_not_equal(wal_state(f->wal), WAL_COMMITTING);
}

/* Commits; rolls first if it must. Returns the status; marks what was acknowledged. */
static int commit(struct fixture *f) {
    while (!wal_group_fits(f->wal)) {
        int status = wal_roll(f->wal);
        if (status < 0)
            return status;
        /* the same records again, as the caller would build its group again */
        wal_group_begin(f->wal);
        for (size_t i = f->group_first; i < f->entry_count; i++)
            assert_int_equal(
                wal_group_append(f->wal, f->entries[i].type, slice_of(f->entries[i].data, f->entries[i].len)),
                STATUS_OK);
    }
    size_t bytes = wal_group_bytes(f->wal);
    int before = f->done_count;
    wal_position durable = wal_durable(f->wal);
    wal_group_commit(f->wal, on_done, f);
    assert_int_equal(wal_state(f->wal), WAL_COMMITTING);
    assert_int_equal(f->done_count, before);
    while (f->done_count == before)
        io_poll(f->io, -1);
    assert_int_equal(f->done_count, before + 1);
    if (f->done_status < 0) {
        assert_int_equal(wal_state(f->wal), WAL_FAILED);
        assert_true(wal_durable(f->wal) == durable);
        return f->done_status;
    }
    assert_int_equal(wal_state(f->wal), WAL_READY);
    assert_true(wal_durable(f->wal) > durable);
    for (size_t i = f->group_first; i < f->entry_count; i++) {
        f->entries[i].acknowledged = true;
        f->entries[i].group = wal_durable(f->wal) - bytes;
    }
    return STATUS_OK;
}

static void group_write(struct fixture *f, const size_t *lens, size_t count) {
    group_begin(f);
    for (size_t i = 0; i < count; i++)
        append(f, lens[i]);
    assert_int_equal(commit(f), STATUS_OK);
}

static size_t random_len(struct fixture *f) {
    switch (rand_below(&f->rand, 8)) {
    case 0:
        return 1;
    case 1: /* around a frame's end */
        return PAYLOAD - 6 + (size_t)rand_below(&f->rand, 12);
    case 2:
        return 1 + (size_t)rand_below(&f->rand, 5 * FRAME);
    default:
        return 1 + (size_t)rand_below(&f->rand, 600);
    }
}

static void random_groups(struct fixture *f, size_t count) {
    for (size_t i = 0; i < count; i++) {
        group_begin(f);
        for (uint64_t records = 1 + rand_below(&f->rand, 12); records > 0; records--)
            append(f, random_len(f));
        assert_int_equal(commit(f), STATUS_OK);
        wal_tick(f->wal, (int64_t)i);
    }
}

/* ---- Checking a replay
 * ------------------------------------------------------------------------------------------ */

/* Walks the list beside the replay. What must come is where `lost` is false and it was acknowledged; what was
 * not acknowledged may come, in its place. */
struct check {
    struct fixture *f;
    size_t next;
    bool *lost; /* parallel to entries: must not come; NULL: none */
    uint32_t segment;
    uint32_t segments;
    bool exact_positions;
};

static int on_segment(void *context, uint32_t number) {
    struct check *check = context;
    assert_true(number > check->segment);
    check->segment = number;
    check->segments++;
    return STATUS_OK;
}

static int on_record(void *context, wal_position position, bool proven, enum wal_record_type type,
                     struct slice payload) {
    struct check *check = context;
    assert_int_equal(position >> 32, check->segment);
    for (;; check->next++) {
        assert_true(check->next < check->f->entry_count); /* invented, or out of order */
        const struct entry *entry = &check->f->entries[check->next];
        bool equal = entry->len == payload.len && entry->type == type &&
                     memcmp(entry->data, payload.data, payload.len) == 0;
        if (equal) {
            assert_false(check->lost != NULL && check->lost[check->next]);
            if (entry->acknowledged)
                assert_true(position == entry->group);
            if (proven)
                assert_int_equal(check->f->tail_count, 0); /* only the last group is not */
            else
                check->f->tail[check->f->tail_count++] = check->next;
            check->next++;
            return STATUS_OK;
        }
        assert_true(!entry->acknowledged || (check->lost != NULL && check->lost[check->next]));
    }
}

static struct wal_replay_stats replay_check(struct fixture *f, bool *lost) {
    struct check check = {.f = f, .lost = lost};
    struct wal_sink sink = {on_segment, on_record, &check, NULL};
    struct wal_replay_stats stats = {0};
    struct error_detail detail = {0};
    f->tail_count = 0;
    assert_int_equal(open_wal(f, &detail), STATUS_OK);
    int status = wal_replay(f->wal, 0, &sink, &detail, &stats);
    if (status != STATUS_OK)
        print_message("%s\n", detail.text);
    assert_int_equal(status, STATUS_OK);
    for (; check.next < f->entry_count; check.next++)
        assert_true(!f->entries[check.next].acknowledged || (lost != NULL && lost[check.next]));
    assert_int_equal(stats.segments, check.segments);
    return stats;
}

/* As its caller must: what is not proven goes into the first segment. The entries then stand there. */
static int start(struct fixture *f, struct error_detail *detail) {
    if (f->tail_count > 0) {
        group_begin(f);
        for (size_t i = 0; i < f->tail_count; i++) {
            struct entry *entry = &f->entries[f->tail[i]];
            int status = wal_group_append(f->wal, entry->type, slice_of(entry->data, entry->len));
            if (status < 0)
                return error_set(detail, status, "carrying over");
            size_t bytes = 1 + varint_len(entry->len) + entry->len;
            entry->frame_first = f->group_payload / PAYLOAD;
            entry->frame_last = (f->group_payload + bytes - 1) / PAYLOAD;
            f->group_payload += bytes;
        }
    }
    return wal_start(f->wal, detail);
}

/* The log is there again: since its first segment, or one that a recovery made. */
static void started(struct fixture *f) {
    for (size_t i = 0; i < f->tail_count; i++) {
        struct entry *entry = &f->entries[f->tail[i]];
        entry->acknowledged = true;
        entry->group = (uint64_t)wal_segment(f->wal) << 32 | DATA;
    }
    f->tail_count = 0;
}

static void start_well(struct fixture *f) {
    assert_int_equal(start(f, NULL), STATUS_OK);
    started(f);
}

static void restart(struct fixture *f) {
    wal_close(f->wal);
    f->wal = NULL;
    struct wal_replay_stats stats = replay_check(f, NULL);
    assert_int_equal(stats.corrupt_frames, 0);
    assert_int_equal(stats.torn_tails, 0);
    start_well(f);
}

static void first_start(struct fixture *f) {
    struct wal_replay_stats stats = replay_check(f, NULL);
    assert_int_equal(stats.segments + stats.records + stats.corrupt_frames + stats.torn_tails, 0);
    assert_int_equal(wal_state(f->wal), WAL_FAILED); /* not before wal_start */
    assert_int_equal(wal_start(f->wal, NULL), STATUS_OK);
    assert_int_equal(wal_segment(f->wal), 1);
    assert_true(wal_durable(f->wal) == 0);
}

static void read_only_close(struct fixture *f) {
    wal_close(f->wal);
    f->wal = NULL;
}

/* ---- Round trips
 * --------------------------------------------------------------------------------------------------- */

static void roundtrip(enum io_backend backend) {
    struct fixture f;
    fixture_open(&f, backend, 64 * FRAME);
    first_start(&f);
    for (int round = 0; round < 30; round++) {
        random_groups(&f, 1 + (size_t)rand_below(&f.rand, 20));
        restart(&f);
    }
    /* larger than a segment: it gets one of its own */
    static const size_t large[] = {3u << 20, 1, 200};
    group_write(&f, large, 3);
    random_groups(&f, 3);
    restart(&f);
    assert_true(wal_segment_count(f.wal) > 30);
    uint64_t bytes = 0;
    for (uint32_t number = 1; number <= wal_segment(f.wal); number++) {
        char path[128];
        struct stat st;
        snprintf(path, sizeof path, "%s/%08x.log", f.dir, number);
        assert_int_equal(stat(path, &st), 0);
        bytes += (uint64_t)st.st_size;
    }
    assert_true(wal_disk_bytes(f.wal) == bytes);
    fixture_close(&f);
}

static void test_roundtrip(void **state) {
    (void)state;
    roundtrip(IO_BACKEND_SYSCALL);
    roundtrip(IO_BACKEND_URING);
}

/* Every length around the frame's end, alone and behind another. */
static void test_frame_edges(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 256 * FRAME);
    first_start(&f);
    for (size_t len = PAYLOAD - 20; len < PAYLOAD + 20; len++) {
        size_t lens[] = {len, 1, 2 * PAYLOAD - len, 3};
        group_write(&f, lens, 1);
        group_write(&f, lens, 4);
    }
    restart(&f);
    fixture_close(&f);
}

static void test_metrics(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 64 * FRAME);
    metrics_reset();
    first_start(&f);
    assert_int_equal(metric_get(METRIC_wal_writable), 1);
    size_t len = 5000;
    group_write(&f, &len, 1);
    assert_int_equal(metric_get(METRIC_wal_groups), 1);
    assert_int_equal(metric_get(METRIC_wal_bytes), 2 * FRAME);
    assert_int_equal(metric_get(METRIC_wal_segments), 1);
    assert_int_equal(metric_get(METRIC_wal_segments_opened), 1);
    assert_int_equal(metric_get(METRIC_wal_disk_bytes), 64 * FRAME);
    fixture_close(&f);
}

static uint64_t dir_hash; /* of all names and bytes */

static int hash_each(void *context, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    dir_hash = crc32c((uint32_t)dir_hash, name, strlen(name));
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    static uint8_t bytes[1 << 16];
    ssize_t got;
    while ((got = read(fd, bytes, sizeof bytes)) > 0)
        dir_hash = crc32c((uint32_t)dir_hash, bytes, (size_t)got);
    close(fd);
    return 0;
}

/* The same calls with the same seed leave the same bytes, on both backends. */
static void test_determinism(void **state) {
    (void)state;
    uint64_t hashes[3];
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        fixture_open(&f, i == 1 ? IO_BACKEND_AUTO : IO_BACKEND_SYSCALL, 32 * FRAME);
        if (i == 2)
            f.seed++;
        first_start(&f);
        random_groups(&f, 30);
        restart(&f);
        random_groups(&f, 3);
        dir_hash = 0;
        assert_int_equal(io_list_dir(f.io, f.dir, hash_each, f.dir), STATUS_OK);
        hashes[i] = dir_hash;
        fixture_close(&f);
    }
    assert_true(hashes[0] == hashes[1]);
    assert_true(hashes[0] != hashes[2]); /* the salt does come from the seed */
}

/* ---- Damage
 * ------------------------------------------------------------------------------------------------------------
 */

static char *segment_path(struct fixture *f, uint32_t number) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%08x.log", f->dir, number);
    return path;
}

static void bytes_read(const char *path, uint64_t offset, void *data, size_t len) {
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, data, len, (off_t)offset), len);
    close(fd);
}

static void bytes_write(const char *path, uint64_t offset, const void *data, size_t len) {
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, (off_t)offset), len);
    close(fd);
}

static void torn_files_remove(struct fixture *f, uint32_t number, uint64_t offset, uint64_t bytes) {
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/torn-%08x-%08x", f->dir, number, (unsigned)offset);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, bytes);
    assert_int_equal(unlink(path), 0);
}

/* A small log in one segment: groups of several shapes, records over frames. */
static void small_log(struct fixture *f) {
    fixture_open(f, IO_BACKEND_SYSCALL, 20 * FRAME);
    first_start(f);
    static const size_t a[] = {10, 300}, b[] = {3000, 3000, 20, 5000, 40}, c[] = {1}, d[] = {9000, 5},
                        e[] = {100, 4500, 60};
    group_write(f, a, 2);
    group_write(f, b, 5);
    group_write(f, c, 1);
    group_write(f, d, 2);
    group_write(f, e, 3);
    read_only_close(f);
}

static size_t group_frames(const struct fixture *f, wal_position group) {
    size_t frames = 0;
    for (size_t i = 0; i < f->entry_count; i++) {
        if (f->entries[i].group == group && f->entries[i].frame_last + 1 > frames)
            frames = f->entries[i].frame_last + 1;
    }
    return frames;
}

/* Flips one bit of every byte of the log. Damage below the durable position costs the records that it touches
 * and no other; in the last group it is a torn tail; in the header it costs nothing. */
static void test_flip_every_byte(void **state) {
    (void)state;
    struct fixture f;
    small_log(&f);
    const char *path = segment_path(&f, 1);
    wal_position last_group = f.entries[f.entry_count - 1].group;
    uint64_t last_start = (uint32_t)last_group;
    uint64_t end = last_start + group_frames(&f, last_group) * FRAME;
    bool *lost = mem_zalloc(f.entry_count * sizeof *lost);
    assert_non_null(lost);
    for (uint64_t offset = 0; offset < end; offset++) {
        /* padding is all alike: every 16th byte of it will do */
        uint8_t byte;
        bytes_read(path, offset, &byte, 1);
        if (byte == 0 && offset % 16 != 0)
            continue;
        uint8_t flipped = (uint8_t)(byte ^ (1u << (offset % 8)));
        bytes_write(path, offset, &flipped, 1);
        uint64_t frame = offset / FRAME * FRAME;
        bool torn = frame >= last_start;
        size_t lost_count = 0;
        for (size_t i = 0; i < f.entry_count; i++) {
            uint64_t group = (uint32_t)f.entries[i].group;
            lost[i] = torn ? group == last_start
                           : frame >= group + f.entries[i].frame_first * FRAME &&
                                 frame <= group + f.entries[i].frame_last * FRAME;
            lost_count += lost[i];
        }
        struct wal_replay_stats stats = replay_check(&f, lost);
        assert_int_equal(stats.records, f.entry_count - lost_count);
        assert_int_equal(stats.corrupt_frames, torn ? 0 : 1);
        assert_int_equal(stats.torn_tails, torn ? 1 : 0);
        read_only_close(&f);
        if (torn)
            torn_files_remove(&f, 1, last_start, stats.torn_bytes);
        bytes_write(path, offset, &byte, 1);
    }
    mem_free(lost);
    fixture_close(&f);
}

/* The same segment once it is closed: its successor's header proves all of it, so nothing is a torn tail any
 * more; and what comes behind the end that the header tells is not looked at. */
static void test_flip_closed_segment(void **state) {
    (void)state;
    struct fixture f;
    small_log(&f);
    restart(&f); /* makes segment 2, with the last group in it */
    size_t in_first = 0;
    while (f.entries[in_first].group >> 32 == 1)
        in_first++;
    assert_true(in_first > 0 && in_first < f.entry_count);
    size_t len = 77;
    group_write(&f, &len, 1);
    read_only_close(&f);
    wal_position last_group = f.entries[in_first - 1].group;
    uint64_t end = (uint32_t)last_group + group_frames(&f, last_group) * FRAME;
    bool *lost = mem_zalloc(f.entry_count * sizeof *lost);
    assert_non_null(lost);
    for (uint64_t offset = DATA; offset < 20 * FRAME; offset += 211) {
        uint8_t byte, flipped;
        bytes_read(segment_path(&f, 1), offset, &byte, 1);
        flipped = (uint8_t)(byte ^ 0x10);
        bytes_write(segment_path(&f, 1), offset, &flipped, 1);
        uint64_t frame = offset / FRAME * FRAME;
        size_t lost_count = 0;
        for (size_t i = 0; i < in_first; i++) {
            uint64_t group = (uint32_t)f.entries[i].group;
            lost[i] = frame >= group + f.entries[i].frame_first * FRAME &&
                      frame <= group + f.entries[i].frame_last * FRAME;
            lost_count += lost[i];
        }
        struct wal_replay_stats stats = replay_check(&f, lost);
        assert_int_equal(stats.records, f.entry_count - lost_count);
        assert_int_equal(stats.corrupt_frames, offset < end ? 1 : 0);
        assert_int_equal(stats.torn_tails, 0);
        read_only_close(&f);
        bytes_write(segment_path(&f, 1), offset, &byte, 1);
    }
    /* cut short: what is missing below the end is counted, frame by frame */
    uint64_t cut = (uint32_t)last_group;
    assert_int_equal(truncate(segment_path(&f, 1), (off_t)(cut)), 0);
    for (size_t i = 0; i < in_first; i++)
        lost[i] = (uint32_t)f.entries[i].group + (f.entries[i].frame_last + 1) * FRAME > cut;
    struct wal_replay_stats stats = replay_check(&f, lost);
    assert_int_equal(stats.corrupt_frames, (end - cut) / FRAME);
    read_only_close(&f);
    mem_free(lost);
    fixture_close(&f);
}

/* Cuts the file at every byte of the last two groups: what was whole before the cut is there, nothing else.
 */
static void test_truncate_every_byte(void **state) {
    (void)state;
    struct fixture f;
    small_log(&f);
    const char *path = segment_path(&f, 1);
    static uint8_t bytes[20 * FRAME];
    bytes_read(path, 0, bytes, sizeof bytes);
    wal_position last = f.entries[f.entry_count - 1].group, before = f.entries[f.entry_count - 4].group;
    assert_true(before < last);
    uint64_t end = (uint32_t)last + group_frames(&f, last) * FRAME;
    uint64_t bytes_made = load_u64(bytes + 24); /* the header says it */
    bool *lost = mem_zalloc(f.entry_count * sizeof *lost);
    assert_non_null(lost);
    for (uint64_t cut = end; cut >= (uint32_t)before; cut--) {
        assert_int_equal(truncate(path, (off_t)cut), 0);
        /* zeros behind the cut are as good as there */
        uint64_t whole = cut;
        while (whole < end && bytes[whole] == 0)
            whole++;
        uint64_t torn_from = 0;
        for (size_t i = 0; i < f.entry_count; i++) {
            uint64_t group = (uint32_t)f.entries[i].group;
            lost[i] = group + group_frames(&f, f.entries[i].group) * FRAME > whole;
            if (lost[i] && torn_from == 0)
                torn_from = group;
        }
        struct wal_replay_stats stats = replay_check(&f, lost);
        bool torn = torn_from != 0 && cut > torn_from;
        assert_int_equal(stats.torn_tails, torn ? 1 : 0);
        assert_int_equal(stats.corrupt_frames, 0);
        assert_int_equal(stats.cut_frames, (bytes_made - cut + FRAME - 1) / FRAME);
        for (size_t i = f.entry_count; lost[i - 1]; i--)
            stats.records++;
        assert_int_equal(stats.records, f.entry_count);
        read_only_close(&f);
        if (torn) {
            /* the bytes themselves are kept aside */
            char torn_path[128];
            static uint8_t kept[20 * FRAME];
            snprintf(torn_path, sizeof torn_path, "%s/torn-00000001-%08x", f.dir, (unsigned)torn_from);
            bytes_read(torn_path, 0, kept, stats.torn_bytes);
            assert_memory_equal(kept, bytes + torn_from, stats.torn_bytes);
            torn_files_remove(&f, 1, torn_from, stats.torn_bytes);
        }
    }
    mem_free(lost);
    assert_int_equal(truncate(path, 0), 0);
    bytes_write(path, 0, bytes, sizeof bytes);
    fixture_close(&f);
}

/* After a torn tail the log goes on in a new segment, and the torn bytes never come back, even if they were
 * mended. */
static void test_torn_tail_stays_cut(void **state) {
    (void)state;
    struct fixture f;
    small_log(&f);
    wal_position last = f.entries[f.entry_count - 1].group;
    static uint8_t zeros[FRAME], kept[FRAME];
    uint64_t second_frame = (uint32_t)last + FRAME;
    bytes_read(segment_path(&f, 1), second_frame, kept, FRAME);
    bytes_write(segment_path(&f, 1), second_frame, zeros, FRAME);
    for (size_t i = f.entry_count - 3; i < f.entry_count; i++)
        f.entries[i].acknowledged = false;
    struct wal_replay_stats stats = replay_check(&f, NULL);
    assert_int_equal(stats.torn_tails, 1);
    assert_int_equal(stats.records, f.entry_count - 3);
    start_well(&f);
    assert_int_equal(wal_segment(f.wal), 2);
    size_t len = 500;
    group_write(&f, &len, 1);
    read_only_close(&f);
    bytes_write(segment_path(&f, 1), second_frame, kept, FRAME);
    stats = replay_check(&f, NULL);
    assert_int_equal(stats.torn_tails + stats.corrupt_frames, 0);
    assert_int_equal(stats.records, f.entry_count - 3);
    fixture_close(&f);
}

/* Kept-aside tails do not pile up. */
static void test_torn_files_bounded(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 8 * FRAME);
    first_start(&f);
    for (uint32_t i = 1; i <= 20; i++) {
        read_only_close(&f);
        bytes_write(segment_path(&f, i), DATA + 5, "torn", 4);
        struct wal_replay_stats stats = replay_check(&f, NULL);
        assert_int_equal(stats.torn_tails, 1);
        assert_int_equal(stats.torn_bytes, 9);
        start_well(&f);
    }
    int kept = 0;
    for (unsigned i = 1; i <= 20; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/torn-%08x-%08x", f.dir, i, DATA);
        kept += access(path, F_OK) == 0;
        if (i == 20)
            assert_int_equal(access(path, F_OK), 0);
    }
    assert_int_equal(kept, 8);
    fixture_close(&f);
}

/* Random damage all over a log of many segments: whatever is lost is what the damage touched. */
static void test_random_damage(void **state) {
    (void)state;
    for (uint64_t round = 0; round < 60; round++) {
        struct fixture f;
        fixture_open(&f, IO_BACKEND_SYSCALL, 24 * FRAME);
        rand_init(&f.rand, round);
        first_start(&f);
        random_groups(&f, 20);
        size_t len = 10;
        group_write(&f, &len, 1); /* the last group, which is left alone */
        read_only_close(&f);
        bool *lost = mem_zalloc(f.entry_count * sizeof *lost);
        assert_non_null(lost);
        uint64_t damaged = 0;
        static uint64_t seen[64];
        for (uint64_t i = 1 + rand_below(&f.rand, 10); i > 0; i--) {
            const struct entry *victim = &f.entries[rand_below(&f.rand, f.entry_count - 1)];
            uint64_t at = victim->group + victim->frame_first * FRAME;
            bool again = false;
            for (uint64_t j = 0; j < damaged; j++)
                again |= seen[j] == at;
            if (again)
                continue;
            seen[damaged++] = at;
            static uint8_t garbage[FRAME];
            for (size_t j = 0; j < FRAME; j++)
                garbage[j] = (uint8_t)rand_u64(&f.rand);
            if (rand_below(&f.rand, 2))
                memset(garbage, 0, FRAME);
            bytes_write(segment_path(&f, (uint32_t)(at >> 32)), (uint32_t)at, garbage, FRAME);
            for (size_t j = 0; j < f.entry_count; j++) {
                const struct entry *entry = &f.entries[j];
                lost[j] |= at >= entry->group + entry->frame_first * FRAME &&
                           at <= entry->group + entry->frame_last * FRAME;
            }
        }
        struct wal_replay_stats stats = replay_check(&f, lost);
        assert_int_equal(stats.corrupt_frames, damaged);
        assert_int_equal(stats.torn_tails, 0);
        mem_free(lost);
        fixture_close(&f);
    }
}

/* What is lost with a segment: its groups, but for the first, which was carried over from the segment before:
 * nothing says any more that the old copy does not count. */
static void lose_segment(struct fixture *f, uint32_t number, const size_t *held, bool *lost) {
    bool first = number > 1;
    for (size_t i = 0; i < f->entry_count; i++) {
        lost[i] = f->entries[i].group >> 32 == number;
        if (lost[i] && first) {
            lost[i] = first = false;
            f->entries[i].group = (uint64_t)(number - 1) << 32 | (DATA + held[number - 2] * FRAME);
        }
    }
}

/* It is there again. */
static void find_segment(struct fixture *f, uint32_t number) {
    for (size_t i = 0; i + 1 < f->entry_count; i++)
        if (f->entries[i].group >> 32 == number - 1 && f->entries[i + 1].group >> 32 == number)
            f->entries[i].group = (uint64_t)number << 32 | DATA;
}

/* Both copies of a header gone, a segment missing, a segment of a newer version. */
static void test_headers(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 16 * FRAME);
    first_start(&f);
    size_t len = 3000;
    for (int i = 0; i < 4; i++) {
        group_write(&f, &len, 1);
        group_write(&f, &len, 1);
        restart(&f);
    }
    read_only_close(&f);
    bool lost[8];
    size_t held[5] = {0}; /* groups of one frame, by segment; the last one of each was carried to the next */
    for (size_t i = 0; i < f.entry_count; i++)
        held[(f.entries[i].group >> 32) - 1]++;
    uint8_t kept[DATA];
    static uint8_t zeros[DATA];
    for (uint32_t number = 1; number <= 4; number++) {
        lose_segment(&f, number, held, lost);
        bytes_read(segment_path(&f, number), 0, kept, DATA);
        bytes_write(segment_path(&f, number), 0, zeros, DATA);
        struct wal_replay_stats stats = replay_check(&f, lost);
        assert_int_equal(stats.corrupt_frames, 2 + held[number - 1]); /* two of the header */
        assert_int_equal(stats.records, 8 - held[number - 1] + (number > 1));
        find_segment(&f, number);
        read_only_close(&f);
        bytes_write(segment_path(&f, number), 0, kept, DATA);
    }
    /* missing in the middle: told of; before the first: meant to be gone */
    char moved[128];
    snprintf(moved, sizeof moved, "%s/moved", f.dir);
    for (uint32_t number = 1; number <= 2; number++) {
        lose_segment(&f, number, held, lost);
        assert_int_equal(rename(segment_path(&f, number), moved), 0);
        struct wal_replay_stats stats = replay_check(&f, lost);
        assert_int_equal(stats.corrupt_frames, number == 1 ? 0 : 2 + held[1]);
        find_segment(&f, number);
        read_only_close(&f);
        assert_int_equal(rename(moved, segment_path(&f, number)), 0);
    }
    /* a newer version is refused, not guessed at */
    bytes_read(segment_path(&f, 2), 0, kept, FRAME);
    uint8_t newer[FRAME];
    memcpy(newer, kept, FRAME);
    store_u32(newer + 8, 2);
    store_u32(newer + FRAME - 4, crc32c(0, newer, FRAME - 4));
    bytes_write(segment_path(&f, 2), 0, newer, FRAME);
    struct error_detail detail = {0};
    assert_int_equal(open_wal(&f, &detail), STATUS_NEWER_FORMAT);
    f.wal = NULL;
    assert_non_null(strstr(detail.text, "00000002.log"));
    fixture_close(&f);
}

/* A frame that is whole but belongs elsewhere (another offset, another segment) is not believed. */
static void test_misdirected_frame(void **state) {
    (void)state;
    struct fixture f;
    small_log(&f);
    static uint8_t frame[FRAME];
    bool lost[13] = {0};
    bytes_read(segment_path(&f, 1), DATA, frame, FRAME);              /* group a */
    bytes_write(segment_path(&f, 1), DATA + 4 * FRAME, frame, FRAME); /* over group c: entry 7 */
    lost[7] = true;
    struct wal_replay_stats stats = replay_check(&f, lost);
    assert_int_equal(stats.corrupt_frames, 1);
    fixture_close(&f);
}

/* ---- Failures
 * ---------------------------------------------------------------------------------------------------------
 */

static void recover(struct fixture *f, int64_t *now_ms) {
    for (int i = 0; i < 2000 && wal_state(f->wal) == WAL_FAILED; i++)
        wal_tick(f->wal, *now_ms += 50);
    assert_int_equal(wal_state(f->wal), WAL_READY);
}

/* A life with rolls, background steps and a restart, in which the nth operation fails (and with repeat, all
 * behind it for a while): what was acknowledged is there in the end, in order, and nothing was invented.
 * Returns false when the fault was not reached. */
static bool life_with_fault(enum io_backend backend, struct io_fault fault) {
    struct fixture f;
    fixture_open(&f, backend, 12 * FRAME);
    io_fault_set(f.io, fault);
    int64_t now_ms = 1000;
    bool failed = false;
    for (int life = 0; life < 3; life++) {
        for (;;) {
            struct check check = {.f = &f};
            struct wal_sink sink = {on_segment, on_record, &check, NULL};
            struct wal_replay_stats stats;
            f.tail_count = 0;
            int status = open_wal(&f, NULL);
            if (status == STATUS_OK)
                status = wal_replay(f.wal, 0, &sink, NULL, &stats);
            if (status == STATUS_OK) {
                if (start(&f, NULL) != STATUS_OK) {
                    failed = true;
                    io_fault_set(f.io, (struct io_fault){0});
                    recover(&f, &now_ms);
                }
                started(&f);
                break;
            }
            failed = true;
            wal_close(f.wal);
            f.wal = NULL;
            io_fault_set(f.io, (struct io_fault){0});
        }
        for (int i = 0; i < 8; i++) {
            group_begin(&f);
            append(&f, random_len(&f));
            append(&f, 100);
            if (commit(&f) < 0) {
                failed = true;
                wal_tick(f.wal, now_ms);
                if (fault.repeat) { /* for a while nothing goes, and it tries again and again */
                    for (int j = 0; j < 100; j++)
                        wal_tick(f.wal, now_ms += 100);
                    assert_int_equal(wal_state(f.wal), WAL_FAILED);
                }
                io_fault_set(f.io, (struct io_fault){0});
                recover(&f, &now_ms);
            }
            wal_tick(f.wal, now_ms += 10);
        }
        wal_close(f.wal); /* and dies while it is at it */
        f.wal = NULL;
    }
    failed |= fault.short_bytes > 0;
    io_fault_set(f.io, (struct io_fault){0});
    struct wal_replay_stats stats = replay_check(&f, NULL);
    assert_int_equal(stats.corrupt_frames, 0);
    fixture_close(&f);
    return failed;
}

static void fault_sweep(enum io_backend backend) {
    uint64_t last = 0;
    for (uint64_t n = 1; n < last + 40; n++) {
        if (life_with_fault(backend, (struct io_fault){.countdown = n, .error = n % 2 ? EIO : ENOSPC}))
            last = n;
        life_with_fault(backend, (struct io_fault){.countdown = n, .error = ENOSPC, .repeat = true});
    }
    assert_true(last > 100);
    for (uint64_t n = 1; n < last; n += 3)
        life_with_fault(backend,
                        (struct io_fault){.countdown = n, .short_bytes = 1 + n * 37 % 5000, .repeat = n % 2});
}

static void test_fault_sweep(void **state) {
    (void)state;
    fault_sweep(IO_BACKEND_SYSCALL);
    fault_sweep(IO_BACKEND_AUTO);
}

/* The delays of recovery: 100 ms, doubling to 5 s; from 100 ms again once a group went through. */
static void test_backoff(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 12 * FRAME);
    metrics_reset();
    first_start(&f);
    for (int round = 0; round < 2; round++) {
        group_begin(&f);
        append(&f, 10);
        io_fault_set(f.io, (struct io_fault){.countdown = 1, .error = ENOSPC, .repeat = true});
        assert_int_equal(commit(&f), STATUS_NO_SPACE);
        assert_int_equal(metric_get(METRIC_wal_writable), 0);
        int64_t now_ms = 0;
        static const int64_t delays[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
        for (size_t i = 0; i < 9; i++) {
            uint64_t errors = metric_get(METRIC_wal_errors);
            wal_tick(f.wal, now_ms); /* starts the delay */
            wal_tick(f.wal, now_ms + delays[i] - 1);
            assert_int_equal(metric_get(METRIC_wal_errors), errors);
            wal_tick(f.wal, now_ms += delays[i]);
            assert_int_equal(metric_get(METRIC_wal_errors), errors + 1);
        }
        /* a clock that jumps back does not stop it */
        io_fault_set(f.io, (struct io_fault){0});
        wal_tick(f.wal, now_ms);
        wal_tick(f.wal, now_ms - 1000000);
        wal_tick(f.wal, now_ms - 1000000 + 5000);
        assert_int_equal(wal_state(f.wal), WAL_READY);
        assert_int_equal(metric_get(METRIC_wal_writable), 1);
        size_t len = 10;
        group_write(&f, &len, 1);
    }
    restart(&f);
    fixture_close(&f);
}

/* A group whose sync failed is never seen again once the log went on, though its bytes are all there. */
static void test_failed_group_stays_dead(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 64 * FRAME);
    first_start(&f);
    size_t len = 1000;
    group_write(&f, &len, 1);
    group_begin(&f);
    append(&f, 2000);
    io_fault_set(f.io, (struct io_fault){.countdown = 2, .error = EIO}); /* write, then sync */
    assert_int_equal(commit(&f), STATUS_IO);
    int64_t now_ms = 0;
    recover(&f, &now_ms);
    assert_int_equal(wal_segment(f.wal), 2);
    group_write(&f, &len, 1);
    read_only_close(&f);
    bool lost[3] = {false, true, false};
    struct wal_replay_stats stats = replay_check(&f, lost);
    assert_int_equal(stats.records, 2);
    assert_int_equal(stats.torn_tails + stats.corrupt_frames, 0);
    fixture_close(&f);
}

/* The last group may be found whole though its sync failed, in pages that the kernel takes for clean; and it
 * may have been acknowledged, so that a torn write over it would lose it. It is carried over to the first
 * segment, which comes into being with it; the old copy is not written to and counts no more. */
static void trace_tail(void *context, const struct io_event *event) {
    (void)context;
    assert_true(event->kind == IO_EVENT_SYNC || strstr(event->path, "00000001.log") == NULL);
}

static void unproven_group_carried(bool fails_first) {
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 16 * FRAME);
    first_start(&f);
    size_t len = 1000, large = 5000;
    group_write(&f, &len, 1);
    group_write(&f, &large, 1);
    read_only_close(&f);
    io_trace_set(f.io, trace_tail, NULL);
    replay_check(&f, NULL);
    assert_int_equal(f.tail_count, 1);
    if (fails_first) {
        io_fault_set(f.io, (struct io_fault){.countdown = 4, .error = ENOSPC, .repeat = true});
        assert_int_equal(start(&f, NULL), STATUS_NO_SPACE);
        io_fault_set(f.io, (struct io_fault){0});
        int64_t now_ms = 0;
        recover(&f, &now_ms);
    } else {
        assert_int_equal(start(&f, NULL), STATUS_OK);
    }
    started(&f);
    io_trace_set(f.io, NULL, NULL);
    uint32_t segment = wal_segment(f.wal);
    assert_true(wal_durable(f.wal) == ((uint64_t)segment << 32 | (DATA + 2 * FRAME)));
    group_write(&f, &len, 1); /* goes behind it */
    read_only_close(&f);
    static const uint8_t zeros[2 * FRAME];
    bytes_write(segment_path(&f, 1), DATA + FRAME, zeros, sizeof zeros);
    struct wal_replay_stats stats = replay_check(&f, NULL);
    assert_int_equal(stats.records, 3);
    assert_int_equal(stats.torn_tails + stats.corrupt_frames, 0);
    fixture_close(&f);
}

static void test_unproven_group_carried(void **state) {
    (void)state;
    unproven_group_carried(false);
    unproven_group_carried(true);
}

/* Out of memory at every allocation of opening, replaying and starting: an error, no leak, and again without
 * it. */
static void test_no_memory(void **state) {
    (void)state;
    struct fixture f;
    small_log(&f);
    for (uint64_t n = 1;; n++) {
        struct check check = {.f = &f};
        struct wal_sink sink = {on_segment, on_record, &check, NULL};
        struct wal_replay_stats stats;
        struct error_detail detail = {0};
        f.tail_count = 0;
        mem_fault_set(n, 0);
        int status = open_wal(&f, &detail);
        if (status == STATUS_OK)
            status = wal_replay(f.wal, 0, &sink, &detail, &stats);
        if (status == STATUS_OK)
            status = start(&f, &detail);
        mem_fault_set(0, 0);
        if (status == STATUS_OK)
            started(&f);
        wal_close(f.wal);
        f.wal = NULL;
        if (status == STATUS_OK && n > 25)
            break;
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_true(detail.text[0] != '\0');
        }
        assert_true(n < 200);
    }
    /* a group that can't grow stays as it was */
    replay_check(&f, NULL);
    start_well(&f);
    group_begin(&f);
    append(&f, 100);
    size_t bytes = wal_group_bytes(f.wal);
    static uint8_t large[1 << 20];
    mem_fault_set(1, 0);
    assert_int_equal(wal_group_append(f.wal, WAL_RECORD_SAMPLES, slice_of(large, sizeof large)),
                     STATUS_NO_MEMORY);
    mem_fault_set(0, 0);
    assert_int_equal(wal_group_bytes(f.wal), bytes);
    append(&f, 200);
    assert_int_equal(commit(&f), STATUS_OK);
    restart(&f);
    fixture_close(&f);
}

/* ---- Orders
 * ------------------------------------------------------------------------------------------------------------
 */

struct order {
    bool zeros_synced; /* next.tmp: everything written so far is synced */
    bool renamed;
    bool dir_synced;
    char current[128];
    size_t commits;
    size_t slice_max;
    size_t fill_writes;
};

static void trace_order(void *context, const struct io_event *event) {
    struct order *order = context;
    bool temporary = strstr(event->path, "next.tmp") != NULL;
    bool done = event->phase == IO_EVENT_COMPLETED && event->result >= 0;
    switch (event->kind) {
    case IO_EVENT_WRITE:
        if (temporary) {
            order->zeros_synced = false;
            order->fill_writes += done;
            if (event->len > order->slice_max)
                order->slice_max = event->len;
        } else if (event->phase == IO_EVENT_SUBMITTED) {
            assert_string_equal(event->path, order->current);
            assert_true(order->renamed && order->dir_synced);
            order->commits++;
        }
        break;
    case IO_EVENT_SYNC:
        if (temporary && done)
            order->zeros_synced = true;
        break;
    case IO_EVENT_RENAME:
        if (!done) {
            assert_true(order->zeros_synced);
            break;
        }
        snprintf(order->current, sizeof order->current, "%s", event->path);
        order->renamed = true;
        order->dir_synced = false;
        break;
    case IO_EVENT_SYNC_DIR:
        order->dir_synced |= done;
        break;
    case IO_EVENT_REMOVE:
        break;
    }
}

/* Before the first group goes into a segment, its zeros and header are synced, it has its name, and the
 * directory is synced. A roll onto a pre-created segment fills nothing. */
static void test_segment_order(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_AUTO, 1024 * FRAME);
    replay_check(&f, NULL);
    struct order order = {0};
    io_trace_set(f.io, trace_order, &order);
    assert_int_equal(wal_start(f.wal, NULL), STATUS_OK);
    assert_int_equal(order.slice_max, 1 << 20);
    size_t len = 60000;
    for (int64_t i = 0; i < 300; i++) {
        size_t before = order.fill_writes;
        uint32_t segment = wal_segment(f.wal);
        group_write(&f, &len, 1);
        if (wal_segment(f.wal) != segment)
            assert_int_equal(order.fill_writes, before + 1); /* the header */
        before = order.fill_writes;
        wal_tick(f.wal, i);
        assert_true(order.fill_writes <= before + 1);
    }
    assert_true(wal_segment(f.wal) > 3);
    assert_int_equal(order.commits, 300);
    fixture_close(&f);
}

/* Pre-creating fails: the log goes on, waits 5 s, and makes the segment when it must. */
static void test_precreate_fails(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, IO_BACKEND_SYSCALL, 12 * FRAME);
    first_start(&f);
    size_t len = 6 * PAYLOAD - 10;
    group_write(&f, &len, 1);
    char path[128];
    snprintf(path, sizeof path, "%s/next.tmp", f.dir);
    io_fault_set(f.io, (struct io_fault){.countdown = 1, .error = ENOSPC, .repeat = true});
    wal_tick(f.wal, 0);
    assert_int_equal(wal_state(f.wal), WAL_READY);
    io_fault_set(f.io, (struct io_fault){0});
    wal_tick(f.wal, 4999);
    assert_int_not_equal(access(path, F_OK), 0);
    wal_tick(f.wal, 5000);
    assert_int_equal(access(path, F_OK), 0);
    assert_true(wal_disk_bytes(f.wal) == 24 * FRAME);
    group_write(&f, &len, 1);
    assert_int_not_equal(access(path, F_OK), 0);
    restart(&f);
    fixture_close(&f);
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT,
              open("/dev/null", O_WRONLY)); /* thousands of lines about damage */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roundtrip),
        cmocka_unit_test(test_frame_edges),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_determinism),
        cmocka_unit_test(test_flip_every_byte),
        cmocka_unit_test(test_flip_closed_segment),
        cmocka_unit_test(test_truncate_every_byte),
        cmocka_unit_test(test_torn_tail_stays_cut),
        cmocka_unit_test(test_torn_files_bounded),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_misdirected_frame),
        cmocka_unit_test(test_fault_sweep),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_failed_group_stays_dead),
        cmocka_unit_test(test_unproven_group_carried),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_segment_order),
        cmocka_unit_test(test_precreate_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
