/* http_parse.h: the pure parts of reading a request: the head's guard, targets, parameters, header values.
 * Nothing here blocks or keeps state outside its arguments. */
#ifndef TIDALITE_SERVER_HTTP_PARSE_H
#define TIDALITE_SERVER_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/slice.h"
#include "base/status.h"

/* Looks at every byte of a request's head before llhttp does, and stops behind the empty line that ends it.
 * It bounds the head and refuses what llhttp 8.1 lets through although peers disagree on its meaning, which
 * is how requests are smuggled: a bare CR as the end of a header, folded headers, control bytes. */
enum head_verdict {
    HEAD_MORE,         /* all bytes taken, the head goes on */
    HEAD_COMPLETE,     /* *used_out bytes taken, the last of them ends the head */
    HEAD_BAD_LINE_END, /* 400 */
    HEAD_FOLDED,       /* 400 */
    HEAD_BAD_BYTE,     /* 400 */
    HEAD_TOO_LONG,     /* 431 */
    HEAD_TOO_MANY,     /* 431 */
    HEAD_URL_TOO_LONG  /* 414 */
};

struct head_guard {
    int state;
    uint64_t bytes;     /* of header lines */
    uint64_t url_bytes; /* of the request target */
    uint64_t other_bytes;
    uint64_t header_count;
};

void head_guard_init(struct head_guard *guard);
enum head_verdict head_guard_feed(struct head_guard *guard, const struct limits *limits, const uint8_t *data,
                                  size_t len, size_t *used_out);

/* Splits a request target at the first '?'; "http://host/path" loses its first part. Both borrow. */
void target_split(struct slice target, struct slice *path, struct slice *query);

/* Percent-decodes into `arena`; with `plus`, '+' is a space. STATUS_BAD_INPUT with the offending escape in
 * `detail`. */
int percent_decode(struct slice text, bool plus, struct arena *arena, struct error_detail *detail,
                   struct slice *out);

/* Parameters of a URL's query or a form body, decoded, in order. */
struct param {
    struct slice name;
    struct slice value;
};

struct params {
    struct param *items;
    size_t count;
    size_t capacity;
};

#define PARAMS_COUNT_MAX 10000

/* Appends the parameters of `text` to `params` (zeroed before the first call). STATUS_BAD_INPUT (a malformed
 * escape, more than PARAMS_COUNT_MAX), STATUS_NO_MEMORY. Everything lives in `arena`. */
int params_parse(struct slice text, struct arena *arena, struct error_detail *detail, struct params *params);

/* The first value of a name; empty if absent. */
struct slice params_get(const struct params *params, const char *name);

/* A decimal integer as Go's strconv.Atoi takes it; false with *range_out telling whether it merely did not
 * fit. */
bool integer_parse(struct slice text, int64_t *out, bool *range_out);

/* A boolean as Go's strconv.ParseBool takes it. */
bool boolean_parse(struct slice text, bool *out);

/* Does a comma-separated header (Accept-Encoding) offer `token`, and not with q=0? */
bool header_offers(struct slice value, const char *token);

/* Is the media type of a Content-Type `type` (case-insensitive, parameters ignored)? */
bool media_type_is(struct slice value, const char *type);

/* The value of parameter `name` of a Content-Type; quotes removed, spaces around ';' and '=' allowed; empty
 * if absent. */
struct slice media_type_param(struct slice value, const char *name);

/* Has any part of a comma-separated header (Accept) the parameter `name` with this value? */
bool header_param_is(struct slice value, const char *name, const char *wanted);

struct slice slice_trim(struct slice text);
bool slice_equal_nocase(struct slice text, const char *other);

/* Label names in URLs, Prometheus' U__ escaping: "U__a_2e_b" → "a.b"; what is not such a name, or is
 * malformed, stays as it is. The result borrows from `name` or is made in `arena`; {NULL, 0} when out of
 * memory. */
struct slice label_name_unescape(struct slice name, struct arena *arena);

#endif
