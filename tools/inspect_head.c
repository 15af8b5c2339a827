/* inspect_head.c: `tidalite inspect head PATH`: what snapshots of the head hold, and how many bytes of what.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "storage/chunklog/chunklog.h"
#include "storage/head/head.h"
#include "storage/manifest/manifest.h"
#include "storage/snapshot/frame_file.h"
#include "storage/snapshot/snapshot_format.h"
#include "storage/snapshot/snapshot_read.h"
#include "tools/inspect.h"

struct inspection {
    struct io *io;
    struct error_detail *detail;
    const char *head; /* the directory */
    int64_t cut_ms;   /* of the manifest: what ends before is in blocks */
    bool damaged;
    const char *path; /* of the file at hand, and its second copy */
    const char *path2;

    uint64_t series, open_chunks, open_samples, late_samples, hidden_spans;
    uint64_t sealed_series, sealed_chunks, sealed_samples, sealed_lost;
    int64_t time_min_ms, time_max_ms;
    uint64_t open_bytes, late_bytes, hidden_bytes, state_bytes, table_bytes, end_bytes, frame_bytes;
};

static void damage_print(void *context, const struct frame_damage *damage) {
    struct inspection *one = context;
    one->damaged = true;
    printf("damage: %s, offset %" PRIu64 ": %s\n", damage->copy == 0 ? one->path : one->path2, damage->offset,
           damage->what);
}

static void time_note(struct inspection *one, int64_t min_ms, int64_t max_ms) {
    if (min_ms < one->time_min_ms)
        one->time_min_ms = min_ms;
    if (max_ms > one->time_max_ms)
        one->time_max_ms = max_ms;
}

static void time_print(const char *name, int64_t min_ms, int64_t max_ms) {
    if (min_ms > max_ms)
        printf("%-10s none\n", name);
    else
        printf("%-10s %" PRId64 " to %" PRId64 " ms\n", name, min_ms, max_ms);
}

/* The sealed chunks that the series refers to, the newest first. */
static void sealed_look(struct inspection *one, struct chunklog *log, uint32_t slot, chunk_ref ref) {
    struct chunklog_chunk chunk;
    int status;
    int64_t before_ms = INT64_MAX;
    one->sealed_series += ref != 0;
    while ((status = chunklog_read(log, ref, slot, one->cut_ms, &chunk)) == STATUS_OK) {
        if (before_ms != INT64_MAX && chunk.time_max_ms >= before_ms) { /* it might never end */
            status = STATUS_CORRUPT;
            break;
        }
        before_ms = chunk.time_min_ms;
        one->sealed_chunks++;
        one->sealed_samples += chunk.info.sample_count;
        time_note(one, chunk.time_min_ms, chunk.time_max_ms);
        ref = chunk.previous;
    }
    one->sealed_lost += status < 0;
}

static int series_look(struct inspection *one, struct chunklog *log, const struct snapshot_series *series) {
    one->series++;
    one->state_bytes += SNAPSHOT_SERIES_HEAD;
    if (series->head.len > 0) {
        struct slice rest = series->head;
        struct head_state state;
        int status = head_state_look(&rest, &state);
        if (status < 0)
            return status;
        one->open_bytes += state.bits.len;
        one->state_bytes += series->head.len - state.bits.len;
        if (!chunk_is_empty(&state.open)) {
            one->open_chunks++;
            one->open_samples += state.open.info.sample_count;
            time_note(one, state.open_first_ms, state.open.time_ms);
        }
        if (log != NULL)
            sealed_look(one, log, series->slot, state.sealed);
    }
    for (uint32_t i = 0; i < series->late_count; i++) {
        int64_t start_ms, time_ms = snapshot_late_at(series, i, &start_ms).time_ms;
        time_note(one, time_ms, time_ms);
    }
    one->late_samples += series->late_count;
    one->late_bytes += series->late_count > 0 ? 4 + (uint64_t)series->late_count * SNAPSHOT_LATE_BYTES : 0;
    one->hidden_spans += series->hidden_count;
    one->hidden_bytes +=
        series->hidden_count > 0 ? 4 + (uint64_t)series->hidden_count * SNAPSHOT_SPAN_BYTES : 0;
    return STATUS_OK;
}

static int slice_look(struct inspection *one, struct chunklog *log, struct slice payload) {
    struct snapshot_slice slice;
    struct snapshot_series series;
    int status = snapshot_slice_read(payload, &slice);
    one->state_bytes += SNAPSHOT_SLICE_HEAD;
    while (status == STATUS_OK && (status = snapshot_series_next(&slice, &series)) == STATUS_OK)
        status = series_look(one, log, &series);
    return status == STATUS_END ? STATUS_OK : status;
}

static int chunk_file_print(void *context, const struct chunklog_file *file) {
    char from[32] = "long ago";
    (void)context;
    if (file->begin_ms != INT64_MIN)
        snprintf(from, sizeof from, "%" PRId64, file->begin_ms);
    printf("  %s, times from %s to %" PRId64 " ms, %" PRIu32 " extents, %" PRIu64 " of %" PRIu64
           " bytes valid\n",
           strrchr(file->path, '/') + 1, from, file->end_ms, file->extents, file->valid_bytes, file->bytes);
    return STATUS_OK;
}

