/* frame_file.h: files of checksummed frames, written once from front to back, or appended to: what a snapshot
 * and its labels are kept in.
 *
 * A frame begins at a multiple of 4096 bytes: magic, CRC-32C seeded by the file's number and the offset,
 * kind, length, payload, zeros up to the next multiple. A reader that meets a damaged frame finds the next
 * one by looking at each multiple. Byte table: docs/format/snapshot.md. */
#ifndef TIDALITE_STORAGE_FRAME_FILE_H
#define TIDALITE_STORAGE_FRAME_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "base/status.h"
#include "storage/io/io.h"

#define FRAME_ALIGN_BYTES 4096
#define FRAME_HEAD_BYTES  20
#define FRAME_PAYLOAD_MAX ((size_t)64 << 20)

/* ---- writing; blocks ---- */

struct frame_writer;

/* Makes the file anew (offset 0), or goes on at `offset` of one that is there: what is behind counts for
 * nothing. `number` is never used for another file. Paths are copied. With `path2` each frame is written to
 * both files. */
int frame_writer_open(struct io *io, const char *path, const char *path2, uint64_t number, uint64_t offset,
                      struct error_detail *detail, struct frame_writer **out);

/* Appends a frame; not durable before frame_writer_sync. STATUS_TOO_LARGE above FRAME_PAYLOAD_MAX. */
int frame_writer_append(struct frame_writer *writer, uint32_t kind, struct slice payload,
                        struct error_detail *detail);

int frame_writer_sync(struct frame_writer *writer, struct error_detail *detail);

/* Where the next frame goes: the length that counts. */
uint64_t frame_writer_bytes(const struct frame_writer *writer);

void frame_writer_close(struct frame_writer *writer); /* NULL is fine */

/* ---- reading ---- */

/* What is wrong with one copy. */
struct frame_damage {
    unsigned copy; /* 0 or 1 */
    uint64_t offset;
    const char *what;
    bool lost;     /* the other copy does not have it either, or there is none */
    bool harmless; /* bytes that nobody reads */
};

struct frame_reader {
    struct io *io;
    struct io_file *file, *file2;
    struct slice bytes, bytes2; /* mapped */
    uint64_t number;
    uint64_t end; /* of what counts */
    uint64_t offset;
    uint64_t at;       /* offset of the frame that was given out last */
    uint64_t damaged;  /* frames, or runs of bytes, that no copy had */
    uint64_t repaired; /* those that only one of two copies had */

    /* If set before the first frame_reader_next: both copies are looked at, all of them, and this is told. */
    void (*each)(void *context, const struct frame_damage *damage);
    void *context;
};

/* Maps the file, of which the first `end` bytes count, and its second copy if `path2` is given. One copy may
 * be missing. STATUS_NOT_FOUND, STATUS_IO, STATUS_NO_MEMORY. */
int frame_reader_open(struct io *io, const char *path, const char *path2, uint64_t number, uint64_t end,
                      struct error_detail *detail, struct frame_reader *out);
void frame_reader_close(struct frame_reader *reader);

/* The next frame that is whole; STATUS_END behind the last one. The payload is borrowed until close. What is
 * damaged is passed over and counted. */
int frame_reader_next(struct frame_reader *reader, uint32_t *kind_out, struct slice *payload_out);

#endif
