/* log_read.h: a log read without writing to it, its records taken apart: what `verify` and `inspect wal` look
 * at. */
#ifndef TIDALITE_TOOLS_LOG_READ_H
#define TIDALITE_TOOLS_LOG_READ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/batch.h"
#include "storage/io/io.h"
#include "storage/tombstone/tombstone.h"
#include "storage/wal/wal.h"
#include "storage/wal/wal_record.h"

/* Each may be NULL but `damage`; a negative return stops and is returned. Patterns of a tombstone are not
 * compiled: it matches nothing. */
struct log_sink {
    int (*segment)(void *context, uint32_t number);
    int (*record)(void *context, wal_position position, bool proven, enum wal_record_type type, size_t bytes);
    int (*series)(void *context, uint32_t slot, uint64_t id, struct slice labels);
    int (*sample)(void *context, uint32_t slot, struct sample sample);
    int (*tombstone)(void *context, const struct tombstone *tombstone);
    int (*record_end)(void *context, enum wal_record_type type); /* of one that could be read */
    /* Frames, or a record that can't be read though its frames are whole (`frames` 1). */
    void (*damage)(void *context, uint32_t segment, uint64_t offset, uint64_t frames, const char *what);
    void *context;
};

/* The log in the directory `dir`, known to have reached `reached` (0: nothing is known). STATUS_NOT_FOUND too
 * if a segment vanished meanwhile: who uses the directory had no need of it any more. */
int log_read(struct io *io, const char *dir, wal_position reached, const struct log_sink *sink,
             struct error_detail *detail, struct wal_replay_stats *stats_out);

#endif
