/* verify_head.c: what the manifest names in head/: snapshots, both copies of their labels, the chunk log's
 * files as far as a snapshot says that they count, and what refers to what.
 *
 * In a directory in use any of them may be replaced while it is read. So what is found is kept until it is
 * known whether a manifest still names it; if not, all is looked at again. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "storage/chunklog/chunklog.h"
#include "storage/head/head.h"
#include "storage/snapshot/frame_file.h"
#include "storage/snapshot/snapshot_format.h"
#include "storage/snapshot/snapshot_read.h"
#include "tools/verify.h"

#define TRIES        8
#define FOUND_MAX    1000 /* told one by one */
#define SEGMENT_NONE UINT32_MAX

enum found_kind { FOUND_SNAPSHOT, FOUND_LABELS, FOUND_CHUNKS, FOUND_REFERENCE, FOUND_LOG, FOUND_HARMLESS };

struct found {
    char file[4096];
    uint64_t offset;
    char what[160];
    enum found_kind kind;
    uint64_t number; /* of the snapshot or label part that it counts for; 0: a file of chunks */
    int64_t end_ms;  /* of such a file */
    bool lost;       /* of FOUND_LABELS: no copy has it */
};

struct chunk_file {
    uint32_t number;
    int64_t end_ms;
};

struct head_check {
    struct verify *verify;
    struct error_detail *detail;
    struct manifest manifest; /* of now */
    uint32_t log_begin;       /* the first segment before `manifest` was read */
    struct found *found;
    size_t found_count, found_capacity;
    uint64_t found_more;
    bool no_memory;

    /* of the file at hand */
    char path[4096], path2[4096];
    uint64_t number;
    bool chunks_damaged;
    uint64_t series_hurt; /* by damage of chunk-log files that is told already */
    struct chunk_file *chunk_files;
    size_t chunk_file_count, chunk_file_capacity;
};

static void found_add(struct head_check *check, enum found_kind kind, const char *file, uint64_t offset,
                      bool lost, const char *format, ...) __attribute__((format(printf, 6, 7)));

static void found_add(struct head_check *check, enum found_kind kind, const char *file, uint64_t offset,
                      bool lost, const char *format, ...) {
    struct found one = {.offset = offset, .kind = kind, .number = check->number, .lost = lost};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(one.what, sizeof one.what, format, arguments);
    va_end(arguments);
    snprintf(one.file, sizeof one.file, "%s", file);
    for (size_t i = 0; i < check->found_count; i++) /* both snapshots may name a file of chunks */
        if (check->found[i].offset == offset && strcmp(check->found[i].what, one.what) == 0 &&
            strcmp(check->found[i].file, file) == 0)
            return;
    if (check->found_count == FOUND_MAX) {
        check->found_more++;
        return;
    }
    struct found *found =
        array_ensure(check->found, &check->found_capacity, check->found_count + 1, sizeof *found);
    if (found == NULL) {
        check->no_memory = true;
        return;
    }
    check->found = found;
    check->found[check->found_count++] = one;
}

/* ---- labels ---- */

static void labels_frame(void *context, const struct frame_damage *damage) {
    struct head_check *check = context;
    found_add(check, damage->harmless ? FOUND_HARMLESS : FOUND_LABELS,
              damage->copy == 0 ? check->path : check->path2, damage->offset, damage->lost, "%s",
              damage->what);
}

struct named {
    uint8_t *pairs; /* by pair number: has it a label? */
    size_t pair_capacity;
    struct snapshot_label *series; /* by slot; pair_count 0: free */
    size_t series_capacity;
};

static int labels_frame_check(struct named *named, struct arena *numbers, struct slice payload) {
    struct snapshot_label one;
    int status;
    while ((status = snapshot_label_next(&payload, numbers, &one)) == STATUS_OK) {
        if (one.tag == LABELS_PAIR || one.tag == LABELS_PAIR_FREE) {
            uint8_t *pairs =
                array_ensure_zero(named->pairs, &named->pair_capacity, (size_t)one.number + 1, sizeof *pairs);
            if (pairs == NULL)
                return STATUS_NO_MEMORY;
            named->pairs = pairs;
            pairs[one.number] = one.label.len > 0;
        } else {
            struct snapshot_label *series = array_ensure_zero(named->series, &named->series_capacity,
                                                              (size_t)one.number + 1, sizeof *series);
            if (series == NULL)
                return STATUS_NO_MEMORY;
            named->series = series;
            series[one.number] = one;
        }
    }
    return status == STATUS_END ? STATUS_OK : status;
}

