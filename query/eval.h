/* eval.h: how a checked tree becomes columns. Shared by the files of this folder.
 *
 * Every node yields its series one after the other (`next`); a series is its labels and one column: a value
 * and a presence bit for each step of the node's grid. So an aggregation holds its groups and never its
 * input. What a node hands out is borrowed until the next call on it, and may be changed in place by the one
 * who asked; the bytes of label names and values live until the evaluation ends.
 *
 * NaN is a value, absence is a bit. A column has room for a second kind of value (native histograms) beside
 * `values`. */
#ifndef TIDALITE_QUERY_EVAL_H
#define TIDALITE_QUERY_EVAL_H

#include <math.h>

#include "base/batch.h"
#include "query/parse.h"

struct histogram; /* native histograms: not yet */

/* Steps start, start + step, …: `count` of them. An instant query has one. */
struct grid {
    int64_t start_ms;
    int64_t step_ms;
    size_t count;
};

static inline int64_t grid_time(const struct grid *grid, size_t step) {
    return grid->start_ms + (int64_t)step * grid->step_ms;
}

static inline size_t bits_words(size_t count) {
    return (count + 63) / 64;
}

static inline bool bits_get(const uint64_t *bits, size_t i) {
    return (bits[i >> 6] >> (i & 63)) & 1;
}

static inline void bits_set(uint64_t *bits, size_t i) {
    bits[i >> 6] |= UINT64_C(1) << (i & 63);
}

static inline void bits_clear(uint64_t *bits, size_t i) {
    bits[i >> 6] &= ~(UINT64_C(1) << (i & 63));
}

void bits_fill(uint64_t *bits, size_t count);
bool bits_any(const uint64_t *bits, size_t count);
size_t bits_count(const uint64_t *bits, size_t count);

/* for (BITS_EACH(i, bits, count)) visits the set bits. */
size_t bits_next(const uint64_t *bits, size_t from, size_t count);
#define BITS_EACH(i, bits, count)                                                                            \
    size_t i = bits_next((bits), 0, (count));                                                                \
    i < (count);                                                                                             \
    i = bits_next((bits), i + 1, (count))

struct eval_series {
    struct label *labels; /* in name order */
    size_t label_count;
    double *values;
    uint64_t *present;
    bool drop_name; /* with delayed name removal: the name goes when the query ends */
};

/* How the samples that a node looks at enter the statistics: step by step; at every step of the query, though
 * looked at once; or not at all, in a subquery, whose points count when the range is read. */
enum counting { COUNT_STEPS, COUNT_REPEATED, COUNT_NOT };

/* Where on the way of the query's steps the samples of a selector stand: a sample counts at the first step
 * that is not before it. */
struct placing {
    int64_t shift_ms; /* added to a sample's time: offsets, those of subqueries around included */
    bool at_first;    /* all count at the first step: what is evaluated once, or at a time of its own */
};

struct eval_node {
    int (*next)(struct eval_node *node, struct eval_series *out); /* STATUS_OK, STATUS_END, or negative */
    void (*release)(struct eval_node *node);                      /* NULL: all is in the arena */
    /* Tells it, before the first `next`, that only labels of these names are used, which live as long as the
     * evaluation. NULL: it gives all in any case. */
    int (*labels_ask)(struct eval_node *node, const struct slice *names, size_t count);
    struct eval *eval;
    struct eval_node *made_before;
    struct grid grid;
    enum counting counting;
    bool unique_nameless; /* no two series are equal once the name is dropped */
};

struct annotation {
    bool is_info;
    const char *text;
    size_t at;
    /* For the monotonicity note, which sums up: */
    bool is_monotonicity;
    double bucket_min, bucket_max, diff_max;
    uint64_t count;
    int64_t time_min_ms, time_max_ms;
};

struct eval {
    struct storage *storage;
    const struct limits *limits;
    const struct clock *clock;
    const struct query_request *request;
    struct query_error *error;
    struct arena arena;               /* everything that lives as long as the evaluation */
    const struct arena *result_arena; /* of the result: bounded alike */
    struct eval_node *nodes;
    uint64_t deadline_ns;
    uint64_t seed; /* of label hashes */
    unsigned ticks;
    int64_t end_ms;        /* of the last step */
    char damage_text[256]; /* what storage could not read; empty: it could read everything */
    bool delayed_names;    /* names are marked where an operation drops them, and go at the end */

    uint64_t samples_held;    /* in kept columns */
    uint64_t samples_read;    /* from storage */
    uint64_t samples_queried; /* as Prometheus counts: those that each step looked at */
    uint64_t samples_peak;
    uint64_t *samples_at_step; /* samples_queried at each step of the query; NULL: nobody asked */
    uint64_t *read_at_step;    /* samples_read likewise, both or none */
    struct placing placing;    /* of nodes that are made now: of the subqueries around */
    size_t step_count;         /* of the query */
    enum counting counting;    /* of nodes that are made now */

