/* inspect_wal.c: `tidalite inspect wal PATH`: what stands in a log, record by record. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/label.h"
#include "storage/tombstone/tombstone.h"
#include "storage/wal/wal.h"
#include "storage/wal/wal_record.h"
#include "tools/inspect.h"

#define EXIT_OK      0
#define EXIT_DAMAGED 1
#define EXIT_UNKNOWN 1

static int on_segment(void *context, uint32_t number) {
    (void)context;
    printf("segment %08x\n", number);
    return STATUS_OK;
}

static int series_print(struct slice payload) {
    struct wal_series_reader reader;
    struct buf text;
    buf_init(&text);
    int status = wal_series_reader_init(&reader, payload);
    while (status == STATUS_OK) {
        uint32_t slot;
        uint64_t id;
        struct slice labels;
        status = wal_series_reader_next(&reader, &slot, &id, &labels);
        if (status != STATUS_OK)
            break;
        buf_clear(&text);
        label_bytes_print(&text, labels);
        printf("    slot %u, id %llu: %.*s\n", slot, (unsigned long long)id, (int)text.len,
               (const char *)text.data);
    }
    buf_release(&text);
    return status;
}

static int samples_print(struct slice payload) {
    struct wal_samples_reader reader;
    uint64_t count = 0;
    int64_t min_ms = INT64_MAX, max_ms = INT64_MIN;
    int status = wal_samples_reader_init(&reader, payload);
    while (status == STATUS_OK) {
        uint32_t slot;
        struct sample sample;
        int64_t start_ms;
        status = wal_samples_reader_next(&reader, &slot, &sample, &start_ms);
        if (status != STATUS_OK)
            break;
        count++;
        if (sample.time_ms < min_ms)
            min_ms = sample.time_ms;
        if (sample.time_ms > max_ms)
            max_ms = sample.time_ms;
    }
    printf("    %llu samples, times %lld to %lld ms\n", (unsigned long long)count, (long long)min_ms,
           (long long)max_ms);
    return status;
}

/* Patterns are shown as text; nobody matches with them here. */
static int pattern_none(struct slice text, const struct matcher_pattern **out) {
    (void)text;
    *out = NULL;
    return STATUS_OK;
}

static void pattern_free(const struct matcher_pattern *pattern) {
    (void)pattern;
}

static int delete_print(struct slice payload) {
    static const struct matcher_compiler compiler = {pattern_none, pattern_free};
    static const char *const operators[] = {"=", "!=", "=~", "!~"};
    struct tombstone *tombstone;
    int status = tombstone_new(payload, 0, &compiler, &tombstone);
    if (status < 0)
        return status;
    printf("    times %lld to %lld ms of\n", (long long)tombstone->span.min_ms,
           (long long)tombstone->span.max_ms);
    for (size_t i = 0; i < tombstone->selector_count; i++) {
        printf("    {");
        for (size_t j = 0; j < tombstone->selectors[i].count; j++) {
            const struct matcher *matcher = &tombstone->selectors[i].matchers[j];
            printf("%s%.*s%s\"%.*s\"", j > 0 ? "," : "", SLICE_ARGS(matcher->name), operators[matcher->kind],
                   SLICE_ARGS(matcher->value));
        }
        printf("}\n");
    }
    tombstone_unref(tombstone);
    return STATUS_END;
}

static int on_record(void *context, wal_position position, bool proven, enum wal_record_type type,
                     struct slice payload) {
    static const char *const names[] = {"", "series", "samples", "delete"};
    bool *damaged = context;
    printf("  group at %u, %s, %zu bytes%s\n", (unsigned)(position & UINT32_MAX), names[type], payload.len,
           proven ? "" : " (nothing proves that it was synced)");
    int status = type == WAL_RECORD_SERIES    ? series_print(payload)
                 : type == WAL_RECORD_SAMPLES ? samples_print(payload)
                                              : delete_print(payload);
    if (status == STATUS_CORRUPT) {
        printf("    damage: the record can't be read\n");
        *damaged = true;
    }
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

static void on_damage(void *context, uint32_t segment, uint64_t offset, uint64_t frames, const char *what) {
    *(bool *)context = true;
    printf("  damage: segment %08x, offset %llu, %llu frames: %s\n", segment, (unsigned long long)offset,
           (unsigned long long)frames, what);
}

int inspect__wal(const char *path) {
    char inner[4096];
    bool damaged = false;
    struct io *io;
    struct wal *wal = NULL;
    struct error_detail detail = {{0}};
    struct wal_replay_stats stats = {0};
    /* A data directory has the log in "wal". */
    if ((size_t)snprintf(inner, sizeof inner, "%s/wal", path) < sizeof inner && access(inner, F_OK) == 0)
        path = inner;
    int status = io_open(IO_BACKEND_SYSCALL, &detail, &io);
    if (status < 0) {
        fprintf(stderr, "tidalite: %s\n", detail.text);
        return EXIT_UNKNOWN;
    }
    const struct wal_options options = {
        .io = io, .dir = path, .segment_bytes = (uint64_t)1 << 20, .read_only = true};
    const struct wal_sink sink = {on_segment, on_record, &damaged, on_damage};
    status = wal_open(&options, &detail, &wal);
    if (status == STATUS_OK)
        status = wal_replay(wal, 0, &sink, &detail, &stats);
    wal_close(wal);
    io_close(io);
    if (status < 0) {
        fprintf(stderr, "tidalite: %s\n", detail.text[0] != '\0' ? detail.text : status_message(status));
        return EXIT_UNKNOWN;
    }
    printf("%llu segments, %llu groups, %llu records, %llu bytes; %llu bytes of a torn tail, %llu damaged "
           "frames\n",
           (unsigned long long)stats.segments, (unsigned long long)stats.groups,
           (unsigned long long)stats.records, (unsigned long long)stats.bytes,
           (unsigned long long)stats.torn_bytes, (unsigned long long)stats.corrupt_frames);
    return damaged || stats.corrupt_frames > 0 ? EXIT_DAMAGED : EXIT_OK;
}