static void labels_references(struct head_check *check, const struct named *named) {
    for (size_t slot = 0; slot < named->series_capacity; slot++)
        for (uint32_t i = 0; i < named->series[slot].pair_count; i++) {
            uint32_t pair = named->series[slot].pairs[i];
            if (pair >= named->pair_capacity || named->pairs[pair] == 0) {
                found_add(check, FOUND_LABELS, check->path, 0, true,
                          "the series of slot %zu has a label that is not there", slot);
                break;
            }
        }
}

static void labels_paths(const struct verify *verify, const struct manifest_snapshot *snapshot,
                         char path[4096], char path2[4096]) {
    snprintf(path, 4096, "%s/head/%016" PRIx64 ".labels", verify->dir, snapshot->labels_number);
    snprintf(path2, 4096, "%s/head/%016" PRIx64 ".labels2", verify->dir, snapshot->labels_number);
}

static int labels_check(struct head_check *check, const struct manifest_snapshot *snapshot) {
    struct io *io = check->verify->io;
    struct frame_reader reader = {.io = io};
    struct named named = {0};
    struct arena numbers;
    int status = STATUS_OK;
    arena_init(&numbers, 0, 0);
    labels_paths(check->verify, snapshot, check->path, check->path2);
    status = frame_reader_open(io, check->path, check->path2, snapshot->labels_number, snapshot->labels_bytes,
                               check->detail, &reader);
    bool none = status == STATUS_NOT_FOUND;
    if (!none)
        TRY(status);
    if (reader.file == NULL)
        found_add(check, FOUND_LABELS, check->path, 0, none, "it is missing");
    if (reader.file2 == NULL)
        found_add(check, FOUND_LABELS, check->path2, 0, none, "it is missing");
    reader.each = labels_frame;
    reader.context = check;
    while (!none) {
        uint32_t kind;
        struct slice payload;
        TRY(frame_reader_next(&reader, &kind, &payload));
        if (status == STATUS_END)
            break;
        status = kind == SNAPSHOT_FRAME_LABELS ? labels_frame_check(&named, &numbers, payload) : STATUS_OK;
        if (status == STATUS_CORRUPT)
            found_add(check, FOUND_LABELS, check->path, reader.at, true, "a definition in it can't be read");
        else
            TRY(status);
    }
    status = STATUS_OK;
    if (reader.damaged == 0)
        labels_references(check, &named);
out:
    check->detail->text[0] = status < 0 ? check->detail->text[0] : '\0';
    frame_reader_close(&reader);
    arena_release(&numbers);
    mem_free(named.pairs);
    mem_free(named.series);
    return status;
}

static int bit_add(struct buf *bits, uint32_t slot) {
    static const uint8_t zeros[512];
    while (bits->len <= slot / 8 && !bits->failed)
        buf_append(bits, zeros, sizeof zeros);
    if (bits->failed)
        return STATUS_NO_MEMORY;
    bits->data[slot / 8] |= (uint8_t)(1u << slot % 8);
    return STATUS_OK;
}

int verify_labelled(struct verify *verify, struct buf *bits_out, struct error_detail *detail) {
    struct frame_reader reader = {.io = verify->io};
    struct manifest manifest;
    struct arena numbers;
    struct slice payload;
    manifest_init(&manifest);
    char path[4096], path2[4096];
    uint32_t kind;
    int status = manifest_load(verify->io, verify->dir, detail, &manifest);
    arena_init(&numbers, 0, 0);
    if (status < 0 || manifest.snapshot_count == 0)
        goto out; /* told by others */
    labels_paths(verify, &manifest.snapshots[0], path, path2);
    status = frame_reader_open(verify->io, path, path2, manifest.snapshots[0].labels_number,
                               manifest.snapshots[0].labels_bytes, detail, &reader);
    while (status == STATUS_OK && (status = frame_reader_next(&reader, &kind, &payload)) == STATUS_OK) {
        struct snapshot_label one;
        while ((status = snapshot_label_next(&payload, &numbers, &one)) == STATUS_OK)
            if (one.tag == LABELS_SLOT)
                TRY(bit_add(bits_out, one.number));
        if (status != STATUS_NO_MEMORY)
            status = STATUS_OK;
        arena_reset(&numbers);
    }
out:
    if (status != STATUS_NO_MEMORY)
        status = STATUS_OK;
    detail->text[0] = '\0';
    frame_reader_close(&reader);
    arena_release(&numbers);
    manifest_release(&manifest);
    return status;
}

