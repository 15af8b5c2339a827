/* snapshot_read.c: see snapshot_read.h. */
#include "storage/snapshot/snapshot_read.h"

#include "base/bytes.h"
#include "storage/head/head.h"
#include "storage/snapshot/snapshot_format.h"

static struct slice slice_behind(struct slice bytes, size_t len) {
    return slice_of(bytes.data + len, bytes.len - len);
}

static const uint8_t *pairs_read(const uint8_t *p, const uint8_t *end, uint32_t *pairs, uint64_t count) {
    for (uint64_t i = 0; i < count && p != NULL; i++) {
        uint64_t number;
        p = varint_read(p, end, &number);
        if (p == NULL || number > SNAPSHOT_NUMBER_MAX)
            return NULL;
        pairs[i] = (uint32_t)number;
    }
    return p;
}

int snapshot_label_next(struct slice *payload, struct arena *numbers, struct snapshot_label *out) {
    const uint8_t *p = payload->data, *end = p + payload->len;
    uint64_t tag, number, count;
    struct snapshot_label label = {0};
    if (payload->len == 0)
        return STATUS_END;
    if ((p = varint_read(p, end, &tag)) == NULL || (p = varint_read(p, end, &number)) == NULL ||
        tag < LABELS_PAIR || tag > LABELS_SLOT_FREE || number > SNAPSHOT_NUMBER_MAX)
        return STATUS_CORRUPT;
    label.tag = (uint32_t)tag;
    label.number = (uint32_t)number;
    if (tag == LABELS_PAIR) {
        if ((p = varint_read(p, end, &count)) == NULL || count > (size_t)(end - p))
            return STATUS_CORRUPT;
        label.label = slice_of(p, (size_t)count);
        p += count;
    } else if (tag == LABELS_SLOT) {
        if ((p = varint_read(p, end, &label.id)) == NULL || (p = varint_read(p, end, &count)) == NULL ||
            count == 0 || count > (size_t)(end - p))
            return STATUS_CORRUPT;
        label.pairs = arena_alloc(numbers, (size_t)count * sizeof *label.pairs);
        label.pair_count = (uint32_t)count;
        if (label.pairs == NULL)
            return STATUS_NO_MEMORY;
        if ((p = pairs_read(p, end, label.pairs, count)) == NULL)
            return STATUS_CORRUPT;
    }
    *payload = slice_of(p, (size_t)(end - p));
    *out = label;
    return STATUS_OK;
}

int snapshot_slice_read(struct slice payload, struct snapshot_slice *out) {
    if (payload.len < SNAPSHOT_SLICE_HEAD)
        return STATUS_CORRUPT;
    const struct snapshot_slice slice = {load_u64(payload.data), load_u32(payload.data + 8),
                                         load_u32(payload.data + 12),
                                         slice_behind(payload, SNAPSHOT_SLICE_HEAD)};
    if (slice.first > slice.end)
        return STATUS_CORRUPT;
    *out = slice;
    return STATUS_OK;
}

/* A list's elements from the front of *bytes. */
static int list_take(struct slice *bytes, size_t element_bytes, const uint8_t **elements, uint32_t *count) {
    if (bytes->len < 4 || load_u32(bytes->data) > (bytes->len - 4) / element_bytes)
        return STATUS_CORRUPT;
    *count = load_u32(bytes->data);
    *elements = bytes->data + 4;
    *bytes = slice_behind(*bytes, 4 + *count * element_bytes);
    return STATUS_OK;
}

int snapshot_series_next(struct snapshot_slice *slice, struct snapshot_series *out) {
    int status = STATUS_OK;
    struct slice rest = slice->rest;
    if (rest.len == 0)
        return STATUS_END;
    if (rest.len < SNAPSHOT_SERIES_HEAD)
        return STATUS_CORRUPT;
    struct snapshot_series series = {.slot = load_u32(rest.data), .id = load_u64(rest.data + 4)};
    unsigned flags = rest.data[12];
    rest = slice_behind(rest, SNAPSHOT_SERIES_HEAD);
    if ((flags & SNAPSHOT_HAS_HEAD) != 0) {
        struct head_state state;
        series.head = rest;
        TRY(head_state_look(&rest, &state));
        series.head.len -= rest.len;
    }
    if ((flags & SNAPSHOT_HAS_LATE) != 0)
        TRY(list_take(&rest, SNAPSHOT_LATE_BYTES, &series.late, &series.late_count));
    if ((flags & SNAPSHOT_HAS_HIDDEN) != 0)
        TRY(list_take(&rest, SNAPSHOT_SPAN_BYTES, &series.hidden, &series.hidden_count));
    slice->rest = rest;
    *out = series;
out:
    return status;
}

struct sample snapshot_late_at(const struct snapshot_series *series, uint32_t index, int64_t *start_ms) {
    const uint8_t *p = series->late + (size_t)index * SNAPSHOT_LATE_BYTES;
    *start_ms = (int64_t)load_u64(p + 16);
    return (struct sample){(int64_t)load_u64(p), load_u64(p + 8)};
}

void snapshot_hidden_at(const struct snapshot_series *series, uint32_t index, int64_t *min_ms,
                        int64_t *max_ms) {
    const uint8_t *p = series->hidden + (size_t)index * SNAPSHOT_SPAN_BYTES;
    *min_ms = (int64_t)load_u64(p);
    *max_ms = (int64_t)load_u64(p + 8);
}

int snapshot_end_read(struct slice payload, struct snapshot_end *out) {
    if (payload.len < SNAPSHOT_END_BYTES)
        return STATUS_CORRUPT;
    const uint8_t *p = payload.data;
    const struct snapshot_end end = {.position = load_u64(p),
                                     .cut_ms = (int64_t)load_u64(p + 8),
                                     .late_position = load_u64(p + 16),
                                     .id_next = load_u64(p + 24),
                                     .slot_end = load_u32(p + 32),
                                     .window_count = load_u32(p + 36),
                                     .windows = p + SNAPSHOT_END_BYTES};
    if (end.window_count > (payload.len - SNAPSHOT_END_BYTES) / SNAPSHOT_WINDOW_BYTES ||
        end.slot_end > SNAPSHOT_NUMBER_MAX)
        return STATUS_CORRUPT;
    *out = end;
    return STATUS_OK;
}

void snapshot_window_at(const struct snapshot_end *end, uint32_t index, int64_t *begin_ms,
                        uint64_t *position) {
    const uint8_t *p = end->windows + (size_t)index * SNAPSHOT_WINDOW_BYTES;
    *begin_ms = (int64_t)load_u64(p);
    *position = load_u64(p + 8);
}
