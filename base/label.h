/* label.h: label sets as bytes.
 *
 * *Label bytes* are a series' labels as one run: for each label
 *
 *     0A len  0A name_len name  12 value_len value
 *
 * with minimal varints, len covering what follows it. This is how Prometheus' own sender writes the `labels`
 * of a TimeSeries on the wire (protobuf field 1; Label{1 name, 2 value}), on purpose: a known series is
 * recognised by comparing bytes of the request with bytes we keep, without copying, sorting or checking them.
 *
 * *Well-formed*: exactly the form above; label order, duplicates, empty strings and UTF-8 are not looked at.
 * *Canonical*: well-formed, names strictly ascending in byte order, no empty name, no empty value, all
 * UTF-8, within the limits. Two label sets are equal if and only if their canonical bytes are.
 *
 * Nothing here blocks or keeps state. */
#ifndef TIDALITE_BASE_LABEL_H
#define TIDALITE_BASE_LABEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/slice.h"

#define LABEL_NAME_METRIC "__name__"

struct label {
    struct slice name;
    struct slice value;
};

/* Why a label set is refused; LABEL_FAULT_NONE if it is not. */
enum label_fault {
    LABEL_FAULT_NONE,
    LABEL_FAULT_NO_METRIC_NAME, /* no __name__, or it is empty */
    LABEL_FAULT_EMPTY_NAME,
    LABEL_FAULT_DUPLICATE_NAME,
    LABEL_FAULT_INVALID_UTF8,
    LABEL_FAULT_TOO_MANY,
    LABEL_FAULT_NAME_TOO_LONG,
    LABEL_FAULT_VALUE_TOO_LONG,
    LABEL_FAULT_COUNT
};

/* "duplicate_label", "invalid_utf8", …: the `reason` in metrics and logs. A static string. */
const char *label_fault_name(enum label_fault fault);

/* The bytes that one label takes in label bytes, and those bytes written at `p`; returns the end. */
size_t label_bytes_len(struct slice name, struct slice value);
uint8_t *label_bytes_write(uint8_t *p, struct slice name, struct slice value);

/* Appends one label to a buf (see buf.h for failure). */
void label_bytes_append(struct buf *buf, struct slice name, struct slice value);

/* Takes the first label off well-formed `rest` and moves it behind. Returns false at the end, and also, with
 * `rest` unmoved (rest->len > 0), where the bytes are not well-formed. The label borrows from `rest`.
 * `whole`, if not NULL, gets the label's own bytes, from its 0A on. */
bool label_next(struct slice *rest, struct label *label, struct slice *whole);

bool label_bytes_well_formed(struct slice labels);

/* The value of `name` in well-formed label bytes; empty slice if absent. Borrows. */
struct slice label_bytes_get(struct slice labels, struct slice name);

struct label_limits {
    size_t name_bytes_max;
    size_t value_bytes_max;
    size_t count_max;
};

/* Makes well-formed `labels` canonical: sorts, drops labels with an empty value, checks the rest.
 * `*canonical` is `labels` itself when nothing had to change, else a copy in `arena`. Needs a metric name.
 * Returns STATUS_OK with *fault_out == LABEL_FAULT_NONE and *canonical set; STATUS_OK with another fault and
 * *canonical untouched; STATUS_NO_MEMORY. */
int label_bytes_canonicalise(struct slice labels, const struct label_limits *limits, struct arena *arena,
                             enum label_fault *fault_out, struct slice *canonical);

/* Prometheus' text of a label set: name{a="b", c="d"}, with quoting as in Go's %q and names that do not match
 * the legacy pattern quoted inside the braces (notes: UTF-8 names). For errors and logs. */
void label_bytes_print(struct buf *buf, struct slice labels);

/* The same for an array of labels in name order. */
void labels_print(struct buf *buf, const struct label *labels, size_t count);

/* Appends one label: name="value", the name quoted too if it has to be. */
void label_print(struct buf *buf, const struct label *label);

/* Appends `s` as Go's strconv.Quote prints it (invalid bytes as \xNN, unprintable as \uNNNN). */
void text_quote(struct buf *buf, struct slice s);

/* [A-Za-z_][A-Za-z0-9_]*, and with `metric` also ':' anywhere. */
bool label_name_is_legacy(struct slice name, bool metric);

#endif