static int chunk_damage_print(void *context, const char *path, uint64_t offset, const char *what) {
    ((struct inspection *)context)->damaged = true;
    printf("damage: %s, offset %" PRIu64 ": %s\n", path, offset, what);
    return STATUS_OK;
}

static int chunklog_print(struct inspection *one, struct slice table, struct chunklog **out) {
    struct chunklog *log;
    int status = chunklog_new(one->io, one->head, 0, &log);
    if (status < 0)
        return status;
    *out = log;
    chunklog_read_only(log);
    one->table_bytes = table.len;
    status = chunklog_restore(log, table, one->cut_ms, one->detail);
    if (status < 0)
        return status;
    printf("chunk log\n");
    status = chunklog_files_each(log, chunk_file_print, one);
    return status < 0 ? status : chunklog_verify(log, chunk_damage_print, one);
}

static int end_print(struct inspection *one, struct slice payload) {
    struct snapshot_end end;
    int status = snapshot_end_read(payload, &end);
    if (status < 0)
        return status;
    one->end_bytes = payload.len;
    printf("position   %016" PRIx64 ", late samples from %016" PRIx64 "\n", end.position, end.late_position);
    if (end.cut_ms == INT64_MIN)
        printf("cut        nothing\n");
    else
        printf("cut        before %" PRId64 " ms\n", end.cut_ms);
    printf("slots      %" PRIu32 ", next series id %" PRIu64 "\n", end.slot_end, end.id_next);
    printf("windows    %" PRIu32 "\n", end.window_count);
    for (uint32_t i = 0; i < end.window_count; i++) {
        int64_t begin_ms;
        uint64_t position;
        snapshot_window_at(&end, i, &begin_ms, &position);
        printf("  from %" PRId64 " ms, logged from %016" PRIx64 "\n", begin_ms, position);
    }
    return STATUS_OK;
}

static void bytes_print(const struct inspection *one) {
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {{"open chunks", one->open_bytes},      {"series", one->state_bytes},
                {"late samples", one->late_bytes},     {"hidden spans", one->hidden_bytes},
                {"chunk log table", one->table_bytes}, {"end", one->end_bytes},
                {"frames", one->frame_bytes}};
    printf("bytes\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        printf("  %-16s %12" PRIu64 "\n", rows[i].name, rows[i].bytes);
}

static int snapshot_print(struct inspection *one, const char *path, uint64_t number, uint64_t bytes) {
    struct frame_reader reader = {.io = one->io};
    struct chunklog *log = NULL;
    struct slice payload, table = {0}, end = {0};
    uint64_t payload_bytes = 0;
    uint32_t kind;
    int status = STATUS_OK;
    one->path = path;
    one->time_min_ms = INT64_MAX;
    one->time_max_ms = INT64_MIN;
    TRY(frame_reader_open(one->io, path, NULL, number, bytes, one->detail, &reader));
    printf("snapshot   %s, %" PRIu64 " bytes\n", path, bytes);
    reader.each = damage_print;
    reader.context = one;
    while ((status = frame_reader_next(&reader, &kind, &payload)) == STATUS_OK) {
        payload_bytes += payload.len;
        if (kind == SNAPSHOT_FRAME_CHUNKLOG)
            table = payload;
        else if (kind == SNAPSHOT_FRAME_END)
            end = payload;
    }
    TRY(status);
    one->frame_bytes = bytes - payload_bytes;
    if (end.len == 0)
        one->damaged = true;
    else
        TRY(end_print(one, end));
    if (table.len > 0)
        TRY(chunklog_print(one, table, &log));
    reader.offset = 0;
    reader.each = NULL;
    while ((status = frame_reader_next(&reader, &kind, &payload)) == STATUS_OK)
        if (kind == SNAPSHOT_FRAME_SLICE)
            TRY(slice_look(one, log, payload));
    TRY(status);
    status = STATUS_OK;
    one->damaged |= one->sealed_lost > 0;
    time_print("time", one->time_min_ms, one->time_max_ms);
    printf("holds      %" PRIu64 " series, %" PRIu64 " open chunks with %" PRIu64 " samples, %" PRIu64
           " late samples, %" PRIu64 " hidden spans\n",
           one->series, one->open_chunks, one->open_samples, one->late_samples, one->hidden_spans);
    printf("refers     %" PRIu64 " series to %" PRIu64 " sealed chunks with %" PRIu64 " samples; %" PRIu64
           " can't be read on\n",
           one->sealed_series, one->sealed_chunks, one->sealed_samples, one->sealed_lost);
    bytes_print(one);
out:
    chunklog_free(log);
    frame_reader_close(&reader);
    return status;
}

static int labels_print(struct inspection *one, uint64_t number, uint64_t bytes) {
    struct frame_reader reader = {.io = one->io};
    struct arena numbers;
    struct slice payload;
    char path[4096], path2[4096];
    uint32_t kind;
    uint64_t counts[LABELS_SLOT_FREE + 1] = {0}, text_bytes = 0;
    int status = STATUS_OK;
    arena_init(&numbers, 0, 0);
    snprintf(path, sizeof path, "%s/%016" PRIx64 ".labels", one->head, number);
    snprintf(path2, sizeof path2, "%s/%016" PRIx64 ".labels2", one->head, number);
    one->path = path;
    one->path2 = path2;
    TRY(frame_reader_open(one->io, path, path2, number, bytes, one->detail, &reader));
    printf("labels     %s, %" PRIu64 " bytes, %s\n", path, bytes,
           reader.file != NULL && reader.file2 != NULL ? "twice" : "damage: one of two copies is missing");
    one->damaged |= reader.file == NULL || reader.file2 == NULL;
    reader.each = damage_print;
    reader.context = one;
    while ((status = frame_reader_next(&reader, &kind, &payload)) == STATUS_OK) {
        struct snapshot_label label;
        arena_reset(&numbers);
        while ((status = snapshot_label_next(&payload, &numbers, &label)) == STATUS_OK) {
            counts[label.tag]++;
            text_bytes += label.label.len;
        }
        TRY(status);
    }
    TRY(status);
    status = STATUS_OK;
    printf("  %" PRIu64 " times a series named, %" PRIu64 " a slot freed; %" PRIu64 " label pairs of %" PRIu64
           " bytes, %" PRIu64 " freed\n",
           counts[LABELS_SLOT], counts[LABELS_SLOT_FREE], counts[LABELS_PAIR], text_bytes,
           counts[LABELS_PAIR_FREE]);
out:
    frame_reader_close(&reader);
    arena_release(&numbers);
    return status;
}

/* One of those that the manifest names. */
static int named_print(struct inspection *one, const struct manifest_snapshot *snapshot) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%016" PRIx64 ".snapshot", one->head, snapshot->number);
    int status = snapshot_print(one, path, snapshot->number, snapshot->bytes);
    return status == STATUS_OK ? labels_print(one, snapshot->labels_number, snapshot->labels_bytes) : status;
}

