/* wal.c: opening, building groups, committing them, going from segment to segment, recovering from errors.
 *
 * A segment's life: `next.tmp` is made and zero-filled (slice by slice in wal_tick, or at once when it is
 * needed now) and synced; then its header is written and synced, it is renamed to its number, and the
 * directory is synced. Only then does the first group go into it. So a file with a number always has a whole
 * header, and a commit syncs nothing but data in allocated blocks.
 *
 * A failed commit: nothing that was written since the last success is believed, and nothing is appended
 * behind it. The segment ends at `durable`; the next segment's header says so, which makes the remains of the
 * failed group invisible. */
#include "storage/wal/wal.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/wal/wal_private.h"

static const char next_name[] = "next.tmp";

char *wal__path(const struct wal *wal, const char *name) {
    size_t dir_len = strlen(wal->dir), name_len = strlen(name);
    char *path = mem_alloc(dir_len + name_len + 2);
    if (path == NULL)
        return NULL;
    memcpy(path, wal->dir, dir_len);
    path[dir_len] = '/';
    memcpy(path + dir_len + 1, name, name_len + 1);
    return path;
}

char *wal__segment_path(const struct wal *wal, uint32_t number) {
    char name[16];
    snprintf(name, sizeof name, "%08x.log", number);
    return wal__path(wal, name);
}

int wal__segment_add(struct wal *wal, const struct wal__segment *segment) {
    struct wal__segment *segments =
        array_ensure(wal->segments, &wal->segment_capacity, wal->segment_count + 1, sizeof *segments);
    if (segments == NULL)
        return STATUS_NO_MEMORY;
    wal->segments = segments;
    wal->segments[wal->segment_count++] = *segment;
    return STATUS_OK;
}

/* ---- Opening ------------------------------------------------------------------------------------------ */

/* "0000002a.log" → 42; 0 for any other name. */
static uint32_t segment_number(const char *name) {
    uint32_t number = 0;
    for (int i = 0; i < 8; i++) {
        char c = name[i];
        if (c >= '0' && c <= '9')
            number = number << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            number = number << 4 | (uint32_t)(c - 'a' + 10);
        else
            return 0;
    }
    return strcmp(name + 8, ".log") == 0 ? number : 0;
}

struct scan {
    struct wal *wal;
    struct error_detail *detail;
};

static int scan_segment(void *context, const char *name) {
    struct scan *scan = context;
    struct wal *wal = scan->wal;
    struct wal__segment segment = {.header.number = segment_number(name)};
    if (segment.header.number == 0)
        return STATUS_OK;
    uint32_t number = segment.header.number;
    struct io_file *file = NULL;
    char *path = wal__path(wal, name);
    static const char no_memory[] = "reading the log: out of memory";
    if (path == NULL)
        return error_set(scan->detail, STATUS_NO_MEMORY, no_memory);
    int status;
    uint8_t copies[WAL_DATA_OFFSET];
    size_t got;
    TRY(io_file_open(wal->io, path, IO_OPEN_READ, scan->detail, &file));
    TRY(io_file_size(wal->io, file, &segment.file_bytes));
    TRY(io_read(wal->io, file, 0, copies, sizeof copies, &got));
    memset(copies + got, 0, sizeof copies - got);
    for (size_t copy = 0; copy < sizeof copies; copy += WAL_FRAME_BYTES) {
        struct wal__header header;
        status = wal__header_read(copies + copy, &header);
        if (status == STATUS_NEWER_FORMAT) {
            error_newer(scan->detail, NULL, path, load_u32(copies + copy + 8), WAL_VERSION);
            goto out;
        }
        if (status == STATUS_OK && header.number == number) {
            if (!segment.readable)
                segment.header = header;
            segment.readable = true;
        } else {
            segment.header_damage++;
        }
    }
    status = wal__segment_add(wal, &segment);
    wal->number_max = number; /* names come in byte order, which is the numbers' */
out:
    if (status < 0)
        error_set(scan->detail, status, "reading %s: %s", path, status_message(status));
    io_file_close(wal->io, file);
    mem_free(path);
    return status;
}

static void wal_free(struct wal *wal) {
    io_file_close(wal->io, wal->file);
    io_file_close(wal->io, wal->next);
    mem_free(wal->segments);
    mem_free(wal->group);
    mem_free(wal->dir);
    mem_free(wal);
}

