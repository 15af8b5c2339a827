/* wal_replay.c: reading the log back.
 *
 * How far a segment counts: the first later segment with a readable header says where the log ended when it
 * was made. If that is in this segment, it is this one's end; if it is in an earlier one, this segment never
 * held anything durable; if it is in one between that can't be read, this segment was closed, and everything
 * in it counts. The last segment says it itself: each frame carries the position that was durable before its
 * group was written, and the largest of these is proven. Behind it there can be one group more: whole, it is
 * delivered as not proven; not whole, it is a torn tail.
 *
 * Below the proven end a frame that is not valid is damage: it is skipped with the records that it has a part
 * in, and reading goes on at the next record that begins in a valid frame. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/mutation.h"
#include "storage/wal/wal_private.h"

#define WINDOW_BYTES   ((size_t)64 * WAL_FRAME_BYTES)
#define TORN_FILES_MAX 8

struct replay {
    struct wal *wal;
    const struct wal_sink *sink;
    struct error_detail *detail;
    struct wal_replay_stats stats;

    wal_position from;
    uint64_t begin; /* of what is delivered of the segment */
    struct wal__segment *segment;
    struct io_file *file;
    uint64_t file_frames_end; /* the file's size, rounded up to frames */
    uint8_t *window;          /* WINDOW_BYTES, from window_offset */
    uint64_t window_offset;
    size_t window_len;

    struct buf run; /* a record that has begun and not ended: its bytes so far */
    bool in_run;    /* the next frame is expected to go on where the last one ended */
    bool proven;    /* what is delivered now is known to be durable */
    struct wal__frame last;
    uint64_t damage_offset; /* of the first of damage_frames frames in a row */
    uint64_t damage_frames;
};

/* ---- Frames of a file
 * -------------------------------------------------------------------------------------- */

/* The frame at `offset`; behind the end of the file there are zeros. Valid until the next call. */
static int frame_at(struct replay *replay, uint64_t offset, const uint8_t **out) {
    if (replay->window_len == 0 || offset < replay->window_offset ||
        offset - replay->window_offset >= replay->window_len) {
        size_t got;
        replay->window_len = 0;
        int status = io_read(replay->wal->io, replay->file, offset, replay->window, WINDOW_BYTES, &got);
        if (status < 0)
            return error_set(replay->detail, status, "reading %s at offset %llu: %s",
                             io_file_path(replay->file), (unsigned long long)offset, status_message(status));
        memset(replay->window + got, 0, WINDOW_BYTES - got);
        replay->window_offset = offset;
        replay->window_len = WINDOW_BYTES;
    }
    *out = replay->window + (offset - replay->window_offset);
    return STATUS_OK;
}

/* The segment's frames: up to here there may be some. */
static uint64_t frames_end(const struct replay *replay) {
    uint64_t bytes = replay->segment->header.segment_bytes;
    return bytes < replay->file_frames_end ? bytes : replay->file_frames_end;
}

/* ---- Damage
 * ------------------------------------------------------------------------------------------------- */

static void damage_tell(struct replay *replay, uint32_t segment, uint64_t offset, uint64_t frames,
                        const char *what) {
    if (replay->sink->damage != NULL)
        replay->sink->damage(replay->sink->context, segment, offset, frames, what);
}

static void damage_log(struct replay *replay) {
    if (replay->damage_frames > 0) {
        uint32_t number = replay->segment->header.number;
        log_error("damaged log frames skipped", LOG_U64("segment", number),
                  LOG_U64("offset", replay->damage_offset), LOG_U64("frames", replay->damage_frames));
        damage_tell(replay, number, replay->damage_offset, replay->damage_frames, "damaged frames");
    }
    replay->stats.corrupt_frames += replay->damage_frames;
    replay->damage_frames = 0;
}

static void damage_add(struct replay *replay, uint64_t offset, uint64_t frames) {
    if (replay->damage_frames > 0 &&
        replay->damage_offset + replay->damage_frames * WAL_FRAME_BYTES != offset)
        damage_log(replay);
    if (replay->damage_frames == 0)
        replay->damage_offset = offset;
    replay->damage_frames += frames;
}

