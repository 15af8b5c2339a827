/* query.c: runs a query from text to result. */
#include "query/query.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "base/float_text.h"
#include "base/rand.h"
#include "query/eval.h"
#include "query/result.h"

static int error_memory(struct query_error *error) {
    error->type = QUERY_ERROR_INTERNAL;
    snprintf(error->text, sizeof error->text, "out of memory");
    return STATUS_NO_MEMORY;
}

/* The result outlives the storage's selection: labels are copied whole. */
static int result_labels(struct eval *eval, struct query_result *result, const struct label *labels,
                         size_t count, struct label **out) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += labels[i].name.len + labels[i].value.len;
    struct label *copy = arena_alloc(&result->arena, (count + 1) * sizeof *copy);
    uint8_t *text = arena_alloc_bytes(&result->arena, bytes + 1);
    if (copy == NULL || text == NULL)
        return eval_no_room(eval);
    for (size_t i = 0; i < count; i++) {
        struct slice from[2] = {labels[i].name, labels[i].value}, to[2];
        for (size_t k = 0; k < 2; k++) {
            if (from[k].len > 0)
                memcpy(text, from[k].data, from[k].len);
            to[k] = slice_of(text, from[k].len);
            text += from[k].len;
        }
        copy[i] = (struct label){to[0], to[1]};
    }
    *out = copy;
    return STATUS_OK;
}

static int result_push(struct eval *eval, struct query_result *result, struct result_series series) {
    struct result_series *grown = eval_push(eval, result->series, result->series_count, sizeof *grown);
    if (grown == NULL)
        return eval_no_room(eval);
    result->series = grown;
    result->series[result->series_count++] = series;
    return STATUS_OK;
}

