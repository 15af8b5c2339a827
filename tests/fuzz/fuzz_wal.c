/* fuzz_wal.c: any bytes as the frames of a log segment, replayed. Checksums are put right, or the fuzzer
 * would never get behind them.
 *
 * Checks: nothing is read out of bounds (each delivered byte is touched, and decoded as the record it claims
 * to be); groups come in order and inside the file; no more bytes come out than went in; and a restart
 * changes nothing: once the log went on in a new segment, a second replay delivers the same records.
 *
 * Input: one byte of options, then for each frame: kind, then as the kind says. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/io/io.h"
#include "storage/wal/wal.h"
#include "storage/wal/wal_private.h"
#include "storage/wal/wal_record.h"

#define FRAMES_MAX 24

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/dev/shm/tidalite-fuzz-wal-XXXXXX";
static struct io *io;

static _Noreturn void finding(const char *what) {
    fprintf(stderr, "finding: %s\n", what);
    abort();
}

static int remove_each(void *context, const char *name) {
    (void)context;
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return unlink(path);
}

static void clean_up(void) {
    io_list_dir(io, dir, remove_each, NULL);
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (mkdtemp(dir) == NULL || io_open(IO_BACKEND_SYSCALL, NULL, &io) != STATUS_OK)
        abort();
    atexit(clean_up);
    return 0;
}

/* ---- What replay delivers
 * ------------------------------------------------------------------------------------ */

struct seen {
    uint32_t crc; /* of all records */
    uint64_t bytes;
    uint64_t records;
    wal_position position;
    uint32_t segment;
    struct buf tail;
};

static int on_segment(void *context, uint32_t number) {
    struct seen *seen = context;
    if (number <= seen->segment)
        finding("segments out of order");
    seen->segment = number;
    return STATUS_OK;
}

static void decode(enum wal_record_type type, struct slice payload) {
    uint32_t slot;
    if (type == WAL_RECORD_SERIES) {
        struct wal_series_reader reader;
        uint64_t id;
        struct slice labels;
        if (wal_series_reader_init(&reader, payload) == STATUS_OK) {
            while (wal_series_reader_next(&reader, &slot, &id, &labels) == STATUS_OK) {
                if (labels.data < payload.data || labels.data + labels.len > payload.data + payload.len)
                    finding("labels outside of their record");
            }
        }
        return;
    }
    struct wal_samples_reader reader;
    struct sample sample;
    int64_t start_ms;
    if (wal_samples_reader_init(&reader, payload) == STATUS_OK) {
        while (wal_samples_reader_next(&reader, &slot, &sample, &start_ms) == STATUS_OK)
            continue;
    }
}

static int on_record(void *context, wal_position position, bool proven, enum wal_record_type type,
                     struct slice payload) {
    struct seen *seen = context;
    if (position < seen->position || position >> 32 != seen->segment)
        finding("groups out of order");
    if ((uint32_t)position < WAL_DATA_OFFSET || (uint32_t)position % WAL_FRAME_BYTES != 0)
        finding("a group where none can be");
    seen->position = position;
    seen->crc = crc32c(seen->crc, payload.data, payload.len);
    seen->crc = crc32c(seen->crc, &type, sizeof type);
    seen->bytes += payload.len;
    seen->records++;
    decode(type, payload);
    if (seen->tail.len > 0 && proven)
        finding("something proven behind what is not");
    if (!proven) { /* as the storage does: kept, and carried over to the next segment */
        uint32_t head[2] = {(uint32_t)type, (uint32_t)payload.len};
        buf_append(&seen->tail, head, sizeof head);
        buf_append(&seen->tail, payload.data, payload.len);
    }
    return STATUS_OK;
}

static struct wal *replay(struct seen *seen) {
    struct wal_options options = {.io = io, .dir = dir, .segment_bytes = 3 * WAL_FRAME_BYTES, .seed = 5};
    struct wal_sink sink = {on_segment, on_record, seen, NULL};
    struct wal_replay_stats stats;
    struct wal *wal;
    if (wal_open(&options, NULL, &wal) != STATUS_OK)
        return NULL; /* a newer version */
    int status = wal_replay(wal, 0, &sink, NULL, &stats);
    if (status != STATUS_OK)
        finding("replay failed");
    if (stats.records != seen->records || stats.bytes != seen->bytes)
        finding("counts differ");
    return wal;
}

/* ---- Making a segment out of the input
 * --------------------------------------------------------------------------- */

struct input {
    const uint8_t *next, *end;
};

static uint32_t take(struct input *input, size_t bytes) {
    uint32_t v = 0;
    for (size_t i = 0; i < bytes && input->next < input->end; i++)
        v |= (uint32_t)*input->next++ << 8 * i;
    return v;
}

static size_t take_bytes(struct input *input, uint8_t *out, size_t len) {
    size_t left = (size_t)(input->end - input->next);
    if (len > left)
        len = left;
    if (len > 0)
        memcpy(out, input->next, len);
    input->next += len;
    return len;
}

enum {
    KIND_NEXT,   /* the next frame of the current group, or the first of a new one: all fields right */
    KIND_FIELDS, /* any fields, right checksum */
    KIND_RAW,    /* any bytes */
    KIND_ZERO,   /* never written */
    KIND_FULL,   /* as NEXT, with a full payload: the input's bytes, again and again */
    KIND_COUNT
};

struct build {
    uint32_t group, index, count;
    uint64_t start;
};

