/* promqltest.c: runs Prometheus' .test scripts (load, eval, clear) against the evaluator on the fake storage.
 *
 *     promqltest [--known FILE] [--verbose] [DIR]
 *
 * Prints "N passed, N failed, N skipped". Skipped are only evaluations that answer "… is not supported yet"
 * and those that fail while the loaded data holds what can't be stored yet (native histograms, start
 * timestamps). Failures listed in the known file (`file:line reason`, one a line) do not fail the run; one
 * that passes must be taken out of it. Every instant evaluation runs a second time as the middle of a range
 * query. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "query/eval.h"
#include "query/regex.h"
#include "query/result.h"
#include "tests/unit/query/fake_storage.h"

#define LINES_MAX    20000
#define EXPECTED_MAX 512
#define TOKENS_MAX   4096

struct value {
    bool present;
    double v;
};

struct expected_series {
    struct label *labels;
    size_t label_count;
    struct value *values;
    size_t value_count;
    bool seen;
};

struct expectation {
    bool ordered, fail, warn, no_warn, info, no_info, has_string, has_scalar, has_range;
    char *fail_text, *warn_text[8], *info_text[8]; /* "msg:…" or "regex:…" */
    size_t warn_count, info_count;
    char *string;
    double scalar;
    int64_t range_start, range_end, range_step;
    struct expected_series series[EXPECTED_MAX];
    size_t series_count;
    bool has_histogram;
};

struct run {
    struct storage *storage;
    struct limits limits;
    struct arena arena;
    bool has_unstorable; /* the data has native histograms or start timestamps */
    const char *file;
    size_t line;
    size_t passed, failed, skipped, known_failed, known_passed;
    bool verbose;
    char *known;
};

