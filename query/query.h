/* query.h: PromQL in, columns and JSON out.
 *
 *     text → lex → parse (AST) → check (types) → eval (columns, one per series) → result → JSON
 *
 * The language is Prometheus' (main at 3.14); docs/promql.md says what is there yet. A query runs on the
 * calling thread, may block on reading storage, and never on a socket. */
#ifndef TIDALITE_QUERY_H
#define TIDALITE_QUERY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/matcher.h"
#include "base/slice.h"
#include "base/status.h"
#include "storage/storage.h"

#define QUERY_ERROR_BYTES 1024

/* What Prometheus' API calls errorType. */
enum query_error_type {
    QUERY_ERROR_NONE,
    QUERY_ERROR_BAD_DATA,  /* "bad_data": the text does not parse or type-check */
    QUERY_ERROR_EXECUTION, /* "execution" */
    QUERY_ERROR_TIMEOUT,   /* "timeout" */
    QUERY_ERROR_CANCELED,  /* "canceled" */
    QUERY_ERROR_INTERNAL   /* "internal" */
};

struct query_error {
    enum query_error_type type;
    char text[QUERY_ERROR_BYTES]; /* for BAD_DATA from parsing: "1:5: parse error: …" */
};

struct query_request {
    struct slice text;
    bool range;       /* false: instant, at start_ms == end_ms */
    int64_t start_ms; /* a range's steps: start, start + step, … <= end; the caller has checked the order and
                         step > 0 */
    int64_t end_ms;
    int64_t step_ms; /* 0 for instant */
    int64_t lookback_ms;
    uint64_t timeout_ms;         /* from the call on */
    size_t series_limit;         /* 0 = none; cutting adds the warning "results truncated due to limit" */
    const atomic_bool *canceled; /* looked at now and then; NULL = never */
    bool step_stats;             /* query_stats.samples_at_step */
    /* Names are taken out of series at the end of the query, not where an operation drops them: Prometheus'
     * feature flag promql-delayed-name-removal. */
    bool delayed_name_removal;
};

struct query_result;

/* Parses, checks and evaluates. STATUS_OK with *out, or a negative status (BAD_QUERY, EXECUTION, BUDGET,
 * TIMEOUT, CANCELLED, NO_MEMORY, CORRUPT) with *error filled. Budgets come from `limits`: samples, bytes,
 * nesting, text length. */
int query_run(struct storage *storage, const struct limits *limits, const struct clock *clock,
              const struct query_request *request, struct query_error *error, struct query_result **out);
void query_result_free(struct query_result *result);

enum query_value_type { QUERY_VALUE_SCALAR, QUERY_VALUE_STRING, QUERY_VALUE_VECTOR, QUERY_VALUE_MATRIX };
enum query_value_type query_result_type(const struct query_result *result);
size_t query_result_series_count(const struct query_result *result);

/* JSON of `data` in Prometheus' API: {"resultType":"…","result":…}, in slices: appends about `bytes` bytes
 * (a little more, to end at a whole point) per call, true while there is more. Start with a zeroed cursor. */
struct query_json_cursor {
    size_t series;
    size_t point;
    int stage;
};
bool query_result_json(const struct query_result *result, struct query_json_cursor *cursor, size_t bytes,
                       struct buf *out);

/* Annotations, without duplicates, at most ten of each kind and then "N more … omitted". Borrowed from the
 * result. */
size_t query_result_warnings(const struct query_result *result, const char *const **texts);
size_t query_result_infos(const struct query_result *result, const char *const **texts);

/* What the query read, for `stats`. */
struct query_stats {
    uint64_t samples_total; /* totalQueryableSamples: those that each step looked at */
    uint64_t samples_read;  /* from storage, each once */
    uint64_t samples_peak;
    uint64_t duration_ns;
    const uint64_t *samples_at_step; /* samples_total step by step, if asked for; borrowed from the result */
    const uint64_t *read_at_step;    /* samples_read likewise: each at the first step that is not before it */
    int64_t start_ms, step_ms;       /* the steps */
    size_t step_count;
};
void query_result_stats(const struct query_result *result, struct query_stats *out);

/* Appends the query as Prometheus' /api/v1/format_query writes it, in lines where it is long; or its tree as
 * JSON, as /api/v1/parse_query shows it. Nothing is read. BAD_QUERY (the text does not parse), BUDGET (the
 * text with its indentation is larger than limits->query_bytes_max), NO_MEMORY, with *error. */
int query_format(struct slice text, const struct limits *limits, struct query_error *error, struct buf *out);
int query_tree_json(struct slice text, const struct limits *limits, struct query_error *error,
                    struct buf *out);

/* Parses a series selector (as in match[]): matchers into `arena`, patterns compiled. The matchers stay valid
 * until selector_release (patterns hold memory outside the arena). BAD_QUERY with *error. */
struct query_selector {
    struct matcher *matchers;
    size_t count;
    bool empty_ok; /* the empty string satisfies every matcher: the selector takes series that have none of
                      the labels it names, which most callers refuse */
};
int query_selector_parse(struct slice text, const struct limits *limits, struct arena *arena,
                         struct query_error *error, struct query_selector *out);
void query_selector_release(struct query_selector *selector);

/* The functions that the language has, by name; static. */
struct query_function {
    const char *name;
    bool there; /* false: known, and answered with "not supported yet" */
};
const struct query_function *query_functions(size_t *count_out);

/* RE2 for matchers that storage keeps as text: storage_options.compiler. */
const struct matcher_compiler *query_matcher_compiler(void);

/* Prometheus durations and times as its API takes them: "15s", "1h30m", or float seconds → milliseconds;
 * false if it is neither or overflows. Times: float seconds or RFC 3339. */
bool query_duration_parse(struct slice text, int64_t *ms_out);
bool query_time_parse(struct slice text, int64_t *ms_out);

#endif
