/* test_verify_head.c: `tidalite verify` and the files in head/: each kind of damage is told with its file,
 * place and cost; what is whole, or in use, is told to be. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "storage/head/head.h"
#include "storage/manifest/manifest.h"
#include "storage/snapshot/frame_file.h"
#include "storage/snapshot/snapshot_format.h"
#include "storage/snapshot/snapshot_read.h"
#include "tests/unit/tools/head_fixture.h"
#include "tools/tools.h"

static int verify(void) {
    const char *const arguments[] = {"verify", head_fixture.storage.dir, NULL};
    return command_run(&head_fixture, tools_verify, arguments);
}

static size_t lines_with(const char *text) {
    size_t count = 0;
    for (const char *at = head_fixture.output; (at = strstr(at, text)) != NULL; at++)
        count++;
    return count;
}

/* One piece of damage, and this is its line. */
static void expect(const char *path, size_t offset, const char *what, const char *costs) {
    char line[512];
    snprintf(line, sizeof line, "damage: %s, offset %zu: %s; costs %s\n", path, offset, what, costs);
    int code = verify();
    if (code != 1 || strstr(head_fixture.output, line) == NULL || lines_with("damage: ") != 1)
        fail_msg("code %d, expected %sgot %s", code, line, head_fixture.output);
}

static void expect_whole(void) {
    int code = verify();
    if (code != 0 || lines_with("damage: ") != 0)
        fail_msg("code %d, %s", code, head_fixture.output);
}

#define BEFORE "nothing, the one before it and the log since count"
#define NEWER  "nothing as long as the newer one is whole"
#define ONLY   "samples of the head that only it holds"
#define OTHER  "nothing, the other copy counts"
#define SERIES "the series that are named there"
#define CHUNK  "the sealed chunk there, and what its series had before it"

static void test_whole(void **state) {
    (void)state;
    expect_whole();
    assert_int_equal(lines_with("note: "), 0);
    char path[128];
    snprintf(path, sizeof path, "%s/ballast", head_fixture.storage.dir);
    struct file_copy copy = file_keep(path); /* nothing counts of it but its size */
    file_flip(path, 1000);
    expect_whole();
    file_restore(&copy);
}

static void test_snapshots(void **state) {
    (void)state;
    const char *newest = head_fixture.snapshots[0], *older = head_fixture.snapshots[1];
    struct file_copy copy = file_keep(newest);
    for (size_t at = 0; at < 400; at += 40) {
        file_flip(newest, at);
        expect(newest, 0, "frame: wrong checksum", BEFORE);
        file_flip(newest, at);
    }
    /* The last frame is the end, one page of it. */
    file_flip(newest, copy.len - 4096 + 30);
    expect(newest, copy.len - 4096, "frame: wrong checksum", BEFORE);
    file_flip(newest, copy.len - 4096 + 30);
    file_flip(newest, copy.len - 1);
    expect(newest, copy.len - 4096, "frame: what is behind it is not zero", "nothing");
    file_cut(newest, copy.len - 4096);
    expect(newest, copy.len - 4096, "the file ends early", BEFORE);
    unlink(newest);
    expect(newest, 0, "it is missing", BEFORE);
    file_restore(&copy);

    copy = file_keep(older);
    file_flip(older, 33);
    expect(older, 0, "frame: wrong checksum", NEWER);
    file_flip(newest, 33);
    assert_int_equal(verify(), 1);
    assert_int_equal(lines_with(ONLY), 2);
    file_flip(newest, 33);
    file_restore(&copy);
    expect_whole();
}

static void test_labels(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const char *path = head_fixture.labels[i];
        struct file_copy copy = file_keep(path);
        file_flip(path, 25);
        expect(path, 0, "frame: wrong checksum", OTHER);
        file_flip(path, 25);
        file_flip(path, 4095);
        expect(path, 0, "frame: what is behind it is not zero", "nothing");
        file_cut(path, 0);
        expect(path, 0, "the file ends early", OTHER);
        unlink(path);
        expect(path, 0, "it is missing", OTHER);
        file_restore(&copy);
    }
    file_flip(head_fixture.labels[0], 25);
    file_flip(head_fixture.labels[1], 25);
    assert_int_equal(verify(), 1);
    assert_int_equal(lines_with(SERIES), 2);
    file_flip(head_fixture.labels[0], 25);
    file_flip(head_fixture.labels[1], 25);
    expect_whole();
}