/* ---- Records
 * ------------------------------------------------------------------------------------------------- */

/* What begins at `data`: STATUS_OK and a record's type and payload, STATUS_END if more bytes are needed,
 * STATUS_CORRUPT. */
static int record_read(struct slice data, uint64_t bytes_max, uint64_t *type, struct slice *payload) {
    const uint8_t *end = data.data + data.len;
    uint64_t len;
    const uint8_t *p = varint_read(data.data, end, type);
    if (p != NULL)
        p = varint_read(p, end, &len);
    if (p == NULL)
        return data.len < WAL_RECORD_HEAD_MAX ? STATUS_END : STATUS_CORRUPT;
    if (len == 0 || len > bytes_max)
        return STATUS_CORRUPT;
    if (len > (size_t)(end - p) && !MUTATED(BELIEVE_RECORD_LEN))
        return STATUS_END;
    *payload = slice_of(p, (size_t)len);
    return STATUS_OK;
}

static void run_end(struct replay *replay) {
    buf_clear(&replay->run);
    replay->in_run = false;
}

/* Takes the payload of one valid frame, from its byte `from` on. */
static int frame_take(struct replay *replay, const struct wal__frame *frame, uint64_t offset,
                      const uint8_t *bytes, size_t from) {
    struct slice data = slice_of(bytes + WAL_FRAME_HEAD + from, frame->payload_len - from);
    bool carried = replay->run.len > 0;
    if (carried) {
        buf_append(&replay->run, data.data, data.len);
        if (replay->run.failed)
            return error_set(replay->detail, STATUS_NO_MEMORY, "reading the log: out of memory");
        data = buf_slice(&replay->run);
    }
    wal_position position =
        wal__position(replay->segment->header.number, offset - (uint64_t)frame->index * WAL_FRAME_BYTES);
    uint64_t bytes_max = (uint64_t)frame->count * WAL_FRAME_PAYLOAD;
    while (data.len > 0) {
        uint64_t type;
        struct slice payload;
        int status = record_read(data, bytes_max, &type, &payload);
        if (status == STATUS_END)
            break;
        if (status == STATUS_CORRUPT || type < WAL_RECORD_SERIES || type > WAL_RECORD_DELETE) {
            /* The checksum is right, so this was written wrong. The rest of the frame can't be told apart. */
            damage_add(replay, offset, 1);
            run_end(replay);
            return STATUS_OK;
        }
        replay->stats.records++;
        replay->stats.bytes += payload.len;
        if (replay->sink->record != NULL) {
            status = replay->sink->record(replay->sink->context, position, replay->proven,
                                          (enum wal_record_type)type, payload);
            if (status < 0)
                return error_set(replay->detail, status, "replaying %s at offset %llu: %s",
                                 io_file_path(replay->file), (unsigned long long)offset,
                                 status_message(status));
        }
        const uint8_t *behind = payload.data + payload.len;
        data = slice_of(behind, (size_t)(data.data + data.len - behind));
    }
    replay->in_run = true;
    if (frame->index + 1 == frame->count) {
        if (data.len > 0)
            damage_add(replay, offset, 1); /* a record that goes on behind its group: written wrong, too */
        run_end(replay);
        return STATUS_OK;
    }
    /* Keep what is left for the next frame. */
    if (carried) {
        memmove(replay->run.data, data.data, data.len);
        replay->run.len = data.len;
    } else if (data.len > 0) {
        buf_append(&replay->run, data.data, data.len);
    }
    if (replay->run.failed)
        return error_set(replay->detail, STATUS_NO_MEMORY, "reading the log: out of memory");
    return STATUS_OK;
}

