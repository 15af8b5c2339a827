/* oracle.c: where protobuf-c 1.4 reads a message differently from us, and from protobuf's own libraries:
 *
 *   1. a tag of more than five bytes is refused (we: up to ten, if it has 32 bits);
 *   2. a five-byte tag of more than 32 bits is cut to 32 (we: refused);
 *   3. field number 0 is accepted where it is spelled with more bytes than one (we: refused);
 *   4. a length of more than five bytes is refused (we: up to ten);
 *   5. a varint of more than 64 bits in its ten bytes is cut to 64 (we: refused).
 *
 * A message in which message_is_odd finds one of these before its first other fault is not compared. */
#include "tests/unit/proto/oracle.h"

#include "base/bytes.h"
#include "base/label.h"
#include "base/status.h"
#include "remote.pb-c.h"

enum type { NONE, REQUEST, SERIES, LABEL, SAMPLE, EXEMPLAR, HISTOGRAM, SPAN, METADATA };

static enum type type_of_field(enum type type, uint64_t number) {
    switch (type) {
    case REQUEST:
        return number == 1 ? SERIES : number == 3 ? METADATA : NONE;
    case SERIES:
        return number >= 1 && number <= 4 ? (enum type[]){LABEL, SAMPLE, EXEMPLAR, HISTOGRAM}[number - 1]
                                          : NONE;
    case EXEMPLAR:
        return number == 1 ? LABEL : NONE;
    case HISTOGRAM:
        return number == 8 || number == 11 ? SPAN : NONE;
    default:
        return NONE;
    }
}

/* The varint at p: its length, or 0 if it does not end within ten bytes and `end`; whether it overflows. */
static size_t varint_scan(const uint8_t *p, const uint8_t *end, uint64_t *v, bool *overflows) {
    *v = 0;
    for (size_t i = 0; i < 10 && p + i < end; i++) {
        *v |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if (p[i] < 0x80) {
            *overflows = i == 9 && p[i] > 1;
            return i + 1;
        }
    }
    return 0;
}

static bool message_is_odd(struct slice message, enum type type) {
    const uint8_t *p = message.data, *end = p + message.len;
    while (p < end) {
        uint64_t tag, v;
        bool overflows = false;
        size_t len = varint_scan(p, end, &tag, &overflows);
        if (len > 5 || overflows || tag > UINT32_MAX || (tag >> 3 == 0 && len > 1))
            return true;
        if (len == 0 || tag >> 3 == 0)
            return false;
        p += len;
        switch (tag & 7) {
        case 0:
            len = varint_scan(p, end, &v, &overflows);
            if (overflows)
                return true;
            if (len == 0)
                return false;
            p += len;
            break;
        case 1:
        case 5:
            len = (tag & 7) == 1 ? 8 : 4;
            if ((size_t)(end - p) < len)
                return false;
            p += len;
            break;
        case 2: {
            len = varint_scan(p, end, &v, &overflows);
            if (len > 5 || overflows)
                return true;
            if (len == 0 || v > (uint64_t)(end - p) - len)
                return false;
            struct slice inner = slice_of(p + len, (size_t)v);
            p += len + v;
            enum type inner_type = type_of_field(type, tag >> 3);
            if (inner_type != NONE && message_is_odd(inner, inner_type))
                return true;
            if (type == HISTOGRAM && (tag >> 3 == 9 || tag >> 3 == 12))
                for (const uint8_t *q = inner.data; q < p; q += len) {
                    len = varint_scan(q, p, &v, &overflows);
                    if (overflows)
                        return true;
                    if (len == 0)
                        break;
                }
            break;
        }
        default:
            return false;
        }
    }
    return false;
}

static bool text_equal(struct slice ours, ProtobufCBinaryData theirs) {
    return slice_equal(ours, slice_of(theirs.data, theirs.len));
}

static const char *series_judge(const struct batch_series *ours, const struct write_batch *batch,
                                const Prometheus__TimeSeries *theirs, size_t sample_first) {
    if (!label_bytes_well_formed(ours->labels))
        return "labels that are not well-formed";
    struct slice rest = ours->labels;
    struct label label;
    size_t labels = 0;
    for (; label_next(&rest, &label, NULL); labels++) {
        if (labels == theirs->n_labels)
            return "too many labels";
        if (!text_equal(label.name, theirs->labels[labels]->name))
            return "another label name";
        if (!text_equal(label.value, theirs->labels[labels]->value))
            return "another label value";
    }
    if (labels != theirs->n_labels)
        return "too few labels";
    if (ours->sample_first != sample_first || ours->sample_count != theirs->n_samples)
        return "another number of samples";
    for (size_t i = 0; i < theirs->n_samples; i++) {
        const struct sample *sample = &batch->samples[sample_first + i];
        if (sample->time_ms != theirs->samples[i]->timestamp)
            return "another timestamp";
        if (sample->value_bits != double_bits(theirs->samples[i]->value))
            return "another value";
    }
    return NULL;
}

static const char *batch_judge(const struct write_batch *batch, const Prometheus__WriteRequest *theirs) {
    size_t samples = 0, exemplars = 0, histograms = 0;
    if (batch->series_count != theirs->n_timeseries)
        return "another number of series";
    for (size_t i = 0; i < theirs->n_timeseries; i++) {
        const char *fault = series_judge(&batch->series[i], batch, theirs->timeseries[i], samples);
        if (fault != NULL)
            return fault;
        samples += theirs->timeseries[i]->n_samples;
        exemplars += theirs->timeseries[i]->n_exemplars;
        histograms += theirs->timeseries[i]->n_histograms;
    }
    if (batch->sample_count != samples || batch->starts_ms != NULL)
        return "another number of samples in all";
    if (batch->exemplar_count != exemplars)
        return "another number of exemplars";
    if (batch->histogram_count != histograms)
        return "another number of histograms";
    if (batch->metadata_count != theirs->n_metadata)
        return "another number of metadata";
    return NULL;
}

const char *oracle_judge(struct slice message, int status, const struct write_batch *batch, bool *compared) {
    *compared = !message_is_odd(message, REQUEST);
    if (!*compared)
        return NULL;
    Prometheus__WriteRequest *theirs = prometheus__write_request__unpack(NULL, message.len, message.data);
    const char *fault = NULL;
    if (status == STATUS_OK)
        fault = theirs == NULL ? "we accept, protobuf-c refuses" : batch_judge(batch, theirs);
    else if (status != STATUS_BAD_PROTOBUF)
        fault = "a status of another kind";
    else if (theirs != NULL)
        fault = "we refuse, protobuf-c accepts";
    if (theirs != NULL)
        prometheus__write_request__free_unpacked(theirs, NULL);
    return fault;
}
