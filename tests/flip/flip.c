/* flip.c: what becomes of a database when one byte of it, or one file, is not what was written.
 *
 * Each byte of each file is changed once, all of its bits or one of them in turn, and a storage opened on
 * that: nothing that it answers may be wrong, and if anything is missing the damage must have been reported.
 * Every few of them something is written, maintenance runs, and a second start follows: damage must not be
 * made worse, what was deleted not come back, and what was written be there. In long runs of zeros every 61st
 * byte is taken.
 *
 *     flip [--every N] [--only PART-OF-A-PATH] [--at OFFSET] */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/io/io_sim.h"
#include "tests/flip/database.h"

#define FILES_MAX     256
#define FAILURES_MAX  20
#define MAINTAIN_EACH 16 /* of the changes */
#define ZEROS_RUN     64
#define ZEROS_STEP    61

static struct database db;
static struct {
    char path[256];
    uint8_t *bytes;
    size_t len;
} files[FILES_MAX];
static size_t file_count;
static struct {
    const char *path;
    size_t offset;
    const char *what;
    bool block; /* all of a block is gone */
} now;          /* for who ends the program */
static unsigned failures;
static uint64_t changes, lost, silent;

static void tell(const char *what, const char *text) {
    fprintf(stderr, "FAILED: %s, offset %zu, %s: %s%s%s\n", now.path, now.offset, now.what, what,
            text[0] != '\0' ? ": " : "", text);
    failures++;
}

static void on_signal(int number) {
    tell(number == SIGABRT ? "the program aborts" : "the program crashes", "");
    _exit(1);
}

/* ---- the disk ---- */

static int file_add(void *context, const char *name);

static void files_find(const char *dir) {
    assert_int_equal(io_list_dir(db.f.io, dir, file_add, (void *)(uintptr_t)dir), STATUS_OK);
}

static int file_add(void *context, const char *name) {
    char path[256];
    struct io_file *file;
    uint64_t bytes;
    size_t got;
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    if (io_file_open(db.f.io, path, IO_OPEN_READ, NULL, &file) != STATUS_OK) {
        files_find(path);
        return STATUS_OK;
    }
    assert_int_equal(io_file_size(db.f.io, file, &bytes), STATUS_OK);
    assert_true(file_count < FILES_MAX);
    files[file_count].len = (size_t)bytes;
    files[file_count].bytes = mem_alloc((size_t)bytes + 1);
    assert_int_equal(io_read(db.f.io, file, 0, files[file_count].bytes, (size_t)bytes, &got), STATUS_OK);
    memcpy(files[file_count++].path, path, sizeof path);
    io_file_close(db.f.io, file);
    return STATUS_OK;
}

static void file_put(struct io *io, const char *path, unsigned flags, size_t offset, const uint8_t *bytes,
                     size_t len) {
    struct io_file *file;
    assert_int_equal(io_file_open(io, path, IO_OPEN_WRITE | flags, NULL, &file), STATUS_OK);
    assert_int_equal(io_write(io, file, offset, bytes, len), STATUS_OK);
    assert_int_equal(io_sync(io, file), STATUS_OK);
    io_file_close(io, file);
}

/* ---- one change ---- */

static uint64_t damage_reported(void) {
    return metric_get(METRIC_wal_replay_corrupt_frames) + metric_get(METRIC_wal_replay_torn) +
           metric_get(METRIC_blocks_damaged) + metric_get(METRIC_block_damage) +
           metric_get(METRIC_snapshot_damage) + metric_get(METRIC_chunklog_damage);
}

static struct storage *open_on(struct io *io, struct error_detail *detail) {
    struct storage *storage = NULL;
    const struct storage_options options = {
        .dir = DATABASE_DIR, .io = io, .clock = &fixture_clock, .limits = &db.f.limits, .seed = 42};
    int status = storage_open(&options, detail, &storage);
    return status == STATUS_OK ? storage : NULL;
}