/* Delivers [from, to), which is known to be durable (or whole): what is not valid there is damage. */
static int range_deliver(struct replay *replay, uint64_t from, uint64_t to) {
    uint64_t end = to < frames_end(replay) ? to : frames_end(replay);
    int status = STATUS_OK;
    run_end(replay);
    bool any = false;
    for (uint64_t offset = from; offset < end; offset += WAL_FRAME_BYTES) {
        const uint8_t *bytes;
        TRY(frame_at(replay, offset, &bytes));
        struct wal__frame frame;
        if (!wal__frame_read(bytes, &replay->segment->header, offset, &frame)) {
            damage_add(replay, offset, 1);
            run_end(replay);
            continue;
        }
        if (!any || frame.index == 0 || frame.group != replay->last.group)
            replay->stats.groups++;
        any = true;
        size_t start = 0;
        if (frame.index == 0) {
            if (replay->in_run)
                damage_add(replay, offset - WAL_FRAME_BYTES,
                           1); /* the group before has no end: written wrong */
            run_end(replay);
        } else if (!replay->in_run || frame.group != replay->last.group ||
                   frame.index != replay->last.index + 1) {
            run_end(replay);
            replay->last = frame;
            if (frame.first_record == WAL_NO_RECORD)
                continue;
            start = frame.first_record;
        }
        replay->last = frame;
        TRY(frame_take(replay, &frame, offset, bytes, start));
    }
    if (replay->in_run)
        damage_add(replay, end - WAL_FRAME_BYTES, 1);
    if (to > end && end >= from)
        damage_add(replay, end, (to - end) / WAL_FRAME_BYTES); /* the file was cut short */
    else if (from > end)
        damage_add(replay, from, (to - from) / WAL_FRAME_BYTES);
out:
    run_end(replay);
    damage_log(replay);
    return status;
}

/* ---- The end of a segment
 * -------------------------------------------------------------------------------------- */

/* Behind the last byte of [from, frames_end) that is not zero; `from` if all are. */
static int nonzero_end(struct replay *replay, uint64_t from, uint64_t *out) {
    uint64_t last = from;
    for (uint64_t offset = from; offset < frames_end(replay); offset += WAL_FRAME_BYTES) {
        const uint8_t *bytes;
        int status = frame_at(replay, offset, &bytes);
        if (status < 0)
            return status;
        if (wal__bytes_zero(bytes, WAL_FRAME_BYTES))
            continue;
        size_t len = WAL_FRAME_BYTES;
        while (bytes[len - 1] == 0)
            len--;
        last = offset + len;
    }
    *out = last;
    return STATUS_OK;
}

/* The largest durable position that a valid frame of this segment tells of, as an offset; and the end of the
 * last valid frame. Both at least where reading begins. */
static int proven_end(struct replay *replay, uint64_t *durable_out, uint64_t *valid_out) {
    uint64_t durable = replay->begin, valid = replay->begin;
    for (uint64_t offset = replay->begin; offset < frames_end(replay); offset += WAL_FRAME_BYTES) {
        const uint8_t *bytes;
        int status = frame_at(replay, offset, &bytes);
        if (status < 0)
            return status;
        struct wal__frame frame;
        if (!wal__frame_read(bytes, &replay->segment->header, offset, &frame))
            continue;
        valid = offset + WAL_FRAME_BYTES;
        if (wal__position_segment(frame.durable) == replay->segment->header.number &&
            wal__position_offset(frame.durable) > durable)
            durable = wal__position_offset(frame.durable);
    }
    *durable_out = durable;
    *valid_out = valid;
    return STATUS_OK;
}

/* How many frames of the group at `start` are there in one piece; *whole_out: all of them. */
static int group_look(struct replay *replay, uint64_t start, uint64_t *frames_out, bool *whole_out) {
    struct wal__frame first = {0};
    uint64_t frames = 0;
    for (uint64_t offset = start; offset < frames_end(replay); offset += WAL_FRAME_BYTES) {
        const uint8_t *bytes;
        int status = frame_at(replay, offset, &bytes);
        if (status < 0)
            return status;
        struct wal__frame frame;
        if (!wal__frame_read(bytes, &replay->segment->header, offset, &frame) || frame.index != frames)
            break;
        if (frames == 0)
            first = frame;
        else if (frame.group != first.group || frame.count != first.count)
            break;
        if (++frames == first.count)
            break;
    }
    *frames_out = frames;
    *whole_out = frames > 0 && frames == first.count;
    return STATUS_OK;
}