int wal_open(const struct wal_options *options, struct error_detail *detail, struct wal **out) {
    ASSERT(options->segment_bytes % WAL_FRAME_BYTES == 0);
    ASSERT(options->segment_bytes > WAL_DATA_OFFSET && options->segment_bytes <= WAL_SEGMENT_BYTES_MAX);
    struct wal *wal = mem_zalloc(sizeof *wal);
    if (wal == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "opening the log: out of memory");
    wal->io = options->io;
    wal->segment_bytes = options->segment_bytes;
    wal->read_only = options->read_only;
    wal->state = WAL_FAILED; /* until wal_start */
    rand_init(&wal->rand, options->seed);
    int status = STATUS_NO_MEMORY;
    wal->dir = mem_strndup(options->dir, strlen(options->dir));
    if (wal->dir == NULL)
        goto out;
    struct scan scan = {wal, detail};
    TRY(io_list_dir(wal->io, wal->dir, scan_segment, &scan));
    *out = wal;
    return STATUS_OK;
out:
    wal_free(wal);
    return error_set(detail, status, "opening the log in %s: %s", options->dir, status_message(status));
}

void wal_reached(struct wal *wal, wal_position position) {
    uint32_t number = wal__position_segment(position);
    if (number > wal->number_reached)
        wal->number_reached = number;
    if (number > wal->number_max)
        wal->number_max = number;
}

void wal_close(struct wal *wal) {
    if (wal == NULL)
        return;
    ASSERT(wal->state != WAL_COMMITTING);
    wal_free(wal);
}

/* ---- The next segment -----------------------------------------------------------------------------------
 */

static void next_drop(struct wal *wal) {
    io_file_close(wal->io, wal->next);
    wal->next = NULL;
    wal->next_filled = 0;
    wal->next_synced = false;
    char *path = wal__path(wal, next_name);
    if (path != NULL)
        io_remove(wal->io, path); /* if it stays, the next attempt truncates it */
    mem_free(path);
}

/* Writes one slice of zeros towards `bytes`, making the file if needed. */
static int next_fill(struct wal *wal, uint64_t bytes) {
    static uint8_t zeros[WAL_SLICE_BYTES]; /* never written to */
    if (wal->next == NULL) {
        char *path = wal__path(wal, next_name);
        if (path == NULL)
            return STATUS_NO_MEMORY;
        int status =
            io_file_open(wal->io, path, IO_OPEN_READ | IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_TRUNCATE,
                         NULL, &wal->next);
        mem_free(path);
        if (status < 0)
            return status;
        wal->next_filled = 0;
    }
    if (wal->next_filled >= bytes)
        return STATUS_OK;
    uint64_t left = bytes - wal->next_filled;
    size_t len = left < sizeof zeros ? (size_t)left : sizeof zeros;
    int status = io_write(wal->io, wal->next, wal->next_filled, zeros, len);
    if (status < 0)
        return status;
    wal->next_filled += len;
    wal->next_synced = false;
    return STATUS_OK;
}

static int next_sync(struct wal *wal) {
    if (wal->next_synced)
        return STATUS_OK;
    int status = io_sync(wal->io, wal->next);
    wal->next_synced = status == STATUS_OK;
    return status;
}

/* Fills in the heads of the built group's frames, for its place in that segment. */
static void group_seal(struct wal *wal, const struct wal__header *header, uint64_t offset,
                       uint32_t group_number) {
    for (size_t i = 0; i < wal->group_frames; i++) {
        uint8_t *bytes = wal->group + i * WAL_FRAME_BYTES;
        bool last = i + 1 == wal->group_frames;
        struct wal__frame frame = {
            .payload_len = (uint16_t)(last ? wal->group_used : WAL_FRAME_PAYLOAD),
            .first_record = load_u16(bytes + 6),
            .group = group_number,
            .index = (uint32_t)i,
            .count = (uint32_t)wal->group_frames,
            .durable = wal->durable,
        };
        wal__frame_seal(&frame, header, offset + i * WAL_FRAME_BYTES, bytes);
    }
}

/* Makes the next segment of at least `bytes` the current one; blocks. On error nothing changed but that a
 * number is used up. */
