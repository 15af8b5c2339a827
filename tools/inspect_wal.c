/* inspect_wal.c: `tidalite inspect wal PATH`: what stands in a log, record by record. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/label.h"
#include "tools/inspect.h"
#include "tools/log_read.h"

struct inspection {
    bool damaged;
    uint64_t samples; /* of the record at hand */
    int64_t min_ms, max_ms;
};

static int on_segment(void *context, uint32_t number) {
    (void)context;
    printf("segment %08" PRIx32 "\n", number);
    return STATUS_OK;
}

static int on_record(void *context, wal_position position, bool proven, enum wal_record_type type,
                     size_t bytes) {
    static const char *const names[] = {"", "series", "samples", "delete"};
    struct inspection *inspection = context;
    inspection->samples = 0;
    inspection->min_ms = INT64_MAX;
    inspection->max_ms = INT64_MIN;
    printf("  group at %u, %s, %zu bytes%s\n", (unsigned)(position & UINT32_MAX), names[type], bytes,
           proven ? "" : " (nothing proves that it was synced)");
    return STATUS_OK;
}

static int on_series(void *context, uint32_t slot, uint64_t id, struct slice labels) {
    struct buf text;
    (void)context;
    buf_init(&text);
    label_bytes_print(&text, labels);
    printf("    slot %" PRIu32 ", id %" PRIu64 ": %.*s\n", slot, id, (int)text.len, (const char *)text.data);
    buf_release(&text);
    return STATUS_OK;
}

static int on_sample(void *context, uint32_t slot, struct sample sample) {
    struct inspection *inspection = context;
    (void)slot;
    inspection->samples++;
    if (sample.time_ms < inspection->min_ms)
        inspection->min_ms = sample.time_ms;
    if (sample.time_ms > inspection->max_ms)
        inspection->max_ms = sample.time_ms;
    return STATUS_OK;
}

static int on_tombstone(void *context, const struct tombstone *tombstone) {
    static const char *const operators[] = {"=", "!=", "=~", "!~"};
    (void)context;
    printf("    times %" PRId64 " to %" PRId64 " ms of\n", tombstone->span.min_ms, tombstone->span.max_ms);
    for (size_t i = 0; i < tombstone->selector_count; i++) {
        printf("    {");
        for (size_t j = 0; j < tombstone->selectors[i].count; j++) {
            const struct matcher *matcher = &tombstone->selectors[i].matchers[j];
            printf("%s%.*s%s\"%.*s\"", j > 0 ? "," : "", SLICE_ARGS(matcher->name), operators[matcher->kind],
                   SLICE_ARGS(matcher->value));
        }
        printf("}\n");
    }
    return STATUS_OK;
}

static int on_record_end(void *context, enum wal_record_type type) {
    const struct inspection *inspection = context;
    if (type == WAL_RECORD_SAMPLES)
        printf("    %" PRIu64 " samples, times %" PRId64 " to %" PRId64 " ms\n", inspection->samples,
               inspection->min_ms, inspection->max_ms);
    return STATUS_OK;
}

static void on_damage(void *context, uint32_t segment, uint64_t offset, uint64_t frames, const char *what) {
    ((struct inspection *)context)->damaged = true;
    printf("  damage: segment %08" PRIx32 ", offset %" PRIu64 ", %" PRIu64 " frames: %s\n", segment, offset,
           frames, what);
}

int inspect__wal(struct io *io, const char *path) {
    char inner[4096];
    struct error_detail detail = {{0}};
    struct wal_replay_stats stats = {0};
    struct inspection inspection = {0};
    const struct log_sink sink = {on_segment,   on_record,     on_series, on_sample,
                                  on_tombstone, on_record_end, on_damage, &inspection};
    /* A data directory has the log in "wal". */
    if ((size_t)snprintf(inner, sizeof inner, "%s/wal", path) < sizeof inner && access(inner, F_OK) == 0)
        path = inner;
    int status = log_read(io, path, 0, &sink, &detail, &stats);
    if (status < 0) {
        fprintf(stderr, "tidalite: %s\n", detail.text[0] != '\0' ? detail.text : status_message(status));
        return EXIT_FAILURE;
    }
    printf("%" PRIu64 " segments, %" PRIu64 " groups, %" PRIu64 " records, %" PRIu64 " bytes; %" PRIu64
           " bytes of a torn tail, %" PRIu64 " damaged frames\n",
           stats.segments, stats.groups, stats.records, stats.bytes, stats.torn_bytes, stats.corrupt_frames);
    return inspection.damaged || stats.corrupt_frames > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