static void test_chunks(void **state) {
    (void)state;
    const char *path = head_fixture.chunks;
    struct file_copy copy = file_keep(path);
    size_t second = 64 + (40u + load_u16(copy.bytes + 64 + 4) + 7u) / 8 * 8;
    file_flip(path, 10);
    expect(path, 0, "header: wrong checksum", "nothing");
    file_flip(path, 10);
    for (size_t at = 0; at < 80; at += 8) { /* lengths too: the one behind is found all the same */
        file_flip(path, second + at);
        expect(path, second, "record: wrong checksum", CHUNK);
        file_flip(path, second + at);
    }
    assert_true(lines_with("series of the head are hurt") == 1);
    file_flip(path, 64 + 50);
    file_flip(path, second + 60);
    expect(path, 64, "record: wrong checksum", CHUNK); /* one run of damage */
    file_flip(path, 64 + 50);
    file_flip(path, second + 60);
    file_cut(path, copy.len - 1000);
    expect(path, copy.len - 1000, "the file ends early, or is missing", CHUNK);
    unlink(path);
    expect(path, 0, "the file ends early, or is missing", CHUNK);
    file_restore(&copy);
    expect_whole();
}

static void test_log(void **state) {
    (void)state;
    struct manifest manifest;
    struct error_detail detail = {{0}};
    char path[256], other[256];
    assert_int_equal(manifest_load(head_fixture.io, head_fixture.storage.dir, &detail, &manifest), STATUS_OK);
    snprintf(path, sizeof path, "%s/wal/%08x.log", head_fixture.storage.dir,
             (unsigned)(manifest.snapshots[1].position >> 32));
    manifest_release(&manifest);
    snprintf(other, sizeof other, "%s/kept", head_fixture.storage.dir);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(verify(), 1);
    if (strstr(head_fixture.output, path) == NULL || lines_with("costs the requests in it") != 1)
        fail_msg("%s", head_fixture.output);
    assert_int_equal(rename(other, path), 0);
    expect_whole();
}

/* ---- what refers to what: frames that are whole, with something else in them ---- */

#define FRAMES_MAX 64

struct frames {
    uint32_t kinds[FRAMES_MAX];
    uint64_t offsets[FRAMES_MAX];
    uint8_t *payloads[FRAMES_MAX];
    size_t lens[FRAMES_MAX];
    size_t count;
};

static uint64_t number_of(const char *path) {
    uint64_t number;
    assert_int_equal(sscanf(strrchr(path, '/') + 1, "%" SCNx64, &number), 1);
    return number;
}

static void frames_read(const char *path, size_t len, struct frames *frames) {
    struct frame_reader reader;
    struct error_detail detail = {{0}};
    struct slice payload;
    memset(frames, 0, sizeof *frames);
    assert_int_equal(frame_reader_open(head_fixture.io, path, NULL, number_of(path), len, &detail, &reader),
                     STATUS_OK);
    while (frame_reader_next(&reader, &frames->kinds[frames->count], &payload) == STATUS_OK) {
        size_t i = frames->count++;
        frames->offsets[i] = reader.at;
        frames->lens[i] = payload.len;
        frames->payloads[i] = test_malloc(payload.len + 1);
        memcpy(frames->payloads[i], payload.data, payload.len);
    }
    frame_reader_close(&reader);
}

static void frames_write(const char *path, const char *path2, struct frames *frames) {
    struct frame_writer *writer;
    struct error_detail detail = {{0}};
    assert_int_equal(frame_writer_open(head_fixture.io, path, path2, number_of(path), 0, &detail, &writer),
                     STATUS_OK);
    for (size_t i = 0; i < frames->count; i++) {
        assert_int_equal(frame_writer_append(writer, frames->kinds[i],
                                             slice_of(frames->payloads[i], frames->lens[i]), &detail),
                         STATUS_OK);
        test_free(frames->payloads[i]);
    }
    frame_writer_close(writer);
}

static size_t frame_of(const struct frames *frames, uint32_t kind) {
    for (size_t i = 0; i < frames->count; i++)
        if (frames->kinds[i] == kind)
            return i;
    fail();
    return 0;
}

/* The first series of the slice that has sealed chunks: where in the payload its state begins. */
static uint8_t *state_of(uint8_t *payload, size_t len, uint32_t *slot) {
    struct snapshot_slice slice;
    struct snapshot_series series;
    assert_int_equal(snapshot_slice_read(slice_of(payload, len), &slice), STATUS_OK);
    while (snapshot_series_next(&slice, &series) == STATUS_OK)
        if (series.head.len > 0 && load_u64(series.head.data) != 0) {
            *slot = series.slot;
            return payload + (series.head.data - payload);
        }
    fail();
    return NULL;
}

enum change {
    SEALED_ELSEWHERE,
    SEALED_OF_ANOTHER,
    OPEN_TIME,
    OPEN_BITS,
    END_POSITION,
    END_SLOTS,
    TABLE,
    SLICE,
    CHANGES
};