/* ---- Torn tails
 * -------------------------------------------------------------------------------------------------- */

struct torn_names {
    char names[TORN_FILES_MAX][32]; /* the newest that were seen */
    size_t count;
    struct wal *wal;
};

/* Names come oldest first. Those that are pushed out by newer ones are removed. */
static int torn_name_add(void *context, const char *name) {
    struct torn_names *torn = context;
    if (strncmp(name, "torn-", 5) != 0 || strlen(name) >= sizeof torn->names[0])
        return STATUS_OK;
    if (torn->count == TORN_FILES_MAX) {
        char *path = wal__path(torn->wal, torn->names[0]);
        if (path != NULL)
            io_remove(torn->wal->io, path);
        mem_free(path);
        memmove(torn->names[0], torn->names[1], (TORN_FILES_MAX - 1) * sizeof torn->names[0]);
        torn->count--;
    }
    snprintf(torn->names[torn->count++], sizeof torn->names[0], "%s", name);
    return STATUS_OK;
}

/* A copy for people, at best effort: a full disk must not keep the log from opening. */
static void torn_keep(struct replay *replay, uint64_t from, uint64_t to) {
    struct wal *wal = replay->wal;
    struct io_file *file = NULL;
    char name[32];
    snprintf(name, sizeof name, "torn-%08x-%08x", replay->segment->header.number, (unsigned)from);
    int status = STATUS_NO_MEMORY;
    char *path = wal__path(wal, name);
    if (path == NULL)
        goto out;
    TRY(io_file_open(wal->io, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_TRUNCATE, NULL, &file));
    for (uint64_t offset = from; offset < to; offset += WAL_FRAME_BYTES) {
        const uint8_t *bytes;
        TRY(frame_at(replay, offset, &bytes));
        uint64_t left = to - offset;
        TRY(io_write(wal->io, file, offset - from, bytes,
                     left < WAL_FRAME_BYTES ? (size_t)left : WAL_FRAME_BYTES));
    }
    TRY(io_sync(wal->io, file));
    struct torn_names torn = {.wal = wal};
    TRY(io_list_dir(wal->io, wal->dir, torn_name_add, &torn));
out:
    if (status < 0)
        log_warn("the torn tail of the log could not be kept aside", LOG_STR("file", name),
                 LOG_STR("error", status_message(status)));
    io_file_close(wal->io, file);
    mem_free(path);
}

/* ---- Segments
 * ------------------------------------------------------------------------------------------------------ */

/* Reads what is behind the proven end of the last segment. The log ends at that end all the same: what is
 * delivered here is carried over (wal_start). Nothing is written over it: if its sync failed, the kernel may
 * call pages clean that it could not write; and if it was acknowledged, a write that is torn would lose it.
 * The sync is for the time until it is carried over, should the disk have no room for a new segment. */
static int tail_deliver(struct replay *replay, uint64_t proven) {
    uint64_t end = proven, frames, torn_end;
    bool whole;
    int status;
    replay->proven = false;
    for (;;) {
        TRY(group_look(replay, end, &frames, &whole));
        if (!whole)
            break;
        TRY(range_deliver(replay, end, end + frames * WAL_FRAME_BYTES));
        end += frames * WAL_FRAME_BYTES;
    }
    if (MUTATED(BELIEVE_TORN_TAIL) && frames > 0) {
        TRY(range_deliver(replay, end, end + frames * WAL_FRAME_BYTES));
        end += frames * WAL_FRAME_BYTES;
    }
    TRY(nonzero_end(replay, end, &torn_end));
    if (torn_end > end) {
        replay->stats.torn_tails++;
        replay->stats.torn_bytes += torn_end - end;
        log_warn("torn tail of the log cut: a group that was never acknowledged",
                 LOG_U64("segment", replay->segment->header.number), LOG_U64("offset", end),
                 LOG_U64("bytes", torn_end - end));
        if (!replay->wal->read_only)
            torn_keep(replay, end, torn_end);
    }
    if (end > proven && !replay->wal->read_only)
        (void)io_sync(replay->wal->io, replay->file);
    if (proven > WAL_DATA_OFFSET)
        replay->wal->durable = wal__position(replay->segment->header.number, proven);
out:
    if (status < 0)
        error_set(replay->detail, status, "reading the end of the log, %s: %s", io_file_path(replay->file),
                  status_message(status));
    return status;
}

