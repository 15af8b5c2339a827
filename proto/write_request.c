/* write_request.c: prometheus.WriteRequest (remote.proto) → write_batch.
 *
 *     WriteRequest  1 TimeSeries*   3 MetricMetadata*
 *     TimeSeries    1 Label*        2 Sample*   3 Exemplar*   4 Histogram*
 *     Label         1 name          2 value
 *     Sample        1 value, double 2 timestamp, int64
 *
 * What senders really write is, for each series, a run of labels, then samples:
 *
 *     0A len { (0A len 0A len name 12 len value)*  (12 10 09 value:8 10 timestamp:6)* }*
 *
 * That shape is read by label_run and sample_run, which take what they recognise and stop, without judging,
 * at the first byte that they do not. What they leave goes to field_read and the functions above it, which
 * know all of protobuf and all errors. Without the run functions the answer would be the same, only later.
 *
 * Labels are borrowed if they are one run in the message and label_run took them all: then they are label
 * bytes as they stand. Else the series is validated to its end and read a second time, to spell its labels
 * anew.
 *
 * A message is valid if and only if, in it and in every message inside it that remote.proto knows,
 *   - each tag is a varint of at most 32 bits, its field number at least 1, its wire type 0, 1, 2 or 5
 *     (3 and 4 are groups, which left protobuf before this protocol began);
 *   - each varint has at most ten bytes and 64 bits, and no field runs past the end of its message;
 *   - each field that remote.proto knows has its wire type (repeated numbers may be packed or not).
 * A varint longer than need be is allowed, as protobuf allows it.
 *
 * The arrays' sizes are counted before they are allocated: the series by hopping over them, the samples by
 * assuming one a series and, when a series has more, by counting those still to come. So a message never
 * costs more than 16 bytes of arena for each of its own (an empty series: two bytes, and 32 of arrays). */
#include "proto/proto.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/label.h"
#include "base/mutation.h"

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

enum { SERIES_LABEL = 1, SERIES_SAMPLE = 2, SERIES_EXEMPLAR = 3, SERIES_HISTOGRAM = 4 };
enum { REQUEST_SERIES = 1, REQUEST_METADATA = 3 };
enum { LABEL_NAME = 1, LABEL_VALUE = 2 };
enum { SAMPLE_VALUE = 1, SAMPLE_TIMESTAMP = 2 };

#define TAG(number, wire) ((number) << 3 | (wire))

/* A series takes at least two bytes (tag, length 0), one with a sample at least four. */
#define SAMPLED_SERIES_BYTES_MIN 4

struct decoder {
    struct slice message;
    struct arena *arena;
    struct error_detail *detail;
    int status; /* of the first failure; a function that returns NULL has set it */
    struct sample *samples;
    size_t sample_count;
    size_t sample_capacity;
    uint64_t histogram_count;
    uint64_t exemplar_count;
    uint64_t metadata_count;
};

struct field {
    const uint8_t *start; /* of its tag */
    uint32_t number;
    enum wire wire;
    uint64_t bits;      /* the value of the three other wire types */
    struct slice bytes; /* of WIRE_BYTES */
};

/* ---- any message ---- */