/* Of another series than the first one's. */
static size_t second_record(void) {
    struct file_copy copy = file_keep(head_fixture.chunks);
    size_t offset = 64 + (40u + load_u16(copy.bytes + 64 + 4) + 7u) / 8 * 8;
    assert_true(load_u32(copy.bytes + 64 + 8) != load_u32(copy.bytes + offset + 8));
    file_restore(&copy);
    return offset;
}

static void change_make(struct frames *frames, enum change change, uint64_t *offset, char *what,
                        size_t bytes) {
    size_t at = frame_of(frames, change == END_POSITION || change == END_SLOTS ? SNAPSHOT_FRAME_END
                                 : change == TABLE                             ? SNAPSHOT_FRAME_CHUNKLOG
                                                                               : SNAPSHOT_FRAME_SLICE);
    uint8_t *payload = frames->payloads[at], *state = NULL;
    uint32_t slot = 0;
    if (change < END_POSITION)
        state = state_of(payload, frames->lens[at], &slot);
    *offset = frames->offsets[at];
    switch (change) {
    case SEALED_ELSEWHERE:
        store_u64(state, load_u64(state) + 8);
        snprintf(what, bytes, "the series of slot %u: it refers to a chunk that is not there", slot);
        break;
    case SEALED_OF_ANOTHER:
        store_u64(state, (load_u64(state) & ~((UINT64_C(1) << 40) - 1)) | second_record());
        snprintf(what, bytes, "the series of slot %u: it refers to a chunk that is not there", slot);
        break;
    case OPEN_TIME:
        store_u64(state + 8, load_u64(state + 8) + 1);
        snprintf(what, bytes, "the series of slot %u: its open chunk is none", slot);
        break;
    case OPEN_BITS:
        state[17 + 28]++; /* the count of samples */
        snprintf(what, bytes, "the series of slot %u: its open chunk is none", slot);
        break;
    case END_POSITION:
        store_u64(payload, load_u64(payload) + 4096);
        snprintf(what, bytes, "it is not of the manifest's position");
        break;
    case END_SLOTS:
        store_u32(payload + 32, load_u32(payload + 32) + 1);
        snprintf(what, bytes, "it ends with slot %d of %d", HEAD_SERIES, HEAD_SERIES + 1);
        break;
    case TABLE:
        frames->lens[at]--;
        snprintf(what, bytes, "the table of the chunk log can't be read");
        break;
    case SLICE:
        frames->lens[at]--;
        snprintf(what, bytes, "a slice can't be read");
        break;
    case CHANGES:
        break;
    }
}

static void test_references(void **state) {
    (void)state;
    const char *path = head_fixture.snapshots[0];
    for (enum change change = 0; change < CHANGES; change++) {
        struct file_copy copy = file_keep(path);
        struct frames frames;
        uint64_t offset;
        char what[128];
        frames_read(path, copy.len, &frames);
        change_make(&frames, change, &offset, what, sizeof what);
        frames_write(path, NULL, &frames);
        expect(path, offset, what, change < END_POSITION ? "what the series had before it" : BEFORE);
        file_restore(&copy);
    }
    expect_whole();
}

/* A label that no pair says. */
static void test_label_references(void **state) {
    (void)state;
    struct file_copy copies[2] = {file_keep(head_fixture.labels[0]), file_keep(head_fixture.labels[1])};
    struct frames frames;
    frames_read(head_fixture.labels[0], copies[0].len, &frames);
    struct arena numbers;
    arena_init(&numbers, 0, 0);
    struct slice rest = slice_of(frames.payloads[0], frames.lens[0]);
    struct snapshot_label one;
    uint8_t *before = frames.payloads[0];
    do
        before = frames.payloads[0] + (rest.data - frames.payloads[0]);
    while (snapshot_label_next(&rest, &numbers, &one) == STATUS_OK && one.tag != LABELS_PAIR);
    frames.lens[0] = (size_t)(before - frames.payloads[0]); /* series, and no pairs */
    frames.count = 1;
    arena_release(&numbers);
    frames_write(head_fixture.labels[0], head_fixture.labels[1], &frames);
    assert_int_equal(verify(), 1);
    assert_true(lines_with("has a label that is not there") > 0);
    file_restore(&copies[0]);
    file_restore(&copies[1]);
    expect_whole();
}

/* While a server writes, snapshots come and go, and windows are cut. */
static void test_in_use(void **state) {
    (void)state;
    head_fixture.storage.limits.snapshot_samples_max = 60;
    fixture_open_storage(&head_fixture.storage);
    for (int run = 0; run < 60; run++) {
        if (run % 15 == 14)
            head_fixture.storage.now_ms += (int64_t)head_fixture.storage.limits.window_ms;
        expect_whole();
    }
    storage_close(head_fixture.storage.storage);
    head_fixture.storage.storage = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_label_references),
        cmocka_unit_test(test_in_use),
    };
    return cmocka_run_group_tests(tests, head_fixture_setup, head_fixture_teardown);
}
