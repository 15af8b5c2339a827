/* wal_private.h: what the files of storage/wal share: the frame format in C, and the log itself. The byte
 * tables and the rules are in docs/format/log.md; this file and wal_frame.c are their only reader and writer.
 */
#ifndef TIDALITE_STORAGE_WAL_PRIVATE_H
#define TIDALITE_STORAGE_WAL_PRIVATE_H

#include "base/rand.h"
#include "storage/wal/wal.h"

#define WAL_VERSION       1
#define WAL_FRAME_BYTES   ((size_t)4096)
#define WAL_FRAME_HEAD    ((size_t)32)
#define WAL_FRAME_PAYLOAD (WAL_FRAME_BYTES - WAL_FRAME_HEAD)
#define WAL_DATA_OFFSET   ((size_t)WAL_HEADER_BYTES) /* behind the two copies of the header */
_Static_assert(WAL_HEADER_BYTES == 2 * WAL_FRAME_BYTES, "two copies, a frame each");
#define WAL_NO_RECORD UINT16_C(0xffff)
/* Offsets are 32 bits of a wal_position. */
#define WAL_SEGMENT_BYTES_MAX (((uint64_t)1 << 32) - WAL_FRAME_BYTES)

/* "type, length" before a record's payload. */
#define WAL_RECORD_HEAD_MAX ((size_t)20)

/* The segment that a start or a recovery has to wait for is no larger than this; the usual size comes by the
 * next roll. */
#define WAL_FIRST_SEGMENT_BYTES ((uint64_t)8 << 20)

#define WAL_SLICE_BYTES ((size_t)1 << 20)

#define WAL_RETRY_MS_MIN 100
#define WAL_RETRY_MS_MAX 5000

static inline wal_position wal__position(uint32_t segment, uint64_t offset) {
    return (uint64_t)segment << 32 | offset;
}

static inline uint32_t wal__position_segment(wal_position position) {
    return (uint32_t)(position >> 32);
}

static inline uint64_t wal__position_offset(wal_position position) {
    return position & UINT32_MAX;
}

struct wal__header {
    uint32_t number;
    uint64_t segment_bytes;
    uint64_t salt;
    wal_position previous_end; /* the end of the last durable group before this segment; 0: there was none */
};

/* Writes both copies: WAL_DATA_OFFSET bytes at `out`. */
void wal__header_write(const struct wal__header *header, uint8_t *out);

/* Reads one copy (WAL_FRAME_BYTES bytes): STATUS_OK, STATUS_CORRUPT, or STATUS_NEWER_FORMAT for a whole
 * header of a version or frame size that this program does not know. */
int wal__header_read(const uint8_t *frame, struct wal__header *out);

struct wal__frame {
    uint16_t payload_len;
    uint16_t first_record; /* offset in the payload, or WAL_NO_RECORD */
    uint32_t group;        /* number in the segment */
    uint32_t index;        /* of this frame in its group */
    uint32_t count;        /* frames of the group */
    wal_position durable;  /* before the group */
};

/* Fills in the head of the frame at `out`, whose payload is there already, and zeroes what is behind the
 * payload. */
void wal__frame_seal(const struct wal__frame *frame, const struct wal__header *header, uint64_t offset,
                     uint8_t *out);

/* Is this a frame of that segment at that offset? All rules of docs/format/log.md. */
bool wal__frame_read(const uint8_t *bytes, const struct wal__header *header, uint64_t offset,
                     struct wal__frame *out);

/* Is everything zero? `len` is a multiple of 8. */
bool wal__bytes_zero(const uint8_t *bytes, size_t len);

struct wal__segment {
    struct wal__header header; /* number is set even if the header is not readable */
    bool readable;             /* a copy of the header is valid */
    uint32_t header_damage;    /* damaged copies */
    uint64_t file_bytes;
};

struct wal {
    struct io *io;
    char *dir;
    uint64_t segment_bytes;
    bool read_only;
    struct rand rand;
    enum wal_state state;
    bool started;
    bool carries; /* the group is carried over from before the start: the next segment is born with it */
    uint32_t number_reached; /* the segment that others know the log to have reached */
    uint32_t number_max;     /* highest segment number that was ever seen or tried */

    struct wal__segment *segments; /* ascending numbers, the current one last */
    size_t segment_count;
    size_t segment_capacity;

    wal_position durable;

    struct io_file *file; /* the current segment; NULL after a failure */
    struct wal__header header;
    uint64_t offset; /* where the next group goes */
    uint32_t group_number;

    uint8_t *group; /* frames being built or in flight */
    size_t group_capacity;
    size_t group_frames;
    size_t group_used; /* payload bytes in the last frame */

    struct io_commit commit;
    void (*done)(void *context, int status);
    void *done_context;

    struct io_file *next; /* the segment being pre-created; its name is next.tmp */
    uint64_t next_filled;
    bool next_synced;
    bool fill_failed; /* pre-creating waits since fill_failed_ms */
    int64_t fill_failed_ms;

    int64_t retry_delay_ms;
    int64_t retry_at_ms;
    bool retry_set; /* retry_at_ms is from a tick after the failure */
};

/* "<dir>/<name>", mem_free it; NULL without memory. */
char *wal__path(const struct wal *wal, const char *name);
char *wal__segment_path(const struct wal *wal, uint32_t number);

/* Adds behind the others. */
int wal__segment_add(struct wal *wal, const struct wal__segment *segment);

#endif