/* ---- snapshots ---- */

static void snapshot_frame(void *context, const struct frame_damage *damage) {
    struct head_check *check = context;
    found_add(check, damage->harmless ? FOUND_HARMLESS : FOUND_SNAPSHOT, check->path, damage->offset, true,
              "%s", damage->what);
}

static int chunk_file_note(void *context, const struct chunklog_file *file) {
    struct head_check *check = context;
    struct chunk_file *files = array_ensure(check->chunk_files, &check->chunk_file_capacity,
                                            check->chunk_file_count + 1, sizeof *files);
    if (files == NULL)
        return STATUS_NO_MEMORY;
    check->chunk_files = files;
    files[check->chunk_file_count++] = (struct chunk_file){file->number, file->end_ms};
    return STATUS_OK;
}

static int chunks_damage(void *context, const char *path, uint64_t offset, const char *what) {
    struct head_check *check = context;
    bool header = strncmp(what, "header", 6) == 0;
    uint64_t of_snapshot = check->number, number = strtoull(strrchr(path, '/') + 1, NULL, 16);
    size_t count = check->found_count;
    check->chunks_damaged |= !header;
    check->number = 0;
    found_add(check, header ? FOUND_HARMLESS : FOUND_CHUNKS, path, offset, true, "%s", what);
    check->number = of_snapshot;
    for (size_t i = 0; i < check->chunk_file_count && check->found_count > count; i++)
        if (check->chunk_files[i].number == number)
            check->found[count].end_ms = check->chunk_files[i].end_ms;
    return STATUS_OK;
}

static int chunk_is_whole(struct slice bits, struct chunk_info info, int64_t first_ms, int64_t last_ms,
                          struct sample_columns *columns) {
    columns->count = 0;
    int status = chunk_decode(bits, info, INT64_MIN, INT64_MAX, columns);
    if (status == STATUS_OK &&
        (columns->count != info.sample_count || columns->count == 0 || columns->times_ms[0] != first_ms ||
         columns->times_ms[columns->count - 1] != last_ms))
        status = STATUS_CORRUPT;
    return status;
}

/* The series' chunks, the newest first. STATUS_CORRUPT: *what is wrong. */
static int chain_check(struct head_check *check, struct chunklog *log, uint32_t slot,
                       const struct head_state *state, struct sample_columns *columns, const char **what) {
    int64_t before_ms = INT64_MAX;
    chunk_ref ref = state->sealed;
    int status = STATUS_OK;
    if (!chunk_is_empty(&state->open)) {
        *what = "its open chunk is none";
        before_ms = state->open_first_ms;
        TRY(chunk_is_whole(state->bits, state->open.info, state->open_first_ms, state->open.time_ms,
                           columns));
    }
    for (;;) {
        struct chunklog_chunk chunk;
        *what = "it refers to a chunk that is not there";
        TRY(chunklog_read(log, ref, slot, check->manifest.cut_ms, &chunk));
        if (status == STATUS_END)
            break;
        *what = "a sealed chunk is none, or not older than the one behind it";
        if (chunk.time_max_ms >= before_ms)
            return STATUS_CORRUPT;
        TRY(chunk_is_whole(chunk.bits, chunk.info, chunk.time_min_ms, chunk.time_max_ms, columns));
        before_ms = chunk.time_min_ms;
        ref = chunk.previous;
    }
    return STATUS_OK;
out:
    return status;
}