/* Counts what was in a segment whose header is gone: without the salt nothing in it can be believed. */
static int unreadable_count(struct replay *replay, uint64_t known_end) {
    uint64_t offset = 0;
    replay->segment->header.segment_bytes = WAL_SEGMENT_BYTES_MAX;
    if (known_end == 0) {
        int status = nonzero_end(replay, 0, &known_end);
        if (status < 0)
            return status;
    }
    uint64_t frames = (known_end - offset + WAL_FRAME_BYTES - 1) / WAL_FRAME_BYTES;
    replay->stats.corrupt_frames += frames > 0 ? frames : 1;
    damage_tell(replay, replay->segment->header.number, 0, frames,
                "both headers are damaged: the segment is lost");
    log_error("a log segment's header is damaged: the segment is lost",
              LOG_STR("path", io_file_path(replay->file)), LOG_U64("frames", frames));
    return STATUS_OK;
}

/* Nothing tells how far the last segment went if the file is shorter than it was made. */
static void short_count(struct replay *replay) {
    const struct wal__segment *segment = replay->segment;
    if (segment->file_bytes >= segment->header.segment_bytes)
        return;
    uint64_t frames =
        (segment->header.segment_bytes - segment->file_bytes + WAL_FRAME_BYTES - 1) / WAL_FRAME_BYTES;
    replay->stats.cut_frames += frames;
    damage_tell(replay, segment->header.number, segment->file_bytes, frames, "the file was cut short");
    log_error("the last log segment was cut short", LOG_STR("path", io_file_path(replay->file)),
              LOG_U64("bytes", segment->file_bytes), LOG_U64("of", segment->header.segment_bytes));
}

/* `later`: the first segment behind this one that can be read, or NULL. */
static int segment_replay(struct replay *replay, struct wal__segment *segment,
                          const struct wal__segment *later) {
    struct wal *wal = replay->wal;
    uint32_t number = segment->header.number;
    wal_position told = later != NULL ? later->header.previous_end : 0;
    bool told_here = told != 0 && wal__position_segment(told) == number;
    bool never_used = later != NULL && (told == 0 || wal__position_segment(told) < number);
    if (never_used || number < wal__position_segment(replay->from) || (told_here && told <= replay->from))
        return STATUS_OK;

    replay->begin = WAL_DATA_OFFSET;
    if (number == wal__position_segment(replay->from) && wal__position_offset(replay->from) > WAL_DATA_OFFSET)
        replay->begin = wal__position_offset(replay->from);
    replay->segment = segment;
    replay->proven = true;
    replay->window_len = 0;
    replay->file_frames_end = (segment->file_bytes + WAL_FRAME_BYTES - 1) & ~(uint64_t)(WAL_FRAME_BYTES - 1);
    int status = STATUS_NO_MEMORY;
    char *path = wal__segment_path(wal, number);
    if (path == NULL) {
        error_set(replay->detail, status, "reading the log: out of memory");
        goto out;
    }
    TRY(io_file_open(wal->io, path, IO_OPEN_READ, replay->detail, &replay->file));
    if (!segment->readable) {
        TRY(unreadable_count(replay, told_here ? wal__position_offset(told) : 0));
        goto out;
    }
    if (segment->header_damage > 0) {
        replay->stats.corrupt_frames += segment->header_damage;
        damage_tell(replay, number, 0, segment->header_damage, "one of its two headers is damaged");
        log_error("a copy of a log segment's header is damaged", LOG_STR("path", path));
    }
    replay->stats.segments++;
    if (replay->sink->segment != NULL)
        TRY(replay->sink->segment(replay->sink->context, number));
    if (told_here) {
        TRY(range_deliver(replay, replay->begin, wal__position_offset(told)));
        wal->durable = told;
        goto out;
    }
    uint64_t proven, valid;
    TRY(proven_end(replay, &proven, &valid));
    if (later == NULL) {
        TRY(range_deliver(replay, replay->begin, proven));
        TRY(tail_deliver(replay, proven));
        short_count(replay);
    } else {
        /* closed, but its end is told in a damaged header */
        TRY(range_deliver(replay, replay->begin, valid));
        if (valid > WAL_DATA_OFFSET)
            wal->durable = wal__position(number, valid);
    }
out:
    io_file_close(wal->io, replay->file);
    replay->file = NULL;
    mem_free(path);
    return status;
}