static int segment_begin(struct wal *wal, uint64_t bytes) {
    uint8_t copies[WAL_DATA_OFFSET];
    char *from = NULL, *to = NULL;
    struct io_file *file = NULL;
    int status = STATUS_NO_MEMORY;
    if (wal->number_max == UINT32_MAX)
        return STATUS_TOO_LARGE;
    uint32_t number = ++wal->number_max; /* never twice, whatever becomes of this attempt */
    size_t carried = wal->carries ? wal_group_bytes(wal) : 0;
    if (bytes < WAL_DATA_OFFSET + carried)
        bytes = WAL_DATA_OFFSET + carried;
    if ((from = wal__path(wal, next_name)) == NULL || (to = wal__segment_path(wal, number)) == NULL)
        goto out;
    do
        TRY(next_fill(wal, bytes));
    while (wal->next_filled < bytes);
    TRY(next_sync(wal));

    struct wal__segment segment = {
        .header = {.number = number,
                   .segment_bytes = wal->next_filled,
                   .salt = rand_u64(&wal->rand),
                   .previous_end = wal->durable},
        .readable = true,
        .file_bytes = wal->next_filled,
    };
    wal__header_write(&segment.header, copies);
    TRY(io_write(wal->io, wal->next, 0, copies, sizeof copies));
    if (carried > 0) {
        group_seal(wal, &segment.header, WAL_DATA_OFFSET, 0);
        TRY(io_write(wal->io, wal->next, WAL_DATA_OFFSET, wal->group, carried));
    }
    TRY(io_sync(wal->io, wal->next));
    KILL_POINT("segment_written");
    if (carried > 0)
        KILL_POINT("carried_written");
    TRY(io_rename(wal->io, from, to));
    KILL_POINT("segment_renamed");
    if (carried > 0)
        KILL_POINT("carried_renamed");
    status = io_file_open(wal->io, to, IO_OPEN_READ | IO_OPEN_WRITE, NULL, &file);
    if (status == STATUS_OK)
        status = io_sync_dir(wal->io, wal->dir);
    if (status == STATUS_OK)
        status = wal__segment_add(wal, &segment);
    if (status < 0) {
        /* It holds nothing. If it comes back, its successor's header will say that it is to be passed over.
         */
        io_remove(wal->io, to);
        goto out;
    }
    io_file_close(wal->io, wal->next);
    wal->next = NULL;
    wal->next_filled = 0;
    wal->next_synced = false;

    io_file_close(wal->io, wal->file);
    wal->file = file;
    file = NULL;
    wal->header = segment.header;
    wal->offset = WAL_DATA_OFFSET + carried;
    wal->group_number = carried > 0;
    if (carried > 0)
        wal->durable = wal__position(number, wal->offset);
    wal->carries = false;
    metric_add(METRIC_wal_segments_opened, 1);
    metric_set(METRIC_wal_segments, wal->segment_count);
    metric_set(METRIC_wal_disk_bytes, wal_disk_bytes(wal));
    log_debug("log segment opened", LOG_STR("path", to));
out:
    if (status < 0)
        next_drop(wal);
    io_file_close(wal->io, file);
    mem_free(from);
    mem_free(to);
    return status;
}

static void become_ready(struct wal *wal) {
    wal->state = WAL_READY;
    wal_group_begin(wal);
    metric_set(METRIC_wal_writable, 1);
}

static void become_failed(struct wal *wal, int status) {
    io_file_close(wal->io, wal->file);
    wal->file = NULL;
    wal->state = WAL_FAILED;
    wal->retry_delay_ms = wal->retry_delay_ms == 0 ? WAL_RETRY_MS_MIN : wal->retry_delay_ms * 2;
    if (wal->retry_delay_ms > WAL_RETRY_MS_MAX)
        wal->retry_delay_ms = WAL_RETRY_MS_MAX;
    wal->retry_set = false;
    metric_add(METRIC_wal_errors, 1);
    metric_set(METRIC_wal_writable, 0);
    log_error("the log can't be written; trying again in a new segment", LOG_STR("dir", wal->dir),
              LOG_STR("error", status_message(status)), LOG_I64("retry_ms", wal->retry_delay_ms));
}

/* Begins a segment that somebody waits for: small, and soon followed by one of the usual size. */
static int segment_begin_soon(struct wal *wal) {
    return segment_begin(wal, wal->segment_bytes < WAL_FIRST_SEGMENT_BYTES ? wal->segment_bytes
                                                                           : WAL_FIRST_SEGMENT_BYTES);
}

int wal_start(struct wal *wal, struct error_detail *detail) {
    ASSERT(!wal->started);
    wal->started = true;
    wal->carries = wal->group_frames > 0;
    int status = segment_begin_soon(wal);
    if (status < 0) {
        become_failed(wal, status);
        return error_set(detail, status, "making a log segment in %s: %s", wal->dir, status_message(status));
    }
    become_ready(wal);
    return STATUS_OK;
}

/* ---- Groups
 * ------------------------------------------------------------------------------------------------ */