static int slice_check(struct head_check *check, struct chunklog *log, uint64_t offset, struct slice payload,
                       uint32_t *next_slot) {
    struct snapshot_slice slice;
    struct sample_columns columns = {0};
    int status = STATUS_OK;
    TRY(snapshot_slice_read(payload, &slice));
    if (slice.first != *next_slot)
        found_add(check, FOUND_SNAPSHOT, check->path, offset, true,
                  "a slice before slot %" PRIu32 " is missing", slice.first);
    *next_slot = slice.end;
    for (;;) {
        struct snapshot_series series;
        struct head_state state;
        const char *what;
        TRY(snapshot_series_next(&slice, &series));
        if (status == STATUS_END)
            break;
        if (series.slot < slice.first || series.slot >= slice.end) {
            status = STATUS_CORRUPT;
            goto out;
        }
        if (series.head.len == 0 || log == NULL)
            continue;
        TRY(head_state_look(&series.head, &state));
        status = chain_check(check, log, series.slot, &state, &columns, &what);
        if (status == STATUS_CORRUPT && check->chunks_damaged)
            check->series_hurt++;
        else if (status == STATUS_CORRUPT)
            found_add(check, FOUND_REFERENCE, check->path, offset, true, "the series of slot %" PRIu32 ": %s",
                      series.slot, what);
        else
            TRY(status);
    }
    status = STATUS_OK;
out:
    if (status == STATUS_CORRUPT) {
        found_add(check, FOUND_SNAPSHOT, check->path, offset, true, "a slice can't be read");
        status = STATUS_OK;
    }
    sample_columns_release(&columns);
    return status;
}

static int chunklog_check(struct head_check *check, struct slice table, uint64_t offset,
                          struct chunklog *log) {
    int status = chunklog_restore(log, table, check->manifest.cut_ms, check->detail);
    if (status == STATUS_CORRUPT) {
        check->detail->text[0] = '\0';
        found_add(check, FOUND_SNAPSHOT, check->path, offset, true,
                  "the table of the chunk log can't be read");
        return STATUS_OK;
    }
    if (status == STATUS_OK)
        status = chunklog_files_each(log, chunk_file_note, check);
    return status == STATUS_OK ? chunklog_verify(log, chunks_damage, check) : status;
}

static void end_check(struct head_check *check, const struct manifest_snapshot *snapshot, uint64_t offset,
                      struct slice payload, uint32_t *slot_end) {
    struct snapshot_end end;
    if (snapshot_end_read(payload, &end) < 0) {
        found_add(check, FOUND_SNAPSHOT, check->path, offset, true, "the end can't be read");
        return;
    }
    *slot_end = end.slot_end;
    if (end.position != snapshot->position)
        found_add(check, FOUND_SNAPSHOT, check->path, offset, true, "it is not of the manifest's position");
}

static int snapshot_check(struct head_check *check, const struct manifest_snapshot *snapshot) {
    struct io *io = check->verify->io;
    struct frame_reader reader = {.io = io};
    struct chunklog *log = NULL;
    char dir[4096];
    uint32_t kind, next_slot = 0, slot_end = 0;
    struct slice payload, table = {0}, end = {0};
    uint64_t table_at = 0, end_at = 0;
    bool has_table = false, has_end = false;
    int status = STATUS_OK;
    snprintf(check->path, sizeof check->path, "%s/head/%016" PRIx64 ".snapshot", check->verify->dir,
             snapshot->number);
    snprintf(dir, sizeof dir, "%s/head", check->verify->dir);
    status =
        frame_reader_open(io, check->path, NULL, snapshot->number, snapshot->bytes, check->detail, &reader);
    if (status == STATUS_NOT_FOUND) {
        check->detail->text[0] = '\0';
        found_add(check, FOUND_SNAPSHOT, check->path, 0, true, "it is missing");
        status = STATUS_OK;
        goto out;
    }
    TRY(status);
    reader.each = snapshot_frame;
    reader.context = check;
    while ((status = frame_reader_next(&reader, &kind, &payload)) == STATUS_OK) {
        if (kind == SNAPSHOT_FRAME_CHUNKLOG) {
            table = payload;
            table_at = reader.at;
            has_table = true;
        } else if (kind == SNAPSHOT_FRAME_END) {
            end = payload;
            end_at = reader.at;
            has_end = true;
        }
    }
    TRY(status);
    bool whole = reader.damaged == 0;
    if (whole && (!has_table || !has_end))
        found_add(check, FOUND_SNAPSHOT, check->path, 0, true, "it has no end");
    if (has_end)
        end_check(check, snapshot, end_at, end, &slot_end);
    if (has_table) {
        TRY(chunklog_new(io, dir, 0, &log));
        chunklog_read_only(log);
        TRY(chunklog_check(check, table, table_at, log));
    }
    reader.offset = 0;
    reader.each = NULL;
    while ((status = frame_reader_next(&reader, &kind, &payload)) == STATUS_OK)
        if (kind == SNAPSHOT_FRAME_SLICE)
            TRY(slice_check(check, log, reader.at, payload, &next_slot));
    TRY(status);
    status = STATUS_OK;
    if (whole && has_end && next_slot != slot_end)
        found_add(check, FOUND_SNAPSHOT, check->path, end_at, true,
                  "it ends with slot %" PRIu32 " of %" PRIu32, next_slot, slot_end);
out:
    chunklog_free(log);
    frame_reader_close(&reader);
    return status;
}