#define BAD(d, at, format, ...)                                                                              \
    ((d)->status = error_set((d)->detail, STATUS_BAD_PROTOBUF, "protobuf: byte %zu: " format,                \
                             (size_t)((at) - (d)->message.data), ##__VA_ARGS__))

static inline const uint8_t *varint_take(const uint8_t *p, const uint8_t *end, uint64_t *v) {
    if (LIKELY(end - p >= 2)) {
        if (p[0] < 0x80) {
            *v = p[0];
            return p + 1;
        }
        if (p[1] < 0x80) {
            *v = (uint64_t)(p[0] & 0x7f) | (uint64_t)p[1] << 7;
            return p + 2;
        }
    }
    return varint_read(p, end, v);
}

/* Reads the field at p < end of a message called `name`; returns the position behind it, or NULL. */
static const uint8_t *field_read(struct decoder *d, const char *name, const uint8_t *p, const uint8_t *end,
                                 struct field *field) {
    uint64_t tag;
    field->start = p;
    p = varint_take(p, end, &tag);
    if (UNLIKELY(p == NULL || tag > UINT32_MAX || tag >> 3 == 0)) {
        BAD(d, field->start, "no valid tag in %s", name);
        return NULL;
    }
    field->number = (uint32_t)(tag >> 3);
    field->wire = (enum wire)(tag & 7);
    size_t fixed_bytes = 8;
    switch (field->wire) {
    case WIRE_VARINT: {
        const uint8_t *next = varint_take(p, end, &field->bits);
        if (next == NULL)
            BAD(d, p, "no valid varint in field %u of %s", field->number, name);
        return next;
    }
    case WIRE_BYTES: {
        uint64_t len;
        const uint8_t *next = varint_take(p, end, &len);
        if (next == NULL) {
            BAD(d, p, "no valid length in field %u of %s", field->number, name);
            return NULL;
        }
        if (len > (uint64_t)(end - next)) {
            BAD(d, p, "field %u of %s has a length of %llu bytes where %zu are left", field->number, name,
                (unsigned long long)len, (size_t)(end - next));
            return NULL;
        }
        field->bytes = slice_of(next, (size_t)len);
        return next + len;
    }
    case WIRE_FIXED32:
        fixed_bytes = 4;
        break;
    case WIRE_FIXED64:
        break;
    default:
        BAD(d, field->start, "field %u of %s has wire type %u, which is not allowed", field->number, name,
            (unsigned)field->wire);
        return NULL;
    }
    if ((size_t)(end - p) < fixed_bytes) {
        BAD(d, p, "field %u of %s is cut off", field->number, name);
        return NULL;
    }
    field->bits = fixed_bytes == 4 ? load_u32(p) : load_u64(p);
    return p + fixed_bytes;
}

static bool field_has_wire(struct decoder *d, const char *name, const struct field *field, enum wire wire) {
    if (LIKELY(field->wire == wire))
        return true;
    BAD(d, field->start, "field %u of %s has wire type %u instead of %u", field->number, name,
        (unsigned)field->wire, (unsigned)wire);
    return false;
}

/* ---- messages that are checked and not kept ---- */

enum shape_kind {
    SHAPE_UNKNOWN,
    SHAPE_VARINT,
    SHAPE_DOUBLE,
    SHAPE_BYTES,
    SHAPE_VARINTS,
    SHAPE_DOUBLES,
    SHAPE_MESSAGE
};

#define SHAPE_FIELDS 17

struct shape {
    const char *name;
    struct {
        enum shape_kind kind;
        const struct shape *message;
    } fields[SHAPE_FIELDS]; /* by field number */
};

static const struct shape label_shape = {
    "Label", {[LABEL_NAME] = {SHAPE_BYTES, NULL}, [LABEL_VALUE] = {SHAPE_BYTES, NULL}}};

static const struct shape exemplar_shape = {
    "Exemplar",
    {[1] = {SHAPE_MESSAGE, &label_shape}, [2] = {SHAPE_DOUBLE, NULL}, [3] = {SHAPE_VARINT, NULL}}};

static const struct shape span_shape = {"BucketSpan",
                                        {[1] = {SHAPE_VARINT, NULL}, [2] = {SHAPE_VARINT, NULL}}};

static const struct shape histogram_shape = {"Histogram",
                                             {
                                                 [1] = {SHAPE_VARINT, NULL}, /* count_int */
                                                 [2] = {SHAPE_DOUBLE, NULL}, /* count_float */
                                                 [3] = {SHAPE_DOUBLE, NULL}, /* sum */
                                                 [4] = {SHAPE_VARINT, NULL}, /* schema */
                                                 [5] = {SHAPE_DOUBLE, NULL}, /* zero_threshold */
                                                 [6] = {SHAPE_VARINT, NULL}, /* zero_count_int */
                                                 [7] = {SHAPE_DOUBLE, NULL}, /* zero_count_float */
                                                 [8] = {SHAPE_MESSAGE, &span_shape},
                                                 [9] = {SHAPE_VARINTS, NULL}, /* negative_deltas */
                                                 [10] = {SHAPE_DOUBLES, NULL},
                                                 [11] = {SHAPE_MESSAGE, &span_shape},
                                                 [12] = {SHAPE_VARINTS, NULL}, /* positive_deltas */
                                                 [13] = {SHAPE_DOUBLES, NULL},
                                                 [14] = {SHAPE_VARINT, NULL}, /* reset_hint */
                                                 [15] = {SHAPE_VARINT, NULL}, /* timestamp */
                                                 [16] = {SHAPE_DOUBLES, NULL},
                                             }};

static const struct shape metadata_shape = {"MetricMetadata",
                                            {[1] = {SHAPE_VARINT, NULL},
                                             [2] = {SHAPE_BYTES, NULL},
                                             [4] = {SHAPE_BYTES, NULL},
                                             [5] = {SHAPE_BYTES, NULL}}};

static bool packed_check(struct decoder *d, const struct shape *shape, const struct field *field,
                         enum shape_kind kind) {
    const uint8_t *p = field->bytes.data, *end = p + field->bytes.len;
    if (kind == SHAPE_DOUBLES) {
        if (field->bytes.len % 8 != 0)
            BAD(d, field->start, "field %u of %s holds %zu bytes, not a multiple of 8", field->number,
                shape->name, field->bytes.len);
        return field->bytes.len % 8 == 0;
    }
    while (p < end) {
        uint64_t ignored;
        const uint8_t *next = varint_take(p, end, &ignored);
        if (next == NULL) {
            BAD(d, p, "no valid varint in field %u of %s", field->number, shape->name);
            return false;
        }
        p = next;
    }
    return true;
}

/* Calls itself as deep as the shapes nest: twice. */
static bool message_check(struct decoder *d, const struct shape *shape, struct slice message) {
    const uint8_t *p = message.data, *end = p + message.len;
    while (p < end) {
        struct field field;
        p = field_read(d, shape->name, p, end, &field);
        if (p == NULL)
            return false;
        enum shape_kind kind = field.number < SHAPE_FIELDS ? shape->fields[field.number].kind : SHAPE_UNKNOWN;
        bool good = true;
        switch (kind) {
        case SHAPE_UNKNOWN:
            break;
        case SHAPE_VARINT:
            good = field_has_wire(d, shape->name, &field, WIRE_VARINT);
            break;
        case SHAPE_DOUBLE:
            good = field_has_wire(d, shape->name, &field, WIRE_FIXED64);
            break;
        case SHAPE_BYTES:
            good = field_has_wire(d, shape->name, &field, WIRE_BYTES);
            break;
        case SHAPE_VARINTS:
        case SHAPE_DOUBLES:
            good = field.wire == WIRE_BYTES
                       ? packed_check(d, shape, &field, kind)
                       : field_has_wire(d, shape->name, &field,
                                        kind == SHAPE_VARINTS ? WIRE_VARINT : WIRE_FIXED64);
            break;
        case SHAPE_MESSAGE:
            good = field_has_wire(d, shape->name, &field, WIRE_BYTES) &&
                   message_check(d, shape->fields[field.number].message, field.bytes);
            break;
        }
        if (!good)
            return false;
    }
    return true;
}

/* ---- labels ---- */

/* A label of more than 127 bytes, in the one form that label bytes have; NULL if it is anything else. */
static const uint8_t *label_long(const uint8_t *p, const uint8_t *end) {
    uint64_t len, part_len;
    const uint8_t *at = p + 1, *next = varint_read(at, end, &len);
    if (next == NULL || (size_t)(next - at) != varint_len(len) || len > (uint64_t)(end - next))
        return NULL;
    end = next + len;
    for (uint8_t number = LABEL_NAME; number <= LABEL_VALUE; number++) {
        if (next == end || *next != TAG(number, WIRE_BYTES))
            return NULL;
        at = next + 1;
        next = varint_read(at, end, &part_len);
        if (next == NULL || (size_t)(next - at) != varint_len(part_len) || part_len > (uint64_t)(end - next))
            return NULL;
        next += part_len;
    }
    return next == end ? end : NULL;
}

/* Takes the labels at p that are well-formed label bytes; returns where the first other thing starts. */
static inline const uint8_t *label_run(const uint8_t *p, const uint8_t *end) {
    /* The shortest label, of two empty strings, is 0A 04 0A 00 12 00. */
    while (end - p >= 6 && p[0] == TAG(SERIES_LABEL, WIRE_BYTES)) {
        size_t len = p[1];
        if (UNLIKELY(len >= 0x80)) {
            const uint8_t *next = label_long(p, end);
            if (next == NULL)
                break;
            p = next;
            continue;
        }
        size_t name_len = p[3];
        if (UNLIKELY((len > (size_t)(end - p) - 2 && !MUTATED(BELIEVE_LABEL_LEN)) || name_len + 4 > len))
            break;
        const uint8_t *value = p + 4 + name_len;
        if (UNLIKELY(p[2] != TAG(LABEL_NAME, WIRE_BYTES) || value[0] != TAG(LABEL_VALUE, WIRE_BYTES) ||
                     value[1] != len - 4 - name_len))
            break;
        p += 2 + len;
    }
    return p;
}

static bool label_decode(struct decoder *d, struct slice message, struct label *label) {
    *label = (struct label){slice_of(message.data, 0), slice_of(message.data, 0)};
    const uint8_t *p = message.data, *end = p + message.len;
    while (p < end) {
        struct field field;
        p = field_read(d, "Label", p, end, &field);
        if (p == NULL)
            return false;
        if (field.number != LABEL_NAME && field.number != LABEL_VALUE)
            continue;
        if (!field_has_wire(d, "Label", &field, WIRE_BYTES))
            return false;
        *(field.number == LABEL_NAME ? &label->name : &label->value) = field.bytes;
    }
    return true;
}

/* Spells the labels of the valid TimeSeries [p, end) as label bytes in the arena. */
static bool labels_respell(struct decoder *d, const uint8_t *p, const uint8_t *end, struct slice *labels) {
    uint8_t *spelled = NULL, *to = NULL;
    size_t bytes = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (const uint8_t *at = p; at < end;) {
            struct field field;
            struct label label;
            at = field_read(d, "TimeSeries", at, end, &field);
            ASSERT(at != NULL);
            if (field.number != SERIES_LABEL)
                continue;
            bool good = label_decode(d, field.bytes, &label);
            ASSERT(good);
            if (pass == 0)
                bytes += label_bytes_len(label.name, label.value);
            else
                to = label_bytes_write(to, label.name, label.value);
        }
        if (pass == 0) {
            spelled = to = arena_alloc_bytes(d->arena, bytes);
            if (spelled == NULL) {
                d->status = error_set(d->detail, STATUS_NO_MEMORY,
                                      "protobuf: no memory for %zu bytes of labels", bytes);
                return false;
            }
        }
    }
    ASSERT(to == spelled + bytes);
    *labels = slice_of(spelled, bytes);
    return true;
}

/* ---- samples ---- */

static size_t samples_count(struct decoder *d, const uint8_t *p, const uint8_t *end) {
    size_t count = 0;
    struct field field;
    while (p != NULL && p < end) {
        p = field_read(d, "TimeSeries", p, end, &field);
        count += p != NULL && field.number == SERIES_SAMPLE;
    }
    return count;
}

/* Room for the sample at p in the series that ends at `end` and for all samples behind it, in that series and
 * the rest of the message; what is malformed there is left to be found when it is read. */
static bool samples_grow(struct decoder *d, const uint8_t *p, const uint8_t *end) {
    struct decoder quiet = *d;
    quiet.detail = NULL;
    size_t count = d->sample_count + samples_count(&quiet, p, end);
    const uint8_t *message_end = d->message.data + d->message.len;
    for (const uint8_t *at = end; at != NULL && at < message_end;) {
        struct field field;
        at = field_read(&quiet, "WriteRequest", at, message_end, &field);
        if (at != NULL && field.number == REQUEST_SERIES && field.wire == WIRE_BYTES)
            count += samples_count(&quiet, field.bytes.data, field.bytes.data + field.bytes.len);
    }
    ASSERT(count > d->sample_capacity);
    struct sample *samples = arena_alloc(d->arena, count * sizeof *samples);
    if (samples == NULL) {
        d->status = error_set(d->detail, STATUS_NO_MEMORY, "protobuf: no memory for %zu samples", count);
        return false;
    }
    if (d->sample_count > 0)
        memcpy(samples, d->samples, d->sample_count * sizeof *samples);
    d->samples = samples;
    d->sample_capacity = count;
    return true;
}

/* The six-byte varint in the upper six bytes of `word`, which times of 1971 to 2109 take; false if it is
 * none. */
static inline bool varint_six(uint64_t word, int64_t *v) {
    word >>= 16;
    if (UNLIKELY((word & UINT64_C(0x808080808080)) != UINT64_C(0x008080808080)))
        return false;
    word &= UINT64_C(0x7f7f7f7f7f7f);
    word = (word & UINT64_C(0x007f007f007f)) |
           (word & UINT64_C(0x7f007f007f00)) >> 1; /* 3 × 14 bits, 16 apart */
    *v = (int64_t)((word & 0x3fff) | (word >> 16 & 0x3fff) << 14 | word >> 32 << 28);
    return true;
}

/* Takes the samples at p that are spelled as senders spell them (a value of 0 left out or not) while there is
 * room for them; returns where the first other thing starts. */
static inline const uint8_t *sample_run(struct decoder *d, const uint8_t *p, const uint8_t *end) {
    while (end - p >= 9 && p[0] == TAG(SERIES_SAMPLE, WIRE_BYTES) && d->sample_count < d->sample_capacity) {
        struct sample *sample = &d->samples[d->sample_count];
        if (LIKELY(end - p >= 18 && p[1] == 16 && p[2] == TAG(SAMPLE_VALUE, WIRE_FIXED64) &&
                   p[11] == TAG(SAMPLE_TIMESTAMP, WIRE_VARINT))) {
            if (!varint_six(load_u64(p + 10), &sample->time_ms))
                break;
            sample->value_bits = load_u64(p + 3);
            p += 18;
        } else if (p[1] == 7 && p[2] == TAG(SAMPLE_TIMESTAMP, WIRE_VARINT)) {
            if (!varint_six(load_u64(p + 1), &sample->time_ms))
                break;
            sample->value_bits = 0;
            p += 9;
        } else {
            break;
        }
        d->sample_count++;
    }
    return p;
}

static bool sample_decode(struct decoder *d, struct slice message, struct sample *sample) {
    *sample = (struct sample){0};
    const uint8_t *p = message.data, *end = p + message.len;
    while (p < end) {
        struct field field;
        p = field_read(d, "Sample", p, end, &field);
        if (p == NULL)
            return false;
        if (field.number == SAMPLE_VALUE) {
            if (!field_has_wire(d, "Sample", &field, WIRE_FIXED64))
                return false;
            sample->value_bits = field.bits;
        } else if (field.number == SAMPLE_TIMESTAMP) {
            if (!field_has_wire(d, "Sample", &field, WIRE_VARINT))
                return false;
            sample->time_ms = (int64_t)field.bits;
        }
    }
    return true;
}

/* ---- series and the whole ---- */

/* One field of a TimeSeries that no run function took; returns the position behind it, or NULL. */
static const uint8_t *series_field(struct decoder *d, const uint8_t *p, const uint8_t *end, bool *has_label) {
    struct field field;
    const uint8_t *next = field_read(d, "TimeSeries", p, end, &field);
    if (next == NULL)
        return NULL;
    if (field.number < SERIES_LABEL || field.number > SERIES_HISTOGRAM)
        return next;
    if (!field_has_wire(d, "TimeSeries", &field, WIRE_BYTES))
        return NULL;
    bool good = false;
    struct label label;
    switch (field.number) {
    case SERIES_LABEL:
        *has_label = true;
        good = label_decode(d, field.bytes, &label);
        break;
    case SERIES_SAMPLE:
        good = (d->sample_count < d->sample_capacity || samples_grow(d, p, end)) &&
               sample_decode(d, field.bytes, &d->samples[d->sample_count]);
        d->sample_count += good;
        break;
    case SERIES_EXEMPLAR:
        good = message_check(d, &exemplar_shape, field.bytes);
        d->exemplar_count++;
        break;
    case SERIES_HISTOGRAM:
        good = message_check(d, &histogram_shape, field.bytes);
        d->histogram_count++;
        break;
    }
    return good ? next : NULL;
}

static bool series_decode(struct decoder *d, struct slice message, struct batch_series *series) {
    const uint8_t *p = message.data, *end = p + message.len;
    const uint8_t *run = p;                     /* where the borrowed labels start */
    const uint8_t *run_end = label_run(p, end); /* and end; run == run_end: none yet */
    size_t sample_first = d->sample_count;
    bool respell = false;
    p = run_end;
    for (;;) {
        p = sample_run(d, p, end);
        if (LIKELY(p == end))
            break;
        if (run == run_end && p[0] == TAG(SERIES_LABEL, WIRE_BYTES)) {
            /* The labels come after something else: that is no reason not to borrow them. */
            run = p;
            run_end = p = label_run(p, end);
            if (run != run_end)
                continue;
        }
        p = series_field(d, p, end, &respell);
        if (p == NULL)
            return false;
    }
    series->labels = slice_of(run, (size_t)(run_end - run));
    if (UNLIKELY(respell) && !labels_respell(d, message.data, end, &series->labels))
        return false;
    series->sample_first = (uint32_t)sample_first;
    series->sample_count = (uint32_t)(d->sample_count - sample_first);
    return true;
}

/* How many series there are up to the first byte that is malformed. */
static size_t series_count(struct decoder *d) {
    struct decoder quiet = *d;
    quiet.detail = NULL;
    const uint8_t *p = d->message.data, *end = p + d->message.len;
    size_t count = 0;
    while (p != NULL && p < end) {
        struct field field;
        p = field_read(&quiet, "WriteRequest", p, end, &field);
        count += p != NULL && field.number == REQUEST_SERIES && field.wire == WIRE_BYTES;
    }
    return count;
}

int proto_write_request_decode(struct slice message, struct arena *arena, struct error_detail *detail,
                               struct write_batch *batch) {
    if (message.len == 0)
        message = slice_str(""); /* an address to do arithmetic on */
    struct decoder d = {.message = message, .arena = arena, .detail = detail};
    /* A sample takes two bytes or more, so this bounds every index, too. */
    if (message.len > UINT32_MAX)
        return error_set(detail, STATUS_TOO_LARGE, "protobuf: a message of %zu bytes", message.len);
    size_t capacity = series_count(&d), count = 0;
    struct batch_series *series = NULL;
    d.sample_capacity = message.len / SAMPLED_SERIES_BYTES_MIN;
    if (d.sample_capacity > capacity)
        d.sample_capacity = capacity;
    if (capacity > 0) {
        series = arena_alloc(arena, capacity * sizeof *series);
        d.samples = arena_alloc(arena, d.sample_capacity * sizeof *d.samples);
        if (series == NULL || d.samples == NULL)
            return error_set(detail, STATUS_NO_MEMORY, "protobuf: no memory for %zu series", capacity);
    }
    const uint8_t *p = message.data, *end = p + message.len;
    while (p < end) {
        struct field field;
        const uint8_t *next = field_read(&d, "WriteRequest", p, end, &field);
        if (next == NULL)
            return d.status;
        p = next;
        if (field.number != REQUEST_SERIES && field.number != REQUEST_METADATA)
            continue;
        if (!field_has_wire(&d, "WriteRequest", &field, WIRE_BYTES))
            return d.status;
        if (LIKELY(field.number == REQUEST_SERIES)) {
            ASSERT(count < capacity);
            if (!series_decode(&d, field.bytes, &series[count]))
                return d.status;
            count++;
        } else {
            if (!message_check(&d, &metadata_shape, field.bytes))
                return d.status;
            d.metadata_count++;
        }
    }
    *batch = (struct write_batch){.series = series,
                                  .series_count = count,
                                  .samples = d.samples,
                                  .sample_count = d.sample_count,
                                  .starts_ms = NULL,
                                  .histogram_count = d.histogram_count,
                                  .exemplar_count = d.exemplar_count,
                                  .metadata_count = d.metadata_count};
    return STATUS_OK;
}