static const char *skip_space(const char *p) {
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static bool starts(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* ---- Series lines
 * ------------------------------------------------------------------------------------------ */

/* Where the description ends and the values begin. */
static size_t description_end(const char *line) {
    size_t i = 0;
    bool braces = false;
    for (char quote = 0; line[i] != 0; i++) {
        if (quote != 0) {
            if (line[i] == '\\' && quote != '`' && line[i + 1] != 0)
                i++;
            else if (line[i] == quote)
                quote = 0;
        } else if (line[i] == '"' || line[i] == '\'' || line[i] == '`') {
            quote = line[i];
        } else if (line[i] == '{') {
            braces = true;
        } else if (line[i] == '}') {
            braces = false;
        } else if (!braces && (line[i] == ' ' || line[i] == '\t')) {
            const char *next = skip_space(line + i);
            if (*next != '{' || next[1] == '{')
                break;
        }
    }
    return i;
}

static bool labels_parse(struct run *run, const char *text, size_t len, struct label **labels_out,
                         size_t *count_out) {
    struct query_error error;
    struct query_selector selector = {0};
    char *copy = arena_str(&run->arena, slice_of(text, len));
    ASSERT(copy != NULL);
    size_t count = 0;
    struct label *labels = NULL;
    int status = query_selector_parse(slice_of(copy, len), &run->limits, &run->arena, &error, &selector);
    if (status < 0 && strstr(error.text, "non-empty matcher") == NULL) {
        fprintf(stderr, "%s:%zu: %s: %s\n", run->file, run->line, copy, error.text);
        return false;
    }
    labels = arena_alloc(&run->arena, (selector.count + 1) * sizeof *labels);
    ASSERT(labels != NULL);
    for (size_t i = 0; i < selector.count; i++) {
        if (selector.matchers[i].value.len > 0) /* an empty label is none */
            labels[count++] = (struct label){selector.matchers[i].name, selector.matchers[i].value};
    }
    for (size_t i = 1; i < count; i++) {
        for (size_t k = i; k > 0 && slice_compare(labels[k].name, labels[k - 1].name) < 0; k--) {
            struct label swap = labels[k];
            labels[k] = labels[k - 1];
            labels[k - 1] = swap;
        }
    }
    query_selector_release(&selector);
    *labels_out = labels;
    *count_out = count;
    return true;
}

static bool number_read(const char **p, double *out) {
    char *end;
    if (strncmp(*p, "stale", 5) == 0) {
        *out = bits_double(STALE_NAN_BITS);
        *p += 5;
        return true;
    }
    /* Without the repetition behind it: strtod would read 0x10 as hexadecimal. */
    char copy[64];
    size_t len = 0;
    while (len < sizeof copy - 1 && (*p)[len] != 0 && (*p)[len] != 'x' && (*p)[len] != ' ') {
        copy[len] = (*p)[len];
        len++;
    }
    copy[len] = 0;
    *out = strtod(copy, &end);
    if (end == copy)
        return false;
    *p += end - copy;
    return true;
}

/* Appends what one token stands for. False: a native histogram, or something unknown. */
static bool token_expand(const char *p, struct value *out, size_t *count) {
    if (*p == '_') {
        size_t times = p[1] == 'x' ? strtoul(p + 2, NULL, 10) : 1;
        while (times-- > 0 && *count < TOKENS_MAX)
            out[(*count)++] = (struct value){0};
        return true;
    }
    double start, step = 0;
    if (!number_read(&p, &start))
        return false;
    size_t times = 0;
    if (*p == '+' || *p == '-') {
        const char *sign = p;
        p++;
        if (!number_read(&p, &step))
            return false;
        if (*sign == '-')
            step = -step;
    }
    if (*p == 'x')
        times = strtoul(p + 1, NULL, 10);
    else if (*p != 0)
        return false;
    for (size_t i = 0; i <= times && *count < TOKENS_MAX; i++) {
        out[(*count)++] = (struct value){true, start};
        if (step != 0)
            start += step;
    }
    return true;
}

static bool values_parse(struct run *run, const char *text, struct value **values_out, size_t *count_out) {
    struct value *values = arena_zalloc(&run->arena, TOKENS_MAX * sizeof *values);
    ASSERT(values != NULL);
    size_t count = 0;
    if (strstr(text, "{{") != NULL)
        return false;
    for (const char *p = skip_space(text); *p != 0; p = skip_space(p)) {
        char token[128];
        size_t len = strcspn(p, " \t");
        ASSERT(len < sizeof token);
        memcpy(token, p, len);
        token[len] = 0;
        if (!token_expand(token, values, &count))
            return false;
        p += len;
    }
    *values_out = values;
    *count_out = count;
    return true;
}

static int64_t duration_read(const char *text) {
    int64_t ms = 0;
    if (!query_duration_parse(slice_str(text), &ms))
        fprintf(stderr, "bad duration %s\n", text);
    return ms;
}

static void load_line(struct run *run, const char *line, int64_t step_ms) {
    size_t end = description_end(line);
    struct label *labels;
    size_t label_count, count;
    struct value *values;
    if (memchr(line, '@', end) != NULL && strstr(line, "@st") != NULL) {
        run->has_unstorable = true;
        return;
    }
    if (!labels_parse(run, line, end, &labels, &label_count))
        return;
    if (!values_parse(run, line + end, &values, &count)) {
        run->has_unstorable = true;
        return;
    }
    size_t series = fake_storage_series(run->storage, labels, label_count);
    fake_storage_empty(run->storage, series);
    for (size_t i = 0; i < count; i++) {
        if (values[i].present)
            fake_storage_add(run->storage, series, (int64_t)i * step_ms, values[i].v);
    }
}

/* ---- Comparison
 * --------------------------------------------------------------------------------------------- */

static bool float_same(double a, double b) {
    if (double_bits(a) == STALE_NAN_BITS || double_bits(b) == STALE_NAN_BITS)
        return double_bits(a) == double_bits(b);
    if (a == b || (isnan(a) && isnan(b)))
        return true;
    double sum = fabs(a) + fabs(b), diff = fabs(a - b);
    if (a == 0 || b == 0 || sum < 2.2250738585072014e-308)
        return diff < 1e-6 * 2.2250738585072014e-308;
    return diff / fmin(sum, 1.7976931348623157e308) < 1e-6;
}

static bool text_matches(struct run *run, const char *want, const char *text) {
    if (want == NULL)
        return true;
    if (starts(want, "msg:"))
        return strcmp(skip_space(want + 4), text) == 0;
    char *pattern = arena_printf(&run->arena, ".*(?:%s).*", skip_space(want + 6));
    char error[REGEX_ERROR_BYTES];
    struct regex *regex;
    if (regex_new(slice_str(pattern), 1 << 20, false, error, &regex) < 0)
        return false;
    bool matches = regex_pattern(regex)->match(regex_pattern(regex), slice_str(text));
    regex_free(regex);
    return matches;
}

static const char *annotations_check(struct run *run, const char *const *texts, size_t count, bool want,
                                     bool want_none, char *const *patterns, size_t pattern_count) {
    if (want_none && count > 0)
        return texts[0];
    if (!want)
        return NULL;
    if (count == 0)
        return "an expected annotation is missing";
    for (size_t i = 0; pattern_count > 0 && i < count; i++) {
        bool found = false;
        for (size_t k = 0; k < pattern_count; k++)
            found = found || text_matches(run, patterns[k], texts[i]);
        if (!found)
            return texts[i];
    }
    for (size_t k = 0; k < pattern_count; k++) {
        bool found = false;
        for (size_t i = 0; i < count; i++)
            found = found || text_matches(run, patterns[k], texts[i]);
        if (!found)
            return "an expected annotation is missing";
    }
    return NULL;
}

static const char *labels_text(struct run *run, const struct label *labels, size_t count) {
    struct buf buf;
    buf_init(&buf);
    labels_print_braces(&buf, labels, count);
    const char *text = arena_str(&run->arena, buf_slice(&buf));
    buf_release(&buf);
    return text;
}

static struct expected_series *expected_find(struct expectation *expect, const struct result_series *series,
                                             size_t at) {
    if (expect->ordered)
        return at < expect->series_count &&
                       labels_equal(expect->series[at].labels, expect->series[at].label_count, series->labels,
                                    series->label_count)
                   ? &expect->series[at]
                   : NULL;
    for (size_t i = 0; i < expect->series_count; i++) {
        struct expected_series *e = &expect->series[i];
        if (!e->seen && labels_equal(e->labels, e->label_count, series->labels, series->label_count))
            return e;
    }
    return NULL;
}

/* Values of a result series on a grid. */
static struct value result_value(const struct query_result *result, const struct result_series *series,
                                 int64_t time_ms) {
    size_t n = 0;
    for (size_t i = 0; series->times_ms != NULL && i < series->count; i++) {
        if (series->times_ms[i] == time_ms)
            return (struct value){true, series->values[i]};
    }
    if (series->present == NULL)
        return (struct value){0};
    for (BITS_EACH(i, series->present, result->steps)) {
        if (result->start_ms + (int64_t)i * result->step_ms == time_ms)
            return (struct value){true, series->values[n]};
        n++;
    }
    return (struct value){0};
}

static const char *series_check(struct run *run, struct expectation *expect,
                                const struct query_result *result, int64_t start, int64_t step,
                                bool middle_only) {
    for (size_t i = 0; i < expect->series_count; i++)
        expect->series[i].seen = false;
    for (size_t i = 0; i < result->series_count; i++) {
        const struct result_series *series = &result->series[i];
        if (middle_only && !result_value(result, series, start).present)
            continue;
        struct expected_series *want = expected_find(expect, series, i);
        if (want == NULL)
            return arena_printf(&run->arena, "unexpected series %s",
                                labels_text(run, series->labels, series->label_count));
        want->seen = true;
        size_t found = 0;
        for (size_t k = 0; k < want->value_count; k++) {
            struct value have = result_value(result, series, start + (int64_t)k * step);
            found += have.present;
            if (have.present != want->values[k].present ||
                (have.present && !float_same(have.v, want->values[k].v)))
                return arena_printf(&run->arena, "%s: value %zu is %s%.17g, expected %s%.17g",
                                    labels_text(run, series->labels, series->label_count), k,
                                    have.present ? "" : "absent ", have.v,
                                    want->values[k].present ? "" : "absent ", want->values[k].v);
        }
        if (!middle_only && found != series->count)
            return arena_printf(&run->arena, "%s: %zu points more than expected",
                                labels_text(run, series->labels, series->label_count), series->count - found);
    }
    for (size_t i = 0; i < expect->series_count; i++) {
        if (!expect->series[i].seen)
            return arena_printf(&run->arena, "series %s is missing",
                                labels_text(run, expect->series[i].labels, expect->series[i].label_count));
    }
    return NULL;
}

static const char *result_check(struct run *run, struct expectation *expect, struct query_request *request,
                                const struct query_result *result) {
    const char *fault = annotations_check(run, result->warnings, result->warning_count, expect->warn,
                                          expect->no_warn, expect->warn_text, expect->warn_count);
    if (fault == NULL)
        fault = annotations_check(run, result->infos, result->info_count, expect->info, expect->no_info,
                                  expect->info_text, expect->info_count);
    if (fault != NULL)
        return arena_printf(&run->arena, "annotation: %s", fault);
    if (expect->has_string)
        return result->type == QUERY_VALUE_STRING && slice_equal(result->string, slice_str(expect->string))
                   ? NULL
                   : "not that string";
    if (expect->has_scalar) {
        if (result->type == QUERY_VALUE_MATRIX && result->series_count == 1)
            return float_same(result->series[0].values[0], expect->scalar) ? NULL : "not that scalar";
        if (result->type == QUERY_VALUE_SCALAR && float_same(result->scalar, expect->scalar))
            return NULL;
        return arena_printf(&run->arena, "scalar is %.17g, expected %.17g", result->scalar, expect->scalar);
    }
    if (expect->has_range)
        return series_check(run, expect, result, expect->range_start, expect->range_step, false);
    return series_check(run, expect, result, request->start_ms, request->step_ms, false);
}

/* ---- eval
 * ----------------------------------------------------------------------------------------------------- */

/* NULL: as expected; else what was wrong. */
static const char *query_check_once(struct run *run, struct expectation *expect,
                                    struct query_request *request, bool as_middle) {
    struct query_error error;
    struct query_result *result = NULL;
    int status = query_run(run->storage, &run->limits, clock_system(), request, &error, &result);
    const char *fault = NULL;
    if (status < 0) {
        const char *text = arena_str(&run->arena, slice_str(error.text));
        if (as_middle && expect->fail)
            return NULL;
        return expect->fail && text_matches(run, expect->fail_text, text) ? NULL : text;
    }
    if (expect->fail && !as_middle)
        fault = "it should have failed";
    else if (!as_middle)
        fault = result_check(run, expect, request, result);
    else if (!expect->ordered && !expect->has_string && !expect->has_range && !expect->has_scalar &&
             !expect->fail)
        fault = series_check(run, expect, result, request->start_ms + 60000, 60000, true);
    query_result_free(result);
    return fault;
}

static bool is_known(struct run *run) {
    char key[256];
    snprintf(key, sizeof key, "%s:%zu ", run->file, run->line);
    for (const char *p = run->known; p != NULL && (p = strstr(p, key)) != NULL; p++) {
        if (p == run->known || p[-1] == '\n')
            return true;
    }
    return false;
}

static void eval_run(struct run *run, struct expectation *expect, struct query_request *request) {
    const char *fault = query_check_once(run, expect, request, false);
    if (fault == NULL && !request->range) {
        struct query_request range = *request;
        char *text = arena_str(&run->arena, request->text);
        bool uses_range = strstr(text, "start()") || strstr(text, "end()") || strstr(text, "range()") ||
                          strstr(text, "step()") || expect->has_range || expect->has_string;
        range.range = true;
        range.start_ms -= 60000;
        range.end_ms += 60000;
        range.step_ms = 60000;
        if (!uses_range)
            fault = query_check_once(run, expect, &range, true);
        if (fault != NULL)
            fault = arena_printf(&run->arena, "(as a range) %s", fault);
    }
    bool known = is_known(run);
    if (fault == NULL && expect->has_histogram && !expect->fail)
        fault = "native histogram expected";
    if (fault == NULL) {
        run->passed++;
        if (known) {
            run->known_passed++;
            printf("%s:%zu: passes, but is listed as known to fail\n", run->file, run->line);
        }
        return;
    }
    if (strstr(fault, "not supported yet") != NULL || run->has_unstorable || expect->has_histogram) {
        run->skipped++;
        if (run->verbose)
            printf("%s:%zu: skipped: %s\n", run->file, run->line, fault);
        return;
    }
    run->failed++;
    run->known_failed += known;
    if (!known || run->verbose)
        printf("%s:%zu: %.*s\n    %s\n", run->file, run->line, SLICE_ARGS(request->text), fault);
}

static void expect_line(struct run *run, struct expectation *expect, const char *line) {
    const char *what = skip_space(line + 6);
    char word[16];
    size_t len = strcspn(what, " \t");
    snprintf(word, sizeof word, "%.*s", (int)(len < 15 ? len : 15), what);
    const char *rest = skip_space(what + len);
    char *pattern = *rest == 0 ? NULL : arena_str(&run->arena, slice_str(rest));
    if (strcmp(word, "ordered") == 0) {
        expect->ordered = true;
    } else if (strcmp(word, "fail") == 0) {
        expect->fail = true;
        expect->fail_text = pattern;
    } else if (strcmp(word, "warn") == 0) {
        expect->warn = true;
        if (pattern != NULL && expect->warn_count < 8)
            expect->warn_text[expect->warn_count++] = pattern;
    } else if (strcmp(word, "info") == 0) {
        expect->info = true;
        if (pattern != NULL && expect->info_count < 8)
            expect->info_text[expect->info_count++] = pattern;
    } else if (strcmp(word, "no_warn") == 0) {
        expect->no_warn = true;
    } else if (strcmp(word, "no_info") == 0) {
        expect->no_info = true;
    } else if (strcmp(word, "string") == 0) {
        struct query_error error;
        struct parse_result parsed;
        if (query_parse(slice_str(pattern), &run->limits, &run->arena, &error, &parsed) >= 0) {
            expect->has_string = true;
            expect->string = arena_str(&run->arena, parsed.root->string);
        }
    } else if (strcmp(word, "range") == 0) {
        char from[64], to[64], step[64];
        if (sscanf(rest, "vector from %63s to %63s step %63s", from, to, step) == 3) {
            expect->has_range = true;
            expect->range_start = duration_read(from);
            expect->range_end = duration_read(to);
            expect->range_step = duration_read(step);
        }
    }
}

static bool scalar_line(const char *line, double *out) {
    char *end;
    *out = strtod(line, &end);
    return end != line && *skip_space(end) == 0;
}

static size_t eval_command(struct run *run, char **lines, size_t at, size_t count) {
    struct expectation *expect = arena_zalloc(&run->arena, sizeof *expect);
    ASSERT(expect != NULL);
    char *line = lines[at];
    run->line = at + 1;
    char *head = line + strcspn(line, " \t");
    expect->fail = starts(line, "eval_fail");
    expect->warn = starts(line, "eval_warn");
    expect->info = starts(line, "eval_info");
    expect->ordered = starts(line, "eval_ordered");
    char from[64], to[64], step[64];
    int used = 0;
    struct query_request request = {.lookback_ms = 300000, .timeout_ms = 60000};
    if (sscanf(head, " instant at %63s %n", from, &used) == 1 && used > 0) {
        request.start_ms = request.end_ms = duration_read(from);
    } else if (sscanf(head, " range from %63s to %63s step %63s %n", from, to, step, &used) == 3 &&
               used > 0) {
        request.range = true;
        request.start_ms = duration_read(from);
        request.end_ms = duration_read(to);
        request.step_ms = duration_read(step);
    } else {
        fprintf(stderr, "%s:%zu: can't read: %s\n", run->file, run->line, line);
        run->failed++;
        return at + 1;
    }
    request.text = slice_str(head + used);
    for (at++; at < count && lines[at][0] != 0; at++) {
        if (starts(lines[at], "expect ") || starts(lines[at], "expected_fail")) {
            expect_line(run, expect, lines[at]);
            continue;
        }
        double scalar;
        if (scalar_line(lines[at], &scalar)) {
            expect->has_scalar = true;
            expect->scalar = scalar;
            continue;
        }
        ASSERT(expect->series_count < EXPECTED_MAX);
        struct expected_series *series = &expect->series[expect->series_count];
        size_t end = description_end(lines[at]);
        if (!values_parse(run, lines[at] + end, &series->values, &series->value_count)) {
            expect->has_histogram = true;
            continue;
        }
        if (labels_parse(run, lines[at], end, &series->labels, &series->label_count))
            expect->series_count++;
    }
    eval_run(run, expect, &request);
    return at;
}

static char *file_read(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *text = mem_alloc((size_t)size + 1);
    ASSERT(text != NULL);
    text[fread(text, 1, (size_t)size, file)] = 0;
    fclose(file);
    return text;
}

static void file_run(struct run *run, const char *path, const char *name) {
    char *text = file_read(path), **lines = mem_alloc(LINES_MAX * sizeof(char *));
    ASSERT(text != NULL && lines != NULL);
    size_t count = 0;
    for (char *p = text; p != NULL;) {
        char *end = strchr(p, '\n');
        if (end != NULL)
            *end = 0;
        char *line = p;
        while (*line == ' ' || *line == '\t')
            line++;
        size_t len = strlen(line);
        while (len > 0 && strchr(" \t\r", line[len - 1]) != NULL)
            line[--len] = 0;
        if (*line == '#')
            *line = 0;
        ASSERT(count < LINES_MAX);
        lines[count++] = line;
        p = end == NULL ? NULL : end + 1;
    }
    run->file = name;
    run->has_unstorable = false;
    fake_storage_clear(run->storage);
    size_t passed = run->passed, failed = run->failed, skipped = run->skipped;
    for (size_t at = 0; at < count;) {
        arena_reset(&run->arena);
        run->line = at + 1;
        if (lines[at][0] == 0) {
            at++;
        } else if (starts(lines[at], "clear")) {
            fake_storage_clear(run->storage);
            run->has_unstorable = false;
            at++;
        } else if (starts(lines[at], "load")) {
            run->has_unstorable = run->has_unstorable || starts(lines[at], "load_with_nhcb");
            int64_t step = duration_read(skip_space(lines[at] + strcspn(lines[at], " \t")));
            for (at++; at < count && lines[at][0] != 0; at++) {
                run->line = at + 1;
                load_line(run, lines[at], step);
            }
        } else if (starts(lines[at], "eval")) {
            at = eval_command(run, lines, at, count);
        } else {
            fprintf(stderr, "%s:%zu: what is this: %s\n", name, at + 1, lines[at]);
            run->failed++;
            at++;
        }
    }
    printf("%-28s %4zu passed, %zu failed, %zu skipped\n", name, run->passed - passed, run->failed - failed,
           run->skipped - skipped);
    mem_free(lines);
    mem_free(text);
}

static int name_order(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv) {
    struct run run = {0};
    const char *dir = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--known") == 0 && i + 1 < argc)
            run.known = file_read(argv[++i]);
        else if (strcmp(argv[i], "--verbose") == 0)
            run.verbose = true;
        else
            dir = argv[i];
    }
    if (getenv("TIDALITE_PROMQLTEST_DIR") != NULL)
        dir = getenv("TIDALITE_PROMQLTEST_DIR");
    DIR *folder = dir == NULL ? NULL : opendir(dir);
    if (folder == NULL) {
        bool ci = getenv("CI") != NULL && strcmp(getenv("CI"), "true") == 0;
        printf("%s: no scripts at %s (set TIDALITE_PROMQLTEST_DIR)\n", ci ? "failed" : "skipped",
               dir == NULL ? "?" : dir);
        mem_free(run.known);
        return ci ? 1 : 77;
    }
    run.storage = fake_storage_new();
    limits_init(&run.limits);
    arena_init(&run.arena, 1 << 20, 0);
    char *names[256];
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        size_t len = strlen(entry->d_name);
        if (len > 5 && strcmp(entry->d_name + len - 5, ".test") == 0 && count < 256)
            names[count++] = mem_strndup(entry->d_name, len);
    }
    closedir(folder);
    qsort(names, count, sizeof names[0], name_order);
    for (size_t i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        file_run(&run, path, names[i]);
        mem_free(names[i]);
    }
    printf("%zu passed, %zu failed (%zu of them known), %zu skipped\n", run.passed, run.failed,
           run.known_failed, run.skipped);
    bool good = run.failed == run.known_failed && run.known_passed == 0 && run.passed > 0;
    fake_storage_free(run.storage);
    arena_release(&run.arena);
    mem_free(run.known);
    return good ? 0 : 1;
}