/* ---- the log ---- */

static int segment_each(void *context, const char *name) {
    uint32_t *begin = context;
    char *end;
    unsigned long number = strtoul(name, &end, 16);
    if (end == name + 8 && strcmp(end, ".log") == 0 && number < *begin)
        *begin = (uint32_t)number;
    return STATUS_OK;
}

static void log_check(struct head_check *check) {
    char path[4096];
    const struct manifest *manifest = &check->manifest;
    if (manifest->snapshot_count == 0)
        return;
    uint32_t needed = (uint32_t)(manifest->snapshots[manifest->snapshot_count - 1].position >> 32);
    if (check->log_begin <= needed)
        return;
    snprintf(path, sizeof path, "%s/wal/%08" PRIx32 ".log", check->verify->dir, needed);
    check->number = manifest->snapshots[manifest->snapshot_count - 1].number;
    found_add(check, FOUND_LOG, path, 0, true, "it is missing, and a snapshot is to be gone on with from it");
}

/* ---- all of it ---- */

static int all_check(struct head_check *check) {
    const struct manifest *manifest = &check->manifest;
    int first_error = STATUS_OK;
    log_check(check);
    for (size_t i = 0; i < manifest->snapshot_count; i++) {
        const struct manifest_snapshot *snapshot = &manifest->snapshots[i];
        check->number = snapshot->number;
        int status = snapshot_check(check, snapshot);
        check->number = snapshot->labels_number;
        verify_progress(check->verify, (unsigned)(i * 500 + 400));
        if (status == STATUS_OK && (i == 0 || snapshot->labels_number != snapshot[-1].labels_number))
            status = labels_check(check, snapshot);
        verify_progress(check->verify, (unsigned)(i * 500 + 500));
        if (status < 0 && first_error == STATUS_OK)
            first_error = status;
    }
    return check->no_memory ? STATUS_NO_MEMORY : first_error;
}

static bool both_damaged(const struct head_check *check) {
    const struct manifest *manifest = &check->manifest;
    for (size_t i = 0; i < manifest->snapshot_count; i++) {
        bool damaged = false;
        for (size_t j = 0; j < check->found_count; j++)
            damaged |= check->found[j].kind == FOUND_SNAPSHOT &&
                       check->found[j].number == manifest->snapshots[i].number;
        if (!damaged)
            return false;
    }
    return true;
}

static const char *costs_of(const struct head_check *check, const struct found *found, bool both) {
    switch (found->kind) {
    case FOUND_SNAPSHOT:
        return both ? "samples of the head that only it holds"
               : found->number == check->manifest.snapshots[0].number
                   ? "nothing, the one before it and the log since count"
                   : "nothing as long as the newer one is whole";
    case FOUND_LABELS:
        return found->lost ? "the series that are named there" : "nothing, the other copy counts";
    case FOUND_CHUNKS:
        return "the sealed chunk there, and what its series had before it";
    case FOUND_REFERENCE:
        return "what the series had before it";
    case FOUND_LOG:
        return "the requests in it";
    case FOUND_HARMLESS:
        break;
    }
    return "nothing";
}

