/* frame_file.c: see frame_file.h and docs/format/snapshot.md. */
#include "storage/snapshot/frame_file.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/kill_point.h"

#define FRAME_MAGIC UINT32_C(0x4d524654) /* "TFRM" */

struct frame_writer {
    struct io *io;
    struct io_file *files[2];
    size_t file_count;
    uint64_t number;
    uint64_t offset;
};

static uint64_t padded(uint64_t bytes) {
    return (bytes + FRAME_ALIGN_BYTES - 1) & ~(uint64_t)(FRAME_ALIGN_BYTES - 1);
}

/* Of the head from its length on, and the payload. */
static uint32_t frame_crc(uint64_t number, uint64_t offset, const uint8_t *head, struct slice payload) {
    uint8_t place[16];
    store_u64(place, number);
    store_u64(place + 8, offset);
    return crc32c(crc32c(crc32c(0, place, sizeof place), head + 8, FRAME_HEAD_BYTES - 8), payload.data,
                  payload.len);
}

int frame_writer_open(struct io *io, const char *path, const char *path2, uint64_t number, uint64_t offset,
                      struct error_detail *detail, struct frame_writer **out) {
    int status = STATUS_OK;
    struct frame_writer *writer = mem_zalloc(sizeof *writer);
    if (writer == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "writing %s: out of memory", path);
    writer->io = io;
    writer->number = number;
    writer->offset = offset;
    unsigned flags = IO_OPEN_WRITE | (offset == 0 ? IO_OPEN_CREATE | IO_OPEN_TRUNCATE : 0);
    const char *paths[2] = {path, path2};
    for (size_t i = 0; i < 2 && paths[i] != NULL; i++) {
        TRY(io_file_open(io, paths[i], flags, detail, &writer->files[i]));
        writer->file_count = i + 1;
    }
    *out = writer;
    writer = NULL;
out:
    frame_writer_close(writer);
    return status;
}

int frame_writer_append(struct frame_writer *writer, uint32_t kind, struct slice payload,
                        struct error_detail *detail) {
    int status = STATUS_OK;
    if (payload.len > FRAME_PAYLOAD_MAX)
        return error_set(detail, STATUS_TOO_LARGE, "a frame of %zu bytes is too large", payload.len);
    size_t bytes = (size_t)padded(FRAME_HEAD_BYTES + payload.len);
    uint8_t *frame = mem_alloc(bytes);
    if (frame == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "writing a snapshot: out of memory");
    store_u32(frame, FRAME_MAGIC);
    store_u32(frame + 8, kind);
    store_u64(frame + 12, payload.len);
    store_u32(frame + 4, frame_crc(writer->number, writer->offset, frame, payload));
    if (payload.len > 0)
        memcpy(frame + FRAME_HEAD_BYTES, payload.data, payload.len);
    memset(frame + FRAME_HEAD_BYTES + payload.len, 0, bytes - FRAME_HEAD_BYTES - payload.len);
    for (size_t i = 0; i < writer->file_count; i++) {
        if (i > 0)
            KILL_POINT("labels_copied_once");
        status = io_write(writer->io, writer->files[i], writer->offset, frame, bytes);
        if (status < 0) {
            error_set(detail, status, "writing %s: %s", io_file_path(writer->files[i]),
                      status_message(status));
            break;
        }
    }
    if (status == STATUS_OK)
        writer->offset += bytes;
    mem_free(frame);
    return status;
}

int frame_writer_sync(struct frame_writer *writer, struct error_detail *detail) {
    for (size_t i = 0; i < writer->file_count; i++) {
        int status = io_sync(writer->io, writer->files[i]);
        if (status < 0)
            return error_set(detail, status, "syncing %s: %s", io_file_path(writer->files[i]),
                             status_message(status));
    }
    return STATUS_OK;
}

uint64_t frame_writer_bytes(const struct frame_writer *writer) {
    return writer->offset;
}

void frame_writer_close(struct frame_writer *writer) {
    if (writer == NULL)
        return;
    for (size_t i = 0; i < writer->file_count; i++)
        io_file_close(writer->io, writer->files[i]);
    mem_free(writer);
}

/* ---- reading ---- */

static int copy_open(struct io *io, const char *path, uint64_t end, struct error_detail *detail,
                     struct io_file **file, struct slice *bytes) {
    uint64_t size = 0;
    int status = io_file_open(io, path, IO_OPEN_READ, detail, file);
    if (status == STATUS_OK)
        status = io_file_size(io, *file, &size);
    if (status == STATUS_OK)
        status = io_map(io, *file, 0, (size_t)(size < end ? size : end), bytes);
    if (status < 0)
        error_set(detail, status, "reading %s: %s", path, status_message(status));
    return status;
}

