/* log_read.c: see log_read.h. */
#include "tools/log_read.h"

static int series_read(const struct log_sink *sink, struct slice payload) {
    struct wal_series_reader reader;
    int status = wal_series_reader_init(&reader, payload);
    while (status == STATUS_OK) {
        uint32_t slot;
        uint64_t id;
        struct slice labels;
        status = wal_series_reader_next(&reader, &slot, &id, &labels);
        if (status == STATUS_OK && sink->series != NULL)
            status = sink->series(sink->context, slot, id, labels);
    }
    return status;
}

static int samples_read(const struct log_sink *sink, struct slice payload) {
    struct wal_samples_reader reader;
    int status = wal_samples_reader_init(&reader, payload);
    while (status == STATUS_OK) {
        uint32_t slot;
        struct sample sample;
        int64_t start_ms;
        status = wal_samples_reader_next(&reader, &slot, &sample, &start_ms);
        if (status == STATUS_OK && sink->sample != NULL)
            status = sink->sample(sink->context, slot, sample);
    }
    return status;
}

static int pattern_none(struct slice text, const struct matcher_pattern **out) {
    (void)text;
    *out = NULL;
    return STATUS_OK;
}

static void pattern_free(const struct matcher_pattern *pattern) {
    (void)pattern;
}

static int delete_read(const struct log_sink *sink, wal_position position, struct slice payload) {
    static const struct matcher_compiler compiler = {pattern_none, pattern_free};
    struct tombstone *tombstone;
    int status = tombstone_new(payload, position, &compiler, &tombstone);
    if (status < 0)
        return status;
    if (sink->tombstone != NULL)
        status = sink->tombstone(sink->context, tombstone);
    tombstone_unref(tombstone);
    return status < 0 ? status : STATUS_END;
}

static int on_segment(void *context, uint32_t number) {
    const struct log_sink *sink = context;
    return sink->segment != NULL ? sink->segment(sink->context, number) : STATUS_OK;
}

static int on_record(void *context, wal_position position, bool proven, enum wal_record_type type,
                     struct slice payload) {
    const struct log_sink *sink = context;
    int status = STATUS_OK;
    if (sink->record != NULL)
        status = sink->record(sink->context, position, proven, type, payload.len);
    if (status < 0)
        return status;
    status = type == WAL_RECORD_SERIES    ? series_read(sink, payload)
             : type == WAL_RECORD_SAMPLES ? samples_read(sink, payload)
                                          : delete_read(sink, position, payload);
    if (status == STATUS_CORRUPT)
        sink->damage(sink->context, (uint32_t)(position >> 32), position & UINT32_MAX, 1,
                     "a record of this group can't be read");
    else if (status >= 0 && sink->record_end != NULL)
        return sink->record_end(sink->context, type);
    return status < 0 && status != STATUS_CORRUPT ? status : STATUS_OK;
}

static void on_damage(void *context, uint32_t segment, uint64_t offset, uint64_t frames, const char *what) {
    const struct log_sink *sink = context;
    sink->damage(sink->context, segment, offset, frames, what);
}

int log_read(struct io *io, const char *dir, wal_position reached, const struct log_sink *sink,
             struct error_detail *detail, struct wal_replay_stats *stats_out) {
    const struct wal_options options = {
        .io = io, .dir = dir, .segment_bytes = (uint64_t)1 << 20, .read_only = true};
    const struct wal_sink inner = {on_segment, on_record, (void *)(uintptr_t)sink, on_damage};
    struct wal *wal;
    int status = wal_open(&options, detail, &wal);
    if (status < 0)
        return status;
    wal_reached(wal, reached);
    status = wal_replay(wal, 0, &inner, detail, stats_out);
    wal_close(wal);
    return status;
}