static void report(struct head_check *check) {
    bool both = both_damaged(check);
    for (size_t i = 0; i < check->found_count; i++)
        verify_damage(check->verify, check->found[i].file, check->found[i].offset, check->found[i].what,
                      costs_of(check, &check->found[i], both));
    if (check->found_more > 0)
        verify_note(check->verify, "%" PRIu64 " more pieces of damage in %s/head", check->found_more,
                    check->verify->dir);
    if (check->series_hurt > 0 && check->found_count > 0)
        verify_note(check->verify, "%" PRIu64 " series of the head are hurt by that", check->series_hurt);
}

static bool is_named(const struct head_check *check, const char *name) {
    char *end;
    uint64_t number = strtoull(name, &end, 16);
    bool labels = strcmp(end, ".labels") == 0 || strcmp(end, ".labels2") == 0;
    for (size_t i = 0; i < check->manifest.snapshot_count; i++) {
        const struct manifest_snapshot *snapshot = &check->manifest.snapshots[i];
        if (labels ? number == snapshot->labels_number
                   : strcmp(end, ".snapshot") == 0 && number == snapshot->number)
            return true;
    }
    for (size_t i = 0; i < check->chunk_file_count; i++)
        if (strcmp(end, ".chunks") == 0 && number == check->chunk_files[i].number)
            return true;
    return false;
}

static int name_each(void *context, const char *name) {
    struct head_check *check = context;
    if (!is_named(check, name))
        verify_note(check->verify,
                    "%s/head/%s is not named by a snapshot: being written, or left over and removed at the "
                    "next start",
                    check->verify->dir, name);
    return STATUS_OK;
}

static int names_check(struct head_check *check) {
    char path[4096];
    snprintf(path, sizeof path, "%s/head", check->verify->dir);
    int status = io_list_dir(check->verify->io, path, name_each, check);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

/* Forgets what was found in files that count no more; true if there was any. */
static bool replaced_drop(struct head_check *check) {
    struct manifest now;
    struct error_detail ignored = {{0}};
    size_t kept = 0, count = check->found_count;
    if (count == 0 || manifest_load(check->verify->io, check->verify->dir, &ignored, &now) < 0)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct found *found = &check->found[i];
        bool named = found->number == 0 && found->end_ms > now.cut_ms;
        for (size_t j = 0; j < now.snapshot_count; j++)
            named |=
                found->number == now.snapshots[j].number || found->number == now.snapshots[j].labels_number;
        if (named)
            check->found[kept++] = *found;
    }
    manifest_release(&now);
    check->found_count = kept;
    return kept < count;
}

static int try_check(struct head_check *check, bool *replaced_out) {
    char wal[4096];
    check->found_count = check->chunk_file_count = 0;
    check->found_more = check->series_hurt = 0;
    check->chunks_damaged = check->no_memory = false;
    check->log_begin = SEGMENT_NONE;
    /* Before the manifest: what it needs stays from then on until another one counts. */
    snprintf(wal, sizeof wal, "%s/wal", check->verify->dir);
    (void)io_list_dir(check->verify->io, wal, segment_each, &check->log_begin);
    manifest_release(&check->manifest);
    manifest_init(&check->manifest);
    int status = manifest_load(check->verify->io, check->verify->dir, check->detail, &check->manifest);
    if (status < 0)
        return status;
    status = all_check(check);
    *replaced_out = replaced_drop(check);
    return status;
}

int verify_head(struct verify *verify, struct error_detail *detail) {
    struct head_check check = {.verify = verify, .detail = detail};
    int status = STATUS_OK;
    bool replaced = true;
    if (!verify->has_manifest)
        return error_set(detail, STATUS_CORRUPT, "no manifest says what of it counts");
    if (strlen(verify->dir) > sizeof check.path - 64)
        return STATUS_TOO_LARGE;
    manifest_init(&check.manifest);
    for (int tries = 0; tries < TRIES && replaced; tries++) {
        detail->text[0] = '\0';
        status = try_check(&check, &replaced);
    }
    report(&check);
    if (status == STATUS_OK)
        status = names_check(&check);
    manifest_release(&check.manifest);
    mem_free(check.found);
    mem_free(check.chunk_files);
    return status;
}