    struct annotation *annotations;
    size_t annotation_count;
};

/* ---- Failing ------------------------------------------------------------------------------------------- */

int eval_fail(struct eval *eval, const char *format, ...) __attribute__((format(printf, 2, 3)));
int eval_unsupported(struct eval *eval, const char *what);
int eval_duplicate(struct eval *eval); /* "vector cannot contain metrics with the same labelset" */

/* From the arena, zeroed; NULL when it fails, and then eval_no_room gives the status and fills the error. */
void *eval_alloc(struct eval *eval, size_t bytes);
int eval_no_room(struct eval *eval);

/* Deadline and cancellation: now, and every few calls. */
int eval_check(struct eval *eval);

/* Its two halves. eval_stop_status may be called from any thread: STATUS_OK, CANCELLED or TIMEOUT; eval_stop
 * fills the error for one of these, and returns it. */
int eval_stop_status(const struct eval *eval);
int eval_stop(struct eval *eval, int status);

static inline int eval_tick(struct eval *eval) {
    return (eval->ticks++ & 15) == 0 ? eval_check(eval) : STATUS_OK;
}

/* Takes over what the selection found damaged, for the answer's warning. */
void eval_damage_note(struct eval *eval, struct storage_selection *selection);

/* `count` samples in a buffer for now, beside those held: STATUS_BUDGET if that is too much. */
int eval_samples_check(struct eval *eval, uint64_t count);

/* A node looked at `total` samples, `at_step[i]` of them at step i of its grid (NULL: samples_at_step is). */
void eval_samples_queried(const struct eval_node *node, uint64_t total, const uint32_t *at_step);

/* ---- Nodes ------------------------------------------------------------------------------------------------
 */

void *node_new(struct eval *eval, size_t bytes, struct grid grid,
               int (*next)(struct eval_node *node, struct eval_series *out));

/* The node for an expression of type instant vector. */
int node_build(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);

/* A scalar expression at every step. */
int scalar_eval(struct eval *eval, struct ast *ast, struct grid grid, double *values);
int scalar_column(struct eval *eval, struct ast *ast, struct grid grid, double **out);

/* The next series of a node. Looks at the clock now and then, and lets no series pass that has more labels
 * than buffers have room for (functions can add labels). */
int node_next(struct eval_node *node, struct eval_series *out);

/* Ends what the nodes of an evaluation hold outside the arena. */
void nodes_release(struct eval *eval);

/* Joins series of equal labels. Where two have a value at the same step, or always if `strict`: an error. */
int merge_node(struct eval *eval, struct eval_node *child, bool strict, const char *error_text,
               struct eval_node **out);

/* One node for each kind of expression. `timestamps`: the samples' times instead of their values. */
int selector_node(struct eval *eval, struct ast *ast, struct grid grid, bool timestamps,
                  struct eval_node **out);
int range_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int call_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int map_function_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int vector_of_scalar_node(struct eval *eval, struct ast *scalar, struct grid grid, struct eval_node **out);
int vector_of_time_node(struct eval *eval, struct grid grid, struct eval_node **out);
int absent_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int sort_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int relabel_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int info_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int histogram_node(struct eval *eval, struct ast *call, struct grid grid, struct eval_node **out);
int aggregate_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int top_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int limit_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int count_values_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int quantile_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int unary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int scalar_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int vector_binary_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);
int set_node(struct eval *eval, struct ast *ast, struct grid grid, struct eval_node **out);

/* The child's single step at every step of the grid: for what does not depend on time. */
int repeat_node(struct eval *eval, struct eval_node *child, struct grid grid, struct eval_node **out);

/* Delayed name removal, at last: takes the names of marked series out. */
int names_node(struct eval *eval, struct eval_node *child, struct eval_node **out);

/* Marks the parts of a tree that have the same value at every step (@, literals, and what is made of them).
 */
void invariant_mark(struct ast *ast);

/* A binary operator on two numbers. False: a comparison that filters, or a trim, which knows no floats. */
bool operator_apply(enum token_kind op, double left, double right, double *out);

/* ---- Samples of a range
 * ------------------------------------------------------------------------------------ */

/* The series of a range vector with all samples that any window of the grid may need, stale markers taken
 * out. */
struct range_source {
    struct eval *eval;
    struct grid grid;
    int64_t range_ms;
    int64_t offset_ms;
    int64_t before_ms, after_ms; /* anchored and smoothed: samples beside each window that it needs too */
    bool is_fixed;               /* by @: all steps look at fixed_ms */
    int64_t fixed_ms;
    bool unique_nameless;