static int vector_collect(struct eval *eval, struct ast *root, struct query_result *result) {
    int status = STATUS_OK;
    struct grid grid = {result->start_ms, result->step_ms, result->steps};
    struct eval_node *node;
    struct eval_series series;
    TRY(node_build(eval, root, grid, &node));
    if (eval->delayed_names)
        TRY(names_node(eval, node, &node));
    while ((status = node_next(node, &series)) == STATUS_OK) {
        size_t count = bits_count(series.present, grid.count), words = bits_words(grid.count);
        if (count == 0)
            continue;
        TRY(eval_samples_check(eval, count));
        struct result_series out = {.label_count = series.label_count, .count = count};
        TRY(result_labels(eval, result, series.labels, series.label_count, &out.labels));
        out.present = arena_alloc(&result->arena, (words + count) * 8);
        if (out.present == NULL)
            return eval_no_room(eval);
        out.values = (double *)(out.present + words);
        memcpy(out.present, series.present, words * 8);
        size_t n = 0;
        if (count == grid.count)
            memcpy(out.values, series.values, count * sizeof(double));
        else
            for (BITS_EACH(i, series.present, grid.count))
                out.values[n++] = series.values[i];
        eval->samples_held += count;
        TRY(result_push(eval, result, out));
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    return status;
}

/* anchored and smoothed: points at the very edges, and what lies between them. */
static int matrix_extend(struct range_source *source, struct ast *root) {
    const struct ast *matrix = ast_unparen(root);
    if (matrix->kind != AST_MATRIX || (!matrix->range.anchored && !matrix->range.smoothed))
        return STATUS_OK;
    struct sample_columns *columns = &source->columns;
    int64_t end_ms = (source->is_fixed ? source->fixed_ms : source->grid.start_ms) - source->offset_ms;
    struct extended_window window = {
        .times_ms = columns->times_ms,
        .values = columns->values,
        .high = columns->count,
        .start_ms = end_ms - source->range_ms,
        .end_ms = end_ms,
        .smoothed = matrix->range.smoothed,
    };
    double left, right;
    size_t first, last;
    if (!extended_edges(&window, false, &left, &right, &first, &last)) {
        columns->count = 0;
        return STATUS_OK;
    }
    size_t inside = last - first;
    if (sample_columns_reserve(columns, 2) < 0)
        return eval_no_room(source->eval);
    memmove(columns->times_ms + 1, columns->times_ms + first, inside * sizeof *columns->times_ms);
    memmove(columns->values + 1, columns->values + first, inside * sizeof *columns->values);
    columns->times_ms[0] = window.start_ms;
    columns->values[0] = left;
    columns->times_ms[inside + 1] = window.end_ms;
    columns->values[inside + 1] = right;
    columns->count = inside + 2;
    return STATUS_OK;
}

/* An instant query for a range vector: the samples as they are. */
static int matrix_collect(struct eval *eval, struct ast *root, struct query_result *result) {
    int status = STATUS_OK;
    struct range_source source;
    struct grid grid = {result->start_ms, 0, 1};
    TRY(range_source_open(eval, root, grid, &source));
    while ((status = range_source_next(&source)) == STATUS_OK) {
        TRY(matrix_extend(&source, root));
        size_t count = source.columns.count;
        if (count == 0)
            continue;
        TRY(eval_samples_check(eval, count));
        struct eval_series named = {.labels = source.labels, .label_count = source.label_count};
        if (source.drop_name)
            labels_drop_name(&named);
        struct result_series out = {.label_count = named.label_count, .count = count};
        TRY(result_labels(eval, result, named.labels, named.label_count, &out.labels));
        out.values = arena_alloc(&result->arena, count * sizeof(double));
        out.times_ms = arena_alloc(&result->arena, count * sizeof(int64_t));
        if (out.values == NULL || out.times_ms == NULL) {
            status = eval_no_room(eval);
            goto out;
        }
        memcpy(out.values, source.columns.values, count * sizeof(double));
        memcpy(out.times_ms, source.columns.times_ms, count * sizeof(int64_t));
        eval->samples_held += count;
        TRY(result_push(eval, result, out));
    }
    if (status == STATUS_END)
        status = STATUS_OK;
out:
    range_source_close(&source);
    return status;
}

static int series_order(const void *a, const void *b) {
    const struct result_series *left = a, *right = b;
    return labels_compare(left->labels, left->label_count, right->labels, right->label_count);
}

static int result_sort(struct eval *eval, struct query_result *result) {
    if (result->series_count == 0)
        return STATUS_OK;
    qsort(result->series, result->series_count, sizeof *result->series, series_order);
    for (size_t i = 1; i < result->series_count; i++) {
        if (series_order(&result->series[i - 1], &result->series[i]) == 0)
            return eval_duplicate(eval);
    }
    return STATUS_OK;
}

static int result_evaluate(struct eval *eval, struct ast *root, struct query_result *result) {
    int status = STATUS_OK;
    bool range = eval->request->range;
    struct grid grid = {result->start_ms, result->step_ms, result->steps};
    switch (root->type) {
    case VALUE_STRING:
        result->type = QUERY_VALUE_STRING;
        result->string = arena_copy(&result->arena, ast_unparen(root)->string);
        break;
    case VALUE_SCALAR: {
        double *values;
        TRY(eval_samples_check(eval, grid.count));
        TRY(scalar_column(eval, root, grid, &values));
        result->type = range ? QUERY_VALUE_MATRIX : QUERY_VALUE_SCALAR;
        if (!range) {
            result->scalar = values[0];
            break;
        }
        struct result_series out = {.count = grid.count};
        out.values = arena_alloc(&result->arena, grid.count * sizeof(double));
        out.present = arena_zalloc(&result->arena, bits_words(grid.count) * 8);
        if (out.values == NULL || out.present == NULL)
            return eval_no_room(eval);
        memcpy(out.values, values, grid.count * sizeof(double));
        bits_fill(out.present, grid.count);
        TRY(result_push(eval, result, out));
        break;
    }
    case VALUE_MATRIX:
        result->type = QUERY_VALUE_MATRIX;
        TRY(matrix_collect(eval, root, result));
        TRY(result_sort(eval, result));
        break;
    default:
        result->type = range ? QUERY_VALUE_MATRIX : QUERY_VALUE_VECTOR;
        TRY(vector_collect(eval, root, result));
        if (range)
            TRY(result_sort(eval, result));
        break;
    }
out:
    return status;
}

/* ---- Annotations
 * ---------------------------------------------------------------------------------------------- */

#define ANNOTATIONS_SHOWN 10

static void time_rfc3339(int64_t ms, char out[40]) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    if (gmtime_r(&seconds, &tm) == NULL || strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(out, 40, "%lld", (long long)seconds);
}

static const char *annotation_text(struct eval *eval, struct query_result *result,
                                   const struct annotation *note) {
    char position[48], more[400] = "";
    text_position(eval->request->text, note->at, position);
    if (note->is_monotonicity) {
        char low[64], high[64], from[40], to[40];
        go_float(note->bucket_min, low);
        go_float(note->bucket_max, high);
        time_rfc3339(note->time_min_ms, from);
        time_rfc3339(note->time_max_ms, to);
        snprintf(more, sizeof more,
                 ", from buckets %s to %s, with a max diff of %.2g, over %llu samples from %s to %s", low,
                 high, note->diff_max, (unsigned long long)note->count, from, to);
    }
    return arena_printf(&result->arena, "%s%s (%s)", note->text, more, position);
}

/* `first`: `first_count` texts that come before the annotations. */
static int annotations_take(struct eval *eval, struct query_result *result, bool is_info,
                            const char *const *first, size_t first_count, const char ***texts_out,
                            size_t *count_out) {
    const char **texts = ARENA_ARRAY(&result->arena, const char *, first_count + ANNOTATIONS_SHOWN + 1);
    size_t count = 0, omitted = 0;
    if (texts == NULL)
        return eval_no_room(eval);
    for (; count < first_count; count++)
        texts[count] = first[count];
    size_t shown = 0;
    for (size_t i = 0; i < eval->annotation_count; i++) {
        if (eval->annotations[i].is_info != is_info)
            continue;
        if (shown++ >= ANNOTATIONS_SHOWN) {
            omitted++;
            continue;
        }
        texts[count] = annotation_text(eval, result, &eval->annotations[i]);
        if (texts[count++] == NULL)
            return eval_no_room(eval);
    }
    if (omitted > 0) {
        texts[count] = arena_printf(&result->arena, "%zu more %s annotations omitted", omitted,
                                    is_info ? "info" : "warning");
        if (texts[count++] == NULL)
            return eval_no_room(eval);
    }
    *texts_out = texts;
    *count_out = count;
    return STATUS_OK;
}

static int times_print(struct eval *eval, struct query_result *result) {
    if (!eval->request->range)
        return STATUS_OK;
    result->time_texts = arena_alloc(&result->arena, result->steps * sizeof *result->time_texts);
    result->time_lens = arena_alloc_bytes(&result->arena, result->steps);
    if (result->time_texts == NULL || result->time_lens == NULL)
        return eval_no_room(eval);
    for (size_t i = 0; i < result->steps; i++)
        result->time_lens[i] =
            (uint8_t)time_text_json(result->start_ms + (int64_t)i * result->step_ms, result->time_texts[i]);
    return STATUS_OK;
}

static int result_finish(struct eval *eval, struct query_result *result) {
    int status = STATUS_OK;
    const char *notes[2];
    size_t note_count = 0;
    if (eval->damage_text[0] != '\0') {
        notes[note_count] =
            arena_printf(&result->arena, "samples may be missing, damaged on disk: %s", eval->damage_text);
        if (notes[note_count++] == NULL)
            return eval_no_room(eval);
    }
    size_t limit = eval->request->series_limit;
    if (limit > 0 && result->series_count > limit) {
        result->series_count = limit;
        notes[note_count++] = "results truncated due to limit";
    }
    /* The list of series was collected in the evaluation's arena. */
    struct result_series *series = arena_alloc(&result->arena, (result->series_count + 1) * sizeof *series);
    if (series == NULL)
        return eval_no_room(eval);
    if (result->series_count > 0)
        memcpy(series, result->series, result->series_count * sizeof *series);
    result->series = series;
    TRY(times_print(eval, result));
    TRY(annotations_take(eval, result, false, notes, note_count, &result->warnings, &result->warning_count));
    TRY(annotations_take(eval, result, true, NULL, 0, &result->infos, &result->info_count));
out:
    return status;
}

/* ---- The whole way
 * ----------------------------------------------------------------------------------------------- */

static int steps_count(const struct query_request *request, const struct limits *limits,
                       struct query_error *error, size_t *out) {
    *out = 1;
    if (!request->range)
        return STATUS_OK;
    if (request->step_ms <= 0 || request->end_ms < request->start_ms) {
        error->type = QUERY_ERROR_BAD_DATA;
        snprintf(error->text, sizeof error->text, "invalid range");
        return STATUS_BAD_QUERY;
    }
    /* The API allows far fewer. A single series would be more than the query may hold. */
    uint64_t last = ((uint64_t)request->end_ms - (uint64_t)request->start_ms) / (uint64_t)request->step_ms;
    if (last >= limits->query_samples_max) {
        error->type = QUERY_ERROR_EXECUTION;
        snprintf(error->text, sizeof error->text,
                 "query processing would load too many samples into memory in query execution");
        return STATUS_BUDGET;
    }
    *out = (size_t)last + 1;
    return STATUS_OK;
}

int query_run(struct storage *storage, const struct limits *limits, const struct clock *clock,
              const struct query_request *request, struct query_error *error, struct query_result **out) {
    int status = STATUS_OK;
    uint64_t begun_ns = clock_monotonic_ns(clock);
    uint64_t timeout_ns =
        request->timeout_ms > UINT64_MAX / 2000000 ? UINT64_MAX / 2 : request->timeout_ms * 1000000;
    *error = (struct query_error){0};
    struct parse_result parsed = {0};
    struct eval eval = {.storage = storage,
                        .limits = limits,
                        .clock = clock,
                        .request = request,
                        .error = error,
                        .deadline_ns = begun_ns + timeout_ns,
                        .end_ms = request->end_ms,
                        .delayed_names = request->delayed_name_removal};
    struct query_result *result = mem_zalloc(sizeof *result);
    if (result == NULL)
        return error_memory(error);
    eval.result_arena = &result->arena;
    arena_init(&eval.arena, 256 << 10, (size_t)limits->query_bytes_max);
    arena_init(&result->arena, 256 << 10, (size_t)limits->query_bytes_max);
    TRY(query_parse(request->text, limits, &eval.arena, error, &parsed));
    struct ast *root = parsed.root;
    if (request->range && root->type != VALUE_SCALAR && root->type != VALUE_VECTOR) {
        error->type = QUERY_ERROR_BAD_DATA;
        snprintf(error->text, sizeof error->text,
                 "invalid expression type \"%s\" for range query, must be Scalar or instant Vector",
                 value_type_name(root->type));
        status = STATUS_BAD_QUERY;
        goto out;
    }
    TRY(steps_count(request, limits, error, &result->steps));
    result->start_ms = request->start_ms;
    result->step_ms = request->range ? request->step_ms : 0;
    TRY(durations_resolve(root, request->start_ms, request->end_ms, result->step_ms, error));
    invariant_mark(root);
    eval.step_count = result->steps;
    if (request->step_stats) {
        eval.samples_at_step =
            arena_zalloc(&result->arena, (result->steps + 1) * sizeof *eval.samples_at_step);
        eval.read_at_step = arena_zalloc(&result->arena, (result->steps + 1) * sizeof *eval.read_at_step);
        if (eval.samples_at_step == NULL || eval.read_at_step == NULL) {
            status = eval_no_room(&eval);
            goto out;
        }
    }
    eval.seed = rand_seed_from_system();
    TRY(eval_tick(&eval));
    TRY(result_evaluate(&eval, root, result));
    TRY(result_finish(&eval, result));
    result->stats = (struct query_stats){.samples_total = eval.samples_queried,
                                         .samples_read = eval.samples_read,
                                         .samples_peak = eval.samples_peak,
                                         .duration_ns = clock_monotonic_ns(clock) - begun_ns,
                                         .samples_at_step = eval.samples_at_step,
                                         .read_at_step = eval.read_at_step,
                                         .start_ms = result->start_ms,
                                         .step_ms = result->step_ms,
                                         .step_count = result->steps};
    *out = result;
out:
    nodes_release(&eval);
    parse_regexes_release(&parsed.regexes);
    arena_release(&eval.arena);
    if (status < 0)
        query_result_free(result);
    return status;
}

void query_result_free(struct query_result *result) {
    if (result == NULL)
        return;
    arena_release(&result->arena);
    mem_free(result);
}

enum query_value_type query_result_type(const struct query_result *result) {
    return result->type;
}

size_t query_result_series_count(const struct query_result *result) {
    return result->series_count;
}

size_t query_result_warnings(const struct query_result *result, const char *const **texts) {
    *texts = result->warnings;
    return result->warning_count;
}

size_t query_result_infos(const struct query_result *result, const char *const **texts) {
    *texts = result->infos;
    return result->info_count;
}

void query_result_stats(const struct query_result *result, struct query_stats *out) {
    *out = result->stats;
}