static bool segment_is_there(const struct wal *wal, uint32_t number) {
    for (size_t i = 0; i < wal->segment_count; i++)
        if (wal->segments[i].header.number == number)
            return true;
    return false;
}

static void missing_tell(struct replay *replay, uint32_t number, uint64_t frames) {
    replay->stats.corrupt_frames += frames;
    damage_tell(replay, number, 0, frames, "the segment is missing");
    log_error("a log segment is missing", LOG_STR("dir", replay->wal->dir), LOG_U64("segment", number));
}

/* Segments that a header tells of, that reading begins in, or that the log has reached, and that are not
 * there. Those before the first are meant to be gone. */
static void missing_count(struct replay *replay) {
    const struct wal *wal = replay->wal;
    uint32_t counted = 0, first = wal__position_segment(replay->from);
    for (size_t i = 1; i < wal->segment_count; i++) {
        wal_position end = wal->segments[i].header.previous_end;
        uint32_t number = wal__position_segment(end);
        if (!wal->segments[i].readable || end == 0 || number <= wal->segments[0].header.number ||
            end <= replay->from || number == counted || segment_is_there(wal, number))
            continue;
        counted = number;
        missing_tell(replay, number, wal__position_offset(end) / WAL_FRAME_BYTES);
    }
    if (first != 0 && first != counted && !segment_is_there(wal, first))
        missing_tell(replay, first, 1);
    uint32_t last = wal->segment_count > 0 ? wal->segments[wal->segment_count - 1].header.number : 0;
    if (last < wal->number_reached && first != wal->number_reached)
        missing_tell(replay, wal->number_reached, 1);
}

int wal_replay(struct wal *wal, wal_position from, const struct wal_sink *sink, struct error_detail *detail,
               struct wal_replay_stats *stats_out) {
    struct replay replay = {.wal = wal, .sink = sink, .detail = detail, .from = from};
    buf_init(&replay.run);
    int status = STATUS_OK;
    replay.window = mem_alloc(WINDOW_BYTES);
    if (replay.window == NULL) {
        status = error_set(detail, STATUS_NO_MEMORY, "reading the log: out of memory");
        goto out;
    }
    for (size_t i = 0; i < wal->segment_count; i++) {
        const struct wal__segment *later = NULL;
        for (size_t j = i + 1; j < wal->segment_count && later == NULL; j++) {
            if (wal->segments[j].readable)
                later = &wal->segments[j];
        }
        TRY(segment_replay(&replay, &wal->segments[i], later));
    }
    /* A last segment without groups, or one that can't be read, leaves the end where the newest header told
     * it. */
    for (size_t i = 0; i < wal->segment_count; i++) {
        if (wal->segments[i].readable && wal->segments[i].header.previous_end > wal->durable)
            wal->durable = wal->segments[i].header.previous_end;
    }
    if (from > wal->durable) /* the end of a durable group */
        wal->durable = from;
    missing_count(&replay);
    metric_add(METRIC_wal_replay_torn, replay.stats.torn_tails);
    metric_add(METRIC_wal_replay_corrupt_frames, replay.stats.corrupt_frames + replay.stats.cut_frames);
    *stats_out = replay.stats;
out:
    buf_release(&replay.run);
    mem_free(replay.window);
    return status;
}
