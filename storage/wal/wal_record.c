/* wal_record.c: the payloads of SERIES and SAMPLES records. Their bytes come back after a checksum was
 * verified, and are checked all the same: a reader never goes beyond them, whatever they say. */
#include "storage/wal/wal_record.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/label.h"

#define FLAG_STARTS 1

/* slot, time, value, start */
#define SAMPLE_BYTES_MAX (3 * VARINT_BYTES_MAX + 8)
/* 1-byte varints for slot and time */
#define SAMPLE_BYTES_MIN (2 + 8)

/* The code of a start timestamp: 0 for none, else one more than the zigzagged difference to the time.
 * START_NONE itself is a time stamp (1970) that can't be told from "none", so the difference that would give
 * it, zigzag(time), is never used: the differences above it keep their number, and all 2^64 fit without
 * overflow. */
static uint64_t start_encode(int64_t time_ms, int64_t start_ms) {
    if (start_ms == START_NONE)
        return 0;
    uint64_t code = zigzag((int64_t)((uint64_t)time_ms - (uint64_t)start_ms));
    return code < zigzag(time_ms) ? code + 1 : code;
}

static int64_t start_decode(int64_t time_ms, uint64_t code) {
    if (code == 0)
        return START_NONE;
    uint64_t difference = code <= zigzag(time_ms) ? code - 1 : code;
    return (int64_t)((uint64_t)time_ms - (uint64_t)unzigzag(difference));
}

void wal_record_samples_write(struct buf *buf, const uint32_t *slots, const struct sample *samples,
                              const int64_t *starts_ms, size_t count) {
    ASSERT(count > 0);
    uint8_t *p = buf_reserve(buf, 3 * VARINT_BYTES_MAX);
    if (p == NULL)
        return;
    uint8_t *begin = p;
    p = varint_write(p, starts_ms != NULL ? FLAG_STARTS : 0);
    p = varint_write(p, count);
    p = varint_write(p, zigzag(samples[0].time_ms));
    buf->len += (size_t)(p - begin);
    int64_t slot = -1, time_ms = samples[0].time_ms;
    enum { BLOCK = 128 }; /* room is asked for many samples at once */
    for (size_t first = 0; first < count; first += BLOCK) {
        size_t end = count - first < BLOCK ? count : first + BLOCK;
        p = buf_reserve(buf, (end - first) * SAMPLE_BYTES_MAX);
        if (p == NULL)
            return;
        begin = p;
        for (size_t i = first; i < end; i++) {
            p = varint_write(p, zigzag((int64_t)slots[i] - slot - 1));
            p = varint_write(p, zigzag((int64_t)((uint64_t)samples[i].time_ms - (uint64_t)time_ms)));
            store_u64(p, samples[i].value_bits);
            p += 8;
            if (starts_ms != NULL)
                p = varint_write(p, start_encode(samples[i].time_ms, starts_ms[i]));
            slot = slots[i];
            time_ms = samples[i].time_ms;
        }
        buf->len += (size_t)(p - begin);
    }
}

void wal_record_series_begin(struct buf *buf, size_t count) {
    uint8_t *p = buf_reserve(buf, VARINT_BYTES_MAX);
    if (p != NULL)
        buf->len += (size_t)(varint_write(p, count) - p);
}

void wal_record_series_write(struct buf *buf, uint32_t slot, uint64_t id, struct slice labels) {
    uint8_t *p = buf_reserve(buf, 3 * VARINT_BYTES_MAX + labels.len);
    if (p == NULL)
        return;
    uint8_t *begin = p;
    p = varint_write(p, slot);
    p = varint_write(p, id);
    p = varint_write(p, labels.len);
    if (labels.len > 0)
        memcpy(p, labels.data, labels.len);
    buf->len += (size_t)(p - begin) + labels.len;
}

/* ---- Readers ---------------------------------------------------------------------------------------------
 */

int wal_series_reader_init(struct wal_series_reader *reader, struct slice payload) {
    const uint8_t *end = payload.data + payload.len;
    uint64_t count;
    const uint8_t *p = varint_read(payload.data, end, &count);
    if (p == NULL || count > (size_t)(end - p) / 3)
        return STATUS_CORRUPT;
    *reader = (struct wal_series_reader){p, end, count};
    return STATUS_OK;
}

int wal_series_reader_next(struct wal_series_reader *reader, uint32_t *slot, uint64_t *id,
                           struct slice *labels) {
    const uint8_t *p = reader->next;
    if (reader->left == 0)
        return p == reader->end ? STATUS_END : STATUS_CORRUPT;
    uint64_t slot_read, id_read, len;
    if ((p = varint_read(p, reader->end, &slot_read)) == NULL || slot_read > UINT32_MAX)
        return STATUS_CORRUPT;
    if ((p = varint_read(p, reader->end, &id_read)) == NULL)
        return STATUS_CORRUPT;
    if ((p = varint_read(p, reader->end, &len)) == NULL || len > (size_t)(reader->end - p))
        return STATUS_CORRUPT;
    struct slice labels_read = slice_of(p, (size_t)len);
    if (!label_bytes_well_formed(labels_read))
        return STATUS_CORRUPT;
    *slot = (uint32_t)slot_read;
    *id = id_read;
    *labels = labels_read;
    reader->next = p + len;
    reader->left--;
    return STATUS_OK;
}

int wal_samples_reader_init(struct wal_samples_reader *reader, struct slice payload) {
    const uint8_t *p = payload.data, *end = payload.data + payload.len;
    uint64_t flags, count, base;
    if ((p = varint_read(p, end, &flags)) == NULL || flags > FLAG_STARTS)
        return STATUS_CORRUPT;
    if ((p = varint_read(p, end, &count)) == NULL || (p = varint_read(p, end, &base)) == NULL)
        return STATUS_CORRUPT;
    if (count == 0 || count > (size_t)(end - p) / SAMPLE_BYTES_MIN)
        return STATUS_CORRUPT;
    *reader = (struct wal_samples_reader){
        .next = p, .end = end, .left = count, .flags = flags, .time_ms = unzigzag(base), .slot = -1};
    return STATUS_OK;
}

int wal_samples_reader_next(struct wal_samples_reader *reader, uint32_t *slot, struct sample *sample,
                            int64_t *start_ms) {
    const uint8_t *p = reader->next;
    if (reader->left == 0)
        return p == reader->end ? STATUS_END : STATUS_CORRUPT;
    uint64_t slot_code, time_code, start_code = 0;
    if ((p = varint_read(p, reader->end, &slot_code)) == NULL ||
        (p = varint_read(p, reader->end, &time_code)) == NULL || reader->end - p < 8)
        return STATUS_CORRUPT;
    uint64_t value_bits = load_u64(p);
    p += 8;
    if ((reader->flags & FLAG_STARTS) && (p = varint_read(p, reader->end, &start_code)) == NULL)
        return STATUS_CORRUPT;
    int64_t slot_read;
    if (__builtin_add_overflow(reader->slot + 1, unzigzag(slot_code), &slot_read) || slot_read < 0 ||
        slot_read > UINT32_MAX)
        return STATUS_CORRUPT;
    int64_t time_ms = (int64_t)((uint64_t)reader->time_ms + (uint64_t)unzigzag(time_code));
    *slot = (uint32_t)slot_read;
    *sample = (struct sample){time_ms, value_bits};
    *start_ms = start_decode(time_ms, start_code);
    reader->slot = slot_read;
    reader->time_ms = time_ms;
    reader->next = p;
    reader->left--;
    return STATUS_OK;
}