static void maintain(struct storage *storage) {
    for (int idle = 0; idle < 3;) {
        bool worked = storage_maintain(storage, db.f.now_ms);
        worked |= storage_step(storage, db.f.now_ms);
        idle = worked ? 0 : idle + 1;
    }
}

static bool has_end(const char *text, const char *end) {
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* Chunks and the log stand once. All else can be made anew of the rest, or stands twice. */
static bool stands_once(void) {
    return has_end(now.path, "chunks") || has_end(now.path, ".log") || now.block;
}

static uint64_t look(struct storage *storage, const char *when, uint64_t written) {
    struct verdict verdict;
    database_check(&db, storage, &verdict);
    /* A delete that only the log had, lost with its frame, hides nothing; that is told. */
    bool log_damaged = metric_get(METRIC_wal_replay_corrupt_frames) + metric_get(METRIC_wal_replay_torn) > 0;
    if (verdict.deleted > 0 && !(log_damaged && strstr(now.path, "/wal/") != NULL)) {
        char text[400];
        snprintf(text, sizeof text, "%" PRIu64 " deleted samples are back", verdict.deleted);
        tell(when, text);
    }
    if (verdict.wrong > 0) {
        char text[400];
        snprintf(text, sizeof text, "%s (%" PRIu64 " in all)", verdict.text, verdict.wrong);
        tell(when, text);
    }
    if (verdict.written != written) {
        char text[100];
        snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64, verdict.written, written);
        tell("what was written since is not there", text);
    }
    if (verdict.found < db.visible && damage_reported() + verdict.damaged == 0) {
        char text[100];
        snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64, db.visible - verdict.found, db.visible);
        tell("samples are missing and nothing is reported", text);
    }
    if (verdict.found < db.visible && !stands_once())
        tell(when, "samples are missing that are elsewhere too");
    return verdict.found;
}

/* `io` is a copy of the disk with the change made. May the storage refuse to open? */
static void try_open_on(struct io *io, bool with_maintenance, bool may_refuse) {
    struct error_detail detail = {{0}};
    metrics_reset();
    struct storage *storage = open_on(io, &detail);
    changes++;
    if (storage == NULL) {
        if (!may_refuse || detail.text[0] == '\0')
            tell("it does not open", detail.text);
        return;
    }
    uint64_t found = look(storage, "wrong after a start", 0);
    lost += found < db.visible;
    silent += found == db.visible && damage_reported() == 0;
    if (with_maintenance) {
        db.f.storage = storage;
        database_write(&db);
        maintain(storage);
        if (look(storage, "wrong after maintenance", DATABASE_WRITTEN) < found)
            tell("maintenance loses samples", "");
        storage_close(storage);
        storage = open_on(io, &detail);
        if (storage == NULL)
            tell("it does not open again", detail.text);
        else if (look(storage, "wrong after a second start", DATABASE_WRITTEN) < found)
            tell("a second start loses samples", "");
    }
    storage_close(storage);
}

static void try_open(struct io *io, bool with_maintenance, bool may_refuse) {
    try_open_on(io, with_maintenance, may_refuse);
    io_close(io);
}

static struct io *disk_copy(void) {
    struct io *io;
    assert_int_equal(io_sim_copy(db.f.io, changes + 1, &io), STATUS_OK);
    return io;
}

/* ---- bytes ---- */