void wal_group_begin(struct wal *wal) {
    ASSERT(wal->state == WAL_READY || !wal->started);
    wal->group_frames = 0;
    wal->group_used = WAL_FRAME_PAYLOAD;
}

/* Room for `frames` frames behind those that are there. */
static int group_reserve(struct wal *wal, size_t frames) {
    size_t need = (wal->group_frames + frames) * WAL_FRAME_BYTES;
    if (need > WAL_SEGMENT_BYTES_MAX - WAL_DATA_OFFSET)
        return STATUS_TOO_LARGE;
    if (need <= wal->group_capacity)
        return STATUS_OK;
    size_t capacity = wal->group_capacity == 0 ? 16 * WAL_FRAME_BYTES : wal->group_capacity * 2;
    while (capacity < need)
        capacity *= 2;
    uint8_t *group = mem_realloc(wal->group, capacity);
    if (group == NULL)
        return STATUS_NO_MEMORY;
    wal->group = group;
    wal->group_capacity = capacity;
    return STATUS_OK;
}

static void group_copy(struct wal *wal, const uint8_t *data, size_t len, bool record_begins) {
    while (len > 0) {
        if (wal->group_used == WAL_FRAME_PAYLOAD) {
            store_u16(wal->group + wal->group_frames * WAL_FRAME_BYTES + 6, WAL_NO_RECORD);
            wal->group_frames++;
            wal->group_used = 0;
        }
        uint8_t *frame = wal->group + (wal->group_frames - 1) * WAL_FRAME_BYTES;
        if (record_begins && load_u16(frame + 6) == WAL_NO_RECORD)
            store_u16(frame + 6, (uint16_t)wal->group_used);
        record_begins = false;
        size_t room = WAL_FRAME_PAYLOAD - wal->group_used;
        size_t part = len < room ? len : room;
        memcpy(frame + WAL_FRAME_HEAD + wal->group_used, data, part);
        wal->group_used += part;
        data += part;
        len -= part;
    }
}

int wal_group_append(struct wal *wal, enum wal_record_type type, struct slice payload) {
    ASSERT(wal->state == WAL_READY || !wal->started);
    ASSERT(payload.len > 0);
    if (payload.len > UINT32_MAX)
        return STATUS_TOO_LARGE;
    uint8_t head[WAL_RECORD_HEAD_MAX];
    size_t head_len = (size_t)(varint_write(varint_write(head, (uint64_t)type), payload.len) - head);
    size_t room = WAL_FRAME_PAYLOAD - wal->group_used;
    size_t bytes = head_len + payload.len;
    if (bytes > room) {
        int status = group_reserve(wal, (bytes - room + WAL_FRAME_PAYLOAD - 1) / WAL_FRAME_PAYLOAD);
        if (status < 0)
            return status;
    }
    group_copy(wal, head, head_len, true);
    group_copy(wal, payload.data, payload.len, false);
    return STATUS_OK;
}

wal_position wal_group_position(const struct wal *wal) {
    return wal__position(wal->header.number, wal->offset);
}

size_t wal_group_bytes(const struct wal *wal) {
    return wal->group_frames * WAL_FRAME_BYTES;
}

bool wal_group_fits(const struct wal *wal) {
    return wal->offset + wal_group_bytes(wal) <= wal->header.segment_bytes;
}

int wal_roll(struct wal *wal) {
    ASSERT(wal->state == WAL_READY);
    /* A group that no segment of the usual size can hold gets a larger one. */
    uint64_t bytes = WAL_DATA_OFFSET + wal_group_bytes(wal);
    int status = segment_begin(wal, bytes > wal->segment_bytes ? bytes : wal->segment_bytes);
    if (status < 0)
        become_failed(wal, status);
    else
        wal_group_begin(wal);
    return status;
}

uint32_t wal_segment(const struct wal *wal) {
    return wal->header.number;
}

static void commit_done(struct io_commit *commit) {
    struct wal *wal = commit->context;
    ASSERT(wal->state == WAL_COMMITTING);
    int status = commit->status;
    if (status < 0) {
        become_failed(wal, status);
    } else {
        wal->offset += commit->len;
        wal->group_number++;
        wal->durable = wal__position(wal->header.number, wal->offset);
        wal->retry_delay_ms = 0;
        metric_add(METRIC_wal_groups, 1);
        metric_add(METRIC_wal_bytes, commit->len);
        become_ready(wal);
    }
    wal->done(wal->done_context, status);
}