int frame_reader_open(struct io *io, const char *path, const char *path2, uint64_t number, uint64_t end,
                      struct error_detail *detail, struct frame_reader *out) {
    struct frame_reader reader = {.io = io, .number = number, .end = end};
    struct error_detail first = {0}, second = {0};
    int status = copy_open(io, path, end, &first, &reader.file, &reader.bytes), status2 = STATUS_NOT_FOUND;
    if (path2 != NULL)
        status2 = copy_open(io, path2, end, &second, &reader.file2, &reader.bytes2);
    if (status == STATUS_NOT_FOUND && status2 == STATUS_OK)
        status = STATUS_OK;
    if (status == STATUS_OK && status2 < 0 && status2 != STATUS_NOT_FOUND) {
        status = status2;
        first = second;
    }
    if (status < 0) {
        frame_reader_close(&reader);
        return error_set(detail, status, "%s", first.text);
    }
    *out = reader;
    return STATUS_OK;
}

void frame_reader_close(struct frame_reader *reader) {
    io_unmap(reader->io, reader->bytes);
    io_unmap(reader->io, reader->bytes2);
    io_file_close(reader->io, reader->file);
    io_file_close(reader->io, reader->file2);
    *reader = (struct frame_reader){0};
}

static bool frame_at(const struct frame_reader *reader, struct slice bytes, uint64_t offset, uint32_t *kind,
                     struct slice *payload) {
    if (offset > bytes.len || bytes.len - offset < FRAME_HEAD_BYTES)
        return false;
    const uint8_t *head = bytes.data + offset;
    uint64_t len = load_u64(head + 12);
    if (load_u32(head) != FRAME_MAGIC || len > FRAME_PAYLOAD_MAX ||
        len > bytes.len - offset - FRAME_HEAD_BYTES)
        return false;
    struct slice found = slice_of(head + FRAME_HEAD_BYTES, (size_t)len);
    if (load_u32(head + 4) != frame_crc(reader->number, offset, head, found))
        return false;
    *kind = load_u32(head + 8);
    *payload = found;
    return true;
}

/* What is behind a frame's payload is under no checksum, and nobody reads it. */
static void tail_look(struct slice bytes, size_t payload_len, struct frame_damage *damage) {
    uint64_t begin = damage->offset + FRAME_HEAD_BYTES + payload_len;
    uint64_t end = damage->offset + padded(FRAME_HEAD_BYTES + payload_len);
    if (end > bytes.len) {
        damage->what = "the file ends early";
        return;
    }
    for (uint64_t i = begin; i < end && !damage->harmless; i++)
        damage->harmless = bytes.data[i] != 0;
    if (damage->harmless)
        damage->what = "frame: what is behind it is not zero";
}

/* `whole`: which of the copies have a frame at reader->offset, and its payload. */
static void copies_tell(const struct frame_reader *reader, const bool whole[2],
                        const struct slice payloads[2]) {
    const struct io_file *files[2] = {reader->file, reader->file2};
    const struct slice bytes[2] = {reader->bytes, reader->bytes2};
    for (unsigned copy = 0; copy < 2; copy++) {
        struct frame_damage damage = {.copy = copy, .offset = reader->offset};
        if (files[copy] == NULL)
            continue;
        damage.lost = !whole[0] && !whole[1];
        if (whole[copy])
            tail_look(bytes[copy], payloads[copy].len, &damage);
        else
            damage.what = reader->offset >= bytes[copy].len ? "the file ends early" : "frame: wrong checksum";
        if (damage.what != NULL)
            reader->each(reader->context, &damage);
    }
}

int frame_reader_next(struct frame_reader *reader, uint32_t *kind_out, struct slice *payload_out) {
    bool lost = false;
    for (; reader->offset < reader->end; reader->offset += FRAME_ALIGN_BYTES) {
        uint32_t kinds[2];
        struct slice payloads[2];
        bool whole[2] = {frame_at(reader, reader->bytes, reader->offset, &kinds[0], &payloads[0]), false};
        if (!whole[0] || reader->each != NULL)
            whole[1] = frame_at(reader, reader->bytes2, reader->offset, &kinds[1], &payloads[1]);
        bool found = whole[0] || whole[1];
        if (reader->each != NULL && (found || !lost))
            copies_tell(reader, whole, payloads);
        if (!found) {
            reader->damaged += !lost;
            lost = true;
            continue;
        }
        unsigned from = whole[0] ? 0 : 1;
        *kind_out = kinds[from];
        *payload_out = payloads[from];
        reader->repaired += from;
        reader->at = reader->offset;
        reader->offset += padded(FRAME_HEAD_BYTES + payload_out->len);
        return STATUS_OK;
    }
    return STATUS_END;
}