static bool in_zeros(const uint8_t *bytes, size_t len, size_t at) {
    size_t from = at < ZEROS_RUN ? 0 : at - ZEROS_RUN, to = at + ZEROS_RUN > len ? len : at + ZEROS_RUN;
    for (size_t i = from; i < to; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static void bytes_change(size_t index, size_t every, size_t only_at) {
    for (size_t at = 0; at < files[index].len && failures < FAILURES_MAX; at++) {
        if (only_at != SIZE_MAX ? at != only_at : at % every != 0)
            continue;
        if (only_at == SIZE_MAX && at / every % ZEROS_STEP != 0 &&
            in_zeros(files[index].bytes, files[index].len, at))
            continue;
        uint8_t mask = (uint8_t)(changes % 2 == 0 ? 0xffu : 1u << changes / 2 % 8);
        uint8_t byte = files[index].bytes[at] ^ mask;
        struct io *io = disk_copy();
        now.offset = at;
        file_put(io, files[index].path, 0, at, &byte, 1);
        try_open(io, changes % MAINTAIN_EACH == 0 || only_at != SIZE_MAX, false);
    }
}

/* ---- files ---- */

static void file_change(size_t index) {
    static const char *const whats[] = {"cut to half", "cut to nothing", "removed"};
    bool manifest = strcmp(files[index].path, DATABASE_DIR "/manifest") == 0;
    now.offset = 0;
    for (int i = 0; i < 3; i++) {
        struct io *io = disk_copy();
        now.what = whats[i];
        if (i == 2)
            assert_int_equal(io_remove(io, files[index].path), STATUS_OK);
        else
            file_put(io, files[index].path, IO_OPEN_TRUNCATE, 0, files[index].bytes,
                     i == 0 ? files[index].len / 2 : 0);
        try_open(io, true, manifest);
    }
    now.what = "changed";
}

/* ---- formats of a later version ---- */

#define LATER 7

/* Head of `head` bytes whose CRC-32C stands at `at` and is of what is before it. */
static void head_change(uint8_t *bytes, size_t at) {
    store_u32(bytes + 8, LATER);
    store_u32(bytes + at, crc32c(0, bytes, at));
}

/* Makes the bytes ones of a later version, all checksums right; false: the file has none. */
static bool later_make(const char *path, uint8_t *bytes, size_t len) {
    if (has_end(path, "/manifest")) {
        for (size_t copy = 0; copy < len; copy += len / 2) {
            uint8_t *p = bytes + copy;
            store_u32(p + 8, LATER);
            store_u32(p + 12, crc32c(crc32c(0, p, 12), p + 16, 16 + (size_t)load_u64(p + 16)));
        }
    } else if (has_end(path, ".log")) {
        head_change(bytes, 4092);
        head_change(bytes + 4096, 4092);
    } else if (has_end(path, "/chunks") || has_end(path, ".chunks")) {
        head_change(bytes, 60);
    } else if (has_end(path, "/index.sum")) {
        store_u32(bytes + 8, LATER);
        store_u32(bytes + 32, crc32c(crc32c(0, bytes, 32), bytes + 40, len - 40));
    } else if (has_end(path, "/meta.json")) {
        static const char begin[] = "{\n  \"format\": ";
        char *line = strstr((char *)bytes, "  \"crc32c\": \"");
        for (char *next; line != NULL && (next = strstr(line + 1, "  \"crc32c\": \"")) != NULL;)
            line = next;
        assert_non_null(line);
        assert_memory_equal(bytes, begin, strlen(begin));
        bytes[strlen(begin)] = '0' + LATER;
        char crc[16];
        snprintf(crc, sizeof crc, "%08" PRIx32, crc32c(0, bytes, (size_t)((uint8_t *)line - bytes)));
        memcpy(line + strlen("  \"crc32c\": \""), crc, 8);
    } else {
        return false;
    }
    return true;
}

/* Is every file as it was, but for the one? */
static void whole_check(struct io *io, size_t but) {
    for (size_t i = 0; i < file_count; i++) {
        struct io_file *file;
        size_t got = 0;
        uint8_t *bytes = mem_alloc(files[i].len + 1);
        if (io_file_open(io, files[i].path, IO_OPEN_READ, NULL, &file) != STATUS_OK) {
            tell("a file is gone", files[i].path);
        } else {
            assert_int_equal(io_read(io, file, 0, bytes, files[i].len + 1, &got), STATUS_OK);
            io_file_close(io, file);
            if (got != files[i].len || (i != but && memcmp(bytes, files[i].bytes, got) != 0))
                tell("a file is not what it was", files[i].path);
        }
        mem_free(bytes);
    }
}

static void format_change(size_t index) {
    uint8_t *bytes = mem_alloc(files[index].len + 1);
    struct error_detail detail = {{0}};
    memcpy(bytes, files[index].bytes, files[index].len);
    bytes[files[index].len] = '\0';
    now.offset = 0;
    now.what = "of a later version";
    if (later_make(files[index].path, bytes, files[index].len)) {
        struct io *io = disk_copy();
        file_put(io, files[index].path, 0, 0, bytes, files[index].len);
        struct storage *storage = open_on(io, &detail);
        changes++;
        if (storage != NULL)
            tell("it opens all the same", "");
        else if (strstr(detail.text, files[index].path) == NULL || strstr(detail.text, "format 7") == NULL)
            tell("not what the error should say", detail.text);
        storage_close(storage);
        whole_check(io, index);
        io_close(io);
    }
    mem_free(bytes);
    now.what = "changed";
}

/* ---- directories ---- */

/* A block's directory with something else in it, or in its place; or none. */
static void block_change(size_t index) {
    static const char *const whats[] = {"no block in its directory", "a file in its directory's place",
                                        "its directory is removed"};
    char dir[256], path[300];
    if (!has_end(files[index].path, "/meta.json"))
        return;
    snprintf(dir, sizeof dir, "%.*s", (int)(strlen(files[index].path) - strlen("/meta.json")),
             files[index].path);
    for (int i = 0; i < 3; i++) {
        struct io *io = disk_copy();
        struct io_file *file;
        now.what = whats[i];
        now.block = true;
        for (size_t j = 0; j < file_count; j++)
            if (strncmp(files[j].path, dir, strlen(dir)) == 0)
                assert_int_equal(io_remove(io, files[j].path), STATUS_OK);
        snprintf(path, sizeof path, i == 0 ? "%s/else" : "%s", dir);
        if (i > 0)
            assert_int_equal(io_remove_dir(io, dir), STATUS_OK);
        if (i < 2)
            file_put(io, path, IO_OPEN_CREATE, 0, (const uint8_t *)"no block", 8);
        try_open_on(io, true, false);
        if (i < 2 && io_file_open(io, path, IO_OPEN_READ, NULL, &file) == STATUS_OK)
            io_file_close(io, file);
        else if (i < 2)
            tell("what was in a block's place is gone", path);
        io_close(io);
    }
    now.block = false;
    now.what = "changed";
}

static size_t number_parse(const char *text) {
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    if (*end != '\0' || end == text)
        exit(2);
    return (size_t)number;
}

int main(int argc, char **argv) {
    size_t every = 1, at = SIZE_MAX;
    const char *only = "";
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--every") == 0)
            every = number_parse(argv[i + 1]);
        else if (strcmp(argv[i], "--at") == 0)
            at = number_parse(argv[i + 1]);
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
    }
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, at != SIZE_MAX ? 2 : -1);
    database_make(&db);
    files_find(DATABASE_DIR);
    signal(SIGABRT, on_signal);
    now.path = "nothing";
    now.what = "changed";
    try_open(disk_copy(), true, false);
    if (silent != 1)
        tell("something is missing, or damage reported, of what is whole", "");
    for (size_t i = 0; i < file_count && failures < FAILURES_MAX; i++) {
        if (strstr(files[i].path, only) == NULL)
            continue;
        uint64_t before = changes, lost_before = lost, silent_before = silent;
        now.path = files[i].path;
        if (at == SIZE_MAX) {
            file_change(i);
            format_change(i);
            block_change(i);
        }
        bytes_change(i, every, at);
        printf("%-44s %8zu bytes, %6" PRIu64 " changes: %6" PRIu64 " cost samples, %6" PRIu64 " nothing\n",
               files[i].path, files[i].len, changes - before, lost - lost_before, silent - silent_before);
        fflush(stdout);
    }
    for (size_t i = 0; i < file_count; i++)
        mem_free(files[i].bytes);
    database_release(&db);
    printf("%" PRIu64 " changes, %u failures\n", changes, failures);
    return failures > 0;
}