static void frame_build(struct input *input, struct build *build, const struct wal__header *header,
                        uint64_t offset, uint8_t *out) {
    uint8_t kind = (uint8_t)take(input, 1) % KIND_COUNT;
    if (kind == KIND_ZERO)
        return;
    if (kind == KIND_RAW) {
        take_bytes(input, out, take(input, 2) % (WAL_FRAME_BYTES + 1));
        return;
    }
    if (build->index == build->count) {
        build->group++;
        build->index = 0;
        build->count = 1 + take(input, 1) % 4;
        build->start = offset;
    }
    struct wal__frame frame = {
        .first_record = build->index == 0 ? 0 : (uint16_t)take(input, 2),
        .group = build->group,
        .index = build->index,
        .count = build->count,
        .durable = wal__position(header->number, build->start),
    };
    if (build->start == WAL_DATA_OFFSET)
        frame.durable = header->previous_end;
    build->index++;
    size_t len = take(input, 2) % (WAL_FRAME_PAYLOAD + 1);
    uint8_t *payload = out + WAL_FRAME_HEAD;
    if (kind == KIND_FULL) {
        size_t got = take_bytes(input, payload, len);
        for (size_t i = got; i < WAL_FRAME_PAYLOAD && got > 0; i++)
            payload[i] = payload[i - got];
        len = WAL_FRAME_PAYLOAD;
    } else {
        take_bytes(input, payload, len);
        if (len == 0)
            len = 1;
        if (frame.index + 1 < frame.count)
            len = WAL_FRAME_PAYLOAD;
    }
    if (frame.first_record >= len)
        frame.first_record = WAL_NO_RECORD;
    frame.payload_len = (uint16_t)len;
    uint8_t sealed[WAL_FRAME_BYTES];
    memcpy(sealed, out, sizeof sealed);
    if (kind == KIND_FIELDS) {
        take_bytes(input, sealed + 4, WAL_FRAME_HEAD - 4);
    } else {
        store_u16(sealed + 4, frame.payload_len);
        store_u16(sealed + 6, frame.first_record);
        store_u32(sealed + 8, frame.group);
        store_u32(sealed + 12, frame.index);
        store_u32(sealed + 16, frame.count);
        store_u64(sealed + 24, frame.durable);
    }
    uint8_t seed[16];
    store_u64(seed, header->salt);
    store_u64(seed + 8, wal__position(header->number, offset));
    store_u32(sealed, crc32c(crc32c(0, seed, sizeof seed), sealed + 4, WAL_FRAME_BYTES - 4));
    memcpy(out, sealed, sizeof sealed);
}

static size_t segment_build(struct input *input, const struct wal__header *header, bool headers_raw,
                            uint8_t *out) {
    wal__header_write(header, out);
    if (headers_raw) { /* damaged in one copy or both, one of them with a right checksum */
        take_bytes(input, out + take(input, 2) % WAL_FRAME_BYTES, 16);
        take_bytes(input, out + WAL_FRAME_BYTES + 8, 40);
        store_u32(out + WAL_DATA_OFFSET - 4, crc32c(0, out + WAL_FRAME_BYTES, WAL_FRAME_BYTES - 4));
    }
    struct build build = {0};
    size_t len = WAL_DATA_OFFSET;
    while (input->next < input->end && len < header->segment_bytes) {
        frame_build(input, &build, header, len, out + len);
        len += WAL_FRAME_BYTES;
    }
    return len;
}

static void file_write(uint32_t number, const uint8_t *data, size_t len) {
    char path[256];
    snprintf(path, sizeof path, "%s/%08x.log", dir, number);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t bytes[FRAMES_MAX * WAL_FRAME_BYTES];
    struct input input = {data, data + size};
    uint32_t options = take(&input, 1);
    io_list_dir(io, dir, remove_each, NULL);
    uint32_t segments = options & 1 ? 2 : 1;
    uint64_t len_all = 0;
    wal_position previous = 0;
    for (uint32_t number = 1; number <= segments; number++) {
        memset(bytes, 0, sizeof bytes);
        struct wal__header header = {
            .number = number, .segment_bytes = sizeof bytes, .salt = 77, .previous_end = previous};
        struct input half = input;
        if (segments == 2 && number == 1)
            half.end = half.next + (half.end - half.next) / 2;
        input.next = half.end;
        size_t len = segment_build(&half, &header, options & 2, bytes);
        if (options & 4 && len > WAL_DATA_OFFSET)
            len -= data[size - 1]; /* cut inside a frame */
        file_write(number, bytes, len);
        len_all += len;
        uint64_t end = WAL_DATA_OFFSET + (uint64_t)(1 + options / 8 % 8) * WAL_FRAME_BYTES;
        previous = options & 64 ? wal__position(number, end) : 0;
    }

    struct seen first = {0}, second = {0};
    struct wal *wal = replay(&first);
    if (wal == NULL) {
        buf_release(&first.tail);
        return 0;
    }
    if (first.bytes > len_all)
        finding("more came out than went in");
    if (first.tail.len > 0)
        wal_group_begin(wal);
    for (size_t at = 0; at < first.tail.len;) {
        uint32_t head[2];
        memcpy(head, first.tail.data + at, sizeof head);
        at += sizeof head;
        if (wal_group_append(wal, (enum wal_record_type)head[0], slice_of(first.tail.data + at, head[1])) < 0)
            finding("could not carry over");
        at += head[1];
    }
    if (wal_start(wal, NULL) != STATUS_OK)
        finding("could not go on");
    wal_close(wal);
    wal = replay(&second);
    if (wal == NULL)
        finding("could not be opened again");
    if (first.crc != second.crc || first.records != second.records)
        finding("a restart changed what the log says");
    wal_close(wal);
    buf_release(&first.tail);
    buf_release(&second.tail);
    return 0;
}