void wal_group_commit(struct wal *wal, void (*done)(void *context, int status), void *context) {
    ASSERT(wal->state == WAL_READY);
    ASSERT(wal->group_frames > 0 && wal_group_fits(wal));
    /* Groups are committed one by one: this one begins where the durable part ends. */
    ASSERT(wal->group_number == 0 || wal->durable == wal__position(wal->header.number, wal->offset));
    group_seal(wal, &wal->header, wal->offset, wal->group_number);
    wal->state = WAL_COMMITTING;
    wal->done = done;
    wal->done_context = context;
    wal->commit = (struct io_commit){
        .file = wal->file,
        .offset = wal->offset,
        .data = wal->group,
        .len = wal_group_bytes(wal),
        .done = commit_done,
        .context = wal,
    };
    io_commit(wal->io, &wal->commit);
}

enum wal_state wal_state(const struct wal *wal) {
    return wal->state;
}

wal_position wal_durable(const struct wal *wal) {
    return wal->durable;
}

/* ---- Background
 * -------------------------------------------------------------------------------------------- */

/* True once the delay since the first tick after the failure is over. A clock that jumps back delays no more
 * than once. */
static bool retry_due(struct wal *wal, int64_t now_ms) {
    if (!wal->retry_set || wal->retry_at_ms - now_ms > wal->retry_delay_ms) {
        wal->retry_set = true;
        wal->retry_at_ms = now_ms + wal->retry_delay_ms;
        return false;
    }
    return now_ms >= wal->retry_at_ms;
}

void wal_tick(struct wal *wal, int64_t now_ms) {
    if (!wal->started || wal->state == WAL_COMMITTING)
        return;
    if (wal->state == WAL_FAILED) {
        if (!retry_due(wal, now_ms))
            return;
        int status = segment_begin_soon(wal);
        if (status < 0) {
            become_failed(wal, status);
            return;
        }
        become_ready(wal);
        log_info("the log can be written again", LOG_STR("dir", wal->dir),
                 LOG_U64("segment", wal->header.number));
        return;
    }
    bool complete = wal->next_filled >= wal->segment_bytes && wal->next_synced;
    bool soon =
        wal->offset >= wal->header.segment_bytes / 2 || wal->header.segment_bytes < wal->segment_bytes;
    if (complete || !soon)
        return;
    int64_t waited_ms = now_ms - wal->fill_failed_ms;
    if (wal->fill_failed && waited_ms >= 0 && waited_ms < WAL_RETRY_MS_MAX)
        return;
    /* Synced slice by slice, so that no sync has much to do. */
    int status = next_fill(wal, wal->segment_bytes);
    if (status == STATUS_OK)
        status = next_sync(wal);
    wal->fill_failed = status < 0;
    metric_set(METRIC_wal_disk_bytes, wal_disk_bytes(wal));
    if (status < 0) {
        /* No failure of the log: this segment has room. Trying again waits. */
        next_drop(wal);
        wal->fill_failed_ms = now_ms;
        log_warn("pre-creating a log segment failed", LOG_STR("dir", wal->dir),
                 LOG_STR("error", status_message(status)));
    }
}

void wal_drop_before(struct wal *wal, wal_position position) {
    size_t gone = 0;
    while (gone + 1 < wal->segment_count &&
           wal->segments[gone].header.number < wal__position_segment(position)) {
        char *path = wal__segment_path(wal, wal->segments[gone].header.number);
        int status = path == NULL ? STATUS_NO_MEMORY : io_remove(wal->io, path);
        KILL_POINT("segment_removed");
        mem_free(path);
        if (status == STATUS_OK || status == STATUS_NOT_FOUND)
            status = io_sync_dir(wal->io, wal->dir);
        if (status < 0)
            break;
        gone++;
    }
    wal->segment_count -= gone;
    memmove(wal->segments, wal->segments + gone, wal->segment_count * sizeof *wal->segments);
    metric_set(METRIC_wal_segments, wal->segment_count);
    metric_set(METRIC_wal_disk_bytes, wal_disk_bytes(wal));
}

wal_position wal_begin(const struct wal *wal) {
    return wal->segment_count == 0 ? 0 : wal__position(wal->segments[0].header.number, 0);
}

uint32_t wal_segment_count(const struct wal *wal) {
    return (uint32_t)wal->segment_count;
}

uint64_t wal_disk_bytes(const struct wal *wal) {
    uint64_t bytes = wal->next_filled;
    for (size_t i = 0; i < wal->segment_count; i++)
        bytes += wal->segments[i].file_bytes;
    return bytes;
}