    struct storage_selection *selection; /* of a selector */
    struct placing placing;
    size_t index;
    int64_t time_min_ms, time_max_ms;
    struct eval_node *child; /* of a subquery */

    struct label *labels;
    size_t label_count;
    bool drop_name;
    struct sample_columns columns;
};

int range_source_open(struct eval *eval, struct ast *ast, struct grid grid, struct range_source *source);
int range_source_next(struct range_source *source); /* STATUS_OK, STATUS_END, or negative */
void range_source_close(struct range_source *source);

/* What instant selectors share with them. shift_fixed: @ as a time, if there is one. */
bool shift_fixed(const struct eval *eval, const struct ast_shift *shift, int64_t *ms_out);
bool matchers_name_one(const struct ast *selector);
int select_open(struct eval *eval, const struct matcher *matchers, size_t count, int64_t time_min_ms,
                int64_t time_max_ms, struct storage_selection **out);
int series_read(struct eval *eval, struct storage_selection *selection, size_t index,
                const struct placing *placing, int64_t time_min_ms, int64_t time_max_ms,
                struct sample_columns *columns);

/* Of a selector that is made now, with its own offset and @. */
struct placing placing_of(const struct eval *eval, int64_t offset_ms, bool is_fixed);

/* The step of the query at which a sample with this time counts. */
size_t placing_step(const struct eval *eval, const struct placing *placing, int64_t time_ms);
void stale_drop(struct sample_columns *columns);
int64_t time_clamp(int64_t ms); /* leaves room for arithmetic at both ends */
static inline int64_t grid_last(const struct grid *grid) {
    return grid_time(grid, grid->count == 0 ? 0 : grid->count - 1);
}

/* ---- anchored and smoothed (extended.c) -------------------------------------------------------------------
 * A window with what lies beside it: samples [low, high) in time order, its edges start_ms and end_ms. */
struct extended_window {
    const int64_t *times_ms;
    const double *values;
    size_t low, high;
    int64_t start_ms, end_ms;
    bool smoothed;
};
/* Values at both edges, and the samples [*first, *last) strictly between them. False: nothing in the window.
 */
bool extended_edges(const struct extended_window *window, bool is_counter, double *left, double *right,
                    size_t *first, size_t *last);
/* The value at a time between samples a and b. Across a reset of a counter the earlier one counts as 0. */
double extended_interpolate(const struct extended_window *window, size_t a, size_t b, int64_t time_ms,
                            bool is_counter);
/* A modifier on a function that does not know it: an error that says so. */
int extended_check(struct eval *eval, const struct ast *call);

/* ---- Labels
 * ---------------------------------------------------------------------------------------------------- */

#define NAME_LABEL slice_str(LABEL_NAME_METRIC)
#define TYPE_LABEL slice_str("__type__")

struct slice labels_get(const struct label *labels, size_t count, struct slice name);
int labels_compare(const struct label *a, size_t a_count, const struct label *b, size_t b_count);
bool labels_equal(const struct label *a, size_t a_count, const struct label *b, size_t b_count);

/* Takes __name__, __type__ and __unit__ out. */
void labels_drop_name(struct eval_series *series);

/* What an operation that drops names does: takes them out, or marks the series if that is delayed. */
static inline void series_drop_name(const struct eval *eval, struct eval_series *series) {
    if (eval->delayed_names)
        series->drop_name = true;
    else
        labels_drop_name(series);
}

/* A hash of the whole label set that is the same in every process: Prometheus' own (XXH64 of its encoding),
 * so that limit_ratio picks the series that it would pick. */
uint64_t labels_hash_stable(const struct label *labels, size_t count);

/* `{a="b", c="d"}`, the name inside too. */
void labels_print_braces(struct buf *buf, const struct label *labels, size_t count);

/* Sets (or with an empty value takes out) one label in an array that has room for one more. */
void labels_set(struct label *labels, size_t *count, struct slice name, struct slice value);

/* Those labels whose name is in the sorted list (`keep`), or those whose name is not; never __name__ unless
 * kept by name. */
size_t labels_select(const struct label *labels, size_t count, const struct slice *names, size_t name_count,
                     bool keep, struct label *out);

/* What has to be equal for two series to match: on(names), or all labels but these. */
struct signature {
    struct slice *names; /* sorted */
    size_t name_count;
    bool on;
};
static inline size_t labels_signature(const struct signature *signature, const struct eval_series *series,
                                      struct label *out) {
    return labels_select(series->labels, series->label_count, signature->names, signature->name_count,
                         signature->on, out);
}

/* Is the name in the sorted list? Asked for in ascending order: *at, first 0, is how far that has come. */
bool names_have(const struct slice *names, size_t count, size_t *at, struct slice name);