static int all_print(struct inspection *one, const struct manifest *manifest) {
    struct inspection empty = *one;
    int first_error = STATUS_OK;
    if (manifest->snapshot_count == 0)
        printf("no snapshot yet\n");
    for (size_t i = 0; i < manifest->snapshot_count; i++) {
        struct inspection each = empty;
        int status = named_print(&each, &manifest->snapshots[i]);
        one->damaged |= each.damaged;
        if (first_error == STATUS_OK)
            first_error = status;
        printf("\n");
    }
    return first_error;
}

static int file_print(struct inspection *one, const char *path, uint64_t number,
                      const struct manifest *manifest) {
    struct io_file *file;
    uint64_t bytes;
    for (size_t i = 0; i < manifest->snapshot_count; i++)
        if (manifest->snapshots[i].number == number)
            return named_print(one, &manifest->snapshots[i]);
    int status = io_file_open(one->io, path, IO_OPEN_READ, one->detail, &file);
    if (status < 0)
        return status;
    status = io_file_size(one->io, file, &bytes);
    io_file_close(one->io, file);
    if (status < 0)
        return status;
    printf("no manifest names it: it counts for nothing\n");
    return snapshot_print(one, path, number, bytes);
}

int inspect__head(struct io *io, const char *path) {
    char head[4000], dir[4000];
    struct error_detail detail = {{0}};
    struct manifest manifest;
    const char *name = strrchr(path, '/');
    char *end = NULL;
    name = name == NULL ? path : name + 1;
    uint64_t number = strtoull(name, &end, 16);
    bool is_file = end == name + 16 && strcmp(end, ".snapshot") == 0;
    struct inspection one = {.io = io, .detail = &detail, .head = head, .cut_ms = INT64_MIN};
    if (strlen(path) > sizeof head - 32) {
        fprintf(stderr, "tidalite: %s: the path is too long\n", path);
        return EXIT_FAILURE;
    }
    if (is_file) {
        snprintf(head, sizeof head, "%.*s", name == path ? 1 : (int)(name - path - 1),
                 name == path ? "." : path);
        snprintf(dir, sizeof dir, "%.3990s/..", head);
    } else {
        snprintf(head, sizeof head, "%s/head", path);
        snprintf(dir, sizeof dir, "%s", path);
    }
    manifest_init(&manifest);
    int status = manifest_load(io, dir, &detail, &manifest);
    if (status < 0 && is_file) { /* it says much by itself */
        detail.text[0] = '\0';
        status = STATUS_OK;
    }
    one.cut_ms = manifest.cut_ms;
    if (status == STATUS_OK)
        status = is_file ? file_print(&one, path, number, &manifest) : all_print(&one, &manifest);
    else if (status == STATUS_NOT_FOUND)
        error_set(&detail, status, "%s/manifest is missing", dir);
    manifest_release(&manifest);
    if (status < 0)
        fprintf(stderr, "tidalite: %s\n", detail.text[0] != '\0' ? detail.text : status_message(status));
    return status < 0 || one.damaged || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