/* Are series of an aggregation that keeps (or drops) these labels different even without their names? */
bool names_stay_unique(const struct slice *names, size_t count, bool without);

/* A sorted copy without duplicates. */
int names_sort(struct eval *eval, const struct slice *names, size_t count, struct slice **out,
               size_t *count_out);

int labels_keep(struct eval *eval, const struct label *labels, size_t count, struct label **out);

/* Label sets → 0, 1, 2, …: groups. */
struct label_set {
    uint64_t hash;
    struct label *labels;
    size_t label_count;
};
struct label_table {
    struct label_set *sets;
    size_t count;
    size_t capacity;
    uint32_t *slots; /* index + 1 */
    size_t slot_count;
};
int label_table_find(struct eval *eval, struct label_table *table, const struct label *labels, size_t count,
                     size_t *index_out, bool *added_out);
/* SIZE_MAX if it is not there. */
size_t label_table_get(const struct eval *eval, const struct label_table *table, const struct label *labels,
                       size_t count);

/* Where the series of an aggregation belong: its by or without, and the groups so far. */
struct grouping {
    struct eval_node *child; /* the series */
    double *params;          /* the parameter at every step; NULL: there is none, or it is a string */
    struct slice *names;     /* sorted */
    size_t name_count;
    bool without;
    struct label *scratch;
    struct label_table table;
};
int grouping_open(struct eval *eval, struct ast *ast, struct grid grid, struct grouping *grouping);

/* Nothing but groups comes of the series: labels that tell none apart need not be given. */
int grouping_labels_ask(struct grouping *grouping);

/* The group of a series; a new one (*added_out) is the last. */
int grouping_find(struct eval *eval, struct grouping *grouping, const struct eval_series *series,
                  size_t *index_out, bool *added_out);

/* Are groups different even without their names? */
bool grouping_unique(const struct grouping *grouping);

/* ---- Columns
 * ------------------------------------------------------------------------------------------------- */

/* A column put away: only the values that are there. Counts against the budget. */
struct kept_column {
    double *values;
    uint64_t *present;
    size_t count;
};
int column_keep(struct eval *eval, const struct grid *grid, const struct eval_series *series,
                struct kept_column *out);
void column_unpack(const struct grid *grid, const struct kept_column *kept, double *values,
                   uint64_t *present);

struct kept_series {
    struct label *labels;
    size_t label_count;
    struct kept_column column;
    bool drop_name;
};
int series_keep(struct eval *eval, const struct grid *grid, const struct eval_series *series,
                struct kept_series *out);

/* What a parameter is over all steps; the bounds are without NaN. */
struct value_range {
    double lowest, highest;
    bool any_nan;
};
struct value_range values_range(const double *values, size_t count);

/* A growing array in the arena. */
void *eval_push(struct eval *eval, void *items, size_t count, size_t item_bytes);

/* ---- Sums, annotations
 * ----------------------------------------------------------------------------------------- */

/* Kahan and Neumaier: *sum + *c is the sum. */
static inline void kahan_add(double value, double *sum, double *c) {
    double t = *sum + value;
    if (isinf(t))
        *c = 0;
    else if (fabs(*sum) >= fabs(value))
        *c += (*sum - t) + value;
    else
        *c += (value - t) + *sum;
    *sum = t;
}

/* Go's math.Max and math.Min, where C leaves the sign of zero open and takes a number before NaN: here the
 * infinity that is looked for wins over NaN, NaN over all else, and 0 is more than -0. */
static inline double value_max(double a, double b) {
    if (a == INFINITY || b == INFINITY)
        return INFINITY;
    if (isnan(a) || isnan(b))
        return NAN;
    return a > b || (a == b && !signbit(a)) ? a : b;
}

static inline double value_min(double a, double b) {
    return -value_max(-a, -b);
}

/* The order of quantiles: NaN is the smallest. */
static inline bool value_before(double a, double b) {
    return isnan(a) ? !isnan(b) : a < b;
}

/* The quantile of `count` values, which are reordered: linear between neighbours, NaN is the smallest. */
double quantile_of_values(double q, double *values, size_t count);

/* The same of values in ascending order, NaN first. */
double quantile_of_sorted(double q, const double *values, size_t count);

int annotate(struct eval *eval, bool is_info, size_t at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* "incompatible sample types …": an operator that knows no floats. */
void annotate_types(struct eval *eval, const struct ast *binary);

/* "quantile value should be between 0 and 1, got …", if it is not. */
void annotate_quantile(struct eval *eval, size_t at, double q);

struct annotation *annotation_find(struct eval *eval, bool is_info, const char *text, size_t at);

/* A double as Go's %g. */
void go_float(double v, char out[64]);

#endif
